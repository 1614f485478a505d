//! Keys from a file that may change while we run.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

/// The section that is read.
const PROFILE: &str = "[default]";
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Reads AWS' shared credentials file, again whenever it has changed.
#[derive(Debug)]
pub(super) struct CredentialsFile {
    path: PathBuf,
    read: Mutex<Option<(SystemTime, Arc<AwsCredential>)>>,
}

impl CredentialsFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::new(None) }
    }
}

#[async_trait]
impl CredentialProvider for CredentialsFile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let modified = std::fs::metadata(&self.path).and_then(|metadata| metadata.modified());
        let modified = modified.map_err(|error| unreadable(&self.path, error.into()))?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, credential)) = &*read
            && *at == modified
        {
            return Ok(Arc::clone(credential));
        }
        let credential = Arc::new(load(&self.path)?);
        *read = Some((modified, Arc::clone(&credential)));
        Ok(credential)
    }
}

fn load(path: &Path) -> object_store::Result<AwsCredential> {
    let size = std::fs::metadata(path).map_err(|error| unreadable(path, error.into()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(unreadable(path, "it is too long for a file of credentials".into()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, error.into()))?;
    parse(&text).ok_or_else(|| {
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
        token: value("aws_session_token"),
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
    fn the_default_profile_is_read_and_nothing_else() {
        let text = "[other]\naws_access_key_id = no\n[default]\n# the key\naws_access_key_id = AK\n\
                    aws_secret_access_key=S=K\n\n[more]\naws_session_token = no\n";
        let found = parse(text).unwrap();
        assert_eq!((found.key_id.as_str(), found.secret_key.as_str()), ("AK", "S=K"));
        assert_eq!(found.token, None);
        assert!(parse("[default]\naws_access_key_id = AK\n").is_none());
        assert!(parse("").is_none());
    }

    #[tokio::test]
    async fn a_file_that_changes_is_read_again() {
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
}
