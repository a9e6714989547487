//! Data sets in files against the libraries that their files come from: tokens against transformers,
//! pixels against Pillow. `tests/python/data_reference.py` makes the files.

use std::{collections::HashMap, path::Path, process::Command, sync::Mutex};

use cleave_shared::{
    data::{DataSpec, Dataset, Target, TextUnit, gather, prepare},
    model::ModelSpec,
    progress::{Step, unseen},
};
use safetensors::{Dtype, SafeTensors};

/// A pixel, of 0 to 255: decoders and scalers round differently.
const PIXEL: f64 = 2.0;

/// The values of a reference's tensors by name.
type Expected = HashMap<String, Vec<f64>>;

fn reference(kind: &str, folder: &Path) -> Expected {
    let python = std::env::var("CLEAVE_TEST_PYTHON").expect("run scripts/test");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python/data_reference.py");
    let output = Command::new(python).args([script, kind]).arg(folder).output();
    let output = output.expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |view: safetensors::tensor::TensorView<'_>| match view.dtype() {
        Dtype::F32 => {
            let quads = view.data().chunks_exact(4);
            quads.map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect()
        }
        _ => {
            let octets = view.data().chunks_exact(8);
            octets.map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect()
        }
    };
    file.iter().map(|(name, view)| (name.to_string(), values(view))).collect()
}

fn floats(values: &[i64]) -> Vec<f64> {
    values.iter().map(|&v| v as f64).collect()
}

fn all(dataset: &dyn Dataset) -> cleave_shared::data::Batch {
    gather(dataset, &(0..dataset.len()).collect::<Vec<_>>())
}

#[test]
fn texts_have_the_tokens_of_transformers() {
    let dir = tempfile::tempdir().unwrap();
    let expected = reference("text", dir.path());
    for name in ["bpe", "wordpiece"] {
        let tokenizer = Some(dir.path().join(name).join("tokenizer.json"));
        let (unit, sequence) = (TextUnit::Tokenizer, 12);
        let path = dir.path().join("corpus.txt");
        let text = DataSpec::Text { path, sequence, unit, tokenizer: tokenizer.clone() };
        let text = text.open().unwrap();
        let ids = &expected[&format!("{name}/ids")];
        assert_eq!(text.len(), (ids.len() - 1) / sequence);
        let batch = all(text.as_ref());
        let used = text.len() * sequence;
        assert_eq!(floats(&batch.inputs[0].1.to_i64().unwrap()), ids[..used], "{name}");
        assert_eq!(floats(&batch.labels.to_i64().unwrap()), ids[1..=used], "{name}");

        let path = dir.path().join("texts.csv");
        let (text, label) = ("text".into(), "label".into());
        let labelled = DataSpec::LabelledText { path, text, label, sequence, unit, tokenizer };
        let batch = all(labelled.open().unwrap().as_ref());
        for (input, key) in [(0, "labelled_ids"), (1, "labelled_mask")] {
            let found = floats(&batch.inputs[input].1.to_i64().unwrap());
            assert_eq!(found, expected[&format!("{name}/{key}")], "{name}: {key}");
        }
        assert_eq!(batch.labels.to_i64().unwrap(), [1, 0, 1]);
    }
}

#[test]
fn a_tokenizer_that_is_missing_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.txt");
    std::fs::write(&path, "a text").unwrap();
    let text = |tokenizer| DataSpec::Text {
        path: path.clone(),
        sequence: 2,
        unit: TextUnit::Tokenizer,
        tokenizer,
    };
    let error = text(None).open().err().unwrap().to_string();
    assert!(error.contains("set data.tokenizer or weights.tokenizer"), "{error}");
    let error = text(Some(path.clone())).open().err().unwrap().to_string();
    assert!(error.contains("is not a tokenizer.json"), "{error}");
}

#[test]
fn image_files_have_the_pixels_of_pillow() {
    let dir = tempfile::tempdir().unwrap();
    let expected = reference("images", dir.path());
    let path = dir.path().join("data");
    for (channels, key) in [(3, "images"), (1, "grey")] {
        let spec = DataSpec::Images { path: path.clone(), input: Some([channels, 20, 28]) };
        let (set, dropped) = spec.collect(&unseen).unwrap();
        assert_eq!(set.target(), Target::Classes { names: vec!["cat".into(), "dog".into()] });
        let batch = all(set.as_ref());
        assert_eq!(floats(&batch.labels.to_i64().unwrap()), expected["labels"]);
        assert_eq!(batch.inputs[0].1.shape(), [set.len(), channels, 20, 28]);
        let found = batch.inputs[0].1.to_f32().unwrap();
        assert_eq!(found.len(), expected[key].len());
        let pairs = found.iter().zip(&expected[key]);
        let worst =
            pairs.map(|(f, e)| ((f64::from(*f) * 255.0).round() - e).abs()).fold(0.0, f64::max);
        println!("{key}: off by {worst:.2} of 255");
        assert!(worst <= PIXEL, "{key}: {worst}");

        let reasons: Vec<_> = dropped.reasons().collect();
        assert_eq!(dropped.rows(), 3, "{reasons:?}");
        let place = |name: &str| path.join("cat").join(name).display().to_string();
        let decoded = reasons.iter().find(|(_, _, first)| *first == place("broken.png"));
        assert!(decoded.is_some_and(|(why, ..)| why.starts_with("cannot be decoded: ")));
        let (moving, notes) = (place("moving.gif"), "is not a PNG, JPEG or PPM image");
        assert!(reasons.contains(&(notes, 2, moving.as_str())), "{reasons:?}");
    }
}

#[test]
fn images_are_prepared_without_the_broken_ones() {
    let dir = tempfile::tempdir().unwrap();
    reference("images", dir.path());
    let path = dir.path().join("data");
    let ModelSpec::Resnet(mut sizes) = ModelSpec::builtin("resnet18").unwrap() else { panic!() };
    sizes.input = [3, 20, 28];
    let spec = DataSpec::Images { path: path.clone(), input: None };
    let spec = spec.for_model(&ModelSpec::Resnet(sizes), None);
    let error = spec.open().err().unwrap().to_string();
    assert!(error.contains("3 rows cannot be used") && error.contains("prepare"), "{error}");
    let folder = dir.path().join("prepared");
    let told = Mutex::new(Vec::new());
    let note = |step: Step| told.lock().unwrap().push(step);
    let manifest = prepare(&spec, 7, false, &folder, &note).unwrap();
    assert_eq!((manifest.collected, manifest.dropped.rows()), (16, 3));
    // Files are read on several threads.
    let read = |done| Step { what: "reading images", done, of: 16 };
    assert_eq!(told.lock().unwrap()[..16], (1..=16).map(read).collect::<Vec<_>>());
    let prepared = DataSpec::Prepared { path: folder }.open().unwrap();
    assert_eq!(prepared.len(), 13);
    let raw = spec.collect(&unseen).unwrap().0;
    let sum = |set: &dyn Dataset| -> f32 { all(set).inputs[0].1.to_f32().unwrap().iter().sum() };
    let (one, other) = (sum(prepared.as_ref()), sum(raw.as_ref()));
    assert!((one - other).abs() < 1e-4 * other, "{one} {other}");

    let nothing = DataSpec::Images { path: path.join("cat"), input: Some([3, 20, 28]) };
    let error = nothing.open().err().unwrap().to_string();
    assert!(error.contains("has no images"), "{error}");
    let nowhere = DataSpec::Images { path: path.join("bird"), input: Some([3, 20, 28]) };
    assert!(nowhere.open().err().unwrap().to_string().contains("bird"));
}
