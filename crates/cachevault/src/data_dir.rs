//! The data folder: who may use it, and the keys in it.
//!
//! Every file in it is private (0600), also in a folder that existed with other permissions.
//!
//! ```text
//! lock               held by the one process that uses the folder, as is the folder itself
//! first-start        there while a first start goes on
//! node-id            this node's id, stable over restarts
//! master.key         protects every other secret; 0600
//! credentials.json   the first project's key, for its owner; 0600
//! catalog.sqlite     what is known
//! backups/           the store
//! ```

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use cachevault_app::{LocalFolder, MasterKey, NewCredential};
use cachevault_domain::{Entropy, NodeId};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::private::{create_private_files, make_private, require_private};

/// A folder that no other process uses as long as this lives.
pub(crate) struct DataDir {
    path: PathBuf,
    _locks: Locks,
}

/// Both the file `lock` and the folder are locked: whoever removes the file does not let a second
/// process in.
struct Locks {
    _file: File,
    _folder: File,
}

/// What a client needs to sign requests: `credentials.json`.
#[derive(Deserialize, Serialize)]
pub(crate) struct Credentials {
    pub(crate) endpoint: String,
    pub(crate) region: String,
    pub(crate) project_id: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
}

impl DataDir {
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.with_context(|| format!("make the data folder `{}`", path.display()))?;
        create_private_files();
        let data_dir = Self { path: path.to_owned(), _locks: Locks::take(path)? };
        data_dir.make_files_private()?;
        Ok(data_dir)
    }

    /// Corrects what an earlier version left readable. SQLite gives its log the permissions of the
    /// catalog.
    fn make_files_private(&self) -> anyhow::Result<()> {
        let names = ["lock", "node-id", "credentials.json"];
        let catalog = ["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"];
        for name in names.into_iter().chain(catalog) {
            let path = self.path.join(name);
            make_private(&path).with_context(|| format!("chmod 600 `{}`", path.display()))?;
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn catalog(&self) -> PathBuf {
        self.path.join("catalog.sqlite")
    }

    pub(crate) fn backups(&self) -> PathBuf {
        backups_in(&self.path)
    }

    /// The folders whose disks must keep a reserve: this one, and the spool where it is used.
    pub(crate) fn local_folders(&self) -> Vec<LocalFolder> {
        let data = LocalFolder { name: "data", path: self.path.clone() };
        let spool = LocalFolder { name: "spool", path: self.spool_path() };
        let folders = [data, spool].into_iter();
        folders.filter(|folder| folder.name == "data" || folder.path.exists()).collect()
    }

    fn spool_path(&self) -> PathBuf {
        self.path.join("spool")
    }

    /// Where throw-away servers of drills live.
    pub(crate) fn drills(&self) -> PathBuf {
        self.path.join("drills")
    }

    /// Where backups wait for a bucket that does not take them.
    pub(crate) fn spool(&self) -> anyhow::Result<PathBuf> {
        let path = self.spool_path();
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.with_context(|| format!("make `{}`", path.display()))?;
        Ok(path)
    }

    pub(crate) fn credentials(&self) -> PathBuf {
        self.path.join("credentials.json")
    }

    pub(crate) fn node_id(&self, entropy: &dyn Entropy) -> anyhow::Result<NodeId> {
        let path = self.path.join("node-id");
        match read_if_there(&path)? {
            Some(text) => text.trim().parse().with_context(|| format!("in `{}`", path.display())),
            None => {
                let id = NodeId::mint(entropy);
                write_private(&path, &format!("{id}\n"))?;
                Ok(id)
            }
        }
    }

    /// The master keys, the current one first; one is minted where there is neither a key nor a
    /// catalog that one would open.
    pub(crate) fn master_keys(&self, entropy: &dyn Entropy) -> anyhow::Result<Vec<MasterKey>> {
        let path = self.master_key_file();
        match self.find_master_keys()? {
            Some(keys) => Ok(keys),
            None if self.catalog().exists() => bail!(
                "`{}` is missing, and the secrets in `{}` open with nothing else; put it back",
                path.display(),
                self.catalog().display()
            ),
            None => {
                let key = MasterKey::mint(entropy);
                self.write_master_keys(std::slice::from_ref(&key))?;
                Ok(vec![key])
            }
        }
    }

    /// Writes the master keys down, the current one first.
    pub(crate) fn write_master_keys(&self, keys: &[MasterKey]) -> anyhow::Result<()> {
        let lines = keys.iter().map(|key| format!("{}\n", key.to_hex().expose_secret()));
        write_private(&self.master_key_file(), &lines.collect::<String>())
    }

    /// The master keys, the current one first, where there is a file of them.
    pub(crate) fn find_master_keys(&self) -> anyhow::Result<Option<Vec<MasterKey>>> {
        read_master_keys(&self.path)
    }

    pub(crate) fn master_key_file(&self) -> PathBuf {
        master_key_file(&self.path)
    }

    fn first_start_file(&self) -> PathBuf {
        self.path.join("first-start")
    }

    /// Whether a first start has begun here and was not completed.
    pub(crate) fn has_begun_first_start(&self) -> bool {
        self.first_start_file().exists()
    }

    /// Notes that a first start begins, before it writes anything else.
    pub(crate) fn begin_first_start(&self) -> anyhow::Result<()> {
        write_private(&self.first_start_file(), "")
    }

    /// Notes that a first start is complete.
    pub(crate) fn end_first_start(&self) -> anyhow::Result<()> {
        let path = self.first_start_file();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.with_context(|| format!("remove `{}`", path.display())),
        }
    }

    /// What an interrupted first start has already written down, if anything.
    pub(crate) fn find_credentials(&self) -> anyhow::Result<Option<Credentials>> {
        let path = self.credentials();
        let Some(text) = read_if_there(&path)? else { return Ok(None) };
        let credentials =
            serde_json::from_str(&text).with_context(|| format!("in `{}`", path.display()))?;
        Ok(Some(credentials))
    }

    pub(crate) fn write_credentials(&self, credentials: &Credentials) -> anyhow::Result<()> {
        credentials.write(&self.credentials())
    }
}

impl Locks {
    fn take(path: &Path) -> anyhow::Result<Self> {
        let name = path.join("lock");
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&name);
        let file = file.with_context(|| format!("open `{}`", name.display()))?;
        lock(&file, &name, path)?;
        let folder = File::open(path).with_context(|| format!("open `{}`", path.display()))?;
        lock(&folder, path, path)?;
        Ok(Self { _file: file, _folder: folder })
    }
}

/// Locks a file for the user of a data folder.
fn lock(file: &File, name: &Path, data_dir: &Path) -> anyhow::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => bail!(
            "another cachevault process uses `{}`; stop it, or choose another --data-dir",
            data_dir.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("lock `{}`", name.display()))
        }
    }
}

impl Credentials {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("in `{}`", path.display()))
    }

    /// Writes them where only the owner of the file may read them.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self).context("encode credentials")?;
        write_private(path, &format!("{text}\n"))
    }

    pub(crate) fn new(endpoint: String, region: String, credential: &NewCredential) -> Self {
        Self {
            endpoint,
            region,
            project_id: credential.project.to_string(),
            access_key: credential.access_key.to_string(),
            secret_key: credential.secret_key.expose_secret().to_owned(),
        }
    }

    pub(crate) fn credential(&self) -> anyhow::Result<NewCredential> {
        Ok(NewCredential {
            project: self.project_id.parse()?,
            access_key: self.access_key.parse()?,
            secret_key: SecretString::from(self.secret_key.clone()),
        })
    }
}

/// The store in a data folder, which its user need not have opened.
pub(crate) fn backups_in(data_dir: &Path) -> PathBuf {
    data_dir.join("backups")
}

/// The file of master keys in a data folder.
pub(crate) fn master_key_file(data_dir: &Path) -> PathBuf {
    data_dir.join("master.key")
}

/// The master keys in a data folder, which its user need not have opened: the current one first,
/// `None` where there is no file of them.
pub(crate) fn read_master_keys(data_dir: &Path) -> anyhow::Result<Option<Vec<MasterKey>>> {
    let path = master_key_file(data_dir);
    require_private(&path)?;
    let Some(text) = read_if_there(&path)? else { return Ok(None) };
    parse_master_keys(&text).map(Some).with_context(|| format!("in `{}`", path.display()))
}

fn parse_master_keys(text: &str) -> anyhow::Result<Vec<MasterKey>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let keys = lines.map(MasterKey::from_hex).collect::<Result<Vec<_>, _>>()?;
    ensure!(!keys.is_empty(), "there is no master key");
    Ok(keys)
}

fn read_if_there(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some).with_context(|| format!("read `{}`", path.display())),
    }
}

/// Writes a file that only its owner may read, whole or not at all, durably.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    // Of a bare name the parent is the empty path, which is no folder to open.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let write = || {
        let mut file = NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use cachevault_testkit::SeededEntropy;

    use super::*;

    #[test]
    fn a_folder_is_used_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(folder.path()).unwrap();
        let error = DataDir::open(folder.path()).err().unwrap();
        assert!(error.to_string().contains("another cachevault process"), "{error}");
        drop(first);
        DataDir::open(folder.path()).unwrap();
    }

    #[test]
    fn keys_and_ids_stay_and_only_their_owner_may_read_them() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(folder.path()).unwrap();
        let entropy = SeededEntropy::new(1);
        let id = data_dir.node_id(&entropy).unwrap();
        let [key] = &data_dir.master_keys(&entropy).unwrap()[..] else { panic!("one key") };
        assert_eq!(data_dir.node_id(&entropy).unwrap(), id);
        let again = data_dir.master_keys(&entropy).unwrap();
        assert_eq!(again[0].to_hex().expose_secret(), key.to_hex().expose_secret());
        let mode =
            std::fs::metadata(folder.path().join("master.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_lost_master_key_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(folder.path()).unwrap();
        std::fs::write(data_dir.catalog(), "").unwrap();
        let error = data_dir.master_keys(&SeededEntropy::new(1)).err().unwrap();
        assert!(error.to_string().contains("put it back"), "{error}");
    }
}
