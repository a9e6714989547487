//! A replica of the cloud as a queue: threads that compute, a bounded number of requests that wait for them, and
//! refusals beyond it, as `shared/src/compute` has them. It has no clock: the caller says when a thread is done.

use std::collections::VecDeque;

#[derive(Debug)]
pub struct Replica<T> {
    threads: usize,
    room: usize,
    busy: usize,
    waiting: VecDeque<T>,
}

/// What becomes of a request that arrives.
#[derive(Debug, PartialEq)]
pub enum Offer<T> {
    /// A thread is free: it begins now.
    Begins(T),
    Waits,
    /// The queue is full.
    Refused(T),
}

impl<T> Replica<T> {
    pub fn new(threads: usize, room: usize) -> Self {
        Self { threads, room, busy: 0, waiting: VecDeque::new() }
    }

    pub fn offer(&mut self, request: T) -> Offer<T> {
        if self.busy < self.threads {
            self.busy += 1;
            Offer::Begins(request)
        } else if self.waiting.len() < self.room {
            self.waiting.push_back(request);
            Offer::Waits
        } else {
            Offer::Refused(request)
        }
    }

    /// A thread is done; gives what it begins with at once, the first that waits.
    pub fn finish(&mut self) -> Option<T> {
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.busy -= 1;
        }
        next
    }

    /// Requests that wait or are computed.
    pub fn held(&self) -> usize {
        self.busy + self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use std::{cmp::Reverse, collections::BinaryHeap};

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    const REQUESTS: u32 = 2_000_000;

    fn exponential(draws: &mut StdRng, mean: f64) -> f64 {
        -mean * (1.0 - draws.random::<f64>()).ln()
    }

    /// Mean time that requests of a Poisson process wait; `load` is per thread, a service takes 1 s in the mean.
    fn mean_wait(threads: usize, load: f64, mut service: impl FnMut(&mut StdRng) -> f64) -> f64 {
        let mut draws = StdRng::seed_from_u64(1);
        let mut replica = Replica::new(threads, usize::MAX);
        // Instants in ns, so that they have an order.
        let mut done: BinaryHeap<Reverse<u64>> = BinaryHeap::new();
        let ns = |seconds: f64| (seconds * 1e9) as u64;
        let (mut now, mut waited) = (0, 0);
        for _ in 0..REQUESTS {
            now += ns(exponential(&mut draws, 1.0 / (load * threads as f64)));
            while let Some(Reverse(at)) = done.peek().copied()
                && at <= now
            {
                done.pop();
                if let Some((asked, service)) = replica.finish() {
                    waited += at - asked;
                    done.push(Reverse(at + service));
                }
            }
            let request = (now, ns(service(&mut draws)));
            if let Offer::Begins((_, service)) = replica.offer(request) {
                done.push(Reverse(now + service));
            }
        }
        waited as f64 * 1e-9 / f64::from(REQUESTS)
    }

    #[track_caller]
    fn close(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 0.05, "{found}, expected {expected}");
    }

    #[test]
    fn waits_are_those_of_the_textbook() {
        // M/D/1, Pollaczek and Khinchine: ρ / (2 (1 - ρ)).
        for load in [0.3, 0.5, 0.8] {
            close(mean_wait(1, load, |_| 1.0), load / (2.0 * (1.0 - load)));
        }
        // M/M/1: ρ / (1 - ρ).
        close(mean_wait(1, 0.6, |draws| exponential(draws, 1.0)), 0.6 / 0.4);
        // M/M/2, Erlang's C: ρ² / (1 - ρ²).
        close(mean_wait(2, 0.7, |draws| exponential(draws, 1.0)), 0.49 / 0.51);
    }

    #[test]
    fn what_finds_no_room_is_refused_and_the_first_goes_first() {
        let mut replica = Replica::new(2, 1);
        assert_eq!(replica.offer('a'), Offer::Begins('a'));
        assert_eq!(replica.offer('b'), Offer::Begins('b'));
        assert_eq!(replica.offer('c'), Offer::Waits);
        assert_eq!(replica.offer('d'), Offer::Refused('d'));
        assert_eq!(replica.held(), 3);
        assert_eq!(replica.finish(), Some('c'));
        assert_eq!(replica.offer('e'), Offer::Waits);
        assert_eq!(replica.finish(), Some('e'));
        assert_eq!((replica.finish(), replica.finish(), replica.held()), (None, None, 0));
    }
}
