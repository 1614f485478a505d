//! `cachevault diff`: the keys that differ between two RDBs, in bounded memory, without the
//! service.
//!
//! A table stores the hash of each key's name of A and the fingerprint of its content. Then B is
//! compared with the table. When the keys do not fit, the table covers a range of the hashes, and
//! both sources are read again for each further range. The table has no names: a last pass over A
//! finds the names of removed keys.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use cachevault_rdb::EnvelopeReport;
use cachevault_rdb::data;
use cachevault_rdb::digest::{Fingerprint, Fingerprinter, KeyFingerprint, KeyVisitor};
use cachevault_rdb::inspect::Reading;
use cachevault_rdb::raw::Key;
use cachevault_rdb::structure;
use clap::Args;
use serde_json::json;
use twox_hash::XxHash3_128;

use super::diff_table::{Entry, Found, Table};
use super::rdb_name::escaped;
use super::rdb_pass::{Interrupts, pass};
use super::rdb_source::{Source, Trouble};
use super::stored_backup::StoreOptions;
use crate::terminal;

const EXIT_DIFFERENT: u8 = 1;
const EXIT_TROUBLE: u8 = 2;

pub(crate) const DIFF_HELP: &str = "\
A line is `+ DB NAME` for a key that only B has, `- DB NAME` for one that only A has, `~ DB NAME` \
where kind, value or expiry differ; a summary ends the output. Encodings, the order of keys and \
the servers' versions make no difference, nor does data that modules keep outside of keys. Values of \
modules other than vector sets are compared by key, type and expiry alone, and counted. Lists, sets, sorted sets \
and hashes without elements, which servers leave out when they load, are left out and counted. Lines \
come in no particular order; a key that B holds twice, which no server loads, and A lacks has two. Names are shown with \\\\, \\n and \\xNN for what is no printable \
text.\n\n\
Exit codes: 0 the data are the same; 1 they differ; 2 wrong usage, or a source cannot be read, is \
damaged or was written by a server newer than this build: then what was printed is not all.";

#[derive(Debug, Args)]
pub(crate) struct DiffOptions {
    /// First source: a file, or `backup:ID` for a stored backup
    a: OsString,

    /// Second source: a file, or `backup:ID`
    b: OsString,

    /// Print JSON lines: one per key, and one summary
    #[arg(long)]
    json: bool,

    /// Memory for the key table, MiB
    ///
    /// A million keys need 33 MiB. With less, both sources are read several times
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    memory: u32,

    #[command(flatten)]
    store: StoreOptions,
}

/// Runs the command and returns its exit code.
pub(crate) fn diff(options: &DiffOptions) -> ExitCode {
    let mut printer = Printer {
        output: BufWriter::new(io::stdout().lock()),
        json: options.json,
        tally: Tally::default(),
        failed: None,
    };
    let outcome = run(options, &mut printer).and_then(|()| Ok(printer.finish()?));
    // Differences found before an error are printed; the error decides the exit code.
    let flushed = printer.output.flush().map_err(Trouble::Output);
    let message = match outcome.and(flushed) {
        // A reader that closes the pipe, such as `head`, is not an error.
        Err(Trouble::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => {
            return printer.tally.exit();
        }
        Ok(()) => return printer.tally.exit(),
        Err(Trouble::Output(e)) => format!("cannot write the output: {e}"),
        Err(Trouble::Unreadable(message) | Trouble::Damaged(message)) => message,
        Err(Trouble::Opaque(message)) => format!("cannot compare opaque content: {message}"),
    };
    terminal::message(&format_args!("error: {message}"));
    ExitCode::from(EXIT_TROUBLE)
}

fn run(options: &DiffOptions, printer: &mut Printer<'_>) -> Result<(), Trouble> {
    let mut a = Repeated::find(&options.a, options)?;
    let mut b = Repeated::find(&options.b, options)?;
    let budget_bytes = u64::from(options.memory) << 20;
    let mut first = Some(0);
    while let Some(from) = first {
        let table = Table::new(from, budget_bytes);
        let functions = Fingerprint::default();
        // Every pass reads all keys; the first pass counts the keys without elements.
        let empty = Empty { is_counted: from == 0, keys: 0 };
        let fill = Fill { table, hash: 0, functions, empty };
        let Fill { mut table, functions, empty, .. } = a.pass(reading(fill))?.1.keys;
        printer.tally.empty += empty.keys;
        table.seal().map_err(|_| a.source.damaged("duplicate key, which no server loads"))?;
        let compare = Compare {
            table: &mut table,
            printer: &mut *printer,
            hash: 0,
            functions: Fingerprint::default(),
            twice: None,
            empty: Empty { is_counted: from == 0, keys: 0 },
        };
        let Compare { functions: functions_b, empty, .. } = b.pass(reading(compare))?.1.keys;
        printer.tally.empty += empty.keys;
        printer.tally.functions_differ = functions != functions_b;
        if table.keep_unseen() {
            let unseen = Unseen { table: &table, printer: &mut *printer };
            a.pass((structure::Decoder::default(), unseen))?;
        }
        first = table.next_first();
    }
    Ok(())
}

/// A decoder that computes fingerprints.
fn reading<K>(keys: K) -> (data::Decoder, Fingerprinter<K>) {
    (data::Decoder::default(), Fingerprinter::new(keys))
}

/// A source that is read several times and must not change between passes.
struct Repeated {
    source: Source,
    envelope: Option<EnvelopeReport>,
}

impl Repeated {
    fn find(argument: &OsString, options: &DiffOptions) -> Result<Self, Trouble> {
        let source = Source::find(argument, &options.store)?;
        source.must_be_repeatable()?;
        Ok(Self { source, envelope: None })
    }

    fn pass<R: Reading + Interrupts>(&mut self, reading: R) -> Result<R, Trouble> {
        let (envelope, reading) = pass(&self.source, reading)?;
        match self.envelope.replace(envelope) {
            Some(before) if before != envelope => Err(Trouble::Unreadable(format!(
                "`{}` changed during the comparison; repeat it",
                self.source.name()
            ))),
            _ => Ok(reading),
        }
    }
}

/// The hash of a key's database and name. Random collisions of 128 bits are negligible: 10^9 keys
/// collide with a probability of 10^-21. Chosen names can collide, which only hides a key from the
/// list.
fn hash_of(key: &Key<'_>) -> u128 {
    XxHash3_128::oneshot_with_seed(key.db, key.name)
}

/// Builds the table from the keys of A.
struct Fill {
    table: Table,
    /// The hash of the current key.
    hash: u128,
    functions: Fingerprint,
    empty: Empty,
}

/// Counts keys without elements.
struct Empty {
    is_counted: bool,
    keys: u64,
}

impl Empty {
    /// Whether the key may be counted at its end.
    fn may_be(&self, key: &Key<'_>) -> bool {
        self.is_counted && key.value_type.kind().drops_empty()
    }
}

impl Interrupts for Fill {}

impl KeyVisitor for Fill {
    #[inline]
    fn wants(&mut self, key: &Key<'_>) -> bool {
        self.hash = hash_of(key);
        self.table.wants(self.hash) || self.empty.may_be(key)
    }
    fn key(&mut self, key: &KeyFingerprint<'_>) {
        if key.is_empty {
            self.empty.keys += u64::from(self.empty.is_counted);
        } else if self.table.wants(self.hash) {
            self.table.insert(Entry { key: self.hash, fingerprint: key.fingerprint.0 });
        }
    }
    fn function(&mut self, fingerprint: Fingerprint) {
        self.functions += fingerprint;
    }
}

/// Compares the keys of B with the table.
struct Compare<'c, 'o> {
    table: &'c mut Table,
    printer: &'c mut Printer<'o>,
    /// The hash of the current key.
    hash: u128,
    functions: Fingerprint,
    /// The name of a duplicate key.
    twice: Option<String>,
    empty: Empty,
}

impl Interrupts for Compare<'_, '_> {
    fn interruption(&mut self) -> Option<Trouble> {
        let twice = self.twice.take().map(|name| {
            Trouble::Damaged(format!("B contains the key `{name}` twice, which no server loads"))
        });
        twice.or_else(|| self.printer.interruption())
    }
}

impl KeyVisitor for Compare<'_, '_> {
    #[inline]
    fn wants(&mut self, key: &Key<'_>) -> bool {
        self.hash = hash_of(key);
        self.table.wants(self.hash) || self.empty.may_be(key)
    }
    fn key(&mut self, key: &KeyFingerprint<'_>) {
        if key.is_empty {
            self.empty.keys += u64::from(self.empty.is_counted);
            return;
        }
        if !self.table.wants(self.hash) {
            return;
        }
        match self.table.find(self.hash, key.fingerprint.0) {
            Found::Same => {
                self.printer.tally.same += 1;
                self.printer.tally.uncompared += u64::from(!key.is_compared);
            }
            Found::Changed => self.printer.print(Change::Changed, key.db, key.name),
            Found::Missing => self.printer.print(Change::Added, key.db, key.name),
            Found::Twice => self.twice = Some(escaped(key.name)),
        }
    }
    fn function(&mut self, fingerprint: Fingerprint) {
        self.functions += fingerprint;
    }
}

/// Finds the names of the keys that B lacks.
struct Unseen<'c, 'o> {
    table: &'c Table,
    printer: &'c mut Printer<'o>,
}

impl Interrupts for Unseen<'_, '_> {
    fn interruption(&mut self) -> Option<Trouble> {
        self.printer.interruption()
    }
}

impl structure::Visitor for Unseen<'_, '_> {
    const WANTS_TEXTS: bool = false;

    fn key(&mut self, key: &Key<'_>) {
        if self.table.is_unseen(hash_of(key)) {
            self.printer.print(Change::Removed, key.db, key.name);
        }
    }
}

#[derive(Clone, Copy)]
enum Change {
    Added,
    Removed,
    Changed,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    added: u64,
    removed: u64,
    changed: u64,
    same: u64,
    /// Equal keys with module data that was not compared.
    uncompared: u64,
    /// Keys without elements in either source; servers drop them.
    empty: u64,
    functions_differ: bool,
}

impl Tally {
    fn exit(&self) -> ExitCode {
        let keys = self.added + self.removed + self.changed;
        if keys == 0 && !self.functions_differ {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_DIFFERENT)
        }
    }
}

/// Prints and counts differences.
struct Printer<'o> {
    output: BufWriter<io::StdoutLock<'o>>,
    json: bool,
    tally: Tally,
    failed: Option<io::Error>,
}

impl Printer<'_> {
    fn print(&mut self, change: Change, db: u64, name: &[u8]) {
        let (count, sign, word) = match change {
            Change::Added => (&mut self.tally.added, '+', "added"),
            Change::Removed => (&mut self.tally.removed, '-', "removed"),
            Change::Changed => (&mut self.tally.changed, '~', "changed"),
        };
        *count += 1;
        if self.failed.is_some() {
            return;
        }
        let name = escaped(name);
        let written = if self.json {
            writeln!(self.output, "{}", json!({"change": word, "db": db, "name": name}))
        } else {
            writeln!(self.output, "{sign} {db} {name}")
        };
        self.failed = written.err();
    }

    fn interruption(&mut self) -> Option<Trouble> {
        self.failed.take().map(Trouble::Output)
    }

    fn finish(&mut self) -> io::Result<()> {
        let Tally { added, removed, changed, same, uncompared, empty, functions_differ } =
            self.tally;
        if self.json {
            let summary = json!({
                "added": added,
                "removed": removed,
                "changed": changed,
                "same": same,
                "uncompared": uncompared,
                "empty": empty,
                "functions_differ": functions_differ,
            });
            return writeln!(self.output, "{}", json!({"summary": summary}));
        }
        let functions = if functions_differ { "; the functions differ" } else { "" };
        let modules = match uncompared {
            0 => String::new(),
            keys => format!("; module data of {keys} keys was not compared"),
        };
        let nothing = match empty {
            0 => String::new(),
            keys => format!("; {keys} keys without elements were ignored, as servers do"),
        };
        writeln!(
            self.output,
            "{added} added, {removed} removed, {changed} changed, {same} the same{functions}{modules}{nothing}"
        )
    }
}
