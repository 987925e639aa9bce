//! Memory that others use meanwhile: the same results as slices, and nothing touched beyond it.
#![allow(unsafe_code, reason = "addresses are what is tested")]
#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::thread;

use dwk_erasure::shared::{Source, Target};
use dwk_erasure::{Code, CodeSpec, SharedShard};

const LENGTHS: &[usize] =
    if cfg!(miri) { &[0, 1, 33] } else { &[0, 1, 31, 32, 33, 63, 64, 65, 200, 4096, 20_000] };

fn specs() -> Vec<CodeSpec> {
    vec![
        CodeSpec::Xor { k: 3 },
        CodeSpec::ReedSolomon { k: 5, m: 2 },
        CodeSpec::ReedSolomon { k: 8, m: 4 },
        CodeSpec::Lrc { k: 6, l: 2, g: 2 },
    ]
}

fn noise(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|i| (((i + 1) * (2 * seed + 3) * 0x9e37) >> 7) as u8).collect()
}

fn source(bytes: &[u8]) -> Source<'_> {
    // SAFETY: they are borrowed for as long.
    unsafe { Source::new(bytes.as_ptr(), bytes.len()) }
}

fn target(bytes: &mut [u8]) -> Target<'_> {
    // SAFETY: they are borrowed for as long.
    unsafe { Target::new(bytes.as_mut_ptr(), bytes.len()) }
}

/// All shards of a stripe, encoded from slices.
fn stripe(code: &Code, length: usize) -> Vec<Vec<u8>> {
    let mut shards: Vec<_> = (0..code.shards()).map(|i| noise(i, length)).collect();
    let (data, parity) = shards.split_at_mut(code.k());
    let data: Vec<&[u8]> = data.iter().map(|d| &d[..]).collect();
    let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(|p| &mut p[..]).collect();
    code.encode(&data, &mut parity).unwrap();
    shards
}

#[test]
fn shared_memory_gives_what_slices_give() {
    for (spec, &length) in specs().iter().flat_map(|s| LENGTHS.iter().map(move |l| (s, l))) {
        let code = Code::new(spec).unwrap();
        let whole = stripe(&code, length);
        let sources: Vec<Source<'_>> = whole.iter().map(|shard| source(shard)).collect();
        assert!(code.verify_shared(&sources).unwrap());
        let mut again = vec![vec![0xee; length]; code.m()];
        let mut parity: Vec<Target<'_>> = again.iter_mut().map(|p| target(p)).collect();
        code.encode_shared(&sources[..code.k()], &mut parity).unwrap();
        assert_eq!(again, whole[code.k()..], "{spec} {length}");

        let lost = [0, code.k()];
        let lost = &lost[..code.m().min(2)];
        let mut rebuilt = vec![vec![0xee; length]; lost.len()];
        let mut space = rebuilt.iter_mut();
        let mut shards: Vec<_> = (0..code.shards())
            .map(|index| {
                if lost.contains(&index) {
                    SharedShard::Lost(target(space.next().unwrap()))
                } else {
                    SharedShard::Present(source(&whole[index]))
                }
            })
            .collect();
        code.reconstruct_shared(&mut shards, lost).unwrap();
        for (&index, rebuilt) in lost.iter().zip(&rebuilt) {
            assert_eq!(rebuilt, &whole[index], "{spec} {length}");
        }
    }
}

#[test]
fn any_byte_of_shared_memory_that_is_wrong_is_found() {
    let code = Code::new(&CodeSpec::ReedSolomon { k: 3, m: 2 }).unwrap();
    // Pieces of 8 KiB are looked at; Miri is too slow for two.
    let places: &[usize] = if cfg!(miri) { &[0, 7, 99] } else { &[0, 7, 8191, 8192, 9999] };
    for index in 0..code.shards() {
        for &at in places {
            let mut shards = stripe(&code, places[places.len() - 1] + 1);
            shards[index][at] ^= 1;
            let sources: Vec<Source<'_>> = shards.iter().map(|shard| source(shard)).collect();
            assert!(!code.verify_shared(&sources).unwrap(), "{index} {at}");
        }
    }
}

#[test]
fn an_update_in_shared_memory_is_that_of_encoding_anew() {
    for (spec, &length) in specs().iter().flat_map(|s| LENGTHS.iter().map(move |l| (s, l))) {
        let code = Code::new(spec).unwrap();
        let mut shards = stripe(&code, length);
        let (new, row) = (noise(77, length), code.k() - 1);
        let (data, parity) = shards.split_at_mut(code.k());
        let mut parity: Vec<Target<'_>> = parity.iter_mut().map(|p| target(p)).collect();
        code.update_shared(row, source(&data[row]), source(&new), &mut parity).unwrap();
        target(&mut data[row]).copy_from(source(&new));
        let sources: Vec<Source<'_>> = shards.iter().map(|shard| source(shard)).collect();
        assert!(code.verify_shared(&sources).unwrap(), "{spec} {length}");
        assert_eq!(shards[row], new);
    }
}

/// Whoever makes slices of such memory is told by Miri, which sees the race.
#[test]
fn a_thread_may_write_to_a_shard_while_it_is_coded() {
    const LENGTH: usize = if cfg!(miri) { 40 } else { 4000 };
    const TURNS: u8 = 200;
    let code = Code::new(&CodeSpec::Xor { k: 2 }).unwrap();
    let bytes: Vec<AtomicU8> = (0..LENGTH).map(|_| AtomicU8::new(0)).collect();
    let (still, mut parity) = (vec![0; LENGTH], vec![0; LENGTH]);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in (1..=TURNS).cycle().take_while(|_| !over.load(Relaxed)) {
                for byte in &bytes {
                    byte.store(turn, Relaxed);
                }
                thread::yield_now();
            }
        });
        for _ in 0..if cfg!(miri) { 2 } else { 2000 } {
            // SAFETY: the memory is there until the end of the scope.
            let changing = unsafe { Source::new(bytes.as_ptr().cast(), LENGTH) };
            code.encode_shared(&[changing, source(&still)], &mut [target(&mut parity)]).unwrap();
        }
        over.store(true, Relaxed);
    });
    // Each byte is one that was there at some time.
    assert!(parity.iter().all(|byte| *byte <= TURNS));
}

#[test]
#[should_panic(expected = "of 8")]
fn reading_beyond_the_end_is_refused() {
    source(&[0; 8]).read(4, &mut [0; 5]);
}

#[test]
#[should_panic(expected = "of 8")]
fn writing_beyond_the_end_is_refused() {
    target(&mut [0; 8]).write(usize::MAX, &[0; 2]);
}
