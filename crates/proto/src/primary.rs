//! The primary's side of a synchronisation: a server that was told `REPLICAOF` us loads our RDB.
//!
//! What a replica sends (Redis `replication.c`, Valkey `replication.c`): `PING`, `AUTH` if it has a
//! `masterauth`, several `REPLCONF`, and `PSYNC <id> <next offset>`, as arrays of bulk strings or,
//! before Redis 5, as inline lines. After that it says only `REPLCONF ACK <offset>`, each second
//! and when a `REPLCONF GETACK *` in the stream asks for it, and bare line feeds while it loads.
//!
//! What it is answered: one reply per command; for `PSYNC` either `+FULLRESYNC <id> <offset>`, the
//! line `$<length>`, that many bytes of RDB, and the replication stream; or `+CONTINUE` and the
//! stream from where it left off. A mark (`$EOF:`) in place of the length would forbid us to send
//! anything behind the RDB before the first `ACK`, and we know the length.
//!
//! Every byte of the stream counts for the offset, but a replica answers a `GETACK` before it
//! counts that command itself. So its answer to the first one, sent right behind the RDB, names the
//! offset of the snapshot, and that proves that the RDB is loaded: before, a replica acknowledges
//! nothing.

mod command;
mod error;
mod stream;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use self::command::{DEFAULT_USER, bulk_strings, decimal, is_login, words};
pub use self::error::PrimaryError;
pub use self::stream::ReplicationStream;
use crate::replica::printable;
use crate::resp::{Limits, decode, encode_command};

const COMMAND_BYTES_MAX: usize = 64 << 10;
const INLINE_BYTES_MAX: usize = 4 << 10;
const ARGUMENTS_MAX: usize = 16;
const COMMANDS_MAX: usize = 64;

const LIMITS: Limits = Limits {
    // Only the lines that hold a length.
    line_bytes_max: 64,
    bulk_bytes_max: COMMAND_BYTES_MAX,
    // The array itself counts too.
    values_max: ARGUMENTS_MAX + 1,
    depth_max: 1,
};

/// What the session serves. One value per restore; it outlives the connections.
#[derive(Clone)]
pub struct PrimaryConfig {
    /// The target's `masteruser` (`None`: it has none) and `masterauth`. Without them any `AUTH` is
    /// accepted unread: whatever the target was configured with was meant for another primary.
    pub login: Option<(Option<String>, Vec<u8>)>,
    /// 40 hexadecimal digits, minted for this restore.
    pub replication_id: String,
    /// Replication offset of the snapshot.
    pub offset: u64,
    /// Length of the RDB, never 0.
    pub payload_bytes: u64,
    /// The listening port that the target announces, if known: its `port`, its `tls-port` if it
    /// replicates by TLS, or its `replica-announce-port`. Whoever announces another one, or none,
    /// is refused.
    pub announced_port: Option<u16>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrimaryEvent {
    /// The target wants the snapshot from its beginning. Write what
    /// [`PrimarySession::poll_transmit`] holds, then exactly
    /// [`payload_bytes`](PrimaryConfig::payload_bytes) of RDB, then call
    /// [`PrimarySession::payload_sent`].
    SnapshotWanted,
    /// The target has the snapshot and goes on from where it was.
    /// [`PrimarySession::keep_alive`] makes it say at once where that is.
    Continued,
    /// The target has loaded the snapshot and applied the stream up to this offset.
    Acknowledged(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before `PSYNC`: every command is answered.
    Handshake,
    /// The driver writes the RDB; anything of ours would end up in the middle of it.
    Payload,
    /// The stream runs.
    Streaming,
}

/// One connection of a target that restores.
///
/// ```
/// use std::sync::Arc;
///
/// use cachevault_proto::{PrimaryConfig, PrimaryEvent, PrimarySession, ReplicationStream};
///
/// let config = Arc::new(PrimaryConfig {
///     login: None,
///     replication_id: "0123456789abcdef0123456789abcdef01234567".into(),
///     offset: 100,
///     payload_bytes: 9,
///     announced_port: None,
/// });
/// let mut session = PrimarySession::new(config, ReplicationStream::default());
///
/// session.handle_bytes(b"PING\r\nPSYNC ? -1\r\n")?;
/// assert_eq!(session.poll_event(), Some(PrimaryEvent::SnapshotWanted));
/// assert_eq!(
///     session.poll_transmit().as_deref(),
///     Some(&b"+PONG\r\n+FULLRESYNC 0123456789abcdef0123456789abcdef01234567 100\r\n$9\r\n"[..]),
/// );
/// // Here the driver writes the RDB to the socket.
/// session.payload_sent();
/// assert!(session.poll_transmit().is_some_and(|bytes| bytes.ends_with(b"GETACK\r\n$1\r\n*\r\n")));
///
/// session.handle_bytes(b"\n\n*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$3\r\n100\r\n")?;
/// assert_eq!(session.poll_event(), Some(PrimaryEvent::Acknowledged(100)));
/// assert_eq!(session.offset_wanted(), 100);
/// # Ok::<(), cachevault_proto::PrimaryError>(())
/// ```
pub struct PrimarySession {
    config: Arc<PrimaryConfig>,
    state: State,
    stream: ReplicationStream,
    transmit: Vec<u8>,
    events: VecDeque<PrimaryEvent>,
    buffer: BytesMut,
    commands: usize,
    logged_in: bool,
    port_announced: bool,
    /// Whether the peer takes an id in `+CONTINUE` (known since Redis 4).
    takes_new_id: bool,
}

impl fmt::Debug for PrimarySession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration and the buffer hold passwords.
        f.debug_struct("PrimarySession")
            .field("state", &self.state)
            .field("offset", &self.offset())
            .finish_non_exhaustive()
    }
}

impl PrimarySession {
    /// A session for a connection that was just accepted. `stream` is that of the restore's last
    /// session, or empty.
    pub fn new(config: Arc<PrimaryConfig>, stream: ReplicationStream) -> Self {
        Self {
            logged_in: config.login.is_none(),
            config,
            state: State::Handshake,
            stream,
            transmit: Vec::new(),
            events: VecDeque::new(),
            buffer: BytesMut::new(),
            commands: 0,
            port_announced: false,
            takes_new_id: false,
        }
    }

    /// What the next session of this restore needs, when the connection is lost.
    pub fn into_stream(self) -> ReplicationStream {
        self.stream
    }

    /// What the socket should write now; `None` when nothing.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.transmit.is_empty()).then(|| std::mem::take(&mut self.transmit))
    }

    /// What happened; `None` when nothing more did.
    pub fn poll_event(&mut self) -> Option<PrimaryEvent> {
        self.events.pop_front()
    }

    /// The end of the replication stream: what the target's `slave_repl_offset` comes to.
    pub fn offset(&self) -> u64 {
        self.config.offset.saturating_add(self.stream.sent())
    }

    /// The offset that the target must acknowledge, or name in its `INFO`, to have all data. It is
    /// the snapshot's, for the stream holds none; waiting for [`offset`](Self::offset) would take
    /// until the target's next tick, as a `GETACK` is answered before it is counted.
    pub fn offset_wanted(&self) -> u64 {
        self.config.offset
    }

    /// Takes bytes as the network delivered them.
    ///
    /// # Errors
    /// [`PrimaryError`]; the session is over then. [`poll_transmit`](Self::poll_transmit) may still
    /// hold words that tell the peer why.
    pub fn handle_bytes(&mut self, mut bytes: &[u8]) -> Result<(), PrimaryError> {
        while !bytes.is_empty() {
            let room = COMMAND_BYTES_MAX.saturating_sub(self.buffer.len());
            if room == 0 {
                return Err(PrimaryError::TooLarge { what: "bytes", max: COMMAND_BYTES_MAX });
            }
            let (piece, rest) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(piece);
            bytes = rest;
            while let Some(arguments) = self.next_command()? {
                self.handle_command(&arguments)?;
            }
        }
        Ok(())
    }

    /// The driver has written the whole RDB. Asks the target to acknowledge as soon as it has
    /// loaded it: by itself it would do so on its next tick, up to a second later.
    ///
    /// Does nothing unless a snapshot was wanted.
    pub fn payload_sent(&mut self) {
        if self.state == State::Payload {
            self.state = State::Streaming;
            self.ask_for_acknowledgement();
        }
    }

    /// To be called several times per `repl-timeout` of the target: once the
    /// stream runs, puts a `REPLCONF GETACK *` into it, which shows the target that we are there,
    /// and us that it is.
    ///
    /// Before, it does nothing: `PSYNC` is answered at once, and while the RDB is on its way
    /// nothing but its own bytes can keep the connection alive.
    pub fn keep_alive(&mut self) {
        if self.state == State::Streaming {
            self.ask_for_acknowledgement();
        }
    }

    fn ask_for_acknowledgement(&mut self) {
        let command = encode_command(&["REPLCONF", "GETACK", "*"]);
        self.stream.append(&command);
        self.transmit.extend_from_slice(&command);
    }

    fn say(&mut self, line: &str) {
        self.transmit.extend_from_slice(line.as_bytes());
        self.transmit.extend_from_slice(b"\r\n");
    }

    /// The next complete command, never empty; `None` when more bytes are needed.
    fn next_command(&mut self) -> Result<Option<Vec<Bytes>>, PrimaryError> {
        loop {
            let Some(&first) = self.buffer.first() else { return Ok(None) };
            let arguments = match first {
                // The keep-alive of a replica that loads.
                b'\n' => {
                    self.buffer.advance(1);
                    continue;
                }
                b'*' => match decode(&mut self.buffer, &LIMITS)? {
                    Some(command) => bulk_strings(command)?,
                    None => return Ok(None),
                },
                b'\r' | b'a'..=b'z' | b'A'..=b'Z' => match self.take_inline()? {
                    Some(line) => words(&line)?,
                    None => return Ok(None),
                },
                _ => {
                    let detail = format!("it begins with byte 0x{first:02x}");
                    return Err(PrimaryError::NotACommand(detail));
                }
            };
            if !arguments.is_empty() {
                return Ok(Some(arguments));
            }
        }
    }

    /// The next line with its end.
    fn take_inline(&mut self) -> Result<Option<Bytes>, PrimaryError> {
        let within = self.buffer.len().min(INLINE_BYTES_MAX);
        match memchr::memchr(b'\n', &self.buffer[..within]) {
            Some(end) => Ok(Some(self.buffer.split_to(end + 1).freeze())),
            None if within == INLINE_BYTES_MAX => {
                Err(PrimaryError::TooLarge { what: "bytes in a line", max: INLINE_BYTES_MAX })
            }
            None => Ok(None),
        }
    }

    fn handle_command(&mut self, arguments: &[Bytes]) -> Result<(), PrimaryError> {
        let Some((name, arguments)) = arguments.split_first() else { return Ok(()) };
        let name = name.to_ascii_lowercase();
        if self.state != State::Handshake {
            return self.handle_after_psync(&name, arguments);
        }
        self.commands += 1;
        if self.commands > COMMANDS_MAX {
            return Err(PrimaryError::TooManyCommands);
        }
        match name.as_slice() {
            b"auth" => self.handle_auth(arguments),
            _ if !self.logged_in => {
                self.say("-NOAUTH Authentication required.");
                Ok(())
            }
            b"ping" => {
                self.say("+PONG");
                Ok(())
            }
            b"replconf" => self.handle_replconf(arguments),
            b"psync" => self.handle_psync(arguments),
            // The replica of before Redis 2.8: its stream has no offsets, so it never acknowledges.
            b"sync" => {
                self.say("-ERR SYNC is not served here, use PSYNC");
                Ok(())
            }
            _ => {
                self.say("-ERR unknown command");
                Ok(())
            }
        }
    }

    /// Nothing can be answered any more: a reply would be taken for RDB or stream.
    fn handle_after_psync(&mut self, name: &[u8], arguments: &[Bytes]) -> Result<(), PrimaryError> {
        match (name, arguments) {
            (b"replconf", [option, offset, ..]) if option.eq_ignore_ascii_case(b"ack") => {
                self.handle_acknowledgement(offset)
            }
            (b"replconf", _) => Ok(()),
            _ => Err(PrimaryError::Unexpected(printable(name))),
        }
    }

    fn handle_acknowledgement(&mut self, offset: &[u8]) -> Result<(), PrimaryError> {
        let acknowledged = decimal(offset).ok_or_else(|| {
            PrimaryError::NotACommand(format!("REPLCONF ACK {}", printable(offset)))
        })?;
        // About an RDB that has not been sent, only another history can be acknowledged.
        if self.state != State::Streaming {
            return Ok(());
        }
        let end = self.offset();
        if acknowledged > end {
            return Err(PrimaryError::AcknowledgedTooMuch { acknowledged, end });
        }
        self.events.push_back(PrimaryEvent::Acknowledged(acknowledged));
        Ok(())
    }

    fn handle_auth(&mut self, arguments: &[Bytes]) -> Result<(), PrimaryError> {
        if let Some((user, password)) = &self.config.login {
            let user = user.as_deref().unwrap_or(DEFAULT_USER);
            if !is_login(arguments, user, password) {
                self.say("-WRONGPASS invalid username-password pair or user is disabled.");
                return Err(PrimaryError::LoginRefused);
            }
            self.logged_in = true;
        }
        self.say("+OK");
        Ok(())
    }

    fn handle_replconf(&mut self, arguments: &[Bytes]) -> Result<(), PrimaryError> {
        // One option and its value each; what a replica says of itself we need not know.
        for pair in arguments.chunks(2) {
            let [option, value] = pair else {
                self.say("-ERR syntax error");
                return Ok(());
            };
            match option.to_ascii_lowercase().as_slice() {
                // The only one without a reply, and of an earlier connection's stream.
                b"ack" => return Ok(()),
                b"listening-port" => self.handle_port(value)?,
                b"capa" => self.takes_new_id |= value.eq_ignore_ascii_case(b"psync2"),
                // A second connection for the RDB alone. Never offered: a replica that merely says
                // that it could (`capa`) is served by one.
                b"rdb-channel" | b"rdb-channel-repl" | b"main-ch-client-id"
                | b"set-rdb-client-id" => {
                    self.say("-ERR there is no separate connection for the RDB");
                    return Ok(());
                }
                _ => {}
            }
        }
        self.say("+OK");
        Ok(())
    }

    fn handle_port(&mut self, announced: &[u8]) -> Result<(), PrimaryError> {
        if let Some(wanted) = self.config.announced_port
            && decimal(announced) != Some(u64::from(wanted))
        {
            self.say("-ERR this snapshot is for another server");
            return Err(PrimaryError::WrongPort { wanted, announced: printable(announced) });
        }
        self.port_announced = true;
        Ok(())
    }

    fn handle_psync(&mut self, arguments: &[Bytes]) -> Result<(), PrimaryError> {
        if let Some(wanted) = self.config.announced_port.filter(|_| !self.port_announced) {
            self.say("-ERR this snapshot is for a server that announces its port");
            return Err(PrimaryError::PortNotAnnounced { wanted });
        }
        match arguments {
            [id, next] => self.synchronize(id, next),
            // `FAILOVER`: the peer wants to become our replica and us to be its primary for good.
            [_, _, _] => self.say("-ERR PSYNC with an option is not served here"),
            _ => self.say("-ERR wrong number of arguments for 'psync' command"),
        }
        Ok(())
    }

    fn synchronize(&mut self, id: &[u8], next: &[u8]) {
        let ours = id.eq_ignore_ascii_case(self.config.replication_id.as_bytes());
        let missing = decimal(next).filter(|_| ours).and_then(|next| self.missing_before(next));
        match missing {
            Some(missing) => self.go_on(&missing),
            None => self.begin(),
        }
    }

    /// What a target lacks whose next byte would be the one at `next`, which comes after the offset
    /// that it has.
    fn missing_before(&self, next: u64) -> Option<Vec<u8>> {
        self.stream.after(next.checked_sub(1)?.checked_sub(self.config.offset)?)
    }

    fn go_on(&mut self, missing: &[u8]) {
        if self.takes_new_id {
            self.say(&format!("+CONTINUE {}", self.config.replication_id));
        } else {
            self.say("+CONTINUE");
        }
        self.transmit.extend_from_slice(missing);
        self.state = State::Streaming;
        self.events.push_back(PrimaryEvent::Continued);
    }

    fn begin(&mut self) {
        // The stream begins behind the snapshot, whatever an earlier connection was sent.
        self.stream = ReplicationStream::default();
        let PrimaryConfig { replication_id, offset, payload_bytes, .. } = &*self.config;
        self.say(&format!("+FULLRESYNC {replication_id} {offset}\r\n${payload_bytes}"));
        self.state = State::Payload;
        self.events.push_back(PrimaryEvent::SnapshotWanted);
    }
}

#[cfg(test)]
mod tests;
