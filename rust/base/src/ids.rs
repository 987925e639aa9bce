//! Identities that are drawn once and never re-used.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Random, Result, codes};

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Draws a new identity.
            pub fn draw(random: &dyn Random) -> Self {
                let mut bytes = [0; 16];
                random.fill(&mut bytes);
                Self(bytes)
            }

            /// From its 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// From a number, most significant byte first.
            pub const fn from_u128(number: u128) -> Self {
                Self(number.to_be_bytes())
            }

            /// Its 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                let bad = || Error::new(&codes::FORMAT_DAMAGED, format!("not an identity: {text:?}"));
                if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(bad());
                }
                u128::from_str_radix(text, 16).map(Self::from_u128).map_err(|_| bad())
            }
        }
    };
}

id128! {
    /// A pool's identity.
    PoolId
}
id128! {
    /// A drive's identity within every pool there is.
    DriveId
}
id128! {
    /// A stripe's identity; its shards are found by it on any drive.
    StripeId
}
id128! {
    /// Ties everything that one operation did and said together.
    CorrelationId
}

/// Membership's version: raised at each open and each eviction; the highest one wins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Epoch(pub u64);

impl Epoch {
    /// No pool gets beyond it, one by one: a higher one was not counted but made up.
    pub const LAST: Self = Self(u64::MAX / 2);

    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededRandom;

    #[test]
    fn epochs_follow_each_other() {
        assert_eq!(Epoch(2).next(), Epoch(3));
        assert!(Epoch(2) < Epoch(2).next());
    }

    #[test]
    fn prints_and_parses_32_hex_digits() {
        let id = PoolId::draw(&SeededRandom::new(7));
        assert_eq!(id.to_string().len(), 32);
        assert_eq!(id.to_string().parse::<PoolId>().ok(), Some(id));
        assert!("+0000000000000000000000000000000".parse::<PoolId>().is_err());
        assert!("00".parse::<PoolId>().is_err());
    }
}
