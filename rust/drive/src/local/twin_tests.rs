//! A local drive does what the drive in memory does, whatever is done in whatever order.

use proptest::prelude::*;
use tempfile::TempDir;

use super::tests::name;
use super::volatile::Machine;
use super::*;
use crate::{FaultyDrive, MemoryDrive, Power};

/// Names that meet: in one folder, one directory, beginning alike, hex and not.
const NAMES: [&str; 10] =
    ["s/0123", "s/0123.0", "s/0124", "s/012", "s/ffff", "s/x", "0123", "x", "t/0123", "s/00"];

#[derive(Clone, Debug)]
enum Call {
    Put(usize, Vec<u16>),
    Delete(usize),
    Read(usize, u64, u16),
    ReadNow(usize, u64, u16),
    Stat(usize),
    List(usize, Option<usize>, usize),
    Sync,
    CreateLog(usize, u64),
    WriteLog(usize, u64, u16),
    ReadLog(usize, u64, u16),
    SyncLog(usize),
    ListLogs,
    DeleteLog(usize),
    WriteSuperblock(bool, u16),
    ReadSuperblock(bool),
}

fn call() -> impl Strategy<Value = Call> {
    let at = || 0..NAMES.len();
    let length = || prop_oneof![0u16..50, 4000u16..4200, 8192u16..8193, 0u16..20_000];
    let offset = || prop_oneof![Just(0), Just(4096), 0u64..20_000, Just(u64::MAX)];
    let pages = || prop_oneof![Just(0), Just(4096), Just(8192), Just(12_288), 0u64..9000];
    prop_oneof![
        6 => (at(), prop::collection::vec(length(), 0..4)).prop_map(|(n, l)| Call::Put(n, l)),
        3 => at().prop_map(Call::Delete),
        3 => (at(), offset(), length()).prop_map(|(n, o, l)| Call::Read(n, o, l)),
        2 => (at(), offset(), length()).prop_map(|(n, o, l)| Call::ReadNow(n, o, l)),
        2 => at().prop_map(Call::Stat),
        3 => (0usize..3, prop::option::of(at()), 0usize..12).prop_map(|(f, a, l)| Call::List(f, a, l)),
        1 => Just(Call::Sync),
        2 => (at(), pages()).prop_map(|(n, b)| Call::CreateLog(n, b)),
        3 => (at(), pages(), prop_oneof![Just(4096u16), length()])
            .prop_map(|(n, o, l)| Call::WriteLog(n, o, l)),
        2 => (at(), offset(), length()).prop_map(|(n, o, l)| Call::ReadLog(n, o, l)),
        1 => at().prop_map(Call::SyncLog),
        1 => Just(Call::ListLogs),
        1 => at().prop_map(Call::DeleteLog),
        1 => (any::<bool>(), length()).prop_map(|(s, l)| Call::WriteSuperblock(s, l)),
        1 => any::<bool>().prop_map(Call::ReadSuperblock),
    ]
}

/// What a call says, in a form that can be compared.
#[derive(Debug, PartialEq)]
enum Answer {
    Done,
    Bytes(Vec<u8>),
    /// Allowed instead of any bytes.
    NotNow,
    Infos(Vec<BlobInfo>),
    Refused(&'static str),
}

fn answer<T>(result: Result<T>, map: impl FnOnce(T) -> Answer) -> Answer {
    result.map_or_else(|error| Answer::Refused(error.code().name), map)
}

fn content(length: u16, salt: usize) -> Bytes {
    (0..length as usize).map(|at| (at * 7 + salt) as u8).collect::<Vec<_>>().into()
}

fn slot(b: bool) -> Slot {
    if b { Slot::B } else { Slot::A }
}

/// Makes call number `number`.
fn perform(drive: &dyn Drive, call: &Call, number: usize) -> Answer {
    let log = drive.log().unwrap();
    let name = |index: &usize| name(NAMES[*index]);
    let done = |()| Answer::Done;
    let fill = |length: &u16| vec![0xee; usize::from(*length)];
    match call {
        Call::Put(at, lengths) => {
            let parts = lengths.iter().map(|length| content(*length, number)).collect::<Vec<_>>();
            answer(drive.put(&name(at), &parts), done)
        }
        Call::Delete(at) => answer(drive.delete(&name(at)), done),
        Call::Read(at, offset, length) => {
            let mut into = fill(length);
            let read = drive.read(&name(at), *offset, &mut into);
            answer(read, |count| Answer::Bytes(into[..count].to_vec()))
        }
        Call::ReadNow(at, offset, length) => {
            let mut into = fill(length);
            let read = drive.read_now(&name(at), *offset, &mut into);
            answer(read, |count| {
                count.map_or(Answer::NotNow, |count| Answer::Bytes(into[..count].to_vec()))
            })
        }
        Call::Stat(at) => answer(drive.stat(&name(at)), |info| Answer::Infos(vec![info])),
        Call::List(folder, after, limit) => {
            let folder = [None, Some("s"), Some("t")][*folder];
            let after = after.as_ref().map(name);
            answer(drive.list(folder, after.as_ref(), *limit), Answer::Infos)
        }
        Call::Sync => answer(drive.sync("test"), done),
        Call::CreateLog(at, bytes) => answer(log.create_log(&name(at), *bytes), done),
        Call::WriteLog(at, offset, length) => {
            answer(log.write_log(&name(at), *offset, &[content(*length, number)]), done)
        }
        Call::ReadLog(at, offset, length) => {
            let mut into = fill(length);
            let read = log.read_log(&name(at), *offset, &mut into);
            answer(read, |()| Answer::Bytes(into))
        }
        Call::SyncLog(at) => answer(log.sync_log(&name(at), "test"), done),
        Call::ListLogs => answer(log.list_logs(), |mut infos| {
            infos.sort_by(|a, b| a.name.cmp(&b.name));
            Answer::Infos(infos)
        }),
        Call::DeleteLog(at) => answer(log.delete_log(&name(at)), done),
        Call::WriteSuperblock(b, length) => {
            answer(drive.write_superblock(slot(*b), &content(*length, number)), done)
        }
        Call::ReadSuperblock(b) => answer(drive.read_superblock(slot(*b)), |bytes| {
            let mut bytes = bytes.unwrap_or_default();
            bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            Answer::Bytes(bytes)
        }),
    }
}

fn agree(drive: &dyn Drive, calls: &[Call]) -> Result<(), TestCaseError> {
    let memory = MemoryDrive::new("twin");
    for (number, call) in calls.iter().enumerate() {
        let (expected, found) = (perform(&memory, call, number), perform(drive, call, number));
        let is_late = matches!(call, Call::ReadNow(..)) && found == Answer::NotNow;
        prop_assert!(is_late || expected == found, "{call:?}: {found:?} instead of {expected:?}");
    }
    Ok(())
}

fn config(cases: u32) -> ProptestConfig {
    let factor = if std::env::var_os("DWK_LONG").is_some() { 50 } else { 1 };
    ProptestConfig { cases: cases * factor, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn a_faulty_drive_without_faults_does_what_memory_does(
        calls in prop::collection::vec(call(), 1..80),
    ) {
        let memory = Arc::new(MemoryDrive::new("d"));
        agree(&FaultyDrive::new(memory, &Power::new(), 1), &calls)?;
    }

    #[test]
    fn a_local_drive_on_a_simulated_disk_does_what_memory_does(
        calls in prop::collection::vec(call(), 1..80), seed: u64, direct_bytes_min in 0u64..10_000,
        open_files_max in 0usize..4,
    ) {
        let options = LocalOptions { direct_bytes_min, open_files_max };
        let clock = Arc::new(dwk_base::ManualClock::default());
        let files = Machine::new(seed).files();
        let drive = LocalDrive::assemble(files, simulated(), options, clock);
        drive.make_skeleton()?;
        agree(&drive, &calls)?;
    }
}

proptest! {
    #![proptest_config(config(5))]

    #[test]
    fn a_local_drive_on_the_real_disk_does_what_memory_does(
        calls in prop::collection::vec(call(), 1..60),
    ) {
        let home = TempDir::new().unwrap();
        agree(&LocalDrive::create(home.path().join("d1"))?, &calls)?;
    }
}
