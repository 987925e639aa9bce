//! Handlers on threads: order by key, failures, hangs, draining. And groups.
#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]
mod common;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use common::{
    after_ms, bus, eventually, failure, message, named, now, number, numbered, numbers, pattern,
    soon, space,
};
use dwk_base::codes;
use dwk_bus::{Envelope, Event, Options, Policy, ServeOptions, Space, Subscription};

/// Handlers wait here until it is opened.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn pass(&self) {
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

type Seen = Arc<Mutex<Vec<(ThreadId, Option<String>, u32)>>>;

fn subscribe(space: &Space, about: &str, workers: usize) -> Subscription {
    let options = Options { workers, ..named(about, Policy::Block, 1000) };
    space.subscribe(pattern(about), options).unwrap()
}

/// Remembers who handled what.
fn note(seen: &Seen) -> impl Fn(&Envelope) -> dwk_base::Result<Option<bytes::Bytes>> + use<> {
    let seen = Arc::clone(seen);
    move |envelope| {
        if number(envelope.data()).is_multiple_of(5) {
            thread::yield_now();
        }
        let entry =
            (thread::current().id(), envelope.key().map(str::to_owned), number(envelope.data()));
        seen.lock().unwrap().push(entry);
        Ok(None)
    }
}

#[test]
fn messages_with_one_key_go_to_one_worker_in_order() {
    for batched in [false, true] {
        let (space, seen) = (space(), Seen::default());
        let subscription = subscribe(&space, "a", 4);
        let service = subscription.serve(note(&seen), &ServeOptions::default()).unwrap();
        let all = (0..4000).map(|n| numbered("a", n).keyed(format!("k{}", n % 13)));
        if batched {
            space.publish_many(all.collect(), &soon()).unwrap();
        } else {
            for message in all {
                space.publish(message, &soon()).unwrap();
            }
        }
        service.close(&soon()).unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 4000);
        let mut last: HashMap<&str, (ThreadId, u32)> = HashMap::new();
        for (thread, key, number) in &*seen {
            let known = last.insert(key.as_deref().unwrap(), (*thread, *number));
            if let Some((before, smaller)) = known {
                assert_eq!(before, *thread, "{key:?} changed its worker");
                assert!(smaller < *number, "{key:?}: {number} after {smaller}");
            }
        }
        assert_eq!(last.values().map(|(thread, _)| thread).collect::<HashSet<_>>().len(), 4);
    }
}

#[test]
fn a_message_without_a_key_goes_to_any_worker_that_is_free() {
    let (space, gate) = (space(), Arc::new(Gate::default()));
    let (held, done) = (Arc::clone(&gate), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&done);
    let handler = move |envelope: &Envelope| {
        if number(envelope.data()) == 0 {
            held.pass();
        }
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(None)
    };
    let service = subscribe(&space, "a", 2).serve(handler, &ServeOptions::default()).unwrap();
    for number in 0..100 {
        space.publish(numbered("a", number), &soon()).unwrap();
    }
    eventually("the other worker has handled the rest", || done.load(Ordering::SeqCst) == 99);
    gate.open();
    service.close(&soon()).unwrap();
    assert_eq!(done.load(Ordering::SeqCst), 100);
}

#[test]
fn workers_that_are_pulled_get_their_keys_and_share_the_rest() {
    let space = space();
    let subscription = subscribe(&space, "a", 3);
    for number in 0..300 {
        let message = numbered("a", number);
        let keyed = number % 2 == 0;
        let message = if keyed { message.keyed((number % 20).to_string()) } else { message };
        space.publish(message, &now()).unwrap();
    }
    let mut owners: HashMap<String, usize> = HashMap::new();
    let mut got = 0;
    for worker in (0..3).cycle().take(2000) {
        if let Some(delivery) = subscription.next_for(worker, &now()).unwrap() {
            got += 1;
            if let Some(key) = delivery.key() {
                assert_eq!(*owners.entry(key.to_owned()).or_insert(worker), worker);
            }
        }
    }
    assert_eq!((got, owners.len()), (300, 10));
    let error = subscription.next_for(3, &now()).unwrap_err();
    assert!(error.is(&codes::QUEUE_CAPACITY));
}

#[test]
fn a_handler_that_fails_or_panics_is_counted_and_goes_on_with_the_next() {
    let (space, told) = (space(), Arc::new(Mutex::new(vec![])));
    let list = Arc::clone(&told);
    let on_event = move |event: &Event| {
        let Event::Failed { envelope, error } = event else { panic!("{event:?}") };
        list.lock().unwrap().push((number(envelope.data()), error.to_string()));
        panic!("also the one who is told may fail");
    };
    let handler = |envelope: &Envelope| match number(envelope.data()) {
        1 => Err(failure("no")),
        2 => panic!("number {}", 2),
        _ => Ok(None),
    };
    let options = ServeOptions { on_event: Some(Arc::new(on_event)), ..ServeOptions::default() };
    let service = subscribe(&space, "a", 1).serve(handler, &options).unwrap();
    let other = subscribe(&space, "a", 1);
    for number in 0..5 {
        space.publish(numbered("a", number), &soon()).unwrap();
    }
    service.close(&soon()).unwrap();
    let stats = service.stats();
    assert_eq!((stats.delivered, stats.failed), (5, 2));
    let told = told.lock().unwrap();
    assert_eq!(told.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
    assert!(told[0].1.starts_with("no."), "{}", told[0].1);
    assert!(told[1].1.contains("the handler of a panicked: number 2"), "{}", told[1].1);
    assert_eq!(numbers(&other).len(), 5);
}

#[test]
fn a_handler_that_hangs_hurts_only_itself_and_is_reported() {
    let (bus, gate, told) = (bus(), Arc::new(Gate::default()), Arc::new(Mutex::new(vec![])));
    let space = bus.space("").unwrap();
    let (held, list) = (Arc::clone(&gate), Arc::clone(&told));
    let options = ServeOptions {
        time_limit: Some(Duration::from_millis(30)),
        on_event: Some(Arc::new(move |event| list.lock().unwrap().push(event.clone()))),
    };
    let hangs = subscribe(&space, "a", 1);
    let hangs = hangs
        .serve(
            move |_| {
                held.pass();
                Ok(None)
            },
            &options,
        )
        .unwrap();
    let quick = subscribe(&space, "*", 1).serve(|_| Ok(None), &ServeOptions::default()).unwrap();
    let outcome = space.publish_and_wait(message("a", "x"), &soon()).unwrap();
    assert_eq!(outcome.handled, 1);
    assert_eq!(&*outcome.failures[0].subscription, "a");
    assert!(outcome.failures[0].error.is(&codes::BUS_TIMEOUT));
    eventually("it is reported", || !told.lock().unwrap().is_empty());
    for number in 0..50 {
        space.publish(numbered("a", number), &now()).unwrap();
    }
    eventually("the other one has them", || quick.stats().delivered == 51);
    thread::sleep(Duration::from_millis(100));
    assert_eq!(hangs.stats().overdue, 1, "once for each message");
    let late = hangs.close(&after_ms(10)).unwrap_err();
    assert!(late.is(&codes::BUS_TIMEOUT), "{late}");
    let late = bus.close(&after_ms(10)).unwrap_err();
    assert!(late.is(&codes::BUS_TIMEOUT), "{late}");
    assert_eq!(late.detail("subscribers"), Some("a"));
    gate.open();
    hangs.close(&soon()).unwrap();
    assert_eq!(hangs.stats().depth, 0);
    assert!(matches!(&told.lock().unwrap()[0],
        Event::Overdue { elapsed, .. } if *elapsed >= Duration::from_millis(30)));
}

#[test]
fn a_handler_within_its_time_limit_is_not_reported() {
    let space = space();
    let options =
        ServeOptions { time_limit: Some(Duration::from_millis(400)), ..ServeOptions::default() };
    let handler = |_: &Envelope| {
        thread::sleep(Duration::from_millis(5));
        Ok(None)
    };
    let service = subscribe(&space, "a", 1).serve(handler, &options).unwrap();
    for number in 0..100 {
        space.publish(numbered("a", number), &soon()).unwrap();
    }
    service.close(&soon()).unwrap();
    assert_eq!((service.stats().overdue, service.stats().delivered), (0, 100));
}

#[test]
fn closing_drains_what_waits() {
    for how in ["close", "bus", "drop"] {
        let (bus, seen) = (bus(), Seen::default());
        let space = bus.space("").unwrap();
        let service =
            subscribe(&space, "a", 2).serve(note(&seen), &ServeOptions::default()).unwrap();
        for number in 0..500 {
            space.publish(numbered("a", number), &soon()).unwrap();
        }
        match how {
            "close" => service.close(&soon()).unwrap(),
            "bus" => bus.close(&soon()).unwrap(),
            _ => drop(service),
        }
        eventually("all are handled", || seen.lock().unwrap().len() == 500);
        assert!(how == "bus" || space.publish(numbered("a", 0), &now()).unwrap().matched == 0);
    }
}

#[test]
fn what_was_taken_ahead_is_handled_too() {
    let (space, seen) = (space(), Seen::default());
    let subscription = subscribe(&space, "a", 1);
    for number in 0..100 {
        space.publish(numbered("a", number), &now()).unwrap();
    }
    assert_eq!(number(subscription.next(&now()).unwrap().unwrap().data()), 0);
    let service = subscription.serve(note(&seen), &ServeOptions::default()).unwrap();
    service.close(&soon()).unwrap();
    let handled: Vec<u32> = seen.lock().unwrap().iter().map(|(_, _, number)| *number).collect();
    assert_eq!(handled, (1..100).collect::<Vec<_>>());
}

// --- Groups ----------------------------------------------------------------------------------------

fn join(space: &Space, about: &str, messages_max: usize) -> Subscription {
    let options =
        Options { group: Some("workers".into()), ..named(about, Policy::Block, messages_max) };
    space.subscribe(pattern(about), options).unwrap()
}

#[test]
fn one_of_a_group_gets_each_message_and_others_all() {
    let space = space();
    let group: Vec<_> = ["jobs.*", "jobs.>", "jobs.a"].map(|about| join(&space, about, 100)).into();
    let other = subscribe(&space, "jobs.a", 1);
    for number in 0..30 {
        assert_eq!(space.publish(numbered("jobs.a", number), &now()).unwrap().matched, 2);
    }
    space.publish_many((30..60).map(|n| numbered("jobs.a", n)).collect(), &now()).unwrap();
    let shares: Vec<Vec<u32>> = group.iter().map(numbers).collect();
    assert!(shares.iter().all(|share| share.len() == 20 && share.is_sorted()), "{shares:?}");
    let mut all = shares.concat();
    all.sort_unstable();
    assert_eq!(all, (0..60).collect::<Vec<_>>());
    assert_eq!(numbers(&other).len(), 60);
}

#[test]
fn a_group_passes_by_a_member_that_is_full_or_does_not_want_it() {
    let space = space();
    let full = join(&space, "j", 1);
    let filter = Some("headers.x == '1'".parse().unwrap());
    let picky = Options { group: Some("workers".into()), filter, ..Options::default() };
    let picky = space.subscribe(pattern("j"), picky).unwrap();
    let wide = join(&space, "j", 100);
    for number in 0..20 {
        assert_eq!(space.publish(numbered("j", number), &now()).unwrap().queued, 1);
    }
    assert_eq!((numbers(&full).len(), numbers(&picky).len(), numbers(&wide).len()), (1, 0, 19));
    drop(wide);
    space.publish(numbered("j", 0), &now()).unwrap();
    let error = space.publish(numbered("j", 1), &now()).unwrap_err();
    assert_eq!(error.detail("subscribers"), Some("workers"), "none has room: {error}");
    drop((full, picky));
    assert_eq!(space.publish(numbered("j", 2), &now()).unwrap().matched, 0);
}

#[test]
fn a_group_that_is_full_takes_a_message_as_soon_as_any_member_has_room_or_what_is_left_of_it() {
    for (batched, leave) in [(false, false), (true, false), (false, true), (true, true)] {
        let space = space();
        let [hangs, other] = [(); 2].map(|()| join(&space, "j", 1));
        let publish = |numbers: std::ops::Range<u32>| {
            let mut messages: Vec<_> = numbers.map(|number| numbered("j", number)).collect();
            match messages.len() {
                1 => space.publish(messages.remove(0), &soon()),
                _ => space.publish_many(messages, &soon()),
            }
        };
        publish(0..2).unwrap();
        thread::scope(|scope| {
            let count = if batched { 5 } else { 1 };
            let publisher = scope.spawn(move || publish(2..2 + count).unwrap());
            eventually("it waits", || other.stats().waits > 0);
            let kept = if leave {
                drop(hangs);
                None
            } else {
                Some(hangs)
            };
            let got: Vec<u32> =
                (0..=count).map(|_| number(other.next(&soon()).unwrap().unwrap().data())).collect();
            assert_eq!(got[1..], (2..2 + count).collect::<Vec<_>>());
            let published = publisher.join().unwrap();
            assert_eq!(published.matched, count as usize);
            assert_eq!(published.queued, count as usize);
            drop(kept);
        });
    }
}

#[test]
fn a_key_keeps_its_member_of_a_group() {
    let space = space();
    let group: Vec<_> = (0..3).map(|_| join(&space, "j", 1000)).collect();
    for number in 0..300 {
        space.publish(numbered("j", number).keyed((number % 15).to_string()), &now()).unwrap();
    }
    let mut owners = HashMap::new();
    for (index, member) in group.iter().enumerate() {
        let mut last: HashMap<String, u32> = HashMap::new();
        while let Some(delivery) = member.next(&now()).unwrap() {
            let key = delivery.key().unwrap().to_owned();
            assert_eq!(*owners.entry(key.clone()).or_insert(index), index);
            assert!(last.insert(key, number(delivery.data())) < Some(number(delivery.data())));
        }
    }
    assert_eq!(owners.len(), 15);
}

#[test]
fn a_request_to_a_group_is_answered_by_one() {
    let space = space();
    let handled = Arc::new(AtomicUsize::new(0));
    let _services: Vec<_> = (0..3)
        .map(|_| {
            let handled = Arc::clone(&handled);
            let answer = move |_: &Envelope| {
                handled.fetch_add(1, Ordering::SeqCst);
                Ok(Some("yes".into()))
            };
            join(&space, "q", 10).serve(answer, &ServeOptions::default()).unwrap()
        })
        .collect();
    for _ in 0..30 {
        assert_eq!(&**space.request(message("q", "?"), &soon()).unwrap().data(), b"yes");
    }
    assert_eq!(handled.load(Ordering::SeqCst), 30);
    let outcome = space.publish_and_wait(message("q", "?"), &soon()).unwrap();
    assert_eq!((outcome.published.matched, outcome.handled), (1, 1));
}
