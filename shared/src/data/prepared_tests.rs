use std::sync::Mutex;

use super::*;
use crate::{
    data::{Batch, gather},
    progress::{Step, unseen},
};

fn digits_in(folder: &Path, normalise: bool) -> Manifest {
    prepare(&DataSpec::Digits, 7, normalise, folder, &unseen).unwrap()
}

#[test]
fn every_sample_is_told_of_for_everything_that_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let told = Mutex::new(Vec::new());
    let note = |step: Step| told.lock().unwrap().push(step);
    let manifest = prepare(&DataSpec::Digits, 7, true, dir.path(), &note).unwrap();
    let (all, train) = (manifest.collected, manifest.parts["train"].samples);
    let told = told.lock().unwrap();
    for (what, of) in
        [("checking samples", all), ("measuring means", train), ("writing samples", all)]
    {
        let steps: Vec<Step> = told.iter().filter(|s| s.what == what).copied().collect();
        let expected: Vec<Step> = (1..=of).map(|done| Step { what, done, of }).collect();
        assert_eq!(steps, expected);
    }
}

#[test]
fn prepared_digits_are_the_digits_in_the_same_parts() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = digits_in(dir.path(), false);
    assert_eq!((manifest.collected, manifest.dropped.rows()), (1797, 0));
    let prepared = Prepared::open(dir.path()).unwrap();
    let raw = DataSpec::Digits.open().unwrap();
    for part in [Part::Train, Part::Validation, Part::Test] {
        let own = gather(&prepared, prepared.split(99).indices(part));
        assert_eq!(own, gather(raw.as_ref(), raw.split(7).indices(part)));
    }
}

#[test]
fn the_training_part_alone_is_standardised() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = digits_in(dir.path(), true);
    let prepared = Prepared::open(dir.path()).unwrap();
    let mean = |part: Part| {
        let Batch { inputs, .. } = gather(&prepared, prepared.split(0).indices(part));
        let values = inputs[0].1.to_f32().unwrap();
        values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64
    };
    assert!(mean(Part::Train).abs() < 1e-6, "{}", mean(Part::Train));
    assert!(mean(Part::Test).abs() > 1e-6, "the test part was measured as well");
    assert_eq!(manifest.normalisation[0].mean.len(), 1);
}

#[test]
fn rows_with_gaps_are_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    let mut text = "a,y\n".to_string();
    (0..50).for_each(|i| text += &format!("{i},{}\n", i % 2));
    text += ",1\nx,1\n3,\nnan,0\n";
    fs::write(&path, text).unwrap();
    let source =
        DataSpec::Csv { path, label: "y".into(), target: Default::default(), features: None };
    let error = source.open().err().expect("a strict reader refuses").to_string();
    assert!(error.contains("4 rows") && error.contains("edge-node prepare"), "{error}");
    let manifest = prepare(&source, 1, true, &dir.path().join("data"), &unseen).unwrap();
    assert_eq!((manifest.collected, manifest.dropped.rows()), (54, 4));
    let samples: usize = manifest.parts.values().map(|p| p.samples).sum();
    assert_eq!(samples, 50);
}

#[test]
fn a_damaged_part_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    digits_in(dir.path(), false);
    let path = dir.path().join("validation.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = Prepared::open(dir.path()).err().expect("refused").to_string();
    assert!(error.contains("validation.safetensors") && error.contains("checksum"), "{error}");
    fs::remove_file(dir.path().join("data.json")).unwrap();
    assert!(!Prepared::is_in(dir.path()));
}
