//! Every call of a bucket goes wrong, under every kind of job: the records stay true, and once the
//! fault is gone everything goes on.

use std::time::Duration;

use cachevault_app::{AddInstance, AppError, RequestRestore};
use cachevault_domain::{BackupId, BackupState, RestoreOptions, RestoreState};
use cachevault_engine::verify_artifact;
use cachevault_testkit::{S3Call, S3Fault, S3Server, Server, newest_redis};

use crate::rig::Rig;
use crate::tending::{backup_key, tender, with_bucket};

const CALLS: [S3Call; 9] = [
    S3Call::List,
    S3Call::Head,
    S3Call::Delete,
    S3Call::Get,
    S3Call::Put,
    S3Call::CreateUpload,
    S3Call::UploadPart,
    S3Call::CompleteUpload,
    S3Call::AbortUpload,
];
const FAULTS: [S3Fault; 3] = [S3Fault::Refuse, S3Fault::Deny, S3Fault::LoseReply];

struct Bucket {
    rig: Rig,
    server: S3Server,
}

impl Bucket {
    async fn new() -> Self {
        let (mut rig, server) = with_bucket(Duration::from_millis(300)).await;
        // An upload of several parts.
        rig.settings.zstd_level = None;
        rig.server.fill(60_000, 150);
        Self { rig, server }
    }

    fn break_down(&self, call: S3Call, fault: S3Fault) {
        self.server.inject(call, fault, u32::MAX);
        if call == S3Call::AbortUpload {
            // An upload is given up only when something else went wrong.
            self.server.inject(S3Call::CompleteUpload, fault, u32::MAX);
        }
    }

    /// Runs whatever is due, as often as it is tried.
    async fn run(&self) {
        for _ in 0..8 {
            if let Some(lease) = self.rig.claim().await {
                self.rig.runner(None).run(&lease, &Default::default()).await;
            }
            self.rig.pass(60);
        }
    }

    async fn back_up(&self) -> BackupId {
        let id = self.rig.request().await;
        self.run().await;
        id
    }

    /// A backup that has succeeded is in the bucket, whole; of any other nothing opens.
    async fn assert_truthful(&self, id: BackupId, what: &str) {
        let backup = self.rig.backup(id).await;
        assert!(backup.state.is_settled(), "{what}: {:?}", backup.state);
        let key = backup_key(&self.rig, id);
        if backup.state != BackupState::Succeeded {
            if backup.state == BackupState::Failed {
                assert!(backup.failure.is_some(), "{what}");
            }
            return;
        }
        let key = key.attempt(backup.stored_attempt.unwrap());
        let store = &*self.rig.app.store;
        let manifest = store.find_manifest(&key).await.unwrap().expect(what);
        let artifact = key.artifact(0).encoded(manifest.artifacts[0].encoding);
        verify_artifact(store, &artifact, &manifest.artifacts[0]).await.expect(what);
        assert_eq!(backup.damage, None, "{what}");
    }

    fn keys_of(&self, id: BackupId) -> usize {
        let id = id.to_string();
        self.server.keys().iter().filter(|key| key.contains(&id)).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_of_a_bucket_that_fails_makes_a_record_untrue() {
    let bucket = Bucket::new().await;
    for call in CALLS {
        for fault in FAULTS {
            let what = format!("{call:?} {fault:?}");
            bucket.break_down(call, fault);
            let tried = bucket.back_up().await;
            bucket.server.heal();
            bucket.assert_truthful(tried, &what).await;
            let good = bucket.back_up().await;
            assert_eq!(bucket.rig.backup(good).await.state, BackupState::Succeeded, "{what}");
            bucket.assert_truthful(good, &what).await;

            bucket.rig.app.request_check(&bucket.rig.caller, good).await.unwrap();
            bucket.break_down(call, fault);
            tender(&bucket.rig.app).check_round().await;
            assert_eq!(bucket.rig.backup(good).await.damage, None, "{what}: no damage");

            bucket.rig.request_removal(good).await;
            bucket.run().await;
            let state = bucket.rig.backup(good).await.state;
            let is_gone = bucket.keys_of(good) == 0;
            assert!(state != BackupState::Deleted || is_gone, "{what}: {state:?} too early");
            bucket.server.heal();
            bucket.run().await;
            assert_eq!(bucket.rig.backup(good).await.state, BackupState::Deleted, "{what}");
            assert_eq!(bucket.keys_of(good), 0, "{what}");

            // What could not be cleaned up is taken later.
            bucket.server.age();
            tender(&bucket.rig.app).sweep().await.unwrap();
            if bucket.rig.backup(tried).await.state == BackupState::Failed {
                assert_eq!(bucket.keys_of(tried), 0, "{what}: {:?}", bucket.server.keys());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_of_a_bucket_that_fails_makes_a_half_restore() {
    let bucket = Bucket::new().await;
    let (rig, backup) = (&bucket.rig, bucket.back_up().await);
    let target = Server::start(&newest_redis(), &[]);
    target.fill(60_000, 120);
    let wish = AddInstance {
        name: "copy".parse().unwrap(),
        target: target.target(),
        settings: Default::default(),
    };
    let instance = rig.app.add_instance(&rig.caller, wish).await.unwrap().id;
    for call in CALLS {
        for fault in FAULTS {
            let (what, before) = (format!("{call:?} {fault:?}"), target.digest());
            bucket.break_down(call, fault);
            let wish = || RequestRestore { backup, options: RestoreOptions::default(), note: None };
            match rig.app.request_restore(&rig.caller, instance, wish()).await {
                Err(AppError::StoreUnavailable(_)) => assert_eq!(target.digest(), before, "{what}"),
                Err(error) => panic!("{what}: {error}"),
                Ok(restore) => {
                    bucket.run().await;
                    let record = rig.app.get_restore(&rig.caller, restore).await.unwrap();
                    match record.state {
                        RestoreState::Succeeded => {
                            assert_eq!(target.digest(), rig.server.digest(), "{what}");
                        }
                        RestoreState::Failed => assert_eq!(target.digest(), before, "{what}"),
                        state => panic!("{what}: {state:?}"),
                    }
                }
            }
            bucket.server.heal();
            // The next one finds other data than it brings.
            target.ask(&["SET", "behind", &what]);
        }
    }
    let wish = RequestRestore { backup, options: RestoreOptions::default(), note: None };
    rig.app.request_restore(&rig.caller, instance, wish).await.unwrap();
    bucket.run().await;
    assert_eq!(target.digest(), rig.server.digest());
}
