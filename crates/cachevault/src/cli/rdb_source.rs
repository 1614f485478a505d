//! Sources of an RDB for the offline commands: a file, standard input, a stored backup.
//!
//! The offline commands need no service and write nothing.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use cachevault_domain::with_sources;
use cachevault_rdb::inspect::InspectError;
use cachevault_store::{StoreError, StoreErrorKind};

use super::rdb_name::escaped;
use super::stored_backup::{StoreOptions, StoredBackup};

const READ_BYTES: usize = 64 << 10;
const BACKUP_PREFIX: &str = "backup:";
const MAGIC_BYTES: usize = 4;
const ZSTD_MAGIC: [u8; MAGIC_BYTES] = [0x28, 0xB5, 0x2F, 0xFD];
const GZIP_MAGIC: [u8; 2] = [0x1F, 0x8B];
const AGE_MAGIC: &[u8; MAGIC_BYTES] = b"age-";

/// The failure of an offline command.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The source cannot be found, opened or read.
    Unreadable(String),
    /// The source is an incomplete or damaged RDB.
    Damaged(String),
    /// The frame is valid, but this build does not know the content's format.
    Opaque(String),
    /// Standard output is closed.
    Output(io::Error),
}

impl From<io::Error> for Trouble {
    /// Only writing returns bare errors. Errors of reading name their source.
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// A readable RDB. Standard input can be read only once.
#[derive(Debug)]
pub(crate) struct Source {
    /// The name that the user gave, escaped.
    name: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Stdin,
    File(PathBuf),
    Stored(Box<StoredBackup>),
}

impl Source {
    /// Finds the source for `argument`: `-`, `backup:ID`, or a path.
    pub(crate) fn find(argument: &OsStr, options: &StoreOptions) -> Result<Self, Trouble> {
        let name = escaped(argument.as_bytes());
        let id = argument.to_str().and_then(|text| text.strip_prefix(BACKUP_PREFIX));
        let place = match id {
            Some(id) => Place::Stored(Box::new(StoredBackup::find(id, options)?)),
            None if argument == "-" => Place::Stdin,
            None => Place::File(argument.into()),
        };
        Ok(Self { name, place })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Requires a source that can be read several times; pipes cannot.
    pub(crate) fn must_be_repeatable(&self) -> Result<(), Trouble> {
        let is_repeatable = match &self.place {
            Place::Stdin => false,
            Place::File(path) => fs::metadata(path).map_err(|e| self.unreadable(e))?.is_file(),
            Place::Stored(_) => true,
        };
        if is_repeatable {
            return Ok(());
        }
        Err(self.unreadable("expected a regular file, because it is read several times"))
    }

    /// The error of a source that cannot be read to its end.
    pub(crate) fn refused(&self, error: &InspectError) -> Trouble {
        if error.is_unsupported() { self.unreadable(error) } else { self.damaged(error) }
    }

    pub(crate) fn damaged(&self, what: impl std::fmt::Display) -> Trouble {
        Trouble::Damaged(format!("`{}` is damaged: {what}", self.name))
    }

    pub(crate) fn opaque(&self, what: impl std::fmt::Display) -> Trouble {
        Trouble::Opaque(format!("`{}`: {what}", self.name))
    }

    /// Reads the whole RDB, decompressed, in chunks.
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
                Err(error) => return Err(self.broken_off(error, taken)),
            }
        }
    }

    /// Converts an error of reading.
    fn broken_off(&self, error: io::Error, taken: u64) -> Trouble {
        let of_store = error.get_ref().and_then(|cause| cause.downcast_ref::<StoreError>());
        match of_store {
            Some(error) if error.kind == StoreErrorKind::Damaged => {
                self.damaged(format_args!("cannot {}", with_sources(error)))
            }
            Some(error) => self.unreadable(format_args!("cannot {}", with_sources(error))),
            // Only errors of the operating system have a number; the others come from zstd.
            None if error.raw_os_error().is_some() => self.unreadable(error),
            None => self
                .damaged(format_args!("compression error after {taken} bytes of the RDB: {error}")),
        }
    }

    fn unreadable(&self, what: impl std::fmt::Display) -> Trouble {
        Trouble::Unreadable(format!("cannot read `{}`: {what}", self.name))
    }

    /// Opens the RDB, decompressed. The reader ends with the whole source, so a stored backup is
    /// always compared with its manifest.
    fn open(&self) -> Result<Box<dyn Read + '_>, Trouble> {
        let mut raw: Box<dyn Read> = match &self.place {
            Place::Stdin => Box::new(io::stdin().lock()),
            Place::File(path) => Box::new(File::open(path).map_err(|e| self.unreadable(e))?),
            Place::Stored(backup) => Box::new(backup.open()?),
        };
        let mut magic = Vec::with_capacity(MAGIC_BYTES);
        let head = raw.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut magic);
        head.map_err(|e| self.broken_off(e, 0))?;
        let is_zstd = is_zstd(&magic);
        if magic.starts_with(&GZIP_MAGIC) {
            return Err(self.unreadable(
                "it is compressed with gzip; decompress it first: \
                 gzip -dc FILE | cachevault inspect -",
            ));
        }
        if magic == AGE_MAGIC {
            return Err(self.unreadable(
                "it is encrypted; where the service stored it, name it `backup:ID`, \
                 otherwise decrypt it first: age -d -i KEY FILE | cachevault inspect -",
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

/// Whether the magic is a zstd frame, or the skippable frame that some tools write first.
fn is_zstd(magic: &[u8]) -> bool {
    magic == ZSTD_MAGIC || matches!(magic, [0x50..=0x5F, 0x2A, 0x4D, 0x18])
}
