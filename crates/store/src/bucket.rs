//! A store in a bucket of an object store with the S3 protocol, such as OBS, MinIO, Garage or Ceph.
//!
//! A server that compares bodies with their signed SHA-256 proves the stored bytes of each body;
//! the size of the object is checked after its parts are completed. Before the first artifact, a
//! body with a wrong SHA-256 shows whether the server compares; if it does not, artifacts are read
//! back. Paths contain the attempt's number, so no write needs conditions, which some servers
//! ignore.

mod credentials;
mod failure;
mod requests;
mod sink;
mod source;
mod url;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::memory::InMemory;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, MultipartId, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig,
};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::bucket::credentials::CredentialsFile;
use crate::bucket::failure::{classify, failed};
use crate::bucket::requests::Requests;
use crate::bucket::sink::BucketSink;
use crate::bucket::source::BucketSource;
use crate::{
    ArtifactKey, ArtifactSink, ArtifactSource, AttemptKey, BucketPlace, DOCUMENT_BYTES_MAX, Folder,
    LIST_MAX, ObjectName, Scratch, Store, StoreError, StoreErrorKind, StoredObject, probe,
};

pub use url::{BucketUrl, InvalidStoreUrl, StoreUrl};

const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LAST: Duration = Duration::from_secs(5);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// The settings of a bucket.
#[derive(Debug, Clone)]
pub struct BucketSettings {
    /// The bucket and its folder.
    pub url: BucketUrl,
    /// The file of access key and secret, in the form of AWS' shared credentials file; it is read
    /// again after a change. Without a file, the environment and then the platform provide the
    /// credentials.
    pub credentials_file: Option<PathBuf>,
    /// Whether this service creates a missing bucket.
    pub create: bool,
    /// Timeout of a request, after which it is retried. In 30 seconds a part of 16 MiB passes at
    /// 560 kB/s.
    pub request: Duration,
    /// Duration of the retries of a request with transient errors.
    pub patience: Duration,
}

/// Keeps artifacts and manifests in a bucket.
#[derive(Clone)]
pub struct BucketStore {
    objects: Arc<dyn ObjectStore>,
    parts: Arc<dyn MultipartStore>,
    /// Requests that the library does not support; absent for a store in memory.
    requests: Option<Arc<Requests>>,
    bucket: String,
    prefix: Path,
    patience: Duration,
    /// Whether the server compares checksums; unknown before the first test.
    compares: Arc<OnceCell<bool>>,
    /// Bucket and prefix, for messages.
    shown: String,
}

impl fmt::Debug for BucketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BucketStore").field(&self.shown).finish()
    }
}

impl BucketStore {
    /// Creates a client of a bucket. Nothing is sent so far.
    ///
    /// # Errors
    /// [`StoreError`] when the settings are invalid.
    pub fn new(settings: &BucketSettings) -> Result<Self, StoreError> {
        let BucketSettings { url, create, patience, .. } = settings;
        let shown = url.to_string();
        // The second call fails, and the provider is present by then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = client_options(settings);
        let client = client_builder(environment(std::env::vars_os()), settings, options.clone())
            .build()
            .map_err(|e| failed("configure", &shown, e))?;
        let requests = Requests::new(url, client.credentials().clone(), &options, *create);
        let requests = requests.map_err(|e| failed("configure", &shown, e))?;
        let client = Arc::new(client);
        Ok(Self {
            objects: client.clone(),
            parts: client,
            requests: Some(Arc::new(requests)),
            bucket: url.bucket.clone(),
            // Keeps the text: `Path::from` would encode spaces and umlauts into the names of the
            // objects.
            prefix: Path::parse(&url.prefix).map_err(|e| failed("configure", &shown, e.into()))?,
            patience: *patience,
            compares: Arc::default(),
            shown,
        })
    }

    /// A store in the memory of this process.
    pub fn in_memory() -> Self {
        let memory = Arc::new(InMemory::new());
        Self {
            objects: memory.clone(),
            parts: memory,
            requests: None,
            bucket: "memory".to_owned(),
            prefix: Path::default(),
            patience: Duration::ZERO,
            compares: Arc::new(OnceCell::new_with(Some(true))),
            shown: "memory".to_owned(),
        }
    }

    /// Creates a missing bucket if the settings permit it.
    ///
    /// # Errors
    /// [`StoreError`] when the bucket is missing afterwards.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        match &self.requests {
            Some(requests) => requests.prepare_bucket().await,
            None => Ok(()),
        }
    }

    /// Whether the server refuses a body whose SHA-256 differs from the signed one. The test runs
    /// once.
    ///
    /// # Errors
    /// [`StoreError`] when the test fails.
    pub async fn compares_checksums(&self) -> Result<bool, StoreError> {
        let Some(requests) = &self.requests else { return Ok(true) };
        let path = self.path(&ObjectName::checksum_probe());
        let passes = |error: &StoreError| error.kind.may_pass();
        let ask = || self.in_bucket(|| requests.takes_altered_body(&path));
        let takes = || persist(self.patience, &path, passes, ask);
        let compares = self.compares.get_or_try_init(async || {
            let takes_it = takes().await?;
            self.remove(&ObjectName::checksum_probe()).await?;
            if takes_it {
                tracing::warn!(
                    store = self.shown,
                    "the server does not compare checksums: each artifact is read back"
                );
            }
            Ok(!takes_it)
        });
        compares.await.copied()
    }

    /// Repeats a request after a missing bucket was created.
    async fn in_bucket<T, F>(&self, ask: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        match (ask().await, &self.requests) {
            (Err(error), Some(requests))
                if error.kind == StoreErrorKind::NoBucket && requests.creates() =>
            {
                requests.prepare_bucket().await?;
                ask().await
            }
            (answer, _) => answer,
        }
    }

    /// Adds the reason to a refusal, if the clocks are the reason.
    async fn explain(&self, error: StoreError) -> StoreError {
        let Some(requests) = &self.requests else { return error };
        match requests.clock_skew().await {
            Some(skew) => StoreError { source: Some(skew.into()), ..error },
            None => error,
        }
    }

    fn path(&self, name: &impl ToString) -> Path {
        let name = Path::from(name.to_string());
        self.prefix.parts().chain(name.parts()).collect()
    }

    fn shown(&self, name: &impl ToString) -> String {
        format!("{}/{}", self.shown, name.to_string())
    }

    /// The object name of a path, if the path is in this store's folder.
    fn name(&self, path: &Path) -> Option<ObjectName> {
        let parts = path.prefix_match(&self.prefix)?;
        let name = parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
        Some(ObjectName(name))
    }

    /// Unfinished uploads of this store in a folder; other programs may use the same bucket.
    async fn uploads(
        &self,
        folder: &Folder,
        begun_before: Option<Timestamp>,
    ) -> Result<Vec<(AttemptKey, Path, MultipartId)>, StoreError> {
        let Some(requests) = &self.requests else { return Ok(Vec::new()) };
        let within = self.path(&folder.0);
        let passes = |error: &StoreError| error.kind == StoreErrorKind::Unavailable;
        let ask = || requests.unfinished(&within, begun_before);
        let uploads = persist(self.patience, &within, passes, ask).await?;
        let of_ours = uploads.into_iter().filter_map(|(path, upload)| {
            let kind = self.name(&path)?.kind()?;
            Some((kind.attempt().clone(), path, upload))
        });
        Ok(of_ours.collect())
    }

    fn found(&self, meta: &ObjectMeta) -> Option<StoredObject> {
        Some(StoredObject {
            name: self.name(&meta.location)?,
            size_bytes: meta.size,
            modified_at: Timestamp::from_second(meta.last_modified.timestamp()).ok()?,
        })
    }
}

/// The settings in environment variables. An empty variable counts as absent.
fn environment(variables: impl Iterator<Item = (OsString, OsString)>) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in variables {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
        if !name.starts_with("AWS_") || value.is_empty() {
            continue;
        }
        if let Ok(key) = name.to_ascii_lowercase().parse() {
            builder = builder.with_config(key, value);
        }
    }
    builder
}

fn client_options(settings: &BucketSettings) -> ClientOptions {
    ClientOptions::new()
        .with_timeout(settings.request)
        .with_connect_timeout(CONNECT_TIME_MAX)
        .with_allow_http(settings.url.allows_http())
}

/// The client builder with the settings of the environment. The environment may provide the
/// credentials, but must not change the checksums that prove the stored bytes.
fn client_builder(
    environment: AmazonS3Builder,
    settings: &BucketSettings,
    options: ClientOptions,
) -> AmazonS3Builder {
    let url = &settings.url;
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: usize::MAX,
        retry_timeout: settings.patience,
    };
    let builder = environment
        .with_bucket_name(&url.bucket)
        .with_region(&url.region)
        .with_endpoint(url.client_endpoint())
        .with_s3_express(false)
        .with_virtual_hosted_style_request(url.virtual_host)
        .with_skip_signature(false)
        .with_unsigned_payload(false)
        .with_checksum_algorithm(Checksum::SHA256)
        .with_disable_bulk_delete(true)
        .with_client_options(options)
        .with_retry(retry);
    match &settings.credentials_file {
        Some(file) => builder.with_credentials(Arc::new(CredentialsFile::new(file.clone()))),
        None => builder,
    }
}

/// Retries until the call succeeds, fails with a permanent error, or `patience` has elapsed. The
/// pauses differ by `object`, so that requests that failed together are not repeated together.
async fn persist<T, E: fmt::Display, F>(
    patience: Duration,
    object: &Path,
    passes: impl Fn(&E) -> bool,
    mut ask: impl FnMut() -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let (began, mut pause) = (Instant::now(), PAUSE_FIRST.mul_f64(spread(object)));
    loop {
        match ask().await {
            Err(error) if passes(&error) && began.elapsed() + pause < patience => {
                tracing::debug!(%error, "retrying a request to the store");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_LAST);
            }
            answer => return answer,
        }
    }
}

/// A factor from 0.75 to 1.25, derived from the name.
fn spread(object: &Path) -> f64 {
    let hash = Sha256::digest(object.as_ref());
    0.75 + f64::from(hash[0]) / 510.0
}

fn may_pass(error: &object_store::Error) -> bool {
    classify(error) == StoreErrorKind::Unavailable
}

#[async_trait]
impl Store for BucketStore {
    async fn create(
        &self,
        key: &ArtifactKey,
        expected_bytes: Option<u64>,
    ) -> Result<Box<dyn ArtifactSink>, StoreError> {
        let path = self.path(key);
        let shown = self.shown(key);
        match self.objects.head(&path).await {
            Err(object_store::Error::NotFound { .. }) => {}
            Ok(_) => return Err(StoreError::new(StoreErrorKind::Conflict, "create", shown)),
            Err(error) => return Err(failed("create", &shown, error)),
        }
        Ok(Box::new(BucketSink::new(
            self.objects.clone(),
            self.parts.clone(),
            path,
            shown,
            self.patience,
            expected_bytes,
            !self.compares_checksums().await?,
        )))
    }

    async fn open(&self, key: &ArtifactKey) -> Result<Box<dyn ArtifactSource>, StoreError> {
        let path = self.path(key);
        let shown = self.shown(key);
        let meta = self.objects.head(&path).await.map_err(|e| failed("open", &shown, e))?;
        Ok(Box::new(BucketSource::new(self.objects.clone(), path, meta.size, shown)))
    }

    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let path = self.path(name);
        let write = async || {
            let written = self.objects.put(&path, bytes.clone().into()).await;
            written.map(drop).map_err(|e| failed("write", &self.shown(name), e))
        };
        self.in_bucket(write).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        let failed = |error| failed("read", &self.shown(name), error);
        let path = self.path(name);
        let ask = async || match self.objects.get(&path).await {
            // Without its bucket, the state of an object is unknown.
            Err(error) if classify(&error) == StoreErrorKind::NotFound => Ok(None),
            other => other.map(Some).map_err(failed),
        };
        let Some(found) = self.in_bucket(ask).await? else { return Ok(None) };
        if found.meta.size > DOCUMENT_BYTES_MAX {
            return Err(StoreError::new(StoreErrorKind::Damaged, "read", self.shown(name)));
        }
        found.bytes().await.map(Some).map_err(failed)
    }

    async fn list(
        &self,
        folder: &Folder,
        after: Option<&ObjectName>,
    ) -> Result<Vec<StoredObject>, StoreError> {
        let within = self.path(&folder.0);
        let ask = async || {
            let objects = match after {
                Some(after) => self.objects.list_with_offset(Some(&within), &self.path(after)),
                None => self.objects.list(Some(&within)),
            };
            let listed = objects.take(LIST_MAX).try_collect::<Vec<_>>().await;
            listed.map_err(|e| failed("list", &self.shown(&folder.0), e))
        };
        let mut listed = self.in_bucket(ask).await?;
        listed.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        let mut found: Vec<_> = listed.iter().filter_map(|meta| self.found(meta)).collect();
        // The library strips the slash of a folder marker such as `logs/`; the same name would be
        // listed again.
        found.retain(|object| {
            !object.name.0.is_empty() && after.is_none_or(|after| object.name > *after)
        });
        Ok(found)
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        let path = self.path(name);
        // The library does not retry a removal without a reply.
        let removed = persist(self.patience, &path, may_pass, || self.objects.delete(&path)).await;
        match removed {
            Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(failed("remove", &self.shown(name), error)),
        }
    }

    async fn unfinished(&self, begun_before: Timestamp) -> Result<Vec<AttemptKey>, StoreError> {
        let uploads = self.uploads(&Folder::all(), Some(begun_before)).await?;
        let mut attempts: Vec<_> = uploads.into_iter().map(|(attempt, ..)| attempt).collect();
        attempts.dedup();
        Ok(attempts)
    }

    async fn remove_unfinished(
        &self,
        folder: &Folder,
        begun_before: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        for (_, path, upload) in self.uploads(folder, begun_before).await? {
            let abort = || self.parts.abort_multipart(&path, &upload);
            let aborted = persist(self.patience, &path, may_pass, abort).await;
            if let Err(error) = aborted
                && classify(&error) != StoreErrorKind::NotFound
            {
                return Err(failed(
                    "abort the upload of",
                    &format!("{}/{path}", self.shown),
                    error,
                ));
            }
        }
        Ok(())
    }

    async fn check(&self, scratch: &Scratch) -> Result<(), StoreError> {
        match probe(self, &scratch.probe()).await {
            Err(error) if error.kind == StoreErrorKind::Denied => Err(self.explain(error).await),
            checked => checked,
        }
    }

    fn bucket(&self) -> Option<BucketPlace> {
        Some(BucketPlace { bucket: self.bucket.clone(), folder: self.prefix.to_string() })
    }

    fn locate(&self, key: &ArtifactKey) -> String {
        self.shown(key)
    }
}

#[cfg(test)]
mod tests {
    use object_store::aws::AmazonS3ConfigKey::{
        AccessKeyId, Checksum, SkipSignature, Token, UnsignedPayload,
    };

    use super::*;

    #[test]
    fn an_empty_variable_of_the_environment_counts_as_absent() {
        let variables = [("AWS_SESSION_TOKEN", ""), ("AWS_ACCESS_KEY_ID", "AK"), ("OTHER", "x")];
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        let builder = environment(variables.into_iter());
        assert_eq!(builder.get_config_value(&Token), None);
        assert_eq!(builder.get_config_value(&AccessKeyId).as_deref(), Some("AK"));
    }

    #[test]
    fn the_environment_cannot_disable_checksums() {
        let settings = BucketSettings {
            url: BucketUrl::parse("s3://vault").unwrap(),
            credentials_file: None,
            create: false,
            request: Duration::from_secs(1),
            patience: Duration::from_secs(1),
        };
        let environment =
            AmazonS3Builder::new().with_skip_signature(true).with_unsigned_payload(true);
        let builder = client_builder(environment, &settings, client_options(&settings));
        for (key, expected) in
            [(SkipSignature, "false"), (UnsignedPayload, "false"), (Checksum, "sha256")]
        {
            assert_eq!(builder.get_config_value(&key).as_deref(), Some(expected), "{key:?}");
        }
    }
}
