//! Headers that were read, so that a small read needs one look at the drive and not two.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use dwk_base::StripeId;

use super::header::Header;
use super::lock;

type Key = (StripeId, u8);

/// A bounded cache in two generations: what was not asked for during a whole one is forgotten.
pub(crate) struct Headers {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    young: HashMap<Key, Arc<Header>>,
    old: HashMap<Key, Arc<Header>>,
    young_bytes: usize,
}

impl Headers {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Mutex::default() }
    }

    pub(crate) fn get(&self, stripe: StripeId, index: usize) -> Option<Arc<Header>> {
        let key = (stripe, index as u8);
        let mut state = lock(&self.state);
        if let Some(header) = state.young.get(&key) {
            return Some(Arc::clone(header));
        }
        let header = state.old.remove(&key)?;
        self.insert(&mut state, key, Arc::clone(&header));
        Some(header)
    }

    pub(crate) fn put(&self, header: Arc<Header>) {
        let key = (header.stripe, header.index as u8);
        self.insert(&mut lock(&self.state), key, header);
    }

    pub(crate) fn forget(&self, stripe: StripeId, index: usize) {
        let key = (stripe, index as u8);
        let mut state = lock(&self.state);
        state.old.remove(&key);
        if let Some(header) = state.young.remove(&key) {
            state.young_bytes -= cost(&header);
        }
    }

    #[cfg(test)]
    pub(crate) fn forget_all(&self) {
        *lock(&self.state) = State::default();
    }

    fn insert(&self, state: &mut State, key: Key, header: Arc<Header>) {
        let bytes = cost(&header);
        if state.young_bytes + bytes > self.bytes_max / 2 {
            state.old = std::mem::take(&mut state.young);
            state.young_bytes = 0;
        }
        state.young_bytes += bytes;
        if let Some(before) = state.young.insert(key, header) {
            state.young_bytes -= cost(&before);
        }
    }
}

fn cost(header: &Header) -> usize {
    size_of::<Header>() + 64 + 8 * (header.shard_checks.len() + header.block_checks.len())
}

#[cfg(test)]
mod tests {
    use dwk_base::{Epoch, PoolId};

    use super::*;
    use crate::StripeCode;

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_asked_for() {
        let header = |n: u128| {
            Arc::new(Header {
                pool: PoolId::from_u128(0),
                stripe: StripeId::from_u128(n),
                epoch: Epoch(0),
                code: StripeCode { matrix_id: 0, data: 1, parity: 0, local: 0 },
                index: 0,
                shard_bytes: 4096,
                payload_bytes: 1,
                block_bytes: 4096,
                shard_checks: vec![0],
                block_checks: vec![0],
            })
        };
        let each = cost(&header(0));
        let headers = Headers::new(20 * each);
        headers.put(header(0));
        for n in 1..1000 {
            headers.put(header(n));
            assert!(headers.get(StripeId::from_u128(0), 0).is_some());
        }
        let kept = (0..1000).filter(|n| headers.get(StripeId::from_u128(*n), 0).is_some()).count();
        assert!((2..=20).contains(&kept), "{kept}");
        headers.forget(StripeId::from_u128(999), 0);
        assert!(headers.get(StripeId::from_u128(999), 0).is_none());
    }
}
