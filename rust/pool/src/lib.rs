//! Drives made one space: membership, stripes, placement, repair.
