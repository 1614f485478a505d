//! Requests that must not get through, and what they learn.

use axum::body::Body;
use axum::http::Request;
use cachevault_app::NewCredential;
use cachevault_domain::Clock;
use jiff::SignedDuration;
use secrecy::SecretString;

use crate::rig::{INSTANCE, Rig};

/// Every route that needs a signature.
const ROUTES: [(&str, &str); 59] = [
    ("GET", "/v1.0/{p}/instances"),
    ("GET", "/v1.0/{p}/instances/{i}"),
    ("GET", "/v1.0/{p}/instances/{i}/backups"),
    ("POST", "/v1.0/{p}/instances/{i}/backups"),
    ("DELETE", "/v1.0/{p}/instances/{i}/backups/{i}"),
    ("POST", "/v1.0/{p}/instances/{i}/backups/{i}/links"),
    ("GET", "/v2/{p}/instances"),
    ("GET", "/v2/{p}/instances/{i}"),
    ("GET", "/v2/{p}/instances/{i}/backups"),
    ("POST", "/v2/{p}/instances/{i}/backups"),
    ("DELETE", "/v2/{p}/instances/{i}/backups/{i}"),
    ("POST", "/v2/{p}/instances/{i}/backups/{i}/links"),
    ("GET", "/api/v1/instances"),
    ("POST", "/api/v1/instances"),
    ("GET", "/api/v1/instances/{i}"),
    ("DELETE", "/api/v1/instances/{i}"),
    ("GET", "/api/v1/backups/{i}"),
    ("DELETE", "/api/v1/backups/{i}"),
    ("POST", "/api/v1/backups/{i}/links"),
    ("POST", "/v1.0/{p}/instances"),
    ("DELETE", "/v1.0/{p}/instances"),
    ("PUT", "/v1.0/{p}/instances/{i}"),
    ("DELETE", "/v1.0/{p}/instances/{i}"),
    ("GET", "/v1.0/{p}/instances/{i}/restores"),
    ("POST", "/v1.0/{p}/instances/{i}/restores"),
    ("GET", "/v1.0/{p}/instances/{i}/configs"),
    ("GET", "/v1.0/{p}/instances/statistic"),
    ("GET", "/v1.0/{p}/instances/status"),
    ("GET", "/v1.0/{p}/quota"),
    ("GET", "/v1.0/instances/maintain-windows"),
    ("POST", "/v2/{p}/instances"),
    ("DELETE", "/v2/{p}/instances"),
    ("PUT", "/v2/{p}/instances/{i}"),
    ("DELETE", "/v2/{p}/instances/{i}"),
    ("GET", "/v2/{p}/instances/{i}/restores"),
    ("POST", "/v2/{p}/instances/{i}/restores"),
    ("GET", "/v2/{p}/instances/{i}/configs"),
    ("GET", "/v2/{p}/instances/statistic"),
    ("GET", "/v2/{p}/instances/status"),
    ("GET", "/v2/{p}/quota"),
    ("GET", "/v2/instances/maintain-windows"),
    ("GET", "/v1.0/availableZones"),
    ("GET", "/v1.0/products"),
    ("GET", "/v2/available-zones"),
    ("GET", "/v2/{p}/flavors"),
    ("GET", "/v2/{p}/instances/{i}/tags"),
    ("POST", "/v2/{p}/dcs/{i}/tags/action"),
    ("GET", "/v2/{p}/dcs/tags"),
    ("GET", "/v2/{p}/instance/{i}/whitelist"),
    ("PATCH", "/api/v1/instances/{i}"),
    ("POST", "/api/v1/projects"),
    ("PATCH", "/api/v1/projects/x"),
    ("POST", "/api/v1/users"),
    ("PUT", "/api/v1/users/x/grants/x"),
    ("POST", "/api/v1/password"),
    ("POST", "/api/v1/credentials"),
    ("POST", "/api/v1/credentials/AAAAAAAA/rotate"),
    ("POST", "/api/v1/policies"),
    ("PUT", "/api/v1/policies/x"),
];

fn uri(route: &str, project: &str) -> String {
    route.replace("{p}", project).replace("{i}", INSTANCE)
}

#[tokio::test]
async fn nothing_is_answered_without_a_good_signature() {
    let rig = Rig::new().await;
    let stranger = NewCredential {
        secret_key: SecretString::from("another".to_owned()),
        ..rig.credential.clone()
    };
    let unknown =
        NewCredential { access_key: "UNKNOWNKEY".parse().unwrap(), ..rig.credential.clone() };
    for (method, route) in ROUTES {
        // Five wrong ones in a row would lock the key.
        rig.clock.advance(SignedDuration::from_mins(6));
        let uri = uri(route, rig.credential.project.as_str());
        let bare = Request::builder().method(method).uri(&uri).body(Body::empty()).unwrap();
        let answers = [
            (rig.send(bare).await, "x-auth-token not found"),
            (rig.call_as(&stranger, method, &uri, "").await, "verify aksk signature fail"),
            (rig.call_as(&unknown, method, &uri, "").await, "Get secretKey failed"),
        ];
        for (answer, reason) in answers {
            assert_eq!(answer.status.as_u16(), 401, "{method} {uri}: {}", answer.text);
            assert_eq!(answer.body["error_code"], "APIGW.0301");
            let message = format!("Incorrect IAM authentication information: {reason}");
            assert_eq!(answer.body["error_msg"], message.as_str());
            assert_eq!(
                answer.body["request_id"].as_str(),
                answer.headers["x-request-id"].to_str().ok()
            );
        }
    }
}

#[tokio::test]
async fn an_old_signature_is_refused_even_though_it_is_right() {
    let rig = Rig::new().await;
    let path = rig.path("v2", "/instances");
    let date = "20190510T084000Z";
    let headers = [("host", "cachevault.test"), ("x-sdk-date", date)];
    let request = cachevault_api::signing::SignedRequest {
        method: "GET",
        path: &path,
        query: "",
        headers: &headers,
        body: b"",
    };
    let names = headers.map(|(name, _)| name.to_owned());
    use secrecy::ExposeSecret;
    let (access_key, secret_key) =
        (rig.credential.access_key.as_str(), rig.credential.secret_key.expose_secret());
    let signature =
        cachevault_api::signing::sign(&request, &names, access_key, secret_key).unwrap();
    let build = || {
        let request = Request::builder().uri(&path).header("authorization", &signature);
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(Body::empty()).unwrap()
    };
    for (minutes, status) in [(0, 200), (15, 200), (1, 401)] {
        rig.clock.advance(SignedDuration::from_mins(minutes));
        let answer = rig.send(build()).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    }
}

#[tokio::test]
async fn another_projects_things_cannot_be_told_from_nothing() {
    let rig = Rig::new().await;
    let other = "ffffffffffffffffffffffffffffffff";
    for (method, route) in ROUTES.into_iter().filter(|(_, route)| route.contains("{p}")) {
        let answer = rig.call(method, &uri(route, other), "").await;
        let (status, code) = match route.starts_with("/v1.0") {
            true => (401, answer.body["error"]["code"].clone()),
            false => (400, answer.body["error_code"].clone()),
        };
        assert_eq!(answer.status.as_u16(), status, "{method} {route}");
        assert!(code == "111401004" || code == "DCS.1004", "{method} {route}: {code}");
    }
    let answer = rig.call("GET", "/v2/not-a-project/instances", "").await;
    assert_eq!(
        (answer.status.as_u16(), answer.body["error_code"].as_str()),
        (400, Some("DCS.4002"))
    );
}

#[tokio::test]
async fn an_instance_id_that_is_none_is_told_so_on_every_route() {
    let rig = Rig::new().await;
    let of_instance = |route: &&(&str, &str)| {
        route.1.contains("{p}") && (route.1.contains("instances/{i}") || route.1.contains("/{i}/"))
    };
    for (method, route) in ROUTES.iter().filter(of_instance) {
        for id in [
            "orders",
            "5560df16cebf447395c4d1b573c16e79",
            "%00",
            "5560df16-cebf-4473-95c4-d1b573c16e7g",
        ] {
            let route = route.replacen("{i}", id, 1);
            let answer = rig.call(method, &uri(&route, rig.credential.project.as_str()), "").await;
            let code = match route.starts_with("/v1.0") {
                true => answer.body["error"]["code"].clone(),
                false => answer.body["error_code"].clone(),
            };
            assert_eq!(answer.status.as_u16(), 400, "{method} {route}: {}", answer.text);
            assert!(code == "111400061" || code == "DCS.4061", "{method} {route}: {code}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_the_gateways_413() {
    let rig = Rig::new().await;
    let body = format!("\"{}\"", "x".repeat(12 << 20));
    for version in ["v1.0", "v2"] {
        let path = rig.path(version, &format!("/instances/{INSTANCE}"));
        let answer = rig.call("PUT", &path, &body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body["error_code"].as_str()),
            (413, Some("APIGW.0201"))
        );
    }
}

#[tokio::test]
async fn unknown_routes_and_methods_are_the_gateways_404() {
    let rig = Rig::new().await;
    for (method, uri) in [
        ("POST", "/".to_owned()),
        ("PUT", "/v2".to_owned()),
        ("GET", "/v1".to_owned()),
        ("GET", "/v9/x/instances".to_owned()),
        ("PUT", rig.path("v2", &format!("/instances/{INSTANCE}/backups"))),
        ("PATCH", rig.path("v1.0", "/instances")),
        ("GET", rig.path("v2", &format!("/instances/{INSTANCE}/nonsense"))),
        ("POST", "/healthz".to_owned()),
    ] {
        let answer = rig.call(method, &uri, "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.body["error_code"].as_str()),
            (404, Some("APIGW.0101")),
            "{method} {uri}"
        );
    }
}

#[tokio::test]
async fn paths_that_are_no_text_are_refused_not_crashed_on() {
    let rig = Rig::new().await;
    // Where a part of the path is no UTF-8 no part of it can be read, the project first.
    let answer = rig.call("GET", &rig.path("v2", "/instances/%ff%fe/backups"), "").await;
    assert_eq!(
        (answer.status.as_u16(), answer.body["error_code"].as_str()),
        (400, Some("DCS.4002"))
    );
    let answer = rig
        .call("DELETE", &rig.path("v2", &format!("/instances/{INSTANCE}/backups/%00")), "")
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.body["error_code"].as_str()),
        (400, Some("DCS.4031"))
    );
    let answer = rig.call("GET", "/api/v1/instances/%ff", "").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body["error"]["code"]),
        (400, &"bad_request".into())
    );
}

#[tokio::test]
async fn headers_of_a_size_that_no_client_sends_are_refused() {
    let rig = Rig::new().await;
    let request = Request::builder().uri("/healthz").header("x-filler", "x".repeat(40_000));
    let answer = rig.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body["error_code"].as_str()),
        (431, Some("APIGW.0201"))
    );
}

#[tokio::test]
async fn health_needs_no_signature_and_tells_nothing() {
    let rig = Rig::new().await;
    for (uri, status) in [("/healthz", "alive"), ("/readyz", "ready")] {
        let answer = rig.send(Request::builder().uri(uri).body(Body::empty()).unwrap()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body),
            (200, serde_json::json!({"status": status}))
        );
    }
}

#[tokio::test]
async fn too_many_requests_of_one_credential_wait_their_turn() {
    const RUNNING_MAX: usize = 128;
    let rig = Rig::new().await;
    let backup = "4631832a-14c6-45b0-a0b3-3abd8f591ad1";
    rig.succeeded(backup, None, ["2019-05-10T08:31:16Z"; 3], 5).await;
    // Nobody removes it: each of these waits.
    let path = rig.path("v2", &format!("/instances/{INSTANCE}/backups/{backup}"));
    let waiting =
        futures_util::future::join_all((0..RUNNING_MAX).map(|_| rig.call("DELETE", &path, "")));
    let asking = async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        rig.call("GET", &rig.path("v2", "/instances"), "").await
    };
    let answer = tokio::select! {
        _ = waiting => unreachable!("nobody removes it"),
        answer = asking => answer,
    };
    assert_eq!(
        (answer.status.as_u16(), answer.body["error_code"].as_str()),
        (429, Some("APIGW.0308"))
    );
    assert!(answer.headers.contains_key("retry-after"));
    // They were given up, which frees their places.
    let answer = rig.call("GET", &rig.path("v2", "/instances"), "").await;
    assert_eq!(answer.status.as_u16(), 200);
}

#[tokio::test]
async fn a_body_is_read_whatever_its_type_is_called() {
    let rig = Rig::new().await;
    let uri = rig.path("v2", &format!("/instances/{INSTANCE}/backups"));
    let date = rig.clock.now().strftime("%Y%m%dT%H%M%SZ").to_string();
    for (method, content_type) in [
        ("GET", Some("application/json")),
        ("GET", None),
        ("POST", Some("application/json;charset=utf-8")),
        ("POST", None),
        ("POST", Some("text/plain")),
    ] {
        let mut headers = vec![("host", "cachevault.test"), ("x-sdk-date", date.as_str())];
        headers.extend(content_type.map(|value| ("content-type", value)));
        let body: &[u8] = if method == "POST" { b"{\"remark\":5}" } else { b"" };
        let request = cachevault_api::signing::SignedRequest {
            method,
            path: &uri,
            query: "",
            headers: &headers,
            body,
        };
        let names: Vec<_> = headers.iter().map(|(name, _)| (*name).to_owned()).collect();
        use secrecy::ExposeSecret;
        let (key, secret) =
            (rig.credential.access_key.as_str(), rig.credential.secret_key.expose_secret());
        let signature = cachevault_api::signing::sign(&request, &names, key, secret).unwrap();
        let built = Request::builder().method(method).uri(&uri).header("authorization", signature);
        let built = headers.iter().fold(built, |built, (name, value)| built.header(*name, *value));
        let answer = rig.send(built.body(Body::from(body)).unwrap()).await;
        let expected = if method == "GET" { (200, None) } else { (400, Some("DCS.4005")) };
        let found = (answer.status.as_u16(), answer.body["error_code"].as_str());
        assert_eq!(found, expected, "{method} {content_type:?}");
    }
}
