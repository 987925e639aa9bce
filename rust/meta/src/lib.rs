//! What the journal adds up to: an ordered map, its commits and checkpoints.
