//! Each call to the operating system fails once, in each way in which calls fail.

use super::power_tests::{Promises, check, live, long, start};
use super::tests::{me, name};
use super::volatile::Machine;
use super::*;

const ERRNOS: [Errno; 10] = [
    Errno::IO,
    Errno::NOSPC,
    Errno::DQUOT,
    Errno::ROFS,
    Errno::ACCESS,
    Errno::MFILE,
    Errno::NOMEM,
    Errno::AGAIN,
    Errno::INVAL,
    Errno::STALE,
];

/// What a caller is told.
fn is_told(error: &Error) -> bool {
    let codes = [
        &codes::DRIVE_IO,
        &codes::DRIVE_FULL,
        &codes::DRIVE_READ_ONLY,
        &codes::DRIVE_FAILED,
        &codes::PROCESS_EXHAUSTED,
    ];
    codes.into_iter().any(|code| error.is(code)) && error.message().contains("simulated")
}

/// Lives until call number `call` fails, goes on a little, and is killed or loses its power.
fn fails(call: u64, errno: Errno, loses_power: bool) -> Result<(), String> {
    // Which writes are short is the seed's: with that of the count, each call's number is what it was there.
    let machine = Machine::new(if loses_power { call } else { 0 });
    machine.break_call(call, errno);
    let mut promises = Promises::default();
    if let Err(error) = live(&machine, &mut promises)
        && !is_told(&error)
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
        for errno in ERRNOS.iter().skip(call as usize % stride).step_by(stride) {
            for loses_power in [false, true] {
                if let Err(broken) = fails(call, *errno, loses_power) {
                    panic!("call {call} fails with {errno:?}, power {loses_power}: {broken}");
                }
            }
        }
    }
}
