//! The keys that open projects.

use cachevault_catalog::{CredentialChanges, KeyHolder, StoredCredential, UserKey};
use cachevault_domain::{
    AccessKey, Action, BuiltInRole, Caller, Credential, Listing, Note, Page, ProjectId, RoleName,
    Subject, UserRef,
};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;

use crate::access::AccessError;
use crate::{App, AppError, ProjectKey};

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
        Self {
            project: ProjectId::mint(&*app.entropy),
            access_key: AccessKey::mint(&*app.entropy),
            secret_key: mint_secret(app),
        }
    }
}

fn mint_secret(app: &App) -> SecretString {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789ab";
    let mut bytes = [0; SECRET_KEY_CHARS];
    app.entropy.fill(&mut bytes);
    let secret: String = bytes.iter().map(|b| char::from(ALPHABET[usize::from(b % 64)])).collect();
    secret.into()
}

/// A credential to create.
#[derive(Debug, Clone)]
pub struct CreateCredential {
    /// The project, where it is not the caller's own.
    pub project: Option<ProjectKey>,
    /// What it may do there.
    pub role: RoleName,
    /// The user that it is to belong to.
    pub user: Option<UserKey>,
    /// Free text.
    pub description: Option<Note>,
    /// From when on it works no more.
    pub expires_at: Option<Timestamp>,
    /// Whether it administers the service.
    pub administers_service: bool,
}

/// A credential with its secret in clear: shown once.
#[derive(Debug)]
pub struct ShownCredential {
    /// All but its secret.
    pub credential: Credential,
    /// The secret half.
    pub secret_key: SecretString,
}

/// What an access key opens for whoever proves to have its secret.
#[derive(Debug)]
pub struct KeyProof {
    /// The secret half.
    pub secret_key: SecretString,
    /// Who that is then.
    pub caller: Caller,
    /// Whether the project lets anyone in.
    pub project_enabled: bool,
}

impl App {
    /// Adds a key to a project that is there already, of which no key is known: it may do everything
    /// in it and administers the service.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`], also when the key is there already.
    pub async fn add_first_credential(&self, credential: &NewCredential) -> Result<(), AppError> {
        Ok(self.catalog.add_credential(&self.first_credential(credential)).await?)
    }

    pub(crate) fn first_credential(&self, new: &NewCredential) -> StoredCredential {
        let credential = Credential {
            access_key: new.access_key.clone(),
            project: new.project.clone(),
            role: BuiltInRole::Admin.into(),
            user: None,
            description: None,
            enabled: true,
            administers_service: true,
            created_at: self.clock.now(),
            expires_at: None,
        };
        self.seal_credential(credential, &new.secret_key)
    }

    fn seal_credential(&self, credential: Credential, secret: &SecretString) -> StoredCredential {
        let secret = self.sealer.seal(&owner(&credential.access_key), secret);
        StoredCredential { credential, secret }
    }

    /// What an access key that works now opens, and the secret that proves it.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`], [`AppError::SecretUnreadable`].
    pub async fn find_key(&self, access_key: &AccessKey) -> Result<Option<KeyProof>, AppError> {
        let Some(holder) = self.catalog.find_credential(access_key).await? else { return Ok(None) };
        let KeyHolder { stored: StoredCredential { credential, secret }, .. } = holder;
        if !credential.works_at(self.clock.now()) || !holder.user_may {
            return Ok(None);
        }
        let secret_key = self.sealer.open(&owner(access_key), &secret)?;
        let administers = credential.administers_service && credential.user.is_none();
        let subject = Subject::Key { access_key: access_key.clone(), user: credential.user };
        let caller = Caller::in_project(subject, credential.project, holder.permissions)
            .administering_service(administers);
        Ok(Some(KeyProof { secret_key, caller, project_enabled: holder.project_enabled }))
    }

    /// Creates a credential; its secret is never told again.
    ///
    /// # Errors
    /// [`AccessError::GrantsTooMuch`] where it would allow more than the caller may do,
    /// [`AccessError::RoleNotFound`], [`AccessError::UserNotFound`] also for one without a role in
    /// the project, [`AccessError::NotAdministrator`] for any other user than the caller's own,
    /// whether there is one or not.
    pub async fn create_credential(
        &self,
        caller: &Caller,
        wish: CreateCredential,
    ) -> Result<ShownCredential, AppError> {
        let named = wish.project.as_ref();
        let project = self.project_for(caller, named, Action::CreateCredential).await?;
        self.check_grantable(caller, &project, &wish.role).await?;
        if wish.administers_service {
            caller.administers_service().map_err(|_| AccessError::ChangesAdministrator)?;
        }
        let user = match &wish.user {
            Some(_) if wish.administers_service => {
                return Err(AccessError::AdministratorOfUser.into());
            }
            Some(key) => Some(self.speaks_for(caller, key).await?),
            None => None,
        };
        let credential = Credential {
            access_key: AccessKey::mint(&*self.entropy),
            project,
            role: wish.role,
            user,
            description: wish.description,
            enabled: true,
            administers_service: wish.administers_service,
            created_at: self.clock.now(),
            expires_at: wish.expires_at,
        };
        let secret_key = mint_secret(self);
        let stored = self.seal_credential(credential.clone(), &secret_key);
        self.catalog.add_credential(&stored).await?;
        Ok(ShownCredential { credential, secret_key })
    }

    /// The credentials of a project, oldest first.
    ///
    /// # Errors
    /// [`AccessError::ProjectNotFound`], [`AppError::Denied`].
    pub async fn list_credentials(
        &self,
        caller: &Caller,
        project: Option<&ProjectKey>,
        page: Page,
    ) -> Result<Listing<Credential>, AppError> {
        let project = self.project_for(caller, project, Action::ListCredentials).await?;
        Ok(self.catalog.list_credentials(&project, page).await?)
    }

    /// One credential.
    ///
    /// # Errors
    /// [`AccessError::CredentialNotFound`], [`AppError::Denied`].
    pub async fn get_credential(
        &self,
        caller: &Caller,
        access_key: &AccessKey,
    ) -> Result<Credential, AppError> {
        self.visible_credential(caller, access_key, Action::ListCredentials).await
    }

    /// Changes a credential.
    ///
    /// # Errors
    /// [`AccessError::GrantsTooMuch`] where it allows more than the caller may do, before or after;
    /// [`AccessError::OwnAccess`] for anything but the description of the caller's own.
    pub async fn update_credential(
        &self,
        caller: &Caller,
        access_key: &AccessKey,
        changes: &CredentialChanges,
    ) -> Result<Credential, AppError> {
        let found =
            self.changeable_credential(caller, access_key, Action::ModifyCredential).await?;
        let CredentialChanges { role, enabled, expires_at, description: _ } = changes;
        if is_own(caller, access_key)
            && (role.is_some() || *enabled == Some(false) || expires_at.is_some())
        {
            return Err(AccessError::OwnAccess.into());
        }
        if let Some(role) = role {
            self.check_grantable(caller, &found.project, role).await?;
        }
        self.catalog.update_credential(access_key, changes).await?;
        self.visible_credential(caller, access_key, Action::ModifyCredential).await
    }

    /// Creates a credential that allows the same as another and takes its place. The other goes on
    /// working, for `old_works_for` where that is said, so that clients can be changed over. The end
    /// that the other has the new one has too.
    ///
    /// # Errors
    /// [`AccessError::GrantsTooMuch`] where it allows more than the caller may do;
    /// [`AccessError::CredentialOver`] where its end has come.
    pub async fn rotate_credential(
        &self,
        caller: &Caller,
        access_key: &AccessKey,
        old_works_for: Option<SignedDuration>,
    ) -> Result<ShownCredential, AppError> {
        let found =
            self.changeable_credential(caller, access_key, Action::CreateCredential).await?;
        let now = self.clock.now();
        if let Some(user) = &found.user {
            check_speaks_for(caller, user)?;
        }
        if found.expires_at.is_some_and(|end| end <= now) {
            return Err(AccessError::CredentialOver.into());
        }
        let access = AccessKey::mint(&*self.entropy);
        let credential = Credential { access_key: access, enabled: true, created_at: now, ..found };
        let secret_key = mint_secret(self);
        let stored = self.seal_credential(credential.clone(), &secret_key);
        let old_ends_at = old_works_for.map(|time| now.checked_add(time).unwrap_or(Timestamp::MAX));
        self.catalog.rotate_credential(access_key, old_ends_at, &stored).await?;
        Ok(ShownCredential { credential, secret_key })
    }

    /// Removes a credential.
    ///
    /// # Errors
    /// [`AccessError::GrantsTooMuch`] where it allows more than the caller may do;
    /// [`AccessError::OwnAccess`] for the caller's own.
    pub async fn remove_credential(
        &self,
        caller: &Caller,
        access_key: &AccessKey,
    ) -> Result<(), AppError> {
        self.changeable_credential(caller, access_key, Action::DeleteCredential).await?;
        if is_own(caller, access_key) {
            return Err(AccessError::OwnAccess.into());
        }
        Ok(self.catalog.remove_credential(access_key).await?)
    }

    /// The user that a key is to belong to. Whether others than its own exist only an administrator
    /// of the service learns.
    async fn speaks_for(&self, caller: &Caller, key: &UserKey) -> Result<UserRef, AppError> {
        if let Some(own) = caller.user().filter(|own| key.is_of(own)) {
            return Ok(own.clone());
        }
        caller.administers_service()?;
        let found = self.catalog.find_user(key).await?;
        Ok(found.ok_or(AccessError::UserNotFound)?.0.reference())
    }

    async fn visible_credential(
        &self,
        caller: &Caller,
        access_key: &AccessKey,
        action: Action,
    ) -> Result<Credential, AppError> {
        let holder = self.catalog.find_credential(access_key).await?;
        let found = holder.map(|holder| holder.stored.credential);
        let own = |found: &Credential| caller.is_in(&found.project);
        // Whether the key of another project exists, only who may see all projects learns.
        match found {
            Some(found) if own(&found) => {
                caller.may(action)?;
                Ok(found)
            }
            Some(found) if caller.administers_service().is_ok() => Ok(found),
            _ => {
                caller.may(action)?;
                Err(AccessError::CredentialNotFound.into())
            }
        }
    }

    /// A credential that the caller could have made itself.
    async fn changeable_credential(
        &self,
        caller: &Caller,
        access_key: &AccessKey,
        action: Action,
    ) -> Result<Credential, AppError> {
        let found = self.visible_credential(caller, access_key, action).await?;
        if found.administers_service {
            caller.administers_service().map_err(|_| AccessError::ChangesAdministrator)?;
        }
        self.check_grantable(caller, &found.project, &found.role).await?;
        Ok(found)
    }

    /// Passes where the role is there and allows nothing that the caller may not do.
    pub(crate) async fn check_grantable(
        &self,
        caller: &Caller,
        project: &ProjectId,
        role: &RoleName,
    ) -> Result<(), AppError> {
        let policy = match role.built_in() {
            Some(_) => None,
            None => {
                let found = self.catalog.find_policy(project, role).await?;
                Some(found.ok_or(AccessError::RoleNotFound)?.actions)
            }
        };
        if caller.may_grant(&role.permissions(policy)) {
            Ok(())
        } else {
            Err(AccessError::GrantsTooMuch(role.clone()).into())
        }
    }
}

/// Who holds a key of a user acts in its name: only the user itself, or an administrator of the
/// service, gets one.
fn check_speaks_for(caller: &Caller, user: &UserRef) -> Result<(), AccessError> {
    match caller.user() {
        Some(own) if own.id == user.id => Ok(()),
        _ => Ok(caller.administers_service()?),
    }
}

fn is_own(caller: &Caller, key: &AccessKey) -> bool {
    matches!(caller.subject(), Subject::Key { access_key, .. } if access_key == key)
}

fn owner(access_key: &AccessKey) -> String {
    format!("credential/{access_key}")
}
