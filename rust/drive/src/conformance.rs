//! The suite that every drive must pass, for the bodies here and for those that others write.
//!
//! ```
//! use std::sync::Arc;
//! use dwk_drive::{MemoryDrive, conformance};
//!
//! conformance::run(&|| Arc::new(MemoryDrive::new("d1")));
//! ```

use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use dwk_base::{Code, Error, Result, codes};

use crate::{ALIGNMENT, BlobName, Drive, Holder, LockMode, Log, SUPERBLOCK_BYTES_MAX, Slot};

/// Makes an empty drive.
pub type Make<'a> = &'a dyn Fn() -> Arc<dyn Drive>;

/// Runs every check, each on a drive that `make` gives it.
///
/// # Panics
/// With a sentence that names the broken promise.
pub fn run(make: Make<'_>) {
    for (_, check) in CHECKS {
        check(&make());
    }
}

/// A check takes an empty drive.
pub type Check = fn(&Arc<dyn Drive>);

/// The checks by name, to be run one by one.
pub const CHECKS: [(&str, Check); 16] = [
    ("blobs are read as they were put", blobs_are_read_as_put),
    ("large blobs of odd parts", large_blobs_of_odd_parts),
    ("ranges", ranges),
    ("blobs are written once", blobs_are_written_once),
    ("what is not there", what_is_not_there),
    ("deletion", deletion),
    ("listings", listings),
    ("one of many writers wins", one_of_many_writers_wins),
    ("description and capacity", description_and_capacity),
    ("superblock slots", superblock_slots),
    ("locks", locks),
    ("logs begin as zeroes", logs_begin_as_zeroes),
    ("logs are written in place", logs_are_written_in_place),
    ("logs refuse what does not fit", logs_refuse_what_does_not_fit),
    ("logs are listed and deleted", logs_are_listed_and_deleted),
    ("names that look alike", names_that_look_alike),
];

#[track_caller]
fn promise(holds: bool, sentence: &str) {
    assert!(holds, "a promise is broken: {sentence}");
}

#[track_caller]
fn works<T>(result: Result<T>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("a promise is broken: {what} works, but: {error}"))
}

#[track_caller]
fn refuses<T>(result: Result<T>, code: &'static Code, what: &str) {
    match result {
        Ok(_) => panic!("a promise is broken: {what} fails with {}, but it worked", code.name),
        Err(error) if error.is(code) => {}
        Err(error) => panic!("a promise is broken: {what} fails with {}, but: {error}", code.name),
    }
}

fn name(text: &str) -> BlobName {
    works(BlobName::new(text), "a name of the suite")
}

/// Bytes that differ from place to place.
fn pattern(length: usize, seed: u64) -> Bytes {
    let byte = |at: usize| ((at as u64).wrapping_mul(0x9e37_79b9).wrapping_add(seed) >> 7) as u8;
    (0..length).map(byte).collect::<Vec<_>>().into()
}

fn put(drive: &dyn Drive, text: &str, content: &Bytes) {
    works(drive.put(&name(text), std::slice::from_ref(content)), "put");
}

fn whole(drive: &dyn Drive, text: &str) -> Vec<u8> {
    let info = works(drive.stat(&name(text)), "stat");
    let mut bytes = vec![0; info.bytes as usize];
    let count = works(drive.read(&name(text), 0, &mut bytes), "read");
    promise(count == bytes.len(), "a read of the whole length gives the whole blob");
    bytes
}

fn blobs_are_read_as_put(drive: &Arc<dyn Drive>) {
    let drive = &**drive;
    for (text, length) in
        [("s/0", 0), ("s/1", 1), ("s/4095", 4095), ("plain", 4096), ("t/x", 70_000)]
    {
        let content = pattern(length, 1);
        put(drive, text, &content);
        promise(whole(drive, text) == content, "a blob is read as it was put, before the sync");
    }
    works(drive.sync("conformance"), "sync");
    promise(whole(drive, "t/x") == pattern(70_000, 1), "a blob is the same after the sync");
    let parts = [pattern(10, 1), Bytes::new(), pattern(20, 2), pattern(30, 3)];
    works(drive.put(&name("parts"), &parts), "put of parts");
    promise(whole(drive, "parts") == parts.concat(), "a blob is the concatenation of its parts");
    works(drive.put(&name("nothing"), &[]), "put without parts");
    promise(whole(drive, "nothing").is_empty(), "no parts are an empty blob");
}

fn large_blobs_of_odd_parts(drive: &Arc<dyn Drive>) {
    let drive = &**drive;
    let content = pattern((5 << 20) + 123, 9);
    // Cut so that parts begin and end aligned and not, in memory and in the file.
    let cuts: [&[usize]; 5] =
        [&[], &[4096], &[1, 4096, 8192], &[100, (3 << 20) + 5, 4 << 20], &[4096, 4097, 2 << 20]];
    for (index, cuts) in cuts.iter().enumerate() {
        let ends = cuts.iter().copied().chain([content.len()]);
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let parts = starts.zip(ends).map(|(start, end)| content.slice(start..end));
        let parts = parts.collect::<Vec<_>>();
        let text = format!("s/{index:032x}.00");
        works(drive.put(&name(&text), &parts), "put of a large blob");
        promise(whole(drive, &text) == content, "a large blob is the concatenation of its parts");
    }
    let copied = parts_at_odd_addresses(&content);
    works(drive.put(&name("odd"), &copied), "put of unaligned memory");
    promise(whole(drive, "odd") == content, "the memory of parts may lie anywhere");
    let many = content.chunks(1500).map(Bytes::copy_from_slice).collect::<Vec<_>>();
    works(drive.put(&name("many"), &many), "put of thousands of parts");
    promise(whole(drive, "many") == content, "a blob may have thousands of parts");
    works(drive.sync("conformance"), "sync");
}

fn parts_at_odd_addresses(content: &Bytes) -> Vec<Bytes> {
    let odd = |part: &[u8]| {
        let memory = Bytes::from([&[0; 3], part].concat());
        memory.slice(3..)
    };
    content.chunks((1 << 20) + 8192).map(odd).collect()
}

fn ranges(drive: &Arc<dyn Drive>) {
    let drive = &**drive;
    let content = pattern(10_000, 3);
    put(drive, "s/ab", &content);
    for offset in [0, 1, 511, 4096, 9_999, 10_000, 10_001, 1 << 40, u64::MAX - 1, u64::MAX] {
        for length in [0, 1, 512, 4097, 20_000] {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
            let expected = &content[start..start + length.min(content.len() - start)];
            let mut into = vec![0xee; length];
            let count = works(drive.read(&name("s/ab"), offset, &mut into), "a read of a range");
            promise(count == expected.len(), "a read is short only at the end");
            promise(into[..count] == *expected, "a range is read from its offset");
            promise(into[count..].iter().all(|byte| *byte == 0xee), "nothing else is touched");
            let now = works(drive.read_now(&name("s/ab"), offset, &mut into), "read_now");
            promise(
                now.is_none_or(|now| now == count),
                "read_now reads what read does, or nothing",
            );
            promise(now.is_none() || into[..count] == *expected, "read_now reads what read does");
        }
    }
}

fn blobs_are_written_once(drive: &Arc<dyn Drive>) {
    let drive = &**drive;
    for synced in [false, true] {
        let text = format!("s/{synced}");
        put(drive, &text, &pattern(100, 1));
        if synced {
            works(drive.sync("conformance"), "sync");
        }
        let again = drive.put(&name(&text), &[pattern(200, 2)]);
        refuses(again, &codes::BLOB_EXISTS, "a second put");
        promise(whole(drive, &text) == pattern(100, 1), "a refused put leaves the blob alone");
    }
}

fn what_is_not_there(drive: &Arc<dyn Drive>) {
    let drive = &**drive;
    put(drive, "s/0123", &pattern(1, 1));
    for text in ["s/x", "none", "s/0123.00", "s/0124", "t/0123", "0123"] {
        let missing = name(text);
        refuses(drive.stat(&missing), &codes::BLOB_NOT_FOUND, "stat of a missing blob");
        refuses(
            drive.read(&missing, 0, &mut [0]),
            &codes::BLOB_NOT_FOUND,
            "a read of a missing blob",
        );
        refuses(drive.delete(&missing), &codes::BLOB_NOT_FOUND, "delete of a missing blob");
        match drive.read_now(&missing, 0, &mut [0]) {
            Ok(None) => {}
            result => refuses(result, &codes::BLOB_NOT_FOUND, "read_now of a missing blob"),
        }
    }
}

fn deletion(drive: &Arc<dyn Drive>) {
    let drive = &**drive;
    for synced in [false, true] {
        put(drive, "s/aa", &pattern(5000, 1));
        put(drive, "s/ab", &pattern(1, 1));
        promise(whole(drive, "s/aa") == pattern(5000, 1), "a blob is read as it was put");
        if synced {
            works(drive.sync("conformance"), "sync");
        }
        works(drive.delete(&name("s/aa")), "delete");
        refuses(drive.stat(&name("s/aa")), &codes::BLOB_NOT_FOUND, "stat of a deleted blob");
        let read = drive.read(&name("s/aa"), 0, &mut [0]);
        refuses(read, &codes::BLOB_NOT_FOUND, "a read of a deleted blob");
        let left = listed(drive, Some("s"), 10);
        promise(left == ["s/ab"], "a deleted blob is not listed and others are");
        put(drive, "s/aa", &pattern(6000, 2));
        promise(
            whole(drive, "s/aa") == pattern(6000, 2),
            "a name is free after its blob's deletion",
        );
        let mut into = vec![0; 6000];
        let now = works(drive.read_now(&name("s/aa"), 0, &mut into), "read_now");
        promise(
            now.is_none() || into == pattern(6000, 2),
            "read_now reads nothing of a blob that had the name before",
        );
        works(drive.delete(&name("s/aa")), "delete");
        works(drive.delete(&name("s/ab")), "delete");
        works(drive.sync("conformance"), "sync");
        promise(
            listed(drive, Some("s"), 10).is_empty(),
            "what was deleted stays so after the sync",
        );
    }
}

/// All names of a folder, in pages of `limit`.
fn listed(drive: &dyn Drive, folder: Option<&str>, limit: usize) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let after = names.last().map(|last| name(last));
        let page = works(drive.list(folder, after.as_ref(), limit), "list");
        promise(page.len() <= limit, "a page has at most as many blobs as asked for");
        if page.is_empty() {
            return names;
        }
        for info in page {
            let bytes = works(drive.stat(&info.name), "stat of a listed blob").bytes;
            promise(bytes == info.bytes, "a listing says the length");
            let is_next = names.last().is_none_or(|last| last.as_str() < info.name.as_str());
            promise(is_next, "a page goes on after the last name of the one before, in order");
            names.push(info.name.as_str().to_owned());
        }
    }
}

fn listings(drive: &Arc<dyn Drive>) {
    let drive = &**drive;
    promise(listed(drive, None, 5).is_empty(), "an empty drive lists nothing");
    let leaves =
        ["0000", "00", "0", "00ff-a", "00ff", "0100", "a", "abcd.0", "abcd.1", "abce", "zz", "x_1"];
    let mut expected = [Vec::new(), Vec::new()];
    for (index, leaf) in leaves.iter().enumerate() {
        expected[0].push((*leaf).to_owned());
        expected[1].push(format!("s/{leaf}"));
        for names in &expected {
            put(drive, &names[index], &pattern(index * 10, 0));
        }
        // Some are synced and some are not.
        if index % 5 == 4 {
            works(drive.sync("conformance"), "sync");
        }
    }
    for names in &mut expected {
        names.sort();
    }
    for limit in [1, 2, 3, 5, 11, 12, 13, 1000] {
        promise(
            listed(drive, None, limit) == expected[0],
            "blobs without a folder are listed in order",
        );
        promise(listed(drive, Some("s"), limit) == expected[1], "a folder is listed in order");
    }
    promise(listed(drive, Some("t"), 5).is_empty(), "a folder that is not there lists nothing");
    promise(works(drive.list(Some("s"), None, 0), "list").is_empty(), "a page of none is empty");
    for after in ["s/", "s/0", "s/00ab", "s/00ff", "s/b", "s/zzz", "r/x", "t/x"] {
        let Ok(after) = BlobName::new(after) else { continue };
        let page = works(drive.list(Some("s"), Some(&after), 100), "list");
        let rest = expected[1].iter().filter(|name| name.as_str() > after.as_str());
        promise(
            page.iter().map(|info| info.name.as_str()).eq(rest.map(String::as_str)),
            "a page begins after the name that is given, which need not be there",
        );
    }
}

fn one_of_many_writers_wins(drive: &Arc<dyn Drive>) {
    let write = |index: u64| {
        let drive = Arc::clone(drive);
        thread::spawn(move || {
            let own = name(&format!("s/{index:04x}"));
            works(drive.put(&own, &[pattern(3000, index)]), "a put beside others");
            works(drive.sync("conformance"), "a sync beside others");
            drive.put(&name("s/shared"), &[pattern(3000, index)]).map(|()| index)
        })
    };
    let threads = (0..8).map(write).collect::<Vec<_>>();
    let results = threads.into_iter().map(|thread| {
        thread
            .join()
            .unwrap_or_else(|_| panic!("a promise is broken: a drive is used by many threads"))
    });
    let results: Vec<Result<u64, Error>> = results.collect();
    let winners = results.iter().filter_map(|result| result.as_ref().ok()).collect::<Vec<_>>();
    promise(winners.len() == 1, "of many puts of one name exactly one works");
    promise(
        whole(&**drive, "s/shared") == pattern(3000, *winners[0]),
        "the winner's content stays",
    );
    for error in results.into_iter().filter_map(Result::err) {
        promise(error.is(&codes::BLOB_EXISTS), "the others are told blob.exists");
    }
    for index in 0..8 {
        let own = whole(&**drive, &format!("s/{index:04x}"));
        promise(own == pattern(3000, index), "puts of other names do not disturb each other");
    }
}

fn description_and_capacity(drive: &Arc<dyn Drive>) {
    let description = drive.describe();
    promise(!description.kind.is_empty(), "a drive says what it is");
    promise(!description.location.is_empty(), "a drive says where it is");
    let capacity = works(drive.capacity(), "capacity");
    promise(capacity.free_bytes <= capacity.total_bytes, "no more is free than there is");
    promise(capacity.total_bytes > 0, "a drive has a size");
}

fn superblock_slots(drive: &Arc<dyn Drive>) {
    let drive = &**drive;
    let read = |slot| works(drive.read_superblock(slot), "read_superblock");
    promise(Slot::BOTH.iter().all(|slot| read(*slot).is_none()), "a new drive has no superblock");
    let holds = |slot, expected: &[u8]| {
        let found = read(slot).unwrap_or_default();
        let (head, tail) = found.split_at(expected.len().min(found.len()));
        head == expected && tail.iter().all(|byte| *byte == 0)
    };
    works(drive.write_superblock(Slot::A, &pattern(9000, 1)), "write_superblock");
    promise(
        holds(Slot::A, &pattern(9000, 1)),
        "a slot gives what was written, perhaps with zeroes after",
    );
    promise(read(Slot::B).is_none(), "writing a slot leaves the other one alone");
    works(drive.write_superblock(Slot::B, &pattern(4096, 2)), "write_superblock");
    works(drive.write_superblock(Slot::A, &pattern(4096, 3)), "write_superblock");
    promise(
        holds(Slot::A, &pattern(4096, 3)),
        "nothing of a longer superblock is left after a shorter one",
    );
    promise(holds(Slot::B, &pattern(4096, 2)), "writing a slot leaves the other one alone");
    let longest = pattern(SUPERBLOCK_BYTES_MAX, 4);
    works(drive.write_superblock(Slot::B, &longest), "a superblock of the greatest length");
    promise(holds(Slot::B, &longest), "a slot takes a superblock of the greatest length");
    let longer = drive.write_superblock(Slot::B, &pattern(SUPERBLOCK_BYTES_MAX + 1, 5));
    refuses(longer, &codes::BUFFER_LENGTH, "a superblock that is too long");
}

fn locks(drive: &Arc<dyn Drive>) {
    let drive = &**drive;
    let me = Holder {
        pid: std::process::id(),
        host: "here".to_owned(),
        since_unix_ns: 1_234_567_890,
        program: "conformance".to_owned(),
    };
    promise(works(drive.holder(), "holder").is_none(), "a drive that nobody took has no holder");
    let lock = works(drive.lock(&me, LockMode::Exclusive), "lock");
    promise(
        works(drive.holder(), "holder").as_ref() == Some(&me),
        "others see who holds the drive",
    );
    for mode in [LockMode::Exclusive, LockMode::Shared] {
        let Err(error) = drive.lock(&me, mode) else {
            panic!("a promise is broken: a drive that is held is refused")
        };
        promise(
            error.is(&codes::STORE_LOCKED),
            "a drive that is held is refused with store.locked",
        );
        let detail = error.detail("pid") == Some(&me.pid.to_string());
        promise(detail && error.detail("host") == Some("here"), "the refusal says who holds it");
        promise(error.detail("since") == Some("1234567890"), "the refusal says since when");
    }
    drop(lock);
    promise(works(drive.holder(), "holder").is_none(), "a lock that was let go is not reported");
    let readers = [(); 2].map(|()| works(drive.lock(&me, LockMode::Shared), "a shared lock"));
    let alone = drive.lock(&me, LockMode::Exclusive);
    refuses(alone, &codes::STORE_LOCKED, "an exclusive lock beside readers");
    drop(readers);
    drop(works(drive.lock(&me, LockMode::Exclusive), "a lock after the readers left"));
}

fn logs_of(drive: &Arc<dyn Drive>) -> Option<&dyn Log> {
    drive.log()
}

fn log_content(log: &dyn Log, text: &str, bytes: usize) -> Vec<u8> {
    let mut content = vec![0xee; bytes];
    works(log.read_log(&name(text), 0, &mut content), "read_log");
    content
}

/// What `read_log_now` gives is what `read_log` gave.
fn is_read_now(log: &dyn Log, text: &str, offset: usize, expected: &[u8]) -> bool {
    let mut into = vec![0xee; expected.len()];
    let now = works(log.read_log_now(&name(text), offset as u64, &mut into), "read_log_now");
    !now || into == expected
}

fn logs_begin_as_zeroes(drive: &Arc<dyn Drive>) {
    let Some(log) = logs_of(drive) else { return };
    let bytes = (2 << 20) + ALIGNMENT;
    works(log.create_log(&name("journal.0"), bytes as u64), "create_log");
    let zeroes = log_content(log, "journal.0", bytes).iter().all(|byte| *byte == 0);
    promise(zeroes, "a new log is all zeroes");
    works(log.create_log(&name("empty"), 0), "create_log of nothing");
    let again = log.create_log(&name("journal.0"), 4096);
    refuses(again, &codes::BLOB_EXISTS, "a second log of one name");
    promise(
        log_content(log, "journal.0", bytes).len() == bytes,
        "a refused log leaves the old one",
    );
}

fn logs_are_written_in_place(drive: &Arc<dyn Drive>) {
    let Some(log) = logs_of(drive) else { return };
    let (bytes, journal) = (1 << 20, name("j/journal.0"));
    works(log.create_log(&journal, bytes as u64), "create_log");
    let mut expected = vec![0; bytes];
    let writes =
        [(0, 4096), (8192, 65_536), (4096, 8192), (bytes - 4096, 4096), (0, 0), (0, bytes)];
    for (index, (offset, length)) in writes.into_iter().enumerate() {
        let content = pattern(length, index as u64);
        let split = content.len() / 3;
        let odd = Bytes::from([&[0; 5], &content[split..]].concat()).slice(5..);
        let parts = [content.slice(..split), Bytes::new(), odd];
        works(log.write_log(&journal, offset as u64, &parts), "write_log");
        expected[offset..offset + length].copy_from_slice(&content);
        promise(
            is_read_now(log, "j/journal.0", 0, &expected),
            "read_log_now reads what was written last, or nothing",
        );
        let found = log_content(log, "j/journal.0", bytes);
        promise(found == expected, "a log is read as it was written, before the sync");
        works(log.sync_log(&journal, "conformance"), "sync_log");
        let mut middle = [0; 100];
        works(log.read_log(&journal, 8000, &mut middle), "read_log at an odd offset");
        promise(middle[..] == expected[8000..8100], "a log is read from any offset");
        promise(
            is_read_now(log, "j/journal.0", 8000, &expected[8000..8100]),
            "read_log_now reads from any offset, or nothing",
        );
    }
}

fn logs_refuse_what_does_not_fit(drive: &Arc<dyn Drive>) {
    let Some(log) = logs_of(drive) else { return };
    let journal = name("journal.0");
    refuses(log.create_log(&journal, 1000), &codes::BUFFER_LENGTH, "a log of an odd size");
    works(log.create_log(&journal, 8192), "create_log");
    for (offset, length) in
        [(1, 4096), (0, 100), (8192, 4096), (4096, 8192), (u64::MAX - 4095, 4096)]
    {
        let write = log.write_log(&journal, offset, &[pattern(length, 1)]);
        refuses(write, &codes::BUFFER_LENGTH, "a write that is not aligned or not inside");
    }
    for (offset, length) in [(8192, 1), (8000, 193), (u64::MAX, 2)] {
        let read = log.read_log(&journal, offset, &mut vec![0; length]);
        refuses(read, &codes::BUFFER_LENGTH, "a read past the end of a log");
        match log.read_log_now(&journal, offset, &mut vec![0; length]) {
            Ok(false) => {}
            result => refuses(result, &codes::BUFFER_LENGTH, "read_log_now past the end of a log"),
        }
    }
    let zeroes = log_content(log, "journal.0", 8192).iter().all(|byte| *byte == 0);
    promise(zeroes, "a refused write changes nothing");
    let none = name("none");
    match log.read_log_now(&none, 0, &mut [0]) {
        Ok(false) => {}
        result => refuses(result, &codes::BLOB_NOT_FOUND, "read_log_now of no log"),
    }
    refuses(
        log.write_log(&none, 0, &[pattern(4096, 1)]),
        &codes::BLOB_NOT_FOUND,
        "write_log to no log",
    );
    refuses(log.read_log(&none, 0, &mut [0]), &codes::BLOB_NOT_FOUND, "read_log of no log");
    refuses(log.sync_log(&none, "conformance"), &codes::BLOB_NOT_FOUND, "sync_log of no log");
    refuses(log.delete_log(&none), &codes::BLOB_NOT_FOUND, "delete_log of no log");
}

fn logs_are_listed_and_deleted(drive: &Arc<dyn Drive>) {
    let Some(log) = logs_of(drive) else { return };
    let listed = || {
        let logs = works(log.list_logs(), "list_logs");
        let mut logs: Vec<_> =
            logs.into_iter().map(|info| (info.name.as_str().to_owned(), info.bytes)).collect();
        logs.sort();
        logs
    };
    promise(listed().is_empty(), "a new drive has no logs");
    for (text, bytes) in [("journal.1", 4096), ("journal.0", 8192), ("j/x", 4096)] {
        works(log.create_log(&name(text), bytes), "create_log");
    }
    let pair = |text: &str, bytes| (text.to_owned(), bytes);
    let all = [pair("j/x", 4096), pair("journal.0", 8192), pair("journal.1", 4096)];
    promise(listed() == all, "all logs are listed, with their sizes");
    works(log.write_log(&name("journal.0"), 0, &[pattern(8192, 1)]), "write_log");
    works(log.delete_log(&name("journal.0")), "delete_log");
    promise(listed() == [all[0].clone(), all[2].clone()], "a deleted log is not listed");
    let read = log.read_log(&name("journal.0"), 0, &mut [0]);
    refuses(read, &codes::BLOB_NOT_FOUND, "a read of a deleted log");
    works(log.create_log(&name("journal.0"), 8192), "create_log of a deleted log's name");
    let zeroes = log_content(log, "journal.0", 8192).iter().all(|byte| *byte == 0);
    promise(zeroes, "a new log has nothing of an old one of its name");
}

fn names_that_look_alike(drive: &Arc<dyn Drive>) {
    let longest = format!("s/{}", "f".repeat(198));
    let texts = [
        "lock",
        "tmp/x",
        "logs/x",
        "blobs/x",
        "superblock.a",
        "s/s",
        "s",
        "01/23",
        "0123",
        &longest,
    ];
    for (index, text) in texts.iter().enumerate() {
        put(&**drive, text, &pattern(100, index as u64));
    }
    if let Some(log) = logs_of(drive) {
        for text in texts {
            works(log.create_log(&name(text), 4096), "a log with a blob's name");
        }
    }
    works(drive.sync("conformance"), "sync");
    for (index, text) in texts.iter().enumerate() {
        promise(
            whole(&**drive, text) == pattern(100, index as u64),
            "any name is a blob of its own",
        );
    }
    let holder = works(drive.holder(), "holder");
    let slots = Slot::BOTH.map(|slot| works(drive.read_superblock(slot), "read_superblock"));
    promise(
        holder.is_none() && slots == [None, None],
        "no name is taken for the drive's own files",
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FaultyDrive, MemoryDrive, Power};

    #[test]
    fn memory_drive_conforms() {
        run(&|| Arc::new(MemoryDrive::new("d1")));
    }

    #[test]
    fn faulty_drive_conforms_while_nothing_is_wrong() {
        run(&|| {
            let memory = Arc::new(MemoryDrive::new("d1"));
            Arc::new(FaultyDrive::new(memory, &Power::new(), 1))
        });
    }
}
