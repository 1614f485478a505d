//! Webhooks, and what they are still to be told.

use async_trait::async_trait;
use cachevault_catalog::{CatalogError, WebhookCatalog};
use cachevault_domain::{
    Delivery, DeliveryResult, EVENT_DETAIL_CHARS_MAX, Event, EventId, EventKind, NodeId, ProjectId,
    SealedSecret, WEBHOOKS_MAX, Webhook, WebhookChange, WebhookId,
};
use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, SqliteExecutor};

use crate::events::{self, EventRow};
use crate::row::{RowOf, signed};
use crate::{SqliteCatalog, projects, unavailable};

/// Selects webhooks for which something may be to do: something has happened in their project since.
const DUE: &str = "SELECT * FROM webhooks w
    WHERE w.enabled = 1 AND w.next_at <= ?1 AND w.lease_until <= ?1
        AND (SELECT p.enabled FROM projects p WHERE p.id = w.project_id)
        AND w.after_event < (SELECT max(e.id) FROM events e WHERE e.project_id = w.project_id)
    ORDER BY w.next_at, w.seq LIMIT 1";
/// Whether a webhook is told of this kind; the words in the column have commas around them.
const IS_TOLD: &str =
    " AND instr((SELECT kinds FROM webhooks WHERE seq = ?1), ',' || e.kind || ',') > 0";

#[derive(sqlx::FromRow)]
struct WebhookRow {
    seq: i64,
    id: String,
    project_id: String,
    url: String,
    kinds: String,
    secret: Vec<u8>,
    enabled: bool,
    created_at: i64,
    after_event: i64,
    failures: i64,
    given_up: i64,
    last_error: Option<String>,
    last_error_at: Option<i64>,
    delivered_at: Option<i64>,
    attempt: i64,
}

impl WebhookRow {
    fn webhook(&self) -> Result<Webhook, CatalogError> {
        let row = RowOf { table: "webhooks", key: &self.id };
        let last_error_at = row.moment_if(self.last_error_at)?;
        let kinds = self.kinds.split(',').filter(|word| !word.is_empty());
        Ok(Webhook {
            id: row.parse(&self.id)?,
            project: row.parse(&self.project_id)?,
            url: self.url.clone(),
            kinds: kinds.map(|word| row.parse(word)).collect::<Result<_, _>>()?,
            enabled: self.enabled,
            created_at: row.moment(self.created_at)?,
            failures: row.number(self.failures)?,
            given_up: row.number(self.given_up)?,
            last_error: last_error_at.zip(self.last_error.clone()),
            delivered_at: row.moment_if(self.delivered_at)?,
        })
    }
}

fn joined(kinds: &[EventKind]) -> String {
    kinds.iter().fold(",".to_owned(), |text, kind| text + kind.as_str() + ",")
}

/// Lets go of the deliveries of a node whose process has ended.
pub(crate) async fn release_node(
    executor: impl SqliteExecutor<'_>,
    node: NodeId,
) -> Result<(), CatalogError> {
    sqlx::query("UPDATE webhooks SET lease_until = 0 WHERE lease_node = ?")
        .bind(node.to_string())
        .execute(executor)
        .await
        .map(drop)
        .map_err(unavailable)
}

async fn due(
    executor: impl SqliteExecutor<'_>,
    now: Timestamp,
) -> Result<Option<WebhookRow>, CatalogError> {
    let row = sqlx::query_as(DUE).bind(now.as_microsecond()).fetch_optional(executor);
    row.await.map_err(unavailable)
}

/// The first event that a webhook is still to be told of.
async fn next_event(
    tx: &mut SqliteConnection,
    webhook: &WebhookRow,
) -> Result<Option<Event>, CatalogError> {
    let row: Option<EventRow> = QueryBuilder::<Sqlite>::new(events::SELECT)
        .push("e.project_id = ?2 AND e.id > ?3")
        .push(IS_TOLD)
        .push(" ORDER BY e.id LIMIT 1")
        .build_query_as()
        .bind(webhook.seq)
        .bind(&webhook.project_id)
        .bind(webhook.after_event)
        .fetch_optional(tx)
        .await
        .map_err(unavailable)?;
    row.map(Event::try_from).transpose()
}

async fn move_on(
    tx: &mut SqliteConnection,
    webhook: &WebhookRow,
    after: EventId,
) -> Result<(), CatalogError> {
    sqlx::query("UPDATE webhooks SET after_event = max(after_event, ?) WHERE seq = ?")
        .bind(signed(after.get()))
        .bind(webhook.seq)
        .execute(tx)
        .await
        .map(drop)
        .map_err(unavailable)
}

async fn lease(
    tx: &mut SqliteConnection,
    row: WebhookRow,
    event: Event,
    (node, until): (NodeId, Timestamp),
) -> Result<Delivery, CatalogError> {
    let attempt = row.attempt + 1;
    sqlx::query("UPDATE webhooks SET attempt = ?, lease_until = ?, lease_node = ? WHERE seq = ?")
        .bind(attempt)
        .bind(until.as_microsecond())
        .bind(node.to_string())
        .bind(row.seq)
        .execute(tx)
        .await
        .map_err(unavailable)?;
    let attempt = RowOf { table: "webhooks", key: &row.id }.number(attempt)?;
    Ok(Delivery { webhook: row.webhook()?, secret: SealedSecret(row.secret), attempt, event })
}

/// Passes over what is given up of what a webhook was still to be told; how much that is.
async fn give_up(
    tx: &mut SqliteConnection,
    webhook: &WebhookRow,
    before: Timestamp,
) -> Result<i64, CatalogError> {
    let (count, last): (i64, Option<i64>) = QueryBuilder::<Sqlite>::new(
        "SELECT count(*), max(e.id) FROM events e WHERE e.project_id = ?2 AND e.id > ?3 AND e.at < ?4",
    )
    .push(IS_TOLD)
    .build_query_as()
    .bind(webhook.seq)
    .bind(&webhook.project_id)
    .bind(webhook.after_event)
    .bind(before.as_microsecond())
    .fetch_one(&mut *tx)
    .await
    .map_err(unavailable)?;
    if let Some(last) = last {
        move_on(tx, webhook, EventId::new(last.unsigned_abs())).await?;
    }
    Ok(count)
}

async fn fail(
    tx: &mut SqliteConnection,
    webhook: &WebhookRow,
    reason: &str,
    next_at: Option<Timestamp>,
    given_up: i64,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let reason: String = reason.chars().take(EVENT_DETAIL_CHARS_MAX).collect();
    sqlx::query(
        "UPDATE webhooks SET failures = failures + 1, given_up = given_up + ?2, last_error = ?3,
             last_error_at = ?4, next_at = coalesce(?5, next_at), enabled = (?5 IS NOT NULL AND enabled),
             lease_until = 0
         WHERE seq = ?1",
    )
    .bind(webhook.seq)
    .bind(given_up)
    .bind(reason)
    .bind(now.as_microsecond())
    .bind(next_at.map(Timestamp::as_microsecond))
    .execute(tx)
    .await
    .map(drop)
    .map_err(unavailable)
}

async fn succeed(
    tx: &mut SqliteConnection,
    webhook: &WebhookRow,
    event: EventId,
    now: Timestamp,
) -> Result<(), CatalogError> {
    move_on(&mut *tx, webhook, event).await?;
    // It comes last among those that are due: one with much to be told keeps no other waiting.
    sqlx::query(
        "UPDATE webhooks SET failures = 0, delivered_at = ?1, next_at = ?1, lease_until = 0 WHERE seq = ?2",
    )
        .bind(now.as_microsecond())
        .bind(webhook.seq)
        .execute(tx)
        .await
        .map(drop)
        .map_err(unavailable)
}

async fn find(
    executor: impl SqliteExecutor<'_>,
    project: &ProjectId,
    id: WebhookId,
) -> Result<Option<WebhookRow>, CatalogError> {
    sqlx::query_as("SELECT * FROM webhooks WHERE id = ? AND project_id = ?")
        .bind(id.to_string())
        .bind(project.as_str())
        .fetch_optional(executor)
        .await
        .map_err(unavailable)
}

#[async_trait]
impl WebhookCatalog for SqliteCatalog {
    async fn add_webhook(
        &self,
        webhook: &Webhook,
        secret: &SealedSecret,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        if !projects::is_there(&mut tx, &webhook.project).await? {
            return Err(CatalogError::NotFound("project"));
        }
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM webhooks WHERE project_id = ?")
            .bind(webhook.project.as_str())
            .fetch_one(&mut *tx)
            .await
            .map_err(unavailable)?;
        if count >= i64::from(WEBHOOKS_MAX) {
            return Err(CatalogError::TooManyWebhooks);
        }
        let newest = events::newest(&mut tx).await?;
        sqlx::query(
            "INSERT INTO webhooks (id, project_id, url, kinds, secret, enabled, created_at, after_event)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(webhook.id.to_string())
        .bind(webhook.project.as_str())
        .bind(&webhook.url)
        .bind(joined(&webhook.kinds))
        .bind(&secret.0)
        .bind(webhook.enabled)
        .bind(webhook.created_at.as_microsecond())
        .bind(signed(newest.get()))
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)
    }

    async fn find_webhook(
        &self,
        project: &ProjectId,
        id: WebhookId,
    ) -> Result<Option<(Webhook, SealedSecret)>, CatalogError> {
        let row = find(&self.readers, project, id).await?;
        row.map(|row| Ok((row.webhook()?, SealedSecret(row.secret)))).transpose()
    }

    async fn list_webhooks(&self, project: &ProjectId) -> Result<Vec<Webhook>, CatalogError> {
        let rows: Vec<WebhookRow> =
            sqlx::query_as("SELECT * FROM webhooks WHERE project_id = ? ORDER BY seq")
                .bind(project.as_str())
                .fetch_all(&self.readers)
                .await
                .map_err(unavailable)?;
        rows.iter().map(WebhookRow::webhook).collect()
    }

    async fn change_webhook(
        &self,
        project: &ProjectId,
        id: WebhookId,
        change: &WebhookChange,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        let row = find(&mut *tx, project, id).await?.ok_or(CatalogError::NotFound("webhook"))?;
        if change.enabled == Some(true) && !row.enabled {
            // What happened meanwhile it was not to be told.
            let newest = events::newest(&mut tx).await?;
            move_on(&mut tx, &row, newest).await?;
        }
        let is_fresh = change.url.is_some() || change.enabled == Some(true);
        sqlx::query(
            "UPDATE webhooks SET url = coalesce(?2, url), kinds = coalesce(?3, kinds),
                 enabled = coalesce(?4, enabled), next_at = CASE WHEN ?5 THEN 0 ELSE next_at END,
                 failures = CASE WHEN ?5 THEN 0 ELSE failures END
             WHERE seq = ?1",
        )
        .bind(row.seq)
        .bind(&change.url)
        .bind(change.kinds.as_deref().map(joined))
        .bind(change.enabled)
        .bind(is_fresh)
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)
    }

    async fn remove_webhook(&self, project: &ProjectId, id: WebhookId) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        let removed = sqlx::query("DELETE FROM webhooks WHERE id = ? AND project_id = ?")
            .bind(id.to_string())
            .bind(project.as_str())
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
        if removed.rows_affected() == 0 {
            return Err(CatalogError::NotFound("webhook"));
        }
        tx.commit().await.map_err(unavailable)
    }

    async fn claim_delivery(
        &self,
        node: NodeId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Delivery>, CatalogError> {
        // Nothing is to do most of the time: that costs no write.
        if due(&self.readers, now).await?.is_none() {
            return Ok(None);
        }
        let mut tx = self.write().await?;
        let mut claimed = None;
        while let Some(row) = due(&mut *tx, now).await? {
            if let Some(event) = next_event(&mut tx, &row).await? {
                claimed = Some(lease(&mut tx, row, event, (node, until)).await?);
                break;
            }
            // It is told of nothing that has happened; it is not looked at again for that.
            let newest = events::newest(&mut tx).await?;
            move_on(&mut tx, &row, newest).await?;
        }
        tx.commit().await.map_err(unavailable)?;
        Ok(claimed)
    }

    async fn end_delivery(
        &self,
        delivery: &Delivery,
        result: &DeliveryResult,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        let webhook = &delivery.webhook;
        let row = find(&mut *tx, &webhook.project, webhook.id).await?;
        let row = row.filter(|row| row.attempt == i64::from(delivery.attempt));
        let row = row.ok_or(CatalogError::LostLease)?;
        match result {
            DeliveryResult::Delivered => succeed(&mut tx, &row, delivery.event.id, now).await?,
            DeliveryResult::Failed { reason, next_at, give_up_before } => {
                let given_up = give_up(&mut tx, &row, *give_up_before).await?;
                fail(&mut tx, &row, reason, Some(*next_at), given_up, now).await?;
            }
            DeliveryResult::Unwanted { reason } => {
                fail(&mut tx, &row, reason, None, 0, now).await?;
            }
        }
        tx.commit().await.map_err(unavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedules::plan_of;

    #[tokio::test]
    async fn what_is_due_is_found_by_indexes() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = SqliteCatalog::open(&folder.path().join("catalog.sqlite")).await.unwrap();
        let plan = plan_of(&catalog, DUE).await;
        assert!(plan.contains("webhooks_due") && plan.contains("events_of_project"), "{plan}");
        assert!(!plan.contains("SCAN"), "{plan}");
    }
}
