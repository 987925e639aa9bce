//! Segments on a drive without logs: each batch is a blob of its own, which is never written twice. That
//! fences as well: a second writer finds the name taken.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use dwk_base::{Error, PoolId, Result, codes};
use dwk_drive::{BlobName, Drive};

use super::{Append, Found, Place, Shelf, Unit, is_damage};
use crate::format::{Aligned, BatchHeader, SegmentHeader};
use crate::replica::Stretch;
use crate::sync::guard;

const FOLDER: &str = "journal";
const PAGE: usize = 1000;

/// A member without the log capability.
#[derive(Default)]
pub(crate) struct BlobShelf {
    blobs: Mutex<Blobs>,
}

#[derive(Default)]
struct Blobs {
    /// The length of each batch, by segment and offset.
    used: BTreeMap<(u64, u32), u64>,
    rest: Vec<Unit>,
}

fn name(segment: u64, offset: u32) -> Result<BlobName> {
    BlobName::new(format!("{FOLDER}/{segment:016x}-{offset:08x}"))
}

/// The segment and offset that a name says.
fn place(name: &BlobName) -> Option<(u64, u32)> {
    let (segment, offset) = name.leaf().split_once('-')?;
    if segment.len() != 16 || offset.len() != 8 {
        return None;
    }
    Some((u64::from_str_radix(segment, 16).ok()?, u32::from_str_radix(offset, 16).ok()?))
}

fn read_all(drive: &dyn Drive, name: &BlobName, into: &mut [u8], offset: u64) -> Result<()> {
    if drive.read(name, offset, into)? == into.len() {
        return Ok(());
    }
    let message = format!("blob {name} of the journal ends early");
    Err(Error::new(&codes::FORMAT_DAMAGED, message).with("name", name))
}

fn remove(drive: &dyn Drive, name: &BlobName) -> Result<()> {
    match drive.delete(name) {
        Err(error) if !error.is(&codes::BLOB_NOT_FOUND) => Err(error),
        _ => Ok(()),
    }
}

impl Shelf for BlobShelf {
    fn slots(&self) -> bool {
        false
    }

    fn units(&self, drive: &dyn Drive) -> Result<Vec<Unit>> {
        let mut units: Vec<Unit> = Vec::new();
        loop {
            let after = units.last().map(|unit| unit.name.clone());
            let page = drive.list(Some(FOLDER), after.as_ref(), PAGE)?;
            let full = page.len() == PAGE;
            units.extend(page.into_iter().map(|i| Unit { name: i.name, bytes: i.bytes }));
            if !full {
                return Ok(units);
            }
        }
    }

    fn examine(&self, drive: &dyn Drive, unit: &Unit, pool: PoolId) -> Result<Found> {
        let mut bytes = vec![0; unit.bytes.min(1 << 30) as usize];
        let batch = match read_all(drive, &unit.name, &mut bytes, 0) {
            Ok(()) => BatchHeader::parse(&bytes),
            Err(error) if !is_damage(&error) => return Err(error),
            Err(_) => None,
        };
        let fits = |batch: &BatchHeader| {
            batch.pool == pool
                && u64::from(batch.bytes) == unit.bytes
                && place(&unit.name) == Some((batch.segment, batch.offset))
        };
        let batches: Vec<BatchHeader> = batch.filter(fits).into_iter().collect();
        let stamps = batches.iter().map(|batch| batch.stamp).collect();
        Ok(Found { unit: unit.clone(), stamps, batches })
    }

    fn fetch(&self, drive: &dyn Drive, unit: &Unit, _offset: u32, bytes: u32) -> Result<Bytes> {
        let mut buffer = Aligned::zeroed(bytes as usize);
        read_all(drive, &unit.name, buffer.as_mut(), 0)?;
        Ok(buffer.finish())
    }

    fn adopt(&self, keep: Vec<(u64, Unit)>, mut rest: Vec<Unit>, idle: Vec<Unit>) {
        rest.extend(idle);
        let used = keep.iter().filter_map(|(_, unit)| Some((place(&unit.name)?, unit.bytes)));
        *guard(&self.blobs) = Blobs { used: used.collect(), rest };
    }

    fn tidy(&self, drive: &dyn Drive) -> Result<()> {
        let rest = std::mem::take(&mut guard(&self.blobs).rest);
        for unit in rest {
            // A batch may have been restored under this name since.
            let again =
                place(&unit.name).is_some_and(|at| guard(&self.blobs).used.contains_key(&at));
            if !again {
                remove(drive, &unit.name)?;
            }
        }
        Ok(())
    }

    fn reserve(&self, _drive: &dyn Drive, _segment: u64) -> Result<()> {
        Ok(())
    }

    fn append(&self, drive: &dyn Drive, append: &Append, tag: &'static str) -> Result<()> {
        let name = name(append.segment, append.offset)?;
        if append.again {
            remove(drive, &name)?;
        }
        drive.put(&name, std::slice::from_ref(&append.batch))?;
        drive.sync(tag)?;
        let at = (append.segment, append.offset);
        guard(&self.blobs).used.insert(at, append.batch.len() as u64);
        Ok(())
    }

    fn begin(&self, _drive: &dyn Drive, _header: &SegmentHeader, _anew: bool) -> Result<bool> {
        Ok(false)
    }

    fn restore(&self, drive: &dyn Drive, segment: u64, offset: u32, batch: &Bytes) -> Result<()> {
        let name = name(segment, offset)?;
        remove(drive, &name)?;
        drive.put(&name, std::slice::from_ref(batch))?;
        guard(&self.blobs).used.insert((segment, offset), batch.len() as u64);
        Ok(())
    }

    fn settle(&self, drive: &dyn Drive, _segment: u64, tag: &'static str) -> Result<()> {
        drive.sync(tag)
    }

    fn place(&self, _drive: &dyn Drive, _header: &SegmentHeader) -> Result<Place> {
        Ok(Place::Good)
    }

    fn read(&self, drive: &dyn Drive, stretch: Stretch, into: &mut [u8]) -> Result<()> {
        let name = name(stretch.segment, stretch.batch)?;
        read_all(drive, &name, into, u64::from(stretch.offset - stretch.batch))
    }

    fn read_now(&self, drive: &dyn Drive, stretch: Stretch, into: &mut [u8]) -> Result<bool> {
        let name = name(stretch.segment, stretch.batch)?;
        let read = drive.read_now(&name, u64::from(stretch.offset - stretch.batch), into)?;
        Ok(read == Some(into.len()))
    }

    fn retire(&self, drive: &dyn Drive, segment: u64) -> Result<()> {
        loop {
            let next = guard(&self.blobs)
                .used
                .range((segment, 0)..=(segment, u32::MAX))
                .next()
                .map(|(at, _)| *at);
            let Some(at) = next else { return Ok(()) };
            remove(drive, &name(at.0, at.1)?)?;
            guard(&self.blobs).used.remove(&at);
        }
    }

    fn free_segments(&self) -> usize {
        usize::MAX
    }

    fn make_spares(&self, _drive: &dyn Drive, _count: usize) -> Result<()> {
        Ok(())
    }

    fn give_up(&self, drive: &dyn Drive) -> Result<()> {
        self.adopt(Vec::new(), Vec::new(), Vec::new());
        self.units(drive)?.iter().try_for_each(|unit| remove(drive, &unit.name))
    }

    fn wants_spares(&self, _count: usize) -> bool {
        false
    }

    fn prepare_spares(&self, _drive: &dyn Drive, _count: usize) -> Result<()> {
        Ok(())
    }

    fn taken_bytes(&self) -> u64 {
        guard(&self.blobs).used.values().sum()
    }
}
