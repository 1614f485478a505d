//! Checks of a live store's behavior, which leave no objects behind.

use std::fmt;

use bytes::Bytes;
use cachevault_domain::{BackupId, Entropy, InstanceId, ProjectId, with_sources};

use crate::{
    ArtifactKey, AttemptKey, BackupKey, Folder, Manifest, ObjectKind, ObjectName, Store,
    StoreError, StoreErrorKind, StoredObject,
};

/// Longer than two parts of an upload, and no multiple of a power of two.
const LONG_BYTES: usize = (20 << 20) + 12_345;
/// Two parts of the maximum length, and one byte more.
const LONGEST_PARTS_BYTES: usize = (32 << 20) + 1;
const PIECE_BYTES: usize = 1 << 20;

/// A unique path in a store, for checks only.
#[derive(Debug, Clone)]
pub struct Scratch {
    backup: BackupKey,
}

impl Scratch {
    /// Generates a random path.
    pub fn mint(entropy: &dyn Entropy) -> Self {
        let backup = BackupKey {
            project: ProjectId::mint(entropy),
            instance: InstanceId::mint(entropy),
            backup: BackupId::mint(entropy),
        };
        Self { backup }
    }

    /// The object that [`Store::check`] writes.
    pub(crate) fn probe(&self) -> ObjectName {
        ObjectName::probe(self.backup.backup)
    }
}

/// The results of the checks, in their order.
#[derive(Debug, Default)]
pub struct Report {
    checks: Vec<(&'static str, Result<(), String>)>,
}

impl Report {
    /// Whether all checks passed.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|(_, outcome)| outcome.is_ok())
    }

    /// Fails a test with the errors of all checks.
    ///
    /// # Panics
    /// If a check failed.
    pub fn assert_passed(&self) {
        assert!(self.passed(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, outcome) in &self.checks {
            match outcome {
                Ok(()) => writeln!(f, "ok      {name}")?,
                Err(reason) => writeln!(f, "FAILED  {name}: {reason}")?,
            }
        }
        Ok(())
    }
}

/// Runs all checks in `scratch` and removes everything at the end.
pub async fn run(store: &dyn Store, scratch: &Scratch) -> Report {
    let suite = Suite { store, scratch };
    let mut report = Report::default();
    macro_rules! check {
        ($name:literal, $check:ident) => {
            let outcome = suite.$check().await;
            report.checks.push(($name, outcome.map_err(|failure| failure.0)));
        };
    }
    check!("objects can be written, read, listed and removed", check);
    check!("a short artifact reads back unchanged", short_artifact);
    check!("an empty artifact reads back unchanged", empty_artifact);
    check!("a long artifact is stored in parts and reads back unchanged", long_artifact);
    check!("parts of the maximum length are accepted, with a shorter last one", longest_parts);
    check!("an unfinished artifact is invisible and leaves no objects", unfinished_artifact);
    check!("an artifact is never overwritten", no_overwriting);
    check!("a manifest is committed once and never changed", manifests);
    check!("lists are sorted and complete, and continue behind any name", lists);
    check!("removals are complete and may be repeated", removing);
    check!("missing objects are reported as missing", missing);
    let cleaned = store.remove_backup(&scratch.backup).await;
    report.checks.push(("no objects remain", cleaned.map_err(|error| with_sources(&error))));
    report
}

/// The reason of a failed check.
struct Failure(String);

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(with_sources(&error))
    }
}

fn require(holds: bool, what: impl Into<String>) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure(what.into())) }
}

/// The names of this suite's own objects, without data keys.
fn named(found: Vec<StoredObject>) -> Vec<ObjectName> {
    let names = found.into_iter().map(|object| object.name);
    names.filter(|name| !matches!(name.kind(), Some(ObjectKind::DataKey(..)))).collect()
}

struct Suite<'a> {
    store: &'a dyn Store,
    scratch: &'a Scratch,
}

impl Suite<'_> {
    fn attempt(&self, number: u32) -> AttemptKey {
        self.scratch.backup.attempt(number)
    }

    fn manifest(&self, note: &str) -> Manifest {
        Manifest {
            version: crate::MANIFEST_VERSION,
            backup_id: self.scratch.backup.backup.to_string(),
            project_id: self.scratch.backup.project.to_string(),
            instance_id: self.scratch.backup.instance.to_string(),
            instance_name: "conformance".to_owned(),
            instance_address: Some("10.0.0.5:6379".to_owned()),
            dialect: Some("native".to_owned()),
            trigger: "manual".to_owned(),
            note: Some(note.to_owned()),
            window: Some("22:00-23:00".to_owned()),
            keep_until: Some(jiff::Timestamp::UNIX_EPOCH),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            started_at: jiff::Timestamp::UNIX_EPOCH,
            completed_at: jiff::Timestamp::UNIX_EPOCH,
            artifacts: Vec::new(),
        }
    }

    async fn write(
        &self,
        key: &ArtifactKey,
        bytes: &Bytes,
        expected_bytes: Option<u64>,
    ) -> Result<(), Failure> {
        let mut sink = self.store.create(key, expected_bytes).await?;
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            sink.write(rest.split_to(rest.len().min(PIECE_BYTES))).await?;
        }
        let stored = sink.finish().await?;
        let mut source = self.store.open(key).await?;
        while source.read().await?.is_some() {}
        let seen = source.seen();
        require(
            stored == seen,
            format!(
                "{stored:?} is the reported checksum, and {seen:?} the one \
                                         of reading"
            ),
        )
    }

    async fn read(&self, key: &ArtifactKey) -> Result<Vec<u8>, Failure> {
        let mut source = self.store.open(key).await?;
        let mut read = Vec::new();
        while let Some(piece) = source.read().await? {
            require(
                !piece.is_empty() && piece.len() <= PIECE_BYTES,
                "a piece is empty or too long",
            )?;
            read.extend_from_slice(&piece);
        }
        Ok(read)
    }

    async fn names(&self) -> Result<Vec<ObjectName>, Failure> {
        let found = self.store.list(&Folder::of(&self.scratch.backup), None).await?;
        Ok(named(found))
    }

    async fn check(&self) -> Result<(), Failure> {
        Ok(self.store.check(self.scratch).await?)
    }

    async fn artifact(&self, attempt: u32, bytes: &Bytes) -> Result<(), Failure> {
        let key = self.attempt(attempt).artifact(0);
        self.write(&key, bytes, Some(bytes.len() as u64)).await?;
        require(
            self.read(&key).await? == bytes[..],
            "the stored bytes differ from the written \
                                                      ones",
        )
    }

    async fn short_artifact(&self) -> Result<(), Failure> {
        self.artifact(1, &Bytes::from_static(b"short")).await
    }

    async fn empty_artifact(&self) -> Result<(), Failure> {
        self.artifact(2, &Bytes::new()).await
    }

    async fn long_artifact(&self) -> Result<(), Failure> {
        let bytes = (0..LONG_BYTES).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8);
        self.artifact(3, &bytes.collect()).await
    }

    async fn longest_parts(&self) -> Result<(), Failure> {
        let key = self.attempt(5).artifact(0);
        self.write(&key, &vec![7; LONGEST_PARTS_BYTES].into(), Some(u64::MAX)).await?;
        Ok(self.store.remove_attempt(&key.attempt).await?)
    }

    async fn unfinished_artifact(&self) -> Result<(), Failure> {
        for bytes in [1, LONG_BYTES] {
            let key = self.attempt(4).artifact(0);
            let mut sink = self.store.create(&key, None).await?;
            sink.write(vec![7; bytes].into()).await?;
            let found = self.store.open(&key).await.err().map(|error| error.kind);
            require(
                found == Some(StoreErrorKind::NotFound),
                "it is readable before it is finished",
            )?;
            sink.abort().await;
            let left = self.store.list(&Folder::of(&key.attempt), None).await?;
            let left = named(left);
            require(left.is_empty(), format!("{left:?} remain"))?;
        }
        Ok(())
    }

    async fn no_overwriting(&self) -> Result<(), Failure> {
        let again = self.store.create(&self.attempt(1).artifact(0), None).await;
        require(again.is_err(), "a second artifact is accepted under the same path")
    }

    async fn manifests(&self) -> Result<(), Failure> {
        let (key, manifest) = (self.attempt(1), self.manifest("first"));
        require(
            self.store.find_manifest(&key).await?.is_none(),
            "a manifest exists before the \
            commit",
        )?;
        for _ in 0..2 {
            self.store.commit(&key, &manifest).await?;
        }
        let found = self.store.find_manifest(&key).await?;
        require(
            found.as_ref() == Some(&manifest),
            "the stored manifest differs from the written \
                                                    one",
        )?;
        let other = self.store.commit(&key, &self.manifest("other")).await;
        let kind = other.err().map(|error| error.kind);
        require(kind == Some(StoreErrorKind::Conflict), "another manifest replaces it")?;
        self.store.retract(&key).await?;
        require(
            self.store.find_manifest(&key).await?.is_none(),
            "it exists after it was retracted",
        )?;
        Ok(self.store.commit(&key, &manifest).await?)
    }

    async fn lists(&self) -> Result<(), Failure> {
        let expected: Vec<_> = [
            self.attempt(1).manifest(),
            self.attempt(1).artifact(0).object(),
            self.attempt(2).artifact(0).object(),
            self.attempt(3).artifact(0).object(),
        ]
        .into();
        let found = self.names().await?;
        require(found == expected, format!("{found:?} are listed, expected {expected:?}"))?;
        for (index, name) in expected.iter().enumerate() {
            let folder = Folder::of(&self.scratch.backup);
            let rest = self.store.list(&folder, Some(name)).await?;
            let names = named(rest);
            require(
                names == expected[index + 1..],
                format!(
                    "the list behind {name} contains \
                {names:?}"
                ),
            )?;
        }
        let all = self.store.list(&Folder::of(&self.attempt(3)), None).await?;
        let artifact = self.attempt(3).artifact(0).object();
        let size =
            all.iter().find(|object| object.name == artifact).map(|object| object.size_bytes);
        // Encryption adds bytes.
        let is_right = size.is_some_and(|size| size >= LONG_BYTES as u64);
        require(is_right, format!("the listed size is {size:?}"))
    }

    async fn removing(&self) -> Result<(), Failure> {
        for _ in 0..2 {
            self.store.remove_attempt(&self.attempt(1)).await?;
        }
        let left = self.names().await?;
        require(
            left.len() == 2,
            format!("{left:?} remain after one of three attempts was removed"),
        )?;
        for _ in 0..2 {
            self.store.remove_backup(&self.scratch.backup).await?;
        }
        let left = self.names().await?;
        require(left.is_empty(), format!("{left:?} remain"))
    }

    async fn missing(&self) -> Result<(), Failure> {
        let key = self.attempt(9);
        let kind = self.store.open(&key.artifact(0)).await.err().map(|error| error.kind);
        require(kind == Some(StoreErrorKind::NotFound), format!("reading returns {kind:?}"))?;
        require(self.store.find_manifest(&key).await?.is_none(), "a manifest exists")
    }
}
