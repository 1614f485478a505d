//! The HTTP API in process, with a real SQLite catalog and a real store folder.

#![expect(clippy::unwrap_used, reason = "a broken rig must stop its test")]

mod audit;
mod clients;
mod crowd;
mod documented;
mod events;
mod foreign_tokens;
mod identity;
mod instances;
mod keystone;
mod links;
mod manage;
mod openapi;
mod refusals;
mod rig;
mod schedules;
mod tenants;
mod walk;
mod wire;
