//! Cachevault: backup and restore for Redis and Valkey.
//!
//! This crate is the composition root: configuration, wiring, lifecycle, and the command line.
//! `serve` runs the service. `inspect` and `diff` read RDBs without it. Every other command is a
//! client of its HTTP API.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod cli;
mod config;
mod data_dir;
mod entropy;
mod first_start;
mod keystone;
mod listen;
mod logging;
mod private;
mod serve;
mod stores;
mod terminal;
mod webhooks;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::cli::{
    AuditCommand, BackupCommand, ClientOptions, CredentialCommand, DiffOptions, DrillOptions,
    EventCommand, InspectOptions, InstanceCommand, PolicyCommand, ProjectCommand, RestoreCommand,
    ScheduleCommand, UserCommand, VerifyOptions, WebhookCommand,
};
use crate::config::{Config, Settings};
use crate::stores::CheckOptions;

/// Backup and restore for Redis and Valkey.
#[derive(Parser)]
#[command(name = "cachevault", version, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 success; 1 the operation failed; 2 wrong usage or configuration; \
    3 the service cannot be reached; 4 the service refused the request. `inspect` and `diff` have \
    their own exit codes."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service: API and workers.
    Serve(Box<Settings>),
    /// Register, list and remove instances.
    Instance {
        #[command(subcommand)]
        command: InstanceCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Create, list and delete backups.
    Backup {
        #[command(subcommand)]
        command: BackupCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Manage backup schedules and retention.
    Schedule {
        #[command(subcommand)]
        command: ScheduleCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Plan, create and list restores.
    Restore {
        #[command(subcommand)]
        command: RestoreCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Create, list, rename and disable projects.
    Project {
        #[command(subcommand)]
        command: ProjectCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Manage users and their roles.
    User {
        #[command(subcommand)]
        command: UserCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Create, rotate, disable and delete access keys.
    Credential {
        #[command(subcommand)]
        command: CredentialCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Manage custom roles of a project.
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Prove a backup by a restore into a temporary server.
    Drill {
        #[command(flatten)]
        drill: DrillOptions,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Verify stored backups against their manifests.
    Verify {
        #[command(flatten)]
        verify: VerifyOptions,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// List and follow events.
    Event {
        #[command(subcommand)]
        command: EventCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Manage webhooks.
    Webhook {
        #[command(subcommand)]
        command: WebhookCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// List and export audit records.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Inspect an RDB file or a stored backup, offline.
    #[command(after_help = cli::INSPECT_HELP)]
    Inspect(InspectOptions),
    /// Compare the keys of two RDBs or stored backups, offline.
    #[command(after_help = cli::DIFF_HELP)]
    Diff(DiffOptions),
    /// Maintain the catalog while the service is stopped.
    Catalog {
        #[command(subcommand)]
        command: CatalogCommand,
    },
    /// Manage the master keys while the service is stopped.
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Check and accept stores, offline.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
enum CatalogCommand {
    /// Rebuild the catalog from the store
    ///
    /// Adds missing backups and projects, and instances without passwords. Takes the settings of
    /// `serve`
    Rebuild(Box<Settings>),
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Create a new master key and keep the earlier ones
    ///
    /// New secrets are sealed with the new key. The service re-encrypts the data keys of stored
    /// backups at its next start. Takes the settings of `serve`
    Rotate(Box<Settings>),
}

#[derive(Subcommand)]
enum StoreCommand {
    /// Test a store and print a report
    ///
    /// Writes, reads, lists and removes objects in a folder of its own
    Check(CheckOptions),
    /// Accept the configured store after a move or replacement
    ///
    /// The store may have no id or another id. Takes the settings of `serve`
    Accept(Box<Settings>),
}

/// Wrong usage or configuration.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(settings) => configured(*settings, serve::run),
        Command::Catalog { command: CatalogCommand::Rebuild(settings) } => {
            configured(*settings, |config| serve::rebuild(&config))
        }
        Command::Key { command: KeyCommand::Rotate(settings) } => {
            configured(*settings, |config| serve::rotate_key(&config))
        }
        Command::Instance { command, options } => cli::exit(cli::instance(command, &options)),
        Command::Backup { command, options } => cli::exit(cli::backup(command, &options)),
        Command::Schedule { command, options } => cli::exit(cli::schedule(command, &options)),
        Command::Restore { command, options } => cli::exit(cli::restore(command, &options)),
        Command::Project { command, options } => cli::exit(cli::project(command, &options)),
        Command::User { command, options } => cli::exit(cli::user(command, &options)),
        Command::Credential { command, options } => cli::exit(cli::credential(command, &options)),
        Command::Policy { command, options } => cli::exit(cli::policy(command, &options)),
        Command::Drill { drill, options } => cli::exit(cli::drill(&drill, &options)),
        Command::Verify { verify, options } => cli::exit(cli::verify(&verify, &options)),
        Command::Event { command, options } => cli::exit(cli::event(command, &options)),
        Command::Webhook { command, options } => cli::exit(cli::webhook(command, &options)),
        Command::Audit { command, options } => cli::exit(cli::audit(command, &options)),
        Command::Inspect(options) => cli::inspect(&options),
        Command::Diff(options) => cli::diff(&options),
        Command::Store { command: StoreCommand::Check(options) } => match options.config() {
            Ok(config) => finish(stores::check(&config)),
            Err(error) => {
                terminal::message(&format_args!("error: {error:#}"));
                ExitCode::from(EXIT_USAGE)
            }
        },
        Command::Store { command: StoreCommand::Accept(settings) } => {
            configured(*settings, |config| serve::accept_store(&config))
        }
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "cachevault",
                &mut std::io::stdout(),
            );
            ExitCode::SUCCESS
        }
    }
}

/// Resolves the configuration and runs the command with it.
fn configured(settings: Settings, run: impl FnOnce(Config) -> anyhow::Result<()>) -> ExitCode {
    match Config::resolve(settings, &Cli::command()) {
        Ok(config) => finish(run(config)),
        Err(error) => {
            terminal::message(&format_args!("error: {error:#}"));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn finish(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::message(&format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
