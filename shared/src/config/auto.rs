//! Values that are a number, or left to the node: `"auto"`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) const AUTO: &str = "auto";

/// None for `"auto"`; `expected` says what else there may be.
pub(super) fn deserialize<'de, D, N>(deserializer: D, expected: &str) -> Result<Option<N>, D::Error>
where
    D: Deserializer<'de>,
    N: Deserialize<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written<N> {
        Number(N),
        Word(String),
    }
    match Written::deserialize(deserializer) {
        Ok(Written::Number(n)) => Ok(Some(n)),
        Ok(Written::Word(word)) if word == AUTO => Ok(None),
        _ => Err(serde::de::Error::custom(format!("expected {expected} or \"auto\""))),
    }
}

pub(super) fn serialize<S: Serializer>(
    number: Option<impl Serialize>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match number {
        Some(n) => n.serialize(serializer),
        None => serializer.serialize_str(AUTO),
    }
}
