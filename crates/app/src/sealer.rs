//! Secrets at rest: sealed with the master key by XChaCha20-Poly1305.
//!
//! A sealed secret is 24 bytes of random nonce, then the ciphertext with its tag. What the secret
//! belongs to is authenticated with it, so that one row's secret does not open in another's.
//!
//! Links are signed by HMAC-SHA256 with a key of their own, which is derived from the master key.

use std::fmt;
use std::sync::Arc;

use cachevault_domain::{Entropy, SealedSecret};
use cachevault_store::{KeyError, KeyRing};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const ID_PREFIX: &[u8] = b"cachevault master key id";
const ID_BYTES: usize = 8;
const SHA256_BLOCK_BYTES: usize = 64;
/// What the key that signs links is derived for; another purpose gives another key.
const LINK_KEY: &[u8] = b"cachevault download links 1";

/// The text is not a master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a master key is 64 hexadecimal digits")]
pub struct InvalidMasterKey;

/// The sealed bytes do not open: altered, of something else, or sealed with another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed secret does not open; is this the master key that it was sealed with?")]
pub struct Unsealable;

/// The key from which everything else is protected: 256 bits.
pub struct MasterKey(Zeroizing<[u8; KEY_BYTES]>);

impl MasterKey {
    /// Mints a fresh random key.
    pub fn mint(entropy: &dyn Entropy) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        entropy.fill(&mut *bytes);
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits, with white space around them.
    ///
    /// # Errors
    /// [`InvalidMasterKey`] when they are something else.
    pub fn from_hex(text: &str) -> Result<Self, InvalidMasterKey> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(text.trim(), &mut *bytes).map_err(|_| InvalidMasterKey)?;
        Ok(Self(bytes))
    }

    /// A name of the key that tells nothing of it.
    pub fn id(&self) -> String {
        let sum = Sha256::new_with_prefix(ID_PREFIX).chain_update(*self.0).finalize();
        hex::encode(&sum[..ID_BYTES])
    }

    /// The key as 64 hexadecimal digits.
    pub fn to_hex(&self) -> SecretString {
        hex::encode(*self.0).into()
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(***)")
    }
}

/// Seals secrets and signs links with a master key, and opens what it or an earlier one has sealed.
pub struct Sealer {
    /// The one that seals comes first.
    keys: Vec<SealingKey>,
    link_key: Zeroizing<[u8; KEY_BYTES]>,
    entropy: Arc<dyn Entropy>,
}

struct SealingKey {
    id: String,
    cipher: XChaCha20Poly1305,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(***)")
    }
}

impl Sealer {
    /// A sealer with this key.
    pub fn new(key: &MasterKey, entropy: Arc<dyn Entropy>) -> Self {
        Self::with_earlier(key, &[], entropy)
    }

    /// A sealer with this key, that opens what earlier ones have sealed too.
    pub fn with_earlier(key: &MasterKey, earlier: &[MasterKey], entropy: Arc<dyn Entropy>) -> Self {
        let keys = std::iter::once(key).chain(earlier).map(|key| SealingKey {
            id: key.id(),
            cipher: XChaCha20Poly1305::new(&Key::from(*key.0)),
        });
        // The master key is uniform already, so one keyed hash of the purpose derives from it.
        let link_key = Zeroizing::new(keyed_hash(&key.0, LINK_KEY));
        Self { keys: keys.collect(), link_key, entropy }
    }

    /// Whether it has the master key of this id.
    pub fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id == id)
    }

    /// What proves that this service gave the link: 64 hexadecimal digits in lower case.
    pub fn sign_link(&self, ticket: &str) -> String {
        hex::encode(keyed_hash(&self.link_key, ticket.as_bytes()))
    }

    /// Whether `signature` is, to the letter, that of the link. Takes the same time whatever
    /// differs.
    pub fn has_signed_link(&self, ticket: &str, signature: &str) -> bool {
        self.sign_link(ticket).as_bytes().ct_eq(signature.as_bytes()).into()
    }

    fn seal_bytes(&self, owner: &str, secret: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        self.entropy.fill(&mut nonce);
        let payload = Payload { msg: secret, aad: owner.as_bytes() };
        // Encryption fails only for messages of 256 GiB and more.
        let sealed = self.keys[0].cipher.encrypt(&XNonce::from(nonce), payload).unwrap_or_default();
        [&nonce[..], &sealed].concat()
    }

    /// Seals `secret` for its `owner`, such as `instance/<id>/password`.
    pub fn seal(&self, owner: &str, secret: &SecretString) -> SealedSecret {
        SealedSecret(self.seal_bytes(owner, secret.expose_secret().as_bytes()))
    }

    /// Opens what was sealed for this `owner`.
    ///
    /// # Errors
    /// [`Unsealable`] when it does not open.
    pub fn open(&self, owner: &str, sealed: &SealedSecret) -> Result<SecretString, Unsealable> {
        // A key that has not sealed it does not open it.
        let opened = self.keys.iter().find_map(|key| key.open(owner, &sealed.0).ok());
        text(opened.ok_or(Unsealable)?)
    }
}

impl SealingKey {
    fn open(&self, owner: &str, sealed: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(Unsealable)?;
        let payload = Payload { msg: ciphertext, aad: owner.as_bytes() };
        self.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| Unsealable)
    }
}

fn text(secret: Vec<u8>) -> Result<SecretString, Unsealable> {
    String::from_utf8(secret).map(SecretString::from).map_err(|error| {
        error.into_bytes().zeroize();
        Unsealable
    })
}

impl KeyRing for Sealer {
    fn current(&self) -> &str {
        &self.keys[0].id
    }

    fn seal(&self, owner: &str, secret: &SecretString) -> Vec<u8> {
        self.seal_bytes(owner, secret.expose_secret().as_bytes())
    }

    fn open(&self, id: &str, owner: &str, sealed: &[u8]) -> Result<SecretString, KeyError> {
        let key = self.keys.iter().find(|key| key.id == id);
        let key = key.ok_or_else(|| KeyError::UnknownMasterKey { id: id.to_owned() })?;
        key.open(owner, sealed).and_then(text).map_err(|Unsealable| KeyError::Altered)
    }
}

/// HMAC-SHA256.
pub(crate) fn keyed_hash(key: &[u8; KEY_BYTES], message: &[u8]) -> [u8; KEY_BYTES] {
    // By definition a key shorter than a block is one with zeros behind it.
    let mut block = Zeroizing::new([0; SHA256_BLOCK_BYTES]);
    block[..KEY_BYTES].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new(&(*block).into());
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use cachevault_testkit::SeededEntropy;

    use super::*;

    fn sealer(seed: u64) -> Sealer {
        let entropy = Arc::new(SeededEntropy::new(seed));
        Sealer::new(&MasterKey::mint(&*entropy), entropy)
    }

    #[test]
    fn what_is_sealed_opens_only_for_its_owner_and_with_its_key() {
        let good = sealer(1);
        let sealed = good.seal("instance/1", &"påssword".to_owned().into());
        assert_eq!(good.open("instance/1", &sealed).unwrap().expose_secret(), "påssword");
        assert_eq!(good.open("instance/2", &sealed).unwrap_err(), Unsealable);
        assert_eq!(sealer(2).open("instance/1", &sealed).unwrap_err(), Unsealable);
    }

    #[test]
    fn any_change_is_noticed_and_nothing_panics() {
        let sealer = sealer(1);
        let sealed = sealer.seal("o", &"secret".to_owned().into());
        for at in 0..sealed.0.len() {
            let mut altered = sealed.clone();
            altered.0[at] ^= 1;
            assert!(sealer.open("o", &altered).is_err());
            assert!(sealer.open("o", &SealedSecret(sealed.0[..at].to_vec())).is_err());
        }
    }

    #[test]
    fn the_same_secret_is_never_sealed_alike_and_never_in_clear() {
        let sealer = sealer(1);
        let [a, b] = [(), ()].map(|()| sealer.seal("o", &"secret".to_owned().into()));
        assert_ne!(a, b);
        assert!(!a.0.windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn a_link_is_signed_by_one_key_alone_and_to_the_letter() {
        let ours = sealer(1);
        let signature = ours.sign_link("ticket");
        assert!(ours.has_signed_link("ticket", &signature));
        assert!(!ours.has_signed_link("tickeT", &signature));
        assert!(!sealer(2).has_signed_link("ticket", &signature));
        assert!(!ours.has_signed_link("ticket", &signature.to_uppercase()));
        assert!(!ours.has_signed_link("ticket", &signature[..63]));
        assert!(!ours.has_signed_link("ticket", ""));
    }

    #[test]
    fn a_signature_is_the_keyed_hash_that_it_says() {
        // Computed with Python: hmac(hmac(bytes(32), purpose), b"ticket").
        let key = MasterKey::from_hex(&"00".repeat(32)).unwrap();
        let signature = Sealer::new(&key, Arc::new(SeededEntropy::new(1))).sign_link("ticket");
        assert_eq!(signature, "3ec2300bdda4d4df7b3467a573ff075c211edb277e8cc57dc15051e0d5032f48");
    }

    #[test]
    fn a_key_reads_back_from_its_digits() {
        let key = MasterKey::mint(&SeededEntropy::new(3));
        let digits = key.to_hex();
        let again = MasterKey::from_hex(&format!(" {}\n", digits.expose_secret())).unwrap();
        assert_eq!(again.to_hex().expose_secret(), digits.expose_secret());
        assert!(MasterKey::from_hex("abc").is_err());
    }
}
