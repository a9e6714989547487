//! Texts with a class: CSV or TSV with a header, or one JSON object a line (`.jsonl`).
//!
//! A text becomes token ids of a fixed length, cut or padded, and a mask with 1 for a token and 0 for
//! padding. With a tokenizer they are its ids, special tokens included; without one a token is a byte
//! plus one, so that 0 is left for padding.

use std::{io::BufRead, path::Path};

use serde_json::Value;

use super::{
    Column, DataError, Dropped, Table, Target, Tokens,
    csv::{classes, content, is_missing, place, reader},
    table::integer_bytes,
};
use crate::text::Tokenizer;

/// A row before its class is numbered: text and label, or why it cannot be used.
type Row = Result<(String, String), String>;

/// Reads the columns of text and label; `length` is the number of tokens of every sample.
pub fn read(
    path: &Path,
    [text, label]: [&str; 2],
    length: usize,
    unit: Tokens,
) -> Result<(Table, Dropped), DataError> {
    if length == 0 {
        return Err(content(path, "sequence must be at least 1".into()));
    }
    let tokenizer = match unit {
        Tokens::Byte => None,
        Tokens::Character => {
            let problem = "is read by byte or tokenizer: a class has no characters of its own";
            return Err(content(path, problem.into()));
        }
        Tokens::Tokenizer(tokenizer) => Some(
            tokenizer.with_longest(length).map_err(|e| content(path, format!("sequence: {e}")))?,
        ),
    };
    let jsonl = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("jsonl"));
    let rows = if jsonl { json_rows(path, text, label)? } else { csv_rows(path, text, label)? };
    let (mut ids, mut mask, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    let mut dropped = Dropped::default();
    for (line, row) in rows {
        match row {
            Ok((text, label)) => match tokens(&text, length, tokenizer.as_ref()) {
                Ok((tokens, own_mask)) => {
                    ids.extend(tokens);
                    mask.extend(own_mask);
                    labels.push(label);
                }
                Err(reason) => dropped.add(reason, format_args!("line {line}")),
            },
            Err(reason) => dropped.add(reason, format_args!("line {line}")),
        }
    }
    let samples = labels.len();
    let (names, indices) = classes(labels);
    let table = Table {
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        samples,
        inputs: vec![
            Column::integers("input_ids", length, &ids),
            Column::integers("attention_mask", length, &mask),
        ],
        target: Target::Classes { names },
        labels: integer_bytes(&indices),
    };
    Ok((table, dropped))
}

/// Ids and mask of one text, or why it has none.
fn tokens(
    text: &str,
    length: usize,
    tokenizer: Option<&Tokenizer>,
) -> Result<(Vec<i64>, Vec<i64>), String> {
    let (mut ids, padding) = match tokenizer {
        Some(tokenizer) => {
            (tokenizer.encode(text).map_err(|e| e.to_string())?, tokenizer.padding_id())
        }
        None => (text.bytes().take(length).map(|b| i64::from(b) + 1).collect(), 0),
    };
    let mut mask = vec![1; ids.len()];
    ids.resize(length, padding);
    mask.resize(length, 0);
    Ok((ids, mask))
}

fn checked(text: &str, label: &str) -> Row {
    if text.trim().is_empty() {
        return Err("the text is empty".into());
    }
    if is_missing(label.trim()) {
        return Err("the label is missing".into());
    }
    Ok((text.to_string(), label.trim().to_string()))
}

fn csv_rows(path: &Path, text: &str, label: &str) -> Result<Vec<(u64, Row)>, DataError> {
    let mut reader = reader(path)?;
    let header = reader.headers().map_err(|e| content(path, e.to_string()))?.clone();
    let (text, label) = (place(path, &header, text)?, place(path, &header, label)?);
    let row = |record: csv::Result<csv::StringRecord>| {
        let record = record.map_err(|e| content(path, e.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        let row = match record.len() == header.len() {
            true => checked(&record[text], &record[label]),
            false => Err(format!("{} fields instead of {}", record.len(), header.len())),
        };
        Ok((line, row))
    };
    reader.records().map(row).collect()
}

fn json_rows(path: &Path, text: &str, label: &str) -> Result<Vec<(u64, Row)>, DataError> {
    let read_error = |source| DataError::Read { path: path.into(), source };
    let file = std::fs::File::open(path).map_err(read_error)?;
    let mut rows = Vec::new();
    for (number, line) in std::io::BufReader::new(file).lines().enumerate() {
        let line = line.map_err(read_error)?;
        if !line.trim().is_empty() {
            rows.push((number as u64 + 1, json_row(&line, text, label)));
        }
    }
    Ok(rows)
}

fn json_row(line: &str, text: &str, label: &str) -> Row {
    let value: Value = serde_json::from_str(line).map_err(|_| "is not JSON".to_string())?;
    let field = |name: &str| match &value[name] {
        Value::String(s) => Ok(s.clone()),
        Value::Number(n) => Ok(n.to_string()),
        Value::Bool(b) => Ok(b.to_string()),
        _ => Err(format!("has no {name:?}")),
    };
    checked(&field(text)?, &field(label)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, gather};

    fn read_text(name: &str, text: &str) -> (Table, Dropped) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        read(&path, ["text", "label"], 4, Tokens::Byte).unwrap()
    }

    #[test]
    fn csv_and_json_lines_give_the_same() {
        let (csv, left) = read_text("a.csv", "label,text\ngood,\"ab, c\"\nbad,d\nbad,\n,x\n");
        assert_eq!((csv.len(), left.rows()), (2, 2));
        let json =
            "{\"text\":\"ab, c\",\"label\":\"good\"}\n\n{\"text\":\"d\",\"label\":\"bad\"}\nx\n";
        let (json, left) = read_text("a.jsonl", json);
        assert_eq!(left.reasons().collect::<Vec<_>>(), [("is not JSON", 1, "line 4")]);
        let batch = gather(&csv, &[0, 1]);
        assert_eq!(batch, gather(&json, &[0, 1]));
        assert_eq!(batch.inputs[0].1.to_i64().unwrap(), [98, 99, 45, 33, 101, 0, 0, 0]);
        assert_eq!(batch.inputs[1].1.to_i64().unwrap(), [1, 1, 1, 1, 1, 0, 0, 0]);
        assert_eq!(batch.labels.to_i64().unwrap(), [1, 0]);
    }
}
