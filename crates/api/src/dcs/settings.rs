//! Request bodies that create and change instances, and their tags.

use cachevault_app::{AddInstance, FirstSettings};
use cachevault_domain::{
    BackupPolicy, Description, HourWindow, InstanceChange, InstanceName, TAGS_MAX, Tag, TagChange,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::{ObjectBuilder, Schema, Type};

use super::error::{DcsError, EXTENSION};
use crate::connection::ConnectionBody;

/// Changes to an instance, in both versions. Unused fields, such as `security_group_id`, are
/// accepted and ignored.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ModifyInstance<P> {
    #[schema(example = "dcs-demo", pattern = "^[A-Za-z0-9_-]{1,64}$")]
    name: Option<String>,
    #[schema(max_length = 1024)]
    description: Option<String>,
    /// A whole hour, UTC; requires `maintain_end`.
    #[schema(example = "02:00:00", pattern = "^([01][0-9]|2[0-3]):00:00$")]
    maintain_begin: Option<String>,
    #[schema(example = "06:00:00", pattern = "^([01][0-9]|2[0-3]):00:00$")]
    maintain_end: Option<String>,
    instance_backup_policy: Option<P>,
    /// Refused: the port is the server's own.
    #[schema(schema_with = null_schema)]
    port: Option<u16>,
}

/// A request to create an instance. The service registers a running server and never creates one.
#[derive(Deserialize, ToSchema)]
pub(crate) struct CreateInstance<P> {
    #[schema(example = "dcs-demo", pattern = "^[A-Za-z0-9_-]{1,64}$", required, nullable = false)]
    name: Option<String>,
    #[schema(max_length = 1024)]
    description: Option<String>,
    /// A whole hour, UTC; requires `maintain_end`.
    #[schema(example = "02:00:00", pattern = "^([01][0-9]|2[0-3]):00:00$")]
    maintain_begin: Option<String>,
    #[schema(example = "06:00:00", pattern = "^([01][0-9]|2[0-3]):00:00$")]
    maintain_end: Option<String>,
    instance_backup_policy: Option<P>,
    #[schema(max_items = 20)]
    tags: Option<Vec<TagBody>>,
    /// Extension: the connection to the server that is registered. Without it the answer is
    /// `DCS.4027`.
    #[schema(required, nullable = false)]
    cachevault: Option<ConnectionBody>,
}

fn null_schema() -> Schema {
    let null = ObjectBuilder::new().schema_type(Type::Null);
    null.description(Some("Refused: the port is the server's own.")).into()
}

impl<P> ModifyInstance<P> {
    /// Parses the change. `policy` parses a policy in the format of the version.
    pub(crate) fn change(
        self,
        policy: impl Fn(&P) -> Result<BackupPolicy, DcsError>,
    ) -> Result<InstanceChange, DcsError> {
        if self.port.is_some() {
            return Err(DcsError::NotSupported);
        }
        Ok(InstanceChange {
            name: self.name.as_deref().map(name).transpose()?,
            description: self.description.as_deref().map(description).transpose()?,
            maintenance: maintenance(self.maintain_begin, self.maintain_end)?,
            policy: self.instance_backup_policy.as_ref().map(policy).transpose()?,
            connection: None,
        })
    }
}

impl<P> CreateInstance<P> {
    /// Parses the request. `policy` parses a policy in the format of the version.
    pub(crate) fn wish(
        self,
        policy: impl Fn(&P) -> Result<BackupPolicy, DcsError>,
    ) -> Result<AddInstance, DcsError> {
        let connection = self.cachevault.ok_or(DcsError::NotSupported)?;
        let settings = FirstSettings {
            description: description(&self.description.unwrap_or_default())?,
            maintenance: maintenance(self.maintain_begin, self.maintain_end)?,
            policy: self.instance_backup_policy.as_ref().map(policy).transpose()?,
            tags: tags(&self.tags.unwrap_or_default())?,
        };
        let target = connection.target().map_err(|reason| {
            // The vendor's error has no field for the reason.
            tracing::warn!(%reason, "request refused");
            DcsError::InvalidField(EXTENSION)
        })?;
        Ok(AddInstance { name: name(&self.name.unwrap_or_default())?, target, settings })
    }
}

fn name(text: &str) -> Result<InstanceName, DcsError> {
    text.parse().map_err(|_| DcsError::InvalidName)
}

fn description(text: &str) -> Result<Description, DcsError> {
    text.parse().map_err(|_| DcsError::DescriptionTooLong)
}

/// Both ends are set or none. An empty text counts as absent.
fn maintenance(begin: Option<String>, end: Option<String>) -> Result<Option<HourWindow>, DcsError> {
    let said = |text: Option<String>| text.filter(|text| !text.is_empty());
    match (said(begin), said(end)) {
        (None, None) => Ok(None),
        (Some(begin), Some(end)) => {
            let window = hour(&begin).zip(hour(&end));
            let window = window.and_then(|(begin, end)| HourWindow::new(begin, end).ok());
            window.map(Some).ok_or(DcsError::MaintainTime)
        }
        _ => Err(DcsError::MaintainTime),
    }
}

/// Parses `HH:00:00`, `HH:00` or `HH`; clients send all three.
fn hour(text: &str) -> Option<u8> {
    let text = text.strip_suffix(":00").unwrap_or(text);
    let digits = text.strip_suffix(":00").unwrap_or(text);
    let is_hour = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
    is_hour.then(|| digits.parse().ok()).flatten()
}

/// A tag of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TagBody {
    #[schema(example = "owner", min_length = 1, max_length = 36)]
    #[schema(
        pattern = r"^[^\s,=\x00-\x1f\x7f-\x9f]([^,=\x00-\x1f\x7f-\x9f]*[^\s,=\x00-\x1f\x7f-\x9f])?$"
    )]
    key: String,
    #[serde(default)]
    #[schema(example = "terraform", max_length = 43, pattern = r"^[^,\x00-\x1f\x7f-\x9f]*$")]
    value: Option<String>,
}

impl From<&Tag> for TagBody {
    fn from(tag: &Tag) -> Self {
        Self { key: tag.key().to_owned(), value: Some(tag.value().to_owned()) }
    }
}

fn tags(wish: &[TagBody]) -> Result<Vec<Tag>, DcsError> {
    if wish.len() > TAGS_MAX {
        return Err(DcsError::InvalidField("tags"));
    }
    let tag = |tag: &TagBody| Tag::new(&tag.key, tag.value.as_deref().unwrap_or_default());
    wish.iter().map(tag).collect::<Result<_, _>>().map_err(|_| DcsError::InvalidField("tags"))
}

/// A change of tags.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct TagAction {
    /// `create` or `delete`.
    #[schema(example = "create", pattern = "^(create|delete)$", required, nullable = false)]
    action: Option<String>,
    /// With `delete` the value is optional; a given value must match.
    #[schema(min_items = 1, max_items = 20, required, nullable = false)]
    tags: Option<Vec<TagBody>>,
}

impl TagAction {
    /// Parses the change.
    pub(crate) fn change(self) -> Result<TagChange, DcsError> {
        let wish = self.tags.unwrap_or_default();
        if !(1..=TAGS_MAX).contains(&wish.len()) {
            return Err(DcsError::InvalidField("tags"));
        }
        match self.action.as_deref() {
            Some("create") => Ok(TagChange::Add(tags(&wish)?)),
            Some("delete") => {
                tags(&wish)?;
                let pattern = |tag: TagBody| (tag.key, tag.value.filter(|text| !text.is_empty()));
                Ok(TagChange::Remove(wish.into_iter().map(pattern).collect()))
            }
            _ => Err(DcsError::InvalidField("action")),
        }
    }
}

/// The tags of an instance.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InstanceTags {
    tags: Vec<TagBody>,
}

impl From<&[Tag]> for InstanceTags {
    fn from(tags: &[Tag]) -> Self {
        Self { tags: tags.iter().map(TagBody::from).collect() }
    }
}

/// The tags of a project: each key with all its values.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProjectTags {
    tags: Vec<KeyBody>,
}

#[derive(Debug, Serialize, ToSchema)]
struct KeyBody {
    #[schema(example = "owner")]
    key: String,
    values: Vec<String>,
}

impl From<&[Tag]> for ProjectTags {
    /// Requires tags sorted by key.
    fn from(tags: &[Tag]) -> Self {
        let of_key = |tags: &[Tag]| KeyBody {
            key: tags.first().map(|tag| tag.key().to_owned()).unwrap_or_default(),
            values: tags.iter().map(|tag| tag.value().to_owned()).collect(),
        };
        Self { tags: tags.chunk_by(|one, next| one.key() == next.key()).map(of_key).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_both_ends_or_none() {
        let window = |begin: &str, end: &str| {
            let said = |text: &str| (text != "-").then(|| text.to_owned());
            maintenance(said(begin), said(end)).map(|window| window.map(|w| w.to_string()))
        };
        assert_eq!(window("-", "-"), Ok(None));
        assert_eq!(window("", ""), Ok(None));
        for (begin, end) in [("22:00:00", "02:00:00"), ("22:00", "02:00"), ("22", "02")] {
            assert_eq!(window(begin, end), Ok(Some("22:00-02:00".into())), "{begin}");
        }
        for (begin, end) in [
            ("22:00:00", "-"),
            ("-", "02:00:00"),
            ("22:30:00", "02:00:00"),
            ("02:00", "02:00"),
            ("x", "y"),
        ] {
            assert_eq!(window(begin, end), Err(DcsError::MaintainTime), "{begin}");
        }
    }

    #[test]
    fn an_instance_requires_a_running_server() {
        let create = |json: &str| {
            let wish: CreateInstance<()> = serde_json::from_str(json).unwrap();
            wish.wish(|()| Err(DcsError::Internal)).map(|wish| wish.name.to_string())
        };
        assert_eq!(create(r#"{"name":"a","capacity":1}"#), Err(DcsError::NotSupported));
        let adopted = r#"{"name":"a","capacity":1,"cachevault":{"host":"h","port":1}}"#;
        assert_eq!(create(adopted), Ok("a".into()));
        let nowhere = r#"{"name":"a","cachevault":{"host":"","port":1}}"#;
        assert_eq!(create(nowhere), Err(DcsError::InvalidField("cachevault")));
        let lines = nowhere.replace(r#""host":"""#, r#""host":"h","password":"x\r\nQUIT""#);
        assert_eq!(create(&lines), Err(DcsError::InvalidField("cachevault")));
        let unnamed = r#"{"cachevault":{"host":"h","port":1}}"#;
        assert_eq!(create(unnamed), Err(DcsError::InvalidName));
    }
}
