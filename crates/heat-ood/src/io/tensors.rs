//! Files of named tensors (safetensors).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype as StDtype, Metadata, SafeTensors, TensorInfo};

use super::budget::{Budget, json_cost};
use super::kind::{SAFETENSORS, kind_of};
use super::write::{sealed, write_sealed};
use super::{Array, Bytes, Dtype, Floats, digest, map};
use crate::error::{Error, Result};
use crate::math::parallel::{Pieces, Slices};

/// A tensor to be written or just read.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Dimensions, slowest first.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub data: TensorData,
}

/// Values of a [`Tensor`].
#[derive(Debug, Clone, PartialEq)]
pub enum TensorData {
    /// Single precision.
    F32(Floats),
    /// Double precision.
    F64(Vec<f64>),
    /// Signed 64-bit integers.
    I64(Vec<i64>),
}

impl Tensor {
    /// A single-precision tensor.
    pub fn f32(shape: impl Into<Vec<usize>>, data: impl Into<Floats>) -> Self {
        Tensor { shape: shape.into(), data: TensorData::F32(data.into()) }
    }

    /// A tensor of signed integers.
    pub fn i64(shape: impl Into<Vec<usize>>, data: Vec<i64>) -> Self {
        Tensor { shape: shape.into(), data: TensorData::I64(data) }
    }

    /// A double-precision tensor.
    pub fn f64(shape: impl Into<Vec<usize>>, data: Vec<f64>) -> Self {
        Tensor { shape: shape.into(), data: TensorData::F64(data) }
    }

    /// The values as they stand in a file.
    pub fn bytes(&self) -> &[u8] {
        // Little-endian in memory, like the file (checked in `lib.rs`).
        match &self.data {
            TensorData::F32(v) => bytemuck::cast_slice(v),
            TensorData::F64(v) => bytemuck::cast_slice(v),
            TensorData::I64(v) => bytemuck::cast_slice(v),
        }
    }

    fn dtype(&self) -> StDtype {
        match self.data {
            TensorData::F32(_) => StDtype::F32,
            TensorData::F64(_) => StDtype::F64,
            TensorData::I64(_) => StDtype::I64,
        }
    }
}

/// Write tensors and text metadata as one safetensors file, atomically, with a digest of all of
/// it among the texts. The bytes depend on the arguments alone. No second copy of the values is made.
///
/// # Errors
/// If a tensor has not as many values as its shape says, or the write fails as
/// [`super::write_atomically`] does.
pub fn save_tensors(
    path: &Path,
    tensors: &[(String, Tensor)],
    metadata: &[(&str, String)],
) -> Result<()> {
    let file = Encoded::to_seal(path, tensors, metadata)?;
    write_sealed(path, |w| file.pieces().try_for_each(|piece| w.write_all(piece)))
}

/// The bytes that [`save_tensors`] writes.
///
/// # Errors
/// If a tensor has not as many values as its shape says.
pub fn sealed_tensors(
    tensors: &[(String, Tensor)],
    metadata: &[(&str, String)],
) -> Result<Vec<u8>> {
    let memory = Path::new("memory");
    let file = Encoded::to_seal(memory, tensors, metadata)?;
    sealed(|w| file.pieces().try_for_each(|piece| w.write_all(piece)))
        .map_err(Error::io("write", memory))
}

/// The bytes of a safetensors file.
///
/// # Errors
/// If a tensor has not as many values as its shape says.
pub fn encode_tensors(tensors: &[(String, Tensor)]) -> Result<Vec<u8>> {
    Ok(Encoded::in_memory(tensors)?.pieces().flatten().copied().collect())
}

/// A safetensors file in pieces: its header, and the tensors in their order there.
pub(crate) struct Encoded<'a> {
    header: Vec<u8>,
    tensors: Vec<&'a Tensor>,
}

impl<'a> Encoded<'a> {
    /// A file without metadata.
    ///
    /// # Errors
    /// If a tensor has not as many values as its shape says.
    pub fn in_memory(tensors: &'a [(String, Tensor)]) -> Result<Self> {
        Self::new(tensors, &[]).map_err(|e| Error::format("memory", e.to_string()))
    }

    /// With a place for the digest.
    fn to_seal(
        path: &Path,
        tensors: &'a [(String, Tensor)],
        metadata: &[(&str, String)],
    ) -> Result<Self> {
        let digest = (digest::KEY, digest::UNKNOWN.to_owned());
        let metadata: Vec<_> = metadata.iter().cloned().chain([digest]).collect();
        Self::new(tensors, &metadata).map_err(|e| Error::format(path, e.to_string()))
    }

    fn new(
        tensors: &'a [(String, Tensor)],
        metadata: &[(&str, String)],
    ) -> std::result::Result<Self, SafeTensorError> {
        // The widest types first, so that every value is aligned; then by name.
        let mut sorted: Vec<_> = tensors.iter().collect();
        sorted.sort_by(|(n, t), (m, u)| u.dtype().cmp(&t.dtype()).then(n.cmp(m)));
        let twice = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0);
        if let Some(pair) = twice {
            return Err(SafeTensorError::InvalidOffset(format!("{} (written twice)", pair[0].0)));
        }
        let mut end = 0;
        let infos = sorted.iter().map(|(name, tensor)| {
            let start = end;
            end += tensor.bytes().len();
            let (dtype, shape) = (tensor.dtype(), tensor.shape.clone());
            (name.clone(), TensorInfo { dtype, shape, data_offsets: (start, end) })
        });
        let checked = Metadata::new(None, infos.collect())?;
        let failed = SafeTensorError::InvalidHeaderDeserialization;
        let mut names = serde_json::to_value(&checked).map_err(failed)?;
        // The crate writes metadata in the order of a hash map; ours is sorted,
        // so that equal contents are equal bytes.
        if let (Some(header), false) = (names.as_object_mut(), metadata.is_empty()) {
            let mut texts = metadata.to_vec();
            texts.sort();
            let texts = texts.into_iter().map(|(k, v)| (k.to_owned(), v.into()));
            header.insert("__metadata__".into(), serde_json::Value::Object(texts.collect()));
        }
        let mut text = serde_json::to_vec(&names).map_err(failed)?;
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut header = (text.len() as u64).to_le_bytes().to_vec();
        header.extend(text);
        Ok(Encoded { header, tensors: sorted.into_iter().map(|(_, tensor)| tensor).collect() })
    }

    /// All bytes, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.header[..]).chain(self.tensors.iter().map(|t| t.bytes()))
    }
}

/// An open safetensors file.
pub struct TensorFile {
    path: PathBuf,
    arrays: HashMap<String, (StDtype, Array)>,
    metadata: HashMap<String, String>,
}

impl TensorFile {
    /// Map a file and check its header.
    ///
    /// # Errors
    /// If it cannot be read, is truncated or is not a safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_bytes(path, map(path)?)
    }

    /// A file already in memory; `path` is used in messages.
    pub fn from_memory(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        Self::from_bytes(path, Arc::new(bytes.into()))
    }

    fn from_bytes(path: &Path, bytes: Arc<Bytes>) -> Result<Self> {
        let broken = |e: safetensors::SafeTensorError| {
            Error::format(
                path,
                format!(
                    "not a whole safetensors file ({e}); it may be truncated: copy or create it again"
                ),
            )
        };
        if let Some(kind) = kind_of(&bytes).filter(|kind| *kind != SAFETENSORS) {
            return Err(Error::format(path, format!("is {kind}, not a safetensors file")));
        }
        let mut budget = Budget::new(bytes.len());
        let too_much = || {
            let problem = "its header describes far more than the file's size explains";
            Error::format(path, problem)
        };
        if !budget.spend(json_cost(header_of(&bytes))) {
            return Err(too_much());
        }
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
        // Texts of the metadata that are parsed into values of any kind.
        let texts = metadata.metadata().iter().flatten().filter(|(key, _)| *key != "state");
        if !budget.spend(texts.map(|(_, text)| json_cost(text.as_bytes())).sum()) {
            return Err(too_much());
        }
        SafeTensors::deserialize(&bytes).map_err(broken)?;
        let texts = metadata.metadata().as_ref();
        if let Some(told) = texts.and_then(|texts| texts.get(digest::KEY))
            && digest::of(&bytes, header + 8, told).as_ref() != Some(told)
        {
            let problem = "is damaged: its bytes are not those of its digest. Copy or create it \
                           again (whoever writes other tensors under its header's texts leaves \
                           out `digest`)";
            return Err(Error::format(path, problem));
        }
        let start = header + 8;
        let mut arrays = HashMap::new();
        for (name, info) in metadata.tensors() {
            let array = Array {
                bytes: Arc::clone(&bytes),
                offset: start + info.data_offsets.0,
                dtype: from_st(info.dtype).unwrap_or(Dtype::U8),
                shape: info.shape.clone(),
                names: None,
            };
            arrays.insert(name, (info.dtype, array));
        }
        Ok(TensorFile {
            path: path.to_owned(),
            arrays,
            metadata: metadata.metadata().clone().unwrap_or_default(),
        })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A text of the header's metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Names of the classes, which files of features may list.
    ///
    /// # Errors
    /// If they are no list of texts.
    pub(crate) fn class_names(&self) -> Result<Option<Vec<String>>> {
        let Some(text) = self.metadata("classes") else { return Ok(None) };
        let names = serde_json::from_str(text).map_err(|_| {
            Error::format(&self.path, "its metadata `classes` is no JSON list of names")
        })?;
        Ok(Some(names))
    }

    /// The digest of all its bytes, found right, where it has one.
    pub fn digest(&self) -> Option<&str> {
        self.metadata(digest::KEY)
    }

    /// Whether a digest of all its bytes was found right.
    pub fn is_sealed(&self) -> bool {
        self.metadata.contains_key(digest::KEY)
    }

    /// What kind of file it is, in a word for messages: what it says of itself, else by the
    /// names of its tensors.
    pub fn content(&self) -> &'static str {
        match self.metadata("format") {
            Some("heat-detector") => "a detector",
            Some("heat-checkpoint") => "a checkpoint",
            Some("heat-statistics") => "statistics of a part of the rows (for `heat merge`)",
            _ if self.has("weight") && self.has("bias") => "a head",
            _ if ["avg", "std", "max", "logits", "probs"].iter().any(|n| self.has(n)) => "features",
            _ if self.has("label") => "labels",
            _ if self.arrays.keys().any(|n| n.ends_with(".weight")) => "weights of a network",
            _ => "other tensors",
        }
    }

    /// Names, types and shapes, sorted by name.
    pub fn list(&self) -> Vec<(String, String, Vec<usize>)> {
        let mut all: Vec<_> = self
            .arrays
            .iter()
            .map(|(n, (d, a))| (n.clone(), format!("{d:?}"), a.shape.clone()))
            .collect();
        all.sort();
        all
    }

    /// Whether a tensor of that name exists.
    pub fn has(&self, name: &str) -> bool {
        self.arrays.contains_key(name)
    }

    /// A tensor as single precision.
    ///
    /// # Errors
    /// If it is absent, has another shape than `shape`, or is not of a float type.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let array = self.float(name, shape)?;
        let mut out = vec![0.0; shape.iter().product()];
        array.read_f32(0, &mut out);
        self.finite(name, out.iter().all(|v| v.is_finite()))?;
        Ok(out)
    }

    /// A tensor as single precision, where it lies in the file if that is how it is
    /// stored, else as a copy.
    ///
    /// # Errors
    /// As [`TensorFile::f32`].
    pub(crate) fn floats(&self, name: &str, shape: &[usize]) -> Result<Floats> {
        let floats = Floats::of(self.float(name, shape)?);
        let values = &floats[..];
        let finite = |part: &[f32]| part.iter().all(|v| v.is_finite());
        self.finite(name, values.par_chunks(1 << 16).all(finite))?;
        Ok(floats)
    }

    /// A tensor of double precision. Narrower ones are refused: as f64 they
    /// would take up to four times the file's size.
    ///
    /// # Errors
    /// If it is absent, or has another shape or type.
    pub fn f64(&self, name: &str, shape: &[usize]) -> Result<Vec<f64>> {
        let array = self.float(name, shape)?;
        if array.dtype != Dtype::F64 {
            let problem = format!("tensor `{name}` has type {:?}, expected F64", array.dtype);
            return Err(Error::format(&self.path, problem));
        }
        let mut out = vec![0.0; shape.iter().product()];
        array.read_f64(0, &mut out);
        self.finite(name, out.iter().all(|v| v.is_finite()))?;
        Ok(out)
    }

    /// A tensor of signed 64-bit integers.
    ///
    /// # Errors
    /// If it is absent, or has another shape or type.
    pub(crate) fn i64(&self, name: &str, shape: &[usize]) -> Result<Vec<i64>> {
        self.expect(name, shape)?;
        let (dtype, array) = self.get(name)?;
        if *dtype != StDtype::I64 {
            let problem = format!("tensor `{name}` has type {dtype:?}, expected I64");
            return Err(Error::format(&self.path, problem));
        }
        Ok((0..shape.iter().product()).map(|i| array.integer(i)).collect())
    }

    /// The shape of a tensor.
    ///
    /// # Errors
    /// If it is absent.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.get(name)?.1.shape)
    }

    fn finite(&self, name: &str, all: bool) -> Result<()> {
        if all {
            return Ok(());
        }
        let problem = format!("tensor `{name}` holds NaN or infinity: the file is damaged");
        Err(Error::format(&self.path, problem))
    }

    fn get(&self, name: &str) -> Result<&(StDtype, Array)> {
        self.arrays.get(name).ok_or_else(|| {
            let have: Vec<_> = self.list().into_iter().map(|(n, ..)| n).collect();
            Error::missing(
                self.path.display().to_string(),
                format!("tensor `{name}`"),
                format!("it holds: {}", have.join(", ")),
            )
        })
    }

    /// Check that a tensor has that shape.
    pub(crate) fn expect(&self, name: &str, shape: &[usize]) -> Result<()> {
        let (_, array) = self.get(name)?;
        if array.shape == shape {
            return Ok(());
        }
        Err(Error::Shape {
            place: self.path.display().to_string(),
            tensor: name.to_owned(),
            expected: format!("{shape:?}"),
            got: format!("{:?}", array.shape),
        })
    }

    fn float(&self, name: &str, shape: &[usize]) -> Result<&Array> {
        self.expect(name, shape)?;
        let (st, array) = self.get(name)?;
        match from_st(*st) {
            Some(d) if d.is_float() => Ok(array),
            _ => Err(Error::format(
                &self.path,
                format!("tensor `{name}` has type {st:?}, expected a float type"),
            )),
        }
    }

    pub(crate) fn array(&self, name: &str) -> Option<Result<Array>> {
        let (st, array) = self.arrays.get(name)?;
        Some(match from_st(*st) {
            Some(_) => Ok(array.clone()),
            None => Err(Error::format(
                &self.path,
                format!(
                    "tensor `{name}` has type {st:?}, expected f16, bf16, f32, f64, bool or an integer"
                ),
            )),
        })
    }
}

/// The bytes that the header should be in; shorter where they are not there.
fn header_of(bytes: &[u8]) -> &[u8] {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return &[];
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    &rest[..length.min(rest.len())]
}

fn from_st(dtype: StDtype) -> Option<Dtype> {
    Some(match dtype {
        StDtype::F16 => Dtype::F16,
        StDtype::BF16 => Dtype::Bf16,
        StDtype::F32 => Dtype::F32,
        StDtype::F64 => Dtype::F64,
        StDtype::I8 => Dtype::I8,
        StDtype::I16 => Dtype::I16,
        StDtype::I32 => Dtype::I32,
        StDtype::I64 => Dtype::I64,
        StDtype::U8 | StDtype::BOOL => Dtype::U8,
        StDtype::U16 => Dtype::U16,
        StDtype::U32 => Dtype::U32,
        StDtype::U64 => Dtype::U64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<(String, Tensor)> {
        vec![
            ("b".into(), Tensor::f64([2], vec![1.0, 2.0])),
            ("a".into(), Tensor::f32([1, 2], vec![3.0, 4.0])),
        ]
    }

    #[test]
    fn what_is_written_comes_back_and_equal_contents_are_equal_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let meta = [("z", "1".to_owned()), ("y", "two".to_owned())];
        let paths = [directory.path().join("1"), directory.path().join("2")];
        for p in &paths {
            save_tensors(p, &sample(), &meta).unwrap();
        }
        let read = |p: &Path| std::fs::read(p).unwrap();
        assert_eq!(read(&paths[0]), read(&paths[1]));
        let file = TensorFile::open(&paths[0]).unwrap();
        assert_eq!(file.metadata("y"), Some("two"));
        assert_eq!(file.f64("b", &[2]).unwrap(), [1.0, 2.0]);
        assert_eq!(file.f32("a", &[1, 2]).unwrap(), [3.0, 4.0]);
        let wrong = file.f32("a", &[2, 1]).unwrap_err().to_string();
        assert!(wrong.contains("[1, 2], expected [2, 1]"), "{wrong}");
        let absent = file.f32("c", &[1]).unwrap_err().to_string();
        assert!(absent.contains("it holds: a, b"), "{absent}");
    }

    #[test]
    fn every_truncation_is_refused() {
        let sample = sample();
        let whole = Encoded::new(&sample, &[("k", "v".into())]).unwrap();
        let whole: Vec<u8> = whole.pieces().flatten().copied().collect();
        for n in 0..whole.len() {
            assert!(TensorFile::from_memory(Path::new("t"), whole[..n].to_vec()).is_err(), "{n}");
        }
        assert!(TensorFile::from_memory(Path::new("t"), whole).is_ok());
    }
    /// Where they lie, if they lie there as in memory; else the same as a copy.
    #[test]
    fn floats_are_shared_where_that_can_be() {
        let path = Path::new("t");
        let tensors = [("a".to_owned(), Tensor::f32([3], vec![1.0, 2.0, -3.5]))];
        let aligned = encode_tensors(&tensors).unwrap();
        let length = u64::from_le_bytes(*aligned.first_chunk().unwrap());
        let mut off = (length + 1).to_le_bytes().to_vec();
        off.extend(&aligned[8..8 + length as usize]);
        off.push(b' ');
        off.extend(&aligned[8 + length as usize..]);
        let directory = tempfile::tempdir().unwrap();
        for (bytes, shared) in [(aligned, true), (off, false)] {
            let mapped = directory.path().join("m");
            std::fs::write(&mapped, &bytes).unwrap();
            let file = TensorFile::open(&mapped).unwrap();
            let floats = file.floats("a", &[3]).unwrap();
            assert_eq!(floats[..], [1.0, 2.0, -3.5]);
            let array = file.array("a").unwrap().unwrap();
            let lies = array.as_f32(0, 3).map(<[f32]>::as_ptr);
            assert_eq!(lies == Some(floats.as_ptr()), shared);
            drop((file, array));
            assert_eq!(floats.clone(), floats);
        }
        let wide = [("a".to_owned(), Tensor::f64([2], vec![0.5, 1e300]))];
        let file = TensorFile::from_memory(path, encode_tensors(&wide).unwrap()).unwrap();
        assert!(file.floats("a", &[2]).unwrap_err().to_string().contains("NaN or infinity"));
        let wide = [("a".to_owned(), Tensor::f64([2], vec![0.5, 3.0]))];
        let file = TensorFile::from_memory(path, encode_tensors(&wide).unwrap()).unwrap();
        assert_eq!(file.floats("a", &[2]).unwrap()[..], [0.5, 3.0]);
        assert!(file.floats("a", &[3]).unwrap_err().to_string().contains("[2], expected [3]"));
    }
}
