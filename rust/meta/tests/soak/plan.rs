//! Which steps a history has: drawn from a seed, and fewer of them if it fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

use dwk_base::{Random, SeededRandom};

use super::history::History;

/// A geometry and how many drives it is laid over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) geometry: &'static str,
    pub(crate) drives: usize,
}

/// What happens to a drive that is not its owner's wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Every call fails, until it is eased.
    Vanish,
    ReadOnly,
    Full,
    /// Reads fail now and then.
    FailReads,
    /// Some calls that write or sync fail.
    FailWrites(u8),
    /// Reads are wrong now and then.
    Lie,
    /// Syncs say that they did something.
    Forget,
    /// Files are flipped, cut short, zeroed, exchanged or removed.
    Damage,
    /// Everything is as it was at an earlier time.
    TurnBack,
    /// An empty drive is in its place.
    Wipe,
}

const HARMS: &[Harm] = &[
    Harm::Vanish,
    Harm::ReadOnly,
    Harm::Full,
    Harm::FailReads,
    Harm::FailWrites(0),
    Harm::FailWrites(1),
    Harm::FailWrites(2),
    Harm::FailWrites(3),
    Harm::FailWrites(4),
    Harm::Lie,
    Harm::Forget,
    Harm::Damage,
    Harm::Damage,
    Harm::TurnBack,
    Harm::Wipe,
];

/// One step. Numbers are drawn once, and mean what is there when the step is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Put {
        key: u64,
        size: u64,
    },
    Delete {
        key: u64,
    },
    /// Several objects in one commit.
    Many {
        seed: u64,
    },
    /// The source of a put fails in the middle.
    Broken {
        key: u64,
        size: u64,
    },
    /// Several threads at once, one of them the keeper's or a repair's work.
    Burst {
        seed: u64,
    },
    /// A drive hangs, and who writes has little time.
    Hurried {
        seed: u64,
    },
    /// Content is written, and waits for its commit.
    Stage {
        key: u64,
        size: u64,
    },
    CommitStaged,
    Hold {
        key: u64,
    },
    ReadHeld,
    Checkpoint,
    Collect,
    Scrub,
    Rebuild {
        drive: u64,
    },
    Replace {
        drive: u64,
    },
    /// Closes, or not, and opens with those drives that are to be there.
    Reopen {
        clean: bool,
    },
    /// The power goes within so many steps of the drives.
    Cut {
        within: u64,
    },
    Harm {
        drive: u64,
        harm: Harm,
    },
    /// What was wrong with a drive from one moment to the next is over.
    Ease {
        drive: u64,
    },
    /// All drives are full, or no more.
    FullAll {
        full: bool,
    },
    /// Everything is mended, and said to be.
    Recover,
}

pub(crate) fn plan(seed: u64) -> Vec<Step> {
    let random = SeededRandom::new(seed ^ 0x50ab);
    let length = 10 + random.below(50);
    (0..length).map(|_| draw(&random)).collect()
}

fn draw(random: &SeededRandom) -> Step {
    let seed = random.next_u64();
    let (key, size, drive) = (random.next_u64(), random.next_u64(), random.next_u64());
    match random.below(100) {
        0..15 => Step::Put { key, size },
        15..17 => Step::Stage { key, size },
        17..20 => Step::CommitStaged,
        20..26 => Step::Delete { key },
        26..32 => Step::Many { seed },
        32..34 => Step::Broken { key, size },
        34..37 => Step::Burst { seed },
        37..39 => Step::Hurried { seed },
        39..43 => Step::Hold { key },
        43..45 => Step::ReadHeld,
        45..49 => Step::Checkpoint,
        49..53 => Step::Collect,
        53..57 => Step::Scrub,
        57..60 => Step::Rebuild { drive },
        60..63 => Step::Replace { drive },
        63..72 => Step::Reopen { clean: random.below(2) == 0 },
        72..80 => Step::Cut { within: 1 + random.below([8, 40, 120][random.below(3) as usize]) },
        80..90 => {
            let harm = HARMS[random.below(HARMS.len() as u64) as usize];
            Step::Harm { drive, harm }
        }
        90..94 => Step::Ease { drive },
        94..96 => Step::FullAll { full: random.below(2) == 0 },
        _ => Step::Recover,
    }
}

/// Why a history fails, if it does.
pub(crate) fn fails(setup: Setup, seed: u64, steps: &[Step], aloud: bool) -> Option<String> {
    let played = catch_unwind(AssertUnwindSafe(|| History::new(setup, seed, aloud).play(steps)));
    let panic = played.err()?;
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Some(text.unwrap_or_else(|| "a panic".to_owned()))
}

/// How often a history is played before it counts as one that does not fail: threads come in any order.
const TRIES: usize = 3;

/// Leaves out steps as long as it goes on failing; says which are left, by their numbers.
pub(crate) fn shrink(setup: Setup, seed: u64, steps: &[Step]) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..steps.len()).collect();
    let mut part = steps.len().div_ceil(2);
    while part > 0 {
        let mut from = 0;
        while from < kept.len() {
            let end = (from + part).min(kept.len());
            let fewer = [&kept[..from], &kept[end..]].concat();
            let few = choose(steps, &fewer);
            if (0..TRIES).any(|_| fails(setup, seed, &few, false).is_some()) {
                kept = fewer;
            } else {
                from = end;
            }
        }
        part /= 2;
    }
    kept
}

/// The steps with these numbers.
pub(crate) fn choose(steps: &[Step], kept: &[usize]) -> Vec<Step> {
    kept.iter().filter_map(|number| steps.get(*number)).copied().collect()
}
