//! Who gets what.
#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]
mod common;

use common::{
    bus, bus_with, message, named, now, numbered, numbers, pattern, soon, space, subject, texts,
};
use dwk_base::codes;
use dwk_bus::{Filter, Limits, Options, Policy, Published};

#[test]
fn a_message_goes_to_everyone_whose_pattern_matches_and_to_nobody_else() {
    let space = space();
    let subscribe = |text| space.subscribe(pattern(text), Options::default()).unwrap();
    let (star, rest, exact, other) = (
        subscribe("sensors.*.temp"),
        subscribe("sensors.>"),
        subscribe("sensors.a.temp"),
        subscribe("x"),
    );
    let published = space.publish(message("sensors.a.temp", "21"), &now()).unwrap();
    assert_eq!(published, Published { matched: 3, queued: 3, dropped: 0 });
    space.publish(message("sensors.b.humidity", "7"), &now()).unwrap();
    assert_eq!(texts(&star), ["21"]);
    assert_eq!(texts(&rest), ["21", "7"]);
    assert_eq!(texts(&exact), ["21"]);
    assert!(texts(&other).is_empty());
}

#[test]
fn an_announcement_goes_to_those_only_who_name_what_it_is_about() {
    let space = space();
    let subscribe = |text, group: Option<&str>| {
        let options = Options { group: group.map(Into::into), ..Options::default() };
        space.subscribe(pattern(text), options).unwrap()
    };
    let (named, exact) = (subscribe("store.>", None), subscribe("store.made", None));
    let (all, any) = (subscribe(">", None), subscribe("*.made", None));
    let (member, other) = (subscribe("store.*", Some("g")), subscribe(">", Some("g")));
    for text in ["1", "2", "3"] {
        let envelope = space.stamp_announcement(message("store.made", text)).unwrap();
        assert_eq!(space.deliver(envelope, &now()).unwrap().matched, 3);
    }
    for subscription in [&named, &exact, &member] {
        assert_eq!(texts(subscription), ["1", "2", "3"]);
    }
    for subscription in [&all, &any, &other] {
        assert!(texts(subscription).is_empty());
        assert_eq!(subscription.stats().filtered, 0);
    }
    assert_eq!(space.publish(message("store.made", "4"), &now()).unwrap().matched, 5);
}

#[test]
fn an_envelope_carries_what_was_sent_and_a_stamp() {
    let bus = bus();
    let space = bus.space("acme").unwrap();
    let subscription = space.subscribe(pattern(">"), Options::default()).unwrap();
    let sent = message("a.b", "data").header("unit", "C").header("unit", "F").keyed("k");
    space.publish(sent.clone(), &now()).unwrap();
    let got = subscription.next(&now()).unwrap().unwrap().into_envelope();
    assert_eq!(*got.message(), sent);
    assert_eq!((got.tenant(), got.header("unit"), got.key()), ("acme", Some("C"), Some("k")));
    assert!(got.unix_ns() > 1_600_000_000_000_000_000);
    assert_eq!(got.id().unix_ms(), got.unix_ns() / 1_000_000);
}

#[test]
fn tenants_never_see_each_others_subjects() {
    let bus = bus();
    let spaces = ["", "a", "b"].map(|tenant| bus.space(tenant).unwrap());
    let subscriptions =
        spaces.clone().map(|space| space.subscribe(pattern(">"), Options::default()).unwrap());
    for space in &spaces {
        let sent = message("s", space.tenant().to_owned());
        assert_eq!(space.publish(sent, &now()).unwrap().matched, 1);
    }
    for (subscription, space) in subscriptions.iter().zip(&spaces) {
        assert_eq!(texts(subscription), [space.tenant()]);
    }
    assert_eq!(bus.space("a").unwrap().publish(message("s", "again"), &now()).unwrap().queued, 1);
    assert_eq!(texts(&subscriptions[1]), ["again"]);
}

#[test]
fn a_filter_keeps_out_what_it_does_not_accept_and_that_is_counted() {
    let space = space();
    let filter = Some(Filter::new("headers.unit == 'C' and size < 3").unwrap());
    let options = Options { filter, ..Options::default() };
    let subscription = space.subscribe(pattern(">"), options).unwrap();
    for (unit, data) in [("C", "1"), ("F", "2"), ("C", "333"), ("C", "4")] {
        let published = space.publish(message("t", data).header("unit", unit), &now()).unwrap();
        assert_eq!(published.matched, usize::from(unit == "C" && data.len() < 3));
    }
    assert_eq!(texts(&subscription), ["1", "4"]);
    assert_eq!(subscription.stats().filtered, 2);
}

#[test]
fn each_subscriber_gets_messages_in_the_order_of_publishing() {
    let space = space();
    let all: Vec<_> =
        (0..3).map(|_| space.subscribe(pattern("a.*"), Options::default()).unwrap()).collect();
    for number in 0..500 {
        let about = if number % 3 == 0 { "a.x" } else { "a.y" };
        space.publish(numbered(about, number), &now()).unwrap();
    }
    let batch = (500..1000).map(|n| numbered(if n % 7 < 3 { "a.x" } else { "a.y" }, n)).collect();
    let published = space.publish_many(batch, &now()).unwrap();
    assert_eq!(published, Published { matched: 1500, queued: 1500, dropped: 0 });
    for subscription in &all {
        assert_eq!(numbers(subscription), (0..1000).collect::<Vec<_>>());
    }
}

#[test]
fn identities_rise_in_the_order_of_publishing() {
    let space = space();
    let subscription = space.subscribe(pattern(">"), Options::default()).unwrap();
    for number in 0..100 {
        space.publish(numbered("a", number), &now()).unwrap();
    }
    space.publish_many((0..100).map(|n| numbered("a", n)).collect(), &now()).unwrap();
    let ids: Vec<_> = std::iter::from_fn(|| subscription.next(&now()).unwrap())
        .map(|delivery| delivery.id())
        .collect();
    assert_eq!(ids.len(), 200);
    assert!(ids.is_sorted_by(|a, b| a < b));
}

#[test]
fn who_closed_gets_nothing_more_but_can_pull_what_waits() {
    let space = space();
    let subscription = space.subscribe(pattern("a"), Options::default()).unwrap();
    space.publish(message("a", "1"), &now()).unwrap();
    subscription.close();
    assert_eq!(space.publish(message("a", "2"), &now()).unwrap(), Published::default());
    assert_eq!(texts(&subscription), ["1"]);
    assert!(subscription.next(&soon()).unwrap_err().is(&codes::BUS_CLOSED));
}

#[test]
fn who_is_dropped_is_gone_at_once() {
    let space = space();
    drop(space.subscribe(pattern("a"), Options::default()).unwrap());
    assert_eq!(space.publish(message("a", "1"), &now()).unwrap(), Published::default());
}

#[test]
fn a_subscription_outlives_its_bus_and_ends_with_what_waits() {
    let subscription = {
        let space = space();
        let subscription = space.subscribe(pattern("a"), Options::default()).unwrap();
        space.publish(message("a", "1"), &now()).unwrap();
        subscription
    };
    assert_eq!(texts(&subscription), ["1"]);
    assert!(subscription.next(&soon()).unwrap_err().is(&codes::BUS_CLOSED));
}

#[test]
fn a_closed_bus_refuses_and_lets_what_waits_be_pulled() {
    let bus = bus();
    let space = bus.space("t").unwrap();
    let subscription = space.subscribe(pattern("a"), Options::default()).unwrap();
    space.publish(message("a", "1"), &now()).unwrap();
    bus.close(&soon()).unwrap();
    assert!(space.publish(message("a", "2"), &now()).unwrap_err().is(&codes::BUS_CLOSED));
    assert!(space.publish_many(vec![], &now()).unwrap_err().is(&codes::BUS_CLOSED));
    assert!(space.request(message("a", "2"), &now()).unwrap_err().is(&codes::BUS_CLOSED));
    let again = space.subscribe(pattern("a"), Options::default());
    assert!(again.unwrap_err().is(&codes::BUS_CLOSED));
    assert_eq!(texts(&subscription), ["1"]);
    bus.close(&soon()).unwrap();
}

#[test]
fn messages_over_the_limits_are_refused_and_nobody_gets_any() {
    let limits = Limits { message_bytes_max: 10, headers_bytes_max: 20, ..Limits::default() };
    let space = bus_with(limits).space("").unwrap();
    let subscription = space.subscribe(pattern(">"), Options::default()).unwrap();
    let long_key = message("a", "").keyed("k".repeat(1025));
    let mut many = message("a", "");
    many.headers = vec![(String::new(), String::new()); 1025];
    for bad in [
        message("a", "12345678901"),
        message("a", "").header("name", "v".repeat(17)),
        long_key,
        many,
    ] {
        let error = space.publish(bad.clone(), &now()).unwrap_err();
        assert!(error.is(&codes::BUS_MESSAGE_SIZE), "{error}");
        let error = space.publish_many(vec![message("a", "ok"), bad], &now()).unwrap_err();
        assert!(error.is(&codes::BUS_MESSAGE_SIZE), "{error}");
    }
    space.publish(message("a", "1234567890").header("name", "v".repeat(16)), &now()).unwrap();
    assert_eq!(texts(&subscription), ["1234567890"]);
}

#[test]
fn there_are_as_many_subscriptions_and_tenants_as_the_limits_say() {
    let limits = Limits { subscriptions_max: 2, tenants_max: 2, ..Limits::default() };
    let bus = bus_with(limits);
    let space = bus.space("a").unwrap();
    let subscribe = || space.subscribe(pattern("s"), Options::default());
    let (first, _second) = (subscribe().unwrap(), subscribe().unwrap());
    assert!(subscribe().unwrap_err().is(&codes::QUEUE_CAPACITY));
    drop(first);
    drop(subscribe().unwrap());
    // A tenant that nobody uses makes room for another one.
    drop(bus.space("b").unwrap());
    let _third = bus.space("c").unwrap();
    assert!(bus.space("d").unwrap_err().is(&codes::QUEUE_CAPACITY));
    assert_eq!(space.publish(message("s", "1"), &now()).unwrap().matched, 1, "a is in use");
}

#[test]
fn options_out_of_range_are_refused() {
    let space = space();
    for options in [
        Options { messages_max: 0, ..Options::default() },
        Options { workers: 0, ..Options::default() },
        Options { workers: 257, ..Options::default() },
        named(&"n".repeat(256), Policy::Block, 1),
        Options { group: Some("".into()), ..Options::default() },
    ] {
        let error = space.subscribe(pattern("a"), options).unwrap_err();
        assert!(error.is(&codes::QUEUE_CAPACITY), "{error}");
    }
    for name in ["a\nb", &"t".repeat(256)] {
        assert!(bus().space(name).unwrap_err().is(&codes::CONTEXT_INVALID));
    }
}

#[test]
fn a_kept_envelope_can_be_delivered_as_it_is_but_not_to_another_tenant() {
    let bus = bus();
    let (space, other) = (bus.space("a").unwrap(), bus.space("b").unwrap());
    let subscription = space.subscribe(pattern("a.>"), Options::default()).unwrap();
    let kept = space.stamp(message("a.b", "1")).unwrap();
    assert!(texts(&subscription).is_empty());
    assert!(other.deliver(kept.clone(), &now()).unwrap_err().is(&codes::CONTEXT_INVALID));
    space.deliver(kept.clone(), &now()).unwrap();
    assert_eq!(subscription.next(&now()).unwrap().unwrap().into_envelope(), kept);
}

#[test]
fn routes_follow_while_subjects_are_published_again_and_again() {
    let space = space();
    for round in 0..50 {
        let subscription = space.subscribe(pattern("a.*"), Options::default()).unwrap();
        for number in 0..10 {
            assert_eq!(
                space.publish(numbered("a.b", number), &now()).unwrap().matched,
                1,
                "{round}"
            );
        }
        assert_eq!(numbers(&subscription).len(), 10);
    }
    assert_eq!(subject("a.b").as_str(), "a.b");
}
