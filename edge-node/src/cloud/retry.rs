//! A call that was lost is made again: running a tail twice is the same as once.

use std::{sync::Arc, time::Duration};

use tokio::time::Sleep;
use tonic::{Code, Status};
use tower::retry::{
    Policy,
    budget::{Budget, TpsBudget},
};

use super::{InferAnswer, InferCall};

/// Before the first repetition; then twice as long each time.
const FIRST: Duration = Duration::from_millis(50);
/// Repetitions for each call that ends well, and for each second where there are few.
const SHARE: f32 = 0.2;
const EACH_SECOND: u32 = 10;
/// How long a call that ended well counts.
const MEMORY: Duration = Duration::from_secs(10);

/// When and how often. The budget is that of all calls: a cloud in trouble is not asked many times as often.
#[derive(Clone)]
pub struct Again {
    left: u32,
    pause: Duration,
    budget: Arc<TpsBudget>,
}

impl Again {
    /// At most so many times.
    pub fn new(retries: u32) -> Self {
        let budget = Arc::new(TpsBudget::new(MEMORY, EACH_SECOND, SHARE));
        Self { left: retries, pause: FIRST, budget }
    }
}

/// Whether another try may end otherwise. Weights that are not found are those of a cloud that was not asked before:
/// the edge brings them.
pub fn is_transient(status: &Status) -> bool {
    // A connection that breaks in the middle of a call comes as one of the first three.
    let codes = [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::NotFound];
    codes.contains(&status.code())
}

impl Policy<InferCall, InferAnswer, Status> for Again {
    type Future = Sleep;

    fn retry(
        &mut self,
        _: &mut InferCall,
        result: &mut Result<InferAnswer, Status>,
    ) -> Option<Sleep> {
        let Err(status) = result else {
            self.budget.deposit();
            return None;
        };
        if !is_transient(status) || self.left == 0 || !self.budget.withdraw() {
            return None;
        }
        metrics::counter!("cleave_retries_total").increment(1);
        // Calls that failed together do not come back together.
        let pause = self.pause.mul_f64(rand::random_range(0.5..1.5));
        (self.left, self.pause) = (self.left - 1, 2 * self.pause);
        Some(tokio::time::sleep(pause))
    }

    fn clone_request(&mut self, call: &InferCall) -> Option<InferCall> {
        // Tensors are reference-counted.
        Some(call.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::join_all;
    use tower::{ServiceBuilder, ServiceExt, service_fn};

    use super::*;

    fn call() -> InferCall {
        InferCall {
            agreement: Default::default(),
            activation: Vec::new(),
            output_bytes: 0,
            deadline: None,
        }
    }

    /// Calls a cloud that fails so often with this code; whether it went well, and how often it was asked.
    async fn asked(again: Again, failures: u32, code: Code) -> (bool, u32) {
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        let cloud = service_fn(move |_: InferCall| {
            let fails = counted.fetch_add(1, Ordering::Relaxed) < failures;
            async move {
                match fails {
                    true => Err(Status::new(code, "lost")),
                    false => Ok(InferAnswer {
                        reply: Default::default(),
                        uplink_ms: 0.0,
                        downlink_ms: 0.0,
                    }),
                }
            }
        });
        let service = ServiceBuilder::new().retry(again).service(cloud);
        (service.oneshot(call()).await.is_ok(), count.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_lost_is_sent_again_but_not_for_ever() {
        assert_eq!(asked(Again::new(3), 2, Code::Unavailable).await, (true, 3));
        assert_eq!(asked(Again::new(3), 9, Code::Unavailable).await, (false, 4));
        assert_eq!(asked(Again::new(0), 1, Code::Unavailable).await, (false, 1));
        for wrong in [Code::InvalidArgument, Code::PermissionDenied, Code::ResourceExhausted] {
            assert_eq!(asked(Again::new(3), 1, wrong).await, (false, 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_that_of_all_calls() {
        let again = Again::new(3);
        let calls = (0..200).map(|_| asked(again.clone(), u32::MAX, Code::Unavailable));
        let sent: u32 = join_all(calls).await.into_iter().map(|(_, times)| times).sum();
        // Each call is sent once, and what the budget has for some seconds comes on top: all would be 800.
        assert!((210..400).contains(&sent), "{sent}");
    }
}
