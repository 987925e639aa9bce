//! How much room a drive has: what it said last, and what came and went since.
//!
//! A drive's answer does not say which moment it speaks of: what lands or goes while it is on its way may be in
//! it or not. What had landed before it was asked is in it, and what began to go after it came is not. So
//!
//! ```text
//! free = answer - (claimed - landed before it was asked) + (gone - going before it came)
//! ```
//!
//! is never more than there is, as long as nobody else writes to the drive, and exact once it was asked while
//! nothing landed or went. Whoever writes or deletes touches an atomic number or two and waits for nobody.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dwk_base::Result;

use crate::{Capacity, Drive};

/// The room of one drive.
#[derive(Default)]
pub struct Room {
    /// The last answer, plus what had landed before it was asked, less what was going before it came.
    known: AtomicI64,
    /// Bytes that were claimed, less those of claims that came to nothing and those that are gone.
    taken: AtomicI64,
    /// Bytes of claims that landed.
    landed: AtomicI64,
    /// Bytes of which the deletion began and did not fail.
    going: AtomicI64,
    looks: Mutex<Looks>,
    came: Condvar,
}

/// The drive is looked at again and again, as long as somebody asked since the last look began.
#[derive(Default)]
struct Looks {
    /// The number of the last look that somebody waits for.
    asked: u64,
    begun: u64,
    ended: u64,
    /// Somebody gave up the look that has not ended.
    is_late: bool,
    /// What the last look found, if it did not fail.
    answer: Option<Capacity>,
    /// What the last look found that did not fail.
    said: Option<Capacity>,
}

fn signed(bytes: u64) -> i64 {
    // A drive may say what it likes: the sum of two still fits.
    i64::try_from(bytes).unwrap_or(i64::MAX).min(1 << 61)
}

impl Room {
    /// Bytes that are known to be free, beside everything that is on its way; 0 as long as the drive never said.
    pub fn free_bytes(&self) -> u64 {
        self.known.load(SeqCst).saturating_sub(self.taken.load(SeqCst)).max(0).unsigned_abs()
    }

    /// What the drive said last.
    pub fn said(&self) -> Option<Capacity> {
        self.looks().said
    }

    /// Takes `bytes` for something that is to be written, whether there is room or not.
    pub fn claim(self: &Arc<Self>, bytes: u64) -> Claim {
        let bytes = signed(bytes);
        self.taken.fetch_add(bytes, SeqCst);
        Claim { room: Arc::clone(self), bytes, has_landed: false }
    }

    /// Takes `bytes` if `reserve_bytes` are free beside them.
    pub fn try_claim(self: &Arc<Self>, bytes: u64, reserve_bytes: u64) -> Option<Claim> {
        let (bytes, reserve) = (signed(bytes), signed(reserve_bytes));
        let fits = |taken: i64| {
            let left = self.known.load(SeqCst).saturating_sub(taken);
            (left >= bytes + reserve).then_some(taken + bytes)
        };
        self.taken.fetch_update(SeqCst, SeqCst, fits).ok()?;
        Some(Claim { room: Arc::clone(self), bytes, has_landed: false })
    }

    /// Gives back `bytes`, if `delete` succeeds in deleting them.
    ///
    /// # Errors
    /// Those of `delete`.
    pub fn delete(&self, bytes: u64, delete: impl FnOnce() -> Result<()>) -> Result<()> {
        self.delete_signed(signed(bytes), delete)
    }

    fn delete_signed(&self, bytes: i64, delete: impl FnOnce() -> Result<()>) -> Result<()> {
        self.going.fetch_add(bytes, SeqCst);
        let deleted = delete();
        let undo = if deleted.is_ok() { &self.taken } else { &self.going };
        undo.fetch_sub(bytes, SeqCst);
        deleted
    }

    /// A question that the next look answers, and whether somebody has to look; `None` while the drive owes an
    /// answer that somebody gave up.
    pub(crate) fn ask(self: &Arc<Self>) -> Option<(Question, bool)> {
        let mut looks = self.looks();
        if looks.is_late {
            return None;
        }
        let is_idle = looks.asked <= looks.ended;
        looks.asked = looks.begun + 1;
        Some((Question { room: Arc::clone(self), look: looks.asked }, is_idle))
    }

    /// Looks until every question is answered.
    pub(crate) fn look(&self, drive: &dyn Drive) {
        loop {
            self.looks().begun += 1;
            let landed = self.landed.load(SeqCst);
            let answer = drive.capacity().ok();
            if let Some(capacity) = answer {
                let free = signed(capacity.free_bytes);
                self.known.store(free + landed - self.going.load(SeqCst), SeqCst);
            }
            let mut looks = self.looks();
            looks.ended = looks.begun;
            looks.is_late = false;
            looks.answer = answer;
            looks.said = answer.or(looks.said);
            self.came.notify_all();
            if looks.asked <= looks.ended {
                return;
            }
        }
    }

    /// Nobody looks: what was asked has no answer, and the next question begins anew.
    pub(crate) fn unseen(&self) {
        let mut looks = self.looks();
        looks.begun = looks.asked;
        looks.ended = looks.asked;
        looks.answer = None;
        self.came.notify_all();
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room that is taken for something that is on its way to a drive. Dropping it gives the room back, unless what
/// it was taken for landed.
pub struct Claim {
    room: Arc<Room>,
    bytes: i64,
    has_landed: bool,
}

impl Claim {
    /// True if it is room of the drive with this one.
    pub fn is_of(&self, room: &Arc<Room>) -> bool {
        Arc::ptr_eq(&self.room, room)
    }

    /// What it was taken for is on the drive, and in whatever the drive says from now on.
    pub fn land(&mut self) {
        if !std::mem::replace(&mut self.has_landed, true) {
            self.room.landed.fetch_add(self.bytes, SeqCst);
        }
    }

    /// Gives the room back, if `delete` succeeds in deleting what landed.
    ///
    /// # Errors
    /// Those of `delete`.
    pub fn delete(&mut self, delete: impl FnOnce() -> Result<()>) -> Result<()> {
        self.land();
        self.room.delete_signed(self.bytes, delete)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.has_landed {
            self.room.taken.fetch_sub(self.bytes, SeqCst);
        }
    }
}

/// A question how much room there is.
#[derive(Debug)]
pub struct Question {
    room: Arc<Room>,
    look: u64,
}

impl Question {
    /// What the drive says, found after it was asked; `None` if it fails, or takes longer than `limit`. An answer
    /// that comes later still counts.
    pub fn wait_for(&self, limit: Duration) -> Option<Capacity> {
        let owed = |looks: &mut Looks| looks.ended < self.look;
        let wait = self.room.came.wait_timeout_while(self.room.looks(), limit, owed);
        let (mut looks, time) = wait.unwrap_or_else(PoisonError::into_inner);
        if time.timed_out() {
            looks.is_late = true;
            return None;
        }
        looks.answer
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("free_bytes", &self.free_bytes()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claim").field(&self.bytes).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use bytes::Bytes;
    use dwk_base::{Random, SeededRandom};

    use super::*;
    use crate::faulty::{Effect, Fault, Operation};
    use crate::{Attached, BlobName, FaultyDrive, MemoryDrive, Power};

    const CAPACITY: u64 = 1 << 20;
    const SOON: Duration = Duration::from_mins(1);

    fn drive() -> (MemoryDrive, Arc<Room>) {
        let (drive, room) = (MemoryDrive::with_capacity("d", CAPACITY), Arc::<Room>::default());
        room.look(&drive);
        (drive, room)
    }

    fn put(drive: &MemoryDrive, name: &str, bytes: usize) {
        drive.put(&BlobName::new(name).unwrap(), &[Bytes::from(vec![0; bytes])]).unwrap();
    }

    fn delete(drive: &MemoryDrive, name: &str) -> Result<()> {
        drive.delete(&BlobName::new(name).unwrap())
    }

    fn free(drive: &MemoryDrive) -> u64 {
        drive.capacity().unwrap().free_bytes
    }

    fn check(drive: &MemoryDrive, room: &Room) {
        assert!(room.free_bytes() <= free(drive), "more than there is");
        room.look(drive);
        assert_eq!(room.free_bytes(), free(drive), "asked while nothing happens");
    }

    #[test]
    fn an_answer_that_has_a_write_already_or_not_yet_is_never_too_much() {
        for looks in 0..8 {
            let (drive, room) = drive();
            let look = |moment: u8| (looks & 1 << moment != 0).then(|| room.look(&drive));
            let mut claim = room.claim(1000);
            look(0);
            assert_eq!(room.free_bytes(), CAPACITY - 1000, "it is on its way");
            put(&drive, "a", 1000);
            look(1);
            claim.land();
            look(2);
            check(&drive, &room);
        }
    }

    #[test]
    fn an_answer_that_has_a_deletion_already_or_not_yet_is_never_too_much() {
        for looks in 0..8 {
            let (drive, room) = drive();
            let look = |moment: u8| (looks & 1 << moment != 0).then(|| room.look(&drive));
            put(&drive, "a", 1000);
            room.claim(1000).land();
            let deleting = || {
                look(0);
                delete(&drive, "a")?;
                look(1);
                Ok(())
            };
            room.delete(1000, deleting).unwrap();
            look(2);
            check(&drive, &room);
            room.delete(1000, || delete(&drive, "a")).unwrap_err();
            check(&drive, &room);
        }
    }

    #[test]
    fn what_comes_to_nothing_takes_nothing_and_what_does_not_fit_is_not_claimed() {
        let (drive, room) = drive();
        drop(room.claim(1000));
        assert_eq!(room.free_bytes(), CAPACITY);
        let most = room.try_claim(CAPACITY - 100, 100).unwrap();
        assert!(room.try_claim(1, 100).is_none());
        assert!(room.try_claim(u64::MAX, u64::MAX).is_none());
        let rest = room.try_claim(100, 0).unwrap();
        assert!(room.try_claim(1, 0).is_none());
        drop((most, rest));
        assert_eq!(room.free_bytes(), CAPACITY);
        assert_eq!(Arc::<Room>::default().free_bytes(), 0, "a drive that never said");
        check(&drive, &room);
    }

    #[test]
    fn threads_that_write_and_delete_while_the_drive_is_asked_leave_the_count_right() {
        let (drive, room) = drive();
        for round in 0..50 {
            let work = |me: u64| {
                let random = SeededRandom::new(round * 8 + me);
                for n in 0..40 {
                    let (name, bytes) = (format!("{me}-{n}"), 1 + random.below(5000));
                    let Some(mut claim) = room.try_claim(bytes, 0) else { continue };
                    if random.below(4) > 0 {
                        put(&drive, &name, bytes as usize);
                        claim.land();
                        claim.delete(|| delete(&drive, &name)).unwrap();
                    }
                }
            };
            thread::scope(|scope| {
                (0..3).for_each(|me| drop(scope.spawn(move || work(me))));
                (0..20).for_each(|_| room.look(&drive));
            });
            check(&drive, &room);
        }
    }

    #[test]
    fn an_answer_was_found_after_it_was_asked_for() {
        let memory = MemoryDrive::with_capacity("d", CAPACITY);
        let faulty = FaultyDrive::new(Arc::new(memory.clone()), &Power::new(), 1);
        faulty.inject(Fault::new(Effect::Withhold).on(Operation::Capacity).times(1));
        let attached = Attached::new(Arc::new(faulty.clone()));
        let first = attached.ask_room().unwrap();
        while faulty.held_calls() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        memory.set_capacity(2 * CAPACITY);
        let later = [attached.ask_room().unwrap(), attached.ask_room().unwrap()];
        faulty.release();
        assert!(first.wait_for(SOON).unwrap().total_bytes >= CAPACITY);
        for question in later {
            assert_eq!(question.wait_for(SOON).unwrap().total_bytes, 2 * CAPACITY);
        }
        assert_eq!(attached.room().free_bytes(), 2 * CAPACITY);
    }

    #[test]
    fn a_question_that_nobody_can_look_after_is_unanswered_and_the_next_is_asked_anew() {
        let (drive, room) = drive();
        let (question, is_first) = room.ask().unwrap();
        assert!(is_first);
        room.unseen();
        assert!(question.wait_for(SOON).is_none());
        let (question, is_first) = room.ask().unwrap();
        assert!(is_first, "nobody looks, and nobody is told to");
        room.look(&drive);
        assert!(question.wait_for(SOON).is_some());
    }

    #[test]
    fn a_drive_that_fails_to_say_has_the_room_that_it_had() {
        let memory = MemoryDrive::with_capacity("d", CAPACITY);
        let faulty = FaultyDrive::new(Arc::new(memory), &Power::new(), 1);
        let attached = Attached::new(Arc::new(faulty.clone()));
        attached.ask_room().unwrap().wait_for(SOON).unwrap();
        faulty.set_vanished(true);
        assert!(attached.ask_room().unwrap().wait_for(SOON).is_none());
        assert_eq!(attached.room().free_bytes(), CAPACITY);
        assert_eq!(attached.room().said().unwrap().total_bytes, CAPACITY);
    }
}
