//! The registry of error codes. A code is never re-used and never changes its meaning.

use crate::Kind;

/// One entry of the registry.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// Stable name, `area.what`.
    pub name: &'static str,
    /// What the caller can do about it.
    pub kind: Kind,
    /// True if the same call can succeed later without a change by the caller.
    pub retryable: bool,
    /// One sentence that says what to do.
    pub advice: &'static str,
}

macro_rules! codes {
    ($($ident:ident = $name:literal, $kind:ident, $retry:literal, $advice:literal;)*) => {
        $(#[doc = concat!("`", $name, "`: ", $advice)]
        pub static $ident: Code =
            Code { name: $name, kind: Kind::$kind, retryable: $retry, advice: $advice };)*

        /// Every code, in the order of its name.
        pub static REGISTRY: &[&Code] = &[$(&$ident),*];
    };
}

codes! {
    BLOB_EXISTS = "blob.exists", Exists, false, "Blobs are written once: choose another name or delete the blob first";
    BLOB_NAME = "blob.name", Invalid, false, "Use a blob name of 1 to 200 characters from a-z, 0-9, '.', '-' and '_', with at most one '/'";
    BLOB_NOT_FOUND = "blob.not_found", NotFound, false, "Check the name; run a scrub if the store should hold it";
    BROKER_DENIED = "broker.denied", Denied, false, "The broker does not let this user do that: give other credentials in the URL, or more rights there";
    BROKER_FAILED = "broker.failed", Internal, false, "The broker answered with an error: read the message, and the broker's log";
    BROKER_LOST = "broker.lost", Unavailable, true, "The broker does not answer: check that it runs and can be reached; the client connects again by itself";
    BROKER_MISSING = "broker.missing", Unsupported, false, "Install the broker's client: pip install 'dwkernel[nats]' or 'dwkernel[redis]'";
    BROKER_UNSUPPORTED = "broker.unsupported", Unsupported, false, "This broker cannot promise that: leave the option out, or use a stream of a store; .promises says what each can";
    BROKER_URL = "broker.url", Invalid, false, "Write nats://host:port or redis://host:port/database";
    BUFFER_LENGTH = "buffer.length", Invalid, false, "Give buffers of the documented shape and length";
    BUFFER_OVERLAP = "buffer.overlap", Invalid, false, "Give every row that is written memory of its own; to update, leave the old bytes in the row and give the new ones apart";
    BUFFER_READ_ONLY = "buffer.read_only", Invalid, false, "Give a writable buffer, such as bytearray or a writable NumPy array";
    BUFFER_TYPE = "buffer.type", Invalid, false, "Give a contiguous buffer of bytes, such as bytes, bytearray, memoryview or a NumPy uint8 array";
    BUS_CLOSED = "bus.closed", State, false, "The bus or the subscription was closed: open the kernel or subscribe again";
    BUS_FILTER = "bus.filter", Invalid, false, "Mend the filter as the message says, for example \"headers.unit == 'C' and size < 1 KiB\"";
    BUS_FORKED = "bus.forked", State, false, "A bus does not cross a fork: use one that was made in the child, or a broker between processes";
    BUS_FULL = "bus.full", Full, true, "A subscriber that may hold the publisher back is full: try again later, or give it another slow-consumer policy";
    BUS_HANDLER = "bus.handler", Internal, false, "A subscriber's handler raised: mend the handler, the message was not handled by it";
    BUS_MESSAGE_SIZE = "bus.message_size", Invalid, false, "Keep a message and its headers within the limits, or put the content into an object and send its key";
    BUS_NO_RESPONDER = "bus.no_responder", Unavailable, true, "Nobody subscribes to the subject: start the service that answers, then try again";
    BUS_PATTERN = "bus.pattern", Invalid, false, "Write tokens joined by '.'; '*' stands for one token, a last '>' for one and more";
    BUS_SUBJECT = "bus.subject", Invalid, false, "Write 1 to 255 bytes of tokens joined by '.', without wildcards, spaces or control characters";
    BUS_TIMEOUT = "bus.timeout", Timeout, true, "The answer did not come in time: try again, or give it longer";
    CONFIG_FILE = "config.file", Unavailable, true, "The file cannot be read: check that it is there, is a plain file and can be read; the last good configuration counts until then";
    CONFIG_REFUSED = "config.refused", Conflict, false, "A part of the program refuses this configuration: read why, then change the value or that part";
    CONFIG_SECRET = "config.secret", Unavailable, true, "A secret cannot be had from where the configuration says: set the variable, or make the file readable for this user";
    CONFIG_SYNTAX = "config.syntax", Invalid, false, "Mend the TOML at the line and column that the message names";
    CONFIG_TIMEOUT = "config.timeout", Timeout, true, "A part of the program did not say in time whether it takes the configuration: the last good one counts; try again";
    CONFIG_UNKNOWN = "config.unknown", Invalid, false, "There is no such section or field: take one that the message offers; dwkernel config schema lists all";
    CONFIG_VALUE = "config.value", Invalid, false, "Give the field a value of its type and range, as the message says; dwkernel config schema lists them";
    CONFIG_VERSION = "config.version", NotFound, false, "That version is not remembered: kernel.config.history() lists those that are";
    CONTAINER_EXISTS = "container.exists", Exists, false, "Use the container that is there or choose another name";
    CONTAINER_NAME = "container.name", Invalid, false, "Use 1 to 255 bytes of UTF-8 without '/' or NUL";
    CONTAINER_NOT_EMPTY = "container.not_empty", Conflict, false, "Delete the objects in it first";
    CONTAINER_NOT_FOUND = "container.not_found", NotFound, false, "Check the name, or make the container first: containers.create(), or `dwkernel put`, which makes it";
    CONTEXT_CANCELLED = "context.cancelled", Timeout, true, "The operation was stopped by who asked for it: ask again to go on";
    CONTEXT_DEADLINE = "context.deadline", Timeout, true, "The operation did not finish in its time: try again with a later deadline";
    CONTEXT_INVALID = "context.invalid", Invalid, false, "Give the operation a principal and a deadline";
    DATA_CORRUPT = "data.corrupt", Corrupt, false, "More shards are lost or damaged than the geometry tolerates: bring missing drives back, then run a scrub";
    DRIVE_DUPLICATE = "drive.duplicate", Invalid, false, "Name each drive once, and as a new one none that belongs to a store already";
    DRIVE_FAILED = "drive.failed", Unavailable, false, "The drive returned an error and is not trusted any more: replace it, then rebuild";
    DRIVE_FOREIGN = "drive.foreign", Invalid, false, "The drive belongs to another pool: give this pool's drives, or empty the drive to use it here";
    DRIVE_FULL = "drive.full", Full, false, "Free space, add a drive or delete objects";
    DRIVE_IO = "drive.io", Unavailable, true, "Check the drive and its cables; the store goes on while enough drives are well";
    DRIVE_MISSING = "drive.missing", Unavailable, true, "Bring the drive back or replace it; for a new one make the directory above it";
    DRIVE_NOT_EMPTY = "drive.not_empty", Exists, false, "Give an empty directory, or open the pool that is there";
    DRIVE_READ_ONLY = "drive.read_only", Denied, false, "Make the drive writable or replace it";
    DRIVE_TIMEOUT = "drive.timeout", Timeout, true, "The drive did not answer in time: check it, or replace it";
    DRIVE_UNKNOWN = "drive.unknown", NotFound, false, "Name a drive as status shows it";
    DRIVE_URL = "drive.url", Invalid, false, "Give a path, file:// or memory:// URL";
    DRIVES_TOO_FEW = "drives.too_few", Invalid, false, "Give at least as many drives as the geometry needs, or choose a smaller geometry";
    DRIVES_TOO_MANY_LOST = "drives.too_many_lost", Unavailable, true, "Bring enough of the missing drives back and open again";
    ERASURE_TOO_MANY_LOST = "erasure.too_many_lost", Corrupt, false, "More shards are lost than the code can rebuild";
    FORMAT_DAMAGED = "format.damaged", Corrupt, false, "The record is damaged on every drive that should hold it: bring missing drives back";
    FORMAT_NEWER = "format.newer", Unsupported, false, "The store was written by another version of dwkernel: open it with that version";
    GEOMETRY_INVALID = "geometry.invalid", Invalid, false, "Write it as k+m (\"4+2\"), a level with its drive count (\"raid6:8\") or a tree (\"raid50:2x(4+1)\")";
    GEOMETRY_NOT_STORABLE = "geometry.not_storable", Unsupported, false, "Choose a geometry whose `storable` is true";
    HASH_KEY = "hash.key", Invalid, false, "A key is exactly 32 bytes";
    INTERNAL_BUG = "internal.bug", Internal, false, "This is a bug in dwkernel: please report it with the details";
    JOB_CANCELLED = "job.cancelled", State, false, "The job was cancelled: submit it again to begin anew";
    JOB_FAILED = "job.failed", Internal, false, "The job failed: read its error, mend the cause, then submit it again";
    JOB_KIND = "job.kind", NotFound, false, "Nothing here does that kind of job: take one that the message offers, or enable the plugin that brings it";
    JOB_NOT_FOUND = "job.not_found", NotFound, false, "Check the job's id: `dwkernel job list` and `job history` (kernel.jobs.list() and history()) show those that are remembered";
    JOB_OPTION = "job.option", Invalid, false, "Give the job the options that its kind has, as the message says";
    JOB_SCHEDULE = "job.schedule", Invalid, false, "Write five cron fields such as '0 3 * * sun' with a zone such as 'Europe/Berlin', or an interval such as '6h'";
    JOURNAL_DAMAGED = "journal.damaged", Corrupt, false, "The log is damaged in its middle on every drive that is present: bring missing drives back";
    JOURNAL_EPOCH = "journal.epoch", Conflict, true, "Another opening of the pool has written since: open it again";
    JOURNAL_MEMBERS = "journal.members", Unavailable, true, "Too few drives that can hold the journal are well: bring drives back or add some";
    JOURNAL_RECORD_SIZE = "journal.record_size", Invalid, false, "Split the change: a record has a maximum size";
    LIMIT_OBJECT_SIZE = "limit.object_size", Invalid, false, "The object is longer than limits.object_size lets in: store it in parts, or raise the limit";
    LIMIT_OPERATIONS = "limit.operations", Full, true, "As many operations are under way as limits.operations lets in: try again later, or give the operation a longer deadline to wait";
    LIMIT_RATE = "limit.rate", Full, true, "Operations come faster than limits.rate lets in: try again after the time that the detail retry_after_s says";
    METRICS_MISSING = "metrics.missing", Unsupported, false, "Install what writes the text: pip install 'dwkernel[metrics]'";
    OBJECT_CONFLICT = "object.conflict", Conflict, false, "The object changed or exists: read it again and decide";
    OBJECT_KEY = "object.key", Invalid, false, "Write container/name in UTF-8, the name 1 to 4096 bytes without NUL";
    OBJECT_METADATA = "object.metadata", Invalid, false, "Keep metadata, tags and content type within their documented sizes";
    OBJECT_NOT_FOUND = "object.not_found", NotFound, false, "Check the key, or list the container";
    OBJECT_RANGE = "object.range", Invalid, false, "Read within 0 and the object's size";
    OBJECT_READING = "object.reading", State, false, "A signal handler or a callback came in between: let it read from a reader of its own, kernel.get opens one";
    PLUGIN_API = "plugin.api", Unsupported, false, "The plugin was written for another version of the kernel: take a version of it that fits this one";
    PLUGIN_ARCHIVE = "plugin.archive", Invalid, false, "The archive holds what a plugin must not: build it anew, with plain files and folders under one folder only";
    PLUGIN_DEPENDENCY = "plugin.dependency", Conflict, false, "The plugin needs others that are missing, do not fit or need it in turn: install what the message names";
    PLUGIN_DIED = "plugin.died", Unavailable, true, "The plugin's process ended: it is started again; try again in a moment";
    PLUGIN_EXISTS = "plugin.exists", Exists, false, "Two plugins have that id: remove one of the two places that the message names";
    PLUGIN_FAILED = "plugin.failed", Internal, false, "The plugin raised: read its error and mend the plugin; everything else goes on without it";
    PLUGIN_HASH = "plugin.hash", Corrupt, false, "The plugin's files are not the ones that were vouched for: get it anew from where it came";
    PLUGIN_KIND = "plugin.kind", Invalid, false, "A plugin is of one of the kinds that the documentation lists, and has the methods of its kind: the message says what is not so";
    PLUGIN_LOAD = "plugin.load", Invalid, false, "The plugin cannot be imported: read the error, which says where, and mend it";
    PLUGIN_MANIFEST = "plugin.manifest", Invalid, false, "Mend plugin.toml where the message says";
    PLUGIN_NOT_FOUND = "plugin.not_found", NotFound, false, "Look at the id or the place that the message names: dwkernel plugin list shows the plugins that are found";
    PLUGIN_OPTION = "plugin.option", Invalid, false, "Give the plugin the configuration that its manifest asks for, as the message says";
    PLUGIN_PERMISSION = "plugin.permission", Denied, false, "The plugin wants to do what its manifest does not ask for or nobody granted: grant it in plugins.grant, or leave the plugin out";
    PLUGIN_QUARANTINED = "plugin.quarantined", Unavailable, true, "The plugin failed too often and is kept out for a while: mend it and reload it, or enable it again";
    PLUGIN_RELOAD = "plugin.reload", Conflict, false, "The new version could not take over, and the old one runs on: read at which step and why";
    PLUGIN_SANDBOX = "plugin.sandbox", Unsupported, false, "The plugin cannot run confined for the reason that the message gives: run it trusted if you trust it, or where the system has what is missing";
    PLUGIN_SIGNATURE = "plugin.signature", Denied, false, "The plugin is not signed by a key that plugins.trusted_keys lists: get a signed one, or list its key";
    PLUGIN_STATE = "plugin.state", State, false, "The plugin is not in a state to do that now: dwkernel plugin info says which it is in";
    PLUGIN_TIMEOUT = "plugin.timeout", Timeout, true, "The plugin took longer than it may and is left alone: mend it, or give its kind more time";
    POLICY_REFUSED = "policy.refused", Denied, false, "A policy refuses the operation: the message says which and why";
    POOL_BUSY = "pool.busy", Unavailable, true, "Finish or drop uploads that are under way, or give the pool more memory";
    POOL_FULL = "pool.full", Full, false, "Delete objects, add a drive or replace one with a larger one";
    POOL_READ_ONLY = "pool.read_only", State, false, "Open without read_only to change the store; if a lost drive forces it, bring the drive back or force the open";
    POOL_REPAIRING = "pool.repairing", Unavailable, true, "A scrub, rebuild or replace is under way: wait for it to end, or stop it";
    PROCESS_EXHAUSTED = "process.exhausted", Unavailable, true, "The process has no more files, threads or memory to use, which says nothing about the drives: close some, or raise its limits (ulimit -n, ulimit -u)";
    PROCESS_FILE_SIZE = "process.file_size", Unavailable, false, "The process may not write files as long as this, which says nothing about the drives: raise its limit (ulimit -f)";
    QUEUE_ABANDONED = "queue.abandoned", Unavailable, true, "Every other process that used the queue died: start one again, or close the queue";
    QUEUE_CAPACITY = "queue.capacity", Invalid, false, "Give a capacity, lane or batch size within the documented limits";
    QUEUE_CLOSED = "queue.closed", State, false, "The queue was closed: nothing more is taken in, and what was in it has been taken out";
    QUEUE_DAMAGED = "queue.damaged", Corrupt, false, "The shared memory does not hold a sound queue: close it everywhere and make a new one";
    QUEUE_EMPTY = "queue.empty", Unavailable, true, "Nothing is in the queue now: wait with get, or try later";
    QUEUE_EXISTS = "queue.exists", Exists, false, "A queue of that name is in use: attach to it, or choose another name";
    QUEUE_FORKED = "queue.forked", State, false, "A queue does not cross a fork: make one in the child, or use a BytesQueue between processes";
    QUEUE_FULL = "queue.full", Full, true, "The queue is full now: wait with put, or try later";
    QUEUE_MESSAGE_SIZE = "queue.message_size", Invalid, false, "The message is larger than the queue can ever hold: split it, or make a larger queue";
    QUEUE_NAME = "queue.name", Invalid, false, "Use 1 to 100 characters from a-z, A-Z, 0-9, '.', '-' and '_'";
    QUEUE_NOT_FOUND = "queue.not_found", NotFound, false, "No queue has that name: its maker closed it, or it was never made";
    QUEUE_TIMEOUT = "queue.timeout", Timeout, true, "The queue stayed full or empty for the whole time: try again, or give it longer";
    QUEUE_UNSUPPORTED = "queue.unsupported", Unsupported, false, "Queues between processes need Linux with /dev/shm and /proc, and processes of one PID namespace";
    RECORD_CONFLICT = "record.conflict", Conflict, true, "Somebody else changed the record meanwhile: read it again and decide anew";
    RECORD_KEY = "record.key", Invalid, false, "Use a space of 1 to 64 of a-z, 0-9, '.', '-' and '_', and a key of 1 to 512 bytes of UTF-8";
    SINK_FAILED = "sink.failed", Unavailable, true, "The receiver did not take the message: it is tried again, see the sink's status and the consumer's dead letters";
    SINK_GONE = "sink.gone", State, false, "The receiver says that it wants no more: the sink is paused, give it another address and resume it";
    SINK_OPTION = "sink.option", Invalid, false, "Mend the option as the message says";
    SINK_REFUSED = "sink.refused", Invalid, false, "The receiver says that the message itself is wrong: it is a dead letter now, with the answer as its reason";
    SOURCE_FAILED = "source.failed", Invalid, false, "The source of the data raised or ended early; nothing was stored";
    STORE_CLOSED = "store.closed", State, false, "Open the store again";
    STORE_EXISTS = "store.exists", Exists, false, "Open the one that is there, without create=True, or choose another path";
    STORE_FORKED = "store.forked", State, false, "A store does not cross a fork: open it in the child process, or start children with spawn";
    STORE_LOCKED = "store.locked", Unavailable, true, "The store is open in that process, or still in this one: close it there, or talk to that process";
    STORE_NOT_FOUND = "store.not_found", NotFound, false, "Check the path, or create the store first: create=True, or `dwkernel create`";
    STORE_OPTION = "store.option", Invalid, false, "Mend the option as the message says";
    STORE_UNFINISHED = "store.unfinished", NotFound, false, "Creating the store was cut off before it could hold anything: create it again on the same drives";
    STREAM_ACK = "stream.ack", State, false, "The message was acknowledged before, or its time was over and it is delivered again: handle the new delivery";
    STREAM_CONSUMER_EXISTS = "stream.consumer_exists", Exists, false, "Use the consumer that is there, or give the new one another name";
    STREAM_CONSUMER_NOT_FOUND = "stream.consumer_not_found", NotFound, false, "Check its name (`dwkernel bus consumers` shows what is there), or make the consumer first: create=\"if_missing\", or `dwkernel bus consumer create`";
    STREAM_EXISTS = "stream.exists", Exists, false, "Use the stream that is there, or give the new one another name";
    STREAM_FULL = "stream.full", Full, true, "The stream is at its limit and refuses new messages: consume, raise the limit, or let it discard the oldest";
    STREAM_NAME = "stream.name", Invalid, false, "Use 1 to 128 characters from a-z, A-Z, 0-9, '-' and '_'";
    STREAM_NO_STORE = "stream.no_store", Unsupported, false, "Streams are kept in a store: open one and use its kernel.bus";
    STREAM_NOT_FOUND = "stream.not_found", NotFound, false, "Check its name (`dwkernel bus topics` shows what is there), or make the stream first: create=\"if_missing\", or `dwkernel bus create`";
    STREAM_OPTION = "stream.option", Invalid, false, "Mend the option as the message says";
    STREAM_SUBJECT = "stream.subject", Invalid, false, "Publish on a subject that the stream takes, or add its pattern to the stream";
    SUPERBLOCK_DAMAGED = "superblock.damaged", Corrupt, false, "Both superblock slots of the drive are unreadable: replace the drive, or bring others back";
    UNIT_INVALID = "unit.invalid", Invalid, false, "Write a size as an integer or \"10 GiB\", a duration as a number of seconds or \"30s\"";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_is_sorted_unique_and_says_what_to_do() {
        for pair in REGISTRY.windows(2) {
            assert!(pair[0].name < pair[1].name, "{} before {}", pair[0].name, pair[1].name);
        }
        for code in REGISTRY {
            assert!(code.name.split('.').count() == 2, "{}", code.name);
            assert!(code.advice.len() > 15 && !code.advice.ends_with('.'), "{}", code.name);
        }
    }
}
