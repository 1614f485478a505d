//! Tokens that another Keystone has given.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use cachevault_catalog::CatalogError;
use cachevault_domain::{
    BuiltInRole, Caller, Project, ProjectId, ProjectName, Subject, TokenHash, UserName, UserRef,
};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use sha2::{Digest, Sha256};

use crate::tokens::TokenRefusal;
use crate::{App, AppError, ProjectKey};

/// How long an answer holds: what is revoked there works here no longer than this.
const HOLDS: SignedDuration = SignedDuration::from_secs(60);
const REMEMBERED_MAX: usize = 1024;

/// Tells what a token of another Keystone stands for.
#[async_trait]
pub trait TokenAuthority: Send + Sync + fmt::Debug {
    /// What it stands for; `None` where it stands for nothing. On an error, why that cannot be told.
    async fn validate(&self, token: &SecretString) -> Result<Option<ForeignToken>, String>;
}

/// A token of another Keystone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignToken {
    /// Id of the user there.
    pub user_id: String,
    /// Name of the user there.
    pub user_name: String,
    /// Id and name of the project of its scope there.
    pub project: Option<(String, String)>,
    /// Names of the roles in that project.
    pub roles: Vec<String>,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl ForeignToken {
    /// The role of ours that the strongest of its roles is.
    fn role(&self) -> Option<BuiltInRole> {
        let ours = |name: &String| match name.as_str() {
            "reader" => Some(BuiltInRole::Reader),
            "member" | "operator" => Some(BuiltInRole::Operator),
            "admin" => Some(BuiltInRole::Admin),
            _ => None,
        };
        let roles: Vec<_> = self.roles.iter().filter_map(ours).collect();
        BuiltInRole::ALL.into_iter().rfind(|role| roles.contains(role))
    }

    /// Its user, under an id and a name that no user of ours has.
    fn user(&self) -> Option<UserRef> {
        let sum = Sha256::digest(format!("keystone:{}", self.user_id));
        let id = hex::encode(&sum[..16]);
        let name = self.user_name.parse::<UserName>().or_else(|_| format!("id-{id}").parse());
        Some(UserRef { id: id.parse().ok()?, name: name.ok()?.of_keystone() })
    }
}

/// Another Keystone, and what it has answered of late.
#[derive(Debug, Clone)]
pub struct ForeignTokens {
    authority: Arc<dyn TokenAuthority>,
    answers: Arc<Mutex<HashMap<TokenHash, (ForeignToken, Timestamp)>>>,
}

impl ForeignTokens {
    /// Asks this Keystone.
    pub fn new(authority: Arc<dyn TokenAuthority>) -> Self {
        Self { authority, answers: Arc::default() }
    }

    async fn find(&self, text: &str, now: Timestamp) -> Result<Option<ForeignToken>, AppError> {
        let hash = TokenHash(Sha256::digest(text).into());
        if let Some((found, until)) = self.answers().get(&hash)
            && now < *until
        {
            return Ok(Some(found.clone()));
        }
        let found = self.authority.validate(&text.to_owned().into()).await;
        let found = found.map_err(AppError::KeystoneFailed)?;
        if let Some(found) = &found {
            let until = now.checked_add(HOLDS).unwrap_or(now).min(found.expires_at);
            let mut answers = self.answers();
            if answers.len() >= REMEMBERED_MAX {
                answers.retain(|_, (_, until)| now < *until);
            }
            // Where all of them still hold the next request asks again.
            if answers.len() < REMEMBERED_MAX {
                answers.insert(hash, (found.clone(), until));
            }
        }
        Ok(found)
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, HashMap<TokenHash, (ForeignToken, Timestamp)>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl App {
    /// Who makes a request with this token: one of ours, or of the other Keystone where there is
    /// one.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`], [`AppError::KeystoneFailed`].
    pub async fn find_caller(&self, text: &str) -> Result<Result<Caller, TokenRefusal>, AppError> {
        match (self.find_token(text).await?, &self.foreign_tokens) {
            (Ok(detail), _) => Ok(Ok(detail.caller())),
            (Err(TokenRefusal::Unknown), Some(foreign)) => self.foreign_caller(foreign, text).await,
            (Err(refusal), _) => Ok(Err(refusal)),
        }
    }

    async fn foreign_caller(
        &self,
        foreign: &ForeignTokens,
        text: &str,
    ) -> Result<Result<Caller, TokenRefusal>, AppError> {
        let now = self.clock.now();
        let Some(token) = foreign.find(text, now).await? else {
            return Ok(Err(TokenRefusal::Unknown));
        };
        if now >= token.expires_at {
            return Ok(Err(TokenRefusal::Expired { at: token.expires_at }));
        }
        let Some(user) = token.user() else { return Ok(Err(TokenRefusal::Unknown)) };
        let subject = Subject::User(user);
        let (Some((id, name)), Some(role)) = (&token.project, token.role()) else {
            return Ok(Ok(Caller::without_project(subject)));
        };
        let Ok(id) = id.parse::<ProjectId>() else {
            return Ok(Ok(Caller::without_project(subject)));
        };
        let project = self.adopt_project(id, name).await?;
        Ok(if project.enabled {
            Ok(Caller::in_project(subject, project.id, role.permissions()))
        } else {
            Err(TokenRefusal::ProjectDisabled)
        })
    }

    /// The project of this id, which is created where it is missing: who has a role in it there has
    /// it here.
    async fn adopt_project(&self, id: ProjectId, name: &str) -> Result<Project, AppError> {
        let key = ProjectKey::Id(id.clone());
        if let Some(found) = self.find_project(&key).await? {
            return Ok(found);
        }
        // A name that is taken here, or can be none, is left to the project's id.
        let unnamed = ProjectName::unnamed(&id);
        for name in [name.parse().ok(), Some(unnamed)].into_iter().flatten() {
            let created_at = self.clock.now();
            let project = Project { id: id.clone(), name, enabled: true, created_at };
            match self.catalog.create_project(&project, None).await {
                Ok(()) => return Ok(project),
                Err(CatalogError::Taken("project name")) => {}
                // Another request has adopted it meanwhile.
                Err(CatalogError::Taken(_)) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let found = self.find_project(&key).await?;
        found.ok_or_else(|| CatalogError::NotFound("project").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(roles: &[&str]) -> ForeignToken {
        ForeignToken {
            user_id: "u".repeat(64),
            user_name: "Jane Doe".into(),
            project: None,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            expires_at: Timestamp::MAX,
        }
    }

    #[test]
    fn the_strongest_role_that_is_known_counts() {
        for (roles, ours) in [
            (&["reader"][..], Some(BuiltInRole::Reader)),
            (&["member", "reader"], Some(BuiltInRole::Operator)),
            (&["operator"], Some(BuiltInRole::Operator)),
            (&["reader", "admin", "member"], Some(BuiltInRole::Admin)),
            (&["Admin", "owner"], None),
            (&[], None),
        ] {
            assert_eq!(token(roles).role(), ours, "{roles:?}");
        }
    }

    #[test]
    fn ids_and_names_of_another_form_become_some_of_ours() {
        let user = token(&[]).user().unwrap();
        assert_eq!(user, token(&["admin"]).user().unwrap());
        assert_eq!(user.name.as_str(), format!("keystone:id-{}", user.id));
        let other = ForeignToken { user_id: "v".repeat(64), ..token(&[]) };
        assert_ne!(other.user().unwrap().id, user.id);
    }

    #[test]
    fn nobody_of_another_keystone_is_one_of_ours() {
        let id = "3ec3164f750146be97f21559ee4d9c51";
        let theirs = ForeignToken { user_id: id.into(), user_name: "jane".into(), ..token(&[]) };
        let user = theirs.user().unwrap();
        assert_ne!(user.id.as_str(), id);
        assert_eq!(user.name.as_str(), "keystone:jane");
        assert!(user.name.as_str().parse::<UserName>().is_err(), "it is a name of ours");
    }
}
