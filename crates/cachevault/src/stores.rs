//! The store that the configuration names.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use cachevault_store::conformance::{self, Scratch};
use cachevault_store::{
    BucketSettings, BucketStore, BucketUrl, FolderStore, KnownStore, SpoolStore, Store,
    StoreErrorKind, StoreMemory, StoreUrl, is_same_disk,
};
use clap::Args;

use crate::data_dir::DataDir;
use crate::entropy::OsEntropy;
use crate::terminal::print;

/// A request to a bucket that has taken so long is tried again.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);

/// A bucket is not taken away from under us as a folder is: it is looked at again after this time.
const BUCKET_HOLDS: Duration = Duration::from_secs(10);

/// Where backups are kept, and how it is reached.
#[derive(Debug, Clone)]
pub(crate) struct StoreConfig {
    /// The data folder's own where there is none.
    pub(crate) url: Option<StoreUrl>,
    pub(crate) credentials_file: Option<PathBuf>,
    pub(crate) create_bucket: bool,
    /// Whether new backups are encrypted.
    pub(crate) encrypt: bool,
    /// How long a bucket that does not answer is asked again.
    pub(crate) patience: Duration,
    /// How much of a backup may wait on the local disk for a bucket.
    pub(crate) spool_bytes: u64,
}

/// Which store to check.
#[derive(Debug, Args)]
pub(crate) struct CheckOptions {
    /// `file:///folder`, `s3://bucket/folder?endpoint=URL&region=NAME`, or `obs://…`
    url: String,

    /// File with the key of the bucket, in the form of AWS' shared credentials file
    #[arg(long, value_name = "FILE", env = "CACHEVAULT_STORE_CREDENTIALS_FILE")]
    credentials_file: Option<PathBuf>,

    /// Make the bucket where it is missing
    #[arg(long)]
    create_bucket: bool,
}

impl CheckOptions {
    pub(crate) fn config(self) -> anyhow::Result<StoreConfig> {
        Ok(StoreConfig {
            url: Some(self.url.parse()?),
            credentials_file: self.credentials_file,
            create_bucket: self.create_bucket,
            encrypt: true,
            patience: REQUEST_TIME_MAX,
            spool_bytes: 0,
        })
    }
}

/// A store that was tried.
pub(crate) struct ProvenStore {
    pub(crate) store: Arc<dyn Store>,
    /// Whether it can be used now.
    pub(crate) is_usable: bool,
    /// How long it holds that it is the right one.
    pub(crate) holds: Duration,
}

/// A store, opened, and made where it is missing and that is allowed.
struct Opened {
    store: Arc<dyn Store>,
    /// Absent for a folder.
    bucket: Option<BucketStore>,
}

impl StoreConfig {
    /// Opens the store and proves it. One that cannot be reached is taken all the same: it may come
    /// back. One that refuses us does not get better by itself.
    ///
    /// `memory` knows which store it has to be. Without, it is used for the first time, and made
    /// where it is missing. On the disk of the data folder `reserve_bytes` stay free.
    pub(crate) async fn open(
        &self,
        data_dir: &DataDir,
        memory: Option<Arc<dyn StoreMemory>>,
        reserve_bytes: u64,
    ) -> anyhow::Result<ProvenStore> {
        let folder = &data_dir.backups();
        let is_new = memory.is_none();
        let Opened { store, bucket } = self.client(folder, self.patience, is_new, |folder| {
            // Elsewhere it takes nothing from the catalog.
            let is_same = is_same_disk(folder, data_dir.path()).unwrap_or(false);
            if is_same { reserve_bytes } else { 0 }
        })?;
        // At start nobody wants to wait for long.
        let probe = self.client(folder, REQUEST_TIME_MAX.min(self.patience), is_new, |_| 0)?;
        let scratch = Scratch::mint(&OsEntropy);
        let proved = async {
            let Some(memory) = memory else {
                if let Some(bucket) = &probe.bucket {
                    bucket.prepare().await?;
                }
                return probe.store.check(&scratch).await;
            };
            KnownStore::new(Arc::clone(&probe.store), memory, Duration::ZERO).check(&scratch).await
        };
        let proved = async {
            proved.await?;
            match &probe.bucket {
                Some(bucket) => bucket.compares_checksums().await.map(drop),
                None => Ok(()),
            }
        };
        let (mut is_usable, is_bucket) = (true, bucket.is_some());
        if let Err(error) = proved.await {
            let may_pass = error.kind == StoreErrorKind::Unavailable && is_bucket;
            if !may_pass && error.kind != StoreErrorKind::Foreign {
                return Err(error).context("prove that the store can be used");
            }
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the store is not usable now");
            is_usable = false;
        }
        if !is_bucket {
            return Ok(ProvenStore { store, is_usable, holds: Duration::ZERO });
        }
        let spool = SpoolStore::new(store, data_dir.spool()?, self.spool_bytes);
        let store = Arc::new(spool.with_reserve(reserve_bytes));
        Ok(ProvenStore { store, is_usable, holds: BUCKET_HOLDS })
    }

    /// The store as it is, for commands that decide which one it is to be.
    pub(crate) fn at(&self, data_dir: &DataDir) -> anyhow::Result<Arc<dyn Store>> {
        Ok(self.client(&data_dir.backups(), REQUEST_TIME_MAX, false, |_| 0)?.store)
    }

    /// A client. Whether the store may be made where it is missing is up to the caller: one that
    /// was used before is away then.
    fn client(
        &self,
        folder: &Path,
        patience: Duration,
        may_make: bool,
        reserve_bytes: impl Fn(&Path) -> u64,
    ) -> anyhow::Result<Opened> {
        let folder = match &self.url {
            None => folder,
            Some(StoreUrl::Folder(folder)) => folder,
            Some(StoreUrl::Bucket(url)) => {
                let file = self.credentials_file.clone();
                let bucket = bucket(url, file, self.create_bucket && may_make, patience)?;
                return Ok(Opened { store: Arc::new(bucket.clone()), bucket: Some(bucket) });
            }
        };
        let store = match may_make {
            true => FolderStore::open(folder).context("open the store")?,
            false => FolderStore::at(folder),
        };
        let store = store.with_reserve(reserve_bytes(folder));
        Ok(Opened { store: Arc::new(store), bucket: None })
    }
}

fn bucket(
    url: &BucketUrl,
    credentials_file: Option<PathBuf>,
    create: bool,
    patience: Duration,
) -> anyhow::Result<BucketStore> {
    let settings = BucketSettings {
        url: url.clone(),
        credentials_file,
        create,
        request: REQUEST_TIME_MAX,
        patience,
    };
    BucketStore::new(&settings).context("open the store")
}

/// A store for who only reads: nothing is made where it is missing.
pub(crate) fn open_to_read(
    url: Option<&StoreUrl>,
    credentials_file: Option<PathBuf>,
    folder: &Path,
) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match url {
        None => Arc::new(FolderStore::at(folder)),
        Some(StoreUrl::Folder(folder)) => Arc::new(FolderStore::at(folder)),
        Some(StoreUrl::Bucket(url)) => {
            Arc::new(bucket(url, credentials_file, false, REQUEST_TIME_MAX)?)
        }
    })
}

/// Runs the conformance suite against a live store and prints how it went.
pub(crate) fn check(config: &StoreConfig) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (compares, report) = runtime.context("start the runtime")?.block_on(async {
        let Opened { store, bucket } =
            config.client(Path::new("."), config.patience, true, |_| 0)?;
        let mut compares = true;
        if let Some(bucket) = bucket {
            bucket.prepare().await.context("prepare the bucket")?;
            compares = bucket.compares_checksums().await.context("try the checksums")?;
        }
        anyhow::Ok((compares, conformance::run(&*store, &Scratch::mint(&OsEntropy)).await))
    })?;
    if !compares {
        print(
            &"note    the server stores a body that differs from its checksum: the service reads back \
              what it stores",
        );
    }
    print(&report.to_string().trim_end());
    if !report.passed() {
        bail!("the store does not do all that a store has to do");
    }
    Ok(())
}
