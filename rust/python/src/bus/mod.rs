//! `dwkernel.bus`: a tenant's namespace, its subscriptions, and messages.

mod consumer;
mod filter;
mod message;
mod settings;
mod space;
mod stream;
mod subscription;

pub(crate) use consumer::BusConsumer;
pub(crate) use filter::BusFilter;
pub(crate) use message::Message;
pub(crate) use space::BusSpace;
pub(crate) use stream::{BusCursor, BusStream, BusStreams, outgoing};
pub(crate) use subscription::BusSubscription;
