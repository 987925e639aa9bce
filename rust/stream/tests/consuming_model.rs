//! Random histories of consumers over a store whose power is cut and whose drives fail: what they promise holds.
//!
//! `DWK_SEED=n` runs one history and tells what happens in it; `DWK_LONG=1` runs very many, from `DWK_FROM` on if
//! that is given.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "consuming_model/chance.rs"]
mod chance;
#[path = "consuming_model/history.rs"]
mod history;
#[path = "consuming_model/operations.rs"]
mod operations;
#[path = "consuming_model/promise.rs"]
mod promise;
#[path = "consuming_model/told.rs"]
mod told;
mod world;

use std::sync::mpsc;
use std::time::Duration;

use history::{Counts, History};

/// A history takes some milliseconds; one that takes so long hangs.
const HANGS_AFTER: Duration = Duration::from_mins(1);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Runs one history where a hang of it can be told.
fn run(seed: u64, trace: bool) -> Result<Counts, String> {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let counts = History::run(seed, trace);
        let _ = tell.send(counts);
    });
    match told.recv_timeout(HANGS_AFTER) {
        Ok(counts) => Ok(counts),
        Err(mpsc::RecvTimeoutError::Timeout) => Err("it hangs".to_owned()),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let why = thread.join().unwrap_err();
            let text = why.downcast_ref::<String>().cloned();
            Err(text.or(why.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
        }
    }
}

#[test]
fn no_acknowledged_message_is_lost_or_delivered_outside_its_promise() {
    if let Some(seed) = number("DWK_SEED") {
        let counts = run(seed, true).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        eprintln!("{counts:?}");
        return;
    }
    let is_long = std::env::var_os("DWK_LONG").is_some();
    let (from, count) = (number("DWK_FROM").unwrap_or(0), if is_long { 20_000 } else { 150 });
    let (mut sum, mut broken) = (Counts::default(), Vec::new());
    for seed in from..from + count {
        match run(seed, false) {
            Ok(counts) => sum.add(counts),
            Err(why) => {
                eprintln!("seed {seed}: {why}");
                broken.push(seed);
            }
        }
        if is_long && (seed + 1 - from).is_multiple_of(1000) {
            eprintln!("{} histories: {sum:?}", seed + 1 - from);
        }
        if broken.len() >= 10 {
            break;
        }
    }
    eprintln!("{sum:?}");
    assert!(broken.is_empty(), "run them one by one, with DWK_SEED: {broken:?}");
    assert!(sum.cuts > count / 2 && sum.closes > count / 2, "{sum:?}");
    assert!(sum.repeated > count && sum.letters > count && sum.redriven > count / 30, "{sum:?}");
}
