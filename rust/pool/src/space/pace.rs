//! How long drives lately took for reads: which answer is late, which drive is slow, and how many hedges there may be.
//!
//! A *hedge* asks other drives for what a shard can be computed from when its own drive is late, and takes what is
//! complete first (Dean and Barroso, "The Tail at Scale", CACM 2013).

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::lock;

/// No answer is late before: what a busy processor or the page cache holds up is no drive's doing.
const FLOOR: Duration = Duration::from_millis(10);
/// Where nothing was measured yet an answer is late after this part of the time after which it is given up.
const START_PART: u32 = 64;
/// A drive that was late so often in a row is slow.
pub(crate) const SLOW_ROW: u32 = 3;
/// Of shards asked for, one more for so many may be a hedge's.
const SHARE: i64 = 16;
/// And so many more at once.
const BURST: i64 = 64;
/// Reads up to this length are alike; so are those up to each double of it.
const CLASS_BYTES: usize = 64 << 10;
const CLASSES: usize = 8;

/// What reads of one length took on one drive: mean and mean deviation, as TCP has them of its round trips
/// (Jacobson and Karels, 1988).
#[derive(Clone, Copy, Debug)]
struct Usual {
    mean: Duration,
    deviation: Duration,
}

/// What is known of one drive.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    usual: [Option<Usual>; CLASSES],
    /// How many of its last answers were late, without one between them that was not.
    late_row: u32,
    answers: Answers,
}

/// Answers of a drive to reads, since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// All that were looked at.
    pub all: u64,
    /// Those that came later than enough other drives usually give theirs.
    pub late: u64,
}

/// What is known of all drives.
#[derive(Debug)]
pub(crate) struct Pace {
    drives: Mutex<BTreeMap<u16, Figures>>,
    start: Duration,
    most: Duration,
    /// How many drives are slow: mostly none, and then nobody looks which.
    slow: AtomicUsize,
    /// Shards that hedges may ask for, times [`SHARE`].
    credit: AtomicI64,
    hedged: AtomicU64,
    won: AtomicU64,
}

/// How reads went around late drives, since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hedges {
    /// So often others were asked, too, since an answer was late.
    pub asked: u64,
    /// So often of these the others were complete first.
    pub won: u64,
}

impl Figures {
    const fn is_slow(&self) -> bool {
        self.late_row >= SLOW_ROW
    }
}

impl Usual {
    const fn first(took: Duration) -> Self {
        Self { mean: took, deviation: Duration::from_nanos(took.as_nanos() as u64 / 2) }
    }

    fn with(self, took: Duration) -> Self {
        let off = self.mean.abs_diff(took);
        Self { mean: (self.mean * 7 + took) / 8, deviation: (self.deviation * 3 + off) / 4 }
    }

    /// Few answers take longer.
    fn most(self) -> Duration {
        self.mean + self.deviation * 4
    }
}

fn class(bytes: usize) -> usize {
    (bytes.div_ceil(CLASS_BYTES).max(1).next_power_of_two().ilog2() as usize).min(CLASSES - 1)
}

impl Pace {
    /// Answers are given up after `late_read`, and counted as taking no longer.
    pub(crate) fn new(late_read: Duration) -> Self {
        Self {
            drives: Mutex::default(),
            start: late_read / START_PART,
            most: late_read,
            slow: AtomicUsize::new(0),
            credit: AtomicI64::new(BURST * SHARE),
            hedged: AtomicU64::new(0),
            won: AtomicU64::new(0),
        }
    }

    /// After how long an answer is late, of `bytes` of a shard, when any `needed` of the drives `seats` give all that
    /// is wanted: when these would usually have come. Drives of which nothing is known are as fast as the fastest.
    pub(crate) fn limit(&self, seats: &[u16], needed: usize, bytes: usize) -> Duration {
        limit(&lock(&self.drives), seats, needed, class(bytes)).unwrap_or(self.start).max(FLOOR)
    }

    /// No limit is shorter.
    pub(crate) const fn least() -> Duration {
        FLOOR
    }

    /// A drive took so long for a read of `bytes`, one of the drives `seats` as in [`limit`](Self::limit).
    pub(crate) fn took(
        &self,
        seat: u16,
        took: Duration,
        (seats, needed): (&[u16], usize),
        bytes: usize,
    ) {
        let mut drives = lock(&self.drives);
        let class = class(bytes);
        // While nothing is known of any drive nobody is late.
        let is_late =
            took > FLOOR && limit(&drives, seats, needed, class).is_some_and(|limit| took > limit);
        let figures = drives.entry(seat).or_default();
        let was_slow = figures.is_slow();
        figures.answers.all += 1;
        figures.answers.late += u64::from(is_late);
        figures.late_row = if is_late { figures.late_row.saturating_add(1) } else { 0 };
        match (was_slow, figures.is_slow()) {
            (false, true) => drop(self.slow.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.slow.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        let took = took.min(self.most);
        let usual = &mut figures.usual[class];
        *usual = Some(usual.map_or(Usual::first(took), |usual| usual.with(took)));
    }

    /// True if a drive was late several times in a row.
    pub(crate) fn is_slow(&self, seat: u16) -> bool {
        self.slow.load(Ordering::Relaxed) > 0
            && lock(&self.drives).get(&seat).is_some_and(Figures::is_slow)
    }

    /// The answers of a drive so far.
    pub(crate) fn answers(&self, seat: u16) -> Answers {
        lock(&self.drives).get(&seat).map_or(Answers::default(), |figures| figures.answers)
    }

    /// A shard is asked for that no hedge asks for.
    pub(crate) fn asked(&self) {
        // Several at once may go a little beyond: that is no matter.
        if self.credit.load(Ordering::Relaxed) < BURST * SHARE {
            self.credit.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// As [`may_ask`](Self::may_ask), and counted.
    pub(crate) fn may_hedge(&self, shards: usize) -> bool {
        let may = self.may_ask(shards);
        self.hedged.fetch_add(u64::from(may), Ordering::Relaxed);
        may
    }

    /// True if so many shards more may be asked for, for a drive is late. The last ones may be too many, so that wide
    /// stripes are hedged, too: the next ones wait until that is made up for.
    pub(crate) fn may_ask(&self, shards: usize) -> bool {
        let price = i64::try_from(shards).unwrap_or(BURST) * SHARE;
        let less = |credit: i64| (credit > 0).then_some(credit - price);
        self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// A hedge was complete first.
    pub(crate) fn won(&self) {
        self.won.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn hedges(&self) -> Hedges {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Hedges { asked: of(&self.hedged), won: of(&self.won) }
    }
}

/// What `needed` of these drives usually take for reads of a class; `None` if nothing is known.
fn limit(
    drives: &BTreeMap<u16, Figures>,
    seats: &[u16],
    needed: usize,
    class: usize,
) -> Option<Duration> {
    let usual = |seat: &u16| drives.get(seat)?.usual[class].map(Usual::most);
    let mut known: Vec<Duration> = seats.iter().filter_map(usual).collect();
    known.sort_unstable();
    let unknown = seats.len() - known.len();
    let slowest = needed.saturating_sub(1).saturating_sub(unknown);
    known.get(slowest).or(known.last()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEATS: [u16; 6] = [0, 1, 2, 3, 4, 5];

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn pace() -> Pace {
        Pace::new(Duration::from_secs(2))
    }

    fn took(pace: &Pace, seat: u16, took: Duration) {
        pace.took(seat, took, (&SEATS, 4), 4096);
    }

    fn all_took(pace: &Pace, of: impl Fn(u16) -> Duration) {
        for _ in 0..50 {
            for seat in SEATS {
                took(pace, seat, of(seat));
            }
        }
    }

    #[test]
    fn what_is_late_is_what_so_many_others_would_have_given_by_then() {
        let pace = pace();
        assert_eq!(pace.limit(&SEATS, 4, 4096), ms(2000) / 64, "nothing is known");
        all_took(&pace, |seat| ms(if seat < 2 { 300 } else { 20 }));
        let limit = pace.limit(&SEATS, 4, 4096);
        assert!((ms(20)..ms(25)).contains(&limit), "{limit:?}");
        assert!(pace.limit(&SEATS, 5, 4096) > ms(250), "one of the slow ones is needed");
        assert!(pace.limit(&SEATS[..2], 1, 4096) > ms(250), "all are slow");
        assert!(pace.limit(&SEATS[1..3], 1, 4096) < ms(25), "one copy is enough");
        assert_eq!(pace.limit(&SEATS, 4, 1 << 20), ms(2000) / 64, "of long ones nothing is known");
        // Those of which nothing is known are as fast as the fastest.
        assert!(pace.limit(&[0, 2, 7, 8, 9, 10], 4, 4096) < ms(25));
        all_took(&pace, |_| Duration::from_micros(20));
        assert_eq!(pace.limit(&SEATS, 4, 4096), FLOOR);
    }

    #[test]
    fn a_drive_is_slow_after_being_late_in_a_row_and_no_more_after_one_answer_in_time() {
        let pace = pace();
        all_took(&pace, |_| ms(1));
        (0..2).for_each(|_| took(&pace, 3, ms(100)));
        assert!(!pace.is_slow(3));
        took(&pace, 3, ms(100));
        assert!(pace.is_slow(3) && !pace.is_slow(2));
        assert_eq!((pace.answers(3).late, pace.answers(2).late), (3, 0));
        took(&pace, 3, ms(1));
        assert!(!pace.is_slow(3));
        // Where all became slow, that is how long it takes.
        all_took(&pace, |_| ms(100));
        assert!(SEATS.iter().all(|seat| !pace.is_slow(*seat)));
    }

    #[test]
    fn hedges_are_a_share_of_what_is_asked_for_and_a_burst() {
        let pace = pace();
        let hedge = |times: usize| (0..times).filter(|_| pace.may_hedge(4)).count();
        assert_eq!(hedge(100), BURST as usize / 4);
        (0..4 * 16 * 10).for_each(|_| pace.asked());
        assert_eq!(hedge(100), 10);
        (0..1_000_000).for_each(|_| pace.asked());
        assert_eq!(hedge(100), BURST as usize / 4, "no more is saved up");
        pace.asked();
        assert!(pace.may_hedge(200), "of a stripe however wide");
        (0..199 * 16).for_each(|_| pace.asked());
        assert!(!pace.may_hedge(1));
        assert_eq!(pace.hedges().asked, 10 + 2 * (BURST as u64 / 4) + 1);
    }
}
