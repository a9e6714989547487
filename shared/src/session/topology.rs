//! Who learns together, and how: the topology of split learning.

use serde::{Deserialize, Serialize};

use crate::data::{Partition, PartitionKind};

/// How heads, tails and labels are spread over the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TopologyKind {
    /// One edge; its labels go to the cloud with the activations.
    #[default]
    Vanilla,
    /// One edge, which has the last stages as well; its labels stay there.
    UShaped,
    /// Edge after edge learns with the one tail; the head travels on (Gupta & Raskar 2018).
    Sequential,
    /// Edges learn side by side, each with a tail of its own; heads and tails are averaged at a round's
    /// end (Thapa et al. 2022).
    #[serde(rename = "splitfed-v1")]
    SplitFedV1,
    /// Edges learn side by side with one tail, which takes their batches one after the other; heads are
    /// averaged at a round's end (Thapa et al. 2022).
    #[serde(rename = "splitfed-v2")]
    SplitFedV2,
    /// The batches of all edges are one batch for the one tail; heads stay equal, by the sum of their
    /// gradients in every step (Jeon & Kim 2020).
    Parallel,
}

impl TopologyKind {
    /// Whether several edges learn one model.
    pub fn is_group(self) -> bool {
        !matches!(self, Self::Vanilla | Self::UShaped)
    }
}

/// A topology and its sizes; fixed for the life of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Topology {
    pub kind: TopologyKind,
    /// U-shaped: stages from here on are the edge's again.
    pub last_split: Option<usize>,
    /// Edges of the group.
    pub edges: usize,
    /// How the training part is dealt out among them, and the constants of that; see [`Partition`].
    pub partition: PartitionKind,
    pub alpha: f64,
    pub least_samples: usize,
    /// Steps of an edge in a round; without it, `local_epochs` over its samples.
    pub local_steps: Option<u64>,
    pub local_epochs: u64,
    /// Share of the edges that takes part in a round, drawn by the seed.
    pub participation: f64,
    /// How long an edge may take over its turn before the round goes on without it, s.
    pub deadline_s: u64,
    /// Turns that are open at once, where the topology leaves the choice.
    pub at_once: usize,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            kind: TopologyKind::Vanilla,
            last_split: None,
            edges: 1,
            partition: PartitionKind::Iid,
            alpha: 0.5,
            least_samples: 10,
            local_steps: None,
            local_epochs: 1,
            participation: 1.0,
            deadline_s: 60,
            at_once: 8,
        }
    }
}

impl Topology {
    pub fn partition(&self) -> Partition {
        Partition { kind: self.partition, alpha: self.alpha, least: self.least_samples }
    }

    /// As the nodes compare it: JSON with a fixed field order.
    pub fn canonical(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }

    /// Reads [`Topology::canonical`], and refuses values out of range.
    pub fn parse(text: &str) -> Result<Self, String> {
        let topology: Self = serde_json::from_str(text).map_err(|e| format!("topology: {e}"))?;
        topology.check().map_err(|(key, problem)| format!("topology: {key}: {problem}"))?;
        Ok(topology)
    }

    /// Edges that take part in a round, at least one.
    pub fn participants(&self) -> usize {
        let share = (self.participation * self.edges as f64).round() as usize;
        share.clamp(1, self.edges.max(1))
    }

    /// Steps of a turn of an edge with that many samples.
    pub fn steps(&self, samples: u64, batch_size: u64) -> u64 {
        let epoch = samples.div_ceil(batch_size.max(1)).max(1);
        self.local_steps.unwrap_or(epoch.saturating_mul(self.local_epochs))
    }

    /// The key and the problem of the first value out of range.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let range = |key, value: u64, low: u64, high: u64| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err((key, format!("{value} is out of range; allowed: {low} to {high}"))),
        };
        range("edges", self.edges as u64, 1, 4096)?;
        range("least_samples", self.least_samples as u64, 1, 1 << 32)?;
        range("local_steps", self.local_steps.unwrap_or(1), 1, 1 << 32)?;
        range("local_epochs", self.local_epochs, 1, 1_000_000)?;
        range("deadline_s", self.deadline_s, 1, 86_400)?;
        range("at_once", self.at_once as u64, 1, 4096)?;
        if !(1e-3..=1e6).contains(&self.alpha) {
            let problem = format!("{} is out of range; allowed: 0.001 to 1000000", self.alpha);
            return Err(("alpha", problem));
        }
        if !(self.participation > 0.0 && self.participation <= 1.0) {
            let problem = format!("{}: allowed: more than 0, up to 1", self.participation);
            return Err(("participation", problem));
        }
        if !self.kind.is_group() && self.edges != 1 {
            let problem = format!(
                "{} edges need a kind for several: sequential, splitfed-v1, splitfed-v2, parallel",
                self.edges
            );
            return Err(("edges", problem));
        }
        match (self.kind, self.last_split) {
            (TopologyKind::UShaped, None) => {
                Err(("last_split", "is missing: the first stage that is the edge's again".into()))
            }
            (TopologyKind::UShaped, Some(_)) | (_, None) => Ok(()),
            (_, Some(_)) => Err(("last_split", "is for kind = \"u-shaped\" only".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_read_what_they_write() {
        let topology = Topology {
            kind: TopologyKind::SplitFedV1,
            edges: 16,
            partition: PartitionKind::Dirichlet,
            local_steps: Some(3),
            ..Topology::default()
        };
        assert_eq!(Topology::parse(&topology.canonical()).unwrap(), topology);
        assert!(topology.canonical().contains("\"kind\":\"splitfed-v1\""));
    }

    #[test]
    fn values_out_of_range_are_refused_by_key() {
        let group = Topology { kind: TopologyKind::Parallel, edges: 4, ..Topology::default() };
        assert!(group.check().is_ok() && Topology::default().check().is_ok());
        let cases: [(&str, Topology); 6] = [
            ("edges", Topology { kind: TopologyKind::Vanilla, ..group.clone() }),
            ("alpha", Topology { alpha: f64::NAN, ..group.clone() }),
            ("participation", Topology { participation: 0.0, ..group.clone() }),
            ("last_split", Topology { last_split: Some(5), ..group.clone() }),
            ("last_split", Topology { kind: TopologyKind::UShaped, ..Topology::default() }),
            ("local_steps", Topology { local_steps: Some(0), ..group.clone() }),
        ];
        for (key, topology) in cases {
            assert_eq!(topology.check().unwrap_err().0, key, "{topology:?}");
        }
    }

    #[test]
    fn a_turn_is_an_epoch_unless_steps_are_named() {
        let mut group = Topology { edges: 10, participation: 0.25, ..Topology::default() };
        assert_eq!((group.participants(), group.steps(33, 16)), (3, 3));
        group.local_epochs = 2;
        assert_eq!(group.steps(33, 16), 6);
        group.local_steps = Some(4);
        assert_eq!(group.steps(33, 16), 4);
        group.participation = 0.01;
        assert_eq!(group.participants(), 1);
    }
}
