//! Says which interpreter is built for: queues need to know whether it has a GIL.

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
}
