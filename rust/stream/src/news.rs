//! Who reads at the end of a stream is woken when something is committed.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};

use dwk_base::Deadline;

use crate::sync::{guard, wait};

/// How far the stream goes, and who wants to know.
#[derive(Default)]
pub(crate) struct News {
    state: Mutex<State>,
    rang: Condvar,
}

#[derive(Default)]
struct State {
    /// The number after the last message.
    next: u64,
    /// How often consumers were told to look again.
    nudges: u64,
    ended: bool,
    wakers: HashMap<u64, Waker>,
    watches: u64,
}

impl News {
    /// Tells everybody that messages up to the number before `next` are there.
    pub(crate) fn ring(&self, next: u64) {
        self.tell(|state| state.next = state.next.max(next));
    }

    /// Tells consumers that what they have is to be looked at again, though nothing was committed.
    pub(crate) fn nudge(&self) {
        self.tell(|state| state.nudges += 1);
    }

    /// Tells everybody that nothing will come any more.
    pub(crate) fn end(&self) {
        self.tell(|state| state.ended = true);
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        let mut state = guard(&self.state);
        change(&mut state);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.rang.notify_all();
        wakers.into_values().for_each(Waker::wake);
    }
}

/// Tells when there is something new. It begins with what was committed when it was made.
pub struct Watch {
    news: Arc<News>,
    id: u64,
    seen: u64,
    nudged: u64,
}

impl Watch {
    pub(crate) fn new(news: Arc<News>) -> Self {
        let mut state = guard(&news.state);
        state.watches += 1;
        let (id, seen, nudged) = (state.watches, state.next, state.nudges);
        drop(state);
        Self { news, id, seen, nudged }
    }

    /// Waits until something was committed since the last call (or since the watch was made), and says so; or
    /// until the stream ends, which a read tells then. False at the deadline.
    pub fn wait(&mut self, deadline: &Deadline) -> bool {
        let mut state = guard(&self.news.state);
        while state.next <= self.seen && !state.ended {
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                return false;
            }
            state = wait(&self.news.rang, state, remaining);
        }
        self.seen = state.next;
        true
    }

    /// [`wait`](Self::wait), which a [`nudge`](News::nudge) ends, too.
    pub(crate) fn wait_or_nudge(&mut self, deadline: &Deadline) {
        let mut state = guard(&self.news.state);
        while state.next <= self.seen && state.nudges == self.nudged && !state.ended {
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                return;
            }
            state = wait(&self.news.rang, state, remaining);
        }
        (self.seen, self.nudged) = (state.next, state.nudges);
    }

    /// [`wait`](Self::wait) for tasks: ready when something was committed since the last time.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = guard(&self.news.state);
        if state.next > self.seen || state.ended {
            self.seen = state.next;
            return Poll::Ready(());
        }
        state.wakers.insert(self.id, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        guard(&self.news.state).wakers.remove(&self.id);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("seen", &self.seen).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    use dwk_base::SystemClock;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_task_is_woken_once_for_what_comes_and_not_when_it_is_gone() {
        let news = Arc::new(News::default());
        let (count, mut watch) = (Arc::new(Count::default()), Watch::new(Arc::clone(&news)));
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        assert!(watch.poll(&mut context).is_pending());
        news.ring(2);
        news.ring(3);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(watch.poll(&mut context).is_ready() && watch.poll(&mut context).is_pending());
        drop(watch);
        news.ring(4);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_wait_ends_with_news_with_the_stream_or_at_the_deadline() {
        let news = Arc::new(News::default());
        let mut watch = Watch::new(Arc::clone(&news));
        let soon = || Deadline::after(Arc::new(SystemClock::default()), Duration::from_millis(20));
        assert!(!watch.wait(&soon()));
        let ring = {
            let news = Arc::clone(&news);
            std::thread::spawn(move || news.ring(2))
        };
        assert!(watch.wait(&Deadline::never()));
        ring.join().unwrap();
        assert!(!watch.wait(&soon()));
        news.end();
        assert!(watch.wait(&Deadline::never()));
    }
}
