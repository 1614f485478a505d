use std::collections::BTreeMap;

use base64::Engine as _;
use serde::Deserialize;

use crate::scripted::{Act, ScriptedServer};
use crate::server::repository_file;

/// The replies of a real server to a replica's handshake: `fixtures/handshakes`.
#[derive(Debug, Clone, Deserialize)]
pub struct Recording {
    pub engine: String,
    pub version: String,
    pub scenarios: BTreeMap<String, Scenario>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Scenario {
    pub steps: Vec<RecordedStep>,
    pub payload: Option<Payload>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct RecordedStep {
    pub send: Vec<String>,
    reply_base64: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Payload {
    header_base64: String,
    rdb_base64: String,
    trailer_base64: String,
    pub complete: bool,
    pub closed: bool,
}

/// All recordings.
pub fn recordings() -> Vec<Recording> {
    let folder = repository_file("fixtures/handshakes");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder of recordings")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    let read = |path| std::fs::read(path).expect("a recording");
    files
        .iter()
        .map(|path| serde_json::from_slice(&read(path)).expect("a recording in JSON"))
        .collect()
}

impl Payload {
    pub fn rdb(&self) -> Vec<u8> {
        decode(&self.rdb_base64)
    }
}

impl Scenario {
    /// A server that repeats the recorded replies.
    pub fn replay(&self) -> ScriptedServer {
        let scenario = self.clone();
        ScriptedServer::start(move |command| scenario.answer(command))
    }

    fn answer(&self, command: &[String]) -> Vec<Act> {
        let recorded = self.steps.iter().find(|step| {
            step.send.len() == command.len()
                && step.send.iter().zip(command).all(|(a, b)| a.eq_ignore_ascii_case(b))
        });
        let Some(step) = recorded else {
            return vec![Act::Send(b"-ERR not recorded\r\n".to_vec())];
        };
        let mut acts = vec![Act::Send(decode(&step.reply_base64))];
        if let (true, Some(payload)) = (command[0] == "PSYNC", &self.payload) {
            for part in [&payload.header_base64, &payload.rdb_base64, &payload.trailer_base64] {
                acts.push(Act::Send(decode(part)));
            }
            acts.push(if payload.closed { Act::Close } else { Act::Silence });
        }
        acts
    }
}

fn decode(base64: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(base64).expect("base64")
}
