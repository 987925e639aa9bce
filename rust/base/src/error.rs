//! One error type: a stable code, a sentence, details, and the operation it belongs to.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::{Code, CorrelationId, codes};

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an error; it picks the Python class and a gateway's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// The request is wrong: mend it.
    Invalid,
    /// What was named is not there.
    NotFound,
    /// What was to be made is there already.
    Exists,
    /// Not allowed.
    Denied,
    /// Another change came first: try again.
    Conflict,
    /// A drive, a lock or a service cannot be had now.
    Unavailable,
    /// Stored bytes are wrong and could not be made right.
    Corrupt,
    /// No room is left.
    Full,
    /// The deadline passed.
    Timeout,
    /// This build, platform or format version cannot do it.
    Unsupported,
    /// The object was used in a state that forbids it (closed, read-only, forked).
    State,
    /// A bug in dwkernel.
    Internal,
}

impl Kind {
    /// The kind's name in lower case, as docs and bindings spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Exists => "exists",
            Self::Denied => "denied",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Corrupt => "corrupt",
            Self::Full => "full",
            Self::Timeout => "timeout",
            Self::Unsupported => "unsupported",
            Self::State => "state",
            Self::Internal => "internal",
        }
    }
}

/// Every failure of every crate. Cheap to clone: waiters of one batch share it.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    code: &'static Code,
    message: String,
    details: Vec<(&'static str, String)>,
    correlation: Option<CorrelationId>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error with `code`; `message` says what happened here, with names and figures.
    pub fn new(code: &'static Code, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code,
            message: message.into(),
            details: Vec::new(),
            correlation: None,
            source: None,
        }))
    }

    /// Says more of what happened.
    #[must_use]
    pub fn saying(mut self, more: &str) -> Self {
        self.0.message = format!("{}; {more}", self.0.message);
        self
    }

    /// Adds a named detail that programs can read.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.0.details.push((name, value.to_string()));
        self
    }

    /// Adds what caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// Ties the error to the operation it ended; the first tie stays.
    #[must_use]
    pub fn in_operation(mut self, correlation: CorrelationId) -> Self {
        self.0.correlation.get_or_insert(correlation);
        self
    }

    /// The registry entry.
    pub fn code(&self) -> &'static Code {
        self.0.code
    }

    /// True if this error has the code `code`.
    pub fn is(&self, code: &'static Code) -> bool {
        self.0.code.name == code.name
    }

    /// True if it was the process that could not go on, by a limit of its own: that says nothing about a drive.
    pub fn is_of_process(&self) -> bool {
        self.is(&codes::PROCESS_EXHAUSTED) || self.is(&codes::PROCESS_FILE_SIZE)
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        self.0.code.kind
    }

    /// What happened here.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Named details.
    pub fn details(&self) -> &[(&'static str, String)] {
        &self.0.details
    }

    /// A detail by name.
    pub fn detail(&self, name: &str) -> Option<&str> {
        self.0.details.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }

    /// The operation it ended, once the door has seen it.
    pub fn correlation(&self) -> Option<CorrelationId> {
        self.0.correlation
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.0.message.trim_end_matches('.');
        // "did you mean x?" has an end of its own.
        let end = if message.ends_with('?') { "" } else { "." };
        write!(f, "{message}{end} {}", self.0.code.advice)?;
        if let Some(source) = &self.0.source {
            write!(f, " ({source})")?;
        }
        write!(f, " [{}]", self.0.code.name)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("code", &self.0.code.name)
            .field("message", &self.0.message)
            .field("details", &self.0.details)
            .field("correlation", &self.0.correlation)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes;

    #[test]
    fn display_says_what_happened_what_to_do_and_the_code() {
        let error = Error::new(&codes::OBJECT_NOT_FOUND, "no object docs/a").with("key", "docs/a");
        let text = error.to_string();
        assert!(text.starts_with("no object docs/a. "), "{text}");
        assert!(text.ends_with("[object.not_found]"), "{text}");
        assert_eq!(error.detail("key"), Some("docs/a"));
    }

    #[test]
    fn an_error_has_its_code_its_details_and_its_cause() {
        let cause = Error::new(&codes::DRIVE_FULL, "no room");
        let error = Error::new(&codes::POOL_FULL, "all full").with("a", 1).with("b", "two");
        let error = error.caused_by(cause);
        assert!(error.is(&codes::POOL_FULL) && !error.is(&codes::DRIVE_FULL));
        assert_eq!(error.message(), "all full");
        assert_eq!(error.details(), [("a", "1".to_owned()), ("b", "two".to_owned())]);
        let source = StdError::source(&error).and_then(|source| source.downcast_ref::<Error>());
        assert!(source.is_some_and(|source| source.is(&codes::DRIVE_FULL)));
    }

    #[test]
    fn what_a_process_may_not_have_is_no_fault_of_drives() {
        for code in [&codes::PROCESS_EXHAUSTED, &codes::PROCESS_FILE_SIZE] {
            assert!(Error::new(code, "x").is_of_process());
        }
        assert!(!Error::new(&codes::DRIVE_FAILED, "x").is_of_process());
    }

    #[test]
    fn first_correlation_stays() {
        let first = CorrelationId::from_u128(1);
        let error = Error::new(&codes::INTERNAL_BUG, "x").in_operation(first);
        assert_eq!(error.in_operation(CorrelationId::from_u128(2)).correlation(), Some(first));
    }
}
