//! URLs that are told what happens.

use jiff::Timestamp;

use crate::{Event, EventKind, ProjectId, SealedSecret, WebhookId};

/// How many webhooks a project may have.
pub const WEBHOOKS_MAX: u32 = 16;

/// A URL that is told of events of its project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// The project.
    pub project: ProjectId,
    /// Where messages go.
    pub url: String,
    /// What it is told of; never nothing, each once.
    pub kinds: Vec<EventKind>,
    /// Whether it is told anything.
    pub enabled: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// Deliveries in a row that failed.
    pub failures: u32,
    /// Events that it was never told of, because that failed for too long.
    pub given_up: u64,
    /// What was wrong with the last delivery that failed, and when.
    pub last_error: Option<(Timestamp, String)>,
    /// When it was told of an event last.
    pub delivered_at: Option<Timestamp>,
}

impl Webhook {
    /// What a webhook is told of where nobody says: what somebody has to do something about.
    pub const KINDS_DEFAULT: [EventKind; 4] = [
        EventKind::BackupFailed,
        EventKind::BackupExpired,
        EventKind::WindowMissed,
        EventKind::DiskLow,
    ];
}

/// What to change of a webhook; what is `None` stays. One that is enabled again is told of what
/// happens from then on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebhookChange {
    /// Where messages go.
    pub url: Option<String>,
    /// What it is told of.
    pub kinds: Option<Vec<EventKind>>,
    /// Whether it is told anything.
    pub enabled: Option<bool>,
}

/// One event that a webhook is to be told of, by whoever holds its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The webhook.
    pub webhook: Webhook,
    /// Its secret.
    pub secret: SealedSecret,
    /// The number of the lease: a write with a lower one than the last is refused.
    pub attempt: u32,
    /// What it is to be told.
    pub event: Event,
}

/// How a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryResult {
    /// It was taken.
    Delivered,
    /// It was not, and is tried again.
    Failed {
        /// Why not, for an operator.
        reason: String,
        /// When it is tried again.
        next_at: Timestamp,
        /// Events from before this moment are given up.
        give_up_before: Timestamp,
    },
    /// It was not, and the receiver wants nothing any more: the webhook is disabled.
    Unwanted {
        /// What the receiver said, for an operator.
        reason: String,
    },
}
