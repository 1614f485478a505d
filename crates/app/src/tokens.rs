//! Tokens: what a user that has signed in shows with each request.

use cachevault_catalog::{CatalogError, FoundToken, PasswordHash, UserKey};
use cachevault_domain::{
    Caller, Entropy, Grant, SignIn, Subject, Token, TokenHash, TokenScope, User, UserRef,
};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::access::AccessError;
use crate::passwords::{Logins, PasswordTurn};
use crate::{App, AppError, ProjectKey};

const TOKEN_BYTES: usize = 32;
/// How long a token that is over is still told from one that never was.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);

/// What somebody signs in with.
#[derive(Debug)]
pub enum Proof {
    /// A user's password. Without a user, since what was named can be none, it is wrong.
    Password {
        /// The user.
        user: Option<UserKey>,
        /// The password.
        password: SecretString,
        /// The turn in which it is looked at.
        turn: PasswordTurn,
    },
    /// A token of the user's.
    Token(SecretString),
}

/// What a token is wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedScope {
    /// One project.
    Project(ProjectKey),
    /// The domain.
    Domain,
    /// Nothing in particular.
    Unscoped,
}

/// A token that works, and all that it opens.
#[derive(Debug, Clone)]
pub struct TokenDetail {
    /// The token, without what proves it.
    pub token: Token,
    /// Who it stands for.
    pub user: User,
    /// What it opens: the role in the project of its scope.
    pub grant: Option<Grant>,
}

/// Why a token does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRefusal {
    /// It never was one, or was revoked.
    Unknown,
    /// It is over.
    Expired {
        /// Since when.
        at: Timestamp,
    },
    /// The project that it opens lets nobody in.
    ProjectDisabled,
}

impl TokenDetail {
    /// Who makes a request with it.
    pub fn caller(&self) -> Caller {
        let subject = Subject::User(self.user.reference());
        let caller = match &self.grant {
            Some(grant) => {
                Caller::in_project(subject, grant.project.id.clone(), grant.permissions.clone())
            }
            None => Caller::without_project(subject),
        };
        caller.administering_service(self.user.administers_service)
    }
}

impl App {
    /// Waits until a password can be looked at.
    ///
    /// # Errors
    /// [`AppError::HashingFailed`].
    pub async fn password_turn(&self) -> Result<PasswordTurn, AppError> {
        self.logins.turn().await
    }

    /// Which user this is, if there is one.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn find_named(&self, key: &UserKey) -> Result<Option<UserRef>, AppError> {
        let found = self.catalog.find_user(key).await?;
        Ok(found.map(|(user, _)| user.reference()))
    }

    /// Gives a token to whoever proves to be a user. One that is got by another token ends when
    /// that one does. Of a user with very many tokens the oldest ends.
    ///
    /// # Errors
    /// [`AccessError::SignInRefused`], which does not tell what was wrong;
    /// [`AccessError::TokenChain`].
    pub async fn sign_in(
        &self,
        proof: Proof,
        scope: WantedScope,
    ) -> Result<(SecretString, TokenDetail), AppError> {
        let now = self.clock.now();
        let (user, password, parent, expires_at) = match proof {
            Proof::Password { user, password, turn } => {
                let (user, hash) = self.check_password(user, password, turn).await?;
                let end = now.checked_add(self.logins.token_lifetime).unwrap_or(Timestamp::MAX);
                (user, hash, None, end)
            }
            Proof::Token(token) => {
                let (user, hash, parent, end) = self.check_token(&token).await?;
                (user, hash, Some(parent), end)
            }
        };
        let (scope, grant) = self.resolve_scope(&user, scope).await?;
        let (text, hash) = mint(&*self.entropy);
        let sign_in = if parent.is_some() { SignIn::Token } else { SignIn::Password };
        let token =
            Token { hash, user: user.id.clone(), scope, sign_in, issued_at: now, expires_at };
        let forget_before = now.checked_sub(REMEMBERED).unwrap_or(Timestamp::MIN);
        match self.catalog.add_token(&token, &password, parent.as_ref(), forget_before).await {
            // Somebody disabled the user or changed its password in between.
            Err(CatalogError::NotFound(_)) => return Err(AccessError::SignInRefused.into()),
            added => added?,
        }
        Ok((text, TokenDetail { token, user, grant }))
    }

    async fn check_password(
        &self,
        user: Option<UserKey>,
        password: SecretString,
        turn: PasswordTurn,
    ) -> Result<(User, PasswordHash), AppError> {
        let found = match &user {
            Some(key) => self.catalog.find_user(key).await?,
            None => None,
        };
        let hash = found.as_ref().map(|(_, hash)| hash);
        let is_right = Logins::verify(turn, password, hash).await?;
        match found {
            Some((user, hash)) if is_right && user.enabled => Ok((user, hash)),
            _ => Err(AccessError::SignInRefused.into()),
        }
    }

    async fn check_token(
        &self,
        token: &SecretString,
    ) -> Result<(User, PasswordHash, TokenHash, Timestamp), AppError> {
        let Ok(TokenDetail { token, user, .. }) = self.find_token(token.expose_secret()).await?
        else {
            return Err(AccessError::SignInRefused.into());
        };
        let found = self.catalog.find_user(&UserKey::Id(user.id)).await?;
        let (user, hash) = found.ok_or(AccessError::SignInRefused)?;
        Ok((user, hash, token.hash, token.expires_at))
    }

    async fn resolve_scope(
        &self,
        user: &User,
        wanted: WantedScope,
    ) -> Result<(TokenScope, Option<Grant>), AppError> {
        let key = match wanted {
            WantedScope::Domain => return Ok((TokenScope::Domain, None)),
            WantedScope::Unscoped => return Ok((TokenScope::Unscoped, None)),
            WantedScope::Project(key) => key,
        };
        let grants = self.catalog.grants_of(&user.id).await?;
        let wanted = |grant: &Grant| key.is_of(&grant.project) && grant.project.enabled;
        let grant = grants.into_iter().find(wanted).ok_or(AccessError::SignInRefused)?;
        Ok((TokenScope::Project(grant.project.id.clone()), Some(grant)))
    }

    /// What a token opens, or why it opens nothing.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn find_token(
        &self,
        text: &str,
    ) -> Result<Result<TokenDetail, TokenRefusal>, AppError> {
        let Some(hash) = hash_of(text) else { return Ok(Err(TokenRefusal::Unknown)) };
        let found = self.catalog.find_token(&hash).await?;
        Ok(found.map_or(Err(TokenRefusal::Unknown), |found| usable(found, self.clock.now())))
    }

    /// What a token opens, for its own user and for administrators of the service; to others it
    /// does not exist.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn show_token(
        &self,
        caller: &Caller,
        text: &str,
    ) -> Result<Result<TokenDetail, TokenRefusal>, AppError> {
        let found = self.find_token(text).await?;
        Ok(found.and_then(|detail| {
            if may_see(caller, &detail) { Ok(detail) } else { Err(TokenRefusal::Unknown) }
        }))
    }

    /// Ends a token, for its own user and for administrators of the service. Whether there was one.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn revoke_token(&self, caller: &Caller, text: &str) -> Result<bool, AppError> {
        match self.show_token(caller, text).await? {
            Ok(detail) => Ok(self.catalog.revoke_token(&detail.token.hash).await?),
            Err(_) => Ok(false),
        }
    }
}

fn usable(found: FoundToken, now: Timestamp) -> Result<TokenDetail, TokenRefusal> {
    let FoundToken { token, user, grant } = found;
    if now >= token.expires_at {
        return Err(TokenRefusal::Expired { at: token.expires_at });
    }
    let is_scoped = matches!(token.scope, TokenScope::Project(_));
    if !user.enabled || is_scoped != grant.is_some() {
        return Err(TokenRefusal::Unknown);
    }
    if grant.as_ref().is_some_and(|grant| !grant.project.enabled) {
        return Err(TokenRefusal::ProjectDisabled);
    }
    Ok(TokenDetail { token, user, grant })
}

fn may_see(caller: &Caller, detail: &TokenDetail) -> bool {
    caller.user().is_some_and(|own| own.id == detail.user.id)
        || caller.administers_service().is_ok()
}

fn mint(entropy: &dyn Entropy) -> (SecretString, TokenHash) {
    let mut bytes = [0; TOKEN_BYTES];
    entropy.fill(&mut bytes);
    let text = hex::encode(bytes);
    let hash = TokenHash(Sha256::digest(&text).into());
    (text.into(), hash)
}

/// By what a token is found; `None` where this service cannot have given it.
fn hash_of(text: &str) -> Option<TokenHash> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let is_token = text.len() == 2 * TOKEN_BYTES && text.bytes().all(hex);
    is_token.then(|| TokenHash(Sha256::digest(text).into()))
}
