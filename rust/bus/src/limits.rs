//! What a bus holds its users to.

/// Limits of a bus. Those of one subscription are in its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest data of a message, in bytes.
    pub message_bytes_max: usize,
    /// The longest names and values of a message's headers together, in bytes.
    pub headers_bytes_max: usize,
    /// How many subscriptions each tenant may have at a time.
    pub subscriptions_max: usize,
    /// How many requests each tenant may have open at a time.
    pub requests_max: usize,
    /// How many tenants there may be at a time.
    pub tenants_max: usize,
    /// For how many subjects each tenant's routes are remembered; a power of two.
    pub routes_cached: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 1 << 20,
            headers_bytes_max: 64 << 10,
            subscriptions_max: 100_000,
            requests_max: 100_000,
            tenants_max: 10_000,
            routes_cached: 256,
        }
    }
}
