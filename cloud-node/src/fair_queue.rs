//! What waits for a thread, from many edges: each has its turn, however much another sends (Nagle, RFC 970).

use std::collections::VecDeque;

/// First in, first out for each edge; edges take turns.
#[derive(Debug)]
pub struct FairQueue<K, T> {
    /// Whose turn is next is at the front. None is empty.
    edges: VecDeque<Line<K, T>>,
    next: u64,
}

#[derive(Debug)]
struct Line<K, T> {
    edge: String,
    waiting: VecDeque<Entry<K, T>>,
}

#[derive(Debug)]
struct Entry<K, T> {
    ticket: u64,
    key: K,
    samples: usize,
    item: T,
}

impl<K, T> Default for FairQueue<K, T> {
    fn default() -> Self {
        Self { edges: VecDeque::new(), next: 0 }
    }
}

impl<K: PartialEq, T> FairQueue<K, T> {
    /// Lets an edge's request of so many samples wait; its ticket. What has the same key may be taken together.
    pub fn push(&mut self, edge: &str, key: K, samples: usize, item: T) -> u64 {
        let ticket = self.next;
        self.next += 1;
        let entry = Entry { ticket, key, samples, item };
        match self.edges.iter_mut().find(|line| line.edge == edge) {
            Some(line) => line.waiting.push_back(entry),
            None => {
                let line = Line { edge: edge.into(), waiting: VecDeque::from([entry]) };
                self.edges.push_back(line);
            }
        }
        ticket
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.edges.iter().map(|line| line.waiting.len()).sum()
    }

    /// Takes a request out, if it still waits.
    pub fn remove(&mut self, ticket: u64) -> Option<T> {
        for at in 0..self.edges.len() {
            let waiting = &mut self.edges[at].waiting;
            let Some(place) = waiting.iter().position(|entry| entry.ticket == ticket) else {
                continue;
            };
            let entry = waiting.remove(place);
            if waiting.is_empty() {
                self.edges.remove(at);
            }
            return entry.map(|entry| entry.item);
        }
        None
    }

    /// The first request of the edge whose turn it is, and after it what has the same key and is first of its edge, from
    /// all edges in turn, up to so many samples together. A single request may have more. Empty if nothing waits.
    pub fn take(&mut self, most: usize) -> Vec<T> {
        let Some(first) = self.pop(|_| true) else { return Vec::new() };
        let (key, mut room) = (first.key, most.saturating_sub(first.samples));
        let mut taken = vec![first.item];
        while let Some(entry) = self.pop(|entry| entry.key == key && entry.samples <= room) {
            room -= entry.samples;
            taken.push(entry.item);
        }
        taken
    }

    /// The first in line of the next edge where it is wanted; that edge's next turn is after all others'.
    fn pop(&mut self, wanted: impl Fn(&Entry<K, T>) -> bool) -> Option<Entry<K, T>> {
        let front = |line: &Line<K, T>| line.waiting.front().is_some_and(&wanted);
        let at = self.edges.iter().position(front)?;
        let mut line = self.edges.remove(at)?;
        let entry = line.waiting.pop_front();
        if !line.waiting.is_empty() {
            self.edges.push_back(line);
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edges_take_turns() {
        let mut queue = FairQueue::default();
        for n in 0..4 {
            queue.push("greedy", (), 1, ("greedy", n));
        }
        queue.push("modest", (), 1, ("modest", 0));
        queue.push("other", (), 1, ("other", 0));
        let order: Vec<_> = std::iter::from_fn(|| queue.take(1).pop()).collect();
        let edges: Vec<_> = order.iter().map(|(edge, _)| *edge).collect();
        assert_eq!(edges, ["greedy", "modest", "other", "greedy", "greedy", "greedy"]);
    }

    #[test]
    fn only_what_fits_together_is_taken_together() {
        let mut queue = FairQueue::default();
        for (edge, key, samples) in [
            ("a", 'x', 2),
            ("b", 'y', 1),
            ("c", 'x', 4),
            ("d", 'x', 2),
            ("a", 'x', 1),
            ("a", 'y', 1),
        ] {
            queue.push(edge, key, samples, (edge, key, samples));
        }
        // c's would be too much; a's second is behind its first, and comes after d's.
        assert_eq!(queue.take(5), [("a", 'x', 2), ("d", 'x', 2), ("a", 'x', 1)]);
        assert_eq!(queue.take(5), [("b", 'y', 1), ("a", 'y', 1)]);
        assert_eq!(queue.take(1), [("c", 'x', 4)]);
        assert!(queue.take(5).is_empty());
    }

    #[test]
    fn what_is_given_up_leaves_its_place() {
        let mut queue = FairQueue::default();
        let tickets = [0, 1, 2].map(|n| queue.push("a", (), 1, n));
        assert_eq!(queue.remove(tickets[1]), Some(1));
        assert_eq!(queue.remove(tickets[1]), None);
        assert_eq!(queue.take(9), [0, 2]);
        assert_eq!(queue.remove(tickets[0]), None);
    }

    proptest! {
        /// Each request is taken once, in its edge's order, in batches of one key and not too large, and no edge waits
        /// longer than one turn of each other edge.
        #[test]
        fn nothing_is_lost_and_nobody_starves(
            pushed in prop::collection::vec((0u8..5, 0u8..3, 1usize..4), 0..60),
            most in 1usize..8,
        ) {
            let mut queue = FairQueue::default();
            for (n, (edge, key, samples)) in pushed.iter().enumerate() {
                queue.push(&edge.to_string(), *key, *samples, (n, *edge, *key, *samples));
            }
            let mut seen = HashMap::new();
            let mut count = 0;
            loop {
                let waiting = queue.edges.len();
                let batch = queue.take(most);
                let Some(first) = batch.first() else { break };
                prop_assert!(batch.iter().all(|(_, _, key, _)| *key == first.2));
                let samples: usize = batch.iter().map(|(_, _, _, samples)| samples).sum();
                prop_assert!(batch.len() == 1 || samples <= most);
                for (n, edge, ..) in &batch {
                    let last = seen.insert(*edge, *n);
                    prop_assert!(last.is_none_or(|last| last < *n));
                }
                count += batch.len();
                prop_assert!(waiting > 0);
            }
            prop_assert_eq!(count, pushed.len());
        }
    }
}
