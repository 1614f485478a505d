//! Commands for projects, users, credentials and custom roles.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::client::Client;
use super::commands::{plain, read, seconds};
use super::output::{self, Column};
use super::{ClientOptions, Failure};
use crate::terminal;

const PROJECT: [Column; 4] = [
    ("name", |row| output::text(&row["name"])),
    ("id", |row| output::text(&row["id"])),
    ("enabled", |row| output::text(&row["enabled"])),
    ("created", |row| output::seconds(&row["created_at"])),
];

const USER: [Column; 5] = [
    ("name", |row| output::text(&row["name"])),
    ("id", |row| output::text(&row["id"])),
    ("enabled", |row| output::text(&row["enabled"])),
    ("administers service", |row| output::text(&row["administers_service"])),
    ("created", |row| output::seconds(&row["created_at"])),
];

const CREDENTIAL: [Column; 7] = [
    ("access key", |row| output::text(&row["access_key"])),
    ("role", |row| match row["administers_service"].as_bool() {
        Some(true) => format!("{}, administers the service", output::text(&row["role"])),
        _ => output::text(&row["role"]),
    }),
    ("user", |row| output::text(&row["user_name"])),
    ("enabled", |row| output::text(&row["enabled"])),
    ("created", |row| output::seconds(&row["created_at"])),
    ("expires", |row| output::seconds(&row["expires_at"])),
    ("description", |row| output::text(&row["description"])),
];

const POLICY: [Column; 3] = [
    ("name", |row| output::text(&row["name"])),
    ("actions", |row| {
        let actions = row["actions"].as_array().into_iter().flatten();
        actions.map(output::text).collect::<Vec<_>>().join("\n")
    }),
    ("updated", |row| output::seconds(&row["updated_at"])),
];

#[derive(Debug, Subcommand)]
pub(crate) enum ProjectCommand {
    /// Create a project
    Create {
        /// Unique name; SDKs look for the one named like their region
        name: String,
    },
    /// List the projects that are visible to you
    List,
    /// Show one project
    Show {
        /// Name or id
        project: String,
    },
    /// Rename a project
    Rename {
        /// Name or id
        project: String,
        /// New name
        name: String,
    },
    /// Enable a project: its keys and tokens work again
    Enable {
        /// Name or id
        project: String,
    },
    /// Disable a project; its data stays and its jobs continue
    Disable {
        /// Name or id
        project: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Create a user without any role
    Create {
        /// Unique name
        name: String,
        #[command(flatten)]
        password: PasswordOptions,
        /// Let the user administer the whole service
        #[arg(long)]
        administers_service: bool,
    },
    /// List users
    List,
    /// Show one user with its roles
    Show {
        /// Name or id
        user: String,
    },
    /// Set a user's password and revoke its tokens
    Password {
        /// Name or id
        user: String,
        #[command(flatten)]
        password: PasswordOptions,
    },
    /// Enable a user
    Enable {
        /// Name or id
        user: String,
    },
    /// Disable a user: its tokens and credentials stop working
    Disable {
        /// Name or id
        user: String,
    },
    /// Let a user administer the service, or revoke that
    Administer {
        /// Name or id
        user: String,
        /// Revoke the right
        #[arg(long)]
        revoke: bool,
    },
    /// Grant a user a role in a project
    Grant {
        /// Name or id
        user: String,
        /// Name or id of the project
        #[arg(long)]
        project: String,
        /// `reader`, `operator`, `admin` or a custom role
        #[arg(long)]
        role: String,
    },
    /// Revoke a user's role in a project
    Revoke {
        /// Name or id
        user: String,
        /// Name or id of the project
        #[arg(long)]
        project: String,
    },
    /// Delete a user with its roles, tokens and credentials
    Delete {
        /// Name or id
        user: String,
    },
}

/// The source of a password. Other users can see the command line, so it never contains one.
#[derive(Debug, Args)]
pub(crate) struct PasswordOptions {
    /// File with the password; `-` for standard input
    ///
    /// The default is a prompt on a terminal, otherwise standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CredentialCommand {
    /// Create a credential and show its secret once
    Create {
        /// `reader`, `operator`, `admin` or a custom role
        #[arg(long)]
        role: String,
        /// Project [default: your own]; for administrators
        #[arg(long)]
        project: Option<String>,
        /// Owner; the credential never exceeds the owner's permissions
        #[arg(long)]
        user: Option<String>,
        /// Free text, at most 128 characters
        #[arg(long)]
        description: Option<String>,
        /// Expiry, such as 2027-01-31T00:00:00Z
        #[arg(long, value_name = "MOMENT")]
        expires_at: Option<String>,
        /// Let the credential administer the whole service
        #[arg(long)]
        administers_service: bool,
        #[command(flatten)]
        save: SaveOptions,
    },
    /// List the credentials of a project, oldest first
    List {
        /// Project [default: your own]; for administrators
        #[arg(long)]
        project: Option<String>,
    },
    /// Show one credential, without its secret
    Show {
        /// Access key
        access_key: String,
    },
    /// Change the role of a credential
    SetRole {
        /// Access key
        access_key: String,
        /// `reader`, `operator`, `admin` or a custom role
        role: String,
    },
    /// Enable a credential
    Enable {
        /// Access key
        access_key: String,
    },
    /// Disable a credential
    Disable {
        /// Access key
        access_key: String,
    },
    /// Replace a credential and show the new secret once
    Rotate {
        /// Access key
        access_key: String,
        /// Lifetime of the old one, such as `24h` [default: unlimited]
        #[arg(long, value_name = "TIME")]
        old_works_for: Option<String>,
        #[command(flatten)]
        save: SaveOptions,
    },
    /// Delete a credential
    Delete {
        /// Access key
        access_key: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SaveOptions {
    /// Write the credential to this file and hide the secret
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Create a custom role
    Create {
        /// Name of the role
        name: String,
        #[command(flatten)]
        policy: PolicyOptions,
    },
    /// List the custom roles of a project
    List {
        /// Project [default: your own]; for administrators
        #[arg(long)]
        project: Option<String>,
    },
    /// Show one custom role
    Show {
        /// Name
        name: String,
        /// Project [default: your own]; for administrators
        #[arg(long)]
        project: Option<String>,
    },
    /// Change the permissions of a custom role
    Update {
        /// Name
        name: String,
        #[command(flatten)]
        policy: PolicyOptions,
    },
    /// Delete a custom role that is not in use
    Delete {
        /// Name
        name: String,
        /// Project [default: your own]; for administrators
        #[arg(long)]
        project: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PolicyOptions {
    /// Allowed action, such as `dcs:instance:get*`; repeatable
    #[arg(long = "allow", value_name = "ACTION", required = true)]
    actions: Vec<String>,
    /// Project [default: your own]; for administrators
    #[arg(long)]
    project: Option<String>,
}

pub(crate) fn project(command: ProjectCommand, options: &ClientOptions) -> Result<(), Failure> {
    let client = Client::new(options)?;
    let change = |project: &str, body: Value| {
        let path = format!("/projects/{}", named(project)?);
        client.call(Method::PATCH, &path, Some(&body))
    };
    let project = match command {
        ProjectCommand::List => {
            output::list(options.output, &client.list("/projects")?, &PROJECT);
            return Ok(());
        }
        ProjectCommand::Create { name } => {
            client.call(Method::POST, "/projects", Some(&json!({"name": name})))?
        }
        ProjectCommand::Show { project } => {
            client.call(Method::GET, &format!("/projects/{}", named(&project)?), None)?
        }
        ProjectCommand::Rename { project, name } => change(&project, json!({"name": name}))?,
        ProjectCommand::Enable { project } => change(&project, json!({"enabled": true}))?,
        ProjectCommand::Disable { project } => change(&project, json!({"enabled": false}))?,
    };
    output::one(options.output, &project);
    Ok(())
}

pub(crate) fn user(command: UserCommand, options: &ClientOptions) -> Result<(), Failure> {
    let client = Client::new(options)?;
    let path = |user: &str| Ok::<_, Failure>(format!("/users/{}", named(user)?));
    let change = |user: &str, body: Value| client.call(Method::PATCH, &path(user)?, Some(&body));
    let grant = |user: &str, project: &str| {
        Ok::<_, Failure>(format!("{}/grants/{}", path(user)?, named(project)?))
    };
    let user = match command {
        UserCommand::List => {
            output::list(options.output, &client.list("/users")?, &USER);
            return Ok(());
        }
        UserCommand::Delete { user } => {
            client.call(Method::DELETE, &path(&user)?, None)?;
            output::say(
                options.output,
                &format!("deleted `{user}` with its roles, tokens and credentials"),
            );
            return Ok(());
        }
        UserCommand::Revoke { user, project } => {
            client.call(Method::DELETE, &grant(&user, &project)?, None)?;
            client.call(Method::GET, &path(&user)?, None)?
        }
        UserCommand::Create { name, password, administers_service } => {
            let password = password.read()?;
            let body = json!({
                "name": name,
                "password": password,
                "administers_service": administers_service,
            });
            client.call(Method::POST, "/users", Some(&body))?
        }
        UserCommand::Show { user } => client.call(Method::GET, &path(&user)?, None)?,
        UserCommand::Password { user, password } => {
            change(&user, json!({"password": password.read()?}))?
        }
        UserCommand::Enable { user } => change(&user, json!({"enabled": true}))?,
        UserCommand::Disable { user } => change(&user, json!({"enabled": false}))?,
        UserCommand::Administer { user, revoke } => {
            change(&user, json!({"administers_service": !revoke}))?
        }
        UserCommand::Grant { user, project, role } => {
            client.call(Method::PUT, &grant(&user, &project)?, Some(&json!({"role": role})))?
        }
    };
    output::one(options.output, &user);
    Ok(())
}

pub(crate) fn credential(
    command: CredentialCommand,
    options: &ClientOptions,
) -> Result<(), Failure> {
    let client = Client::new(options)?;
    let path = |key: &str| Ok::<_, Failure>(format!("/credentials/{}", plain(key)?));
    let change = |key: &str, body: Value| client.call(Method::PATCH, &path(key)?, Some(&body));
    let credential = match command {
        CredentialCommand::List { project } => {
            let all = client.list(&in_project("/credentials", project.as_deref())?)?;
            output::list(options.output, &all, &CREDENTIAL);
            return Ok(());
        }
        CredentialCommand::Delete { access_key } => {
            client.call(Method::DELETE, &path(&access_key)?, None)?;
            output::say(options.output, &format!("deleted {access_key}"));
            return Ok(());
        }
        CredentialCommand::Create {
            role,
            project,
            user,
            description,
            expires_at,
            administers_service,
            save,
        } => {
            let body = without_nulls(json!({
                "role": role,
                "project": project,
                "user": user,
                "description": description,
                "expires_at": expires_at,
                "administers_service": administers_service,
            }));
            let made = client.call(Method::POST, "/credentials", Some(&body))?;
            return save.show(&client, options, made);
        }
        CredentialCommand::Rotate { access_key, old_works_for, save } => {
            let seconds = old_works_for.as_deref().map(seconds).transpose()?;
            let body = json!({"old_works_for_seconds": seconds});
            let path = format!("{}/rotate", path(&access_key)?);
            let made = client.call(Method::POST, &path, Some(&body))?;
            return save.show(&client, options, made);
        }
        CredentialCommand::Show { access_key } => {
            client.call(Method::GET, &path(&access_key)?, None)?
        }
        CredentialCommand::SetRole { access_key, role } => {
            change(&access_key, json!({"role": role}))?
        }
        CredentialCommand::Enable { access_key } => change(&access_key, json!({"enabled": true}))?,
        CredentialCommand::Disable { access_key } => {
            change(&access_key, json!({"enabled": false}))?
        }
    };
    output::one(options.output, &credential);
    Ok(())
}

pub(crate) fn policy(command: PolicyCommand, options: &ClientOptions) -> Result<(), Failure> {
    let client = Client::new(options)?;
    let path = |name: &str, project: &Option<String>| {
        in_project(&format!("/policies/{}", plain(name)?), project.as_deref())
    };
    let policy = match command {
        PolicyCommand::List { project } => {
            let all = client.list(&in_project("/policies", project.as_deref())?)?;
            output::list(options.output, &all, &POLICY);
            return Ok(());
        }
        PolicyCommand::Delete { name, project } => {
            client.call(Method::DELETE, &path(&name, &project)?, None)?;
            output::say(options.output, &format!("deleted `{name}`"));
            return Ok(());
        }
        PolicyCommand::Create { name, policy: PolicyOptions { actions, project } } => {
            let body = json!({"name": name, "actions": actions});
            let path = in_project("/policies", project.as_deref())?;
            client.call(Method::POST, &path, Some(&body))?
        }
        PolicyCommand::Show { name, project } => {
            client.call(Method::GET, &path(&name, &project)?, None)?
        }
        PolicyCommand::Update { name, policy: PolicyOptions { actions, project } } => {
            let body = json!({"actions": actions});
            client.call(Method::PUT, &path(&name, &project)?, Some(&body))?
        }
    };
    output::one(options.output, &policy);
    Ok(())
}

impl SaveOptions {
    /// Shows a credential with its secret, or writes it to a credentials file.
    fn show(&self, client: &Client, options: &ClientOptions, made: Value) -> Result<(), Failure> {
        let Some(path) = &self.save else {
            output::one(options.output, &made);
            output::say(options.output, "the secret is not shown again");
            return Ok(());
        };
        let saved = client.save(&made, path);
        saved.map_err(|e| {
            Failure::Failed(format!("cannot save the credential: {e:#}; it was created: {made}"))
        })?;
        let mut shown = made;
        if let Some(fields) = shown.as_object_mut() {
            fields.remove("secret_key");
        }
        output::one(options.output, &shown);
        output::say(options.output, &format!("the secret is in `{}`", path.display()));
        Ok(())
    }
}

impl PasswordOptions {
    fn read(&self) -> Result<String, Failure> {
        let stdin = Path::new("-");
        let text = match self.password_file.as_deref() {
            None if std::io::stdin().is_terminal() => ask_twice()?,
            path => read(path.unwrap_or(stdin))?,
        };
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }
}

fn ask_twice() -> Result<String, Failure> {
    let first = ask("Password: ")?;
    if ask("Again: ")? == first {
        Ok(first)
    } else {
        Err(Failure::Usage("the passwords differ; repeat the command".to_owned()))
    }
}

/// Reads a line without echo.
fn ask(question: &str) -> Result<String, Failure> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    let failed =
        |e: &dyn std::fmt::Display| Failure::Failed(format!("cannot read the password: {e}"));
    terminal::ask(question);
    let shown = tcgetattr(&stdin).map_err(|e| failed(&e))?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(|e| failed(&e))?;
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    let restored = tcsetattr(&stdin, OptionalActions::Flush, &shown);
    terminal::message(&"");
    read.map_err(|e| failed(&e))?;
    restored.map_err(|e| failed(&e))?;
    Ok(line)
}

/// A path with the query for a named project.
fn in_project(path: &str, project: Option<&str>) -> Result<String, Failure> {
    match project {
        Some(project) => Ok(format!("{path}?project={}", named(project)?)),
        None => Ok(path.to_owned()),
    }
}

/// Escapes a name of a project or user for a URL. Only `+` and `@` need an escape.
fn named(text: &str) -> Result<String, Failure> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.@+".contains(&b);
    if !text.is_empty() && text != "." && text != ".." && text.bytes().all(allowed) {
        Ok(text.replace('+', "%2B").replace('@', "%40"))
    } else {
        Err(Failure::Usage(format!("invalid name or id `{text}`")))
    }
}

fn without_nulls(body: Value) -> Value {
    match body {
        Value::Object(fields) => {
            let said: Map<_, _> =
                fields.into_iter().filter(|(_, value)| !value.is_null()).collect();
            Value::Object(said)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_part_of_a_url_and_nothing_else() {
        assert_eq!(named("jane.doe+ops@example.org").unwrap(), "jane.doe%2Bops%40example.org");
        for text in ["", ".", "..", "a/b", "a?b", "a b", "ä"] {
            assert!(named(text).is_err(), "{text}");
        }
        assert_eq!(in_project("/policies", Some("eu-test")).unwrap(), "/policies?project=eu-test");
        assert_eq!(without_nulls(json!({"a": null, "b": false})), json!({"b": false}));
    }
}
