//! The card itself: its memory, and plans as graphs that it carries out by themselves.
//!
//! The driver, the compiler of kernels (NVRTC) and the products (cuBLASLt) are opened at run time. This
//! is the only file with `unsafe`, for calls to them; what makes them sound is checked here: every
//! operand of a plan lies within memory that has been reserved, and a program is refused once memory that
//! it was made for has moved.
//!
//! All work goes into one stream in order, so that nothing else has to wait for anything. cudarc's
//! safe layer is not used: it records events between streams, which a graph's recording cannot have, and
//! its products are in TF32 whatever was asked for.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::ptr::{from_ref, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::cublaslt::result::CublasError;
use cudarc::cublaslt::{result as lt, sys as lt_sys};
use cudarc::driver::result::{self as cuda, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute, CUresult};
use cudarc::nvrtc::result::{self as nvrtc, NvrtcError};
use cudarc::nvrtc::sys as nvrtc_sys;
use heat_ood::{Error, Result};

use crate::KERNELS;
use crate::device::Device;
use crate::launch::{self, Launch, THREADS};
use crate::plan::{At, Op, Plan, Precision, Product, Slot};

/// Of the products; more is of no use to them.
const WORKSPACE_BYTES: usize = 32 << 20;
/// Bytes that a card's pieces of memory begin at a multiple of.
const ALIGNMENT: u32 = 256;
/// As a card counts its generations: TF32 came with this one.
const OLDEST: c_int = 80;
/// The driver's and the compiler's first version that have all that is called here: 11.4.
const OLDEST_CUDA: c_int = 11_040;
/// Lines of a compiler's log that go into an error.
const LINES_OF_LOG: usize = 8;

/// The functions of [`KERNELS`] that operations use.
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

const WITHOUT: &str = "or compute on the processor (`--device cpu`)";

// ---- Errors. ----

/// A failure of one of the libraries.
trait Failure {
    /// What it says.
    fn text(&self) -> String;

    /// What to do.
    fn advice(&self) -> String {
        format!("see whether `nvidia-smi` finds the card well, {WITHOUT}")
    }
}

impl Failure for DriverError {
    fn text(&self) -> String {
        let text = self.error_string().map_or("unknown error".into(), |s| s.to_string_lossy());
        format!("{text} ({:?})", self.0)
    }

    fn advice(&self) -> String {
        match self.0 {
            CUresult::CUDA_ERROR_NO_DEVICE => format!(
                "there is NVIDIA's driver, but no card that this program may use: see what `nvidia-smi` lists, \
                 and CUDA_VISIBLE_DEVICES (a container needs `--gpus all`), {WITHOUT}"
            ),
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => OF_MEMORY.into(),
            CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | CUresult::CUDA_ERROR_LAUNCH_FAILED => {
                format!("this should not happen: please report it, {WITHOUT}")
            }
            _ => format!("see whether `nvidia-smi` finds the card well, {WITHOUT}"),
        }
    }
}

impl Failure for CublasError {
    fn text(&self) -> String {
        format!("{:?}", self.0)
    }
}

impl Failure for NvrtcError {
    fn text(&self) -> String {
        format!("{:?}", self.0)
    }
}

const OF_MEMORY: &str = "make `batch_size` smaller, take a card with more (`--device cuda:N`), or compute on the \
                         processor (`--device cpu`)";

/// A library's answer as ours.
trait Answer<T> {
    /// With the card's name and the function that was called.
    fn of(self, card: &str, call: &str) -> Result<T>;
}

impl<T, E: Failure> Answer<T> for std::result::Result<T, E> {
    fn of(self, card: &str, call: &str) -> Result<T> {
        self.map_err(|e| Error::device(card, format!("{call}: {}; {}", e.text(), e.advice())))
    }
}

// ---- What the libraries made, and has to be given back. ----

/// A handle of a library, given back when it is dropped.
struct Owned<T: Copy, E> {
    handle: T,
    destroy: unsafe fn(T) -> std::result::Result<(), E>,
}

impl<T: Copy, E> Drop for Owned<T, E> {
    fn drop(&mut self) {
        // SAFETY: the handle came from the library with nothing else to give it back, and this is the
        // only time. There is nobody to tell of a failure.
        let _ = unsafe { (self.destroy)(self.handle) };
    }
}

/// The card's context is that of the calling thread while this lives; then the one before is again.
struct Bound;

impl Drop for Bound {
    fn drop(&mut self) {
        let mut context = null_mut();
        // SAFETY: the driver has been opened, or there would be none of these; it writes one handle.
        let _ = unsafe { sys::cuCtxPopCurrent_v2(&mut context) };
    }
}

/// What a card and its programs need. What is null was not made.
struct Shared {
    name: String,
    device: sys::CUdevice,
    context: sys::CUcontext,
    /// All work.
    stream: sys::CUstream,
    /// What graphs are recorded on: never with work of its own, so that nothing waits for it.
    recorder: sys::CUstream,
    module: sys::CUmodule,
    products: lt_sys::cublasLtHandle_t,
    workspace: sys::CUdeviceptr,
}

// SAFETY: the handles are not of a thread: a driver's context is bound to the thread at hand before each
// use (`bind`), and the driver's and cuBLASLt's functions may be called by several threads. The fields are
// written before a `Shared` is shared, and never after.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// The card `number` with nothing in it yet.
    fn new(name: String, device: sys::CUdevice) -> Result<Self> {
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
    fn bind(&self) -> Result<Bound> {
        // SAFETY: the context is held until `self` is dropped.
        let pushed = unsafe { sys::cuCtxPushCurrent_v2(self.context) };
        pushed.result().of(&self.name, "cuCtxPushCurrent")?;
        Ok(Bound)
    }

    /// Wait until all work is done. Needs the context bound.
    fn wait(&self) -> Result<()> {
        // SAFETY: the stream is open until `self` is dropped.
        unsafe { cuda::stream::synchronize(self.stream) }.of(&self.name, "cuStreamSynchronize")
    }

    fn error(&self, problem: impl Into<String>) -> Error {
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

// ---- Opening a card. ----

/// The driver with its cards, and the libraries, each of which is missing on some machine.
fn present(name: &str, number: usize) -> Result<sys::CUdevice> {
    // SAFETY: opening a library runs what it does at its start, which for this one is harmless.
    if !unsafe { sys::is_culib_present() } {
        let problem = format!(
            "no NVIDIA driver is installed here (libcuda.so.1): install it, or in a container pass the cards in \
             (`--gpus all`), {WITHOUT}"
        );
        return Err(Error::device(name, problem));
    }
    let mut version = 0;
    // SAFETY: it writes one number, and may be called before everything else.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().of(name, "cuDriverGetVersion")?;
    if version < OLDEST_CUDA {
        let problem = format!(
            "NVIDIA's driver is for CUDA {}, and has to be for 11.4 at least: update it, {WITHOUT}",
            written(version)
        );
        return Err(Error::device(name, problem));
    }
    cuda::init().of(name, "cuInit")?;
    let count = cuda::device::get_count().of(name, "cuDeviceGetCount")?;
    let ordinal = match c_int::try_from(number) {
        Ok(ordinal) if ordinal < count => ordinal,
        _ if count <= 0 => {
            return Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)).of(name, "cuDeviceGetCount");
        }
        _ => {
            let there = if count == 1 {
                "there is one card here, cuda:0".into()
            } else {
                format!("there are {count} cards here, cuda:0 to cuda:{}", count - 1)
            };
            let problem = format!(
                "no such card: {there} (CUDA_VISIBLE_DEVICES can hide others); take one of those"
            );
            return Err(Error::device(name, problem));
        }
    };
    // SAFETY: as for the driver.
    if !unsafe { nvrtc_sys::is_culib_present() } {
        return Err(missing(name, "NVRTC, which compiles kernels (libnvrtc)", "nvidia-cuda-nvrtc"));
    }
    // SAFETY: as for the driver.
    if !unsafe { lt_sys::is_culib_present() } {
        return Err(missing(
            name,
            "cuBLASLt, which multiplies matrices (libcublasLt)",
            "nvidia-cublas",
        ));
    }
    cuda::device::get(ordinal).of(name, "cuDeviceGet")
}

fn missing(name: &str, what: &str, package: &str) -> Error {
    let problem = format!(
        "there is no {what}: `pip install {package}` or install the CUDA toolkit, and name the library's folder in \
         LD_LIBRARY_PATH, {WITHOUT}"
    );
    Error::device(name, problem)
}

/// A version of CUDA, as 12040 is 12.4.
fn written(version: c_int) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// A card's generation, as 90 for 9.0.
fn generation(name: &str, device: sys::CUdevice) -> Result<c_int> {
    use CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let read = |what| {
        // SAFETY: the device came from the driver.
        unsafe { cuda::device::get_attribute(device, what) }.of(name, "cuDeviceGetAttribute")
    };
    let generation = 10 * read(MAJOR)? + read(MINOR)?;
    if generation < OLDEST {
        let problem = format!(
            "the card has compute capability {}.{}, and 8.0 is needed (Ampere, of 2020, and later): take another \
             card (`--device cuda:N`), {WITHOUT}",
            generation / 10,
            generation % 10
        );
        return Err(Error::device(name, problem));
    }
    Ok(generation)
}

/// [`KERNELS`] for a card's generation: code for just that one, or, if the compiler is older than the
/// card, for the last that it knows, which the driver takes from there.
fn compiled(name: &str, generation: c_int) -> Result<Vec<c_char>> {
    let (mut major, mut minor, mut count) = (0, 0, 0);
    // SAFETY: it writes two numbers.
    unsafe { nvrtc_sys::nvrtcVersion(&mut major, &mut minor) }.result().of(name, "nvrtcVersion")?;
    let version = 1000 * major + 10 * minor;
    if version < OLDEST_CUDA {
        let problem = format!(
            "NVRTC is of CUDA {}, and has to be of 11.4 at least: update it",
            written(version)
        );
        return Err(Error::device(name, problem));
    }
    // SAFETY: it writes one number.
    unsafe { nvrtc_sys::nvrtcGetNumSupportedArchs(&mut count) }
        .result()
        .of(name, "nvrtcGetNumSupportedArchs")?;
    let mut known = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: there is room for as many numbers as it said.
    unsafe { nvrtc_sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) }
        .result()
        .of(name, "nvrtcGetSupportedArchs")?;
    let own = known.contains(&generation);
    let last = known.into_iter().filter(|k| *k <= generation).max();
    let target = match last {
        Some(_) if own => format!("sm_{generation}"),
        Some(last) => format!("compute_{last}"),
        None => {
            let problem = format!(
                "NVRTC of CUDA {} knows no cards so old: install an earlier one",
                written(version)
            );
            return Err(Error::device(name, problem));
        }
    };
    let source = CString::new(KERNELS)
        .map_err(|_| Error::device(name, "the kernels' source has a zero byte"))?;
    let program =
        nvrtc::create_program(&source, Some(c"kernels.cu")).of(name, "nvrtcCreateProgram")?;
    let program = Owned { handle: program, destroy: nvrtc::destroy_program };
    let options =
        [format!("--gpu-architecture={target}"), "-fmad=false".into(), "--std=c++17".into()];
    // SAFETY: the program lives, and the source that it refers to longer.
    if let Err(e) = unsafe { nvrtc::compile_program(program.handle, &options) } {
        // SAFETY: as above.
        let log = unsafe { nvrtc::get_program_log(program.handle) }.unwrap_or_default();
        let log: Vec<u8> = log.into_iter().map(|c| c as u8).take_while(|c| *c != 0).collect();
        let log = String::from_utf8_lossy(&log);
        let log: Vec<&str> =
            log.lines().filter(|l| !l.trim().is_empty()).take(LINES_OF_LOG).collect();
        let problem = format!(
            "NVRTC of CUDA {} does not compile the kernels for {target}: {}; try another version of it\n{}",
            written(version),
            e.text(),
            log.join("\n")
        );
        return Err(Error::device(name, problem));
    }
    if !own {
        // SAFETY: the program lives, and was compiled.
        return unsafe { nvrtc::get_ptx(program.handle) }.of(name, "nvrtcGetPTX");
    }
    let mut size = 0;
    // SAFETY: as above; it writes one number.
    unsafe { nvrtc_sys::nvrtcGetCUBINSize(program.handle, &mut size) }
        .result()
        .of(name, "nvrtcGetCUBINSize")?;
    let mut code = vec![0; size];
    // SAFETY: there is room for as many bytes as it said.
    unsafe { nvrtc_sys::nvrtcGetCUBIN(program.handle, code.as_mut_ptr()) }
        .result()
        .of(name, "nvrtcGetCUBIN")?;
    Ok(code)
}

/// That the libraries and the driver are of different versions is a frequent reason of what fails first.
fn with_versions(error: Error, name: &str) -> Error {
    let (mut driver, mut major, mut minor) = (0, 0, 0);
    // SAFETY: both write numbers, and both libraries have been opened.
    let read = unsafe {
        (sys::cuDriverGetVersion(&mut driver), nvrtc_sys::nvrtcVersion(&mut major, &mut minor))
    };
    match error {
        Error::Device { problem, .. }
            if read == (CUresult::CUDA_SUCCESS, nvrtc_sys::nvrtcResult::NVRTC_SUCCESS) =>
        {
            let problem = format!(
                "{problem} (the driver is for CUDA {}, NVRTC of CUDA {major}.{minor}: the first number of a \
                 library's version must not be above the driver's)",
                written(driver)
            );
            Error::device(name, problem)
        }
        other => other,
    }
}

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
    fn piece(&self, slot: Slot, len: usize, kind: Kind) -> Result<sys::CUdeviceptr> {
        let problem = match self.memory.get(&slot) {
            Some(piece) if piece.len >= len && Kind::of(slot) == kind => return Ok(piece.address),
            Some(piece) if piece.len >= len => {
                format!("{slot:?} holds {:?}, not {kind:?}", Kind::of(slot))
            }
            Some(piece) => format!("{slot:?} has {} elements, not {len}", piece.len),
            None => format!("{slot:?} has not been reserved"),
        };
        Err(self.shared.error(problem))
    }

    fn copy_in<T>(&mut self, slot: Slot, values: &[T], kind: Kind) -> Result<()> {
        let to = self.piece(slot, values.len(), kind)?;
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
        let bytes = |slot: Slot, len: usize| len.max(1).saturating_mul(Kind::of(slot).bytes());
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
        self.copy_in(slot, values, Kind::Numbers)
    }

    fn put_words(&mut self, slot: Slot, values: &[u32]) -> Result<()> {
        self.copy_in(slot, values, Kind::Words)
    }

    fn take(&mut self, slot: Slot, out: &mut [f32]) -> Result<()> {
        let from = self.piece(slot, out.len(), Kind::Numbers)?;
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
            Ok(piece.address + (offset * Kind::of(slot).bytes()) as u64)
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

/// What a slot's elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Numbers,
    Words,
    Doubles,
}

impl Kind {
    fn of(slot: Slot) -> Self {
        match slot {
            Slot::Labels | Slot::Key => Kind::Words,
            Slot::PartialSums => Kind::Doubles,
            _ => Kind::Numbers,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Kind::Numbers | Kind::Words => 4,
            Kind::Doubles => 8,
        }
    }
}

fn pointer(address: sys::CUdeviceptr) -> *mut c_void {
    address as *mut c_void
}

// ---- Operations as what the card does. ----

/// An argument of a kernel, of the type that the kernel declares.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Arg {
    /// Memory of the card, or 0 for none.
    At(u64),
    /// `u32`.
    Word(u32),
    /// `u64`.
    Long(u64),
    /// `float`.
    Number(f32),
}

impl Arg {
    /// Where the driver reads it.
    fn pointer(&self) -> *mut c_void {
        match self {
            Arg::At(v) | Arg::Long(v) => from_ref(v).cast_mut().cast(),
            Arg::Word(v) => from_ref(v).cast_mut().cast(),
            Arg::Number(v) => from_ref(v).cast_mut().cast(),
        }
    }
}

/// A kernel with blocks of [`THREADS`].
#[derive(Debug, Clone, PartialEq)]
struct Kernel {
    name: &'static str,
    /// Blocks in x and y.
    grid: (u32, u32),
    args: Vec<Arg>,
}

impl Kernel {
    /// The same for no rows at all: every kernel returns at once.
    fn idle(&self) -> Kernel {
        let none = |arg: &Arg| match *arg {
            Arg::Word(_) => Arg::Word(0),
            Arg::Long(_) => Arg::Long(0),
            other => other,
        };
        Kernel { name: self.name, grid: (1, 1), args: self.args.iter().map(none).collect() }
    }
}

/// A product whose operands are addresses.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Multiplication {
    shape: Shape,
    a: u64,
    b: u64,
    out: u64,
    alpha: f32,
}

#[derive(Debug, Clone, PartialEq)]
enum Work {
    Kernel(Kernel),
    Product(Multiplication),
}

/// What a card does for an operation, or nothing, where there is nothing to do. `at` says where so many
/// elements from a place on are, if they are.
fn lower(
    op: &Op,
    at: &mut dyn FnMut(At, usize) -> std::result::Result<u64, String>,
) -> std::result::Result<Option<Work>, String> {
    if let Op::Product(product) = op {
        return multiplication(product, at);
    }
    let Some(Launch { kernel: name, grid, args }) = Launch::of(op)? else {
        return Ok(None);
    };
    let args = args.into_iter().map(|arg| {
        Ok(match arg {
            launch::Arg::At(place, len) => Arg::At(at(place, len)?),
            launch::Arg::Null => Arg::At(0),
            launch::Arg::U32(v) => Arg::Word(v),
            launch::Arg::U64(v) => Arg::Long(v),
            launch::Arg::F32(v) => Arg::Number(v),
        })
    });
    let args: std::result::Result<_, String> = args.collect();
    Ok(Some(Work::Kernel(Kernel { name, grid, args: args? })))
}

fn multiplication(
    p: &Product,
    at: &mut dyn FnMut(At, usize) -> std::result::Result<u64, String>,
) -> std::result::Result<Option<Work>, String> {
    let mut at = |place, rows: usize, columns| at(place, rows.saturating_mul(columns));
    let (a, b, out) = (at(p.a, p.m, p.k)?, at(p.b, p.k, p.n)?, at(p.out, p.m, p.n)?);
    if p.m == 0 || p.n == 0 {
        return Ok(None);
    }
    // What the address is a multiple of, as far as it is of use.
    let alignment = |address: u64| ALIGNMENT.min(1 << address.trailing_zeros().min(31));
    let shape = Shape {
        m: p.m,
        n: p.n,
        k: p.k,
        a_transposed: p.a_transposed,
        b_transposed: p.b_transposed,
        tf32: p.precision == Precision::Tf32,
        beta: p.beta.to_bits(),
        alignment: [alignment(a), alignment(b), alignment(out)],
    };
    Ok(Some(Work::Product(Multiplication { shape, a, b, out, alpha: p.alpha })))
}

// ---- Products. ----

/// What the choice of an algorithm depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    m: usize,
    n: usize,
    k: usize,
    a_transposed: bool,
    b_transposed: bool,
    tf32: bool,
    /// The bits of β.
    beta: u32,
    /// Of A, B and what comes out, in bytes.
    alignment: [u32; 3],
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shape { m, n, k, .. } = self;
        write!(f, "[{m}, {k}]·[{k}, {n}]")
    }
}

/// How products of a shape are done.
struct Way {
    algorithm: lt_sys::cublasLtMatmulAlgo_t,
    tf32: bool,
}

type Desc = Owned<lt_sys::cublasLtMatmulDesc_t, CublasError>;
type Layout = Owned<lt_sys::cublasLtMatrixLayout_t, CublasError>;

/// A product in the library's words. It counts elements column by column, where ours are row by row: a
/// matrix of ours is its transpose in the library's. So outᵀ = Bᵀ·Aᵀ is computed, with what is B here first.
struct Described {
    desc: Desc,
    /// Bᵀ: `[n, k]` column by column, or `[k, n]` if B is transposed.
    first: Layout,
    /// Aᵀ: `[k, m]`, or `[m, k]` if A is transposed.
    second: Layout,
    /// outᵀ: `[n, m]`.
    out: Layout,
}

impl Described {
    fn new(shape: &Shape, tf32: bool) -> std::result::Result<Self, CublasError> {
        use lt_sys::cublasComputeType_t::{CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32};
        use lt_sys::cublasLtMatmulDescAttributes_t::{
            CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB,
        };
        let numbers = lt_sys::cudaDataType::CUDA_R_32F;
        let Shape { m, n, k, .. } = *shape;
        let compute = if tf32 { CUBLAS_COMPUTE_32F_FAST_TF32 } else { CUBLAS_COMPUTE_32F };
        let desc = lt::create_matmul_desc(compute, numbers)?;
        let desc = Desc { handle: desc, destroy: lt::destroy_matmul_desc };
        let transposes = [
            (CUBLASLT_MATMUL_DESC_TRANSA, shape.b_transposed),
            (CUBLASLT_MATMUL_DESC_TRANSB, shape.a_transposed),
        ];
        for (which, transposed) in transposes {
            // CUBLAS_OP_N and CUBLAS_OP_T.
            let op = i32::from(transposed);
            // SAFETY: the description lives, and the attribute is a number of this size, read now.
            unsafe {
                lt::set_matmul_desc_attribute(
                    desc.handle,
                    which,
                    from_ref(&op).cast(),
                    size_of_val(&op),
                )
            }?;
        }
        let layout = |rows: usize, columns: usize, transposed: bool| {
            let (rows, columns) = if transposed { (columns, rows) } else { (rows, columns) };
            let handle =
                lt::create_matrix_layout(numbers, rows as u64, columns as u64, rows.max(1) as i64)?;
            Ok(Layout { handle, destroy: lt::destroy_matrix_layout })
        };
        let first = layout(n, k, shape.b_transposed)?;
        let second = layout(k, m, shape.a_transposed)?;
        Ok(Described { desc, first, second, out: layout(n, m, false)? })
    }

    /// The library's first choice for it.
    fn algorithm(
        &self,
        products: lt_sys::cublasLtHandle_t,
        shape: &Shape,
    ) -> std::result::Result<lt_sys::cublasLtMatmulAlgo_t, CublasError> {
        use lt_sys::cublasLtMatmulPreferenceAttributes_t as Preference;
        let wanted = lt::create_matmul_pref()?;
        let wanted: Owned<_, CublasError> =
            Owned { handle: wanted, destroy: lt::destroy_matmul_pref };
        let set = |which: Preference, value: *const c_void, size: usize| {
            // SAFETY: the preference lives, and the attribute is a number of this size, read now.
            unsafe { lt::set_matmul_pref_attribute(wanted.handle, which, value, size) }
        };
        let room: u64 = WORKSPACE_BYTES as u64;
        set(
            Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            from_ref(&room).cast(),
            size_of_val(&room),
        )?;
        // Otherwise it takes for granted that all matrices begin at multiples of 256 bytes.
        let [a, b, out] = &shape.alignment;
        for (which, bytes) in [
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out),
        ] {
            set(which, from_ref(bytes).cast(), size_of_val(bytes))?;
        }
        let (first, second, out) = (self.first.handle, self.second.handle, self.out.handle);
        // SAFETY: all descriptions live.
        let found = unsafe {
            lt::get_matmul_algo_heuristic(
                products,
                self.desc.handle,
                first,
                second,
                out,
                out,
                wanted.handle,
            )
        };
        found.map(|found| found.algo)
    }
}

#[cfg(test)]
mod tests {
    use heat_ood::ebm::sampler::Projection;

    use super::*;
    use crate::plan::{Drop, Seed};

    const ROWS: usize = 130;
    const WIDTH: usize = 37;

    fn product(beta: f32) -> Product {
        Product {
            a: Slot::Rows.into(),
            a_transposed: true,
            b: At { slot: Slot::Parameters, offset: 3 },
            b_transposed: false,
            out: Slot::Gradient.into(),
            m: 5,
            n: 7,
            k: 9,
            alpha: 2.0,
            beta,
            precision: Precision::Tf32,
        }
    }

    /// Each operation, with what it leaves out where it can.
    fn operations() -> Vec<Op> {
        let (rows, width) = (ROWS, WIDTH);
        let place = |i| At::from(Slot::Activation(i));
        let [x, y, out] = [0, 1, 2].map(place);
        let drop = Drop { probability: 0.25, scale: 4.0 / 3.0 };
        let both = Projection { relu: true, normalize: true, halves: true };
        let labels = Slot::Labels.into();
        let step = |noise, projection| {
            let (z, gradient, step, eps) = (x, y, 0.5, 0.25);
            Op::Step { z, gradient, noise, rows, width, step, eps, projection }
        };
        vec![
            Op::BiasLeaky { x, bias: y, rows, width },
            Op::Drop { x, rows, width, layer: 2, drop },
            Op::Seed { top: x, weight: y, seed: Seed::Same(2.0), out, rows, width },
            Op::Seed { top: x, weight: y, seed: Seed::OfRow(y), out, rows, width },
            Op::Mask { x, activations: y, rows, width },
            Op::DropBack { x, activations: y, rows, width, scale: 2.0 },
            Op::Energy { top: x, weight: y, bias: y, out, rows, width },
            Op::Centre { rows_of: x, centre: y, out, rows, width },
            Op::CentreOnMeans { rows_of: x, means: y, labels, out, rows, width, scale: 2.0 },
            Op::NegatedSoftmax { x, offset: y, rows, width },
            Op::Scale { x, len: 1000, factor: 2.0 },
            Op::Zero { x, len: 1000 },
            Op::Noise { out, rows, width, t: 3 },
            Op::WhiteStep { x, noise: y, rows, width, step: 0.5, eps: 0.25 },
            step(Some(out), both),
            step(None, Projection::default()),
            Op::PartialSums { x, weights: Some(y), out: Slot::PartialSums.into(), rows, width },
            Op::PartialSums { x, weights: None, out: Slot::PartialSums.into(), rows, width },
            Op::AddSums { sums: Slot::PartialSums.into(), out, groups: 2, width },
        ]
    }

    /// Every slot at an address of its own.
    fn anywhere(at: At, _: usize) -> std::result::Result<u64, String> {
        Ok(4096 + 4 * at.offset as u64)
    }

    fn kernel(op: &Op) -> Kernel {
        match lower(op, &mut anywhere) {
            Ok(Some(Work::Kernel(kernel))) => kernel,
            other => panic!("{op:?}: {other:?}"),
        }
    }

    /// The types with which the source declares a kernel.
    fn declared(name: &str) -> Vec<&'static str> {
        let begin = format!("extern \"C\" __global__ void {name}(");
        let (_, rest) = KERNELS.split_once(&begin).unwrap_or_else(|| panic!("no kernel {name}"));
        let (parameters, _) = rest.split_once(')').unwrap();
        let type_of = |p: &'static str| match p.trim().rsplit_once(' ').unwrap().0 {
            pointer if pointer.ends_with('*') => "pointer",
            other => other,
        };
        parameters.split(',').map(type_of).collect()
    }

    #[test]
    fn kernels_are_given_what_they_declare() {
        for op in operations() {
            let kernel = kernel(&op);
            let given = kernel.args.iter().map(|arg| match arg {
                Arg::At(_) => "pointer",
                Arg::Word(_) => "u32",
                Arg::Long(_) => "u64",
                Arg::Number(_) => "float",
            });
            assert_eq!(given.collect::<Vec<_>>(), declared(kernel.name), "{op:?}");
        }
    }

    #[test]
    fn every_kernel_is_loaded_and_used() {
        let used = operations()
            .iter()
            .map(|op| kernel(op).name)
            .collect::<std::collections::BTreeSet<_>>();
        assert_eq!(used.into_iter().collect::<Vec<_>>(), NAMES);
    }

    #[test]
    fn grids_cover_what_is_there() {
        let [x, out] = [0, 1].map(|i| At::from(Slot::Activation(i)));
        let (rows, width) = (ROWS, WIDTH);
        let grid = |op| kernel(&op).grid;
        // 130 · 37 elements.
        assert_eq!(grid(Op::Mask { x, activations: out, rows, width }), (19, 1));
        // A warp a row.
        assert_eq!(grid(Op::NegatedSoftmax { x, offset: out, rows, width }), (17, 1));
        // 64 · 37 normals, of 32 a thread, in 5 chunks; 3 blocks of rows.
        assert_eq!(grid(Op::Noise { out, rows, width, t: 0 }), (1, 3));
        assert_eq!(grid(Op::Noise { out, rows, width: 512, t: 0 }), (4, 3));
        // 64 rows, 3 threads a row.
        let drop = Drop { probability: 0.5, scale: 2.0 };
        assert_eq!(grid(Op::Drop { x, rows, width, layer: 0, drop }), (1, 3));
        // Columns, and groups of 128 rows.
        assert_eq!(grid(Op::PartialSums { x, weights: None, out, rows, width }), (1, 2));
    }

    #[test]
    fn nothing_is_done_for_no_rows() {
        let x = Slot::Rows.into();
        for op in [Op::Zero { x, len: 0 }, Op::Mask { x, activations: x, rows: 0, width: 3 }] {
            assert_eq!(lower(&op, &mut anywhere), Ok(None));
        }
        let none = Op::Product(Product { m: 0, ..product(0.0) });
        assert_eq!(lower(&none, &mut anywhere), Ok(None));
    }

    #[test]
    fn too_many_rows_are_refused() {
        let rows = 64 * 65_535;
        let noise = |rows| Op::Noise { out: Slot::Noise.into(), rows, width: 1, t: 0 };
        assert_eq!(kernel(&noise(rows)).grid.1, 65_535);
        let problem = lower(&noise(rows + 1), &mut anywhere).unwrap_err();
        assert!(
            problem.starts_with("too many rows at once") && problem.contains("`batch_size`"),
            "{problem}"
        );
        let problem = lower(&noise(1 << 33), &mut anywhere).unwrap_err();
        assert!(problem.contains("`batch_size`"), "{problem}");
    }

    #[test]
    fn operands_have_their_sizes() {
        let asked = |op: &Op| {
            let mut asked = Vec::new();
            lower(op, &mut |at, len| {
                asked.push((at.slot, at.offset, len));
                Ok(4096)
            })
            .unwrap();
            asked
        };
        let rows = [(Slot::Rows, 0, 45), (Slot::Parameters, 3, 63), (Slot::Gradient, 0, 35)];
        assert_eq!(asked(&Op::Product(product(1.0))), rows);
        let [x, out] = [Slot::Rows, Slot::PartialSums].map(At::from);
        let weights = Some(Slot::Energies.into());
        let op = Op::PartialSums { x, weights, out, rows: ROWS, width: WIDTH };
        let sums = [
            (Slot::Rows, 0, ROWS * WIDTH),
            (Slot::Energies, 0, ROWS),
            (Slot::PartialSums, 0, 2 * WIDTH),
        ];
        assert_eq!(asked(&op), sums);
    }

    #[test]
    fn products_say_how_their_operands_are_aligned() {
        let Ok(Some(Work::Product(product))) = lower(&Op::Product(product(1.0)), &mut anywhere)
        else {
            panic!("a product is one");
        };
        assert_eq!(product.shape.alignment, [256, 4, 256]);
        assert_eq!((product.shape.tf32, product.shape.beta), (true, 1.0f32.to_bits()));
    }

    #[test]
    fn idle_kernels_have_no_rows() {
        for op in operations() {
            let idle = kernel(&op).idle();
            let none = |arg: &Arg| !matches!(arg, Arg::Word(1..) | Arg::Long(1..));
            assert!(idle.grid == (1, 1) && idle.args.iter().all(none), "{idle:?}");
        }
    }

    /// Where NVRTC is installed, which needs no card.
    #[test]
    fn kernels_compile() {
        // SAFETY: opening the library runs what it does at its start, which is harmless.
        if !unsafe { nvrtc_sys::is_culib_present() } {
            let line = b"skipped: kernels_compile (no NVRTC)\n";
            let _ = std::io::Write::write_all(&mut std::io::stderr(), line);
            return;
        }
        for generation in [80, 90] {
            let code = compiled("cuda:0", generation).unwrap();
            assert_eq!(code[1..4], [b'E', b'L', b'F'].map(|c| c as c_char));
        }
        // Of a card that no compiler knows: text, for the last that it knows, ended with zero.
        let text = compiled("cuda:0", 9990).unwrap();
        assert!(text.len() > 1000 && text.last() == Some(&0));
        let error = compiled("cuda:0", 10).unwrap_err().to_string();
        assert!(error.contains("knows no cards so old"), "{error}");
    }

    #[test]
    fn what_is_missing_is_named_with_where_to_get_it() {
        let error = missing("cuda:0", "NVRTC", "nvidia-cuda-nvrtc").to_string();
        for part in
            ["cuda:0", "NVRTC", "pip install nvidia-cuda-nvrtc", "LD_LIBRARY_PATH", "--device cpu"]
        {
            assert!(error.contains(part), "{error}");
        }
    }
}
