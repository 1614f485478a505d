//! What is there to watch, and that the rules and the dashboard watch it.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use cachevault_testkit::{Server, eventually, free_port, newest_redis, repository_file};
use serde_json::{Value, json};

use crate::schedules::{dcs, instance_path, policy_whose_window_is_open};
use crate::service::{Service, folder};

/// A service that shows metrics, and where.
pub(crate) struct Watched {
    pub(crate) service: Service,
    url: String,
}

impl Watched {
    pub(crate) fn start(data_dir: &std::path::Path, options: &[&str]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let options = [&["--metrics-listen", &address][..], options].concat();
        let service = Service::start(data_dir, &options);
        Self { service, url: format!("http://{address}/metrics") }
    }

    fn scrape(&self) -> String {
        let output = Command::new("curl").args(["-sf", "--noproxy", "*", &self.url]).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The value of the only series that begins so.
    #[track_caller]
    pub(crate) fn value(&self, series: &str) -> f64 {
        let text = self.scrape();
        let found: Vec<_> = text.lines().filter(|line| line.starts_with(series)).collect();
        let [line] = found[..] else { panic!("{series}: {found:?}\n{text}") };
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }
}

/// The names of all series of a scrape.
fn names(scrape: &str) -> BTreeSet<&str> {
    let series = scrape.lines().filter(|line| !line.starts_with('#'));
    series.map(|line| line.split(['{', ' ']).next().unwrap()).collect()
}

/// The older form, which `promtool` checks: a counter is described by the name of its series.
fn as_before_openmetrics(scrape: &str) -> String {
    let kind =
        |line: &str| line.strip_prefix("# TYPE ")?.strip_suffix(" counter").map(str::to_owned);
    let counters: BTreeSet<_> = scrape.lines().filter_map(kind).collect();
    let line = |line: &str| {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", what, name, rest] if counters.contains(name) => {
                format!("# {what} {name}_total {rest}\n")
            }
            _ => format!("{line}\n"),
        }
    };
    scrape.lines().map(line).collect()
}

/// The names of our metrics that an expression asks for.
fn asked(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("cachevault_")).collect()
}

/// All values of this key, however deep.
fn values_of<'a>(key: &str, json: &'a Value, found: &mut Vec<&'a str>) {
    match json {
        Value::Object(fields) => {
            found.extend(fields.get(key).and_then(Value::as_str));
            fields.values().for_each(|value| values_of(key, value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| values_of(key, item, found)),
        _ => {}
    }
}

fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(repository_file("docs/monitoring"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, which `scripts/need promtool` installs");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[track_caller]
fn assert_good(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_rules_alert_of_what_is_wrong_and_of_nothing_else() {
    assert_good(&promtool(&["check", "rules", "alerts.yml"], ""));
    assert_good(&promtool(&["test", "rules", "alerts.test.yml"], ""));
}

#[test]
fn what_rules_and_dashboard_ask_for_is_there_and_true() {
    let (_folder, data_dir) = folder();
    let mut server = Server::start(&newest_redis(), &[]);
    server.fill(500, 100);
    let watched = Watched::start(&data_dir, &["--attempts-max", "1", "--observe-every", "100ms"]);
    let service = &watched.service;
    service.adopt(&server);
    assert!(!watched.scrape().contains("backup_age_seconds{"), "no backup, no age");
    let policy = policy_whose_window_is_open();
    dcs(service, "PUT", &instance_path(service, "v2", "orders"), &policy.to_string());
    let backup = eventually("the automatic backup succeeds", || {
        let backup = service.newest_backup();
        (backup["state"] == "succeeded").then_some(backup)
    });
    service.json(&["drill", backup["id"].as_str().unwrap()]);

    let scrape = watched.scrape();
    let (rules, dashboard) = (
        std::fs::read_to_string(repository_file("docs/monitoring/alerts.yml")).unwrap(),
        std::fs::read_to_string(repository_file("docs/monitoring/dashboard.json")).unwrap(),
    );
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let mut expressions = vec![rules.as_str()];
    values_of("expr", &dashboard, &mut expressions);
    let wanted: BTreeSet<_> = expressions.into_iter().flat_map(asked).collect();
    assert!(wanted.len() > 15, "{wanted:?}");
    let missing: Vec<_> = wanted.difference(&names(&scrape)).copied().collect();
    assert!(missing.is_empty(), "{missing:?}\n{scrape}");
    assert_good(&promtool(&["check", "metrics"], &as_before_openmetrics(&scrape)));

    for age in ["backup_age", "proven_backup_age", "proof_age"] {
        let seconds = watched.value(&format!("cachevault_instance_{age}_seconds{{"));
        assert!((0.0..600.0).contains(&seconds), "{age}: {seconds}");
    }
    let until = watched.value("cachevault_instance_until_window_seconds{");
    assert!((-86400.0..=86400.0).contains(&until), "{until}");
    assert_eq!(
        json!(watched.value("cachevault_captured_bytes_total") as u64),
        backup["size_bytes"]
    );
    let done = "cachevault_job_attempt_duration_seconds_count{kind=\"capture\",outcome=\"done\"}";
    assert_eq!(watched.value(done), 1.0);
    assert!(watched.value("cachevault_http_requests_total{api=\"dcs-v2\",status=\"204\"}") >= 1.0);

    server.kill();
    assert!(!service.run(&["backup", "create", "orders", "--wait"]).status.success());
    let failed = "cachevault_failures_total{kind=\"capture\",code=\"tool_failed\"}";
    assert_eq!(watched.value(failed), 1.0);
    eventually("it is noticed", || {
        (watched.value("cachevault_instance_reachable{") == 0.0).then_some(())
    });
}
