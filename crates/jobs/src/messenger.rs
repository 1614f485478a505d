//! Tells webhooks what has happened.
//!
//! What is still to be told is in the catalog: the events behind the last that a webhook was told of.
//! One of them is claimed with a lease, sent, and recorded. A process that dies between sending and
//! recording sends it once more, under the same id.

use std::time::Duration;

use cachevault_app::{App, NotDelivered};
use cachevault_catalog::CatalogError;
use cachevault_domain::{Backoff, Delivery, DeliveryResult, EventId, NodeId, with_sources};
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::shutdown::Shutdown;

/// Messages that are on their way at a time. Each goes to another webhook.
pub const MESSAGES_MAX: usize = 16;
/// How often it is looked for what other processes have recorded, and for what is to be tried again.
const LOOK: Duration = Duration::from_secs(1);
/// Longer than sending and recording one message takes.
const LEASE: Duration = Duration::from_secs(60);
/// Pauses after failures; when it is enough, time decides.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(2),
    longest: Duration::from_mins(15),
    attempts_max: u32::MAX,
};

/// Tells webhooks what has happened. Several may run, on one node or on many.
#[derive(Debug, Clone)]
pub struct Messenger {
    /// The use cases' context.
    pub app: App,
    /// Whose leases they are.
    pub node: NodeId,
    /// How old an event may become before a delivery that fails was the last.
    pub give_up_after: Duration,
}

impl Messenger {
    /// Tells what is to be told until the soft phase of `shutdown`; what is on its way then comes to
    /// its end, or to the hard phase.
    pub async fn run(&self, shutdown: &Shutdown) {
        let mut sending = JoinSet::new();
        let send = async {
            let mut newest = EventId::ZERO;
            loop {
                while sending.len() < MESSAGES_MAX
                    && let Some(delivery) = self.claim().await
                {
                    let messenger = self.clone();
                    sending.spawn(async move { messenger.tell(&delivery).await });
                }
                tokio::select! {
                    // Its webhook may be told more.
                    Some(_) = sending.join_next() => {}
                    woken = timeout(LOOK, self.app.catalog.wait_for_event(newest)) => {
                        newest = woken.unwrap_or(newest);
                    }
                }
            }
        };
        tokio::select! {
            () = shutdown.soft.cancelled() => {}
            () = send => {}
        }
        tokio::select! {
            () = shutdown.hard.cancelled() => {}
            () = async { while sending.join_next().await.is_some() {} } => {}
        }
    }

    /// Tells one webhook of one event, where there is one to be told of. Whether there was.
    pub async fn round(&self) -> bool {
        let Some(delivery) = self.claim().await else { return false };
        self.tell(&delivery).await;
        true
    }

    async fn claim(&self) -> Option<Delivery> {
        let now = self.app.clock.now();
        let until = now.checked_add(LEASE).unwrap_or(Timestamp::MAX);
        let claimed = self.app.catalog.claim_delivery(self.node, now, until).await;
        claimed.unwrap_or_else(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "what webhooks are to be told cannot be told");
            None
        })
    }

    async fn tell(&self, delivery: &Delivery) {
        let (webhook, event) = (delivery.webhook.id, delivery.event.id);
        let sent = self.app.deliver(delivery).await;
        match &sent {
            Ok(()) => tracing::info!(%webhook, %event, "a webhook was told of an event"),
            Err(NotDelivered { reason, .. }) => {
                tracing::warn!(%webhook, %event, reason, "a webhook could not be told of an event");
            }
        }
        let now = self.app.clock.now();
        let result = self.result(delivery, sent, now);
        match self.app.catalog.end_delivery(delivery, &result, now).await {
            Ok(()) => {}
            // It was removed meanwhile, or took so long that somebody else tells it.
            Err(CatalogError::LostLease) => {}
            Err(error) => {
                let reason = with_sources(&error);
                tracing::error!(%webhook, %event, reason, "a delivery cannot be recorded");
            }
        }
    }

    fn result(
        &self,
        delivery: &Delivery,
        sent: Result<(), NotDelivered>,
        now: Timestamp,
    ) -> DeliveryResult {
        match sent {
            Ok(()) => DeliveryResult::Delivered,
            Err(NotDelivered { reason, is_unwanted: true }) => DeliveryResult::Unwanted { reason },
            Err(NotDelivered { reason, is_unwanted: false }) => {
                let mut jitter = [0];
                self.app.entropy.fill(&mut jitter);
                let failures = delivery.webhook.failures.saturating_add(1);
                let next_at = BACKOFF.next_at(failures, now, jitter[0]);
                let give_up_before = now.checked_sub(self.give_up_after).unwrap_or(Timestamp::MIN);
                let next_at = next_at.unwrap_or(Timestamp::MAX);
                DeliveryResult::Failed { reason, next_at, give_up_before }
            }
        }
    }
}
