//! Where the service of a test keeps its backups.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bucket::Bucket;
use crate::service::{BINARY, Service, stored};

pub(crate) enum Place {
    Folder,
    Bucket(Bucket),
}

impl Place {
    pub(crate) fn bucket() -> Self {
        Self::Bucket(Bucket::start())
    }

    /// The settings that put the store here.
    pub(crate) fn settings(&self) -> Vec<String> {
        match self {
            Self::Folder => Vec::new(),
            Self::Bucket(bucket) => bucket.settings().into(),
        }
    }

    pub(crate) fn serve(&self, data_dir: &Path) -> Service {
        self.serve_by(Command::new(BINARY), data_dir)
    }

    pub(crate) fn serve_by(&self, command: Command, data_dir: &Path) -> Service {
        let settings = self.settings();
        let options: Vec<_> = settings.iter().map(String::as_str).collect();
        Service::start_by(command, data_dir, &options).expect("the service says that it is ready")
    }

    /// The file of the only object with `part` in its name.
    #[track_caller]
    pub(crate) fn file(&self, data_dir: &Path, part: &str) -> PathBuf {
        let files = match self {
            Self::Folder => stored(data_dir),
            Self::Bucket(bucket) => bucket.keys().iter().map(|key| key.into()).collect(),
        };
        let mut found = files.into_iter().filter(|name| name.to_string_lossy().contains(part));
        let (Some(name), None) = (found.next(), found.next()) else { panic!("not one {part}") };
        match self {
            Self::Folder => name,
            Self::Bucket(bucket) => bucket.server.file(&name.to_string_lossy()),
        }
    }
}

/// Makes of functions that take a [`Place`] tests that are done in each.
macro_rules! everywhere {
    ($($test:ident),+ $(,)?) => {
        mod in_a_folder {
            $(
                #[test]
                fn $test() {
                    super::$test(&crate::place::Place::Folder);
                }
            )+
        }

        mod in_a_bucket {
            $(
                #[test]
                fn $test() {
                    super::$test(&crate::place::Place::bucket());
                }
            )+
        }
    };
}

pub(crate) use everywhere;
