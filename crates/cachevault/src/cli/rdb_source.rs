//! Where the offline commands read an RDB from: a file, standard input, a stored backup.
//!
//! Nothing here needs the service, and nothing is written: a backup is found by the layout of the
//! store and its manifest.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cachevault_domain::{BackupId, ProjectId};
use cachevault_store::{BackupKey, Manifest};

use super::rdb_name::escaped;
use crate::config::default_data_dir;
use crate::data_dir;

const READ_BYTES: usize = 64 << 10;
const BACKUP_PREFIX: &str = "backup:";
const MAGIC_BYTES: usize = 4;
const ZSTD_MAGIC: [u8; MAGIC_BYTES] = [0x28, 0xB5, 0x2F, 0xFD];
const GZIP_MAGIC: [u8; 2] = [0x1F, 0x8B];

/// Why an offline command did not come to a good end.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The source cannot be found, opened or read.
    Unreadable(String),
    /// The source is no complete and unharmed RDB.
    Damaged(String),
    /// The source's frame is right, but what it holds is not known to this build.
    Opaque(String),
    /// Standard output takes no more.
    Output(io::Error),
}

impl From<io::Error> for Trouble {
    /// Only writing gives bare errors; those of reading name their source.
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// An RDB that can be read, if it is not standard input again and again.
#[derive(Debug)]
pub(crate) struct Source {
    /// As the user called it, fit to be shown.
    name: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Stdin,
    File(PathBuf),
}

impl Source {
    /// Finds what `argument` means: `-`, `backup:ID` or else a path.
    pub(crate) fn find(argument: &OsStr, data_dir: Option<&Path>) -> Result<Self, Trouble> {
        let name = escaped(argument.as_bytes());
        let id = argument.to_str().and_then(|text| text.strip_prefix(BACKUP_PREFIX));
        let place = match id {
            Some(id) => Place::File(find_artifact(id, data_dir)?),
            None if argument == "-" => Place::Stdin,
            None => Place::File(argument.into()),
        };
        Ok(Self { name, place })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Makes sure that it can be read several times, which pipes cannot.
    pub(crate) fn must_be_repeatable(&self) -> Result<(), Trouble> {
        let is_file = match &self.place {
            Place::Stdin => false,
            Place::File(path) => fs::metadata(path).map_err(|e| self.unreadable(e))?.is_file(),
        };
        if is_file {
            return Ok(());
        }
        Err(self.unreadable("it is no regular file, and has to be read several times"))
    }

    pub(crate) fn damaged(&self, what: impl std::fmt::Display) -> Trouble {
        Trouble::Damaged(format!("`{}` is damaged: {what}", self.name))
    }

    pub(crate) fn opaque(&self, what: impl std::fmt::Display) -> Trouble {
        Trouble::Opaque(format!("`{}`: {what}", self.name))
    }

    /// Reads from the beginning to the end and gives the RDB, decompressed, in pieces.
    pub(crate) fn read(
        &self,
        mut take: impl FnMut(&[u8]) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let mut reader = self.open()?;
        let mut buffer = vec![0; READ_BYTES];
        let mut taken: u64 = 0;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(len) => {
                    take(&buffer[..len])?;
                    taken += len as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Only the operating system's errors have a number; the others are zstd's.
                Err(error) if error.raw_os_error().is_some() => return Err(self.unreadable(error)),
                Err(error) => {
                    return Err(self.damaged(format_args!(
                        "after {taken} bytes of the RDB its compression breaks off: {error}"
                    )));
                }
            }
        }
    }

    fn unreadable(&self, what: impl std::fmt::Display) -> Trouble {
        Trouble::Unreadable(format!("`{}` cannot be read: {what}", self.name))
    }

    fn open(&self) -> Result<Box<dyn Read>, Trouble> {
        let mut raw: Box<dyn Read> = match &self.place {
            Place::Stdin => Box::new(io::stdin().lock()),
            Place::File(path) => Box::new(File::open(path).map_err(|e| self.unreadable(e))?),
        };
        let mut magic = Vec::with_capacity(MAGIC_BYTES);
        let head = raw.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut magic);
        head.map_err(|e| self.unreadable(e))?;
        let is_zstd = is_zstd(&magic);
        if magic.starts_with(&GZIP_MAGIC) {
            return Err(self.unreadable(
                "it is compressed with gzip; decompress it first: \
                 gzip -dc FILE | cachevault inspect -",
            ));
        }
        let whole = io::Cursor::new(magic).chain(raw);
        if !is_zstd {
            return Ok(Box::new(whole));
        }
        let buffered = BufReader::with_capacity(READ_BYTES, whole);
        let decoder = zstd::stream::read::Decoder::with_buffer(buffered);
        Ok(Box::new(decoder.map_err(|e| self.unreadable(e))?))
    }
}

/// A zstd frame, or the skippable frame that some tools put before it.
fn is_zstd(magic: &[u8]) -> bool {
    magic == ZSTD_MAGIC || matches!(magic, [0x50..=0x5F, 0x2A, 0x4D, 0x18])
}

/// The only artifact of a stored backup.
fn find_artifact(id: &str, data_dir: Option<&Path>) -> Result<PathBuf, Trouble> {
    let id: BackupId = id.parse().map_err(|e| Trouble::Unreadable(format!("{e}")))?;
    let data_dir = match data_dir {
        Some(path) => path.to_owned(),
        None => default_data_dir().map_err(|e| Trouble::Unreadable(format!("{e:#}")))?,
    };
    let root = data_dir::backups_in(&data_dir);
    let Some(backup) = find_backup(id, &root)? else {
        return Err(Trouble::Unreadable(format!(
            "no backup {id} is stored in `{}`; say where with --data-dir",
            root.display()
        )));
    };
    let Some((attempt, manifest)) = newest_manifest(&backup)? else {
        return Err(Trouble::Unreadable(format!(
            "backup {id} has no manifest: it is not finished, or it failed"
        )));
    };
    let [artifact] = &manifest.artifacts[..] else {
        return Err(Trouble::Unreadable(format!(
            "backup {id} has {} artifacts; name one of the files in `{}`",
            manifest.artifacts.len(),
            attempt.display()
        )));
    };
    // The manifest lies in a folder that others may write to: it must not lead anywhere else.
    if Path::new(&artifact.file_name).file_name() != Some(OsStr::new(&artifact.file_name)) {
        return Err(Trouble::Unreadable(format!(
            "the manifest of backup {id} names `{}`, which is no file beside it",
            escaped(artifact.file_name.as_bytes())
        )));
    }
    let path = attempt.join(&artifact.file_name);
    let found = fs::metadata(&path).map_err(|e| cannot("read", &path, e))?.len();
    if found != artifact.stored_bytes {
        return Err(Trouble::Damaged(format!(
            "`{}` is damaged: it has {found} bytes, and {} by its manifest",
            path.display(),
            artifact.stored_bytes
        )));
    }
    Ok(path)
}

/// The folder of a backup; which project and instance it belongs to is not known.
fn find_backup(id: BackupId, root: &Path) -> Result<Option<PathBuf>, Trouble> {
    for project in named_folders(root)? {
        let Ok(project_id) = project.parse::<ProjectId>() else { continue };
        for instance in named_folders(&root.join(&project))? {
            let Ok(instance) = instance.parse() else { continue };
            let key = BackupKey { project: project_id.clone(), instance, backup: id };
            let path = root.join(key.to_string());
            if path.is_dir() {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

/// The manifest of the latest attempt that has one, and its folder.
fn newest_manifest(backup: &Path) -> Result<Option<(PathBuf, Manifest)>, Trouble> {
    let mut attempts = named_folders(backup)?;
    // Numbers are padded with zeros; a longer one is a larger one.
    attempts.sort_by_key(|name| std::cmp::Reverse((name.len(), name.clone())));
    for attempt in attempts.iter().filter(|name| name.starts_with("attempt-")) {
        let folder = backup.join(attempt);
        let path = folder.join("manifest.json");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read.map_err(|e| cannot("read", &path, e))?,
        };
        let manifest = Manifest::decode(&bytes).map_err(|e| cannot("use", &path, e))?;
        return Ok(Some((folder, manifest)));
    }
    Ok(None)
}

/// The names in a folder, as far as they are text.
fn named_folders(path: &Path) -> Result<Vec<String>, Trouble> {
    let list = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    };
    list().map_err(|e| cannot("list", path, e))
}

fn cannot(action: &str, path: &Path, error: impl std::fmt::Display) -> Trouble {
    Trouble::Unreadable(format!("cannot {action} `{}`: {error}", path.display()))
}
