//! The arguments of a replica's command.

use bytes::Bytes;
use subtle::ConstantTimeEq;

use super::{ARGUMENTS_MAX, PrimaryError};
use crate::resp::Reply;

/// The user of an `AUTH` without a user name.
pub(super) const DEFAULT_USER: &str = "default";

/// Returns the arguments of a RESP command.
pub(super) fn bulk_strings(command: Reply) -> Result<Vec<Bytes>, PrimaryError> {
    let Reply::Array(items) = command else {
        return Err(PrimaryError::NotACommand("not an array".to_owned()));
    };
    // An empty or null array is no command, and servers skip it.
    items
        .unwrap_or_default()
        .into_iter()
        .map(|item| match item {
            Reply::Bulk(Some(argument)) => Ok(argument),
            _ => Err(PrimaryError::NotACommand(
                "an array with elements other than bulk strings".to_owned(),
            )),
        })
        .collect()
}

/// Returns the arguments of an inline command. A replica joins them with spaces and quotes nothing,
/// not even its password, so quotes have no special meaning.
pub(super) fn words(line: &Bytes) -> Result<Vec<Bytes>, PrimaryError> {
    let words: Vec<Bytes> = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .take(ARGUMENTS_MAX + 1)
        .map(|word| line.slice_ref(word))
        .collect();
    if words.len() > ARGUMENTS_MAX {
        return Err(PrimaryError::TooLarge { what: "arguments", max: ARGUMENTS_MAX });
    }
    Ok(words)
}

/// Whether the arguments of `AUTH` match this login. The time of the comparison may reveal the
/// length of the secret, but not its content.
pub(super) fn is_login(arguments: &[Bytes], user: &str, password: &[u8]) -> bool {
    let (got_user, got_password) = match arguments {
        [password] => (DEFAULT_USER.as_bytes(), password),
        [user, password] => (&user[..], password),
        _ => return false,
    };
    (got_user.ct_eq(user.as_bytes()) & got_password.ct_eq(password)).into()
}

/// Parses a number that consists of digits only.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits)
        .ok()
        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
}
