//! Topics: who hears what.
