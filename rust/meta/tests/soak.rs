//! Everything at once: random histories of the whole store, against a model of what was acknowledged.
//!
//! `DWK_SEED=n` plays one history and says what happens in it (`DWK_KEEP=0,3,5`: with those steps only); `DWK_LONG=1` plays very many, from
//! `DWK_FROM` on. A history that fails is played again with steps left out, as long as it goes on failing.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod soak {
    pub(crate) mod book;
    pub(crate) mod drives;
    pub(crate) mod harm;
    pub(crate) mod history;
    pub(crate) mod plan;
    pub(crate) mod probe;
    pub(crate) mod store;
    pub(crate) mod work;
}
mod world;

use std::time::{Duration, Instant};

use soak::plan::{Setup, choose, fails, plan, shrink};

const SETUPS: &[Setup] = &[
    Setup { geometry: "jbod:2", drives: 2 },
    Setup { geometry: "mirror:2", drives: 2 },
    Setup { geometry: "mirror:2", drives: 4 },
    Setup { geometry: "mirror:3", drives: 3 },
    Setup { geometry: "2+1", drives: 3 },
    Setup { geometry: "2+1", drives: 5 },
    Setup { geometry: "4+2", drives: 6 },
    Setup { geometry: "4+2", drives: 8 },
    Setup { geometry: "raid6:5", drives: 5 },
    Setup { geometry: "lrc:4+2+1", drives: 7 },
];

/// The regular form of the test ends then, or after so many histories.
const TIME: Duration = Duration::from_secs(12);
const REGULAR: u64 = 60;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn setup(seed: u64) -> Setup {
    let only = std::env::var("DWK_GEOMETRY").ok();
    let all: Vec<_> =
        SETUPS.iter().filter(|s| only.as_ref().is_none_or(|only| s.geometry == only)).collect();
    *all[seed as usize % all.len()]
}

/// Plays a history; if it fails, says with which few steps it does.
fn play(setup: Setup, seed: u64) {
    let steps = plan(seed);
    let Some(why) = fails(setup, seed, &steps, false) else { return };
    eprintln!("{setup:?}, seed {seed}: {why}\n{steps:?}");
    let kept = shrink(setup, seed, &steps);
    let few = choose(&steps, &kept);
    let why = fails(setup, seed, &few, true).unwrap_or(why);
    let kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
    panic!("DWK_SEED={seed} DWK_KEEP={} ({setup:?}): {why}\n{few:?}", kept.join(","));
}

#[test]
fn what_is_acknowledged_survives_everything_at_once() {
    if let Some(seed) = number("DWK_SEED") {
        let setup = setup(seed);
        let mut steps = plan(seed);
        if let Ok(kept) = std::env::var("DWK_KEEP") {
            let kept = kept.split(',').filter_map(|number| number.parse().ok());
            steps = choose(&steps, &kept.collect::<Vec<_>>());
        }
        assert_eq!(fails(setup, seed, &steps, true), None);
        return;
    }
    let (from, is_long) = (number("DWK_FROM").unwrap_or(0), std::env::var_os("DWK_LONG").is_some());
    let begin = Instant::now();
    let count = if is_long { 5000 } else { REGULAR };
    let mut played = 0;
    for seed in from..from + count {
        if !is_long && begin.elapsed() > TIME {
            break;
        }
        play(setup(seed), seed);
        played += 1;
    }
    println!("{played} histories from {from} in {:?}", begin.elapsed());
}
