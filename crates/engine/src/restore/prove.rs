//! Reads a target's data back and compares it with the backup's.

use std::fmt;

use cachevault_domain::{RdbDialect, Target};
use cachevault_rdb::data;
use cachevault_rdb::digest::{
    DIGEST_VERSION, Fingerprint, Fingerprinter, KeyFingerprint, KeyVisitor,
};
use cachevault_rdb::inspect::InspectError;
use cachevault_rdb::raw::Key;
use cachevault_store::{ArtifactEntry, ArtifactKey, ContentEntry, Store};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::capture::{CaptureLimits, CaptureRequest, INPUT_BYTES_MAX, read, survey};
use crate::error::CaptureError;
use crate::gate::SourceGate;
use crate::meter::Meter;
use crate::queue::queue;
use crate::restore::artifact::RdbReader;
use crate::restore::error::RestoreError;
use crate::restore::replica_way::RestoreLimits;

/// A primary lets keys go when their time is over. Those that end within this time are not
/// compared: reading back takes less.
const READING_BACK_MAX: SignedDuration = SignedDuration::from_hours(6);

/// Whether the data of a target is read back and compared with the backup's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofDemand {
    /// It is not.
    None,
    /// It is; data that cannot be compared is no failure.
    IfPossible,
    /// It is; data that cannot be compared fails the restore.
    Required,
}

/// What comparing a target's data with the backup's has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Comparison {
    /// Whether the data is the same.
    pub proven: bool,
    /// Why it was not compared, where it should have been.
    pub unproven: Option<String>,
    /// Keys with data of modules that was counted, and not compared.
    pub uncompared: u64,
    /// Keys of the backup without elements, which servers leave out, and the comparison too.
    pub empty: u64,
}

impl Comparison {
    /// Data that was not compared, for a reason.
    pub fn not_possible(reason: impl Into<String>) -> Self {
        Self { unproven: Some(reason.into()), ..Self::default() }
    }
}

impl ProofDemand {
    /// What a comparison that ended like this means.
    pub(crate) fn judge(
        self,
        compared: Result<Comparison, RestoreError>,
    ) -> Result<Comparison, RestoreError> {
        match compared {
            Err(RestoreError::NotComparable(reason)) if self != Self::Required => {
                tracing::warn!(reason, "the restored data cannot be compared");
                Ok(Comparison::not_possible(reason))
            }
            compared => compared,
        }
    }
}

/// What to compare.
#[derive(Clone, Copy)]
pub(crate) struct Proof<'a> {
    pub(crate) target: &'a Target,
    pub(crate) store: &'a dyn Store,
    pub(crate) key: &'a ArtifactKey,
    pub(crate) entry: &'a ArtifactEntry,
    pub(crate) gate: &'a SourceGate,
    pub(crate) limits: RestoreLimits,
}

/// The sum of a data set's fingerprints.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    keys: Fingerprint,
    count: u64,
    uncompared: u64,
    functions: Fingerprint,
    /// Keys, and fields of hashes, that expire before it are left out, milliseconds since 1970.
    lasting_beyond_ms: Option<i64>,
    /// Keys without elements: a server may have left them out, and so are they here.
    empty: u64,
}

impl Sum {
    fn is_same_as(&self, other: &Self) -> bool {
        let data = |sum: &Self| (sum.keys, sum.count, sum.uncompared, sum.functions);
        data(self) == data(other)
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, count, functions, .. } = self;
        write!(f, "{keys} ({count} keys, functions {functions})")
    }
}

impl KeyVisitor for Sum {
    fn wants(&mut self, key: &Key<'_>) -> bool {
        match (key.expires_at_ms, self.lasting_beyond_ms) {
            (Some(at), Some(beyond)) => at > beyond,
            _ => true,
        }
    }
    fn key(&mut self, key: &KeyFingerprint<'_>) {
        if key.is_empty {
            self.empty += 1;
            return;
        }
        self.keys += key.fingerprint;
        self.count += 1;
        self.uncompared += u64::from(!key.is_compared);
    }
    fn function(&mut self, fingerprint: Fingerprint) {
        self.functions += fingerprint;
    }
}

fn reading(lasting_beyond_ms: Option<i64>) -> (data::Decoder, Fingerprinter<Sum>) {
    let sum = Sum { lasting_beyond_ms, ..Sum::default() };
    (data::Decoder::default(), Fingerprinter::lasting_beyond(sum, lasting_beyond_ms))
}

impl Proof<'_> {
    /// Compares while the target still follows us: nobody can have written, and a replica keeps
    /// keys whose time is over, so the two have to be equal to the last key.
    pub(crate) async fn of_replica(&self, meter: &Meter) -> Result<Comparison, RestoreError> {
        let expected = match self.of_manifest() {
            Some(expected) => expected,
            // Its digest is of another version, or of keys that servers leave out too, or there is none.
            None => self.of_artifact(None).await?,
        };
        self.compare(expected, meter).await
    }

    /// Compares with a primary, which may have let keys go whose time is over.
    pub(crate) async fn of_primary(
        &self,
        now: Timestamp,
        meter: &Meter,
    ) -> Result<Comparison, RestoreError> {
        let beyond = now.checked_add(READING_BACK_MAX).unwrap_or(now);
        let expected = self.of_artifact(Some(beyond.as_millisecond())).await?;
        self.compare(expected, meter).await
    }

    async fn compare(&self, expected: Sum, meter: &Meter) -> Result<Comparison, RestoreError> {
        let limits = &self.limits;
        let request = CaptureRequest {
            target: self.target,
            prefer_replica: false,
            dialect: RdbDialect::Native,
            as_of: Timestamp::UNIX_EPOCH,
            zstd_level: None,
            earlier_bytes: Some(self.entry.rdb.size_bytes),
            gate: self.gate,
            limits: CaptureLimits {
                command: limits.command,
                stall: limits.stall,
                busy_wait: limits.busy_wait,
                total: limits.total,
                source: None,
            },
        };
        let never = CancellationToken::new();
        let found = survey(request, reading(expected.lasting_beyond_ms), meter, &never).await;
        let found = found.map_err(|error| match error {
            CaptureError::Damaged { damage: damage @ InspectError::Unproven(_), .. } => {
                RestoreError::NotComparable(format!("the target sent its data back, and {damage}"))
            }
            error => RestoreError::Unproven(error),
        })?;
        let sum = match found.opaque {
            None => found.reading.1.keys,
            Some(reason) => {
                let reason = format!("the target sent its data back, and {reason}");
                return Err(RestoreError::NotComparable(reason));
            }
        };
        if sum.is_same_as(&expected) {
            let Sum { uncompared, empty, .. } = expected;
            return Ok(Comparison { proven: true, unproven: None, uncompared, empty });
        }
        Err(RestoreError::Differs { found: sum.to_string(), expected: expected.to_string() })
    }

    /// What was found while the backup was made, by today's definition.
    fn of_manifest(&self) -> Option<Sum> {
        let Some(ContentEntry::Verified { digest, report }) = &self.entry.rdb.content else {
            return None;
        };
        (report.get("empty_keys")?.as_u64()? == 0).then_some(())?;
        let parse = |hex: &str| u128::from_str_radix(hex, 16).ok().map(Fingerprint);
        (digest.version == DIGEST_VERSION).then_some(())?;
        Some(Sum {
            keys: parse(&digest.keys)?,
            count: digest.key_count,
            uncompared: digest.uncompared,
            functions: parse(&digest.functions)?,
            lasting_beyond_ms: None,
            empty: 0,
        })
    }

    async fn of_artifact(&self, lasting_beyond_ms: Option<i64>) -> Result<Sum, RestoreError> {
        let mut pieces = RdbReader::open(self.store, self.key, self.entry).await?;
        let (mut input, output) = queue(INPUT_BYTES_MAX);
        let reader = tokio::task::spawn_blocking(move || read(output, reading(lasting_beyond_ms)));
        while let Some(piece) = pieces.next().await? {
            if input.send(piece).await.is_err() {
                break;
            }
        }
        // A reader that has gone says why itself.
        let _ = input.flush().await;
        drop(input);
        let read = reader.await.map_err(|e| RestoreError::NotComparable(e.to_string()))?;
        let read = read.map_err(|e| RestoreError::NotComparable(e.to_string()))?;
        match read.opaque {
            None => Ok(read.reading.1.keys),
            Some(reason) => Err(RestoreError::NotComparable(format!("of the backup, {reason}"))),
        }
    }
}
