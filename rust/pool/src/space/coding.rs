//! Codes: which one a new stripe gets with the drives that are there, and the one that a stored stripe names.

use std::sync::{Mutex, PoisonError};

use dwk_base::{Error, Result, codes};
use dwk_drive::ALIGNMENT;
use dwk_erasure::{Code, CodeSpec, matrix_id};

use crate::StripeCode;

/// Codes that are kept: those of a pool's geometry at its widths.
const KEPT_MAX: usize = 64;

/// The codes of a pool.
pub(crate) struct Coding {
    spec: CodeSpec,
    kept: Mutex<Vec<(StripeCode, Code)>>,
}

impl Coding {
    pub(crate) fn new(spec: CodeSpec) -> Self {
        Self { spec, kept: Mutex::default() }
    }

    /// Shards of a full stripe.
    pub(crate) fn shards(&self) -> usize {
        self.spec.k() + self.spec.m()
    }

    /// The code of a stripe on `drives` drives at most, when `lost` drives are gone: narrower in data, equal
    /// in parity. With fewer drives than even that needs, a stripe is as safe as those that are there
    /// already, counting the lost drives; `None` if it would be less safe.
    pub(crate) fn on(&self, drives: usize, lost: usize) -> Option<CodeSpec> {
        if drives >= self.shards() {
            return Some(self.spec);
        }
        let narrower = (1..self.spec.k()).rev().map(|k| self.spec.with_k(k));
        if let Some(spec) = narrower.into_iter().find(|spec| spec.k() + spec.m() <= drives) {
            return Some(spec);
        }
        let parity = drives.checked_sub(1)?;
        if self.spec.tolerance() > parity + lost {
            return None;
        }
        Some(match (parity, self.spec) {
            (0, _) => CodeSpec::None { k: 1 },
            _ => CodeSpec::Copies { n: drives },
        })
    }

    /// How many losses a stripe of this code survives; `None` for a code that cannot be.
    pub(crate) fn tolerance(numbers: StripeCode) -> Option<usize> {
        spec(numbers).ok().map(|spec| spec.tolerance())
    }

    /// True if a stripe of this code survives fewer losses than the geometry promises.
    pub(crate) fn is_weak(&self, numbers: StripeCode) -> bool {
        Self::tolerance(numbers).is_some_and(|tolerance| tolerance < self.spec.tolerance())
    }

    /// The code for new stripes with `spec`.
    pub(crate) fn code(&self, spec: &CodeSpec) -> Result<Code> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, code)) = kept.iter().find(|(_, code)| code.spec() == spec) {
            return Ok(code.clone());
        }
        let code = Code::new(spec)?;
        keep(&mut kept, &code);
        Ok(code)
    }

    /// The code that a stored stripe names.
    ///
    /// # Errors
    /// `format.newer`, `format.damaged`
    pub(crate) fn stored(&self, numbers: StripeCode) -> Result<Code> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, code)) = kept.iter().find(|(other, _)| *other == numbers) {
            return Ok(code.clone());
        }
        let code = Code::from_matrix_id(&spec(numbers)?, numbers.matrix_id)?;
        keep(&mut kept, &code);
        Ok(code)
    }
}

fn keep(kept: &mut Vec<(StripeCode, Code)>, code: &Code) {
    if kept.len() == KEPT_MAX {
        kept.remove(0);
    }
    kept.push((numbers(code), code.clone()));
}

/// A code in numbers.
pub(crate) fn numbers(code: &Code) -> StripeCode {
    let local = match *code.spec() {
        CodeSpec::Lrc { l, .. } => l as u8,
        _ => 0,
    };
    let (data, parity) = (code.k() as u8, code.m() as u8);
    StripeCode { matrix_id: code.matrix_id(), data, parity, local }
}

fn spec(numbers: StripeCode) -> Result<CodeSpec> {
    let (k, m, l) = (numbers.data.into(), numbers.parity.into(), usize::from(numbers.local));
    let spec = match numbers.matrix_id {
        matrix_id::NONE => CodeSpec::None { k },
        matrix_id::COPIES => CodeSpec::Copies { n: m + 1 },
        matrix_id::XOR => CodeSpec::Xor { k },
        matrix_id::PQ_LINUX_MD => CodeSpec::PQ { k },
        matrix_id::PYRAMID if l <= m => CodeSpec::Lrc { k, l, g: m - l },
        matrix_id::HAMMING => CodeSpec::Hamming { k },
        _ => CodeSpec::ReedSolomon { k, m },
    };
    if (spec.k(), spec.m()) != (k, m) {
        let text = format!("matrix {} has no code with {k}+{m} shards", numbers.matrix_id);
        return Err(Error::new(&codes::FORMAT_DAMAGED, text));
    }
    Ok(spec)
}

/// The payload of each shard when `bytes` lie on `k` of them.
pub(crate) fn shard_bytes(bytes: usize, k: usize) -> usize {
    bytes.div_ceil(k).next_multiple_of(ALIGNMENT).max(ALIGNMENT)
}

impl std::fmt::Debug for Coding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Coding({})", self.spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_narrow_their_data_and_keep_their_parity() {
        let coding = Coding::new(CodeSpec::ReedSolomon { k: 4, m: 2 });
        let on = |drives, lost| coding.on(drives, lost).map(|spec| spec.to_string());
        assert_eq!(on(9, 0).as_deref(), Some("4+2"));
        assert_eq!(on(6, 0).as_deref(), Some("4+2"));
        assert_eq!(on(5, 1).as_deref(), Some("3+2"));
        assert_eq!(on(3, 3).as_deref(), Some("1+2"));
        assert_eq!(on(2, 4).as_deref(), Some("mirror:2"));
        assert_eq!(on(2, 0), None);
        assert_eq!(on(0, 9), None);
        let mirror = Coding::new(CodeSpec::Copies { n: 2 });
        assert_eq!(mirror.on(1, 1).map(|spec| spec.to_string()).as_deref(), Some("none:1"));
        assert_eq!(mirror.on(1, 0), None);
        let plain = Coding::new(CodeSpec::None { k: 3 });
        assert_eq!(plain.on(2, 1).map(|spec| spec.to_string()).as_deref(), Some("none:2"));
        let local = Coding::new(CodeSpec::Lrc { k: 12, l: 2, g: 2 });
        assert_eq!(local.on(15, 1).map(|spec| spec.to_string()).as_deref(), Some("lrc:11+2+2"));
    }

    #[test]
    fn a_stored_code_is_the_one_it_was_encoded_with() {
        for spec in [
            CodeSpec::None { k: 3 },
            CodeSpec::Copies { n: 3 },
            CodeSpec::Xor { k: 4 },
            CodeSpec::PQ { k: 6 },
            CodeSpec::ReedSolomon { k: 4, m: 2 },
            CodeSpec::ReedSolomon { k: 8, m: 4 },
            CodeSpec::ReedSolomon { k: 8, m: 5 },
            CodeSpec::Lrc { k: 12, l: 2, g: 2 },
        ] {
            let code = Code::new(&spec).unwrap();
            let stored = Coding::new(spec).stored(numbers(&code)).unwrap();
            let shards: Vec<u8> = (0..code.k() as u8).collect();
            let data: Vec<&[u8]> = shards.chunks(1).collect();
            let encode = |code: &Code| {
                let mut parity = vec![0; code.m()];
                code.encode(&data, &mut parity.chunks_mut(1).collect::<Vec<_>>()).unwrap();
                parity
            };
            assert_eq!(encode(&code), encode(&stored), "{spec}");
        }
        let odd = StripeCode { matrix_id: matrix_id::XOR, data: 2, parity: 2, local: 0 };
        assert!(Coding::new(CodeSpec::Xor { k: 2 }).stored(odd).is_err());
    }
}
