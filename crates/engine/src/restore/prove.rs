//! Reads a target's data back and compares it with the backup's.

use cachevault_domain::RdbDialect;
use cachevault_rdb::inspect::{Content, Inspection};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::capture::{CaptureLimits, CaptureRequest, survey};
use crate::meter::Meter;
use crate::restore::error::RestoreError;
use crate::restore::replica_way::LoadRequest;

/// Compares while the target still follows us: nobody can have written, and a replica keeps keys
/// whose time is over, so the two have to be equal to the last key.
pub(crate) async fn prove(request: &LoadRequest<'_>, meter: &Meter) -> Result<(), RestoreError> {
    let limits = &request.limits;
    let reading = CaptureRequest {
        target: request.target,
        prefer_replica: false,
        dialect: RdbDialect::Native,
        as_of: Timestamp::UNIX_EPOCH,
        zstd_level: 0,
        earlier_bytes: Some(request.entry.rdb.size_bytes),
        gate: request.gate,
        limits: CaptureLimits {
            command: limits.command,
            stall: limits.stall,
            busy_wait: limits.busy_wait,
            total: limits.total,
        },
    };
    let inspection = survey(reading, meter, &CancellationToken::new()).await;
    let found = fingerprint(&inspection.map_err(RestoreError::Unproven)?);
    let expected = request.expected_digest().map(|digest| {
        format!("{} ({} keys, functions {})", digest.keys, digest.key_count, digest.functions)
    });
    let expected = expected.unwrap_or_else(|| "unknown".to_owned());
    if found == expected { Ok(()) } else { Err(RestoreError::Differs { found, expected }) }
}

fn fingerprint(inspection: &Inspection) -> String {
    match &inspection.content {
        Content::Verified { digest, .. } => {
            format!("{} ({} keys, functions {})", digest.keys, digest.key_count, digest.functions)
        }
        Content::Opaque { reason } => format!("not known ({reason})"),
    }
}
