//! What clients of the protocol's extensions look at and change: the other end of [`Control`].

use std::sync::Arc;

use http::HeaderMap;
use tokio::sync::mpsc;

use crate::{
    page::Ledger,
    reconfigure::{Setting, Unfulfilled, Wish, ask},
    serve::{Access, Control, Gate, InferError, Refused, Statistics},
};

pub struct Operations {
    pub ledger: Arc<Ledger>,
    pub gate: Gate,
    pub access: Arc<Access>,
    pub wishes: mpsc::Sender<Wish>,
}

#[tonic::async_trait]
impl Control for Operations {
    fn statistics(&self) -> Statistics {
        self.ledger.statistics()
    }

    async fn load(&self) -> Result<(), InferError> {
        ask(&self.wishes, Setting::Newest).await.map_err(|why| match why {
            Unfulfilled::Busy => InferError::Busy(why.to_string()),
            Unfulfilled::Late => InferError::Deadline(why.to_string()),
            Unfulfilled::Refused(_) | Unfulfilled::Ending => {
                InferError::Unavailable(why.to_string())
            }
        })?;
        self.gate.set(true);
        tracing::info!("loaded by a client");
        Ok(())
    }

    fn unload(&self) {
        self.gate.set(false);
        tracing::info!("unloaded by a client");
    }

    fn may_change(&self, headers: &HeaderMap) -> Result<(), Refused> {
        self.access.check(headers)
    }
}
