//! `edge-node inspect`: what a model costs and what crosses each cut, as a table or as JSON.

use std::fmt::Write;

use cleave_shared::model::{CutInfo, Inspection, ModelSpec, TensorInfo};

/// What `--json` prints: the counts, and the name that was asked for.
#[derive(serde::Serialize)]
struct Named<'a> {
    model: &'a str,
    #[serde(flatten)]
    found: &'a Inspection,
}

/// The report on a model; `name` is what it was called.
pub fn inspect(name: &str, spec: &ModelSpec, json: bool) -> Result<String, String> {
    let found = spec.inspect().map_err(|e| format!("{name}: {e}"))?;
    if json {
        let named = Named { model: name, found: &found };
        return Ok(serde_json::to_string_pretty(&named).expect("plain data") + "\n");
    }
    Ok(table(name, &found))
}

fn table(name: &str, found: &Inspection) -> String {
    let Inspection { parameters, flops, .. } = found;
    let mut text = format!(
        "{name} ({}): {} stages, {} parameters, {} FLOPs a sample\n",
        found.family,
        found.stages.len(),
        grouped(*parameters),
        grouped(*flops)
    );
    let _ = writeln!(text, "in {}, out {}\n", shapes(&found.inputs), shapes(&found.outputs));
    let widest = found.stages.iter().map(|s| s.name.len()).max().unwrap_or(0).max(5);
    let _ = writeln!(
        text,
        "  cut  {:<widest$}  {:>13} {:>15} {:>17} {:>14}  output",
        "after", "parameters", "FLOPs", "FLOPs so far", "bytes crossing"
    );
    for cut in &found.cuts {
        let _ = writeln!(text, "{}", row(cut, found, widest));
    }
    text + "\n* sensible: no other cut computes as little on the edge and sends as little\n"
}

fn row(cut: &CutInfo, found: &Inspection, widest: usize) -> String {
    let stage = cut.split_point.checked_sub(1).and_then(|i| found.stages.get(i));
    let number = |n: Option<u64>| n.map_or(String::new(), grouped);
    let mark = if cut.sensible { '*' } else { ' ' };
    let output = stage.map_or(shapes(&found.inputs), |s| shapes(&s.outputs));
    format!(
        "{mark} {:>3}  {:<widest$}  {:>13} {:>15} {:>17} {:>14}  {output}",
        cut.split_point,
        cut.after.as_deref().unwrap_or("input"),
        number(stage.map(|s| s.parameters)),
        number(stage.map(|s| s.flops)),
        grouped(cut.head_flops),
        grouped(cut.bytes),
    )
}

fn shapes(tensors: &[TensorInfo]) -> String {
    let one = |t: &TensorInfo| {
        let dim = |(n, &variable): (&usize, &bool)| match variable {
            true => format!("≤{n}"),
            false => n.to_string(),
        };
        let shape: Vec<String> = t.shape.iter().zip(&t.variable).map(dim).collect();
        format!("{} {} [{}]", t.name, t.dtype, shape.join(", "))
    };
    tensors.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// `11689512` as `11,689,512`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        let shown = [0, 12, 999, 1_000, 11_689_512].map(grouped);
        assert_eq!(shown, ["0", "12", "999", "1,000", "11,689,512"]);
    }

    #[test]
    fn the_json_is_an_object_with_a_list_of_stages() {
        let spec = ModelSpec::builtin("lenet").unwrap();
        let text = inspect("lenet", &spec, true).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["model"], "lenet");
        assert_eq!(value["stages"].as_array().unwrap().len(), 6);
        assert_eq!(value["stages"][0]["outputs"][0]["shape"], serde_json::json!([32, 8, 8]));
        assert_eq!(value["cuts"].as_array().unwrap().len(), 7);
        assert_eq!(value["cuts"][4]["bytes"], 1024);
    }

    #[test]
    fn the_table_marks_the_sensible_cuts() {
        let spec = ModelSpec::builtin("lenet").unwrap();
        let text = inspect("lenet", &spec, false).unwrap();
        let marked = text.lines().filter(|l| l.starts_with("* ") && !l.contains("sensible"));
        assert_eq!(marked.count(), 2, "{text}");
        assert!(text.contains("53,002 parameters"), "{text}");
    }
}
