//! Projects, users and what they prove themselves with.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::id::is_hex_id;
use crate::{AccessKey, ActionPattern, BuiltInRole, Note, Permissions, ProjectId, UserId};

const NAME_CHARS_MAX: usize = 64;

/// The text is no name of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a {what} has 1 to {NAME_CHARS_MAX} characters, letters, digits and any of {also}, and must not \
    look like an id"
)]
pub struct InvalidName {
    what: &'static str,
    also: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $also:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The name's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let allowed = |b: u8| b.is_ascii_alphanumeric() || $also.as_bytes().contains(&b);
                let fits = (1..=NAME_CHARS_MAX).contains(&text.len());
                if fits && text.bytes().all(allowed) && !is_hex_id(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidName { what: $what, also: $also })
                }
            }
        }
    };
}

name!(
    /// A project's name, unique in the service; never what looks like an id of another project.
    ProjectName,
    "project name",
    "_-."
);
name!(
    /// A user's name, unique in the service.
    UserName,
    "user name",
    "_-.@+"
);
name!(
    /// The name of a role: a built-in one, or a policy of the project.
    RoleName,
    "role or policy name",
    "_-"
);

impl ProjectName {
    /// The name of a project that nobody has named yet: its id.
    pub fn unnamed(id: &ProjectId) -> Self {
        Self(id.to_string())
    }
}

impl UserName {
    /// The name of a user of another Keystone: marked in a way that no name of ours is written.
    #[must_use]
    pub fn of_keystone(&self) -> Self {
        Self(format!("keystone:{self}"))
    }
}

impl From<BuiltInRole> for RoleName {
    fn from(role: BuiltInRole) -> Self {
        Self(role.name().to_owned())
    }
}

impl RoleName {
    /// The built-in role of this name; no policy can have it.
    pub fn built_in(&self) -> Option<BuiltInRole> {
        BuiltInRole::ALL.into_iter().find(|role| role.name() == self.0)
    }

    /// What the role allows, where `policy` is what the policy of this name has, if there is one.
    pub fn permissions(&self, policy: Option<Vec<ActionPattern>>) -> Permissions {
        match self.built_in() {
            Some(role) => role.permissions(),
            // A role that is nowhere defined allows nothing.
            None => policy.unwrap_or_default().into_iter().collect(),
        }
    }
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Its name.
    pub name: ProjectName,
    /// Whether its keys and tokens work. What it has stays either way.
    pub enabled: bool,
    /// When it was created.
    pub created_at: Timestamp,
}

/// Id and name of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRef {
    /// The id.
    pub id: UserId,
    /// The name.
    pub name: UserName,
}

/// Somebody that signs in with a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its name.
    pub name: UserName,
    /// Whether it may sign in, and its tokens and keys work.
    pub enabled: bool,
    /// Whether it manages the projects and users of the whole service.
    pub administers_service: bool,
    /// When it was created.
    pub created_at: Timestamp,
}

impl User {
    /// Its id and name.
    pub fn reference(&self) -> UserRef {
        UserRef { id: self.id.clone(), name: self.name.clone() }
    }
}

/// What a user has in a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The project.
    pub project: Project,
    /// The role there.
    pub role: RoleName,
    /// What the role allows.
    pub permissions: Permissions,
}

/// What a project writes down to be granted: a role of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessPolicy {
    /// The project that it belongs to.
    pub project: ProjectId,
    /// Its name, by which it is granted as a role; never a built-in role's.
    pub name: RoleName,
    /// What it allows.
    pub actions: Vec<ActionPattern>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its actions were changed last.
    pub updated_at: Timestamp,
}

/// An access key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The public half.
    pub access_key: AccessKey,
    /// The project that it opens.
    pub project: ProjectId,
    /// What it may do there.
    pub role: RoleName,
    /// The user that it belongs to; it then allows only what the user may do too, and only as long
    /// as the user is enabled and has a role in the project.
    pub user: Option<UserRef>,
    /// Free text.
    pub description: Option<Note>,
    /// Whether it works.
    pub enabled: bool,
    /// Whether it manages the projects and users of the whole service.
    pub administers_service: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// From when on it works no more.
    pub expires_at: Option<Timestamp>,
}

impl Credential {
    /// Whether it works at this moment, as far as it depends on itself.
    pub fn works_at(&self, now: Timestamp) -> bool {
        self.enabled && self.expires_at.is_none_or(|end| now < end)
    }
}

/// What a token opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenScope {
    /// One project.
    Project(ProjectId),
    /// The domain: no project in it.
    Domain,
    /// Nothing: it only proves who its user is.
    Unscoped,
}

/// How a user came to a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignIn {
    /// By its password.
    Password,
    /// By another token.
    Token,
}

impl SignIn {
    /// Every way.
    pub const ALL: [Self; 2] = [Self::Password, Self::Token];

    /// The way's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Token => "token",
        }
    }
}

/// SHA-256 of a token: all that is kept of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

/// A token, without what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// By which it is found.
    pub hash: TokenHash,
    /// Who it stands for.
    pub user: UserId,
    /// What it opens.
    pub scope: TokenScope,
    /// How its user came to it.
    pub sign_in: SignIn,
    /// Since when it works.
    pub issued_at: Timestamp,
    /// From when on it works no more.
    pub expires_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_plain_and_no_ids() {
        for text in ["eu-test", "eu_test.1", "A", &"x".repeat(64)] {
            assert!(text.parse::<ProjectName>().is_ok(), "{text}");
        }
        let id = "0123456789abcdef0123456789abcdef";
        for text in ["", "a b", "a/b", "ä", &"x".repeat(65), id] {
            assert!(text.parse::<ProjectName>().is_err(), "{text}");
        }
        assert!("jane.doe+ops@example.org".parse::<UserName>().is_ok());
        assert!("jane@example".parse::<RoleName>().is_err());
        assert_eq!(ProjectName::unnamed(&id.parse().unwrap()).as_str(), id);
    }

    #[test]
    fn a_role_is_built_in_or_what_its_policy_says_or_nothing() {
        let policy = || Some(vec!["dcs:instance:get".parse::<ActionPattern>().unwrap()]);
        let role = |name: &str| name.parse::<RoleName>().unwrap();
        assert_eq!(role("reader").permissions(policy()), BuiltInRole::Reader.permissions());
        assert_eq!(role("Reader").built_in(), None);
        assert_eq!(role("mine").permissions(policy()), policy().unwrap().into_iter().collect());
        assert_eq!(role("mine").permissions(None), Permissions::default());
    }

    #[test]
    fn a_credential_works_until_it_is_disabled_or_over() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let credential = Credential {
            access_key: "AAAAAAAA".parse().unwrap(),
            project: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            role: BuiltInRole::Reader.into(),
            user: None,
            description: None,
            enabled: true,
            administers_service: false,
            created_at: at(0),
            expires_at: Some(at(10)),
        };
        assert!(credential.works_at(at(9)) && !credential.works_at(at(10)));
        assert!(Credential { expires_at: None, ..credential.clone() }.works_at(at(10)));
        assert!(!Credential { enabled: false, ..credential }.works_at(at(9)));
    }
}
