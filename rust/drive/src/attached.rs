//! A drive with threads of its own: work is handed over and waited for, or given up.
//!
//! Two lanes, so that a commit never queues behind a large shard: one for blobs, one for the log. A third one
//! asks how much room there is: a drive that never says may still do everything else. Threads start with the
//! first job and end when the [`Attached`] drive is dropped.

use std::fmt;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use dwk_base::{Deadline, Error, Result, codes};

use crate::Drive;
use crate::bell::{Bell, Ringer};
use crate::room::{Question, Room};

type Job = Box<dyn FnOnce(&dyn Drive) + Send>;

/// Patience is counted in so many parts, each of them once however long it took: while the whole process stands
/// still, stopped by a terminal or a debugger, its drives cannot answer, and that is not their fault.
pub const PARTS_OF_PATIENCE: u32 = 8;

/// A shared drive with its lanes.
pub struct Attached {
    drive: Arc<dyn Drive>,
    blobs: Lane,
    log: Lane,
    asking: Lane,
    room: Arc<Room>,
}

impl Attached {
    /// Takes a drive into service. No thread starts yet.
    pub fn new(drive: Arc<dyn Drive>) -> Arc<Self> {
        Arc::new(Self {
            drive,
            blobs: Lane::new("blobs"),
            log: Lane::new("log"),
            asking: Lane::new("room"),
            room: Arc::default(),
        })
    }

    /// The drive itself, for calls on the caller's own thread.
    pub fn drive(&self) -> &dyn Drive {
        &*self.drive
    }

    /// The drive, shared.
    pub fn share(&self) -> Arc<dyn Drive> {
        Arc::clone(&self.drive)
    }

    /// Runs `job` on the drive's thread for blobs, in the order of submission.
    pub fn submit<T, F>(&self, job: F) -> Ticket<T>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Drive) -> Result<T> + Send + 'static,
    {
        self.blobs.submit(&self.drive, job, None)
    }

    /// As [`submit`](Self::submit); the bell rings when there is an answer to take, or never will be.
    pub fn submit_ringing<T, F>(&self, bell: &Arc<Bell>, job: F) -> Ticket<T>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Drive) -> Result<T> + Send + 'static,
    {
        self.blobs.submit(&self.drive, job, Some(Arc::clone(bell)))
    }

    /// Runs `job` on the drive's thread for its log, in the order of submission.
    pub fn submit_log<T, F>(&self, job: F) -> Ticket<T>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Drive) -> Result<T> + Send + 'static,
    {
        self.log.submit(&self.drive, job, None)
    }

    /// Has the drive let go of what it keeps open, after the jobs before it ([`Drive::close`]).
    pub fn close(&self) -> Ticket<()> {
        self.submit(|drive| {
            drive.close();
            Ok(())
        })
    }

    /// How much room it has.
    pub const fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Asks how much room there is, which [`room`](Self::room) counts from then on; `None` while the drive owes
    /// an answer that somebody gave up.
    pub fn ask_room(&self) -> Option<Question> {
        let (question, is_first) = self.room.ask()?;
        if is_first {
            let room = Arc::clone(&self.room);
            let look = move |drive: &dyn Drive| {
                room.look(drive);
                Ok(())
            };
            let looking = self.asking.submit(&self.drive, look, None);
            if matches!(looking.wait_for(Duration::ZERO), Some(Err(_))) {
                self.room.unseen();
            }
        }
        Some(question)
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Attached").field(&self.drive.describe().location).finish()
    }
}

/// What a wait for a result ended with.
#[derive(Debug)]
pub enum Answer<T> {
    /// The result.
    Came(Result<T>),
    /// Nothing: the drive took longer than it may.
    Late,
    /// Nothing: the waiter's own time is over, which says nothing about the drive.
    TimeOver,
}

/// A result that is on its way.
#[derive(Debug)]
pub struct Ticket<T>(Receiver<Result<T>>);

impl<T> Ticket<T> {
    /// Waits for the result, however long it takes.
    pub fn wait(self) -> Result<T> {
        self.0.recv().unwrap_or_else(|_| Err(lane_ended()))
    }

    /// The result, if it has come.
    pub fn try_take(&self) -> Option<Result<T>> {
        match self.0.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Disconnected) => Some(Err(lane_ended())),
            Err(TryRecvError::Empty) => None,
        }
    }

    /// Waits at most `limit`, not counting time in which the process stood still; `None` if the drive is late.
    /// The job itself goes on.
    pub fn wait_for(&self, limit: Duration) -> Option<Result<T>> {
        match self.wait_until(limit, &Deadline::never()) {
            Answer::Came(result) => Some(result),
            Answer::Late | Answer::TimeOver => None,
        }
    }

    /// Waits at most `limit`, as long as the drive may take, and no longer than to the deadline.
    pub fn wait_until(&self, limit: Duration, deadline: &Deadline) -> Answer<T> {
        self.wait_in(PARTS_OF_PATIENCE, limit, deadline)
    }

    /// As [`wait_until`](Self::wait_until), counting time in which the process stood still: for who blames nobody.
    pub fn wait_briefly(&self, limit: Duration, deadline: &Deadline) -> Answer<T> {
        self.wait_in(1, limit, deadline)
    }

    fn wait_in(&self, mut parts: u32, limit: Duration, deadline: &Deadline) -> Answer<T> {
        let part = limit / parts;
        let mut of_part = part;
        while parts > 0 {
            let left = deadline.remaining();
            let nap = of_part.min(deadline.nap());
            match self.0.recv_timeout(nap.min(left)) {
                Ok(result) => return Answer::Came(result),
                Err(RecvTimeoutError::Disconnected) => return Answer::Came(Err(lane_ended())),
                Err(RecvTimeoutError::Timeout) if left < nap => return Answer::TimeOver,
                Err(RecvTimeoutError::Timeout) => of_part -= nap,
            }
            if of_part.is_zero() {
                (parts, of_part) = (parts - 1, part);
            }
        }
        Answer::Late
    }
}

fn lane_ended() -> Error {
    Error::new(&codes::DRIVE_FAILED, "the drive's thread ended before the answer")
}

/// Where an answer goes. The bell rings after it is there, or after nobody can give it any more.
struct Reply<T> {
    sender: Sender<Result<T>>,
    _ringer: Ringer,
}

struct Lane {
    name: &'static str,
    jobs: Mutex<Option<Sender<Job>>>,
}

impl Lane {
    const fn new(name: &'static str) -> Self {
        Self { name, jobs: Mutex::new(None) }
    }

    fn submit<T, F>(&self, drive: &Arc<dyn Drive>, job: F, bell: Option<Arc<Bell>>) -> Ticket<T>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Drive) -> Result<T> + Send + 'static,
    {
        let (reply, ticket) = mpsc::channel();
        let reply = Reply { sender: reply, _ringer: Ringer(bell) };
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = match jobs.as_ref() {
            Some(sender) => sender,
            None => match self.start(drive) {
                Ok(sender) => jobs.insert(sender),
                Err(error) => {
                    let text = format!("no thread can be started for a drive: {error}");
                    let error = Error::new(&codes::PROCESS_EXHAUSTED, text).caused_by(error);
                    let _ = reply.sender.send(Err(error));
                    return Ticket(ticket);
                }
            },
        };
        let job: Job = Box::new(move |drive| {
            let reply = reply;
            // The waiter may have given up; then nobody wants the answer.
            let _ = reply.sender.send(job(drive));
        });
        // A lane whose thread died drops the job and with it the reply: the wait says so.
        let _ = sender.send(job);
        Ticket(ticket)
    }

    fn start(&self, drive: &Arc<dyn Drive>) -> std::io::Result<Sender<Job>> {
        let (sender, receiver) = mpsc::channel::<Job>();
        let drive = Arc::clone(drive);
        thread::Builder::new().name(format!("dwk-{}", self.name)).spawn(move || {
            for job in receiver {
                job(&*drive);
            }
        })?;
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use dwk_base::{SystemClock, Waiter};

    use super::*;
    use crate::faulty::{Effect, Fault, Operation};
    use crate::{BlobName, FaultyDrive, MemoryDrive, Power};

    fn hanging() -> (FaultyDrive, Arc<Attached>, Ticket<()>) {
        let drive = FaultyDrive::new(Arc::new(MemoryDrive::new("d")), &Power::new(), 1);
        drive.inject(Fault::new(Effect::Hang).on(Operation::Sync));
        let attached = Attached::new(Arc::new(drive.clone()));
        let stuck = attached.submit(|drive| drive.sync("test"));
        (drive, attached, stuck)
    }

    #[test]
    fn a_drive_that_hangs_is_given_up_and_its_job_goes_on() {
        let (drive, _attached, stuck) = hanging();
        assert!(stuck.wait_for(Duration::from_millis(10)).is_none());
        drive.release();
        assert!(stuck.wait().is_ok());
    }

    #[test]
    fn whose_time_is_over_does_not_call_the_drive_late() {
        let (drive, _attached, stuck) = hanging();
        let clock = Arc::new(SystemClock::default());
        let soon = Deadline::after(clock.clone(), Duration::from_millis(10));
        let limit = Duration::from_secs(20);
        assert!(matches!(stuck.wait_until(limit, &soon), Answer::TimeOver));
        let limit = Duration::from_millis(10);
        assert!(matches!(stuck.wait_until(limit, &Deadline::never()), Answer::Late));
        let waiter = Arc::new(Waiter::default());
        let wanted = Deadline::never().waited_for_by(Arc::clone(&waiter));
        assert!(matches!(stuck.wait_until(limit, &wanted), Answer::Late));
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            waiter.stop();
        });
        let limit = Duration::from_secs(20);
        assert!(matches!(stuck.wait_until(limit, &wanted), Answer::TimeOver));
        drive.release();
        let later = Deadline::after(clock, Duration::from_secs(20));
        assert!(matches!(stuck.wait_until(limit, &later), Answer::Came(Ok(()))));
    }

    #[test]
    fn the_bell_rings_when_there_is_an_answer_to_take_or_never_will_be() {
        let (drive, attached, _stuck) = hanging();
        let bell = Arc::new(Bell::default());
        let (tickets, rings) =
            ([(); 2].map(|()| attached.submit_ringing(&bell, |_| Ok(7))), bell.rings());
        assert!(!bell.wait_past(rings, Duration::from_millis(10)), "nothing came yet");
        drive.release();
        for (rings, ticket) in tickets.iter().enumerate() {
            assert!(bell.wait_past(rings as u64, Duration::from_secs(20)));
            assert_eq!(ticket.try_take().unwrap().unwrap(), 7);
        }
        let fallen =
            attached.submit_ringing(&bell, |_| -> Result<()> { panic!("a bug, on purpose") });
        assert!(bell.wait_past(2, Duration::from_secs(20)));
        assert!(fallen.try_take().unwrap().is_err());
    }

    #[test]
    fn the_log_does_not_wait_for_blobs() {
        let (drive, attached, stuck) = hanging();
        attached.submit_log(Drive::capacity).wait().unwrap();
        assert!(stuck.wait_for(Duration::ZERO).is_none());
        drive.release();
    }

    #[test]
    fn a_drive_that_does_not_say_its_room_is_asked_once_and_does_all_else() {
        let drive = FaultyDrive::new(Arc::new(MemoryDrive::new("d")), &Power::new(), 1);
        drive.inject(Fault::new(Effect::Hang).on(Operation::Capacity));
        let attached = Attached::new(Arc::new(drive.clone()));
        let asked = attached.ask_room().unwrap();
        assert!(asked.wait_for(Duration::from_millis(10)).is_none());
        assert!(attached.ask_room().is_none());
        attached.submit(|drive| drive.sync("test")).wait().unwrap();
        attached.submit_log(|drive| drive.sync("test")).wait().unwrap();
        drive.release();
        assert!(asked.wait_for(Duration::from_secs(20)).unwrap().total_bytes > 0);
        assert!(attached.ask_room().is_some());
    }

    #[test]
    fn jobs_of_a_lane_run_one_by_one_in_their_order() {
        let attached = Attached::new(Arc::new(MemoryDrive::new("d")));
        let order = Arc::new(Mutex::new(Vec::new()));
        let tickets = (0..100).map(|number| {
            let order = Arc::clone(&order);
            attached.submit(move |drive| {
                order.lock().unwrap().push(number);
                drive.put(&BlobName::new(format!("s/{number}"))?, &[])
            })
        });
        tickets.collect::<Vec<_>>().into_iter().for_each(|ticket| ticket.wait().unwrap());
        assert!(order.lock().unwrap().iter().copied().eq(0..100));
    }

    #[test]
    fn a_job_that_panics_is_an_error_for_all_who_wait() {
        let attached = Attached::new(Arc::new(MemoryDrive::new("d")));
        let fallen = attached.submit(|_| -> Result<()> { panic!("a bug, on purpose") });
        assert!(fallen.wait().unwrap_err().is(&codes::DRIVE_FAILED));
        let later = attached.submit(Drive::capacity);
        assert!(later.wait().unwrap_err().is(&codes::DRIVE_FAILED));
        assert!(attached.submit_log(Drive::capacity).wait().is_ok());
    }

    #[test]
    fn what_was_handed_over_is_done_even_if_nobody_waits() {
        let memory = MemoryDrive::new("d");
        let attached = Attached::new(Arc::new(memory.clone()));
        let done = Arc::new(AtomicUsize::new(0));
        for number in 0..50 {
            let done = Arc::clone(&done);
            drop(attached.submit(move |drive| {
                drive.put(&BlobName::new(format!("s/{number}"))?, &[])?;
                done.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }));
        }
        drop(attached);
        for _ in 0..500 {
            if done.load(Ordering::SeqCst) == 50 {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(memory.entries().len(), 50);
    }
}
