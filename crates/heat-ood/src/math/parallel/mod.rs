//! The library's own thread pool.
//!
//! Never rayon's global pool: hosts that fork or run many workers a node hang
//! or oversubscribe on it. Size: [`set_threads`], else `HEAT_NUM_THREADS`,
//! else the CPUs that the control group allows. Work is cut into blocks of
//! fixed size, so no result depends on the number of threads.

mod pieces;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rayon::{ThreadPool, ThreadPoolBuilder};

pub use pieces::{Indices, Pieces, Slices, SlicesMut};

use crate::error::{Error, Result};

/// A pool with the process that started its threads. A fork has a copy of the pool, but none of
/// its threads: it starts its own, and forgets the copy, which nobody could wait for.
struct Slot {
    process: u32,
    pool: Arc<ThreadPool>,
}

/// One for each generation of forks: another thread of the parent may have held its lock
/// when the child was made, and would never give it back there.
static SLOTS: [RwLock<Option<Slot>>; 8] = [const { RwLock::new(None) }; 8];
/// The process that runs, and above it how many forks led to it: changed together.
static PROCESS: AtomicU64 = AtomicU64::new(0);
/// As asked for by [`set_threads`], which forks keep to; 0: nothing was.
static ASKED: AtomicUsize = AtomicUsize::new(0);

/// The slot of this process, and its number.
fn slot() -> (&'static RwLock<Option<Slot>>, u32) {
    let process = std::process::id();
    let mut known = PROCESS.load(Ordering::Acquire);
    while known as u32 != process {
        let next = (((known >> 32) + 1) << 32) | u64::from(process);
        match PROCESS.compare_exchange(known, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => known = next,
            Err(other) => known = other,
        }
    }
    (&SLOTS[(known >> 32) as usize % SLOTS.len()], process)
}

/// Put a pool into a slot. One of another process is not dropped: that would wait for its threads.
fn put(slot: &mut Option<Slot>, process: u32, pool: Arc<ThreadPool>) {
    if let Some(old) = slot.replace(Slot { process, pool })
        && old.process != process
    {
        std::mem::forget(old);
    }
}

/// More would only wait for each other.
const MAX_THREADS: usize = 1024;

thread_local! {
    static IN_POOL: Cell<bool> = const { Cell::new(false) };
}

fn build(threads: usize) -> std::result::Result<ThreadPool, rayon::ThreadPoolBuildError> {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("heat-{i}"))
        .start_handler(|_| IN_POOL.set(true))
        .build()
}

fn default_threads() -> usize {
    std::env::var("HEAT_NUM_THREADS")
        .ok()
        .and_then(|v| v.parse().ok())
        .filter(|n| (1..=MAX_THREADS).contains(n))
        .or_else(|| std::thread::available_parallelism().ok().map(Into::into))
        .unwrap_or(1)
}

/// A pool of exactly that many threads.
fn asked(threads: usize) -> Result<ThreadPool> {
    let refuse = |why: String| Error::config("threads", threads, why);
    if !(1..=MAX_THREADS).contains(&threads) {
        return Err(refuse(format!("between 1 and {MAX_THREADS} threads are possible")));
    }
    build(threads).map_err(|e| refuse(e.to_string()))
}

/// Use `threads` worker threads from now on.
///
/// # Errors
/// If `threads` is zero or the system refuses to start them.
pub fn set_threads(threads: usize) -> Result<()> {
    let pool = asked(threads)?;
    ASKED.store(threads, Ordering::Release);
    let (slot, process) = slot();
    put(&mut slot.write().unwrap_or_else(PoisonError::into_inner), process, Arc::new(pool));
    Ok(())
}

fn pool() -> Arc<ThreadPool> {
    let (slot, process) = slot();
    let own = |slot: &Option<Slot>| {
        let own = slot.as_ref().filter(|slot| slot.process == process);
        own.map(|slot| Arc::clone(&slot.pool))
    };
    if let Some(pool) = own(&slot.read().unwrap_or_else(PoisonError::into_inner)) {
        return pool;
    }
    let mut slot = slot.write().unwrap_or_else(PoisonError::into_inner);
    own(&slot).unwrap_or_else(|| {
        let threads = Some(ASKED.load(Ordering::Acquire)).filter(|&n| n > 0);
        let pool = build(threads.unwrap_or_else(default_threads)).or_else(|_| build(1));
        let pool = Arc::new(pool.expect("the system can start one thread"));
        put(&mut slot, process, Arc::clone(&pool));
        pool
    })
}

/// Run `f` on the library's pool (directly when already there).
pub fn run<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    if IN_POOL.get() {
        return f();
    }
    let (mut f, mut result) = (Some(f), None);
    install(&mut || result = f.take().map(|f| f()));
    result.expect("the pool runs what it is given")
}

/// Compiled once: what hands over to a pool is much code, and would be made for every closure.
fn install(f: &mut (dyn FnMut() + Send)) {
    pool().install(f);
}

/// Run all pieces on the library's pool; the first error in their order,
/// whichever thread meets one first.
///
/// # Errors
/// That of a piece.
pub fn run_all(pieces: impl Pieces<Item = Result<()>>) -> Result<()> {
    let first = Mutex::new(None);
    pieces.enumerate().for_each(|(i, result)| {
        let Err(error) = result else { return };
        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.as_ref().is_none_or(|(at, _)| i < *at) {
            *first = Some((i, error));
        }
    });
    match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// Run `f` on a pool of exactly `threads` threads, for this call only.
///
/// # Errors
/// If `threads` is zero or the system refuses to start them.
pub fn with_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> Result<R> {
    Ok(asked(threads)?.install(f))
}

/// Number of threads that [`run`] would use.
pub fn threads() -> usize {
    if IN_POOL.get() { rayon::current_num_threads() } else { pool().current_num_threads() }
}

/// Run `f` once on every worker of the current pool, with its index: to grow
/// each one's memory before the work is dealt out.
pub(crate) fn each_worker(f: impl Fn(usize) + Sync) {
    run(|| rayon::broadcast(|worker| f(worker.index())));
}

/// Index of the current worker, 0 outside the pool.
pub(crate) fn worker() -> usize {
    if IN_POOL.get() { rayon::current_thread_index().unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_on_its_own_threads() {
        let name = run(|| std::thread::current().name().map(str::to_owned));
        assert!(name.unwrap().starts_with("heat-"));
        assert_eq!(with_threads(3, threads).unwrap(), 3);
        assert_eq!(with_threads(3, || run(threads)).unwrap(), 3);
    }

    #[test]
    fn the_first_error_is_the_first_in_order() {
        let piece = |i: usize| match i {
            30.. => Err(Error::config("piece", i, "late")),
            _ => Ok(()),
        };
        assert!(run_all((0..30).into_par_iter().map(piece)).is_ok());
        let error = run_all((0..1000).into_par_iter().map(piece)).unwrap_err();
        assert_eq!(error.to_string(), "`piece` = 30: late");
    }

    #[test]
    fn refuses_zero() {
        assert!(set_threads(0).is_err());
    }
}
