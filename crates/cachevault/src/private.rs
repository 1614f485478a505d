//! Files that only the owner of the service may read.

use std::fs::{self, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

/// Permission bits of everybody except the owner of a file.
const OTHERS: u32 = 0o077;
/// The one of these bits that a file of root may have: its readers are a group that root chose,
/// as for secrets that a platform mounts.
const GROUP_READS: u32 = 0o040;
const PRIVATE: u32 = 0o600;

/// A secret file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotPrivate {
    /// Its permissions let others in.
    #[error(
        "cannot use `{}`: other users may read it (mode {mode:04o}); run `chmod 600` on it, and \
         replace the key if somebody may have read it",
        path.display()
    )]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Its permissions cannot be read.
    #[error("cannot read the permissions of `{}`: {source}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes every file that this process creates from now on private, whatever creates it.
pub(crate) fn create_private_files() {
    rustix::process::umask(Mode::from_raw_mode(OTHERS));
}

/// Refuses a key that users other than the owner of the file may read. A missing file is left to
/// who reads it.
pub(crate) fn require_private(path: &Path) -> Result<(), NotPrivate> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        read => read.map_err(|source| NotPrivate::Unknown { path: path.to_owned(), source })?,
    };
    if is_private(&metadata) {
        return Ok(());
    }
    let mode = metadata.mode() & 0o7777;
    Err(NotPrivate::Readable { path: path.to_owned(), mode })
}

fn is_private(metadata: &Metadata) -> bool {
    let is_of_another_root = metadata.uid() == 0 && !rustix::process::geteuid().is_root();
    let tolerated = if is_of_another_root { GROUP_READS } else { 0 };
    metadata.mode() & OTHERS & !tolerated == 0
}

/// Takes the permissions of others from a file, where there is one.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.mode() & OTHERS == 0 => Ok(()),
        Ok(_) => fs::set_permissions(path, Permissions::from_mode(PRIVATE)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
