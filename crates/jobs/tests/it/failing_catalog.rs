//! A catalog that fails for a moment, alone and beside a store that does: the job is done in the
//! end, and its record is true, without a restart.

use std::sync::atomic::Ordering;

use cachevault_store::{Fault, StoreErrorKind};
use tokio_util::sync::CancellationToken;

use crate::every_kind::{done, due};
use crate::rig::{Rig, STEPS};

/// More than any job commits: a job whose commits all went well ends the search.
const COMMITS_MAX: u32 = 60;
/// More than any job needs when one thing goes wrong once.
const ATTEMPTS_MAX: usize = 6;

/// Runs the job that is due to the end of this attempt; whether there was one, or nobody can tell.
async fn attempt(rig: &Rig) -> bool {
    match rig.try_claim().await {
        Ok(None) => return false,
        Ok(Some(lease)) => rig.runner(None).run(&lease, &CancellationToken::new()).await,
        Err(_) => {}
    }
    true
}

/// Attempts, each when the lease of the one before has run out, until nothing is to do any more.
async fn finish(rig: &Rig, what: &str) {
    for _ in 0..ATTEMPTS_MAX {
        // Longer than a lease, and than any pause.
        rig.pass(120);
        if !attempt(rig).await {
            return;
        }
    }
    panic!("{what}: not done after {ATTEMPTS_MAX} attempts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_anywhere_in_a_job_is_made_up_for() {
    for (kind, _) in STEPS {
        for after in 0..=COMMITS_MAX {
            let what = format!("{kind:?}, the commit after {after} fails");
            let (rig, backup) = due(kind).await;
            let has_failed = rig.catalog.fail_commit(after).await.unwrap();
            attempt(&rig).await;
            finish(&rig, &what).await;
            let record = rig.backup(backup).await;
            assert_eq!(record.state, done(kind), "{what}: {:?}", record.failure);
            rig.assert_truthful(backup).await;
            if !has_failed.load(Ordering::SeqCst) {
                assert!(after > 2, "{kind:?} commits only {after} times");
                break;
            }
            assert!(after < COMMITS_MAX, "{what}: still");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_beside_the_store_is_made_up_for() {
    const FAULTS: [Fault; 6] =
        [Fault::Create, Fault::Write, Fault::Finish, Fault::Read, Fault::Commit, Fault::Remove];
    for (kind, _) in STEPS {
        for fault in FAULTS {
            for after in 0..8 {
                let what = format!("{kind:?}, {fault:?} and the commit after {after} fail");
                let (rig, backup) = due(kind).await;
                rig.store.fail(fault, StoreErrorKind::Unavailable);
                rig.catalog.fail_commit(after).await.unwrap();
                attempt(&rig).await;
                rig.store.heal();
                finish(&rig, &what).await;
                let record = rig.backup(backup).await;
                assert_eq!(record.state, done(kind), "{what}: {:?}", record.failure);
                rig.assert_truthful(backup).await;
            }
        }
    }
}
