//! What a store of rows and content promises, on drives in memory.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::ops::Bound;
use std::sync::Arc;

use dwk_base::codes;
use dwk_drive::Drive;
use dwk_meta::{Change, Meta, Require};
use dwk_pool::{Control, Redundancy};
use world::{Model, World, bytes, check, delete, get, put};

/// Contents of every kind: empty, inline, at the limit, in one stripe, in several.
const LENGTHS: [usize; 8] = [0, 1, 100, 2048, 2049, 9000, 40_000, 150_000];

fn filled(meta: &Arc<Meta>) -> Model {
    let mut model = Model::new();
    for (index, length) in LENGTHS.into_iter().enumerate() {
        let (key, content) = (format!("key{index}").into_bytes(), bytes(index as u64 + 1, length));
        put(meta, &key, &content).unwrap();
        model.insert(key, content);
    }
    model
}

#[test]
fn what_was_put_is_read_now_and_after_reopening() {
    let world = World::new(6, "4+2", 1);
    let meta = world.create().unwrap();
    let mut model = filled(&meta);
    check(&meta, &model, "before closing");
    delete(&meta, b"key3").unwrap();
    model.remove(b"key3".as_slice());
    put(&meta, b"key6", b"other").unwrap();
    model.insert(b"key6".to_vec(), b"other".to_vec());
    check(&meta, &model, "after changes");
    meta.close().unwrap();
    let meta = world.open().unwrap();
    check(&meta, &model, "after reopening");
    meta.checkpoint().unwrap();
    check(&meta, &model, "after a checkpoint");
    drop(meta); // not closed
    let meta = world.open().unwrap();
    check(&meta, &model, "after a drop");
}

#[test]
fn an_open_store_is_locked_and_a_closed_one_is_not() {
    let world = World::new(3, "2+1", 2);
    let meta = world.create().unwrap();
    assert!(world.open().unwrap_err().is(&codes::STORE_LOCKED));
    meta.close().unwrap();
    assert!(put(&meta, b"a", b"b").unwrap_err().is(&codes::STORE_CLOSED));
    world.open().unwrap();
}

#[test]
fn any_two_of_six_drives_can_be_lost() {
    let mut world = World::new(6, "4+2", 3);
    let meta = world.create().unwrap();
    let mut model = filled(&meta);
    meta.checkpoint().unwrap();
    put(&meta, b"late", b"in the journal").unwrap();
    model.insert(b"late".to_vec(), b"in the journal".to_vec());
    meta.close().unwrap();
    drop(meta);
    for a in 0..6 {
        for b in a + 1..6 {
            world.restart();
            let meta = world.open_without(&[a, b]).unwrap();
            check(&meta, &model, &format!("without d{} and d{}", a + 1, b + 1));
            let status = meta.pool().status(&*meta).unwrap();
            assert_eq!(status.redundancy, Redundancy::Degraded);
            assert!(!status.advice.is_empty());
            meta.close().unwrap();
        }
    }
    world.restart();
    let error = world.open_without(&[0, 1, 2]).unwrap_err();
    assert!(error.is(&codes::DRIVES_TOO_MANY_LOST), "{error}");
}

#[test]
fn a_degraded_store_takes_writes_and_a_drive_that_returns_is_brought_up_to_date() {
    let mut world = World::new(6, "4+2", 4);
    let meta = world.create().unwrap();
    let mut model = filled(&meta);
    meta.close().unwrap();
    drop(meta);
    world.restart();
    let meta = world.open_without(&[2]).unwrap();
    put(&meta, b"degraded", &bytes(77, 60_000)).unwrap();
    model.insert(b"degraded".to_vec(), bytes(77, 60_000));
    delete(&meta, b"key5").unwrap();
    model.remove(b"key5".as_slice());
    meta.collect().unwrap();
    meta.close().unwrap();
    drop(meta);
    world.restart();
    let meta = world.open().unwrap();
    check(&meta, &model, "with the drive back");
    meta.pool().refresh(&*meta, &Control::default()).unwrap();
    meta.pool().rebuild(&*meta, None, &Control::default()).unwrap();
    let status = meta.pool().status(&*meta).unwrap();
    assert_eq!(status.redundancy, Redundancy::Full, "{status:?}");
    check(&meta, &model, "refreshed");
}

#[test]
fn requirements_hold_or_nothing_changes() {
    let world = World::new(3, "2+1", 5);
    let meta = world.create().unwrap();
    let version = put(&meta, b"a", b"1").unwrap();
    let change = |require| {
        let put = Change::new().put(b"b".to_vec(), b"body".to_vec(), None);
        meta.commit(put.delete(b"a".to_vec()).require(b"a".to_vec(), require))
    };
    for require in [Require::Absent, Require::Version(version + 1)] {
        assert!(change(require).unwrap_err().is(&codes::OBJECT_CONFLICT));
        assert!(meta.get(b"b").unwrap().is_none());
    }
    change(Require::Version(version)).unwrap();
    assert!(meta.get(b"a").unwrap().is_none());
    assert!(change(Require::Present).unwrap_err().is(&codes::OBJECT_CONFLICT));
}

#[test]
fn of_many_writers_that_require_absence_one_wins() {
    let world = World::new(3, "2+1", 6);
    let meta = world.create().unwrap();
    let wins: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..16u8)
            .map(|n| {
                let meta = &meta;
                scope.spawn(move || {
                    let change = Change::new().put(b"k".to_vec(), vec![n], None);
                    meta.commit(change.require(b"k".to_vec(), Require::Absent)).is_ok()
                })
            })
            .collect();
        writers.into_iter().map(|writer| usize::from(writer.join().unwrap())).sum()
    });
    assert_eq!(wins, 1);
}

#[test]
fn a_reader_sees_what_it_opened_whatever_happens_meanwhile() {
    let world = World::new(6, "4+2", 7);
    let meta = world.create().unwrap();
    let model = filled(&meta);
    let mut readers: Vec<_> =
        model.iter().map(|(key, content)| (meta.read(key).unwrap().unwrap().1, content)).collect();
    for key in model.keys() {
        put(&meta, key, b"new").unwrap();
    }
    meta.checkpoint().unwrap();
    meta.collect().unwrap();
    for (reader, content) in &mut readers {
        let mut got = vec![0; content.len()];
        let (half, rest) = (content.len() / 2, content.len() - content.len() / 2);
        assert_eq!(reader.read_at(half as u64, &mut got[half..]).unwrap(), rest);
        assert_eq!(reader.read_at(0, &mut got[..half]).unwrap(), half);
        assert!(got == **content);
    }
    drop(readers);
    let report = meta.collect().unwrap();
    assert!(report.freed_bytes > 100_000, "{report:?}");
}

#[test]
fn what_is_deleted_comes_back_whole_stripes_at_once_and_half_empty_ones_by_packing() {
    let world = World::new(6, "4+2", 8);
    let meta = world.create().unwrap();
    let mut model = Model::new();
    for n in 0..200u64 {
        let (key, content) = (format!("k{n:03}").into_bytes(), bytes(n, 1500));
        put(&meta, &key, &content).unwrap();
        model.insert(key, content);
    }
    meta.checkpoint().unwrap();
    let used = |meta: &Arc<Meta>| -> u64 {
        let status = meta.pool().status(&**meta).unwrap();
        status.drives.iter().map(|drive| drive.used_bytes).sum()
    };
    let full = used(&meta);
    for n in (0..200u64).filter(|n| n % 4 != 0) {
        let key = format!("k{n:03}").into_bytes();
        delete(&meta, &key).unwrap();
        model.remove(&key);
    }
    let report = meta.collect().unwrap();
    assert!(report.packed_bytes > 0 && report.packed_bytes <= 50 * 1500, "{report:?}");
    meta.checkpoint().unwrap();
    check(&meta, &model, "packed");
    assert!(used(&meta) * 2 < full, "{} of {full} bytes are still used", used(&meta));
    let files = world.drives.iter().map(|drive| drive.list(Some("s"), None, 1000).unwrap().len());
    assert_eq!(files.sum::<usize>(), meta.status().stripes as usize * 6);
    meta.close().unwrap();
    drop(meta);
    check(&world.open().unwrap(), &model, "packed and reopened");
}

#[test]
fn an_upload_that_is_dropped_leaves_nothing() {
    let world = World::new(6, "4+2", 9);
    let meta = world.create().unwrap();
    let mut upload = meta.upload();
    upload.append(&bytes(1, 200_000)).unwrap();
    drop(upload);
    let mut upload = meta.upload();
    upload.append(&bytes(1, 200_000)).unwrap();
    drop(upload.finish().unwrap());
    for drive in &world.drives {
        assert_eq!(drive.list(Some("s"), None, 10).unwrap(), []);
    }
}

#[test]
fn an_object_that_no_record_can_name_is_refused_before_it_is_written_whole() {
    let world = World::new(3, "2+1", 12);
    let meta = world.create().unwrap();
    let mut upload = meta.upload();
    // Stripes of 16 KiB, records of 20 KiB.
    let piece = bytes(1, 16 << 10);
    let taken = (0..1000).find_map(|n| upload.append(&piece).err().map(|error| (n, error)));
    let (taken, error) = taken.unwrap();
    assert!(error.is(&codes::JOURNAL_RECORD_SIZE), "{error}");
    drop(upload);
    assert!((200..260).contains(&taken), "{taken} stripes were taken");
    // What is taken can be committed, with a name as long as the rest of the record allows.
    let mut upload = meta.upload();
    (1..taken).for_each(|_| upload.append(&piece).unwrap());
    let staged = upload.finish().unwrap();
    meta.commit(Change::new().put(vec![b'k'; 4000], Vec::new(), Some(staged))).unwrap();
    let mut read = vec![0; piece.len()];
    let (_, mut reader) = meta.read(&[b'k'; 4000]).unwrap().unwrap();
    reader.read_at((taken - 2) * (16 << 10), &mut read).unwrap();
    assert!(read == piece);
}

#[test]
fn ranges_are_in_the_order_of_bytes() {
    let world = World::new(3, "2+1", 10);
    let meta = world.create().unwrap();
    for key in ["b", "a", "ä", "c/1", "c"] {
        put(&meta, key.as_bytes(), b"").unwrap();
    }
    let rows = meta.range(Bound::Excluded(b"a".as_slice()), Bound::Unbounded, 3).unwrap();
    let keys: Vec<_> = rows.iter().map(|(key, _)| String::from_utf8_lossy(key)).collect();
    assert_eq!(keys, ["b", "c", "c/1"]);
}

#[test]
fn checkpoints_are_incremental_and_merged_runs_say_the_same() {
    let world = World::new(3, "2+1", 11);
    let meta = world.create().unwrap();
    let mut model = Model::new();
    for round in 0..30u64 {
        for n in 0..20u64 {
            let key = format!("k{:03}", (round * 7 + n * 13) % 200).into_bytes();
            if (round + n) % 5 == 0 {
                delete(&meta, &key).unwrap();
                model.remove(&key);
            } else {
                let content = bytes(round * 100 + n, (n * 170) as usize);
                put(&meta, &key, &content).unwrap();
                model.insert(key, content);
            }
        }
        meta.checkpoint().unwrap();
    }
    assert!(meta.status().runs <= 6, "{:?}", meta.status());
    check(&meta, &model, "before reopening");
    drop(meta);
    let meta = world.open().unwrap();
    check(&meta, &model, "from the checkpoint");
    assert!(get(&meta, b"nothing").unwrap().is_none());
}
