//! Lines of numbers as a batch: each line is a sample, its numbers in the order of a row-major tensor.

use std::iter;

use cleave_shared::tensor::{DType, HostTensor};

use super::{clipped, input::Input};

/// The samples of a file, `[lines, ...]`. A first line without any number is a header; empty lines do not
/// count. Errors begin with the line.
pub fn parse(text: &str, input: &Input) -> Result<HostTensor, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = (1_usize..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty());
    let mut lines = lines.peekable();
    let _header = lines.next_if(|(_, line)| is_header(line));
    let mut data = Vec::new();
    let mut first = None;
    let mut rows = 0;
    for (number, line) in lines {
        let at = |problem: String| format!("line {number} {problem}");
        let count = row(line, input.dtype, &mut data).map_err(at)?;
        input.sample_of(count).map_err(at)?;
        let (first_number, first_count) = *first.get_or_insert((number, count));
        if count != first_count {
            return Err(at(format!(
                "has {count} numbers, line {first_number} has {first_count}; samples of one batch \
                 are of one length: send files of their own"
            )));
        }
        rows += 1;
    }
    let Some((_, count)) = first else { return Err("has no numbers".into()) };
    let shape = iter::once(rows).chain(input.sample_of(count)?).collect();
    HostTensor::new(input.dtype, shape, data.into()).map_err(|e| e.to_string())
}

/// A line with a mistake still has numbers, and is not taken for a header.
fn is_header(line: &str) -> bool {
    line.split(',').all(|field| field.trim().parse::<f64>().is_err())
}

/// Adds a line's numbers to `data`, and counts them.
fn row(line: &str, dtype: DType, data: &mut Vec<u8>) -> Result<usize, String> {
    let mut count = 0;
    for field in line.split(',').map(str::trim) {
        count += 1;
        let (read, wanted) = match dtype {
            DType::I64 => {
                let number = field.parse::<i64>().map(|v| data.extend(v.to_le_bytes()));
                (number.is_ok(), "a whole number")
            }
            _ => {
                let number = field.parse::<f32>().map(|v| data.extend(v.to_le_bytes()));
                (number.is_ok(), "a number")
            }
        };
        if !read {
            return Err(format!("has {} in column {count}, not {wanted}", clipped(field)));
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(dtype: DType, sample: &[Option<usize>]) -> Input {
        Input { name: "x".into(), dtype, sample: sample.to_vec() }
    }

    #[test]
    fn lines_are_samples_and_a_header_is_not() {
        let input = input(DType::F32, &[Some(1), Some(2)]);
        let tensor = parse("\u{feff}left,right\r\n0.5, -1e3\r\n\r\n0,4\r\n", &input).unwrap();
        assert_eq!(tensor.shape(), [2, 1, 2]);
        assert_eq!(tensor.to_f32().unwrap(), [0.5, -1000.0, 0.0, 4.0]);
        assert_eq!(parse("0.5,2\n", &input).unwrap().shape(), [1, 1, 2]);
    }

    #[test]
    fn ids_are_whole_numbers_of_one_length() {
        let input = input(DType::I64, &[None]);
        let tensor = parse("7,8,9\n1,2,3\n", &input).unwrap();
        assert_eq!(tensor.shape(), [2, 3]);
        assert_eq!(tensor.to_i64().unwrap(), [7, 8, 9, 1, 2, 3]);
        let error = parse("7,8,9\n1,2\n", &input).unwrap_err();
        assert!(error.starts_with("line 2 has 2 numbers, line 1 has 3;"), "{error}");
        let error = parse("7,8.5\n", &input).unwrap_err();
        assert_eq!(error, "line 1 has \"8.5\" in column 2, not a whole number");
    }

    #[test]
    fn mistakes_name_the_line() {
        let input = input(DType::F32, &[Some(2)]);
        let error = parse("a,b\n\n1,2,3\n", &input).unwrap_err();
        assert_eq!(
            error,
            "line 3 has 3 numbers; input \"x\", FP32 [batch, 2] needs 2 for a sample"
        );
        // Not a header: one of its fields is a number.
        let error = parse("1,two\n3,4\n", &input).unwrap_err();
        assert_eq!(error, "line 1 has \"two\" in column 2, not a number");
        assert_eq!(parse("a,b\n", &input).unwrap_err(), "has no numbers");
        assert_eq!(parse("", &input).unwrap_err(), "has no numbers");
    }
}
