//! Every spill file against the same claims, and the log of envelopes in one.

use std::sync::atomic::{AtomicBool, Ordering};

use dwk_base::{Error, SeededRandom, codes};
use proptest::prelude::*;

use super::*;
use crate::envelope::Stamped;
use crate::{Envelope, Message, MessageId, Subject};

fn local(directory: &std::path::Path) -> LocalSpill {
    LocalSpill::new(directory, Arc::new(SeededRandom::new(1)))
}

fn bodies(directory: &std::path::Path) -> Vec<Box<dyn SpillFile>> {
    vec![Box::new(MemorySpill::default()), Box::new(local(directory))]
}

proptest! {
    #[test]
    fn what_is_appended_and_not_trimmed_is_read(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..20),
        trims in prop::collection::vec(0usize..60, 20),
    ) {
        let directory = tempfile::tempdir().unwrap();
        for mut file in bodies(directory.path()) {
            let (mut all, mut kept) = (Vec::new(), 0);
            for (piece, trim) in pieces.iter().zip(&trims) {
                file.append(piece).unwrap();
                all.extend_from_slice(piece);
                kept = all.len().min(kept + trim);
                file.trim(kept as u64);
                let mut read = vec![0; all.len() - kept];
                file.read_at(kept as u64, &mut read).unwrap();
                prop_assert_eq!(&read, &all[kept..]);
                let mut past = [0; 1];
                prop_assert!(file.read_at(all.len() as u64, &mut past).is_err());
            }
        }
    }
}

#[test]
fn a_file_has_no_name_and_gives_its_room_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = local(directory.path());
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    let piece = vec![7; 1 << 20];
    for _ in 0..8 {
        file.append(&piece).unwrap();
    }
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "it can be seen");
    let full = file.taken_bytes();
    file.trim(6 << 20);
    if cfg!(target_os = "linux") {
        assert!(file.taken_bytes() <= full - (5 << 20), "{} of {full}", file.taken_bytes());
    }
    file.trim(8 << 20);
    assert_eq!(file.taken_bytes(), 0);
    file.append(b"more").unwrap();
    let mut read = [0; 4];
    file.read_at(8 << 20, &mut read).unwrap();
    assert_eq!(&read, b"more");
}

#[test]
fn a_directory_that_is_not_there_is_an_error_that_names_it() {
    let error = local("/no/such/directory".as_ref()).append(b"x").unwrap_err();
    assert!(error.is(&codes::DRIVE_IO) && error.to_string().contains("/no/such/directory"));
}

fn envelope(number: u64) -> Envelope {
    let message = Message::new(Subject::new("s.t").unwrap(), vec![number as u8; 100]);
    let id = MessageId::from_bytes([0; 16]);
    Envelope::new(Stamped { id, unix_ns: number, tenant: None, message, is_announcement: false })
}

#[test]
fn envelopes_come_out_in_the_order_in_which_they_went_in() {
    let directory = tempfile::tempdir().unwrap();
    let random = Arc::new(SeededRandom::new(1));
    for spill in [Spill::in_memory(1 << 20), Spill::in_directory(directory.path(), 1 << 20, random)]
    {
        let mut log = Log::new(spill);
        for number in 0..100 {
            log.append(&envelope(number), None).unwrap();
            if number % 3 == 0 {
                assert_eq!(log.pop().unwrap().envelope.unwrap(), envelope(number / 3));
            }
        }
        for number in 34..100 {
            assert_eq!(log.pop().unwrap().envelope.unwrap(), envelope(number));
        }
        assert!(log.pop().is_none() && log.is_empty() && log.bytes() == 0);
    }
}

#[test]
fn the_limit_counts_what_is_in_the_file_and_not_what_was() {
    let bytes = envelope(0).encode().len() as u64;
    let mut log = Log::new(Spill::in_memory(2 * bytes));
    log.append(&envelope(0), None).unwrap();
    log.append(&envelope(1), None).unwrap();
    assert!(log.append(&envelope(2), None).unwrap_err().0.is(&codes::BUS_FULL));
    drop(log.pop());
    log.append(&envelope(2), None).unwrap();
    assert_eq!((log.len(), log.bytes()), (2, 2 * bytes));
}

/// Fails on demand, and flips a bit of what is read.
struct Bad {
    file: MemorySpill,
    full: Arc<AtomicBool>,
    flip: Arc<AtomicBool>,
}

impl SpillFile for Bad {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.full.load(Ordering::Relaxed) {
            return Err(Error::new(&codes::DRIVE_FULL, "no room"));
        }
        self.file.append(bytes)
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.file.read_at(offset, into)?;
        into[40] ^= u8::from(self.flip.load(Ordering::Relaxed));
        Ok(())
    }

    fn trim(&mut self, offset: u64) {
        self.file.trim(offset);
    }
}

#[test]
fn a_damaged_envelope_is_an_error_and_never_another_envelope() {
    let (full, flip) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let bad =
        Bad { file: MemorySpill::default(), full: Arc::clone(&full), flip: Arc::clone(&flip) };
    let mut log = Log::new(Spill::new(bad, 1 << 20));
    for number in 0..3 {
        log.append(&envelope(number), None).unwrap();
    }
    full.store(true, Ordering::Relaxed);
    assert!(log.append(&envelope(3), None).unwrap_err().0.is(&codes::DRIVE_FULL));
    assert_eq!(log.pop().unwrap().envelope.unwrap(), envelope(0));
    flip.store(true, Ordering::Relaxed);
    assert!(log.pop().unwrap().envelope.unwrap_err().is(&codes::FORMAT_DAMAGED));
    flip.store(false, Ordering::Relaxed);
    assert_eq!(log.pop().unwrap().envelope.unwrap(), envelope(2));
}
