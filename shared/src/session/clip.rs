//! Gradient clipping by the norm over both halves (Pascanu et al. 2013), as
//! `torch.nn.utils.clip_grad_norm_` does over a whole model.

/// What all gradients are multiplied by, so that their norm, from the sum of their squares, is at most
/// `most`.
pub fn clip_scale(square: f64, most: Option<f64>) -> f64 {
    // PyTorch's guard against a norm of zero.
    most.map_or(1.0, |most| (most / (square.sqrt() + 1e-6)).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_gradients_are_scaled() {
        assert_eq!(clip_scale(4.0, None), 1.0);
        assert_eq!(clip_scale(4.0, Some(3.0)), 1.0);
        assert!((clip_scale(16.0, Some(2.0)) - 0.5).abs() < 1e-6);
        assert_eq!(clip_scale(0.0, Some(1.0)), 1.0);
    }
}
