//! Prints the names of the kernels that this processor can run, best first.

#![allow(clippy::print_stdout, reason = "that is what it is for")]

fn main() {
    println!("{}", dwk_erasure::kernel_names().join(" "));
}
