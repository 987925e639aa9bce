//! Which shards give the wanted ones back, and with which factors.

use crate::gf;
use crate::matrix::Matrix;
use crate::set::Set;

/// Wanted shards that are computed from the same sources.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) sources: Set,
    pub(crate) targets: Set,
    /// A row per target, a column per source, both in ascending order.
    pub(crate) matrix: Matrix,
}

/// Recipes for the `wanted` shards from the `present` ones, or the first one that cannot be had.
///
/// Only lost × lost equations are solved, those of parities with a lower index first: in a code with
/// local groups a group's own parity is used where it is enough.
pub(crate) fn recipes(parity: &Matrix, present: &Set, wanted: &Set) -> Result<Vec<Recipe>, usize> {
    let solved = Solved::new(parity, present);
    let mut by_sources: Vec<(Set, Vec<Sum>)> = Vec::new();
    for target in wanted.iter() {
        let factors = solved.factors(target).ok_or(target)?;
        let used: Set = (0..factors.len()).filter(|&j| factors[j] != 0).collect();
        match by_sources.iter_mut().find(|(sources, _)| *sources == used) {
            Some((_, rows)) => rows.push((target, factors)),
            None => by_sources.push((used, vec![(target, factors)])),
        }
    }
    Ok(by_sources.into_iter().map(|(sources, rows)| recipe(sources, &rows)).collect())
}

/// True if all data can be computed from the `present` shards.
pub(crate) fn complete(parity: &Matrix, present: &Set) -> bool {
    let solved = Solved::new(parity, present);
    solved.lost.iter().all(|&j| solved.factors(j).is_some())
}

/// A wanted shard and the factor of every shard in the sum that gives it.
type Sum = (usize, Vec<u8>);

fn recipe(sources: Set, rows: &[Sum]) -> Recipe {
    let columns: Vec<usize> = sources.iter().collect();
    let matrix = Matrix::from_fn(rows.len(), columns.len(), |r, c| rows[r].1[columns[c]]);
    Recipe { sources, targets: rows.iter().map(|&(target, _)| target).collect(), matrix }
}

/// The parity equations of the present parities, solved for the lost data.
struct Solved<'a> {
    parity: &'a Matrix,
    /// Lost data shards: the unknowns, one column each.
    lost: Vec<usize>,
    /// Present parities, by row: the equations.
    equations: Vec<usize>,
    /// Unknowns, then the combination of equations that each row has become.
    system: Matrix,
    /// The row that was solved for each unknown.
    pivots: Vec<Option<usize>>,
}

impl<'a> Solved<'a> {
    fn new(parity: &'a Matrix, present: &Set) -> Self {
        let k = parity.columns;
        let lost: Vec<usize> = (0..k).filter(|&j| !present.has(j)).collect();
        let equations: Vec<usize> = (0..parity.rows).filter(|&p| present.has(k + p)).collect();
        let equations = if lost.is_empty() { Vec::new() } else { equations };
        let system = Matrix::from_fn(equations.len(), lost.len() + equations.len(), |r, c| {
            if c < lost.len() {
                parity.at(equations[r], lost[c])
            } else {
                u8::from(c - lost.len() == r)
            }
        });
        let pivots = vec![None; lost.len()];
        let mut solved = Self { parity, lost, equations, system, pivots };
        solved.eliminate();
        solved
    }

    /// Gauss and Jordan, without swapping rows: the first unused equation that has the unknown.
    fn eliminate(&mut self) {
        let rows = self.system.rows;
        let mut used = vec![false; rows];
        for unknown in 0..self.lost.len() {
            let pivot = (0..rows).find(|&r| !used[r] && self.system.at(r, unknown) != 0);
            let Some(pivot) = pivot else { continue };
            used[pivot] = true;
            self.pivots[unknown] = Some(pivot);
            self.system.scale_row(pivot, gf::inverse(self.system.at(pivot, unknown)));
            for row in (0..rows).filter(|&row| row != pivot) {
                let factor = self.system.at(row, unknown);
                if factor != 0 {
                    self.system.add_row(row, pivot, factor);
                }
            }
        }
    }

    /// The factor of every shard in the sum that gives shard `target`; `None` if it cannot be had.
    ///
    /// A lost parity may be there although the lost data that it sums is not: where another one has their
    /// sum in it.
    fn factors(&self, target: usize) -> Option<Vec<u8>> {
        let k = self.parity.columns;
        let mut factors = vec![0; k + self.parity.rows];
        if target < k {
            factors[target] = 1;
        } else {
            factors[..k].copy_from_slice(self.parity.row(target - k));
        }
        // What it has of the lost shards must be a sum of solved equations.
        let mut left: Vec<u8> = self.lost.iter().map(|&j| factors[j]).collect();
        for unknown in 0..left.len() {
            if let (scale @ 1.., Some(row)) = (left[unknown], self.pivots[unknown]) {
                let (unknowns, combination) = self.system.row(row).split_at(left.len());
                let times = &gf::table()[scale as usize];
                left.iter_mut().zip(unknowns).for_each(|(x, &cell)| *x ^= times[cell as usize]);
                self.add_equations(combination, scale, &mut factors);
            }
        }
        if left.iter().any(|&x| x != 0) {
            return None;
        }
        // Of lost shards nothing is left: the equations' parts of them have cancelled out.
        self.lost.iter().for_each(|&j| factors[j] = 0);
        Some(factors)
    }

    /// Adds `scale` times a combination of equations: present parities, and the data in them.
    fn add_equations(&self, combination: &[u8], scale: u8, factors: &mut [u8]) {
        let k = self.parity.columns;
        for (&equation, &factor) in self.equations.iter().zip(combination) {
            let factor = gf::mul(factor, scale);
            if factor == 0 {
                continue;
            }
            factors[k + equation] ^= factor;
            let times = &gf::table()[factor as usize];
            for (j, &cell) in self.parity.row(equation).iter().enumerate() {
                factors[j] ^= times[cell as usize];
            }
        }
    }
}
