//! Projects: the tenants.

use cachevault_catalog::{ProjectChanges, ProjectFilter};
use cachevault_domain::{Action, Caller, Listing, Page, Project, ProjectId, ProjectName, Subject};

use crate::access::AccessError;
use crate::{App, AppError, NewCredential};

const ONE: Page = Page { offset: 0, limit: 1 };

/// How a project is named in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProjectKey {
    /// By its id.
    Id(ProjectId),
    /// By its name.
    Name(String),
}

impl ProjectKey {
    /// An id where the text is one, else a name.
    pub fn of(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Id)
    }

    pub(crate) fn is_of(&self, project: &Project) -> bool {
        match self {
            Self::Id(id) => project.id == *id,
            Self::Name(name) => project.name.as_str() == name,
        }
    }

    fn filter(&self) -> ProjectFilter {
        match self {
            Self::Id(id) => ProjectFilter { id: Some(id.clone()), name: None },
            Self::Name(name) => ProjectFilter { id: None, name: Some(name.clone()) },
        }
    }
}

impl App {
    /// Whether the service was ever started with this catalog.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn has_projects(&self) -> Result<bool, AppError> {
        Ok(self.catalog.has_projects().await?)
    }

    /// Creates the first project with its credential, which may do everything in it and administers
    /// the service.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`], also when one of them is there already.
    pub async fn create_first_project(
        &self,
        credential: &NewCredential,
        name: &ProjectName,
    ) -> Result<(), AppError> {
        let (id, name, now) = (credential.project.clone(), name.clone(), self.clock.now());
        let project = Project { id, name, enabled: true, created_at: now };
        let first = self.first_credential(credential);
        Ok(self.catalog.create_project(&project, Some(&first)).await?)
    }

    /// Names the only project, as long as nobody has named it.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn name_only_project(&self, name: &ProjectName) -> Result<(), AppError> {
        let all = self.catalog.list_projects(&ProjectFilter::default(), ONE).await?;
        match &all.items[..] {
            [only] if all.total == 1 && only.name == ProjectName::unnamed(&only.id) => {
                let changes = ProjectChanges { name: Some(name.clone()), enabled: None };
                Ok(self.catalog.update_project(&only.id, &changes).await?)
            }
            _ => Ok(()),
        }
    }

    /// Creates a project. What opens it is created next, by the same caller.
    ///
    /// # Errors
    /// [`AccessError::NotAdministrator`], [`AccessError::Taken`].
    pub async fn create_project(
        &self,
        caller: &Caller,
        name: ProjectName,
    ) -> Result<Project, AppError> {
        caller.administers_service()?;
        let (id, created_at) = (ProjectId::mint(&*self.entropy), self.clock.now());
        let project = Project { id, name, enabled: true, created_at };
        self.catalog.create_project(&project, None).await?;
        Ok(project)
    }

    /// The projects that the caller may see: an administrator of the service all, others those that
    /// they have something in.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn list_projects(
        &self,
        caller: &Caller,
        page: Page,
    ) -> Result<Listing<Project>, AppError> {
        if caller.administers_service().is_ok() {
            return Ok(self.catalog.list_projects(&ProjectFilter::default(), page).await?);
        }
        caller.may(Action::ListProjects)?;
        let own = self.own_projects(caller).await?;
        let total = own.len() as u64;
        let skip = usize::try_from(page.offset).unwrap_or(usize::MAX);
        let items = own.into_iter().skip(skip).take(page.limit as usize).collect();
        Ok(Listing { items, total })
    }

    /// The enabled projects that the caller itself can work in, by their names.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn own_projects(&self, caller: &Caller) -> Result<Vec<Project>, AppError> {
        let mut projects: Vec<Project> = match caller.subject() {
            Subject::User(user) => {
                let grants = self.catalog.grants_of(&user.id).await?;
                grants.into_iter().map(|grant| grant.project).collect()
            }
            Subject::Key { .. } | Subject::Service => Vec::new(),
        };
        // What a user of another Keystone works in no grant of ours tells.
        if let Some(id) = caller.own_project()
            && !projects.iter().any(|project| project.id == *id)
        {
            let key = ProjectKey::Id(id.clone());
            projects.extend(self.find_project(&key).await?);
        }
        Ok(projects.into_iter().filter(|project| project.enabled).collect())
    }

    /// The project, whoever asks.
    pub(crate) async fn find_project(&self, key: &ProjectKey) -> Result<Option<Project>, AppError> {
        Ok(self.catalog.list_projects(&key.filter(), ONE).await?.items.pop())
    }

    /// Whether a project lets anybody in.
    pub(crate) async fn is_enabled(&self, id: &ProjectId) -> Result<bool, AppError> {
        let found = self.find_project(&ProjectKey::Id(id.clone())).await?;
        Ok(found.is_some_and(|project| project.enabled))
    }

    /// A project that the caller may see.
    ///
    /// # Errors
    /// [`AccessError::ProjectNotFound`].
    pub async fn get_project(
        &self,
        caller: &Caller,
        key: &ProjectKey,
    ) -> Result<Project, AppError> {
        if caller.administers_service().is_err() {
            caller.may(Action::GetProject)?;
        }
        self.visible_project(caller, key).await
    }

    async fn visible_project(
        &self,
        caller: &Caller,
        key: &ProjectKey,
    ) -> Result<Project, AppError> {
        let found = if caller.administers_service().is_ok() {
            self.find_project(key).await?
        } else {
            let own = self.own_projects(caller).await?;
            own.into_iter().find(|project| key.is_of(project))
        };
        Ok(found.ok_or(AccessError::ProjectNotFound)?)
    }

    /// Renames, enables or disables a project. A disabled one keeps all that it has, and its
    /// backups go on; only nobody gets in.
    ///
    /// # Errors
    /// [`AccessError::NotAdministrator`], [`AccessError::ProjectNotFound`],
    /// [`AccessError::Taken`]; [`AccessError::OwnAccess`] for disabling the caller's own.
    pub async fn update_project(
        &self,
        caller: &Caller,
        key: &ProjectKey,
        changes: &ProjectChanges,
    ) -> Result<Project, AppError> {
        caller.administers_service()?;
        let project = self.get_project(caller, key).await?;
        if changes.enabled == Some(false) && caller.is_in(&project.id) {
            return Err(AccessError::OwnAccess.into());
        }
        self.catalog.update_project(&project.id, changes).await?;
        self.get_project(caller, &ProjectKey::Id(project.id)).await
    }

    /// The project in which the caller may do this: its own, or for an administrator of the service
    /// any that it names.
    pub(crate) async fn project_for(
        &self,
        caller: &Caller,
        named: Option<&ProjectKey>,
        action: Action,
    ) -> Result<ProjectId, AppError> {
        let Some(named) = named else { return Ok(caller.may(action)?.clone()) };
        let project = self.visible_project(caller, named).await?;
        if caller.is_in(&project.id) {
            return Ok(caller.may(action)?.clone());
        }
        caller.administers_service().map_err(|_| AccessError::ProjectNotFound)?;
        Ok(project.id)
    }
}
