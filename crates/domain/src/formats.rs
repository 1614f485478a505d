//! Which RDB formats each server version writes and loads. Server versions are data: all of them are
//! rows of one table, each with the source of its facts.

use std::cmp::Ordering;
use std::fmt;

use crate::{EngineKind, ServerVersion};

/// The vendor whose numbers an RDB version counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RdbFamily {
    /// Files that begin with `REDIS`.
    Redis,
    /// Files that begin with `VALKEY`.
    Valkey,
}

/// A version of the RDB format, as the first nine bytes of a file name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RdbVersion {
    /// Whose number it is.
    pub family: RdbFamily,
    /// The number.
    pub number: u16,
}

impl fmt::Display for RdbVersion {
    /// The header: `REDIS0013`, `VALKEY080`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family {
            RdbFamily::Redis => write!(f, "REDIS{:04}", self.number),
            RdbFamily::Valkey => write!(f, "VALKEY{:03}", self.number),
        }
    }
}

/// What is known of the servers from one version up to the version of the next row.
#[derive(Debug, PartialEq, Eq)]
pub struct FormatRow {
    /// The engine.
    pub engine: EngineKind,
    /// Major and minor number of the first version of the row.
    pub since: (u16, u16),
    /// The newest RDB version that the servers write.
    pub writes: RdbVersion,
    /// The newest version of the Redis family that the servers load.
    pub loads_redis: u16,
    /// The newest version of the Valkey family that the servers load; `None` where they load none.
    pub loads_valkey: Option<u16>,
    /// Whether the servers exit while they load a stream whose counters contradict each other.
    pub refuses_inconsistent_streams: bool,
    /// Where these facts come from.
    pub source: &'static str,
}

impl FormatRow {
    const fn redis(since: (u16, u16), number: u16, source: &'static str) -> Self {
        Self {
            engine: EngineKind::Redis,
            since,
            writes: RdbVersion { family: RdbFamily::Redis, number },
            loads_redis: number,
            loads_valkey: None,
            refuses_inconsistent_streams: false,
            source,
        }
    }

    const fn valkey(since: (u16, u16), number: u16, source: &'static str) -> Self {
        Self {
            engine: EngineKind::Valkey,
            writes: RdbVersion { family: RdbFamily::Valkey, number },
            loads_valkey: Some(number),
            ..Self::redis(since, REDIS_OF_VALKEY, source)
        }
    }

    /// A Valkey from before the vendor had a format of its own.
    const fn early_valkey(since: (u16, u16), source: &'static str) -> Self {
        Self { engine: EngineKind::Valkey, ..Self::redis(since, REDIS_OF_VALKEY, source) }
    }

    const fn refusing_inconsistent_streams(self) -> Self {
        Self { refuses_inconsistent_streams: true, ..self }
    }

    fn loads(&self, format: RdbVersion) -> bool {
        match format.family {
            RdbFamily::Redis => format.number <= self.loads_redis,
            RdbFamily::Valkey => self.loads_valkey.is_some_and(|newest| format.number <= newest),
        }
    }
}

impl fmt::Display for FormatRow {
    /// The first version of the row: `redis 8.6`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}.{}", self.engine.as_str(), self.since.0, self.since.1)
    }
}

/// The newest version of the Redis family that any Valkey loads.
const REDIS_OF_VALKEY: u16 = 11;

/// The rows of one engine.
struct FormatTable {
    /// All but the newest, in ascending order.
    older: &'static [FormatRow],
    /// The newest version that this build knows; it covers that minor version alone.
    newest: FormatRow,
}

static REDIS: FormatTable = FormatTable {
    older: &[
        FormatRow::redis((5, 0), 9, "measured: 5.0.14 and 6.2.16, run"),
        FormatRow::redis((7, 0), 10, "measured: 7.0.15, run"),
        FormatRow::redis((7, 2), 11, "measured: 7.2.6, run"),
        FormatRow::redis((7, 4), 12, "measured: 7.4.1, 8.0.6 and 8.2.3, run"),
        FormatRow::redis((8, 6), 13, "measured: rdb.h of 8.6.3, built and run"),
        FormatRow::redis((8, 8), 14, "measured: unstable of 2026-06-25 (after 8.8), built and run")
            .refusing_inconsistent_streams(),
    ],
    // RDB 16 is announced for autumn 2026.
    newest: FormatRow::redis((8, 10), 15, "public documents only").refusing_inconsistent_streams(),
};

static VALKEY: FormatTable = FormatTable {
    older: &[
        FormatRow::early_valkey((7, 2), "measured: 7.2.7, 8.0.1 and 8.1.1, run"),
        FormatRow::valkey((9, 0), 80, "measured: 9.1.2, run"),
    ],
    newest: FormatRow::valkey((9, 2), 81, "public documents only"),
};

/// What is known of the formats of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Formats {
    /// The server is of a version that this build knows.
    Known(&'static FormatRow),
    /// The server is newer than this build knows.
    Unknown {
        /// The newest version of its engine that this build knows.
        newest_known: &'static FormatRow,
    },
}

/// Whether a server loads files of an RDB version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loads {
    /// The server loads them.
    Yes,
    /// The server refuses them.
    No,
    /// This build does not know it.
    Unknown,
}

/// What is known of the formats of a server. A version between two rows belongs to the lower one;
/// a version older than every row, which no instance has, belongs to the oldest.
pub fn formats_of(engine: EngineKind, version: ServerVersion) -> Formats {
    let FormatTable { older, newest } = match engine {
        EngineKind::Redis => &REDIS,
        EngineKind::Valkey => &VALKEY,
    };
    let minor = (version.major, version.minor);
    match minor.cmp(&newest.since) {
        Ordering::Greater => Formats::Unknown { newest_known: newest },
        Ordering::Equal => Formats::Known(newest),
        Ordering::Less => {
            let row = older.iter().rfind(|row| row.since <= minor).or(older.first());
            Formats::Known(row.unwrap_or(newest))
        }
    }
}

impl Formats {
    /// The server's row, or that of the newest known version of its engine.
    pub fn newest_known(&self) -> &'static FormatRow {
        match self {
            Self::Known(row) | Self::Unknown { newest_known: row } => row,
        }
    }

    /// Whether the server loads files of this version. Servers load what older ones of their vendor
    /// load, so of an unknown server that much is certain.
    pub fn loads(&self, format: RdbVersion) -> Loads {
        let row = self.newest_known();
        // No Redis has ever loaded a file of Valkey's.
        if format.family == RdbFamily::Valkey && row.loads_valkey.is_none() {
            return Loads::No;
        }
        match (self, row.loads(format)) {
            (_, true) => Loads::Yes,
            (Self::Known(_), false) => Loads::No,
            (Self::Unknown { .. }, false) => Loads::Unknown,
        }
    }

    /// Whether the server exits while it loads a stream whose counters contradict each other. An
    /// unknown server is expected to do what the newest known version of its engine does.
    pub fn refuses_inconsistent_streams(&self) -> bool {
        self.newest_known().refuses_inconsistent_streams
    }
}

/// What to warn of when a server is newer than this build knows; `None` for a known one.
pub fn unknown_server_warning(engine: EngineKind, version: ServerVersion) -> Option<String> {
    let Formats::Unknown { newest_known } = formats_of(engine, version) else { return None };
    Some(format!(
        "{} {version} is newer than {newest_known}, the newest version that this build knows; backups in \
         a format newer than {} are stored without verifying their content, and need --unverified to be \
         restored",
        engine.as_str(),
        newest_known.writes,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(engine: EngineKind, version: &str) -> Formats {
        formats_of(engine, version.parse().unwrap())
    }

    fn redis(number: u16) -> RdbVersion {
        RdbVersion { family: RdbFamily::Redis, number }
    }

    fn valkey(number: u16) -> RdbVersion {
        RdbVersion { family: RdbFamily::Valkey, number }
    }

    #[test]
    fn no_redis_loads_a_file_of_valkey_however_new_it_is() {
        let valkey = RdbVersion { family: RdbFamily::Valkey, number: 80 };
        for version in ["7.0.15", "8.10.0", "99.0.0"] {
            assert_eq!(of(EngineKind::Redis, version).loads(valkey), Loads::No, "{version}");
        }
    }

    #[test]
    fn every_known_server_writes_the_version_of_its_row() {
        for (engine, version, header) in [
            (EngineKind::Redis, "5.0.0", "REDIS0009"),
            (EngineKind::Redis, "6.2.14", "REDIS0009"),
            (EngineKind::Redis, "7.0.15", "REDIS0010"),
            (EngineKind::Redis, "7.2.6", "REDIS0011"),
            (EngineKind::Redis, "7.3.240", "REDIS0011"),
            (EngineKind::Redis, "7.4.0", "REDIS0012"),
            (EngineKind::Redis, "8.0.6", "REDIS0012"),
            (EngineKind::Redis, "8.2.3", "REDIS0012"),
            (EngineKind::Redis, "8.5.0", "REDIS0012"),
            (EngineKind::Redis, "8.6.3", "REDIS0013"),
            (EngineKind::Redis, "8.8.0", "REDIS0014"),
            (EngineKind::Redis, "8.10.7", "REDIS0015"),
            (EngineKind::Valkey, "7.2.7", "REDIS0011"),
            (EngineKind::Valkey, "8.1.1", "REDIS0011"),
            (EngineKind::Valkey, "9.0.0", "VALKEY080"),
            (EngineKind::Valkey, "9.1.2", "VALKEY080"),
            (EngineKind::Valkey, "9.2.0", "VALKEY081"),
        ] {
            let formats = of(engine, version);
            let Formats::Known(row) = formats else { panic!("{version}: {formats:?}") };
            assert_eq!(
                (row.engine, row.writes.to_string().as_str()),
                (engine, header),
                "{version}"
            );
            assert_eq!(formats.loads(row.writes), Loads::Yes, "{version}");
            assert!(!row.source.is_empty(), "{version}");
        }
    }

    #[test]
    fn a_known_server_refuses_what_its_row_does_not_name() {
        for (engine, version, newest_redis, newest_valkey) in [
            (EngineKind::Redis, "7.0.15", 10, None),
            (EngineKind::Redis, "8.6.3", 13, None),
            (EngineKind::Valkey, "8.0.1", 11, None),
            (EngineKind::Valkey, "9.1.2", 11, Some(80)),
            (EngineKind::Valkey, "9.2.0", 11, Some(81)),
        ] {
            let formats = of(engine, version);
            assert_eq!(formats.loads(redis(newest_redis)), Loads::Yes, "{version}");
            assert_eq!(formats.loads(redis(newest_redis + 1)), Loads::No, "{version}");
            let loads_80 = if newest_valkey.is_some() { Loads::Yes } else { Loads::No };
            assert_eq!(formats.loads(valkey(80)), loads_80, "{version}");
            assert_eq!(formats.loads(valkey(newest_valkey.unwrap_or(80) + 1)), Loads::No);
        }
    }

    #[test]
    fn an_unknown_newer_server_is_never_taken_for_the_newest_known() {
        for (engine, version) in [
            (EngineKind::Redis, "8.11.0"),
            (EngineKind::Redis, "9.0.0"),
            (EngineKind::Redis, "255.255.255"),
            (EngineKind::Valkey, "9.3.0"),
            (EngineKind::Valkey, "10.0.0"),
        ] {
            let formats = of(engine, version);
            let Formats::Unknown { newest_known } = formats else { panic!("{version}") };
            // What the newest known loads it loads too; all else is not known, not refused.
            assert_eq!(formats.loads(newest_known.writes), Loads::Yes, "{version}");
            assert_eq!(formats.loads(redis(9)), Loads::Yes, "{version}");
            let next = RdbVersion { number: newest_known.writes.number + 1, ..newest_known.writes };
            assert_eq!(formats.loads(next), Loads::Unknown, "{version}");
            assert_eq!(formats.loads(redis(99)), Loads::Unknown, "{version}");
            let warning = unknown_server_warning(engine, version.parse().unwrap()).unwrap();
            assert!(warning.contains(version) && warning.contains("--unverified"), "{warning}");
        }
        let known = "8.10.0".parse().unwrap();
        assert_eq!(unknown_server_warning(EngineKind::Redis, known), None);
    }

    #[test]
    fn newest_redis_servers_refuse_streams_that_contradict_themselves() {
        for (version, refuses) in [
            ("7.0.15", false),
            ("8.6.3", false),
            ("8.8.0", true),
            ("8.10.0", true),
            ("9.0.0", true),
        ] {
            let formats = of(EngineKind::Redis, version);
            assert_eq!(formats.refuses_inconsistent_streams(), refuses, "redis {version}");
        }
        for version in ["8.1.0", "9.2.0", "10.0.0"] {
            assert!(!of(EngineKind::Valkey, version).refuses_inconsistent_streams(), "{version}");
        }
    }

    #[test]
    fn rows_ascend_and_begin_with_the_oldest_supported_version() {
        for (engine, table) in [(EngineKind::Redis, &REDIS), (EngineKind::Valkey, &VALKEY)] {
            let rows: Vec<_> = table.older.iter().chain([&table.newest]).collect();
            assert!(rows.is_sorted_by(|a, b| a.since < b.since), "{rows:?}");
            assert!(rows.iter().all(|row| row.engine == engine), "{rows:?}");
            let oldest = engine.oldest_supported();
            assert_eq!(rows[0].since, (oldest.major, oldest.minor));
        }
    }
}
