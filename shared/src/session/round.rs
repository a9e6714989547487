//! One round of a group, as a pure state machine: whose turn it is, who is done, who is left out.
//!
//! An edge's turn counts at most once: [`Round::finish`] takes the first and answers every other. An
//! edge that left is not waited for; where turns do not depend on each other it may have its turn again
//! if it is back before the round is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::data::shuffle;

/// Where an edge is in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting,
    /// The group waits for it since then; not while it waits for the group.
    Open(Option<Instant>),
    Finished,
    Out,
}

/// What became of a turn that an edge says is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// It counts, from now on.
    Taken,
    /// It counted already.
    Again,
    /// It does not count: the round went on without it, or is another one.
    Late,
}

#[derive(Debug, Clone)]
pub struct Round {
    number: u64,
    places: BTreeMap<usize, Place>,
    /// Whether a turn that broke can be had again.
    again: bool,
}

impl Round {
    /// Draws who takes part: of all `edges`, in an order that seed and number decide, the first
    /// `wanted` that are present.
    pub fn draw(
        number: u64,
        present: &BTreeSet<usize>,
        edges: usize,
        wanted: usize,
        seed: u64,
        again: bool,
    ) -> Self {
        let mut order: Vec<usize> = (0..edges).collect();
        shuffle(&mut order, b"cleave:round:v1\0", seed, number);
        let drawn = order.into_iter().filter(|edge| present.contains(edge)).take(wanted);
        Self { number, places: drawn.map(|edge| (edge, Place::Waiting)).collect(), again }
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// Edges that take part.
    pub fn drawn(&self) -> impl Iterator<Item = usize> {
        self.places.keys().copied()
    }

    /// The edge whose turn begins, if fewer than `most` are open: of those that wait and are present the
    /// one with the lowest number.
    pub fn next(&mut self, present: &BTreeSet<usize>, most: usize, now: Instant) -> Option<usize> {
        if self.open().count() >= most {
            return None;
        }
        let mut waiting = self.places.iter().filter(|(_, place)| **place == Place::Waiting);
        let (&edge, _) = waiting.find(|(edge, _)| present.contains(edge))?;
        self.places.insert(edge, Place::Open(Some(now)));
        Some(edge)
    }

    /// Edges whose turn it is, from the lowest number.
    pub fn open(&self) -> impl Iterator<Item = usize> {
        let open = self.places.iter().filter(|(_, place)| matches!(place, Place::Open(_)));
        open.map(|(&edge, _)| edge)
    }

    pub fn is_open(&self, edge: usize) -> bool {
        matches!(self.places.get(&edge), Some(Place::Open(_)))
    }

    /// Edges whose turn counts.
    pub fn finished(&self) -> impl Iterator<Item = usize> {
        let finished = self.places.iter().filter(|(_, place)| **place == Place::Finished);
        finished.map(|(&edge, _)| edge)
    }

    /// Stops an edge's clock while it waits for the group, or starts it anew at `since`.
    pub fn clock(&mut self, edge: usize, since: Option<Instant>) {
        if let Some(place @ Place::Open(_)) = self.places.get_mut(&edge) {
            *place = Place::Open(since);
        }
    }

    /// An edge says that its turn in round `number` is over.
    pub fn finish(&mut self, number: u64, edge: usize) -> Finish {
        match self.places.get_mut(&edge) {
            Some(place @ Place::Open(_)) if number == self.number => {
                *place = Place::Finished;
                Finish::Taken
            }
            Some(Place::Finished) if number == self.number => Finish::Again,
            _ => Finish::Late,
        }
    }

    /// An edge's stream is gone; whether its turn was open.
    pub fn left(&mut self, edge: usize) -> bool {
        let after = if self.again { Place::Waiting } else { Place::Out };
        match self.places.get_mut(&edge) {
            Some(place @ Place::Open(_)) => {
                *place = after;
                true
            }
            _ => false,
        }
    }

    /// Leaves out the edges that took longer than `patience`, and names them.
    pub fn expire(&mut self, now: Instant, patience: Duration) -> Vec<usize> {
        let mut late = Vec::new();
        for (&edge, place) in &mut self.places {
            if let Place::Open(Some(since)) = *place
                && now.saturating_duration_since(since) >= patience
            {
                *place = Place::Out;
                late.push(edge);
            }
        }
        late
    }

    /// When [`Round::expire`] has something to do next, unless something happens before.
    pub fn next_expiry(&self, patience: Duration) -> Option<Instant> {
        let since = self.places.values().filter_map(|place| match place {
            Place::Open(since) => *since,
            _ => None,
        });
        since.min().map(|since| since + patience)
    }

    /// Whether nobody has to be waited for any more.
    pub fn is_over(&self, present: &BTreeSet<usize>) -> bool {
        self.places.iter().all(|(edge, place)| match place {
            Place::Open(_) => false,
            Place::Waiting => !present.contains(edge),
            Place::Finished | Place::Out => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(edges: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
        edges.into_iter().collect()
    }

    #[test]
    fn the_draw_is_the_seeds() {
        let all = set(0..20);
        let drawn = |number, present: &BTreeSet<usize>| {
            let mut round = Round::draw(number, present, 20, 5, 7, true);
            let now = Instant::now();
            std::iter::from_fn(|| round.next(present, 99, now)).collect::<Vec<_>>()
        };
        assert_eq!(drawn(1, &all), drawn(1, &all));
        assert_ne!(drawn(1, &all), drawn(2, &all));
        assert_eq!(drawn(3, &all).len(), 5);
        // Who is not there is replaced; the others stay.
        let first = drawn(1, &all);
        let without = drawn(1, &set((0..20).filter(|e| *e != first[0])));
        assert_eq!(without.iter().filter(|e| first.contains(e)).count(), 4);
        // In many rounds all edges get their turns.
        let mut turns = [0; 20];
        (1..=400).flat_map(|number| drawn(number, &all)).for_each(|edge| turns[edge] += 1);
        assert!(turns.iter().all(|n| (60..140).contains(n)), "{turns:?}");
    }

    #[test]
    fn turns_open_in_order_and_no_more_than_allowed() {
        let (all, now) = (set(0..4), Instant::now());
        let mut round = Round::draw(1, &all, 4, 4, 1, true);
        assert_eq!([0, 1].map(|_| round.next(&all, 2, now)), [Some(0), Some(1)]);
        assert_eq!(round.next(&all, 2, now), None);
        assert_eq!(round.finish(1, 1), Finish::Taken);
        assert_eq!([round.finish(1, 1), round.finish(1, 3)], [Finish::Again, Finish::Late]);
        assert_eq!(round.finish(2, 0), Finish::Late);
        assert_eq!(round.next(&set([0, 1, 3]), 2, now), Some(3));
    }

    #[test]
    fn who_is_late_is_left_out_and_who_waits_is_not_late() {
        let (all, now) = (set(0..3), Instant::now());
        let mut round = Round::draw(1, &all, 3, 3, 1, false);
        while round.next(&all, 9, now).is_some() {}
        let patience = Duration::from_secs(5);
        round.clock(1, None);
        assert_eq!(round.next_expiry(patience), Some(now + patience));
        assert!(round.expire(now + Duration::from_secs(4), patience).is_empty());
        assert_eq!(round.expire(now + patience, patience), [0, 2]);
        assert_eq!(round.finish(1, 0), Finish::Late);
        assert!(!round.is_over(&all));
        assert!(round.left(1) && round.is_over(&all));
        assert_eq!(round.finished().count(), 0);
    }

    proptest! {
        /// Whatever comes in whatever order: every turn counts once at most, the round ends when
        /// those present are done, and nobody is open and finished at once.
        #[test]
        fn a_turn_counts_once(
            events in prop::collection::vec((0usize..6, 0u8..6), 0..200), again: bool,
        ) {
            let now = Instant::now();
            let mut present = set(0..6);
            let mut round = Round::draw(3, &present, 6, 5, 1, again);
            let mut taken = BTreeSet::new();
            for (edge, event) in events {
                match event {
                    0 => { present.remove(&edge); round.left(edge); }
                    1 => { present.insert(edge); }
                    2 => { let _ = round.next(&present, 2, now); }
                    3 => { round.expire(now + Duration::from_secs(9), Duration::from_secs(9)); }
                    _ => {
                        let open = round.is_open(edge);
                        let finish = round.finish(3, edge);
                        prop_assert_eq!(finish == Finish::Taken, open);
                        if finish == Finish::Taken { prop_assert!(taken.insert(edge)); }
                        prop_assert_eq!(finish == Finish::Again, !open && taken.contains(&edge));
                    }
                }
                prop_assert!(round.open().count() <= 2);
                prop_assert_eq!(&round.finished().collect::<BTreeSet<_>>(), &taken);
            }
            while !round.is_over(&present) {
                while round.next(&present, 2, now).is_some() {}
                let open: Vec<usize> = round.open().collect();
                prop_assert!(!open.is_empty());
                for edge in open { prop_assert_eq!(round.finish(3, edge), Finish::Taken); }
            }
        }
    }
}
