//! The power goes at every I/O step; what was acknowledged is there afterwards, and nothing else half.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Clock, Result, codes};
use dwk_bus::Pattern;
use dwk_meta::{Change, Meta};
use dwk_stream::{Published, Retention, Stream, StreamConfig, Streams};
use world::{TENANT, World, all, config, never, sequences, texts};

/// What was acknowledged of one stream.
#[derive(Clone, Debug, Default)]
struct Told {
    /// Text by number.
    there: BTreeMap<u64, String>,
    /// Texts that may be there as well.
    unsure: Vec<String>,
    /// Numbers before it may be gone.
    gone_before: u64,
    /// Texts that come later, and those of them that may have come.
    delayed: Vec<String>,
}

/// What was acknowledged.
#[derive(Clone, Debug, Default)]
struct Ledger(BTreeMap<&'static str, Told>);

impl Ledger {
    fn of(&mut self, name: &'static str) -> &mut Told {
        self.0.entry(name).or_default()
    }

    /// Publishes a text and notes what is told.
    fn publish(
        &mut self,
        world: &World,
        stream: &Stream,
        name: &'static str,
        n: usize,
    ) -> Result<()> {
        let text = text(n);
        let id = n.is_multiple_of(3).then(|| format!("id {n}"));
        let done = stream.publish(&world.message("a.b", text.as_bytes()), id.as_deref(), &never());
        match done {
            Ok(Published { sequence, .. }) => drop(self.of(name).there.insert(sequence, text)),
            Err(error) => {
                assert!(error.is(&codes::JOURNAL_MEMBERS), "{error}");
                self.of(name).unsure.push(text);
                return Err(error);
            }
        }
        Ok(())
    }
}

fn text(n: usize) -> String {
    format!("{n}:{}", "x".repeat(n * 37 % 600))
}

/// Less than the window of a stream.
const WINDOW_NS: u64 = 100_000_000_000;

/// The streams of the script, some with limits.
const NAMES: [&str; 3] = ["plain", "few", "work"];

fn configs() -> [StreamConfig; 3] {
    let few = StreamConfig { max_messages: Some(6), ..config() };
    let work = StreamConfig { retention: Retention::WorkQueue, ..config() };
    [config(), few, work]
}

type Script = fn(&World, &Arc<Meta>, &Streams, &mut Ledger) -> Result<()>;

fn get(streams: &Streams, name: &str) -> Stream {
    streams.get(TENANT, name).unwrap()
}

fn publishing(
    world: &World,
    meta: &Arc<Meta>,
    streams: &Streams,
    ledger: &mut Ledger,
) -> Result<()> {
    let plain = get(streams, "plain");
    for n in 100..112 {
        ledger.publish(world, &plain, "plain", n)?;
    }
    // Longer than a record: in stripes.
    let long = "y".repeat(30_000);
    let published = plain.publish(&world.message("a.b", long.as_bytes()), None, &never());
    match published {
        Ok(published) => drop(ledger.of("plain").there.insert(published.sequence, long)),
        Err(error) => {
            ledger.of("plain").unsure.push(long);
            return Err(error);
        }
    }
    ledger.publish(world, &plain, "plain", 113)?;
    meta.checkpoint()?;
    ledger.publish(world, &plain, "plain", 114)
}

fn merging(world: &World, meta: &Arc<Meta>, streams: &Streams, ledger: &mut Ledger) -> Result<()> {
    let plain = get(streams, "plain");
    for n in 200..206 {
        ledger.publish(world, &plain, "plain", n)?;
    }
    plain.compact_frames()?;
    ledger.publish(world, &plain, "plain", 206)?;
    meta.checkpoint()?;
    for n in 207..210 {
        ledger.publish(world, &plain, "plain", n)?;
    }
    plain.compact_frames()?;
    meta.collect()?;
    ledger.publish(world, &plain, "plain", 210)
}

fn retiring(world: &World, meta: &Arc<Meta>, streams: &Streams, ledger: &mut Ledger) -> Result<()> {
    let (few, work) = (get(streams, "few"), get(streams, "work"));
    for n in 300..312 {
        let first = ledger.of("few").there.keys().next_back().map_or(1, |last| last + 2);
        ledger.of("few").gone_before = first.saturating_sub(6);
        ledger.publish(world, &few, "few", n)?;
    }
    for n in 320..326 {
        ledger.publish(world, &work, "work", n)?;
    }
    streams.upkeep()?;
    let last = *ledger.of("work").there.keys().next_back().unwrap();
    ledger.of("work").gone_before = last - 1;
    work.release(last - 2)?;
    world.clock.advance(Duration::from_mins(3));
    streams.upkeep()?;
    ledger.of("work").gone_before = last + 1;
    work.purge(last, &never())?;
    ledger.of("work").there.clear();
    meta.checkpoint()?;
    ledger.publish(world, &work, "work", 330)
}

fn delaying(world: &World, _: &Arc<Meta>, streams: &Streams, ledger: &mut Ledger) -> Result<()> {
    let plain = get(streams, "plain");
    for n in 400..406 {
        let text = text(n);
        let message = world.message("a.b", text.as_bytes());
        if let Err(error) = plain.publish_after(&message, None, Duration::from_secs(1), &never()) {
            ledger.of("plain").unsure.push(text);
            return Err(error);
        }
        ledger.of("plain").delayed.push(text);
    }
    world.clock.advance(Duration::from_secs(2));
    streams.upkeep()?;
    ledger.publish(world, &plain, "plain", 410)
}

/// Messages for two streams and a row, together.
fn together(world: &World, meta: &Arc<Meta>, streams: &Streams, ledger: &mut Ledger) -> Result<()> {
    for n in 500..506 {
        let mut outbox = streams.outbox();
        for name in ["plain", "work"] {
            let message = world.message("a.b", format!("both {n}"));
            outbox.add(&get(streams, name), &message, None)?;
        }
        let row = Change::new().put(vec![2, n as u8], b"body".to_vec(), None);
        match outbox.commit(row, &never()) {
            Ok(routed) => {
                for (name, routed) in ["plain", "work"].into_iter().zip(routed) {
                    let text = format!("both {n}");
                    ledger.of(name).there.insert(routed.published.sequence, text);
                }
                assert!(meta.get(&[2, n as u8])?.is_some());
            }
            Err(error) => {
                ledger.of("plain").unsure.push(format!("both {n}"));
                ledger.of("work").unsure.push(format!("both {n}"));
                return Err(error);
            }
        }
    }
    Ok(())
}

fn deleting(world: &World, _: &Arc<Meta>, streams: &Streams, ledger: &mut Ledger) -> Result<()> {
    let work = get(streams, "work");
    ledger.publish(world, &work, "work", 600)?;
    let plain = get(streams, "plain");
    let before = ledger.of("plain").clone();
    ledger.of("plain").gone_before = u64::MAX;
    plain.purge_subjects(&Pattern::new("a.b").unwrap(), &never())?;
    ledger.of("plain").there.clear();
    assert!(!before.there.is_empty());
    ledger.of("work").gone_before = u64::MAX;
    streams.delete(TENANT, "work", &never())?;
    ledger.0.remove("work");
    ledger.publish(world, &plain, "plain", 601)
}

fn prepare(world: &World) -> Ledger {
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let mut ledger = Ledger::default();
    for (name, config) in NAMES.into_iter().zip(configs()) {
        streams.create(TENANT, name, config, &never()).unwrap();
        let stream = get(&streams, name);
        for n in 0..4 {
            ledger.publish(world, &stream, name, n).unwrap();
        }
    }
    streams.close();
    meta.close().unwrap();
    ledger
}

/// Everything that was acknowledged is there, in order, and nothing that was not.
fn check(world: &World, streams: &Streams, ledger: &Ledger, when: &str) {
    for stream in streams.list(TENANT) {
        let Some((_, told)) = ledger.0.iter().find(|(name, _)| **name == stream.name()) else {
            panic!("{when}: stream {} came back", stream.name());
        };
        let stored = all(&stream);
        let there: BTreeMap<u64, String> =
            sequences(&stored).into_iter().zip(texts(&stored)).collect();
        for (sequence, text) in &told.there {
            let is_gone = *sequence < told.gone_before && !there.contains_key(sequence);
            assert!(
                is_gone || there.get(sequence) == Some(text),
                "{when}: {} lost {sequence}",
                stream.name()
            );
        }
        let status = stream.status();
        assert_eq!(status.messages as usize, stored.len(), "{when}: {}", stream.name());
        let mut more: Vec<&String> = there
            .iter()
            .filter(|(n, _)| !told.there.contains_key(n))
            .map(|(_, text)| text)
            .collect();
        more.retain(|text| !told.unsure.contains(text));
        let moved = more.len();
        more.retain(|text| !told.delayed.contains(text));
        assert!(more.is_empty(), "{when}: {} has {} more", stream.name(), more.len());
        let waiting = status.delayed as usize;
        let of = told.delayed.len();
        let may_wait = usize::from(!told.unsure.is_empty());
        assert!(
            (of..=of + may_wait).contains(&(moved + waiting)),
            "{when}: {moved} + {waiting} of {of}"
        );
        if told.gone_before == 0 {
            let dense: Vec<u64> = (1..=stored.len() as u64).collect();
            assert_eq!(sequences(&stored), dense, "{when}");
        }
    }
    for name in
        ledger.0.iter().filter(|(_, told)| told.gone_before < u64::MAX).map(|(name, _)| name)
    {
        assert!(streams.get(TENANT, name).is_ok(), "{when}: {name} is gone");
    }
    let both = |name: &str| {
        let texts =
            streams.get(TENANT, name).map(|stream| texts(&all(&stream))).unwrap_or_default();
        texts.into_iter().filter(|text| text.starts_with("both")).collect::<Vec<_>>()
    };
    if ledger.0.contains_key("work") {
        assert_eq!(both("plain"), both("work"), "{when}");
    }
    let _ = world;
}

/// Cuts at one step of `script`; false if the script ended before.
fn cut_at(world: &mut World, step: u64, script: Script) -> bool {
    let mut ledger = prepare(world);
    world.power.cut_in(step);
    let done = world.open().and_then(|meta| {
        let streams = world.streams(&meta)?;
        let done = script(world, &meta, &streams, &mut ledger);
        streams.close();
        done.and_then(|()| meta.close())
    });
    let cut = world.power.is_cut();
    assert!(cut || done.is_ok(), "step {step}: {done:?}");
    world.restart();
    let when = format!("cut at step {step}");
    let meta = world.open().unwrap_or_else(|error| panic!("{when}: {error}"));
    let streams = world.streams(&meta).unwrap_or_else(|error| panic!("{when}: {error}"));
    check(world, &streams, &ledger, &when);
    // It goes on.
    world.clock.advance(Duration::from_secs(10));
    streams.upkeep().unwrap_or_else(|error| panic!("{when}: {error}"));
    for stream in streams.list(TENANT) {
        stream.compact_frames().unwrap_or_else(|error| panic!("{when}: {error}"));
    }
    check(world, &streams, &ledger, &when);
    let in_window = world.clock.unix_ns() < Duration::from_hours(24).as_nanos() as u64 + WINDOW_NS;
    for stream in streams.list(TENANT) {
        let last = stream.status().last_sequence;
        let published = stream.publish(&world.message("a.b", "after"), None, &never()).unwrap();
        assert_eq!(published.sequence, last + 1, "{when}");
        // What is in the window is known again.
        if let Some((sequence, _)) = ledger.0.get(stream.name()).and_then(|told| {
            told.there
                .iter()
                .find(|(_, text)| text.starts_with("3:"))
                .filter(|_| in_window && told.gone_before == 0)
        }) {
            let again = stream.publish(&world.message("a.b", "again"), Some("id 3"), &never());
            assert_eq!(
                again.unwrap(),
                Published { sequence: *sequence, duplicate: true },
                "{when}"
            );
        }
    }
    cut
}

fn cut_everywhere(seed: u64, script: Script) {
    // How much of what was not synced survives is drawn anew for each seed.
    let seeds = if std::env::var_os("DWK_LONG").is_some() { 20 } else { 1 };
    for seed in (0..seeds).map(|more| seed + 100 * more) {
        for step in 1.. {
            if !cut_at(&mut World::new(seed * 1000 + step), step, script) {
                assert!(step > 40, "the script made only {step} steps");
                break;
            }
        }
    }
}

#[test]
fn power_cut_at_every_step_of_publishing() {
    cut_everywhere(1, publishing);
}

#[test]
fn power_cut_at_every_step_of_merging() {
    cut_everywhere(2, merging);
}

#[test]
fn power_cut_at_every_step_of_retiring() {
    cut_everywhere(3, retiring);
}

#[test]
fn power_cut_at_every_step_of_moving_what_is_due() {
    cut_everywhere(4, delaying);
}

#[test]
fn power_cut_at_every_step_of_messages_for_several_streams() {
    cut_everywhere(5, together);
}

#[test]
fn power_cut_at_every_step_of_purging_and_deleting() {
    cut_everywhere(6, deleting);
}

/// The checks would see it.
#[test]
fn a_batch_that_is_not_synced_is_missed() {
    let missed = (1..2_000).any(|step| {
        let mut world = World::new(7000 + step);
        world.drives.iter().for_each(|drive| drive.omit("journal.batch"));
        let run = AssertUnwindSafe(|| cut_at(&mut world, step, publishing));
        let outcome = catch_unwind(run);
        assert!(!matches!(outcome, Ok(false)), "nobody missed it");
        outcome.is_err()
    });
    assert!(missed);
}
