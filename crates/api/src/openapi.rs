//! The published descriptions of the three APIs, in OpenAPI 3.1, and the pages that show them.
//!
//! What a handler takes and gives stands at the handler; what every answer of an API has in common,
//! its errors and how to prove who asks, is added here.

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

/// The methods that a path of a description may have.
const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// How the errors of an API are written.
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
    // What this version's policy may leave out, the newer one's may not.
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

/// The description of our own API.
pub fn cachevault_v1() -> Value {
    let title = "Cachevault";
    let about = "Our own API: what DCS cannot say. Sizes are bytes, moments RFC 3339 in UTC.";
    let routes = OpenApiRouter::default().nest("/api/v1", manage::router());
    document(title, about, routes, Errors::Ours)
}

fn document(title: &str, about: &str, routes: OpenApiRouter<Api>, errors: Errors) -> Value {
    let info = InfoBuilder::new().title(title).description(Some(about));
    let info = info.version(env!("CARGO_PKG_VERSION"));
    let described = OpenApiBuilder::new().info(info).build().merge_from(routes.into_openapi());
    // What is made of plain values always becomes JSON.
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
            "description": "A token that was issued for the project.",
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

/// Every answer has to be described; what a good one is, the summary says.
fn describe_success(operation: &mut Value) {
    let answers = operation.get_mut("responses").and_then(Value::as_object_mut);
    for answer in answers.into_iter().flat_map(Map::values_mut) {
        if text(&answer["description"]).is_empty() {
            answer["description"] = json!("As it was asked for");
        }
    }
}

/// The answers that an operation may give for what all have in common.
fn add_answers(operation: &mut Value, errors: Errors) {
    let own = match errors {
        Errors::V1_0 => V1ErrorBody::name(),
        Errors::V2 => V2ErrorBody::name(),
        Errors::Ours => manage::ErrorBody::name(),
    };
    let gateway = GatewayBody::name();
    // The pages of versions need no identity, and read nothing.
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

/// An answer that is not of one operation only.
struct AnswerOfAll {
    status: &'static str,
    description: &'static str,
    /// The APIs that give it in their own words.
    own: &'static [Errors],
    /// Whether it is given in the gateway's.
    is_gateway: bool,
    /// Whether it is given where nobody has to prove who they are, too.
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
    answer("400", "The request is wrong, or the state of things forbids it", EVERY, true),
    answer("401", "Who asks is not proven, or asks in another project", &[Errors::V1_0], true),
    answer(
        "403",
        "A permission is missing, the password is wrong, or the project is disabled",
        EVERY,
        true,
    ),
    answer("404", "No such thing", EVERY, true),
    answer("409", "The state of things forbids it", OURS, false),
    answer("413", "The body has more than 12 MiB", &[], true),
    answer("422", "The server, or the restore, cannot be what is asked for", OURS, false),
    answer("500", "It failed inside", EVERY, true),
    answer("502", "The files could not be removed yet", OURS, false),
    answer("503", "The store cannot be used", OURS, false),
    AnswerOfAll {
        header: Some("Retry-After"),
        ..answer("429", "Too many requests by this credential are being answered", &[], true)
    },
    AnswerOfAll {
        is_always: true,
        ..answer("431", "The headers have more than 32 KiB", &[], true)
    },
    AnswerOfAll { is_always: true, ..answer("504", "It took too long", &[], true) },
];

/// A parameter is there or not; there is no null in a path or a query.
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

/// A body that may be left out is still no null.
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

/// The descriptions by the names of their files.
const DOCUMENTS: [Named; 3] =
    [("dcs-v1.0.json", dcs_v1_0), ("dcs-v2.json", dcs_v2), ("cachevault-v1.json", cachevault_v1)];

/// `/openapi/…`: the descriptions, and a page that lists what is in them. None needs an identity.
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

/// A text as HTML.
fn text(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
