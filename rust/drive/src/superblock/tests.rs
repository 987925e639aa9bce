//! What superblocks promise.

use proptest::prelude::*;

use super::*;
use crate::{Entry, MemoryDrive, Slot};

fn sample(epoch: u64) -> Superblock {
    let row = |index: u16| MemberRow {
        index,
        id: DriveId::from_u128(u128::from(index) + 1),
        name: format!("d{}", index + 1),
        state: MemberState::from_byte(index as u8 % 5).unwrap(),
        location: format!("/mnt/d{index}"),
        labels: BTreeMap::from([("rack".to_owned(), index.to_string())]),
        capacity_bytes: 1 << 40,
        epoch: Epoch(4),
    };
    Superblock {
        format_version: FORMAT_VERSION,
        features: Features::default(),
        pool: PoolId::from_u128(7),
        drive: DriveId::from_u128(1),
        epoch: Epoch(epoch),
        created_unix_ns: 1,
        written_unix_ns: 2,
        clean: true,
        in_force: true,
        took_part: Epoch(epoch),
        follows: vec![Edition { epoch: Epoch(4), digest: [9; 32] }],
        geometry: "4+2".to_owned(),
        members: (0..6).map(row).collect(),
        journal: (1..4).map(DriveId::from_u128).collect(),
        keyring: vec![1, 2, 3],
        options: vec![("block_bytes".to_owned(), "65536".to_owned())],
    }
}

fn load(drive: &MemoryDrive) -> Loaded {
    Superblock::load(drive).unwrap().unwrap()
}

/// What is in force, on a drive that holds nothing else.
fn in_force(drive: &MemoryDrive) -> Superblock {
    let loaded = load(drive);
    assert_eq!(loaded.proposed, None);
    loaded.in_force.unwrap().superblock
}

fn proposal(epoch: u64) -> Superblock {
    Superblock { in_force: false, took_part: Epoch(1), ..sample(epoch) }
}

#[test]
fn an_empty_drive_has_no_superblock() {
    let drive = MemoryDrive::new("d");
    assert_eq!(Superblock::load(&drive).unwrap(), None);
    drive.set_raw(&Entry::SuperblockA, Some(vec![0; 4096]));
    assert_eq!(Superblock::load(&drive).unwrap(), None);
}

#[test]
fn slots_are_written_in_turn_and_the_latest_wins() {
    let drive = MemoryDrive::new("d");
    let mut state = sample(1).create(&drive).unwrap();
    for epoch in [1, 1, 2, 3, 3] {
        let mut superblock = sample(epoch);
        superblock.written_unix_ns = state.revision() + 100;
        let before = state.kept();
        superblock.store(&drive, &mut state).unwrap();
        assert_ne!(before, state.kept());
        assert_eq!(in_force(&drive), superblock);
        assert_eq!(load(&drive).keeping(&superblock.edition()), state);
        assert!(!load(&drive).other_damaged);
    }
}

#[test]
fn creating_leaves_nothing_of_an_older_pool() {
    let drive = MemoryDrive::new("d");
    sample(900).create(&drive).unwrap();
    let young = Superblock { pool: PoolId::from_u128(8), ..sample(1) };
    young.create(&drive).unwrap();
    assert_eq!(in_force(&drive), young);
}

#[test]
fn a_torn_write_leaves_the_other_slot_and_is_mended_by_the_next() {
    let drive = MemoryDrive::new("d");
    let mut state = sample(1).create(&drive).unwrap();
    sample(2).store(&drive, &mut state).unwrap();
    let torn = if state.kept() == Slot::A { Entry::SuperblockA } else { Entry::SuperblockB };
    let mut bytes = drive.raw(&torn).unwrap();
    bytes[100..].fill(0);
    drive.set_raw(&torn, Some(bytes));
    assert!(load(&drive).other_damaged);
    assert_eq!(in_force(&drive), sample(1));
    let mut state = load(&drive).keeping(&sample(1).edition());
    sample(3).store(&drive, &mut state).unwrap();
    assert!(!load(&drive).other_damaged);
    assert_eq!(in_force(&drive), sample(3));
}

#[test]
fn a_proposal_stands_beside_what_is_in_force_until_it_is_in_force_itself() {
    let drive = MemoryDrive::new("d");
    let mut state = sample(1).create(&drive).unwrap();
    // Tries that do not count never reach the slot of what is in force.
    for epoch in [2, 3] {
        proposal(epoch).store(&drive, &mut state).unwrap();
        state.pass_over();
        let loaded = load(&drive);
        assert_eq!(loaded.keeping(&sample(1).edition()), state);
        assert_eq!(loaded.took_part(), Epoch(1));
        assert_eq!(loaded.in_force.unwrap().superblock, sample(1));
        assert_eq!(loaded.proposed.unwrap().superblock, proposal(epoch));
    }
    proposal(4).store(&drive, &mut state).unwrap();
    assert_eq!(load(&drive).keeping(&sample(4).edition()), state);
    sample(4).store(&drive, &mut state).unwrap();
    assert_eq!(in_force(&drive), sample(4), "its proposal is no news");
    assert_eq!(load(&drive).keeping(&sample(4).edition()), state);
}

#[test]
fn an_edition_is_the_same_on_every_drive_and_in_every_standing_and_for_no_other_content() {
    let elsewhere = Superblock { drive: DriveId::from_u128(5), ..proposal(2) };
    assert_eq!(elsewhere.edition(), sample(2).edition());
    let other = Superblock { written_unix_ns: 3, ..sample(2) };
    assert_ne!(other.edition(), sample(2).edition());
    let other = Superblock { follows: vec![], ..sample(2) };
    assert_ne!(other.edition(), sample(2).edition());
}

#[test]
fn a_drive_is_unborn_while_nothing_was_in_force_and_torn_before_its_first_is_whole() {
    let drive = MemoryDrive::new("d");
    assert!(!Superblock::is_torn_first(&drive).unwrap());
    drive.set_raw(&Entry::SuperblockA, Some(vec![7; 4096]));
    assert!(Superblock::is_torn_first(&drive).unwrap());
    drive.set_raw(&Entry::SuperblockA, Some(vec![0; 4096]));
    assert!(Superblock::is_torn_first(&drive).unwrap());
    let first = Superblock { follows: vec![], ..proposal(1) };
    let mut state = first.create(&drive).unwrap();
    assert!(load(&drive).is_unborn);
    proposal(2).store(&drive, &mut state).unwrap();
    assert!(load(&drive).is_unborn);
    state.pass_over();
    Superblock { follows: vec![], ..sample(1) }.store(&drive, &mut state).unwrap();
    assert!(!load(&drive).is_unborn);
    drive.set_raw(&Entry::SuperblockA, Some(vec![7; 4096]));
    assert!(!Superblock::is_torn_first(&drive).unwrap());
    let drive = MemoryDrive::new("d");
    proposal(2).create(&drive).unwrap();
    assert!(!load(&drive).is_unborn, "it was made from another one");
}

#[test]
fn both_damaged_is_refused() {
    let drive = MemoryDrive::new("d");
    sample(1).create(&drive).unwrap();
    for entry in [Entry::SuperblockA, Entry::SuperblockB] {
        drive.flip(&entry, 70, 1);
    }
    assert!(Superblock::load(&drive).unwrap_err().is(&codes::SUPERBLOCK_DAMAGED));
}

#[test]
fn another_version_and_unknown_features_are_refused_by_name() {
    let incompatible = Features { incompatible: 4, ..Features::default() };
    let foreign = [
        Superblock { format_version: 1, ..sample(1) },
        Superblock { features: incompatible, ..sample(1) },
    ];
    for superblock in foreign {
        let drive = MemoryDrive::new("d");
        superblock.create(&drive).unwrap();
        assert!(Superblock::load(&drive).unwrap_err().is(&codes::FORMAT_NEWER));
    }
    let read_only = Features { read_only: 1, ..Features::default() };
    let drive = MemoryDrive::new("d");
    Superblock { features: read_only, ..sample(1) }.create(&drive).unwrap();
    assert!(!in_force(&drive).writable());
}

#[test]
fn what_does_not_fit_a_slot_is_refused() {
    let huge = Superblock { keyring: vec![0; SUPERBLOCK_BYTES_MAX], ..sample(1) };
    assert!(huge.encode(1).unwrap_err().is(&codes::BUFFER_LENGTH));
}

#[test]
fn any_single_flip_in_either_slot_yields_a_stored_superblock() {
    let bytes = sample(2).encode(2).unwrap();
    let used = HEADER_BYTES + sample(2).encode_body().len();
    for slot in [Entry::SuperblockA, Entry::SuperblockB] {
        let drive = MemoryDrive::new("d");
        let mut state = sample(1).create(&drive).unwrap();
        sample(2).store(&drive, &mut state).unwrap();
        for bit in 0..bytes.len() * 8 {
            drive.flip(&slot, bit / 8, 1 << (bit % 8));
            let hit_the_later = slot == Entry::SuperblockA && bit / 8 < used;
            assert_eq!(in_force(&drive), sample(if hit_the_later { 1 } else { 2 }), "{bit}");
            assert_eq!(load(&drive).other_damaged, bit / 8 < used, "{bit}");
            drive.flip(&slot, bit / 8, 1 << (bit % 8));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bodies_that_are_no_superblock_never_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Superblock::decode_body(&body, FORMAT_VERSION);
    }

    #[test]
    fn changed_bodies_never_panic(at in 0usize..400, byte in any::<u8>(), cut in 0usize..400) {
        let mut body = sample(1).encode_body();
        let at = at % body.len();
        body[at] = byte;
        body.truncate(body.len().saturating_sub(cut));
        let _ = Superblock::decode_body(&body, FORMAT_VERSION);
    }

    #[test]
    fn what_is_written_is_read(
        epoch in 0..=Epoch::LAST.0, revision in 0..=super::REVISION_LAST, text in "\\PC*", clean in any::<bool>(),
        keyring in prop::collection::vec(any::<u8>(), 0..500), members in 0u16..40,
        in_force in any::<bool>(), follows in prop::collection::vec((0..=Epoch::LAST.0, any::<[u8; 32]>()), 0..9),
    ) {
        let mut superblock = sample(epoch);
        (superblock.clean, superblock.in_force) = (clean, in_force);
        let editions = follows.into_iter();
        superblock.follows = editions.map(|(epoch, digest)| Edition { epoch: Epoch(epoch), digest }).collect();
        superblock.keyring = keyring;
        superblock.geometry.clone_from(&text);
        superblock.options.push((text.clone(), text));
        let row = superblock.members[0].clone();
        superblock.members = (0..members).map(|index| MemberRow { index, ..row.clone() }).collect();
        let bytes = superblock.encode(revision).unwrap();
        prop_assert!(bytes.len().is_multiple_of(ALIGNMENT));
        match parse(&bytes) {
            Ok(Found::Valid { superblock: read, revision: number }) => {
                prop_assert_eq!(*read, superblock);
                prop_assert_eq!(number, revision);
            }
            _ => prop_assert!(false, "not valid"),
        }
    }
}
