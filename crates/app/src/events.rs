//! Telling what has happened.

use cachevault_domain::{Action, Caller, EventFilter, EventId, EventPage};

use crate::{App, AppError};

impl App {
    /// What has happened in the project, or to one of its instances: `limit` events at the most.
    ///
    /// # Errors
    /// [`AppError::InstanceNotFound`], [`AppError::CatalogFailed`].
    pub async fn list_events(
        &self,
        caller: &Caller,
        filter: &EventFilter,
        limit: u32,
    ) -> Result<EventPage, AppError> {
        let project = caller.may(Action::ListEvents)?;
        if let Some(instance) = filter.instance {
            self.find_instance(project, instance).await?;
        }
        Ok(self.catalog.list_events(project, filter, limit).await?)
    }

    /// The same for whoever follows what happens: the events behind one, the oldest first. An
    /// instance that was let go meanwhile is no error. Where the catalog has never had the event, as
    /// after it was rebuilt, the list begins with the first.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn follow_events(
        &self,
        caller: &Caller,
        filter: &EventFilter,
        limit: u32,
    ) -> Result<EventPage, AppError> {
        let project = caller.may(Action::ListEvents)?;
        let filter = EventFilter { before: None, newest_first: false, ..*filter };
        let page = self.catalog.list_events(project, &filter, limit).await?;
        if filter.after <= page.newest {
            return Ok(page);
        }
        let filter = EventFilter { after: EventId::ZERO, ..filter };
        Ok(self.catalog.list_events(project, &filter, limit).await?)
    }
}
