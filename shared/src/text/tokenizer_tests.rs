//! Two small tokenizers of the kinds in use: WordPiece as BERT's, byte-level BPE as GPT-2's.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

fn open(file: &Value) -> (TempDir, Tokenizer) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    fs::write(&path, file.to_string()).unwrap();
    let tokenizer = Tokenizer::open(&path).unwrap();
    (dir, tokenizer)
}

fn special(id: u32, token: &str) -> Value {
    json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
           "normalized": false, "special": true})
}

fn word_piece() -> Value {
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "hello", "wor", "##ld", ",", "!"];
    let vocabulary: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(i, w)| (w.to_string(), i.into())).collect();
    let template = |name: &str| json!({"SpecialToken": {"id": name, "type_id": 0}});
    let of = |name: &str, id: u32| json!({"id": name, "ids": [id], "tokens": [name]});
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [special(0, "[PAD]"), special(1, "[UNK]"), special(2, "[CLS]"), special(3, "[SEP]")],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [template("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, template("[SEP]")],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": of("[CLS]", 2), "[SEP]": of("[SEP]", 3)}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocabulary},
    })
}

/// GPT-2's letters for bytes (Radford et al. 2019): printable ones are themselves, others follow 255.
fn byte_letters() -> Vec<char> {
    let printable = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut others = 256u32..;
    let letter = |b| if printable(b) { b } else { others.next().expect("endless") };
    (0..256).map(letter).map(|c| char::from_u32(c).expect("a letter")).collect()
}

/// A token for each byte, and none longer: every character that is not ASCII takes several.
fn byte_level() -> Value {
    let letters = byte_letters().into_iter().enumerate();
    let vocabulary: serde_json::Map<String, Value> =
        letters.map(|(i, c)| (c.to_string(), i.into())).collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(256, "<|endoftext|>")],
        "normalizer": null, "pre_tokenizer": bytes, "post_processor": bytes, "decoder": bytes,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
                  "vocab": vocabulary, "merges": []},
    })
}

#[test]
fn a_text_becomes_ids_and_text_again() {
    let (_dir, tokenizer) = open(&word_piece());
    // Six tokens and two special ones: the file's own truncation to 3 is not applied.
    assert_eq!(tokenizer.encode("Hello, WORLD! moon").unwrap(), [2, 4, 7, 5, 6, 8, 1, 3]);
    assert_eq!(tokenizer.encode_plain("hello").unwrap(), [4]);
    assert_eq!(tokenizer.decode(&[2, 4, 7, 5, 6, 8, 3]).unwrap(), "hello, world!");
    assert_eq!((tokenizer.vocabulary(), tokenizer.padding_id()), (9, 0));
    assert_eq!((tokenizer.token_id("[SEP]"), tokenizer.token(6)), (Some(3), Some("##ld".into())));
    assert!(tokenizer.is_special(3) && !tokenizer.is_special(4));
    assert_eq!(tokenizer.end_id(), None);
}

#[test]
fn a_batch_is_padded_to_its_longest_row() {
    let (_dir, tokenizer) = open(&word_piece());
    let batch = tokenizer.encode_batch(&["hello world", "hello", ""]).unwrap();
    assert_eq!(batch.ids.shape(), [3, 5]);
    let ids = [2, 4, 5, 6, 3, 2, 4, 3, 0, 0, 2, 3, 0, 0, 0];
    assert_eq!(batch.ids.to_i64().unwrap(), ids);
    let mask = [1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0];
    assert_eq!(batch.mask.to_i64().unwrap(), mask);
    assert_eq!(batch.types.to_i64().unwrap(), [0; 15]);
}

#[test]
fn a_long_text_is_cut_and_keeps_its_special_tokens() {
    let (_dir, tokenizer) = open(&word_piece());
    let tokenizer = tokenizer.with_longest(4).unwrap();
    assert_eq!(tokenizer.encode("hello world hello").unwrap(), [2, 4, 5, 3]);
    let error = tokenizer.with_longest(1).err().expect("no room").to_string();
    assert!(error.contains("1 tokens have no room for its special ones"), "{error}");
}

#[test]
fn a_stream_emits_whole_characters_only() {
    let (_dir, tokenizer) = open(&byte_level());
    let text = "a é 😀 — 日本!";
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!(ids.len(), text.len(), "a token a byte");
    let mut stream = tokenizer.decode_stream();
    let mut pieces = Vec::new();
    for &id in &ids {
        pieces.push(stream.push(id).unwrap());
        assert_eq!(stream.push(256).unwrap(), "", "a special token is no text");
    }
    assert!(pieces.iter().all(|p| !p.contains('\u{FFFD}')), "{pieces:?}");
    assert_eq!(pieces.concat(), text);
    assert_eq!(pieces.iter().filter(|p| !p.is_empty()).count(), text.chars().count());
    assert_eq!(stream.finish().unwrap(), "");
}

#[test]
fn a_stream_keeps_the_blanks_between_words() {
    let (_dir, tokenizer) = open(&word_piece());
    let mut stream = tokenizer.decode_stream();
    let pieces: Vec<String> =
        [2, 4, 7, 4, 5, 6, 8].iter().map(|&id| stream.push(id).unwrap()).collect();
    assert_eq!(pieces, ["", "hello", ",", " hello", " wor", "ld", "!"]);
}

#[test]
fn bytes_that_are_no_text_do_not_block_a_stream() {
    let (_dir, tokenizer) = open(&byte_level());
    let mut stream = tokenizer.decode_stream();
    let half = tokenizer.encode("😀").unwrap()[0];
    let pieces: String = (0..9).map(|_| stream.push(half).unwrap()).collect();
    assert!(pieces.chars().count() >= 4 && pieces.chars().all(|c| c == '\u{FFFD}'), "{pieces:?}");
    let letter = stream.push(i64::from(b'x')).unwrap();
    assert!(letter.ends_with('x'), "{letter:?}");
    // Half a character at the end of all text.
    assert_eq!(stream.push(half).unwrap(), "");
    assert_eq!(stream.finish().unwrap(), "\u{FFFD}");
}

#[test]
fn ids_outside_the_vocabulary_are_refused() {
    let (_dir, tokenizer) = open(&word_piece());
    for id in [-1, 9, i64::MAX] {
        let error = tokenizer.decode(&[4, id]).unwrap_err().to_string();
        assert_eq!(error, format!("token id {id} is not in the vocabulary of 9 tokens"));
        assert!(tokenizer.decode_stream().push(id).is_err());
    }
}

#[test]
fn the_end_of_text_is_what_the_side_file_says() {
    let (dir, tokenizer) = open(&byte_level());
    assert_eq!(tokenizer.end_id(), Some(256), "by its usual name");
    let path = dir.path().join(FILE);
    assert_eq!(Tokenizer::beside(dir.path()), Some(path.clone()));
    assert_eq!(Tokenizer::beside(&dir.path().join("model.safetensors")), Some(path.clone()));
    for stated in [json!({"eos_token": "A"}), json!({"eos_token": {"content": "A"}})] {
        fs::write(dir.path().join(SIDE_FILE), stated.to_string()).unwrap();
        assert_eq!(Tokenizer::open(&path).unwrap().end_id(), Some(i64::from(b'A')));
    }
}

#[test]
fn a_file_that_is_no_tokenizer_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let refused = || Tokenizer::open(&path).err().expect("refused").to_string();
    assert!(refused().contains("tokenizer.json: is not a tokenizer.json: No such file"));
    for text in ["", "{}", "{\"model\": 3}", "[1, 2"] {
        fs::write(&path, text).unwrap();
        let error = refused();
        assert!(error.contains("is not a tokenizer.json") && error.lines().count() == 1, "{error}");
    }
}
