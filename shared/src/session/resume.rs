//! Where two halves that were interrupted continue together.

use std::collections::BTreeSet;

/// Which states of a run one node can be in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holdings {
    /// The step whose state is in memory.
    pub live: u64,
    /// Edge: it knows how step `live` was committed. Cloud: step `live + 1` is prepared.
    pub pending: bool,
    /// Steps whose state is on disk.
    pub checkpoints: BTreeSet<u64>,
}

/// Where the cloud takes its state from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// What is in memory, as it is.
    Live,
    /// What is in memory, after the commit that got lost.
    Commit,
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

/// Agrees on the newest common step.
pub fn agree(edge: &Holdings, cloud: &Holdings) -> Resume {
    let source = |step: u64| {
        if step == cloud.live {
            Some(Source::Live)
        } else if cloud.pending && step == cloud.live + 1 && edge.pending && step == edge.live {
            Some(Source::Commit)
        } else if cloud.checkpoints.contains(&step) {
            Some(Source::Checkpoint)
        } else {
            // The seed is in the config: step 0 never has to be stored.
            (step == 0).then_some(Source::Seed)
        }
    };
    let steps = edge.checkpoints.iter().copied().chain([edge.live, 0]);
    let common = steps.filter_map(|step| Some(Resume { step, cloud: source(step)? }));
    common.max_by_key(|r| r.step).expect("every node can start from the seed")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::session::{Commitment, Ledger};

    fn held(live: u64, pending: bool, checkpoints: &[u64]) -> Holdings {
        Holdings { live, pending, checkpoints: checkpoints.iter().copied().collect() }
    }

    #[test]
    fn a_lost_commit_is_made_up_for() {
        let resume = agree(&held(8, true, &[5]), &held(7, true, &[5]));
        assert_eq!(resume, Resume { step: 8, cloud: Source::Commit });
        let resume = agree(&held(8, false, &[5]), &held(7, true, &[5]));
        assert_eq!(resume, Resume { step: 5, cloud: Source::Checkpoint });
        let resume = agree(&held(8, true, &[5]), &held(7, false, &[5]));
        assert_eq!(resume, Resume { step: 5, cloud: Source::Checkpoint });
    }

    #[test]
    fn a_restarted_cloud_continues_from_the_newest_common_checkpoint() {
        let resume = agree(&held(27, true, &[10, 20]), &held(0, false, &[10, 20, 30]));
        assert_eq!(resume, Resume { step: 20, cloud: Source::Checkpoint });
        let resume = agree(&held(27, true, &[20]), &held(0, false, &[]));
        assert_eq!(resume, Resume { step: 0, cloud: Source::Live });
    }

    #[test]
    fn what_a_node_kept_when_it_was_asked_to_end_is_found_again() {
        // The cloud; the edge has waited.
        let resume = agree(&held(27, true, &[10]), &held(0, false, &[10, 27]));
        assert_eq!(resume, Resume { step: 27, cloud: Source::Checkpoint });
        // Both, neither with the other's help.
        let resume = agree(&held(27, false, &[10, 27]), &held(0, false, &[10, 27]));
        assert_eq!(resume, Resume { step: 27, cloud: Source::Checkpoint });
        // The commit of step 28 was lost with the cloud: what it kept is of no use.
        let resume = agree(&held(28, true, &[10]), &held(0, false, &[10, 27]));
        assert_eq!(resume, Resume { step: 10, cloud: Source::Checkpoint });
    }

    /// One node's half: `state` is the list of steps it applied.
    #[derive(Clone, Default)]
    struct Half {
        state: Vec<u64>,
        disk: BTreeMap<u64, Vec<u64>>,
    }

    impl Half {
        fn holdings(&self, pending: bool) -> Holdings {
            let checkpoints = self.disk.keys().copied().collect();
            Holdings { live: self.state.len() as u64, pending, checkpoints }
        }

        fn restore(&mut self, step: u64) {
            if step != self.state.len() as u64 {
                self.state = self.disk.get(&step).cloned().unwrap_or_default();
            }
            self.disk.retain(|s, _| *s <= step);
        }

        /// Before an end that was asked for: what is on disk is the state, and nothing else changes.
        fn keep(&mut self) {
            if !self.state.is_empty() {
                self.disk.insert(self.state.len() as u64, self.state.clone());
            }
        }

        /// As the nodes do: of the steps that both hold the newest `keep`, and all that are newer.
        fn retain(&mut self, keep: usize, peer: &BTreeSet<u64>) {
            let own: BTreeSet<u64> = self.disk.keys().copied().collect();
            for step in crate::session::outdated(&own, peer, keep) {
                self.disk.remove(&step);
            }
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Fault {
        None,
        CloudRestarts,
        EdgeRestarts,
        /// As they do when they are asked to: with what each holds on its disk, whatever the other holds.
        CloudEnds,
        EdgeEnds,
        MicroBatchLost(u32),
        GradientLost,
        CommitLost,
        CommitDoubled,
        CheckpointLostByCloud,
        CheckpointLostByEdge,
    }

    fn fault() -> impl Strategy<Value = Fault> {
        use Fault::*;
        prop_oneof![
            4 => Just(None),
            1 => Just(CloudRestarts),
            1 => Just(EdgeRestarts),
            1 => Just(CloudEnds),
            1 => Just(EdgeEnds),
            1 => (0u32..3).prop_map(MicroBatchLost),
            1 => Just(GradientLost),
            1 => Just(CommitLost),
            1 => Just(CommitDoubled),
            1 => Just(CheckpointLostByCloud),
            1 => Just(CheckpointLostByEdge),
        ]
    }

    /// Both halves, and what the cloud adds up before a commit.
    #[derive(Default)]
    struct Pair {
        edge: Half,
        cloud: Half,
        ledger: Option<Ledger>,
        /// The edge remembers how its newest step was committed.
        remembers: bool,
    }

    impl Pair {
        fn ledger(&mut self) -> &mut Ledger {
            self.ledger.get_or_insert(Ledger::at(0))
        }

        fn reopen(&mut self) {
            let prepared = self.ledger().is_prepared();
            let resume = agree(&self.edge.holdings(self.remembers), &self.cloud.holdings(prepared));
            match resume.cloud {
                Source::Live => self.cloud.disk.retain(|s, _| *s <= resume.step),
                Source::Commit => self.commit(resume.step),
                _ => {
                    self.cloud.restore(resume.step);
                    self.ledger = Some(Ledger::at(resume.step));
                }
            }
            self.edge.restore(resume.step);
        }

        fn commit(&mut self, id: u64) {
            if self.ledger().commit(id).unwrap() == Commitment::Apply {
                self.cloud.state.push(id);
            }
        }

        /// One step, as far as the fault lets it come.
        fn step(&mut self, fault: Fault) {
            let id = self.edge.state.len() as u64 + 1;
            for index in 0..3 {
                if fault == Fault::MicroBatchLost(index) {
                    return;
                }
                self.ledger().prepare(id, index, 3).unwrap();
            }
            if fault == Fault::GradientLost {
                return;
            }
            self.edge.state.push(id);
            self.remembers = true;
            if fault == Fault::CommitLost {
                return;
            }
            self.commit(id);
            if fault == Fault::CommitDoubled {
                self.commit(id);
            }
        }

        fn checkpoint(&mut self, fault: Fault) {
            let id = self.edge.state.len() as u64;
            let of_edge: BTreeSet<u64> = self.edge.disk.keys().copied().collect();
            if fault != Fault::CheckpointLostByCloud {
                self.cloud.disk.insert(id, self.cloud.state.clone());
                self.cloud.retain(2, &of_edge);
            }
            if fault != Fault::CheckpointLostByEdge {
                let of_cloud: BTreeSet<u64> = self.cloud.disk.keys().copied().collect();
                self.edge.disk.insert(id, self.edge.state.clone());
                self.edge.retain(2, &of_cloud);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        /// Random faults at every point of the protocol: each half ends with 1, 2, 3, ... exactly, and a
        /// restart never loses more than what the newest common checkpoint lacks.
        #[test]
        fn no_fault_skips_or_doubles_a_step(faults in prop::collection::vec(fault(), 1..150)) {
            let mut pair = Pair::default();
            let mut common = 0;
            for fault in faults {
                match fault {
                    Fault::CloudEnds => pair.cloud.keep(),
                    Fault::EdgeEnds => pair.edge.keep(),
                    _ => {}
                }
                match fault {
                    Fault::CloudRestarts | Fault::CloudEnds => {
                        pair.cloud.state = Vec::new();
                        pair.ledger = Some(Ledger::at(0));
                    }
                    Fault::EdgeRestarts | Fault::EdgeEnds => {
                        let newest = pair.edge.disk.last_key_value();
                        pair.edge.state = newest.map(|(_, s)| s.clone()).unwrap_or_default();
                        pair.remembers = false;
                    }
                    _ => {}
                }
                // The connection is (re)opened before each step; a no-op when nothing happened.
                pair.reopen();
                prop_assert!(pair.edge.state.len() as u64 >= common, "a common checkpoint was lost");
                pair.step(fault);
                if matches!(fault, Fault::None | Fault::CommitDoubled
                    | Fault::CheckpointLostByCloud | Fault::CheckpointLostByEdge)
                {
                    pair.checkpoint(fault);
                }
                let both = pair.edge.disk.keys().filter(|s| pair.cloud.disk.contains_key(s));
                common = both.copied().max().unwrap_or(0);
                let up_to = |half: &Half| (1..=half.state.len() as u64).collect::<Vec<_>>();
                prop_assert_eq!(&pair.edge.state, &up_to(&pair.edge));
                prop_assert_eq!(&pair.cloud.state, &up_to(&pair.cloud));
            }
        }
    }
}
