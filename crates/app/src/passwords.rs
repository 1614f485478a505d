//! Passwords: hashed with Argon2id, few at a time, off the runtime's threads, in memory that is
//! allocated once for each of those few and used again.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::password_hash::{self, phc};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use cachevault_catalog::PasswordHash;
use cachevault_domain::Entropy;
use jiff::SignedDuration;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroize;

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
    memory: Arc<HashMemory>,
}

/// The right to have one password looked at. Few have it at a time, so whoever waited for it may
/// find that it is not to look any more.
#[derive(Debug)]
pub struct PasswordTurn {
    slot: OwnedSemaphorePermit,
    memory: Arc<HashMemory>,
}

/// Memory of hashes that have ended, for those that follow. An allocator may keep what many threads
/// have freed, one copy for each of them: so it is never freed.
#[derive(Default)]
struct HashMemory(Mutex<Vec<Vec<Block>>>);

impl fmt::Debug for HashMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashMemory")
    }
}

impl HashMemory {
    /// Works with memory that no other work uses meanwhile, and wipes it.
    fn lend<T>(&self, work: impl FnOnce(&mut Vec<Block>) -> T) -> T {
        let lent = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut blocks = lent.unwrap_or_default();
        let result = work(&mut blocks);
        blocks.iter_mut().zeroize();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(blocks);
        result
    }
}

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
        let slots = Arc::new(Semaphore::new(HASHES_AT_A_TIME));
        Self { token_lifetime, slots, memory: Arc::default() }
    }

    /// Waits for a turn.
    pub(crate) async fn turn(&self) -> Result<PasswordTurn, AppError> {
        let slot = self.slots.clone().acquire_owned().await;
        let slot = slot.map_err(|closed| AppError::HashingFailed(closed.into()))?;
        Ok(PasswordTurn { slot, memory: self.memory.clone() })
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
        let work = move |blocks: &mut Vec<Block>| hash(&password, &salt, blocks);
        let hashed = in_turn(self.turn().await?, work).await?;
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
        in_turn(turn, move |blocks| match known {
            Some(known) => verify(&password, &known, blocks).unwrap_or(false),
            None => {
                // The outcome does not matter, only the time.
                let _ = hash(&password, &[0; SALT_BYTES], blocks);
                false
            }
        })
        .await
    }
}

/// Does the work on a thread of its own, with memory that was used before.
async fn in_turn<T: Send + 'static>(
    turn: PasswordTurn,
    work: impl FnOnce(&mut Vec<Block>) -> T + Send + 'static,
) -> Result<T, AppError> {
    let done = tokio::task::spawn_blocking(move || {
        // Held by the work and not by who waits for it: a client that leaves frees nothing.
        let _slot = turn.slot;
        turn.memory.lend(work)
    });
    done.await.map_err(|error| AppError::HashingFailed(error.into()))
}

fn hash(
    password: &SecretString,
    salt: &[u8],
    blocks: &mut Vec<Block>,
) -> password_hash::Result<String> {
    let argon2 = Argon2::default();
    let hash = phc::PasswordHash {
        algorithm: Algorithm::default().ident(),
        version: Some(Version::default().into()),
        params: phc::ParamsString::try_from(argon2.params())?,
        salt: Some(phc::Salt::new(salt)?),
        hash: Some(digest(&argon2, password, salt, blocks)?),
    };
    Ok(hash.to_string())
}

/// Whether this is the password; hashed as the known hash says that it was.
fn verify(
    password: &SecretString,
    known: &PasswordHash,
    blocks: &mut Vec<Block>,
) -> password_hash::Result<bool> {
    let known = phc::PasswordHash::new(&known.0)?;
    let (Some(salt), Some(expected)) = (&known.salt, &known.hash) else { return Ok(false) };
    let algorithm = Algorithm::try_from(known.algorithm.as_str())?;
    let version = known.version.map(Version::try_from).transpose()?.unwrap_or_default();
    let argon2 = Argon2::new(algorithm, version, Params::try_from(&known)?);
    // Compares in constant time.
    Ok(digest(&argon2, password, salt, blocks)? == *expected)
}

fn digest(
    argon2: &Argon2<'_>,
    password: &SecretString,
    salt: &[u8],
    blocks: &mut Vec<Block>,
) -> password_hash::Result<phc::Output> {
    let params = argon2.params();
    let count = params.block_count();
    if blocks.len() < count {
        blocks.resize(count, Block::default());
    }
    let mut buffer = [0; phc::Output::MAX_LENGTH];
    let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
    let out = buffer.get_mut(..length).ok_or(password_hash::Error::OutputSize)?;
    let password = password.expose_secret().as_bytes();
    argon2.hash_password_into_with_memory(password, salt, out, &mut blocks[..count])?;
    Ok(phc::Output::new(out)?)
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordHasher;
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
    async fn hashes_of_earlier_versions_and_other_costs_are_verified() {
        let logins = Logins::default();
        let costs = [Params::DEFAULT, Params::new(1024, 3, 1, Some(16)).unwrap()];
        for params in costs.into_iter().cycle().take(4) {
            let argon2 = Argon2::new(Algorithm::default(), Version::default(), params);
            let known: phc::PasswordHash =
                argon2.hash_password_with_salt(b"correct horse", &[7; SALT_BYTES]).unwrap();
            let known = PasswordHash(known.to_string());
            for (text, is_right) in [("correct horse", true), ("correct horsf", false)] {
                let turn = logins.turn().await.unwrap();
                let verified = Logins::verify(turn, secret(text), Some(&known)).await.unwrap();
                assert_eq!(verified, is_right, "{text} {}", known.0);
            }
        }
        assert_eq!(logins.memory.0.lock().unwrap().len(), 1, "one hash at a time needs one memory");
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
