//! Whether a target loads what a backup holds: by the versions of both, and by what its content needs.

use cachevault_domain::{
    Blocker, EngineKind, Formats, Loads, RdbFamily, RdbVersion, ServerVersion, formats_of,
    unknown_server_warning,
};
use cachevault_rdb::report::Report;
use cachevault_rdb::{Header, Magic};
use cachevault_store::SourceEntry;

use crate::info::ServerInfo;
use crate::restore::plan::{ContentFacts, PlanRequest, parse};

/// A backup's format, and the target that is to load it.
pub(super) struct FormatCheck<'a> {
    pub(super) info: &'a ServerInfo,
    pub(super) header: Option<Header>,
    pub(super) report: Option<&'a Report>,
    /// The format that the target itself writes, as its safety backup has shown.
    pub(super) target_writes: Option<Header>,
    /// Whether the user lets the target decide what this build does not know.
    pub(super) unverified: bool,
    /// Whether the content is not verified, and the target is of the vendor and at least of the version
    /// that wrote it: it is then the likeliest to load it, whatever is known of its version.
    pub(super) is_own_opaque: bool,
}

impl<'a> FormatCheck<'a> {
    pub(super) fn new(
        request: &PlanRequest<'_>,
        info: &'a ServerInfo,
        content: &'a ContentFacts,
    ) -> Self {
        let is_refused = unverified_refusal(info, &request.entry.source).is_some();
        Self {
            info,
            header: content.header,
            report: content.report.as_ref().ok(),
            target_writes: request.target_writes.and_then(parse),
            unverified: request.options.unverified,
            is_own_opaque: content.report.is_err() && !is_refused,
        }
    }

    fn formats(&self) -> Formats {
        formats_of(self.info.engine, self.info.version)
    }

    /// The format that the data is in: what its header says, or what its encodings do, where a server
    /// was told to write an older header over them.
    fn needed(&self) -> Option<RdbVersion> {
        let header = self.header?;
        let least = self.report.and_then(|report| report.least_redis_version);
        let needed = rdb_version(header);
        Some(match needed.family {
            RdbFamily::Redis => {
                RdbVersion { number: needed.number.max(least.unwrap_or_default()), ..needed }
            }
            RdbFamily::Valkey => needed,
        })
    }

    /// Whether the target does not load the file, being of the other vendor, and takes all its values by
    /// commands.
    pub(super) fn needs_commands(&self) -> bool {
        let Some(needed) = self.needed() else { return false };
        let row = self.formats().newest_known();
        if row.writes.family == needed.family || self.formats().loads(needed) == Loads::Yes {
            return false;
        }
        self.takes_by_commands()
    }

    /// Whether the target takes all values of the backup by commands, whatever its header says.
    pub(super) fn takes_by_commands(&self) -> bool {
        let least = self.report.and_then(|report| match self.family() {
            RdbFamily::Redis => report.least_redis_version_by_commands,
            RdbFamily::Valkey => report.least_valkey_version_by_commands,
        });
        least.zip(self.newest_number()).is_some_and(|(least, has)| least <= has)
    }

    /// Whether the target takes values by commands that need this version of its family's format, or is
    /// to decide that itself.
    pub(super) fn takes(&self, least: u16) -> bool {
        let is_left_to_it = self.unverified && matches!(self.formats(), Formats::Unknown { .. });
        is_left_to_it || self.newest_number().is_some_and(|has| least <= has)
    }

    fn family(&self) -> RdbFamily {
        self.formats().newest_known().writes.family
    }

    fn newest_number(&self) -> Option<u16> {
        let row = self.formats().newest_known();
        match row.writes.family {
            RdbFamily::Redis => Some(row.loads_redis),
            RdbFamily::Valkey => row.loads_valkey,
        }
    }

    /// That the target does not take some value of a part by commands: one that needs this version, or
    /// for `None` one that only the other vendor has.
    pub(super) fn refused_part(&self, least: Option<u16>) -> Blocker {
        let needed = least.map(|number| RdbVersion { family: self.family(), number });
        let header = self.header.map(|header| header.to_string()).unwrap_or_default();
        self.refused(needed, &header, loaded_by(&self.formats()))
    }

    pub(super) fn blocker(&self, header: &str) -> Option<Blocker> {
        let needed = self.needed();
        let formats = self.formats();
        let loads = needed.map_or(Loads::No, |needed| formats.loads(needed));
        match (loads, needed) {
            (Loads::Yes, _) => None,
            (Loads::Unknown, Some(needed)) => self.unknown_blocker(needed, &formats),
            (Loads::No, Some(needed)) if self.unverified && self.is_own_opaque => {
                self.unknown_blocker(needed, &formats)
            }
            _ => Some(self.refused(needed, header, loaded_by(&formats))),
        }
    }

    /// Of a server that is not known, only what it writes itself says what it loads.
    fn unknown_blocker(&self, needed: RdbVersion, formats: &Formats) -> Option<Blocker> {
        let written = self.target_writes.map(rdb_version);
        match written.filter(|written| written.family == needed.family) {
            Some(written) if written.number >= needed.number => None,
            Some(written) => {
                Some(self.refused(Some(needed), &needed.to_string(), written.to_string()))
            }
            None if self.unverified => None,
            None => Some(Blocker::FormatUnknown {
                header: needed.to_string(),
                engine: self.info.engine,
                version: self.info.version,
                newest_known: formats.newest_known().to_string(),
            }),
        }
    }

    fn refused(&self, needed: Option<RdbVersion>, header: &str, loads: String) -> Blocker {
        let advice = match needed.map(|needed| needed.family) {
            Some(RdbFamily::Valkey) => {
                "choose a Valkey 9 or newer, or make the backup with `--portable`"
            }
            _ => "choose a target of the version that the backup comes from, or newer",
        };
        Blocker::Format {
            header: needed.map_or_else(|| header.to_owned(), |needed| needed.to_string()),
            engine: self.info.engine,
            version: self.info.version,
            loads,
            advice: advice.to_owned(),
        }
    }

    /// The streams at which the target would exit while it loads.
    pub(super) fn inconsistent_streams(&self) -> Option<Blocker> {
        let streams = &self.report?.inconsistent_streams;
        let first = streams.listed.first()?;
        self.formats().refuses_inconsistent_streams().then(|| Blocker::InconsistentStreams {
            count: streams.count,
            example: format!("key {} of the backup ({})", first.place, first.reason.as_str()),
            engine: self.info.engine,
            version: self.info.version,
        })
    }

    /// Why the target's data cannot be read back and compared.
    pub(super) fn unreadable(&self) -> Option<String> {
        let written = self.target_writes.map(|header| (header.is_known(), header.to_string()));
        match (self.formats(), written) {
            (_, Some((true, _))) | (Formats::Known(_), None) => None,
            (_, Some((false, header))) => Some(format!(
                "the target sends its data in the format {header}, which this build does not know"
            )),
            (Formats::Unknown { .. }, None) => None,
        }
    }

    pub(super) fn note(&self) -> Option<String> {
        unknown_server_warning(self.info.engine, self.info.version)
    }
}

fn rdb_version(header: Header) -> RdbVersion {
    let family = match header.magic {
        Magic::Redis => RdbFamily::Redis,
        Magic::Valkey => RdbFamily::Valkey,
    };
    RdbVersion { family, number: header.version }
}

/// The newest formats that a server is known to load.
fn loaded_by(formats: &Formats) -> String {
    let row = formats.newest_known();
    let redis = RdbVersion { family: RdbFamily::Redis, number: row.loads_redis };
    match row.loads_valkey {
        None => redis.to_string(),
        Some(number) => {
            format!("{redis} and {}", RdbVersion { family: RdbFamily::Valkey, number })
        }
    }
}

/// Why content that is not verified cannot be loaded into this target either; `None` where it can.
pub(super) fn unverified_refusal(info: &ServerInfo, source: &SourceEntry) -> Option<String> {
    let engine = EngineKind::ALL.into_iter().find(|engine| engine.as_str() == source.engine);
    let version: Option<ServerVersion> = source.server_version.parse().ok();
    let is_newer = version.is_some_and(|version| info.version >= version);
    if engine == Some(info.engine) && is_newer {
        return None;
    }
    Some(format!(
        "it comes from {} {}, and only a server of that vendor and at least that version may be given \
         what this build does not know",
        source.engine, source.server_version
    ))
}
