//! Sparse matrices in compressed rows: what a bag of words is.

/// A sparse matrix `[rows, columns]`; each row is a sorted list of `(column, value)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Csr {
    columns: usize,
    /// Row `i` is `indices[starts[i]..starts[i + 1]]`; one longer than there are rows.
    starts: Vec<usize>,
    indices: Vec<u32>,
    values: Vec<f64>,
}

impl Csr {
    /// # Panics
    ///
    /// Panics when a row's columns are not strictly increasing and below `columns`.
    pub fn from_rows<R>(columns: usize, rows: impl IntoIterator<Item = R>) -> Self
    where
        R: IntoIterator<Item = (u32, f64)>,
    {
        let mut matrix = Self { columns, starts: vec![0], indices: vec![], values: vec![] };
        for row in rows {
            let start = matrix.indices.len();
            for (column, value) in row {
                let sorted = matrix.indices[start..].last().is_none_or(|last| *last < column);
                assert!(sorted && (column as usize) < columns, "column {column} of {columns}");
                matrix.indices.push(column);
                matrix.values.push(value);
            }
            matrix.starts.push(matrix.indices.len());
        }
        matrix
    }

    pub fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Number of stored values.
    pub fn stored(&self) -> usize {
        self.values.len()
    }

    /// The stored `(column, value)` pairs of one row, columns increasing.
    pub fn row(&self, row: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let range = self.starts[row]..self.starts[row + 1];
        let indices = self.indices[range.clone()].iter().map(|column| *column as usize);
        indices.zip(self.values[range].iter().copied())
    }

    /// `[columns, rows]`: row `j` of the result is column `j` of `self`.
    pub fn transpose(&self) -> Self {
        let mut starts = vec![0; self.columns + 1];
        for column in &self.indices {
            starts[*column as usize + 1] += 1;
        }
        for column in 0..self.columns {
            starts[column + 1] += starts[column];
        }
        let mut next = starts.clone();
        let mut indices = vec![0; self.stored()];
        let mut values = vec![0.0; self.stored()];
        for row in 0..self.rows() {
            for (column, value) in self.row(row) {
                let place = next[column];
                indices[place] = u32::try_from(row).expect("fewer than 2^32 rows");
                values[place] = value;
                next[column] += 1;
            }
        }
        Self { columns: self.rows(), starts, indices, values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposes() {
        let matrix = Csr::from_rows(3, [vec![(0, 1.0), (2, 2.0)], vec![], vec![(2, 3.0)]]);
        let expected = Csr::from_rows(3, [vec![(0, 1.0)], vec![], vec![(0, 2.0), (2, 3.0)]]);
        assert_eq!(matrix.transpose(), expected);
        assert_eq!(expected.transpose(), matrix);
    }

    #[test]
    #[should_panic(expected = "column 1 of 3")]
    fn rejects_unsorted_columns() {
        Csr::from_rows(3, [vec![(2, 1.0), (1, 1.0)]]);
    }
}
