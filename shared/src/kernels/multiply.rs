//! Products of matrices that lie somewhere in slices.

use gemm::{Parallelism, gemm};

/// A matrix in a slice: element `[i, j]` is at `start + i * row + j * column`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row: usize,
    column: usize,
}

impl<'a> Matrix<'a> {
    /// Row after row, without gaps.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows that begin `stride` elements after each other.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        check(data.len(), rows, columns, stride);
        Self { data, rows, columns, row: stride, column: 1 }
    }

    pub fn transposed(self) -> Self {
        let Self { data, rows, columns, row, column } = self;
        Self { data, rows: columns, columns: rows, row: column, column: row }
    }
}

/// Where a product goes: rows that begin `stride` elements after each other.
pub struct Into<'a> {
    pub data: &'a mut [f32],
    pub stride: usize,
}

/// The whole matrix lies within its slice.
fn check(len: usize, rows: usize, columns: usize, stride: usize) {
    let last = rows.checked_sub(1).and_then(|r| r.checked_mul(stride)?.checked_add(columns));
    assert!(columns <= stride && last.is_none_or(|last| last <= len), "a matrix beyond its slice");
}

/// `into = a · b`, or `into += a · b` if it `adds`. A product that is `shared` is computed by all threads of the pool that
/// runs this, with the same result.
#[expect(unsafe_code, reason = "the kernels take pointers")]
pub fn multiply(into: Into<'_>, a: Matrix<'_>, b: Matrix<'_>, adds: bool, shared: bool) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(k, b.rows, "matrices that do not fit");
    check(into.data.len(), m, n, into.stride);
    let parallelism = if shared { Parallelism::Rayon(0) } else { Parallelism::None };
    let (column, row) = (1, into.stride as isize);
    // SAFETY: all elements of the three matrices lie within their slices, which was checked when they were made and
    // above; `into` is borrowed exclusively, so that it overlaps neither; and `columns <= stride` keeps its rows apart.
    unsafe {
        gemm(
            m,
            n,
            k,
            into.data.as_mut_ptr(),
            column,
            row,
            adds,
            a.data.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.column as isize,
            b.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that add up exactly, so that any order of the additions gives the same.
    fn numbers(count: usize, from: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7 + from) % 11) as f32 - 5.0).collect()
    }

    fn at(m: Matrix<'_>, i: usize, j: usize) -> f32 {
        m.data[i * m.row + j * m.column]
    }

    /// Whole slices, rows with gaps, and both turned around: the gaps keep what they had.
    fn compare(m: usize, n: usize, k: usize, gap: usize, adds: bool, shared: bool) {
        let (a, b) = (numbers((m + 1) * (k + gap), 1), numbers((k + 1) * (n + gap), 2));
        let (a_turned, b_turned) =
            (numbers((k + 1) * (m + gap), 3), numbers((n + 1) * (k + gap), 4));
        let lefts = [
            Matrix::strided(&a, m, k, k + gap),
            Matrix::strided(&a_turned, k, m, m + gap).transposed(),
        ];
        let rights = [
            Matrix::strided(&b, k, n, n + gap),
            Matrix::strided(&b_turned, n, k, k + gap).transposed(),
        ];
        for (a, b) in lefts.iter().flat_map(|a| rights.iter().map(move |b| (*a, *b))) {
            let stride = n + gap;
            let before = numbers(m * stride, 5);
            let mut found = before.clone();
            multiply(Into { data: &mut found, stride }, a, b, adds, shared);
            let mut wanted = before;
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let sum: f32 = (0..k).map(|l| at(a, i, l) * at(b, l, j)).sum();
                let old = if adds { wanted[i * stride + j] } else { 0.0 };
                wanted[i * stride + j] = old + sum;
            }
            assert_eq!(found, wanted, "{m}×{k} · {k}×{n}, gap {gap}, adds {adds}");
        }
    }

    #[test]
    fn products_are_those_of_the_definition() {
        // Miri runs this too, slowly, and cannot watch the threads of a pool.
        let sizes: &[usize] = if cfg!(miri) { &[1, 5] } else { &[1, 2, 3, 8, 17, 33] };
        for &m in sizes {
            for (&n, &k) in sizes.iter().flat_map(|n| sizes.iter().map(move |k| (n, k))) {
                for (gap, adds) in [(0, false), (3, true)] {
                    compare(m, n, k, gap, adds, false);
                    if !cfg!(miri) {
                        compare(m, n, k, gap, adds, true);
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_is_a_matrix_too() {
        for (m, n) in [(0, 2), (2, 0), (0, 0)] {
            compare(m, n, 3, 1, true, false);
        }
        // A sum of no products.
        compare(2, 2, 0, 1, false, false);
        compare(2, 2, 0, 1, true, false);
    }

    #[test]
    #[should_panic(expected = "a matrix beyond its slice")]
    fn a_matrix_beyond_its_slice_is_refused() {
        Matrix::strided(&[0.0; 6], 2, 3, 4);
    }

    #[test]
    #[should_panic(expected = "a matrix beyond its slice")]
    fn rows_that_overlap_are_refused() {
        Matrix::strided(&[0.0; 6], 2, 3, 2);
    }

    #[test]
    #[should_panic(expected = "a matrix beyond its slice")]
    fn a_result_beyond_its_slice_is_refused() {
        let (a, b) = ([1.0; 4], [1.0; 4]);
        let into = Into { data: &mut [0.0; 3], stride: 2 };
        multiply(into, Matrix::new(&a, 2, 2), Matrix::new(&b, 2, 2), false, false);
    }
}
