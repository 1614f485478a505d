//! The API by TLS.

use std::path::Path;
use std::process::{Command, Output};

use cachevault_testkit::{Certificates, eventually};

use crate::service::{BINARY, Service, folder};

fn files(folder: &Path) -> [String; 3] {
    ["ca.pem", "server.pem", "server.key"].map(|name| folder.join(name).display().to_string())
}

fn list(service: &Service, options: &[&str]) -> Output {
    Command::new(BINARY)
        .args(["instance", "list", "--data-dir"])
        .arg(&service.data_dir)
        .args(options)
        .output()
        .unwrap()
}

/// Headers and status of an answer that `curl` takes; `None` when it does not trust the service.
fn headers(service: &Service, ca: &str) -> Option<String> {
    let url = format!("{}/healthz", service.endpoint);
    let output =
        Command::new("curl").args(["-s", "--noproxy", "*", "-i", "--cacert", ca, &url]).output();
    let output = output.unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_api_speaks_tls_and_takes_up_a_new_certificate() {
    let (folder, data_dir) = folder();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    for folder in [&first, &second] {
        std::fs::create_dir(folder).unwrap();
        Certificates::issue(folder);
    }
    let [ca, certificate, key] = files(&first);
    let options = ["--tls-cert-file", &certificate, "--tls-key-file", &key];
    let service = Service::start(&data_dir, &options);
    assert!(service.endpoint.starts_with("https://"));
    let answer = headers(&service, &ca).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("strict-transport-security: max-age=31536000"), "{answer}");
    assert!(list(&service, &["--ca-file", &ca]).status.success());
    assert!(!list(&service, &[]).status.success(), "nobody well known vouches for it");

    // A certificate without its key is none: the old one stays.
    let [new_ca, new_certificate, new_key] = files(&second);
    std::fs::copy(&new_certificate, &certificate).unwrap();
    eventually("the log tells of it", || service.log().contains("the old one stays").then_some(()));
    assert!(headers(&service, &ca).is_some());
    std::fs::copy(&new_key, &key).unwrap();
    eventually("the new certificate is used", || headers(&service, &new_ca));
    assert!(headers(&service, &ca).is_none());
}

#[test]
fn clients_without_a_certificate_are_refused_where_one_is_asked_for() {
    let (folder, data_dir) = folder();
    let issued = Certificates::issue(folder.path());
    let [ca, certificate, key] = files(folder.path());
    let service = Service::start(
        &data_dir,
        &["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-client-ca-file", &ca],
    );
    assert!(headers(&service, &ca).is_none());
    assert!(!list(&service, &["--ca-file", &ca]).status.success());
    let client = folder.path().join("client.pem");
    std::fs::write(&client, issued.client_certificate_pem + &issued.client_key_pem).unwrap();
    let client = client.display().to_string();
    let known = list(&service, &["--ca-file", &ca, "--client-cert-file", &client]);
    assert!(known.status.success(), "{}", String::from_utf8_lossy(&known.stderr));
}

#[test]
fn a_certificate_that_cannot_be_used_is_told_at_the_start() {
    let (folder, data_dir) = folder();
    Certificates::issue(folder.path());
    let [ca, certificate, key] = files(folder.path());
    for (certificate, key, word) in
        [(&certificate, &ca, "ca.pem"), (&key, &key, "no certificate"), (&ca, &key, "with")]
    {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data_dir);
        let command = command.args(["--tls-cert-file", certificate, "--tls-key-file", key]);
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(word), "{word}: {told}");
    }
}
