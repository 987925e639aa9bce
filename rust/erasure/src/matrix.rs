//! Small dense matrices over GF(2⁸), and the parity matrices that have an id on disk.
//!
//! `docs/format/matrices.md` draws them and proves that they are MDS.

use crate::gf;

/// Rows × columns, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    cells: Vec<u8>,
}

impl Matrix {
    pub(crate) fn zero(rows: usize, columns: usize) -> Self {
        Self { rows, columns, cells: vec![0; rows * columns] }
    }

    pub(crate) fn from_fn(rows: usize, columns: usize, f: impl Fn(usize, usize) -> u8) -> Self {
        let mut matrix = Self::zero(rows, columns);
        for r in 0..rows {
            for c in 0..columns {
                matrix.set(r, c, f(r, c));
            }
        }
        matrix
    }

    pub(crate) fn at(&self, row: usize, column: usize) -> u8 {
        self.cells[row * self.columns + column]
    }

    pub(crate) fn set(&mut self, row: usize, column: usize, value: u8) {
        self.cells[row * self.columns + column] = value;
    }

    pub(crate) fn row(&self, row: usize) -> &[u8] {
        &self.cells[row * self.columns..(row + 1) * self.columns]
    }

    /// `row target += factor · row source`.
    pub(crate) fn add_row(&mut self, target: usize, source: usize, factor: u8) {
        let times = &gf::table()[factor as usize];
        for c in 0..self.columns {
            let value = times[self.at(source, c) as usize];
            self.cells[target * self.columns + c] ^= value;
        }
    }

    pub(crate) fn scale_row(&mut self, row: usize, factor: u8) {
        for c in 0..self.columns {
            self.set(row, c, gf::mul(self.at(row, c), factor));
        }
    }

    #[cfg(test)]
    pub(crate) fn swap_rows(&mut self, a: usize, b: usize) {
        for c in 0..self.columns {
            self.cells.swap(a * self.columns + c, b * self.columns + c);
        }
    }
}

/// Every cell 1: copies (k = 1) and XOR (m = 1).
pub(crate) fn ones(m: usize, k: usize) -> Matrix {
    Matrix::from_fn(m, k, |_, _| 1)
}

/// P and Q of Linux md: a row of ones and a row of the powers of two. At most 255 columns.
pub(crate) fn linux_md(k: usize) -> Matrix {
    Matrix::from_fn(2, k, |row, j| if row == 0 { 1 } else { gf::power_of_two(j) })
}

/// The columns that a four-point matrix can have: the data points 4..=255.
pub(crate) const FOUR_POINT_MAX: usize = 252;

/// Rows `0..m` (m ≤ 4) of the code that the fused four-point transform computes: a Cauchy matrix over
/// the parity points 0..4 and the data points 4.., its columns scaled. At most [`FOUR_POINT_MAX`] columns.
pub(crate) fn four_point(m: usize, k: usize) -> Matrix {
    // With V = {0,1,2,3} and s(X) the product of X+v over V, the degree-3 polynomial that is 1 at x
    // and 0 on the rest of x+V is (s(X)+s(x)) / (6·(X+x)); at a point y of V, s(y) = 0.
    let scale = gf::inverse(6);
    Matrix::from_fn(m, k, |y, j| {
        let (y, x) = (y as u8, j as u8 + 4);
        let s = (0..4).fold(1, |s, v| gf::mul(s, x ^ v));
        gf::mul(gf::mul(s, scale), gf::inverse(x ^ y))
    })
}

/// A Cauchy matrix (data points 0..k, parity points 255, 254, …) whose columns are scaled so that the
/// first row is ones, and whose other rows are scaled so that the first column is ones.
/// `m + k ≤ 256`.
pub(crate) fn cauchy(m: usize, k: usize) -> Matrix {
    let cell = |i: usize, j: usize| gf::inverse((255 - i as u8) ^ j as u8);
    Matrix::from_fn(m, k, |i, j| {
        let column = gf::mul(cell(i, j), gf::inverse(cell(0, j)));
        let first = gf::mul(cell(i, 0), gf::inverse(cell(0, 0)));
        gf::mul(column, gf::inverse(first))
    })
}

/// The pyramid code of Cauchy `k+(g+1)`: its first row, all ones, cut into one row per local group,
/// then its other rows. Group `i` holds the data shards that [`group_of`] puts into it.
pub(crate) fn pyramid(k: usize, l: usize, g: usize) -> Matrix {
    let global = cauchy(g + 1, k);
    Matrix::from_fn(l + g, k, |row, j| match row {
        row if row >= l => global.at(row - l + 1, j),
        row => u8::from(group_of(j, k, l) == row),
    })
}

/// The local group of data shard `j`: runs of equal length, the first `k mod l` one longer.
pub(crate) fn group_of(j: usize, k: usize, l: usize) -> usize {
    let (short, longer) = (k / l, k % l);
    let edge = longer * (short + 1);
    if j < edge { j / (short + 1) } else { longer + (j - edge) / short }
}

/// The parity rows of Hamming's code with an overall parity: data shard `j` has the position of the
/// j-th integer that is no power of two; check `i` sums the positions with bit `i`; the last check
/// makes the sum of everything zero.
pub(crate) fn hamming(k: usize) -> Matrix {
    let positions: Vec<usize> = (3usize..).filter(|p| !p.is_power_of_two()).take(k).collect();
    let checks = hamming_checks(k);
    Matrix::from_fn(checks, k, |row, j| {
        let bits = positions[j].count_ones() as usize;
        // The overall parity also covers the checks, each of which repeats this data shard.
        if row + 1 == checks {
            u8::from(bits.is_multiple_of(2))
        } else {
            (positions[j] >> row & 1) as u8
        }
    })
}

/// What is answered for codes that are refused for their size anyway.
const SHARDS_BEYOND: usize = 256;

/// Check shards of Hamming's code for `k` data shards, with the overall parity.
pub(crate) fn hamming_checks(k: usize) -> usize {
    let inner = (2..20).find(|r| (1usize << r) > k + r);
    inner.map_or(SHARDS_BEYOND, |checks| checks + 1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn regular(matrix: &Matrix, rows: &[usize], columns: &[usize]) -> bool {
        let n = rows.len();
        let mut a = Matrix::from_fn(n, n, |r, c| matrix.at(rows[r], columns[c]));
        for i in 0..n {
            let Some(pivot) = (i..n).find(|&r| a.at(r, i) != 0) else { return false };
            a.swap_rows(i, pivot);
            for r in i + 1..n {
                let factor = gf::mul(a.at(r, i), gf::inverse(a.at(i, i)));
                a.add_row(r, i, factor);
            }
        }
        true
    }

    /// Calls `f` with every subset of `0..n` of `size` elements.
    pub(crate) fn subsets(n: usize, size: usize, f: &mut impl FnMut(&[usize])) {
        fn go(
            from: usize,
            n: usize,
            left: usize,
            set: &mut Vec<usize>,
            f: &mut impl FnMut(&[usize]),
        ) {
            if left == 0 {
                return f(set);
            }
            for x in from..=n.saturating_sub(left) {
                set.push(x);
                go(x + 1, n, left - 1, set, f);
                set.pop();
            }
        }
        if size <= n {
            go(0, n, size, &mut Vec::new(), f);
        }
    }

    fn mds(matrix: &Matrix) -> bool {
        let mut all = true;
        for size in 1..=matrix.rows.min(matrix.columns) {
            subsets(matrix.rows, size, &mut |rows| {
                subsets(matrix.columns, size, &mut |columns| all &= regular(matrix, rows, columns));
            });
        }
        all
    }

    #[test]
    fn every_square_submatrix_is_regular() {
        for k in 1..=20 {
            assert!(mds(&linux_md(k)), "P+Q {k}");
            assert!(mds(&four_point(4, k)), "four-point {k}");
            assert!(mds(&cauchy(3, k)), "cauchy {k}+3");
        }
        for (k, m) in [(10, 5), (8, 6), (7, 7), (6, 8), (1, 9), (30, 4)] {
            assert!(mds(&cauchy(m, k)), "cauchy {k}+{m}");
        }
        assert!(mds(&linux_md(253)), "P+Q 253");
        assert!(mds(&four_point(2, FOUR_POINT_MAX)), "two rows of four-point 252");
    }

    #[test]
    fn largest_matrices_have_no_zero() {
        for matrix in
            [four_point(4, FOUR_POINT_MAX), cauchy(5, 250), cauchy(127, 128), cauchy(254, 1)]
        {
            assert!((0..matrix.rows).all(|r| matrix.row(r).iter().all(|&x| x != 0)));
        }
        assert!(cauchy(20, 60).row(0).iter().all(|&x| x == 1));
    }

    #[test]
    fn groups_are_even_runs() {
        let groups = |k, l| (0..k).map(|j| group_of(j, k, l)).collect::<Vec<_>>();
        assert_eq!(groups(6, 2), [0, 0, 0, 1, 1, 1]);
        assert_eq!(groups(7, 3), [0, 0, 0, 1, 1, 2, 2]);
        assert_eq!(groups(3, 3), [0, 1, 2]);
    }
}
