//! Who asks, and what it is allowed to do.
//!
//! Permissions are the vendor's: names of actions, `service:resource:verb`, granted by patterns in
//! which `*` stands for any text within one part.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::{AccessKey, NewAuditRecord, ProjectId, RequestId, UserRef};

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
    /// Change an instance's name, description, window or backup policy, or how it is reached.
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
    /// List what has happened in the project, and follow it.
    ListEvents = "cachevault:event:list",
    /// List and show webhooks, without their secrets. It is no `list`, which every reader may: whoever
    /// knows the URL of a receiver can often write there.
    ListWebhooks = "cachevault:webhook:view",
    /// Create a webhook.
    CreateWebhook = "cachevault:webhook:create",
    /// Change a webhook.
    ModifyWebhook = "cachevault:webhook:modify",
    /// Delete a webhook.
    DeleteWebhook = "cachevault:webhook:delete",
    /// Send a message to a webhook, to see whether it comes.
    TestWebhook = "cachevault:webhook:test",
    /// Read who did what in the project.
    ReadAudit = "cachevault:audit:read",
    /// Break off a backup that waits or runs.
    CancelBackup = "cachevault:backup:cancel",
    /// Break off a restore that has not touched its target.
    CancelRestore = "cachevault:restore:cancel",
    /// Have a backup's stored files read again.
    CheckBackup = "cachevault:backup:check",
    /// Have a backup loaded into a throw-away server.
    DrillBackup = "cachevault:backup:drill",
    /// List the projects that the caller can work in.
    ListProjects = "cachevault:project:list",
    /// Show a project that the caller can work in.
    GetProject = "cachevault:project:get",
    /// List and show the project's credentials, without their secrets.
    ListCredentials = "cachevault:credential:list",
    /// Create a credential, also in place of another.
    CreateCredential = "cachevault:credential:create",
    /// Change, enable or disable a credential.
    ModifyCredential = "cachevault:credential:modify",
    /// Delete a credential.
    DeleteCredential = "cachevault:credential:delete",
    /// List and show the project's policies.
    ListPolicies = "cachevault:policy:list",
    /// Write a new policy.
    CreatePolicy = "cachevault:policy:create",
    /// Change what a policy allows.
    ModifyPolicy = "cachevault:policy:modify",
    /// Delete a policy.
    DeletePolicy = "cachevault:policy:delete",
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
        self.is_like(action.name())
    }

    /// Whether everything that `other` can ever stand for, this stands for too.
    fn covers(&self, other: &Self) -> bool {
        // A star of the other can only be matched by one of ours, which then takes whatever the
        // other's may stand for.
        self.is_like(&other.0)
    }

    fn is_like(&self, text: &str) -> bool {
        let mut parts = self.0.split(':').zip(text.split(':'));
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

/// What a caller is allowed to do. By default nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Permissions {
    granted: Vec<ActionPattern>,
    /// What has to allow it too.
    within: Option<Box<Self>>,
}

impl Permissions {
    /// Everything.
    pub fn everything() -> Self {
        [ActionPattern("*:*:*".to_owned())].into_iter().collect()
    }

    /// Whether they allow an action.
    pub fn allow(&self, action: Action) -> bool {
        self.granted.iter().any(|pattern| pattern.allows(action))
            && self.within.as_ref().is_none_or(|within| within.allow(action))
    }

    /// Only what `other` allows too.
    #[must_use]
    pub fn within(mut self, other: Self) -> Self {
        self.within = Some(Box::new(match self.within.take() {
            Some(within) => within.within(other),
            None => other,
        }));
        self
    }

    /// Whether everything that `other` can ever allow is allowed by these too, by what is written
    /// in the patterns: actions that do not exist yet count.
    pub fn cover(&self, other: &Self) -> bool {
        self.layers().all(|ours| {
            let covered =
                |theirs: &ActionPattern| ours.iter().any(|pattern| pattern.covers(theirs));
            other.layers().any(|theirs| theirs.iter().all(covered))
        })
    }

    /// The lists of patterns, each of which has to allow an action.
    fn layers(&self) -> impl Iterator<Item = &[ActionPattern]> {
        std::iter::successors(Some(self), |layer| layer.within.as_deref())
            .map(|layer| layer.granted.as_slice())
    }
}

impl FromIterator<ActionPattern> for Permissions {
    fn from_iter<I: IntoIterator<Item = ActionPattern>>(patterns: I) -> Self {
        Self { granted: patterns.into_iter().collect(), within: None }
    }
}

/// A role that every project has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BuiltInRole {
    /// Sees everything in the project.
    Reader,
    /// Runs backups, restores, checks and drills, and changes instances; deletes nothing and
    /// manages no access.
    Operator,
    /// May do everything in the project.
    Admin,
}

impl BuiltInRole {
    /// Every role, the one that may least first.
    pub const ALL: [Self; 3] = [Self::Reader, Self::Operator, Self::Admin];

    /// The role's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// What the role allows.
    pub fn permissions(self) -> Permissions {
        const READER: &[&str] = &["*:*:get*", "*:*:list*"];
        const OPERATOR: &[&str] = &[
            "*:*:get*",
            "*:*:list*",
            "dcs:instance:modify",
            "dcs:instance:backupData",
            "dcs:instance:restoreData",
            "dcs:instance:downloadBackupData",
            "cachevault:backup:cancel",
            "cachevault:restore:cancel",
            "cachevault:backup:check",
            "cachevault:backup:drill",
        ];
        let patterns = match self {
            Self::Reader => READER,
            Self::Operator => OPERATOR,
            Self::Admin => return Permissions::everything(),
        };
        patterns.iter().map(|pattern| ActionPattern((*pattern).to_owned())).collect()
    }
}

/// Who it is that asks. Tells nothing secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Whoever holds this access key.
    Key {
        /// The public half of the key.
        access_key: AccessKey,
        /// The user that it belongs to.
        user: Option<UserRef>,
    },
    /// A user, by password and token.
    User(UserRef),
    /// The service itself.
    Service,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { access_key, user: None } => write!(f, "key {access_key}"),
            Self::Key { access_key, user: Some(user) } => {
                write!(f, "key {access_key} of user {}", user.name)
            }
            Self::User(user) => write!(f, "user {}", user.name),
            Self::Service => f.write_str("the service"),
        }
    }
}

/// The caller is not allowed to do this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the permission `{}` is missing", .0.name())]
pub struct Denied(pub Action);

/// The caller does not administer the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is for administrators of the service")]
pub struct NotAdministrator;

/// Who asks: in one project or in none, with what it is allowed to do there.
///
/// A use case gets the project of a caller only by naming what it is about to do, so that none can
/// forget to ask.
#[derive(Debug, Clone)]
pub struct Caller {
    subject: Subject,
    project: Option<ProjectId>,
    permissions: Permissions,
    administers_service: bool,
}

impl Caller {
    /// The service itself, with what `permissions` allow it in the project.
    pub fn new(project: ProjectId, permissions: Permissions) -> Self {
        Self::in_project(Subject::Service, project, permissions)
    }

    /// Somebody that may do what `permissions` allow in the project.
    pub fn in_project(subject: Subject, project: ProjectId, permissions: Permissions) -> Self {
        Self { subject, project: Some(project), permissions, administers_service: false }
    }

    /// Somebody that has proven who it is, and may do nothing in any project.
    pub fn without_project(subject: Subject) -> Self {
        let permissions = Permissions::default();
        Self { subject, project: None, permissions, administers_service: false }
    }

    /// The service itself: it may do everything in the project, and administers the service.
    pub fn service(project: ProjectId) -> Self {
        Self::new(project, Permissions::everything()).administering_service(true)
    }

    /// The same caller, who administers the service or does not. No pattern of actions does this.
    #[must_use]
    pub fn administering_service(self, administers_service: bool) -> Self {
        Self { administers_service, ..self }
    }

    /// Who it is.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The user that it is, or whose key it holds.
    pub fn user(&self) -> Option<&UserRef> {
        match &self.subject {
            Subject::User(user) | Subject::Key { user: Some(user), .. } => Some(user),
            Subject::Key { user: None, .. } | Subject::Service => None,
        }
    }

    /// The project, for a caller that is allowed to do this there.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn may(&self, action: Action) -> Result<&ProjectId, Denied> {
        match &self.project {
            Some(project) if self.permissions.allow(action) => Ok(project),
            _ => Err(Denied(action)),
        }
    }

    /// Whether the caller may give away what `permissions` allow: nobody gives more than it has.
    pub fn may_grant(&self, permissions: &Permissions) -> bool {
        self.administers_service || self.permissions.cover(permissions)
    }

    /// Passes for a caller that manages the projects and users of the whole service.
    ///
    /// # Errors
    /// [`NotAdministrator`].
    pub fn administers_service(&self) -> Result<(), NotAdministrator> {
        if self.administers_service { Ok(()) } else { Err(NotAdministrator) }
    }

    /// A call of this caller, to be recorded.
    pub fn call(&self, request: RequestId, at: Timestamp) -> NewAuditRecord {
        let access_key = match &self.subject {
            Subject::Key { access_key, .. } => Some(access_key.clone()),
            Subject::User(_) | Subject::Service => None,
        };
        NewAuditRecord {
            request,
            project: self.project.clone(),
            access_key,
            user: self.user().map(|user| user.name.to_string()),
            address: None,
            operation: String::new(),
            resource: String::new(),
            at,
        }
    }

    /// The same caller for reading back what it has just been allowed to do: the answer to a call
    /// needs no permission of its own.
    #[must_use]
    pub fn for_answer(&self) -> Self {
        Self { permissions: Permissions::everything(), ..self.clone() }
    }

    /// Whether this is the caller's project.
    pub fn is_in(&self, project: &ProjectId) -> bool {
        self.project.as_ref() == Some(project)
    }

    /// The project that the caller is in, for telling it its own name: not for doing anything there.
    pub fn own_project(&self) -> Option<&ProjectId> {
        self.project.as_ref()
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

    fn permissions(patterns: &[&str]) -> Permissions {
        patterns.iter().map(|pattern| pattern.parse::<ActionPattern>().unwrap()).collect()
    }

    #[test]
    fn each_role_may_what_it_is_for_and_no_more() {
        let [reader, operator, admin] = BuiltInRole::ALL.map(BuiltInRole::permissions);
        for action in [Action::ListInstances, Action::ListBackups, Action::GetConfiguration] {
            assert!(reader.allow(action), "{action}");
        }
        for action in [Action::CreateBackup, Action::Restore, Action::DownloadBackup] {
            assert!(!reader.allow(action) && operator.allow(action), "{action}");
        }
        for action in [
            Action::CreateInstance,
            Action::DeleteInstance,
            Action::DeleteBackup,
            Action::CreateCredential,
            Action::ModifyCredential,
            Action::CreatePolicy,
            Action::ModifyPolicy,
        ] {
            assert!(!operator.allow(action), "{action}");
        }
        for action in Action::ALL {
            assert!(!reader.allow(*action) || operator.allow(*action), "{action}");
            assert!(admin.allow(*action), "{action}");
        }
        assert!(admin.cover(&operator) && operator.cover(&reader));
        assert!(!operator.cover(&admin) && !reader.cover(&operator));
    }

    #[test]
    fn nobody_covers_what_a_pattern_may_stand_for_one_day() {
        for (ours, theirs, covered) in [
            (&["dcs:*:*"][..], &["dcs:instance:get*"][..], true),
            (&["*:*:get*"], &["dcs:instance:get"], true),
            (&["*:*:*et*"], &["dcs:*:get*"], true),
            (&["dcs:instance:get"], &["dcs:instance:get*"], false),
            (&["dcs:instance:*"], &["dcs:*:get"], false),
            (&["dcs:instance:get", "dcs:instance:list"], &["dcs:instance:get"], true),
            (&["dcs:instance:get"], &["dcs:instance:get", "dcs:instance:list"], false),
            (&[], &[], true),
        ] {
            assert_eq!(
                permissions(ours).cover(&permissions(theirs)),
                covered,
                "{ours:?} {theirs:?}"
            );
        }
        // What is granted by name of every action is still less than a star.
        let names: Vec<_> = Action::ALL.iter().map(|action| action.name()).collect();
        assert!(!permissions(&names).cover(&Permissions::everything()));
    }

    #[test]
    fn permissions_within_others_are_what_both_allow() {
        let both = permissions(&["dcs:instance:*"]).within(permissions(&["*:*:get*"]));
        for action in Action::ALL {
            let expected = action.name().starts_with("dcs:instance:get");
            assert_eq!(both.allow(*action), expected, "{action}");
        }
        assert!(permissions(&["*:*:get*"]).cover(&both));
        assert!(!both.cover(&permissions(&["*:*:get*"])));
        assert!(both.cover(&permissions(&["dcs:instance:get"])));
        let none = both.clone().within(Permissions::default());
        assert!(Action::ALL.iter().all(|action| !none.allow(*action)));
        assert!(Action::ALL.iter().all(|action| !Permissions::default().allow(*action)));
    }

    #[test]
    fn no_permission_makes_an_administrator_of_the_service() {
        let project: ProjectId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let admin = Caller::new(project.clone(), Permissions::everything());
        assert_eq!(admin.administers_service(), Err(NotAdministrator));
        assert!(Caller::service(project).administers_service().is_ok());
        let nobody = Caller::without_project(Subject::Service).administering_service(true);
        assert!(Action::ALL.iter().all(|action| nobody.may(*action).is_err()));
    }
}
