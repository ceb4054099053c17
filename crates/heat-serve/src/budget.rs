//! How many bytes requests may hold, all together.
//!
//! A limit of one body says nothing of the sum of a thousand. Bytes are charged as they come; who
//! gets none is refused at once, since to wait for others that wait too would never end. A quarter
//! is for small requests alone: a thousand large ones that hardly come keep none of these out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::refusal::{Kind, Refusal, Result};

/// Bytes of a small request.
const SMALL: usize = 64 << 10;

/// Bytes that others hold beside a request that is alone: its own head, and those of some others.
const ALONE: usize = 16 << 10;

/// What bounds a body.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Its bytes, as they come and unpacked.
    pub bytes: usize,
    /// How long it may take to come.
    pub time: Duration,
}

/// The bytes of all requests.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    limit: usize,
}

/// What one request holds of it; given back when dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// With that many bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Budget { used: AtomicUsize::new(0), limit })
    }

    /// Bytes held.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// A charge of nothing yet.
    pub fn charge(self: &Arc<Self>) -> Charge {
        Charge { budget: Arc::clone(self), bytes: 0 }
    }
}

impl Charge {
    /// Hold `bytes` more. A request that is alone, but for what small ones hold, gets them whatever
    /// the limit: each has bounds of its own, and else it would never pass.
    ///
    /// # Errors
    /// If others hold too much.
    pub fn add(&mut self, bytes: usize) -> Result<()> {
        let more = |used: usize| self.sum(used, bytes);
        let added = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        added.map_err(|_| full())?;
        self.bytes += bytes;
        Ok(())
    }

    /// Hold `bytes` more, whatever others hold: of an answer, whose rows are scored already. Others
    /// are kept out until it is sent.
    pub fn take(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether that many more could be held now.
    ///
    /// # Errors
    /// If others hold too much.
    pub fn check(&self, bytes: usize) -> Result<()> {
        self.sum(self.budget.used(), bytes).map(|_| ()).ok_or_else(full)
    }

    /// What all would hold with `bytes` more, if that may be.
    fn sum(&self, used: usize, bytes: usize) -> Option<usize> {
        let sum = used.checked_add(bytes)?;
        let small = self.bytes.saturating_add(bytes) <= SMALL;
        let limit = self.budget.limit - if small { 0 } else { self.budget.limit / 4 };
        let is_alone = used.saturating_sub(self.bytes) <= ALONE;
        (sum <= limit || is_alone).then_some(sum)
    }

    /// Hold `bytes` less.
    pub fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn full() -> Refusal {
    let text = "the requests being answered hold all the memory that there is for them; try again";
    Refusal::new(Kind::Busy, text)
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_together_hold_no_more_than_the_limit() {
        let budget = Budget::new(100 << 10);
        let (mut a, mut b) = (budget.charge(), budget.charge());
        a.add(60 << 10).unwrap();
        b.add(40 << 10).unwrap();
        assert_eq!(a.add(1).unwrap_err().kind, Kind::Busy);
        a.give_back(20 << 10);
        b.add(20 << 10).unwrap();
        drop(a);
        assert_eq!(budget.used(), 60 << 10);
        drop(b);
        assert_eq!(budget.used(), 0);
    }

    /// However many large ones there are, and whatever they hold together.
    #[test]
    fn small_requests_find_room_beside_large_ones() {
        let budget = Budget::new(16 << 20);
        let mut large: Vec<Charge> = (0..40).map(|_| budget.charge()).collect();
        for _ in 0..10 {
            large.iter_mut().for_each(|charge| drop(charge.add(100_000)));
        }
        let held = budget.used();
        assert!((12 << 20) - 100_000 < held && held <= 12 << 20, "{held}");
        let small: Vec<_> = (0..60)
            .map(|_| {
                let mut charge = budget.charge();
                charge.add(60_000).unwrap();
                charge
            })
            .collect();
        assert_eq!(budget.used(), held + 60 * 60_000);
        drop(small);
        let mut growing = budget.charge();
        growing.add(SMALL).unwrap();
        assert_eq!(growing.add(100_000).unwrap_err().kind, Kind::Busy);
    }

    #[test]
    fn answers_count_beyond_the_limit() {
        let budget = Budget::new(100 << 10);
        let mut answer = budget.charge();
        answer.take(150 << 10);
        assert_eq!(budget.used(), 150 << 10);
        assert_eq!(budget.charge().add(1).unwrap_err().kind, Kind::Busy);
        drop(answer);
        budget.charge().add(1).unwrap();
    }

    #[test]
    fn one_that_is_alone_passes() {
        let budget = Budget::new(100 << 10);
        let (mut head, mut alone) = (budget.charge(), budget.charge());
        head.add(2 << 10).unwrap();
        alone.add(90 << 10).unwrap();
        alone.add(90 << 10).unwrap();
        assert!(budget.charge().add(1).is_err());
    }
}
