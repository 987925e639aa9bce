//! Durable streams: messages that are committed.

use std::time::Duration;

use dwk_base::Result;
use dwk_bus::{Envelope, Pattern};
use dwk_meta::Change;
use dwk_stream::{
    Cursor, Published, Publishing, Routed, Stored, Stream, StreamConfig, StreamStatus,
};

use super::sealed::Run;
use crate::kernel::Entered;
use crate::{Access, Context, Request, Resource};

fn request(operation: &'static str, access: Access, stream: &str) -> Request {
    Request { operation, access, resource: Resource::Stream(stream.to_owned()) }
}

fn tenant(context: &Context) -> &str {
    context.tenant().unwrap_or_default()
}

/// Makes a stream of the context's tenant: `stream.name`, `stream.option`, `stream.exists`.
#[derive(Clone, Debug)]
pub struct CreateStream<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it takes and keeps.
    pub config: StreamConfig,
}

impl Run for CreateStream<'_> {
    type Outcome = Stream;

    fn request(&self) -> Request {
        request("stream.create", Access::Administer, self.name)
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<Stream> {
        store.streams.create(tenant(context), self.name, self.config, context.deadline())
    }
}

/// Finds a stream of the context's tenant: `stream.not_found`.
#[derive(Clone, Copy, Debug)]
pub struct GetStream<'a> {
    /// Its name.
    pub name: &'a str,
}

impl Run for GetStream<'_> {
    type Outcome = Stream;

    fn request(&self) -> Request {
        request("stream.get", Access::Read, self.name)
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<Stream> {
        store.streams.get(tenant(context), self.name)
    }
}

/// The streams of the context's tenant, by name.
#[derive(Clone, Copy, Debug)]
pub struct ListStreams;

impl Run for ListStreams {
    type Outcome = Vec<Stream>;

    fn request(&self) -> Request {
        Request { operation: "stream.list", access: Access::Read, resource: Resource::Bus }
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<Vec<Stream>> {
        Ok(store.streams.list(tenant(context)))
    }
}

/// Deletes a stream and its messages: `stream.not_found`.
#[derive(Clone, Copy, Debug)]
pub struct DeleteStream<'a> {
    /// Its name.
    pub name: &'a str,
}

impl Run for DeleteStream<'_> {
    type Outcome = ();

    fn request(&self) -> Request {
        request("stream.delete", Access::Administer, self.name)
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<()> {
        store.streams.delete(tenant(context), self.name, context.deadline())
    }
}

/// Publishes messages in a stream, in one commit; what became of each: `stream.full`, `stream.subject`, …
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// The stream.
    pub stream: &'a Stream,
    /// Messages, each with the identity under which it is taken once.
    pub messages: &'a [(Envelope, Option<String>)],
}

impl Run for Publish<'_> {
    type Outcome = Vec<Result<Published>>;

    fn request(&self) -> Request {
        request("stream.publish", Access::Write, self.stream.name())
    }

    fn run(self, _: &Entered<'_>, context: &Context) -> Result<Vec<Result<Published>>> {
        match self.messages {
            [(envelope, id)] => {
                Ok(vec![self.stream.publish(envelope, id.as_deref(), context.deadline())])
            }
            many => self.stream.publish_many(many, context.deadline()),
        }
    }
}

/// As [`Publish`], without waiting: what it takes is in line, and the future tells what became of it. The door
/// is told that it was taken. `stream.subject`, …
#[derive(Clone, Copy, Debug)]
pub struct PublishAsync<'a> {
    /// The stream.
    pub stream: &'a Stream,
    /// Messages, each with the identity under which it is taken once.
    pub messages: &'a [(Envelope, Option<String>)],
}

impl Run for PublishAsync<'_> {
    type Outcome = Publishing;

    fn request(&self) -> Request {
        request("stream.publish", Access::Write, self.stream.name())
    }

    fn run(self, _: &Entered<'_>, _: &Context) -> Result<Publishing> {
        self.stream.publish_async(self.messages)
    }
}

/// Publishes a message that is in the stream after a while: `stream.full`, `stream.subject`, …
#[derive(Clone, Copy, Debug)]
pub struct PublishLater<'a> {
    /// The stream.
    pub stream: &'a Stream,
    /// The message.
    pub envelope: &'a Envelope,
    /// The identity under which it is taken once.
    pub message_id: Option<&'a str>,
    /// After how long.
    pub delay: Duration,
}

impl Run for PublishLater<'_> {
    type Outcome = ();

    fn request(&self) -> Request {
        request("stream.publish_later", Access::Write, self.stream.name())
    }

    fn run(self, _: &Entered<'_>, context: &Context) -> Result<()> {
        let Self { stream, envelope, message_id, delay } = self;
        stream.publish_after(envelope, message_id, delay, context.deadline())
    }
}

/// Publishes messages in every stream that takes them, all in one commit: `stream.subject`, `stream.full`, …
#[derive(Clone, Copy, Debug)]
pub struct PublishTogether<'a> {
    /// Messages, each with the identity under which it is taken once.
    pub messages: &'a [(Envelope, Option<String>)],
}

impl Run for PublishTogether<'_> {
    type Outcome = Vec<Routed>;

    fn request(&self) -> Request {
        Request {
            operation: "stream.publish_together",
            access: Access::Write,
            resource: Resource::Bus,
        }
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<Vec<Routed>> {
        let mut outbox = store.streams.outbox();
        for (envelope, id) in self.messages {
            outbox.route(envelope, id.as_deref())?;
        }
        outbox.commit(Change::new(), context.deadline())
    }
}

/// Reads on in a stream: `data.corrupt`, `stream.not_found`, …
#[derive(Debug)]
pub struct ReadStream<'a> {
    /// Where.
    pub cursor: &'a mut Cursor,
    /// The stream's name.
    pub stream: &'a str,
    /// At most so many messages.
    pub messages: usize,
    /// And no more of them once their data has so many bytes.
    pub bytes: usize,
}

impl Run for ReadStream<'_> {
    type Outcome = Vec<Stored>;

    fn request(&self) -> Request {
        request("stream.read", Access::Read, self.stream)
    }

    fn run(self, _: &Entered<'_>, context: &Context) -> Result<Vec<Stored>> {
        self.cursor.next_many(self.messages, self.bytes, context.deadline())
    }
}

/// Which messages go.
#[derive(Clone, Copy, Debug)]
pub enum Purged<'a> {
    /// All up to a number.
    UpTo(u64),
    /// Those with such a subject.
    Subjects(&'a Pattern),
}

/// Removes messages from a stream; about how many these were.
#[derive(Clone, Copy, Debug)]
pub struct PurgeStream<'a> {
    /// The stream.
    pub stream: &'a Stream,
    /// Which ones.
    pub which: Purged<'a>,
}

impl Run for PurgeStream<'_> {
    type Outcome = u64;

    fn request(&self) -> Request {
        request("stream.purge", Access::Administer, self.stream.name())
    }

    fn run(self, _: &Entered<'_>, context: &Context) -> Result<u64> {
        match self.which {
            Purged::UpTo(sequence) => self.stream.purge(sequence, context.deadline()),
            Purged::Subjects(pattern) => self.stream.purge_subjects(pattern, context.deadline()),
        }
    }
}

/// What a stream holds.
#[derive(Clone, Copy, Debug)]
pub struct StatStream<'a> {
    /// The stream.
    pub stream: &'a Stream,
}

impl Run for StatStream<'_> {
    type Outcome = StreamStatus;

    fn request(&self) -> Request {
        request("stream.status", Access::Read, self.stream.name())
    }

    fn run(self, _: &Entered<'_>, _: &Context) -> Result<StreamStatus> {
        Ok(self.stream.status())
    }
}
