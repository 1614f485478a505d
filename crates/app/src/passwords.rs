//! Passwords: hashed with Argon2id, few at a time, off the runtime's threads.

use std::fmt;
use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::phc;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use cachevault_catalog::PasswordHash;
use cachevault_domain::Entropy;
use jiff::SignedDuration;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::AppError;
use crate::access::AccessError;

/// The shortest password, bytes.
pub(crate) const BYTES_MIN: usize = 8;
/// The longest password, bytes.
pub(crate) const BYTES_MAX: usize = 256;
/// Each hash takes 19 MiB and some tens of milliseconds of a core.
const HASHES_AT_A_TIME: usize = 2;
const SALT_BYTES: usize = 16;

/// How users sign in.
#[derive(Clone)]
pub struct Logins {
    /// How long a token works.
    pub(crate) token_lifetime: SignedDuration,
    slots: Arc<Semaphore>,
}

/// The right to have one password looked at. Few have it at a time, so whoever waited for it may
/// find that it is not to look any more.
#[derive(Debug)]
pub struct PasswordTurn(OwnedSemaphorePermit);

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Logins({:#})", self.token_lifetime)
    }
}

impl Default for Logins {
    /// Tokens that work for a day.
    fn default() -> Self {
        Self::new(SignedDuration::from_hours(24))
    }
}

impl Logins {
    /// Logins that give tokens which work for this long.
    pub fn new(token_lifetime: SignedDuration) -> Self {
        Self { token_lifetime, slots: Arc::new(Semaphore::new(HASHES_AT_A_TIME)) }
    }

    /// Waits for a turn.
    pub(crate) async fn turn(&self) -> Result<PasswordTurn, AppError> {
        let slot = self.slots.clone().acquire_owned().await;
        slot.map(PasswordTurn).map_err(|closed| AppError::HashingFailed(closed.into()))
    }

    /// The hash of a new password.
    pub(crate) async fn hash(
        &self,
        password: SecretString,
        entropy: &dyn Entropy,
    ) -> Result<PasswordHash, AppError> {
        if !(BYTES_MIN..=BYTES_MAX).contains(&password.expose_secret().len()) {
            return Err(AccessError::BadPassword.into());
        }
        let mut salt = [0; SALT_BYTES];
        entropy.fill(&mut salt);
        let hashed = in_turn(self.turn().await?, move || hash(&password, &salt)).await?;
        hashed.map(PasswordHash).map_err(|error| AppError::HashingFailed(error.to_string().into()))
    }

    /// Whether this is the password of the hash. Without one it is not, which takes as long to say.
    pub(crate) async fn verify(
        turn: PasswordTurn,
        password: SecretString,
        known: Option<&PasswordHash>,
    ) -> Result<bool, AppError> {
        // What no password can be need not be hashed: it tells nothing of who is known.
        if password.expose_secret().len() > BYTES_MAX {
            return Ok(false);
        }
        let known = known.cloned();
        in_turn(turn, move || match known {
            Some(known) => verify(&password, &known),
            None => {
                // The outcome does not matter, only the time.
                let _ = hash(&password, &[0; SALT_BYTES]);
                false
            }
        })
        .await
    }
}

/// Does the work on a thread of its own.
async fn in_turn<T: Send + 'static>(
    turn: PasswordTurn,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AppError> {
    let done = tokio::task::spawn_blocking(move || {
        // Held by the work and not by who waits for it: a client that leaves frees nothing.
        let _slot = turn.0;
        work()
    });
    done.await.map_err(|error| AppError::HashingFailed(error.into()))
}

fn hash(password: &SecretString, salt: &[u8]) -> Result<String, argon2::password_hash::Error> {
    let hash: phc::PasswordHash =
        Argon2::default().hash_password_with_salt(password.expose_secret().as_bytes(), salt)?;
    Ok(hash.to_string())
}

fn verify(password: &SecretString, known: &PasswordHash) -> bool {
    let Ok(known) = phc::PasswordHash::new(&known.0) else { return false };
    Argon2::default().verify_password(password.expose_secret().as_bytes(), &known).is_ok()
}

#[cfg(test)]
mod tests {
    use cachevault_testkit::SeededEntropy;

    use super::*;

    fn secret(text: &str) -> SecretString {
        text.to_owned().into()
    }

    #[tokio::test]
    async fn only_the_password_itself_is_right() {
        let logins = Logins::default();
        let entropy = SeededEntropy::new(1);
        let hash = logins.hash(secret("correct horse"), &entropy).await.unwrap();
        assert!(hash.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.0);
        assert!(!hash.0.contains("correct") && !format!("{hash:?}").contains("argon2id"));
        let again = logins.hash(secret("correct horse"), &entropy).await.unwrap();
        assert_ne!(hash, again);
        for (text, known, right) in [
            ("correct horse", Some(&hash), true),
            ("correct horse", Some(&again), true),
            ("Correct horse", Some(&hash), false),
            ("", Some(&hash), false),
            ("correct horse", None, false),
            ("correct horse", Some(&PasswordHash("correct horse".into())), false),
        ] {
            let turn = logins.turn().await.unwrap();
            assert_eq!(Logins::verify(turn, secret(text), known).await.unwrap(), right, "{text}");
        }
    }

    #[tokio::test]
    async fn passwords_are_neither_short_nor_endless() {
        let logins = Logins::default();
        for length in [0, BYTES_MIN - 1, BYTES_MAX + 1] {
            let hashed = logins.hash(secret(&"x".repeat(length)), &SeededEntropy::new(1)).await;
            assert!(matches!(hashed, Err(AppError::Access(AccessError::BadPassword))));
        }
        let turn = logins.turn().await.unwrap();
        assert!(!Logins::verify(turn, secret(&"x".repeat(1 << 20)), None).await.unwrap());
    }
}
