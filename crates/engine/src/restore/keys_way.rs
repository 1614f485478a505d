//! Restoring by commands: a `RESTORE` for every wanted key, an `MSET` for many short strings.
//!
//! ```text
//! store ─► artifact ─► forward ─► decode, encode ─► chunks ─► write ─► target
//!   read, decompressed  here        own thread     budget  └► read ◄─┘  (two connections)
//! ```
//!
//! What is on its way between the encoder and the target's replies is bounded by bytes
//! ([`chunk`]), and so is everything before it; memory is a constant whatever the size of the data
//! and of its values. Every connection writes and reads at once: a target that waits for us to take
//! its replies never waits for ever.
//!
//! A module's data outside of keys has no command that would write it, and is left out.

mod chunk;
mod link;
mod produce;
mod split;
mod stream;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cachevault_domain::{
    ConflictRule, EngineKind, KeyFilter, Loads, RdbFamily, RdbVersion, RestoreOptions, Target,
    TtlRule, formats_of,
};
use cachevault_proto::Reply;
use cachevault_rdb::Magic;
use cachevault_store::{ArtifactEntry, ArtifactKey, Store};
use jiff::Timestamp;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::error::VerifyError;
use crate::meter::Meter;
use crate::restore::admin::Admin;
use crate::restore::artifact::RdbReader;
use crate::restore::error::RestoreError;
use crate::restore::glob;
use crate::restore::replica_way::RestoreLimits;
use chunk::chunks;
use link::Link;
use produce::{Pass, Producer};

/// A server's main thread is the limit; the second connection fills the gaps of the first.
const CONNECTIONS: usize = 2;
/// A larger value blocks a server for long, and is in our memory more than once.
pub(crate) const PAYLOAD_BYTES_MAX: u64 = 64 << 20;
/// The server's own default for `proto-max-bulk-len`.
const BULK_BYTES_MAX: u64 = 512 << 20;
/// Pieces of the RDB that may wait for the encoder.
const PIECES_MAX: usize = 2;
/// How many keys an error tells of.
const EXAMPLES_MAX: usize = 3;
/// How often an emptied target is asked whether its memory is free.
const FREED_LOOK: Duration = Duration::from_millis(50);
/// The version that came with functions and with the counters of streams.
const REDIS_7: (u16, u16) = (7, 0);

/// What to restore by commands, and into what.
#[derive(Debug, Clone, Copy)]
pub struct KeysRequest<'a> {
    /// The target.
    pub target: &'a Target,
    /// Where the artifact is.
    pub store: &'a dyn Store,
    /// The artifact.
    pub key: &'a ArtifactKey,
    /// What its manifest says of it.
    pub entry: &'a ArtifactEntry,
    /// Which keys are wanted, and what becomes of their expiries and of what is there already.
    pub options: &'a RestoreOptions,
    /// The moment of the restore: what expires up to it is left out.
    pub now: Timestamp,
    /// The moment whose data the backup holds: [`TtlRule::Shift`] moves expiries by the time
    /// since then.
    pub captured_at: Timestamp,
    /// Bounds.
    pub limits: RestoreLimits,
}

/// What became of a backup's keys and functions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeysLoaded {
    /// Keys that were written.
    pub restored: u64,
    /// Keys and libraries of functions that the target had already and keeps as they are.
    pub skipped: u64,
    /// Keys whose time was over.
    pub expired: u64,
    /// Keys that the filter leaves out.
    pub filtered: u64,
    /// Keys without elements, which servers leave out.
    pub empty: u64,
    /// Libraries of functions that were written.
    pub functions: u64,
}

impl KeysLoaded {
    fn add(&mut self, other: Self) {
        self.restored += other.restored;
        self.skipped += other.skipped;
        self.expired += other.expired;
        self.filtered += other.filtered;
        self.empty += other.empty;
        self.functions += other.functions;
    }
}

/// Writes a backup's keys into a target by commands.
///
/// A value that is too large for one command, and a hash with fields that expire in the other vendor's
/// encoding, is written by several: then its idle time or
/// frequency is not, nor are a stream's pending entries that are deleted, the moments when its
/// consumers were last seen, and its idempotent producers; and clients may see, and write, a part of it. The expiries of a hash's
/// fields follow the rule for keys.
///
/// # Errors
/// [`RestoreError`]; what was written until then stays, and [`Meter::has_written`] tells whether anything
/// may have been.
pub async fn load_keys(
    request: KeysRequest<'_>,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<KeysLoaded, RestoreError> {
    load_keys_splitting(request, PAYLOAD_BYTES_MAX, meter, cancel).await
}

/// As [`load_keys`], where values above `payload_max` are written by several commands.
async fn load_keys_splitting(
    request: KeysRequest<'_>,
    payload_max: u64,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<KeysLoaded, RestoreError> {
    let total = request.limits.total;
    let opened = Opened::default();
    let loaded = tokio::select! {
        loaded = tokio::time::timeout(total, request.run(payload_max, meter, &opened)) => {
            loaded.unwrap_or(Err(RestoreError::TooLong { seconds: total.as_secs() }))
        }
        () = cancel.cancelled() => Err(RestoreError::Cancelled),
    };
    if loaded.is_err() {
        request.cut_off(opened).await;
    }
    loaded
}

/// The target's numbers for our connections.
#[derive(Debug, Default)]
struct Opened(std::sync::Mutex<Vec<i64>>);

impl Opened {
    fn push(&self, id: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }

    fn into_ids(self) -> Vec<i64> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the target can do, as far as it matters here.
#[derive(Debug, Clone, Copy)]
struct Abilities {
    /// Longest argument of a command, bytes.
    bulk_max: u64,
    /// Longest payload of a `RESTORE`, bytes.
    payload_max: u64,
    /// Whether several strings can be set by one command.
    can_set_many: bool,
    /// Whether streams count what was added and read.
    has_stream_counts: bool,
    /// Whether a group's consumer can be created.
    can_create_consumers: bool,
    /// Whose encodings it reads beside those that both vendors have.
    family: Magic,
    /// Whether a hash may bring the fields of its template.
    has_hash_templates: bool,
}

/// The format that came with templates of hashes.
const HASH_TEMPLATES: RdbVersion = RdbVersion { family: RdbFamily::Redis, number: 15 };

/// The rules of a restore, for the thread that encodes.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    filter: KeyFilter,
    conflict: ConflictRule,
    ttl: TtlRule,
    now_ms: i64,
    captured_at_ms: i64,
}

impl Rules {
    pub(crate) fn new(options: &RestoreOptions, now: Timestamp, captured_at: Timestamp) -> Self {
        Self {
            filter: options.filter.clone(),
            conflict: options.conflict,
            ttl: options.ttl,
            now_ms: now.as_millisecond(),
            captured_at_ms: captured_at.as_millisecond(),
        }
    }

    /// Whether the filter lets a key pass.
    pub(crate) fn wants(&self, database: u64, name: &[u8]) -> bool {
        let KeyFilter { pattern, database: wanted } = &self.filter;
        wanted.is_none_or(|wanted| u64::from(wanted) == database)
            && pattern.as_ref().is_none_or(|pattern| glob::matches(pattern.as_bytes(), name))
    }

    /// When something expires under the rule for expiries, if ever.
    pub(crate) fn expiry(&self, stored_ms: Option<i64>) -> Result<Option<i64>, Over> {
        let Some(stored_ms) = stored_ms else { return Ok(None) };
        let age_ms = self.now_ms.saturating_sub(self.captured_at_ms);
        let expires_at_ms = match self.ttl {
            TtlRule::Keep => stored_ms,
            TtlRule::Shift => stored_ms.saturating_add(age_ms),
            // What a server had only not yet deleted does not come to life.
            TtlRule::Strip if stored_ms > self.captured_at_ms => return Ok(None),
            TtlRule::Strip => return Err(Over),
        };
        if expires_at_ms > self.now_ms { Ok(Some(expires_at_ms)) } else { Err(Over) }
    }

    /// Whether moments of expiry are others than in the backup.
    pub(crate) fn moves_expiries(&self) -> bool {
        self.ttl != TtlRule::Keep
    }

    /// Whether keys that are there already give way.
    fn replaces(&self) -> bool {
        matches!(self.conflict, ConflictRule::ReplaceAll | ConflictRule::Replace)
    }
}

/// The time of a key or a field is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Over;

/// Counts whatever moves: while nothing does, the restore is stuck.
#[derive(Debug, Default)]
struct Pulse {
    beats: AtomicU64,
    /// Commands that the target has not answered.
    unanswered: AtomicU64,
    /// Whether the command that went first, alone, was accepted.
    is_accepted: AtomicBool,
}

impl Pulse {
    fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    fn asked(&self, commands: u64) {
        self.unanswered.fetch_add(commands, Ordering::Relaxed);
    }

    fn answered(&self) {
        self.unanswered.fetch_sub(1, Ordering::Relaxed);
        self.beat();
    }
}

impl KeysRequest<'_> {
    async fn run(
        &self,
        payload_max: u64,
        meter: &Meter,
        opened: &Opened,
    ) -> Result<KeysLoaded, RestoreError> {
        let mut admin = Admin::connect(self.target, self.limits.command).await?;
        let abilities = abilities(&mut admin, payload_max).await?;
        let size = self.entry.rdb.size_bytes;
        if self.options.conflict != ConflictRule::Fail {
            meter.set_total(size);
            let reader = RdbReader::open(self.store, self.key, self.entry).await?;
            if self.replaces_all() {
                meter.enter("emptying the target");
                self.empty(&mut admin, meter).await?;
            }
            meter.enter("writing keys");
            return self.pass(Pass::Write, abilities, reader, 0, meter, opened).await;
        }
        meter.set_total(size.saturating_mul(2));
        meter.enter("looking for keys that are there already");
        let reader = RdbReader::open(self.store, self.key, self.entry).await?;
        self.pass(Pass::Look, abilities, reader, 0, meter, opened).await?;
        meter.enter("writing keys");
        let reader = RdbReader::open(self.store, self.key, self.entry).await?;
        self.pass(Pass::Write, abilities, reader, size, meter, opened).await
    }

    /// A part of a backup cannot take the place of everything.
    fn replaces_all(&self) -> bool {
        self.options.conflict == ConflictRule::ReplaceAll && self.options.filter.is_everything()
    }

    fn rules(&self) -> Rules {
        Rules::new(self.options, self.now, self.captured_at)
    }

    /// Deletes all that the target holds, without blocking it, and waits until its memory is free:
    /// new keys would have no room beside the old.
    async fn empty(&self, admin: &mut Admin, meter: &Meter) -> Result<(), RestoreError> {
        let info = admin.info().await?;
        if info.keys > 0 {
            meter.set_written(true);
            admin.command(&["FLUSHALL", "ASYNC"]).await.inspect_err(|error| {
                meter.set_written(!error.is_refusal());
            })?;
        }
        if info.functions > 0 {
            meter.set_written(true);
            admin.command(&["FUNCTION", "FLUSH"]).await?;
        }
        let until = Instant::now() + self.limits.busy_wait;
        while Instant::now() < until {
            let Reply::Bulk(Some(memory)) = admin.command(&["INFO", "memory"]).await? else {
                break;
            };
            let memory = String::from_utf8_lossy(&memory);
            let pending = memory.lines().find_map(|l| l.strip_prefix("lazyfree_pending_objects:"));
            if pending.is_none_or(|pending| pending.trim() == "0") {
                break;
            }
            tokio::time::sleep(FREED_LOOK).await;
        }
        Ok(())
    }

    /// Takes the whole RDB once. `before` bytes were taken in an earlier pass.
    async fn pass(
        &self,
        pass: Pass,
        abilities: Abilities,
        mut reader: RdbReader,
        before: u64,
        meter: &Meter,
        opened: &Opened,
    ) -> Result<KeysLoaded, RestoreError> {
        let is_first_write = pass == Pass::Write && !meter.has_written();
        let (sender, chunks) = chunks(is_first_write);
        let chunks = Arc::new(Mutex::new(chunks));
        let pulse = Arc::new(Pulse::default());
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let mut client = Client::connect(self.target, self.limits.command).await?;
            if let Reply::Integer(id) = client.call(&["CLIENT", "ID"]).await? {
                opened.push(id);
            }
            let address = self.target.address.clone();
            let conflict = self.options.conflict;
            let link = Link::new(client, address, conflict, Arc::clone(&pulse));
            tasks.spawn(link.run(Arc::clone(&chunks)));
        }
        // The links alone keep it: when they are gone, the producer is told so.
        drop(chunks);
        let (pieces, producer_input) = mpsc::channel::<Bytes>(PIECES_MAX);
        let producer = Producer::new(pass, self.rules(), abilities, self.target, sender);
        meter.set_written(meter.has_written() || pass == Pass::Write);
        tasks.spawn_blocking(move || producer.run(producer_input));

        let forward = async {
            let mut taken = before;
            while let Some(piece) = reader.next().await? {
                taken += piece.len() as u64;
                if pieces.send(piece).await.is_err() {
                    // The producer says itself why it left.
                    break;
                }
                pulse.beat();
                meter.set_received(taken);
            }
            drop(pieces);
            Ok(())
        };
        let collect = async {
            let (mut loaded, mut found) = (KeysLoaded::default(), Found::default());
            while let Some(done) = tasks.join_next().await {
                let done = done.map_err(|e| VerifyError::Undecodable(e.to_string()))??;
                loaded.add(done.loaded);
                found.add(done.found);
            }
            found.judge(self.target).map(|()| loaded)
        };
        let done = tokio::select! {
            done = async { tokio::try_join!(forward, collect) } => done.map(|((), loaded)| loaded),
            stuck = self.stuck(&pulse) => Err(stuck),
        };
        done.inspect_err(|error| {
            let is_accepted = pulse.is_accepted.load(Ordering::Relaxed);
            if is_first_write && !is_accepted && error.is_refusal() {
                // The first command went alone.
                meter.set_written(false);
            }
        })
    }

    /// Ends our connections at the target's side: what they have sent and it has not read yet would
    /// be done after whatever comes next, such as putting its old data back.
    async fn cut_off(&self, opened: Opened) {
        let ids = opened.into_ids();
        if ids.is_empty() {
            return;
        }
        let mut admin = match Admin::connect(self.target, self.limits.command).await {
            Ok(admin) => admin,
            Err(error) => {
                tracing::warn!(%error, "connections could not be ended; what they have sent may still be done");
                return;
            }
        };
        for id in ids {
            if let Err(error) = admin.command(&["CLIENT", "KILL", "ID", &id.to_string()]).await {
                tracing::warn!(%error, "a connection could not be ended; what it has sent may still be done");
            }
        }
    }

    /// Returns when nothing has moved for too long.
    async fn stuck(&self, pulse: &Pulse) -> RestoreError {
        let stall = self.limits.stall;
        let (mut beats, mut since) = (0, Instant::now());
        loop {
            tokio::time::sleep((stall / 8).max(Duration::from_millis(1))).await;
            let now = pulse.beats.load(Ordering::Relaxed);
            if now != beats {
                (beats, since) = (now, Instant::now());
            } else if since.elapsed() >= stall {
                let seconds = stall.as_secs();
                return match pulse.unanswered.load(Ordering::Relaxed) {
                    0 => RestoreError::StoreStalled { seconds },
                    _ => RestoreError::TargetGone { address: self.target.address.clone(), seconds },
                };
            }
        }
    }
}

/// What a task of a pass has done.
#[derive(Debug, Default)]
struct Done {
    loaded: KeysLoaded,
    found: Found,
}

/// Keys that the target holds already.
#[derive(Debug, Default)]
struct Found {
    count: u64,
    examples: Vec<u64>,
}

impl Found {
    fn push(&mut self, key: u64) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(key);
        }
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES_MAX);
    }

    fn judge(self, target: &Target) -> Result<(), RestoreError> {
        let Self { count, examples } = self;
        if count == 0 {
            return Ok(());
        }
        Err(RestoreError::KeysExist { address: target.address.clone(), count, examples })
    }
}

/// A key in a message. Messages are kept and logged, where names of somebody's data have no place.
fn shown(key: u64) -> String {
    format!("key {key} of the backup")
}

async fn abilities(admin: &mut Admin, payload_max: u64) -> Result<Abilities, RestoreError> {
    let info = admin.info().await?;
    let bulk_max = match admin.setting("proto-max-bulk-len").await {
        Ok(setting) => setting.and_then(|bytes| bytes.parse().ok()),
        // Managed services do not show their settings.
        Err(error) if error.is_denial() => None,
        Err(error) => return Err(error),
    };
    let bulk_max = bulk_max.unwrap_or(BULK_BYTES_MAX);
    let version = (info.version.major, info.version.minor);
    Ok(Abilities {
        bulk_max,
        can_set_many: can_set_many(admin).await?,
        payload_max: payload_max.min(bulk_max),
        has_stream_counts: version >= REDIS_7,
        can_create_consumers: version >= (6, 2),
        family: match info.engine {
            EngineKind::Redis => Magic::Redis,
            EngineKind::Valkey => Magic::Valkey,
        },
        has_hash_templates: formats_of(info.engine, info.version).loads(HASH_TEMPLATES)
            == Loads::Yes,
    })
}

/// Asks by a command that has one argument too few, which is looked at last: a user who may not
/// send it or not to these keys, and a node of a cluster, which takes only keys of one slot, are
/// told something else.
async fn can_set_many(admin: &mut Admin) -> Result<bool, RestoreError> {
    match admin.command(&["MSET", "cachevault:1", "", "cachevault:2"]).await {
        Err(RestoreError::Refused { detail, .. }) => Ok(detail.contains("wrong number of arg")),
        Err(error) => Err(error),
        Ok(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests;
