//! Erasure codes and geometries, without I/O.
