//! Finds out what a restore would do to a target, and what stands in its way.

mod facts;
mod format;
mod part;
mod rights;

use std::collections::BTreeSet;
use std::time::Duration;

use cachevault_domain::{
    Blocker, ConflictRule, Loading, RestoreOptions, RestorePlan, RestoreWay, Role, ServerVersion,
    Target, TtlRule,
};
use cachevault_rdb::Header;
use cachevault_rdb::report::Report;
use cachevault_store::{ArtifactEntry, ContentEntry};

use crate::info::ServerInfo;
use crate::restore::admin::Admin;
use crate::restore::error::RestoreError;
use facts::{TargetFacts, look};
use format::{FormatCheck, unverified_refusal};
pub use part::{PartRequest, check_part};
use rights::{KeysNeeds, Needed};

/// Data is read back by default up to this size of RDB: beyond it the target would be out of
/// service for long.
const PROVE_BYTES_MAX: u64 = 256 << 20;
/// The share of a machine's memory that the old and the new data may fill together, in percent.
const SWAP_MEMORY_PERCENT: u64 = 80;

/// What is known of a backup's content.
struct ContentFacts {
    header: Option<Header>,
    report: Result<Report, String>,
}

/// What is to be restored into what.
#[derive(Debug, Clone, Copy)]
pub struct PlanRequest<'a> {
    /// The target.
    pub target: &'a Target,
    /// What the backup's manifest says of its artifact.
    pub entry: &'a ArtifactEntry,
    /// How the restore is wanted.
    pub options: &'a RestoreOptions,
    /// Whether there is a certificate for targets that replicate by TLS.
    pub has_certificate: bool,
    /// The header of what the target itself sent, such as `REDIS0013`, where it was captured before.
    pub target_writes: Option<&'a str>,
    /// Bounds connecting and each command.
    pub command: Duration,
}

/// Looks at a target and reports what a restore into it would do. Touches nothing.
///
/// # Errors
/// [`RestoreError`] when the target cannot be looked at.
pub async fn plan(request: PlanRequest<'_>) -> Result<RestorePlan, RestoreError> {
    let mut admin = Admin::connect(request.target, request.command).await?;
    let content = content(request.entry);
    let facts = look(&mut admin, databases(&content)).await?;
    Ok(judge(&request, &facts, &content))
}

/// The databases beside the first one that the backup has keys in.
fn databases(content: &ContentFacts) -> impl Iterator<Item = u64> {
    let sums = content.report.iter().flat_map(|report| &report.databases);
    let databases: BTreeSet<u64> = sums.map(|sums| sums.db).filter(|db| *db > 0).collect();
    databases.into_iter()
}

fn content(entry: &ArtifactEntry) -> ContentFacts {
    let report = match &entry.rdb.content {
        Some(ContentEntry::Verified { report, .. }) => {
            serde_json::from_value(report.clone()).map_err(|e| format!("its report: {e}"))
        }
        Some(ContentEntry::Opaque { reason, .. }) => Err(reason.clone()),
        None => Err("it was made by an older version of this service".to_owned()),
    };
    ContentFacts { header: parse(&entry.rdb.header), report }
}

fn parse(header: &str) -> Option<Header> {
    Header::parse(header.as_bytes().try_into().ok()?).ok()
}

fn judge(request: &PlanRequest<'_>, facts: &TargetFacts, content: &ContentFacts) -> RestorePlan {
    let PlanRequest { entry, options, has_certificate, .. } = *request;
    let info = &facts.info;
    let report = content.report.as_ref().ok();
    let estimate = || report.map_or(0, needed_bytes);
    let needed_bytes = options.needed_bytes.unwrap_or_else(estimate);
    let format = FormatCheck::new(request, info, content);
    let (way, because) = choose_way(options, facts, has_certificate, format.needs_commands());
    let loading = choose_loading(info, needed_bytes, options);
    let mut blockers = way_blockers(way, facts, report, options, has_certificate);
    if let Err(reason) = &content.report {
        blockers.extend(opaque_blocker(request, way, info, reason));
    }
    // What a part of the data needs is not in the report, but for its databases; `check_part` finds it.
    let is_part = way == RestoreWay::Keys && !options.filter.is_everything();
    if way == RestoreWay::Replica || !(is_part || format.takes_by_commands()) {
        blockers.extend(format.blocker(&entry.rdb.header));
    }
    blockers.extend(report.and_then(|report| databases_blocker(report, facts, options)));
    if !is_part {
        blockers.extend(memory_blocker(info, needed_bytes));
        blockers.extend(format.inconsistent_streams());
        blockers.extend(report.and_then(|report| modules_blocker(report, facts)));
    }
    blockers.extend(saving_blocker(facts));
    if way == RestoreWay::Keys && blockers.iter().all(|b| !matches!(b, Blocker::CannotSave { .. }))
    {
        blockers.extend(writes_blocker(facts, options));
    }
    if let (Role::Replica, Some(primary)) = (info.role, &info.follows) {
        blockers.push(Blocker::Replica { primary: primary.clone() });
    }
    if options.safety_backup && info.keys > 0 {
        blockers.extend(facts.rights.unreadable.clone());
    }
    let outlook = proof_outlook(entry, options, way, content, facts, &format);
    if let (Some(true), ProofOutlook::Impossible(reason)) = (options.prove, &outlook) {
        blockers.push(Blocker::Unprovable { reason: reason.clone() });
    }
    RestorePlan {
        way,
        because,
        loading,
        header: entry.rdb.header.clone(),
        engine: info.engine,
        version: info.version,
        keys: report.map(|report| report.total.keys),
        replaced_keys: info.keys,
        needed_bytes,
        prove: matches!(outlook, ProofOutlook::Possible | ProofOutlook::Partial(_)),
        unprovable: match outlook {
            ProofOutlook::Impossible(reason) | ProofOutlook::Partial(reason) => Some(reason),
            ProofOutlook::NotWanted | ProofOutlook::Possible => None,
        },
        notes: notes(facts, report, options, way, loading)
            .into_iter()
            .chain(format.note())
            .collect(),
        blockers,
    }
}

/// What stands in the way of this way alone.
fn way_blockers(
    way: RestoreWay,
    facts: &TargetFacts,
    report: Option<&Report>,
    options: &RestoreOptions,
    has_certificate: bool,
) -> Vec<Blocker> {
    if way == RestoreWay::Keys {
        return denied_keys(facts, report, options);
    }
    let mut blockers = denied_replica(facts);
    if facts.is_watched_by_sentinel == Some(true) {
        blockers.push(Blocker::Sentinel);
    }
    if facts.replicates_by_tls && !has_certificate {
        blockers.push(Blocker::NoCertificate);
    }
    if needs_keys(options) {
        blockers.push(Blocker::NotThisWay {
            wish: "a filter, a merge or another time to live".to_owned(),
            way,
            advice: "leave the way to the plan, or choose `keys`".to_owned(),
        });
    }
    blockers
}

/// Content that is not verified is loaded natively alone, by a server like the one that wrote it, and
/// when the user says so.
fn opaque_blocker(
    request: &PlanRequest<'_>,
    way: RestoreWay,
    info: &ServerInfo,
    reason: &str,
) -> Option<Blocker> {
    let opaque = |reason: String| Some(Blocker::Opaque { reason });
    if !request.options.unverified {
        return opaque(reason.to_owned());
    }
    if way == RestoreWay::Keys {
        return Some(Blocker::NotThisWay {
            wish: "a restore of content that is not verified".to_owned(),
            way,
            advice: "restore all of it by the way `replica`".to_owned(),
        });
    }
    let refusal = unverified_refusal(info, &request.entry.source)?;
    opaque(format!("{reason}; {refusal}"))
}

/// The module that Redis 8 has built in; it goes by the name of its type.
const VECTOR_SET: &str = "vectorset";

fn modules_blocker(report: &Report, facts: &TargetFacts) -> Option<Blocker> {
    let names = lacking(report.modules.keys(), facts);
    (!names.is_empty()).then_some(Blocker::Modules { names })
}

/// Those of these modules that the target does not have, as far as it tells.
fn lacking<'n>(names: impl Iterator<Item = &'n String>, facts: &TargetFacts) -> Vec<String> {
    let Some(has) = &facts.modules else { return Vec::new() };
    let missing = |name: &&String| match name.as_str() {
        VECTOR_SET => !has.iter().any(|module| module == VECTOR_SET),
        // A module and its types go by different names.
        _ => has.iter().all(|module| module == VECTOR_SET),
    };
    names.filter(missing).cloned().collect()
}

/// Whether a comparison of the target's data with the backup's is wanted, and will be possible.
enum ProofOutlook {
    NotWanted,
    Possible,
    /// All but some of it can be compared.
    Partial(String),
    Impossible(String),
}

fn proof_outlook(
    entry: &ArtifactEntry,
    options: &RestoreOptions,
    way: RestoreWay,
    content: &ContentFacts,
    facts: &TargetFacts,
    format: &FormatCheck<'_>,
) -> ProofOutlook {
    if !options.prove.unwrap_or(entry.rdb.size_bytes <= PROVE_BYTES_MAX) {
        return ProofOutlook::NotWanted;
    }
    if let Err(reason) = &content.report {
        return ProofOutlook::Impossible(format!("the content is not verified: {reason}"));
    }
    if way == RestoreWay::Keys && needs_keys(options) {
        let reason = "the target is not to hold just what the backup holds: only a part of it is \
                      wanted, a merge, or other times to live";
        return ProofOutlook::Impossible(reason.to_owned());
    }
    if let Some(denied) = &facts.rights.unreadable {
        return ProofOutlook::Impossible(denied.to_string());
    }
    if let Some(reason) = format.unreadable() {
        return ProofOutlook::Impossible(reason);
    }
    match &entry.rdb.content {
        Some(ContentEntry::Verified { digest, .. }) if digest.uncompared > 0 => {
            ProofOutlook::Partial(format!(
                "{} keys have data of modules that is counted, and not compared",
                digest.uncompared
            ))
        }
        _ => ProofOutlook::Possible,
    }
}

fn choose_way(
    options: &RestoreOptions,
    facts: &TargetFacts,
    has_certificate: bool,
    needs_commands: bool,
) -> (RestoreWay, String) {
    match options.way {
        Some(way) => (way, "it was asked for".to_owned()),
        None if needs_keys(options) => {
            (RestoreWay::Keys, "only part of the data, or other times to live, are wanted".into())
        }
        None if needs_commands => (
            RestoreWay::Keys,
            "the target does not load files of the other vendor, and takes the values by commands"
                .to_owned(),
        ),
        None if !denied_replica(facts).is_empty() => {
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

/// What stands in the way of making the target a replica for a moment.
fn denied_replica(facts: &TargetFacts) -> Vec<Blocker> {
    let saves = !facts.info.persistence.aof_enabled;
    let denied = facts.rights.denied(|needed| match needed {
        Needed::ForReplica => true,
        Needed::ToSave => saves,
        _ => false,
    });
    facts.no_settings.iter().cloned().chain(denied).collect()
}

/// What stands in the way of a restore by keys of just this backup.
fn denied_keys(
    facts: &TargetFacts,
    report: Option<&Report>,
    options: &RestoreOptions,
) -> Vec<Blocker> {
    let needs = KeysNeeds { info: &facts.info, report, options };
    facts.rights.denied(|needed| needs.has(needed))
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

/// What the data needs by its sizes and encodings, with a quarter more for what these do not show. What the source
/// said of itself counts its backlog and its clients' buffers too; it is asked only about data of modules, of whose
/// structures nothing is known.
fn needed_bytes(report: &Report) -> u64 {
    let estimate = report.total.memory_bytes;
    let estimate = estimate.saturating_add(estimate / 4);
    if report.modules.is_empty() {
        return estimate;
    }
    let told = report.aux.get("used-mem").and_then(|text| text.parse().ok()).unwrap_or(0);
    estimate.max(told)
}

fn databases_blocker(
    report: &Report,
    facts: &TargetFacts,
    options: &RestoreOptions,
) -> Option<Blocker> {
    let used = report.databases.iter().map(|sums| sums.db);
    let wanted = options.filter.database.map(u64::from);
    if wanted.is_none() && !options.filter.is_everything() {
        return None;
    }
    let highest = used.filter(|db| wanted.is_none_or(|wanted| wanted == *db)).max()?;
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
    let with_server = needed_bytes.saturating_add(info.startup_bytes);
    (with_server > limit_bytes).then_some(Blocker::Memory { needed_bytes, limit_bytes, limit })
}

fn saving_blocker(facts: &TargetFacts) -> Option<Blocker> {
    let persistence = &facts.info.persistence;
    if persistence.aof_enabled && !persistence.aof_rewrite_ok {
        return Some(Blocker::CannotSave { what: "AOF rewrite" });
    }
    let saves = !facts.save_points.is_empty();
    (saves && !persistence.save_ok).then_some(Blocker::CannotSave { what: "background save" })
}

/// A target that takes no writes for now; a replica is told of elsewhere.
fn writes_blocker(facts: &TargetFacts, options: &RestoreOptions) -> Option<Blocker> {
    let refusal = facts.refuses_writes.clone().filter(|_| facts.info.role == Role::Primary)?;
    let empties = options.conflict == ConflictRule::ReplaceAll && options.filter.is_everything();
    let advice = match refusal.code {
        // Whatever fills its memory goes first.
        "OOM" if empties => return None,
        "OOM" => "raise its `maxmemory`, or delete what is not needed there",
        "NOREPLICAS" => "connect its replicas, or lower its `min-replicas-to-write`",
        "MISCONF" => "see its log, mend its disk, and let it save once",
        _ => "restore into its primary",
    };
    Some(Blocker::RefusesWrites { detail: refusal.detail, advice: advice.to_owned() })
}

fn notes(
    facts: &TargetFacts,
    report: Option<&Report>,
    options: &RestoreOptions,
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
    notes.extend(unknown_notes(facts, report, options, way));
    if facts.save_points.is_empty() && !info.persistence.aof_enabled {
        notes.push("it keeps nothing on its disk by itself; it is told to save once".to_owned());
    }
    if info.persistence.aof_enabled {
        notes.push("it rewrites its AOF before the restore counts as done".to_owned());
    }
    if info.max_memory_bytes > 0 && facts.memory_policy.starts_with("allkeys") {
        notes.push(format!("its policy `{}` may evict keys once it is full", facts.memory_policy));
    }
    let with_metadata = report.map_or(0, |report| report.keys_with_metadata);
    if with_metadata > 0 {
        notes.push(format!(
            "modules keep data beside {with_metadata} keys; a target without these modules drops it or \
             refuses the keys"
        ));
    }
    let empty = report.and_then(|report| report.empty_keys).unwrap_or(0);
    if empty > 0 {
        notes.push(format!(
            "{empty} keys of the backup are lists, sets, sorted sets or hashes without elements, and are left \
             out, as servers do"
        ));
    }
    let expiring = report.map_or(0, |report| report.total.expiring);
    if expiring > 0 {
        notes
            .push(format!("{expiring} keys expire; those whose time is over will be gone at once"));
    }
    notes
}

/// What is not known of a target because of what its user may not do.
fn unknown_notes(
    facts: &TargetFacts,
    report: Option<&Report>,
    options: &RestoreOptions,
    way: RestoreWay,
) -> Vec<String> {
    let mut notes = Vec::new();
    if way == RestoreWay::Replica && facts.is_watched_by_sentinel.is_none() {
        notes.push(
            "whether a Sentinel watches it is not known, and one could undo the restore: its user \
             lacks `+client|list`"
                .to_owned(),
        );
    }
    if way == RestoreWay::Keys && facts.rights.cannot_cut_off {
        notes.push(
            "after a failure, what was on its way to it could still be done later: its user lacks \
             `+client|id +client|kill`"
                .to_owned(),
        );
    }
    let needs = KeysNeeds { info: &facts.info, report, options };
    let needs_unknown = needs.has(Needed::ToLook) || needs.has(Needed::ForParts);
    if way == RestoreWay::Keys && facts.rights.is_partly_unknown && needs_unknown {
        notes.push(
            "whether its user may look for keys, and write values by several commands, is not known: it \
             lacks `+multi +discard`"
                .to_owned(),
        );
    }
    if report.is_some_and(|report| !report.modules.is_empty()) && facts.modules.is_none() {
        notes.push(
            "whether it has the modules that the backup needs is not known: its user lacks \
             `+module|list`"
                .to_owned(),
        );
    }
    notes
}
