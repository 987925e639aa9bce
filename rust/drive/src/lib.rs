//! Where bytes rest: the Drive port, its bodies, its conformance suite.
