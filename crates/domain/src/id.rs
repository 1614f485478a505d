//! Typed identifiers: no bare UUID or string stands in a signature.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::Entropy;

/// The text is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct InvalidId {
    text: String,
    wanted: &'static str,
}

impl InvalidId {
    fn new(text: &str, wanted: &'static str) -> Self {
        // The text comes from outside; an error message need not repeat all of it.
        Self { text: text.chars().take(64).collect(), wanted }
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// Mints a fresh random (version 4) identifier.
            pub fn mint(entropy: &dyn Entropy) -> Self {
                let mut bytes = [0; 16];
                entropy.fill(&mut bytes);
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }

            /// The sixteen bytes of the identifier.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            /// Accepts only the hyphenated form of 36 characters.
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = || InvalidId::new(text, "a UUID such as 5560df16-cebf-4473-95c4-d1b573c16e79");
                if text.len() != 36 {
                    return Err(invalid());
                }
                Uuid::try_parse(text).map(Self).map_err(|_| invalid())
            }
        }
    };
}

uuid_id!(
    /// Names one instance.
    InstanceId
);
uuid_id!(
    /// Names one backup.
    BackupId
);
uuid_id!(
    /// Names one restore.
    RestoreId
);
uuid_id!(
    /// Names one job.
    JobId
);
uuid_id!(
    /// Names one reading of a backup's files.
    ReadingId
);
uuid_id!(
    /// Names one running service with its data folder; stable over restarts.
    NodeId
);

uuid_id!(
    /// Names the backup policy of one instance.
    PolicyId
);

uuid_id!(
    /// Names one webhook.
    WebhookId
);

uuid_id!(
    /// Names one place for backups, whatever path or URL leads to it.
    StoreId
);

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Mints a fresh random identifier.
            pub fn mint(entropy: &dyn Entropy) -> Self {
                Self(random_hex(entropy))
            }

            /// The 32 digits.
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
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if is_hex_id(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidId::new(text, $wanted))
                }
            }
        }
    };
}

hex_id!(
    /// The tenant: 32 lower-case hexadecimal digits.
    ProjectId,
    "a project id of 32 hexadecimal digits"
);
hex_id!(
    /// Names one user: 32 lower-case hexadecimal digits.
    UserId,
    "a user id of 32 hexadecimal digits"
);

hex_id!(
    /// Names one API request in answers and logs: 32 hexadecimal digits.
    RequestId,
    "a request id of 32 hexadecimal digits"
);

/// Whether the text is 32 lower-case hexadecimal digits.
pub(crate) fn is_hex_id(text: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.len() == 32 && text.bytes().all(hex)
}

/// The public half of a signing credential: 8 to 64 letters and digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AccessKey(String);

impl AccessKey {
    /// Mints a fresh random access key of 20 characters.
    pub fn mint(entropy: &dyn Entropy) -> Self {
        const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let mut bytes = [0; 20];
        entropy.fill(&mut bytes);
        Self(bytes.iter().map(|b| char::from(ALPHABET[usize::from(b % 32)])).collect())
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AccessKey {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if (8..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId::new(text, "an access key of 8 to 64 letters and digits"))
        }
    }
}

fn random_hex(entropy: &dyn Entropy) -> String {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    uuid::Builder::from_bytes(bytes).into_uuid().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Same(u8);

    impl Entropy for Same {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn a_minted_id_reads_back_as_itself() {
        let id = BackupId::mint(&Same(0xab));
        assert_eq!(id.to_string(), "abababab-abab-4bab-abab-abababababab");
        assert_eq!(id.to_string().parse::<BackupId>(), Ok(id));
    }

    #[test]
    fn only_the_hyphenated_form_is_a_uuid() {
        for text in [
            "",
            "5560df16",
            "5560df16cebf447395c4d1b573c16e79",
            "{5560df16-cebf-4473-95c4-d1b573c16e7}",
        ] {
            assert!(text.parse::<InstanceId>().is_err(), "{text}");
        }
        assert!("5560df16-cebf-4473-95c4-d1b573c16e79".parse::<InstanceId>().is_ok());
    }

    #[test]
    fn a_project_id_is_32_hex_digits() {
        assert!("0123456789abcdef0123456789abcdef".parse::<ProjectId>().is_ok());
        for text in [
            "",
            "0123456789abcdef",
            "0123456789ABCDEF0123456789ABCDEF",
            "0123456789abcdef0123456789abcdeg",
        ] {
            assert!(text.parse::<ProjectId>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_error_never_repeats_a_long_text() {
        let error = "x".repeat(10_000).parse::<ProjectId>().unwrap_err();
        assert!(error.to_string().len() < 200);
    }
}
