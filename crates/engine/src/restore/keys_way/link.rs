//! A connection that writes chunks and reads their replies at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use cachevault_domain::{Address, ConflictRule};
use cachevault_proto::{Limits, Reply, ReplyDecoder, encode_command};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Mutex, OwnedSemaphorePermit, mpsc, oneshot};

use crate::client::Client;
use crate::connect::Stream;
use crate::restore::error::RestoreError;
use crate::restore::keys_way::chunk::{Chunk, Expected, Reason};
use crate::restore::keys_way::{Done, Pulse, shown};
use crate::words::Listener;

const READ_BYTES: usize = 64 << 10;
/// Replies are short but for the list of a library's functions.
const REPLY_LIMITS: Limits = Limits {
    line_bytes_max: 64 << 10,
    bulk_bytes_max: 1 << 20,
    values_max: 64 << 10,
    depth_max: 8,
};

/// A logged-in connection.
pub(super) struct Link {
    client: Client,
    judge: Judge,
    pulse: Arc<Pulse>,
}

/// What was written and is to be answered, in the order of writing.
struct Asked {
    /// A database was chosen before it; the rest is written when that was accepted, as it would else
    /// be done in another one.
    selected: Option<(u64, oneshot::Sender<()>)>,
    expected: Vec<Expected>,
    accepted: Option<oneshot::Sender<()>>,
    _room: OwnedSemaphorePermit,
}

impl Link {
    pub(super) fn new(
        client: Client,
        address: Address,
        conflict: ConflictRule,
        pulse: Arc<Pulse>,
    ) -> Self {
        let listener = client.listener().clone();
        Self { client, judge: Judge { address, listener, conflict, done: Done::default() }, pulse }
    }

    /// Takes chunks whenever the target takes bytes, until there are no more.
    pub(super) async fn run(
        self,
        chunks: Arc<Mutex<mpsc::UnboundedReceiver<Chunk>>>,
    ) -> Result<Done, RestoreError> {
        let address = self.judge.address.clone();
        let (input, output) = tokio::io::split(self.client.into_stream());
        // Bounded by the budget that every chunk has its room from.
        let (asked, to_answer) = mpsc::unbounded_channel();
        let mut writer = Writer { output, asked, pulse: Arc::clone(&self.pulse), database: 0 };
        let writing = async move { writer.run(chunks).await };
        let mut reader = Reader {
            input,
            decoder: ReplyDecoder::with_limits(REPLY_LIMITS),
            buffer: BytesMut::with_capacity(READ_BYTES),
            judge: self.judge,
            pulse: self.pulse,
        };
        let reading = reader.run(to_answer);
        tokio::pin!(reading);
        tokio::select! {
            read = &mut reading => read,
            written = writing => {
                // A server that breaks off may have said why.
                reading.await.and_then(|done| match written {
                    Ok(()) => Ok(done),
                    Err(error) => Err(RestoreError::BrokenOff { address, detail: error.to_string() }),
                })
            }
        }
    }
}

struct Writer {
    output: WriteHalf<Stream>,
    asked: mpsc::UnboundedSender<Asked>,
    pulse: Arc<Pulse>,
    /// The database that the connection is in.
    database: u64,
}

impl Writer {
    async fn run(
        &mut self,
        chunks: Arc<Mutex<mpsc::UnboundedReceiver<Chunk>>>,
    ) -> std::io::Result<()> {
        let mut held = None;
        loop {
            let mut queue = match held.take() {
                Some(queue) => queue,
                None => chunks.lock().await,
            };
            let Some(chunk) = queue.recv().await else { return Ok(()) };
            if chunk.goes_on {
                // Nobody else may take what belongs behind it.
                held = Some(queue);
            } else {
                drop(queue);
            }
            self.write_chunk(chunk).await?;
        }
    }

    async fn write_chunk(&mut self, chunk: Chunk) -> std::io::Result<()> {
        let Chunk { database, head, tail, expected, accepted, room, .. } = chunk;
        let (selected, was_selected) = match database != self.database {
            true => Some(oneshot::channel()).unzip(),
            false => (None, None),
        };
        self.pulse.asked(expected.len() as u64 + u64::from(selected.is_some()));
        let selected = selected.map(|selected| (database, selected));
        // A reader that has left says itself why.
        let _ = self.asked.send(Asked { selected, expected, accepted, _room: room });
        if let Some(selected) = was_selected {
            self.database = database;
            let select = encode_command(&["SELECT", &database.to_string()]);
            self.write(&select).await?;
            self.output.flush().await?;
            selected.await.map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        }
        self.write(&head).await?;
        if let Some((payload, end)) = tail {
            self.write(&payload).await?;
            self.write(&end).await?;
        }
        self.output.flush().await
    }

    async fn write(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            let written = self.output.write(bytes).await?;
            if written == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
            self.pulse.beat();
        }
        Ok(())
    }
}

struct Reader {
    input: ReadHalf<Stream>,
    decoder: ReplyDecoder,
    buffer: BytesMut,
    judge: Judge,
    pulse: Arc<Pulse>,
}

impl Reader {
    async fn run(
        &mut self,
        mut to_answer: mpsc::UnboundedReceiver<Asked>,
    ) -> Result<Done, RestoreError> {
        while let Some(asked) = to_answer.recv().await {
            if let Some((database, selected)) = asked.selected {
                let reply = self.reply().await?;
                self.judge.select(database, &reply)?;
                // The writer leaves only when the connection is lost.
                let _ = selected.send(());
            }
            for expected in asked.expected {
                let reply = self.reply().await?;
                self.judge.reply(expected.reason, expected.key, reply)?;
            }
            if let Some(accepted) = asked.accepted {
                self.pulse.is_accepted.store(true, Ordering::Relaxed);
                // Who asked may have left.
                let _ = accepted.send(());
            }
        }
        Ok(std::mem::take(&mut self.judge.done))
    }

    async fn reply(&mut self) -> Result<Reply, RestoreError> {
        loop {
            let reply = self.decoder.next_reply().map_err(|e| self.broken_off(e.to_string()))?;
            if let Some(reply) = reply {
                self.pulse.answered();
                return Ok(reply);
            }
            self.buffer.clear();
            match self.input.read_buf(&mut self.buffer).await {
                Ok(0) => {
                    let detail = "the server closed it; see its log for the reason".to_owned();
                    return Err(self.broken_off(detail));
                }
                Ok(_) => self.decoder.feed(&self.buffer),
                Err(error) => return Err(self.broken_off(error.to_string())),
            }
        }
    }

    fn broken_off(&self, detail: String) -> RestoreError {
        RestoreError::BrokenOff { address: self.judge.address.clone(), detail }
    }
}

/// Tells what a reply means.
struct Judge {
    address: Address,
    listener: Listener,
    conflict: ConflictRule,
    done: Done,
}

impl Judge {
    fn select(&self, database: u64, reply: &Reply) -> Result<(), RestoreError> {
        let Reply::Error(error) = reply else { return Ok(()) };
        if error.starts_with(b"NOPERM") {
            return Err(self.refusal("SELECT", format!("database {database}"), error));
        }
        let address = self.address.clone();
        Err(RestoreError::NoDatabase { address, database, detail: self.heard(error) })
    }

    fn reply(&mut self, reason: Reason, key: u64, reply: Reply) -> Result<(), RestoreError> {
        let loaded = &mut self.done.loaded;
        match (reason, reply) {
            (Reason::Restore, Reply::Error(error)) if error.starts_with(b"BUSYKEY") => {
                self.key_is_there(key)
            }
            (Reason::Function(library), Reply::Error(error)) if is_there_already(&error) => {
                self.functions_are_there(library, &error)
            }
            (reason @ Reason::Function(_), Reply::Error(error)) => {
                Err(self.refusal(reason.command(), "the functions".to_owned(), &error))
            }
            (Reason::Strings(count @ 2..), Reply::Error(error)) => {
                let which = format!("{}, or one of {} others,", shown(key), count - 1);
                Err(self.refusal("MSET", which, &error))
            }
            (reason, Reply::Error(error)) => {
                Err(self.refusal(reason.command(), shown(key), &error))
            }
            (Reason::Restore, _) => {
                loaded.restored += 1;
                Ok(())
            }
            (Reason::Strings(count), _) => {
                loaded.restored += u64::from(count);
                Ok(())
            }
            (Reason::Function(_), _) => {
                loaded.functions += 1;
                Ok(())
            }
            (Reason::Last, Reply::Integer(0)) => {
                loaded.expired += 1;
                Ok(())
            }
            (Reason::Last, _) => {
                loaded.restored += 1;
                Ok(())
            }
            (Reason::Look, Reply::Integer(1..)) => {
                self.done.found.push(key);
                Ok(())
            }
            (Reason::Ask(answer), reply) => {
                // Who asked may have left.
                let _ = answer.send(matches!(reply, Reply::Integer(1..)));
                Ok(())
            }
            (Reason::LookFunction(library), Reply::Array(Some(found))) if !found.is_empty() => {
                self.functions_are_there(library, b"nothing was written")
            }
            (Reason::Look | Reason::LookFunction(_) | Reason::Part(_), _) => Ok(()),
        }
    }

    fn key_is_there(&mut self, key: u64) -> Result<(), RestoreError> {
        if self.conflict == ConflictRule::Skip {
            self.done.loaded.skipped += 1;
            return Ok(());
        }
        let (address, key) = (self.address.clone(), shown(key));
        Err(RestoreError::KeyAppeared { address, key })
    }

    fn functions_are_there(&mut self, library: String, error: &[u8]) -> Result<(), RestoreError> {
        if self.conflict == ConflictRule::Skip {
            self.done.loaded.skipped += 1;
            return Ok(());
        }
        let address = self.address.clone();
        Err(RestoreError::FunctionsExist { address, library, detail: self.heard(error) })
    }

    /// A server's words, without what it repeats of a command: that is somebody's data.
    fn heard(&self, error: &[u8]) -> String {
        let repeats = memchr::memmem::find(error, b", with args beginning with");
        self.listener.heard(&error[..repeats.unwrap_or(error.len())])
    }

    /// What an error reply means.
    fn refusal(&self, command: &'static str, key: String, error: &[u8]) -> RestoreError {
        let (address, detail) = (self.address.clone(), self.heard(error));
        match error.split(|byte| *byte == b' ').next().unwrap_or_default() {
            b"OOM" => RestoreError::OutOfMemory { address, key, detail },
            b"NOPERM" => RestoreError::KeyDenied { address, key, command, detail },
            b"READONLY" => RestoreError::ReadOnly { address, key },
            b"MOVED" | b"ASK" => RestoreError::Elsewhere { address, key, detail },
            _ if is_about_the_value(error) => RestoreError::Unreadable { address, key, detail },
            _ => RestoreError::KeyRefused { address, key, command, detail },
        }
    }
}

impl Reason {
    /// The command that it is the reason of.
    fn command(&self) -> &'static str {
        match self {
            Self::Restore => "RESTORE",
            Self::Strings(_) => "MSET",
            Self::Function(_) => "FUNCTION LOAD",
            Self::LookFunction(_) => "FUNCTION LIST",
            Self::Part(command) => command,
            Self::Last | Self::Look | Self::Ask(_) => "EXISTS",
        }
    }
}

/// `Library 'x' already exists`, or one of its functions does.
fn is_there_already(error: &[u8]) -> bool {
    memchr::memmem::find(error, b"already exists").is_some()
}

fn is_about_the_value(error: &[u8]) -> bool {
    const WORDS: [&[u8]; 2] = [b"Bad data format", b"DUMP payload version or checksum"];
    WORDS.iter().any(|words| memchr::memmem::find(error, words).is_some())
}
