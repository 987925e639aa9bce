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
