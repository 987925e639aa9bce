//! The power goes at every I/O step; what was acknowledged is there afterwards, and nothing else half.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use dwk_base::Result;
use dwk_erasure::Geometry;
use dwk_meta::Meta;
use dwk_pool::Control;
use world::{Ledger, World, bytes, holder, open_on, options};

/// A bit of everything. Stops at the first error, which is the cut.
fn script(_: &World, meta: &Arc<Meta>, ledger: &mut Ledger) -> Result<()> {
    ledger.put(meta, "small", bytes(1, 500))?;
    ledger.put(meta, "large", bytes(2, 50_000))?;
    ledger.delete(meta, "old")?;
    ledger.put(meta, "small", bytes(3, 700))?;
    meta.checkpoint()?;
    ledger.put(meta, "late", bytes(4, 900))?;
    ledger.delete(meta, "large")?;
    meta.collect()?;
    meta.checkpoint()?;
    ledger.put(meta, "last", bytes(5, 20_000))?;
    meta.close()
}

/// Half-empty stripes are packed while a reader holds what one of them held.
fn pack(world: &World, meta: &Arc<Meta>, ledger: &mut Ledger) -> Result<()> {
    for n in 0..16u64 {
        ledger.put(meta, &format!("s{n:02}"), bytes(n + 20, 1500))?;
    }
    meta.checkpoint()?;
    let reader = meta.read(b"s08")?;
    for n in (0..16u64).filter(|n| n % 4 != 3) {
        ledger.delete(meta, &format!("s{n:02}"))?;
    }
    let report = meta.collect()?;
    // Without power nothing can be read.
    assert!(report.packed_bytes > 0 || world.power.is_cut(), "{report:?}");
    drop(reader);
    ledger.put(meta, "s03", bytes(50, 600))?;
    meta.collect()?;
    meta.checkpoint()?;
    meta.close()
}

fn prepare(world: &World) -> Result<Ledger> {
    let meta = world.create()?;
    let mut ledger = Ledger::default();
    ledger.put(&meta, "old", bytes(9, 3000))?;
    ledger.put(&meta, "kept", bytes(8, 1000))?;
    meta.close()?;
    Ok(ledger)
}

#[derive(Clone, Copy)]
struct Script {
    run: fn(&World, &Arc<Meta>, &mut Ledger) -> Result<()>,
    /// What must hold after the cut besides what is acknowledged.
    after: fn(&World, &Ledger, &str),
}

const EVERYTHING: Script = Script { run: script, after: without_each };
const PACKING: Script = Script { run: pack, after: without_each };
const REPLACING: Script = Script { run: replace, after: without_each };

/// Cuts at each step of `script` in turn, for several ways in which the unsynced part survives.
fn cut_everywhere(drives: usize, geometry: &'static str, seeds: Range<u64>, script: Script) {
    for seed in seeds {
        for step in 1.. {
            if !cut_at(&mut World::new(drives, geometry, seed * 1000 + step), step, script) {
                assert!(step > 50, "the script made only {step} steps");
                break;
            }
        }
    }
}

/// Cuts at one step of `script`; false if the script ended before.
fn cut_at(world: &mut World, step: u64, script: Script) -> bool {
    let mut ledger = prepare(world).expect("nothing is cut yet");
    world.power.cut_in(step);
    let done = world.open().and_then(|meta| (script.run)(world, &meta, &mut ledger));
    let cut = world.power.is_cut();
    assert!(cut || done.is_ok(), "step {step}: {done:?}");
    world.restart();
    let when = format!("{}, seed {}, cut at step {step}", world.geometry, world.seed);
    (script.after)(world, &ledger, &when);
    let meta = world.open().unwrap_or_else(|error| panic!("{when}: {error}"));
    ledger.check(&meta, &when);
    // It goes on.
    ledger.put(&meta, "after", bytes(6, 5000)).unwrap_or_else(|e| panic!("{when}: {e}"));
    meta.checkpoint().unwrap_or_else(|error| panic!("{when}: {error}"));
    ledger.check(&meta, &when);
    cut
}

/// Whatever the cut left: any one drive may be gone as well.
fn without_each(world: &World, ledger: &Ledger, when: &str) {
    for gone in 0..world.copies().len() {
        let mut drives = world.copies();
        let when = format!("{when}, without {:?}", drives.remove(gone));
        let meta = open_on(&drives, options()).unwrap_or_else(|error| panic!("{when}: {error}"));
        ledger.clone().check(&meta, &when);
    }
}

/// Whatever the cut left: what is seen when some drives are away is what is seen when they have come back. A
/// lone half of a mirror decides nothing: it can only be read.
fn then_without_some(world: &World, ledger: &Ledger, when: &str) {
    let tolerance = world.geometry.parse::<Geometry>().unwrap().tolerance();
    for gone in 1..1usize << world.copies().len() {
        if gone.count_ones() as usize > tolerance {
            continue;
        }
        let (mut ledger, all) = (ledger.clone(), world.copies());
        let here = all.iter().enumerate().filter(|(index, _)| gone >> index & 1 == 0);
        let here: Vec<_> = here.map(|(_, drive)| drive.clone()).collect();
        for (drives, part) in [(&here, "at first"), (&all, "and back")] {
            let when = format!("{when}, without {gone:b} {part}");
            let meta = open_on(drives, options()).unwrap_or_else(|error| panic!("{when}: {error}"));
            if meta.pool().check_writable().is_ok() {
                ledger.check(&meta, &when);
            } else {
                ledger.clone().check(&meta, &when);
            }
            meta.close().unwrap_or_else(|error| panic!("{when}: {error}"));
        }
    }
}

/// True if some cut loses something when the sync `tag` is left out everywhere.
fn is_missed(tag: &'static str, script: Script) -> bool {
    (1..10_000).any(|step| {
        let mut world = World::new(3, "2+1", 5000 + step);
        world.drives.iter().for_each(|drive| drive.omit(tag));
        let run = AssertUnwindSafe(|| cut_at(&mut world, step, script));
        let outcome = catch_unwind(run);
        assert!(!matches!(outcome, Ok(false)), "nobody missed {tag}");
        outcome.is_err()
    })
}

/// The tags that only a power cut below this floor misses have tests there: the journal's own, the pool's own.
#[test]
fn a_batch_or_a_shard_that_is_not_synced_is_missed() {
    for tag in ["journal.batch", "stripe.write"] {
        assert!(is_missed(tag, EVERYTHING), "{tag}");
    }
}

#[test]
fn power_cut_at_every_step_of_put_delete_checkpoint_and_recycle() {
    cut_everywhere(3, "2+1", 0..seeds(2), EVERYTHING);
}

#[test]
fn what_is_seen_without_some_drives_is_what_is_seen_when_they_are_back() {
    let script = Script { run: script, after: then_without_some };
    let all = [(4, "2+2"), (3, "2+1"), (3, "mirror:3")];
    for (drives, geometry) in all.into_iter().take(if is_long() { 3 } else { 1 }) {
        cut_everywhere(drives, geometry, 0..seeds(1), script);
    }
}

#[test]
fn power_cut_at_every_step_of_packing() {
    cut_everywhere(3, "2+1", 0..seeds(1), PACKING);
}

#[test]
fn power_cut_at_every_step_on_a_mirror() {
    cut_everywhere(2, "mirror:2", 0..seeds(1), EVERYTHING);
}

/// A drive is lost, another takes its place.
fn replace(world: &World, meta: &Arc<Meta>, ledger: &mut Ledger) -> Result<()> {
    let fresh = Arc::new(world.spare.clone());
    let fresh = dwk_drive::FaultyDrive::new(fresh, &world.power, 99);
    let fresh: Arc<dyn dwk_drive::Drive> = Arc::new(fresh);
    ledger.put(meta, "before", bytes(7, 30_000))?;
    meta.pool().replace(&**meta, "d2", &fresh, &holder(), &Control::default())?;
    ledger.put(meta, "behind", bytes(8, 30_000))?;
    meta.pool().rebuild(&**meta, None, &Control::default())?;
    meta.close()
}

#[test]
fn power_cut_at_every_step_of_replace_and_rebuild() {
    cut_everywhere(3, "2+1", 0..seeds(1), REPLACING);
}

/// More ways in a long run.
fn seeds(few: u64) -> u64 {
    if is_long() { few * 20 } else { few }
}

fn is_long() -> bool {
    std::env::var_os("DWK_LONG").is_some()
}
