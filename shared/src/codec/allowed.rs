//! The codecs that a node takes from its peer, by name.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use super::{CodecError, CodecName, SharedCodec};

/// Names that are remembered; a peer could think of any number.
const MOST: usize = 64;

/// What `codec.allowed` allows. A name that was asked for is remembered, so that a request pays for a look
/// into a map.
pub struct Codecs {
    allowed: Vec<String>,
    known: RwLock<HashMap<String, SharedCodec>>,
}

impl Codecs {
    /// `allowed` are some of [`super::FAMILIES`].
    pub fn new(allowed: &[String]) -> Self {
        Self { allowed: allowed.to_vec(), known: RwLock::default() }
    }

    /// The codec with this name, if all it is made of is allowed.
    pub fn get(&self, name: &str) -> Result<SharedCodec, CodecError> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(codec) = known {
            return Ok(codec);
        }
        let parsed: CodecName = name.parse()?;
        if !parsed.families().all(|family| self.allowed.iter().any(|a| a == family)) {
            let allowed = self.allowed.join(", ");
            return Err(CodecError::Refused { name: name.into(), allowed });
        }
        let codec = parsed.build();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(name.into(), codec.clone());
        Ok(codec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_of_a_name_have_to_be_allowed() {
        let codecs = Codecs::new(&["f32".into(), "topk".into(), "zstd".into()]);
        for name in ["f32", "topk:0.1", "f32+zstd", "topk:0.3+zstd", "f32"] {
            assert_eq!(codecs.get(name).unwrap().name(), name);
        }
        for name in ["int8", "f32+lz4", "int8+zstd"] {
            let error = codecs.get(name).err().unwrap().to_string();
            assert_eq!(
                error,
                format!("{name:?} is not allowed; allowed: f32, topk, zstd (codec.allowed)")
            );
        }
    }

    #[test]
    fn any_number_of_names_is_served_from_bounded_memory() {
        let codecs = Codecs::new(&["topk".into()]);
        for n in 1..=3 * MOST {
            codecs.get(&format!("topk:{}", n as f64 / 1000.0)).unwrap();
        }
        assert!(codecs.known.read().unwrap().len() <= MOST);
    }
}
