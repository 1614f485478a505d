//! The replica's side of a full synchronization, up to the last byte of the RDB.
//!
//! The primary sends (Redis `replication.c`, Valkey `replication.c`): one reply per command; then
//! for `PSYNC ? -1` any number of bare line feeds while it prepares, the line `+FULLRESYNC <id>
//! <offset>`, more line feeds, and the payload: `$<length>` and that many bytes, or `$EOF:<mark of
//! 40 bytes>`, bytes of unknown length, and the mark again.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Bytes, BytesMut};
use memchr::memmem;

use crate::resp::encode_command;

const MARK_BYTES: usize = 40;
const LINE_BYTES_MAX: usize = 4096;

/// The configuration of a session.
#[derive(Clone, Default)]
pub struct ReplicaConfig {
    /// ACL user (`None` for the default user) and password.
    pub login: Option<(Option<String>, Vec<u8>)>,
    /// The listening port that the primary lists for this replica.
    pub announced_port: Option<u32>,
    /// The announced server version, by which Valkey 9 selects the RDB version.
    pub claimed_version: Option<&'static str>,
}

/// A command of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `AUTH`
    Authenticate,
    /// `PING`
    Greet,
    /// `REPLCONF listening-port`
    AnnouncePort,
    /// `REPLCONF capa eof`
    AnnounceCapabilities,
    /// `REPLCONF rdb-only 1`: known since Redis 6.2 and to every Valkey
    AskRdbOnly,
    /// `REPLCONF version`: known since Valkey 8
    ClaimVersion,
    /// `PSYNC ? -1`
    Synchronize,
}

impl Step {
    /// The command's name in lower case.
    pub fn command(self) -> &'static str {
        match self {
            Self::Authenticate => "auth",
            Self::Greet => "ping",
            Self::Synchronize => "psync",
            _ => "replconf",
        }
    }

    /// Whether the session can continue if the server does not know the command's option.
    fn is_optional(self) -> bool {
        matches!(self, Self::AnnouncePort | Self::AskRdbOnly | Self::ClaimVersion)
    }
}

/// How the primary delimits the RDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By its length; the primary sends a file of its disk.
    Length(u64),
    /// By a mark behind the end; the primary's child writes to the socket.
    EofMark,
}

/// An event of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicaEvent {
    /// The server replied to a step; `false` if it does not know an optional one.
    Answered(Step, bool),
    /// The primary accepted a full synchronization.
    FullResync {
        /// Replication id: 40 hexadecimal digits.
        replication_id: String,
        /// Replication offset of the snapshot.
        offset: u64,
    },
    /// The RDB begins.
    PayloadStarted(Framing),
    /// A piece of the RDB.
    Payload(Bytes),
    /// The RDB is complete; its length in bytes.
    PayloadFinished(u64),
}

/// A server's refusal of a step, classified by its error prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// `NOAUTH`
    #[error("the server requires a password")]
    PasswordRequired,
    /// `WRONGPASS`, or any other refusal of `AUTH`
    #[error("the server refused the user name or password: {0}")]
    WrongPassword(String),
    /// `NOPERM`, or the command is unknown (renamed away)
    #[error("the server denies the command `{}`: {detail}", .step.command())]
    Denied {
        /// The step.
        step: Step,
        /// The server's message.
        detail: String,
    },
    /// A temporary state: `LOADING`, `NOMASTERLINK`, `MASTERDOWN`, a failover, a failed fork
    #[error("the server cannot synchronize now: {0}")]
    NotNow(String),
    /// Any other refusal
    #[error("the server refused the command `{}`: {detail}", .step.command())]
    Refused {
        /// The step.
        step: Step,
        /// The server's message.
        detail: String,
    },
}

/// The reason why the session ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The server refused a step.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The server sent data that the protocol does not permit here.
    #[error("unexpected answer to `{}`: {got}", .step.command())]
    Unexpected {
        /// The step of the unexpected reply.
        step: Step,
        /// The received data, in printable form.
        got: String,
    },
}

enum State {
    /// Waits for the reply to this step.
    Handshake(Step),
    /// Waits for the line that frames the payload.
    Header,
    /// In a payload of known length.
    Length {
        left: u64,
    },
    /// In a payload that ends with a mark.
    Mark(Box<MarkScanner>),
    Finished,
}

/// One synchronization as a replica.
pub struct ReplicaSession {
    state: State,
    steps: VecDeque<(Step, Vec<u8>)>,
    transmit: Vec<u8>,
    events: VecDeque<ReplicaEvent>,
    line: BytesMut,
    payload_bytes: u64,
}

impl fmt::Debug for ReplicaSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The queued commands contain a password.
        f.debug_struct("ReplicaSession")
            .field("payload_bytes", &self.payload_bytes)
            .finish_non_exhaustive()
    }
}

impl ReplicaSession {
    /// Creates a session at its beginning.
    pub fn new(config: &ReplicaConfig) -> Self {
        let mut session = Self {
            state: State::Finished,
            steps: handshake(config),
            transmit: Vec::new(),
            events: VecDeque::new(),
            line: BytesMut::new(),
            payload_bytes: 0,
        };
        session.send_next_step();
        session
    }

    /// The next output for the socket, if there is any.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.transmit.is_empty()).then(|| std::mem::take(&mut self.transmit))
    }

    /// The next event, if there is one.
    pub fn poll_event(&mut self) -> Option<ReplicaEvent> {
        self.events.pop_front()
    }

    /// Whether the RDB is complete.
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished)
    }

    /// Processes bytes of the network, in pieces of any size. Payload is passed on without a copy.
    ///
    /// # Errors
    /// [`SessionError`], which ends the session.
    pub fn handle_bytes(&mut self, mut bytes: Bytes) -> Result<(), SessionError> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Finished => return Ok(()),
                State::Handshake(_) | State::Header => {
                    let Some(line) = self.take_line(&mut bytes)? else { return Ok(()) };
                    self.handle_line(&line)?;
                }
                State::Length { left } => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    let piece = bytes.split_to(take);
                    *left -= take as u64;
                    let finished = *left == 0;
                    self.deliver(piece);
                    if finished {
                        self.finish();
                    }
                }
                State::Mark(scanner) => {
                    let (pieces, finished) = scanner.scan(std::mem::take(&mut bytes));
                    for piece in pieces {
                        self.deliver(piece);
                    }
                    if finished {
                        self.finish();
                    }
                }
            }
        }
        Ok(())
    }

    fn deliver(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.payload_bytes += piece.len() as u64;
            self.events.push_back(ReplicaEvent::Payload(piece));
        }
    }

    fn finish(&mut self) {
        self.state = State::Finished;
        self.events.push_back(ReplicaEvent::PayloadFinished(self.payload_bytes));
    }

    fn send_next_step(&mut self) {
        if let Some((step, command)) = self.steps.pop_front() {
            self.transmit.extend_from_slice(&command);
            self.state = State::Handshake(step);
        }
    }

    /// The next line without its end; skips empty lines, the primary's keep-alives.
    fn take_line(&mut self, bytes: &mut Bytes) -> Result<Option<Bytes>, SessionError> {
        loop {
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                self.line.extend_from_slice(bytes);
                bytes.clear();
                if self.line.len() > LINE_BYTES_MAX {
                    return Err(self.unexpected(&self.line));
                }
                return Ok(None);
            };
            self.line.extend_from_slice(&bytes.split_to(end + 1)[..end]);
            let mut line = self.line.split().freeze();
            if line.last() == Some(&b'\r') {
                line.truncate(line.len() - 1);
            }
            if line.len() > LINE_BYTES_MAX {
                return Err(self.unexpected(&line));
            }
            if !line.is_empty() {
                return Ok(Some(line));
            }
            if bytes.is_empty() {
                return Ok(None);
            }
        }
    }

    fn handle_line(&mut self, line: &[u8]) -> Result<(), SessionError> {
        let step = self.step();
        if let Some(error) = line.strip_prefix(b"-") {
            let refusal = classify(step, &printable(error));
            let unknown_option = matches!(refusal, HandshakeError::Refused { .. });
            // A server whose disk fails refuses writes and `PING`, but its data is available.
            let is_disk_full = step == Step::Greet && error.starts_with(b"MISCONF");
            if !(step.is_optional() && unknown_option || is_disk_full) {
                return Err(refusal.into());
            }
            self.events.push_back(ReplicaEvent::Answered(step, false));
            self.send_next_step();
            return Ok(());
        }
        if matches!(self.state, State::Header) {
            return self.handle_header(line);
        }
        if step == Step::Synchronize {
            return self.handle_full_resync(line);
        }
        if !line.starts_with(b"+") {
            return Err(self.unexpected(line));
        }
        self.events.push_back(ReplicaEvent::Answered(step, true));
        self.send_next_step();
        Ok(())
    }

    fn handle_full_resync(&mut self, line: &[u8]) -> Result<(), SessionError> {
        let parsed = std::str::from_utf8(line).ok().and_then(|text| {
            let mut words = text.strip_prefix("+FULLRESYNC ")?.split(' ');
            let id = words
                .next()
                .filter(|id| id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit()))?;
            let offset = words.next()?.parse().ok()?;
            words.next().is_none().then(|| (id.to_owned(), offset))
        });
        let Some((replication_id, offset)) = parsed else { return Err(self.unexpected(line)) };
        self.events.push_back(ReplicaEvent::FullResync { replication_id, offset });
        self.state = State::Header;
        Ok(())
    }

    fn handle_header(&mut self, line: &[u8]) -> Result<(), SessionError> {
        let Some(rest) = line.strip_prefix(b"$") else { return Err(self.unexpected(line)) };
        let (state, framing) = match rest.strip_prefix(b"EOF:") {
            Some(mark) => {
                let mark = mark.try_into().map_err(|_| self.unexpected(line))?;
                (State::Mark(Box::new(MarkScanner::new(mark))), Framing::EofMark)
            }
            None => {
                let length = std::str::from_utf8(rest).ok().and_then(|text| text.parse().ok());
                // An RDB is never empty; `$0` or a negative length is a fault of the primary.
                let Some(left) = length.filter(|length| *length > 0) else {
                    return Err(self.unexpected(line));
                };
                (State::Length { left }, Framing::Length(left))
            }
        };
        self.state = state;
        self.events.push_back(ReplicaEvent::PayloadStarted(framing));
        Ok(())
    }

    fn step(&self) -> Step {
        match self.state {
            State::Handshake(step) => step,
            _ => Step::Synchronize,
        }
    }

    fn unexpected(&self, got: &[u8]) -> SessionError {
        SessionError::Unexpected { step: self.step(), got: printable(got) }
    }
}

fn handshake(config: &ReplicaConfig) -> VecDeque<(Step, Vec<u8>)> {
    let mut steps = VecDeque::new();
    let mut step = |step, words: &[&[u8]]| steps.push_back((step, encode_command(words)));
    match &config.login {
        Some((Some(user), password)) => {
            step(Step::Authenticate, &[b"AUTH", user.as_bytes(), password])
        }
        Some((None, password)) => step(Step::Authenticate, &[b"AUTH", password]),
        None => {}
    }
    step(Step::Greet, &[b"PING"]);
    if let Some(port) = config.announced_port {
        step(Step::AnnouncePort, &[b"REPLCONF", b"listening-port", port.to_string().as_bytes()]);
    }
    step(Step::AnnounceCapabilities, &[b"REPLCONF", b"capa", b"eof"]);
    step(Step::AskRdbOnly, &[b"REPLCONF", b"rdb-only", b"1"]);
    if let Some(version) = config.claimed_version {
        step(Step::ClaimVersion, &[b"REPLCONF", b"version", version.as_bytes()]);
    }
    step(Step::Synchronize, &[b"PSYNC", b"?", b"-1"]);
    steps
}

fn classify(step: Step, error: &str) -> HandshakeError {
    let detail = error.to_owned();
    let code = error.split(' ').next().unwrap_or_default();
    match code {
        "NOAUTH" => HandshakeError::PasswordRequired,
        "NOPERM" => HandshakeError::Denied { step, detail },
        "LOADING" | "NOMASTERLINK" | "MASTERDOWN" | "BUSY" => HandshakeError::NotNow(detail),
        _ if step == Step::Authenticate && is_about_login(error) => {
            HandshakeError::WrongPassword(detail)
        }
        // Possible replies to any first command: too many clients, or protected mode.
        _ if error.contains("max number of clients") => HandshakeError::NotNow(detail),
        // Redis before 6 has no NOAUTH prefix for every case, but this message.
        _ if error.contains("unknown command") => HandshakeError::Denied { step, detail },
        _ if error.contains("BGSAVE failed") || error.contains("failing over") => {
            HandshakeError::NotNow(detail)
        }
        _ => HandshakeError::Refused { step, detail },
    }
}

/// Whether a refusal of `AUTH` concerns the user or the password: the messages of all versions for
/// a wrong password, for a superfluous password, and for a user name before ACLs existed.
pub fn is_about_login(error: &str) -> bool {
    const WORDS: [&str; 5] = [
        "WRONGPASS",
        "invalid password",
        "no password is set",
        "without any password",
        "wrong number of arguments",
    ];
    WORDS.iter().any(|words| error.contains(words))
}

/// Escapes the text; at most 200 characters.
pub(crate) fn printable(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(200)].escape_ascii().to_string()
}

/// Finds the mark that ends a payload, for pieces of any size.
struct MarkScanner {
    mark: [u8; MARK_BYTES],
    finder: memmem::Finder<'static>,
    /// The last bytes so far, which may be the beginning of a mark.
    held: Vec<u8>,
}

impl MarkScanner {
    fn new(mark: [u8; MARK_BYTES]) -> Self {
        let finder = memmem::Finder::new(&mark).into_owned();
        Self { mark, finder, held: Vec::with_capacity(2 * MARK_BYTES) }
    }

    /// The payload in `bytes` that cannot be a mark, and whether the mark is complete.
    fn scan(&mut self, bytes: Bytes) -> ([Bytes; 2], bool) {
        let held_len = self.held.len();
        self.held.extend_from_slice(&bytes[..bytes.len().min(MARK_BYTES - 1)]);
        if let Some(at) = memmem::find(&self.held, &self.mark) {
            return ([Bytes::copy_from_slice(&self.held[..at]), Bytes::new()], true);
        }
        if bytes.len() < MARK_BYTES - 1 {
            let settled = self.held.len().saturating_sub(MARK_BYTES - 1);
            let piece = Bytes::copy_from_slice(&self.held[..settled]);
            self.held.drain(..settled);
            return ([piece, Bytes::new()], false);
        }
        let before = Bytes::copy_from_slice(&self.held[..held_len]);
        if let Some(at) = self.finder.find(&bytes) {
            return ([before, bytes.slice(..at)], true);
        }
        let settled = bytes.len() - (MARK_BYTES - 1);
        self.held.clear();
        self.held.extend_from_slice(&bytes[settled..]);
        ([before, bytes.slice(..settled)], false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARK: &[u8; 40] = b"0123456789abcdef0123456789abcdef01234567";
    const ID: &str = "1111111111222222222233333333334444444444";

    fn session() -> ReplicaSession {
        ReplicaSession::new(&ReplicaConfig {
            login: Some((Some("backup".into()), b"secret".to_vec())),
            announced_port: Some(65_536),
            claimed_version: Some("255.255.255"),
        })
    }

    /// Feeds `stream` in pieces; returns output, events, and payload.
    fn run(
        stream: &[u8],
        chunk: usize,
    ) -> Result<(String, Vec<ReplicaEvent>, Vec<u8>), SessionError> {
        let mut session = session();
        let (mut sent, mut events, mut payload) = (Vec::new(), Vec::new(), Vec::new());
        for piece in stream.chunks(chunk) {
            sent.extend(session.poll_transmit().unwrap_or_default());
            session.handle_bytes(Bytes::copy_from_slice(piece))?;
            while let Some(event) = session.poll_event() {
                match event {
                    ReplicaEvent::Payload(piece) => payload.extend_from_slice(&piece),
                    event => events.push(event),
                }
            }
        }
        sent.extend(session.poll_transmit().unwrap_or_default());
        Ok((String::from_utf8(sent).unwrap(), events, payload))
    }

    fn greeting() -> Vec<u8> {
        let mut stream = b"+OK\r\n+PONG\r\n+OK\r\n+OK\r\n-ERR Unrecognized REPLCONF option: rdb-only\r\n+OK\r\n\n\n".to_vec();
        stream.extend_from_slice(format!("+FULLRESYNC {ID} 4711\r\n\n\n").as_bytes());
        stream
    }

    fn by_mark(payload: &[u8]) -> Vec<u8> {
        [&greeting()[..], b"$EOF:", MARK, b"\r\n", payload, MARK].concat()
    }

    #[test]
    fn a_payload_with_a_mark_arrives_in_pieces_of_any_size() {
        // Ends with the beginning of the mark, which is a part of the payload.
        let payload = [&b"REDIS0011 some bytes "[..], &MARK[..25], b" and ", &MARK[..39]].concat();
        let stream = by_mark(&payload);
        for chunk in 1..=stream.len() {
            let (sent, events, got) = run(&stream, chunk).unwrap();
            assert_eq!(got, payload, "chunk {chunk}");
            assert_eq!(events.last(), Some(&ReplicaEvent::PayloadFinished(payload.len() as u64)));
            assert!(
                events.contains(&ReplicaEvent::FullResync {
                    replication_id: ID.into(),
                    offset: 4711
                })
            );
            assert!(events.contains(&ReplicaEvent::Answered(Step::AskRdbOnly, false)));
            assert!(sent.ends_with("*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n"), "{sent}");
        }
    }

    #[test]
    fn a_payload_with_a_length_arrives_in_pieces_of_any_size() {
        let stream = [&greeting()[..], b"$12\r\nREDIS0011abc*1\r\n$4\r\nPING\r\n"].concat();
        for chunk in 1..=stream.len() {
            let (_, events, got) = run(&stream, chunk).unwrap();
            assert_eq!(got, b"REDIS0011abc", "chunk {chunk}");
            assert!(events.contains(&ReplicaEvent::PayloadStarted(Framing::Length(12))));
        }
    }

    #[test]
    fn each_refusal_has_its_own_error() {
        use HandshakeError as E;
        let refusal = |stream: &[u8]| match run(stream, 7) {
            Err(SessionError::Handshake(error)) => error,
            other => panic!("{other:?}"),
        };
        assert!(matches!(refusal(b"-WRONGPASS invalid\r\n"), E::WrongPassword(_)));
        assert!(matches!(refusal(b"-ERR invalid password\r\n"), E::WrongPassword(_)));
        assert!(matches!(refusal(b"-ERR max number of clients reached\r\n"), E::NotNow(_)));
        assert!(matches!(
            refusal(b"+OK\r\n-NOAUTH Authentication required.\r\n"),
            E::PasswordRequired
        ));
        let noperm = refusal(b"+OK\r\n+PONG\r\n-NOPERM User backup has no permissions\r\n");
        assert!(matches!(noperm, E::Denied { step: Step::AnnouncePort, .. }), "{noperm:?}");
        let sync = |tail: &[u8]| {
            refusal(&[b"+OK\r\n+PONG\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n", tail].concat())
        };
        assert!(matches!(sync(b"-LOADING Redis is loading\r\n"), E::NotNow(_)));
        assert!(matches!(sync(b"-NOMASTERLINK Can't SYNC while not connected\r\n"), E::NotNow(_)));
        assert!(matches!(
            sync(b"-ERR unknown command 'PSYNC'\r\n"),
            E::Denied { step: Step::Synchronize, .. }
        ));
        let after = format!("+FULLRESYNC {ID} 1\r\n-BGSAVE failed, replication can't continue\r\n");
        assert!(matches!(sync(after.as_bytes()), E::NotNow(_)));
    }

    #[test]
    fn garbage_is_refused_and_escaped() {
        let ok = b"+OK\r\n+PONG\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n";
        let full = format!("+FULLRESYNC {ID} 1\r\n");
        for garbage in [
            [&ok[..], b"+CONTINUE\r\n"].concat(),
            [&ok[..], b"+FULLRESYNC short 1\r\n"].concat(),
            [&ok[..], b"+FULLRESYNC ", ID.as_bytes(), b" -1\r\n"].concat(),
            [&ok[..], full.as_bytes(), b"$0\r\n"].concat(),
            [&ok[..], full.as_bytes(), b"$-5\r\n"].concat(),
            [&ok[..], full.as_bytes(), b"$EOF:short\r\n"].concat(),
            [&ok[..], full.as_bytes(), b"\x1b[2J nonsense\r\n"].concat(),
            vec![b'x'; 10_000],
        ] {
            let error = run(&garbage, 100).unwrap_err();
            assert!(matches!(error, SessionError::Unexpected { .. }), "{error:?}");
            assert!(error.to_string().bytes().all(|b| (0x20..0x7f).contains(&b)), "{error}");
        }
    }

    #[test]
    fn a_session_does_not_print_its_password() {
        assert!(!format!("{:?}", session()).contains("secret"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..200), chunk in 1usize..60, header in 0usize..3) {
            let header = [&b""[..], b"$50\r\n", b"$EOF:0123456789abcdef0123456789abcdef01234567\r\n"][header];
            let _ = run(&[&greeting()[..], header, &tail].concat(), chunk);
        }

        #[test]
        fn any_payload_arrives_without_its_mark(payload in proptest::collection::vec(prop_oneof![Just(b'0'), Just(b'1'), Just(b'2'), any::<u8>()], 1..300), chunk in 1usize..90) {
            let (_, _, got) = run(&by_mark(&payload), chunk).unwrap();
            prop_assert_eq!(got, payload);
        }
    }
}
