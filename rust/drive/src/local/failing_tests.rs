//! Each call to the operating system fails once, in each way in which calls fail.

use dwk_base::Code;

use super::power_tests::{Promises, check, live, long, start};
use super::root::PAST_LIMIT;
use super::tests::{me, name};
use super::volatile::Machine;
use super::*;

/// What can go wrong, and what a caller is told.
const ERRNOS: [(Errno, &Code); 14] = [
    (Errno::IO, &codes::DRIVE_IO),
    (Errno::NOSPC, &codes::DRIVE_FULL),
    (Errno::DQUOT, &codes::DRIVE_FULL),
    (Errno::FBIG, &codes::DRIVE_FULL),
    (Errno::ROFS, &codes::DRIVE_READ_ONLY),
    (Errno::ACCESS, &codes::DRIVE_READ_ONLY),
    (Errno::PERM, &codes::DRIVE_READ_ONLY),
    (Errno::MFILE, &codes::PROCESS_EXHAUSTED),
    (Errno::NFILE, &codes::PROCESS_EXHAUSTED),
    (Errno::NOMEM, &codes::PROCESS_EXHAUSTED),
    (PAST_LIMIT, &codes::PROCESS_FILE_SIZE),
    (Errno::AGAIN, &codes::DRIVE_IO),
    (Errno::INVAL, &codes::DRIVE_IO),
    (Errno::STALE, &codes::DRIVE_IO),
];

fn is_told(error: &Error, errno: Errno) -> bool {
    let expected = ERRNOS.into_iter().find(|(each, _)| *each == errno).map(|(_, code)| code);
    expected.is_some_and(|code| error.is(code)) && error.message().contains("simulated")
}

/// Lives until call number `call` fails, goes on a little, and is killed or loses its power.
fn fails(call: u64, errno: Errno, loses_power: bool) -> Result<(), String> {
    // Which writes are short is the seed's: with that of the count, each call's number is what it was there.
    let machine = Machine::new(if loses_power { call } else { 0 });
    machine.break_call(call, errno);
    let mut promises = Promises::default();
    if let Err(error) = live(&machine, &mut promises)
        && !is_told(&error, errno)
    {
        return Err(format!("it says {error:?}"));
    }
    let drive = start(&machine);
    if let Ok(lock) = drive.lock(&me(), LockMode::Shared) {
        let _ = (drive.read(&name("s/0001"), 0, &mut [0; 10]), drive.list(Some("s"), None, 10));
        drop(lock);
    }
    let is_there = if loses_power { machine.restart() } else { true };
    machine.kill();
    check(&machine, is_there, &promises)
}

#[test]
fn whichever_call_fails_what_was_acknowledged_is_there_and_nothing_is_half_there() {
    let machine = Machine::new(0);
    live(&machine, &mut Promises::default()).unwrap();
    // Some ways at each call, all of them in the long form.
    let stride = if long() { 1 } else { 4 };
    for call in 1..=machine.calls() {
        for (errno, _) in ERRNOS.iter().skip(call as usize % stride).step_by(stride) {
            for loses_power in [false, true] {
                if let Err(broken) = fails(call, *errno, loses_power) {
                    panic!("call {call} fails with {errno:?}, power {loses_power}: {broken}");
                }
            }
        }
    }
}

#[test]
fn a_drive_that_its_server_has_forgotten_is_missing_and_back_when_it_is_known_again() {
    let machine = Machine::new(1);
    let drive = start(&machine);
    drive.make_skeleton().unwrap();
    let (blob, log) = (name("s/0001"), name("journal.0"));
    drive.put(&blob, &[Bytes::from_static(b"content")]).unwrap();
    drive.create_log(&log, 4096).unwrap();
    machine.refuse(Some(Errno::STALE));
    let results = [
        drive.read(&blob, 0, &mut [0; 7]).map(drop),
        drive.put(&name("s/0002"), &[]),
        drive.delete(&blob),
        drive.list(Some("s"), None, 10).map(drop),
        drive.capacity().map(drop),
        drive.sync("test"),
        drive.read_superblock(Slot::A).map(drop),
        drive.write_superblock(Slot::A, &[1]),
        drive.read_log(&log, 0, &mut [0; 10]),
        drive.create_log(&name("journal.1"), 4096),
        drive.hold_log(&log),
    ];
    for (index, result) in results.into_iter().enumerate() {
        let error = result.expect_err(&format!("call {index} worked"));
        assert!(error.is(&codes::DRIVE_MISSING), "call {index}: {error}");
    }
    machine.refuse(None);
    drive.sync("test").unwrap();
    assert_eq!(drive.read(&blob, 0, &mut [0; 7]).unwrap(), 7);
}
