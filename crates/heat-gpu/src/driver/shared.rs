//! What the libraries made, and has to be given back.

use std::ptr::null_mut;

use cudarc::cublaslt::{result as lt, sys as lt_sys};
use cudarc::driver::result as cuda;
use cudarc::driver::sys;
use heat_ood::{Error, Result};

use super::failure::Answer;

/// A handle of a library, given back when it is dropped.
pub(super) struct Owned<T: Copy, E> {
    pub(super) handle: T,
    pub(super) destroy: unsafe fn(T) -> std::result::Result<(), E>,
}

impl<T: Copy, E> Drop for Owned<T, E> {
    fn drop(&mut self) {
        // SAFETY: the handle came from the library with nothing else to give it back, and this is the
        // only time. There is nobody to tell of a failure.
        let _ = unsafe { (self.destroy)(self.handle) };
    }
}

/// The card's context is that of the calling thread while this lives; then the one before is again.
pub(super) struct Bound;

impl Drop for Bound {
    fn drop(&mut self) {
        let mut context = null_mut();
        // SAFETY: the driver has been opened, or there would be none of these; it writes one handle.
        let _ = unsafe { sys::cuCtxPopCurrent_v2(&mut context) };
    }
}

/// What a card and its programs need. What is null was not made.
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) device: sys::CUdevice,
    pub(super) context: sys::CUcontext,
    /// All work.
    pub(super) stream: sys::CUstream,
    /// What graphs are recorded on: never with work of its own, so that nothing waits for it.
    pub(super) recorder: sys::CUstream,
    pub(super) module: sys::CUmodule,
    pub(super) products: lt_sys::cublasLtHandle_t,
    pub(super) workspace: sys::CUdeviceptr,
}

// SAFETY: the handles are not of a thread: a driver's context is bound to the thread at hand before each
// use (`bind`), and the driver's and cuBLASLt's functions may be called by several threads. The fields are
// written before a `Shared` is shared, and never after.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// The card `number` with nothing in it yet.
    pub(super) fn new(name: String, device: sys::CUdevice) -> Result<Self> {
        // SAFETY: the device came from the driver.
        let context = unsafe { cuda::primary_ctx::retain(device) };
        let context = context.of(&name, "cuDevicePrimaryCtxRetain")?;
        Ok(Shared {
            name,
            device,
            context,
            stream: null_mut(),
            recorder: null_mut(),
            module: null_mut(),
            products: null_mut(),
            workspace: 0,
        })
    }

    /// Bind the card's context to this thread.
    pub(super) fn bind(&self) -> Result<Bound> {
        // SAFETY: the context is held until `self` is dropped.
        let pushed = unsafe { sys::cuCtxPushCurrent_v2(self.context) };
        pushed.result().of(&self.name, "cuCtxPushCurrent")?;
        Ok(Bound)
    }

    /// Wait until all work is done. Needs the context bound.
    pub(super) fn wait(&self) -> Result<()> {
        // SAFETY: the stream is open until `self` is dropped.
        unsafe { cuda::stream::synchronize(self.stream) }.of(&self.name, "cuStreamSynchronize")
    }

    pub(super) fn error(&self, problem: impl Into<String>) -> Error {
        Error::device(&self.name, problem)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Ok(_bound) = self.bind() {
            // SAFETY: each was made by the library, is given back once, and by nothing else, after the
            // last work is done; the products before the context that they live in. There is nobody
            // to tell of a failure.
            unsafe {
                if !self.stream.is_null() {
                    let _ = cuda::stream::synchronize(self.stream);
                }
                if !self.products.is_null() {
                    let _ = lt::destroy_handle(self.products);
                }
                if self.workspace != 0 {
                    let _ = cuda::free_sync(self.workspace);
                }
                if !self.module.is_null() {
                    let _ = cuda::module::unload(self.module);
                }
                for stream in [self.recorder, self.stream] {
                    if !stream.is_null() {
                        let _ = cuda::stream::destroy(stream);
                    }
                }
            }
        }
        // SAFETY: it was retained in `new`, and is released once.
        let _ = unsafe { cuda::primary_ctx::release(self.device) };
    }
}
