//! Streams one server's RDB into one artifact.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cachevault_domain::{EngineKind, ProbeError, RdbDialect, Target};
use cachevault_proto::{Framing, ReplicaConfig, ReplicaEvent, ReplicaSession};
use cachevault_rdb::digest::{DIGEST_VERSION, Digest, Fingerprint};
use cachevault_rdb::inspect::{
    Checked, Content, InspectError, Inspection, Inspector, Read, Reading,
};
use cachevault_rdb::{Checksum, Kind};
use cachevault_store::{
    ArtifactEntry, ArtifactKey, ArtifactSink, ContentEntry, DatabaseDigest, DigestEntry, RdbEntry,
    SourceEntry, Store, StoreError, Stored,
};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::background::{IdleWatch, in_background};
use crate::client::Client;
use crate::connect::connect;
use crate::encode::{EncodeError, Encoded, Encoder, encoding};
use crate::error::CaptureError;
use crate::gate::{Pass, SourceGate};
use crate::guard::SourceLimits;
use crate::meter::Meter;
use crate::queue::{self, queue};
use crate::source::{Source, choose};
use crate::words::Listener;

/// One read from the socket fills at most this much.
const READ_BYTES: usize = 256 << 10;
/// Below this much free room a new read buffer is taken.
const READ_BYTES_MIN: usize = 64 << 10;
/// RDB bytes that may wait for the encoder: what a server sends while a disk takes a breath.
pub(crate) const INPUT_BYTES_MAX: usize = 16 << 20;
/// Encoded pieces of 1 MiB that may wait for the store.
const OUTPUT_PIECES_MAX: usize = 2;
/// RDB bytes that are encoded at the usual priority after the background has not kept up.
const FOREGROUND_BYTES_MIN: u64 = 64 << 20;
/// How much more it is each further time.
const FOREGROUND_GROWTH: u64 = 4;
/// Largest keys and heaviest prefixes in a report.
const REPORT_TOP: usize = 20;
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Looks in a row at a source that suffers, after which the capture is broken off.
const HARMED_LOOKS_MAX: u32 = 3;
/// How long the source may take to end a child that we no longer read from.
const SETTLE: Duration = Duration::from_secs(10);
const SETTLE_POLL: Duration = Duration::from_millis(200);

/// Sentinel adds whoever its primary lists as a replica, and never forgets it; but it refuses
/// ports that do not exist before it looks at anything else (`createSentinelAddr`, all versions).
/// So a capture that announces one leaves no trace there. Seen on Redis 5.0 to 7.0, Valkey 8.0
/// and 9.1; a name that does not resolve instead of a port keeps a Sentinel from restarting.
const ANNOUNCED_PORT: u32 = 65_536;
/// Valkey 9 then sends its own newest RDB version, which loses nothing.
const CLAIM_NEWEST: &str = "255.255.255";
/// Valkey 9 then sends RDB 11.
const CLAIM_PORTABLE: &str = "7.2.0";

/// What a manifest says of content that is not verified.
const OPAQUE_WARNING: &str = "opaque: not verified";

/// Bounds of a capture.
#[derive(Debug, Clone, Copy)]
pub struct CaptureLimits {
    /// Time for connecting, and for each command.
    pub command: Duration,
    /// Longest silence of the source during the transfer.
    pub stall: Duration,
    /// Longest wait for another fork of the source to end, and for memory for ours.
    pub busy_wait: Duration,
    /// Longest capture, waiting included.
    pub total: Duration,
    /// What the source must not suffer; `None`: it is ours, or there for us alone.
    pub source: Option<SourceLimits>,
}

/// What to capture, and how.
#[derive(Debug, Clone, Copy)]
pub struct CaptureRequest<'a> {
    /// The instance's server.
    pub target: &'a Target,
    /// Whether to read from a replica in sync where there is one.
    pub prefer_replica: bool,
    /// The RDB version to ask for.
    pub dialect: RdbDialect,
    /// The moment that expiries are told from.
    pub as_of: Timestamp,
    /// zstd level of the artifact, -7 to 19; not compressed without one.
    pub zstd_level: Option<i32>,
    /// Size of an earlier RDB of the same instance, bytes: a guess for the progress.
    pub earlier_bytes: Option<u64>,
    /// Keeps two captures from the same server.
    pub gate: &'a SourceGate,
    /// Bounds.
    pub limits: CaptureLimits,
}

/// Captures a server into the artifact `key`.
///
/// When this returns an error nothing of the artifact is left in the store, and the source runs
/// no child for us, as far as it lets itself be told.
///
/// # Errors
/// [`CaptureError`]; [`CaptureError::may_pass`] says whether to try again.
pub async fn capture(
    request: CaptureRequest<'_>,
    store: &dyn Store,
    key: &ArtifactKey,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<ArtifactEntry, CaptureError> {
    let deadline = Instant::now() + request.limits.total;
    let stop = || stop(&request.limits, deadline, meter, cancel);
    meter.enter("connecting");
    let (mut source, _pass) = tokio::select! {
        prepared = prepare(&request, meter) => prepared?,
        error = stop() => return Err(error),
    };
    let guess = source.info.rdb_bytes_guess();
    if !source.info.tells_save_keys {
        meter.set_guess(request.earlier_bytes.unwrap_or(guess));
    }
    meter.enter("waiting for the snapshot");
    let key = &key.encoded(encoding(request.zstd_level));
    // The larger of the two: what is expected too small has no room in the end.
    let expected_bytes = guess.max(request.earlier_bytes.unwrap_or_default());
    let sink = store.create(key, Some(expected_bytes)).await?;
    let stop = async {
        tokio::select! {
            error = stop() => error,
            error = watch(&source.target, &request.limits, meter) => error,
        }
    };
    match transfer(&request, &source, sink, meter, stop).await {
        Ok((transfer, encoded, stored)) => entry(key, &source, transfer, *encoded, stored),
        Err(error) => {
            settle(&mut source, &request.limits).await;
            Err(error)
        }
    }
}

/// Reads a server's data as a capture does, and stores nothing.
///
/// # Errors
/// As [`capture`].
pub(crate) async fn survey<R: Reading + Send + 'static>(
    request: CaptureRequest<'_>,
    reading: R,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<Read<R>, CaptureError> {
    let deadline = Instant::now() + request.limits.total;
    let stop = || stop(&request.limits, deadline, meter, cancel);
    let (source, _pass) = tokio::select! {
        prepared = prepare(&request, meter) => prepared?,
        error = stop() => return Err(error),
    };
    let (input, pieces) = queue(INPUT_BYTES_MAX);
    let inspecting = tokio::task::spawn_blocking(move || read(pieces, reading));
    let receiving = async {
        tokio::select! {
            received = receive(&request, &source, input, meter) => received,
            error = stop() => Err(ReceiveError::Capture(error)),
        }
    };
    let (received, inspected) = tokio::join!(receiving, inspecting);
    if let Err(ReceiveError::Capture(error)) = received {
        return Err(error);
    }
    let inspected = inspected.map_err(|e| CaptureError::Encoder(std::io::Error::other(e)))?;
    let address = source.target.address.clone();
    inspected.map_err(|damage| CaptureError::Damaged { address, damage })
}

/// Reads what comes out of a queue.
pub(crate) fn read<R: Reading>(
    mut pieces: queue::Receiver,
    reading: R,
) -> Result<Read<R>, InspectError> {
    let mut checked = Checked::new(reading);
    while let Some(batch) = pieces.blocking_recv() {
        for piece in batch.pieces {
            checked.feed(&piece)?;
        }
    }
    checked.finish()
}

async fn prepare(
    request: &CaptureRequest<'_>,
    meter: &Meter,
) -> Result<(Source, Pass), CaptureError> {
    let mut source = choose(request.target, request.prefer_replica, &request.limits).await?;
    // Its child would end without a word, each time that it is asked.
    if request.dialect == RdbDialect::Portable && source.info.keys_with_expiring_fields > 0 {
        return Err(CaptureError::NotPortable { address: source.target.address });
    }
    let pass = source.wait_until_free(request.gate, &request.limits, meter).await?;
    Ok((source, pass))
}

/// Ends, with the reason, when the capture has to end.
async fn stop(
    limits: &CaptureLimits,
    deadline: Instant,
    meter: &Meter,
    cancel: &CancellationToken,
) -> CaptureError {
    tokio::select! {
        () = cancel.cancelled() => CaptureError::Cancelled,
        () = tokio::time::sleep_until(deadline) => CaptureError::TooLong {
            seconds: limits.total.as_secs(),
            received_bytes: meter.received_bytes(),
        },
    }
}

/// What the replication session told.
struct Synchronised {
    replication_id: String,
    replication_offset: u64,
}

/// Why receiving ended early.
enum ReceiveError {
    Capture(CaptureError),
    /// The encoder has stopped taking bytes; the reason is with it or with the store.
    EncoderGone,
}

impl<E: Into<CaptureError>> From<E> for ReceiveError {
    fn from(error: E) -> Self {
        Self::Capture(error.into())
    }
}

/// Runs the three parts of the pipeline until all have ended.
///
/// Each part ends when its neighbour does: the channels between them are what they hear of
/// each other, so no part can be left behind.
async fn transfer(
    request: &CaptureRequest<'_>,
    source: &Source,
    sink: Box<dyn ArtifactSink>,
    meter: &Meter,
    stop: impl Future<Output = CaptureError>,
) -> Result<(Synchronised, Box<Inspection>, Stored), CaptureError> {
    let (input, encoder_input) = queue(INPUT_BYTES_MAX);
    let (encoder_output, output) = mpsc::channel(OUTPUT_PIECES_MAX);
    let inspector = Inspector::new(request.as_of.as_millisecond(), REPORT_TOP);
    let encoder = encode(encoder_input, encoder_output, inspector, request.zstd_level);
    let receiving = async {
        tokio::select! {
            received = receive(request, source, input, meter) => received,
            error = stop => Err(ReceiveError::Capture(error)),
        }
    };
    let (received, encoded, (sink, written)) =
        tokio::join!(receiving, encoder, write(sink, output));
    let address = &source.target.address;
    let judged = match (received, written, encoded) {
        (Err(ReceiveError::Capture(error)), _, _) => Err(error),
        (_, Err(error), _) => Err(error.into()),
        (_, _, Err(EncodeError::Damaged(damage))) => {
            Err(CaptureError::Damaged { address: address.clone(), damage })
        }
        (_, _, Err(EncodeError::Compressor(error))) => Err(CaptureError::Encoder(error)),
        (Err(ReceiveError::EncoderGone), _, _) | (_, _, Err(EncodeError::OutputGone)) => {
            Err(CaptureError::Encoder(std::io::ErrorKind::BrokenPipe.into()))
        }
        (Ok(synchronised), Ok(()), Ok(encoded)) => Ok((synchronised, encoded)),
    };
    match judged {
        Ok((synchronised, encoded)) => {
            meter.enter("storing");
            tracing::debug!(received_bytes = meter.received_bytes(), "received; storing");
            Ok((synchronised, encoded, sink.finish().await?))
        }
        Err(error) => {
            sink.abort().await;
            Err(error)
        }
    }
}

/// Encodes in the background while processors are idle and that keeps up: a source that waits for
/// us is worse off than one that shares a processor. Each time that it does not keep up, more is
/// encoded at the usual priority before the background is tried again; the end always is.
async fn encode(
    input: queue::Receiver,
    output: mpsc::Sender<Bytes>,
    inspector: Inspector,
    zstd_level: Option<i32>,
) -> Result<Box<Inspection>, EncodeError> {
    let mut encoder = Encoder::new(input, output, inspector, zstd_level)?;
    let mut foreground_bytes = 0;
    loop {
        let idle = IdleWatch::start();
        let may_leave = move |encoded_bytes| encoded_bytes >= foreground_bytes && idle.is_idle();
        let run = tokio::task::spawn_blocking(move || encoder.run_until_relieved(may_leave));
        encoder = match run.await?? {
            Encoded::Whole(inspection) => return Ok(inspection),
            Encoded::Part(encoder) => encoder,
        };
        tracing::trace!(foreground_bytes, "the encoder stands back");
        encoder = in_background(move || encoder.run_until_pressed()).await??;
        foreground_bytes =
            foreground_bytes.saturating_mul(FOREGROUND_GROWTH).max(FOREGROUND_BYTES_MIN);
    }
}

async fn write(
    mut sink: Box<dyn ArtifactSink>,
    mut pieces: mpsc::Receiver<Bytes>,
) -> (Box<dyn ArtifactSink>, Result<(), StoreError>) {
    while let Some(piece) = pieces.recv().await {
        if let Err(error) = sink.write(piece).await {
            return (sink, Err(error));
        }
    }
    (sink, Ok(()))
}

/// Speaks the replica's part and passes the RDB on, as fast as the source sends: back-pressure on
/// the socket would only lengthen the life of its fork.
async fn receive(
    request: &CaptureRequest<'_>,
    source: &Source,
    mut input: queue::Sender,
    meter: &Meter,
) -> Result<Synchronised, ReceiveError> {
    let limits = &request.limits;
    let address = &source.target.address;
    let listener = Listener::of(&source.target);
    let session_error = |session| CaptureError::Session {
        address: address.clone(),
        session: listener.told_by(session),
    };
    let mut stream = connect(&source.target, limits.command).await?;
    let mut session = ReplicaSession::new(&replica_config(request, source));
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut synchronised = None;
    loop {
        if let Some(bytes) = session.poll_transmit() {
            stream.write_all(&bytes).await.map_err(|_| closed(source, meter))?;
        }
        if buffer.capacity() < READ_BYTES_MIN {
            buffer.reserve(READ_BYTES);
        }
        let read = tokio::select! {
            read = tokio::time::timeout(limits.stall, stream.read_buf(&mut buffer)) => read,
            () = input.closed() => return Err(ReceiveError::EncoderGone),
        };
        match read {
            Err(_) => return Err(stalled(source, limits, meter).into()),
            Ok(Err(_) | Ok(0)) => return Err(closed(source, meter).into()),
            Ok(Ok(_)) => {
                session.handle_bytes(buffer.split().freeze()).map_err(session_error)?;
            }
        }
        while let Some(event) = session.poll_event() {
            match event {
                ReplicaEvent::Answered(..) => {}
                ReplicaEvent::FullResync { replication_id, offset } => {
                    synchronised =
                        Some(Synchronised { replication_id, replication_offset: offset });
                }
                ReplicaEvent::PayloadStarted(framing) => {
                    meter.enter("receiving");
                    tracing::debug!(?framing, "the snapshot begins");
                    if let Framing::Length(bytes) = framing {
                        meter.set_total(bytes);
                    }
                }
                ReplicaEvent::Payload(piece) => {
                    meter.add_received(piece.len() as u64);
                    input.send(piece).await.map_err(|_| ReceiveError::EncoderGone)?;
                }
                ReplicaEvent::PayloadFinished(_) => {
                    input.flush().await.map_err(|_| ReceiveError::EncoderGone)?;
                    // The session reports the end only after the synchronisation that began it.
                    return synchronised.ok_or_else(|| closed(source, meter).into());
                }
            }
        }
    }
}

fn replica_config(request: &CaptureRequest<'_>, source: &Source) -> ReplicaConfig {
    let login = source.target.login.as_ref();
    ReplicaConfig {
        login: login.map(|login| {
            (login.username.clone(), login.password.expose_secret().as_bytes().to_vec())
        }),
        announced_port: Some(ANNOUNCED_PORT),
        claimed_version: (source.info.engine == EngineKind::Valkey).then_some(
            match request.dialect {
                RdbDialect::Native => CLAIM_NEWEST,
                RdbDialect::Portable => CLAIM_PORTABLE,
            },
        ),
    }
}

fn closed(source: &Source, meter: &Meter) -> CaptureError {
    CaptureError::Closed {
        address: source.target.address.clone(),
        received_bytes: meter.received_bytes(),
    }
}

fn stalled(source: &Source, limits: &CaptureLimits, meter: &Meter) -> CaptureError {
    CaptureError::Stalled {
        address: source.target.address.clone(),
        seconds: limits.stall.as_secs(),
        received_bytes: meter.received_bytes(),
    }
}

/// Looks from time to time how many keys the source's child has written (Redis 7.0 and Valkey
/// tell), which is the only measure of progress when the length is not known beforehand; and what
/// the source suffers. Ends when that was too much for several looks in a row.
async fn watch(target: &Target, limits: &CaptureLimits, meter: &Meter) -> CaptureError {
    let mut client = None;
    let mut harmed = 0;
    loop {
        match look(target, limits, meter, &mut client).await {
            Some(reason) => {
                harmed += 1;
                tracing::warn!(source = %target.address, reason, looks = harmed, "the source suffers from the capture");
                if harmed == HARMED_LOOKS_MAX {
                    let (address, received_bytes) =
                        (target.address.clone(), meter.received_bytes());
                    return CaptureError::Harmful { address, reason, received_bytes };
                }
            }
            None => harmed = 0,
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// Looks once. `client` is what earlier looks asked by, if it still works.
async fn look(
    target: &Target,
    limits: &CaptureLimits,
    meter: &Meter,
    client: &mut Option<Client>,
) -> Option<String> {
    // Who is allowed longer than a command usually takes gets it.
    let patience = limits.command.max(limits.source.map_or(Duration::ZERO, |l| l.answer_max));
    let asking = async {
        let mut asked = match client.take() {
            Some(client) => client,
            None => Client::connect(target, patience).await?,
        };
        let began = Instant::now();
        // Whatever it answers, refusals too: it is the time that counts.
        asked.ask(&["PING"]).await?;
        let answered_in = began.elapsed();
        let info = asked.info().await?;
        *client = Some(asked);
        Ok((info, answered_in))
    };
    match asking.await {
        Ok((info, answered_in)) => {
            if info.save_keys_total > 0 {
                meter.set_keys(info.save_keys_processed, info.save_keys_total);
            }
            limits.source?.harm(&info, answered_in)
        }
        Err(ProbeError::TimedOut { .. }) => Some(limits.source?.slow(patience)),
        // What ails the connection ends the transfer, or does not matter.
        Err(_) => None,
    }
}

/// After a broken transfer: waits until the child that wrote for us has ended, for a while.
///
/// A child that writes to the socket ends with its last reader. One that writes a file goes on
/// (redis#7717) and cannot be told apart from the server's own save, so it is left alone.
async fn settle(source: &mut Source, limits: &CaptureLimits) {
    let until = Instant::now() + SETTLE;
    let Ok(mut client) = Client::connect(&source.target, limits.command).await else { return };
    while let Ok(info) = client.info().await {
        let Some(reason) = info.busy_with else { return };
        if Instant::now() >= until {
            tracing::warn!(source = %source.target.address, reason, "the source is still busy after a broken capture");
            return;
        }
        tokio::time::sleep(SETTLE_POLL).await;
    }
}

fn entry(
    key: &ArtifactKey,
    source: &Source,
    synchronised: Synchronised,
    inspection: Inspection,
    stored: Stored,
) -> Result<ArtifactEntry, CaptureError> {
    let Inspection { envelope, content } = inspection;
    Ok(ArtifactEntry {
        file_name: key.file_name(),
        encoding: key.encoding,
        stored_bytes: stored.size_bytes,
        stored_sha256: stored.sha256,
        rdb: RdbEntry {
            header: envelope.header.to_string(),
            size_bytes: envelope.size_bytes,
            crc64: match envelope.checksum {
                Checksum::Matches(crc) => Some(format!("{crc:016x}")),
                Checksum::Absent => None,
            },
            content: Some(content_entry(content)?),
        },
        source: SourceEntry {
            engine: source.info.engine.as_str().to_owned(),
            server_version: source.info.version.to_string(),
            address: source.target.address.to_string(),
            role: source.info.role.as_str().to_owned(),
            replication_id: synchronised.replication_id,
            replication_offset: synchronised.replication_offset,
        },
    })
}

fn content_entry(content: Content) -> Result<ContentEntry, CaptureError> {
    Ok(match content {
        Content::Verified { digest, report } => ContentEntry::Verified {
            digest: digest_entry(&digest),
            report: serde_json::to_value(report).map_err(|e| CaptureError::Encoder(e.into()))?,
        },
        Content::Opaque { reason } => {
            tracing::warn!(%reason, "the content is of an unknown format: stored, not verified");
            ContentEntry::Opaque {
                warning: OPAQUE_WARNING.to_owned(),
                offset: reason.offset,
                reason: reason.kind.to_string(),
            }
        }
    })
}

fn digest_entry(digest: &Digest) -> DigestEntry {
    let databases = digest.databases.iter();
    let kinds = Kind::ALL.iter().zip(digest.kinds);
    let kinds = kinds.filter(|(_, fingerprint)| *fingerprint != Fingerprint::default());
    DigestEntry {
        version: DIGEST_VERSION,
        keys: digest.keys.to_string(),
        key_count: digest.key_count,
        uncompared: digest.uncompared,
        functions: digest.functions.to_string(),
        databases: databases
            .map(|(db, f)| DatabaseDigest { db: *db, keys: f.to_string() })
            .collect(),
        kinds: kinds.map(|(kind, f)| (kind.as_str().to_owned(), f.to_string())).collect(),
    }
}
