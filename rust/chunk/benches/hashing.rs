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
