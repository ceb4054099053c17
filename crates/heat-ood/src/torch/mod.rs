//! PyTorch checkpoints: the tensors that `torch.save` wrote, by name.
//!
//! As a zip archive or in the format before PyTorch 1.6. Nothing that was
//! pickled is executed. The crate `pytorch-reader` parses; it is given only
//! files that it reads in memory proportional to their size (`guard`, `meter`).

mod guard;
mod meter;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pytorch_reader::PytorchReader;

use crate::error::{Error, Result};
use crate::io::map;

pub(crate) use pytorch_reader::{DType, Tensor};

/// Where training codes put a network's state, the likeliest first.
const KEYS: [&str; 3] = ["model_state", "state_dict", "model"];

/// The tensors of a file that are of a float type.
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    /// The file's.
    length: usize,
}

impl Checkpoint {
    /// Read a file.
    ///
    /// # Errors
    /// If it is truncated, is not what `torch.save` writes, or describes far
    /// more than its size explains.
    pub fn open(path: &Path) -> Result<Self> {
        let (tensors, length) = read(path)?;
        let tensors = tensors.into_iter().filter(|(_, t)| is_float(t.dtype())).collect();
        Ok(Checkpoint { path: path.to_owned(), tensors, length })
    }

    /// Full names and shapes, sorted by name.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, t)| (name.as_str(), t.shape()))
    }

    /// A tensor's values in single precision.
    ///
    /// # Errors
    /// If there is no such tensor, it is damaged, or a value is not finite.
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.tensors.get(name).ok_or_else(|| {
            let place = self.path.display().to_string();
            Error::missing(place, format!("tensor `{name}`"), "save the whole network")
        })?;
        values(&self.path, name, tensor)
    }

    /// That these tensors are in the file with all their values.
    ///
    /// # Errors
    /// If they have more bytes than it: they are views that repeat a few.
    pub fn check_size<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let size = |name: &str| self.tensors.get(name).map_or(0, Tensor::byte_len);
        let need = names.into_iter().map(size).fold(0, usize::saturating_add);
        check_size(&self.path, need, self.length)
    }
}

/// The tensors of a file under their full names, and the file's length.
pub(crate) fn read(path: &Path) -> Result<(Vec<(String, Tensor)>, usize)> {
    let bytes = map(path)?;
    let copy = guard::check(path, &bytes)?;
    let mut length = bytes.len();
    drop(bytes);
    let mut from = path;
    if let Some(copy) = &copy {
        from = copy.path();
        length = map(from)?.len();
    }
    // The reader keeps the file open: the copy may lose its name afterwards.
    let reader = PytorchReader::new(from).map_err(|e| guard::unreadable(path, e))?;
    Ok((reader.into_tensors().into_iter().collect(), length))
}

/// The prefix of the names under which the network that is wanted stands: the
/// likeliest, if there is one.
///
/// # Errors
/// If several are as likely.
pub fn likeliest(path: &Path, mut prefixes: Vec<String>) -> Result<Option<String>> {
    let rank = |prefix: &str| {
        let first = prefix.split('.').next().unwrap_or_default();
        KEYS.iter().position(|key| *key == first).unwrap_or(KEYS.len())
    };
    let best = prefixes.iter().map(|prefix| rank(prefix)).min();
    prefixes.retain(|prefix| Some(rank(prefix)) == best);
    if prefixes.len() > 1 {
        let problem = format!("holds several networks: choose one prefix of {}", quoted(&prefixes));
        return Err(Error::format(path, problem));
    }
    Ok(prefixes.pop())
}

/// Whether values of that type are read.
pub(crate) fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
}

/// A tensor's bytes, row-major.
pub(crate) fn bytes(path: &Path, tensor: &Tensor) -> Result<Vec<u8>> {
    let bytes = tensor.read();
    bytes.map_err(|e| Error::format(path, format!("damaged: {e}: copy or create the file again")))
}

/// A tensor's values in single precision, all finite.
pub(crate) fn values(path: &Path, name: &str, tensor: &Tensor) -> Result<Vec<f32>> {
    let bytes = bytes(path, tensor)?;
    let wide = bytes.as_chunks::<4>().0.iter();
    let half = bytes.as_chunks::<2>().0.iter();
    let double = bytes.as_chunks::<8>().0.iter();
    let values: Vec<f32> = match tensor.dtype() {
        DType::F16 => half.map(|b| half::f16::from_ne_bytes(*b).to_f32()).collect(),
        DType::BF16 => half.map(|b| half::bf16::from_ne_bytes(*b).to_f32()).collect(),
        DType::F64 => double.map(|b| f64::from_ne_bytes(*b) as f32).collect(),
        _ => wide.map(|b| f32::from_ne_bytes(*b)).collect(),
    };
    if values.iter().all(|v| v.is_finite()) {
        return Ok(values);
    }
    let problem = format!("tensor `{name}` holds NaN or infinity: training had diverged");
    Err(Error::format(path, problem))
}

/// That tensors of `need` bytes are in a file of `length`: an expanded view
/// repeats a few.
pub(crate) fn check_size(path: &Path, need: usize, length: usize) -> Result<()> {
    if need <= length {
        return Ok(());
    }
    let problem = format!(
        "its tensors have {need} bytes, the file {length}: they are views that repeat values; save them as `tensor.clone()`"
    );
    Err(Error::format(path, problem))
}

/// The first few names, for a message.
pub fn quoted(names: &[String]) -> String {
    const MOST: usize = 12;
    let shown: Vec<String> = names.iter().take(MOST).map(|n| format!("`{n}`")).collect();
    let more = names.len().saturating_sub(MOST);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &more
}
