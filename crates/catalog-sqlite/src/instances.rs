use async_trait::async_trait;
use cachevault_catalog::{CatalogError, InstanceCatalog};
use cachevault_domain::{
    Address, EngineKind, EventKind, Health, Instance, InstanceChange, InstanceCounts,
    InstanceFilter, InstanceId, InstanceState, JobKind, Listing, NewConnection, Observation, Page,
    PolicyId, ProjectId, ProvenBackup, Role, SealedConnection, SealedSecret, Tag, TagChange,
};
use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use crate::row::{RowOf, signed};
use crate::settings::{self, SettingsRow};
use crate::{SqliteCatalog, events, retention, unavailable};

const OPERATION: &str = "(SELECT j.kind FROM jobs j
        WHERE j.instance_id = i.id AND j.state IN ('queued', 'leased') AND j.kind IN ('capture', 'restore'))";

const CAPACITY: &str =
    "CASE i.max_memory_bytes WHEN 0 THEN i.system_memory_bytes ELSE i.max_memory_bytes END";

const FROM: &str = "FROM instances i LEFT JOIN backup_policies bp ON bp.instance_id = i.id
    LEFT JOIN backups p ON p.seq = (
        SELECT b.seq FROM backups b
        WHERE b.instance_id = i.id AND b.state = 'succeeded' AND b.removal_requested_at IS NULL
            AND b.proven_at IS NOT NULL
        ORDER BY b.created_at DESC, b.seq DESC LIMIT 1
    ) WHERE i.removed_at IS NULL";

fn select() -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("SELECT i.*, ");
    query.push(OPERATION).push(" AS operation, ").push(settings::COLUMNS);
    query.push(", p.id AS proven_backup_id, p.created_at AS proven_created_at, p.proven_at ");
    query.push(FROM);
    query
}

/// What [`Instance::state`] tells, as SQL.
fn push_state(query: &mut QueryBuilder<Sqlite>) {
    query.push("CASE ").push(OPERATION).push(" WHEN 'restore' THEN ");
    query.push_bind(state_word(InstanceState::Restoring)).push(" WHEN 'capture' THEN ");
    query.push_bind(state_word(InstanceState::Running));
    query.push(" ELSE CASE WHEN i.unreachable_because IS NOT NULL AND i.failed_looks > ");
    query.push_bind(i64::from(Health::LOOKS_MISSED_MAX)).push(" THEN ");
    query.push_bind(state_word(InstanceState::Down)).push(" ELSE ");
    query.push_bind(state_word(InstanceState::Running)).push(" END END");
}

/// Never stored: only to compare within one query.
fn state_word(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Running => "running",
        InstanceState::Restoring => "restoring",
        InstanceState::Down => "down",
    }
}

#[derive(sqlx::FromRow)]
struct InstanceRow {
    id: String,
    project_id: String,
    name: String,
    host: String,
    port: i64,
    username: Option<String>,
    password: Option<Vec<u8>>,
    tls: bool,
    tls_ca_pem: Option<String>,
    tls_certificate_pem: Option<String>,
    tls_key_pem: Option<Vec<u8>>,
    engine: String,
    server_version: String,
    role: String,
    replicas_online: i64,
    used_memory_bytes: i64,
    max_memory_bytes: i64,
    system_memory_bytes: i64,
    keys: i64,
    databases_used: i64,
    observed_at: i64,
    unreachable_because: Option<String>,
    failed_looks: i64,
    created_at: i64,
    changed_at: Option<i64>,
    operation: Option<String>,
    proven_backup_id: Option<String>,
    proven_created_at: Option<i64>,
    proven_at: Option<i64>,
    #[sqlx(flatten)]
    settings: SettingsRow,
}

impl InstanceRow {
    fn proven(&self, row: &RowOf<'_>) -> Result<Option<ProvenBackup>, CatalogError> {
        let backup = row.parse_if(self.proven_backup_id.as_deref())?;
        let created_at = row.moment_if(self.proven_created_at)?;
        let proof_at = row.moment_if(self.proven_at)?;
        // All of one row, or none where there is no such row.
        let (Some(backup), Some(created_at), Some(proof_at)) = (backup, created_at, proof_at)
        else {
            return Ok(None);
        };
        Ok(Some(ProvenBackup { backup, created_at, proof_at }))
    }
}

impl TryFrom<InstanceRow> for Instance {
    type Error = CatalogError;

    fn try_from(columns: InstanceRow) -> Result<Self, CatalogError> {
        let row = RowOf { table: "instances", key: &columns.id };
        let operation = columns.operation.as_deref();
        Ok(Self {
            id: row.parse(&columns.id)?,
            project: row.parse(&columns.project_id)?,
            name: row.parse(&columns.name)?,
            observation: Observation {
                engine: row.named(&EngineKind::ALL, EngineKind::as_str, &columns.engine)?,
                version: row.parse(&columns.server_version)?,
                role: row.named(&Role::ALL, Role::as_str, &columns.role)?,
                replicas_online: row.number(columns.replicas_online)?,
                used_memory_bytes: row.number(columns.used_memory_bytes)?,
                max_memory_bytes: row.number(columns.max_memory_bytes)?,
                system_memory_bytes: row.number(columns.system_memory_bytes)?,
                keys: row.number(columns.keys)?,
                databases_used: row.number(columns.databases_used)?,
            },
            observed_at: row.moment(columns.observed_at)?,
            created_at: row.moment(columns.created_at)?,
            changed_at: row.moment(columns.changed_at.unwrap_or(columns.created_at))?,
            operation: operation
                .map(|kind| row.named(&JobKind::ALL, JobKind::as_str, kind))
                .transpose()?,
            proven: columns.proven(&row)?,
            settings: columns.settings.settings(&row)?,
            connection: SealedConnection {
                address: Address { port: row.number(columns.port)?, host: columns.host },
                username: columns.username,
                password: columns.password.map(SealedSecret),
                tls: columns.tls,
                tls_ca_pem: columns.tls_ca_pem,
                tls_certificate_pem: columns.tls_certificate_pem,
                tls_key_pem: columns.tls_key_pem.map(SealedSecret),
            },
            health: health(&row, columns.unreachable_because, columns.failed_looks)?,
        })
    }
}

/// Refuses unless the project has the instance.
pub(crate) async fn require_instance(
    tx: &mut SqliteConnection,
    project: &ProjectId,
    id: InstanceId,
) -> Result<(), CatalogError> {
    let found: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM instances WHERE id = ? AND project_id = ? AND removed_at IS NULL)",
    )
    .bind(id.to_string())
    .bind(project.as_str())
    .fetch_one(tx)
    .await
    .map_err(unavailable)?;
    if found { Ok(()) } else { Err(CatalogError::NotFound("instance")) }
}

/// Refuses while a job of any kind is about the instance.
async fn refuse_open_job(
    tx: &mut SqliteConnection,
    project: &ProjectId,
    id: InstanceId,
) -> Result<(), CatalogError> {
    let open: Option<String> = sqlx::query_scalar(
        "SELECT kind FROM jobs WHERE instance_id = ? AND project_id = ? AND state IN ('queued', 'leased') LIMIT 1",
    )
    .bind(id.to_string())
    .bind(project.as_str())
    .fetch_optional(tx)
    .await
    .map_err(unavailable)?;
    let Some(kind) = open else { return Ok(()) };
    let row = RowOf { table: "jobs", key: &kind };
    Err(CatalogError::Busy(row.named(&JobKind::ALL, JobKind::as_str, &kind)?))
}

/// Takes an instance out of all lists, with its secrets, its policy and its tags.
async fn let_go(
    tx: &mut SqliteConnection,
    project: &ProjectId,
    id: InstanceId,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let removed = sqlx::query(
        "UPDATE instances SET removed_at = ?, password = NULL, tls_key_pem = NULL, retain_at = NULL
         WHERE id = ? AND project_id = ? AND removed_at IS NULL",
    )
    .bind(now.as_microsecond())
    .bind(id.to_string())
    .bind(project.as_str())
    .execute(&mut *tx)
    .await
    .map_err(unavailable)?;
    if removed.rows_affected() == 0 {
        return Err(CatalogError::NotFound("instance"));
    }
    settings::forget(&mut *tx, id).await?;
    events::note_instance(tx, id, (EventKind::InstanceRemoved, None), now).await
}

#[async_trait]
impl InstanceCatalog for SqliteCatalog {
    async fn add_instance(&self, instance: &Instance) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        let (connection, seen) = (&instance.connection, &instance.observation);
        let inserted = sqlx::query(
            "INSERT INTO instances (id, project_id, name, host, port, username, password, tls, tls_ca_pem,
                 tls_certificate_pem, tls_key_pem, engine, server_version, role, replicas_online,
                 used_memory_bytes, max_memory_bytes, system_memory_bytes, keys, databases_used,
                 observed_at, failed_looks, created_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)
             ON CONFLICT DO NOTHING",
        )
        .bind(instance.id.to_string())
        .bind(instance.project.as_str())
        .bind(instance.name.as_str())
        .bind(&connection.address.host)
        .bind(i64::from(connection.address.port))
        .bind(&connection.username)
        .bind(connection.password.as_ref().map(|secret| &secret.0))
        .bind(connection.tls)
        .bind(&connection.tls_ca_pem)
        .bind(&connection.tls_certificate_pem)
        .bind(connection.tls_key_pem.as_ref().map(|secret| &secret.0))
        .bind(seen.engine.as_str())
        .bind(seen.version.to_string())
        .bind(seen.role.as_str())
        .bind(i64::from(seen.replicas_online))
        .bind(signed(seen.used_memory_bytes))
        .bind(signed(seen.max_memory_bytes))
        .bind(signed(seen.system_memory_bytes))
        .bind(signed(seen.keys))
        .bind(i64::from(seen.databases_used))
        .bind(instance.observed_at.as_microsecond())
        .bind(instance.created_at.as_microsecond())
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
        if inserted.rows_affected() == 0 {
            return Err(CatalogError::Taken("instance name"));
        }
        settings::insert(&mut tx, instance.id, &instance.settings).await?;
        let what = (EventKind::InstanceAdopted, None);
        events::note_instance(&mut tx, instance.id, what, instance.created_at).await?;
        self.commit_telling(tx).await
    }

    async fn find_instance(
        &self,
        project: &ProjectId,
        id: InstanceId,
    ) -> Result<Option<Instance>, CatalogError> {
        let row: Option<InstanceRow> = select()
            .push(" AND i.project_id = ")
            .push_bind(project.as_str())
            .push(" AND i.id = ")
            .push_bind(id.to_string())
            .build_query_as()
            .fetch_optional(&self.readers)
            .await
            .map_err(unavailable)?;
        row.map(Instance::try_from).transpose()
    }

    async fn list_instances(
        &self,
        project: &ProjectId,
        filter: &InstanceFilter,
        page: Page,
    ) -> Result<Listing<Instance>, CatalogError> {
        let mut tx = self.read().await?;
        let mut count =
            QueryBuilder::new("SELECT count(*) FROM instances i WHERE i.removed_at IS NULL");
        narrow(&mut count, project, filter);
        let total: i64 =
            count.build_query_scalar().fetch_one(&mut *tx).await.map_err(unavailable)?;
        let mut select = select();
        narrow(&mut select, project, filter);
        if let Some(after) = filter.after {
            select.push(
                " AND (i.created_at, i.seq) < (SELECT created_at, seq FROM instances WHERE id = ",
            );
            select.push_bind(after.to_string()).push(" AND project_id = ");
            select.push_bind(project.as_str().to_owned()).push(")");
        }
        select
            .push(" ORDER BY i.created_at DESC, i.seq DESC LIMIT ")
            .push_bind(i64::from(page.limit));
        select.push(" OFFSET ").push_bind(signed(page.offset));
        let rows: Vec<InstanceRow> =
            select.build_query_as().fetch_all(&mut *tx).await.map_err(unavailable)?;
        let items = rows.into_iter().map(Instance::try_from).collect::<Result<_, _>>()?;
        Ok(Listing { items, total: total.unsigned_abs() })
    }

    async fn remove_instance(
        &self,
        project: &ProjectId,
        id: InstanceId,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        refuse_open_job(&mut tx, project, id).await?;
        let with_files: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM backups WHERE instance_id = ? AND project_id = ? AND state = 'succeeded'",
        )
        .bind(id.to_string())
        .bind(project.as_str())
        .fetch_one(&mut *tx)
        .await
        .map_err(unavailable)?;
        if with_files > 0 {
            return Err(CatalogError::HasBackups(with_files.unsigned_abs()));
        }
        let_go(&mut tx, project, id, now).await?;
        self.commit_telling(tx).await
    }

    async fn remove_instance_keeping_backups(
        &self,
        project: &ProjectId,
        id: InstanceId,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        refuse_open_job(&mut tx, project, id).await?;
        let_go(&mut tx, project, id, now).await?;
        self.commit_telling(tx).await
    }

    async fn change_instance(
        &self,
        project: &ProjectId,
        id: InstanceId,
        change: &InstanceChange,
        policy_id: PolicyId,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        require_instance(&mut tx, project, id).await?;
        if let Some(name) = &change.name {
            settings::set_name(&mut tx, (project, id), name).await?;
        }
        if let Some(description) = &change.description {
            settings::set_description(&mut tx, id, description.as_str()).await?;
        }
        if let Some(window) = change.maintenance {
            settings::set_maintenance(&mut tx, id, window).await?;
        }
        if let Some(policy) = change.policy.clone() {
            settings::change_policy(&mut tx, id, policy, policy_id, now).await?;
            settings::note_change(&mut tx, id, now).await?;
            events::note_instance(&mut tx, id, (EventKind::PolicyChanged, None), now).await?;
        }
        if let Some(new) = &change.connection {
            put_connection(&mut tx, (project, id), new, now).await?;
            settings::note_change(&mut tx, id, now).await?;
            let told = format!("it is reached at {}", new.connection.address);
            let what = (EventKind::InstanceChanged, Some(told.as_str()));
            events::note_instance(&mut tx, id, what, now).await?;
        }
        if change.name.is_some() || change.description.is_some() || change.maintenance.is_some() {
            settings::note_change(&mut tx, id, now).await?;
            events::note_instance(&mut tx, id, (EventKind::InstanceChanged, None), now).await?;
        }
        self.commit_telling(tx).await
    }

    async fn remove_backup_policy(
        &self,
        project: &ProjectId,
        id: InstanceId,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        require_instance(&mut tx, project, id).await?;
        if !settings::remove_policy(&mut tx, id).await? {
            return Err(CatalogError::NotFound("backup policy"));
        }
        settings::note_change(&mut tx, id, now).await?;
        // What its rules kept beyond its time is kept by nothing now.
        retention::look_at(&mut tx, &id.to_string(), now).await?;
        events::note_instance(&mut tx, id, (EventKind::PolicyChanged, None), now).await?;
        self.commit_telling(tx).await
    }

    async fn change_tags(
        &self,
        project: &ProjectId,
        id: InstanceId,
        change: &TagChange,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        require_instance(&mut tx, project, id).await?;
        settings::change_tags(&mut tx, id, change).await?;
        settings::note_change(&mut tx, id, now).await?;
        events::note_instance(&mut tx, id, (EventKind::InstanceChanged, None), now).await?;
        self.commit_telling(tx).await
    }

    async fn list_tags(&self, project: &ProjectId) -> Result<Vec<Tag>, CatalogError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT DISTINCT t.key, t.value FROM instance_tags t
                 JOIN instances i ON i.id = t.instance_id
             WHERE i.project_id = ? AND i.removed_at IS NULL ORDER BY t.key, t.value",
        )
        .bind(project.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(unavailable)?;
        let tag = |(key, value): &(String, String)| {
            let row = RowOf { table: "instance_tags", key };
            Tag::new(key, value).map_err(|e| row.corrupt(e))
        };
        rows.iter().map(tag).collect()
    }

    async fn count_instances(&self, project: &ProjectId) -> Result<InstanceCounts, CatalogError> {
        let mut query =
            QueryBuilder::<Sqlite>::new("SELECT state, count(*), sum(bytes) FROM (SELECT ");
        push_state(&mut query);
        query.push(" AS state, ").push(CAPACITY);
        query.push(" AS bytes FROM instances i WHERE i.removed_at IS NULL AND i.project_id = ");
        query.push_bind(project.as_str().to_owned()).push(") GROUP BY state");
        let rows: Vec<(String, i64, i64)> =
            query.build_query_as().fetch_all(&self.readers).await.map_err(unavailable)?;
        let of = |state| rows.iter().find(|(word, ..)| word == state_word(state));
        let count = |state| of(state).map_or(0, |(_, count, _)| count.unsigned_abs());
        Ok(InstanceCounts {
            running: count(InstanceState::Running),
            restoring: count(InstanceState::Restoring),
            down: count(InstanceState::Down),
            capacity_bytes: rows.iter().map(|(_, _, bytes)| bytes.unsigned_abs()).sum(),
        })
    }

    async fn instances_seen_before(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<Instance>, CatalogError> {
        let rows: Vec<InstanceRow> = select()
            .push(" AND i.observed_at < ")
            .push_bind(before.as_microsecond())
            .push(" ORDER BY i.observed_at LIMIT ")
            .push_bind(i64::from(limit))
            .build_query_as()
            .fetch_all(&self.readers)
            .await
            .map_err(unavailable)?;
        rows.into_iter().map(Instance::try_from).collect()
    }

    async fn record_look(
        &self,
        id: InstanceId,
        found: Result<&Observation, &str>,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let failure = found.err();
        let mut tx = self.write().await?;
        note_health(&mut tx, id, failure, now).await?;
        let mut update = QueryBuilder::<Sqlite>::new("UPDATE instances SET observed_at = ");
        update.push_bind(now.as_microsecond());
        match failure {
            None => update.push(", unreachable_because = NULL, failed_looks = 0"),
            Some(reason) => update
                .push(", failed_looks = failed_looks + 1, unreachable_because = ")
                .push_bind(reason.to_owned()),
        };
        if let Ok(seen) = found {
            push_observation(&mut update, seen);
        }
        update.push(" WHERE id = ").push_bind(id.to_string());
        update.build().execute(&mut *tx).await.map_err(unavailable)?;
        self.commit_telling(tx).await
    }
}

fn push_observation(update: &mut QueryBuilder<Sqlite>, seen: &Observation) {
    update.push(", engine = ").push_bind(seen.engine.as_str());
    update.push(", server_version = ").push_bind(seen.version.to_string());
    update.push(", role = ").push_bind(seen.role.as_str());
    update.push(", replicas_online = ").push_bind(i64::from(seen.replicas_online));
    update.push(", used_memory_bytes = ").push_bind(signed(seen.used_memory_bytes));
    update.push(", max_memory_bytes = ").push_bind(signed(seen.max_memory_bytes));
    update.push(", system_memory_bytes = ").push_bind(signed(seen.system_memory_bytes));
    update.push(", keys = ").push_bind(signed(seen.keys));
    update.push(", databases_used = ").push_bind(i64::from(seen.databases_used));
}

/// Puts a connection in place of the expected one, with what was seen through it.
async fn put_connection(
    tx: &mut SqliteConnection,
    (project, id): (&ProjectId, InstanceId),
    new: &NewConnection,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let NewConnection { expected, connection, observation } = new;
    if (&connection.address, connection.tls) != (&expected.address, expected.tls) {
        refuse_open_restore(tx, project, id).await?;
    }
    note_health(tx, id, None, now).await?;
    let mut update = QueryBuilder::<Sqlite>::new("UPDATE instances SET observed_at = ");
    update.push_bind(now.as_microsecond());
    update.push(", unreachable_because = NULL, failed_looks = 0");
    push_observation(&mut update, observation);
    push_connection(&mut update, connection, [", ", " = "]);
    update.push(" WHERE id = ").push_bind(id.to_string());
    push_connection(&mut update, expected, [" AND ", " IS "]);
    let updated = update.build().execute(tx).await.map_err(unavailable)?;
    if updated.rows_affected() == 0 { Err(CatalogError::Changed("connection")) } else { Ok(()) }
}

/// Every column of a connection with its value: before each the first text, between them the other.
fn push_connection(
    query: &mut QueryBuilder<Sqlite>,
    connection: &SealedConnection,
    [before, between]: [&str; 2],
) {
    let SealedConnection {
        address: Address { host, port },
        username,
        password,
        tls,
        tls_ca_pem,
        tls_certificate_pem,
        tls_key_pem,
    } = connection;
    let bytes = |secret: &Option<SealedSecret>| secret.as_ref().map(|secret| secret.0.clone());
    query.push(before).push("host").push(between).push_bind(host.clone());
    query.push(before).push("port").push(between).push_bind(i64::from(*port));
    query.push(before).push("username").push(between).push_bind(username.clone());
    query.push(before).push("password").push(between).push_bind(bytes(password));
    query.push(before).push("tls").push(between).push_bind(*tls);
    query.push(before).push("tls_ca_pem").push(between).push_bind(tls_ca_pem.clone());
    query.push(before).push("tls_certificate_pem").push(between);
    query.push_bind(tls_certificate_pem.clone());
    query.push(before).push("tls_key_pem").push(between).push_bind(bytes(tls_key_pem));
}

async fn refuse_open_restore(
    tx: &mut SqliteConnection,
    project: &ProjectId,
    id: InstanceId,
) -> Result<(), CatalogError> {
    let is_open: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM jobs WHERE instance_id = ? AND project_id = ?
             AND state IN ('queued', 'leased') AND kind = 'restore')",
    )
    .bind(id.to_string())
    .bind(project.as_str())
    .fetch_one(tx)
    .await
    .map_err(unavailable)?;
    if is_open { Err(CatalogError::Busy(JobKind::Restore)) } else { Ok(()) }
}

/// Notes where this look makes the instance count as down, or no longer.
async fn note_health(
    tx: &mut SqliteConnection,
    id: InstanceId,
    failure: Option<&str>,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let found: Option<(Option<String>, i64)> = sqlx::query_as(
        "SELECT unreachable_because, failed_looks FROM instances WHERE id = ? AND removed_at IS NULL",
    )
    .bind(id.to_string())
    .fetch_optional(&mut *tx)
    .await
    .map_err(unavailable)?;
    let Some((reason, looks)) = found else { return Ok(()) };
    let key = id.to_string();
    let before = health(&RowOf { table: "instances", key: &key }, reason, looks)?;
    let what = match before.change(failure) {
        Some(true) => (EventKind::InstanceReachable, None),
        Some(false) => (EventKind::InstanceUnreachable, failure),
        None => return Ok(()),
    };
    events::note_instance(tx, id, what, now).await
}

fn health(
    row: &RowOf<'_>,
    unreachable_because: Option<String>,
    failed_looks: i64,
) -> Result<Health, CatalogError> {
    Ok(match unreachable_because {
        None => Health::Reachable,
        Some(reason) => Health::Unreachable { reason, looks: row.number(failed_looks)? },
    })
}

fn narrow(query: &mut QueryBuilder<Sqlite>, project: &ProjectId, filter: &InstanceFilter) {
    query.push(" AND i.project_id = ").push_bind(project.as_str().to_owned());
    if let Some(id) = filter.id {
        query.push(" AND i.id = ").push_bind(id.to_string());
    }
    if let Some(name) = &filter.name {
        query.push(" AND i.name = ").push_bind(name.clone());
    }
    if let Some(part) = &filter.name_contains {
        query.push(" AND instr(i.name, ").push_bind(part.clone()).push(") > 0");
    }
    if let Some(host) = &filter.host {
        query.push(" AND i.host = ").push_bind(host.clone());
    }
    if let Some(state) = filter.state {
        query.push(" AND ");
        push_state(query);
        query.push(" = ").push_bind(state_word(state));
    }
    if let Some((from, to)) = filter.capacity_bytes {
        query.push(" AND ").push(CAPACITY).push(" BETWEEN ").push_bind(signed(from));
        query.push(" AND ").push_bind(signed(to));
    }
    for tag in &filter.tags {
        query.push(
            " AND EXISTS (SELECT 1 FROM instance_tags t WHERE t.instance_id = i.id AND t.key = ",
        );
        query.push_bind(tag.key().to_owned()).push(" AND t.value = ");
        query.push_bind(tag.value().to_owned()).push(")");
    }
}
