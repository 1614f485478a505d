//! Projects and the keys that open them.

use cachevault_catalog::StoredCredential;
use cachevault_domain::{AccessKey, ProjectId};
use secrecy::SecretString;

use crate::{App, AppError};

/// Length of a minted secret key in characters.
const SECRET_KEY_CHARS: usize = 40;

/// A project and the key that opens it, with its secret in clear: shown once.
#[derive(Debug, Clone)]
pub struct NewCredential {
    /// The project.
    pub project: ProjectId,
    /// The public half of the key.
    pub access_key: AccessKey,
    /// The secret half.
    pub secret_key: SecretString,
}

impl NewCredential {
    /// Mints a project id and a key for it.
    pub fn mint(app: &App) -> Self {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789ab";
        let mut bytes = [0; SECRET_KEY_CHARS];
        app.entropy.fill(&mut bytes);
        let secret: String =
            bytes.iter().map(|b| char::from(ALPHABET[usize::from(b % 64)])).collect();
        Self {
            project: ProjectId::mint(&*app.entropy),
            access_key: AccessKey::mint(&*app.entropy),
            secret_key: secret.into(),
        }
    }
}

impl App {
    /// Whether the service was ever started with this catalog.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn has_projects(&self) -> Result<bool, AppError> {
        Ok(self.catalog.has_projects().await?)
    }

    /// Creates the project of a credential and stores the credential, sealed.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`], also when either is there already.
    pub async fn create_project(&self, credential: &NewCredential) -> Result<(), AppError> {
        let stored = self.seal_credential(credential);
        Ok(self.catalog.create_project(&stored, self.clock.now()).await?)
    }

    /// Adds a key to a project that is there already.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`], also when the key is there already.
    pub async fn add_credential(&self, credential: &NewCredential) -> Result<(), AppError> {
        let stored = self.seal_credential(credential);
        Ok(self.catalog.add_credential(&stored, self.clock.now()).await?)
    }

    fn seal_credential(&self, credential: &NewCredential) -> StoredCredential {
        StoredCredential {
            access_key: credential.access_key.clone(),
            project: credential.project.clone(),
            secret: self.sealer.seal(&owner(&credential.access_key), &credential.secret_key),
        }
    }

    /// The project that an access key opens, and the secret that proves it.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`], [`AppError::SecretUnreadable`].
    pub async fn find_secret_key(
        &self,
        access_key: &AccessKey,
    ) -> Result<Option<(ProjectId, SecretString)>, AppError> {
        let Some(stored) = self.catalog.find_credential(access_key).await? else { return Ok(None) };
        let secret = self.sealer.open(&owner(access_key), &stored.secret)?;
        Ok(Some((stored.project, secret)))
    }
}

fn owner(access_key: &AccessKey) -> String {
    format!("credential/{access_key}")
}
