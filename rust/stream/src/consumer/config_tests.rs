use super::*;
use dwk_bus::Subject;
use proptest::option::of;
use proptest::prelude::*;

fn starts() -> impl Strategy<Value = From> {
    prop_oneof![
        prop::sample::select(vec![From::First, From::Last, From::Next]),
        any::<u64>().prop_map(From::Sequence),
        any::<u64>().prop_map(From::Time),
    ]
}

fn times() -> impl Strategy<Value = Duration> {
    (1_000_000..nanoseconds(DELAY_MAX)).prop_map(Duration::from_nanos)
}

prop_compose! {
    fn configs()(
        (name, ack) in ("[a-zA-Z0-9_-]{1,128}", 0usize..3),
        (ack_wait, inactive_after) in (times(), of(times())),
        (max_deliver, max_ack_pending) in (of(1..=u32::MAX), 1..=ACK_PENDING_MAX),
        backoff in prop::collection::vec(times(), 0..5),
        filter in of(prop::sample::select(vec!["size < 1 KiB", "headers.unit == 'C' and priority > 3"])),
        subjects in prop::collection::vec("[a-z]{1,4}(\\.[a-z]{1,4}){0,2}(\\.>)?", 0..4),
        (start, window, dead_letter) in (starts(), 0..=PRIORITY_WINDOW_MAX, any::<bool>()),
    ) -> ConsumerConfig {
        let ack = [Ack::Explicit, Ack::None, Ack::All][ack];
        ConsumerConfig {
            name,
            ack,
            ack_wait,
            max_deliver,
            backoff,
            max_ack_pending,
            filter: filter.map(|text| Filter::new(text).unwrap()),
            subjects: subjects.into_iter().map(|text| Pattern::new(text).unwrap()).collect(),
            start,
            priority_window: if ack == Ack::All { 0 } else { window },
            inactive_after,
            dead_letter,
        }
    }
}

proptest! {
    #[test]
    fn a_configuration_is_read_as_it_was_written_and_a_piece_of_one_is_damaged(
        config in configs(), cut: prop::sample::Index,
    ) {
        let bytes = config.encode();
        prop_assert_eq!(ConsumerConfig::decode(&bytes).unwrap(), config);
        let error = ConsumerConfig::decode(&bytes[..cut.index(bytes.len())]).unwrap_err();
        prop_assert!(error.is(&codes::FORMAT_DAMAGED));
    }

    #[test]
    fn any_bytes_are_a_configuration_or_an_error(config in configs(), at: prop::sample::Index, byte: u8) {
        let mut bytes = config.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Err(error) = ConsumerConfig::decode(&bytes) {
            prop_assert!(error.is(&codes::FORMAT_DAMAGED) || (at == 0 && error.is(&codes::FORMAT_NEWER)));
        }
    }
}

#[test]
fn options_that_make_no_sense_or_have_no_bound_are_refused() {
    let good = ConsumerConfig::new("billing");
    assert!(good.check().is_ok());
    let long = DELAY_MAX + Duration::from_nanos(1);
    let bad = [
        ConsumerConfig { name: "a b".into(), ..good.clone() },
        ConsumerConfig { ack_wait: Duration::from_micros(999), ..good.clone() },
        ConsumerConfig { ack_wait: long, ..good.clone() },
        ConsumerConfig { max_deliver: Some(0), ..good.clone() },
        ConsumerConfig { backoff: vec![long], ..good.clone() },
        ConsumerConfig { backoff: vec![Duration::ZERO; 65], ..good.clone() },
        ConsumerConfig { max_ack_pending: 0, ..good.clone() },
        ConsumerConfig { max_ack_pending: 65_537, ..good.clone() },
        ConsumerConfig { subjects: vec![Pattern::new("a").unwrap(); 257], ..good.clone() },
        ConsumerConfig { priority_window: 257, ..good.clone() },
        ConsumerConfig { priority_window: 2, ack: Ack::All, ..good.clone() },
        ConsumerConfig { inactive_after: Some(Duration::ZERO), ..good.clone() },
    ];
    for config in bad {
        assert!(config.check().unwrap_err().is(&codes::STREAM_OPTION), "{config:?}");
    }
}

#[test]
fn a_consumer_wants_what_its_subjects_and_its_filter_take() {
    let bus = dwk_bus::Bus::new(
        std::sync::Arc::new(dwk_base::SystemClock::default()),
        std::sync::Arc::new(dwk_base::SystemRandom),
        dwk_bus::Limits::default(),
    );
    let envelope = |subject: &str, priority| {
        let message = dwk_bus::Message::new(Subject::new(subject).unwrap(), "x");
        let space = bus.space("acme").unwrap();
        space.stamp(dwk_bus::Message { priority, ..message }).unwrap()
    };
    let config = ConsumerConfig {
        subjects: ["a.*", "b.>"].map(|text| Pattern::new(text).unwrap()).into(),
        filter: Some(Filter::new("priority > 3").unwrap()),
        ..ConsumerConfig::new("billing")
    };
    for (subject, priority, matches) in
        [("a.x", 4, true), ("b.x.y", 9, true), ("a.x.y", 9, false), ("a.x", 3, false)]
    {
        let brief = config.brief(7, &envelope(subject, priority));
        assert_eq!(brief, Brief { sequence: 7, priority, matches }, "{subject}");
    }
}
