//! The whole process is stopped for a while, by a terminal or a debugger: that is no drive's fault.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]
mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;

use common::{Body, World, commit_range, numbers, small};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_journal::Options;
use rustix::process::{Pid, Signal, kill_process};

const CHILD: &str = "DWK_TEST_STOPPED";
const PATIENCE: Duration = Duration::from_millis(400);
const COMMITS: u64 = 80;

/// Commits all the time, on drives that take a while.
fn child() {
    let world =
        World::new(&[Body::Slots; 3], 3, Options { member_timeout: PATIENCE, ..small() }, 1);
    let journal = world.create().unwrap();
    let slow = || Fault::new(Effect::Delay(Duration::from_millis(20))).on(Operation::SyncLog);
    (0..3).for_each(|index| world.faulty(index).inject(slow()));
    println!("\nready");
    commit_range(&journal, 1..COMMITS).unwrap();
    assert_eq!(world.register.evictions.load(Ordering::SeqCst), 0);
    assert_eq!(numbers(&journal), (1..COMMITS).collect::<Vec<_>>());
}

#[test]
fn a_process_that_was_stopped_evicts_no_member() {
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_process_that_was_stopped_evicts_no_member", "--nocapture"]);
    let mut child = command.env(CHILD, "1").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "ready"));
    let pid = Pid::from_child(&child);
    for turn in 0..6 {
        sleep(Duration::from_millis(70 + turn * 7)); // in the middle of a sync, mostly
        kill_process(pid, Signal::STOP).unwrap();
        sleep(PATIENCE * 2);
        kill_process(pid, Signal::CONT).unwrap();
    }
    let said: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(child.wait().unwrap().success(), "{said:?}");
}
