//! Names of codecs: `BASE[+zstd|+lz4]`, where a base may have a parameter, as in `topk:0.1+zstd`.

use std::{fmt, str::FromStr, sync::Arc};

use super::{
    BF16, Compressed, F16, F32, Int4, Int8, LEARNED, Lossless, RandK, Share, SharedCodec, TopK,
};

/// What `codec.allowed` may list: every base without its parameter, every lossless stage, and what is learned.
pub const FAMILIES: [&str; 10] =
    ["f32", "f16", "bf16", "int8", "int4", "topk", "randk", "zstd", "lz4", LEARNED];

/// Why a name is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error(
        "{name:?} is unknown; allowed: f32, f16, bf16, int8, int4, topk:SHARE, randk:SHARE, and behind \
         any of them +zstd or +lz4"
    )]
    Unknown { name: String },
    #[error("{name:?}: {problem}")]
    Parameter { name: String, problem: String },
    /// By what [`super::Codecs`] were told.
    #[error("{name:?} is not allowed; allowed: {allowed} (codec.allowed)")]
    Refused { name: String, allowed: String },
}

/// A name, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct CodecName {
    pub base: Base,
    pub lossless: Option<Lossless>,
}

/// What turns floats into bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Base {
    F32,
    F16,
    BF16,
    Int8,
    Int4,
    TopK(Share),
    RandK(Share),
}

/// The codec with this name.
pub fn by_name(name: &str) -> Result<SharedCodec, CodecError> {
    Ok(name.parse::<CodecName>()?.build())
}

impl CodecName {
    /// The families that it is made of, as `codec.allowed` lists them.
    pub fn families(&self) -> impl Iterator<Item = &'static str> {
        let base = match self.base {
            Base::F32 => "f32",
            Base::F16 => "f16",
            Base::BF16 => "bf16",
            Base::Int8 => "int8",
            Base::Int4 => "int4",
            Base::TopK(_) => "topk",
            Base::RandK(_) => "randk",
        };
        [Some(base), self.lossless.map(Lossless::name)].into_iter().flatten()
    }

    pub fn build(&self) -> SharedCodec {
        let base: SharedCodec = match self.base {
            Base::F32 => Arc::new(F32),
            Base::F16 => Arc::new(F16),
            Base::BF16 => Arc::new(BF16),
            Base::Int8 => Arc::new(Int8),
            Base::Int4 => Arc::new(Int4),
            Base::TopK(share) => Arc::new(TopK::new(share)),
            Base::RandK(share) => Arc::new(RandK::new(share)),
        };
        match self.lossless {
            None => base,
            Some(stage) => Arc::new(Compressed::new(base, stage)),
        }
    }
}

impl FromStr for CodecName {
    type Err = CodecError;

    fn from_str(name: &str) -> Result<Self, CodecError> {
        let unknown = || CodecError::Unknown { name: name.into() };
        let (base, lossless) = match name.split_once('+') {
            None => (name, None),
            Some((base, stage)) => (base, Some(Lossless::by_name(stage).ok_or_else(unknown)?)),
        };
        let share = |text: &str| {
            let problem = |problem| CodecError::Parameter { name: name.into(), problem };
            text.parse::<Share>().map_err(problem)
        };
        let base = match base.split_once(':') {
            None => match base {
                "f32" => Base::F32,
                "f16" => Base::F16,
                "bf16" => Base::BF16,
                "int8" => Base::Int8,
                "int4" => Base::Int4,
                _ => return Err(unknown()),
            },
            Some(("topk", text)) => Base::TopK(share(text)?),
            Some(("randk", text)) => Base::RandK(share(text)?),
            Some(_) => return Err(unknown()),
        };
        Ok(Self { base, lossless })
    }
}

impl fmt::Display for CodecName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.build().name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codec_keeps_its_name() {
        for name in [
            "f32",
            "f16",
            "bf16",
            "int8",
            "int4",
            "topk:0.1",
            "randk:0.25",
            "topk:1",
            "f32+zstd",
            "int8+lz4",
            "topk:0.01+zstd",
        ] {
            assert_eq!(by_name(name).unwrap().name(), name);
        }
    }

    #[test]
    fn what_is_no_name_is_refused_in_one_line_that_says_what_is() {
        for name in ["", "f13", "int8+gzip", "int8+", "+zstd", "int8:4", "topk", "f32+zstd+lz4"] {
            let error = by_name(name).err().unwrap().to_string();
            assert!(error.starts_with(&format!("{name:?} is unknown; allowed: f32, ")), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
        for share in ["0", "-0.1", "1.1", "nan", "inf", "", "a", "1e-9"] {
            let error = by_name(&format!("topk:{share}")).err().unwrap().to_string();
            assert!(error.contains("allowed: 0.0001 to 1"), "{error}");
        }
    }

    #[test]
    fn every_family_is_part_of_a_name() {
        let names = ["f32+zstd", "f16+lz4", "bf16", "int8", "int4", "topk:0.5", "randk:0.5"];
        let found: Vec<_> = names
            .iter()
            .flat_map(|name| name.parse::<CodecName>().unwrap().families().collect::<Vec<_>>())
            .collect();
        let mut others = FAMILIES.iter().filter(|family| **family != LEARNED);
        assert!(others.all(|family| found.contains(family)), "{found:?}");
    }
}
