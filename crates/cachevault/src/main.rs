//! Cachevault: backup and restore for Redis and Valkey.
//!
//! This crate is the composition root: configuration, wiring, lifecycle, and the command line.
//! `serve` runs the service; `inspect` and `diff` read RDBs without it; every other command is a
//! client of its HTTP API.

mod cli;
mod config;
mod data_dir;
mod entropy;
mod logging;
mod serve;
mod stores;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::cli::{
    BackupCommand, ClientOptions, DiffOptions, DrillOptions, InspectOptions, InstanceCommand,
    RestoreCommand,
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
    /// Restore backups, plan it first, list restores.
    Restore {
        #[command(subcommand)]
        command: RestoreCommand,
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
    /// Say what an RDB or a stored backup holds, and whether it is sound, without the service.
    #[command(after_help = cli::INSPECT_HELP)]
    Inspect(InspectOptions),
    /// Say which keys differ between two RDBs or stored backups, without the service.
    #[command(after_help = cli::DIFF_HELP)]
    Diff(DiffOptions),
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
enum StoreCommand {
    /// Prove that a store does all that it has to: writes, reads, lists and removes in a folder of
    /// its own, and prints a report
    Check(CheckOptions),
}

/// Wrong usage or configuration.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(settings) => match Config::resolve(*settings, &Cli::command()) {
            Ok(config) => finish(serve::run(config)),
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::from(EXIT_USAGE)
            }
        },
        Command::Instance { command, options } => cli::exit(cli::instance(command, &options)),
        Command::Backup { command, options } => cli::exit(cli::backup(command, &options)),
        Command::Restore { command, options } => cli::exit(cli::restore(command, &options)),
        Command::Drill { drill, options } => cli::exit(cli::drill(&drill, &options)),
        Command::Inspect(options) => cli::inspect(&options),
        Command::Diff(options) => cli::diff(&options),
        Command::Store { command: StoreCommand::Check(options) } => match options.config() {
            Ok(config) => finish(stores::check(&config)),
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::from(EXIT_USAGE)
            }
        },
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

fn finish(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
