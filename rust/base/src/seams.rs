//! Time and chance enter here only; the tidy test bans them elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Nanoseconds since 1970-01-01 UTC; may jump.
    fn unix_ns(&self) -> u64;
    /// Time since an arbitrary start; never goes back.
    fn monotonic(&self) -> Duration;
    /// Waits.
    fn sleep(&self, duration: Duration);
}

/// Draws random bytes.
pub trait Random: Send + Sync {
    /// Fills `into` with random bytes.
    fn fill(&self, into: &mut [u8]);

    /// A random number.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A random number below `bound`, which is at least 1; the bias is below `bound / 2^64`.
    fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn unix_ns(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// A clock that moves when it is told to (and when somebody sleeps on it).
#[derive(Debug, Default)]
pub struct ManualClock {
    ns: AtomicU64,
}

impl ManualClock {
    /// Moves time on.
    pub fn advance(&self, by: Duration) {
        self.ns.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn unix_ns(&self) -> u64 {
        self.ns.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.unix_ns())
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }
}

/// The operating system's generator.
#[derive(Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    /// # Panics
    /// If the operating system has no random numbers: nothing can be stored safely then.
    fn fill(&self, into: &mut [u8]) {
        getrandom::fill(into).expect("the operating system gives random numbers");
    }
}

/// A replayable generator (SplitMix64, Steele et al. 2014) for tests and simulations.
#[derive(Debug)]
pub struct SeededRandom {
    state: AtomicU64,
}

impl SeededRandom {
    /// The same seed draws the same numbers in the same order.
    pub const fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }
}

impl Random for SeededRandom {
    fn fill(&self, into: &mut [u8]) {
        for piece in into.chunks_mut(8) {
            piece.copy_from_slice(&self.next_u64().to_le_bytes()[..piece.len()]);
        }
    }

    fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(STEP, Ordering::SeqCst).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The seams together, as they are handed down the floors.
#[derive(Clone)]
pub struct Seams {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub random: Arc<dyn Random>,
}

impl Seams {
    /// The real clock and the real generator.
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock::default()), random: Arc::new(SystemRandom) }
    }

    /// The real clock with a replayable generator.
    pub fn seeded(seed: u64) -> Self {
        Self { clock: Arc::new(SystemClock::default()), random: Arc::new(SeededRandom::new(seed)) }
    }
}

impl std::fmt::Debug for Seams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seams")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_numbers() {
        let (a, b) = (SeededRandom::new(1), SeededRandom::new(1));
        let draws: Vec<u64> = (0..100).map(|_| a.next_u64()).collect();
        assert_eq!(draws, (0..100).map(|_| b.next_u64()).collect::<Vec<_>>());
        assert!((0..1000).all(|_| a.below(3) < 3));
    }

    /// As other implementations of it draw them.
    #[test]
    fn seeded_numbers_are_those_of_splitmix64() {
        let random = SeededRandom::new(1_234_567);
        let drawn: [u64; 3] = std::array::from_fn(|_| random.next_u64());
        assert_eq!(drawn, [0x599e_d017_fb08_fc85, 0x2c73_f084_5854_0fa5, 0x883e_bce5_a3f2_7c77]);
        let mut bytes = [0; 11];
        SeededRandom::new(0).fill(&mut bytes);
        assert_eq!(bytes, [0xaf, 0xcd, 0x1d, 0x7b, 0x39, 0xa8, 0x20, 0xe2, 0xf4, 0x65, 0xb9]);
    }

    #[test]
    fn numbers_below_a_bound_are_all_drawn_and_alike_often() {
        for random in [&SystemRandom as &dyn Random, &SeededRandom::new(1)] {
            let mut counts = [0u32; 5];
            (0..5000).for_each(|_| counts[random.below(5) as usize] += 1);
            assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
            assert_ne!(random.next_u64(), random.next_u64());
        }
    }

    #[test]
    fn the_systems_clock_goes_on() {
        let clock = SystemClock::default();
        let (before, since) = (clock.unix_ns(), clock.monotonic());
        assert!(before > 1_700_000_000 * 1_000_000_000, "in nanoseconds since 1970");
        clock.sleep(Duration::from_millis(2));
        assert!(clock.monotonic() >= since + Duration::from_millis(2));
    }

    #[test]
    fn sleeping_moves_a_manual_clock() {
        let clock = ManualClock::default();
        clock.sleep(Duration::from_secs(2));
        assert_eq!(clock.monotonic(), Duration::from_secs(2));
    }
}
