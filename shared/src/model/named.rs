//! Models as a person names them: a built-in name, or a file with a spec.

use std::path::Path;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::ModelSpec;

/// The model of a name in [`ModelSpec::BUILTIN`], or of a TOML file that has its keys (`family`, ...) at
/// the top or in a section `[model]`. The error is one line.
pub fn model_by_name(name: &str) -> Result<ModelSpec, String> {
    if let Some(spec) = ModelSpec::builtin(name) {
        return Ok(spec);
    }
    if !name.ends_with(".toml") {
        let known = ModelSpec::BUILTIN.join(", ");
        return Err(format!("{name:?}: no such model; known: {known}; or give a .toml file"));
    }
    let text = std::fs::read_to_string(Path::new(name)).map_err(|e| format!("{name}: {e}"))?;
    // One line: an error of the parser comes with a drawing of the place.
    let bad = |e: toml::de::Error| format!("{name}: {}", e.message().replace('\n', " "));
    let mut table: toml::Table = text.parse().map_err(bad)?;
    let spec: ModelSpec = match table.remove("model") {
        Some(model) => model.try_into(),
        None => table.try_into(),
    }
    .map_err(bad)?;
    spec.check().map_err(|problem| format!("{name}: {problem}"))?;
    Ok(spec)
}

/// Reads a model as the configuration has it: a name, or a table with `family` and sizes.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ModelSpec, D::Error> {
    struct NameOrTable;

    impl<'de> Visitor<'de> for NameOrTable {
        type Value = ModelSpec;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "a model's name, or a table with its family and sizes")
        }

        fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<ModelSpec, E> {
            model_by_name(name).map_err(E::custom)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ModelSpec, A::Error> {
            ModelSpec::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_any(NameOrTable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_hold_the_spec_at_the_top_or_in_a_section() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.toml");
        let name = path.display().to_string();
        let keys = "family = \"mlp\"\ninput = [1, 1, 3]\nhidden = [4]\nclasses = 2\n";
        std::fs::write(&path, keys).unwrap();
        let spec = model_by_name(&name).unwrap();
        assert_eq!(spec.stage_count(), 2);
        std::fs::write(&path, format!("[model]\n{keys}")).unwrap();
        assert_eq!(model_by_name(&name).unwrap(), spec);
        for bad in [keys.replace("hidden", "hiden"), keys.replace("mlp", "mpl"), "x".into()] {
            std::fs::write(&path, bad).unwrap();
            let error = model_by_name(&name).unwrap_err();
            assert!(error.starts_with(&name) && error.lines().count() == 1, "{error}");
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = model_by_name("resnet19").unwrap_err();
        assert!(error.contains("\"resnet19\": no such model; known: mlp, lenet"), "{error}");
    }
}
