//! What is sent, and what arrives.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use dwk_base::units::format_size;
use dwk_base::{CorrelationId, Error, Result, codes};

use crate::limits::Limits;
use crate::{MessageId, Subject};

/// How many headers a message may have.
pub const HEADERS_MAX: usize = 1024;

/// The longest principal, schema or key, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;

/// What an envelope takes beside its data and headers, about, in bytes: so an endless row of empty messages
/// also fills a queue.
const OVERHEAD_BYTES: usize = 256;

/// A message as its sender writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is about.
    pub subject: Subject,
    /// Its content.
    pub data: Bytes,
    /// Names and values, in order. Names are compared exactly; of two with the same name the first counts.
    pub headers: Vec<(String, String)>,
    /// Ties it to the operation that it belongs to.
    pub correlation: Option<CorrelationId>,
    /// Who sends it.
    pub principal: Option<Arc<str>>,
    /// How the data is to be read.
    pub schema: Option<Arc<str>>,
    /// Where an answer is expected.
    pub reply_to: Option<Subject>,
    /// Messages with the same key are handled in order.
    pub key: Option<Arc<str>>,
    /// For filters; higher is more urgent. The order of delivery does not depend on it.
    pub priority: u8,
}

impl Message {
    /// `data` about `subject`, and nothing else.
    pub fn new(subject: Subject, data: impl Into<Bytes>) -> Self {
        Self {
            subject,
            data: data.into(),
            headers: Vec::new(),
            correlation: None,
            principal: None,
            schema: None,
            reply_to: None,
            key: None,
            priority: 0,
        }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With an ordering key.
    #[must_use]
    pub fn keyed(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Fails unless the message stays within `limits`; returns about how many bytes it takes in memory.
    ///
    /// # Errors
    /// `bus.message_size`
    pub(crate) fn check(&self, limits: &Limits) -> Result<usize> {
        let header_bytes = self.header_bytes();
        self.check_texts()?;
        within("data", self.data.len(), limits.message_bytes_max)?;
        within("headers", header_bytes, limits.headers_bytes_max)?;
        if self.headers.len() > HEADERS_MAX {
            let text = format!("{} headers, more than {HEADERS_MAX}", self.headers.len());
            return Err(Error::new(&codes::BUS_MESSAGE_SIZE, text));
        }
        Ok(self.data.len() + header_bytes + OVERHEAD_BYTES)
    }

    fn check_texts(&self) -> Result<()> {
        let texts = [("principal", &self.principal), ("schema", &self.schema), ("key", &self.key)];
        texts.into_iter().try_for_each(|(what, text)| {
            within(what, text.as_ref().map_or(0, |text| text.len()), TEXT_BYTES_MAX)
        })
    }

    fn header_bytes(&self) -> usize {
        self.headers.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

fn within(what: &str, bytes: usize, bytes_max: usize) -> Result<()> {
    if bytes <= bytes_max {
        return Ok(());
    }
    let (size, max) = (format_size(bytes as u64), format_size(bytes_max as u64));
    let text = format!("the message's {what}: {size}, more than {max}");
    let error = Error::new(&codes::BUS_MESSAGE_SIZE, text);
    Err(error.with("bytes", bytes).with("bytes_max", bytes_max))
}

/// A message on its way: stamped with identity, time and tenant, and unchangeable. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope(Arc<Stamped>);

/// What an envelope holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stamped {
    pub id: MessageId,
    pub unix_ns: u64,
    /// `None` for nobody in particular, whose messages then have no count of holders to fight for.
    pub tenant: Option<Arc<str>>,
    pub message: Message,
    /// It goes to those only who name what it is about; not kept with it.
    pub is_announcement: bool,
}

impl Envelope {
    pub(crate) fn new(stamped: Stamped) -> Self {
        Self(Arc::new(stamped))
    }

    /// Its identity.
    pub fn id(&self) -> MessageId {
        self.0.id
    }

    /// When it was published, in nanoseconds since 1970, by the bus's clock.
    pub fn unix_ns(&self) -> u64 {
        self.0.unix_ns
    }

    /// In whose namespace it was published; empty for the one that has no tenant.
    pub fn tenant(&self) -> &str {
        self.0.tenant.as_deref().unwrap_or_default()
    }

    /// True if it goes only to patterns that [name](crate::Pattern::names) what it is about.
    pub fn is_announcement(&self) -> bool {
        self.0.is_announcement
    }

    /// What was sent.
    pub fn message(&self) -> &Message {
        &self.0.message
    }

    /// What it is about.
    pub fn subject(&self) -> &Subject {
        &self.0.message.subject
    }

    /// Its content.
    pub fn data(&self) -> &Bytes {
        &self.0.message.data
    }

    /// The value of the first header `name`.
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.0.message.headers.iter();
        headers.into_iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// Its ordering key.
    pub fn key(&self) -> Option<&str> {
        self.0.message.key.as_deref()
    }

    /// About how many bytes it takes in memory.
    pub(crate) fn cost_bytes(&self) -> usize {
        let message = &self.0.message;
        message.data.len() + message.header_bytes() + OVERHEAD_BYTES
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
