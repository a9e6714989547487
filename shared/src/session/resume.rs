//! Where two halves that were interrupted continue together.

use std::collections::BTreeSet;

/// Which states of a run one node can be in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holdings {
    /// The step whose state is in memory.
    pub live: u64,
    /// Whether the node can also take part in repeating step `live`, its reply being in memory.
    pub can_replay: bool,
    /// Steps whose state is on disk.
    pub checkpoints: BTreeSet<u64>,
}

/// Where a node takes its state from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// What is in memory, as it is.
    Live,
    /// The checkpoint of the agreed step.
    Checkpoint,
    /// The seed: step 0.
    Seed,
}

/// The newest step that both can continue from, and where the cloud has its half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    pub step: u64,
    pub cloud: Source,
}

impl Holdings {
    /// How this node would come to the state after `step`, memory before disk.
    pub fn source(&self, step: u64) -> Option<Source> {
        if step == self.live || (self.can_replay && step + 1 == self.live) {
            Some(Source::Live)
        } else if self.checkpoints.contains(&step) {
            Some(Source::Checkpoint)
        } else {
            // The seed is in the config: step 0 never has to be stored.
            (step == 0).then_some(Source::Seed)
        }
    }
}

/// Agrees on the newest common step; the edge's replay flag has no meaning and is ignored.
pub fn agree(edge: &Holdings, cloud: &Holdings) -> Resume {
    let steps = edge.checkpoints.iter().copied().chain([edge.live, 0]);
    let common = steps.filter_map(|step| Some(Resume { step, cloud: cloud.source(step)? }));
    common.max_by_key(|r| r.step).expect("every node can start from the seed")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::session::{Admission, Ledger};

    fn held(live: u64, can_replay: bool, checkpoints: &[u64]) -> Holdings {
        Holdings { live, can_replay, checkpoints: checkpoints.iter().copied().collect() }
    }

    #[test]
    fn a_lost_reply_costs_nothing() {
        let resume = agree(&held(7, false, &[5]), &held(8, true, &[5]));
        assert_eq!(resume, Resume { step: 7, cloud: Source::Live });
    }

    #[test]
    fn a_restarted_cloud_continues_from_the_newest_common_checkpoint() {
        let resume = agree(&held(27, false, &[10, 20]), &held(0, false, &[10, 20, 30]));
        assert_eq!(resume, Resume { step: 20, cloud: Source::Checkpoint });
        let resume = agree(&held(27, false, &[20]), &held(0, false, &[]));
        assert_eq!(resume, Resume { step: 0, cloud: Source::Live });
    }

    /// One node's half: `state` is the list of steps it applied.
    #[derive(Clone, Default)]
    struct Half {
        state: Vec<u64>,
        disk: std::collections::BTreeMap<u64, Vec<u64>>,
    }

    impl Half {
        fn holdings(&self, can_replay: bool) -> Holdings {
            let checkpoints = self.disk.keys().copied().collect();
            Holdings { live: self.state.len() as u64, can_replay, checkpoints }
        }

        fn restore(&mut self, step: u64) {
            if step != self.state.len() as u64 {
                self.state = self.disk.get(&step).cloned().unwrap_or_default();
            }
            self.disk.retain(|s, _| *s <= step);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        /// Random faults at every point of the protocol: each half ends with 1, 2, 3, ... exactly.
        #[test]
        fn no_fault_skips_or_doubles_a_step(faults in prop::collection::vec(0u8..12, 1..120)) {
            let (mut edge, mut cloud) = (Half::default(), Half::default());
            let mut ledger = Ledger::<u64>::at(0);
            for fault in faults {
                // The connection is (re)opened before each step; a no-op when nothing happened.
                match fault {
                    0 => { // The cloud restarts.
                        cloud.state = Vec::new();
                        ledger = Ledger::at(0);
                    }
                    1 => { // The edge restarts from its newest checkpoint.
                        edge.state = edge.disk.last_key_value().map(|(_, s)| s.clone()).unwrap_or_default();
                    }
                    _ => {}
                }
                let resume = agree(&edge.holdings(false), &cloud.holdings(ledger.can_replay()));
                if resume.cloud != Source::Live {
                    cloud.restore(resume.step);
                    ledger = Ledger::at(resume.step);
                }
                edge.restore(resume.step);

                let id = edge.state.len() as u64 + 1;
                if fault == 2 { continue } // The request is lost.
                let reply = match ledger.admit(id).unwrap() {
                    Admission::Replay(reply) => *reply,
                    Admission::Apply => {
                        cloud.state.push(id);
                        *ledger.commit(id)
                    }
                };
                if fault == 3 { continue } // The reply is lost.
                prop_assert_eq!(reply, id);
                edge.state.push(id);
                if fault < 7 { // A checkpoint, which may be lost on either side.
                    if fault != 5 { cloud.disk.insert(id, cloud.state.clone()); }
                    if fault != 6 { edge.disk.insert(id, edge.state.clone()); }
                }
                let expected: Vec<u64> = (1..=id).collect();
                prop_assert_eq!(&edge.state, &expected);
                prop_assert_eq!(&cloud.state, &expected);
            }
        }
    }
}
