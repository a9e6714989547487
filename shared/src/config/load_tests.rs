use super::*;
use crate::model::ModelSpec;

fn load_text(text: &str, flags: &[(&str, &str)]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cleave.toml");
    std::fs::write(&file, text).unwrap();
    let mut overrides = Overrides::default();
    flags.iter().for_each(|(k, v)| overrides.push(k, v));
    let shown = file.display().to_string();
    load(&file, &overrides).map_err(|e| e.to_string().replace(&shown, "FILE"))
}

fn refused(text: &str) -> String {
    load_text(text, &[]).expect_err("should be refused")
}

#[test]
fn the_shipped_file_documents_the_defaults() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/cleave.toml");
    let shipped = load(Path::new(file), &Overrides::default()).unwrap();
    assert_eq!(shipped, Config::default());
    // Every key is there, so that the file is the documentation.
    let text = std::fs::read_to_string(file).unwrap();
    let value = serde_json::to_value(&shipped).unwrap();
    let mut keys = Vec::new();
    fn collect(value: &serde_json::Value, keys: &mut Vec<String>) {
        for (key, inner) in value.as_object().into_iter().flatten() {
            keys.push(key.clone());
            collect(inner, keys);
        }
    }
    collect(&value, &mut keys);
    for key in keys {
        assert!(text.contains(&key), "config/cleave.toml does not mention {key}");
    }
}

#[test]
fn flags_go_over_the_file() {
    let config = load_text("split_point = 2\n", &[("split_point", "3"), ("link.profile", "lte")]);
    let config = config.unwrap();
    assert_eq!((config.split_point, config.link.profile.as_str()), (3, "lte"));
    assert_eq!(config.train, Config::default().train);
}

#[test]
fn a_model_of_another_family_replaces_the_default() {
    let text = "[model]\nfamily = \"mlp\"\ninput = [1, 8, 8]\nhidden = [32]\nclasses = 10\n";
    let config = load_text(&format!("split_point = 1\n{text}"), &[]).unwrap();
    assert!(matches!(config.model, ModelSpec::Mlp(_)));
}

#[test]
fn unknown_keys_are_refused_with_their_path() {
    let error = refused("splitpoint = 3\n");
    assert!(error.starts_with("FILE: splitpoint: unknown key; known here: split_point"), "{error}");
    let error = refused("[edge]\nclod = \"http://x:1\"\n");
    assert!(error.starts_with("FILE: edge.clod: unknown key; known here: cloud,"), "{error}");
    let error = refused("[train.optimizer]\nkind = \"sgd\"\nlearning_rate = 0.1\nmomentun = 0.9\n");
    assert!(error.starts_with("FILE: train.optimizer.momentun: unknown key"), "{error}");
    let error =
        refused("[model]\nfamily = \"mlp\"\ninput = [1, 8, 8]\nhiden = [32]\nclasses = 10\n");
    assert!(error.starts_with("FILE: model.hiden: unknown key"), "{error}");
    let error = load_text("", &[("edge.clod", "x")]).unwrap_err();
    assert!(error.starts_with("flag: edge.clod: unknown key"), "{error}");
}

#[test]
fn bad_values_are_refused_with_the_allowed_range() {
    for (text, expected) in [
        ("split_point = 99\n", "FILE: split_point: 99 is out of range; allowed: 0 to 6"),
        ("split_point = -1\n", "FILE: split_point: "),
        (
            "[link]\nprofile = \"6g\"\n",
            "FILE: link.profile: \"6g\": unknown profile; known: 5g-lowband, 5g-midband,",
        ),
        ("[codec]\ngradient = \"f13\"\n", "FILE: codec.gradient: \"f13\" is unknown; allowed: f32"),
        (
            "[exits]\nthreshold = 1.5\n",
            "FILE: exits.threshold: 1.5 is out of range; allowed: 0 to 1",
        ),
        ("[train]\nepochs = 0\n", "FILE: train.epochs: 0 is out of range; allowed: 1 to"),
        ("[edge]\ncloud = \"nowhere\"\n", "FILE: edge.cloud: \"nowhere\" is not an address; "),
        ("[cloud]\nlisten = \"here\"\n", "FILE: cloud.listen: "),
        (
            "[train.optimizer]\nkind = \"sgd\"\nlearning_rate = 0.1\nmomentum = 1.5\n",
            "FILE: train.optimizer: momentum = 1.5 is out of range",
        ),
        ("split_point = \n", "FILE: file: "),
    ] {
        let error = refused(text);
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_model_may_be_named() {
    let config = load_text("model = \"mlp\"\nsplit_point = 1\n", &[]).unwrap();
    assert_eq!((config.model.family_name(), config.split_point), ("mlp", 1));
    let error = refused("model = \"resnet19\"\n");
    let expected = "FILE: model: \"resnet19\": no such model; known: mlp, lenet";
    assert!(error.starts_with(expected), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    let error = refused("model = 7\n");
    assert!(error.starts_with("FILE: model: invalid type"), "{error}");
    let error = load_text("", &[("model", "resnet19")]).unwrap_err();
    assert!(error.starts_with("flag: model: \"resnet19\": no such model"), "{error}");
    let error = load_text("", &[("model", "mlp"), ("split_point", "5")]).unwrap_err();
    let expected = "flag: split_point: 5 is out of range; allowed: 0 to 2, the stages of this mlp";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn who_names_the_model_names_its_split_point() {
    // The split point of the file is one of the file's model.
    let split = |text: &str, flags: &[(&str, &str)]| load_text(text, flags).unwrap().split_point;
    assert_eq!(split("", &[]), Config::default().split_point);
    assert_eq!(split("model = \"mlp\"\n", &[]), 0);
    assert_eq!(split("split_point = 1\n", &[("model", "mlp")]), 0);
    assert_eq!(split("split_point = 1\n", &[("model", "mlp"), ("split_point", "2")]), 2);
    assert_eq!(split("model = \"mlp\"\nsplit_point = 1\n", &[("train.epochs", "2")]), 1);
    // A name replaces a whole table.
    let table = "[model]\nfamily = \"mlp\"\ninput = [1, 1, 3]\nhidden = [4]\nclasses = 2\n";
    assert_eq!(load_text(table, &[("model", "lenet")]).unwrap().model, Config::default().model);
}
