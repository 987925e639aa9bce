//! Filters: conditions on an envelope, compiled once and asked often.
//!
//! ```text
//! headers.unit == 'C' and size < 1 KiB and not (token(1) in ('test', 'dev') or exists headers.debug)
//! ```
//!
//! | | |
//! |---|---|
//! | fields | `headers.NAME`, `headers['x-y']`, `subject`, `token(N)` (the N-th of the subject, from 1), `size` (of the data, in bytes), `priority`, `principal`, `schema`, `key` |
//! | values | `'text'` or `"text"` with `\\ \' \" \n \r \t`; numbers; sizes such as `1 KiB` |
//! | relations | `== != < <= > >=`, `in (…, …)`, `contains`, `startswith`, `endswith`, `matches 'glob'` with `*` and `?`, `exists FIELD` |
//! | together | `not`, `and`, `or`, parentheses; `not` binds closest, then `and` |
//!
//! Text is compared by its UTF-8 bytes, and as a number where the other side is one. What is not there, or
//! is no number where one is needed, makes a comparison false and never an error; also `!=` is false then.
//! Numbers are 64-bit floats.

mod ast;
mod evaluate;
mod lexer;
mod parser;

use std::fmt;
use std::str::FromStr;

use dwk_base::{Error, Result};

use crate::Envelope;
use ast::Condition;

/// A condition on envelopes.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Condition);

impl Filter {
    /// Reads a filter of at most 4096 bytes, nested at most 64 deep.
    ///
    /// # Errors
    /// `bus.filter`; the detail `column` says where, in characters from 1.
    pub fn new(text: &str) -> Result<Self> {
        parser::parse(text).map(Self)
    }

    /// True if the condition holds for `envelope`. Never fails and allocates nothing.
    pub fn accepts(&self, envelope: &Envelope) -> bool {
        self.0.holds(envelope)
    }
}

impl FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl fmt::Display for Filter {
    /// As text that reads as the same condition.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests;
