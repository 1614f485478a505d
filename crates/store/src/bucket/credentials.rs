//! Credentials from a file that may change during operation.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

/// The section in use.
const PROFILE: &str = "[default]";
const FILE_BYTES_MAX: u64 = 64 << 10;
/// The file may be read while it is written: its size and time must stay unchanged for this time,
/// and it is read at most this many times.
const SETTLE_TIME: Duration = Duration::from_millis(50);
const LOOKS_MAX: u32 = 20;

/// Reads AWS' shared credentials file, and reads it again after every change.
#[derive(Debug)]
pub(super) struct CredentialsFile {
    path: PathBuf,
    read: Mutex<Option<(SystemTime, Arc<AwsCredential>)>>,
}

impl CredentialsFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::new(None) }
    }

    fn read(&self) -> MutexGuard<'_, Option<(SystemTime, Arc<AwsCredential>)>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CredentialProvider for CredentialsFile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let (_, modified) = stamp(&self.path)?;
        if let Some((at, credential)) = &*self.read()
            && *at == modified
        {
            return Ok(Arc::clone(credential));
        }
        let (modified, credential) = load(&self.path).await?;
        let credential = Arc::new(credential);
        *self.read() = Some((modified, Arc::clone(&credential)));
        Ok(credential)
    }
}

/// The file's size and modification time.
fn stamp(path: &Path) -> object_store::Result<(u64, SystemTime)> {
    let metadata = std::fs::metadata(path);
    let stamp = metadata.and_then(|metadata| Ok((metadata.len(), metadata.modified()?)));
    stamp.map_err(|error| unreadable(path, error.into()))
}

/// Reads the file when its writer has finished; also returns its modification time.
async fn load(path: &Path) -> object_store::Result<(SystemTime, AwsCredential)> {
    let mut found = None;
    for _ in 0..LOOKS_MAX {
        let before = stamp(path)?;
        if before.0 > FILE_BYTES_MAX {
            return Err(unreadable(path, "it is too long for a credentials file".into()));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, error.into()))?;
        found = parse(&text).map(|credential| (before.1, credential));
        tokio::time::sleep(SETTLE_TIME).await;
        if found.is_some() && stamp(path)? == before {
            break;
        }
    }
    found.ok_or_else(|| {
        let wanted = "it has no `aws_access_key_id` and `aws_secret_access_key` under `[default]`";
        unreadable(path, wanted.into())
    })
}

fn parse(text: &str) -> Option<AwsCredential> {
    let mut lines = text.lines().map(str::trim).skip_while(|line| *line != PROFILE);
    let section: Vec<_> =
        lines.by_ref().skip(1).take_while(|line| !line.starts_with('[')).collect();
    let value = |name: &str| {
        section.iter().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    Some(AwsCredential {
        key_id: value("aws_access_key_id")?,
        secret_key: value("aws_secret_access_key")?,
        // An empty token counts as absent: servers refuse an empty header.
        token: value("aws_session_token").filter(|token| !token.is_empty()),
    })
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn unreadable(path: &Path, source: Cause) -> object_store::Error {
    object_store::Error::Unauthenticated { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_default_profile_is_read() {
        let text = "[other]\naws_access_key_id = no\n[default]\n# the key\naws_access_key_id = AK\n\
                    aws_secret_access_key=S=K\n\n[more]\naws_session_token = no\n";
        let found = parse(text).unwrap();
        assert_eq!((found.key_id.as_str(), found.secret_key.as_str()), ("AK", "S=K"));
        assert_eq!(found.token, None);
        assert!(parse("[default]\naws_access_key_id = AK\n").is_none());
        assert!(parse("").is_none());
    }

    #[test]
    fn an_empty_session_token_counts_as_absent() {
        let key = "[default]\naws_access_key_id=AK\naws_secret_access_key=SK\n";
        for (line, token) in [
            ("aws_session_token=\n", None),
            ("aws_session_token = \n", None),
            ("aws_session_token = T\n", Some("T")),
        ] {
            let found = parse(&format!("{key}{line}")).unwrap();
            assert_eq!(found.token.as_deref(), token, "{line}");
        }
    }

    #[tokio::test]
    async fn a_changed_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        let file = CredentialsFile::new(path.clone());
        let error = file.get_credential().await.unwrap_err();
        assert!(matches!(error, object_store::Error::Unauthenticated { .. }), "{error}");
        for (second, key) in ["first", "second"].into_iter().enumerate() {
            let text = format!("[default]\naws_access_key_id={key}\naws_secret_access_key=s\n");
            std::fs::write(&path, text).unwrap();
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second as u64);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
            assert_eq!(file.get_credential().await.unwrap().key_id, key);
        }
    }

    #[tokio::test]
    async fn reading_waits_until_the_file_is_complete() {
        const WHOLE: &str = "[default]\naws_access_key_id=AK\naws_secret_access_key=secret\n";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        for written in [0, 20, WHOLE.len() - 3] {
            std::fs::write(&path, &WHOLE[..written]).unwrap();
            let file = CredentialsFile::new(path.clone());
            // The first call is polled first, and then waits.
            let (read, ()) = tokio::join!(file.get_credential(), async {
                std::fs::write(&path, WHOLE).unwrap();
            });
            assert_eq!(read.unwrap().secret_key, "secret", "{written}");
        }
    }
}
