//! Cachevault: backup and restore for Redis and Valkey.
//!
//! This crate is the composition root: configuration, wiring, lifecycle, and the command line.
//! `serve` runs the service; `inspect` and `diff` read RDBs without it; every other command is a
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
    after_help = "Exit codes: 0 done; 1 the operation failed; 2 wrong usage or configuration; \
    3 the service cannot be reached; 4 the service refused the request. `inspect` and `diff` have \
    their own: see their help."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service: API and workers.
    Serve(Box<Settings>),
    /// Adopt servers, list them, let them go.
    Instance {
        #[command(subcommand)]
        command: InstanceCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Make backups, list them, delete them.
    Backup {
        #[command(subcommand)]
        command: BackupCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Say when an instance is backed up by itself, and what is kept.
    Schedule {
        #[command(subcommand)]
        command: ScheduleCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Restore backups, plan it first, list restores.
    Restore {
        #[command(subcommand)]
        command: RestoreCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Create and name projects, list them, let nobody in.
    Project {
        #[command(subcommand)]
        command: ProjectCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Create users, give them roles in projects, disable and delete them.
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
    /// Write roles of a project's own.
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Prove a backup: load it into a throw-away server of the service's machine and compare.
    Drill {
        #[command(flatten)]
        drill: DrillOptions,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Read stored backups again and compare them with their manifests; what is damaged is marked.
    Verify {
        #[command(flatten)]
        verify: VerifyOptions,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// See what has happened in the project, and follow it.
    Event {
        #[command(subcommand)]
        command: EventCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Have URLs told what happens in the project.
    Webhook {
        #[command(subcommand)]
        command: WebhookCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// See who did what in the project.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Say what an RDB or a stored backup holds, and whether it is sound, without the service.
    #[command(after_help = cli::INSPECT_HELP)]
    Inspect(InspectOptions),
    /// Say which keys differ between two RDBs or stored backups, without the service.
    #[command(after_help = cli::DIFF_HELP)]
    Diff(DiffOptions),
    /// Work on the catalog while the service is stopped.
    Catalog {
        #[command(subcommand)]
        command: CatalogCommand,
    },
    /// Work on the master keys while the service is stopped.
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Look at places for backups, without the service.
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
    /// Add to the catalog what the store holds and it lacks: backups, their instances without
    /// passwords, projects. Takes the settings of `serve`
    Rebuild(Box<Settings>),
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Put a new master key in front of the others: what is new is sealed with it, and the service
    /// seals the keys of stored backups anew when it starts. Takes the settings of `serve`
    Rotate(Box<Settings>),
}

#[derive(Subcommand)]
enum StoreCommand {
    /// Prove that a store does all that it has to: writes, reads, lists and removes in a folder of
    /// its own, and prints a report
    Check(CheckOptions),
    /// Take the store that the settings name from now on, while the service is stopped: after it
    /// was moved without its id, or replaced. Takes the settings of `serve`
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

/// Runs something under the configuration that the settings make.
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
