//! The steps.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Deadline, Random, Result, SeededRandom, SystemClock, codes};
use dwk_drive::Drive;
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_meta::{Change, Meta};
use dwk_pool::Control;

use super::book::{Content, Edit};
use super::history::History;
use super::plan::Step;
use crate::world::holder;

/// Commits an edit.
fn commit(meta: &Arc<Meta>, edit: &Edit, deadline: &Deadline) -> Result<u64> {
    let mut change = Change::new();
    for (key, content) in edit {
        let key = key.as_bytes().to_vec();
        change = match content {
            None => change.delete(key),
            Some(content) => {
                let mut upload = meta.upload_until(deadline);
                // As a stream gives it.
                content.chunks(5000).try_for_each(|piece| upload.append(piece))?;
                change.put(key, b"body".to_vec(), Some(upload.finish()?))
            }
        };
    }
    meta.commit_until(change, deadline)
}

/// Gives some bytes and fails then.
struct Failing {
    left: usize,
}

impl Read for Failing {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other("the source is gone"));
        }
        let bytes = into.len().min(self.left).min(3000);
        into[..bytes].fill(7);
        self.left -= bytes;
        Ok(bytes)
    }
}

impl History {
    pub(crate) fn take(&mut self, step: Step) {
        match step {
            Step::Put { key, size } => {
                let content = self.content(size);
                self.commit([(Self::key(key), Some(content))].into());
            }
            Step::Delete { key } => self.commit([(Self::key(key), None)].into()),
            Step::Many { seed } => self.many(seed),
            Step::Broken { key, size } => self.broken(key, size),
            Step::Burst { seed } => self.burst(seed),
            Step::Hurried { seed } => self.hurried(seed),
            Step::Stage { key, size } => self.stage(key, size),
            Step::CommitStaged => self.commit_staged(),
            Step::Hold { key } => self.hold(key),
            Step::ReadHeld => self.read_held(),
            Step::Checkpoint => drop(self.expect(self.meta().checkpoint())),
            Step::Collect => drop(self.expect(self.meta().collect())),
            // The second one ends quarantines of the first, if an opening lies between.
            Step::Scrub => (0..=self.random.below(2)).for_each(|_| self.scrub()),
            Step::Rebuild { drive } => self.rebuild_some(drive),
            Step::Replace { drive } => self.replace_some(drive),
            Step::Reopen { clean } => {
                self.leave(clean);
                if !self.drives.power.is_cut() {
                    let gone = self.draw_gone();
                    self.reopen(gone);
                }
            }
            Step::Cut { within } => self.drives.power.cut_in(within),
            Step::Harm { drive, harm } => {
                if let Some(place) = self.drives.may_harm(drive, self.tolerance) {
                    let random = SeededRandom::new(drive);
                    self.drives.harm(place, harm, &random);
                }
            }
            Step::Ease { drive } => self.drives.ease((drive % self.setup.drives as u64) as usize),
            Step::FullAll { full } => {
                self.full = full;
                self.drives.all().for_each(|disk| disk.drive.set_full(full));
            }
            Step::Recover => {
                // As long as it takes.
                self.drives.power.cut_at(u64::MAX);
                if !self.drives.power.is_cut() {
                    self.recover();
                }
            }
        }
    }

    fn commit(&mut self, edit: Edit) {
        let done = commit(self.meta(), &edit, &Deadline::never());
        self.book.note(edit, &done);
        self.expect(done);
    }

    fn many(&mut self, seed: u64) {
        let random = SeededRandom::new(seed);
        let mut edit = Edit::new();
        for _ in 0..2 + random.below(4) {
            let key = Self::key(random.next_u64());
            // Small ones share a record of 20 KiB.
            let content = Some(self.content(random.next_u64()));
            edit.insert(key, content.filter(|_| random.below(4) > 0));
        }
        self.commit(edit);
    }

    fn broken(&mut self, key: u64, size: u64) {
        let (meta, length) = (Arc::clone(self.meta()), self.content(size).len());
        let mut upload = meta.upload();
        let mut source = Failing { left: length };
        let error = loop {
            match upload.append_from(&mut source, 4096) {
                Ok(0) => panic!("{}: a source that fails ended", self.now),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(error.is(&codes::SOURCE_FAILED) || self.excuses(&error), "{}: {error:?}", self.now);
        drop(upload);
        // What was begun is removed without anybody waiting, and the power may go with it.
        if !self.drives.power.is_cut() {
            self.check_key(&Self::key(key));
        }
    }

    /// Writers with keys of their own, and beside them somebody who tidies up.
    fn burst(&mut self, seed: u64) {
        let random = SeededRandom::new(seed);
        let meta = Arc::clone(self.meta());
        let mut scripts: Vec<Vec<Edit>> = vec![Vec::new(); 3];
        for (writer, script) in scripts.iter_mut().enumerate() {
            for _ in 0..=random.below(5) {
                let key = Self::key(random.below(4) * 3 + writer as u64);
                let content = Some(self.content(random.next_u64()));
                script.push([(key, content.filter(|_| random.below(4) > 0))].into());
            }
        }
        let tidy = random.below(4);
        let done: Vec<Vec<(Edit, Result<u64>)>> = std::thread::scope(|scope| {
            let write = |script: Vec<Edit>| {
                let meta = &meta;
                scope.spawn(move || {
                    let mut done = Vec::new();
                    for edit in script {
                        let outcome = commit(meta, &edit, &Deadline::never());
                        let failed = outcome.is_err();
                        done.push((edit, outcome));
                        if failed {
                            break;
                        }
                    }
                    done
                })
            };
            let writers: Vec<_> = scripts.into_iter().map(write).collect();
            let tidied = match tidy {
                0 => meta.checkpoint(),
                1 => meta.collect().map(drop),
                2 => meta.pool().scrub(&*meta, &Control::default()).map(drop),
                _ => meta.pool().rebuild(&*meta, None, &Control::default()).map(drop),
            };
            self.expect(tidied.or_else(forgive));
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        for (edit, outcome) in done.into_iter().flatten() {
            self.book.note(edit, &outcome);
            self.expect(outcome);
        }
    }

    /// One drive hangs for as long as somebody in a hurry waits.
    fn hurried(&mut self, seed: u64) {
        let random = SeededRandom::new(seed);
        let place = random.below(self.setup.drives as u64) as usize;
        if self.drives.sick.contains(&place) {
            return;
        }
        let calls = [
            Operation::Put,
            Operation::Sync,
            Operation::SyncLog,
            Operation::WriteLog,
            Operation::Read,
            Operation::Delete,
        ];
        let fault = Fault::new(Effect::Hang).on(calls[random.below(6) as usize]);
        let drive = self.drives.disk(place).drive.clone();
        drive.inject(fault.after(random.below(3)));
        let meta = Arc::clone(self.meta());
        for _ in 0..=random.below(3) {
            let limit = Duration::from_millis(5 + random.below(20));
            let deadline = Deadline::after(Arc::new(SystemClock::default()), limit);
            let key = Self::key(random.next_u64());
            let content = Some(self.content(random.next_u64()));
            let edit: Edit = [(key, content.filter(|_| random.below(4) > 0))].into();
            let done = commit(&meta, &edit, &deadline);
            self.book.note(edit, &done);
            let late = |error: &dwk_base::Error| error.is(&codes::CONTEXT_DEADLINE);
            if !done.as_ref().is_err_and(late) {
                self.expect(done);
            }
        }
        drive.heal();
        if self.full {
            drive.set_full(true);
        }
        let left = meta.await_left(&Deadline::never());
        self.expect(left);
        if !self.drives.power.is_cut() {
            let planned = self.drives.power.clone();
            planned.cut_at(u64::MAX);
            if planned.is_cut() {
                return;
            }
            if meta.pool().check_writable().is_ok() {
                self.book.settle(&meta, &self.now);
            }
        }
    }

    fn stage(&mut self, key: u64, size: u64) {
        let (key, content) = (Self::key(key), self.content(size));
        let mut upload = self.meta().upload();
        let staged = upload.append(&content).and_then(|()| upload.finish());
        if let Some(staged) = self.expect(staged) {
            self.staged.push((key, content, staged));
        }
    }

    fn commit_staged(&mut self) {
        for (key, content, staged) in std::mem::take(&mut self.staged) {
            let change = Change::new().put(key.clone().into(), b"body".to_vec(), Some(staged));
            let done = self.meta().commit(change);
            self.book.note([(key, Some(content))].into(), &done);
            self.expect(done);
        }
    }

    fn hold(&mut self, key: u64) {
        let key = Self::key(key);
        let Some(content) = self.book.known.get(&key).filter(|_| self.book.is_sure(&key)) else {
            return;
        };
        let content: Content = Arc::clone(content);
        let read = self.meta().read(key.as_bytes());
        if let Some(read) = self.expect(read) {
            self.held.push((read.unwrap().1, content));
        }
    }

    /// Whoever holds an object reads what it held.
    pub(crate) fn read_held(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        for (reader, content) in &mut held {
            let half = content.len() / 2;
            let mut got = vec![0; content.len()];
            let done = reader.read_at(half as u64, &mut got[half..]);
            let done = done.and_then(|_| reader.read_at(0, &mut got[..half]));
            if self.expect(done).is_some() {
                assert!(got == **content, "{}: who holds it reads other bytes", self.now);
            }
        }
        if self.random.below(2) == 0 {
            self.held = held;
        }
    }

    fn scrub(&self) {
        let meta = self.meta();
        let done = meta.pool().scrub(&**meta, &Control::default());
        if let Some(report) = self.expect(done.or_else(forgive_default)) {
            let cut = self.drives.power.is_cut();
            assert!(cut || report.lost_stripes == 0, "{}: {report:?}", self.now);
            assert!(cut || report.lost_batches == 0, "{}: {report:?}", self.now);
            assert!(cut || report.inconsistent_stripes == 0, "{}: {report:?}", self.now);
        }
    }

    fn rebuild_some(&self, drive: u64) {
        let meta = self.meta();
        let name = format!("d{}", 1 + drive / 4 % self.setup.drives as u64);
        let which = (drive.is_multiple_of(4)).then_some(name.as_str());
        let done = meta.pool().rebuild(&**meta, which, &Control::default());
        if let Some(report) = self.expect(done.or_else(forgive_default)) {
            let cut = self.drives.power.is_cut();
            assert!(cut || report.lost_stripes == 0, "{}: {report:?}", self.now);
        }
    }

    /// A new drive takes a place: that of one that is lost if there is one.
    fn replace_some(&mut self, drive: u64) {
        let lost = self.drives.lost();
        let place = lost.iter().nth(drive as usize % lost.len().max(1)).copied();
        let place = place.unwrap_or((drive % self.setup.drives as u64) as usize);
        if !self.drives.busy.is_empty() || self.full {
            return;
        }
        let fresh = self.drives.make(place);
        let shared: Arc<dyn Drive> = Arc::new(fresh.drive.clone());
        let (meta, name) = (Arc::clone(self.meta()), format!("d{}", place + 1));
        let done = meta.pool().replace(&*meta, &name, &shared, &holder(), &Control::default());
        let begun = done.as_ref().is_err_and(|error| !error.is(&codes::POOL_REPAIRING));
        let whole = done.as_ref().is_ok_and(dwk_pool::RebuildReport::is_complete);
        let done = self.expect(done.map(drop).or_else(forgive));
        if done.is_none() && !begun {
            return;
        }
        self.drives.places[place].insert(0, fresh);
        self.drives.earlier[place] = None;
        let cut = self.drives.power.is_cut();
        if whole && !cut {
            // What the old one had is of no interest any more.
            let retired = meta.pool().roster().named(&format!("{name}.old")).is_err();
            if retired {
                self.drives.places[place].truncate(1);
                self.gone.remove(&place);
                self.drives.sick.remove(&place);
                self.drives.unseen.remove(&place);
                self.drives.behind.insert(place);
                return;
            }
        }
        self.drives.busy.insert(place);
        self.drives.behind.insert(place);
    }
}

/// Another repair goes on by itself.
fn forgive(error: dwk_base::Error) -> Result<()> {
    if error.is(&codes::POOL_REPAIRING) { Ok(()) } else { Err(error) }
}

fn forgive_default<T: Default>(error: dwk_base::Error) -> Result<T> {
    if error.is(&codes::POOL_REPAIRING) { Ok(T::default()) } else { Err(error) }
}
