//! Who gets a subject: a trie of patterns, and a memory of what it said about the last subjects.
//!
//! Programs publish on few subjects again and again, so almost every look-up ends in the memory: one slot,
//! whose lock is held while an `Arc` is cloned. What it knows counts as long as nobody came or went.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use crate::sync::{exclusive, guard, shared};
use crate::trie::Trie;
use crate::{Pattern, Subject};

/// Members by pattern, and for each subject a `Route` that is made of those that match.
#[derive(Debug)]
pub(crate) struct Routes<T, Route> {
    trie: RwLock<Trie<T>>,
    /// Raised, under the trie's lock, with each change.
    version: AtomicU64,
    /// Direct-mapped: a subject has one slot, and takes it over from another.
    slots: Box<[Mutex<Option<Known<Route>>>]>,
}

/// What the trie said.
#[derive(Debug)]
struct Known<Route> {
    subject: Subject,
    version: u64,
    route: Arc<Route>,
}

impl<T: Clone, Route> Routes<T, Route> {
    /// Nobody; `slots` subjects are remembered, rounded up to a power of two.
    pub(crate) fn new(slots: usize) -> Self {
        let slots = slots.clamp(1, 1 << 20).next_power_of_two();
        Self {
            trie: RwLock::default(),
            version: AtomicU64::new(0),
            slots: (0..slots).map(|_| Mutex::new(None)).collect(),
        }
    }

    /// Adds a member: every look-up that begins after this finds it.
    pub(crate) fn insert(&self, pattern: &Pattern, member: T) {
        let mut trie = exclusive(&self.trie);
        trie.insert(pattern, member);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Takes a member out: no look-up that begins after this finds it.
    pub(crate) fn remove(&self, pattern: &Pattern, is: impl Fn(&T) -> bool) -> Option<T> {
        let mut trie = exclusive(&self.trie);
        let removed = trie.remove(pattern, is)?;
        self.version.fetch_add(1, Ordering::Release);
        drop(trie);
        self.forget();
        Some(removed)
    }

    /// The route of `subject`; `make` makes it of the members whose patterns match, if it is not known.
    pub(crate) fn find(&self, subject: &Subject, make: impl FnOnce(Vec<T>) -> Route) -> Arc<Route> {
        let slot = &self.slots[spread(subject.as_str()) as usize & (self.slots.len() - 1)];
        let version = self.version.load(Ordering::Acquire);
        if let Some(known) = &*guard(slot)
            && known.version == version
            && known.subject == *subject
        {
            return Arc::clone(&known.route);
        }
        let (version, members) = self.ask(subject);
        let route = Arc::new(make(members));
        let known = Known { subject: subject.clone(), version, route: Arc::clone(&route) };
        // What was there is dropped outside the lock.
        drop(guard(slot).replace(known));
        // Who left since may have swept the slot before it was filled.
        if self.version.load(Ordering::Acquire) != version {
            drop(guard(slot).take());
        }
        route
    }

    fn ask(&self, subject: &Subject) -> (u64, Vec<T>) {
        let trie = shared(&self.trie);
        let mut members = Vec::new();
        trie.matching(subject, &mut |member| members.push(member.clone()));
        (self.version.load(Ordering::Acquire), members)
    }

    /// Lets go of what is known, so that it keeps nobody alive who is gone.
    fn forget(&self) {
        for slot in &self.slots {
            drop(guard(slot).take());
        }
    }
}

/// Spreads subjects over slots. Whoever finds two for the same slot only makes them slower for himself.
fn spread(text: &str) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut sum = text.len() as u64;
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    for word in words {
        sum = (sum.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(ODD);
    }
    for byte in rest {
        sum = (sum.rotate_left(9) ^ u64::from(*byte)).wrapping_mul(ODD);
    }
    sum ^ (sum >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn subject(text: &str) -> Subject {
        Subject::new(text).unwrap()
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).unwrap()
    }

    #[test]
    fn a_subject_is_looked_up_once_while_nobody_comes_or_goes() {
        let (routes, made) = (Routes::new(16), AtomicUsize::new(0));
        let find = |text| {
            let make = |members: Vec<i32>| {
                made.fetch_add(1, Ordering::Relaxed);
                members
            };
            routes.find(&subject(text), make).to_vec()
        };
        routes.insert(&pattern("a.*"), 1);
        for _ in 0..5 {
            assert_eq!(find("a.b"), [1]);
        }
        assert_eq!(made.load(Ordering::Relaxed), 1);
        routes.insert(&pattern("a.b"), 2);
        assert_eq!(find("a.b").len(), 2);
        assert_eq!(routes.remove(&pattern("a.*"), |&member| member == 1), Some(1));
        assert_eq!(find("a.b"), [2]);
        assert_eq!(made.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn similar_subjects_are_spread_over_the_slots() {
        let slot = |n: usize| spread(&format!("sensors.{n}.temp")) & 0xff;
        let taken: std::collections::HashSet<u64> = (0..256).map(slot).collect();
        assert!(taken.len() > 140, "{} of 256, chance would take 162", taken.len());
    }

    #[test]
    fn two_subjects_in_one_slot_do_not_mix() {
        let routes = Routes::new(1);
        routes.insert(&pattern("a"), 1);
        routes.insert(&pattern("b"), 2);
        for _ in 0..3 {
            assert_eq!(*routes.find(&subject("a"), |members| members), [1]);
            assert_eq!(*routes.find(&subject("b"), |members| members), [2]);
        }
    }

    #[test]
    fn who_left_is_not_kept_alive_by_what_is_known() {
        let (routes, member) = (Routes::new(4), Arc::new(()));
        routes.insert(&pattern(">"), Arc::clone(&member));
        drop(routes.find(&subject("a"), |members| members));
        drop(routes.remove(&pattern(">"), |_| true));
        assert_eq!(Arc::strong_count(&member), 1);
    }

    #[test]
    fn who_came_before_a_look_up_is_found_by_it_whatever_others_do() {
        let routes = Routes::new(2);
        let names: Vec<String> = (0..4).map(|n| format!("s.{n}")).collect();
        std::thread::scope(|scope| {
            for (member, name) in names.iter().enumerate() {
                let routes = &routes;
                scope.spawn(move || {
                    for _ in 0..2000 {
                        routes.insert(&pattern(name), member);
                        let found = routes.find(&subject(name), |members| members);
                        assert_eq!(*found, [member]);
                        routes.remove(&pattern(name), |&known| known == member);
                        assert!(routes.find(&subject(name), |members| members).is_empty());
                    }
                });
            }
        });
    }
}
