//! Finds out what a restore would do to a target, and what stands in its way.

use std::time::Duration;

use cachevault_domain::{
    Blocker, ConflictRule, EngineKind, Loading, RestoreOptions, RestorePlan, RestoreWay, Role,
    ServerVersion, Target, TtlRule,
};
use cachevault_proto::Reply;
use cachevault_rdb::report::Report;
use cachevault_rdb::{Header, Magic};
use cachevault_store::{ArtifactEntry, ContentEntry, RdbEntry};

use crate::info::ServerInfo;
use crate::restore::admin::Admin;
use crate::restore::error::RestoreError;

/// Data is read back by default up to this size of RDB: beyond it the target would be out of
/// service for long.
const PROVE_BYTES_MAX: u64 = 256 << 20;
/// The share of a machine's memory that the old and the new data may fill together, in percent.
const SWAP_MEMORY_PERCENT: u64 = 80;

/// What a target tells of itself.
#[derive(Debug, Clone)]
struct TargetFacts {
    info: ServerInfo,
    databases: Option<u64>,
    memory_policy: String,
    /// When it saves by itself; empty where it never does.
    save_points: String,
    replicates_by_tls: bool,
    /// `None` where its user may not ask.
    has_modules: Option<bool>,
    /// `None` where its user may not ask.
    is_watched_by_sentinel: Option<bool>,
    /// What of the way `replica` its user may not do.
    denied: Vec<Blocker>,
    /// What of the way `keys` its user may not do, and when that matters.
    denied_keys: Vec<(Needed, Blocker)>,
}

/// When a restore by keys needs a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needed {
    Always,
    /// The backup has keys outside of database 0.
    ForDatabases,
    /// The backup has functions, and all of it is wanted.
    ForFunctions,
    /// The target has functions, which are to give way.
    ToDropFunctions,
}

/// What is known of a backup's content.
struct ContentFacts {
    header: Option<Header>,
    report: Result<Report, String>,
}

/// Looks at a target and tells what restoring `entry` into it would do. Touches nothing. `command`
/// bounds connecting and each command; `has_certificate` says whether there is one for targets that
/// replicate by TLS.
///
/// # Errors
/// [`RestoreError`] when the target cannot be looked at.
pub async fn plan(
    target: &Target,
    entry: &ArtifactEntry,
    options: &RestoreOptions,
    has_certificate: bool,
    command: Duration,
) -> Result<RestorePlan, RestoreError> {
    let mut admin = Admin::connect(target, command).await?;
    let facts = look(&mut admin).await?;
    Ok(judge(&facts, &content(entry), &entry.rdb, options, has_certificate))
}

fn content(entry: &ArtifactEntry) -> ContentFacts {
    let report = match &entry.rdb.content {
        Some(ContentEntry::Verified { report, .. }) => {
            serde_json::from_value(report.clone()).map_err(|e| format!("its report: {e}"))
        }
        Some(ContentEntry::Opaque { reason, .. }) => Err(reason.clone()),
        None => Err("it was made by an older version of this service".to_owned()),
    };
    let header = entry.rdb.header.as_bytes().try_into().ok();
    ContentFacts { header: header.and_then(|bytes| Header::parse(bytes).ok()), report }
}

async fn look(admin: &mut Admin) -> Result<TargetFacts, RestoreError> {
    let info = admin.info().await?;
    let mut denied = Vec::new();
    let mut settings = [const { None }; 4];
    for (value, name) in
        settings.iter_mut().zip(["databases", "maxmemory-policy", "tls-replication", "save"])
    {
        match admin.setting(name).await {
            Ok(found) => *value = found,
            Err(error) => {
                denied = vec![denial(error, "CONFIG GET", "+config|get +config|set")?];
            }
        }
    }
    let [databases, memory_policy, tls, save] = settings;
    // Refused for its port, which is none, but only after the permission was checked.
    if let Err(error) = admin.command(&["REPLICAOF", "cachevault", "none"]).await
        && !error.is_about_an_argument()
    {
        denied.push(denial(error, "REPLICAOF", "+replicaof +psync +replconf +ping +info")?);
    }
    for (command, grant) in [("BGSAVE", "+bgsave"), ("BGREWRITEAOF", "+bgrewriteaof")] {
        // An argument that is none: refused for it, after the permission was checked.
        if let Err(error) = admin.command(&[command, "nothing"]).await
            && error.is_denial()
        {
            denied.push(denial(error, command, grant)?);
        }
    }
    let mut denied_keys = Vec::new();
    // Refused for arguments that are none, after the permission was checked.
    for (needed, command, grant) in [
        (Needed::Always, &["RESTORE", "cachevault", "none", ""][..], "+restore"),
        (Needed::Always, &["FLUSHALL", "none"], "+flushall"),
        (Needed::ForDatabases, &["SELECT", "none"], "+select"),
        (Needed::ForFunctions, &["FUNCTION", "LOAD", "none"], "+function|load"),
        (Needed::ToDropFunctions, &["FUNCTION", "FLUSH", "none"], "+function|flush"),
    ] {
        if let Err(error) = admin.command(command).await
            && error.is_denial()
        {
            let name = command[..command.len() - 1].join(" ");
            let name = if needed == Needed::Always { command[0] } else { &name };
            denied_keys.push((needed, denial(error, name, grant)?));
        }
    }
    Ok(TargetFacts {
        denied_keys,
        databases: databases.and_then(|text| text.parse().ok()),
        memory_policy: memory_policy.unwrap_or_default(),
        save_points: save.unwrap_or_default(),
        replicates_by_tls: tls.as_deref() == Some("yes"),
        has_modules: match admin.command(&["MODULE", "LIST"]).await {
            Ok(Reply::Array(Some(modules))) => Some(!modules.is_empty()),
            _ => None,
        },
        is_watched_by_sentinel: match admin.command(&["CLIENT", "LIST", "TYPE", "pubsub"]).await {
            Ok(Reply::Bulk(Some(clients))) => {
                Some(memchr::memmem::find(&clients, b"name=sentinel-").is_some())
            }
            _ => None,
        },
        denied,
        info,
    })
}

/// A refusal as a blocker; an error that is none is passed on.
fn denial(error: RestoreError, command: &str, grant: &str) -> Result<Blocker, RestoreError> {
    match error {
        RestoreError::Refused { detail, .. } => {
            Ok(Blocker::Denied { command: command.to_owned(), detail, grant: grant.to_owned() })
        }
        other => Err(other),
    }
}

fn judge(
    facts: &TargetFacts,
    content: &ContentFacts,
    rdb: &RdbEntry,
    options: &RestoreOptions,
    has_certificate: bool,
) -> RestorePlan {
    let header = rdb.header.as_str();
    let info = &facts.info;
    let report = content.report.as_ref().ok();
    let needed_bytes = report.map_or(0, needed_bytes);
    let (way, because) = choose_way(options, facts, has_certificate);
    let loading = choose_loading(info, needed_bytes, options);
    let mut blockers = match way {
        RestoreWay::Replica => facts.denied.clone(),
        RestoreWay::Keys => denied_keys(facts, report, options),
    };
    if let Err(reason) = &content.report {
        blockers.push(Blocker::Opaque { reason: reason.clone() });
    }
    blockers.extend(format_blocker(info, content, header));
    blockers.extend(report.and_then(|report| databases_blocker(report, facts)));
    // What a part of the data needs is not known.
    if options.filter.is_everything() {
        blockers.extend(memory_blocker(info, needed_bytes));
    }
    if let Some(report) = report
        && !report.modules.is_empty()
        && facts.has_modules == Some(false)
    {
        blockers.push(Blocker::Modules { names: report.modules.keys().cloned().collect() });
    }
    blockers.extend(saving_blocker(facts));
    if let (Role::Replica, Some(primary)) = (info.role, &info.follows) {
        blockers.push(Blocker::Replica { primary: primary.clone() });
    }
    if way == RestoreWay::Replica && facts.is_watched_by_sentinel == Some(true) {
        blockers.push(Blocker::Sentinel);
    }
    if way == RestoreWay::Replica && facts.replicates_by_tls && !has_certificate {
        blockers.push(Blocker::NoCertificate);
    }
    if way == RestoreWay::Replica && needs_keys(options) {
        blockers.push(Blocker::NotThisWay {
            wish: "a filter, a merge or another time to live".to_owned(),
            way,
            advice: "leave the way to the plan, or choose `keys`".to_owned(),
        });
    }
    RestorePlan {
        way,
        because,
        loading,
        header: header.to_owned(),
        engine: info.engine,
        version: info.version,
        keys: report.map(|report| report.total.keys),
        replaced_keys: info.keys,
        needed_bytes,
        prove: options.prove.unwrap_or(rdb.size_bytes <= PROVE_BYTES_MAX),
        notes: notes(facts, report, way, loading),
        blockers,
    }
}

fn choose_way(
    options: &RestoreOptions,
    facts: &TargetFacts,
    has_certificate: bool,
) -> (RestoreWay, String) {
    match options.way {
        Some(way) => (way, "it was asked for".to_owned()),
        None if needs_keys(options) => {
            (RestoreWay::Keys, "only part of the data, or other times to live, are wanted".into())
        }
        None if !facts.denied.is_empty() => {
            let reason = "the target does not let itself be made a replica, or be prepared for it";
            (RestoreWay::Keys, reason.to_owned())
        }
        None if facts.is_watched_by_sentinel == Some(true) => {
            (RestoreWay::Keys, "a Sentinel would take a loading target for failed".to_owned())
        }
        None if facts.replicates_by_tls && !has_certificate => (
            RestoreWay::Keys,
            "the target replicates by TLS, and this service has no certificate to show it"
                .to_owned(),
        ),
        None => (RestoreWay::Replica, "the target loads natively, which is fastest".to_owned()),
    }
}

/// What stands in the way of a restore by keys of just this backup.
fn denied_keys(
    facts: &TargetFacts,
    report: Option<&Report>,
    options: &RestoreOptions,
) -> Vec<Blocker> {
    let is_everything = options.filter.is_everything();
    let has_databases = report.is_some_and(|r| r.databases.iter().any(|sums| sums.db > 0));
    let has_functions = report.is_some_and(|report| !report.functions.is_empty());
    let matters = |needed| match needed {
        Needed::Always => true,
        Needed::ForDatabases => has_databases && options.filter.database != Some(0),
        Needed::ForFunctions => is_everything && has_functions,
        Needed::ToDropFunctions => {
            is_everything
                && options.conflict == ConflictRule::ReplaceAll
                && facts.info.functions > 0
        }
    };
    let denied = facts.denied_keys.iter().filter(|(needed, _)| matters(*needed));
    denied.map(|(_, blocker)| blocker.clone()).collect()
}

/// Whether what is wanted is not all of the data as it is.
fn needs_keys(options: &RestoreOptions) -> bool {
    !options.filter.is_everything()
        || options.ttl != TtlRule::Keep
        || options.conflict != ConflictRule::ReplaceAll
}

fn choose_loading(info: &ServerInfo, needed_bytes: u64, options: &RestoreOptions) -> Loading {
    let knows_diskless = info.version >= ServerVersion { major: 6, minor: 0, patch: 0 };
    if !knows_diskless {
        return Loading::Disk;
    }
    if info.keys == 0 {
        return Loading::Direct;
    }
    let both = info.used_memory_bytes.saturating_add(needed_bytes);
    let has_room = info.system_memory_bytes > 0
        && both <= info.system_memory_bytes / 100 * SWAP_MEMORY_PERCENT;
    if options.swap.unwrap_or(has_room && needed_bytes > 0) { Loading::Swap } else { Loading::Disk }
}

/// What the source needed for it, or what its sizes and encodings let expect: the larger one.
fn needed_bytes(report: &Report) -> u64 {
    let told = report.aux.get("used-mem").and_then(|text| text.parse().ok()).unwrap_or(0);
    report.total.memory_bytes.max(told)
}

fn newest_format(engine: EngineKind, version: ServerVersion) -> Header {
    let (magic, number) = match (engine, version.major, version.minor) {
        (EngineKind::Valkey, 9.., _) => (Magic::Valkey, 80),
        (EngineKind::Valkey, ..) => (Magic::Redis, 11),
        (EngineKind::Redis, ..=6, _) => (Magic::Redis, 9),
        (EngineKind::Redis, 7, 0..=1) => (Magic::Redis, 10),
        (EngineKind::Redis, 7, 2..=3) => (Magic::Redis, 11),
        (EngineKind::Redis, ..) => (Magic::Redis, 12),
    };
    Header { magic, version: number }
}

/// The newest Redis format that Valkey 9 loads.
const REDIS_FORMAT_OF_VALKEY: u16 = 11;

/// The format that the data is in: what its header says, or what its encodings do, where a server
/// was told to write an older header over them.
fn needed_format(content: &ContentFacts) -> Option<Header> {
    let header = content.header?;
    let least = content.report.as_ref().ok().and_then(|report| report.least_redis_version);
    let version = match header.magic {
        Magic::Redis => header.version.max(least.unwrap_or_default()),
        Magic::Valkey => header.version,
    };
    Some(Header { version, ..header })
}

fn format_blocker(info: &ServerInfo, content: &ContentFacts, header: &str) -> Option<Blocker> {
    let newest = newest_format(info.engine, info.version);
    let needed = needed_format(content);
    let loads = needed.is_some_and(|found| match (found.magic, newest.magic) {
        (Magic::Redis, Magic::Valkey) => found.version <= REDIS_FORMAT_OF_VALKEY,
        (Magic::Valkey, Magic::Redis) => false,
        _ => found.version <= newest.version,
    });
    let advice = match content.header.map(|found| found.magic) {
        Some(Magic::Valkey) => {
            "choose a Valkey 9 or newer, or make the backup with the dialect `portable`"
        }
        _ => "choose a target of the version that the backup comes from, or newer",
    };
    (!loads).then(|| Blocker::Format {
        header: needed.map_or_else(|| header.to_owned(), |needed| needed.to_string()),
        engine: info.engine,
        version: info.version,
        loads: newest.to_string(),
        advice: advice.to_owned(),
    })
}

fn databases_blocker(report: &Report, facts: &TargetFacts) -> Option<Blocker> {
    let highest = report.databases.iter().map(|sums| sums.db).max()?;
    let has = facts.databases?;
    (highest >= has).then_some(Blocker::Databases { highest, has })
}

fn memory_blocker(info: &ServerInfo, needed_bytes: u64) -> Option<Blocker> {
    let (limit_bytes, limit) = match (info.max_memory_bytes, info.system_memory_bytes) {
        (0, 0) => return None,
        (0, system) => (system, "its machine's memory"),
        (max, _) => (max, "`maxmemory`"),
    };
    let limit = limit.to_owned();
    (needed_bytes > limit_bytes).then_some(Blocker::Memory { needed_bytes, limit_bytes, limit })
}

fn saving_blocker(facts: &TargetFacts) -> Option<Blocker> {
    let persistence = &facts.info.persistence;
    if persistence.aof_enabled && !persistence.aof_rewrite_ok {
        return Some(Blocker::CannotSave { what: "AOF rewrite" });
    }
    let saves = !facts.save_points.is_empty();
    (saves && !persistence.save_ok).then_some(Blocker::CannotSave { what: "background save" })
}

fn notes(
    facts: &TargetFacts,
    report: Option<&Report>,
    way: RestoreWay,
    loading: Loading,
) -> Vec<String> {
    let info = &facts.info;
    let mut notes = Vec::new();
    if info.keys > 0 {
        notes.push(format!("the {} keys that the target holds now are removed", info.keys));
    }
    notes.push(match loading {
        _ if way == RestoreWay::Keys => {
            "keys come one after the other: clients see old, missing and new ones meanwhile"
                .to_owned()
        }
        Loading::Swap => {
            "writes are refused while the target loads; it keeps its old data until all is loaded, \
             and needs memory for both"
                .to_owned()
        }
        _ => {
            "writes are refused, and reads answered with LOADING, while the target loads".to_owned()
        }
    });
    if way == RestoreWay::Replica && !info.replicas.is_empty() {
        notes.push(format!("its {} replicas will synchronise anew", info.replicas.len()));
    }
    if way == RestoreWay::Replica && facts.is_watched_by_sentinel.is_none() {
        notes.push(
            "whether a Sentinel watches it is not known, and one could undo the restore: its user \
             lacks `+client|list`"
                .to_owned(),
        );
    }
    if report.is_some_and(|report| !report.modules.is_empty()) && facts.has_modules.is_none() {
        notes.push(
            "whether it has the modules that the backup needs is not known: its user lacks \
             `+module|list`"
                .to_owned(),
        );
    }
    if facts.save_points.is_empty() && !info.persistence.aof_enabled {
        notes.push("it keeps nothing on its disk by itself; it is told to save once".to_owned());
    }
    if info.persistence.aof_enabled {
        notes.push("it rewrites its AOF before the restore counts as done".to_owned());
    }
    if info.max_memory_bytes > 0 && facts.memory_policy.starts_with("allkeys") {
        notes.push(format!("its policy `{}` may evict keys once it is full", facts.memory_policy));
    }
    let expiring = report.map_or(0, |report| report.total.expiring);
    if expiring > 0 {
        notes
            .push(format!("{expiring} keys expire; those whose time is over will be gone at once"));
    }
    notes
}
