//! Free space of local file systems.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

/// Bytes that this process may still write on the file system of a folder.
///
/// # Errors
/// Those of `statvfs`, such as for a folder that does not exist.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes of the file system of a folder, free or not.
///
/// # Errors
/// Those of `statvfs`, such as for a folder that does not exist.
pub fn disk_bytes(folder: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_blocks.saturating_mul(found.f_frsize))
}

/// Whether two folders take space from the same file system.
///
/// # Errors
/// Those of `stat`, such as for a folder that does not exist.
pub fn is_same_disk(one: &Path, other: &Path) -> io::Result<bool> {
    Ok(fs::metadata(one)?.dev() == fs::metadata(other)?.dev())
}
