//! The whole process is stopped for a while, by a terminal or a debugger: that is no drive's fault.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_pool::State;
use rustix::process::{Pid, Signal, kill_process};
use world::{Model, World, bytes, check, put};

const CHILD: &str = "DWK_TEST_STOPPED";
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes stripes all the time, on drives that take a while.
fn child() {
    let mut world = World::new(6, "4+2", 1);
    world.pool.space.drive_timeout = PATIENCE;
    world.pool.journal.member_timeout = PATIENCE;
    world.pool.drive_timeout = PATIENCE;
    let meta = world.create().unwrap();
    let slow = || Fault::new(Effect::Delay(Duration::from_millis(30))).on(Operation::Sync);
    world.drives.iter().for_each(|drive| drive.inject(slow()));
    println!("\nready");
    let mut model = Model::new();
    for n in 0..60u64 {
        let (key, content) = (format!("k{n:02}").into_bytes(), bytes(n, 60_000));
        put(&meta, &key, &content).unwrap();
        model.insert(key, content);
    }
    let roster = meta.pool().roster();
    let states: Vec<State> = roster.seats.iter().map(|seat| seat.state).collect();
    assert_eq!(states, [State::Ok; 6]);
    check(&meta, &model, "after the stops");
}

#[test]
fn a_process_that_was_stopped_takes_no_drive_out() {
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_process_that_was_stopped_takes_no_drive_out", "--nocapture"]);
    let mut child = command.env(CHILD, "1").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "ready"));
    let pid = Pid::from_child(&child);
    for turn in 0..5 {
        sleep(Duration::from_millis(120 + turn * 7)); // in the middle of a stripe, mostly
        kill_process(pid, Signal::STOP).unwrap();
        sleep(PATIENCE * 2);
        kill_process(pid, Signal::CONT).unwrap();
    }
    let said: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(child.wait().unwrap().success(), "{said:?}");
}
