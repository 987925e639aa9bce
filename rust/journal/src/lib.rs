//! The ordered log of commits, on drives.
