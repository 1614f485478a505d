//! What whoever owns an instance says about it.

use std::fmt;
use std::str::FromStr;

use crate::{BackupPolicy, HourWindow, InstanceName, NewConnection, StoredPolicy};

/// The longest description of an instance, characters.
pub const DESCRIPTION_CHARS_MAX: usize = 1024;
/// Tags that an instance may carry.
pub const TAGS_MAX: usize = 20;
/// The longest key of a tag, characters.
pub const TAG_KEY_CHARS_MAX: usize = 36;
/// The longest value of a tag, characters.
pub const TAG_VALUE_CHARS_MAX: usize = 43;

/// The text is too long to describe an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a description has {DESCRIPTION_CHARS_MAX} characters at the most")]
pub struct DescriptionTooLong;

/// Free text about an instance; it may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description(String);

impl Description {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Description {
    type Err = DescriptionTooLong;

    fn from_str(text: &str) -> Result<Self, DescriptionTooLong> {
        let fits = text.chars().count() <= DESCRIPTION_CHARS_MAX;
        if fits { Ok(Self(text.to_owned())) } else { Err(DescriptionTooLong) }
    }
}

/// The texts are no tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a tag has a key of 1 to {TAG_KEY_CHARS_MAX} characters, without `=` and spaces around it, and a value of {TAG_VALUE_CHARS_MAX} at the most, both without control characters and `,`"
)]
pub struct InvalidTag;

/// A key and a value by which instances are told apart; an instance has one value for a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    key: String,
    value: String,
}

impl Tag {
    /// A tag. Lists name tags as `key=value,…`, so a key may hold neither of these two signs, and a
    /// value not the second.
    ///
    /// # Errors
    /// [`InvalidTag`].
    pub fn new(key: &str, value: &str) -> Result<Self, InvalidTag> {
        Self::check_key(key)?;
        if value.chars().count() > TAG_VALUE_CHARS_MAX || !is_plain(value) {
            return Err(InvalidTag);
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }

    /// Whether a text can be the key of a tag.
    ///
    /// # Errors
    /// [`InvalidTag`].
    pub fn check_key(key: &str) -> Result<(), InvalidTag> {
        let fits = (1..=TAG_KEY_CHARS_MAX).contains(&key.chars().count());
        let is_name = is_plain(key) && !key.contains('=') && key.trim() == key;
        if fits && is_name { Ok(()) } else { Err(InvalidTag) }
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || c == ',')
}

/// What is said about an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSettings {
    /// What it is.
    pub description: Description,
    /// When it may be worked on. Kept and shown; nothing that we do waits for it.
    pub maintenance: HourWindow,
    /// Whether, and when, it is backed up by itself; `None` as long as nobody has said.
    pub policy: Option<StoredPolicy>,
    /// Its tags, by key.
    pub tags: Vec<Tag>,
}

impl Default for InstanceSettings {
    fn default() -> Self {
        Self {
            description: Description::default(),
            maintenance: HourWindow::DEFAULT_MAINTENANCE,
            policy: None,
            tags: Vec::new(),
        }
    }
}

/// What to change of an instance; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceChange {
    /// Its name.
    pub name: Option<InstanceName>,
    /// What it is.
    pub description: Option<Description>,
    /// When it may be worked on.
    pub maintenance: Option<HourWindow>,
    /// Whether, and when, it is backed up by itself. What the policy leaves open stays.
    pub policy: Option<BackupPolicy>,
    /// How it is reached.
    pub connection: Option<NewConnection>,
}

/// What to change of an instance's tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagChange {
    /// Give it these; a key that it has gets the new value.
    Add(Vec<Tag>),
    /// Take the tags of these keys away, where a value is named only if they have it. One that is
    /// not there is no error.
    Remove(Vec<(String, Option<String>)>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_counted_in_characters() {
        assert!("ä".repeat(1024).parse::<Description>().is_ok());
        assert_eq!("a".repeat(1025).parse::<Description>(), Err(DescriptionTooLong));
    }

    #[test]
    fn tags_are_short_and_can_be_listed() {
        assert_eq!(Tag::new("owner", "").unwrap().to_string(), "owner=");
        assert_eq!(Tag::new("k", "a=b").unwrap().to_string(), "k=a=b");
        assert!(Tag::new(&"ä".repeat(36), &"ü".repeat(43)).is_ok());
        for (key, value) in [
            ("", "v"),
            (" k", "v"),
            (&"k".repeat(37), "v"),
            ("k", &"v".repeat(44)),
            ("k=", "v"),
            ("k", "a,b"),
            ("k", "a\n"),
        ] {
            assert_eq!(Tag::new(key, value), Err(InvalidTag), "{key} {value}");
        }
    }
}
