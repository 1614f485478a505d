//! The SQLite catalog keeps every promise of the seam.

#![expect(clippy::unwrap_used, reason = "a rig that breaks stops its test")]

use std::ops::Deref;
use std::path::Path;

use cachevault_catalog::{ProjectFilter, Turn, Turned, catalog_conformance};
use cachevault_catalog_sqlite::SqliteCatalog;
use cachevault_domain::{
    BackupId, ContentState, Decision, EventFilter, EventKind, JobKind, MissedWindow, Page,
    Permissions, ProjectId, ShrinkRule, StoredFiles, Trigger,
};
use jiff::Timestamp;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tempfile::TempDir;

struct Fresh {
    catalog: SqliteCatalog,
    _folder: TempDir,
}

impl Deref for Fresh {
    type Target = SqliteCatalog;

    fn deref(&self) -> &SqliteCatalog {
        &self.catalog
    }
}

async fn fresh() -> Fresh {
    let folder = tempfile::tempdir().unwrap();
    let catalog = SqliteCatalog::open(&folder.path().join("catalog.sqlite")).await.unwrap();
    Fresh { catalog, _folder: folder }
}

catalog_conformance!(fresh());

const INITIAL: (&str, &str) = ("0001_initial.sql", include_str!("../migrations/0001_initial.sql"));
const RESTORES: (&str, &str) =
    ("0002_restores.sql", include_str!("../migrations/0002_restores.sql"));

const DRILLS: (&str, &str) = ("0003_drills.sql", include_str!("../migrations/0003_drills.sql"));
const CHECKS: (&str, &str) = ("0004_checks.sql", include_str!("../migrations/0004_checks.sql"));

/// A catalog as it was when there were only these migrations.
async fn old_catalog(path: &Path, migrations: &[(&str, &str)]) -> SqlitePool {
    let folder = tempfile::tempdir().unwrap();
    for (name, sql) in migrations {
        std::fs::write(folder.path().join(name), sql).unwrap();
    }
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let old = SqlitePool::connect_with(options).await.unwrap();
    Migrator::new(folder.path()).await.unwrap().run(&old).await.unwrap();
    old
}

#[tokio::test]
async fn opening_again_keeps_everything_and_migrates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    let catalog = SqliteCatalog::open(&path).await.unwrap();
    cachevault_catalog::conformance::a_project_is_created_once(&catalog).await;
    catalog.close().await;
    let catalog = SqliteCatalog::open(&path).await.unwrap();
    use cachevault_catalog::ProjectCatalog;
    assert!(catalog.has_projects().await.unwrap());
}

#[tokio::test]
async fn a_catalog_from_before_restores_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    let old = old_catalog(&path, &[INITIAL]).await;
    sqlx::query(
        "INSERT INTO projects (id, created_at) VALUES ('00112233445566778899aabbccddeeff', 0)",
    )
    .execute(&old)
    .await
    .unwrap();
    old.close().await;
    let catalog = SqliteCatalog::open(&path).await.unwrap();
    use cachevault_catalog::ProjectCatalog;
    assert!(catalog.has_projects().await.unwrap());
    cachevault_catalog::conformance::a_restore_and_a_capture_keep_each_other_out(&catalog).await;
}

#[tokio::test]
async fn a_catalog_from_before_drills_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    let old = old_catalog(&path, &[INITIAL, RESTORES]).await;
    sqlx::raw_sql(
        "INSERT INTO projects (id, created_at) VALUES ('00112233445566778899aabbccddeeff', 0);
         INSERT INTO instances (id, project_id, name, host, port, tls, engine, server_version, role,
             replicas_online, used_memory_bytes, max_memory_bytes, system_memory_bytes, keys,
             databases_used, observed_at, failed_looks, created_at)
         VALUES ('5560df16-cebf-4473-95c4-d1b573c16e79', '00112233445566778899aabbccddeeff', 'old', 'localhost', 6379, 0, 'redis',
             '7.0.15', 'primary', 0, 1, 0, 1, 1, 1, 0, 0, 0);
         INSERT INTO backups (id, project_id, instance_id, started_by, format, dialect, state, progress,
             received_bytes, size_bytes, stored_attempt, created_at)
         VALUES ('6660df16-cebf-4473-95c4-d1b573c16e79', '00112233445566778899aabbccddeeff', '5560df16-cebf-4473-95c4-d1b573c16e79', 'manual', 'rdb', 'native',
             'succeeded', 10000, 1, 1, 1, 0);",
    )
    .execute(&old)
    .await
    .unwrap();
    old.close().await;
    let catalog = SqliteCatalog::open(&path).await.unwrap();
    use cachevault_catalog::{BackupCatalog, InstanceCatalog};
    let project: ProjectId = "00112233445566778899aabbccddeeff".parse().unwrap();
    let id: BackupId = "6660df16-cebf-4473-95c4-d1b573c16e79".parse().unwrap();
    let backup = catalog.find_backup(&project, id).await.unwrap().unwrap();
    assert!(backup.is_restorable() && !backup.drilling);
    assert_eq!(backup.content, ContentState::Unknown);
    assert_eq!((backup.proof, backup.drill_failure), (None, None));
    let instance = catalog.find_instance(&project, backup.instance).await.unwrap().unwrap();
    assert_eq!(instance.proven, None);
    let due = catalog.backups_to_drill(Timestamp::UNIX_EPOCH, 10).await.unwrap();
    assert_eq!(due, [(project, id)]);
    cachevault_catalog::conformance::a_drill_that_succeeded_proves_its_backup(&catalog).await;
}

#[tokio::test]
async fn whoever_had_a_key_before_users_goes_on_doing_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    let old = old_catalog(&path, &[INITIAL, RESTORES, DRILLS, CHECKS]).await;
    sqlx::raw_sql(
        "INSERT INTO projects (id, created_at) VALUES ('00112233445566778899aabbccddeeff', 0),
             ('ff112233445566778899aabbccddeeff', 0);
         INSERT INTO credentials (access_key, project_id, secret, created_at)
         VALUES ('OLDACCESSKEY', '00112233445566778899aabbccddeeff', x'0102', 7);",
    )
    .execute(&old)
    .await
    .unwrap();
    old.close().await;
    let catalog = SqliteCatalog::open(&path).await.unwrap();
    use cachevault_catalog::ProjectCatalog;
    let key = "OLDACCESSKEY".parse().unwrap();
    let found = catalog.find_credential(&key).await.unwrap().unwrap();
    assert!(found.project_enabled && found.user_may && found.stored.credential.enabled);
    assert!(found.stored.credential.administers_service);
    assert_eq!(found.permissions, Permissions::everything());
    assert_eq!(found.stored.secret.0, [1, 2]);
    let project = found.stored.credential.project;
    let filter = ProjectFilter { id: None, name: Some(project.to_string()) };
    let named = catalog.list_projects(&filter, Page { offset: 0, limit: 9 }).await.unwrap();
    assert_eq!((named.items[0].id.clone(), named.items[0].enabled), (project, true));
    cachevault_catalog::conformance::a_token_ends_with_what_it_was_given_for(&catalog).await;
}

#[tokio::test]
async fn a_policy_from_before_there_was_a_scheduler_is_due_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    let migrations = [
        INITIAL,
        ("0006_instance_settings.sql", include_str!("../migrations/0006_instance_settings.sql")),
    ];
    let old = old_catalog(&path, &migrations).await;
    sqlx::raw_sql(
        "INSERT INTO projects (id, created_at) VALUES ('00112233445566778899aabbccddeeff', 0);
         INSERT INTO instances (id, project_id, name, host, port, tls, engine, server_version, role,
             replicas_online, used_memory_bytes, max_memory_bytes, system_memory_bytes, keys,
             databases_used, observed_at, failed_looks, created_at)
         VALUES ('5560df16-cebf-4473-95c4-d1b573c16e79', '00112233445566778899aabbccddeeff', 'old', 'localhost', 6379, 0, 'redis',
             '7.0.15', 'primary', 0, 1, 0, 1, 1, 1, 0, 0, 0);
         INSERT INTO backup_policies (instance_id, id, is_automatic, save_days, plan_days, plan_begin,
             plan_end, created_at, updated_at)
         VALUES ('5560df16-cebf-4473-95c4-d1b573c16e79', '7760df16-cebf-4473-95c4-d1b573c16e79', 1, 7, 127, 22, 23, 0, 0);",
    )
    .execute(&old)
    .await
    .unwrap();
    old.close().await;
    let catalog = SqliteCatalog::open(&path).await.unwrap();
    use cachevault_catalog::ScheduleCatalog;
    let now = "2026-11-22T12:00:00Z".parse().unwrap();
    let due = catalog.due_policies(now, 10).await.unwrap();
    assert_eq!((due.len(), due[0].agenda.window), (1, None));
    let missed = MissedWindow::Skip;
    let Decision::Rest(then) =
        due[0].agenda.decide(&due[0].says.plan, missed, due[0].instance, due[0].tried, now)
    else {
        panic!("nothing was missed: there was no scheduler");
    };
    let turned = catalog.turn_policy(&due[0], &Turn::Rest, &then).await.unwrap();
    assert_eq!(turned, Turned::Done);
    assert_eq!(then.window.unwrap().to_string(), "22:00-23:00");
    assert_eq!(catalog.due_policies(now, 10).await.unwrap(), []);
}

/// What steps left when they were not sealed: such as the names of a backup's largest keys.
fn of_before() -> String {
    // So long that removing it leaves pages free, and more of them than the migrations use.
    format!(r#"{{"largest": [{}]}}"#, r#""somebodys-key","#.repeat(20_000))
}

fn files_name_keys(folder: &Path) -> bool {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let holds = |bytes: Vec<u8>| bytes.windows(13).any(|window| window == b"somebodys-key");
    files.map(|file| std::fs::read(file).unwrap()).any(holds)
}

#[tokio::test]
async fn keys_named_by_steps_of_before_they_were_sealed_are_gone_with_their_jobs() {
    use cachevault_catalog::JobQueue;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    let old = old_catalog(&path, &[INITIAL]).await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "INSERT INTO projects (id, created_at) VALUES ('00112233445566778899aabbccddeeff', 0);
         INSERT INTO instances (id, project_id, name, host, port, tls, engine, server_version, role,
             replicas_online, used_memory_bytes, max_memory_bytes, system_memory_bytes, keys,
             databases_used, observed_at, failed_looks, created_at)
         VALUES ('5560df16-cebf-4473-95c4-d1b573c16e79', '00112233445566778899aabbccddeeff', 'old', 'localhost', 6379, 0, 'redis',
             '7.0.15', 'primary', 0, 1, 0, 1, 1, 1, 0, 0, 0);
         INSERT INTO backups (id, project_id, instance_id, started_by, format, dialect, state, progress,
             received_bytes, size_bytes, created_at)
         VALUES ('6660df16-cebf-4473-95c4-d1b573c16e79', '00112233445566778899aabbccddeeff', '5560df16-cebf-4473-95c4-d1b573c16e79', 'manual', 'rdb', 'native',
             'running', 0, 0, 0, 0);
         INSERT INTO jobs (id, kind, project_id, instance_id, backup_id, state, attempt, failures, due_at)
         SELECT job.column1, 'capture', project_id, instance_id, id, job.column2, 1, 0, 0 FROM backups,
             (VALUES ('1160df16-cebf-4473-95c4-d1b573c16e79', 'done'),
                 ('2260df16-cebf-4473-95c4-d1b573c16e79', 'queued')) AS job;
         INSERT INTO job_steps (job_id, step, attempt, output, finished_at)
         SELECT id, step.column1, 1, '{}', 0 FROM jobs, (VALUES ('capture'), ('undone')) AS step;
         DELETE FROM job_steps WHERE step = 'undone';",
        of_before()
    )))
    .execute(&old)
    .await
    .unwrap();
    old.close().await;
    assert!(files_name_keys(folder.path()));
    let catalog = SqliteCatalog::open(&path).await.unwrap();
    let now = Timestamp::UNIX_EPOCH;
    let node = "7760df16-cebf-4473-95c4-d1b573c16e79".parse().unwrap();
    let claimed = catalog.claim_job(JobKind::Capture, node, now, now).await.unwrap().unwrap();
    let log = catalog.step_log(&claimed).await.unwrap();
    assert_eq!((log.len(), log[0].step.as_str()), (1, "capture"));
    // Its job goes on with it, and is the only one that has any.
    assert_eq!(log[0].output.0, of_before().as_bytes());
    let content = ContentState::Verified;
    let files =
        StoredFiles { attempt: 1, size_bytes: 1, content, opaque_because: None, keys: None };
    catalog.finish_backup(&claimed, &files, ShrinkRule::default(), now).await.unwrap();
    catalog.close().await;
    assert!(!files_name_keys(folder.path()));
}

#[tokio::test]
async fn safety_backups_from_before_they_were_told_apart_are_marked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    let old = old_catalog(&path, &[INITIAL, RESTORES]).await;
    sqlx::raw_sql(
        "INSERT INTO projects (id, created_at) VALUES ('00112233445566778899aabbccddeeff', 0);
         INSERT INTO instances (id, project_id, name, host, port, tls, engine, server_version, role,
             replicas_online, used_memory_bytes, max_memory_bytes, system_memory_bytes, keys,
             databases_used, observed_at, failed_looks, created_at)
         VALUES ('5560df16-cebf-4473-95c4-d1b573c16e79', '00112233445566778899aabbccddeeff', 'old', 'localhost', 6379, 0, 'redis',
             '7.0.15', 'primary', 0, 1, 0, 1, 1, 1, 0, 0, 0);
         INSERT INTO backups (id, project_id, instance_id, started_by, format, dialect, note, state, progress,
             received_bytes, size_bytes, stored_attempt, created_at)
         SELECT backup.column1, project_id, id, backup.column2, 'rdb', 'native', 'before restore', 'succeeded', 10000, 1, 1, 1, 0
         FROM instances, (VALUES ('1160df16-cebf-4473-95c4-d1b573c16e79', 'manual'),
             ('2260df16-cebf-4473-95c4-d1b573c16e79', 'automatic'),
             ('3360df16-cebf-4473-95c4-d1b573c16e79', 'manual')) AS backup;
         INSERT INTO jobs (id, kind, project_id, instance_id, backup_id, state, attempt, failures, due_at)
         SELECT '4460df16-cebf-4473-95c4-d1b573c16e79', 'restore', project_id, instance_id, id, 'done', 1, 0, 0
         FROM backups WHERE id LIKE '11%';
         INSERT INTO restores (id, job_id, project_id, instance_id, backup_id, wants_safety_backup, ttl, conflict,
             state, progress, safety_backup_id, created_at)
         SELECT '6660df16-cebf-4473-95c4-d1b573c16e79', id, project_id, instance_id, backup_id, 1, 'keep', 'fail',
             'succeeded', 10000, '3360df16-cebf-4473-95c4-d1b573c16e79', 0 FROM jobs;",
    )
    .execute(&old)
    .await
    .unwrap();
    old.close().await;
    let catalog = SqliteCatalog::open(&path).await.unwrap();
    use cachevault_catalog::BackupCatalog;
    let project: ProjectId = "00112233445566778899aabbccddeeff".parse().unwrap();
    let mut triggers = Vec::new();
    for n in ["11", "22", "33"] {
        let id = format!("{n}60df16-cebf-4473-95c4-d1b573c16e79").parse().unwrap();
        triggers.push(catalog.find_backup(&project, id).await.unwrap().unwrap().trigger);
    }
    assert_eq!(triggers, [Trigger::Manual, Trigger::Automatic, Trigger::Safety]);
}

#[tokio::test]
async fn events_go_on_behind_those_from_before_service_events() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    let migrations: [(&str, &str); 5] = [
        INITIAL,
        ("0005_identity.sql", include_str!("../migrations/0005_identity.sql")),
        RESTORES,
        DRILLS,
        ("0011_events.sql", include_str!("../migrations/0011_events.sql")),
    ];
    let old = old_catalog(&path, &migrations).await;
    sqlx::raw_sql(
        "INSERT INTO projects (id, name, created_at) VALUES ('00112233445566778899aabbccddeeff', 'old', 0);
         INSERT INTO instances (id, project_id, name, host, port, tls, engine, server_version, role,
             replicas_online, used_memory_bytes, max_memory_bytes, system_memory_bytes, keys,
             databases_used, observed_at, failed_looks, created_at)
         VALUES ('5560df16-cebf-4473-95c4-d1b573c16e79', '00112233445566778899aabbccddeeff', 'old', 'localhost', 6379, 0, 'redis',
             '7.0.15', 'primary', 0, 1, 0, 1, 1, 1, 0, 0, 0);
         INSERT INTO events (id, at, project_id, instance_id, kind) VALUES
             (7, 1, '00112233445566778899aabbccddeeff', '5560df16-cebf-4473-95c4-d1b573c16e79', 'instance_adopted'),
             (41, 2, '00112233445566778899aabbccddeeff', '5560df16-cebf-4473-95c4-d1b573c16e79', 'instance_changed');
         DELETE FROM events WHERE id = 41;",
    )
    .execute(&old)
    .await
    .unwrap();
    old.close().await;
    let catalog = SqliteCatalog::open(&path).await.unwrap();
    use cachevault_catalog::EventCatalog;
    let now = Timestamp::UNIX_EPOCH;
    catalog.record_service_event(EventKind::DiskLow, None, now).await.unwrap();
    let project = "00112233445566778899aabbccddeeff".parse().unwrap();
    let listed = catalog.list_events(&project, &EventFilter::default(), 10).await.unwrap();
    let ids: Vec<_> = listed.items.iter().map(|event| event.id.get()).collect();
    assert_eq!(ids, [7, 42]);
    assert!(listed.items[0].instance.is_some() && listed.items[1].instance.is_none());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    std::fs::write(&path, vec![b'x'; 4096]).unwrap();
    assert!(SqliteCatalog::open(&path).await.is_err());
}
