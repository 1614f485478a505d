//! What webhooks are told, when it is tried again, and when it is given up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cachevault_app::{
    App, CreateWebhook, NotDelivered, WebhookMessage, WebhookRules, WebhookSender, Webhooks,
};
use cachevault_catalog::InstanceCatalog;
use cachevault_domain::{EventKind, InstanceChange, NodeId, PolicyId, Webhook, WebhookId};
use cachevault_jobs::{Messenger, Shutdown};
use cachevault_testkit::SeededEntropy;
use jiff::SignedDuration;
use serde_json::Value;

use crate::rig::Rig;

const DAY: Duration = Duration::from_hours(24);

/// Answers as it is told to, and takes what it is told nothing about.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    answers: Mutex<VecDeque<Result<(), NotDelivered>>>,
    taken: Mutex<Vec<WebhookMessage>>,
}

#[async_trait]
impl WebhookSender for Receiver {
    async fn send(&self, message: &WebhookMessage) -> Result<(), NotDelivered> {
        self.taken.lock().unwrap().push(message.clone());
        self.answers.lock().unwrap().pop_front().unwrap_or(Ok(()))
    }
}

impl Receiver {
    fn refuse(&self, count: usize) {
        let refused = || Err(NotDelivered::because("the receiver answered 500"));
        self.answers.lock().unwrap().extend(std::iter::repeat_with(refused).take(count));
    }

    /// What has come since the last time: the id and the instance's name.
    fn told(&self) -> Vec<(String, String)> {
        let taken = std::mem::take(&mut *self.taken.lock().unwrap());
        let of = |message: WebhookMessage| {
            let body: Value = serde_json::from_str(&message.body).unwrap();
            assert_eq!(body["type"], "instance_changed");
            (message.id, body["data"]["id"].to_string())
        };
        taken.into_iter().map(of).collect()
    }
}

/// A rig with one webhook that is told when an instance changes.
struct Told {
    rig: Rig,
    app: App,
    receiver: Arc<Receiver>,
    webhook: WebhookId,
}

impl Told {
    async fn new() -> Self {
        let rig = Rig::new().await;
        let receiver = Arc::new(Receiver::default());
        let webhooks = Webhooks::new(receiver.clone(), WebhookRules::default());
        let app = App { webhooks, ..rig.app.clone() };
        let wish = CreateWebhook {
            url: "https://10.0.0.9/hook".into(),
            kinds: Some(vec![EventKind::InstanceChanged]),
            enabled: true,
        };
        let webhook = app.create_webhook(&rig.caller, wish).await.unwrap().webhook.id;
        Self { rig, app, receiver, webhook }
    }

    fn messenger(&self) -> Messenger {
        Messenger { app: self.app.clone(), node: self.rig.node, give_up_after: DAY }
    }

    /// Changes the instance; the event is the newest then.
    async fn happen(&self, name: &str) {
        let change = InstanceChange { name: Some(name.parse().unwrap()), ..Default::default() };
        let policy = PolicyId::mint(&SeededEntropy::new(5));
        let (project, instance) = (&self.rig.project, self.rig.instance);
        let now = self.app.clock.now();
        self.rig.catalog.change_instance(project, instance, &change, policy, now).await.unwrap();
    }

    async fn webhook(&self) -> Webhook {
        self.app.get_webhook(&self.rig.caller, self.webhook).await.unwrap()
    }

    async fn rounds(&self) -> usize {
        let mut count = 0;
        while self.messenger().round().await {
            count += 1;
        }
        count
    }
}

#[tokio::test]
async fn what_is_refused_is_told_again_later_in_order_under_its_id() {
    let told = Told::new().await;
    told.receiver.refuse(2);
    told.happen("a").await;
    told.happen("b").await;
    assert_eq!(told.rounds().await, 1);
    // Nothing is tried before the pause is over, and nothing overtakes.
    assert_eq!(told.rounds().await, 0);
    let failed = told.webhook().await;
    assert_eq!((failed.failures, failed.given_up), (1, 0));
    assert_eq!(failed.last_error.as_ref().unwrap().1, "the receiver answered 500");
    told.rig.clock.advance(SignedDuration::from_secs(2));
    assert_eq!(told.rounds().await, 1);
    // The pause has doubled: three quarters of four seconds at least.
    told.rig.clock.advance(SignedDuration::from_secs(2));
    assert_eq!(told.rounds().await, 0);
    told.rig.clock.advance(SignedDuration::from_secs(2));
    assert_eq!(told.rounds().await, 2);
    let seen = told.receiver.told();
    assert_eq!(seen.len(), 4);
    assert!(seen[..3].iter().all(|message| *message == seen[0]), "{seen:?}");
    assert_ne!(seen[3].0, seen[0].0);
    let well = told.webhook().await;
    assert_eq!((well.failures, well.delivered_at), (0, Some(told.app.clock.now())));
}

#[tokio::test]
async fn what_is_too_old_is_given_up_when_it_fails_and_what_is_not_goes_on() {
    let told = Told::new().await;
    told.happen("a").await;
    told.happen("b").await;
    told.rig.clock.advance(SignedDuration::from_hours(23));
    told.happen("c").await;
    told.receiver.refuse(1);
    assert_eq!(told.rounds().await, 1);
    assert_eq!(told.webhook().await.given_up, 0);
    told.rig.clock.advance(SignedDuration::from_hours(2));
    told.receiver.refuse(1);
    assert_eq!(told.rounds().await, 1);
    assert_eq!((told.webhook().await.given_up, told.webhook().await.failures), (2, 2));
    told.receiver.told();
    told.rig.clock.advance(SignedDuration::from_hours(1));
    assert_eq!(told.rounds().await, 1);
    assert_eq!(told.receiver.told().len(), 1);
    assert_eq!(told.rounds().await, 0);
    // What is old is told all the same where nothing fails.
    told.happen("d").await;
    told.rig.clock.advance(SignedDuration::from_hours(48));
    assert_eq!(told.rounds().await, 1);
    assert_eq!(told.webhook().await.given_up, 2);
}

#[tokio::test]
async fn a_receiver_that_is_gone_disables_its_webhook() {
    let told = Told::new().await;
    told.happen("a").await;
    let gone = NotDelivered { reason: "the receiver answered 410".into(), is_unwanted: true };
    told.receiver.answers.lock().unwrap().push_back(Err(gone));
    assert_eq!(told.rounds().await, 1);
    let webhook = told.webhook().await;
    assert!(!webhook.enabled && webhook.last_error.is_some(), "{webhook:?}");
    told.happen("b").await;
    told.rig.clock.advance(SignedDuration::from_hours(1));
    assert_eq!(told.rounds().await, 0);
}

#[tokio::test]
async fn what_another_node_has_claimed_is_left_to_it_until_its_lease_is_over() {
    let told = Told::new().await;
    told.happen("a").await;
    let now = told.app.clock.now();
    let other = NodeId::mint(&SeededEntropy::new(77));
    let until = now + SignedDuration::from_secs(60);
    let first = told.app.catalog.claim_delivery(other, now, until).await.unwrap().unwrap();
    told.app.deliver(&first).await.unwrap();
    assert_eq!(told.rounds().await, 0);
    // It dies between sending and recording.
    told.rig.clock.advance(SignedDuration::from_secs(60));
    assert_eq!(told.rounds().await, 1);
    let seen = told.receiver.told();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0], seen[1], "the receiver can tell that it is the same");
}

#[tokio::test]
async fn a_running_messenger_tells_at_once_and_ends_with_the_service() {
    let told = Told::new().await;
    let (messenger, shutdown) = (told.messenger(), Shutdown::default());
    let stop = shutdown.clone();
    let task = tokio::spawn(async move { messenger.run(&stop).await });
    told.happen("a").await;
    let taken = async {
        while told.receiver.taken.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), taken).await.expect("it is told");
    shutdown.soft.cancel();
    tokio::time::timeout(Duration::from_secs(60), task).await.expect("it ends").unwrap();
}
