//! What has happened, who did it, and who is told.

use async_trait::async_trait;
use cachevault_domain::{
    AuditFilter, AuditRecord, AuditResult, Delivery, DeliveryResult, EventFilter, EventId,
    EventKind, EventPage, NewAuditRecord, NodeId, ProjectId, RequestId, SealedSecret, Webhook,
    WebhookChange, WebhookId,
};
use jiff::Timestamp;

use crate::CatalogError;

/// Who did what.
#[async_trait]
pub trait AuditCatalog: Send + Sync {
    /// Records a call before anything is done for it.
    async fn begin_audit(&self, call: &NewAuditRecord) -> Result<(), CatalogError>;

    /// Records how a call was answered. The first answer stays.
    async fn end_audit(
        &self,
        request: &RequestId,
        result: &AuditResult,
    ) -> Result<(), CatalogError>;

    /// Calls about a project, `limit` at the most, in the order that the filter says.
    ///
    /// [`CatalogError::NotFound`] without the record of the project that the list is to follow.
    async fn list_audit(
        &self,
        project: &ProjectId,
        filter: &AuditFilter,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, CatalogError>;

    /// Forgets calls from before a moment; how many.
    async fn drop_audit(&self, before: Timestamp) -> Result<u64, CatalogError>;
}

/// What has happened. Every method of the other traits that makes something happen records the event
/// together with it, or not at all.
#[async_trait]
pub trait EventCatalog: Send + Sync {
    /// Events of a project, `limit` at the most, in the order that the filter says. Once an event is
    /// listed none with a lower number comes any more.
    async fn list_events(
        &self,
        project: &ProjectId,
        filter: &EventFilter,
        limit: u32,
    ) -> Result<EventPage, CatalogError>;

    /// Records an event of the whole service, once for every project that is enabled.
    async fn record_service_event(
        &self,
        kind: EventKind,
        detail: Option<&str>,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// Which of these has happened last to the whole service.
    async fn newest_service_event(
        &self,
        kinds: [EventKind; 2],
    ) -> Result<Option<EventKind>, CatalogError>;

    /// Forgets events from before a moment, `limit` at the most; how many. Numbers are not given
    /// again.
    async fn drop_events(&self, before: Timestamp, limit: u32) -> Result<u64, CatalogError>;

    /// Returns when an event behind this one may have been recorded. Events may come without it:
    /// never the only trigger.
    /// Gives the newest that is known.
    async fn wait_for_event(&self, after: EventId) -> EventId;
}

/// Webhooks, and what they are still to be told.
#[async_trait]
pub trait WebhookCatalog: Send + Sync {
    /// Adds a webhook, which is told of what happens from then on.
    ///
    /// [`CatalogError::TooManyWebhooks`], [`CatalogError::NotFound`] without the project.
    async fn add_webhook(
        &self,
        webhook: &Webhook,
        secret: &SealedSecret,
    ) -> Result<(), CatalogError>;

    /// The webhook, with its secret.
    async fn find_webhook(
        &self,
        project: &ProjectId,
        id: WebhookId,
    ) -> Result<Option<(Webhook, SealedSecret)>, CatalogError>;

    /// All webhooks of a project, oldest first.
    async fn list_webhooks(&self, project: &ProjectId) -> Result<Vec<Webhook>, CatalogError>;

    /// Changes a webhook. With a new URL, or enabled again, it is tried at once.
    ///
    /// [`CatalogError::NotFound`].
    async fn change_webhook(
        &self,
        project: &ProjectId,
        id: WebhookId,
        change: &WebhookChange,
    ) -> Result<(), CatalogError>;

    /// Removes a webhook; it is told nothing more.
    ///
    /// [`CatalogError::NotFound`].
    async fn remove_webhook(&self, project: &ProjectId, id: WebhookId) -> Result<(), CatalogError>;

    /// Claims the oldest event that a webhook of any project is still to be told of. Of one webhook
    /// one is claimed at a time, and the next only when that was delivered or given up.
    async fn claim_delivery(
        &self,
        node: NodeId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Delivery>, CatalogError>;

    /// Records how a delivery ended.
    ///
    /// [`CatalogError::LostLease`] where somebody else has claimed it since, or the webhook is gone.
    async fn end_delivery(
        &self,
        delivery: &Delivery,
        result: &DeliveryResult,
        now: Timestamp,
    ) -> Result<(), CatalogError>;
}
