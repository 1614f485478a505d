//! What a target says of itself, and what its user may do.

use cachevault_domain::Blocker;
use cachevault_proto::Reply;

use crate::info::ServerInfo;
use crate::restore::admin::{Admin, WriteRefusal};
use crate::restore::error::RestoreError;
use crate::restore::plan::rights::{Rights, denial};

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
    /// Why its settings cannot be read.
    pub(super) no_settings: Option<Blocker>,
    pub(super) rights: Rights,
    /// Why it takes no writes for now.
    pub(super) refuses_writes: Option<WriteRefusal>,
}

/// Looks at a target, and touches nothing. `databases` are those that the backup has keys in.
pub(super) async fn look(
    admin: &mut Admin,
    databases: impl Iterator<Item = u64>,
) -> Result<TargetFacts, RestoreError> {
    let info = admin.info().await?;
    let mut no_settings = None;
    let mut settings = [const { None }; 4];
    for (value, name) in
        settings.iter_mut().zip(["databases", "maxmemory-policy", "tls-replication", "save"])
    {
        match admin.setting(name).await {
            Ok(found) => *value = found,
            Err(error) => no_settings = Some(denial(error, "+config|get")?),
        }
    }
    let [databases_setting, memory_policy, tls, save] = settings;
    Ok(TargetFacts {
        no_settings,
        refuses_writes: admin.write_refusal().await?,
        databases: databases_setting.and_then(|text| text.parse().ok()),
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
        rights: Rights::ask(admin, &info, databases).await?,
        info,
    })
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
