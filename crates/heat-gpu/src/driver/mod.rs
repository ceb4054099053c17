//! The card itself: its memory, and plans as graphs that it carries out by themselves.
//!
//! The driver, the compiler of kernels (NVRTC) and the products (cuBLASLt) are opened at run time. This
//! is the only place with `unsafe`, for calls to them; what makes them sound is checked here: every
//! operand of a plan lies within memory that has been reserved, and a program is refused once memory that
//! it was made for has moved.
//!
//! All work goes into one stream in order, so that nothing else has to wait for anything. cudarc's
//! safe layer is not used: it records events between streams, which a graph's recording cannot have, and
//! its products are in TF32 whatever was asked for.

mod failure;
mod open;
mod products;
mod shared;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_uint, c_void};
use std::ptr::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::cublaslt::result::CublasError;
use cudarc::cublaslt::{result as lt, sys as lt_sys};
use cudarc::driver::result::{self as cuda, DriverError};
use cudarc::driver::sys::{self, CUresult};
use heat_ood::{Error, Result};

use failure::{Answer, OF_MEMORY};
use open::{compiled, generation, present, with_versions};
use products::{Described, Shape, WORKSPACE_BYTES, Way};
use shared::{Owned, Shared};
use work::{Arg, Kernel, Multiplication, Work, lower};

use crate::device::Device;
use crate::launch::THREADS;
use crate::plan::{At, Elements, Plan, Slot};

/// The functions of [`KERNELS`](crate::KERNELS) that operations use.
const NAMES: [&str; 16] = [
    "add_sums",
    "bias_leaky",
    "centre",
    "centre_on_means",
    "drop",
    "drop_back",
    "energy",
    "mask",
    "negated_softmax",
    "noise",
    "partial_sums",
    "scale",
    "seed_delta",
    "step_and_project",
    "white_step",
    "zero",
];

/// Memory of a slot.
struct Piece {
    address: sys::CUdeviceptr,
    /// Elements.
    len: usize,
    /// No other piece, of this card or another, has or had it.
    serial: u64,
}

impl Piece {
    fn new(address: sys::CUdeviceptr, len: usize) -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        Piece { address, len, serial: MADE.fetch_add(1, Ordering::Relaxed) }
    }
}

/// An NVIDIA card.
pub struct Card {
    shared: Arc<Shared>,
    model: String,
    kernels: BTreeMap<&'static str, Function>,
    memory: BTreeMap<Slot, Piece>,
    /// That memory has moved, and nobody was told yet.
    moved: bool,
    /// The same for a shape each time, so that results are.
    algorithms: HashMap<Shape, Way>,
}

/// A kernel, for as long as the module lives.
#[derive(Clone, Copy)]
struct Function(sys::CUfunction);

// SAFETY: the handle is not of a thread, and is not written.
unsafe impl Send for Function {}

/// A plan as the card's graph.
pub struct Program {
    shared: Arc<Shared>,
    graph: sys::CUgraphExec,
    /// Slots and the serial numbers of their memory, whose addresses are in the graph.
    uses: Vec<(Slot, u64)>,
}

// SAFETY: the handle is not of a thread; the context is bound before each use.
unsafe impl Send for Program {}

impl Drop for Program {
    fn drop(&mut self) {
        if let Ok(_bound) = self.shared.bind() {
            let _ = self.shared.wait();
            // SAFETY: it was made in `prepare`, is destroyed once, and is not being carried out.
            let _ = unsafe { cuda::graph::exec_destroy(self.graph) };
        }
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        if let Ok(_bound) = self.shared.bind() {
            let _ = self.shared.wait();
            for piece in self.memory.values() {
                // SAFETY: it was allocated in `reserve`, is freed once, and nothing uses it any more: programs
                // that did are refused by every other card.
                let _ = unsafe { cuda::free_sync(piece.address) };
            }
        }
    }
}

impl Card {
    /// The card of this number, from 0.
    ///
    /// # Errors
    /// If there is no driver, card or library, or the card is too old; with what to do.
    pub fn open(number: usize) -> Result<Card> {
        let name = format!("cuda:{number}");
        let device = present(&name, number)?;
        let generation = generation(&name, device)?;
        let model = cuda::device::get_name(device).of(&name, "cuDeviceGetName")?;
        let mut shared = Shared::new(name.clone(), device)?;
        let _bound = shared.bind()?;
        let stream = || {
            cuda::stream::create(cuda::stream::StreamKind::NonBlocking).of(&name, "cuStreamCreate")
        };
        (shared.stream, shared.recorder) = (stream()?, stream()?);
        let code = compiled(&name, generation)?;
        // SAFETY: a whole module, as the compiler made it; text ends with zero.
        let module = unsafe { cuda::module::load_data(code.as_ptr().cast()) };
        shared.module =
            module.of(&name, "cuModuleLoadData").map_err(|e| with_versions(e, &name))?;
        let mut kernels = BTreeMap::new();
        for kernel in NAMES {
            let text = CString::new(kernel)
                .map_err(|_| shared.error("a kernel's name has a zero byte"))?;
            // SAFETY: the module is loaded.
            let function = unsafe { cuda::module::get_function(shared.module, text) };
            kernels.insert(
                kernel,
                Function(function.of(&name, &format!("cuModuleGetFunction of `{kernel}`"))?),
            );
        }
        let products = lt::create_handle().of(&name, "cublasLtCreate");
        shared.products = products.map_err(|e| with_versions(e, &name))?;
        // SAFETY: nothing reads it before a product has written it.
        shared.workspace = unsafe { cuda::malloc_sync(WORKSPACE_BYTES) }.of(&name, "cuMemAlloc")?;
        Ok(Card {
            shared: Arc::new(shared),
            model,
            kernels,
            memory: BTreeMap::new(),
            moved: false,
            algorithms: HashMap::new(),
        })
    }

    /// What the card is called, as `NVIDIA H100 80GB HBM3`.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Where a slot's first elements are.
    fn piece(&self, slot: Slot, len: usize, elements: Elements) -> Result<sys::CUdeviceptr> {
        let problem = match self.memory.get(&slot) {
            Some(piece) if piece.len >= len && slot.elements() == elements => {
                return Ok(piece.address);
            }
            Some(piece) if piece.len >= len => {
                format!("{slot:?} holds {:?}, not {elements:?}", slot.elements())
            }
            Some(piece) => format!("{slot:?} has {} elements, not {len}", piece.len),
            None => format!("{slot:?} has not been reserved"),
        };
        Err(self.shared.error(problem))
    }

    fn copy_in<T>(&mut self, slot: Slot, values: &[T], elements: Elements) -> Result<()> {
        let to = self.piece(slot, values.len(), elements)?;
        if values.is_empty() {
            return Ok(());
        }
        let _bound = self.shared.bind()?;
        // SAFETY: the slot has so many elements of this size. On some machines the card reads the values
        // itself, after this returns, so they are waited for.
        let copied = unsafe { cuda::memcpy_htod_async(to, values, self.shared.stream) };
        copied.of(&self.shared.name, "cuMemcpyHtoDAsync")?;
        self.shared.wait()
    }

    /// `needed` bytes cannot be had.
    fn short_of_memory(&self, needed: usize) -> Error {
        let free = cuda::mem_get_info().map_or("?".into(), |(free, _)| (free >> 20).to_string());
        self.shared.error(format!(
            "not enough memory: {} MiB more are needed, and {free} are free; {OF_MEMORY}",
            needed.div_ceil(1 << 20)
        ))
    }

    /// Have everything on the card that `work` needs of the libraries: what is brought there at first use
    /// cannot be while a graph is recorded. Needs the context bound.
    fn warm(&mut self, work: &[Work]) -> Result<()> {
        let mut kernels = BTreeMap::new();
        for work in work {
            match work {
                Work::Kernel(kernel) => {
                    kernels.entry(kernel.name).or_insert(kernel);
                }
                Work::Product(product) => self.choose(product)?,
            }
        }
        kernels.values().try_for_each(|kernel| self.launch(&kernel.idle(), self.shared.stream))?;
        self.shared.wait()
    }

    /// How the library does products of this shape, which it is asked once. Needs the context bound.
    fn choose(&mut self, product: &Multiplication) -> Result<()> {
        let shape = product.shape;
        if self.algorithms.contains_key(&shape) {
            return Ok(());
        }
        let name = &self.shared.name;
        let find = |tf32| {
            let algorithm =
                Described::new(&shape, tf32)?.algorithm(self.shared.products, &shape)?;
            Ok(Way { algorithm, tf32 })
        };
        let way = find(shape.tf32).or_else(|e: CublasError| {
            // Where the fast units do not take an odd shape, the exact ones do.
            let odd = shape.tf32 && e.0 == lt_sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED;
            if odd { find(false) } else { Err(e) }
        });
        let way = way.of(name, &format!("cublasLtMatmulAlgoGetHeuristic of {shape}"))?;
        self.algorithms.insert(shape, way);
        // Once into memory of its own. Where there is none to spare, that is left out.
        let bytes = shape.m.saturating_mul(shape.n).saturating_mul(4);
        // SAFETY: whatever is in it may be read and written.
        let scratch = unsafe { cuda::malloc_sync(bytes) };
        if let Ok(handle) = scratch {
            let scratch: Owned<_, DriverError> = Owned { handle, destroy: cuda::free_sync };
            let elsewhere = Multiplication { out: scratch.handle, ..*product };
            self.multiply(&elsewhere, self.shared.stream)?;
            self.shared.wait()?;
        }
        Ok(())
    }

    /// Needs the context bound.
    fn multiply(&self, p: &Multiplication, stream: sys::CUstream) -> Result<()> {
        let shared = &self.shared;
        let way = self.algorithms.get(&p.shape);
        let way = way.ok_or_else(|| shared.error(format!("no algorithm for {}", p.shape)))?;
        let (alpha, beta) = (p.alpha, f32::from_bits(p.shape.beta));
        let of = format!("cublasLtMatmul of {}", p.shape);
        let described = Described::new(&p.shape, way.tf32).of(&shared.name, &of)?;
        // SAFETY: `lower` or `choose` made sure of memory for all three, of the shapes described, aligned as
        // the algorithm was chosen for; factors are read, and descriptions used, during the call alone; the
        // workspace is as large as was said, and all that use it are in one stream.
        let done = unsafe {
            lt::matmul(
                shared.products,
                described.desc.handle,
                from_ref(&alpha).cast(),
                from_ref(&beta).cast(),
                pointer(p.b),
                described.first.handle,
                pointer(p.a),
                described.second.handle,
                pointer(p.out),
                described.out.handle,
                pointer(p.out),
                described.out.handle,
                &way.algorithm,
                pointer(shared.workspace),
                WORKSPACE_BYTES,
                stream.cast(),
            )
        };
        done.of(&shared.name, &of)
    }

    /// Needs the context bound.
    fn launch(&self, kernel: &Kernel, stream: sys::CUstream) -> Result<()> {
        let Kernel { name, grid: (x, y), args } = kernel;
        let shared = &self.shared;
        let function = self
            .kernels
            .get(name)
            .ok_or_else(|| shared.error(format!("there is no kernel `{name}`")))?;
        let mut args: Vec<*mut c_void> = args.iter().map(Arg::pointer).collect();
        let block = (THREADS as c_uint, 1, 1);
        // SAFETY: the arguments are those that the kernel is declared with (a test compares them), are copied
        // during the call, and `lower` made sure of memory for all that the kernel touches.
        unsafe { cuda::launch_kernel(function.0, (*x, *y, 1), block, 0, stream, &mut args) }
            .of(&shared.name, &format!("cuLaunchKernel of `{name}`"))
    }

    /// The graph of `work`. Needs the context bound.
    fn record(&self, work: &[Work]) -> Result<sys::CUgraphExec> {
        let Shared { name, recorder, .. } = &*self.shared;
        // Relaxed: what other threads of this process do with the card does not spoil it.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is open, and recording has not begun: it ends below, whatever happens.
        unsafe { cuda::stream::begin_capture(*recorder, mode) }.of(name, "cuStreamBeginCapture")?;
        let queued = work.iter().try_for_each(|work| match work {
            Work::Kernel(kernel) => self.launch(kernel, *recorder),
            Work::Product(product) => self.multiply(product, *recorder),
        });
        // SAFETY: recording began above.
        let graph = unsafe { cuda::stream::end_capture(*recorder) };
        let graph = graph.map(|handle| Owned { handle, destroy: cuda::graph::destroy });
        // What failed first says more.
        queued?;
        let graph = graph.of(name, "cuStreamEndCapture")?;
        // SAFETY: the graph is whole; what is made of it does not need it any more.
        unsafe { cuda::graph::instantiate(graph.handle, sys::CUgraphInstantiate_flags(0)) }
            .of(name, "cuGraphInstantiate")
    }
}

impl Device for Card {
    type Program = Program;

    fn name(&self) -> String {
        self.shared.name.clone()
    }

    fn reserve(&mut self, slots: &[(Slot, usize)]) -> Result<bool> {
        let mut growing: BTreeMap<Slot, usize> = BTreeMap::new();
        for &(slot, len) in slots {
            if self.memory.get(&slot).is_none_or(|piece| piece.len < len) {
                let most = growing.entry(slot).or_default();
                *most = len.max(*most);
            }
        }
        let _bound = self.shared.bind()?;
        if !growing.is_empty() {
            self.shared.wait()?;
        }
        // All that go first, so that what comes has their room.
        for slot in growing.keys() {
            if let Some(piece) = self.memory.remove(slot) {
                self.moved = true;
                // SAFETY: it was allocated below, and nothing uses it: all work is done, and programs made for
                // it are refused.
                unsafe { cuda::free_sync(piece.address) }.of(&self.shared.name, "cuMemFree")?;
            }
        }
        let bytes = |slot: Slot, len: usize| len.max(1).saturating_mul(slot.elements().bytes());
        let mut needed = growing
            .iter()
            .fold(0, |sum: usize, (slot, len)| sum.saturating_add(bytes(*slot, *len)));
        for (slot, len) in growing {
            // SAFETY: what is in it is for those who use it to write.
            let address = match unsafe { cuda::malloc_sync(bytes(slot, len)) } {
                Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                    return Err(self.short_of_memory(needed));
                }
                other => other.of(&self.shared.name, "cuMemAlloc")?,
            };
            self.memory.insert(slot, Piece::new(address, len));
            needed = needed.saturating_sub(bytes(slot, len));
        }
        Ok(std::mem::take(&mut self.moved))
    }

    fn put(&mut self, slot: Slot, values: &[f32]) -> Result<()> {
        self.copy_in(slot, values, Elements::Numbers)
    }

    fn put_words(&mut self, slot: Slot, values: &[u32]) -> Result<()> {
        self.copy_in(slot, values, Elements::Words)
    }

    fn take(&mut self, slot: Slot, out: &mut [f32]) -> Result<()> {
        let from = self.piece(slot, out.len(), Elements::Numbers)?;
        let _bound = self.shared.bind()?;
        if !out.is_empty() {
            // SAFETY: the slot has so many numbers; they are waited for below.
            let copied = unsafe { cuda::memcpy_dtoh_async(out, from, self.shared.stream) };
            copied.of(&self.shared.name, "cuMemcpyDtoHAsync")?;
        }
        self.shared.wait()
    }

    fn prepare(&mut self, plan: &Plan) -> Result<Program> {
        let mut uses = BTreeMap::new();
        let mut address = |at: At, len: usize| {
            let At { slot, offset } = at;
            let piece =
                self.memory.get(&slot).ok_or_else(|| format!("{slot:?} has not been reserved"))?;
            if offset.saturating_add(len) > piece.len {
                return Err(format!("{slot:?} has {} elements, not {offset} + {len}", piece.len));
            }
            uses.insert(slot, piece.serial);
            Ok(piece.address + (offset * slot.elements().bytes()) as u64)
        };
        let work: std::result::Result<Vec<_>, _> =
            plan.ops.iter().map(|op| lower(op, &mut address)).collect();
        let work = work.map_err(|problem| self.shared.error(problem))?;
        let work: Vec<Work> = work.into_iter().flatten().collect();
        let _bound = self.shared.bind()?;
        self.warm(&work)?;
        let graph = self.record(&work)?;
        Ok(Program { shared: self.shared.clone(), graph, uses: uses.into_iter().collect() })
    }

    fn run(&mut self, program: &Program) -> Result<()> {
        let same = |(slot, serial): &(Slot, u64)| {
            self.memory.get(slot).is_some_and(|p| p.serial == *serial)
        };
        if !Arc::ptr_eq(&self.shared, &program.shared) || !program.uses.iter().all(same) {
            return Err(self
                .shared
                .error("memory that this program was made for has moved: prepare it again"));
        }
        let _bound = self.shared.bind()?;
        // SAFETY: all that the graph uses lives: the module and workspace with `shared`, the memory as seen
        // above. It is freed only after waiting for the stream.
        unsafe { cuda::graph::launch(program.graph, self.shared.stream) }
            .of(&self.shared.name, "cuGraphLaunch")
    }
}

fn pointer(address: sys::CUdeviceptr) -> *mut c_void {
    address as *mut c_void
}

#[cfg(test)]
mod tests;
