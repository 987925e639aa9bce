//! Publish and wait, requests, and what a sender is told about handlers.
#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]
mod common;

use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{
    NEVER, after_ms, block_on, bus, bus_with, eventually, failure, message, named, now, pattern,
    soon, space,
};
use dwk_base::{Deadline, codes};
use dwk_bus::{Envelope, Limits, Options, Policy, ServeOptions, Service, Space};

fn serve(
    space: &Space,
    about: &str,
    handler: impl Fn(&Envelope) -> dwk_base::Result<Option<Bytes>> + Send + Sync + 'static,
) -> Service {
    let options = named(about, Policy::Block, 100);
    let subscription = space.subscribe(pattern(about), options).unwrap();
    subscription.serve(handler, &ServeOptions::default()).unwrap()
}

#[test]
fn a_request_gets_the_handlers_answer() {
    let space = space();
    let _echo = serve(&space, "svc.echo", |question| Ok(Some(question.data().clone())));
    for text in ["x", "", "yes"] {
        let mut question = message("svc.echo", text);
        question.correlation = Some(dwk_base::CorrelationId::from_u128(7));
        let answer = space.request(question.clone(), &soon()).unwrap();
        assert_eq!(&**answer.data(), text.as_bytes());
        assert_eq!(answer.message().correlation, question.correlation);
    }
}

#[test]
fn an_answer_may_come_from_anywhere_and_later() {
    let space = space();
    let subscription = space.subscribe(pattern("q"), Options::default()).unwrap();
    thread::scope(|scope| {
        let asked = scope.spawn(|| space.request(message("q", "?"), &soon()).unwrap());
        let question = subscription.next(&soon()).unwrap().unwrap().into_envelope();
        thread::sleep(Duration::from_millis(20));
        assert!(space.reply(&question, "!").unwrap());
        assert!(!space.reply(&question, "too late").unwrap());
        assert_eq!(&**asked.join().unwrap().data(), b"!");
    });
}

#[test]
fn a_request_that_nobody_can_answer_fails_at_once() {
    let space = space();
    let error = space.request(message("nobody", "?"), &NEVER).unwrap_err();
    assert!(error.is(&codes::BUS_NO_RESPONDER), "{error}");
    let filter = Some("size > 100".parse().unwrap());
    let _deaf = space.subscribe(pattern(">"), Options { filter, ..Options::default() }).unwrap();
    let error = space.request(message("nobody", "?"), &NEVER).unwrap_err();
    assert!(error.is(&codes::BUS_NO_RESPONDER), "{error}");
}

#[test]
fn a_request_without_an_answer_ends_with_its_deadline() {
    let space = space();
    let _silent = serve(&space, "q", |_| Ok(None));
    let start = Instant::now();
    let error = space.request(message("q", "?"), &after_ms(40)).unwrap_err();
    assert!(error.is(&codes::BUS_TIMEOUT), "{error}");
    assert!(start.elapsed() >= Duration::from_millis(40));
}

#[test]
fn a_request_fails_at_once_when_all_who_could_answer_failed() {
    let space = space();
    let _bad = serve(&space, "q", |_| Err(failure("no idea")));
    let _panics = serve(&space, "*", |_| panic!("worse"));
    let error = space.request(message("q", "?"), &NEVER).unwrap_err();
    assert!(error.is(&codes::BUS_HANDLER), "{error}");
    let _good = serve(&space, ">", |_| Ok(Some("good".into())));
    assert_eq!(&**space.request(message("q", "?"), &soon()).unwrap().data(), b"good");
}

#[test]
fn a_question_that_was_dropped_fails_at_once() {
    let space = space();
    let full = space.subscribe(pattern("q"), named("full", Policy::DropNewest, 1)).unwrap();
    space.publish(message("q", "1"), &now()).unwrap();
    let error = space.request(message("q", "?"), &NEVER).unwrap_err();
    assert!(error.is(&codes::BUS_FULL), "{error}");
    assert_eq!(error.detail("subscription"), Some("full"));
    drop(full);
}

#[test]
fn a_question_whose_subscriber_leaves_fails_at_once() {
    let space = space();
    let subscription = space.subscribe(pattern("q"), Options::default()).unwrap();
    thread::scope(|scope| {
        let asked = scope.spawn(|| space.request(message("q", "?"), &NEVER));
        eventually("it was asked", || subscription.stats().queued == 1);
        drop(subscription);
        assert!(asked.join().unwrap().unwrap_err().is(&codes::BUS_CLOSED));
    });
}

#[test]
fn nobody_else_hears_an_answer() {
    let space = space();
    let _echo = serve(&space, "q", |question| Ok(Some(question.data().clone())));
    let everything = space.subscribe(pattern(">"), Options::default()).unwrap();
    space.request(message("q", "?"), &soon()).unwrap();
    assert_eq!(common::texts(&everything), ["?"]);
    for text in ["_inbox", "_inbox.>", "_inbox.*"] {
        let refused = space.subscribe(pattern(text), Options::default()).unwrap_err();
        assert!(refused.is(&codes::BUS_PATTERN));
    }
    // An answer to nobody is nobody's.
    let published = space.publish(message("_inbox.0123", "x"), &now()).unwrap();
    assert_eq!(published.matched, 0);
    let published = space.publish(message("_inbox.x.y", "x"), &now()).unwrap();
    assert_eq!(published.matched, 0);
}

#[test]
fn an_answer_can_be_awaited() {
    let space = space();
    let _echo = serve(&space, "q", |question| {
        thread::sleep(Duration::from_millis(5));
        Ok(Some(question.data().clone()))
    });
    for _ in 0..20 {
        let request = space.ask(message("q", "?"), &now()).unwrap();
        assert_eq!(&**block_on(request).unwrap().data(), b"?");
    }
}

#[test]
fn only_so_many_requests_are_open_and_those_that_end_make_room() {
    let space = bus_with(Limits { requests_max: 2, ..Limits::default() }).space("").unwrap();
    let _subscription = space.subscribe(pattern("q"), Options::default()).unwrap();
    let ask = || space.ask(message("q", "?"), &now());
    let (first, _second) = (ask().unwrap(), ask().unwrap());
    assert!(ask().unwrap_err().is(&codes::BUS_FULL));
    drop(first);
    ask().unwrap();
    let nobody = space.ask(message("nobody", "?"), &now()).unwrap_err();
    assert!(nobody.is(&codes::BUS_NO_RESPONDER));
    ask().unwrap();
}

#[test]
fn publish_and_wait_returns_when_all_handlers_have_finished_and_lists_failures() {
    let space = space();
    let pause = |_: &Envelope| {
        thread::sleep(Duration::from_millis(30));
        Ok(None)
    };
    let (_slow, _quick) = (serve(&space, "a", pause), serve(&space, "a.b", |_| Ok(None)));
    let _fails = serve(&space, "*", |_| Err(failure("no")));
    let _panics = serve(&space, ">", |_| panic!("oh"));
    let full = space.subscribe(pattern("a"), named("full", Policy::DropNewest, 1)).unwrap();
    space.publish(message("a", "1"), &now()).unwrap();
    let start = Instant::now();
    let outcome = space.publish_and_wait(message("a", "2"), &soon()).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!((outcome.published.matched, outcome.handled), (4, 1));
    let mut failures: Vec<_> = outcome
        .failures
        .iter()
        .map(|failure| (&*failure.subscription, failure.error.code().name))
        .collect();
    failures.sort_unstable();
    assert_eq!(failures, [("*", "bus.handler"), (">", "bus.handler"), ("full", "bus.full")]);
    let text = |name| outcome.failures.iter().find(|f| &*f.subscription == name).unwrap();
    assert!(text(">").error.to_string().contains("panicked: oh"));
    drop(full);
}

#[test]
fn publish_and_wait_to_nobody_returns_at_once() {
    let outcome = space().publish_and_wait(message("a", "1"), &NEVER).unwrap();
    assert_eq!((outcome.published.matched, outcome.handled, outcome.failures.len()), (0, 0, 0));
}

#[test]
fn publish_and_wait_names_who_is_late() {
    let space = space();
    let _pulls = space.subscribe(pattern("a"), named("late", Policy::Block, 9)).unwrap();
    let _quick = serve(&space, "*", |_| Ok(None));
    let error = space.publish_and_wait(message("a", "1"), &after_ms(50)).unwrap_err();
    assert!(error.is(&codes::BUS_TIMEOUT), "{error}");
    assert_eq!(error.detail("subscribers"), Some("late"));
    assert_eq!(error.detail("handled"), Some("1"));
}

#[test]
fn who_pulls_a_message_says_what_became_of_it() {
    let space = space();
    let subscription = space.subscribe(pattern("a"), Options::default()).unwrap();
    let outcome = |consume: fn(dwk_bus::Delivery)| {
        thread::scope(|scope| {
            let sender =
                scope.spawn(|| space.publish_and_wait(message("a", "1"), &soon()).unwrap());
            let delivery = subscription.next(&soon()).unwrap().unwrap();
            let _ = scope.spawn(move || consume(delivery)).join();
            let outcome = sender.join().unwrap();
            (outcome.handled, outcome.failures.len())
        })
    };
    assert_eq!(outcome(drop), (1, 0));
    assert_eq!(outcome(|delivery| drop(delivery.into_envelope())), (1, 0));
    assert_eq!(outcome(|delivery| delivery.fail(failure("no"))), (0, 1));
    space.publish(message("a", "2"), &now()).unwrap();
    subscription.fail(subscription.next(&now()).unwrap().unwrap(), failure("no"));
    assert_eq!(subscription.stats().failed, 1);
    assert_eq!(
        outcome(|delivery| {
            let _held = delivery;
            panic!("on purpose")
        }),
        (0, 1)
    );
}

#[test]
fn requests_that_wait_end_when_the_bus_closes() {
    let bus = bus();
    let space = bus.space("").unwrap();
    let silent = space.subscribe(pattern("q"), Options::default()).unwrap();
    thread::scope(|scope| {
        let asked = scope.spawn(|| space.request(message("q", "?"), &NEVER));
        let _question = silent.next(&soon()).unwrap().unwrap();
        bus.close(&soon()).unwrap();
        assert!(asked.join().unwrap().unwrap_err().is(&codes::BUS_CLOSED));
    });
}

#[test]
fn many_ask_at_once_and_each_gets_its_own_answer() {
    let space = space();
    let options = Options { workers: 3, ..Options::default() };
    let subscription = space.subscribe(pattern("q.*"), options).unwrap();
    let echo = |question: &Envelope| Ok(Some(question.data().clone()));
    let _service = subscription.serve(echo, &ServeOptions::default()).unwrap();
    thread::scope(|scope| {
        for asker in 0..4 {
            let space = &space;
            scope.spawn(move || {
                for number in 0..500 {
                    let text = format!("{asker} {number}");
                    let question = message(&format!("q.{asker}"), text.clone());
                    let answer = space.request(question, &Deadline::never()).unwrap();
                    assert_eq!(&**answer.data(), text.as_bytes());
                }
            });
        }
    });
}
