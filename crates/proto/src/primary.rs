//! The primary's side of a synchronization: a server that follows this service by `REPLICAOF` loads
//! its RDB.
//!
//! A replica sends (Redis `replication.c`, Valkey `replication.c`): `PING`, `AUTH` if it has a
//! `masterauth`, several `REPLCONF`, and `PSYNC <id> <next offset>`, as arrays of bulk strings or,
//! before Redis 5, as inline lines. Later it sends only `REPLCONF ACK <offset>`, each second and in
//! reply to a `REPLCONF GETACK *` in the stream, and bare line feeds while it loads.
//!
//! Every command gets one reply. The reply to `PSYNC` is either `+FULLRESYNC <id> <offset>`, the
//! line `$<length>`, that many bytes of RDB, and the replication stream; or `+CONTINUE` and the
//! rest of the stream. A mark (`$EOF:`) instead of the length would forbid data behind the RDB
//! before the first `ACK`, and the length is known here.
//!
//! Every byte of the stream counts for the offset, but a replica replies to a `GETACK` before it
//! counts that command. Its reply to the first `GETACK`, sent directly behind the RDB, therefore
//! contains the offset of the snapshot. This reply proves that the RDB is loaded: a replica
//! acknowledges nothing earlier.

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
    // The replies to these commands are lines that contain a length only.
    line_bytes_max: 64,
    bulk_bytes_max: COMMAND_BYTES_MAX,
    // The array itself counts as one value.
    values_max: ARGUMENTS_MAX + 1,
    depth_max: 1,
};

/// The configuration of a restore, which all its connections share.
#[derive(Clone)]
pub struct PrimaryConfig {
    /// The target's `masteruser` (`None` if it has none) and `masterauth`. Without a login, every
    /// `AUTH` is accepted without a check: the target's password belongs to another primary.
    pub login: Option<(Option<String>, Vec<u8>)>,
    /// The replication id of this restore: 40 hexadecimal digits.
    pub replication_id: String,
    /// Replication offset of the snapshot.
    pub offset: u64,
    /// Length of the RDB, at least 1.
    pub payload_bytes: u64,
    /// The listening port that the target announces, if known: its `port`, its `tls-port` if it
    /// replicates by TLS, or its `replica-announce-port`. A peer that announces another port or
    /// none is refused.
    pub announced_port: Option<u16>,
}

/// An event of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrimaryEvent {
    /// The target requests the complete snapshot. Write the output of
    /// [`PrimarySession::poll_transmit`], then exactly
    /// [`payload_bytes`](PrimaryConfig::payload_bytes) of RDB, then call
    /// [`PrimarySession::payload_sent`].
    SnapshotWanted,
    /// The target has the snapshot and continues from its offset. [`PrimarySession::keep_alive`]
    /// makes it acknowledge this offset at once.
    Continued,
    /// The target has loaded the snapshot and applied the stream up to this offset.
    Acknowledged(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before `PSYNC`: every command gets a reply.
    Handshake,
    /// The driver writes the RDB; the session must not write, because its bytes would become a part
    /// of the RDB.
    Payload,
    /// The stream is open.
    Streaming,
}

/// One connection of the target of a restore.
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
    /// Whether the peer accepts an id in `+CONTINUE` (known since Redis 4).
    takes_new_id: bool,
}

impl fmt::Debug for PrimarySession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration and the buffer contain passwords.
        f.debug_struct("PrimarySession")
            .field("state", &self.state)
            .field("offset", &self.offset())
            .finish_non_exhaustive()
    }
}

impl PrimarySession {
    /// Creates a session for an accepted connection. `stream` is that of the restore's last
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

    /// Returns the stream for the next session of this restore, after the connection was lost.
    pub fn into_stream(self) -> ReplicationStream {
        self.stream
    }

    /// The next output for the socket, if there is any.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.transmit.is_empty()).then(|| std::mem::take(&mut self.transmit))
    }

    /// The next event, if there is one.
    pub fn poll_event(&mut self) -> Option<PrimaryEvent> {
        self.events.pop_front()
    }

    /// The end of the replication stream, the final value of the target's `slave_repl_offset`.
    pub fn offset(&self) -> u64 {
        self.config.offset.saturating_add(self.stream.sent())
    }

    /// The offset that proves that the target has all data: the target must acknowledge it or
    /// report it in its `INFO`. The offset is that of the snapshot, because the stream contains no
    /// data. Waiting for [`offset`](Self::offset) would take until the target's next tick, because
    /// a `GETACK` gets its reply before it is counted.
    pub fn offset_wanted(&self) -> u64 {
        self.config.offset
    }

    /// Processes bytes of the network, in pieces of any size.
    ///
    /// # Errors
    /// [`PrimaryError`], which ends the session. [`poll_transmit`](Self::poll_transmit) may then
    /// contain an error reply for the peer.
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

    /// Records that the driver has written the complete RDB, and asks the target to acknowledge
    /// after loading. Without the request the target acknowledges on its next tick, up to a second
    /// later.
    ///
    /// The call has no effect unless a snapshot was requested.
    pub fn payload_sent(&mut self) {
        if self.state == State::Payload {
            self.state = State::Streaming;
            self.ask_for_acknowledgement();
        }
    }

    /// Adds a `REPLCONF GETACK *` to the open stream. Call it several times per `repl-timeout` of
    /// the target: each side then notices that the other is alive.
    ///
    /// The call has no effect before the stream is open: `PSYNC` gets its reply at once, and during
    /// the RDB only its own bytes can keep the connection alive.
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
                // The keep-alive of a loading replica.
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

    /// The next line, including its end.
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
            // The command of replicas before Redis 2.8: their stream has no offsets, so they never
            // acknowledge.
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

    /// No reply is possible: the peer would read it as RDB or stream.
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
        // Before the RDB is sent, an acknowledgement can only belong to another history.
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
        // Pairs of an option and its value; the session ignores most of the replica's attributes.
        for pair in arguments.chunks(2) {
            let [option, value] = pair else {
                self.say("-ERR syntax error");
                return Ok(());
            };
            match option.to_ascii_lowercase().as_slice() {
                // The only option without a reply; it belongs to the stream of an earlier
                // connection.
                b"ack" => return Ok(()),
                b"listening-port" => self.handle_port(value)?,
                b"capa" => self.takes_new_id |= value.eq_ignore_ascii_case(b"psync2"),
                // A second connection for the RDB only. The session never offers it. A replica that
                // merely announces the capability (`capa`) works with a single connection.
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
            // `FAILOVER`: the peer requests to become a replica of this primary permanently.
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

    /// The bytes that a target lacks; `next` is the offset of the first one, one more than the
    /// target's offset.
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
        // The stream begins behind the snapshot, independent of earlier connections.
        self.stream = ReplicationStream::default();
        let PrimaryConfig { replication_id, offset, payload_bytes, .. } = &*self.config;
        self.say(&format!("+FULLRESYNC {replication_id} {offset}\r\n${payload_bytes}"));
        self.state = State::Payload;
        self.events.push_back(PrimaryEvent::SnapshotWanted);
    }
}

#[cfg(test)]
mod tests;
