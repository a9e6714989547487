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
