//! What a target says of itself, and what its user may do.

use cachevault_domain::Blocker;
use cachevault_proto::Reply;

use crate::info::ServerInfo;
use crate::restore::admin::Admin;
use crate::restore::error::RestoreError;

/// What a target tells of itself.
#[derive(Debug, Clone)]
pub(super) struct TargetFacts {
    pub(super) info: ServerInfo,
    pub(super) databases: Option<u64>,
    pub(super) memory_policy: String,
    /// When it saves by itself; empty where it never does.
    pub(super) save_points: String,
    pub(super) replicates_by_tls: bool,
    /// Names of its modules; `None` where its user may not ask.
    pub(super) modules: Option<Vec<String>>,
    /// `None` where its user may not ask.
    pub(super) is_watched_by_sentinel: Option<bool>,
    /// What of the way `replica` its user may not do.
    pub(super) denied: Vec<Blocker>,
    /// What of the way `keys` its user may not do, and when that matters.
    pub(super) denied_keys: Vec<(Needed, Blocker)>,
}

/// When a restore by keys needs a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needed {
    Always,
    /// The backup has keys outside of database 0.
    ForDatabases,
    /// The backup has functions, and all of it is wanted.
    ForFunctions,
    /// The backup has hashes with fields that expire, in the other vendor's encoding.
    ForForeignHashes,
    /// The target has functions, which are to give way.
    ToDropFunctions,
}

/// Refused for the moment, which is none, where it is allowed.
const HPEXPIREAT: &[&str] = &["HPEXPIREAT", "cachevault", "none", "FIELDS", "1", "f"];

/// Looks at a target, and touches nothing.
pub(super) async fn look(admin: &mut Admin) -> Result<TargetFacts, RestoreError> {
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
        (Needed::ForForeignHashes, &["HSET", "cachevault", "f", "v", "odd"], "+hset"),
        (Needed::ForForeignHashes, HPEXPIREAT, "+hpexpireat"),
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
        modules: match admin.command(&["MODULE", "LIST"]).await {
            Ok(Reply::Array(Some(modules))) => {
                Some(modules.iter().filter_map(module_name).collect())
            }
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

/// The name in an entry of `MODULE LIST`: pairs of a word and its value.
fn module_name(entry: &Reply) -> Option<String> {
    let Reply::Array(Some(pairs)) = entry else { return None };
    let at = pairs.iter().position(|word| text(word).as_deref() == Some("name"))?;
    text(pairs.get(at + 1)?)
}

fn text(reply: &Reply) -> Option<String> {
    match reply {
        Reply::Bulk(Some(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    }
}
