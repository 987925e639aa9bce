//! One event: its subject, and what it says.

use std::sync::Arc;

use dwk_base::Result;
use dwk_bus::{Message, TEXT_BYTES_MAX};
use dwk_catalog::{ContainerName, Happening, ObjectInfo};
use dwk_pool::{RebuildReport, ScrubReport};
use serde_json::{Value, json};

use crate::Context;

/// How the data of every event is to be read.
const SCHEMA: &str = "dwkernel.event.v1";

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) subject: String,
    /// Events with the same key are about the same thing.
    pub(crate) key: Option<String>,
    /// One that filters ask for.
    pub(crate) header: Option<(&'static str, String)>,
    pub(crate) data: Value,
}

impl Event {
    /// What it will be about.
    pub(crate) const fn subject_of(what: Happening<'_>) -> &'static str {
        match what {
            Happening::ObjectCreated(_) => "object.created",
            Happening::ObjectDeleted(_) => "object.deleted",
            Happening::ContainerCreated(_) => "container.created",
            Happening::ContainerDeleted(_) => "container.deleted",
        }
    }

    /// Of a change of the catalog.
    pub(crate) fn of(what: Happening<'_>) -> Self {
        let (key, container, data) = match what {
            Happening::ObjectCreated(info) => {
                (info.key.as_str(), info.key.container(), created(info))
            }
            Happening::ObjectDeleted(key) => {
                (key.as_str(), key.container(), json!({ "key": key.as_str() }))
            }
            Happening::ContainerCreated(info) => of_container(&info.name),
            Happening::ContainerDeleted(name) => of_container(name),
        };
        Self {
            subject: Self::subject_of(what).to_owned(),
            key: Some(key.to_owned()),
            header: Some(("container", container.as_str().to_owned())),
            data,
        }
    }

    /// Of a rebuild that ended, with its report.
    pub(crate) fn rebuilt(report: &RebuildReport, drive: Option<&str>) -> Self {
        let data = json!({
            "drive": drive,
            "complete": report.is_complete(),
            "stripes": report.stripes,
            "missing_shards": report.missing_shards,
            "restored_shards": report.restored_shards,
            "unrestored_shards": report.unrestored_shards,
            "lost_stripes": report.lost_stripes,
            "read_bytes": report.read_bytes,
            "written_bytes": report.written_bytes,
        });
        Self::of_work("rebuild", report.finished, data)
    }

    /// Of a scrub that ended, with its report.
    pub(crate) fn scrubbed(report: &ScrubReport) -> Self {
        let data = json!({
            "clean": report.is_clean(),
            "stripes": report.stripes,
            "damaged_shards": report.damaged_shards,
            "absent_shards": report.absent_shards,
            "restored_shards": report.restored_shards,
            "unrestored_shards": report.unrestored_shards,
            "lost_stripes": report.lost_stripes,
            "read_bytes": report.read_bytes,
            "written_bytes": report.written_bytes,
        });
        Self::of_work("scrub", report.finished, data)
    }

    fn of_work(what: &str, finished: bool, data: Value) -> Self {
        let subject = format!("{what}.{}", if finished { "finished" } else { "stopped" });
        Self { subject, key: None, header: None, data }
    }

    /// As it is published, by whoever `context` says.
    pub(crate) fn message(self, context: Option<&Context>) -> Result<Message> {
        let mut message = Message::new(self.subject.parse()?, self.data.to_string());
        message.schema = Some(Arc::from(SCHEMA));
        // A key that is longer than a message's may be is in the data all the same.
        message.key = self.key.filter(|key| key.len() <= TEXT_BYTES_MAX).map(Into::into);
        message.headers =
            self.header.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        message.principal = context.map(|context| context.principal().as_str().into());
        message.correlation = context.map(Context::correlation);
        Ok(message)
    }
}

fn created(info: &ObjectInfo) -> Value {
    json!({
        "key": info.key.as_str(),
        "size": info.size_bytes,
        "checksum": format!("{:016x}", info.checksum),
        "content_type": info.content_type,
    })
}

fn of_container(name: &ContainerName) -> (&str, &ContainerName, Value) {
    (name.as_str(), name, json!({ "container": name.as_str() }))
}
