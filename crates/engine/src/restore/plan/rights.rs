//! What a target's user may do: every command that a restore may need is asked for in a form that does nothing.
//!
//! A server looks at a user's rights after it has counted the arguments, and before it looks at them. So a
//! command with an argument that is none is refused for that argument where it is allowed. What knows no wrong
//! argument is asked for within a transaction, which is then discarded: a command is queued only where it is
//! allowed.

use cachevault_domain::{Blocker, ConflictRule, EngineKind, ProbeError, RestoreOptions, TtlRule};
use cachevault_rdb::report::Report;

use crate::info::ServerInfo;
use crate::restore::admin::Admin;
use crate::restore::error::RestoreError;
use crate::restore::keys_way::PAYLOAD_BYTES_MAX;

/// When a restore needs a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needed {
    /// In the way `replica`.
    ForReplica,
    /// In the way `replica`, where the target keeps no AOF.
    ToSave,
    /// All that follow: in the way `keys`.
    ForKeys,
    /// Keys of any name are written.
    ForAnyName,
    /// Keys that the target holds are to give way, whichever they are.
    ToEmpty,
    /// The backup has keys in this database.
    ForDatabase(u64),
    /// The backup has functions, and all of it is wanted.
    ForFunctions,
    /// The target has functions, which are to give way.
    ToDropFunctions,
    /// What is there already is looked for.
    ToLook,
    /// Functions that are there already are looked for.
    ToLookForFunctions,
    /// Some value is written by several commands.
    ForParts,
    /// The same, and replaces what is there already.
    ToReplaceByParts,
    /// The same, and the key expires.
    ToExpireParts,
    /// Hashes with fields that expire are written by several commands.
    ForFieldExpiries,
    /// Values of this kind, as `TYPE` answers, are written by several commands.
    ForPartsOf(&'static str),
}

/// A command that a restore may need, in a form that does nothing, and what grants it.
type Right = (Needed, &'static [&'static str], &'static str);

/// An argument is none in each of them.
const REFUSED_IF_ALLOWED: &[Right] = &[
    (Needed::ForReplica, &["CONFIG", "SET", "cachevault", "none"], "+config|set"),
    (Needed::ForReplica, &["REPLICAOF", "cachevault", "none"], "+replicaof"),
    (Needed::ToSave, &["BGSAVE", "none"], "+bgsave"),
    (Needed::ForKeys, &["RESTORE", "cachevault", "none", ""], "+restore"),
    (Needed::ToEmpty, &["FLUSHALL", "none"], "+flushall"),
    (Needed::ForFunctions, &["FUNCTION", "LOAD", "none"], "+function|load"),
    (Needed::ToDropFunctions, &["FUNCTION", "FLUSH", "none"], "+function|flush"),
    (
        Needed::ForFieldExpiries,
        &["HPEXPIREAT", "cachevault", "none", "FIELDS", "1", "f"],
        "+hpexpireat",
    ),
];

/// Queued, and never done.
const QUEUED_IF_ALLOWED: &[Right] = &[
    (Needed::ToLook, &["EXISTS", "cachevault"], "+exists"),
    (
        Needed::ToLookForFunctions,
        &["FUNCTION", "LIST", "LIBRARYNAME", "cachevault"],
        "+function|list",
    ),
    (Needed::ForParts, &["EXISTS", "cachevault"], "+exists"),
    (Needed::ToReplaceByParts, &["UNLINK", "cachevault"], "+unlink"),
    (Needed::ToExpireParts, &["PEXPIREAT", "cachevault", "none"], "+pexpireat"),
    (Needed::ForPartsOf("string"), &["SET", "cachevault", ""], "+set +append"),
    (Needed::ForPartsOf("string"), &["APPEND", "cachevault", ""], "+set +append"),
    (Needed::ForPartsOf("list"), &["RPUSH", "cachevault", ""], "+rpush"),
    (Needed::ForPartsOf("set"), &["SADD", "cachevault", ""], "+sadd"),
    (Needed::ForPartsOf("zset"), &["ZADD", "cachevault", "none", ""], "+zadd"),
    (Needed::ForPartsOf("hash"), &["HSET", "cachevault", "f", ""], "+hset"),
    (Needed::ForPartsOf("stream"), &["XADD", "cachevault", "none", "f", ""], STREAMS),
    (Needed::ForPartsOf("stream"), &["XSETID", "cachevault", "none"], STREAMS),
    (Needed::ForPartsOf("stream"), &["XGROUP", "CREATE", "cachevault", "g", "none"], STREAMS),
    (Needed::ForPartsOf("stream"), &["XGROUP", "DESTROY", "cachevault", "g"], STREAMS),
    (Needed::ForPartsOf("stream"), &["XGROUP", "CREATECONSUMER", "cachevault", "g", "c"], STREAMS),
    (Needed::ForPartsOf("stream"), &["XCLAIM", "cachevault", "g", "c", "0", "none"], STREAMS),
    (
        Needed::ForPartsOf("stream"),
        &["XREADGROUP", "GROUP", "g", "c", "STREAMS", "cachevault", "none"],
        STREAMS,
    ),
];

const STREAMS: &str = "+xadd +xsetid +xgroup +xclaim +xreadgroup";

/// What is asked of one server, whatever a report says.
const DATABASES_MAX: usize = 64;

/// What a target's user may not do.
#[derive(Debug, Clone, Default)]
pub(super) struct Rights {
    denied: Vec<(Needed, Blocker)>,
    /// Why its data cannot be read: neither saved before, nor compared after.
    pub(super) unreadable: Option<Blocker>,
    /// Whether it may not run transactions, so that nothing is known of [`QUEUED_IF_ALLOWED`].
    pub(super) is_partly_unknown: bool,
    /// Whether connections of ours that a failure left cannot be cut off.
    pub(super) cannot_cut_off: bool,
}

impl Rights {
    /// Asks for every right. The connection is not to be used afterwards.
    pub(super) async fn ask(
        admin: &mut Admin,
        info: &ServerInfo,
        databases: impl Iterator<Item = u64>,
    ) -> Result<Self, RestoreError> {
        let mut rights = Self::default();
        for right in REFUSED_IF_ALLOWED {
            rights.ask_for(admin, right).await?;
        }
        for database in databases.take(DATABASES_MAX) {
            if let Some(blocker) =
                denied(admin, &["SELECT", &database.to_string()], "+select").await?
            {
                rights.denied.push((Needed::ForDatabase(database), blocker));
            }
        }
        rights.unreadable = match admin.may_replicate(info).await {
            Err(ProbeError::Denied { command, detail, .. }) => Some(Blocker::Denied {
                command: command.to_uppercase(),
                detail,
                grant: "+psync +replconf +ping".to_owned(),
            }),
            other => other.map(|()| None)?,
        };
        rights.cannot_cut_off =
            denied(admin, &["CLIENT", "KILL", "ID", "none"], "+client|kill").await?.is_some();
        if admin.is_refused(&["MULTI"]).await? {
            rights.is_partly_unknown = true;
            return Ok(rights);
        }
        for right in QUEUED_IF_ALLOWED {
            rights.ask_for(admin, right).await?;
        }
        // Where even this is denied, the transaction ends with the connection, and nothing of it was done.
        admin.is_refused(&["DISCARD"]).await?;
        Ok(rights)
    }

    async fn ask_for(&mut self, admin: &mut Admin, right: &Right) -> Result<(), RestoreError> {
        let (needed, command, grant) = *right;
        if let Some(blocker) = denied(admin, command, grant).await? {
            let is_about_names = needed == Needed::ForKeys && is_about_keys(&blocker);
            let needed = if is_about_names { Needed::ForAnyName } else { needed };
            self.denied.push((needed, blocker));
        }
        Ok(())
    }

    /// What is denied of what is needed, each right once.
    pub(super) fn denied(&self, is_needed: impl Fn(Needed) -> bool) -> Vec<Blocker> {
        let mut found: Vec<Blocker> = Vec::new();
        for (needed, blocker) in &self.denied {
            if is_needed(*needed) && !found.contains(blocker) {
                found.push(blocker.clone());
            }
        }
        found
    }
}

/// Why a command is denied; `None` where it is allowed.
async fn denied(
    admin: &mut Admin,
    command: &[&str],
    grant: &str,
) -> Result<Option<Blocker>, RestoreError> {
    match admin.command(command).await {
        Err(error) if error.is_denial() => denial(error, grant).map(Some),
        Err(RestoreError::Refused { .. }) => Ok(None),
        told => told.map(|_| None),
    }
}

/// A refusal as a blocker; an error that is none is passed on.
pub(super) fn denial(error: RestoreError, grant: &str) -> Result<Blocker, RestoreError> {
    match error {
        RestoreError::Refused { command, detail, .. } => {
            let grant = match detail.as_str() {
                names if is_about_a_key(names) => "~*",
                // Valkey 9.1 has rights for databases too.
                databases if databases.contains("access database") => "alldbs",
                _ => grant,
            };
            let grant = grant.to_owned();
            Ok(Blocker::Denied { command: named(&command), detail, grant })
        }
        other => Err(other),
    }
}

/// A command by its name, with the subcommand where there is one.
fn named(command: &str) -> String {
    const WITH_SUBCOMMANDS: [&str; 4] = ["CONFIG", "FUNCTION", "XGROUP", "CLIENT"];
    match command.split_once(' ') {
        Some((name, _)) if !WITH_SUBCOMMANDS.contains(&name) => name.to_owned(),
        _ => command.to_owned(),
    }
}

fn is_about_keys(blocker: &Blocker) -> bool {
    matches!(blocker, Blocker::Denied { detail, .. } if is_about_a_key(detail))
}

/// `No permissions to access a key`, and before Redis 7.2 `… one of the keys used as arguments`.
fn is_about_a_key(detail: &str) -> bool {
    detail.starts_with("NOPERM") && detail.contains(" key")
}

/// What of a backup decides which rights its restore by keys needs.
pub(super) struct KeysNeeds<'a> {
    pub(super) info: &'a ServerInfo,
    pub(super) report: Option<&'a Report>,
    pub(super) options: &'a RestoreOptions,
}

impl KeysNeeds<'_> {
    pub(super) fn has(&self, needed: Needed) -> bool {
        let Self { info, report, options } = *self;
        let is_everything = options.filter.is_everything();
        let has_functions = is_everything && report.is_some_and(|r| !r.functions.is_empty());
        let replaces_all = is_everything && options.conflict == ConflictRule::ReplaceAll;
        let replaces = matches!(options.conflict, ConflictRule::ReplaceAll | ConflictRule::Replace);
        let looks = options.conflict == ConflictRule::Fail;
        match needed {
            Needed::ForReplica | Needed::ToSave => false,
            Needed::ForKeys => true,
            Needed::ForAnyName => options.filter.pattern.as_deref().is_none_or(|p| p == "*"),
            Needed::ToEmpty => replaces_all && info.keys > 0,
            // Of a part, what its keys need is found when the backup is checked.
            Needed::ForDatabase(database) => match options.filter.database {
                Some(wanted) => u64::from(wanted) == database,
                None => is_everything,
            },
            Needed::ForFunctions => has_functions,
            Needed::ToDropFunctions => replaces_all && info.functions > 0,
            Needed::ToLook => looks,
            Needed::ToLookForFunctions => looks && has_functions,
            Needed::ForFieldExpiries => self.has_hashes_by_commands(),
            Needed::ForParts => self.has_parts(),
            Needed::ToReplaceByParts => replaces && self.has_parts(),
            Needed::ToExpireParts => {
                let expires = report.is_some_and(|report| report.total.expiring > 0);
                self.has_parts() && expires && options.ttl != TtlRule::Strip
            }
            Needed::ForPartsOf("hash") if self.has_hashes_by_commands() => true,
            Needed::ForPartsOf(kind) => self.has_large(|large| large == kind),
        }
    }

    fn has_parts(&self) -> bool {
        self.has_hashes_by_commands() || self.has_large(|_| true)
    }

    /// Whether some value that is too large for one command may be of such a kind.
    fn has_large(&self, is_kind: impl Fn(&str) -> bool) -> bool {
        let Some(report) = self.report else { return false };
        let mut large = report.largest.iter().filter(|k| k.stored_bytes > PAYLOAD_BYTES_MAX);
        large.any(|key| is_kind(&key.kind))
    }

    /// Whether hashes with fields that expire are written by the commands for hashes: in the other vendor's
    /// encoding, or with other moments of expiry.
    fn has_hashes_by_commands(&self) -> bool {
        let Some(report) = self.report.filter(|_| self.options.filter.is_everything()) else {
            return false;
        };
        let has_expiring =
            || report.encodings.iter().any(|row| row.encoding.contains("with expiry"));
        let is_foreign = match self.info.engine {
            // Valkey's encoding is in no version of Redis'.
            EngineKind::Redis => report.least_redis_version.is_none(),
            EngineKind::Valkey => {
                report.encodings.iter().any(|row| row.encoding == "listpack with expiry")
                    || report.least_redis_version >= Some(12) && report.header.starts_with("REDIS")
            }
        };
        is_foreign || self.options.ttl != TtlRule::Keep && has_expiring()
    }
}
