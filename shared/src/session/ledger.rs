//! The cloud's memory of which steps it has applied.

/// Applied steps are `1..=live`; the reply to the last one is kept for an edge that lost it.
#[derive(Debug)]
pub struct Ledger<R> {
    live: u64,
    last: Option<R>,
}

/// What to do with a step that came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission<'a, R> {
    /// It is the next one.
    Apply,
    /// It was applied already; this was the reply.
    Replay(&'a R),
}

/// A step that is neither the next nor the last.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {found} is out of order: the cloud expects step {expected}; open the run again")]
pub struct OutOfOrder {
    pub expected: u64,
    pub found: u64,
}

impl<R> Ledger<R> {
    /// A ledger whose state is that after step `live`.
    pub fn at(live: u64) -> Self {
        Self { live, last: None }
    }

    pub fn live(&self) -> u64 {
        self.live
    }

    /// Whether the last step's reply can be given again.
    pub fn can_replay(&self) -> bool {
        self.last.is_some()
    }

    pub fn admit(&self, id: u64) -> Result<Admission<'_, R>, OutOfOrder> {
        match &self.last {
            _ if id == self.live + 1 => Ok(Admission::Apply),
            Some(reply) if id == self.live => Ok(Admission::Replay(reply)),
            _ => Err(OutOfOrder { expected: self.live + 1, found: id }),
        }
    }

    /// Records that the admitted step was applied.
    pub fn commit(&mut self, reply: R) -> &R {
        self.live += 1;
        self.last.insert(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resent_step_is_answered_but_not_applied() {
        let mut ledger = Ledger::at(4);
        assert_eq!(ledger.admit(5), Ok(Admission::Apply));
        ledger.commit("five");
        assert_eq!(ledger.admit(5), Ok(Admission::Replay(&"five")));
        assert_eq!(ledger.admit(6), Ok(Admission::Apply));
    }

    #[test]
    fn a_restored_ledger_has_no_reply_to_give_again() {
        let ledger = Ledger::<()>::at(4);
        assert_eq!(ledger.admit(4), Err(OutOfOrder { expected: 5, found: 4 }));
        assert_eq!(ledger.admit(6), Err(OutOfOrder { expected: 5, found: 6 }));
    }
}
