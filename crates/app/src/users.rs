//! Users, whom administrators of the service manage, and what they have in projects.

use cachevault_catalog::{UserChanges, UserKey};
use cachevault_domain::{Caller, Grant, Listing, Page, RoleName, Subject, User, UserId, UserName};
use secrecy::SecretString;

use crate::access::AccessError;
use crate::passwords::{Logins, PasswordTurn};
use crate::{App, AppError, ProjectKey};

/// A user to create.
#[derive(Debug)]
pub struct CreateUser {
    /// Its name.
    pub name: UserName,
    /// Its password.
    pub password: SecretString,
    /// Whether it administers the service.
    pub administers_service: bool,
}

/// What is to change in a user; the rest stays.
#[derive(Debug, Default)]
pub struct UpdateUser {
    /// Its name.
    pub name: Option<UserName>,
    /// Its password; its tokens end.
    pub password: Option<SecretString>,
    /// Whether it is enabled; while it is not, its tokens have ended and its keys do not work.
    pub enabled: Option<bool>,
    /// Whether it administers the service.
    pub administers_service: Option<bool>,
}

/// A user and what it has.
#[derive(Debug)]
pub struct UserDetail {
    /// The user.
    pub user: User,
    /// What it has, by the names of the projects.
    pub grants: Vec<Grant>,
}

/// A user that has just shown that it knows its password.
#[derive(Debug)]
pub struct ProvenUser(UserId);

impl App {
    /// Creates a user, who has nothing in any project yet.
    ///
    /// # Errors
    /// [`AccessError::NotAdministrator`], [`AccessError::Taken`], [`AccessError::BadPassword`].
    pub async fn create_user(
        &self,
        caller: &Caller,
        wish: CreateUser,
    ) -> Result<UserDetail, AppError> {
        caller.administers_service()?;
        let user = User {
            id: UserId::mint(&*self.entropy),
            name: wish.name,
            enabled: true,
            administers_service: wish.administers_service,
            created_at: self.clock.now(),
        };
        let password = self.logins.hash(wish.password, &*self.entropy).await?;
        self.catalog.create_user(&user, &password).await?;
        Ok(UserDetail { user, grants: Vec::new() })
    }

    /// Users by their names.
    ///
    /// # Errors
    /// [`AccessError::NotAdministrator`].
    pub async fn list_users(&self, caller: &Caller, page: Page) -> Result<Listing<User>, AppError> {
        caller.administers_service()?;
        Ok(self.catalog.list_users(page).await?)
    }

    /// One user.
    ///
    /// # Errors
    /// [`AccessError::NotAdministrator`], [`AccessError::UserNotFound`].
    pub async fn get_user(&self, caller: &Caller, key: &UserKey) -> Result<UserDetail, AppError> {
        caller.administers_service()?;
        let found = self.catalog.find_user(key).await?;
        let (user, _) = found.ok_or(AccessError::UserNotFound)?;
        let grants = self.catalog.grants_of(&user.id).await?;
        Ok(UserDetail { user, grants })
    }

    /// Changes a user.
    ///
    /// # Errors
    /// [`AccessError::NotAdministrator`], [`AccessError::UserNotFound`], [`AccessError::Taken`],
    /// [`AccessError::BadPassword`]; [`AccessError::OwnAccess`] for disabling the caller itself or
    /// making it no administrator.
    pub async fn update_user(
        &self,
        caller: &Caller,
        key: &UserKey,
        wish: UpdateUser,
    ) -> Result<UserDetail, AppError> {
        let found = self.get_user(caller, key).await?.user;
        let takes_away = wish.enabled == Some(false) || wish.administers_service == Some(false);
        if takes_away && is_self(caller, &found) {
            return Err(AccessError::OwnAccess.into());
        }
        let password = match wish.password {
            Some(password) => Some(self.logins.hash(password, &*self.entropy).await?),
            None => None,
        };
        let changes = UserChanges {
            name: wish.name,
            password,
            enabled: wish.enabled,
            administers_service: wish.administers_service,
        };
        self.catalog.update_user(&found.id, &changes).await?;
        self.get_user(caller, &UserKey::Id(found.id)).await
    }

    /// Removes a user with its grants, tokens and keys.
    ///
    /// # Errors
    /// [`AccessError::NotAdministrator`], [`AccessError::UserNotFound`];
    /// [`AccessError::OwnAccess`] for the caller itself.
    pub async fn remove_user(&self, caller: &Caller, key: &UserKey) -> Result<(), AppError> {
        let found = self.get_user(caller, key).await?.user;
        if is_self(caller, &found) {
            return Err(AccessError::OwnAccess.into());
        }
        Ok(self.catalog.remove_user(&found.id).await?)
    }

    /// Gives a user a role in a project, in place of one that it has there.
    ///
    /// # Errors
    /// [`AccessError::NotAdministrator`], [`AccessError::UserNotFound`],
    /// [`AccessError::ProjectNotFound`], [`AccessError::RoleNotFound`].
    pub async fn set_grant(
        &self,
        caller: &Caller,
        key: &UserKey,
        project: &ProjectKey,
        role: &RoleName,
    ) -> Result<UserDetail, AppError> {
        let found = self.get_user(caller, key).await?.user;
        let project = self.get_project(caller, project).await?;
        self.catalog.set_grant(&found.id, &project.id, role).await?;
        self.get_user(caller, key).await
    }

    /// Takes away what a user has in a project.
    ///
    /// # Errors
    /// [`AccessError::NotAdministrator`], [`AccessError::UserNotFound`],
    /// [`AccessError::ProjectNotFound`], [`AccessError::GrantNotFound`].
    pub async fn remove_grant(
        &self,
        caller: &Caller,
        key: &UserKey,
        project: &ProjectKey,
    ) -> Result<(), AppError> {
        let found = self.get_user(caller, key).await?.user;
        let project = self.get_project(caller, project).await?;
        Ok(self.catalog.remove_grant(&found.id, &project.id).await?)
    }

    /// Whether a caller knows the password of the user that it signed in as; looked at in `turn`.
    ///
    /// # Errors
    /// [`AccessError::SignInRefused`] for a wrong one, and for a caller that signed in with something
    /// else.
    pub async fn prove_own_password(
        &self,
        caller: &Caller,
        current: SecretString,
        turn: PasswordTurn,
    ) -> Result<ProvenUser, AppError> {
        let Subject::User(user) = caller.subject() else {
            return Err(AccessError::SignInRefused.into());
        };
        let found = self.catalog.find_user(&UserKey::Id(user.id.clone())).await?;
        let hash = found.as_ref().map(|(_, hash)| hash);
        if !Logins::verify(turn, current, hash).await? {
            return Err(AccessError::SignInRefused.into());
        }
        Ok(ProvenUser(user.id.clone()))
    }

    /// Lets a user change its own password; all its tokens end, the caller's too.
    ///
    /// # Errors
    /// [`AccessError::BadPassword`].
    pub async fn change_own_password(
        &self,
        ProvenUser(user): ProvenUser,
        new: SecretString,
    ) -> Result<(), AppError> {
        let password = Some(self.logins.hash(new, &*self.entropy).await?);
        let changes = UserChanges { password, ..UserChanges::default() };
        Ok(self.catalog.update_user(&user, &changes).await?)
    }
}

/// Whether the caller is this user, or holds a key of it.
fn is_self(caller: &Caller, user: &User) -> bool {
    caller.user().is_some_and(|own| own.id == user.id)
}
