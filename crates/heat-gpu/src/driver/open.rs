//! Finding the card and the libraries, each of which is missing on some machine, and compiling the kernels.

use std::ffi::{CString, c_char, c_int};

use cudarc::cublaslt::sys as lt_sys;
use cudarc::driver::result::{self as cuda, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute, CUresult};
use cudarc::nvrtc::result as nvrtc;
use cudarc::nvrtc::sys as nvrtc_sys;
use heat_ood::{Error, Result};

use super::failure::{Answer, Failure, WITHOUT};
use super::shared::Owned;
use crate::KERNELS;

/// As a card counts its generations: TF32 came with this one.
const OLDEST: c_int = 80;
/// The driver's and the compiler's first version that have all that is called here: 11.4.
const OLDEST_CUDA: c_int = 11_040;
/// Lines of a compiler's log that go into an error.
const LINES_OF_LOG: usize = 8;

/// The driver with its cards, and the libraries, each of which is missing on some machine.
pub(super) fn present(name: &str, number: usize) -> Result<sys::CUdevice> {
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

pub(super) fn missing(name: &str, what: &str, package: &str) -> Error {
    let problem = format!(
        "there is no {what}: `pip install {package}` or install the CUDA toolkit, and name the library's folder in \
         LD_LIBRARY_PATH, {WITHOUT}"
    );
    Error::device(name, problem)
}

/// A version of CUDA, as 12040 is 12.4.
pub(super) fn written(version: c_int) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// A card's generation, as 90 for 9.0.
pub(super) fn generation(name: &str, device: sys::CUdevice) -> Result<c_int> {
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
pub(super) fn compiled(name: &str, generation: c_int) -> Result<Vec<c_char>> {
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
pub(super) fn with_versions(error: Error, name: &str) -> Error {
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
