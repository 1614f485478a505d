//! Adopting servers and letting them go.

use cachevault_domain::{
    Action, Backup, BackupFilter, BackupId, BackupPolicy, BackupState, Caller, Connection,
    ConnectionChange, Description, Health, HostRules, HourWindow, Identity, Instance,
    InstanceChange, InstanceCounts, InstanceFilter, InstanceId, InstanceName, InstanceSettings,
    JobId, Listing, Login, NewConnection, Page, PolicyId, Project, ProjectId, SealedConnection,
    ServerWords, StoredPolicy, Tag, TagChange, Target, TlsSettings,
};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use crate::{AccessError, App, AppError, ProjectKey, Unsealable};

/// What it takes to adopt a server.
#[derive(Debug, Clone)]
pub struct AddInstance {
    /// Its name in the project.
    pub name: InstanceName,
    /// How to reach it.
    pub target: Target,
    /// What its owner says about it.
    pub settings: FirstSettings,
}

/// What can be said about an instance from the beginning.
#[derive(Debug, Clone, Default)]
pub struct FirstSettings {
    /// What it is.
    pub description: Description,
    /// When it may be worked on; `None` leaves it to us.
    pub maintenance: Option<HourWindow>,
    /// Whether, and when, it is backed up by itself.
    pub policy: Option<BackupPolicy>,
    /// Its tags.
    pub tags: Vec<Tag>,
}

impl App {
    /// Adopts a server, after having looked at it.
    ///
    /// # Errors
    /// [`AppError::CannotAdopt`] says exactly what is wrong with the server;
    /// [`AppError::NameTaken`], [`AppError::TooManyTags`]; [`AppError::SingleNode`] for an
    /// automatic policy where the configuration asks for it; [`AppError::CatalogFailed`].
    pub async fn add_instance(
        &self,
        caller: &Caller,
        wish: AddInstance,
    ) -> Result<Instance, AppError> {
        let project = caller.may(Action::CreateInstance)?;
        let target = self.bounded(wish.target, project, Some(caller)).await?;
        let observation = self.prober.probe(&target).await.map_err(AppError::CannotAdopt)?;
        let is_single = observation.replicas_online == 0;
        let is_automatic = wish.settings.policy.as_ref().is_some_and(BackupPolicy::is_automatic);
        if is_automatic && is_single && !self.single_node_backups {
            return Err(AppError::SingleNode);
        }
        let now = self.clock.now();
        let id = InstanceId::mint(&*self.entropy);
        let instance = Instance {
            id,
            project: project.clone(),
            name: wish.name,
            connection: self.seal_connection(id, target),
            observation,
            observed_at: now,
            health: Health::Reachable,
            created_at: now,
            changed_at: now,
            operation: None,
            proven: None,
            settings: self.first_settings(wish.settings),
        };
        self.catalog.add_instance(&instance).await?;
        Ok(instance)
    }

    fn first_settings(&self, wish: FirstSettings) -> InstanceSettings {
        let now = self.clock.now();
        let policy = wish.policy.map(|policy| StoredPolicy {
            id: PolicyId::mint(&*self.entropy),
            policy,
            created_at: now,
            updated_at: now,
        });
        let defaults = InstanceSettings::default();
        InstanceSettings {
            description: wish.description,
            maintenance: wish.maintenance.unwrap_or(defaults.maintenance),
            policy,
            tags: wish.tags,
        }
    }

    /// Changes what is said about an instance.
    ///
    /// # Errors
    /// [`AppError::InstanceNotFound`], [`AppError::NameTaken`]; [`AppError::SingleNode`] for an
    /// automatic policy where the configuration asks for it; [`AppError::CatalogFailed`].
    pub async fn change_instance(
        &self,
        caller: &Caller,
        id: InstanceId,
        change: &InstanceChange,
    ) -> Result<(), AppError> {
        let project = caller.may(Action::ModifyInstance)?;
        // Switching it off is always possible, also where the last replica has gone.
        let is_automatic = change.policy.as_ref().is_some_and(BackupPolicy::is_automatic);
        if is_automatic && !self.single_node_backups {
            let found = self.find_instance(project, id).await?;
            if found.observation.replicas_online == 0 {
                return Err(AppError::SingleNode);
            }
        }
        let policy_id = PolicyId::mint(&*self.entropy);
        let now = self.clock.now();
        Ok(self.catalog.change_instance(project, id, change, policy_id, now).await?)
    }

    /// Changes how an instance is reached, after having reached it so, and what is said about it: all
    /// of it or nothing. Its id, its policy and its backups stay. Nothing is changed at the server.
    ///
    /// # Errors
    /// Those of [`App::change_instance`]; [`AppError::InvalidConnection`]; [`AppError::CannotAdopt`]
    /// says exactly what is wrong with the server; [`AppError::ConnectionChanged`];
    /// [`AppError::InstanceBusy`] for another address during a restore;
    /// [`AppError::SecretUnreadable`].
    pub async fn change_connection(
        &self,
        caller: &Caller,
        id: InstanceId,
        wish: ConnectionChange,
        change: InstanceChange,
    ) -> Result<(), AppError> {
        let project = caller.may(Action::ModifyInstance)?;
        let found = self.find_instance(project, id).await?;
        let connection = Connection::from(self.open_secrets(&found)?);
        let target = connection.changed(wish)?.target()?;
        let target = self.bounded(target, project, Some(caller)).await?;
        let observation = self.prober.probe(&target).await.map_err(AppError::CannotAdopt)?;
        let policy = found.settings.policy.as_ref().map(|stored| &stored.policy);
        let is_automatic =
            change.policy.as_ref().or(policy).is_some_and(BackupPolicy::is_automatic);
        if is_automatic && observation.replicas_online == 0 && !self.single_node_backups {
            return Err(AppError::SingleNode);
        }
        let connection = NewConnection {
            expected: found.connection,
            connection: self.seal_connection(id, target),
            observation,
        };
        let change = InstanceChange { connection: Some(connection), ..change };
        let policy_id = PolicyId::mint(&*self.entropy);
        let now = self.clock.now();
        Ok(self.catalog.change_instance(project, id, &change, policy_id, now).await?)
    }

    /// Takes the new password of an instance, for who knows the one that was stored. The server must
    /// take it already.
    ///
    /// # Errors
    /// [`AppError::WrongPassword`] where it is not the stored one; those of
    /// [`App::change_connection`].
    pub async fn replace_password(
        &self,
        caller: &Caller,
        id: InstanceId,
        old: &SecretString,
        new: SecretString,
    ) -> Result<(), AppError> {
        let project = caller.may(Action::ModifyInstance)?;
        let found = self.find_instance(project, id).await?;
        let stored = Connection::from(self.open_secrets(&found)?).password;
        let stored = stored.as_ref().map_or("", |stored| stored.expose_secret());
        if !bool::from(stored.as_bytes().ct_eq(old.expose_secret().as_bytes())) {
            return Err(AppError::WrongPassword);
        }
        let wish = ConnectionChange { password: Some(new), ..ConnectionChange::default() };
        self.change_connection(caller, id, wish, InstanceChange::default()).await
    }

    /// Changes an instance's tags.
    ///
    /// # Errors
    /// [`AppError::InstanceNotFound`], [`AppError::TooManyTags`], [`AppError::CatalogFailed`].
    pub async fn change_tags(
        &self,
        caller: &Caller,
        id: InstanceId,
        change: &TagChange,
    ) -> Result<(), AppError> {
        let project = caller.may(Action::ModifyInstance)?;
        Ok(self.catalog.change_tags(project, id, change, self.clock.now()).await?)
    }

    /// The tags of all instances of the project, each once, by key and value.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn list_tags(&self, caller: &Caller) -> Result<Vec<Tag>, AppError> {
        Ok(self.catalog.list_tags(caller.may(Action::ListInstances)?).await?)
    }

    /// The number of instances of the project.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn count_instances(&self, caller: &Caller) -> Result<InstanceCounts, AppError> {
        let project = caller.may(Action::ListInstances)?;
        Ok(self.catalog.count_instances(project).await?)
    }

    /// The project with the number of its instances.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn project_quota(
        &self,
        caller: &Caller,
    ) -> Result<(Project, InstanceCounts), AppError> {
        let project = caller.may(Action::ListInstances)?;
        let found = self.find_project(&ProjectKey::Id(project.clone())).await?;
        let found = found.ok_or(AccessError::ProjectNotFound)?;
        Ok((found, self.catalog.count_instances(project).await?))
    }

    /// The instance whose configuration is asked for.
    ///
    /// # Errors
    /// [`AppError::InstanceNotFound`], [`AppError::CatalogFailed`].
    pub async fn get_configured_instance(
        &self,
        caller: &Caller,
        id: InstanceId,
    ) -> Result<Instance, AppError> {
        self.find_instance(caller.may(Action::GetConfiguration)?, id).await
    }

    /// The instance.
    ///
    /// # Errors
    /// [`AppError::InstanceNotFound`], [`AppError::CatalogFailed`].
    pub async fn get_instance(
        &self,
        caller: &Caller,
        id: InstanceId,
    ) -> Result<Instance, AppError> {
        self.find_instance(caller.may(Action::GetInstance)?, id).await
    }

    pub(crate) async fn find_instance(
        &self,
        project: &ProjectId,
        id: InstanceId,
    ) -> Result<Instance, AppError> {
        self.catalog.find_instance(project, id).await?.ok_or(AppError::InstanceNotFound)
    }

    /// Refuses unless the project has the instance, or backups of one that was let go.
    pub(crate) async fn require_instance(
        &self,
        project: &ProjectId,
        id: InstanceId,
    ) -> Result<(), AppError> {
        let is_known = self.catalog.find_instance(project, id).await?.is_some()
            || self.catalog.has_backups(project, id).await?;
        if is_known { Ok(()) } else { Err(AppError::InstanceNotFound) }
    }

    /// Instances of the project, newest first; none where no filter says which.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn list_instances(
        &self,
        caller: &Caller,
        filter: Option<&InstanceFilter>,
        page: Page,
    ) -> Result<Listing<Instance>, AppError> {
        let project = caller.may(Action::ListInstances)?;
        let Some(filter) = filter else { return Ok(Listing { items: Vec::new(), total: 0 }) };
        Ok(self.catalog.list_instances(project, filter, page).await?)
    }

    /// Lets an instance go; the server itself is not touched.
    ///
    /// # Errors
    /// [`AppError::InstanceNotFound`], [`AppError::InstanceBusy`],
    /// [`AppError::InstanceHasBackups`], [`AppError::CatalogFailed`].
    pub async fn remove_instance(&self, caller: &Caller, id: InstanceId) -> Result<(), AppError> {
        let project = caller.may(Action::DeleteInstance)?;
        Ok(self.catalog.remove_instance(project, id, self.clock.now()).await?)
    }

    /// Lets an instance go and keeps its backups: none of them expires, each stays until somebody
    /// deletes it.
    ///
    /// # Errors
    /// [`AppError::InstanceNotFound`], [`AppError::InstanceBusy`], [`AppError::CatalogFailed`].
    pub async fn remove_instance_keeping_backups(
        &self,
        caller: &Caller,
        id: InstanceId,
    ) -> Result<(), AppError> {
        let project = caller.may(Action::DeleteInstance)?;
        let now = self.clock.now();
        Ok(self.catalog.remove_instance_keeping_backups(project, id, now).await?)
    }

    /// Removes the files of all backups of an instance, waits for it, and lets the instance go.
    ///
    /// Nothing is removed unless all of it can be, and only backups that were there when this was
    /// asked: one that comes meanwhile keeps the instance.
    ///
    /// # Errors
    /// [`AppError::Denied`] also without the permission to delete backups, where there are any;
    /// [`AppError::InstanceNotFound`]; [`AppError::InstanceBusy`] also while a backup is read by a
    /// restore or a drill; [`AppError::RemovalFailed`] when the files are not gone in time: the
    /// service goes on removing them, the instance stays until it is asked again;
    /// [`AppError::CatalogFailed`].
    pub async fn remove_instance_with_backups(
        &self,
        caller: &Caller,
        id: InstanceId,
    ) -> Result<(), AppError> {
        let project = caller.may(Action::DeleteInstance)?;
        self.find_instance(project, id).await?;
        let backups = self.backups_with_files(project, id).await?;
        if !backups.is_empty() {
            caller.may(Action::DeleteBackup)?;
            let wanted: Vec<_> =
                backups.into_iter().map(|id| (id, JobId::mint(&*self.entropy))).collect();
            let now = self.clock.now();
            let jobs = self.catalog.request_removals(project, id, &wanted, now).await?;
            self.wait_for_removals(project, &jobs).await?;
        }
        self.remove_instance(caller, id).await
    }

    /// Does the same to several instances, one after the other; tells what became of each.
    ///
    /// # Errors
    /// [`AppError::Denied`], before anything is done.
    pub async fn remove_instances_with_backups(
        &self,
        caller: &Caller,
        ids: &[InstanceId],
    ) -> Result<Vec<Result<(), AppError>>, AppError> {
        caller.may(Action::DeleteInstance)?;
        let mut results = Vec::with_capacity(ids.len());
        for id in ids {
            results.push(self.remove_instance_with_backups(caller, *id).await);
        }
        Ok(results)
    }

    async fn backups_with_files(
        &self,
        project: &ProjectId,
        id: InstanceId,
    ) -> Result<Vec<BackupId>, AppError> {
        const LIMIT: u32 = 1000;
        let mut found = Vec::new();
        let mut page = Page { offset: 0, limit: LIMIT };
        loop {
            let filter = BackupFilter::default();
            let listing = self.catalog.list_backups(project, id, &filter, page).await?;
            let succeeded = |backup: &&Backup| backup.state == BackupState::Succeeded;
            found.extend(listing.items.iter().filter(succeeded).map(|backup| backup.id));
            page.offset += u64::from(LIMIT);
            if page.offset >= listing.total {
                return Ok(found);
            }
        }
    }

    /// Looks at an instance, for somebody or for the service itself, and notes what was found;
    /// returns whether it answered.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`], [`AppError::SecretUnreadable`].
    pub async fn look_at_instance(
        &self,
        instance: &Instance,
        asker: Option<&Caller>,
    ) -> Result<Result<(), AppError>, AppError> {
        let target = self.open_connection(instance, asker).await?;
        let found = self.prober.look(&target).await;
        let reason = found.as_ref().err().map(ToString::to_string);
        let told = found.as_ref().map_err(|_| reason.as_deref().unwrap_or_default());
        self.catalog.record_look(instance.id, told, self.clock.now()).await?;
        Ok(found.map(drop).map_err(AppError::InstanceDown))
    }

    /// How to reach an instance, for somebody or for the service itself, with its secrets in clear.
    ///
    /// # Errors
    /// [`AppError::SecretUnreadable`] when they were sealed with another master key;
    /// [`AppError::CatalogFailed`].
    pub async fn open_connection(
        &self,
        instance: &Instance,
        asker: Option<&Caller>,
    ) -> Result<Target, AppError> {
        self.bounded(self.open_secrets(instance)?, &instance.project, asker).await
    }

    /// The target with what its project may reach, and what its errors may tell: in a project that
    /// administers the service all, but to nobody in it who does not.
    async fn bounded(
        &self,
        target: Target,
        project: &ProjectId,
        asker: Option<&Caller>,
    ) -> Result<Target, AppError> {
        let is_trusted = self.catalog.administers_service(project).await?;
        let may_hear = asker.is_none_or(|caller| caller.administers_service().is_ok());
        let words = match is_trusted && may_hear {
            true => ServerWords::Shown,
            false => ServerWords::Hidden,
        };
        Ok(Target { hosts: self.instance_hosts.with_local(is_trusted), words, ..target })
    }

    fn open_secrets(&self, instance: &Instance) -> Result<Target, Unsealable> {
        let connection = &instance.connection;
        let open = |what, sealed| self.sealer.open(&owner(instance.id, what), sealed);
        let password =
            connection.password.as_ref().map(|sealed| open("password", sealed)).transpose()?;
        let key_pem =
            connection.tls_key_pem.as_ref().map(|sealed| open("tls-key", sealed)).transpose()?;
        let identity = connection.tls_certificate_pem.clone().zip(key_pem);
        Ok(Target {
            address: connection.address.clone(),
            hosts: HostRules::default(),
            words: ServerWords::default(),
            login: password
                .map(|password| Login { username: connection.username.clone(), password }),
            tls: connection.tls.then(|| TlsSettings {
                ca_pem: connection.tls_ca_pem.clone(),
                identity: identity
                    .map(|(certificate_pem, key_pem)| Identity { certificate_pem, key_pem }),
            }),
        })
    }

    fn seal_connection(&self, id: InstanceId, target: Target) -> SealedConnection {
        let seal = |what, secret| self.sealer.seal(&owner(id, what), secret);
        let identity = target.tls.as_ref().and_then(|tls| tls.identity.as_ref());
        SealedConnection {
            address: target.address,
            username: target.login.as_ref().and_then(|login| login.username.clone()),
            password: target.login.as_ref().map(|login| seal("password", &login.password)),
            tls: target.tls.is_some(),
            tls_ca_pem: target.tls.as_ref().and_then(|tls| tls.ca_pem.clone()),
            tls_certificate_pem: identity.map(|identity| identity.certificate_pem.clone()),
            tls_key_pem: identity.map(|identity| seal("tls-key", &identity.key_pem)),
        }
    }
}

fn owner(id: InstanceId, what: &str) -> String {
    format!("instance/{id}/{what}")
}
