//! Everything that can be asked of a store, one type per operation.

mod bookmark;
mod bus;
mod consumers;
mod containers;
mod objects;
mod policies;
mod pool;
mod records;
mod settings;
mod streams;

pub use bus::Bus;
pub use consumers::{
    CreateConsumer, DeadLetters, DeleteConsumer, Fetch, GetConsumer, ListConsumers, Redrive,
    Settle, StatConsumer, Steer, SteerConsumer, Verdict,
};
pub use containers::{CreateContainer, DeleteContainer, GetContainer, ListContainers};
pub use objects::{Delete, Get, Head, List, Put, Read};
pub use policies::GetDesk;
pub use pool::{Collect, Listener, Rebuild, Replace, Scrub, Status, StoreStatus, Work};
pub use records::{CommitRecords, GetRecord, ListRecords};
pub use settings::{Configure, GetSettings};
pub use streams::{
    CreateStream, DeleteStream, GetStream, ListStreams, Publish, PublishAsync, PublishLater,
    PublishTogether, PurgeStream, Purged, ReadStream, StatStream,
};

/// What [`crate::Kernel::execute`] does inside the door. Only this crate makes operations.
pub(crate) mod sealed {
    use dwk_base::Result;

    use crate::kernel::Entered;
    use crate::{Context, Request};

    /// How an operation is described and done.
    pub trait Run {
        /// What it gives back.
        type Outcome;

        /// As stages see it.
        fn request(&self) -> Request;

        /// Does it.
        ///
        /// # Errors
        /// The operation's own
        fn run(self, store: &Entered<'_>, context: &Context) -> Result<Self::Outcome>;
    }
}
