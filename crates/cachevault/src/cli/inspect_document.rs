//! The JSON document of `cachevault inspect --json`.

use std::collections::BTreeMap;

use cachevault_rdb::digest::{Digest, Fingerprint};
use cachevault_rdb::inspect::{Content, Inspection};
use cachevault_rdb::report::Report;
use cachevault_rdb::{Checksum, Kind};
use serde::Serialize;

/// The document for one source. Unknown values are null.
#[derive(Serialize)]
pub(super) struct Document<'a> {
    source: &'a str,
    envelope: Frame,
    /// The reason why the content could not be decoded.
    opaque: Option<String>,
    digest: Option<Digests>,
    report: Option<&'a Report>,
}

#[derive(Serialize)]
struct Frame {
    header: String,
    size_bytes: u64,
    crc64: Option<String>,
    has_end_mark: bool,
}

#[derive(Serialize)]
struct Digests {
    keys: String,
    key_count: u64,
    uncompared: u64,
    functions: String,
    databases: BTreeMap<u64, String>,
    kinds: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<BTreeMap<u16, String>>,
}

impl<'a> Document<'a> {
    pub(super) fn new(source: &'a str, inspection: &'a Inspection, slots: bool) -> Self {
        let envelope = &inspection.envelope;
        let crc64 = match envelope.checksum {
            Checksum::Matches(crc) => Some(format!("{crc:016x}")),
            Checksum::Absent => None,
        };
        let (opaque, digest, report) = match &inspection.content {
            Content::Verified { digest, report } => {
                (None, Some(Digests::new(digest, slots)), Some(&**report))
            }
            Content::Opaque { reason } => (Some(reason.to_string()), None, None),
        };
        Self {
            source,
            envelope: Frame {
                header: envelope.header.to_string(),
                size_bytes: envelope.size_bytes,
                crc64,
                has_end_mark: envelope.has_end_mark,
            },
            opaque,
            digest,
            report,
        }
    }
}

impl Digests {
    fn new(digest: &Digest, slots: bool) -> Self {
        let kinds = Kind::ALL.iter().map(|kind| kind.as_str()).zip(&digest.kinds);
        let kinds = kinds.filter(|(_, fingerprint)| **fingerprint != Fingerprint::default());
        let slot = |(slot, fingerprint): (u16, Fingerprint)| (slot, fingerprint.to_string());
        Self {
            keys: digest.keys.to_string(),
            key_count: digest.key_count,
            uncompared: digest.uncompared,
            functions: digest.functions.to_string(),
            databases: digest.databases.iter().map(|(db, f)| (*db, f.to_string())).collect(),
            kinds: kinds.map(|(kind, f)| (kind, f.to_string())).collect(),
            slots: slots.then(|| digest.slots().map(slot).collect()),
        }
    }
}
