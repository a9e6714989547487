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
    /// What one owner may have of both.
    pub each: Share,
    /// How long a session may do nothing.
    pub idle: Duration,
}

/// A part of a node; all of it where there is no number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    pub sessions: Option<usize>,
    pub bytes: Option<usize>,
}

/// Why a session was not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error("all {most} sessions are in use; retry later or raise max_sessions")]
    Sessions { most: usize },
    #[error("a cache of {asked} bytes: {free} of {most} are free; retry later or ask for less")]
    Bytes { asked: usize, free: usize, most: usize },
    #[error(
        "this edge has {most} sessions and may not have more (security.quota.sessions); end one or \
         retry later"
    )]
    OwnSessions { most: usize },
    #[error(
        "a cache of {asked} bytes: {free} of the {most} that this edge may have are free \
         (security.quota.cache_bytes); retry later or ask for less"
    )]
    OwnBytes { asked: usize, free: usize, most: usize },
    #[error("session {0:?} is open already")]
    Taken(String),
}

#[derive(Debug)]
struct Session {
    owner: String,
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

    /// Lets a session of this owner in whose caches take at most `reserve` bytes.
    pub fn open(
        &mut self,
        id: &str,
        owner: &str,
        reserve: usize,
        now: Duration,
    ) -> Result<(), SessionError> {
        let Limits { sessions: most, bytes, .. } = self.limits;
        if self.open.contains_key(id) {
            return Err(SessionError::Taken(id.into()));
        }
        self.check_share(owner, reserve)?;
        if self.open.len() >= most {
            return Err(SessionError::Sessions { most });
        }
        let free = bytes - self.reserved();
        if reserve > free {
            return Err(SessionError::Bytes { asked: reserve, free, most: bytes });
        }
        let session = Session { owner: owner.into(), reserved: reserve, used: 0, active: now };
        self.open.insert(id.into(), session);
        Ok(())
    }

    /// Whether the owner may have one more.
    fn check_share(&self, owner: &str, reserve: usize) -> Result<(), SessionError> {
        let Share { sessions, bytes } = self.limits.each;
        let own = || self.open.values().filter(move |session| session.owner == owner);
        if let Some(most) = sessions.filter(|most| own().count() >= *most) {
            return Err(SessionError::OwnSessions { most });
        }
        let Some(most) = bytes else { return Ok(()) };
        let free = most - own().map(|session| session.reserved).sum::<usize>();
        match reserve <= free {
            true => Ok(()),
            false => Err(SessionError::OwnBytes { asked: reserve, free, most }),
        }
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

    const LIMITS: Limits = Limits {
        sessions: 3,
        bytes: 100,
        each: Share { sessions: Some(2), bytes: Some(70) },
        idle: Duration::from_secs(10),
    };

    proptest! {
        #[test]
        fn limits_hold_whatever_happens(
            actions in prop::collection::vec((0u8..3, 0u8..6, 0u8..3, 0usize..120), 0..60),
        ) {
            let mut sessions = Sessions::new(LIMITS);
            let mut model: HashMap<String, (u8, usize)> = HashMap::new();
            for (i, (action, id, owner, bytes)) in actions.into_iter().enumerate() {
                let (id, now) = (id.to_string(), Duration::from_secs(i as u64));
                match action {
                    0 => {
                        let all = model.values().map(|(_, bytes)| bytes);
                        let own: Vec<usize> = model.values()
                            .filter(|(o, _)| *o == owner)
                            .map(|(_, bytes)| *bytes)
                            .collect();
                        let fits = !model.contains_key(&id)
                            && model.len() < 3
                            && bytes + all.sum::<usize>() <= 100
                            && own.len() < 2
                            && bytes + own.iter().sum::<usize>() <= 70;
                        let opened = sessions.open(&id, &owner.to_string(), bytes, now);
                        prop_assert_eq!(opened.is_ok(), fits);
                        if fits {
                            model.insert(id.clone(), (owner, bytes));
                        }
                    }
                    1 => {
                        let used = model.get(&id).map_or(0, |(_, reserved)| bytes.min(*reserved));
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
                let promised = model.values().map(|(_, bytes)| bytes).sum::<usize>();
                prop_assert_eq!(sessions.reserved(), promised);
                prop_assert!(sessions.used() <= sessions.reserved());
            }
        }
    }

    #[test]
    fn a_refusal_says_what_is_free() {
        let mut sessions = Sessions::new(LIMITS);
        let mut open = |id, owner, reserve| sessions.open(id, owner, reserve, Duration::ZERO);
        open("a", "one", 70).unwrap();
        let text = open("b", "two", 31).unwrap_err().to_string();
        assert_eq!(text, "a cache of 31 bytes: 30 of 100 are free; retry later or ask for less");
        assert_eq!(open("a", "two", 1), Err(SessionError::Taken("a".into())));
    }

    #[test]
    fn one_owner_leaves_room_for_others() {
        let mut sessions = Sessions::new(LIMITS);
        let mut open = |id, owner, reserve| sessions.open(id, owner, reserve, Duration::ZERO);
        open("a", "one", 60).unwrap();
        let much = open("b", "one", 11).unwrap_err();
        assert_eq!(much, SessionError::OwnBytes { asked: 11, free: 10, most: 70 });
        open("b", "one", 10).unwrap();
        let many = open("c", "one", 0).unwrap_err();
        assert_eq!(many, SessionError::OwnSessions { most: 2 });
        assert!(many.to_string().contains("security.quota.sessions"), "{many}");
        open("c", "two", 30).unwrap();
    }
}
