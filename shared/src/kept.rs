//! Values that are made once for each key, by the first who asks, and kept for others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

type Slot<V> = Arc<OnceCell<V>>;

/// The least recently used are dropped; who has a value keeps it until he is done.
pub struct Kept<K, V> {
    most: usize,
    /// Most recently used last. A handful of entries: a scan is quicker than a map.
    slots: Mutex<Vec<(K, Slot<V>)>>,
}

impl<K: PartialEq + Clone, V: Clone> Kept<K, V> {
    pub fn new(most: usize) -> Self {
        Self { most, slots: Mutex::default() }
    }

    /// The value of this key; those who ask while it is made wait for it. What could not be made is not
    /// remembered.
    pub async fn get<E>(&self, key: &K, make: impl AsyncFnOnce() -> Result<V, E>) -> Result<V, E> {
        let value = self.slot(key).get_or_try_init(|| make()).await.cloned();
        if value.is_err() {
            self.retain(|known| known != key);
        }
        value
    }

    /// Drops all others.
    pub fn retain(&self, keep: impl Fn(&K) -> bool) {
        self.slots().retain(|(key, _)| keep(key));
    }

    fn slot(&self, key: &K) -> Slot<V> {
        let mut slots = self.slots();
        let known = slots.iter().position(|(k, _)| k == key);
        let entry = match known {
            Some(i) => slots.remove(i),
            None => (key.clone(), Slot::default()),
        };
        let slot = entry.1.clone();
        slots.push(entry);
        let over = slots.len().saturating_sub(self.most);
        slots.drain(..over);
        slot
    }

    fn slots(&self) -> MutexGuard<'_, Vec<(K, Slot<V>)>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_value_is_made_once_and_a_failure_again() {
        let (kept, made) = (Kept::new(2), AtomicUsize::new(0));
        let get = async |key: u32| {
            let make = async || {
                tokio::task::yield_now().await;
                made.fetch_add(1, Ordering::Relaxed);
                if key == 9 { Err("nine") } else { Ok(key * 10) }
            };
            kept.get(&key, make).await
        };
        // Two who ask at once have one made.
        assert_eq!(tokio::join!(get(1), get(1)), (Ok(10), Ok(10)));
        assert_eq!(made.load(Ordering::Relaxed), 1);
        assert_eq!((get(9).await, get(9).await), (Err("nine"), Err("nine")));
        assert_eq!(made.load(Ordering::Relaxed), 3);
        // 1 was used after 2, which makes room for 3.
        for key in [2, 1, 3, 1] {
            get(key).await.unwrap();
        }
        assert_eq!(made.load(Ordering::Relaxed), 5);
        get(2).await.unwrap();
        assert_eq!(made.load(Ordering::Relaxed), 6);
        kept.retain(|key| *key != 2);
        get(2).await.unwrap();
        assert_eq!(made.load(Ordering::Relaxed), 7);
    }
}
