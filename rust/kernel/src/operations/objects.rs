//! Operations on objects.

use dwk_base::Result;
use dwk_bus::Envelope;
use dwk_catalog::{Key, ListOptions, ObjectInfo, ObjectReader, Page, Progress, PutOptions, Source};

use super::sealed::Run;
use crate::events;
use crate::kernel::Entered;
use crate::limits;
use crate::{Access, Context, Request, Resource};

/// Writes an object, whole or not at all: `object.conflict`, `source.failed`, `pool.full`, …
pub struct Put<'a> {
    /// Its key.
    pub key: &'a Key,
    /// Its bytes.
    pub source: Source<'a>,
    /// Conditions, and what is kept with it.
    pub options: &'a PutOptions,
    /// Told how far it is, and may end it.
    pub progress: Progress<'a>,
    /// Messages for every stream that takes them, in the same commit: `stream.subject`, `stream.full`, …
    pub publish: &'a [(Envelope, Option<String>)],
}

impl Run for Put<'_> {
    type Outcome = ObjectInfo;

    fn request(&self) -> Request {
        let resource = Resource::Object(self.key.to_string());
        Request { operation: "object.put", access: Access::Write, resource }
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<ObjectInfo> {
        let Self { key, source, options, progress, publish } = self;
        let mut outbox = store.streams.outbox();
        for (envelope, id) in publish {
            outbox.route(envelope, id.as_deref())?;
        }
        let commit = events::commit(store, context, outbox);
        if let Source::Bytes(bytes) = &source {
            limits::check_object_bytes(store.snapshot, bytes.len() as u64)?;
        }
        let mut checked = |taken| {
            limits::check_object_bytes(store.snapshot, taken)?;
            progress(taken)
        };
        store.catalog.put_with(key, source, options, context.deadline(), (&mut checked, commit))
    }
}

/// Opens an object for reading: `object.not_found`.
#[derive(Clone, Copy, Debug)]
pub struct Get<'a> {
    /// Its key.
    pub key: &'a Key,
}

impl Run for Get<'_> {
    type Outcome = ObjectReader;

    fn request(&self) -> Request {
        let resource = Resource::Object(self.key.to_string());
        Request { operation: "object.get", access: Access::Read, resource }
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<ObjectReader> {
        store.catalog.get(self.key, context.deadline())
    }
}

/// How much a [`Read`] takes between two looks at the deadline, in bytes.
const PIECE_BYTES: usize = 16 << 20;

/// Reads from an object that is open; how many bytes were there: `data.corrupt`, …
pub struct Read<'a> {
    /// The object.
    pub reader: &'a mut ObjectReader,
    /// From where.
    pub offset: u64,
    /// How many; fewer only at the end of the object.
    pub bytes: usize,
    /// Shown the bytes, in order. After an error they are not to be used.
    pub take: &'a mut dyn FnMut(&[u8]),
    /// Told how many there are so far, between pieces; may end the read.
    pub look: &'a mut dyn FnMut(u64) -> Result<()>,
}

impl Run for Read<'_> {
    type Outcome = usize;

    fn request(&self) -> Request {
        let resource = Resource::Object(self.reader.info().key.to_string());
        Request { operation: "object.read", access: Access::Read, resource }
    }

    fn run(self, _: &Entered<'_>, context: &Context) -> Result<usize> {
        let mut filled = 0;
        self.reader.set_deadline(context.deadline());
        // An empty read is asked too: the last look of a whole read is at the end.
        loop {
            let wanted = (self.bytes - filled).min(PIECE_BYTES);
            let read = self.reader.show(self.offset + filled as u64, wanted, self.take)?;
            filled += read;
            if read < wanted || filled == self.bytes {
                return Ok(filled);
            }
            context.deadline().check()?;
            (self.look)(filled as u64)?;
        }
    }
}

/// What is known of an object: `object.not_found`.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Its key.
    pub key: &'a Key,
}

impl Run for Head<'_> {
    type Outcome = ObjectInfo;

    fn request(&self) -> Request {
        let resource = Resource::Object(self.key.to_string());
        Request { operation: "object.head", access: Access::Read, resource }
    }

    fn run(self, store: &Entered<'_>, _: &Context) -> Result<ObjectInfo> {
        store.catalog.head(self.key)
    }
}

/// One page of a listing: `container.not_found`.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    /// What to list.
    pub options: &'a ListOptions,
}

impl Run for List<'_> {
    type Outcome = Page;

    fn request(&self) -> Request {
        let resource = Resource::Object(self.options.prefix.clone());
        Request { operation: "object.list", access: Access::Read, resource }
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<Page> {
        store.catalog.list(self.options, context.deadline())
    }
}

/// Deletes an object: `object.not_found`, `object.conflict`.
#[derive(Clone, Copy, Debug)]
pub struct Delete<'a> {
    /// Its key.
    pub key: &'a Key,
    /// Only at this etag.
    pub if_match: Option<&'a str>,
}

impl Run for Delete<'_> {
    type Outcome = ();

    fn request(&self) -> Request {
        let resource = Resource::Object(self.key.to_string());
        Request { operation: "object.delete", access: Access::Write, resource }
    }

    fn run(self, store: &Entered<'_>, context: &Context) -> Result<()> {
        let commit = events::commit(store, context, store.streams.outbox());
        store.catalog.delete_with(self.key, self.if_match, context.deadline(), commit)
    }
}
