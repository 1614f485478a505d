//! What can be wrong with a request about projects, users, credentials and policies.

use cachevault_catalog::CatalogError;
use cachevault_domain::{NotAdministrator, RoleName};

use crate::AppError;

/// A request about projects, users, credentials or policies was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Ask an administrator of the service.
    #[error(transparent)]
    NotAdministrator(#[from] NotAdministrator),
    /// No such project, or none that the caller may see.
    #[error("this project does not exist")]
    ProjectNotFound,
    /// No such user; of a credential: none that has a role in its project.
    #[error("this user does not exist, or has no role in the project")]
    UserNotFound,
    /// The user has nothing in this project.
    #[error("the user has no role in this project")]
    GrantNotFound,
    /// No such credential, or none that the caller may see.
    #[error("this credential does not exist")]
    CredentialNotFound,
    /// No such policy in the project.
    #[error("this policy does not exist")]
    PolicyNotFound,
    /// No such role in the project; take a built-in one or write a policy of this name.
    #[error("the project has no such role: it is neither reader, operator, admin nor a policy")]
    RoleNotFound,
    /// Choose another name.
    #[error("this {0} is taken already")]
    Taken(&'static str),
    /// Take it from everyone that has it first.
    #[error(
        "the policy is in use; first give another role to the credentials and users that have it"
    )]
    PolicyInUse,
    /// Nobody gives, or changes, what allows more than it may do itself.
    #[error("`{0}` allows more than you may do yourself")]
    GrantsTooMuch(RoleName),
    /// Ask an administrator of the service.
    #[error("only an administrator of the service makes or changes another")]
    ChangesAdministrator,
    /// Use another credential or user to do this.
    #[error("nobody takes away what it makes the request with; use another credential or user")]
    OwnAccess,
    /// A credential of a user administers nothing; make it without a user.
    #[error("a credential that administers the service belongs to no user")]
    AdministratorOfUser,
    /// Choose a longer or shorter one.
    #[error("a password has {min} to {max} bytes", min = crate::passwords::BYTES_MIN, max = crate::passwords::BYTES_MAX)]
    BadPassword,
    /// Make a new credential.
    #[error("the credential is over, and what takes its place would be too; create a new one")]
    CredentialOver,
    /// Sign in with the password again.
    #[error(
        "the token is the last of {max} of which each was got with the one before; sign in with \
        the password",
        max = cachevault_catalog::TOKEN_CHAIN_MAX
    )]
    TokenChain,
    /// Wrong password, or what else the signing in named is not so. Which, is not told.
    #[error("the user, the password or the scope is not right")]
    SignInRefused,
}

impl AccessError {
    /// What an error of the catalog is to a client, where it is about these.
    pub(crate) fn from_catalog(error: &CatalogError) -> Option<Self> {
        Some(match error {
            CatalogError::NotFound("project") => Self::ProjectNotFound,
            CatalogError::NotFound("user") => Self::UserNotFound,
            CatalogError::NotFound("grant") => Self::GrantNotFound,
            CatalogError::NotFound("credential") => Self::CredentialNotFound,
            CatalogError::NotFound("policy") => Self::PolicyNotFound,
            CatalogError::NotFound("role") => Self::RoleNotFound,
            CatalogError::Taken(what @ ("project name" | "user name" | "policy name")) => {
                Self::Taken(what)
            }
            CatalogError::InUse(_) => Self::PolicyInUse,
            CatalogError::TokenChain => Self::TokenChain,
            _ => return None,
        })
    }
}

impl From<NotAdministrator> for AppError {
    fn from(error: NotAdministrator) -> Self {
        Self::Access(error.into())
    }
}
