//! `dwkernel._native`: bindings, no logic.
