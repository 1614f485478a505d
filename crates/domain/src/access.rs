//! Who asks, and what it is allowed to do.
//!
//! Permissions are the vendor's: names of actions, `service:resource:verb`, granted by patterns in
//! which `*` stands for any text within one part.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::{NewAuditRecord, ProjectId, RequestId};

macro_rules! actions {
    ($($(#[$doc:meta])* $action:ident = $name:literal,)+) => {
        /// Something that a caller can be allowed to do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Action {
            $($(#[$doc])* $action,)+
        }

        impl Action {
            /// Every action.
            pub const ALL: &[Self] = &[$(Self::$action,)+];

            /// The name that permissions are granted by.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$action => $name,)+
                }
            }
        }
    };
}

// The names that begin with `dcs` are the vendor's; what it does not have is named after us.
actions! {
    /// List instances and count them.
    ListInstances = "dcs:instance:list",
    /// Show an instance.
    GetInstance = "dcs:instance:get",
    /// Adopt an instance.
    CreateInstance = "dcs:instance:create",
    /// Change an instance's name, description, window or backup policy.
    ModifyInstance = "dcs:instance:modify",
    /// Let an instance go.
    DeleteInstance = "dcs:instance:delete",
    /// Show an instance's settings.
    GetConfiguration = "dcs:instance:getConfiguration",
    /// Ask for a backup.
    CreateBackup = "dcs:instance:backupData",
    /// List and show backups.
    ListBackups = "dcs:instance:getDataBackupLog",
    /// Remove a backup's files.
    DeleteBackup = "dcs:instance:deleteDataBackupFile",
    /// Get links to a backup's files.
    DownloadBackup = "dcs:instance:downloadBackupData",
    /// Plan and ask for a restore.
    Restore = "dcs:instance:restoreData",
    /// List and show restores.
    ListRestores = "dcs:instance:getDataRestoreLog",
    /// Read who did what in the project.
    ReadAudit = "cachevault:audit:read",
    /// Have a backup's stored files read again.
    CheckBackup = "cachevault:backup:check",
    /// Have a backup loaded into a throw-away server.
    DrillBackup = "cachevault:backup:drill",
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A pattern of action names: three parts, in each of which `*` stands for any text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionPattern(String);

/// The text is no pattern of actions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an action is written `service:resource:verb`, of letters and `*`, in {} characters at the most",
    ActionPattern::CHARS_MAX
)]
pub struct InvalidActionPattern;

impl ActionPattern {
    /// The longest pattern, characters.
    pub const CHARS_MAX: usize = 96;

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn allows(&self, action: Action) -> bool {
        let mut parts = self.0.split(':').zip(action.name().split(':'));
        parts.all(|(pattern, part)| is_like(pattern, part))
    }
}

impl FromStr for ActionPattern {
    type Err = InvalidActionPattern;

    fn from_str(text: &str) -> Result<Self, InvalidActionPattern> {
        let is_part = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphabetic() || b == b'*')
        };
        let is_pattern = text.len() <= Self::CHARS_MAX
            && text.split(':').count() == 3
            && text.split(':').all(is_part);
        if is_pattern { Ok(Self(text.to_owned())) } else { Err(InvalidActionPattern) }
    }
}

impl fmt::Display for ActionPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` is `pattern`, in which each `*` stands for any text.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some((head, mut pattern)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    // What lies between two stars is looked for where it comes first: that leaves most to the rest.
    while let Some((middle, rest)) = pattern.split_once('*') {
        let Some((_, behind)) = text.split_once(middle) else { return false };
        (pattern, text) = (rest, behind);
    }
    text.ends_with(pattern)
}

/// What a caller is allowed to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Permissions(Vec<ActionPattern>);

impl Permissions {
    /// Everything.
    pub fn everything() -> Self {
        Self(vec![ActionPattern("*:*:*".to_owned())])
    }

    /// Whether they allow an action.
    pub fn allow(&self, action: Action) -> bool {
        self.0.iter().any(|pattern| pattern.allows(action))
    }
}

impl FromIterator<ActionPattern> for Permissions {
    fn from_iter<I: IntoIterator<Item = ActionPattern>>(patterns: I) -> Self {
        Self(patterns.into_iter().collect())
    }
}

/// The caller is not allowed to do this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the permission `{}` is missing", .0.name())]
pub struct Denied(pub Action);

/// Who asks: in one project, with what it is allowed to do there.
///
/// A use case gets the project of a caller only by naming what it is about to do, so that none can
/// forget to ask.
#[derive(Debug, Clone)]
pub struct Caller {
    project: ProjectId,
    permissions: Permissions,
}

impl Caller {
    /// A caller that may do what `permissions` allow.
    pub fn new(project: ProjectId, permissions: Permissions) -> Self {
        Self { project, permissions }
    }

    /// The service itself, or whoever runs it: it may do everything in the project.
    pub fn service(project: ProjectId) -> Self {
        Self::new(project, Permissions::everything())
    }

    /// The project, for a caller that is allowed to do this there.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn may(&self, action: Action) -> Result<&ProjectId, Denied> {
        if self.permissions.allow(action) { Ok(&self.project) } else { Err(Denied(action)) }
    }

    /// A call of this caller, to be recorded.
    pub fn call(&self, request: RequestId, at: Timestamp) -> NewAuditRecord {
        NewAuditRecord {
            request,
            project: Some(self.project.clone()),
            access_key: None,
            user: None,
            address: None,
            operation: String::new(),
            resource: String::new(),
            at,
        }
    }

    /// Whether this is the caller's project.
    pub fn is_in(&self, project: &ProjectId) -> bool {
        self.project == *project
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pattern: &str, action: Action) -> bool {
        pattern.parse::<ActionPattern>().unwrap().allows(action)
    }

    #[test]
    fn a_star_stands_for_any_text_within_its_part() {
        for (pattern, allowed) in [
            ("dcs:instance:get", true),
            ("dcs:instance:*", true),
            ("dcs:*:get*", true),
            ("*:*:*", true),
            ("*:inst*e:*e*", true),
            ("dcs:instance:*g*t", true),
            ("dcs:instance:*g*g*", false),
            ("dcs:instance:list", false),
            ("dcs:instance:ge", false),
            ("dcs:instance:et", false),
            ("dcs:instance:*et*t", false),
            ("cachevault:*:*", false),
        ] {
            assert_eq!(allows(pattern, Action::GetInstance), allowed, "{pattern}");
        }
    }

    #[test]
    fn only_three_parts_of_letters_and_stars_are_a_pattern() {
        for text in ["", "*", "dcs:*", "dcs:instance:get:more", "dcs::get", "dcs:in stance:get"] {
            assert!(text.parse::<ActionPattern>().is_err(), "{text}");
        }
        assert!(format!("dcs:instance:{}", "x".repeat(96)).parse::<ActionPattern>().is_err());
    }

    #[test]
    fn every_action_is_allowed_by_its_own_name_alone() {
        for action in Action::ALL {
            let granted: Vec<_> =
                Action::ALL.iter().filter(|other| allows(action.name(), **other)).collect();
            assert_eq!(granted, [action]);
        }
    }

    #[test]
    fn a_caller_gives_its_project_only_for_what_it_may_do() {
        let project: ProjectId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let reader = ["dcs:*:get*".parse().unwrap()].into_iter().collect();
        let caller = Caller::new(project.clone(), reader);
        assert_eq!(caller.may(Action::ListBackups), Ok(&project));
        assert_eq!(caller.may(Action::Restore), Err(Denied(Action::Restore)));
        assert!(Caller::new(project, Permissions::default()).may(Action::GetInstance).is_err());
    }
}
