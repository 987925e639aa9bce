//! What goes wrong with a drive.

use dwk_base::{Random, SeededRandom, codes};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{FaultyDrive, MemoryDrive};

use super::drives::Drives;
use super::plan::Harm;

const WRITES: [Operation; 5] = [
    Operation::Put,
    Operation::Sync,
    Operation::WriteLog,
    Operation::SyncLog,
    Operation::WriteSuperblock,
];

impl Drives {
    /// Does this to a place.
    pub(crate) fn harm(&mut self, place: usize, harm: Harm, random: &SeededRandom) {
        let drive = self.disk(place).drive.clone();
        let memory = self.disk(place).memory.clone();
        let io = |operation| Fault::new(Effect::Error(&codes::DRIVE_IO)).on(operation);
        match harm {
            Harm::Vanish => drive.set_vanished(true),
            Harm::ReadOnly => drive.set_read_only(true),
            Harm::Full => drive.set_full(true),
            Harm::FailReads => {
                drive.inject(io(Operation::Read).chance(0.3));
                drive.inject(io(Operation::ReadLog).chance(0.05));
            }
            Harm::FailWrites(which) => {
                let fault = io(WRITES[which as usize]);
                drive.inject(fault.after(random.below(6)).times(1 + random.below(3)));
            }
            Harm::Lie => {
                let flip = |operation| Fault::new(Effect::Flip).on(operation);
                drive.inject(flip(Operation::Read).chance(0.3));
                drive.inject(flip(Operation::ReadLog).chance(0.05));
                self.unseen.insert(place);
            }
            Harm::Forget => {
                forget(&drive);
                self.unseen.insert(place);
            }
            Harm::Damage => {
                damage(&memory, random);
                self.unseen.insert(place);
            }
            Harm::TurnBack => {
                if let Some(earlier) = &self.earlier[place] {
                    memory.wipe();
                    for entry in earlier.entries() {
                        memory.set_raw(&entry, earlier.raw(&entry));
                    }
                    self.unseen.insert(place);
                }
                return;
            }
            Harm::Wipe => {
                memory.wipe();
                self.unseen.insert(place);
            }
        }
        if !matches!(harm, Harm::Damage | Harm::Wipe) {
            self.sick.insert(place);
        }
    }
}

fn forget(drive: &FaultyDrive) {
    dwk_journal::SYNC_TAGS.iter().chain(dwk_pool::SYNC_TAGS).for_each(|tag| drive.omit(tag));
}

/// Flips, cuts short, zeroes, exchanges and removes files.
pub(crate) fn damage(drive: &MemoryDrive, random: &SeededRandom) {
    let draw = |bound: usize| random.below(bound.max(1) as u64) as usize;
    let entries = drive.entries();
    let many = if draw(4) == 0 { entries.len() } else { draw(6) };
    for _ in 0..many {
        if entries.is_empty() {
            return;
        }
        let (entry, other) = (&entries[draw(entries.len())], &entries[draw(entries.len())]);
        let Some(mut bytes) = drive.raw(entry) else { continue };
        match draw(6) {
            0 => drive.set_raw(entry, None),
            1 => {
                bytes.truncate(draw(bytes.len() + 1));
                drive.set_raw(entry, Some(bytes));
            }
            2 => {
                let (a, b) = (drive.raw(entry), drive.raw(other));
                drive.set_raw(entry, b);
                drive.set_raw(other, a);
            }
            3 => {
                let from = draw(bytes.len());
                bytes[from..].fill(0);
                drive.set_raw(entry, Some(bytes));
            }
            4 => {
                let last = bytes.len().min(64);
                let _ = drive.flip(entry, draw(last), 1 << draw(8));
            }
            _ => (0..=draw(20)).for_each(|_| {
                let _ = drive.flip(entry, draw(bytes.len()), 1 << draw(8));
            }),
        }
    }
}
