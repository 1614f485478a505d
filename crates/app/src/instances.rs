//! Adopting servers and letting them go.

use cachevault_domain::{
    Action, Caller, Health, Identity, Instance, InstanceFilter, InstanceId, InstanceName, Listing,
    Login, Page, ProjectId, SealedConnection, Target, TlsSettings,
};

use crate::{App, AppError, Unsealable};

/// What it takes to adopt a server.
#[derive(Debug, Clone)]
pub struct AddInstance {
    /// Its name in the project.
    pub name: InstanceName,
    /// How to reach it.
    pub target: Target,
}

impl App {
    /// Adopts a server, after having looked at it.
    ///
    /// # Errors
    /// [`AppError::CannotAdopt`] says exactly what is wrong with the server;
    /// [`AppError::NameTaken`], [`AppError::CatalogFailed`].
    pub async fn add_instance(
        &self,
        caller: &Caller,
        wish: AddInstance,
    ) -> Result<Instance, AppError> {
        let project = caller.may(Action::CreateInstance)?;
        let observation = self.prober.probe(&wish.target).await.map_err(AppError::CannotAdopt)?;
        let now = self.clock.now();
        let id = InstanceId::mint(&*self.entropy);
        let instance = Instance {
            id,
            project: project.clone(),
            name: wish.name,
            connection: self.seal_connection(id, wish.target),
            observation,
            observed_at: now,
            health: Health::Reachable,
            created_at: now,
            operation: None,
            proven: None,
        };
        self.catalog.add_instance(&instance).await?;
        Ok(instance)
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

    /// Instances of the project, newest first.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn list_instances(
        &self,
        caller: &Caller,
        filter: &InstanceFilter,
        page: Page,
    ) -> Result<Listing<Instance>, AppError> {
        let project = caller.may(Action::ListInstances)?;
        Ok(self.catalog.list_instances(project, filter, page).await?)
    }

    /// Instances of all projects, 10,000 at the most: for whoever watches the whole service.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn every_instance(&self) -> Result<Vec<Instance>, AppError> {
        const INSTANCES_MAX: u32 = 10_000;
        Ok(self.catalog.instances_seen_before(jiff::Timestamp::MAX, INSTANCES_MAX).await?)
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

    /// Looks at an instance and notes what was found; returns whether it answered.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`], [`AppError::SecretUnreadable`].
    pub async fn look_at_instance(
        &self,
        instance: &Instance,
    ) -> Result<Result<(), AppError>, AppError> {
        let target = self.open_connection(instance)?;
        let found = self.prober.look(&target).await;
        let reason = found.as_ref().err().map(ToString::to_string);
        let told = found.as_ref().map_err(|_| reason.as_deref().unwrap_or_default());
        self.catalog.record_look(instance.id, told, self.clock.now()).await?;
        Ok(found.map(drop).map_err(AppError::InstanceDown))
    }

    /// How to reach an instance, with its secrets in clear.
    ///
    /// # Errors
    /// [`Unsealable`] when they were sealed with another master key.
    pub fn open_connection(&self, instance: &Instance) -> Result<Target, Unsealable> {
        let connection = &instance.connection;
        let open = |what, sealed| self.sealer.open(&owner(instance.id, what), sealed);
        let password =
            connection.password.as_ref().map(|sealed| open("password", sealed)).transpose()?;
        let key_pem =
            connection.tls_key_pem.as_ref().map(|sealed| open("tls-key", sealed)).transpose()?;
        let identity = connection.tls_certificate_pem.clone().zip(key_pem);
        Ok(Target {
            address: connection.address.clone(),
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
