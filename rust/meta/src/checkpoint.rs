//! The checkpoint: what the journal adds up to, as sorted runs in the pool.
//!
//! A checkpoint writes the rows that changed since the last one as a new run and names all runs in one
//! record, the root. Runs of similar size are merged, so that each row is rewritten a logarithmic
//! number of times and opening reads few runs. Until the root is durable the old one counts.

use std::collections::{BTreeMap, BTreeSet};

use dwk_base::{Deadline, Error, Result, StripeId, codes};
use dwk_pool::{Pool, Space, Stripe};

use crate::meta::Meta;
use crate::record::{Operation, RecordWriter, Root, visit};
use crate::row::{Content, Place, Row};
use crate::run::{Entries, Entry, Meaning, RunRef, merge};
use crate::state::{Key, State};
use crate::upload::Upload;

/// A run is merged with the one before it unless that one is this many times as long.
const GROWTH: u64 = 4;
/// Encoded entries are handed to the upload in pieces of about this size.
const WRITE_BYTES: usize = 1 << 20;

/// The map as checkpoint and journal say it; looked for `until` between steps.
pub(crate) fn load(pool: &Pool, until: &Deadline) -> Result<State> {
    let mut state = State::default();
    let journal = pool.journal();
    let first = journal.first_sequence();
    let (root, moved) = last_root(pool, until)?;
    match root {
        Some(root) => load_runs(pool, &mut state, (&root, &moved), until)?,
        None if first > 1 => {
            let text =
                format!("the log begins at record {first} and no checkpoint covers the rest");
            return Err(Error::new(&codes::JOURNAL_DAMAGED, text));
        }
        None => {}
    }
    if first > state.applied() + 1 {
        let text = format!("records {} to {} are gone", state.applied() + 1, first - 1);
        return Err(Error::new(&codes::JOURNAL_DAMAGED, text));
    }
    let from = state.applied() + 1;
    journal.replay_until(from, &mut |position, record| state.apply(position, record), until)?;
    Ok(state)
}

/// The last root in the log, and where stripes went after it was written. What lies before it is not read.
fn last_root(pool: &Pool, until: &Deadline) -> Result<(Option<Root>, BTreeMap<StripeId, Stripe>)> {
    let (mut root, mut moved) = (None, BTreeMap::new());
    pool.journal().replay_back(&mut |position, record| {
        until.check()?;
        visit(record, |operation, _| {
            match operation {
                Operation::Root(found) if found.folded >= position.sequence => {
                    let text = format!(
                        "a checkpoint is damaged: record {} says that it holds record {}",
                        position.sequence, found.folded
                    );
                    return Err(Error::new(&codes::FORMAT_DAMAGED, text));
                }
                Operation::Root(found) => root = Some(found),
                // From the end on: the first one found is the last one that was made.
                Operation::MoveStripe(stripe) => drop(moved.entry(stripe.id).or_insert(stripe)),
                _ => {}
            }
            Ok(())
        })?;
        Ok(root.is_none())
    })?;
    Ok((root, moved))
}

fn load_runs(
    pool: &Pool,
    state: &mut State,
    (root, moved): (&Root, &BTreeMap<StripeId, Stripe>),
    until: &Deadline,
) -> Result<()> {
    for run in &root.runs {
        let places = run.stripes.iter().map(|stripe| moved.get(&stripe.id).unwrap_or(stripe));
        let places: Vec<Stripe> = places.cloned().collect();
        let mut entries = open_run(pool.space(), run, places, until);
        while let Some(entry) = entries.next()? {
            match entry.meaning()? {
                Meaning::Row(key, row) => state.load_row(key, row),
                Meaning::Stripe(id, stripe) => state.load_stripe(id, stripe),
            }
        }
    }
    // A run's own stripes are in the root and, later than that, where the log says they went.
    for stripe in root.runs.iter().flat_map(|run| &run.stripes) {
        state.load_stripe(stripe.id, Some(moved.get(&stripe.id).unwrap_or(stripe).clone()));
    }
    state.loaded(root);
    Ok(())
}

/// Reads a run whose stripes lie at `places`.
fn open_run<'a>(
    space: &'a Space,
    run: &'a RunRef,
    places: Vec<Stripe>,
    until: &'a Deadline,
) -> Entries<'a> {
    let (mut piece, mut offset) = (0, 0u32);
    Entries::new(run.entries, move |into| {
        let Some(at) = run.content.pieces.get(piece) else { return Ok(0) };
        let Place::Stripe { id, offset: start } = at.place else { return Ok(0) };
        let Some(stripe) = places.iter().find(|stripe| stripe.id == id) else {
            let text = format!("a checkpoint names stripe {id}, which it does not list");
            return Err(Error::new(&codes::FORMAT_DAMAGED, text));
        };
        let bytes = into.len().min((at.bytes - offset) as usize);
        until.check()?;
        space.read(stripe, start + offset, &mut into[..bytes])?;
        until.tell(bytes as u64);
        offset += bytes as u32;
        if offset == at.bytes {
            (piece, offset) = (piece + 1, 0);
        }
        Ok(bytes)
    })
}

/// What changed, as it was at one moment.
struct Snapshot {
    folded: u64,
    root: Root,
    rows: Vec<(Key, Option<Row>)>,
    stripes: Vec<(StripeId, Option<Stripe>)>,
}

impl Snapshot {
    /// What changed; `None` if nothing did.
    fn take(meta: &Meta) -> Option<Self> {
        let changed = meta.state().dirty_count() > 0;
        changed.then(|| Self::take_all(meta))
    }

    /// What changed, nothing perhaps.
    fn take_all(meta: &Meta) -> Self {
        let mut state = meta.state_mut();
        let (rows, stripes) = state.take_dirty();
        let row = |key: Key| (state.row(&key).cloned(), key);
        let rows = rows.into_iter().map(row).map(|(row, key)| (key, row)).collect();
        let stripe = |id| (id, state.stripe(id).map(|kept| kept.stripe.clone()));
        let stripes = stripes.into_iter().map(stripe).collect();
        Self { folded: state.applied(), root: state.root().clone(), rows, stripes }
    }

    fn give_back(self, meta: &Meta) {
        let rows: BTreeSet<Key> = self.rows.into_iter().map(|(key, _)| key).collect();
        let stripes = self.stripes.into_iter().map(|(id, _)| id).collect();
        meta.state_mut().give_back_dirty(rows, stripes);
    }

    fn len(&self) -> u64 {
        (self.rows.len() + self.stripes.len()) as u64
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        let stripes = self.stripes.iter().map(|(id, stripe)| Entry::stripe(*id, stripe.as_ref()));
        stripes.chain(self.rows.iter().map(|(key, row)| Entry::row(key, row.as_ref())))
    }
}

/// Writes what changed as a run, merges runs, and commits the root. False: nothing had changed.
///
/// The caller holds the keeper's lock.
pub(crate) fn write(meta: &Meta) -> Result<bool> {
    let Some(snapshot) = Snapshot::take(meta) else { return Ok(false) };
    write_or_give_back(meta, snapshot, &BTreeSet::new()).map(|()| true)
}

/// As [`write`], if a run lies in `stripes`: no run does so any more then.
pub(crate) fn leave(meta: &Meta, stripes: &BTreeSet<StripeId>) -> Result<()> {
    if meta.state().root().runs.iter().any(|run| run.lies_in(stripes)) {
        write_or_give_back(meta, Snapshot::take_all(meta), stripes)?;
    }
    Ok(())
}

fn write_or_give_back(meta: &Meta, snapshot: Snapshot, leaving: &BTreeSet<StripeId>) -> Result<()> {
    let done = write_snapshot(meta, &snapshot, leaving);
    if done.is_err() {
        snapshot.give_back(meta);
    }
    done
}

fn write_snapshot(meta: &Meta, snapshot: &Snapshot, leaving: &BTreeSet<StripeId>) -> Result<()> {
    let mut keep = snapshot.root.runs.clone();
    // Runs are merged in their order: with one that leaves its stripes go all later ones.
    let first = keep.iter().position(|run| run.lies_in(leaving)).unwrap_or(keep.len());
    let mut merging = keep.split_off(first);
    let mut length = snapshot.len() + merging.iter().map(|run| run.entries).sum::<u64>();
    while let Some(last) = keep.pop_if(|last| last.entries < GROWTH * length) {
        length += last.entries;
        merging.insert(0, last);
    }
    let bottom = keep.is_empty();
    let mut out = RunWriter::new(meta);
    let mut fresh = EncodedEntries::new(snapshot.entries());
    let (until, mut runs) = (Deadline::never(), Vec::new());
    for run in &merging {
        let places = run.stripes.iter().map(|stripe| meta.placed(stripe.id));
        let places = places.collect::<Result<Vec<_>>>()?;
        runs.push(open_run(meta.pool().space(), run, places, &until));
    }
    runs.push(Entries::new(snapshot.len(), move |into: &mut [u8]| Ok(fresh.fill(into))));
    merge(runs, bottom, |entry| out.push(&entry))?;
    let (staged, run) = out.finish()?;
    let mut record = RecordWriter::new();
    run.stripes.iter().for_each(|stripe| record.push(&Operation::AddStripe(stripe.clone())));
    keep.push(run);
    // Runs that stay may have moved since the last root was written.
    for stripe in keep.iter_mut().flat_map(|run| &mut run.stripes) {
        if let Ok(now) = meta.placed(stripe.id) {
            *stripe = now;
        }
    }
    record.push(&Operation::Root(Root { folded: snapshot.folded, runs: keep }));
    meta.note_damage_again()?;
    let done = meta.commit_record(record);
    staged.keep();
    done.map(|_| ())
}

/// Gathers entries into an upload.
struct RunWriter {
    upload: Upload,
    writer: dwk_base::codec::Writer,
    entries: u64,
}

impl RunWriter {
    fn new(meta: &Meta) -> Self {
        Self {
            upload: meta.upload().with_reserve(),
            writer: dwk_base::codec::Writer::new(),
            entries: 0,
        }
    }

    fn push(&mut self, entry: &Entry) -> Result<()> {
        entry.encode(&mut self.writer);
        self.entries += 1;
        if self.writer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let bytes = std::mem::take(&mut self.writer).finish();
        self.upload.append(&bytes)
    }

    fn finish(mut self) -> Result<(crate::upload::Staged, RunRef)> {
        self.flush()?;
        let staged = self.upload.finish()?;
        let content: Content = staged.content();
        let stripes = staged.stripes().cloned().collect();
        Ok((staged, RunRef { content, stripes, entries: self.entries }))
    }
}

/// Entries as the bytes that a merge reads.
struct EncodedEntries<I> {
    entries: I,
    rest: Vec<u8>,
}

impl<I: Iterator<Item = Entry>> EncodedEntries<I> {
    const fn new(entries: I) -> Self {
        Self { entries, rest: Vec::new() }
    }

    fn fill(&mut self, into: &mut [u8]) -> usize {
        while self.rest.len() < into.len() {
            let Some(entry) = self.entries.next() else { break };
            let mut writer = dwk_base::codec::Writer::new();
            entry.encode(&mut writer);
            self.rest.extend_from_slice(writer.as_slice());
        }
        let taken = self.rest.len().min(into.len());
        into[..taken].copy_from_slice(&self.rest[..taken]);
        self.rest.drain(..taken);
        taken
    }
}
