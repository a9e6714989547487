//! A node's sessions, shared by its streams and published as metrics.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use metrics::gauge;

use super::{Limits, SessionError, Sessions};

/// Cheap to clone; all clones are one table.
#[derive(Clone)]
pub struct SessionTable(Arc<Shared>);

struct Shared {
    sessions: Mutex<Sessions>,
    start: Instant,
    /// `edge` or `cloud`, the label of the metrics.
    node: &'static str,
}

/// A session that was let in; dropping it gives back what it had.
pub struct Lease {
    table: SessionTable,
    id: String,
}

impl SessionTable {
    pub fn new(limits: Limits, node: &'static str) -> Self {
        let sessions = Mutex::new(Sessions::new(limits));
        Self(Arc::new(Shared { sessions, start: Instant::now(), node }))
    }

    /// See [`Sessions::open`].
    pub fn open(&self, id: &str, owner: &str, reserve: usize) -> Result<Lease, SessionError> {
        self.change(|sessions, now| sessions.open(id, owner, reserve, now))?;
        Ok(Lease { table: self.clone(), id: id.into() })
    }

    /// Sessions and bytes of their caches now.
    pub fn in_use(&self) -> (usize, usize) {
        let sessions = self.sessions();
        (sessions.count(), sessions.used())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Sessions, Duration) -> T) -> T {
        let mut sessions = self.sessions();
        let outcome = change(&mut sessions, self.0.start.elapsed());
        let set = |name: &'static str, value: usize| {
            gauge!(name, "node" => self.0.node).set(value as f64);
        };
        set("cleave_sessions", sessions.count());
        set("cleave_cache_bytes", sessions.used());
        set("cleave_cache_reserved_bytes", sessions.reserved());
        outcome
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.0.sessions.lock().unwrap_or_else(|p| p.into_inner())
    }
}

impl Lease {
    pub fn id(&self) -> &str {
        &self.id
    }

    /// See [`Sessions::touch`].
    pub fn touch(&self, used: usize) {
        self.table.change(|sessions, now| sessions.touch(&self.id, used, now));
    }

    /// When the session ends unless it does something.
    pub fn expires(&self) -> Instant {
        let shared = &self.table.0;
        let after = self.table.sessions().expires(&self.id);
        shared.start + after.unwrap_or_default()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.table.change(|sessions, _| sessions.close(&self.id));
    }
}
