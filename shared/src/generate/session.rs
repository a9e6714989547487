//! Which sequences a node continues and what their caches take: a pure state machine.
//!
//! A session reserves its caches at their largest before it begins, so that one which was let in never
//! fails for want of room. Time is handed in, as the time since some start.

use std::{collections::HashMap, time::Duration};

/// What one node allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most sessions at once.
    pub sessions: usize,
    /// Most bytes of all their caches together.
    pub bytes: usize,
    /// How long a session may do nothing.
    pub idle: Duration,
}

/// Why a session was not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error("all {most} sessions are in use; retry later or raise max_sessions")]
    Sessions { most: usize },
    #[error("a cache of {asked} bytes: {free} of {most} are free; retry later or ask for less")]
    Bytes { asked: usize, free: usize, most: usize },
    #[error("session {0:?} is open already")]
    Taken(String),
}

#[derive(Debug)]
struct Session {
    reserved: usize,
    used: usize,
    /// When it last did something.
    active: Duration,
}

/// All sessions of a node.
#[derive(Debug)]
pub struct Sessions {
    limits: Limits,
    open: HashMap<String, Session>,
}

impl Sessions {
    pub fn new(limits: Limits) -> Self {
        Self { limits, open: HashMap::new() }
    }

    /// Lets a session in whose caches take at most `reserve` bytes.
    pub fn open(&mut self, id: &str, reserve: usize, now: Duration) -> Result<(), SessionError> {
        let Limits { sessions: most, bytes, .. } = self.limits;
        if self.open.contains_key(id) {
            return Err(SessionError::Taken(id.into()));
        }
        if self.open.len() >= most {
            return Err(SessionError::Sessions { most });
        }
        let free = bytes - self.reserved();
        if reserve > free {
            return Err(SessionError::Bytes { asked: reserve, free, most: bytes });
        }
        self.open.insert(id.into(), Session { reserved: reserve, used: 0, active: now });
        Ok(())
    }

    /// The session did something, and its caches take `used` bytes now.
    pub fn touch(&mut self, id: &str, used: usize, now: Duration) {
        if let Some(session) = self.open.get_mut(id) {
            (session.used, session.active) = (used, now);
        }
    }

    /// When the session ends unless it does something.
    pub fn expires(&self, id: &str) -> Option<Duration> {
        self.open.get(id).map(|session| session.active.saturating_add(self.limits.idle))
    }

    /// Gives back what the session had.
    pub fn close(&mut self, id: &str) {
        self.open.remove(id);
    }

    pub fn count(&self) -> usize {
        self.open.len()
    }

    /// Bytes promised.
    pub fn reserved(&self) -> usize {
        self.open.values().map(|s| s.reserved).sum()
    }

    /// Bytes that caches take.
    pub fn used(&self) -> usize {
        self.open.values().map(|s| s.used).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { sessions: 3, bytes: 100, idle: Duration::from_secs(10) };

    proptest! {
        #[test]
        fn limits_hold_whatever_happens(
            actions in prop::collection::vec((0u8..3, 0u8..6, 0usize..120), 0..60),
        ) {
            let mut sessions = Sessions::new(LIMITS);
            let mut model: HashMap<String, usize> = HashMap::new();
            for (i, (action, id, bytes)) in actions.into_iter().enumerate() {
                let (id, now) = (id.to_string(), Duration::from_secs(i as u64));
                match action {
                    0 => {
                        let room = 100 - model.values().sum::<usize>();
                        let fits = !model.contains_key(&id) && model.len() < 3 && bytes <= room;
                        prop_assert_eq!(sessions.open(&id, bytes, now).is_ok(), fits);
                        if fits {
                            model.insert(id.clone(), bytes);
                        }
                    }
                    1 => {
                        let used = model.get(&id).copied().unwrap_or(0).min(bytes);
                        sessions.touch(&id, used, now);
                        let expires = model.get(&id).map(|_| now + LIMITS.idle);
                        prop_assert_eq!(sessions.expires(&id), expires);
                    }
                    _ => {
                        sessions.close(&id);
                        model.remove(&id);
                    }
                }
                prop_assert_eq!(sessions.count(), model.len());
                prop_assert_eq!(sessions.reserved(), model.values().sum::<usize>());
                prop_assert!(sessions.used() <= sessions.reserved());
            }
        }
    }

    #[test]
    fn a_refusal_says_what_is_free() {
        let mut sessions = Sessions::new(LIMITS);
        sessions.open("a", 70, Duration::ZERO).unwrap();
        let text = sessions.open("b", 31, Duration::ZERO).unwrap_err().to_string();
        assert_eq!(text, "a cache of 31 bytes: 30 of 100 are free; retry later or ask for less");
        assert_eq!(sessions.open("a", 1, Duration::ZERO), Err(SessionError::Taken("a".into())));
    }
}
