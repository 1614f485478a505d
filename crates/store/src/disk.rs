//! Free space of local file systems.

use std::io;
use std::path::Path;

/// Bytes that this process may still write on the file system of a folder.
///
/// # Errors
/// Those of `statvfs`, such as for a folder that does not exist.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}
