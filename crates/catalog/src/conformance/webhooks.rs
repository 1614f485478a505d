//! Webhooks: what each is still to be told, by one at a time.

use cachevault_domain::{
    Delivery, DeliveryResult, EventKind, NodeId, SealedSecret, WEBHOOKS_MAX, Webhook,
    WebhookChange, WebhookId,
};

use super::identity::open_project;
use super::{Numbered, at, instance, instance_id, is_lost, new_backup, node, prepare, project};
use crate::{Catalog, CatalogError};

fn webhook(n: u8) -> Webhook {
    Webhook {
        id: WebhookId::mint(&Numbered(n)),
        project: project(1),
        url: format!("https://10.0.0.{n}/hook"),
        kinds: vec![EventKind::BackupRequested, EventKind::InstanceAdopted],
        enabled: true,
        created_at: at(i64::from(n)),
        failures: 0,
        given_up: 0,
        last_error: None,
        delivered_at: None,
    }
}

fn secret(n: u8) -> SealedSecret {
    SealedSecret(vec![n; 40])
}

async fn add(catalog: &impl Catalog, n: u8) {
    catalog.add_webhook(&webhook(n), &secret(n)).await.unwrap();
}

async fn find(catalog: &impl Catalog, n: u8) -> Webhook {
    let found = catalog.find_webhook(&project(1), webhook(n).id).await.unwrap().unwrap();
    assert_eq!(found.1, secret(n));
    found.0
}

async fn change(catalog: &impl Catalog, n: u8, change: WebhookChange) {
    catalog.change_webhook(&project(1), webhook(n).id, &change).await.unwrap();
}

async fn claim(catalog: &impl Catalog, seconds: i64) -> Option<Delivery> {
    catalog.claim_delivery(node(), at(seconds), at(seconds + 30)).await.unwrap()
}

async fn end(catalog: &impl Catalog, delivery: &Delivery, seconds: i64) {
    let result = DeliveryResult::Delivered;
    catalog.end_delivery(delivery, &result, at(seconds)).await.unwrap();
}

fn failed(next: i64, give_up_before: i64) -> DeliveryResult {
    DeliveryResult::Failed {
        reason: "it answered 500".into(),
        next_at: at(next),
        give_up_before: at(give_up_before),
    }
}

pub async fn a_webhook_reads_back_as_it_was_added_and_changed(catalog: &impl Catalog) {
    prepare(catalog).await;
    open_project(catalog, 2).await;
    for n in [1, 2] {
        add(catalog, n).await;
        assert_eq!(find(catalog, n).await, webhook(n));
    }
    assert_eq!(catalog.list_webhooks(&project(1)).await.unwrap(), [webhook(1), webhook(2)]);
    let changes = WebhookChange {
        url: Some("https://10.0.0.9/".into()),
        kinds: Some(vec![EventKind::WindowMissed]),
        enabled: Some(false),
    };
    change(catalog, 1, changes).await;
    let changed = Webhook {
        url: "https://10.0.0.9/".into(),
        kinds: vec![EventKind::WindowMissed],
        enabled: false,
        ..webhook(1)
    };
    assert_eq!(find(catalog, 1).await, changed);
    change(catalog, 1, WebhookChange::default()).await;
    assert_eq!(find(catalog, 1).await, changed);
    assert_eq!(find(catalog, 2).await, webhook(2));
    // Nobody else has them.
    let id = webhook(2).id;
    assert_eq!(catalog.list_webhooks(&project(2)).await.unwrap(), []);
    assert_eq!(catalog.find_webhook(&project(2), id).await.unwrap(), None);
    let foreign = catalog.change_webhook(&project(2), id, &WebhookChange::default()).await;
    assert!(matches!(foreign, Err(CatalogError::NotFound("webhook"))), "{foreign:?}");
    let foreign = catalog.remove_webhook(&project(2), id).await;
    assert!(matches!(foreign, Err(CatalogError::NotFound("webhook"))), "{foreign:?}");
    catalog.remove_webhook(&project(1), id).await.unwrap();
    assert_eq!(catalog.find_webhook(&project(1), id).await.unwrap(), None);
}

pub async fn a_project_has_so_many_webhooks_and_no_more(catalog: &impl Catalog) {
    prepare(catalog).await;
    for n in 0..u8::try_from(WEBHOOKS_MAX).unwrap() {
        add(catalog, n).await;
    }
    let refused = catalog.add_webhook(&webhook(99), &secret(99)).await;
    assert!(matches!(refused, Err(CatalogError::TooManyWebhooks)), "{refused:?}");
    let nowhere = Webhook { project: project(9), ..webhook(99) };
    let refused = catalog.add_webhook(&nowhere, &secret(99)).await;
    assert!(matches!(refused, Err(CatalogError::NotFound("project"))), "{refused:?}");
}

pub async fn a_webhook_is_told_in_order_of_its_kinds_since_it_was_added(catalog: &impl Catalog) {
    prepare(catalog).await;
    add(catalog, 1).await;
    assert_eq!(claim(catalog, 10).await, None, "what was before it is not told");
    open_project(catalog, 2).await;
    let foreign = cachevault_domain::Instance { project: project(2), ..instance(3, "one") };
    catalog.add_instance(&foreign).await.unwrap();
    assert_eq!(claim(catalog, 10).await, None, "what happens elsewhere is not told");
    catalog.add_instance(&instance(2, "two")).await.unwrap();
    catalog.remove_instance(&project(1), instance_id(2), at(11)).await.unwrap();
    catalog.request_backup(&new_backup(1, 1, 12)).await.unwrap();
    let first = claim(catalog, 20).await.unwrap();
    assert_eq!((&first.webhook, &first.secret), (&webhook(1), &secret(1)));
    assert_eq!(first.event.kind, EventKind::InstanceAdopted);
    // Nothing overtakes.
    assert_eq!(claim(catalog, 21).await, None);
    end(catalog, &first, 22).await;
    assert_eq!(find(catalog, 1).await.delivered_at, Some(at(22)));
    let second = claim(catalog, 23).await.unwrap();
    assert_eq!(second.event.kind, EventKind::BackupRequested, "of the removal it is not told");
    end(catalog, &second, 24).await;
    assert_eq!(claim(catalog, 25).await, None);
}

pub async fn a_delivery_that_failed_waits_and_is_given_up_in_time(catalog: &impl Catalog) {
    prepare(catalog).await;
    add(catalog, 1).await;
    for (n, name) in [(12, "a"), (14, "b"), (16, "c")] {
        catalog.add_instance(&instance(n, name)).await.unwrap();
    }
    let first = claim(catalog, 20).await.unwrap();
    catalog.end_delivery(&first, &failed(30, 0), at(21)).await.unwrap();
    let found = find(catalog, 1).await;
    let error = Some((at(21), "it answered 500".to_owned()));
    assert_eq!((found.failures, found.given_up, found.last_error), (1, 0, error));
    assert_eq!(claim(catalog, 29).await, None);
    let again = claim(catalog, 30).await.unwrap();
    assert_eq!((again.event.id, again.webhook.failures), (first.event.id, 1));
    // Two are older than that.
    catalog.end_delivery(&again, &failed(40, 15), at(31)).await.unwrap();
    let found = find(catalog, 1).await;
    assert_eq!((found.failures, found.given_up), (2, 2));
    let last = claim(catalog, 40).await.unwrap();
    assert_eq!(last.event.instance, Some(instance_id(16)));
    end(catalog, &last, 41).await;
    let found = find(catalog, 1).await;
    assert_eq!((found.failures, found.given_up, found.delivered_at), (0, 2, Some(at(41))));
}

pub async fn a_delivery_has_one_holder_at_a_time(catalog: &impl Catalog) {
    prepare(catalog).await;
    add(catalog, 1).await;
    catalog.add_instance(&instance(2, "two")).await.unwrap();
    let stale = claim(catalog, 10).await.unwrap();
    assert_eq!(claim(catalog, 39).await, None);
    let fresh = claim(catalog, 40).await.unwrap();
    assert_eq!((fresh.event.id, fresh.attempt), (stale.event.id, stale.attempt + 1));
    assert!(is_lost(catalog.end_delivery(&stale, &DeliveryResult::Delivered, at(41)).await));
    // The next start of the same node need not wait for the lease of the one before.
    catalog.release_node(NodeId::mint(&Numbered(200)), at(42)).await.unwrap();
    assert_eq!(claim(catalog, 42).await, None);
    catalog.release_node(node(), at(43)).await.unwrap();
    let next = claim(catalog, 43).await.unwrap();
    assert_eq!(next.event.id, fresh.event.id);
    catalog.remove_webhook(&project(1), webhook(1).id).await.unwrap();
    assert!(is_lost(catalog.end_delivery(&next, &DeliveryResult::Delivered, at(44)).await));
}

pub async fn a_disabled_webhook_is_told_nothing_not_even_later(catalog: &impl Catalog) {
    prepare(catalog).await;
    add(catalog, 1).await;
    catalog.add_instance(&instance(2, "two")).await.unwrap();
    let held = claim(catalog, 10).await.unwrap();
    let enable = |enabled| WebhookChange { enabled: Some(enabled), ..WebhookChange::default() };
    change(catalog, 1, enable(false)).await;
    catalog.add_instance(&instance(3, "three")).await.unwrap();
    assert_eq!(claim(catalog, 50).await, None);
    change(catalog, 1, enable(true)).await;
    // What was on its way when it was disabled does not bring back what came meanwhile.
    end(catalog, &held, 51).await;
    assert_eq!(claim(catalog, 52).await, None);
    catalog.add_instance(&instance(4, "four")).await.unwrap();
    let next = claim(catalog, 53).await.unwrap();
    assert_eq!(next.event.instance, Some(instance_id(4)));
    let unwanted = DeliveryResult::Unwanted { reason: "it answered 410".into() };
    catalog.end_delivery(&next, &unwanted, at(54)).await.unwrap();
    let found = find(catalog, 1).await;
    assert_eq!((found.enabled, found.last_error.unwrap().1.as_str()), (false, "it answered 410"));
    assert_eq!(claim(catalog, 99).await, None);
}
