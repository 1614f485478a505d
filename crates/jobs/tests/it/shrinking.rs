//! Backups that hold far fewer keys than the one before.

use cachevault_catalog::EventCatalog;
use cachevault_domain::{BackupId, BackupState, EventFilter, EventKind, ShrinkRule};
use cachevault_jobs::Injected;

use crate::rig::{Inject, Rig, STEPS};

/// A rig with a backup of its data, whose server is empty now as after a failover.
async fn emptied() -> (Rig, BackupId) {
    let rig = Rig::new().await;
    let large = rig.request().await;
    rig.run(None).await;
    assert_eq!(rig.backup(large).await.keys, Some(2000));
    rig.server.ask(&["FLUSHALL"]);
    rig.pass(60);
    (rig, large)
}

async fn assert_held_for(rig: &Rig, large: BackupId, small: BackupId) {
    let found = rig.backup(small).await;
    assert_eq!((found.state, found.keys), (BackupState::Succeeded, Some(0)), "{found:?}");
    let held = rig.backup(large).await;
    assert_eq!((held.is_held, held.held_for), (true, Some(small)));
    let filter = EventFilter::default();
    let events = rig.catalog.list_events(&rig.project, &filter, 100).await.unwrap().items;
    let shrunk = events.iter().filter(|event| event.kind == EventKind::BackupShrunk);
    assert_eq!(shrunk.map(|event| event.backup).collect::<Vec<_>>(), [Some(small)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_an_emptied_server_holds_the_one_before_whenever_its_worker_dies() {
    let (_, steps) = STEPS[0];
    for step in steps {
        for die in [Inject::after, Inject::after_log] {
            let (rig, large) = emptied().await;
            let small = rig.request().await;
            rig.run(Some(die(step, Injected::Die))).await;
            assert!(!rig.backup(large).await.is_held, "{step}: nothing has succeeded yet");
            rig.restart().await;
            rig.run(None).await;
            assert_held_for(&rig, large, small).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_an_emptied_server_that_fails_holds_nothing() {
    let (_, steps) = STEPS[0];
    for step in steps {
        let (mut rig, large) = emptied().await;
        rig.settings.backoff.attempts_max = 1;
        let small = rig.request().await;
        rig.run(Some(Inject::after(step, Injected::Fail))).await;
        assert_eq!(rig.backup(small).await.state, BackupState::Failed, "{step}");
        assert!(!rig.backup(large).await.is_held, "{step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_held_where_the_rule_is_switched_off() {
    let (mut rig, large) = emptied().await;
    rig.settings.shrink = ShrinkRule::below_percent(0);
    let small = rig.request().await;
    rig.run(None).await;
    assert_eq!(rig.backup(small).await.keys, Some(0));
    assert!(!rig.backup(large).await.is_held);
}
