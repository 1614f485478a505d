//! The client commands for instances, backups and restores.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use ureq::http::Method;
use url::{Host, Url};

use super::client::Client;
use super::progress::Checked;
use super::{
    AddInstance, BackupCommand, BackupsOfRemoved, ClientOptions, DrillOptions, Failure,
    InstanceCommand, PolicyMode, RestoreCommand, RestoreWish, SetInstance, VerifyOptions, output,
    progress,
};
use crate::terminal;

const DEFAULT_PORT: u16 = 6379;
const FILE_BYTES_MAX: u64 = 256 << 10;

pub(crate) fn instance(command: InstanceCommand, options: &ClientOptions) -> Result<(), Failure> {
    let client = Client::new(options)?;
    match command {
        InstanceCommand::Add(wish) => {
            let instance = client.call(Method::POST, "/instances", Some(&add_body(&wish)?))?;
            output::say(options.output, &format!("registered `{}`", wish.name));
            for warning in instance["warnings"].as_array().into_iter().flatten() {
                warn(&output::text(warning));
            }
            output::one(options.output, &instance);
        }
        InstanceCommand::List => {
            let all = client.list("/instances")?;
            output::list(options.output, &all, &output::INSTANCE);
        }
        InstanceCommand::Show { instance } => {
            let id = find_instance(&client, &instance)?;
            let found = client.call(Method::GET, &format!("/instances/{id}"), None)?;
            output::one(options.output, &found);
        }
        InstanceCommand::Set(wish) => {
            let id = find_instance(&client, &wish.instance)?;
            let path = format!("/instances/{id}");
            let changed = client.call(Method::PATCH, &path, Some(&set_body(&wish)?))?;
            output::one(options.output, &changed);
        }
        InstanceCommand::Remove { instance, backups } => {
            let id = find_instance(&client, &instance)?;
            let query = match backups {
                None => "",
                Some(BackupsOfRemoved::Delete) => "?backups=delete",
                Some(BackupsOfRemoved::Keep) => "?backups=keep",
            };
            client.call(Method::DELETE, &format!("/instances/{id}{query}"), None)?;
            let mut sentence = format!("removed `{instance}`; the server itself is unchanged");
            if backups == Some(BackupsOfRemoved::Keep) {
                sentence += &format!("; its backups stay: cachevault backup list {id}");
            }
            output::say(options.output, &sentence);
        }
    }
    Ok(())
}

fn set_body(wish: &SetInstance) -> Result<Value, Failure> {
    let days = (!wish.days.is_empty()).then_some(&wish.days);
    let policy = wish.policy.map(|mode| {
        json!({
            "automatic": mode == PolicyMode::Auto,
            "days": days,
            "window": wish.window,
            "save_days": wish.save_days,
        })
    });
    let connection = &wish.connection;
    let url = connection.url.as_deref().map(parse_url).transpose()?;
    let (username, in_url) = match &url {
        Some(url) => (url.username.clone(), url.password.clone()),
        None => (None, None),
    };
    let password = connection.password_file.as_deref().map(password).transpose()?.or(in_url);
    Ok(json!({
        "name": wish.name,
        "description": wish.description,
        "maintenance": wish.maintenance,
        "policy": policy,
        "host": url.as_ref().map(|url| &url.host),
        "port": url.as_ref().map(|url| url.port),
        "username": connection.username.clone().or(username),
        "password": password,
        "tls": url.as_ref().map(|url| url.tls),
        "tls_ca_pem": pem(&connection.tls_ca_file)?,
        "tls_certificate_pem": pem(&connection.tls_cert_file)?,
        "tls_key_pem": pem(&connection.tls_key_file)?,
    }))
}

pub(crate) fn backup(command: BackupCommand, options: &ClientOptions) -> Result<(), Failure> {
    let client = Client::new(options)?;
    match command {
        BackupCommand::Create { instance, note, portable, wait } => {
            let id = find_instance(&client, &instance)?;
            let body = json!({"note": note, "portable": portable});
            let mut backup =
                client.call(Method::POST, &format!("/instances/{id}/backups"), Some(&body))?;
            if wait {
                backup =
                    progress::follow_backup(&client, backup["id"].as_str().unwrap_or_default())?;
            }
            output::one(options.output, &backup);
            if backup["content"] == "opaque" {
                warn(&format!("the content is not verified: {}", opaque_reason(&backup)));
            }
            if backup["state"] == "failed" {
                let reason = backup["failure"]["reason"].as_str().unwrap_or("no reason known");
                return Err(Failure::Failed(format!("the backup failed: {reason}")));
            }
        }
        BackupCommand::List { instance } => {
            let id = find_instance(&client, &instance)?;
            let all = client.list(&format!("/instances/{id}/backups"))?;
            output::list(options.output, &all, &output::BACKUP);
        }
        BackupCommand::Show { backup } => {
            let found = client.call(Method::GET, &format!("/backups/{}", plain(&backup)?), None)?;
            output::one(options.output, &found);
        }
        BackupCommand::Link { backup, expires } => {
            let body = json!({"expires_seconds": seconds(&expires)?});
            let path = format!("/backups/{}/links", plain(&backup)?);
            let links = client.call(Method::POST, &path, Some(&body))?;
            output::links(options.output, &links);
        }
        BackupCommand::Cancel { backup } => {
            let path = format!("/backups/{}/cancel", plain(&backup)?);
            client.call(Method::POST, &path, None)?;
            let ended = progress::follow_backup(&client, &backup)?;
            output::one(options.output, &ended);
            if ended["state"] != "failed" {
                return Err(Failure::Failed(
                    "cannot cancel the backup: it has already ended".into(),
                ));
            }
        }
        BackupCommand::Hold { backup } => {
            client.call(Method::PUT, &format!("/backups/{}/hold", plain(&backup)?), None)?;
            output::say(options.output, &format!("{backup} is held until it is released"));
        }
        BackupCommand::Release { backup } => {
            client.call(Method::DELETE, &format!("/backups/{}/hold", plain(&backup)?), None)?;
            output::say(options.output, &format!("released {backup}"));
        }
        BackupCommand::Delete { backup } => {
            client.call(Method::DELETE, &format!("/backups/{}", plain(&backup)?), None)?;
            output::say(options.output, &format!("deleted the files of {backup}"));
        }
    }
    Ok(())
}

pub(crate) fn restore(command: RestoreCommand, options: &ClientOptions) -> Result<(), Failure> {
    let client = Client::new(options)?;
    match command {
        RestoreCommand::Create { wish, note, wait } => {
            let id = find_instance(&client, &wish.instance)?;
            let mut body = restore_body(&wish);
            body["note"] = json!(note);
            let path = format!("/instances/{id}/restores");
            let mut restore = client.call(Method::POST, &path, Some(&body))?;
            if wait {
                let id = restore["id"].as_str().unwrap_or_default();
                restore = progress::follow_restore(&client, id)?;
            }
            output::one(options.output, &restore);
            if restore["state"] == "failed" {
                let reason = restore["failure"]["reason"].as_str().unwrap_or("no reason known");
                let holds = match restore["target_data"].as_str() {
                    Some("untouched") => "the instance is unchanged",
                    Some("old") => "the instance has its previous data",
                    _ => "the state of the instance's data is unknown; inspect the instance",
                };
                return Err(Failure::Failed(format!("the restore failed: {reason}; {holds}")));
            }
        }
        RestoreCommand::Plan { wish } => {
            let id = find_instance(&client, &wish.instance)?;
            let path = format!("/instances/{id}/restores/plan");
            let plan = client.call(Method::POST, &path, Some(&restore_body(&wish)))?;
            output::one(options.output, &plan);
            if plan["possible"] == false {
                return Err(Failure::Failed(
                    "the restore is not possible; see its blockers".into(),
                ));
            }
        }
        RestoreCommand::List { instance } => {
            let id = find_instance(&client, &instance)?;
            let all = client.list(&format!("/instances/{id}/restores"))?;
            output::list(options.output, &all, &output::RESTORE);
        }
        RestoreCommand::Show { restore } => {
            let path = format!("/restores/{}", plain(&restore)?);
            output::one(options.output, &client.call(Method::GET, &path, None)?);
        }
        RestoreCommand::Cancel { restore } => {
            let path = format!("/restores/{}/cancel", plain(&restore)?);
            client.call(Method::POST, &path, None)?;
            let ended = progress::follow_restore(&client, &restore)?;
            output::one(options.output, &ended);
        }
    }
    Ok(())
}

pub(crate) fn drill(drill: &DrillOptions, options: &ClientOptions) -> Result<(), Failure> {
    let client = Client::new(options)?;
    let id = plain(&drill.backup)?;
    let mut backup = client.call(Method::POST, &format!("/backups/{id}/drill"), None)?;
    if drill.no_wait {
        output::one(options.output, &backup);
        return Ok(());
    }
    backup = progress::follow_drill(&client, id)?;
    output::one(options.output, &backup);
    match backup["drill_failure"].as_str() {
        Some(reason) => Err(Failure::Failed(format!("the drill failed: {reason}"))),
        None => Ok(()),
    }
}

pub(crate) fn verify(wish: &VerifyOptions, options: &ClientOptions) -> Result<(), Failure> {
    let client = Client::new(options)?;
    let instances = if wish.instances.is_empty() {
        let all = client.list("/instances")?;
        let ids = all["items"].as_array().into_iter().flatten();
        ids.filter_map(|instance| instance["id"].as_str().map(str::to_owned)).collect()
    } else {
        wish.instances
            .iter()
            .map(|name| find_instance(&client, name))
            .collect::<Result<Vec<_>, _>>()?
    };
    // Request all verifications first, so that the service runs them without a pause.
    let mut asked_for = Vec::new();
    for instance in instances {
        let backups = client.list(&format!("/instances/{instance}/backups"))?;
        for backup in backups["items"].as_array().into_iter().flatten() {
            let Some(id) = backup["id"].as_str() else { continue };
            let is_wanted = wish.subset.is_none_or(|share| share.holds(id));
            if backup["state"] == "succeeded" && is_wanted {
                let path = format!("/backups/{id}/check");
                let answer = client.call_if_there(Method::POST, &path)?;
                asked_for.extend(answer.map(|answer| (backup.clone(), answer)));
            }
        }
    }
    let (mut checked, mut unchecked) = (Vec::new(), 0);
    for (before, answer) in asked_for {
        match progress::follow_check(&client, &before, &answer)? {
            Checked::Done(backup) => checked.push(backup),
            Checked::Gone => {}
            Checked::Not(reason) => {
                let id = output::text(&before["id"]);
                terminal::message(&format_args!("{id} was not verified: {reason}"));
                unchecked += 1;
            }
        }
    }
    let damaged = checked.iter().filter(|backup| !backup["damage"].is_null()).count();
    let total = checked.len();
    output::list(options.output, &json!({"items": checked, "total": total}), &output::CHECK);
    match (damaged, unchecked) {
        (0, 0) => Ok(()),
        (_, 0) => Err(Failure::Failed(format!("{damaged} of {total} backups are damaged"))),
        _ => Err(Failure::Failed(format!(
            "{damaged} of {total} backups are damaged, {unchecked} more could not be verified"
        ))),
    }
}

/// The reason for opaque content, from the artifacts.
fn opaque_reason(backup: &Value) -> &str {
    let artifacts = backup["artifacts"].as_array().into_iter().flatten();
    let mut reasons =
        artifacts.filter_map(|artifact| artifact["rdb"]["content"]["reason"].as_str());
    reasons.next().unwrap_or("the service does not know its format")
}

/// Prints a warning to standard error.
fn warn(message: &str) {
    terminal::message(&format_args!("warning: {message}"));
}

fn restore_body(wish: &RestoreWish) -> Value {
    let is_partial = wish.keys.is_some() || wish.database.is_some();
    json!({
        "backup_id": wish.backup,
        "safety_backup": !wish.no_safety_backup,
        "prove": wish.prove,
        "swap": wish.swap,
        "way": wish.way,
        "pattern": wish.keys,
        "database": wish.database,
        // A partial restore never empties the instance.
        "conflict": wish.merge.as_deref().or(is_partial.then_some("replace")),
        "ttl": wish.ttl,
        "unverified": wish.unverified,
        "needed_bytes": wish.needed_bytes,
    })
}

/// The id of the instance with this name; otherwise the text itself.
pub(super) fn find_instance(client: &Client, name_or_id: &str) -> Result<String, Failure> {
    let name = plain(name_or_id)?;
    let found = client.call(Method::GET, &format!("/instances?name={name}"), None)?;
    match found["items"][0]["id"].as_str() {
        Some(id) => Ok(id.to_owned()),
        None => Ok(name.to_owned()),
    }
}

/// The seconds of a duration such as `30m`.
pub(super) fn seconds(text: &str) -> Result<i64, Failure> {
    let time = text.parse::<jiff::SignedDuration>();
    time.map(|time| time.as_secs()).map_err(|_| {
        Failure::Usage(format!("invalid duration `{text}`: expected a value such as `30m` or `2h`"))
    })
}

/// Accepts names and ids that need no escape in a URL.
pub(super) fn plain(text: &str) -> Result<&str, Failure> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !text.is_empty() && text.bytes().all(allowed) {
        Ok(text)
    } else {
        Err(Failure::Usage(format!("invalid name or id `{text}`")))
    }
}

fn add_body(wish: &AddInstance) -> Result<Value, Failure> {
    let url = parse_url(&wish.url)?;
    let password = wish.password_file.as_deref().map(password).transpose()?.or(url.password);
    Ok(json!({
        "name": wish.name,
        "host": url.host,
        "port": url.port,
        "username": url.username,
        "password": password,
        "tls": url.tls,
        "tls_ca_pem": pem(&wish.tls_ca_file)?,
        "tls_certificate_pem": pem(&wish.tls_cert_file)?,
        "tls_key_pem": pem(&wish.tls_key_file)?,
    }))
}

/// The password in a file, without the line end.
fn password(path: &Path) -> Result<String, Failure> {
    Ok(read(path)?.trim_end_matches(['\r', '\n']).to_owned())
}

fn pem(file: &Option<PathBuf>) -> Result<Option<String>, Failure> {
    file.as_deref().map(read).transpose()
}

#[derive(Debug, PartialEq, Eq)]
struct ServerUrl {
    host: String,
    port: u16,
    username: Option<String>,
    password: Option<String>,
    tls: bool,
}

/// Parses `redis[s]://[user[:password]@]host[:port][/0]`. Errors never repeat the text, because it
/// may contain a password.
fn parse_url(text: &str) -> Result<ServerUrl, Failure> {
    let usage = |what: &str| {
        Failure::Usage(format!(
            "invalid URL: it {what}; expected redis://[user:password@]host:port"
        ))
    };
    if has_raw_character(text) {
        return Err(usage(
            "has a special character in its user name or password; percent-encode \
             it: `/` is %2F, `?` is %3F, `#` is %23, `@` is %40, `%` is %25",
        ));
    }
    let url = Url::parse(text).map_err(|e| usage(&format!("cannot be read ({e})")))?;
    let tls = match url.scheme() {
        "redis" => false,
        "rediss" => true,
        _ => return Err(usage("must begin with redis:// or rediss://")),
    };
    let host = match url.host() {
        Some(Host::Domain(name)) if !name.is_empty() => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        _ => return Err(usage("has no host")),
    };
    if !matches!(url.path(), "" | "/" | "/0") || url.query().is_some() || url.fragment().is_some() {
        return Err(usage("contains more than the address; a backup always covers all databases"));
    }
    let decode = |text: &str| {
        percent_decode(text).ok_or_else(|| usage("has a user name or password that is not UTF-8"))
    };
    let username = Some(decode(url.username())?).filter(|name| !name.is_empty());
    let password = url.password().map(decode).transpose()?;
    Ok(ServerUrl { host, port: url.port().unwrap_or(DEFAULT_PORT), username, password, tls })
}

/// Whether the user name or password contains an unescaped special character, or an invalid percent
/// sign.
fn has_raw_character(text: &str) -> bool {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let Some((login, _)) = rest.rsplit_once('@') else { return false };
    let is_encoded = |part: &str| {
        let digits = part.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    login.contains(['/', '?', '#', '@']) || !login.split('%').skip(1).all(is_encoded)
}

/// Decodes `%XX`. The form decoder reads a plus sign as a space, so it is escaped first.
fn percent_decode(text: &str) -> Option<String> {
    let escaped = text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    let (decoded, _) = url::form_urlencoded::parse(escaped.as_bytes()).next().unwrap_or_default();
    (!decoded.contains('\u{fffd}')).then(|| decoded.into_owned())
}

pub(super) fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(FILE_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
    };
    read.map_err(|e| Failure::Usage(format!("cannot read `{}`: {e}", path.display())))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_opaque_content_is_that_of_its_artifact() {
        let artifact = |content: Value| json!({"artifacts": [{"rdb": {"content": content}}]});
        let opaque = artifact(json!({"state": "opaque", "reason": "type 34 is unknown"}));
        assert_eq!(opaque_reason(&opaque), "type 34 is unknown");
        for unexplained in [json!({}), json!({"artifacts": []}), artifact(Value::Null)] {
            assert_eq!(opaque_reason(&unexplained), "the service does not know its format");
        }
    }

    #[test]
    fn urls_are_read_with_all_their_parts() {
        let url =
            |host: &str, port, username: Option<&str>, password: Option<&str>, tls| ServerUrl {
                host: host.into(),
                port,
                username: username.map(Into::into),
                password: password.map(Into::into),
                tls,
            };
        for (text, expected) in [
            ("redis://127.0.0.1:6380", url("127.0.0.1", 6380, None, None, false)),
            ("redis://db", url("db", 6379, None, None, false)),
            ("redis://db/0", url("db", 6379, None, None, false)),
            ("redis://backup@db", url("db", 6379, Some("backup"), None, false)),
            ("rediss://[::1]:7000/", url("::1", 7000, None, None, true)),
            ("redis://:s%40fe+%2B&=1@db", url("db", 6379, None, Some("s@fe++&=1"), false)),
            ("redis://backup:secret@db:1", url("db", 1, Some("backup"), Some("secret"), false)),
        ] {
            assert_eq!(parse_url(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_raw_special_character_in_a_password_names_percent_encoding() {
        for character in ["/", "?", "#", "@", "%", "%4", "%zz", "/1@"] {
            let text = format!("redis://u:top{character}secret@db:6379");
            let Err(Failure::Usage(message)) = parse_url(&text) else { panic!("{text}") };
            assert!(message.contains("percent-encode"), "{text}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn bad_urls_are_refused_without_repeating_their_password() {
        for text in [
            "",
            "db:6379",
            "http://u:topsecret@db",
            "redis://u:topsecret@db/3",
            "redis://u:topsecret@db?x=1",
            "redis://u:topsecret@:1",
        ] {
            match parse_url(text) {
                Err(Failure::Usage(message)) => {
                    assert!(!message.contains("topsecret"), "{message}")
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
