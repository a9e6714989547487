//! Models by name: the sizes that papers and libraries give them.
//!
//! A name stands for a whole [`ModelSpec`] wherever a model is named, and means the same everywhere.

use super::{LenetSpec, MlpSpec, ModelSpec};

impl ModelSpec {
    /// All names that [`ModelSpec::builtin`] knows.
    pub const BUILTIN: &'static [&'static str] = &["mlp", "lenet"];

    /// The model with this name; none if there is no such name.
    pub fn builtin(name: &str) -> Option<ModelSpec> {
        Some(match name {
            "mlp" => Self::Mlp(MlpSpec { input: [1, 8, 8], hidden: vec![128], classes: 10 }),
            "lenet" => Self::Lenet(LenetSpec {
                input: [1, 8, 8],
                channels: vec![32, 64],
                hidden: vec![128],
                classes: 10,
            }),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_model_that_can_be_built() {
        for name in ModelSpec::BUILTIN {
            let spec = ModelSpec::builtin(name).expect(name);
            assert_eq!(spec.check(), Ok(()), "{name}");
            assert!(spec.stage_count() > 0, "{name}");
        }
        assert_eq!(ModelSpec::builtin("LeNet"), None);
    }
}
