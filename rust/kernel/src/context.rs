//! Who asks, until when, and under which name everything that follows is found again.

use std::fmt;
use std::sync::Arc;

use dwk_base::{CorrelationId, Deadline, Error, Random, Result, Waiter, codes};

/// The longest name of a principal, tenant or role, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal(String);

impl Principal {
    /// Checks and takes a name: 1 to 255 bytes without control characters.
    ///
    /// # Errors
    /// `context.invalid`
    pub fn new(name: impl Into<String>) -> Result<Self> {
        checked("principal", name.into()).map(Self)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What every operation carries. Made whole or not at all: without a principal and a deadline there is
/// none, and without one nothing is done.
#[derive(Clone, Debug)]
pub struct Context {
    principal: Principal,
    tenant: Option<String>,
    roles: Vec<String>,
    deadline: Deadline,
    correlation: CorrelationId,
}

impl Context {
    /// For `principal`, until `deadline`, under a correlation id drawn from `random`.
    pub fn new(principal: Principal, deadline: Deadline, random: &dyn Random) -> Self {
        let correlation = CorrelationId::draw(random);
        Self { principal, tenant: None, roles: Vec::new(), deadline, correlation }
    }

    /// On behalf of a tenant.
    ///
    /// # Errors
    /// `context.invalid`
    pub fn in_tenant(mut self, tenant: impl Into<String>) -> Result<Self> {
        self.tenant = Some(checked("tenant", tenant.into())?);
        Ok(self)
    }

    /// With roles.
    ///
    /// # Errors
    /// `context.invalid`
    pub fn with_roles(mut self, roles: impl IntoIterator<Item = String>) -> Result<Self> {
        self.roles = roles.into_iter().map(|role| checked("role", role)).collect::<Result<_>>()?;
        Ok(self)
    }

    /// For somebody who may want it no more before its deadline. Only an opening looks.
    #[must_use]
    pub fn waited_for_by(mut self, waiter: Arc<Waiter>) -> Self {
        self.deadline = self.deadline.waited_for_by(waiter);
        self
    }

    /// As a part of something that has a correlation id already.
    pub fn part_of(mut self, correlation: CorrelationId) -> Self {
        self.correlation = correlation;
        self
    }

    /// Who asks.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// On whose behalf.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// With which roles.
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// Until when.
    pub fn deadline(&self) -> &Deadline {
        &self.deadline
    }

    /// What ties everything together that this operation did and said.
    pub fn correlation(&self) -> CorrelationId {
        self.correlation
    }
}

fn checked(what: &str, name: String) -> Result<String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
        let text = format!("not a {what}: {name:?}");
        return Err(Error::new(&codes::CONTEXT_INVALID, text));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_no_principal() {
        assert!(Principal::new("alice").is_ok());
        for name in ["", "a\nb", &"x".repeat(256)] {
            assert!(Principal::new(name).is_err_and(|error| error.is(&codes::CONTEXT_INVALID)));
        }
    }
}
