//! The disk space that the service keeps for itself: its catalog must be able to write when
//! everything else is full.

use std::io;
use std::path::PathBuf;

use cachevault_store::{disk_bytes, free_bytes};

use crate::{App, AppError};

const MIB: u64 = 1 << 20;
/// The reserve where none is set; of a small disk its sixteenth part.
const DEFAULT_BYTES: u64 = 64 * MIB;
const DEFAULT_PART: u64 = 16;

/// A local folder of the service whose file system must keep free space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFolder {
    /// Its name for people and metrics: `data` or `spool`.
    pub name: &'static str,
    /// Its place.
    pub path: PathBuf,
}

/// The folders of the service and the free space below which it accepts no new work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskReserve {
    /// The folders.
    pub folders: Vec<LocalFolder>,
    /// The free space that each of them must have.
    pub bytes: u64,
}

/// Too little space is free for new work.
#[derive(Debug, thiserror::Error)]
pub enum DiskShortage {
    /// A file system is nearly full.
    #[error(
        "the service accepts no new work: the disk of its {folder} folder has {} MiB free, less than \
         the reserve of {} MiB; free some space, or lower `disk_reserve_mib`",
        free_bytes / MIB,
        reserve_bytes.div_ceil(MIB)
    )]
    Low {
        /// The name of the folder.
        folder: &'static str,
        /// The free space.
        free_bytes: u64,
        /// The free space that the folder must have.
        reserve_bytes: u64,
    },
    /// The free space cannot be read.
    #[error(
        "the service accepts no new work: the free space of its {folder} folder is unknown: {source}; \
         check that the folder exists"
    )]
    Unknown {
        /// The name of the folder.
        folder: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl DiskReserve {
    /// The reserve that is set, or else one that leaves the smallest of the disks of use.
    pub fn of(folders: Vec<LocalFolder>, bytes: Option<u64>) -> Self {
        let sizes = folders.iter().filter_map(|folder| disk_bytes(&folder.path).ok());
        let part = sizes.map(|size| size / DEFAULT_PART).min();
        let default = part.map_or(DEFAULT_BYTES, |part| part.min(DEFAULT_BYTES));
        Self { folders, bytes: bytes.unwrap_or(default) }
    }

    /// The free bytes of every folder that can be read, by its name.
    pub async fn measure(&self) -> Vec<(&'static str, u64)> {
        let measured = self.measure_all().await;
        measured.into_iter().filter_map(|(name, free)| Some((name, free.ok()?))).collect()
    }

    /// Whether new work may begin.
    ///
    /// # Errors
    /// [`DiskShortage`], for the first folder that has too little.
    pub async fn check(&self) -> Result<(), DiskShortage> {
        self.check_at_least(self.bytes).await
    }

    /// Whether there is so much space again that a shortage counts as over: a quarter more than the
    /// reserve, lest every file that comes and goes is an event.
    ///
    /// # Errors
    /// [`DiskShortage`], for the first folder that has too little.
    pub async fn check_recovered(&self) -> Result<(), DiskShortage> {
        self.check_at_least(self.bytes.saturating_add(self.bytes / 4)).await
    }

    async fn check_at_least(&self, needed_bytes: u64) -> Result<(), DiskShortage> {
        if self.bytes == 0 {
            return Ok(());
        }
        for (folder, free) in self.measure_all().await {
            let free_bytes = free.map_err(|source| DiskShortage::Unknown { folder, source })?;
            if free_bytes < needed_bytes {
                let reserve_bytes = self.bytes;
                return Err(DiskShortage::Low { folder, free_bytes, reserve_bytes });
            }
        }
        Ok(())
    }

    async fn measure_all(&self) -> Vec<(&'static str, io::Result<u64>)> {
        let folders = self.folders.clone();
        let measure = move || {
            let measured = folders.iter().map(|folder| (folder.name, free_bytes(&folder.path)));
            measured.collect()
        };
        // A file system that hangs must not stop the runtime.
        let measured: Result<Vec<_>, _> = tokio::task::spawn_blocking(measure).await;
        measured.unwrap_or_else(|gone| vec![("data", Err(io::Error::other(gone)))])
    }
}

impl App {
    /// Whether the service may begin new work: its disks have their reserve.
    ///
    /// # Errors
    /// [`AppError::DiskShortage`].
    pub async fn check_disk(&self) -> Result<(), AppError> {
        Ok(self.disk.check().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_is_short_below_its_reserve() {
        let folder = tempfile::tempdir().unwrap();
        let folders = vec![LocalFolder { name: "data", path: folder.path().to_owned() }];
        let free = free_bytes(folder.path()).unwrap();
        assert!(free > 0);
        let reserve = |bytes| DiskReserve { folders: folders.clone(), bytes };
        reserve(1).check().await.unwrap();
        reserve(0).check().await.unwrap();
        let short = reserve(u64::MAX / 2).check().await.unwrap_err().to_string();
        assert!(
            short.contains("its data folder has") && short.contains("disk_reserve_mib"),
            "{short}"
        );
        assert!(reserve(u64::MAX / 2).check_recovered().await.is_err());
        drop(folder);
        let unknown = reserve(1).check().await.unwrap_err();
        assert!(matches!(unknown, DiskShortage::Unknown { folder: "data", .. }), "{unknown}");
        assert_eq!(reserve(1).measure().await, []);
    }
}
