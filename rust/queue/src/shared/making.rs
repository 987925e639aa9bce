//! Making a queue, finding it by its name, and sweeping what dead makers left.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::thread::available_parallelism;
use std::time::Duration;

use dwk_base::{Clock, Error, Result, Seams, codes};

use super::layout::{HEADER_BYTES, Header};
use super::memory::Memory;
use super::participants;
use super::queue::SharedQueue;
use super::ring::{CAPACITY_BYTES_MAX, CAPACITY_BYTES_MIN, Cursor, Ring};
use super::system::{self, File, leftovers, unsupported};

/// The size of a queue for which none was given.
pub const CAPACITY_BYTES_DEFAULT: u64 = 1 << 20;

const NAME_BYTES_MAX: usize = 100;
/// Looks before a sleep where there is a second processor: some ten microseconds, less than a sleep and
/// its wake cost both sides.
const SPINS: usize = 400;

/// What a queue is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Size of the ring, from 64 bytes to 8 GiB; rounded up to a multiple of 8. All of it is taken at once.
    pub capacity_bytes: u64,
    /// 1 to 100 characters from a-z, A-Z, 0-9, `.`, `-` and `_`; a random one if there is none.
    pub name: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { capacity_bytes: CAPACITY_BYTES_DEFAULT, name: None }
    }
}

/// So often, and so long between, somebody else may be at a name that is wanted.
const LOOKS: u32 = 200;
const MOMENT: Duration = Duration::from_millis(1);

impl SharedQueue {
    /// Makes a queue. Its name lasts until this process leaves it or ends in good order; queues whose makers were
    /// killed, and which nobody uses, are swept first. The name of a closed queue is free.
    ///
    /// # Errors
    /// `queue.capacity` if the size is not within the limits or there is no room for it; `queue.name`,
    /// `queue.exists`, `queue.unsupported`.
    pub fn make(options: &Options, seams: &Seams) -> Result<Self> {
        let name = match &options.name {
            Some(name) => checked(name)?.to_owned(),
            None => format!("{:016x}", seams.random.next_u64()),
        };
        let ring = ring_of(options.capacity_bytes)?;
        let (me, namespace) = (system::this_process()?, system::namespace()?);
        sweep(namespace);
        let file = system::create((HEADER_BYTES + ring.bytes()) as u64)?;
        let memory = Memory::map(&file, ring.bytes())?;
        memory.header().fill(ring.bytes() as u64, namespace);
        let clock = Arc::clone(&seams.clock);
        let mut queue = Self::new(memory, ring, &name, file.identity(), clock);
        queue.maker = Some(me);
        queue.join(me)?;
        file.give_name(&name).or_else(|taken| {
            let is_over =
                |header: &Header| Cursor::from_word(header.tail.0.load(SeqCst)).is_closed();
            // Somebody who sweeps looks at each queue for a moment.
            let mut looks = LOOKS;
            while !remove(&name, is_over) && looks > 0 {
                looks -= 1;
                queue.clock.sleep(MOMENT);
            }
            file.give_name(&name).map_err(|_| taken)
        })?;
        Ok(queue)
    }

    /// Joins the queue of that name.
    ///
    /// # Errors
    /// `queue.not_found`, `queue.name`, `queue.damaged`; `queue.capacity` if too many processes use
    /// it; `queue.unsupported`.
    pub fn attach(name: &str, clock: Arc<dyn Clock>) -> Result<Self> {
        let (me, namespace) = (system::this_process()?, system::namespace()?);
        let file = system::open(checked(name)?)?;
        let damaged = || {
            let message = format!("the shared memory of queue {name:?} holds no queue");
            Error::new(&codes::QUEUE_DAMAGED, message).with("name", name)
        };
        let ring_bytes = file.bytes.checked_sub(HEADER_BYTES as u64).ok_or_else(damaged)?;
        let ring = Ring::new(ring_bytes).ok_or_else(damaged)?;
        if ring.bytes() as u64 != ring_bytes {
            return Err(damaged());
        }
        let memory = Memory::map(&file, ring.bytes())?;
        let header = memory.header();
        if !header.is_ours() || header.capacity_bytes() != ring_bytes {
            return Err(damaged());
        }
        if header.constants.0.namespace.load(Relaxed) != namespace {
            return Err(unsupported(format!("queue {name:?} was made in another PID namespace")));
        }
        let queue = Self::new(memory, ring, name, file.identity(), clock);
        queue.join(me)?;
        // Joined a moment too late, it would be a queue that nobody else can find.
        if !file.has_name(name) {
            let message = format!("queue {name:?} has just gone");
            return Err(Error::new(&codes::QUEUE_NOT_FOUND, message).with("name", name));
        }
        Ok(queue)
    }

    fn new(
        memory: Memory,
        ring: Ring,
        name: &str,
        file: (u64, u64),
        clock: Arc<dyn Clock>,
    ) -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self {
            memory,
            ring,
            name: name.to_owned(),
            file,
            maker: None,
            clock,
            spins: if processors > 1 { SPINS } else { 0 },
            member: AtomicU64::new(0),
            slot: AtomicUsize::new(0),
            left: AtomicBool::new(false),
        }
    }
}

fn checked(name: &str) -> Result<&str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(name);
    }
    Err(Error::new(&codes::QUEUE_NAME, format!("not a queue's name: {name:?}")))
}

fn ring_of(capacity_bytes: u64) -> Result<Ring> {
    Ring::new(capacity_bytes).ok_or_else(|| {
        let message = format!(
            "a queue of {capacity_bytes} bytes; the limits are {CAPACITY_BYTES_MIN} and \
             {CAPACITY_BYTES_MAX}"
        );
        Error::new(&codes::QUEUE_CAPACITY, message)
    })
}

/// Removes the names of queues that no living process uses; a maker uses its queue until it takes the name along.
fn sweep(namespace: u64) {
    for name in leftovers() {
        let _ = remove(&name, |header| {
            let is_near = header.constants.0.namespace.load(Relaxed) == namespace;
            is_near && !participants::is_used(header)
        });
    }
}

/// Removes a name if it is that of a queue, and one that `is_over`; false if somebody else is just at it.
fn remove(name: &str, is_over: impl FnOnce(&Header) -> bool) -> bool {
    let Ok(file) = system::open(name) else { return true };
    // Of two that find the same queue over at once, one must not remove the name of the next.
    if file.bytes < HEADER_BYTES as u64 {
        return true;
    }
    if !file.lock_now() {
        return false;
    }
    if let Ok(memory) = Memory::map(&file, 0)
        && memory.header().is_ours()
        && is_over(memory.header())
    {
        File::unlink(name, file.identity());
    }
    true
}
