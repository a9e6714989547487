//! When a node is asked to end.

use std::{future::pending, process};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// Completes on SIGTERM (docker stop, kubernetes) and on SIGINT (Ctrl-C).
pub async fn requested() {
    let Some(mut signals) = Signals::new() else { return pending().await };
    signals.next().await;
    tracing::info!("asked to end");
}

/// Whether this process was asked to end, for work that ends at a place of its own choice.
#[derive(Debug, Clone)]
pub struct Ending(watch::Receiver<bool>);

impl Ending {
    /// Listens for the rest of the process's life. Asked a second time it ends at once, as it would have the first
    /// time: whatever it waits for does not hold it.
    pub fn listen() -> Self {
        let (told, asked) = watch::channel(false);
        let Some(mut signals) = Signals::new() else { return Self(asked) };
        tokio::spawn(async move {
            signals.next().await;
            tracing::info!("asked to end; asked again, it ends at once");
            told.send_replace(true);
            let number = signals.next().await;
            // As shells say it of a process that a signal ended.
            process::exit(128 + number);
        });
        Self(asked)
    }

    /// Of work that whoever runs it ends.
    pub fn never() -> Self {
        Self(watch::channel(false).1)
    }

    pub fn is_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Completes when the process is asked.
    pub async fn asked(&self) {
        let mut told = self.0.clone();
        let is_told = told.wait_for(|asked| *asked).await.is_ok();
        if !is_told {
            pending().await
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// None without handlers: then the system's default, ending at once, is in force.
    fn new() -> Option<Self> {
        let terminate = signal(SignalKind::terminate()).ok()?;
        let interrupt = signal(SignalKind::interrupt()).ok()?;
        Some(Self { terminate, interrupt })
    }

    /// The number of the next one.
    async fn next(&mut self) -> i32 {
        let kind = tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        };
        kind.as_raw_value()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn who_waits_hears_of_it() {
        let (told, asked) = watch::channel(false);
        let ending = Ending(asked);
        assert!(!ending.is_asked());
        told.send_replace(true);
        drop(told);
        ending.asked().await;
        assert!(ending.is_asked());
    }

    #[tokio::test]
    async fn nobody_asks_what_never_ends() {
        let ending = Ending::never();
        assert!(!ending.is_asked());
        assert!(timeout(Duration::from_millis(10), ending.asked()).await.is_err());
    }
}
