//! Segments in preallocated, zeroed logs that are used again and never renamed.
//!
//! A slot's number has no meaning: what it holds is said by the header and the batches inside. So it
//! does not matter if slots change places.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dwk_base::{Error, PoolId, Result, codes};
use dwk_drive::{BlobInfo, BlobName, Drive, Log};

use super::search::{WINDOW_BYTES, Window, search};
use super::{Append, Found, Place, Shelf, Unit};
use crate::format::{Aligned, BLOCK, FIRST_OFFSET, SegmentHeader};
use crate::replica::Stretch;
use crate::sync::guard;

/// A member with the log capability.
pub(crate) struct SlotShelf {
    segment_bytes: u32,
    free_count: usize,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    used: BTreeMap<u64, Arc<Unit>>,
    free: Vec<Arc<Unit>>,
    rest: Vec<Unit>,
    /// Left over as well, and of no use to anybody.
    idle: Vec<Unit>,
    names: BTreeSet<BlobName>,
    making: bool,
}

impl Slots {
    /// A name that no slot has.
    fn draw_name(&mut self) -> Result<BlobName> {
        for number in 0.. {
            let name = BlobName::new(format!("journal.{number:04}"))?;
            if self.names.insert(name.clone()) {
                return Ok(name);
            }
        }
        unreachable!("there are more numbers than slots")
    }
}

impl SlotShelf {
    pub(crate) fn new(segment_bytes: u32, free_count: usize) -> Self {
        Self { segment_bytes, free_count, slots: Mutex::default() }
    }

    fn slot(&self, segment: u64) -> Result<Arc<Unit>> {
        let found = guard(&self.slots).used.get(&segment).cloned();
        found.ok_or_else(|| {
            let message = format!("the drive holds no segment {segment} of the journal");
            Error::new(&codes::BLOB_NOT_FOUND, message).with("segment", segment)
        })
    }

    fn create(&self, log: &dyn Log, bytes: u64) -> Result<Arc<Unit>> {
        loop {
            let name = guard(&self.slots).draw_name()?;
            match log.create_log(&name, bytes) {
                Ok(()) => return Ok(Arc::new(Unit { name, bytes })),
                // Left behind by an earlier opening that was making a spare when it ended.
                Err(error) if error.is(&codes::BLOB_EXISTS) => {}
                Err(error) => {
                    guard(&self.slots).names.remove(&name);
                    return Err(error);
                }
            }
        }
    }

    /// A new slot for a segment. Not one that is there already, for what it holds may be the only copy of
    /// something; but on a full drive one that holds nothing of the log. The old one is left over.
    fn replace(&self, log: &dyn Log, header: &SegmentHeader) -> Result<Arc<Unit>> {
        let bytes = u64::from(header.segment_bytes);
        let unit = match self.create(log, bytes) {
            Err(error) if error.is(&codes::DRIVE_FULL) => self.take_idle(bytes).ok_or(error)?,
            created => created?,
        };
        let mut slots = guard(&self.slots);
        let old = slots.used.insert(header.segment, Arc::clone(&unit));
        slots.rest.extend(old.map(|old| Unit::clone(&old)));
        Ok(unit)
    }

    /// A slot of this size that holds nothing which anybody needs.
    fn take_idle(&self, bytes: u64) -> Option<Arc<Unit>> {
        let mut slots = guard(&self.slots);
        match slots.idle.iter().position(|unit| unit.bytes == bytes) {
            Some(index) => Some(Arc::new(slots.idle.swap_remove(index))),
            None => slots.free.pop_if(|unit| unit.bytes == bytes),
        }
    }

    fn has_header(&self, log: &dyn Log, header: &SegmentHeader) -> Result<bool> {
        let mut block = vec![0; BLOCK];
        let Ok(unit) = self.slot(header.segment) else { return Ok(false) };
        match log.read_log(&unit.name, 0, &mut block) {
            Err(error) if error.is_of_process() => Err(error),
            Err(_) => Ok(false),
            Ok(()) => Ok(SegmentHeader::parse(&block).as_ref() == Some(header)),
        }
    }

    fn remove(&self, log: &dyn Log, unit: &Unit) -> Result<()> {
        match log.delete_log(&unit.name) {
            Err(error) if !error.is(&codes::BLOB_NOT_FOUND) => return Err(error),
            _ => guard(&self.slots).names.remove(&unit.name),
        };
        Ok(())
    }
}

fn log(drive: &dyn Drive) -> Result<&dyn Log> {
    drive.log().ok_or_else(|| {
        Error::new(&codes::JOURNAL_MEMBERS, "the drive has lost its capability to hold logs")
    })
}

impl Shelf for SlotShelf {
    fn slots(&self) -> bool {
        true
    }

    fn units(&self, drive: &dyn Drive) -> Result<Vec<Unit>> {
        let mut units: Vec<Unit> = log(drive)?
            .list_logs()?
            .into_iter()
            .filter(|info| info.name.as_str().starts_with("journal."))
            .map(|info| Unit { name: info.name, bytes: info.bytes })
            .collect();
        units.sort();
        guard(&self.slots).names.extend(units.iter().map(|unit| unit.name.clone()));
        Ok(units)
    }

    fn examine(&self, drive: &dyn Drive, unit: &Unit, pool: PoolId) -> Result<Found> {
        let mut window = Window::new(log(drive)?, unit, WINDOW_BYTES);
        let block = window.at(0, BLOCK)?;
        let header = SegmentHeader::parse(block).filter(|header| header.pool == pool);
        let batches = search(&mut window, pool)?;
        let first = batches.first().filter(|batch| batch.offset == FIRST_OFFSET);
        let stamps = header.map(|header| header.stamp).into_iter().chain(first.map(|b| b.stamp));
        Ok(Found { unit: unit.clone(), stamps: stamps.collect(), batches })
    }

    fn fetch(&self, drive: &dyn Drive, unit: &Unit, offset: u32, bytes: u32) -> Result<Bytes> {
        let mut buffer = Aligned::zeroed(bytes as usize);
        log(drive)?.read_log(&unit.name, u64::from(offset), buffer.as_mut())?;
        Ok(buffer.finish())
    }

    fn adopt(&self, keep: Vec<(u64, Unit)>, rest: Vec<Unit>, idle: Vec<Unit>) {
        let mut slots = guard(&self.slots);
        slots.used = keep.into_iter().map(|(segment, unit)| (segment, Arc::new(unit))).collect();
        slots.free.clear();
        (slots.rest, slots.idle) = (rest, idle);
    }

    fn tidy(&self, drive: &dyn Drive) -> Result<()> {
        let left = {
            let mut slots = guard(&self.slots);
            let idle = std::mem::take(&mut slots.idle);
            idle.into_iter().chain(std::mem::take(&mut slots.rest))
        };
        for unit in left {
            let mut slots = guard(&self.slots);
            let fits = unit.bytes == u64::from(self.segment_bytes);
            if fits && slots.free.len() < self.free_count {
                slots.free.push(Arc::new(unit));
                continue;
            }
            drop(slots);
            self.remove(log(drive)?, &unit)?;
        }
        Ok(())
    }

    fn reserve(&self, drive: &dyn Drive, segment: u64) -> Result<()> {
        let log = log(drive)?;
        if let Ok(unit) = self.slot(segment) {
            return log.hold_log(&unit.name);
        }
        let free = guard(&self.slots).free.pop();
        let unit = match free {
            Some(unit) => unit,
            None => self.create(log, u64::from(self.segment_bytes))?,
        };
        guard(&self.slots).used.insert(segment, Arc::clone(&unit));
        log.hold_log(&unit.name)
    }

    fn append(&self, drive: &dyn Drive, append: &Append, tag: &'static str) -> Result<()> {
        let log = log(drive)?;
        let unit = self.slot(append.segment)?;
        if let Some(header) = &append.header {
            log.write_log(&unit.name, 0, &[header.clone(), append.batch.clone()])?;
        } else {
            let offset = u64::from(append.offset);
            log.write_log(&unit.name, offset, std::slice::from_ref(&append.batch))?;
        }
        log.sync_log(&unit.name, tag)
    }

    fn begin(&self, drive: &dyn Drive, header: &SegmentHeader, anew: bool) -> Result<bool> {
        let log = log(drive)?;
        let held = guard(&self.slots).used.get(&header.segment).cloned();
        let unit = match held.filter(|_| !anew) {
            Some(_) if self.has_header(log, header)? => return Ok(false),
            Some(unit) => unit,
            None => self.replace(log, header)?,
        };
        log.write_log(&unit.name, 0, &[header.encode()])?;
        Ok(true)
    }

    fn restore(&self, drive: &dyn Drive, segment: u64, offset: u32, batch: &Bytes) -> Result<()> {
        let unit = self.slot(segment)?;
        log(drive)?.write_log(&unit.name, u64::from(offset), std::slice::from_ref(batch))
    }

    fn settle(&self, drive: &dyn Drive, segment: u64, tag: &'static str) -> Result<()> {
        log(drive)?.sync_log(&self.slot(segment)?.name, tag)
    }

    fn place(&self, drive: &dyn Drive, header: &SegmentHeader) -> Result<Place> {
        let (Ok(log), Ok(unit)) = (log(drive), self.slot(header.segment)) else {
            return Ok(Place::Unusable);
        };
        let there = |info: &BlobInfo| {
            info.name == unit.name && info.bytes == u64::from(header.segment_bytes)
        };
        match log.list_logs() {
            Err(error) if error.is_of_process() => Err(error),
            Ok(logs) if logs.iter().any(there) => {
                let is_good = self.has_header(log, header)?;
                Ok(if is_good { Place::Good } else { Place::BadHeader })
            }
            _ => Ok(Place::Unusable),
        }
    }

    fn read(&self, drive: &dyn Drive, stretch: Stretch, into: &mut [u8]) -> Result<()> {
        let slot = self.slot(stretch.segment)?;
        log(drive)?.read_log(&slot.name, u64::from(stretch.offset), into)
    }

    fn read_now(&self, drive: &dyn Drive, stretch: Stretch, into: &mut [u8]) -> Result<bool> {
        let slot = self.slot(stretch.segment)?;
        log(drive)?.read_log_now(&slot.name, u64::from(stretch.offset), into)
    }

    fn retire(&self, drive: &dyn Drive, segment: u64) -> Result<()> {
        let mut slots = guard(&self.slots);
        let Some(unit) = slots.used.remove(&segment) else { return Ok(()) };
        if unit.bytes == u64::from(self.segment_bytes) {
            slots.free.push(unit);
            return Ok(());
        }
        drop(slots);
        self.remove(log(drive)?, &unit)
    }

    fn free_segments(&self) -> usize {
        guard(&self.slots).free.len()
    }

    fn make_spares(&self, drive: &dyn Drive, count: usize) -> Result<()> {
        while self.free_segments() < count {
            let unit = self.create(log(drive)?, u64::from(self.segment_bytes))?;
            guard(&self.slots).free.push(unit);
        }
        Ok(())
    }

    fn give_up(&self, drive: &dyn Drive) -> Result<()> {
        self.adopt(Vec::new(), Vec::new(), Vec::new());
        self.units(drive)?.iter().try_for_each(|unit| self.remove(log(drive)?, unit))
    }

    fn wants_spares(&self, count: usize) -> bool {
        let mut slots = guard(&self.slots);
        let wanted = !slots.making && slots.free.len() < count;
        slots.making |= wanted;
        wanted
    }

    fn prepare_spares(&self, drive: &dyn Drive, count: usize) -> Result<()> {
        let made = self.make_spares(drive, count);
        guard(&self.slots).making = false;
        made
    }

    fn taken_bytes(&self) -> u64 {
        let slots = guard(&self.slots);
        slots.used.values().chain(&slots.free).map(|unit| unit.bytes).sum()
    }
}
