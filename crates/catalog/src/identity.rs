//! Projects, users, and what they prove themselves with.

use std::fmt;

use async_trait::async_trait;
use cachevault_domain::{
    AccessKey, AccessPolicy, ActionPattern, Credential, Grant, Listing, Note, Page, Permissions,
    Project, ProjectId, ProjectName, RoleName, SealedSecret, Token, TokenHash, User, UserId,
    UserName, UserRef,
};
use jiff::Timestamp;

use crate::CatalogError;

/// Tokens of which each was got with the one before it, the first included. They end together, and a
/// database follows such a chain only so far.
pub const TOKEN_CHAIN_MAX: u32 = 16;
/// Tokens of one user; those of a day that nobody has ended. One more ends the oldest.
pub const TOKENS_OF_USER_MAX: u32 = 1000;

/// A credential as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCredential {
    /// All but its secret.
    pub credential: Credential,
    /// The secret half, sealed.
    pub secret: SealedSecret,
}

/// A credential with all that decides what it opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHolder {
    /// The credential.
    pub stored: StoredCredential,
    /// Whether its project is enabled.
    pub project_enabled: bool,
    /// Whether the user that it belongs to is enabled and has a role in the project; `true` without
    /// a user.
    pub user_may: bool,
    /// What it allows: what its role does, and of that only what its user's role does too.
    pub permissions: Permissions,
}

/// A password's hash in PHC form.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(***)")
    }
}

/// What is to change in a project; the rest stays.
#[derive(Debug, Clone, Default)]
pub struct ProjectChanges {
    /// Its name.
    pub name: Option<ProjectName>,
    /// Whether it is enabled.
    pub enabled: Option<bool>,
}

/// What is to change in a user; the rest stays.
#[derive(Debug, Clone, Default)]
pub struct UserChanges {
    /// Its name.
    pub name: Option<UserName>,
    /// Its password.
    pub password: Option<PasswordHash>,
    /// Whether it is enabled.
    pub enabled: Option<bool>,
    /// Whether it administers the service.
    pub administers_service: Option<bool>,
}

/// What is to change in a credential; the rest stays.
#[derive(Debug, Clone, Default)]
pub struct CredentialChanges {
    /// Its role.
    pub role: Option<RoleName>,
    /// Its description, which can be taken away.
    pub description: Option<Option<Note>>,
    /// Whether it is enabled.
    pub enabled: Option<bool>,
    /// From when on it works no more, which can be taken away.
    pub expires_at: Option<Option<Timestamp>>,
}

/// How a user is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserKey {
    /// By its id.
    Id(UserId),
    /// By its name.
    Name(UserName),
}

impl UserKey {
    /// Whether it is this user that is looked for.
    pub fn is_of(&self, user: &UserRef) -> bool {
        match self {
            Self::Id(id) => *id == user.id,
            Self::Name(name) => *name == user.name,
        }
    }
}

/// Which projects are wanted.
#[derive(Debug, Clone, Default)]
pub struct ProjectFilter {
    /// With this id.
    pub id: Option<ProjectId>,
    /// With this name.
    pub name: Option<String>,
}

/// A token with all that decides what it opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundToken {
    /// The token.
    pub token: Token,
    /// Who it stands for.
    pub user: User,
    /// What its user has in the project of its scope; `None` for another scope, and where the
    /// user has nothing there any more.
    pub grant: Option<Grant>,
}

/// Projects and the keys that open them.
#[async_trait]
pub trait ProjectCatalog: Send + Sync {
    /// Whether a project has a credential that administers the service, be it enabled or not: the
    /// first has one.
    async fn administers_service(&self, project: &ProjectId) -> Result<bool, CatalogError>;

    /// Creates a project, together with its first credential where there is one.
    ///
    /// [`CatalogError::Taken`] when one of them, or the name, is there already.
    async fn create_project(
        &self,
        project: &Project,
        first: Option<&StoredCredential>,
    ) -> Result<(), CatalogError>;

    /// Adds a credential to a project that is there.
    ///
    /// [`CatalogError::NotFound`] without the project, or its role, or without its user or a grant
    /// of it in the project; [`CatalogError::Taken`] when the key is there already.
    async fn add_credential(&self, credential: &StoredCredential) -> Result<(), CatalogError>;

    /// Whether there is any project.
    async fn has_projects(&self) -> Result<bool, CatalogError>;

    /// The credential with this access key, and what it opens.
    async fn find_credential(
        &self,
        access_key: &AccessKey,
    ) -> Result<Option<KeyHolder>, CatalogError>;

    /// Credentials of a project, oldest first.
    async fn list_credentials(
        &self,
        project: &ProjectId,
        page: Page,
    ) -> Result<Listing<Credential>, CatalogError>;

    /// Changes a credential.
    ///
    /// [`CatalogError::NotFound`] without it or the new role.
    async fn update_credential(
        &self,
        access_key: &AccessKey,
        changes: &CredentialChanges,
    ) -> Result<(), CatalogError>;

    /// Adds a credential that takes the place of another, which is to end at `old_ends_at`, if at
    /// all: together or not at all. An end that is nearer already stays.
    ///
    /// The same errors as [`ProjectCatalog::add_credential`]; [`CatalogError::NotFound`] also
    /// without the other.
    async fn rotate_credential(
        &self,
        old: &AccessKey,
        old_ends_at: Option<Timestamp>,
        new: &StoredCredential,
    ) -> Result<(), CatalogError>;

    /// Removes a credential.
    ///
    /// [`CatalogError::NotFound`] without it.
    async fn remove_credential(&self, access_key: &AccessKey) -> Result<(), CatalogError>;

    /// Projects by their names.
    async fn list_projects(
        &self,
        filter: &ProjectFilter,
        page: Page,
    ) -> Result<Listing<Project>, CatalogError>;

    /// Changes a project.
    ///
    /// [`CatalogError::NotFound`] without it, [`CatalogError::Taken`] when another has the name.
    async fn update_project(
        &self,
        id: &ProjectId,
        changes: &ProjectChanges,
    ) -> Result<(), CatalogError>;

    /// Proves that the catalog can be read and written now.
    async fn check(&self) -> Result<(), CatalogError>;
}

/// Users, their grants and tokens, and the policies that can be granted.
#[async_trait]
pub trait IdentityCatalog: Send + Sync {
    /// Adds a user.
    ///
    /// [`CatalogError::Taken`] when its id or name is there already.
    async fn create_user(&self, user: &User, password: &PasswordHash) -> Result<(), CatalogError>;

    /// The user, with the hash of its password.
    async fn find_user(&self, key: &UserKey) -> Result<Option<(User, PasswordHash)>, CatalogError>;

    /// Users by their names.
    async fn list_users(&self, page: Page) -> Result<Listing<User>, CatalogError>;

    /// Changes a user. Whoever is disabled or gets another password loses its tokens with it.
    ///
    /// [`CatalogError::NotFound`] without it, [`CatalogError::Taken`] when another has the name.
    async fn update_user(&self, id: &UserId, changes: &UserChanges) -> Result<(), CatalogError>;

    /// Removes a user with its grants, its tokens and the credentials that belong to it.
    ///
    /// [`CatalogError::NotFound`] without it.
    async fn remove_user(&self, id: &UserId) -> Result<(), CatalogError>;

    /// What a user has, by the names of the projects.
    async fn grants_of(&self, user: &UserId) -> Result<Vec<Grant>, CatalogError>;

    /// Gives a user this role in a project, in place of one that it has.
    ///
    /// [`CatalogError::NotFound`] without the user, the project, or the role in it.
    async fn set_grant(
        &self,
        user: &UserId,
        project: &ProjectId,
        role: &RoleName,
    ) -> Result<(), CatalogError>;

    /// Takes away what a user has in a project, with its tokens for it.
    ///
    /// [`CatalogError::NotFound`] when it has nothing there.
    async fn remove_grant(&self, user: &UserId, project: &ProjectId) -> Result<(), CatalogError>;

    /// Adds a policy.
    ///
    /// [`CatalogError::NotFound`] without its project, [`CatalogError::Taken`] when its name is in
    /// use there.
    async fn create_policy(&self, policy: &AccessPolicy) -> Result<(), CatalogError>;

    /// The policy.
    async fn find_policy(
        &self,
        project: &ProjectId,
        name: &RoleName,
    ) -> Result<Option<AccessPolicy>, CatalogError>;

    /// Policies of a project by their names.
    async fn list_policies(
        &self,
        project: &ProjectId,
        page: Page,
    ) -> Result<Listing<AccessPolicy>, CatalogError>;

    /// Changes what a policy allows, for everyone that has it at once.
    ///
    /// [`CatalogError::NotFound`] without it.
    async fn update_policy(
        &self,
        project: &ProjectId,
        name: &RoleName,
        actions: &[ActionPattern],
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// Removes a policy.
    ///
    /// [`CatalogError::NotFound`] without it, [`CatalogError::InUse`] while a credential or a user
    /// has it.
    async fn remove_policy(&self, project: &ProjectId, name: &RoleName)
    -> Result<(), CatalogError>;

    /// Adds a token, and removes those that were over before `forget_before`; of
    /// [`TOKENS_OF_USER_MAX`] tokens of its user the oldest goes first. One that was got with
    /// another, its `parent`, goes with it.
    ///
    /// [`CatalogError::NotFound`] unless its user is enabled and still has `password`, and the parent
    /// is still there, so that who signed in with what is no longer right gets nothing;
    /// [`CatalogError::TokenChain`] where the parent is the last of [`TOKEN_CHAIN_MAX`].
    async fn add_token(
        &self,
        token: &Token,
        password: &PasswordHash,
        parent: Option<&TokenHash>,
        forget_before: Timestamp,
    ) -> Result<(), CatalogError>;

    /// The token, over or not, and what it opens.
    async fn find_token(&self, hash: &TokenHash) -> Result<Option<FoundToken>, CatalogError>;

    /// Removes a token. Whether it was there.
    async fn revoke_token(&self, hash: &TokenHash) -> Result<bool, CatalogError>;
}
