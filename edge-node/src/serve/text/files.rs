//! The files that come with a language model beside its weights.
//!
//! Hugging Face's names: `tokenizer.json`, and in the same folder `chat_template.jinja` or the
//! `chat_template` of `tokenizer_config.json`, the special tokens of `tokenizer_config.json`, and the
//! `eos_token_id` of `generation_config.json` (one, or several as instruction-tuned models have).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use cleave_shared::text::Tokenizer;
use serde_json::{Map, Value};

use super::ChatTemplate;

const TEMPLATE: &str = "chat_template.jinja";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";

/// What text generation needs beside the model.
pub struct TextFiles {
    pub tokenizer: Option<Tokenizer>,
    /// Or why there is none: a chat is then refused with this text.
    pub template: Result<ChatTemplate, String>,
    /// Token ids that end an answer.
    pub ends: Vec<i64>,
}

impl TextFiles {
    /// Opens the tokenizer and what is beside it. A template that does not compile is no error here:
    /// completions work without one.
    pub fn open(tokenizer: Option<&Path>) -> Result<Self, String> {
        let Some(path) = tokenizer else {
            let template = Err("this edge has no tokenizer: set weights.tokenizer".into());
            return Ok(Self { tokenizer: None, template, ends: Vec::new() });
        };
        let tokenizer = Tokenizer::open(path).map_err(|e| e.to_string())?;
        let config = read_object(&path.with_file_name(TOKENIZER_CONFIG))?;
        let template = template(path, &config);
        if let Err(why) = &template {
            tracing::info!("/v1/chat/completions is not available: {why}");
        }
        let generation = read_object(&path.with_file_name(GENERATION_CONFIG))?;
        let mut ends: Vec<i64> = match generation.get("eos_token_id") {
            Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_i64).collect(),
            Some(id) => id.as_i64().into_iter().collect(),
            None => Vec::new(),
        };
        ends.extend(tokenizer.end_id().filter(|id| !ends.contains(id)));
        Ok(Self { tokenizer: Some(tokenizer), template, ends })
    }
}

fn template(tokenizer: &Path, config: &Map<String, Value>) -> Result<ChatTemplate, String> {
    let file = tokenizer.with_file_name(TEMPLATE);
    let (source, place) = if file.is_file() {
        (fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?, file)
    } else if let Some(source) = configured(config) {
        (source, tokenizer.with_file_name(TOKENIZER_CONFIG))
    } else {
        let beside: PathBuf = tokenizer.parent().unwrap_or(Path::new(".")).into();
        return Err(format!(
            "the model has no chat template: put {TEMPLATE}, or a {TOKENIZER_CONFIG} with \
             chat_template, into {}",
            beside.display()
        ));
    };
    ChatTemplate::new(source, special_tokens(config))
        .map_err(|problem| format!("{}: chat template: {problem}", place.display()))
}

/// `chat_template`: a text, or a list of named ones with a default.
fn configured(config: &Map<String, Value>) -> Option<String> {
    let stated = config.get("chat_template")?;
    let named = || {
        let list = stated.as_array()?;
        list.iter().find(|t| t["name"] == "default")?["template"].as_str()
    };
    stated.as_str().or_else(named).map(String::from)
}

/// `bos_token` and its like: a string, or an object with `content`.
fn special_tokens(config: &Map<String, Value>) -> BTreeMap<String, String> {
    let token = |value: &Value| {
        let text = value.as_str().or_else(|| value.get("content")?.as_str());
        text.map(String::from)
    };
    let named = config.iter().filter(|(name, _)| name.ends_with("_token"));
    named.filter_map(|(name, value)| Some((name.clone(), token(value)?))).collect()
}

/// The JSON object in a file; empty if there is no file.
fn read_object(path: &Path) -> Result<Map<String, Value>, String> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| format!("{}: {e}", path.display())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Map::new()),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}
