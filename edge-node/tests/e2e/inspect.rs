//! `edge-node inspect` by name, without a configuration, and the table in docs/models.md.

use std::{fs, process::Command};

use cleave_shared::model::ModelSpec;
use serde_json::Value;

fn inspect(words: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-node"));
    let output = command.arg("inspect").args(words).current_dir(folder.path()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn every_built_in_model_is_an_object_with_its_stages() {
    for name in ModelSpec::BUILTIN {
        let (code, text, error) = inspect(&["--model", name, "--json"]);
        assert_eq!(code, Some(0), "{name}: {error}");
        let value: Value = serde_json::from_str(&text).unwrap();
        let stages = value["stages"].as_array().expect("a list of stages");
        let cuts = value["cuts"].as_array().expect("a list of cuts");
        assert_eq!(cuts.len(), stages.len() + 1, "{name}");
        assert_eq!(value["model"], **name);
        let total: u64 = stages.iter().map(|s| s["flops"].as_u64().unwrap()).sum();
        assert_eq!(value["flops"], total, "{name}");
        assert_eq!(cuts.last().unwrap()["bytes"], 0, "{name}");
        assert_eq!(cuts.last().unwrap()["head_parameters"], value["parameters"], "{name}");
        assert!(cuts[0]["sensible"] == true, "{name}: nothing on the edge cannot be beaten");
    }
}

#[test]
fn mistakes_are_answered_with_the_names_that_are_known() {
    let (code, _, error) = inspect(&["--model", "resnet19"]);
    assert_eq!((code, error.lines().count()), (Some(2), 1), "{error}");
    assert!(error.contains("known: mlp, lenet, alexnet"), "{error}");
    let (code, _, error) = inspect(&["--config", "nowhere.toml"]);
    assert_eq!((code, error.lines().count()), (Some(2), 1), "{error}");
    assert!(error.contains("nowhere.toml"), "{error}");
    let (code, names, _) = inspect(&["--list"]);
    assert_eq!(code, Some(0));
    assert_eq!(names.lines().collect::<Vec<_>>(), ModelSpec::BUILTIN);
}

#[test]
fn the_table_in_the_documents_is_what_inspect_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/models.md");
    let document = fs::read_to_string(path).unwrap();
    for name in ModelSpec::BUILTIN {
        let found = ModelSpec::builtin(name).unwrap().inspect().unwrap();
        let row = document.lines().find(|l| l.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("{name} is missing: run benches/models"));
        let numbers: String = row.chars().filter(|c| *c != ',').collect();
        assert!(
            numbers.contains(&format!("| {} | {} |", found.parameters, found.stages.len())),
            "{row}: run benches/models"
        );
    }
}
