//! The audit trail.

use cachevault_domain::{
    AUDIT_TEXT_CHARS_MAX, AuditFilter, AuditRecord, AuditResult, NewAuditRecord, RequestId,
};

use super::{Numbered, at, backup_id, project};
use crate::{Catalog, CatalogError};

fn request_id(n: u8) -> RequestId {
    RequestId::mint(&Numbered(n))
}

fn call(n: u8, seconds: i64) -> NewAuditRecord {
    NewAuditRecord {
        request: request_id(n),
        project: Some(project(1)),
        access_key: Some("AKEXAMPLE1".parse().unwrap()),
        user: Some("ada".into()),
        address: Some("2001:db8::7".parse().unwrap()),
        operation: "DELETE /api/v1/backups/{backup_id}".into(),
        resource: format!("/api/v1/backups/{}", backup_id(n)),
        at: at(seconds),
    }
}

async fn called(catalog: &impl Catalog, filter: AuditFilter, limit: u32) -> Vec<RequestId> {
    let listed = catalog.list_audit(&project(1), &filter, limit).await.unwrap();
    listed.into_iter().map(|record| record.call.request).collect()
}

pub async fn a_call_is_recorded_before_it_is_answered(catalog: &impl Catalog) {
    let first = call(1, 10);
    let nobody = NewAuditRecord {
        access_key: None,
        user: None,
        address: None,
        resource: "é".repeat(AUDIT_TEXT_CHARS_MAX + 1),
        ..call(2, 11)
    };
    catalog.begin_audit(&first).await.unwrap();
    catalog.begin_audit(&nobody).await.unwrap();
    let result = AuditResult {
        bytes: Some(1 << 40),
        times: 1000,
        ..AuditResult::new(409, Some("instance_busy".into()), at(12))
    };
    catalog.end_audit(&first.request, &result).await.unwrap();
    let late = AuditResult::new(200, None, at(13));
    catalog.end_audit(&first.request, &late).await.unwrap();
    let cut = "é".repeat(AUDIT_TEXT_CHARS_MAX);
    let listed = catalog.list_audit(&project(1), &AuditFilter::default(), 10).await.unwrap();
    let expected = [
        AuditRecord { call: NewAuditRecord { resource: cut, ..nobody }, result: None },
        AuditRecord { call: first, result: Some(result) },
    ];
    assert_eq!(listed, expected);
}

pub async fn calls_are_listed_in_both_orders_and_by_time(catalog: &impl Catalog) {
    for n in 1..=5 {
        catalog.begin_audit(&call(n, 10 * i64::from(n))).await.unwrap();
    }
    let ids = |numbers: &[u8]| numbers.iter().map(|n| request_id(*n)).collect::<Vec<_>>();
    let newest = AuditFilter::default();
    let oldest = AuditFilter { oldest_first: true, ..newest.clone() };
    assert_eq!(called(catalog, newest.clone(), 2).await, ids(&[5, 4]));
    let behind = AuditFilter { after: Some(request_id(4)), ..newest.clone() };
    assert_eq!(called(catalog, behind, 2).await, ids(&[3, 2]));
    let behind = AuditFilter { after: Some(request_id(4)), ..oldest.clone() };
    assert_eq!(called(catalog, behind, 9).await, ids(&[5]));
    let between = AuditFilter { from: Some(at(20)), to: Some(at(40)), ..oldest.clone() };
    assert_eq!(called(catalog, between, 9).await, ids(&[2, 3, 4]));
    let unknown = AuditFilter { after: Some(request_id(9)), ..newest };
    let refused = catalog.list_audit(&project(1), &unknown, 9).await;
    assert!(matches!(refused, Err(CatalogError::NotFound("audit record"))));
    assert_eq!(catalog.drop_audit(at(30)).await.unwrap(), 2);
    assert_eq!(called(catalog, oldest, 9).await, ids(&[3, 4, 5]));
}

pub async fn no_project_sees_the_calls_of_another(catalog: &impl Catalog) {
    let other = NewAuditRecord { project: Some(project(2)), ..call(1, 10) };
    let of_none = NewAuditRecord { project: None, ..call(2, 10) };
    catalog.begin_audit(&other).await.unwrap();
    catalog.begin_audit(&of_none).await.unwrap();
    assert_eq!(called(catalog, AuditFilter::default(), 10).await, []);
    let administrator = AuditFilter { with_service: true, ..AuditFilter::default() };
    assert_eq!(called(catalog, administrator, 10).await, [request_id(2)]);
    let behind = AuditFilter { after: Some(request_id(1)), ..AuditFilter::default() };
    let refused = catalog.list_audit(&project(1), &behind, 10).await;
    assert!(matches!(refused, Err(CatalogError::NotFound("audit record"))));
}
