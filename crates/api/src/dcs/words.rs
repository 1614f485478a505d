//! The vendor's names for states, types and codes, and its time formats.

use cachevault_app::BackupLinks;
use cachevault_domain::{
    Backup, BackupState, FailureCode, Instance, InstanceState, JobKind, RestoreState, Trigger,
};
use jiff::Timestamp;

/// The bucket name that clients see for a store in a local folder. Clients expect one.
const NO_BUCKET: &str = "cachevault";

/// The bucket of a backup's files. Objects in the bucket are compressed and may be encrypted;
/// download links return the files as they were captured.
pub(crate) fn bucket_name(links: &BackupLinks) -> String {
    links.bucket.clone().unwrap_or_else(|| NO_BUCKET.to_owned())
}

/// `YYYY-MM-DDTHH:MM:SS.mmmZ`.
pub(crate) fn time(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

pub(crate) fn backup_status(state: BackupState) -> &'static str {
    match state {
        BackupState::Waiting => "waiting",
        BackupState::Running => "backuping",
        BackupState::Succeeded => "succeed",
        BackupState::Failed => "failed",
        BackupState::Expired => "expired",
        BackupState::Deleted => "deleted",
    }
}

pub(crate) fn restore_status(state: RestoreState) -> &'static str {
    match state {
        RestoreState::Waiting => "waiting",
        RestoreState::Running => "restoring",
        RestoreState::Succeeded => "succeed",
        RestoreState::Failed => "failed",
    }
}

pub(crate) fn restore_name(created_at: Timestamp) -> String {
    created_at.strftime("restore_%Y%m%d%H%M%S").to_string()
}

pub(crate) fn backup_name(created_at: Timestamp) -> String {
    created_at.strftime("backup_%Y%m%d%H%M%S").to_string()
}

pub(crate) fn backup_type(trigger: Trigger) -> &'static str {
    match trigger {
        // The vendor has no third type.
        Trigger::Manual | Trigger::Safety => "manual",
        Trigger::Automatic => "auto",
    }
}

pub(crate) fn error_code(code: FailureCode) -> &'static str {
    match code {
        FailureCode::ToolFailed => "dcs.08.0001",
        FailureCode::TimedOut => "dcs.08.0002",
        FailureCode::RemovalFailed => "dcs.08.0003",
        FailureCode::StoreCredentials => "dcs.08.0004",
        FailureCode::StoreUnusable => "dcs.08.0005",
        FailureCode::SizeUnconfirmed => "dcs.08.0006",
        FailureCode::RestoreSyncFailed => "dcs.08.0007",
        FailureCode::InstanceBusy => "dcs.08.0008",
    }
}

pub(crate) fn is_support_restore(backup: &Backup) -> &'static str {
    if backup.is_restorable() { "TRUE" } else { "FALSE" }
}

pub(crate) fn instance_status(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Running => "RUNNING",
        InstanceState::Restoring => "RESTORING",
        InstanceState::Down => "ERROR",
    }
}

/// The documented statuses. Instances of this service use only three of them.
const INSTANCE_STATUSES: [&str; 12] = [
    "CREATING",
    "CREATEFAILED",
    "RUNNING",
    "ERROR",
    "RESTARTING",
    "EXTENDING",
    "RESTORING",
    "FROZEN",
    "FLUSHING",
    "STARTING",
    "CLOSING",
    "CLOSED",
];

/// A text that is not a documented status.
#[derive(Debug)]
pub(crate) struct UnknownStatus;

/// The state with this documented name, if an instance of this service can have it.
pub(crate) fn instance_state(status: &str) -> Result<Option<InstanceState>, UnknownStatus> {
    let is_documented = INSTANCE_STATUSES.iter().any(|known| status.eq_ignore_ascii_case(known));
    let states = [InstanceState::Running, InstanceState::Restoring, InstanceState::Down];
    let is_meant = |state: &InstanceState| status.eq_ignore_ascii_case(instance_status(*state));
    if is_documented { Ok(states.into_iter().find(is_meant)) } else { Err(UnknownStatus) }
}

/// An hour of the day as `HH:mm:ss`.
pub(crate) fn hour(hour: u8) -> String {
    format!("{hour:02}:00:00")
}

/// The running task of an instance. A backup appears here and never in the status.
pub(crate) fn instance_task(instance: &Instance) -> Option<&'static str> {
    match instance.operation? {
        JobKind::Capture => Some("BACKUPING"),
        JobKind::Restore => Some("RESTORING"),
        JobKind::Remove | JobKind::Drill => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_names_are_written_as_documented() {
        let moment: Timestamp = "2019-05-10T08:31:16.166Z".parse().unwrap();
        assert_eq!(time(moment), "2019-05-10T08:31:16.166Z");
        assert_eq!(time("2019-05-10T08:31:16Z".parse().unwrap()), "2019-05-10T08:31:16.000Z");
        assert_eq!(backup_name(moment), "backup_20190510083116");
    }

    #[test]
    fn every_documented_state_and_code_has_a_name() {
        let states: Vec<_> = BackupState::ALL.into_iter().map(backup_status).collect();
        assert_eq!(states, ["waiting", "backuping", "succeed", "failed", "expired", "deleted"]);
        let states: Vec<_> = RestoreState::ALL.into_iter().map(restore_status).collect();
        assert_eq!(states, ["waiting", "restoring", "succeed", "failed"]);
        let codes: Vec<_> = FailureCode::ALL.into_iter().map(error_code).collect();
        let documented: Vec<_> = (1..=8).map(|n| format!("dcs.08.000{n}")).collect();
        assert_eq!(codes, documented);
    }

    #[test]
    fn the_page_about_states_and_codes_matches_the_code() {
        let page = include_str!("../../../../docs/codes.md");
        for state in BackupState::ALL {
            let row = format!("| `{}` | `{}` |", backup_status(state), state.as_str());
            assert!(page.contains(&row), "{row}");
        }
        for code in FailureCode::ALL {
            let begin = format!("### {}\n\n`{}`: ", error_code(code), code.as_str());
            let (_, section) = page.split_once(&begin).unwrap_or_else(|| panic!("{begin}"));
            let section = section.split("###").next().unwrap();
            assert!(section.contains(&format!("\n> {}\n", code.hint())), "{section}");
        }
    }
}
