//! Pages and filters of lists.

use jiff::Timestamp;

use crate::{InstanceId, InstanceState, Tag};

/// Which part of a list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Records to skip.
    pub offset: u64,
    /// Records to return at the most.
    pub limit: u32,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<T> {
    /// The records of the page.
    pub items: Vec<T>,
    /// How many records match in all.
    pub total: u64,
}

/// Which backups of an instance are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackupFilter {
    /// Created at this moment or later.
    pub created_from: Option<Timestamp>,
    /// Created at this moment or earlier.
    pub created_to: Option<Timestamp>,
    /// Records whose files were removed before this moment are left out.
    pub removed_since: Option<Timestamp>,
}

/// Which restores of an instance are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RestoreFilter {
    /// Created at this moment or later.
    pub created_from: Option<Timestamp>,
    /// Created at this moment or earlier.
    pub created_to: Option<Timestamp>,
}

/// Which instances of a project are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceFilter {
    /// With this id.
    pub id: Option<InstanceId>,
    /// With this name.
    pub name: Option<String>,
    /// With this text in the name.
    pub name_contains: Option<String>,
    /// At this host.
    pub host: Option<String>,
    /// In this state.
    pub state: Option<InstanceState>,
    /// With a capacity of so many bytes, from and to.
    pub capacity_bytes: Option<(u64, u64)>,
    /// With all of these tags.
    pub tags: Vec<Tag>,
    /// After this instance in the order of the list.
    pub after: Option<InstanceId>,
}

/// How many instances a project has, by state, and how large they are together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InstanceCounts {
    /// In service.
    pub running: u64,
    /// Being restored into.
    pub restoring: u64,
    /// Not answering.
    pub down: u64,
    /// Their capacities together, bytes.
    pub capacity_bytes: u64,
}

impl InstanceCounts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.running + self.restoring + self.down
    }
}
