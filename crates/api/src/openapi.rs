//! The published OpenAPI 3.1 descriptions of the three APIs, and the pages that show them.
//!
//! Each handler describes its own request and response. This module adds the common errors and the
//! security schemes.

use std::sync::Arc;

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use utoipa::openapi::{InfoBuilder, OpenApiBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use crate::dcs::{V1ErrorBody, V2ErrorBody};
use crate::gateway::GatewayBody;
use crate::{Api, dcs, manage};

/// The HTTP methods in a description.
const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// The error format of an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errors {
    V1_0,
    V2,
    Ours,
}

/// The description of DCS v1.0.
pub fn dcs_v1_0() -> Value {
    let title = "Cachevault: DCS v1.0";
    let about =
        "Backups of Redis and Valkey servers by the vendor's older API. Deprecated: use v2.";
    let routes =
        OpenApiRouter::default().merge(dcs::versions::router()).nest("/v1.0", dcs::v1_0::router());
    let mut document = document(title, about, routes, Errors::V1_0);
    // v1.0 has a default for this field; v2 requires it.
    let policy = document.pointer_mut("/components/schemas/PolicyWish");
    if let Some(policy) = policy.and_then(Value::as_object_mut) {
        policy.remove("required");
    }
    document
}

/// The description of DCS v2.
pub fn dcs_v2() -> Value {
    let title = "Cachevault: DCS v2";
    let about = "Backups of Redis and Valkey servers by the vendor's current API.";
    let routes =
        OpenApiRouter::default().merge(dcs::versions::router()).nest("/v2", dcs::v2::router());
    document(title, about, routes, Errors::V2)
}

/// The description of the management API.
pub fn cachevault_v1() -> Value {
    let title = "Cachevault";
    let about = "The management API: operations that DCS does not have. Sizes are bytes, times are RFC 3339 in UTC.";
    let routes = OpenApiRouter::default().nest("/api/v1", manage::router());
    document(title, about, routes, Errors::Ours)
}

fn document(title: &str, about: &str, routes: OpenApiRouter<Api>, errors: Errors) -> Value {
    let info = InfoBuilder::new().title(title).description(Some(about));
    let info = info.version(env!("CARGO_PKG_VERSION"));
    let described = OpenApiBuilder::new().info(info).build().merge_from(routes.into_openapi());
    // Plain values always serialize to JSON.
    let mut document = serde_json::to_value(described).unwrap_or_default();
    add_components(&mut document, errors);
    if let Some(paths) = document["paths"].as_object_mut() {
        for operation in paths.values_mut().flat_map(operations_mut) {
            describe_success(operation);
            add_answers(operation, errors);
            refine_parameters(operation);
            refine_body(operation);
        }
    }
    document
}

fn operations_mut(path: &mut Value) -> Vec<&mut Value> {
    let Some(path) = path.as_object_mut() else { return Vec::new() };
    let is_operation = |method: &str| METHODS.contains(&method);
    path.iter_mut().filter(|(name, _)| is_operation(name)).map(|(_, operation)| operation).collect()
}

fn add_components(document: &mut Value, errors: Errors) {
    let mut schemas = Map::new();
    add_schema::<GatewayBody>(&mut schemas);
    match errors {
        Errors::V1_0 => add_schema::<V1ErrorBody>(&mut schemas),
        Errors::V2 => add_schema::<V2ErrorBody>(&mut schemas),
        Errors::Ours => add_schema::<manage::ErrorBody>(&mut schemas),
    }
    if let Some(known) = document["components"]["schemas"].as_object_mut() {
        known.append(&mut schemas);
    }
    document["components"]["securitySchemes"] = json!({
        "signature": {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "`SDK-HMAC-SHA256`, by access and secret key, with `X-Sdk-Date`.",
        },
        "token": {
            "type": "apiKey",
            "in": "header",
            "name": "X-Auth-Token",
            "description": "A token for the project.",
        },
    });
    document["security"] = json!([{"signature": []}, {"token": []}]);
}

fn add_schema<T: ToSchema + PartialSchema>(schemas: &mut Map<String, Value>) {
    let mut needed: Vec<(String, RefOr<Schema>)> = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut needed);
    for (name, schema) in needed {
        schemas.insert(name, serde_json::to_value(schema).unwrap_or_default());
    }
}

/// Adds the missing descriptions of successful responses.
fn describe_success(operation: &mut Value) {
    let answers = operation.get_mut("responses").and_then(Value::as_object_mut);
    for answer in answers.into_iter().flat_map(Map::values_mut) {
        if text(&answer["description"]).is_empty() {
            answer["description"] = json!("Success");
        }
    }
}

/// Adds the responses that all operations of an API share.
fn add_answers(operation: &mut Value, errors: Errors) {
    let own = match errors {
        Errors::V1_0 => V1ErrorBody::name(),
        Errors::V2 => V2ErrorBody::name(),
        Errors::Ours => manage::ErrorBody::name(),
    };
    let gateway = GatewayBody::name();
    // The version documents require no authentication and have no input.
    let is_open = operation["security"] == json!([{}]);
    let body = |names: &[&str]| {
        let shape = |name: &&str| json!({"$ref": format!("#/components/schemas/{name}")});
        let mut shapes: Vec<_> = names.iter().map(shape).collect();
        if shapes.len() == 1 { shapes.remove(0) } else { json!({"anyOf": shapes}) }
    };
    for answer in ANSWERS {
        let mut names: Vec<&str> = Vec::new();
        if answer.own.contains(&errors) && !is_open {
            names.push(&own);
        }
        if answer.is_gateway && (answer.is_always || !is_open) {
            names.push(&gateway);
        }
        if names.is_empty() {
            continue;
        }
        let mut described = json!({
            "description": answer.description,
            "content": {"application/json": {"schema": body(&names)}},
        });
        if let Some(header) = answer.header {
            described["headers"] = json!({header: {"schema": {"type": "integer", "minimum": 0}}});
        }
        operation["responses"][answer.status] = described;
    }
}

/// A response that several operations share.
struct AnswerOfAll {
    status: &'static str,
    description: &'static str,
    /// The APIs that send it in their own error format.
    own: &'static [Errors],
    /// Whether the gateway's error format is used too.
    is_gateway: bool,
    /// Whether it also applies to routes without authentication.
    is_always: bool,
    header: Option<&'static str>,
}

const fn answer(
    status: &'static str,
    description: &'static str,
    own: &'static [Errors],
    is_gateway: bool,
) -> AnswerOfAll {
    AnswerOfAll { status, description, own, is_gateway, is_always: false, header: None }
}

const EVERY: &[Errors] = &[Errors::V1_0, Errors::V2, Errors::Ours];
const OURS: &[Errors] = &[Errors::Ours];

const ANSWERS: &[AnswerOfAll] = &[
    answer("400", "Invalid request, or not possible in the current state", EVERY, true),
    answer("401", "Authentication failed, or the project differs", &[Errors::V1_0], true),
    answer(
        "403",
        "A permission is missing, the password is wrong, or the project is disabled",
        EVERY,
        true,
    ),
    answer("404", "Not found", EVERY, true),
    answer("409", "Not possible in the current state", OURS, false),
    answer("413", "The body is larger than 12 MiB", &[], true),
    answer("422", "The server or the restore does not meet the requirements", OURS, false),
    answer("500", "Internal error", EVERY, true),
    answer("502", "The files cannot be removed yet", OURS, false),
    answer("503", "The store is unavailable", OURS, false),
    AnswerOfAll {
        header: Some("Retry-After"),
        ..answer("429", "Too many concurrent requests of this credential", &[], true)
    },
    AnswerOfAll {
        is_always: true,
        ..answer("431", "The headers are larger than 32 KiB", &[], true)
    },
    AnswerOfAll { is_always: true, ..answer("504", "Timeout", &[], true) },
];

/// Removes null from the types of path and query parameters.
fn refine_parameters(operation: &mut Value) {
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        let types = parameter.pointer_mut("/schema/type").and_then(Value::as_array_mut);
        let Some(types) = types else { continue };
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            parameter["schema"]["type"] = only.clone();
        }
    }
}

/// Removes null from the type of an optional body.
fn refine_body(operation: &mut Value) {
    let schema = operation.pointer_mut("/requestBody/content/application~1json/schema");
    let Some(schema) = schema else { return };
    let shapes = schema["oneOf"].as_array();
    if let Some([shape, null]) = shapes.map(Vec::as_slice)
        && *null == json!({"type": "null"})
    {
        *schema = shape.clone();
    }
}

type Named = (&'static str, fn() -> Value);

/// The descriptions by file name.
const DOCUMENTS: [Named; 3] =
    [("dcs-v1.0.json", dcs_v1_0), ("dcs-v2.json", dcs_v2), ("cachevault-v1.json", cachevault_v1)];

/// `/openapi/…`: the descriptions, and a page that lists their operations; without authentication.
pub(crate) fn router() -> Router<Api> {
    let documents = DOCUMENTS.map(|(name, document)| (name, document()));
    let page: Arc<str> = page(&documents).into();
    let show = get(move || {
        let page = Arc::clone(&page);
        async move { ([(CONTENT_TYPE, "text/html; charset=utf-8")], page.to_string()) }
    });
    let router = Router::new().route("/openapi/", show);
    documents.into_iter().fold(router, |router, (name, document)| {
        router.route(&format!("/openapi/{name}"), serve(document))
    })
}

fn serve(document: Value) -> MethodRouter<Api> {
    let document = Arc::new(document);
    get(move || {
        let document = Arc::clone(&document);
        async move { Json(&*document).into_response() }
    })
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;\
    padding:0 1rem;color:#222;background:#fff}code{font-size:.9em}table{border-collapse:collapse;\
    width:100%}td{padding:.3rem .6rem .3rem 0;border-top:1px solid #ddd;vertical-align:top}\
    td:first-child{font-weight:600;text-transform:uppercase;white-space:nowrap}";

fn page(documents: &[(&str, Value)]) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Cachevault: APIs</title>\
         <style>{STYLE}</style><h1>APIs</h1>"
    );
    for (name, document) in documents {
        let (title, about) =
            (text(&document["info"]["title"]), text(&document["info"]["description"]));
        page.push_str(&format!(
            "<h2>{title}</h2><p>{about} <a href=\"{name}\">OpenAPI document</a></p><table>"
        ));
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                page.push_str(&row(method, path, operation));
            }
        }
        page.push_str("</table>");
    }
    page.push_str("</html>");
    page
}

fn row(method: &str, path: &str, operation: &Value) -> String {
    let (id, summary) = (text(&operation["operationId"]), text(&operation["summary"]));
    format!(
        "<tr><td>{method}</td><td><code>{path}</code></td><td>{summary}<br><code>{id}</code></td></tr>"
    )
}

/// Escapes a text for HTML.
fn text(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
