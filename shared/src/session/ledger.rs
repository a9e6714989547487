//! The cloud's memory of which steps it has prepared and committed.

/// Steps `1..=live` are committed. Of step `live + 1`, micro-batches may have been added up; they count
/// for nothing before the commit, and can be begun anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    live: u64,
    /// Of step `live + 1`: micro-batches added up, and how many it has.
    prepared: Option<(u32, u32)>,
}

/// Where a micro-batch stands in its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Drop what was added up before.
    pub first: bool,
    /// With it the step can be committed.
    pub last: bool,
}

/// What to do with a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commitment {
    Apply,
    /// It was applied already.
    Done,
}

/// A message that does not follow from those before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutOfOrder {
    #[error("step {found} is out of order: the cloud expects step {expected}; open the run again")]
    Step { expected: u64, found: u64 },
    #[error(
        "micro-batch {found} of {count} of step {step} is out of order: the cloud expects \
         {expected}; open the run again"
    )]
    MicroBatch { step: u64, expected: u32, found: u32, count: u32 },
    #[error(
        "step {step} cannot be committed: {done} of its micro-batches came; open the run again"
    )]
    Incomplete { step: u64, done: u32 },
}

impl Ledger {
    /// A ledger whose state is that after step `live`.
    pub fn at(live: u64) -> Self {
        Self { live, prepared: None }
    }

    pub fn live(&self) -> u64 {
        self.live
    }

    /// Whether step `live + 1` waits for nothing but its commit.
    pub fn is_prepared(&self) -> bool {
        self.prepared.is_some_and(|(done, count)| done == count)
    }

    /// Admits micro-batch `index` (from 0) of the `count` of step `id`.
    pub fn prepare(&mut self, id: u64, index: u32, count: u32) -> Result<Place, OutOfOrder> {
        let expected = self.live + 1;
        if id != expected {
            return Err(OutOfOrder::Step { expected, found: id });
        }
        let done = match self.prepared {
            _ if index == 0 => 0,
            Some((done, of)) if of == count => done,
            _ => 0,
        };
        if index != done || index >= count {
            return Err(OutOfOrder::MicroBatch { step: id, expected: done, found: index, count });
        }
        self.prepared = Some((index + 1, count));
        Ok(Place { first: index == 0, last: index + 1 == count })
    }

    /// Forgets what was added up, for instance because a micro-batch was refused.
    pub fn forget(&mut self) {
        self.prepared = None;
    }

    /// Admits the commit of step `id`.
    pub fn commit(&mut self, id: u64) -> Result<Commitment, OutOfOrder> {
        if id == self.live {
            return Ok(Commitment::Done);
        }
        if id != self.live + 1 {
            return Err(OutOfOrder::Step { expected: self.live + 1, found: id });
        }
        if !self.is_prepared() {
            let done = self.prepared.map_or(0, |(done, _)| done);
            return Err(OutOfOrder::Incomplete { step: id, done });
        }
        *self = Self::at(id);
        Ok(Commitment::Apply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_committed_once() {
        let mut ledger = Ledger::at(4);
        assert_eq!(ledger.prepare(5, 0, 2), Ok(Place { first: true, last: false }));
        assert_eq!(ledger.commit(5), Err(OutOfOrder::Incomplete { step: 5, done: 1 }));
        assert_eq!(ledger.prepare(5, 1, 2), Ok(Place { first: false, last: true }));
        assert!(ledger.is_prepared());
        assert_eq!(ledger.commit(5), Ok(Commitment::Apply));
        assert_eq!(ledger.commit(5), Ok(Commitment::Done));
        assert_eq!(ledger.commit(6), Err(OutOfOrder::Incomplete { step: 6, done: 0 }));
        assert_eq!(ledger.commit(7), Err(OutOfOrder::Step { expected: 6, found: 7 }));
    }

    #[test]
    fn a_step_can_be_prepared_again() {
        let mut ledger = Ledger::at(4);
        for (index, count) in [(0, 3), (1, 3), (0, 2), (1, 2), (0, 1)] {
            ledger.prepare(5, index, count).unwrap();
        }
        assert_eq!(ledger.commit(5), Ok(Commitment::Apply));
        let error = ledger.prepare(6, 1, 2).unwrap_err();
        assert_eq!(error, OutOfOrder::MicroBatch { step: 6, expected: 0, found: 1, count: 2 });
        ledger.prepare(6, 0, 2).unwrap();
        assert!(ledger.prepare(6, 1, 3).is_err(), "a step has one number of micro-batches");
        assert!(ledger.prepare(5, 0, 1).is_err());
    }
}
