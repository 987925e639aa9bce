//! Bytes with a right check that nobody meant: whoever can write to a drive can make them. What reads them
//! neither panics nor takes more memory than there are bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use dwk_base::codec::{Reader, Writer};
use dwk_base::{Epoch, Result, Seams, StripeId, codes};
use dwk_drive::{Drive, Holder, MemoryDrive};
use dwk_journal::Position;
use dwk_pool::{Damage, NewDrive, OpenOptions, Pool, PoolOptions, Stripe, StripeCode};
use proptest::prelude::*;

use crate::record::{NewContent, Operation, RecordWriter, Root};
use crate::row::{Content, Piece, Place, Row};
use crate::run::{Entries, Entry, Meaning, RunRef};
use crate::state::State;
use crate::{Change, Meta, Options};

/// Small numbers, and those at the borders.
fn number() -> impl Strategy<Value = u64> {
    const BORDERS: &[u64] = &[0, 1, u32::MAX as u64 - 1, u32::MAX as u64, u64::MAX - 1, u64::MAX];
    prop_oneof![3 => 0..9u64, 1 => prop::sample::select(BORDERS), 1 => any::<u64>()]
}

fn short() -> impl Strategy<Value = u32> {
    number().prop_map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

fn stripe() -> impl Strategy<Value = Stripe> {
    let code = (short(), 1..4u8, 0..3u8).prop_map(|(matrix_id, data, parity)| StripeCode {
        matrix_id,
        data,
        parity,
        local: 0,
    });
    (0..4u128, number(), code, short(), short()).prop_map(|(id, epoch, code, shard, payload)| {
        let most = u64::from(code.data) * u64::from(shard);
        let count = u16::from(code.data) + u16::from(code.parity);
        Stripe {
            id: StripeId::from_u128(id),
            epoch: Epoch(epoch),
            code,
            shard_bytes: shard,
            payload_bytes: u64::from(payload).min(most) as u32,
            placement: (0..count).collect(),
        }
    })
}

fn damage() -> impl Strategy<Value = Damage> {
    let shards = prop::collection::vec(any::<u8>(), 0..5);
    let stripes =
        prop::collection::btree_map((0..4u128).prop_map(StripeId::from_u128), shards, 0..4);
    (stripes, any::<bool>()).prop_map(|(stripes, more)| Damage { stripes, more })
}

fn piece() -> impl Strategy<Value = Piece> {
    let journal = (number(), number(), short(), short(), short()).prop_map(
        |(sequence, segment, at, bytes, offset)| Place::Journal {
            position: Position { sequence, segment, offset: at, bytes },
            offset,
        },
    );
    let stripe = (0..4u128, short())
        .prop_map(|(id, offset)| Place::Stripe { id: StripeId::from_u128(id), offset });
    let place = prop_oneof![journal, stripe];
    (place, short(), any::<u64>()).prop_map(|(place, bytes, check)| Piece { place, bytes, check })
}

fn content() -> impl Strategy<Value = Content> {
    prop::collection::vec(piece(), 0..4).prop_map(|pieces| Content { pieces })
}

fn row() -> impl Strategy<Value = Row> {
    (number(), prop::option::of(content())).prop_map(|(version, content)| Row {
        version,
        body: b"body".as_slice().into(),
        content,
    })
}

fn run() -> impl Strategy<Value = RunRef> {
    (content(), prop::collection::vec(stripe(), 0..3), number())
        .prop_map(|(content, stripes, entries)| RunRef { content, stripes, entries })
}

fn root() -> impl Strategy<Value = Root> {
    (number(), prop::collection::vec(run(), 0..3)).prop_map(|(folded, runs)| Root { folded, runs })
}

fn operation() -> impl Strategy<Value = Operation<'static>> {
    const KEYS: &[&[u8]] = &[b"a", b"b", b"", b"\0\0"];
    let key = || prop::sample::select(KEYS);
    let new = prop_oneof![
        Just(NewContent::None),
        Just(NewContent::Keep),
        any::<u64>().prop_map(|check| NewContent::Inline { bytes: b"inline", check }),
        content().prop_map(NewContent::Pieces),
    ];
    prop_oneof![
        4 => (key(), new).prop_map(|(key, content)| Operation::Put { key, body: b"body", content }),
        1 => key().prop_map(|key| Operation::Delete { key }),
        3 => stripe().prop_map(Operation::AddStripe),
        1 => stripe().prop_map(Operation::MoveStripe),
        1 => (0..4u128).prop_map(|id| Operation::DropStripe(StripeId::from_u128(id))),
        2 => (key(), number(), content())
            .prop_map(|(key, version, content)| Operation::Relocate { key, version, content }),
        2 => root().prop_map(Operation::Root),
        1 => damage().prop_map(Operation::Damage),
    ]
}

/// A change of some bytes: which, to what, and how many go.
fn hurts() -> impl Strategy<Value = Vec<(usize, u8, usize)>> {
    prop::collection::vec((any::<usize>(), any::<u8>(), 0..3usize), 0..4)
}

fn hurt(mut bytes: Vec<u8>, hurts: &[(usize, u8, usize)]) -> Vec<u8> {
    for &(at, byte, less) in hurts {
        if !bytes.is_empty() {
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.drain(at..(at + less).min(bytes.len()));
        }
    }
    bytes
}

fn is_coded<T>(done: Result<T>) -> bool {
    done.err().is_none_or(|error| error.is(&codes::FORMAT_DAMAGED))
}

/// What everybody asks of a map.
fn ask(state: &State) {
    let _ = (state.garbage_bytes(), state.live_bytes(), state.run_bytes(), state.codes());
    let _ = (state.dead().count(), state.inline_after(None).count(), state.usage(0));
    for (_, row) in state.range(std::ops::Bound::Unbounded, std::ops::Bound::Unbounded) {
        let _ = row.content.as_ref().map(|content| (content.bytes(), content.check()));
    }
}

/// A pool of three drives in memory.
fn drives() -> Vec<Arc<dyn Drive>> {
    (1..4).map(|n| Arc::new(MemoryDrive::new(format!("d{n}"))) as Arc<dyn Drive>).collect()
}

fn holder() -> Holder {
    Holder { pid: 1, host: "test".into(), since_unix_ns: 0, program: "test".into() }
}

/// A store on these.
fn create(drives: &[Arc<dyn Drive>]) -> Arc<Meta> {
    let new = |drive: &Arc<dyn Drive>| NewDrive {
        drive: Arc::clone(drive),
        name: drive.describe().location,
        labels: BTreeMap::new(),
    };
    let new: Vec<_> = drives.iter().map(new).collect();
    let (geometry, options) = ("2+1".parse().unwrap(), PoolOptions::default());
    let pool = Pool::create(&new, &geometry, &options, Seams::system(), &holder()).unwrap();
    Meta::create(pool, Options::default()).unwrap()
}

#[test]
fn a_root_that_claims_records_which_come_after_it_is_damage() {
    for folded in [3, 1000, u64::MAX - 1, u64::MAX] {
        let drives = drives();
        let meta = create(&drives);
        meta.commit(Change::new().put(b"key".to_vec(), Vec::new(), None)).unwrap();
        let mut record = RecordWriter::new();
        record.push(&Operation::Root(Root { folded, runs: Vec::new() }));
        assert!(meta.commit_record(record).unwrap().sequence <= 3);
        drop(meta); // as if it were killed
        let pool = Pool::open(drives, OpenOptions::default(), Seams::system(), &holder()).unwrap();
        let error = Meta::open(pool, Options::default()).unwrap_err();
        assert!(error.is(&codes::FORMAT_DAMAGED), "{folded}: {error}");
    }
}

#[test]
fn packing_gives_no_right_check_to_wrong_bytes() {
    let meta = create(&drives());
    let mut upload = meta.upload();
    upload.append(&vec![7; 200_000]).unwrap();
    let staged = upload.finish().unwrap();
    meta.commit(Change::new().put(b"key".to_vec(), Vec::new(), Some(staged))).unwrap();
    let row = meta.get(b"key").unwrap().unwrap();
    let stripes = row.content.iter().flat_map(Content::in_stripes).map(|(id, _)| id).collect();
    let mut content = row.content.unwrap();
    content.pieces[0].check ^= 1; // what was put was something else
    let mut record = RecordWriter::new();
    record.push(&Operation::Relocate {
        key: b"key",
        version: row.version,
        content: content.clone(),
    });
    meta.commit_record(record).unwrap();
    let packed = crate::pack::stripes(&meta, &stripes).unwrap();
    assert_eq!((packed.lost_pieces, packed.moved_bytes), (1, 0));
    assert!(packed.whole().unwrap_err().is(&codes::DATA_CORRUPT));
    assert_eq!(meta.get(b"key").unwrap().unwrap().content, Some(content));
}

#[test]
fn a_piece_that_ends_beyond_what_it_lies_in_is_damage() {
    let record = Position { sequence: 1, segment: 1, offset: 4096, bytes: 100 };
    let id = StripeId::from_u128(1);
    for (place, bytes) in [
        (Place::Stripe { id, offset: u32::MAX }, 1),
        (Place::Stripe { id, offset: 2 }, u32::MAX - 1),
        (Place::Journal { position: record, offset: 99 }, 2),
        (Place::Journal { position: record, offset: u32::MAX }, 2),
        (Place::Journal { position: Position { bytes: u32::MAX, ..record }, offset: 0 }, 1),
    ] {
        let mut writer = Writer::new();
        Content { pieces: vec![Piece { place, bytes, check: 0 }] }.encode(&mut writer);
        let error = Content::decode(&mut Reader::new(writer.as_slice(), "a test")).unwrap_err();
        assert!(error.is(&codes::FORMAT_DAMAGED), "{place:?}");
    }
}

fn cases() -> ProptestConfig {
    let cases = if std::env::var_os("DWK_LONG").is_some() { 100_000 } else { 1000 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn records_that_nobody_wrote_are_applied_or_refused(
        records in prop::collection::vec((prop::collection::vec(operation(), 0..5), hurts()), 1..6),
    ) {
        let mut state = State::default();
        for (sequence, (operations, hurts)) in (1..).zip(records) {
            let mut record = RecordWriter::new();
            for operation in &operations {
                record.push(operation);
            }
            let record = hurt(record.finish().to_vec(), &hurts);
            let position =
                Position { sequence, segment: 1, offset: 4096, bytes: record.len() as u32 };
            prop_assert!(is_coded(state.apply(position, &record)));
            ask(&state);
        }
    }

    #[test]
    fn runs_that_nobody_wrote_are_loaded_or_refused(
        rows in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 0..3), prop::option::of(row()), 0..5),
        stripes in prop::collection::btree_map(0..4u128, prop::option::of(stripe()), 0..4),
        root in root(),
        wrong in prop_oneof![5 => Just(0u64), 1 => number()],
        hurts in hurts(),
    ) {
        let mut writer = Writer::new();
        let count = (rows.len() + stripes.len()) as u64;
        for (id, stripe) in &stripes {
            Entry::stripe(StripeId::from_u128(*id), stripe.as_ref()).encode(&mut writer);
        }
        for (key, row) in &rows {
            Entry::row(key, row.as_ref()).encode(&mut writer);
        }
        let mut rest = hurt(writer.finish(), &hurts);
        let mut entries = Entries::new(count.wrapping_add(wrong), move |into| {
            let taken = rest.len().min(into.len());
            into[..taken].copy_from_slice(&rest[..taken]);
            rest.drain(..taken);
            Ok(taken)
        });
        let mut state = State::default();
        let mut load = || {
            while let Some(entry) = entries.next()? {
                match entry.meaning()? {
                    Meaning::Row(key, row) => state.load_row(key, row),
                    Meaning::Stripe(id, stripe) => state.load_stripe(id, stripe),
                }
            }
            Ok(())
        };
        prop_assert!(is_coded(load()));
        state.loaded(&root);
        ask(&state);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(prop_oneof![2 => 0..8u8, 1 => any::<u8>()], 0..300)) {
        let reader = || Reader::new(&bytes, "a test");
        prop_assert!(is_coded(Row::decode(&mut reader())));
        prop_assert!(is_coded(RunRef::decode(&mut reader())));
        prop_assert!(is_coded(Stripe::decode(&mut reader())));
        prop_assert!(is_coded(crate::record::visit(&bytes, |_, _| Ok(()))));
    }
}
