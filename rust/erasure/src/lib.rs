//! Erasure codes and geometries, without I/O.
//!
//! - [`CodeSpec`] names the code of one stripe, [`Code`] encodes and decodes with it;
//! - [`Geometry`] is the tree that says every RAID level: what a stripe is encoded with, and on which
//!   drives its shards lie;
//! - [`shared`] is for memory that other threads may use meanwhile;
//! - [`kernel_name`] says which instructions do the work.

mod code;
mod decode;
mod geometry;
mod gf;
#[allow(unsafe_code)]
mod kernel;
mod matrix;
mod set;
mod slot;
mod spec;

pub use code::Code;
pub use geometry::{
    Arrangement, Geometry, Layout, Placement, Policy, Rotation, Spare, Unit, Width, levels,
};
pub use kernel::{name as kernel_name, names as kernel_names, shared};
pub use slot::{Shard, SharedShard, Slot};
pub use spec::{CodeSpec, SHARDS_MAX, matrix_id};
