//! What the libraries answer, as errors that say what to do.

use cudarc::cublaslt::result::CublasError;
use cudarc::driver::result::DriverError;
use cudarc::driver::sys::CUresult;
use cudarc::nvrtc::result::NvrtcError;
use heat_ood::{Error, Result};

pub(super) const WITHOUT: &str = "or compute on the processor (`--device cpu`)";

/// A failure of one of the libraries.
pub(super) trait Failure {
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

pub(super) const OF_MEMORY: &str = "make `batch_size` smaller, take a card with more (`--device cuda:N`), or compute on the \
                         processor (`--device cpu`)";

/// A library's answer as ours.
pub(super) trait Answer<T> {
    /// With the card's name and the function that was called.
    fn of(self, card: &str, call: &str) -> Result<T>;
}

impl<T, E: Failure> Answer<T> for std::result::Result<T, E> {
    fn of(self, card: &str, call: &str) -> Result<T> {
        self.map_err(|e| Error::device(card, format!("{call}: {}; {}", e.text(), e.advice())))
    }
}
