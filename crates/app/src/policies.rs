//! Policies: roles that a project writes itself.

use cachevault_catalog::CatalogError;
use cachevault_domain::{
    AccessPolicy, Action, ActionPattern, Caller, Listing, Page, ProjectId, RoleName,
};

use crate::access::AccessError;
use crate::{App, AppError, ProjectKey};

impl App {
    /// Writes a new policy.
    ///
    /// # Errors
    /// [`AccessError::GrantsTooMuch`] where it would allow more than the caller may do,
    /// [`AccessError::Taken`] also for the name of a built-in role.
    pub async fn create_policy(
        &self,
        caller: &Caller,
        project: Option<&ProjectKey>,
        name: RoleName,
        actions: Vec<ActionPattern>,
    ) -> Result<AccessPolicy, AppError> {
        let project = self.project_for(caller, project, Action::CreatePolicy).await?;
        check_actions(caller, &name, &actions)?;
        let now = self.clock.now();
        let policy = AccessPolicy { project, name, actions, created_at: now, updated_at: now };
        self.catalog.create_policy(&policy).await?;
        Ok(policy)
    }

    /// The policies of a project by their names.
    ///
    /// # Errors
    /// [`AccessError::ProjectNotFound`], [`AppError::Denied`].
    pub async fn list_policies(
        &self,
        caller: &Caller,
        project: Option<&ProjectKey>,
        page: Page,
    ) -> Result<Listing<AccessPolicy>, AppError> {
        let project = self.project_for(caller, project, Action::ListPolicies).await?;
        Ok(self.catalog.list_policies(&project, page).await?)
    }

    /// One policy.
    ///
    /// # Errors
    /// [`AccessError::PolicyNotFound`].
    pub async fn get_policy(
        &self,
        caller: &Caller,
        project: Option<&ProjectKey>,
        name: &RoleName,
    ) -> Result<AccessPolicy, AppError> {
        let project = self.project_for(caller, project, Action::ListPolicies).await?;
        self.find_policy(&project, name).await
    }

    /// Changes what a policy allows, for everyone that has it at once.
    ///
    /// # Errors
    /// [`AccessError::GrantsTooMuch`] where it allows more than the caller may do, before or after.
    pub async fn update_policy(
        &self,
        caller: &Caller,
        project: Option<&ProjectKey>,
        name: &RoleName,
        actions: &[ActionPattern],
    ) -> Result<AccessPolicy, AppError> {
        let project = self.project_for(caller, project, Action::ModifyPolicy).await?;
        let found = self.find_policy(&project, name).await?;
        check_actions(caller, name, &found.actions)?;
        check_actions(caller, name, actions)?;
        self.catalog.update_policy(&project, name, actions, self.clock.now()).await?;
        self.find_policy(&project, name).await
    }

    /// Removes a policy that nobody has.
    ///
    /// # Errors
    /// [`AccessError::GrantsTooMuch`] where it allows more than the caller may do;
    /// [`AccessError::PolicyInUse`], [`AccessError::PolicyNotFound`].
    pub async fn remove_policy(
        &self,
        caller: &Caller,
        project: Option<&ProjectKey>,
        name: &RoleName,
    ) -> Result<(), AppError> {
        let project = self.project_for(caller, project, Action::DeletePolicy).await?;
        check_actions(caller, name, &self.find_policy(&project, name).await?.actions)?;
        Ok(self.catalog.remove_policy(&project, name).await?)
    }

    async fn find_policy(
        &self,
        project: &ProjectId,
        name: &RoleName,
    ) -> Result<AccessPolicy, AppError> {
        let found = self.catalog.find_policy(project, name).await?;
        found.ok_or_else(|| CatalogError::NotFound("policy").into())
    }
}

fn check_actions(
    caller: &Caller,
    name: &RoleName,
    actions: &[ActionPattern],
) -> Result<(), AccessError> {
    if caller.may_grant(&actions.iter().cloned().collect()) {
        Ok(())
    } else {
        Err(AccessError::GrantsTooMuch(name.clone()))
    }
}
