//! BLAKE3 and CRC-64/NVME, warm, one thread. Limited by the SIMD lanes that an input can fill; from about
//! 64 KiB on by the kernel itself.

use divan::counter::BytesCount;

const MANY: usize = 256;
const LENGTHS: [usize; 6] = [1 << 10, 4 << 10, 8 << 10, 16 << 10, 64 << 10, 1 << 20];

fn main() {
    divan::main();
}

fn inputs(bytes: usize) -> Vec<Vec<u8>> {
    let count = MANY.min((4 << 20) / bytes);
    (0..count).map(|seed| (0..bytes).map(|i| (i * 31 + seed) as u8).collect()).collect()
}

#[divan::bench(args = LENGTHS)]
fn blake3_one_by_one(bencher: divan::Bencher<'_, '_>, bytes: usize) {
    let inputs = inputs(bytes);
    bencher
        .counter(BytesCount::new(bytes * inputs.len()))
        .bench_local(|| inputs.iter().map(|input| dwk_chunk::blake3(input)).collect::<Vec<_>>());
}

#[divan::bench(args = LENGTHS)]
fn blake3_batched(bencher: divan::Bencher<'_, '_>, bytes: usize) {
    let inputs = inputs(bytes);
    let slices: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    bencher
        .counter(BytesCount::new(bytes * inputs.len()))
        .bench_local(|| dwk_chunk::blake3_many(&slices));
}

#[divan::bench(args = LENGTHS)]
fn crc64nvme(bencher: divan::Bencher<'_, '_>, bytes: usize) {
    let inputs = inputs(bytes);
    bencher
        .counter(BytesCount::new(bytes * inputs.len()))
        .bench_local(|| inputs.iter().fold(0, |sum, input| sum ^ dwk_chunk::crc64nvme(input)));
}

/// One join; the length of the second piece as it comes in a store, and one with many bits.
const JOINED: [u64; 3] = [4096, 1 << 20, 999_999_999];

#[divan::bench(args = JOINED)]
fn crc64_join(bytes: u64) -> u64 {
    dwk_chunk::crc64_join(divan::black_box(1), divan::black_box(2), divan::black_box(bytes))
}

#[divan::bench(args = JOINED)]
fn crc64_join_by_crc_fast(bytes: u64) -> u64 {
    let nvme = crc_fast::CrcAlgorithm::Crc64Nvme;
    crc_fast::checksum_combine(nvme, divan::black_box(1), divan::black_box(2), bytes)
}
