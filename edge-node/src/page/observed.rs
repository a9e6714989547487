//! The layer around the predictor that measures.

use std::{sync::Arc, time::Instant};

use super::Ledger;
use crate::serve::{InferError, InferRequest, ModelInfo, Prediction, Predictor};

/// Predicts as what it is around, and notes in a [`Ledger`] what it took.
pub struct Observed<P> {
    inner: Arc<P>,
    ledger: Arc<Ledger>,
}

impl<P> Observed<P> {
    pub fn new(inner: Arc<P>, ledger: Arc<Ledger>) -> Self {
        Self { inner, ledger }
    }
}

impl<P: Predictor> Predictor for Observed<P> {
    fn model(&self) -> ModelInfo {
        self.inner.model()
    }

    fn ready(&self) -> bool {
        self.inner.ready()
    }

    async fn predict(&self, request: InferRequest) -> Result<Prediction, InferError> {
        let begin = Instant::now();
        let entry = self.ledger.begin();
        let outcome = self.inner.predict(request).await;
        entry.ended(begin.elapsed().as_secs_f64() * 1e3, outcome.as_ref().ok());
        outcome
    }
}
