//! What a consumer promises, one claim at a time.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use dwk_base::codec::Writer;
use dwk_base::{Result, codes};
use dwk_stream::consumer::{
    Ack, Brief, ConsumerConfig, DELAY_MAX, DeadLetter, Delivered, Ending, Engine, REASON_BYTES_MAX,
    Reason, Token,
};

const SECOND: u64 = 1_000_000_000;
/// Some time in 2026.
const NOW: u64 = 1_780_000_000 * SECOND;

fn config() -> ConsumerConfig {
    ConsumerConfig::new("billing")
}

/// A consumer of the messages 1 to `count`, all of which it has read.
fn engine(config: ConsumerConfig, count: u64) -> Engine {
    let mut engine = Engine::new(config, 1, NOW).unwrap();
    let briefs: Vec<_> = (1..=count).map(brief).collect();
    engine.offered(1, &briefs);
    engine
}

fn brief(sequence: u64) -> Brief {
    Brief { sequence, priority: 0, matches: true }
}

fn numbers(fetched: &[Delivered]) -> Vec<u64> {
    fetched.iter().map(|delivered| delivered.sequence).collect()
}

fn refused<T: std::fmt::Debug>(outcome: Result<T>) -> bool {
    outcome.unwrap_err().is(&codes::STREAM_ACK)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// As after the process was killed: the last state that was saved, and what it has not done read again.
fn reopened(engine: &Engine, now: u64, count: u64) -> Engine {
    let bytes = engine.snapshot().bytes;
    let mut engine = Engine::restore(engine.config().clone(), &bytes, now).unwrap();
    let from = engine.wants().unwrap().sequence;
    let briefs: Vec<_> = (from..=count).map(brief).collect();
    engine.offered(from, &briefs);
    engine
}

#[test]
fn each_message_goes_to_one_fetcher_and_the_floor_follows_what_is_done() {
    let mut engine = engine(config(), 5);
    let (ours, theirs) = (engine.fetch(NOW, 2), engine.fetch(NOW, 9));
    assert_eq!((numbers(&ours), numbers(&theirs)), (vec![1, 2], vec![3, 4, 5]));
    assert!(engine.fetch(NOW, 9).is_empty());
    engine.ack(ours[1].token, NOW).unwrap();
    assert_eq!(engine.floor(), 0, "the first message is not done");
    engine.ack(ours[0].token, NOW).unwrap();
    assert_eq!(engine.floor(), 2);
    let counters = engine.status(NOW).counters;
    assert_eq!((counters.delivered, counters.acknowledged, counters.redelivered), (5, 2, 0));
}

#[test]
fn what_is_not_acknowledged_in_time_comes_again_first_and_with_its_count() {
    let mut engine = engine(config(), 3);
    engine.fetch(NOW, 2);
    let late = NOW + 30 * SECOND;
    assert_eq!(engine.next_due(), Some(late));
    assert!(engine.tick(late - 1).is_empty());
    let again = engine.fetch(late, 9);
    assert_eq!(numbers(&again), [1, 2, 3]);
    assert_eq!(again.iter().map(|delivered| delivered.deliveries).collect::<Vec<_>>(), [2, 2, 1]);
}

#[test]
fn a_token_counts_once_and_only_while_no_later_delivery_has_left() {
    let mut engine = engine(config(), 2);
    let first = engine.fetch(NOW, 2);
    engine.ack(first[1].token, NOW).unwrap();
    assert!(refused(engine.ack(first[1].token, NOW)), "a second time");
    let late = NOW + 31 * SECOND;
    let again = engine.fetch(late, 2);
    for outcome in [
        engine.ack(first[0].token, late).map(drop),
        engine.nak(first[0].token, None, late),
        engine.term(first[0].token, "", late),
        engine.in_progress(first[0].token, late),
    ] {
        assert!(refused(outcome), "an older delivery has no say");
    }
    assert!(refused(engine.ack(Token { sequence: 9, delivery: 1 }, late)), "never handed out");
    assert_eq!(engine.ack(again[0].token, late).unwrap(), 1);
    assert_eq!(engine.floor(), 2);
}

#[test]
fn an_acknowledgement_that_comes_late_is_taken_before_the_message_is_handed_out_again() {
    let slow = ConsumerConfig { backoff: vec![seconds(5)], ..config() };
    let mut engine = engine(slow, 2);
    let fetched = engine.fetch(NOW, 2);
    let late = NOW + 31 * SECOND;
    assert_eq!(engine.tick(late), [1, 2]);
    engine.ack(fetched[0].token, late).unwrap();
    engine.in_progress(fetched[1].token, late).unwrap();
    assert!(engine.fetch(late + 29 * SECOND, 2).is_empty(), "its time started anew");
    assert_eq!(numbers(&engine.fetch(late + 35 * SECOND, 2)), [2]);
    assert_eq!(engine.floor(), 1);
}

#[test]
fn who_gave_a_message_back_has_no_say_any_more() {
    let mut engine = engine(config(), 1);
    let token = engine.fetch(NOW, 1)[0].token;
    let long = DELAY_MAX + Duration::from_nanos(1);
    assert!(engine.nak(token, Some(long), NOW).unwrap_err().is(&codes::STREAM_OPTION));
    engine.nak(token, Some(seconds(10)), NOW).unwrap();
    assert!(refused(engine.ack(token, NOW)));
    assert!(refused(reopened(&engine, NOW, 1).ack(token, NOW)), "also after a restart");
    assert!(engine.fetch(NOW + 9 * SECOND, 1).is_empty());
    assert_eq!(engine.fetch(NOW + 10 * SECOND, 1)[0].deliveries, 2);
}

#[test]
fn redeliveries_wait_as_the_backoff_says_and_its_last_delay_repeats() {
    let backoff = [1, 5].map(seconds).to_vec();
    let mut engine = engine(ConsumerConfig { backoff, ..config() }, 1);
    let mut now = NOW;
    for (deliveries, delay) in [(1, 1), (2, 5), (3, 5)] {
        let fetched = engine.fetch(now, 1);
        assert_eq!(fetched[0].deliveries, deliveries);
        if deliveries == 2 {
            now += 30 * SECOND; // Nobody says anything; the delay counts from when the time was over.
            engine.tick(now + 3 * SECOND);
        } else {
            engine.nak(fetched[0].token, None, now).unwrap();
        }
        assert!(!engine.is_ready(now + delay * SECOND - 1));
        now += delay * SECOND;
        assert!(engine.is_ready(now));
    }
}

#[test]
fn nothing_new_is_handed_out_while_too_much_is_out_or_dead() {
    let narrow = ConsumerConfig { max_ack_pending: 2, max_deliver: Some(1), ..config() };
    let mut engine = engine(narrow, 9);
    let fetched = engine.fetch(NOW, 9);
    assert_eq!(numbers(&fetched), [1, 2]);
    engine.term(fetched[0].token, "unreadable", NOW).unwrap();
    assert!(!engine.is_ready(NOW) && engine.fetch(NOW, 9).is_empty(), "it is dead, not buried");
    assert!(engine.buried(1));
    assert_eq!(numbers(&engine.fetch(NOW, 9)), [3]);
}

#[test]
fn a_message_that_fails_too_often_is_a_dead_letter_until_it_is_buried() {
    let mut engine = engine(ConsumerConfig { max_deliver: Some(2), ..config() }, 1);
    let token = engine.fetch(NOW, 1)[0].token;
    engine.nak(token, Some(seconds(0)), NOW + SECOND).unwrap();
    engine.fetch(NOW + SECOND, 1);
    assert_eq!(engine.tick(NOW + 99 * SECOND), [1]);
    assert!(engine.fetch(NOW + 99 * SECOND, 1).is_empty(), "it is never delivered again");
    let letter = engine.dead().next().unwrap().clone();
    assert_eq!((letter.sequence, &letter.reason, letter.deliveries), (1, &Reason::Exhausted, 2));
    let history: Vec<_> = letter
        .history
        .iter()
        .map(|event| (event.unix_ms - NOW / 1_000_000, event.ending))
        .collect();
    assert_eq!(history, [(1_000, Ending::Returned), (31_000, Ending::Expired)]);
    assert!(engine.must_save(), "it leaves when it is saved");

    let mut engine = reopened(&engine, NOW, 1);
    assert_eq!(engine.dead().next(), Some(&letter), "a restart loses none");
    assert_eq!(engine.floor(), 0);
    assert!(engine.buried(1) && !engine.buried(1));
    assert_eq!((engine.floor(), engine.dead().count()), (1, 0));
    assert_eq!(reopened(&engine, NOW, 1).dead().count(), 0);
}

#[test]
fn without_dead_letters_what_is_given_up_is_dropped() {
    let config = ConsumerConfig { dead_letter: false, max_deliver: Some(1), ..config() };
    let mut engine = engine(config, 2);
    let fetched = engine.fetch(NOW, 2);
    engine.term(fetched[0].token, "", NOW).unwrap();
    engine.nak(fetched[1].token, None, NOW).unwrap();
    let status = engine.status(NOW);
    assert_eq!((engine.floor(), engine.dead().count(), status.counters.dropped), (2, 0, 2));
}

#[test]
fn a_reason_is_cut_and_many_of_them_stay_small() {
    let mut engine = engine(config(), 500);
    for delivered in engine.fetch(NOW, 500) {
        engine.term(delivered.token, &"ä".repeat(200), NOW).unwrap();
    }
    let lengths: Vec<_> = engine
        .dead()
        .map(|letter| match &letter.reason {
            Reason::Terminated(text) => text.len(),
            Reason::Exhausted => unreachable!("they were given up"),
        })
        .collect();
    assert_eq!((lengths[0], lengths[499]), (REASON_BYTES_MAX, 0));
    assert!(lengths.iter().sum::<usize>() <= 4 << 10);
}

#[test]
fn a_redriven_message_counts_from_one_and_its_old_tokens_stay_dead() {
    let mut engine = engine(ConsumerConfig { max_deliver: Some(1), ..config() }, 3);
    let fetched = engine.fetch(NOW, 3);
    for delivered in &fetched {
        engine.term(delivered.token, "", NOW).unwrap();
    }
    let letters: Vec<DeadLetter> = engine.dead().cloned().collect();
    engine.buried(1);
    assert_eq!(engine.floor(), 1);
    // Buried, not buried, and one that is let go.
    assert!(engine.redrive(&letters[0], NOW).unwrap() && engine.redrive(&letters[1], NOW).unwrap());
    assert!(engine.skip(3) && !engine.skip(3));
    let counters = engine.status(NOW).counters;
    assert_eq!((counters.buried, counters.redriven, counters.dropped), (1, 2, 1));
    assert!(!engine.redrive(&letters[0], NOW).unwrap(), "it is under way");
    assert!(refused(engine.ack(fetched[0].token, NOW)));
    let mut engine = reopened(&engine, NOW, 3);
    assert!(refused(engine.ack(fetched[0].token, NOW)));
    let again = engine.fetch(NOW, 9);
    assert_eq!(numbers(&again), [1, 2]);
    assert!(again.iter().all(|delivered| delivered.deliveries == 1));
    assert!(again.iter().all(|delivered| delivered.token.delivery == 2), "tokens are new");
    assert_eq!(engine.floor(), 1);
    engine.ack(again[1].token, NOW).unwrap();
    assert_eq!(engine.floor(), 3, "what is redriven from below the floor does not hold it");
    engine.nak(again[0].token, None, NOW).unwrap();
    assert_eq!(engine.dead().next().map(|letter| letter.deliveries), Some(2));
}

#[test]
fn a_letter_of_no_message_of_this_consumer_is_not_redriven() {
    let mut engine = engine(ConsumerConfig { max_ack_pending: 1, ..config() }, 2);
    let token = engine.fetch(NOW, 1)[0].token;
    let letter = |sequence, deliveries| DeadLetter {
        sequence,
        deliveries,
        reason: Reason::Exhausted,
        history: vec![],
    };
    for bad in [letter(0, 1), letter(2, 1), letter(u64::MAX, 1), letter(1, 0), letter(1, u32::MAX)]
    {
        assert!(engine.redrive(&bad, NOW).unwrap_err().is(&codes::STREAM_OPTION), "{bad:?}");
    }
    engine.ack(token, NOW).unwrap();
    engine.fetch(NOW, 1);
    assert!(engine.redrive(&letter(1, 1), NOW).unwrap_err().is(&codes::STREAM_FULL));

    // 1 was overtaken, and waits; also while it is to be read again.
    let mut engine =
        Engine::new(ConsumerConfig { priority_window: 2, ..config() }, 1, NOW).unwrap();
    engine.offered(1, &[brief(1), Brief { priority: 1, ..brief(2) }]);
    assert_eq!(numbers(&engine.fetch(NOW, 1)), [2]);
    assert!(!engine.redrive(&letter(1, 1), NOW).unwrap());
    let bytes = engine.snapshot().bytes;
    let mut engine = Engine::restore(engine.config().clone(), &bytes, NOW).unwrap();
    assert!(!engine.redrive(&letter(1, 1), NOW).unwrap());
}

#[test]
fn an_acknowledgement_of_all_covers_what_was_handed_out_before_it() {
    let mut engine = engine(ConsumerConfig { ack: Ack::All, ..config() }, 6);
    let fetched = engine.fetch(NOW, 5);
    engine.nak(fetched[1].token, Some(seconds(60)), NOW).unwrap();
    engine.term(fetched[0].token, "", NOW).unwrap();
    assert_eq!(engine.ack(fetched[3].token, NOW).unwrap(), 3);
    assert!(refused(engine.ack(fetched[2].token, NOW)), "it is done");
    assert_eq!(engine.dead().count(), 1, "the dead stay dead");
    assert_eq!(numbers(&engine.fetch(NOW + 99 * SECOND, 9)), [5, 6]);
    engine.buried(1);
    assert_eq!(engine.floor(), 4);
}

#[test]
fn an_acknowledgement_of_all_covers_nothing_that_nobody_may_have_seen() {
    let mut engine = engine(ConsumerConfig { ack: Ack::All, ..config() }, 3);
    engine.fetch(NOW, 3);
    // The process is killed, comes again, and is killed with the first message out.
    let mut engine = reopened(&engine, NOW, 3);
    assert_eq!(numbers(&engine.fetch(NOW + SECOND, 1)), [1]);
    let mut engine = reopened(&engine, NOW + 2 * SECOND, 3);
    let fetched = engine.fetch(NOW + 3 * SECOND, 2);
    assert_eq!(numbers(&fetched), [2, 3], "these were due before");
    assert_eq!(engine.ack(fetched[1].token, NOW + 3 * SECOND).unwrap(), 2);
    assert_eq!(numbers(&engine.fetch(NOW + 3 * SECOND, 9)), [1]);
}

#[test]
fn without_acknowledgements_what_was_handed_out_is_done() {
    let config = ConsumerConfig { ack: Ack::None, max_ack_pending: 1, ..config() };
    let mut engine = engine(config, 3);
    let fetched = engine.fetch(NOW, 2);
    assert_eq!((numbers(&fetched), engine.floor()), (vec![1, 2], 2));
    assert!(engine.must_save() && refused(engine.ack(fetched[0].token, NOW)));
    assert_eq!(numbers(&reopened(&engine, NOW, 3).fetch(NOW, 9)), [3]);
}

#[test]
fn what_is_not_wanted_is_passed_over_and_counts_as_done() {
    let mut engine = Engine::new(config(), 11, NOW).unwrap();
    assert_eq!(engine.wants().unwrap().sequence, 11);
    let briefs =
        [11, 13, 14, 15].map(|sequence| Brief { matches: sequence == 14, ..brief(sequence) });
    engine.offered(11, &briefs);
    assert_eq!(engine.floor(), 13);
    let fetched = engine.fetch(NOW, 9);
    assert_eq!(numbers(&fetched), [14]);
    engine.ack(fetched[0].token, NOW).unwrap();
    assert_eq!((engine.floor(), engine.wants().unwrap().sequence), (15, 16));
}

#[test]
fn messages_are_taken_once_and_nothing_is_jumped_over() {
    let mut engine = engine(config(), 3);
    engine.offered(2, &[2, 3, 4].map(brief));
    engine.offered(6, &[brief(6)]);
    assert_eq!(numbers(&engine.fetch(NOW, 9)), [1, 2, 3, 4], "5 may exist: it was not read");
    assert_eq!(engine.wants().unwrap().sequence, 5);
}

#[test]
fn enough_is_read_ahead_and_not_more() {
    let mut engine = Engine::new(config(), 1, NOW).unwrap();
    let wanted = engine.wants().unwrap();
    let briefs: Vec<_> = (1..=wanted.count as u64).map(brief).collect();
    engine.offered(1, &briefs);
    assert_eq!(engine.wants(), None);
    engine.fetch(NOW, wanted.count);
    assert_eq!(engine.wants().map(|wanted| wanted.sequence), Some(wanted.count as u64 + 1));
}

#[test]
fn the_most_urgent_of_a_window_goes_first_and_nobody_is_overtaken_by_more() {
    let window = 4;
    let config = ConsumerConfig { priority_window: window, ..config() };
    let mut engine = Engine::new(config, 1, NOW).unwrap();
    // The first one is the least urgent, and more urgent ones never end.
    let priority = |sequence: u64| if sequence == 1 { 0 } else { 1 + (sequence == 3) as u8 };
    let briefs: Vec<_> =
        (1..=9).map(|sequence| Brief { priority: priority(sequence), ..brief(sequence) }).collect();
    engine.offered(1, &briefs);
    assert_eq!(numbers(&engine.fetch(NOW, 2)), [3, 2]);
    // A restart changes nothing about it.
    let bytes = engine.snapshot().bytes;
    let mut engine = Engine::restore(engine.config().clone(), &bytes, NOW).unwrap();
    assert_eq!(engine.wants().unwrap().sequence, 1);
    engine.offered(1, &briefs);
    assert_eq!(numbers(&engine.fetch(NOW, 9)), [2, 3, 4, 1, 5, 6, 7, 8, 9]);
}

#[test]
fn after_a_restart_what_was_out_is_due_at_once_with_its_count() {
    let mut engine = engine(config(), 4);
    let fetched = engine.fetch(NOW, 3);
    engine.ack(fetched[1].token, NOW).unwrap();
    let mut engine = reopened(&engine, NOW + 1, 4);
    // Somebody in another process may still have it.
    engine.ack(fetched[2].token, NOW + 1).unwrap();
    let again = engine.fetch(NOW + 1, 9);
    assert_eq!(numbers(&again), [1, 4], "once more, and nothing that was acknowledged");
    assert_eq!(again[0].deliveries, 2);
    assert_eq!(engine.status(NOW + 1).counters.restarted, 2);
}

#[test]
fn what_was_withdrawn_comes_at_once_and_no_later_acknowledgement_stands_for_it() {
    let config = ConsumerConfig { ack: Ack::All, backoff: vec![seconds(9)], ..config() };
    let mut engine = engine(config, 3);
    let seen = engine.fetch(NOW, 1);
    for delivered in engine.fetch(NOW, 1) {
        engine.withdraw(delivered.token, NOW).unwrap();
        assert!(refused(engine.withdraw(Token { delivery: 9, ..delivered.token }, NOW)));
    }
    // Somebody else gets what comes again, and it is lost on the way once more.
    let mut engine = reopened(&engine, NOW, 3);
    engine.ack(seen[0].token, NOW).unwrap();
    let again = engine.fetch(NOW, 2);
    assert_eq!((numbers(&again), again[0].deliveries), (vec![2, 3], 2));
    engine.withdraw(again[0].token, NOW).unwrap();
    assert_eq!(engine.ack(again[1].token, NOW).unwrap(), 1, "not the one that nobody saw");
    assert_eq!(numbers(&engine.fetch(NOW, 9)), [2]);
    assert_eq!(engine.status(NOW).counters.withdrawn, 2);
}

#[test]
fn a_message_that_ends_the_process_each_time_is_dead_in_the_end() {
    let mut engine = engine(ConsumerConfig { max_deliver: Some(3), ..config() }, 1);
    for deliveries in 1..=3 {
        assert_eq!(engine.fetch(NOW, 1)[0].deliveries, deliveries);
        engine = reopened(&engine, NOW, 1);
    }
    assert!(engine.fetch(NOW, 1).is_empty());
    let letter = engine.dead().next().unwrap();
    assert_eq!((letter.deliveries, letter.history.len()), (3, 3));
    assert!(letter.history.iter().all(|event| event.ending == Ending::Restarted));
}

#[test]
fn a_clock_that_was_set_back_makes_nothing_wait_longer() {
    let mut engine = engine(config(), 2);
    let fetched = engine.fetch(NOW, 2);
    engine.nak(fetched[0].token, Some(seconds(10)), NOW).unwrap();
    let earlier = NOW - 1_000 * SECOND;
    assert!(engine.fetch(earlier, 9).is_empty(), "in one process time never goes back");
    let mut engine = reopened(&engine, earlier, 2);
    assert_eq!(numbers(&engine.fetch(earlier, 9)), [2]);
    assert_eq!(numbers(&engine.fetch(earlier + 10 * SECOND, 9)), [1]);
    // And one that was set forward: it is due.
    let fetched = engine.fetch(earlier + 41 * SECOND, 9);
    engine.nak(fetched[0].token, Some(seconds(10)), earlier + 41 * SECOND).unwrap();
    assert!(numbers(&reopened(&engine, NOW, 2).fetch(NOW, 9)).contains(&fetched[0].sequence));
}

#[test]
fn what_the_stream_dropped_counts_as_done() {
    let mut engine = engine(config(), 9);
    let fetched = engine.fetch(NOW, 3);
    engine.term(fetched[2].token, "", NOW).unwrap();
    engine.gone(1..=5);
    assert!(refused(engine.ack(fetched[0].token, NOW)));
    assert_eq!(
        (engine.floor(), engine.dead().count()),
        (2, 1),
        "a letter stays until it is buried"
    );
    engine.buried(3);
    assert_eq!((engine.floor(), engine.status(NOW).counters.gone), (5, 4));
    engine.gone(7..=7);
    assert_eq!(numbers(&engine.fetch(NOW, 9)), [6, 8, 9]);
    engine.gone(0..=20);
    assert_eq!((engine.floor(), engine.wants().unwrap().sequence), (20, 21));
    engine.gone(40..=u64::MAX);
    assert_eq!(engine.wants().unwrap().sequence, 21, "what lies between is there");
    engine.gone(21..=u64::MAX);
    engine.offered(u64::MAX, &[brief(u64::MAX)]);
    assert!(engine.fetch(NOW, 9).is_empty());
}

#[test]
fn what_was_overtaken_and_dropped_by_the_stream_during_a_restart_is_done() {
    let config = ConsumerConfig { priority_window: 3, ..config() };
    let mut engine = Engine::new(config.clone(), 1, NOW).unwrap();
    engine.offered(
        1,
        &[1, 2, 3].map(|sequence| Brief { priority: sequence as u8, ..brief(sequence) }),
    );
    let fetched = engine.fetch(NOW, 1);
    assert_eq!(numbers(&fetched), [3]);
    engine.ack(fetched[0].token, NOW).unwrap();
    let bytes = engine.snapshot().bytes;
    let mut engine = Engine::restore(config, &bytes, NOW).unwrap();
    assert_eq!(engine.status(NOW).waiting, 2);
    // 1 is not there any more.
    engine.offered(1, &[2, 3, 4].map(brief));
    assert_eq!((engine.floor(), engine.status(NOW).counters.gone), (1, 1));
    assert_eq!(numbers(&engine.fetch(NOW, 9)), [2, 4]);
    // Without anything behind, only the stream's end tells.
    let mut engine = Engine::restore(engine.config().clone(), &bytes, NOW).unwrap();
    engine.offered(1, &[]);
    assert_eq!((engine.floor(), engine.wants().unwrap().sequence), (0, 1));
    engine.gone(1..=3);
    assert_eq!((engine.floor(), engine.status(NOW).counters.gone), (3, 2));
}

#[test]
fn a_paused_consumer_hands_nothing_out_and_takes_acknowledgements() {
    let mut engine = engine(config(), 2);
    let fetched = engine.fetch(NOW, 1);
    engine.pause();
    let mut engine = reopened(&engine, NOW, 2);
    assert!(engine.status(NOW).is_paused && !engine.is_ready(NOW));
    assert!(engine.fetch(NOW, 9).is_empty());
    engine.ack(fetched[0].token, NOW).unwrap();
    engine.resume();
    assert_eq!(numbers(&engine.fetch(NOW, 9)), [2]);
}

#[test]
fn a_consumer_is_inactive_when_nobody_used_it_and_nobody_has_a_message() {
    let config = ConsumerConfig { inactive_after: Some(seconds(60)), ..config() };
    let mut engine = engine(config, 1);
    assert_eq!(engine.inactive_at(), Some(NOW + 60 * SECOND));
    let token = engine.fetch(NOW, 1)[0].token;
    assert_eq!(engine.inactive_at(), None);
    engine.ack(token, NOW + SECOND).unwrap();
    assert_eq!(engine.next_due(), Some(NOW + 61 * SECOND));
    engine.tick(NOW + 2 * SECOND);
    assert_eq!(engine.next_due(), Some(NOW + 61 * SECOND), "a clock is no user");
    engine.used(NOW + 3 * SECOND);
    assert_eq!(engine.next_due(), Some(NOW + 63 * SECOND));
}

#[test]
fn a_save_covers_what_came_before_it_and_not_what_came_after() {
    let mut engine = engine(config(), 2);
    let first = engine.fetch(NOW, 1);
    let snapshot = engine.snapshot();
    engine.fetch(NOW, 1);
    engine.saved(snapshot.version);
    assert!(engine.must_save(), "the second delivery was not saved");
    engine.saved(engine.version());
    engine.saved(snapshot.version);
    assert!(!engine.must_save() && !engine.is_unsaved(), "saves may be told in any order");
    engine.ack(first[0].token, NOW).unwrap();
    assert!(!engine.must_save() && engine.is_unsaved(), "an acknowledgement holds nothing up");
    engine.saved(u64::MAX);
    engine.fetch(NOW + 31 * SECOND, 1);
    assert!(engine.must_save(), "a version that was never there covers nothing");
}

#[test]
fn a_status_says_what_is_open() {
    let mut engine = engine(ConsumerConfig { max_deliver: Some(2), ..config() }, 5);
    let fetched = engine.fetch(NOW, 4);
    engine.nak(fetched[0].token, Some(seconds(0)), NOW).unwrap();
    engine.fetch(NOW + SECOND, 1);
    engine.nak(fetched[1].token, Some(seconds(60)), NOW).unwrap();
    engine.term(fetched[2].token, "", NOW).unwrap();
    let status = engine.status(NOW + 2 * SECOND);
    assert_eq!((status.floor_sequence, status.delivered_sequence), (0, 4));
    assert_eq!((status.out, status.scheduled, status.dead, status.waiting), (2, 1, 1, 1));
    assert_eq!((status.repeated, status.oldest_age), (1, Some(seconds(2))));
}

#[test]
fn a_snapshot_with_a_thousand_open_messages_stays_below_64_kib() {
    let config = ConsumerConfig { priority_window: 256, ..config() };
    let mut engine = Engine::new(config, 1, NOW).unwrap();
    // Far apart, so that numbers are long, and every second one is urgent, so that as many as can be wait
    // between those that are out.
    let mut sequence = 0;
    while let Some(wanted) = engine.wants() {
        let briefs: Vec<_> = (0..wanted.count as u64)
            .map(|index| {
                sequence += 1 << 40;
                Brief { sequence, priority: (index % 2) as u8, matches: true }
            })
            .collect();
        engine.offered(wanted.sequence, &briefs);
        for delivered in engine.fetch(NOW, 200) {
            if engine.dead().count() < 50 {
                engine.term(delivered.token, &"x".repeat(500), NOW).unwrap();
            }
        }
    }
    // Long histories, that a day passes with each, and half of them from before they were redriven.
    let mut now = NOW;
    for round in 0..6 {
        now += 86_400 * SECOND;
        for (index, delivered) in engine.fetch(now, 1_000).into_iter().enumerate() {
            if round == 4 && index % 2 == 0 {
                engine.term(delivered.token, "", now).unwrap();
            }
            if round == 5 {
                let delay = DELAY_MAX.saturating_sub(Duration::from_nanos(index as u64));
                engine.nak(delivered.token, Some(delay), now).unwrap();
            }
        }
        let letters: Vec<_> = engine.dead().skip(50).cloned().collect();
        for letter in letters {
            assert!(engine.redrive(&letter, now).unwrap());
        }
    }
    let status = engine.status(now);
    let bytes = engine.snapshot().bytes;
    assert_eq!((status.out, status.scheduled, status.dead), (0, 950, 50));
    println!("{} bytes", bytes.len());
    assert!(bytes.len() < 64 << 10, "{} bytes", bytes.len());
    let restored = Engine::restore(engine.config().clone(), &bytes, now).unwrap();
    assert_eq!(restored.snapshot().bytes, bytes, "nothing is lost");
}

#[test]
fn a_lower_limit_makes_dead_what_was_delivered_as_often() {
    let mut engine = engine(config(), 3);
    for now in [NOW, NOW + 30 * SECOND] {
        engine.fetch(now, 2);
    }
    let token = engine.fetch(NOW + 30 * SECOND, 1)[0].token;
    assert_eq!(token, Token { sequence: 3, delivery: 1 });
    engine.tick(NOW + 60 * SECOND);
    let config = ConsumerConfig { max_deliver: Some(2), ..config() };
    let bytes = engine.snapshot().bytes;
    let mut engine = Engine::restore(config, &bytes, NOW + 60 * SECOND).unwrap();
    assert_eq!(engine.dead().map(|letter| letter.sequence).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(numbers(&engine.fetch(NOW + 60 * SECOND, 9)), [3]);
}

/// A state of the entries that `open` writes, of which there are `count`.
fn state(floor: u64, top: u64, count: u64, open: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u8(0).u8(0).u64(NOW).varint(floor).varint(top).varint(0).varint(count);
    open(&mut writer);
    writer.finish()
}

/// An entry of `kind` one number further, delivered `total` times, `before` of them before it was redriven.
fn open(writer: &mut Writer, kind: u8, total: u64, before: u64, history: u8) {
    writer.varint(1).u8(kind).varint(total).varint(before).varint(0);
    if kind != 1 {
        writer.varint(0);
    }
    writer.u8(history);
    (0..history).for_each(|_| {
        writer.varint(2).u8(0);
    });
}

#[test]
fn a_state_that_contradicts_itself_is_damaged() {
    let restore = |bytes: &[u8]| Engine::restore(config(), bytes, NOW);
    let sound = state(0, 9, 2, |writer| {
        open(writer, 2, 3, 1, 4);
        writer.varint(2).u8(0);
    });
    let mut engine = restore(&sound).unwrap();
    assert_eq!(engine.fetch(NOW, 9)[0].token, Token { sequence: 1, delivery: 4 });
    assert_eq!((engine.status(NOW).waiting, engine.wants().unwrap().sequence), (1, 3));

    let waits = |step: u64| {
        move |writer: &mut Writer| {
            writer.varint(step).u8(0);
        }
    };
    let held = |kind, total, before| move |w: &mut Writer| open(w, kind, total, before, 0);
    let mut counters = Writer::new();
    counters.u8(0).u8(0).u64(NOW).varint(0).varint(0).varint(1).varint(1 << 62).varint(0);
    let mut many = Writer::new();
    many.u8(0).u8(0).u64(NOW).varint(0).varint(0).varint(99);
    many.raw(&[0; 99]);
    many.varint(0);
    let bad: [(&str, Vec<u8>); 16] = [
        ("the last byte is missing", sound[..sound.len() - 1].to_vec()),
        ("a byte is left over", [&sound[..], &[0]].concat()),
        ("an unknown flag", [&[0, 2], &sound[2..]].concat()),
        ("a floor at the end of numbers", state(u64::MAX, 0, 0, |_| ())),
        ("a top at the end of numbers", state(0, u64::MAX, 0, |_| ())),
        ("it waits below the floor", state(5, 9, 1, waits(5))),
        ("the same number twice", state(0, 9, 2, |w| (waits(1)(w), waits(0)(w)).1)),
        ("it is beyond what was handed out", state(0, 9, 1, waits(10))),
        ("never delivered", state(0, 9, 1, held(1, 0, 0))),
        ("fewer deliveries than before it was redriven", state(0, 9, 1, held(2, 1, 2))),
        ("out without a delivery", state(0, 9, 1, held(1, 2, 2))),
        ("too many deliveries to count", state(0, 9, 1, held(1, 1 << 32, 0))),
        ("a history of five", state(0, 9, 1, |w| open(w, 1, 9, 0, 5))),
        ("no such kind", state(0, 9, 1, held(6, 1, 0))),
        ("a counter at its end", counters.finish()),
        ("counters that nobody knows", many.finish()),
    ];
    for (why, bytes) in bad {
        assert!(restore(&bytes).unwrap_err().is(&codes::FORMAT_DAMAGED), "{why}");
    }
    let many = 65_536 + 256 + 1;
    let bytes = |count| state(0, many, count, |w| (0..count).for_each(|_| waits(1)(w)));
    assert!(restore(&bytes(many - 1)).is_ok());
    assert!(restore(&bytes(many)).unwrap_err().is(&codes::FORMAT_DAMAGED), "too much is open");
    let newer = [&[1], &sound[1..]].concat();
    assert!(restore(&newer).unwrap_err().is(&codes::FORMAT_NEWER));
}
