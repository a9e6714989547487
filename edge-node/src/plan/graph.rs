//! Models that are no chain: the cheapest partition of a DAG is a minimum cut.
//!
//! As DADS has it (Hu et al., INFOCOM 2019): the source is the edge, the sink the cloud; a node that ends on
//! the cloud's side pays its time there, one on the edge's side its time here, and a tensor that crosses
//! pays its transfer once however many nodes read it. Work never comes back from the cloud in the middle.

use std::collections::VecDeque;

use serde::Deserialize;

/// A model as nodes and the tensors between them; times in ms.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub tensors: Vec<Flow>,
    /// What there is to pay if anything at all is in the cloud: a round trip, the answer.
    #[serde(default)]
    pub round_trip_ms: f64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub name: String,
    pub edge_ms: f64,
    pub cloud_ms: f64,
}

/// A tensor, by the places of its nodes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// Which node makes it; none: it is the model's input, which the edge has.
    pub from: Option<usize>,
    pub to: Vec<usize>,
    /// What sending it takes beside the round trip, ms.
    pub uplink_ms: f64,
}

/// Which nodes are on the edge, and the time of it all.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Partition {
    pub on_edge: Vec<bool>,
    pub total_ms: f64,
}

/// Capacities are whole nanoseconds: sums are exact, and the flow ends.
const NS_PER_MS: f64 = 1e6;
const FOREVER: u64 = u64::MAX / 4;

impl Graph {
    /// A reason why this is no model.
    pub fn check(&self) -> Result<(), String> {
        let good = |ms: f64| ms.is_finite() && (0.0..1e9).contains(&ms);
        if let Some(bad) = self.nodes.iter().find(|n| !good(n.edge_ms) || !good(n.cloud_ms)) {
            return Err(format!("node {:?}: times are 0 to 1e9 ms", bad.name));
        }
        if !good(self.round_trip_ms) {
            return Err("round_trip_ms is 0 to 1e9 ms".into());
        }
        for (index, flow) in self.tensors.iter().enumerate() {
            let ends = flow.from.iter().chain(&flow.to);
            if let Some(missing) = ends.copied().find(|&n| n >= self.nodes.len()) {
                return Err(format!("tensor {index}: there is no node {missing}"));
            }
            if !good(flow.uplink_ms) {
                return Err(format!("tensor {index}: uplink_ms is 0 to 1e9 ms"));
            }
            if flow.to.iter().any(|&to| flow.from.is_some_and(|from| to <= from)) {
                return Err(format!("tensor {index}: a node comes before those that read from it"));
            }
        }
        Ok(())
    }

    /// The cheapest partition.
    pub fn partition(&self) -> Partition {
        let on_edge = self.minimum_cut();
        let all_edge = vec![true; self.nodes.len()];
        // The round trip is paid once, by any node in the cloud: the best partition is all on the edge, or
        // the best without the round trip.
        let candidates = [all_edge, on_edge].map(|on_edge| {
            let total_ms = self.total_ms(&on_edge);
            Partition { on_edge, total_ms }
        });
        let [all_edge, cut] = candidates;
        if cut.total_ms < all_edge.total_ms { cut } else { all_edge }
    }

    /// What this partition takes, one thing after the other.
    pub fn total_ms(&self, on_edge: &[bool]) -> f64 {
        let nodes = self.nodes.iter().zip(on_edge);
        let compute: f64 = nodes.map(|(n, &here)| if here { n.edge_ms } else { n.cloud_ms }).sum();
        let crosses = |flow: &&Flow| {
            flow.from.is_none_or(|from| on_edge[from]) && flow.to.iter().any(|&to| !on_edge[to])
        };
        let sent: f64 = self.tensors.iter().filter(crosses).map(|flow| flow.uplink_ms).sum();
        let round_trip = if on_edge.iter().all(|&here| here) { 0.0 } else { self.round_trip_ms };
        compute + sent + round_trip
    }

    fn minimum_cut(&self) -> Vec<bool> {
        let count = self.nodes.len();
        let (source, sink) = (count + self.tensors.len(), count + self.tensors.len() + 1);
        let mut flow = MaxFlow::new(sink + 1);
        let ns = |ms: f64| (ms * NS_PER_MS).round() as u64;
        for (index, node) in self.nodes.iter().enumerate() {
            flow.arc(source, index, ns(node.cloud_ms));
            flow.arc(index, sink, ns(node.edge_ms));
        }
        for (index, tensor) in self.tensors.iter().enumerate() {
            let sent = count + index;
            flow.arc(tensor.from.unwrap_or(source), sent, ns(tensor.uplink_ms));
            for &to in &tensor.to {
                // In the cloud if any reader is.
                flow.arc(sent, to, FOREVER);
                if let Some(from) = tensor.from {
                    // A reader on the edge needs its maker there.
                    flow.arc(to, from, FOREVER);
                }
            }
        }
        flow.run(source, sink);
        let near = flow.reachable(source);
        near[..count].to_vec()
    }
}

/// Dinic's algorithm.
struct MaxFlow {
    /// Target and what is left of each arc; its reverse is beside it, at `arc ^ 1`.
    arcs: Vec<(usize, u64)>,
    out: Vec<Vec<usize>>,
}

impl MaxFlow {
    fn new(vertices: usize) -> Self {
        Self { arcs: Vec::new(), out: vec![Vec::new(); vertices] }
    }

    fn arc(&mut self, from: usize, to: usize, capacity: u64) {
        self.out[from].push(self.arcs.len());
        self.arcs.push((to, capacity));
        self.out[to].push(self.arcs.len());
        self.arcs.push((from, 0));
    }

    fn run(&mut self, source: usize, sink: usize) {
        loop {
            let levels = self.levels(source);
            if levels[sink].is_none() {
                return;
            }
            let mut next = vec![0; self.out.len()];
            while self.push(source, sink, FOREVER, &levels, &mut next) > 0 {}
        }
    }

    fn levels(&self, source: usize) -> Vec<Option<u32>> {
        let mut levels = vec![None; self.out.len()];
        levels[source] = Some(0);
        let mut queue = VecDeque::from([(source, 0)]);
        while let Some((vertex, level)) = queue.pop_front() {
            for &arc in &self.out[vertex] {
                let (to, left) = self.arcs[arc];
                if left > 0 && levels[to].is_none() {
                    levels[to] = Some(level + 1);
                    queue.push_back((to, level + 1));
                }
            }
        }
        levels
    }

    fn push(
        &mut self,
        vertex: usize,
        sink: usize,
        most: u64,
        levels: &[Option<u32>],
        next: &mut [usize],
    ) -> u64 {
        if vertex == sink {
            return most;
        }
        while let Some(&arc) = self.out[vertex].get(next[vertex]) {
            let (to, left) = self.arcs[arc];
            if left > 0 && levels[to] == levels[vertex].map(|l| l + 1) {
                let pushed = self.push(to, sink, most.min(left), levels, next);
                if pushed > 0 {
                    self.arcs[arc].1 -= pushed;
                    self.arcs[arc ^ 1].1 += pushed;
                    return pushed;
                }
            }
            next[vertex] += 1;
        }
        0
    }

    fn reachable(&self, source: usize) -> Vec<bool> {
        self.levels(source).into_iter().map(|level| level.is_some()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(edge_ms: f64, cloud_ms: f64) -> Node {
        Node { name: String::new(), edge_ms, cloud_ms }
    }

    /// Two branches of one input that join: the cut goes through both tensors.
    #[test]
    fn a_cut_may_have_several_tensors() {
        let graph = Graph {
            nodes: vec![node(1.0, 1.0), node(2.0, 1.0), node(2.0, 1.0), node(90.0, 5.0)],
            tensors: vec![
                Flow { from: None, to: vec![0], uplink_ms: 50.0 },
                Flow { from: Some(0), to: vec![1, 2], uplink_ms: 40.0 },
                Flow { from: Some(1), to: vec![3], uplink_ms: 3.0 },
                Flow { from: Some(2), to: vec![3], uplink_ms: 4.0 },
            ],
            round_trip_ms: 10.0,
        };
        graph.check().unwrap();
        let found = graph.partition();
        assert_eq!(found.on_edge, [true, true, true, false]);
        assert!((found.total_ms - (1.0 + 2.0 + 2.0 + 5.0 + 3.0 + 4.0 + 10.0)).abs() < 1e-9);
        let far = Graph { round_trip_ms: 500.0, ..graph };
        assert_eq!(far.partition().on_edge, [true; 4]);
    }

    #[test]
    fn what_is_no_model_is_refused() {
        let flow = |from, to| Flow { from: Some(from), to: vec![to], uplink_ms: 1.0 };
        let graph = |flow| Graph {
            nodes: vec![node(1.0, 1.0); 2],
            tensors: vec![flow],
            round_trip_ms: 0.0,
        };
        assert!(graph(flow(0, 1)).check().is_ok());
        assert!(graph(flow(1, 0)).check().unwrap_err().contains("comes before"));
        assert!(graph(flow(0, 7)).check().unwrap_err().contains("no node 7"));
        let bad =
            Graph { nodes: vec![node(f64::NAN, 1.0)], tensors: Vec::new(), round_trip_ms: 0.0 };
        assert!(bad.check().is_err());
    }

    prop_compose! {
        fn graphs()(count in 1usize..9)(
            times in prop::collection::vec((0u32..50, 0u32..50), count),
            flows in prop::collection::vec((0..count + 1, prop::collection::vec(0..count, 1..4), 0u32..60), 0..14),
            round_trip in 0u32..60,
        ) -> Graph {
            let tensors = flows.into_iter().filter_map(|(from, to, ms)| {
                let from = from.checked_sub(1);
                let to: Vec<usize> = to.into_iter().filter(|&t| from.is_none_or(|f| t > f)).collect();
                (!to.is_empty()).then_some(Flow { from, to, uplink_ms: f64::from(ms) })
            });
            Graph {
                nodes: times.iter().map(|&(e, c)| node(e.into(), c.into())).collect(),
                tensors: tensors.collect(),
                round_trip_ms: f64::from(round_trip),
            }
        }
    }

    proptest! {
        /// As good as the best of all partitions in which nothing comes back.
        #[test]
        fn no_partition_is_cheaper(graph in graphs()) {
            let found = graph.partition();
            let count = graph.nodes.len();
            let best = (0..1u32 << count).filter_map(|bits| {
                let on_edge: Vec<bool> = (0..count).map(|i| bits >> i & 1 == 1).collect();
                let comes_back = graph.tensors.iter().any(|flow| {
                    flow.from.is_some_and(|from| !on_edge[from]) && flow.to.iter().any(|&to| on_edge[to])
                });
                (!comes_back).then(|| graph.total_ms(&on_edge))
            });
            let best = best.fold(f64::INFINITY, f64::min);
            prop_assert!((found.total_ms - best).abs() < 1e-6, "{} {best}", found.total_ms);
        }
    }
}
