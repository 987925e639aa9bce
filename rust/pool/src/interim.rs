//! Until repair lands.
#![allow(missing_docs, unused)]
use crate::{Ledger, Space, Stripe};
use dwk_base::{Error, Result, codes};
#[derive(Default, Debug)]
pub struct Control;
#[derive(Debug)]
pub struct ScrubReport {
    pub journal_repairs: u64,
}
#[derive(Debug)]
pub struct RebuildReport;
impl ScrubReport {
    pub fn is_clean(&self) -> bool {
        true
    }
}
fn not_yet() -> Error {
    Error::new(&codes::INTERNAL_BUG, "repair is not there yet")
}
impl Space {
    pub fn scrub(&self, _: &dyn Ledger, _: &Control) -> Result<ScrubReport> {
        Err(not_yet())
    }
    pub fn rebuild(&self, _: &dyn Ledger, _: Option<u16>, _: &Control) -> Result<RebuildReport> {
        Err(not_yet())
    }
    pub fn refresh(&self, _: &dyn Ledger, _: u16, _: &Control) -> Result<()> {
        Err(not_yet())
    }
    pub fn readable(&self, s: &Stripe, missing: &[usize]) -> bool {
        missing.len() <= usize::from(s.code.parity)
    }
}
