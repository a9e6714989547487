//! CSV files: numeric columns are features, one column is the label.
//!
//! The first row names the columns. A row that cannot be used (a field that is missing or no number, a
//! row of another length) is left out and counted by reason; which rows those are is the caller's to
//! accept or to refuse.

use std::path::{Path, PathBuf};

use super::{Column, DataError, Dropped, Table, Target, table::integer_bytes};

/// What the label column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelKind {
    /// A class by name.
    #[default]
    Class,
    /// A number to predict.
    Value,
}

/// Fields that stand for nothing.
const MISSING: [&str; 5] = ["", "na", "n/a", "null", "?"];

/// A reader of delimited text: tabs for `.tsv`, else commas.
pub(super) fn reader(path: &Path) -> Result<csv::Reader<std::fs::File>, DataError> {
    let tabs = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("tsv"));
    let delimiter = if tabs { b'\t' } else { b',' };
    let file = std::fs::File::open(path)
        .map_err(|source| DataError::Read { path: path.into(), source })?;
    let mut builder = csv::ReaderBuilder::new();
    builder.delimiter(delimiter).flexible(true).trim(csv::Trim::All);
    Ok(builder.from_reader(file))
}

/// The place of a column by name.
pub(super) fn place(
    path: &Path,
    header: &csv::StringRecord,
    column: &str,
) -> Result<usize, DataError> {
    header.iter().position(|name| name == column).ok_or_else(|| {
        let known: Vec<_> = header.iter().collect();
        content(path, format!("has no column {column:?}; its columns are {}", known.join(", ")))
    })
}

pub(super) fn content(path: &Path, problem: String) -> DataError {
    DataError::Content { path: PathBuf::from(path), problem }
}

/// Reads the file. `features`: the columns to learn from, in this order; none: all but the label.
pub fn read(
    path: &Path,
    label: &str,
    kind: LabelKind,
    features: Option<&[String]>,
) -> Result<(Table, Dropped), DataError> {
    let mut reader = reader(path)?;
    let header = reader.headers().map_err(|e| content(path, e.to_string()))?.clone();
    let label_place = place(path, &header, label)?;
    let places: Vec<usize> = match features {
        Some(names) => names.iter().map(|n| place(path, &header, n)).collect::<Result<_, _>>()?,
        None => (0..header.len()).filter(|&i| i != label_place).collect(),
    };
    if places.is_empty() {
        return Err(content(path, "has no column beside the label".into()));
    }
    let (mut values, mut labels, mut dropped) = (Vec::new(), Vec::new(), Dropped::default());
    for record in reader.records() {
        let record = record.map_err(|e| content(path, e.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        match row(&record, &header, &places, label_place, kind) {
            Ok((features, label)) => {
                values.extend(features);
                labels.push(label);
            }
            Err(reason) => dropped.add(reason, format_args!("line {line}")),
        }
    }
    let samples = labels.len();
    let (target, labels) = target(label, kind, labels);
    let inputs = vec![Column::floats("features", &[places.len()], &values)];
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok((Table { name, samples, inputs, target, labels }, dropped))
}

/// Features and label of one row, or why it cannot be used.
fn row(
    record: &csv::StringRecord,
    header: &csv::StringRecord,
    places: &[usize],
    label: usize,
    kind: LabelKind,
) -> Result<(Vec<f32>, String), String> {
    if record.len() != header.len() {
        return Err(format!("{} fields instead of {}", record.len(), header.len()));
    }
    let features = places.iter().map(|&p| number(&record[p], &header[p]));
    let features = features.collect::<Result<Vec<f32>, String>>()?;
    let text = &record[label];
    match kind {
        LabelKind::Value => drop(number(text, &header[label])?),
        LabelKind::Class if is_missing(text) => return Err("the label is missing".into()),
        LabelKind::Class => {}
    }
    Ok((features, text.to_string()))
}

fn number(text: &str, column: &str) -> Result<f32, String> {
    if is_missing(text) {
        return Err(format!("{column} is missing"));
    }
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) => Err(format!("{column} is not finite")),
        Err(_) => Err(format!("{column} is not a number")),
    }
}

pub(super) fn is_missing(text: &str) -> bool {
    MISSING.iter().any(|m| text.eq_ignore_ascii_case(m))
}

fn target(column: &str, kind: LabelKind, labels: Vec<String>) -> (Target, bytes::Bytes) {
    match kind {
        LabelKind::Class => {
            let (names, indices) = classes(labels);
            (Target::Classes { names }, integer_bytes(&indices))
        }
        LabelKind::Value => {
            let values = labels.iter().filter_map(|l| l.parse::<f32>().ok());
            let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
            (Target::Values { names: vec![column.into()] }, bytes.into())
        }
    }
}

/// The distinct names in order (of their numbers, if all are whole numbers), and each label's place.
pub(super) fn classes(labels: Vec<String>) -> (Vec<String>, Vec<i64>) {
    let mut names = labels.clone();
    names.sort();
    names.dedup();
    if names.iter().all(|n| n.parse::<i64>().is_ok()) {
        names.sort_by_key(|n| n.parse::<i64>().unwrap_or(0));
    }
    let place = |label: &String| names.iter().position(|n| n == label).unwrap_or(0) as i64;
    let indices = labels.iter().map(place).collect();
    (names, indices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, gather};

    fn write(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn rows_that_cannot_be_used_are_counted_by_reason() {
        let text = "a,b,kind\n1,2,x\n,3,x\n4,NaN,x\n5,six,y\n7,8\n9,10,\n11,12,y\n13,?,y\n";
        let (_dir, path) = write("t.csv", text);
        let (table, dropped) = read(&path, "kind", LabelKind::Class, None).unwrap();
        assert_eq!(table.len(), 2);
        let reasons: Vec<_> = dropped.reasons().collect();
        assert_eq!(
            reasons,
            [
                ("2 fields instead of 3", 1, "line 6"),
                ("a is missing", 1, "line 3"),
                ("b is missing", 1, "line 9"),
                ("b is not a number", 1, "line 5"),
                ("b is not finite", 1, "line 4"),
                ("the label is missing", 1, "line 7"),
            ]
        );
        let batch = gather(&table, &[0, 1]);
        assert_eq!(batch.inputs[0].1.to_f32().unwrap(), [1.0, 2.0, 11.0, 12.0]);
        assert_eq!(batch.labels.to_i64().unwrap(), [0, 1]);
        assert_eq!(table.target(), Target::Classes { names: vec!["x".into(), "y".into()] });
    }

    #[test]
    fn numbers_can_be_the_target_and_columns_chosen() {
        let (_dir, path) = write("t.tsv", "a\tb\ty\n1\t2\t-0.5\n3\t4\tinf\n5\t6\t7\n");
        let features = ["b".to_string()];
        let (table, dropped) = read(&path, "y", LabelKind::Value, Some(&features)).unwrap();
        assert_eq!(dropped.rows(), 1);
        let batch = gather(&table, &[0, 1]);
        assert_eq!(batch.inputs[0].1.to_f32().unwrap(), [2.0, 6.0]);
        assert_eq!(batch.labels.to_f32().unwrap(), [-0.5, 7.0]);
    }

    #[test]
    fn a_wrong_column_is_named_with_those_that_are_there() {
        let (_dir, path) = write("t.csv", "a,b\n1,2\n");
        let error = read(&path, "c", LabelKind::Class, None).unwrap_err().to_string();
        assert!(error.contains("has no column \"c\"; its columns are a, b"), "{error}");
    }

    #[test]
    fn whole_numbers_are_sorted_as_numbers() {
        let labels = ["10", "2", "0", "2"].map(String::from).to_vec();
        let (names, indices) = classes(labels);
        assert_eq!(
            (names, indices),
            (["0", "2", "10"].map(String::from).to_vec(), vec![2, 1, 0, 1])
        );
    }
}
