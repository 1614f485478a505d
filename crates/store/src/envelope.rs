//! Encrypts artifacts before they are stored, and decrypts them on reading.
//!
//! Every attempt has its own data key, an X25519 identity of the age format
//! (`age-encryption.org/v1`): artifact and manifest are age files, which `age -d` also opens. The
//! data key is stored beside the artifact, sealed with the master key, in a document named after
//! the master key. A new master key adds such a document and changes no artifact.
//!
//! Unencrypted objects stay readable: the first bytes of a file show whether it is encrypted.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use age::stream::{StreamReader, StreamWriter};
use age::x25519::Identity;
use age::{DecryptError, Decryptor, Encryptor};
use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf, Bytes};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::{
    ArtifactKey, ArtifactSink, ArtifactSource, AttemptKey, BucketPlace, Folder, ObjectKind,
    ObjectName, Scratch, Store, StoreError, StoreErrorKind, Stored, StoredObject,
};

/// The first bytes of an age file.
const AGE_MAGIC: &[u8] = b"age-encryption.org/v1\n";
const KEY_VERSION: u32 = 1;
/// Maximum number of reads of a data key that is being re-encrypted.
const LOOKS_MAX: u32 = 3;
const PIECE_BYTES: usize = 1 << 20;
/// Size of an encrypted chunk of age, including its tag.
const CHUNK_BYTES: usize = (64 << 10) + 16;
/// Maximum number of queued pieces on either side of the decryption.
const PIECES_MAX: usize = 2;

/// Seals and unseals the data keys of backups with master keys.
pub trait KeyRing: Send + Sync + fmt::Debug {
    /// The id of the current master key: 16 hexadecimal digits.
    fn current(&self) -> &str;

    /// Seals a secret for its owner with the current master key.
    fn seal(&self, owner: &str, secret: &SecretString) -> Vec<u8>;

    /// Unseals a secret that the master key `id` has sealed for this owner.
    ///
    /// # Errors
    /// [`KeyError`] when the master key is missing, or the secret cannot be unsealed.
    fn open(&self, id: &str, owner: &str, sealed: &[u8]) -> Result<SecretString, KeyError>;
}

/// The data key of a backup is not available.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The master key that sealed the data key is missing.
    #[error(
        "the backup's key is sealed with the master key {id}, which this service does not have; \
         add it to the file of master keys"
    )]
    UnknownMasterKey {
        /// The id of the master key.
        id: String,
    },
    /// The data key cannot be unsealed with the master key that sealed it.
    #[error("the backup's key does not open with the master key that it names: it was altered")]
    Altered,
    /// The data key is missing.
    #[error("the backup is encrypted, and its key is missing from the store")]
    Missing,
    /// This build cannot read the document.
    #[error("the document of the backup's key cannot be read: {0}")]
    Unreadable(String),
}

impl KeyError {
    fn on(self, object: &impl ToString) -> StoreError {
        StoreError {
            kind: StoreErrorKind::NoKey,
            action: "decrypt",
            object: object.to_string(),
            source: Some(self.into()),
        }
    }
}

/// The document of a sealed data key.
#[derive(Debug, Serialize, Deserialize)]
struct SealedKey {
    version: u32,
    /// The public half, for users of the age tools.
    recipient: String,
    master_key: String,
    sealed: String,
}

/// Encrypts new objects of another store, if configured, and decrypts existing ones.
#[derive(Debug)]
pub struct SealedStore {
    inner: Arc<dyn Store>,
    ring: Arc<dyn KeyRing>,
    encrypts: bool,
}

impl SealedStore {
    /// Creates a store in front of `inner`. Without `encrypts`, new artifacts are not encrypted.
    pub fn new(inner: Arc<dyn Store>, ring: Arc<dyn KeyRing>, encrypts: bool) -> Self {
        Self { inner, ring, encrypts }
    }

    /// The data key of an attempt; `None` if the attempt has no encrypted object.
    ///
    /// # Errors
    /// [`KeyError::Missing`] when an artifact is encrypted and the data key is missing: a new data
    /// key would create a backup that is unreadable.
    async fn key_of(&self, attempt: &AttemptKey) -> Result<Option<Identity>, StoreError> {
        if let Some((name, _, secret)) = self.find_key(attempt).await? {
            return parse(&secret).map(Some).map_err(|error| error.on(&name));
        }
        for artifact in self.artifacts(attempt).await? {
            let first = self.inner.open(&artifact).await?.read().await?;
            if is_encrypted(first.as_deref()) {
                return Err(KeyError::Missing.on(&artifact));
            }
        }
        Ok(None)
    }

    /// The data key of an attempt with an encrypted object.
    async fn known_key(&self, attempt: &AttemptKey) -> Result<Identity, StoreError> {
        let found = self.find_key(attempt).await?;
        let (name, _, secret) = found.ok_or_else(|| KeyError::Missing.on(attempt))?;
        parse(&secret).map_err(|error| error.on(&name))
    }

    /// Creates the data key of an attempt that has none.
    async fn mint_key(&self, attempt: &AttemptKey) -> Result<Identity, StoreError> {
        let identity = Identity::generate();
        let secret = identity.to_string().expose_secret().to_owned().into();
        self.put_key(attempt, &identity.to_public().to_string(), &secret).await?;
        Ok(identity)
    }

    async fn put_key(
        &self,
        attempt: &AttemptKey,
        recipient: &str,
        secret: &SecretString,
    ) -> Result<(), StoreError> {
        let name = attempt.data_key(self.ring.current());
        let document = SealedKey {
            version: KEY_VERSION,
            recipient: recipient.to_owned(),
            master_key: self.ring.current().to_owned(),
            sealed: BASE64_STANDARD.encode(self.ring.seal(&owner(attempt), secret)),
        };
        let encoded = serde_json::to_vec_pretty(&document);
        let encoded = encoded.map_err(|e| StoreError::io("encode", &name, e.into()))?;
        let bytes = Bytes::from(encoded);
        self.inner.put(&name, bytes.clone()).await?;
        // The attempt is unreadable without its data key.
        match self.inner.get(&name).await? {
            Some(stored) if stored == bytes => Ok(()),
            _ => Err(StoreError::new(StoreErrorKind::Damaged, "read back", name)),
        }
    }

    /// The attempt's data key and the id of the master key in its document.
    async fn find_key(
        &self,
        attempt: &AttemptKey,
    ) -> Result<Option<(ObjectName, SealedKey, SecretString)>, StoreError> {
        for _ in 0..LOOKS_MAX {
            let current = attempt.data_key(self.ring.current());
            let mut names = vec![current.clone()];
            // The document of the current master key is missing: searches for that of an earlier
            // one.
            names
                .extend(self.key_names(attempt).await?.into_iter().filter(|name| *name != current));
            let (mut failed, mut is_gone) = (None, false);
            for name in names {
                let Some(bytes) = self.inner.get(&name).await? else {
                    is_gone |= name != current;
                    continue;
                };
                match self.open_key(attempt, &bytes) {
                    Ok((document, secret)) => return Ok(Some((name, document, secret))),
                    Err(error) => failed = Some(error.on(&name)),
                }
            }
            // The document has a new name if the data key was re-encrypted in the meantime.
            if !is_gone {
                return failed.map_or(Ok(None), Err);
            }
        }
        Err(KeyError::Missing.on(attempt))
    }

    async fn key_names(&self, attempt: &AttemptKey) -> Result<Vec<ObjectName>, StoreError> {
        let found = self.inner.list(&Folder::of(attempt), None).await?;
        let is_key = |name: &ObjectName| matches!(name.kind(), Some(ObjectKind::DataKey(..)));
        Ok(found.into_iter().map(|object| object.name).filter(is_key).collect())
    }

    async fn artifacts(&self, attempt: &AttemptKey) -> Result<Vec<ArtifactKey>, StoreError> {
        let found = self.inner.list(&Folder::of(attempt), None).await?;
        let artifact = |object: StoredObject| match object.name.kind() {
            Some(ObjectKind::Artifact(artifact)) => Some(artifact),
            _ => None,
        };
        Ok(found.into_iter().filter_map(artifact).collect())
    }

    fn open_key(
        &self,
        attempt: &AttemptKey,
        bytes: &[u8],
    ) -> Result<(SealedKey, SecretString), KeyError> {
        let unreadable = |error: &dyn fmt::Display| KeyError::Unreadable(error.to_string());
        let document: SealedKey = serde_json::from_slice(bytes).map_err(|e| unreadable(&e))?;
        if document.version > KEY_VERSION {
            return Err(unreadable(&format_args!("it has version {}", document.version)));
        }
        let sealed = BASE64_STANDARD.decode(&document.sealed).map_err(|e| unreadable(&e))?;
        let secret = self.ring.open(&document.master_key, &owner(attempt), &sealed)?;
        Ok((document, secret))
    }
}

/// Whether an object with these first bytes is encrypted.
fn is_encrypted(first: Option<&[u8]>) -> bool {
    first.is_some_and(|first| first.starts_with(AGE_MAGIC))
}

fn parse(secret: &SecretString) -> Result<Identity, KeyError> {
    Identity::from_str(secret.expose_secret()).map_err(|e| KeyError::Unreadable(e.to_owned()))
}

fn encryptor<W: Write>(identity: &Identity, output: W) -> io::Result<StreamWriter<W>> {
    let recipient = identity.to_public();
    let encryptor = Encryptor::with_recipients(std::iter::once(&recipient as _));
    encryptor.map_err(io::Error::other)?.wrap_output(output)
}

fn decryptor<R: Read>(input: R, identity: &Identity) -> io::Result<StreamReader<R>> {
    let decryptor = Decryptor::new(input).map_err(io::Error::other)?;
    decryptor.decrypt(std::iter::once(identity as _)).map_err(|error| match error {
        // age's own message suggests passing another key, which is impossible here.
        DecryptError::NoMatchingKeys => {
            io::Error::other("it is encrypted with another key than the one of its backup")
        }
        error => io::Error::other(error),
    })
}

fn undecryptable(object: &impl ToString, error: io::Error) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Damaged,
        action: "decrypt",
        object: object.to_string(),
        source: Some(error.into()),
    }
}

/// The owner of a data key, which prevents its use for another backup.
fn owner(attempt: &AttemptKey) -> String {
    format!("backup/{attempt}/data-key")
}

#[async_trait]
impl Store for SealedStore {
    async fn check(&self, scratch: &Scratch) -> Result<(), StoreError> {
        self.inner.check(scratch).await
    }

    async fn create(
        &self,
        key: &ArtifactKey,
        expected_bytes: Option<u64>,
    ) -> Result<Box<dyn ArtifactSink>, StoreError> {
        let identity = match self.key_of(&key.attempt).await? {
            Some(identity) => identity,
            None if self.encrypts => self.mint_key(&key.attempt).await?,
            None => return self.inner.create(key, expected_bytes).await,
        };
        let sink = self.inner.create(key, expected_bytes).await?;
        let begun = {
            let encrypted = Collector::default();
            let writer = encryptor(&identity, encrypted.clone());
            writer.map(|writer| (writer, encrypted))
        };
        match begun {
            Ok((writer, encrypted)) => Ok(Box::new(SealedSink {
                inner: sink,
                writer: Some(writer),
                encrypted,
                object: key.to_string(),
            })),
            Err(error) => {
                sink.abort().await;
                Err(StoreError::io("encrypt", key, error))
            }
        }
    }

    async fn open(&self, key: &ArtifactKey) -> Result<Box<dyn ArtifactSource>, StoreError> {
        let mut source = self.inner.open(key).await?;
        let first = source.read().await?;
        if !is_encrypted(first.as_deref()) {
            return Ok(Box::new(PlainSource { inner: source, first }));
        }
        let identity = self.known_key(&key.attempt).await?;
        Ok(Box::new(SealedSource::new(source, first, identity, key.to_string())))
    }

    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        // Encrypted, because a manifest contains names of Redis keys.
        let identity = match name.kind() {
            Some(ObjectKind::Manifest(attempt)) => self.key_of(&attempt).await?,
            _ => None,
        };
        let Some(identity) = identity else { return self.inner.put(name, bytes).await };
        let encrypt = || {
            let mut writer = encryptor(&identity, Vec::new())?;
            writer.write_all(&bytes)?;
            writer.finish()
        };
        let encrypted = encrypt().map_err(|error| StoreError::io("encrypt", name, error))?;
        self.inner.put(name, encrypted.into()).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        let found = self.inner.get(name).await?;
        let (Some(bytes), Some(kind)) = (&found, name.kind()) else { return Ok(found) };
        if !is_encrypted(Some(bytes)) {
            return Ok(found);
        }
        let identity = self.known_key(kind.attempt()).await?;
        let mut clear = Vec::new();
        let read = decryptor(&bytes[..], &identity).and_then(|mut r| r.read_to_end(&mut clear));
        match read {
            Ok(_) => Ok(Some(clear.into())),
            Err(error) => Err(undecryptable(name, error)),
        }
    }

    async fn list(
        &self,
        folder: &Folder,
        after: Option<&ObjectName>,
    ) -> Result<Vec<StoredObject>, StoreError> {
        self.inner.list(folder, after).await
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.inner.remove(name).await
    }

    async fn unfinished(&self, begun_before: Timestamp) -> Result<Vec<AttemptKey>, StoreError> {
        self.inner.unfinished(begun_before).await
    }

    async fn remove_unfinished(
        &self,
        folder: &Folder,
        begun_before: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        self.inner.remove_unfinished(folder, begun_before).await
    }

    fn bucket(&self) -> Option<BucketPlace> {
        self.inner.bucket()
    }

    fn locate(&self, key: &ArtifactKey) -> String {
        self.inner.locate(key)
    }

    async fn rewrap(&self, attempt: &AttemptKey) -> Result<bool, StoreError> {
        let current = attempt.data_key(self.ring.current());
        let names = self.key_names(attempt).await?;
        if names.iter().all(|name| *name == current) {
            return Ok(false);
        }
        let Some((_, document, secret)) = self.find_key(attempt).await? else {
            return Ok(false);
        };
        if document.master_key != self.ring.current() {
            self.put_key(attempt, &document.recipient, &secret).await?;
        }
        // The other documents are removed only after this one is proven to open.
        let bytes = self.inner.get(&current).await?;
        let bytes = bytes.ok_or_else(|| KeyError::Missing.on(&current))?;
        let (_, read) = self.open_key(attempt, &bytes).map_err(|error| error.on(&current))?;
        if read.expose_secret() != secret.expose_secret() {
            return Err(KeyError::Altered.on(&current));
        }
        for name in names.iter().filter(|name| **name != current) {
            self.inner.remove(name).await?;
        }
        Ok(true)
    }
}

/// The output of the encryption, until it is passed on.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<u8>>>);

impl Collector {
    /// Takes the current output and reserves the same capacity and a chunk more: pieces have
    /// similar sizes, and a growing buffer would be moved repeatedly and take twice the memory.
    fn take(&self) -> Bytes {
        let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = Vec::with_capacity(gathered.len() + CHUNK_BYTES);
        std::mem::replace(&mut *gathered, room).into()
    }
}

impl Write for Collector {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct SealedSink {
    inner: Box<dyn ArtifactSink>,
    /// Absent while a blocking thread uses it, and after a failure.
    writer: Option<StreamWriter<Collector>>,
    encrypted: Collector,
    object: String,
}

impl SealedSink {
    /// Encrypts on a blocking thread; `work` returns the writer if it continues.
    async fn encrypt(
        &mut self,
        work: impl FnOnce(StreamWriter<Collector>) -> io::Result<Option<StreamWriter<Collector>>>
        + Send
        + 'static,
    ) -> Result<Bytes, StoreError> {
        let broken = |error| StoreError::io("encrypt", &self.object, error);
        let writer = self.writer.take();
        let writer = writer.ok_or_else(|| broken(io::ErrorKind::BrokenPipe.into()))?;
        let encrypted = tokio::task::spawn_blocking(move || work(writer)).await;
        let writer = encrypted.unwrap_or_else(|gone| Err(io::Error::other(gone)));
        self.writer = writer.map_err(broken)?;
        Ok(self.encrypted.take())
    }
}

#[async_trait]
impl ArtifactSink for SealedSink {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let work = move |mut writer: StreamWriter<Collector>| {
            writer.write_all(&bytes)?;
            Ok(Some(writer))
        };
        let encrypted = self.encrypt(work).await?;
        if encrypted.is_empty() { Ok(()) } else { self.inner.write(encrypted).await }
    }

    async fn finish(mut self: Box<Self>) -> Result<Stored, StoreError> {
        let work = |writer: StreamWriter<Collector>| writer.finish().map(|_| None);
        let written = match self.encrypt(work).await {
            Ok(last) => self.inner.write(last).await,
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => self.inner.finish().await,
            Err(error) => {
                self.inner.abort().await;
                Err(error)
            }
        }
    }

    async fn abort(self: Box<Self>) {
        self.inner.abort().await;
    }
}

/// An artifact without encryption.
struct PlainSource {
    inner: Box<dyn ArtifactSource>,
    first: Option<Bytes>,
}

#[async_trait]
impl ArtifactSource for PlainSource {
    async fn read(&mut self) -> Result<Option<Bytes>, StoreError> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => self.inner.read().await,
        }
    }

    fn seen(&self) -> Stored {
        self.inner.seen()
    }
}

/// Decrypts on a separate thread between two short queues.
struct SealedSource {
    pieces: mpsc::Receiver<Result<Bytes, StoreError>>,
    /// The checksum of the stored object, complete after the end of `pieces`.
    seen: Arc<Mutex<Stored>>,
    _tasks: JoinSet<()>,
}

impl SealedSource {
    fn new(
        mut source: Box<dyn ArtifactSource>,
        first: Option<Bytes>,
        identity: Identity,
        object: String,
    ) -> Self {
        let (encrypted, stored) = mpsc::channel(PIECES_MAX);
        let (decrypted, pieces) = mpsc::channel(PIECES_MAX);
        let seen = Arc::new(Mutex::new(source.seen()));
        let mut tasks = JoinSet::new();
        let (failed, told) = (decrypted.clone(), Arc::clone(&seen));
        tasks.spawn(async move {
            let mut next = Ok(first);
            loop {
                let sent = match next {
                    Ok(Some(piece)) => encrypted.send(piece).await.is_ok(),
                    Ok(None) => false,
                    Err(error) => {
                        // An absent receiver needs no error.
                        let _ = failed.send(Err(error)).await;
                        false
                    }
                };
                if !sent {
                    break;
                }
                next = source.read().await;
                *told.lock().unwrap_or_else(PoisonError::into_inner) = source.seen();
            }
        });
        tasks.spawn_blocking(move || {
            if let Err(error) =
                decrypt(Pieces { stored, piece: Bytes::new() }, &identity, &decrypted)
            {
                let _ = decrypted.blocking_send(Err(undecryptable(&object, error)));
            }
        });
        Self { pieces, seen, _tasks: tasks }
    }
}

#[async_trait]
impl ArtifactSource for SealedSource {
    async fn read(&mut self) -> Result<Option<Bytes>, StoreError> {
        self.pieces.recv().await.transpose()
    }

    fn seen(&self) -> Stored {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn decrypt(
    mut stored: Pieces,
    identity: &Identity,
    decrypted: &mpsc::Sender<Result<Bytes, StoreError>>,
) -> io::Result<()> {
    let mut reader = decryptor(&mut stored, identity)?;
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        reader.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            break;
        }
        if decrypted.blocking_send(Ok(piece.into())).is_err() {
            return Ok(());
        }
    }
    // Reads the rest, so that the checksum covers the complete stored object.
    io::copy(&mut stored, &mut io::sink()).map(drop)
}

/// Reads stored pieces like a file.
struct Pieces {
    stored: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.stored.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let len = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..len]);
        Ok(len)
    }
}
