//! The ring against a slow readable twin: a list of messages and a sum.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// A queue in private memory, on the ring's arithmetic.
struct Flat {
    ring: Ring,
    memory: Vec<u8>,
    head: Cursor,
    tail: Cursor,
}

impl Flat {
    fn new(capacity_bytes: u64) -> Self {
        let ring = Ring::new(capacity_bytes).unwrap();
        let memory = vec![0; ring.bytes()];
        Self { ring, memory, head: Cursor::default(), tail: Cursor::default() }
    }

    /// Both ends as if so many units and records had gone through.
    fn starting_at(mut self, position: u32, count: u32) -> Self {
        self.head = Cursor::new(position % (2 * self.ring.units), count, false);
        self.tail = self.head;
        self
    }

    fn depth(&self) -> Depth {
        self.ring.between(self.head, self.tail).unwrap()
    }

    fn put(&mut self, message: &[u8]) -> bool {
        let units = Ring::units_of(message.len());
        if message.len() > self.ring.message_bytes_max() || !self.ring.has_room(self.depth(), units)
        {
            return false;
        }
        let at = self.ring.offset(self.tail);
        let word = Ring::head_word(self.tail, message.len());
        self.memory[at..at + UNIT_BYTES].copy_from_slice(&word.to_le_bytes());
        let at = self.ring.step(at, UNIT_BYTES);
        let first = self.ring.before_end(at, message.len());
        self.memory[at..at + first].copy_from_slice(&message[..first]);
        self.memory[..message.len() - first].copy_from_slice(&message[first..]);
        self.tail = self.ring.after(self.tail, units);
        true
    }

    fn get(&mut self) -> Option<Vec<u8>> {
        let depth = self.depth();
        if depth.items == 0 {
            return None;
        }
        let at = self.ring.offset(self.head);
        let word = u64::from_le_bytes(self.memory[at..at + UNIT_BYTES].try_into().unwrap());
        let bytes = Ring::message_bytes(self.head, word, depth).unwrap();
        let at = self.ring.step(at, UNIT_BYTES);
        let first = self.ring.before_end(at, bytes);
        let mut message = self.memory[at..at + first].to_vec();
        message.extend_from_slice(&self.memory[..bytes - first]);
        self.head = self.ring.after(self.head, Ring::units_of(bytes));
        Some(message)
    }
}

/// The twin: what is in the queue, and what it takes.
struct Twin {
    messages: VecDeque<Vec<u8>>,
    room_bytes: usize,
}

impl Twin {
    fn cost(message: &[u8]) -> usize {
        8 + message.len().next_multiple_of(8)
    }

    fn put(&mut self, message: &[u8]) -> bool {
        let fits = Self::cost(message) <= self.room_bytes;
        if fits {
            self.room_bytes -= Self::cost(message);
            self.messages.push_back(message.to_vec());
        }
        fits
    }

    fn get(&mut self) -> Option<Vec<u8>> {
        let message = self.messages.pop_front()?;
        self.room_bytes += Self::cost(&message);
        Some(message)
    }
}

fn message(number: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (number * 31 + index) as u8).collect()
}

proptest! {
    #[test]
    fn the_ring_does_what_a_list_does(
        capacity in 64u64..500,
        position in any::<u32>(),
        count in prop_oneof![any::<u32>(), COUNT_MASK - 20..=COUNT_MASK],
        steps in prop::collection::vec((any::<bool>(), 0usize..200), 1..300),
    ) {
        let mut flat = Flat::new(capacity).starting_at(position, count);
        let mut twin = Twin { messages: VecDeque::new(), room_bytes: flat.ring.bytes() };
        for (number, (is_put, bytes)) in steps.into_iter().enumerate() {
            if is_put {
                let message = message(number, bytes);
                prop_assert_eq!(flat.put(&message), twin.put(&message));
            } else {
                prop_assert_eq!(flat.get(), twin.get());
            }
            let depth = flat.depth();
            prop_assert_eq!(depth.items as usize, twin.messages.len());
            prop_assert_eq!(depth.units as usize * UNIT_BYTES, flat.ring.bytes() - twin.room_bytes);
        }
    }

    #[test]
    fn no_cursors_and_no_words_lead_out_of_the_ring(
        capacity in CAPACITY_BYTES_MIN..=CAPACITY_BYTES_MAX,
        head in any::<u64>(), tail in any::<u64>(), word in any::<u64>(),
    ) {
        let ring = Ring::new(capacity).unwrap();
        let (head, tail) = (Cursor::from_word(head), Cursor::from_word(tail));
        if let Some(depth) = ring.between(head, tail) {
            prop_assert!(depth.units as usize * UNIT_BYTES <= ring.bytes());
            prop_assert!(ring.offset(head) < ring.bytes() && ring.offset(tail) < ring.bytes());
            if let Some(bytes) = Ring::message_bytes(head, word, depth) {
                let at = ring.step(ring.offset(head), UNIT_BYTES);
                let first = ring.before_end(at, bytes);
                prop_assert!(at + first <= ring.bytes() && bytes - first <= at);
                let next = ring.after(head, Ring::units_of(bytes));
                prop_assert!(ring.offset(next) < ring.bytes());
            }
        }
    }
}

#[test]
fn a_message_wraps_around_at_every_offset_and_of_every_length() {
    let ring = Ring::new(128).unwrap();
    for position in 0..2 * ring.units {
        for bytes in 0..=ring.message_bytes_max() {
            let mut flat = Flat::new(128).starting_at(position, position);
            let message = message(position as usize, bytes);
            assert!(flat.put(&message), "{bytes} bytes at unit {position}");
            assert_eq!(flat.get(), Some(message));
            assert_eq!(flat.depth(), Depth::default());
        }
    }
}

#[test]
fn a_message_that_just_fits_fits_and_one_byte_more_does_not() {
    let mut flat = Flat::new(100);
    assert_eq!((flat.ring.bytes(), flat.ring.message_bytes_max()), (104, 96));
    assert!(!flat.put(&[1; 97]));
    assert!(flat.put(&[1; 96]));
    assert!(!flat.put(&[]), "a full ring has no room for an empty message");
    assert_eq!(flat.get().map(|message| message.len()), Some(96));
    assert!((0..13).all(|_| flat.put(&[])) && !flat.put(&[]));
}

#[test]
fn zeroes_and_records_of_another_number_are_no_records() {
    let ring = Ring::new(128).unwrap();
    let head = Cursor::default();
    let tail = ring.after(ring.after(head, 2), 2);
    let depth = ring.between(head, tail).unwrap();
    let word = Ring::head_word(head, 5);
    assert_eq!(Ring::message_bytes(head, word, depth), Some(5));
    for wrong in [0, u64::MAX, word ^ 1 << 32, Ring::head_word(ring.after(head, 2), 5)] {
        assert_eq!(Ring::message_bytes(head, wrong, depth), None);
    }
    assert_eq!(Ring::message_bytes(head, Ring::head_word(head, 25), depth), None);
}

#[test]
fn records_take_units_and_units_belong_to_records() {
    let ring = Ring::new(128).unwrap();
    let between = |units: u32, items: u32| {
        ring.between(Cursor::new(30, COUNT_MASK, false), {
            Cursor::new((30 + units) % 32, COUNT_MASK.wrapping_add(items), false)
        })
    };
    assert_eq!(between(5, 2), Some(Depth { units: 5, items: 2 }));
    assert_eq!(between(16, 16), Some(Depth { units: 16, items: 16 }));
    for (units, items) in [(5, 0), (0, 1), (5, 6), (17, 3), (31, 3), (5, COUNT_MASK)] {
        assert_eq!(between(units, items), None, "{units} units, {items} records");
    }
}

#[test]
fn closing_changes_nothing_but_that() {
    let ring = Ring::new(128).unwrap();
    let open = ring.after(Cursor::new(31, COUNT_MASK, false), 3);
    let closed = open.closed();
    assert!(closed.is_closed() && !open.is_closed() && closed.meets(open));
    assert_eq!((open.position(), open.count()), (2, 0));
    assert_eq!(ring.between(closed, open), Some(Depth::default()));
    assert!(Ring::new(63).is_none() && Ring::new(CAPACITY_BYTES_MAX + 1).is_none());
}
