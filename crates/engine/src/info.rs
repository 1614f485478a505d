//! Reads the answer to `INFO`.

use std::collections::HashMap;
use std::time::Duration;

use cachevault_domain::{Address, EngineKind, Observation, Role, ServerVersion};

/// The parts of `INFO` that decide anything for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerInfo {
    pub(crate) engine: EngineKind,
    pub(crate) version: ServerVersion,
    pub(crate) is_sentinel: bool,
    pub(crate) is_cluster_node: bool,
    pub(crate) role: Role,
    /// Random, anew at each start: tells servers apart whatever their addresses.
    pub(crate) run_id: String,
    pub(crate) replication_id: String,
    /// The history that a promoted replica followed before.
    pub(crate) earlier_replication_id: String,
    /// A primary's own offset, or what a replica has processed.
    pub(crate) replication_offset: u64,
    /// Whether a replica hears its primary; true on a primary.
    pub(crate) primary_link_up: bool,
    /// Whom a replica follows.
    pub(crate) follows: Option<Address>,
    pub(crate) replicas: Vec<ReplicaInfo>,
    pub(crate) is_loading: bool,
    /// How much of the data that it loads is loaded, percent.
    pub(crate) loaded_percent: Option<u64>,
    /// Keys with fields that expire, as far as the server counts them (Valkey 9).
    pub(crate) keys_with_expiring_fields: u64,
    pub(crate) persistence: Persistence,
    /// A child or a load that stands in the way of a new fork, in words.
    pub(crate) busy_with: Option<&'static str>,
    pub(crate) save_keys_processed: u64,
    pub(crate) save_keys_total: u64,
    /// Whether the two counts above are told at all: since Redis 7.0, by every Valkey.
    pub(crate) tells_save_keys: bool,
    pub(crate) used_memory_bytes: u64,
    /// What it used when it had started, before any data.
    pub(crate) startup_bytes: u64,
    resident_bytes: u64,
    /// What the child that runs has copied so far, because it was written to; told since Redis 6.2.
    pub(crate) copied_bytes: u64,
    /// For how long the last fork stopped the server.
    pub(crate) last_fork: Duration,
    /// For how long a replica has heard nothing of its primary.
    pub(crate) primary_silent_seconds: u64,
    dataset_bytes: u64,
    pub(crate) max_memory_bytes: u64,
    pub(crate) system_memory_bytes: u64,
    pub(crate) keys: u64,
    databases_used: u32,
    pub(crate) functions: u64,
}

/// What stands in the way of a new fork, by the field that is 1.
const BUSY: [(&str, &str); 5] = [
    ("loading", "the source is loading its data"),
    ("async_loading", "the source is loading its data"),
    ("rdb_bgsave_in_progress", "the source is saving or sending a snapshot already"),
    ("aof_rewrite_in_progress", "the source is rewriting its AOF"),
    ("master_sync_in_progress", "the source is synchronising with its primary"),
];

/// What a server says of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Persistence {
    pub(crate) aof_enabled: bool,
    /// An AOF rewrite runs or is about to.
    pub(crate) aof_rewriting: bool,
    pub(crate) aof_rewrite_ok: bool,
    pub(crate) saving: bool,
    pub(crate) save_ok: bool,
}

/// A replica as its primary lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplicaInfo {
    pub(crate) address: Address,
    pub(crate) online: bool,
    pub(crate) lag_seconds: u64,
}

impl ServerInfo {
    /// `None` when the text names no version.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let fields: HashMap<&str, &str> =
            text.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
        let field = |name: &str| fields.get(name).copied().unwrap_or_default();
        let number = |name: &str| field(name).parse::<u64>().unwrap_or_default();
        let is_on = |name: &str| field(name) == "1";
        let (engine, version) = match fields.get("valkey_version") {
            Some(version) => (EngineKind::Valkey, version),
            None => (EngineKind::Redis, fields.get("redis_version")?),
        };
        let role = if field("role") == "slave" { Role::Replica } else { Role::Primary };
        let mode =
            fields.get("server_mode").or(fields.get("redis_mode")).copied().unwrap_or_default();
        let databases =
            || fields.iter().filter_map(|(name, value)| count_of_database(name, value, "keys="));
        let databases_sum = |what: &str| {
            fields.iter().filter_map(|(name, value)| count_of_database(name, value, what)).sum()
        };
        Some(Self {
            engine,
            version: version.parse().ok()?,
            is_sentinel: mode == "sentinel",
            is_cluster_node: is_on("cluster_enabled") || mode == "cluster",
            role,
            run_id: field("run_id").to_owned(),
            replication_id: field("master_replid").to_owned(),
            earlier_replication_id: field("master_replid2").to_owned(),
            follows: field("master_port")
                .parse()
                .ok()
                .map(|port| Address { host: field("master_host").to_owned(), port }),
            is_loading: is_on("loading") || is_on("async_loading"),
            // Only while it loads; with decimals.
            loaded_percent: field("loading_loaded_perc")
                .split('.')
                .next()
                .and_then(|percent| percent.parse().ok()),
            keys_with_expiring_fields: databases_sum("keys_with_volatile_items="),
            persistence: Persistence {
                aof_enabled: is_on("aof_enabled"),
                aof_rewriting: is_on("aof_rewrite_in_progress") || is_on("aof_rewrite_scheduled"),
                aof_rewrite_ok: field("aof_last_bgrewrite_status") == "ok",
                saving: is_on("rdb_bgsave_in_progress"),
                save_ok: field("rdb_last_bgsave_status") == "ok",
            },
            functions: number("number_of_functions"),
            replication_offset: match role {
                Role::Primary => number("master_repl_offset"),
                Role::Replica => number("slave_repl_offset"),
            },
            primary_link_up: role == Role::Primary || field("master_link_status") == "up",
            replicas: fields.iter().filter_map(|(name, value)| replica(name, value)).collect(),
            busy_with: BUSY.iter().find(|(name, _)| is_on(name)).map(|(_, words)| *words),
            save_keys_processed: number("current_save_keys_processed"),
            save_keys_total: number("current_save_keys_total"),
            tells_save_keys: fields.contains_key("current_save_keys_total"),
            used_memory_bytes: number("used_memory"),
            startup_bytes: number("used_memory_startup"),
            resident_bytes: number("used_memory_rss"),
            copied_bytes: number("current_cow_size"),
            last_fork: Duration::from_micros(number("latest_fork_usec")),
            primary_silent_seconds: number("master_last_io_seconds_ago"),
            dataset_bytes: number("used_memory_dataset"),
            max_memory_bytes: number("maxmemory"),
            system_memory_bytes: number("total_system_memory"),
            keys: databases().sum(),
            databases_used: u32::try_from(databases().count()).unwrap_or(u32::MAX),
        })
    }

    /// Memory that the server takes, fragments and buffers included.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.resident_bytes.max(self.used_memory_bytes)
    }

    /// A guess at the size of an RDB of this data, for want of anything better.
    pub(crate) fn rdb_bytes_guess(&self) -> u64 {
        if self.dataset_bytes > 0 { self.dataset_bytes } else { self.used_memory_bytes }
    }

    pub(crate) fn observation(&self) -> Observation {
        let online = self.replicas.iter().filter(|replica| replica.online).count();
        Observation {
            engine: self.engine,
            version: self.version,
            role: self.role,
            replicas_online: u32::try_from(online).unwrap_or(u32::MAX),
            used_memory_bytes: self.used_memory_bytes,
            max_memory_bytes: self.max_memory_bytes,
            system_memory_bytes: self.system_memory_bytes,
            keys: self.keys,
            databases_used: self.databases_used,
        }
    }
}

/// `db0`, `keys=12,expires=0,avg_ttl=0` and `keys=` give 12.
fn count_of_database(name: &str, value: &str, what: &str) -> Option<u64> {
    name.strip_prefix("db")?.parse::<u32>().ok()?;
    value.split(',').find_map(|pair| pair.strip_prefix(what))?.parse().ok()
}

/// `slave0` and `ip=10.0.0.2,port=6379,state=online,offset=70,lag=1`.
fn replica(name: &str, value: &str) -> Option<ReplicaInfo> {
    name.strip_prefix("slave")?.parse::<u32>().ok()?;
    let part =
        |key: &str| value.split(',').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    let port = part("port")?.parse().ok()?;
    Some(ReplicaInfo {
        address: Address { host: part("ip")?.to_owned(), port },
        // Who announces no port, such as a backup tool, is nobody that we could ask.
        online: part("state") == Some("online") && port != 0,
        lag_seconds: part("lag").and_then(|lag| lag.parse().ok()).unwrap_or(u64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: &str = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n\
        # Memory\r\nused_memory:1000\r\nused_memory_dataset:600\r\nmaxmemory:0\r\ntotal_system_memory:5000\r\n\
        # Persistence\r\nloading:0\r\nasync_loading:0\r\nrdb_bgsave_in_progress:0\r\naof_rewrite_in_progress:0\r\n\
        current_save_keys_processed:0\r\ncurrent_save_keys_total:0\r\n\
        # Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
        slave0:ip=10.0.0.2,port=6379,state=online,offset=4711,lag=1\r\n\
        slave1:ip=10.0.0.9,port=0,state=online,offset=0,lag=0\r\n\
        slave2:ip=::1,port=6380,state=wait_bgsave,offset=0,lag=0\r\n\
        master_replid:0123456789abcdef0123456789abcdef01234567\r\nmaster_repl_offset:4711\r\n\
        # Cluster\r\ncluster_enabled:0\r\n# Keyspace\r\ndb0:keys=10,expires=1,avg_ttl=5\r\ndb3:keys=2,expires=0,avg_ttl=0\r\n";

    #[test]
    fn a_primary_is_understood() {
        let info = ServerInfo::parse(PRIMARY).unwrap();
        let observation = info.observation();
        assert_eq!(
            (observation.keys, observation.databases_used, observation.replicas_online),
            (12, 2, 1)
        );
        assert_eq!(
            (info.role, info.replication_offset, info.busy_with),
            (Role::Primary, 4711, None)
        );
        assert_eq!(info.rdb_bytes_guess(), 600);
        assert_eq!(info.replicas.len(), 3);
    }

    #[test]
    fn a_replica_counts_what_it_has_processed() {
        let text = "redis_version:5.0.14\r\nrole:slave\r\nmaster_link_status:down\r\nslave_repl_offset:9\r\nmaster_repl_offset:12\r\n";
        let info = ServerInfo::parse(text).unwrap();
        assert_eq!(
            (info.role, info.replication_offset, info.primary_link_up),
            (Role::Replica, 9, false)
        );
    }

    #[test]
    fn valkey_is_told_from_the_redis_version_that_it_claims() {
        let text = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\nserver_mode:sentinel\r\n";
        let info = ServerInfo::parse(text).unwrap();
        assert_eq!((info.engine, info.version.major), (EngineKind::Valkey, 9));
        assert!(info.is_sentinel);
    }

    #[test]
    fn every_kind_of_fork_is_seen() {
        for flag in [
            "loading",
            "async_loading",
            "rdb_bgsave_in_progress",
            "aof_rewrite_in_progress",
            "master_sync_in_progress",
        ] {
            let info = ServerInfo::parse(&format!("redis_version:7.0.15\r\n{flag}:1\r\n")).unwrap();
            assert!(info.busy_with.is_some(), "{flag}");
        }
    }

    #[test]
    fn what_is_no_info_is_refused() {
        for text in ["", "hello", "redis_version:new\r\n"] {
            assert_eq!(ServerInfo::parse(text), None, "{text}");
        }
    }
}
