//! Encoding and decoding of one stripe.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use dwk_base::{Error, Result, codes};

use crate::decode::{self, Recipe};
use crate::kernel::{self, Shape, Transform};
use crate::matrix::{self, Matrix};
use crate::set::Set;
use crate::shared::{Source, Target};
use crate::slot::{Readable, Shard, SharedShard, Slot, Writable};
use crate::spec::{CodeSpec, matrix_id};

/// Loss patterns whose matrices are kept, per code.
const PLANS_MAX: usize = 64;

/// Bytes of each shard handled at a time where the same data is read in several passes.
const PASS_BYTES: usize = 8 << 10;

/// An erasure code: immutable, cheap to clone, safe to share between threads.
///
/// Shards `0..k` are the data, shards `k..k+m` the parity. All shards of a stripe have one length.
///
/// ```
/// use dwk_erasure::{Code, CodeSpec, Shard};
/// let code = Code::new(&CodeSpec::ReedSolomon { k: 2, m: 2 })?;
/// let (a, b) = ([1u8, 2, 3], [4u8, 5, 6]);
/// let (mut p, mut q) = ([0u8; 3], [0u8; 3]);
/// code.encode(&[&a, &b], &mut [&mut p, &mut q])?;
///
/// let (mut lost_a, mut lost_b) = ([0u8; 3], [0u8; 3]);
/// let mut shards = [
///     Shard::Lost(&mut lost_a),
///     Shard::Lost(&mut lost_b),
///     Shard::Present(&p),
///     Shard::Present(&q),
/// ];
/// code.reconstruct(&mut shards, &[0, 1])?;
/// assert_eq!((lost_a, lost_b), (a, b));
/// # Ok::<(), dwk_base::Error>(())
/// ```
#[derive(Clone)]
pub struct Code(Arc<Inner>);

struct Inner {
    spec: CodeSpec,
    matrix_id: u32,
    parity: Matrix,
    parts: Vec<Part>,
    plans: RwLock<Plans>,
}

/// Consecutive parities from consecutive data shards.
struct Part {
    data: Range<usize>,
    parity: Range<usize>,
    transform: Transform,
}

/// How to get the wanted shards of one loss pattern.
struct Plan {
    present: Set,
    wanted: Set,
    steps: Vec<Step>,
}

struct Step {
    sources: Set,
    targets: Set,
    transform: Transform,
}

#[derive(Default)]
struct Plans {
    kept: Vec<Arc<Plan>>,
    /// The next one to be replaced.
    next: usize,
}

impl Code {
    /// The code with the matrix that new stripes get.
    ///
    /// # Errors
    /// `geometry.invalid` if there is no such code (no data, no parity, more than 255 shards); `store.option` if
    /// the environment variable `DWKERNEL_ERASURE_KERNEL` names a kernel that this processor cannot run.
    pub fn new(spec: &CodeSpec) -> Result<Self> {
        Self::from_matrix_id(spec, spec.matrix_id())
    }

    /// The code with the matrix that a stored stripe names, so that it can be decoded.
    ///
    /// # Errors
    /// `geometry.invalid` and `store.option` as for [`Code::new`]; `format.newer` if this version knows no such matrix
    /// for this code.
    pub fn from_matrix_id(spec: &CodeSpec, matrix_id: u32) -> Result<Self> {
        spec.check()?;
        kernel::check()?;
        let parity = spec.parity_matrix(matrix_id).ok_or_else(|| {
            Error::new(&codes::FORMAT_NEWER, format!("no matrix {matrix_id} is known for {spec}"))
                .with("matrix_id", matrix_id)
        })?;
        let parts = parts(spec, matrix_id, &parity);
        let plans = RwLock::default();
        Ok(Self(Arc::new(Inner { spec: *spec, matrix_id, parity, parts, plans })))
    }

    /// What it was made from.
    pub fn spec(&self) -> &CodeSpec {
        &self.0.spec
    }

    /// Data shards.
    pub fn k(&self) -> usize {
        self.0.parity.columns
    }

    /// Parity shards.
    pub fn m(&self) -> usize {
        self.0.parity.rows
    }

    /// All shards of a stripe: `k + m`.
    pub fn shards(&self) -> usize {
        self.k() + self.m()
    }

    /// Which matrix it is, as stored with the stripe: see [`matrix_id`].
    pub fn matrix_id(&self) -> u32 {
        self.0.matrix_id
    }

    /// Computes the `m` parities of `k` data shards into the caller's buffers.
    ///
    /// # Errors
    /// `buffer.length` if there are not `k` and `m` buffers of one length.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<()> {
        self.encode_shared(Source::all(data), Target::all(parity))
    }

    /// As [`Code::encode`], for memory that others may use meanwhile.
    ///
    /// # Errors
    /// As for [`Code::encode`].
    pub fn encode_shared(&self, data: &[Source<'_>], parity: &mut [Target<'_>]) -> Result<()> {
        self.check_count("data", data.len(), self.k())?;
        self.check_count("parity", parity.len(), self.m())?;
        // A code of one part looks at the lengths itself.
        if let [part] = &self.0.parts[..]
            && part.transform.try_apply(data, parity, false)
        {
            return Ok(());
        }
        let length = data[0].len();
        check_lengths(length, data.iter().map(Source::len))?;
        check_lengths(length, parity.iter().map(Target::len))?;
        self.encode_parts(data, parity, 0..length);
        Ok(())
    }

    fn encode_parts(&self, data: &[Source<'_>], parity: &mut [Target<'_>], range: Range<usize>) {
        if let [part] = &self.0.parts[..] {
            return part.transform.apply(data, parity, false);
        }
        for start in range.clone().step_by(PASS_BYTES) {
            let pass = start..range.end.min(start + PASS_BYTES);
            for part in &self.0.parts {
                let sources: Vec<Source<'_>> =
                    data[part.data.clone()].iter().map(|shard| shard.part(pass.clone())).collect();
                let mut targets: Vec<Target<'_>> = parity[part.parity.clone()]
                    .iter_mut()
                    .map(|shard| shard.part(pass.clone()))
                    .collect();
                part.transform.apply(&sources, &mut targets, false);
            }
        }
    }

    /// Fills the buffers of the `wanted` shards from those that are present.
    ///
    /// `shards` has an entry for each of the `k + m` shards. Only wanted buffers are written; the content
    /// of lost ones is never read. A shard that is wanted and present is left as it is. The matrix of a
    /// loss pattern is kept for the next stripe.
    ///
    /// # Errors
    /// `erasure.too_many_lost` if the present shards do not determine a wanted one (nothing is written);
    /// `buffer.length` if the number of shards or a length is wrong, or a wanted shard has no buffer.
    pub fn reconstruct(&self, shards: &mut [Shard<'_>], wanted: &[usize]) -> Result<()> {
        self.reconstruct_slots(shards, wanted)
    }

    /// As [`Code::reconstruct`], for memory that others may use meanwhile.
    ///
    /// # Errors
    /// As for [`Code::reconstruct`].
    pub fn reconstruct_shared(
        &self,
        shards: &mut [SharedShard<'_>],
        wanted: &[usize],
    ) -> Result<()> {
        self.reconstruct_slots(shards, wanted)
    }

    fn reconstruct_slots<S: Readable, T: Writable>(
        &self,
        shards: &mut [Slot<S, T>],
        wanted: &[usize],
    ) -> Result<()> {
        self.check_count("shards", shards.len(), self.shards())?;
        let mut length = None;
        let mut present = Set::default();
        for (index, shard) in shards.iter().enumerate() {
            if let Slot::Present(bytes) = shard {
                present.insert(index);
                let bytes = bytes.source();
                check_lengths(*length.get_or_insert(bytes.len()), [bytes.len()])?;
            }
        }
        let mut missing = Set::default();
        for &index in wanted {
            match shards.get_mut(index) {
                Some(Slot::Present(_)) => {}
                Some(Slot::Lost(buffer)) => {
                    let buffer = buffer.target();
                    check_lengths(*length.get_or_insert(buffer.len()), [buffer.len()])?;
                    missing.insert(index);
                }
                _ => return Err(no_buffer(index)),
            }
        }
        if missing == Set::default() {
            return Ok(());
        }
        for step in &self.plan(&present, &missing)?.steps {
            let mut sources = Vec::with_capacity(step.transform.matrix.columns);
            let mut targets = Vec::with_capacity(step.transform.matrix.rows);
            for (index, shard) in shards.iter_mut().enumerate() {
                match shard {
                    Slot::Present(bytes) if step.sources.has(index) => sources.push(bytes.source()),
                    Slot::Lost(buffer) if step.targets.has(index) => targets.push(buffer.target()),
                    _ => {}
                }
            }
            step.transform.apply(&sources, &mut targets, false);
        }
        Ok(())
    }

    /// The shards that must be read to get the `wanted` ones when `lost` cannot be read: those wanted
    /// that are not lost, and what the others are computed from (of an lrc, the local group if that is
    /// enough; of rs, `k` shards). In ascending order.
    ///
    /// # Errors
    /// `erasure.too_many_lost` if they cannot be had; `buffer.length` if an index is no shard's.
    pub fn read_set(&self, lost: &[usize], wanted: &[usize]) -> Result<Vec<usize>> {
        let n = self.shards();
        let (Some(lost), Some(wanted)) = (Set::checked(lost, n), Set::checked(wanted, n)) else {
            return Err(Error::new(
                &codes::BUFFER_LENGTH,
                format!("a shard index is not below {n}"),
            ));
        };
        let mut read = wanted.without(&lost);
        let missing = wanted.without(&read);
        if missing != Set::default() {
            for step in &self.plan(&lost.rest(n), &missing)?.steps {
                read.add(&step.sources);
            }
        }
        Ok(read.iter().collect())
    }

    /// True if the parity is that of the data.
    ///
    /// # Errors
    /// `buffer.length` if there are not `k + m` shards of one length.
    pub fn verify(&self, shards: &[&[u8]]) -> Result<bool> {
        self.verify_shared(Source::all(shards))
    }

    /// As [`Code::verify`], for memory that others may use meanwhile.
    ///
    /// # Errors
    /// As for [`Code::verify`].
    pub fn verify_shared(&self, shards: &[Source<'_>]) -> Result<bool> {
        self.check_count("shards", shards.len(), self.shards())?;
        let length = shards[0].len();
        check_lengths(length, shards.iter().map(Source::len))?;
        let (data, parity) = shards.split_at(self.k());
        let width = length.min(PASS_BYTES);
        let mut space = vec![0u8; (self.m() + 1) * width];
        let (theirs, ours) = space.split_at_mut(width);
        for start in (0..length).step_by(PASS_BYTES) {
            let pass = start..length.min(start + PASS_BYTES);
            let sources: Vec<Source<'_>> =
                data.iter().map(|shard| shard.part(pass.clone())).collect();
            let mut targets: Vec<Target<'_>> =
                ours.chunks_mut(width).map(|space| (&mut space[..pass.len()]).into()).collect();
            self.encode_parts(&sources, &mut targets, 0..pass.len());
            let theirs = &mut theirs[..pass.len()];
            for (ours, shard) in ours.chunks(width).zip(parity) {
                shard.read(start, theirs);
                if ours[..pass.len()] != *theirs {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Brings the `m` parities up to date after data shard `row` changed from `old` to `new`.
    ///
    /// # Errors
    /// `buffer.length` if `row` is not below `k`, or there are not `m` parities of one length with both.
    pub fn update(
        &self,
        row: usize,
        old: &[u8],
        new: &[u8],
        parity: &mut [&mut [u8]],
    ) -> Result<()> {
        self.update_shared(row, old.into(), new.into(), Target::all(parity))
    }

    /// As [`Code::update`], for memory that others may use meanwhile.
    ///
    /// # Errors
    /// As for [`Code::update`].
    pub fn update_shared(
        &self,
        row: usize,
        old: Source<'_>,
        new: Source<'_>,
        parity: &mut [Target<'_>],
    ) -> Result<()> {
        if row >= self.k() {
            let why = format!("data shard {row} is not below {}", self.k());
            return Err(Error::new(&codes::BUFFER_LENGTH, why));
        }
        self.check_count("parity", parity.len(), self.m())?;
        check_lengths(old.len(), [new.len()])?;
        check_lengths(old.len(), parity.iter().map(Target::len))?;
        let column: Vec<u8> = (0..self.m()).map(|r| self.0.parity.at(r, row)).collect();
        let touched: Vec<u8> = column.iter().copied().filter(|&factor| factor != 0).collect();
        let mut targets: Vec<Target<'_>> = parity
            .iter_mut()
            .zip(&column)
            .filter(|&(_, &factor)| factor != 0)
            .map(|(shard, _)| shard.reborrow())
            .collect();
        let delta = Matrix::from_fn(touched.len(), 2, |r, _| touched[r]);
        Transform::new(delta, Shape::Rows).apply(&[old, new], &mut targets, true);
        Ok(())
    }

    /// True if all data can be had without the `lost` shards. An index that is no shard's gives false.
    pub fn tolerates(&self, lost: &[usize]) -> bool {
        Set::checked(lost, self.shards()).is_some_and(|lost| {
            // Every code survives as many as it promises: only beyond is there anything to compute.
            lost.len() <= self.0.spec.tolerance()
                || decode::complete(&self.0.parity, &lost.rest(self.shards()))
        })
    }

    /// The factor of data shard `column` in parity `row`; `None` outside the matrix.
    pub fn coefficient(&self, row: usize, column: usize) -> Option<u8> {
        (row < self.m() && column < self.k()).then(|| self.0.parity.at(row, column))
    }

    fn plan(&self, present: &Set, wanted: &Set) -> Result<Arc<Plan>> {
        let plans = self.0.plans.read().unwrap_or_else(PoisonError::into_inner);
        let known = |plan: &&Arc<Plan>| plan.present == *present && plan.wanted == *wanted;
        if let Some(plan) = plans.kept.iter().find(known) {
            return Ok(plan.clone());
        }
        drop(plans);
        let recipes = decode::recipes(&self.0.parity, present, wanted).map_err(|index| {
            let why = format!(
                "shard {index} of {} cannot be rebuilt from the {} that are there",
                self.0.spec,
                present.len()
            );
            Error::new(&codes::ERASURE_TOO_MANY_LOST, why)
        })?;
        let steps = recipes.into_iter().map(Step::from).collect();
        let plan = Arc::new(Plan { present: *present, wanted: *wanted, steps });
        let mut plans = self.0.plans.write().unwrap_or_else(PoisonError::into_inner);
        plans.keep(plan.clone());
        Ok(plan)
    }

    #[inline]
    fn check_count(&self, what: &str, given: usize, needed: usize) -> Result<()> {
        if given == needed { Ok(()) } else { Err(self.wrong_count(what, given, needed)) }
    }

    #[cold]
    fn wrong_count(&self, what: &str, given: usize, needed: usize) -> Error {
        let why = format!("{} needs {needed} {what} buffers, not {given}", self.0.spec);
        Error::new(&codes::BUFFER_LENGTH, why)
    }
}

impl Plans {
    fn keep(&mut self, plan: Arc<Plan>) {
        if self.kept.len() < PLANS_MAX {
            self.kept.push(plan);
        } else {
            self.kept[self.next] = plan;
            self.next = (self.next + 1) % PLANS_MAX;
        }
    }
}

impl From<Recipe> for Step {
    fn from(recipe: Recipe) -> Self {
        let transform = Transform::new(recipe.matrix, Shape::Rows);
        Self { sources: recipe.sources, targets: recipe.targets, transform }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { spec, matrix_id, .. } = &*self.0;
        f.debug_struct("Code").field("spec", spec).field("matrix_id", matrix_id).finish()
    }
}

/// The transforms that make all parities; an lrc's local ones are sums of their own groups.
fn parts(spec: &CodeSpec, id: u32, parity: &Matrix) -> Vec<Part> {
    let (k, m) = (parity.columns, parity.rows);
    if m == 0 {
        return Vec::new();
    }
    let CodeSpec::Lrc { l, g, .. } = *spec else {
        let shape = match id {
            matrix_id::PQ_LINUX_MD => Shape::PlusQ,
            matrix_id::FOUR_POINT if m >= 3 => Shape::FourPoint,
            _ => Shape::Rows,
        };
        let transform = Transform::new(parity.clone(), shape);
        return vec![Part { data: 0..k, parity: 0..m, transform }];
    };
    let group = |i: usize| {
        let members = (0..k).filter(|&j| matrix::group_of(j, k, l) == i);
        let first = members.clone().next().unwrap_or(0);
        let data = first..first + members.count();
        let transform = Transform::new(matrix::ones(1, data.len()), Shape::Xor);
        Part { data, parity: i..i + 1, transform }
    };
    let mut parts: Vec<Part> = (0..l).map(group).collect();
    if g > 0 {
        let global = Matrix::from_fn(g, k, |r, j| parity.at(l + r, j));
        let transform = Transform::new(global, Shape::Rows);
        parts.push(Part { data: 0..k, parity: l..l + g, transform });
    }
    parts
}

fn check_lengths(length: usize, others: impl IntoIterator<Item = usize>) -> Result<()> {
    match others.into_iter().find(|&other| other != length) {
        None => Ok(()),
        Some(other) => {
            let why = format!("the shards of a stripe have one length, not {length} and {other}");
            Err(Error::new(&codes::BUFFER_LENGTH, why))
        }
    }
}

fn no_buffer(index: usize) -> Error {
    let why = format!("shard {index} is wanted, but no buffer was given for it");
    Error::new(&codes::BUFFER_LENGTH, why)
}
