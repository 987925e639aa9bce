//! Ours and libisal interleaved in one process, one core: `cargo bench -p dwk-erasure --bench peers`.
//!
//! What limits it: warm cases the vector units and loads, cold ones the memory (the last column is the
//! rate at which a loop that does nothing else reads the same data). Options: `--json FILE`, `--quick`. Other load on the
//! machine disturbs the rates more than the ratios; the ratio is the median of the rounds' ratios.
// The peer counts in `int`.
#![allow(unsafe_code, missing_docs, clippy::unwrap_used, clippy::cast_possible_wrap)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use dwk_erasure::{Code, CodeSpec, Shard, kernel_name};
use libloading::Library;

type InitTables = unsafe extern "C" fn(i32, i32, *const u8, *mut u8);
type EncodeData = unsafe extern "C" fn(i32, i32, i32, *const u8, *const *const u8, *const *mut u8);
type Generate = unsafe extern "C" fn(i32, i32, *const *mut u8) -> i32;
type Invert = unsafe extern "C" fn(*mut u8, *mut u8, i32) -> i32;

struct Isal {
    init_tables: InitTables,
    encode_data: EncodeData,
    xor_gen: Generate,
    pq_gen: Generate,
    invert: Invert,
}

fn isal() -> Option<Isal> {
    // SAFETY: libisal's initialisers do nothing but probe the processor; the types are its header's.
    unsafe {
        let library: &'static Library = Box::leak(Box::new(Library::new("libisal.so.2").ok()?));
        Some(Isal {
            init_tables: *library.get::<InitTables>(b"ec_init_tables").ok()?,
            encode_data: *library.get::<EncodeData>(b"ec_encode_data").ok()?,
            xor_gen: *library.get::<Generate>(b"xor_gen").ok()?,
            pq_gen: *library.get::<Generate>(b"pq_gen").ok()?,
            invert: *library.get::<Invert>(b"gf_invert_matrix").ok()?,
        })
    }
}

/// Shards are this far apart beyond their length, so that they do not alias in the caches.
const APART_BYTES: usize = 320;
const COLD_BYTES: usize = 512 << 20;

/// Asks for huge pages, so that cold cases measure memory rather than page tables (for all alike).
fn huge_pages(bytes: &mut [u8]) {
    #[cfg(target_os = "linux")]
    // SAFETY: advice about memory that is ours changes nothing in it.
    let _ = unsafe {
        rustix::mm::madvise(
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            rustix::mm::Advice::LinuxHugepage,
        )
    };
    black_box(bytes);
}

/// Stripes in one arena.
struct Arena {
    bytes: Vec<u8>,
    start: usize,
}

impl Arena {
    fn new() -> Self {
        let mut bytes = vec![0u8; COLD_BYTES + (4 << 20)];
        let start = bytes.as_ptr().align_offset(2 << 20);
        huge_pages(&mut bytes[start..]);
        let mut x = 88_172_645_463_325_252u64;
        for word in bytes.chunks_exact_mut(8) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            word.copy_from_slice(&x.to_le_bytes());
        }
        Self { bytes, start }
    }

    /// `sets` stripes of `shards` shards.
    fn stripes(&mut self, shards: usize, length: usize, sets: usize) -> Vec<Vec<&mut [u8]>> {
        let mut rest = &mut self.bytes[self.start..];
        let mut stripes = Vec::new();
        for _ in 0..sets {
            let mut stripe = Vec::new();
            for _ in 0..shards {
                let (shard, after) = rest.split_at_mut(length + APART_BYTES);
                stripe.push(&mut shard[..length]);
                rest = after;
            }
            stripes.push(stripe);
        }
        stripes
    }
}

struct Row {
    name: String,
    rates: Vec<(&'static str, f64)>,
    /// Ours to each peer.
    ratios: Vec<(&'static str, f64)>,
}

/// How long shards are, and whether they come from memory: `(name, bytes, cold)`.
type Size<'a> = (&'a str, usize, bool);

/// How many stripes there are: one that stays in the caches, or as many as outgrow them.
fn sets(shards: usize, (_, length, cold): Size<'_>) -> usize {
    if cold { COLD_BYTES / (shards * (length + APART_BYTES)) } else { 1 }
}

fn addresses(stripes: &mut [Vec<&mut [u8]>]) -> Vec<Vec<*mut u8>> {
    stripes.iter_mut().map(|s| s.iter_mut().map(|s| s.as_mut_ptr()).collect()).collect()
}

type Runner<'a> = (&'static str, Box<dyn FnMut(usize) + 'a>);

/// Each runner in turn, for some rounds; the first is ours.
fn race(name: String, bytes: usize, sets: usize, quick: bool, mut runners: Vec<Runner<'_>>) -> Row {
    let (rounds, volume) = if quick { (3, 32usize << 20) } else { (11, 96 << 20) };
    let turns = (volume / bytes).max(1).next_multiple_of(sets);
    let mut rates = vec![Vec::new(); runners.len()];
    for round in 0..=rounds {
        for (index, (_, run)) in runners.iter_mut().enumerate() {
            let start = Instant::now();
            (0..turns).for_each(|turn| run(turn % sets));
            let rate = (bytes * turns) as f64 / start.elapsed().as_secs_f64() / 1e9;
            if round > 0 {
                rates[index].push(rate);
            }
        }
    }
    let names: Vec<&'static str> = runners.iter().map(|(name, _)| *name).collect();
    let ratios = (1..names.len())
        .map(|peer| {
            let each = rates[0].iter().zip(&rates[peer]).map(|(ours, theirs)| ours / theirs);
            (names[peer], median(each.collect()))
        })
        .collect();
    let rates = names.iter().copied().zip(rates.into_iter().map(median)).collect();
    Row { name, rates, ratios }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Reads everything once, four whole lines at a time where the processor can.
fn read_all(shards: &[*const u8], length: usize) {
    for &shard in shards {
        // SAFETY: the arena outlives the race, and nobody writes meanwhile.
        let bytes = unsafe { std::slice::from_raw_parts(shard, length) };
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the instructions are there.
            unsafe { read_lines(bytes) };
            continue;
        }
        read_words(bytes);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn read_lines(bytes: &[u8]) {
    use std::arch::x86_64::{_mm512_loadu_si512, _mm512_setzero_si512, _mm512_xor_si512};
    let mut sums = [_mm512_setzero_si512(); 4];
    for lines in bytes.chunks_exact(256) {
        for (line, sum) in sums.iter_mut().enumerate() {
            // SAFETY: there are four lines of 64 bytes in a chunk.
            let loaded = unsafe { _mm512_loadu_si512(lines.as_ptr().add(64 * line).cast()) };
            *sum = _mm512_xor_si512(*sum, loaded);
        }
    }
    black_box(sums);
}

fn read_words(bytes: &[u8]) {
    let mut sums = [0u64; 16];
    for line in bytes.chunks_exact(128) {
        for (sum, word) in sums.iter_mut().zip(line.chunks_exact(8)) {
            *sum ^= u64::from_le_bytes(word.try_into().unwrap());
        }
    }
    black_box(sums);
}

struct Case {
    spec: CodeSpec,
    label: &'static str,
}

/// The peer's work on the same shards, as its own functions do it.
fn peer<'a>(
    isal: &'a Isal,
    spec: CodeSpec,
    pointers: &'a [Vec<*mut u8>],
    length: usize,
) -> Runner<'a> {
    let (k, m) = (spec.k() as i32, spec.m() as i32);
    let tables = tables(isal, spec.k(), spec.m());
    let run: Box<dyn FnMut(usize) + 'a> = match m {
        1 => Box::new(move |set| {
            // SAFETY: k+1 shards of this length.
            unsafe { (isal.xor_gen)(k + 1, length as i32, pointers[set].as_ptr()) };
        }),
        2 => Box::new(move |set| {
            // SAFETY: k+2 shards of this length.
            unsafe { (isal.pq_gen)(k + 2, length as i32, pointers[set].as_ptr()) };
        }),
        _ => Box::new(move |set| {
            let data = pointers[set].as_ptr();
            // SAFETY: k sources, m targets, tables for k × m.
            unsafe {
                let parity = data.add(k as usize);
                (isal.encode_data)(length as i32, k, m, tables.as_ptr(), data.cast(), parity);
            }
        }),
    };
    ("libisal", run)
}

/// Tables for some k × m matrix; their values do not matter for speed.
fn tables(isal: &Isal, k: usize, m: usize) -> Vec<u8> {
    let matrix: Vec<u8> = (0..k * m).map(|i| (i * 37 + 2) as u8 | 1).collect();
    let mut tables = vec![0u8; 32 * k * m];
    // SAFETY: the table has 32 bytes per coefficient.
    unsafe { (isal.init_tables)(k as i32, m as i32, matrix.as_ptr(), tables.as_mut_ptr()) };
    tables
}

fn encode(arena: &mut Arena, isal: Option<&Isal>, case: &Case, size: Size<'_>, quick: bool) -> Row {
    let code = Code::new(&case.spec).unwrap();
    let (k, n) = (code.k(), code.shards());
    let (label, length, cold) = size;
    let sets = sets(n, size);
    let mut stripes = arena.stripes(n, length, sets);
    let pointers = addresses(&mut stripes);
    let slices = |set: &[*mut u8], range: std::ops::Range<usize>| -> Vec<&'static mut [u8]> {
        set[range]
            .iter()
            .map(|&p| {
                // SAFETY: runners take turns; each set's shards are disjoint.
                unsafe { std::slice::from_raw_parts_mut(p, length) }
            })
            .collect()
    };
    let data: Vec<Vec<&'static [u8]>> =
        pointers.iter().map(|set| slices(set, 0..k).into_iter().map(|s| &*s).collect()).collect();
    let mut parity: Vec<Vec<&'static mut [u8]>> =
        pointers.iter().map(|set| slices(set, k..n)).collect();
    let sources: Vec<Vec<*const u8>> =
        pointers.iter().map(|set| set[..k].iter().map(|&p| p.cast_const()).collect()).collect();
    let ours = |set: usize| code.encode(&data[set], &mut parity[set]).unwrap();
    let mut runners: Vec<Runner<'_>> = vec![("ours", Box::new(ours))];
    if let Some(isal) = isal {
        runners.push(peer(isal, case.spec, &pointers, length));
    }
    if cold {
        runners.push(("memory read", Box::new(|set| read_all(&sources[set], length))));
    }
    race(format!("{} {label}", case.label), k * length, sets, quick, runners)
}

/// `m` data shards lost, the pattern's matrix kept (ours), tables kept or made each time (theirs).
fn reconstruct(
    arena: &mut Arena,
    isal: Option<&Isal>,
    case: &Case,
    size: Size<'_>,
    quick: bool,
) -> Row {
    let (label, length, cold) = size;
    let code = Code::new(&case.spec).unwrap();
    let (k, m, n) = (code.k(), code.m(), code.shards());
    let sets = sets(n, size);
    let mut stripes = arena.stripes(n, length, sets);
    for stripe in &mut stripes {
        let (data, parity) = stripe.split_at_mut(k);
        code.encode(&data.iter().map(|d| &**d).collect::<Vec<_>>(), parity).unwrap();
    }
    let pointers = addresses(&mut stripes);
    let lost: Vec<usize> = (0..m.min(k)).collect();
    let e = lost.len();
    let mut shards: Vec<Vec<Shard<'_>>> = stripes
        .into_iter()
        .map(|stripe| {
            let shard = |(i, s)| if i < e { Shard::Lost(s) } else { Shard::Present(s) };
            stripe.into_iter().enumerate().map(shard).collect()
        })
        .collect();
    let sources: Vec<Vec<*const u8>> = pointers
        .iter()
        .map(|set| set[e..e + k].iter().map(|&p| p.cast_const()).collect())
        .collect();
    let ready = isal.map(|isal| tables(isal, k, e));
    let ours = |set: usize| code.reconstruct(&mut shards[set], &lost).unwrap();
    let mut runners: Vec<Runner<'_>> = vec![("ours", Box::new(ours))];
    if let (Some(isal), Some(ready)) = (isal, &ready) {
        let (from, to) = (sources.clone(), &pointers);
        let run = move |set: usize, tables: &[u8]| {
            // SAFETY: k sources, the lost ones as targets, tables for k × lost.
            unsafe {
                let (from, to) = (from[set].as_ptr(), to[set].as_ptr());
                (isal.encode_data)(length as i32, k as i32, e as i32, tables.as_ptr(), from, to);
            }
        };
        let kept = run.clone();
        runners.push(("libisal, kept", Box::new(move |set| kept(set, ready))));
        let cells: Vec<u8> = (0..k * k)
            .map(|i| match (i / k, i % k) {
                (r, c) if r < e => code.coefficient(r, c).unwrap(),
                (r, c) => u8::from(r == c),
            })
            .collect();
        runners.push((
            "libisal, set up",
            Box::new(move |set| {
                let (mut matrix, mut inverse) = (cells.clone(), vec![0u8; k * k]);
                let mut tables = vec![0u8; 32 * k * e];
                // SAFETY: both matrices are k × k; the tables have 32 bytes per coefficient.
                unsafe {
                    (isal.invert)(matrix.as_mut_ptr(), inverse.as_mut_ptr(), k as i32);
                    (isal.init_tables)(k as i32, e as i32, inverse.as_ptr(), tables.as_mut_ptr());
                }
                run(set, &tables);
            }),
        ));
    }
    if cold {
        runners.push(("memory read", Box::new(|set| read_all(&sources[set], length))));
    }
    let name = format!("{} reconstruct {} lost, {label}", case.label, lost.len());
    race(name, k * length, sets, quick, runners)
}

fn print(row: &Row) {
    let mut line = format!("| {:<34} |", row.name);
    for (peer, ratio) in &row.ratios {
        let _ = write!(line, " {ratio:.2} × {peer} |");
    }
    for (who, rate) in &row.rates {
        let _ = write!(line, " {who} {rate:.1} |");
    }
    println!("{line}");
}

fn json(rows: &[Row]) -> String {
    let pairs = |pairs: &[(&str, f64)]| {
        let each: Vec<String> = pairs.iter().map(|(k, v)| format!("\"{k}\": {v:.4}")).collect();
        format!("{{{}}}", each.join(", "))
    };
    let rows: Vec<String> = rows
        .iter()
        .map(|row| {
            let (ratios, rates) = (pairs(&row.ratios), pairs(&row.rates));
            format!(
                "  {{\"name\": \"{}\", \"ratio\": {ratios}, \"gigabytes_per_s\": {rates}}}",
                row.name
            )
        })
        .collect();
    format!("{{\"kernel\": \"{}\", \"rows\": [\n{}\n]}}\n", kernel_name(), rows.join(",\n"))
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after =
        |flag: &str| arguments.iter().position(|a| a == flag).map(|at| arguments.get(at + 1));
    let (quick, only) = (arguments.iter().any(|a| a == "--quick"), after("--only").flatten());
    let isal = isal();
    if isal.is_none() {
        println!("libisal.so.2 is not installed (Debian: libisal2): no peer in the table");
    }
    println!(
        "kernel {}; 1e9 data bytes/s; ratios are ours to theirs, medians of rounds\n",
        kernel_name()
    );
    let rs = |k, m| CodeSpec::ReedSolomon { k, m };
    let cases = [
        Case { spec: CodeSpec::Xor { k: 8 }, label: "xor 8+1" },
        Case { spec: CodeSpec::PQ { k: 8 }, label: "P+Q 8+2" },
        Case { spec: CodeSpec::PQ { k: 16 }, label: "P+Q 16+2" },
        Case { spec: rs(8, 4), label: "8+4" },
        Case { spec: rs(16, 4), label: "16+4" },
        Case { spec: rs(10, 4), label: "10+4" },
        Case { spec: rs(8, 3), label: "8+3" },
        Case { spec: rs(17, 3), label: "17+3" },
    ];
    let sizes = [
        ("4 KiB warm", 4 << 10, false),
        ("64 KiB warm", 64 << 10, false),
        ("1 MiB warm", 1 << 20, false),
        ("1 MiB cold", 1 << 20, true),
    ];
    let mut arena = Arena::new();
    let mut rows = Vec::new();
    for case in
        cases.iter().filter(|case| only.is_none_or(|only| case.label.contains(only.as_str())))
    {
        for size in sizes {
            rows.push(encode(&mut arena, isal.as_ref(), case, size, quick));
            print(rows.last().unwrap());
        }
        for size in sizes {
            // The shortest is named as it always was.
            let size = if size.1 == 4 << 10 { ("4 KiB", size.1, size.2) } else { size };
            rows.push(reconstruct(&mut arena, isal.as_ref(), case, size, quick));
            print(rows.last().unwrap());
        }
    }
    if let Some(Some(file)) = after("--json") {
        std::fs::write(file, json(&rows)).unwrap();
    }
}
