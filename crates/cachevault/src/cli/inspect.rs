//! `cachevault inspect`: the content and integrity of an RDB, without the service.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use cachevault_domain::{Clock, SystemClock};
use cachevault_rdb::data;
use cachevault_rdb::digest::Digester;
use cachevault_rdb::inspect::{Content, Inspection, Inspector};
use cachevault_rdb::raw::Key;
use cachevault_rdb::structure::{self, Shape, Visitor};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::inspect_document::Document;
use super::inspect_summary::summary;
use super::rdb_name;
use super::rdb_pass::{Interrupts, pass, sentence};
use super::rdb_source::{Source, Trouble};
use super::stored_backup::StoreOptions;
use crate::terminal::{self, escaped};

const EXIT_DAMAGED: u8 = 1;
const EXIT_UNREADABLE: u8 = 2;
const EXIT_OPAQUE: u8 = 3;

pub(crate) const INSPECT_HELP: &str = "\
SOURCE is read once, in constant memory; plain and zstd-compressed RDBs are told apart by their \
first bytes. Names of keys are shown with \\\\, \\n and \\xNN for what is no printable text.\n\n\
Exit codes: 0 the source is sound; 1 it is damaged, and standard error says where; 2 wrong usage, \
or it cannot be read; 3 opaque: its frame and checksum are right, but a newer or modified server \
wrote it, and its content was not verified.";

#[derive(Debug, Args)]
pub(crate) struct InspectOptions {
    /// A file, `-` for standard input, or `backup:ID` for a stored backup
    source: OsString,

    /// List the keys
    ///
    /// Each line has database, name, kind, encoding, elements, stored bytes and expiry
    #[arg(long, group = "mode")]
    keys: bool,

    /// Check frame, checksum and structure; print one line
    #[arg(long, group = "mode", conflicts_with = "json")]
    verify: bool,

    /// Print only the digests of keys and functions
    ///
    /// They depend on the data alone
    #[arg(long, group = "mode", conflicts_with = "json")]
    digest: bool,

    /// Print JSON: a document, or with --keys one line per key
    #[arg(long)]
    json: bool,

    /// Add a digest per cluster slot to the JSON document
    #[arg(long, requires = "json", conflicts_with = "mode")]
    slots: bool,

    /// Largest keys and prefixes to show, up to 10,000
    #[arg(long, value_name = "N", default_value_t = 10, conflicts_with = "mode")]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=10_000))]
    top: u16,

    #[command(flatten)]
    store: StoreOptions,
}

/// Runs the command and returns its exit code.
pub(crate) fn inspect(options: &InspectOptions) -> ExitCode {
    let mut output = BufWriter::new(io::stdout().lock());
    let outcome = run(options, &mut output);
    // Results before an error are printed; the error decides the exit code.
    let flushed = output.flush().map_err(Trouble::Output);
    let (code, message) = match outcome.and(flushed) {
        Ok(()) => return ExitCode::SUCCESS,
        // A reader that closes the pipe, such as `head`, is not an error.
        Err(Trouble::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        Err(Trouble::Output(e)) => {
            (EXIT_UNREADABLE, format!("error: cannot write the output: {e}"))
        }
        Err(Trouble::Unreadable(message)) => (EXIT_UNREADABLE, format!("error: {message}")),
        Err(Trouble::Damaged(message)) => (EXIT_DAMAGED, format!("error: {message}")),
        Err(Trouble::Opaque(message)) => (EXIT_OPAQUE, format!("opaque: not verified: {message}")),
    };
    terminal::message(&message);
    ExitCode::from(code)
}

fn run(options: &InspectOptions, output: &mut dyn Write) -> Result<(), Trouble> {
    let source = Source::find(&options.source, &options.store)?;
    if options.verify {
        verify(&source, output)
    } else if options.digest {
        print_digests(&source, output)
    } else if options.keys {
        list_keys(&source, options.json, output)
    } else {
        report(&source, options, output)
    }
}

fn report(
    source: &Source,
    options: &InspectOptions,
    output: &mut dyn Write,
) -> Result<(), Trouble> {
    let now = SystemClock.now().as_millisecond();
    let mut inspector = Inspector::new(now, usize::from(options.top));
    source.read(|piece| inspector.feed(piece).map_err(|e| source.refused(&e)))?;
    let inspection = inspector.finish().map_err(|e| source.refused(&e))?;
    if options.json {
        let document = Document::new(source.name(), &inspection, options.slots);
        let document = serde_json::to_string_pretty(&document).map_err(io::Error::from)?;
        writeln!(output, "{}", escaped(&document))?;
    } else {
        output.write_all(escaped(&summary(source.name(), &inspection)).as_bytes())?;
    }
    match &inspection {
        Inspection { content: Content::Verified { .. }, .. } => Ok(()),
        Inspection { content: Content::Opaque { reason }, envelope } => {
            Err(source.opaque(format_args!("{}; {reason}", sentence(envelope))))
        }
    }
}

fn verify(source: &Source, output: &mut dyn Write) -> Result<(), Trouble> {
    let (envelope, (_, count)) = pass(source, (structure::Decoder::default(), Count(0)))?;
    let (keys, frame) = (count.0, sentence(&envelope));
    let (header, rest) = frame.split_once(", ").unwrap_or((&frame, ""));
    Ok(writeln!(output, "ok: {header}, {keys} keys, {rest}")?)
}

/// Prints digests in the format of `sha256sum`.
fn print_digests(source: &Source, output: &mut dyn Write) -> Result<(), Trouble> {
    let (_, (_, digester)) = pass(source, (data::Decoder::default(), Digester::default()))?;
    let digest = digester.finish();
    writeln!(output, "{}  {}", digest.keys, source.name())?;
    Ok(writeln!(output, "{}  {} (functions)", digest.functions, source.name())?)
}

fn list_keys(source: &Source, json: bool, output: &mut dyn Write) -> Result<(), Trouble> {
    let listing = Listing { output, json, current: None, failed: None };
    pass(source, (structure::Decoder::default(), listing)).map(drop)
}

/// Counts keys.
struct Count(u64);

impl Interrupts for Count {}

impl Visitor for Count {
    const WANTS_TEXTS: bool = false;

    fn key_end(&mut self, _shape: &Shape) {
        self.0 += 1;
    }
}

/// Prints each key at its end.
struct Listing<'o> {
    output: &'o mut dyn Write,
    json: bool,
    current: Option<Listed>,
    failed: Option<io::Error>,
}

/// A key whose value is being read.
struct Listed {
    db: u64,
    name: String,
    name_bytes: u64,
    expires_at_ms: Option<i64>,
}

/// A line of the listing.
#[derive(Serialize)]
struct Line<'a> {
    db: u64,
    name: &'a str,
    kind: &'a str,
    encoding: &'a str,
    elements: u64,
    stored_bytes: u64,
    expires_at: Option<String>,
    expires_at_ms: Option<i64>,
}

impl Interrupts for Listing<'_> {
    fn interruption(&mut self) -> Option<Trouble> {
        self.failed.take().map(Trouble::Output)
    }
}

impl Visitor for Listing<'_> {
    const WANTS_TEXTS: bool = false;

    fn key(&mut self, key: &Key<'_>) {
        self.current = Some(Listed {
            db: key.db,
            name: rdb_name::escaped(key.name),
            name_bytes: key.name.len() as u64,
            expires_at_ms: key.expires_at_ms,
        });
    }

    fn key_end(&mut self, shape: &Shape) {
        let Some(key) = self.current.take() else { return };
        if self.failed.is_none() {
            self.failed = self.print(&key, shape).err();
        }
    }
}

impl Listing<'_> {
    fn print(&mut self, key: &Listed, shape: &Shape) -> io::Result<()> {
        let line = Line {
            db: key.db,
            name: &key.name,
            kind: shape.value_type.kind().as_str(),
            encoding: shape.value_type.encoding(),
            elements: shape.elements,
            stored_bytes: key.name_bytes + shape.stored_bytes,
            expires_at: key.expires_at_ms.map(moment),
            expires_at_ms: key.expires_at_ms,
        };
        if self.json {
            serde_json::to_writer(&mut *self.output, &line)?;
            return writeln!(self.output);
        }
        let Line { db, name, kind, encoding, elements, stored_bytes, .. } = line;
        let expiry = line.expires_at.as_deref().unwrap_or("-");
        writeln!(
            self.output,
            "{db}\t{name}\t{kind}\t{encoding}\t{elements}\t{stored_bytes}\t{expiry}"
        )
    }
}

/// Formats a time by RFC 3339. Times outside the calendar stay numbers.
fn moment(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |moment| moment.to_string())
}
