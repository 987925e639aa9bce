//! Consumers of durable streams.

use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Deadline, Result};
use dwk_stream::consumer::Token;
use dwk_stream::{Buried, Consumer, ConsumerConfig, ConsumerStatus, Delivery, Stream};

use super::sealed::Run;
use crate::kernel::Entered;
use crate::{Access, Context, Request, Resource};

fn request(operation: &'static str, access: Access, stream: &str, consumer: &str) -> Request {
    Request { operation, access, resource: Resource::Stream(format!("{stream}/{consumer}")) }
}

/// Makes a consumer: `stream.option`, `stream.consumer_exists`.
#[derive(Clone, Debug)]
pub struct CreateConsumer<'a> {
    /// Of this stream.
    pub stream: &'a Stream,
    /// What it wants.
    pub config: ConsumerConfig,
}

impl Run for CreateConsumer<'_> {
    type Outcome = Consumer;

    fn request(&self) -> Request {
        let Self { stream, config } = self;
        request("consumer.create", Access::Administer, stream.name(), &config.name)
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<Consumer> {
        store.streams.create_consumer(self.stream, self.config, context.deadline())
    }
}

/// Finds a consumer: `stream.consumer_not_found`.
#[derive(Clone, Copy, Debug)]
pub struct GetConsumer<'a> {
    /// Of this stream.
    pub stream: &'a Stream,
    /// Its name.
    pub name: &'a str,
}

impl Run for GetConsumer<'_> {
    type Outcome = Consumer;

    fn request(&self) -> Request {
        request("consumer.get", Access::Read, self.stream.name(), self.name)
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<Consumer> {
        store.streams.consumer(self.stream, self.name, context.deadline())
    }
}

/// A stream's consumers, by name.
#[derive(Clone, Copy, Debug)]
pub struct ListConsumers<'a> {
    /// Of this stream.
    pub stream: &'a Stream,
}

impl Run for ListConsumers<'_> {
    type Outcome = Vec<Consumer>;

    fn request(&self) -> Request {
        request("consumer.list", Access::Read, self.stream.name(), "")
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<Vec<Consumer>> {
        store.streams.consumers(self.stream, context.deadline())
    }
}

/// Deletes a consumer and its dead letters: `stream.consumer_not_found`.
#[derive(Clone, Copy, Debug)]
pub struct DeleteConsumer<'a> {
    /// Of this stream.
    pub stream: &'a Stream,
    /// Its name.
    pub name: &'a str,
}

impl Run for DeleteConsumer<'_> {
    type Outcome = ();

    fn request(&self) -> Request {
        request("consumer.delete", Access::Administer, self.stream.name(), self.name)
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<()> {
        store.streams.delete_consumer(self.stream, self.name, context.deadline())
    }
}

/// Takes messages, as soon as there are any.
#[derive(Clone, Copy, Debug)]
pub struct Fetch<'a> {
    /// For this consumer.
    pub consumer: &'a Consumer,
    /// At most so many.
    pub limit: usize,
    /// Waits so long for the first one.
    pub patience: Duration,
}

impl Run for Fetch<'_> {
    type Outcome = Vec<Delivery>;

    fn request(&self) -> Request {
        request("consumer.fetch", Access::Read, self.consumer.stream(), self.consumer.name())
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<Vec<Delivery>> {
        let clock = Arc::clone(&store.pool.seams().clock);
        let patience = Deadline::after(clock, self.patience);
        self.consumer.fetch(self.limit, &patience, context.deadline())
    }
}

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'a> {
    /// It is done.
    Ack,
    /// It is done, and that is durable.
    AckDurably,
    /// It comes again, after so long or after the backoff's.
    Nak(Option<Duration>),
    /// It is given up, for a reason.
    Term(&'a str),
    /// It takes longer.
    InProgress,
}

/// Says what becomes of a delivery: `stream.ack` if it is over.
#[derive(Clone, Copy, Debug)]
pub struct Settle<'a> {
    /// Of this consumer.
    pub consumer: &'a Consumer,
    /// The delivery.
    pub token: Token,
    /// What becomes of it.
    pub verdict: Verdict<'a>,
}

impl Run for Settle<'_> {
    type Outcome = ();

    fn request(&self) -> Request {
        request("consumer.settle", Access::Write, self.consumer.stream(), self.consumer.name())
    }

    fn run(self, _: &Entered<'_>, context: &Context) -> Result<()> {
        let Self { consumer, token, verdict } = self;
        let deadline = context.deadline();
        match verdict {
            Verdict::Ack => consumer.ack(token, deadline).map(drop),
            Verdict::AckDurably => {
                consumer.ack(token, deadline)?;
                consumer.flush(deadline)
            }
            Verdict::Nak(delay) => consumer.nak(token, delay),
            Verdict::Term(why) => consumer.term(token, why, deadline),
            Verdict::InProgress => consumer.in_progress(token),
        }
    }
}

/// What is to be done with a consumer.
#[derive(Clone, Copy, Debug)]
pub enum Steer {
    /// Makes every acknowledgement durable.
    Flush,
    /// Hands nothing out.
    Pause,
    /// Hands out again.
    Resume,
    /// Passes over what cannot be read next.
    Skip,
}

/// Does something with a consumer.
#[derive(Clone, Copy, Debug)]
pub struct SteerConsumer<'a> {
    /// This one.
    pub consumer: &'a Consumer,
    /// What.
    pub steer: Steer,
}

impl Run for SteerConsumer<'_> {
    type Outcome = ();

    fn request(&self) -> Request {
        request("consumer.steer", Access::Administer, self.consumer.stream(), self.consumer.name())
    }

    fn run(self, _: &Entered<'_>, context: &Context) -> Result<()> {
        let deadline = context.deadline();
        match self.steer {
            Steer::Flush => self.consumer.flush(deadline),
            Steer::Pause => self.consumer.pause(deadline),
            Steer::Resume => self.consumer.resume(deadline),
            Steer::Skip => self.consumer.skip(deadline).map(drop),
        }
    }
}

/// How a consumer stands, and how many messages are before it.
#[derive(Clone, Copy, Debug)]
pub struct StatConsumer<'a> {
    /// This one.
    pub consumer: &'a Consumer,
}

impl Run for StatConsumer<'_> {
    type Outcome = (ConsumerStatus, u64);

    fn request(&self) -> Request {
        request("consumer.status", Access::Read, self.consumer.stream(), self.consumer.name())
    }

    fn run(self, _: &Entered<'_>, _: &Context) -> Result<(ConsumerStatus, u64)> {
        self.consumer.check()?;
        Ok(self.consumer.status())
    }
}

/// Dead letters of messages behind a number.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetters<'a> {
    /// Of this consumer.
    pub consumer: &'a Consumer,
    /// Behind this number.
    pub after: u64,
    /// At most so many.
    pub limit: usize,
}

impl Run for DeadLetters<'_> {
    type Outcome = Vec<Buried>;

    fn request(&self) -> Request {
        request("consumer.dead_letters", Access::Read, self.consumer.stream(), self.consumer.name())
    }

    fn run(self, _: &Entered<'_>, context: &Context) -> Result<Vec<Buried>> {
        self.consumer.dead_letters(self.after, self.limit, context.deadline())
    }
}

/// Delivers a dead letter's message again; false if there is none.
#[derive(Clone, Copy, Debug)]
pub struct Redrive<'a> {
    /// Of this consumer.
    pub consumer: &'a Consumer,
    /// The message.
    pub sequence: u64,
}

impl Run for Redrive<'_> {
    type Outcome = bool;

    fn request(&self) -> Request {
        request(
            "consumer.redrive",
            Access::Administer,
            self.consumer.stream(),
            self.consumer.name(),
        )
    }

    fn run(self, _: &Entered<'_>, context: &Context) -> Result<bool> {
        self.consumer.redrive(self.sequence, context.deadline())
    }
}
