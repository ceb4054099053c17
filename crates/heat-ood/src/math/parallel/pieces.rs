//! Slices in pieces, on all threads: the few of rayon's iterators that are used
//! here, under their names. Rayon compiles its splitting and stealing anew for
//! every closure, which was a quarter of the library's code; here they are
//! compiled once, and a closure is called through a pointer for every run of
//! pieces.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{run, threads};

/// Pieces that can be dealt out to the threads of the library's pool.
pub trait Pieces: Sized + Sync {
    /// A piece.
    type Item;

    /// Number of pieces.
    fn count(&self) -> usize;

    /// Piece `i`.
    ///
    /// # Safety
    /// `i` is less than [`Pieces::count`], and no piece is taken twice: it may
    /// be a mutable reference.
    unsafe fn take(&self, i: usize) -> Self::Item;

    /// Pieces of both, as many as the shorter has.
    fn zip<B: Pieces>(self, other: B) -> Zip<Self, B> {
        Zip(self, other)
    }

    /// Each piece with its number.
    fn enumerate(self) -> Enumerate<Self> {
        Enumerate(self)
    }

    /// What `f` makes of each piece.
    fn map<R, F: Fn(Self::Item) -> R + Sync>(self, f: F) -> Map<Self, F> {
        Map(self, f)
    }

    /// Call `f` with every piece.
    fn for_each(self, f: impl Fn(Self::Item) + Sync) {
        deal(self.count(), Grain::Adaptive, &|range| {
            // SAFETY: the ranges that are dealt out make up all pieces, each once.
            range.for_each(|i| f(unsafe { self.take(i) }));
        });
    }

    /// The same for pieces of very different cost: each can go to any thread.
    fn for_each_singly(self, f: impl Fn(Self::Item) + Sync) {
        deal(self.count(), Grain::Single, &|range| {
            // SAFETY: as in `for_each`.
            range.for_each(|i| f(unsafe { self.take(i) }));
        });
    }

    /// All pieces, in their order.
    fn collect(self) -> Vec<Self::Item>
    where
        Self::Item: Send,
    {
        self.collect_with(|| (), |(), piece| piece)
    }

    /// What `f` makes of each piece, in their order; it is lent a state that
    /// `new` makes for some pieces in a row.
    fn collect_with<S, R: Send>(
        self,
        new: impl Fn() -> S + Sync,
        f: impl Fn(&mut S, Self::Item) -> R + Sync,
    ) -> Vec<R> {
        let n = self.count();
        let mut out = Vec::with_capacity(n);
        let slots = Pointer::<R>(out.as_mut_ptr());
        deal(n, Grain::Adaptive, &|range| {
            let mut state = new();
            for i in range {
                // SAFETY: as in `for_each`; slot i is within the capacity and is
                // written by nobody else.
                unsafe { slots.at(i).write(f(&mut state, self.take(i))) };
            }
        });
        // SAFETY: all n slots were written, else `deal` would have panicked.
        unsafe { out.set_len(n) };
        out
    }

    /// Whether `f` holds for every piece; false ends the search early.
    fn all(self, f: impl Fn(Self::Item) -> bool + Sync) -> bool {
        let holds = AtomicBool::new(true);
        self.for_each(|piece| {
            if holds.load(Ordering::Relaxed) && !f(piece) {
                holds.store(false, Ordering::Relaxed);
            }
        });
        holds.into_inner()
    }
}

/// How far to cut: until all threads have enough, and further where one takes
/// work from another; or down to single pieces.
enum Grain {
    Adaptive,
    Single,
}

/// Deal out `0..n` to the threads of the pool. A single piece stays here.
fn deal(n: usize, grain: Grain, f: &(dyn Fn(Range<usize>) + Sync)) {
    match (n, grain) {
        (0, _) => (),
        (1, _) => f(0..1),
        (_, Grain::Adaptive) => run(|| split(0..n, threads(), false, f)),
        (_, Grain::Single) => run(|| split(0..n, n, false, f)),
    }
}

fn split(range: Range<usize>, cuts: usize, stolen: bool, f: &(dyn Fn(Range<usize>) + Sync)) {
    if range.len() < 2 || (cuts == 0 && !stolen) {
        return f(range);
    }
    let cuts = if stolen { threads().max(cuts / 2) } else { cuts / 2 };
    let middle = range.start + range.len() / 2;
    rayon::join_context(
        |at| split(range.start..middle, cuts, at.migrated(), f),
        |at| split(middle..range.end, cuts, at.migrated(), f),
    );
}

/// A pointer that threads may share, since each takes other elements.
struct Pointer<T>(*mut T);

// SAFETY: elements are taken by one thread each (`Pieces::take`), so only
// they must be fit to move there.
unsafe impl<T: Send> Sync for Pointer<T> {}

impl<T> Pointer<T> {
    /// # Safety
    /// Element `i` must exist.
    unsafe fn at(&self, i: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(i) }
    }
}

/// See [`Slices::par_chunks`].
pub struct Chunks<'a, T>(&'a [T], usize);

impl<'a, T: Sync> Pieces for Chunks<'a, T> {
    type Item = &'a [T];

    fn count(&self) -> usize {
        self.0.len().div_ceil(self.1)
    }

    unsafe fn take(&self, i: usize) -> &'a [T] {
        &self.0[i * self.1..self.0.len().min((i + 1) * self.1)]
    }
}

/// See [`SlicesMut::par_chunks_mut`].
pub struct ChunksMut<'a, T> {
    first: Pointer<T>,
    len: usize,
    size: usize,
    lent: PhantomData<&'a mut [T]>,
}

impl<'a, T: Send + Sync> Pieces for ChunksMut<'a, T> {
    type Item = &'a mut [T];

    fn count(&self) -> usize {
        self.len.div_ceil(self.size)
    }

    unsafe fn take(&self, i: usize) -> &'a mut [T] {
        let start = i * self.size;
        let len = self.size.min(self.len - start);
        // SAFETY: within the slice, which is lent for 'a; chunks do not overlap
        // and none is taken twice.
        unsafe { std::slice::from_raw_parts_mut(self.first.at(start), len) }
    }
}

/// See [`Slices::par_iter`].
pub struct Iter<'a, T>(&'a [T]);

impl<'a, T: Sync> Pieces for Iter<'a, T> {
    type Item = &'a T;

    fn count(&self) -> usize {
        self.0.len()
    }

    unsafe fn take(&self, i: usize) -> &'a T {
        &self.0[i]
    }
}

/// See [`SlicesMut::par_iter_mut`].
pub struct IterMut<'a, T>(ChunksMut<'a, T>);

impl<'a, T: Send + Sync> Pieces for IterMut<'a, T> {
    type Item = &'a mut T;

    fn count(&self) -> usize {
        self.0.len
    }

    unsafe fn take(&self, i: usize) -> &'a mut T {
        // SAFETY: within the slice, which is lent for 'a; none is taken twice.
        unsafe { &mut *self.0.first.at(i) }
    }
}

/// See [`Indices::into_par_iter`].
pub struct Numbers(Range<usize>);

impl Pieces for Numbers {
    type Item = usize;

    fn count(&self) -> usize {
        self.0.len()
    }

    unsafe fn take(&self, i: usize) -> usize {
        self.0.start + i
    }
}

/// See [`Pieces::zip`].
pub struct Zip<A, B>(A, B);

impl<A: Pieces, B: Pieces> Pieces for Zip<A, B> {
    type Item = (A::Item, B::Item);

    fn count(&self) -> usize {
        self.0.count().min(self.1.count())
    }

    unsafe fn take(&self, i: usize) -> Self::Item {
        // SAFETY: the caller's promise.
        unsafe { (self.0.take(i), self.1.take(i)) }
    }
}

/// See [`Pieces::enumerate`].
pub struct Enumerate<A>(A);

impl<A: Pieces> Pieces for Enumerate<A> {
    type Item = (usize, A::Item);

    fn count(&self) -> usize {
        self.0.count()
    }

    unsafe fn take(&self, i: usize) -> Self::Item {
        // SAFETY: the caller's promise.
        (i, unsafe { self.0.take(i) })
    }
}

/// See [`Pieces::map`].
pub struct Map<A, F>(A, F);

impl<A: Pieces, R, F: Fn(A::Item) -> R + Sync> Pieces for Map<A, F> {
    type Item = R;

    fn count(&self) -> usize {
        self.0.count()
    }

    unsafe fn take(&self, i: usize) -> R {
        // SAFETY: the caller's promise.
        self.1(unsafe { self.0.take(i) })
    }
}

/// Slices that are read.
pub trait Slices<T> {
    /// Pieces of `size` elements, the last one shorter.
    fn par_chunks(&self, size: usize) -> Chunks<'_, T>;
    /// Single elements.
    fn par_iter(&self) -> Iter<'_, T>;
}

impl<T: Sync> Slices<T> for [T] {
    fn par_chunks(&self, size: usize) -> Chunks<'_, T> {
        assert!(size > 0, "pieces have elements");
        Chunks(self, size)
    }

    fn par_iter(&self) -> Iter<'_, T> {
        Iter(self)
    }
}

/// Slices that are written.
pub trait SlicesMut<T> {
    /// Pieces of `size` elements, the last one shorter.
    fn par_chunks_mut(&mut self, size: usize) -> ChunksMut<'_, T>;
    /// Single elements.
    fn par_iter_mut(&mut self) -> IterMut<'_, T>;
}

impl<T: Send + Sync> SlicesMut<T> for [T] {
    fn par_chunks_mut(&mut self, size: usize) -> ChunksMut<'_, T> {
        assert!(size > 0, "pieces have elements");
        let (first, len) = (Pointer(self.as_mut_ptr()), self.len());
        ChunksMut { first, len, size, lent: PhantomData }
    }

    fn par_iter_mut(&mut self) -> IterMut<'_, T> {
        IterMut(self.par_chunks_mut(1))
    }
}

/// Ranges of numbers.
pub trait Indices {
    /// The numbers of the range.
    fn into_par_iter(self) -> Numbers;
}

impl Indices for Range<usize> {
    fn into_par_iter(self) -> Numbers {
        Numbers(self)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::math::parallel::with_threads;

    /// As the sequential iterators of the standard library, for every length and number of threads.
    #[test]
    fn pieces_are_those_of_the_slice() {
        for (threads, n) in [(1, 7), (2, 0), (2, 1), (2, 2), (3, 10), (3, 1000)] {
            let values: Vec<usize> = (0..n).collect();
            let mut out = vec![0; n];
            let (chunks, numbers) = with_threads(threads, || {
                let pieces = out.par_chunks_mut(3).zip(values.par_chunks(3)).enumerate();
                pieces.for_each(|(i, (out, values))| {
                    out.iter_mut().zip(values).for_each(|(o, v)| *o = 2 * v + i);
                });
                out.par_iter_mut().for_each_singly(|v| *v += 1);
                let chunks = values.par_chunks(3).map(<[usize]>::to_vec).collect();
                (chunks, (5..5 + n).into_par_iter().collect())
            })
            .unwrap();
            let want: Vec<usize> = values.iter().map(|v| 2 * v + v / 3 + 1).collect();
            assert_eq!(out, want);
            assert_eq!(chunks, values.chunks(3).map(<[usize]>::to_vec).collect::<Vec<_>>());
            assert_eq!(numbers, (5..5 + n).collect::<Vec<_>>());
        }
    }

    /// One thread steals from nobody: its pieces are cut once, in two.
    #[test]
    fn states_are_made_for_runs_of_pieces() {
        let made = AtomicUsize::new(0);
        let new = || made.fetch_add(1, Ordering::Relaxed);
        let numbers: Vec<usize> = (0..10_000).collect();
        let found = with_threads(1, || numbers.par_iter().collect_with(new, |_, v| v + 1));
        assert_eq!(found.unwrap(), (1..10_001).collect::<Vec<_>>());
        assert_eq!(made.into_inner(), 2);
    }

    #[test]
    fn all_is_true_of_none() {
        assert!([0u8; 0].par_iter().all(|_| false));
        assert!([1, 2, 3].par_iter().all(|v| *v > 0));
        assert!(!(0..1000).into_par_iter().all(|i| i != 999));
    }

    #[test]
    fn a_panic_in_a_piece_is_passed_on() {
        let panicking = || (0..100).into_par_iter().map(|i| assert!(i != 57, "piece 57")).collect();
        let caught = std::panic::catch_unwind(panicking).unwrap_err();
        assert_eq!(caught.downcast_ref::<&str>(), Some(&"piece 57"));
    }
}
