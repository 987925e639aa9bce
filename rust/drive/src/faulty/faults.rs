//! What goes wrong, when, and how often.

use std::time::Duration;

use dwk_base::{Code, Random};

/// A call of the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "named as the port's methods, which say it")]
pub enum Operation {
    Put,
    Read,
    List,
    Delete,
    Stat,
    Capacity,
    Sync,
    ReadSuperblock,
    WriteSuperblock,
    Lock,
    CreateLog,
    HoldLog,
    WriteLog,
    SyncLog,
    ReadLog,
    ListLogs,
    DeleteLog,
}

impl Operation {
    /// True if it changes or syncs something: a step of [`super::Power`].
    pub const fn mutates(self) -> bool {
        matches!(
            self,
            Self::Put
                | Self::Delete
                | Self::Sync
                | Self::WriteSuperblock
                | Self::CreateLog
                | Self::WriteLog
                | Self::SyncLog
                | Self::DeleteLog
        )
    }
}

/// What happens to a call.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// It fails with this code and does nothing. A sync that fails also loses some of what was not
    /// synced, for good, even if a later sync succeeds; unless it is the process that could not try it.
    Error(&'static Code),
    /// It takes longer by this.
    Delay(Duration),
    /// It waits until [`super::FaultyDrive::release`].
    Hang,
    /// Its answer is found, and waits until [`super::FaultyDrive::release`]: of [`Operation::Capacity`].
    Withhold,
    /// One bit of what it reads is wrong.
    Flip,
}

/// A rule: which calls meet which effect.
///
/// ```
/// use dwk_base::codes;
/// use dwk_drive::faulty::{Effect, Fault, Operation};
///
/// // The third and fourth put of a shard fail.
/// let fault = Fault::new(Effect::Error(&codes::DRIVE_IO))
///     .on(Operation::Put).named("s/").after(2).times(2);
/// # drop(fault);
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    effect: Effect,
    operations: Vec<Operation>,
    prefix: String,
    after: u64,
    times: u64,
    chance: f64,
}

impl Fault {
    /// Strikes every call, until narrowed.
    pub const fn new(effect: Effect) -> Self {
        Self {
            effect,
            operations: Vec::new(),
            prefix: String::new(),
            after: 0,
            times: u64::MAX,
            chance: 1.0,
        }
    }

    /// Only calls of this kind; may be said several times.
    pub fn on(mut self, operation: Operation) -> Self {
        self.operations.push(operation);
        self
    }

    /// Only names that begin like this.
    pub fn named(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Not the first `calls` that match.
    pub const fn after(mut self, calls: u64) -> Self {
        self.after = calls;
        self
    }

    /// At most this often.
    pub const fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Only with this probability, 0 to 1, by the drive's seed.
    pub const fn chance(mut self, chance: f64) -> Self {
        self.chance = chance;
        self
    }

    pub(super) const fn hangs(&self) -> bool {
        matches!(self.effect, Effect::Hang | Effect::Withhold)
    }

    fn matches(&self, operation: Operation, name: &str) -> bool {
        (self.operations.is_empty() || self.operations.contains(&operation))
            && name.starts_with(&self.prefix)
    }

    /// True if this call is struck; counts it.
    fn strikes(&mut self, operation: Operation, name: &str, random: &dyn Random) -> bool {
        if self.times == 0 || !self.matches(operation, name) {
            return false;
        }
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        let drawn =
            self.chance >= 1.0 || (random.next_u64() as f64 / u64::MAX as f64) < self.chance;
        self.times -= u64::from(drawn);
        drawn
    }
}

/// All that is wrong with a drive.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) rules: Vec<Fault>,
    pub(super) omitted: Vec<&'static str>,
    pub(super) full: bool,
    pub(super) read_only: bool,
    pub(super) vanished: bool,
}

impl Faults {
    /// What strikes this call, in the order in which the rules were given.
    pub(super) fn strike(&mut self, op: Operation, name: &str, random: &dyn Random) -> Vec<Effect> {
        let struck = self.rules.iter_mut().filter_map(|rule| {
            let effect = rule.effect;
            rule.strikes(op, name, random).then_some(effect)
        });
        struck.collect()
    }

    /// True if a call like this might have to wait.
    pub(super) fn may_wait(&self, operation: Operation, name: &str) -> bool {
        self.rules.iter().any(|rule| {
            matches!(rule.effect, Effect::Delay(_) | Effect::Hang)
                && rule.times > 0
                && rule.matches(operation, name)
        })
    }
}
