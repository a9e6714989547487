use std::fs;

use safetensors::tensor::TensorView;

use super::*;
use crate::model::Init;

fn write(path: &Path, tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) {
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name.to_string(), TensorView::new(*dtype, shape.to_vec(), data).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn ask(file: &Arc<WeightFile>, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
    let mut source = file.source(&["transformer."]);
    let data = source.data(&ParamSpec { name, shape, init: Init::Zeros });
    data.map(|d| d.as_slice::<f32>().unwrap().to_vec()).map_err(|e| e.to_string())
}

#[test]
fn tensors_are_found_by_name_with_or_without_a_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let half: Vec<u8> =
        [1.5f32, -2.0].iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
    write(
        &path,
        &[
            ("transformer.a", Dtype::F32, &[2], f32s(&[1.0, 2.0])),
            ("b", Dtype::BF16, &[2], half),
            ("c", Dtype::I64, &[1], vec![0; 8]),
        ],
    );
    // The folder stands for its model.safetensors.
    let file = Arc::new(WeightFile::open(dir.path()).unwrap());
    assert_eq!(ask(&file, "a", &[2]), Ok(vec![1.0, 2.0]));
    assert_eq!(ask(&file, "transformer.b", &[2]), Ok(vec![1.5, -2.0]));
    let shown = path.display();
    let refusals = [
        ("a", vec![1, 2], format!("weight a: expected shape [1, 2], found [2] ({shown})")),
        ("d", vec![3], format!("weight d: expected shape [3], found no such tensor ({shown})")),
        ("c", vec![1], format!("weight c: expected F32, F16 or BF16, found I64 ({shown})")),
    ];
    for (name, shape, expected) in refusals {
        assert_eq!(ask(&file, name, &shape), Err(expected));
    }
}

#[test]
fn shards_are_found_by_their_index() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("one.safetensors"), &[("a", Dtype::F32, &[1], f32s(&[1.0]))]);
    write(&dir.path().join("two.safetensors"), &[("b", Dtype::F32, &[1], f32s(&[2.0]))]);
    let index = dir.path().join("model.safetensors.index.json");
    let put = |map: &str| fs::write(&index, format!(r#"{{"weight_map": {map}}}"#)).unwrap();
    put(r#"{"a": "one.safetensors", "b": "two.safetensors"}"#);
    let file = Arc::new(WeightFile::open(dir.path()).unwrap());
    assert_eq!(ask(&file, "b", &[1]), Ok(vec![2.0]));

    let wrong = [
        (r#"{"a": "two.safetensors"}"#, "a should be in two.safetensors, and is not"),
        (r#"{"a": "../one.safetensors"}"#, "is not the name of a file beside it"),
        (r#"{"a": "three.safetensors"}"#, "three.safetensors: No such file"),
        (r#"{"a""#, "at line 1 column 20"),
    ];
    for (map, expected) in wrong {
        put(map);
        let error = WeightFile::open(&index).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_broken_file_is_refused_wherever_it_is_cut_or_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    write(
        &path,
        &[("a", Dtype::F32, &[4], f32s(&[1.0; 4])), ("b", Dtype::F32, &[1], f32s(&[2.0]))],
    );
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(WeightFile::open(&path).is_err(), "{length} of {} bytes", whole.len());
    }
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for place in 0..8 + header {
        let mut changed = whole.clone();
        changed[place] ^= 0x55;
        fs::write(&path, changed).unwrap();
        // Some changes make another valid file; none may panic or read past the end.
        if let Ok(file) = WeightFile::open(&path) {
            let _ = ask(&Arc::new(file), "a", &[4]);
        }
    }
}

#[test]
fn the_fingerprint_is_of_the_content() {
    let dir = tempfile::tempdir().unwrap();
    let fingerprint = |name: &str, value: f32| {
        let path = dir.path().join(name);
        write(&path, &[("a", Dtype::F32, &[2], f32s(&[1.0, value]))]);
        WeightFile::open(&path).unwrap().fingerprint().to_string()
    };
    assert_eq!(fingerprint("x", 2.0), fingerprint("y", 2.0));
    assert_ne!(fingerprint("x", 2.0), fingerprint("x", 3.0));
}
