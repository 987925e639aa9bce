//! The power is cut at every step of a drive's life, and each sync is left out once to see it missed.

use std::collections::BTreeMap;

use dwk_base::{Random, SeededRandom};

use super::tests::{bytes, me, name};
use super::volatile::Machine;
use super::*;
use crate::SUPERBLOCK_BYTES_MAX;

const OPTIONS: LocalOptions = LocalOptions { direct_bytes_min: 8192, open_files_max: 4 };
const LOG_BYTES: usize = 8192;
const SECTOR_BYTES: usize = 512;

pub(super) fn start(machine: &Machine) -> LocalDrive {
    let clock = Arc::new(dwk_base::ManualClock::default());
    LocalDrive::assemble(machine.files(), simulated(), OPTIONS, clock)
}

/// What may be found after a cut. What is acknowledged leaves one possibility.
#[derive(Default)]
pub(super) struct Promises {
    is_made: bool,
    /// By blob, the contents that it may have; the last is the present one.
    blobs: BTreeMap<&'static str, Vec<Option<Bytes>>>,
    logs: BTreeMap<&'static str, LogPromise>,
    slots: [SlotPromise; 2],
}

#[derive(Clone, Copy, PartialEq)]
enum Presence {
    No,
    Perhaps,
    Yes,
}

struct LogPromise {
    presence: Presence,
    durable: Vec<u8>,
    pending: Vec<(usize, Bytes)>,
}

#[derive(Default, PartialEq)]
enum SlotPromise {
    #[default]
    Anything,
    Holds(u8),
}

/// A drive whose every call is noted in the promises.
struct Noted<'a> {
    drive: LocalDrive,
    promises: &'a mut Promises,
}

impl Noted<'_> {
    fn make(&mut self) -> Result<()> {
        self.drive.make_skeleton()?;
        self.promises.is_made = true;
        Ok(())
    }

    fn put(&mut self, blob: &'static str, content: Bytes) -> Result<()> {
        let states = self.promises.blobs.entry(blob).or_insert_with(|| vec![None]);
        states.push(Some(content.clone()));
        self.drive.put(&name(blob), &[content])
    }

    fn delete(&mut self, blob: &'static str) -> Result<()> {
        self.promises.blobs.entry(blob).or_default().push(None);
        self.drive.delete(&name(blob))
    }

    fn sync(&mut self) -> Result<()> {
        self.drive.sync("test")?;
        for states in self.promises.blobs.values_mut() {
            states.drain(..states.len() - 1);
        }
        Ok(())
    }

    fn superblock(&mut self, slot: Slot, fill: u8) -> Result<()> {
        self.promises.slots[slot as usize] = SlotPromise::Anything;
        self.drive.write_superblock(slot, &[fill; 5000])?;
        self.promises.slots[slot as usize] = SlotPromise::Holds(fill);
        Ok(())
    }

    fn create_log(&mut self, log: &'static str) -> Result<()> {
        let (presence, durable) = (Presence::Perhaps, vec![0; LOG_BYTES]);
        self.promises.logs.insert(log, LogPromise { presence, durable, pending: Vec::new() });
        self.drive.create_log(&name(log), LOG_BYTES as u64)?;
        self.log(log).presence = Presence::Yes;
        Ok(())
    }

    fn log(&mut self, log: &'static str) -> &mut LogPromise {
        self.promises.logs.get_mut(log).unwrap()
    }

    fn write_log(&mut self, log: &'static str, offset: usize, fill: u8) -> Result<()> {
        self.log(log).pending.push((offset, bytes(4096, fill)));
        self.drive.write_log(&name(log), offset as u64, &[bytes(4096, fill)])
    }

    fn sync_log(&mut self, log: &'static str) -> Result<()> {
        self.drive.sync_log(&name(log), "test")?;
        let promise = self.log(log);
        for (offset, content) in promise.pending.drain(..) {
            promise.durable[offset..offset + content.len()].copy_from_slice(&content);
        }
        Ok(())
    }

    fn delete_log(&mut self, log: &'static str) -> Result<()> {
        self.log(log).presence = Presence::Perhaps;
        self.drive.delete_log(&name(log))?;
        self.log(log).presence = Presence::No;
        Ok(())
    }
}

/// A drive's life, with a process that is killed in the middle.
pub(super) fn live(machine: &Machine, promises: &mut Promises) -> Result<()> {
    let mut noted = Noted { drive: start(machine), promises };
    noted.make()?;
    let lock = noted.drive.lock(&me(), LockMode::Exclusive)?;
    noted.superblock(Slot::A, 1)?;
    noted.superblock(Slot::B, 2)?;
    noted.put("s/0001", bytes(700, 1))?;
    noted.put("s/0002.large", bytes(9000, 2))?;
    noted.sync()?;
    noted.create_log("journal.0")?;
    noted.write_log("journal.0", 0, 3)?;
    noted.sync_log("journal.0")?;
    noted.write_log("journal.0", 0, 4)?;
    noted.delete("s/0001")?;
    noted.put("plain", bytes(10, 5))?;
    noted.sync()?;
    noted.superblock(Slot::A, 3)?;
    noted.put("s/0001", bytes(5, 6))?;
    noted.put("s/abcd.0", bytes(100, 7))?;

    machine.kill();
    drop(lock);
    noted.drive = start(machine);
    let lock = noted.drive.lock(&me(), LockMode::Exclusive)?;
    noted.put("s/abcd.1", bytes(100, 8))?;
    noted.sync()?;
    noted.create_log("journal.1")?;
    noted.delete_log("journal.0")?;
    noted.put("s/ffff", bytes(100, 9))?;
    drop(lock);
    let _lock = noted.drive.lock(&me(), LockMode::Exclusive)?;
    noted.delete("s/abcd.1")?;
    noted.sync()
}

/// A life by chance: calls in any order, processes that are killed.
fn live_by_chance(machine: &Machine, promises: &mut Promises, seed: u64) -> Result<()> {
    const BLOBS: [&str; 6] = ["s/0001", "s/0002", "s/00ff", "s/ab00", "x", "t/0001"];
    const LOGS: [&str; 2] = ["journal.0", "journal.1"];
    let random = SeededRandom::new(seed);
    let mut noted = Noted { drive: start(machine), promises };
    noted.make()?;
    let mut lock = noted.drive.lock(&me(), LockMode::Exclusive)?;
    for number in 1..60 {
        let (blob, log) = (BLOBS[random.below(6) as usize], LOGS[random.below(2) as usize]);
        let is_log = noted.promises.logs.get(log).is_some_and(|log| log.presence == Presence::Yes);
        let has_blob = noted.promises.blobs.get(blob).is_some_and(|states| is_some_last(states));
        match random.below(12) {
            0..5 if has_blob => noted.delete(blob)?,
            0..5 => noted.put(blob, bytes(random.below(12_000) as usize, number))?,
            5 => noted.sync()?,
            6 | 7 if is_log => noted.write_log(log, random.below(2) as usize * 4096, number)?,
            8 if is_log => noted.sync_log(log)?,
            9 if is_log => noted.delete_log(log)?,
            6..10 => noted.create_log(log)?,
            10 => noted.superblock(if number % 2 == 0 { Slot::A } else { Slot::B }, number)?,
            _ => {
                if random.below(2) == 0 {
                    machine.kill();
                }
                drop(lock);
                noted.drive = start(machine);
                lock = noted.drive.lock(&me(), LockMode::Exclusive)?;
            }
        }
    }
    Ok(())
}

fn is_some_last(states: &[Option<Bytes>]) -> bool {
    states.last().is_some_and(Option::is_some)
}

/// Compares what is found after the cut with what was promised.
pub(super) fn check(machine: &Machine, is_there: bool, promises: &Promises) -> Result<(), String> {
    if !is_there {
        return if promises.is_made { Err("the drive is lost".to_owned()) } else { Ok(()) };
    }
    let drive = start(machine);
    let lock = match drive.lock(&me(), LockMode::Exclusive) {
        // The cut came before it was one.
        Err(error) if !promises.is_made && error.is(&codes::DRIVE_MISSING) => return Ok(()),
        lock => lock.map_err(|error| error.to_string())?,
    };
    for (blob, states) in &promises.blobs {
        let found = drive.stat(&name(blob)).ok().map(|info| {
            let mut content = vec![0; info.bytes as usize];
            drive.read(&name(blob), 0, &mut content).map(|_| Bytes::from(content))
        });
        let found = found.transpose().map_err(|error| error.to_string())?;
        if !states.contains(&found) {
            return Err(format!("{blob} is wrong ({:?} bytes)", found.map(|bytes| bytes.len())));
        }
    }
    for (log, promise) in &promises.logs {
        check_log(&drive, log, promise)?;
    }
    for (slot, promise) in Slot::BOTH.into_iter().zip(&promises.slots) {
        let found = drive.read_superblock(slot).map_err(|error| error.to_string())?;
        let found = found.unwrap_or_default();
        match promise {
            SlotPromise::Holds(fill) if !found.starts_with(&[*fill; 5000]) => {
                return Err(format!("slot {slot:?} is wrong"));
            }
            _ => {}
        }
    }
    drop(lock);
    let probe = drive.put(&name("probe"), &[bytes(1, 1)]);
    probe.or_else(|error| if promises.is_made { Err(error.to_string()) } else { Ok(()) })
}

fn check_log(drive: &LocalDrive, log: &str, promise: &LogPromise) -> Result<(), String> {
    let mut found = vec![0; LOG_BYTES];
    let is_whole = match drive.read_log(&name(log), 0, &mut found) {
        Ok(()) => true,
        Err(error) if error.is(&codes::BLOB_NOT_FOUND) => false,
        Err(error) => return Err(format!("{log}: {error}")),
    };
    match (promise.presence, is_whole) {
        (Presence::Yes, false) => return Err(format!("{log} is lost")),
        (Presence::No, true) => return Err(format!("{log} came back")),
        (_, false) => return Ok(()),
        _ => {}
    }
    for start in (0..LOG_BYTES).step_by(SECTOR_BYTES) {
        let sector = start..start + SECTOR_BYTES;
        let pending = promise.pending.iter().any(|(offset, content)| {
            start >= *offset
                && start < offset + content.len()
                && content[start - offset..start - offset + SECTOR_BYTES] == found[sector.clone()]
        });
        if found[sector.clone()] != promise.durable[sector.clone()] && !pending {
            return Err(format!("{log} is wrong at {start}"));
        }
    }
    Ok(())
}

/// Cuts at every step with some seeds, until a promise is broken.
fn cut_everywhere(omitted: Option<&'static str>, seeds: u64) -> Result<u64, String> {
    let uncut = Machine::new(0);
    live(&uncut, &mut Promises::default()).map_err(|error| error.to_string())?;
    // Short writes make some histories longer than this one.
    let steps = uncut.steps() + 20;
    for step in 1..=steps {
        for seed in 0..seeds {
            let machine = Machine::new(seed * 1000 + step);
            if let Some(tag) = omitted {
                machine.omit(tag);
            }
            machine.cut_at(step);
            let mut promises = Promises::default();
            let lived = live(&machine, &mut promises);
            assert!(lived.is_ok() || machine.steps() >= step, "{:?}", lived.unwrap_err());
            let is_there = machine.restart();
            check(&machine, is_there, &promises)
                .map_err(|broken| format!("cut at step {step}, seed {seed}: {broken}"))?;
        }
    }
    Ok(steps)
}

pub(super) fn long() -> bool {
    std::env::var_os("DWK_LONG").is_some()
}

#[test]
fn what_was_acknowledged_survives_a_cut_at_every_step() {
    let steps = cut_everywhere(None, if long() { 200 } else { 8 });
    assert!(steps.unwrap_or_else(|broken| panic!("{broken}")) > 60);
}

#[test]
fn what_was_acknowledged_survives_a_cut_in_any_life() {
    for seed in 0..if long() { 50_000 } else { 400 } {
        let machine = Machine::new(seed);
        machine.cut_at(SeededRandom::new(seed).below(300));
        let mut promises = Promises::default();
        let lived = live_by_chance(&machine, &mut promises, seed);
        let is_cut = lived.as_ref().is_err_and(|error| error.is(&codes::DRIVE_IO));
        assert!(lived.is_ok() || is_cut, "seed {seed}: {}", lived.unwrap_err());
        let is_there = machine.restart();
        if let Err(broken) = check(&machine, is_there, &promises) {
            panic!("seed {seed}: {broken}");
        }
    }
}

#[test]
fn leaving_out_any_one_sync_is_noticed() {
    for (tag, purpose) in SYNCS {
        let outcome = cut_everywhere(Some(tag), 8);
        assert!(outcome.is_err(), "nobody misses the sync {tag}, which is for {purpose}");
        println!("{tag}: {}", outcome.unwrap_err());
    }
}

#[test]
fn after_a_failed_sync_every_change_is_refused_and_reads_go_on() {
    for (tag, _) in SYNCS.into_iter().filter(|(tag, _)| !tag.starts_with("create")) {
        let machine = Machine::new(1);
        let drive = start(&machine);
        drive.make_skeleton().unwrap();
        drive.put(&name("s/0001"), &[bytes(10, 1)]).unwrap();
        drive.create_log(&name("journal.0"), 4096).unwrap();
        drop(drive.lock(&me(), LockMode::Exclusive).unwrap());
        machine.fail(Some(tag));
        let results = [
            drive.lock(&me(), LockMode::Exclusive).map(drop),
            drive.put(&name("s/0002"), &[]),
            drive.sync("test"),
            drive.write_superblock(Slot::A, &[1]),
            drive.sync_log(&name("journal.0"), "test"),
            drive.create_log(&name("journal.1"), 4096),
            drive.delete_log(&name("journal.0")),
        ];
        machine.fail(None);
        let mut errors = results.into_iter().filter_map(Result::err);
        let first = errors.next().unwrap_or_else(|| panic!("{tag} did not fail"));
        assert!(first.is(&codes::DRIVE_IO), "{tag}: {first}");
        assert_eq!(first.detail("errno"), Some("5"));
        assert!(errors.all(|error| error.is(&codes::DRIVE_FAILED)), "{tag}");
        assert!(drive.sync("test").unwrap_err().is(&codes::DRIVE_FAILED), "{tag} was tried again");
        assert!(drive.put(&name("s/0003"), &[]).unwrap_err().is(&codes::DRIVE_FAILED));
        assert_eq!(drive.read(&name("s/0001"), 0, &mut [0; 10]).unwrap(), 10);
    }
}

#[test]
fn a_sync_for_which_there_was_no_descriptor_is_made_by_the_next() {
    for seed in 0..20 {
        for tag in ["sync.leaf", "sync.parent"] {
            let machine = Machine::new(seed);
            let drive = start(&machine);
            drive.make_skeleton().unwrap();
            for blob in ["s/0001", "s/ff01"] {
                drive.put(&name(blob), &[bytes(10, 1)]).unwrap();
            }
            machine.fail_with(tag, Errno::MFILE);
            assert!(drive.sync("test").unwrap_err().is(&codes::PROCESS_EXHAUSTED));
            machine.fail(None);
            drive.sync("test").unwrap();
            assert!(machine.restart());
            let drive = start(&machine);
            for blob in ["s/0001", "s/ff01"] {
                assert_eq!(drive.stat(&name(blob)).unwrap().bytes, 10, "{seed} {tag}");
            }
        }
    }
}

#[test]
fn a_name_for_whose_sync_there_was_no_descriptor_is_not_taken_for_durable() {
    for seed in 0..20 {
        let machine = Machine::new(seed);
        let drive = start(&machine);
        drive.make_skeleton().unwrap();
        drive.create_log(&name("journal.1"), 4096).unwrap();
        let calls: [(&'static str, &dyn Fn() -> Result<()>); 3] = [
            ("superblock.name", &|| drive.write_superblock(Slot::A, &[7; 100])),
            ("log.name", &|| drive.create_log(&name("journal.0"), 4096)),
            ("log.delete", &|| match drive.delete_log(&name("journal.1")) {
                Err(error) if error.is(&codes::BLOB_NOT_FOUND) => Ok(()),
                deleted => deleted,
            }),
        ];
        for (tag, call) in calls {
            machine.fail_with(tag, Errno::MFILE);
            for _ in 0..2 {
                assert!(call().unwrap_err().is(&codes::PROCESS_EXHAUSTED), "{tag}");
            }
            machine.fail(None);
            call().unwrap();
        }
        assert!(machine.restart());
        let drive = start(&machine);
        assert!(drive.read_superblock(Slot::A).unwrap().unwrap().starts_with(&[7; 100]));
        let logs = drive.list_logs().unwrap();
        assert_eq!(logs.iter().map(|log| log.name.as_str()).collect::<Vec<_>>(), ["journal.0"]);
    }
}

#[test]
fn what_was_written_to_a_log_and_not_synced_is_synced_by_the_next_holder() {
    for seed in 0..20 {
        let machine = Machine::new(seed);
        let drive = start(&machine);
        drive.make_skeleton().unwrap();
        let lock = drive.lock(&me(), LockMode::Exclusive).unwrap();
        drive.create_log(&name("journal.0"), 4096).unwrap();
        drive.write_log(&name("journal.0"), 0, &[bytes(4096, 5)]).unwrap();
        drop(lock);
        let drive = start(&machine);
        let lock = drive.lock(&me(), LockMode::Exclusive).unwrap();
        assert!(machine.restart());
        drop(lock);
        let mut found = [0; 4096];
        start(&machine).read_log(&name("journal.0"), 0, &mut found).unwrap();
        assert_eq!(found, [5; 4096], "seed {seed}");
    }
}

#[test]
fn a_new_file_for_which_there_is_no_room_costs_nothing_but_itself() {
    for errno in [Errno::NOSPC, Errno::DQUOT] {
        let machine = Machine::new(1);
        let drive = start(&machine);
        drive.make_skeleton().unwrap();
        for tag in ["put.file", "log.content"] {
            machine.fail_with(tag, errno);
            let refused = match tag {
                "put.file" => drive.put(&name("s/0001"), &[bytes(10, 1)]),
                _ => drive.create_log(&name("journal.0"), 4096),
            };
            assert!(refused.unwrap_err().is(&codes::DRIVE_FULL), "{tag} {errno:?}");
            machine.fail(None);
            assert!(machine.files().list("tmp").unwrap().is_empty());
        }
        drive.put(&name("s/0001"), &[bytes(10, 1)]).unwrap();
        drive.sync("test").unwrap();
        // What lay in a log before may be gone with a sync that failed, whatever the reason.
        drive.create_log(&name("journal.0"), 4096).unwrap();
        drive.write_log(&name("journal.0"), 0, &[bytes(4096, 1)]).unwrap();
        machine.fail_with("log.sync", errno);
        assert!(drive.sync_log(&name("journal.0"), "test").unwrap_err().is(&codes::DRIVE_FULL));
        machine.fail(None);
        assert!(drive.sync("test").unwrap_err().is(&codes::DRIVE_FAILED));
    }
}

#[test]
fn a_full_drive_refuses_and_leaves_nothing_behind() {
    for room in [0, 100, 4096, 9999] {
        let machine = Machine::new(room);
        let drive = start(&machine);
        drive.make_skeleton().unwrap();
        machine.set_room(room);
        assert!(
            drive.put(&name("s/0001"), &[bytes(10_000, 1)]).unwrap_err().is(&codes::DRIVE_FULL)
        );
        let log = drive.create_log(&name("journal.0"), 12_288).unwrap_err();
        assert!(log.is(&codes::DRIVE_FULL), "{log}");
        let slot = drive.write_superblock(Slot::A, &[1]).unwrap_err();
        assert!(slot.is(&codes::DRIVE_FULL), "{slot}");
        assert!(machine.files().list("tmp").unwrap().is_empty());
        assert!(drive.stat(&name("s/0001")).unwrap_err().is(&codes::BLOB_NOT_FOUND));
        machine.set_room(u64::MAX);
        drive.put(&name("s/0001"), &[bytes(10_000, 1)]).unwrap();
        drive.sync("test").unwrap();
    }
}

#[test]
fn a_drive_is_taken_and_let_go_on_a_file_system_that_others_have_filled() {
    let machine = Machine::new(1);
    let drive = start(&machine);
    drive.make_skeleton().unwrap();
    drop(drive.lock(&me(), LockMode::Exclusive).unwrap());
    machine.set_room(0);
    for is_killed in [false, true, false] {
        let drive = start(&machine);
        let lock = drive.lock(&me(), LockMode::Exclusive).unwrap();
        assert_eq!(drive.holder().unwrap().map(|holder| holder.pid), Some(42));
        let longest = Holder { host: "ü".repeat(9000), program: "x".repeat(9000), ..me() };
        drop(lock);
        let lock = drive.lock(&longest, LockMode::Exclusive).unwrap();
        let seen = drive.holder().unwrap().unwrap();
        assert!(longest.host.starts_with(&seen.host) && longest.program.starts_with(&seen.program));
        assert!(seen.host.len() > 900 && seen.program.len() > 900);
        if is_killed {
            machine.kill();
        }
        drop(lock);
    }
}

#[test]
fn a_read_only_drive_is_read_and_refuses_every_change() {
    let machine = Machine::new(1);
    let drive = start(&machine);
    drive.make_skeleton().unwrap();
    drive.put(&name("s/0001"), &[bytes(10, 1)]).unwrap();
    drive.create_log(&name("journal.0"), 4096).unwrap();
    drive.write_superblock(Slot::A, &[1; 10]).unwrap();
    machine.set_read_only(true);
    let drive = start(&machine);
    drop(drive.lock(&me(), LockMode::Shared).unwrap());
    assert_eq!(drive.read(&name("s/0001"), 0, &mut [0; 10]).unwrap(), 10);
    drive.read_log(&name("journal.0"), 0, &mut [0; 4096]).unwrap();
    assert_eq!(drive.read_superblock(Slot::A).unwrap().unwrap().len(), SUPERBLOCK_BYTES_MAX);
    let results = [
        drive.put(&name("s/0002"), &[]),
        drive.delete(&name("s/0001")),
        drive.write_superblock(Slot::A, &[1]),
        drive.create_log(&name("journal.1"), 4096),
        drive.write_log(&name("journal.0"), 0, &[bytes(4096, 1)]),
        drive.delete_log(&name("journal.0")),
        drive.lock(&me(), LockMode::Exclusive).map(drop),
    ];
    for (index, result) in results.into_iter().enumerate() {
        assert!(result.unwrap_err().is(&codes::DRIVE_READ_ONLY), "call {index}");
    }
}
