//! Query parameters of lists, in all spellings that clients send.
//!
//! The documents and the clients mix `beginTime`, `begin_time` and `begin_Time` on both versions.
//! Names are therefore compared without `_` and without case.

use std::borrow::Cow;
use std::collections::HashMap;

use cachevault_domain::{
    AuditFilter, BackupFilter, EventFilter, EventId, InstanceFilter, InstanceId, Page,
    RestoreFilter, TAGS_MAX, Tag,
};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::percent_decode_str;

use crate::dcs::DcsError;

/// The default page size.
const LIMIT_DEFAULT: u32 = 10;
/// The maximum page size of backups and restores.
pub(crate) const LIMIT_MAX: u32 = 1000;

/// The parameter that sets the start of a page, and its first number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageStart {
    /// `start`, from 1; `offset` is accepted too.
    One,
    /// `offset`, from 0; `start` is accepted too.
    Zero,
}

/// The fate of the backups of a removed instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BackupsOfRemoved {
    Delete,
    Keep,
}

/// Maximum length in bytes of a client's spelling in an error.
const SPELLING_BYTES_MAX: usize = 32;

/// The parameters of one request, by their normalized names.
#[derive(Debug)]
pub(crate) struct Query(HashMap<String, Parameter>);

/// One parameter of a request.
#[derive(Debug)]
struct Parameter {
    /// The name in the client's spelling.
    spelling: String,
    value: String,
}

impl Query {
    /// Parses the query part of a URI.
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let decode = |text: &str| {
            percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
        };
        let mut parameters = HashMap::new();
        for pair in query.unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let spelling = decode(name);
            let name = spelling.replace('_', "").to_lowercase();
            let value = decode(value);
            // The first of several equal names counts.
            parameters.entry(name).or_insert(Parameter { spelling, value });
        }
        Self(parameters)
    }

    /// The value of a parameter. An empty value counts as absent.
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|found| found.value.as_str()).filter(|text| !text.is_empty())
    }

    /// The name of a parameter for an error: in the client's spelling, or `documented`.
    fn spelled(&self, name: &str, documented: &'static str) -> Cow<'static, str> {
        let spelling = self.0.get(name).map(|found| found.spelling.as_str());
        let spelling = spelling.filter(|text| text.is_ascii() && text.len() <= SPELLING_BYTES_MAX);
        spelling.map_or(Cow::Borrowed(documented), |text| Cow::Owned(text.to_owned()))
    }

    fn invalid(&self, name: &str, documented: &'static str) -> DcsError {
        DcsError::InvalidQuery(self.spelled(name, documented))
    }

    fn invalid_page(&self, name: &'static str) -> DcsError {
        DcsError::InvalidPage(self.spelled(name, name))
    }

    /// Whether the parameter is present, with any value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// `true` or `false` in any case.
    fn flag(&self, name: &str, shown: &'static str) -> Result<bool, DcsError> {
        match self.text(name) {
            None => Ok(false),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(_) => Err(self.invalid(name, shown)),
        }
    }

    /// Whether the request addresses all instances whose creation failed; there are none.
    pub(crate) fn all_failed(&self) -> Result<bool, DcsError> {
        self.flag("allfailure", "all_failure")
    }

    /// The requested fate of the backups of a removed instance.
    pub(crate) fn backups_of_removed(&self) -> Result<Option<BackupsOfRemoved>, DcsError> {
        match self.text("backups") {
            None => Ok(None),
            Some("delete") => Ok(Some(BackupsOfRemoved::Delete)),
            Some("keep") => Ok(Some(BackupsOfRemoved::Keep)),
            Some(_) => Err(self.invalid("backups", "backups")),
        }
    }

    fn number(
        &self,
        name: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, DcsError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = whole_number(text).filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| self.invalid_page(name))
    }

    /// The requested page.
    pub(crate) fn page(
        &self,
        start: PageStart,
        limit_default: u32,
        limit_max: u32,
    ) -> Result<Page, DcsError> {
        let offset = self.number("offset", 0..=u64::MAX)?;
        let from_one = self.number("start", 1..=u64::MAX)?.map(|start| start - 1);
        let offset = match start {
            PageStart::One => from_one.or(offset),
            PageStart::Zero => offset.or(from_one),
        };
        let limit = match start {
            PageStart::One => self.clamped_limit(limit_default, limit_max)?,
            PageStart::Zero => self.limit(limit_default, limit_max)?,
        };
        Ok(Page { offset: offset.unwrap_or(0), limit })
    }

    /// The requested number of records.
    pub(crate) fn limit(&self, default: u32, max: u32) -> Result<u32, DcsError> {
        let limit = self.number("limit", 1..=u64::from(max))?;
        Ok(limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(default))
    }

    /// The requested number of records; larger numbers count as `max`.
    fn clamped_limit(&self, default: u32, max: u32) -> Result<u32, DcsError> {
        let limit = self.number("limit", 1..=u64::MAX)?;
        Ok(limit.map_or(default, |limit| u32::try_from(limit).map_or(max, |limit| limit.min(max))))
    }

    /// The filter for audit records.
    pub(crate) fn audit_filter(&self) -> Result<AuditFilter, DcsError> {
        let (from, to) = self.created()?;
        let after = self.text("marker").map(str::parse).transpose();
        Ok(AuditFilter {
            from,
            to,
            after: after.map_err(|_| self.invalid_page("marker"))?,
            with_service: false,
            oldest_first: match self.text("order") {
                None | Some("newest") => false,
                Some("oldest") => true,
                Some(_) => return Err(self.invalid("order", "order")),
            },
        })
    }

    /// The filter for events.
    pub(crate) fn event_filter(
        &self,
        instance: Option<InstanceId>,
    ) -> Result<EventFilter, DcsError> {
        Ok(EventFilter {
            instance,
            after: self.event("after")?.unwrap_or_default(),
            before: self.event("before")?,
            newest_first: match self.text("order") {
                None | Some("oldest") => false,
                Some("newest") => true,
                Some(_) => return Err(self.invalid("order", "order")),
            },
        })
    }

    /// The event id in a parameter.
    pub(crate) fn event(&self, name: &'static str) -> Result<Option<EventId>, DcsError> {
        let named = self.text(name).map(str::parse).transpose();
        named.map_err(|_| self.invalid_page(name))
    }

    /// The requested page of backups.
    pub(crate) fn backup_page(&self, start: PageStart) -> Result<Page, DcsError> {
        self.page(start, LIMIT_DEFAULT, LIMIT_MAX)
    }

    /// The filter for backups.
    pub(crate) fn backup_filter(&self) -> Result<BackupFilter, DcsError> {
        let (created_from, created_to) = self.created()?;
        Ok(BackupFilter { created_from, created_to, removed_since: None })
    }

    /// The filter for restores.
    pub(crate) fn restore_filter(&self) -> Result<RestoreFilter, DcsError> {
        let (created_from, created_to) = self.created()?;
        Ok(RestoreFilter { created_from, created_to })
    }

    fn created(&self) -> Result<(Option<Timestamp>, Option<Timestamp>), DcsError> {
        let created_from = self.moment("begintime", "begin_time")?;
        // The range includes the whole last second.
        let last = SignedDuration::from_micros(999_999);
        let created_to =
            self.moment("endtime", "end_time")?.map(|end| end.checked_add(last).unwrap_or(end));
        if let (Some(from), Some(to)) = (created_from, created_to)
            && to < from
        {
            return Err(DcsError::EndBeforeStart);
        }
        Ok((created_from, created_to))
    }

    /// The filter for instances; `None` when no instance can match.
    pub(crate) fn instance_filter(&self) -> Result<Option<InstanceFilter>, DcsError> {
        // Failed and deleted instances are never listed; the parameters are only validated.
        for (name, shown) in
            [("includefailure", "include_failure"), ("includedelete", "include_delete")]
        {
            self.flag(name, shown)?;
        }
        let exact = self.flag("nameequal", "name_equal")?
            | self.flag("exactmatchname", "exactMatchName")?
            | self.flag("isexactmatchname", "isExactMatchName")?;
        let status = self.text("status").map(crate::dcs::instance_state).transpose();
        let status = status.map_err(|_| self.invalid("status", "status"))?;
        let capacity = self.text("capacity").map(capacity);
        let invalid = || self.invalid("capacity", "capacity");
        let capacity = capacity.map(|range| range.ok_or_else(invalid)).transpose()?;
        let invalid = || self.invalid("tags", "tags");
        let tags = self.text("tags").map(|text| tags(text).ok_or_else(invalid));
        let tags = tags.transpose()?.unwrap_or_default();
        let id = self.text("instanceid").or(self.text("id")).map(str::parse);
        let after = self.text("marker").map(str::parse);
        if matches!(id, Some(Err(_))) || matches!(after, Some(Err(_))) || status == Some(None) {
            return Ok(None);
        }
        let name = self.text("name").map(str::to_owned);
        let (name, name_contains) = if exact { (name, None) } else { (None, name) };
        Ok(Some(InstanceFilter {
            id: id.and_then(Result::ok),
            name,
            name_contains,
            host: self.text("ip").map(str::to_owned),
            state: status.flatten(),
            capacity_bytes: capacity,
            tags,
            after: after.and_then(Result::ok),
        }))
    }

    /// The requested project, by id or name.
    pub(crate) fn project(&self) -> Option<&str> {
        self.text("project")
    }

    /// The value of `name`, unchanged.
    pub(crate) fn name(&self) -> Option<String> {
        self.text("name").map(str::to_owned)
    }

    /// Parses `yyyyMMddHHmmss`, UTC. A time beyond the supported range becomes the last one.
    fn moment(&self, name: &str, shown: &'static str) -> Result<Option<Timestamp>, DcsError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let digits = text.len() == 14 && text.bytes().all(|b| b.is_ascii_digit());
        let civil = digits.then(|| DateTime::strptime("%Y%m%d%H%M%S", text).ok()).flatten();
        let civil = civil.ok_or_else(|| self.invalid(name, shown))?;
        let zoned = civil.to_zoned(TimeZone::UTC);
        Ok(Some(zoned.map_or(Timestamp::MAX, |zoned| zoned.timestamp())))
    }
}

/// Parses digits only. A number that is too large becomes the maximum.
fn whole_number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// The byte range that is shown as this capacity: whole GiB, or eighths of one.
fn capacity(text: &str) -> Option<(u64, u64)> {
    const GIB: f64 = (1_u64 << 30) as f64;
    let gib: f64 = text.parse().ok()?;
    let step = if gib < 1.0 { GIB / 8.0 } else { GIB };
    if !(gib > 0.0 && gib <= f64::from(u32::MAX)) {
        return None;
    }
    let begin = (gib * GIB) as u64;
    // The smallest capacity also stands for all smaller sizes.
    let from = if gib <= 0.125 { 0 } else { begin };
    Some((from, begin + step as u64 - 1))
}

/// Parses `key=value,…`, or the form of one client: `{'key':'value',…}`.
fn tags(text: &str) -> Option<Vec<Tag>> {
    let braced = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let sign = if braced.is_some() { ':' } else { '=' };
    let unquoted = |text: &str| {
        let text = text.trim();
        let inner = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
        inner.filter(|_| braced.is_some()).unwrap_or(text).to_owned()
    };
    let tag = |pair: &str| {
        let (key, value) = pair.split_once(sign).unwrap_or((pair, ""));
        Tag::new(&unquoted(key), &unquoted(value)).ok()
    };
    let pairs = braced.unwrap_or(text);
    // No instance has more tags, and the size of the query stays bounded.
    if pairs.split(',').count() > TAGS_MAX {
        return None;
    }
    pairs.split(',').map(tag).collect()
}

#[cfg(test)]
mod tests {
    use cachevault_domain::InstanceState;

    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(Some(text))
    }

    #[test]
    fn every_spelling_of_the_times_is_accepted() {
        let wanted = query("begin_time=20170718000000&end_time=20170718235959").backup_filter();
        let wanted = wanted.unwrap();
        assert_eq!(wanted.created_from.unwrap().to_string(), "2017-07-18T00:00:00Z");
        for text in [
            "beginTime=20170718000000&endTime=20170718235959",
            "begin_Time=20170718000000&end_Time=20170718235959",
            "beginTime=20170718000000&end_time=20170718235959",
        ] {
            assert_eq!(query(text).backup_filter().unwrap(), wanted, "{text}");
        }
        assert_eq!(wanted.created_to.unwrap().to_string(), "2017-07-18T23:59:59.999999Z");
    }

    #[test]
    fn a_page_begins_where_its_version_says() {
        let page =
            |start, text| query(text).backup_page(start).map(|page| (page.offset, page.limit));
        assert_eq!(page(PageStart::Zero, ""), Ok((0, 10)));
        assert_eq!(page(PageStart::Zero, "offset=3&limit=2"), Ok((3, 2)));
        assert_eq!(page(PageStart::Zero, "start=4"), Ok((3, 10)));
        assert_eq!(page(PageStart::One, "start=4&limit=1000"), Ok((3, 1000)));
        assert_eq!(page(PageStart::One, "offset=3"), Ok((3, 10)));
        assert_eq!(page(PageStart::One, "start=2&offset=9"), Ok((1, 10)));
        for bad in [
            "offset=-1",
            "offset=x",
            "start=0",
            "limit=0",
            "limit=1001",
            "limit=99999999999999999999",
            "limit=+5",
        ] {
            assert!(matches!(page(PageStart::Zero, bad), Err(DcsError::InvalidPage(_))), "{bad}");
        }
    }

    #[test]
    fn invalid_and_reversed_times_are_refused() {
        for bad in [
            "begin_time=yesterday",
            "begin_time=2017-07-18",
            "end_time=20171318000000",
            "end_time=201707180000000",
        ] {
            assert!(matches!(query(bad).backup_filter(), Err(DcsError::InvalidQuery(_))), "{bad}");
        }
        let swapped = query("beginTime=20240102000000&endTime=20240101000000").backup_filter();
        assert_eq!(swapped, Err(DcsError::EndBeforeStart));
    }

    #[test]
    fn instances_are_named_as_clients_name_them() {
        let filter = query("includeFailure=True&exactMatchName=True&name=a%20b").instance_filter();
        let filter = filter.unwrap().unwrap();
        assert_eq!((filter.name.as_deref(), filter.name_contains), (Some("a b"), None));
        let filter = query("name=part").instance_filter().unwrap().unwrap();
        assert_eq!(filter.name_contains.as_deref(), Some("part"));
        assert_eq!(query("instance_id=nonsense").instance_filter(), Ok(None));
        assert_eq!(query("status=creating").instance_filter(), Ok(None));
        let filter = query("status=running&tags=a=1,b=").instance_filter().unwrap().unwrap();
        assert_eq!(filter.state, Some(InstanceState::Running));
        assert_eq!(filter.tags, [Tag::new("a", "1").unwrap(), Tag::new("b", "").unwrap()]);
        let braced = query("tags={'a':'1','b':''}").instance_filter().unwrap().unwrap();
        assert_eq!(braced.tags, filter.tags);
    }

    #[test]
    fn a_capacity_matches_instances_that_show_it() {
        const MIB: u64 = 1 << 20;
        for (text, from, to) in [
            ("0.125", 0, 256 * MIB - 1),
            ("0.5", 512 * MIB, 640 * MIB - 1),
            ("1", 1024 * MIB, 2048 * MIB - 1),
            ("64", 65536 * MIB, 65 * 1024 * MIB - 1),
        ] {
            assert_eq!(capacity(text), Some((from, to)), "{text}");
        }
    }

    #[test]
    fn empty_filters_are_refused() {
        for bad in [
            "status=happy",
            "capacity=much",
            "capacity=-1",
            "capacity=NaN",
            "tags=%00",
            &format!("tags={}", ["a"; TAGS_MAX + 1].join(",")),
            "include_failure=maybe",
            "nameEqual=1",
        ] {
            let found = query(bad).instance_filter();
            assert!(matches!(found, Err(DcsError::InvalidQuery(_))), "{bad}: {found:?}");
        }
    }
}
