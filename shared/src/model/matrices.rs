//! Which parameters are the weight matrices that quantisation, pruning and LoRA work on.
//!
//! Weights of linear, convolution and recurrent layers; not biases, norms, running statistics, and not
//! the tables of embeddings, which are looked up and not multiplied (bitsandbytes and PEFT leave them
//! alone as well).

/// Parts of a name that mark an embedding, as Hugging Face's models have them.
const EMBEDDINGS: [&str; 3] = ["embed", "wte", "wpe"];

/// Whether the parameter of this name and rank is a weight matrix.
pub fn is_weight_matrix(name: &str, rank: usize) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    rank >= 2 && last.starts_with("weight") && !is_embedding(name)
}

/// Whether it is the matrix of a linear layer, and the layer's name: what LoRA may adapt.
pub fn linear_layer(name: &str, rank: usize) -> Option<&str> {
    let layer = name.strip_suffix(".weight")?;
    (rank == 2 && !is_embedding(name)).then_some(layer)
}

fn is_embedding(name: &str) -> bool {
    EMBEDDINGS.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_told_from_the_rest() {
        let matrix = [
            ("conv1.weight", 4),
            ("layer1.0.conv1.weight", 4),
            ("lstm.weight_hh_l0", 2),
            ("h.0.attn.c_attn.weight", 2),
        ];
        assert!(matrix.iter().all(|(name, rank)| is_weight_matrix(name, *rank)));
        let other = [
            ("fc1.bias", 1),
            ("bn1.weight", 1),
            ("wte.weight", 2),
            ("embeddings.word_embeddings.weight", 2),
            ("model.embed_tokens.weight", 2),
        ];
        assert!(!other.iter().any(|(name, rank)| is_weight_matrix(name, *rank)));
        assert_eq!(linear_layer("h.0.attn.c_attn.weight", 2), Some("h.0.attn.c_attn"));
        assert_eq!(linear_layer("conv1.weight", 4), None);
        assert_eq!(linear_layer("lstm.weight_hh_l0", 2), None);
    }
}
