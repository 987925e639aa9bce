#!/bin/sh
# Runs this crate's tests as aarch64 code under qemu-user, or says why it does not.
#   rust/erasure/neon-test.sh [cargo test arguments]
set -eu
target=aarch64-unknown-linux-musl
if ! command -v qemu-aarch64 >/dev/null; then
    echo "skipped: qemu-aarch64 is not installed (Debian: qemu-user)"
    exit 0
fi
if ! rustc --print target-libdir --target "$target" | xargs test -d; then
    echo "skipped: no $target standard library (rustup target add $target)"
    exit 0
fi
# The musl target brings its own start files, so that no aarch64 C compiler is needed.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUNNER=qemu-aarch64
exec cargo test -p dwk-erasure --target "$target" --lib --test codes "$@"
