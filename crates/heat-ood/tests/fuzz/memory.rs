//! An allocator that counts, and the bound on what a reader may allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Hands everything to the system's allocator.
pub struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn add(bytes: usize) {
    let now = NOW.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    // Zeroed pages stay untouched until they are used.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Readers allocate at most this, or a multiple of the file's size if that is
/// more.
pub const FLOOR: usize = 32 << 20;

/// That multiple: for names in zips and lines of lists of few bytes there are
/// some dozen; four for all else.
pub fn growth(reader: &str) -> usize {
    if ["image_archive", "image_lists"].contains(&reader) { 8 } else { 4 }
}

/// Run `f` on an input of which `size` bytes may be taken. What it allocates at once, on all
/// threads, must be within the bound.
///
/// # Panics
/// If it is not.
pub fn bounded(size: usize, f: impl FnOnce()) {
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    f();
    let peak = MOST.load(Ordering::Relaxed).saturating_sub(before);
    assert!(peak <= FLOOR.max(size), "{peak} bytes allocated where {size} are allowed");
}
