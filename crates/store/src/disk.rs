//! Space on local file systems.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

/// Bytes that this process may still write on the file system of a folder.
///
/// # Errors
/// Errors of `statvfs`, such as for a missing folder.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Total size of the file system of a folder, bytes.
///
/// # Errors
/// Errors of `statvfs`, such as for a missing folder.
pub fn disk_bytes(folder: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_blocks.saturating_mul(found.f_frsize))
}

/// Whether two folders share a file system.
///
/// # Errors
/// Errors of `stat`, such as for a missing folder.
pub fn is_same_disk(one: &Path, other: &Path) -> io::Result<bool> {
    Ok(fs::metadata(one)?.dev() == fs::metadata(other)?.dev())
}
