//! Whether the model is loaded: clients of the protocol's repository may unload it and load it again.

use std::sync::Arc;

use tokio::sync::watch;

use super::{
    Events, Generation, Generator, InferError, InferRequest, ModelInfo, Prediction, Predictor,
};

/// Open while the model is loaded; all clones are one gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(true)))
    }
}

impl Gate {
    pub fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    pub fn set(&self, open: bool) {
        self.0.send_replace(open);
    }

    /// For who has to be told when it opens or closes.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }

    fn pass(&self) -> Result<(), InferError> {
        let why = "the model is unloaded; load it with /v2/repository/models/NAME/load";
        self.is_open().then_some(()).ok_or_else(|| InferError::Unavailable(why.into()))
    }
}

/// What it is around, while the gate is open. What is under way when it closes is finished.
pub struct Gated<T> {
    inner: Arc<T>,
    gate: Gate,
}

impl<T> Gated<T> {
    pub fn new(inner: Arc<T>, gate: Gate) -> Self {
        Self { inner, gate }
    }
}

impl<P: Predictor> Predictor for Gated<P> {
    fn model(&self) -> ModelInfo {
        self.inner.model()
    }

    fn ready(&self) -> bool {
        self.gate.is_open() && self.inner.ready()
    }

    async fn predict(&self, request: InferRequest) -> Result<Prediction, InferError> {
        self.gate.pass()?;
        self.inner.predict(request).await
    }
}

impl<G: Generator> Generator for Gated<G> {
    fn positions(&self) -> usize {
        self.inner.positions()
    }

    async fn generate(&self, request: Generation) -> Result<Events, InferError> {
        self.gate.pass()?;
        self.inner.generate(request).await
    }
}
