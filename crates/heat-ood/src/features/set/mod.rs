//! Feature sets: one file, a directory of shards, or arrays in memory.

mod described;
mod names;
mod view;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ndarray::{ArrayView1, ArrayView2, Axis};

pub(crate) use described::Description;
pub use names::RowNames;
use view::View;

use super::classes::Classes;
use super::labels::open_labels;
use super::names::{NAME, of_tensors};
use super::open::OpenOptions;
use super::origin::Origin;
use super::shard::{Shard, names, safetensors_arrays};
use super::whole_labels::whole;
use super::{Field, FileFormat, Head, Part, Pooling, memmap, table, unnamed};
use crate::error::{Error, Result};
use crate::io::{self, Bytes, Stamp, TensorFile, is_unfinished, open_npy, open_npy_texts, stamps};
use crate::math::parallel::{Pieces, Slices, SlicesMut};
use crate::math::reduce::argmax;
use crate::math::{blocks, parallel};

/// The head of the network that made a directory's features: no shard of it.
pub const HEAD: &str = "head.safetensors";

/// The origin of a directory's shards, which must be one.
fn same_origin(files: &[PathBuf], origins: Vec<Option<Origin>>) -> Result<Option<Origin>> {
    let mut all = files.iter().zip(origins);
    let Some((first, origin)) = all.next() else { return Ok(None) };
    for (file, other) in all {
        let difference = match (&origin, &other) {
            (Some(one), Some(other)) => one.difference(other),
            (one, other) => (one != other).then(|| "features of an unknown network".into()),
        };
        if let Some(difference) = difference {
            let problem =
                format!("{difference}, as in {}: these are no shards of one set", first.display());
            return Err(Error::format(file, problem));
        }
    }
    Ok(origin)
}

/// N rows of features, with labels or without. A clone shares the data.
#[derive(Clone)]
pub struct FeatureSet {
    pub(super) name: String,
    files: Vec<PathBuf>,
    /// The files as they were mapped, whatever has their names since.
    mapped: Vec<Arc<Bytes>>,
    /// What they were when they were opened.
    stamps: Arc<[Stamp]>,
    /// Of the files, once they were asked for.
    digests: Arc<OnceLock<Vec<(String, String)>>>,
    pub(super) shards: Vec<Shard>,
    pub(super) rows: usize,
    pub(super) dims: Vec<(Field, usize)>,
    pub(super) labelled: bool,
    pub(super) classes: Classes,
    /// What is worth telling about how it was read.
    pub(super) notices: Arc<[String]>,
    /// Which network made it, where the files say.
    origin: Option<Arc<Origin>>,
    pub(super) view: View,
}

impl FeatureSet {
    /// Open a `.safetensors`, `.npy` (one matrix: avg) or `.npz` file, or a
    /// directory of `.safetensors` shards (read in name order), of the published
    /// code's `feat.mmap`, `std.mmap`, `label.mmap`, or of `.npy` files named
    /// `avg.npy`, `std.npy`, `max.npy`, `logits.npy`, `label.npy`.
    ///
    /// Shapes and types are checked here; values when they are read.
    ///
    /// # Errors
    /// If a file cannot be read, is truncated, has a wrong shape or type,
    /// disagrees with the other shards, or there are no rows.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &OpenOptions::default())
    }

    /// The same, told what a file may not say itself.
    ///
    /// # Errors
    /// As [`FeatureSet::open`], and if the options contradict the files.
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        io::reading(options.in_memory, || Self::open_here(path.as_ref(), options))
    }

    fn open_here(path: &Path, options: &OpenOptions) -> Result<Self> {
        if path.is_dir() {
            return Self::open_directory(path, options)?.of_dim(options.dim);
        }
        let (mut notices, mut origin) = (Vec::new(), None);
        let (arrays, names) = match FileFormat::of(path) {
            Some(FileFormat::Npy) => (vec![("avg".to_owned(), open_npy(path)?)], None),
            Some(FileFormat::Npz) => unnamed::npz(path, &mut notices)?,
            Some(FileFormat::Safetensors) => {
                let file = TensorFile::open(path)?;
                origin = Origin::of_file(&file)?;
                (unnamed::safetensors(&file, &mut notices)?, of_tensors(&file)?)
            }
            Some(FileFormat::Csv) => {
                let table = table::open(path, options, &mut notices)?;
                (table.arrays, table.names)
            }
            Some(FileFormat::Memmap) | None => return Err(unnamed::refused(path)),
        };
        let shard = Shard::new(path, arrays)?.named(names)?.of_network(origin.is_some());
        let mut set = Self::assemble(path, vec![path.to_owned()], vec![shard])?;
        set.notices = notices.into();
        set.of_dim(options.dim).map(|set| set.with_origin(origin))
    }

    fn open_directory(path: &Path, options: &OpenOptions) -> Result<Self> {
        if is_unfinished(path) {
            let problem = "left by a conversion that did not finish; run it again";
            return Err(Error::format(path, problem));
        }
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).map_err(Error::io("list", path))? {
            files.push(entry.map_err(Error::io("list", path))?.path());
        }
        files.sort();
        let of_format = |format| {
            let matching = files.iter().filter(|f| FileFormat::of(f) == Some(format));
            matching.cloned().collect::<Vec<_>>()
        };
        let mut shards = of_format(FileFormat::Safetensors);
        // The last layer of the network that made them lies beside them.
        shards.retain(|f| f.file_name().is_none_or(|name| name != HEAD));
        if !shards.is_empty() {
            let read = |f: &PathBuf| {
                let file = TensorFile::open(f)?;
                let shard = Shard::new(f, safetensors_arrays(&file)?)?;
                let origin = Origin::of_file(&file)?;
                Ok((shard.named(of_tensors(&file)?)?.of_network(origin.is_some()), origin))
            };
            let parts = shards.iter().map(read).collect::<Result<Vec<_>>>()?;
            let (parts, origins): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
            let origin = same_origin(&shards, origins)?;
            return Ok(Self::assemble(path, shards, parts)?.with_origin(origin));
        }
        if path.join(memmap::FEATURES).exists() {
            let (files, shard) = memmap::open(path, options)?;
            return Self::assemble(path, files, vec![shard]);
        }
        let mut named = of_format(FileFormat::Npy);
        // Other arrays may lie beside ours.
        named.retain(|f| f.file_stem().is_some_and(|s| names().any(|n| s == n)));
        if named.is_empty() {
            return Err(Error::format(
                path,
                "no .safetensors shards, no feat.mmap and no avg.npy in this directory",
            ));
        }
        let read = |f: &PathBuf| {
            let name = f.file_stem().unwrap_or_default().to_string_lossy();
            Ok((name.into_owned(), open_npy(f)?))
        };
        let arrays = named.iter().map(read).collect::<Result<_>>()?;
        let beside = path.join(FileFormat::Npy.file(NAME));
        let mut shard = Shard::new(path, arrays)?;
        if beside.is_file()
            && let Some(names) = open_npy_texts(&beside)?
        {
            shard = shard.named(Some(names))?;
            named.push(beside);
        }
        Self::assemble(path, named, vec![shard])
    }

    /// A set from the bytes of a safetensors file; `name` is used in messages, and beside the
    /// bytes' hash.
    ///
    /// # Errors
    /// As [`FeatureSet::open`].
    pub fn from_safetensors(name: &str, bytes: Vec<u8>) -> Result<Self> {
        let path = Path::new(name);
        let digest = (name.to_owned(), io::sha256_of([&bytes[..]]));
        let file = TensorFile::from_memory(path, bytes)?;
        let shard = Shard::new(path, safetensors_arrays(&file)?)?.named(of_tensors(&file)?)?;
        let origin = Origin::of_file(&file)?;
        let shard = shard.of_network(origin.is_some());
        let mut set = Self::assemble(path, Vec::new(), vec![shard])?.with_origin(origin);
        // There is no file to be read for it later.
        set.digests = Arc::new(OnceLock::from(vec![digest]));
        Ok(set)
    }

    /// A set of a copy of `avg` features (`[N, D]`), with labels if given. For
    /// other fields, or without a copy: [`FeatureSet::in_memory`].
    ///
    /// # Errors
    /// If there are no rows or the lengths disagree.
    pub fn from_arrays(avg: ArrayView2<'_, f32>, labels: Option<&[u32]>) -> Result<Self> {
        let set = Self::in_memory("memory").avg(avg);
        match labels {
            Some(labels) => set.labels(labels.iter().copied()).build(),
            None => set.build(),
        }
    }

    /// A set of one row of `avg` features.
    ///
    /// # Errors
    /// If the row is empty.
    pub fn from_row(row: &[f32]) -> Result<Self> {
        Self::from_arrays(ArrayView1::from(row).insert_axis(Axis(0)), None)
    }

    /// The same set with the labels of an `.npy`, `.npz` (`label`),
    /// `.safetensors` (`label`) or `.mmap` (f64) file.
    ///
    /// # Errors
    /// If the file cannot be read or has another number of rows, or this is a
    /// view of another set.
    pub fn with_labels(mut self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if !self.view.is_whole() {
            let problem = "give the labels of all rows first, then choose rows";
            return Err(Error::config("labels", path.display(), problem));
        }
        let mut label = open_labels(path)?;
        let texts = label.names.is_some() && FileFormat::of(path) != Some(FileFormat::Safetensors);
        let listed = if texts { None } else { label.names.take() };
        label = whole(path, label, self.rows)?;
        let texts = label.names.is_some();
        label.names = label.names.or(listed);
        let mut start = 0;
        for shard in &mut self.shards {
            let mut part = label.clone();
            part.offset += start * part.dtype.size();
            part.shape = vec![shard.rows];
            start += shard.rows;
            (shard.label, shard.texts) = (Some(part), texts);
            shard.label_place = format!("{} (row {} there is row 0)", path.display(), shard.start);
            if shard.start == 0 {
                shard.label_place = path.display().to_string();
            }
        }
        self.take_classes();
        self.mapped.push(io::map(path)?);
        self.files.push(path.to_owned());
        self.stamps = stamps(&self.files)?;
        self.digests = Arc::default();
        Ok(self)
    }

    pub(super) fn assemble(
        path: &Path,
        files: Vec<PathBuf>,
        mut shards: Vec<Shard>,
    ) -> Result<Self> {
        let mut rows = 0;
        for shard in &mut shards {
            shard.start = rows;
            rows += shard.rows;
        }
        let dims_of = |s: &Shard| s.fields.iter().map(|(f, a)| (*f, a.cols())).collect::<Vec<_>>();
        let dims = dims_of(&shards[0]);
        let labelled = shards[0].label.is_some();
        let names = |s: &Shard| s.label.as_ref().and_then(|l| l.names.clone());
        let first_names = names(&shards[0]);
        for shard in &shards {
            let other = dims_of(shard);
            let differs = |f: &(Field, usize)| !other.contains(f) || !dims.contains(f);
            if let Some((field, _)) = dims.iter().chain(&other).find(|f| differs(f)) {
                let text = |dims: &[(Field, usize)]| {
                    let found = dims.iter().find(|(f, _)| f == field);
                    found.map_or("absent".into(), |(_, d)| format!("[N, {d}]"))
                };
                return Err(Error::Shape {
                    place: shard.place.clone(),
                    tensor: field.name().into(),
                    expected: format!("{} as in {}", text(&dims), shards[0].place),
                    got: text(&other),
                });
            }
            let named = shard.names.is_some() == shards[0].names.is_some();
            if shard.label.is_some() != labelled || !named {
                let what = if named { "label" } else { NAME };
                let problem = format!(
                    "`{what}` must be in every shard or in none; compare {}",
                    shards[0].place
                );
                return Err(Error::format(&shard.place, problem));
            }
        }
        let differ = |s: &&Shard| names(s).is_some_and(|n| Some(&n) != first_names.as_ref());
        if let Some(shard) = shards.iter().find(differ) {
            let problem = format!(
                "`classes` lists other names than {}: shards of one set number their classes alike",
                shards[0].place
            );
            return Err(Error::format(&shard.place, problem));
        }
        if rows == 0 {
            return Err(Error::format(path, "the set has no rows"));
        }
        if u32::try_from(rows).is_err() {
            return Err(Error::format(path, "more than 2³² rows; split the set"));
        }
        let (name, view) = (path.display().to_string(), View::default());
        let (digests, notices, classes) = Default::default();
        let mapped = files.iter().map(|file| io::map(file)).collect::<Result<_>>()?;
        let stamps = stamps(&files)?;
        let mut set = FeatureSet {
            name,
            files,
            mapped,
            stamps,
            digests,
            shards,
            rows,
            dims,
            labelled,
            classes,
            notices,
            origin: None,
            view,
        };
        set.take_classes();
        Ok(set)
    }

    /// Refuse a set one of whose files was written into since it was opened. Files that were
    /// replaced by others under their names are still there as they were.
    ///
    /// # Errors
    /// If one was.
    pub fn check_unchanged(&self) -> Result<()> {
        self.stamps.iter().try_for_each(Stamp::check)
    }

    /// Which network made the features, and of images transformed how, where the files say.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_deref()
    }

    /// Refuse a set that is known not to come from that network, layer and transform; one that
    /// says nothing passes.
    ///
    /// # Errors
    /// [`Error::Foreign`], which says what differs.
    pub fn check_origin(&self, expected: &Origin) -> Result<()> {
        let difference = self.origin().and_then(|origin| expected.difference(origin));
        difference.map_or(Ok(()), |difference| {
            let problem = format!(
                "features of {difference}, which this was fitted on: extract them with the same \
                 network and transform"
            );
            Err(Error::Foreign { place: self.name().into(), problem })
        })
    }

    /// The same set, of that origin.
    #[must_use]
    pub fn with_origin(mut self, origin: Option<Origin>) -> Self {
        self.origin = origin.map(Arc::new);
        self
    }

    /// Find the classes of the labels; if all are −1, there are none.
    fn take_classes(&mut self) {
        let logits = self.dim(Field::Logits).or(self.dim(Field::Probabilities));
        self.classes = Classes::of(&self.shards, logits);
        self.labelled = !self.classes.is_empty();
    }

    /// Where the set came from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The files it was read from, in order (empty for sets in memory).
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The set, if its features have `dim` columns, where that is given.
    fn of_dim(self, dim: Option<usize>) -> Result<Self> {
        let Some(dim) = dim else {
            return Ok(self);
        };
        for field in &Field::ALL[..3] {
            if let Some(got) = self.dim(*field)
                && got != dim
            {
                return Err(Error::Shape {
                    place: self.name().to_owned(),
                    tensor: field.name().to_owned(),
                    expected: format!("[N, {dim}], because `dim` = {dim} was given"),
                    got: format!("[{}, {got}]", self.len()),
                });
            }
        }
        Ok(self)
    }

    /// SHA-256 of every file, with the file's name; empty for sets of arrays in memory.
    /// A view has one more, of the choice of rows and classes. Files are read
    /// for it once; clones and views share what was found.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn digests(&self) -> Result<Vec<(String, String)>> {
        let files = self.file_digests()?.iter().cloned();
        Ok(files.chain(self.view.digest(self.rows)).collect())
    }

    /// Those of the files alone.
    pub(crate) fn file_digests(&self) -> Result<&[(String, String)]> {
        if let Some(known) = self.digests.get() {
            return Ok(known);
        }
        let found = self.hash_files()?;
        Ok(self.digests.get_or_init(|| found))
    }

    fn hash_files(&self) -> Result<Vec<(String, String)>> {
        let name = |f: &PathBuf| f.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let hash = |bytes: &Arc<Bytes>| io::sha256_of([&bytes[..]]);
        let hashes: Vec<String> = self.mapped.par_iter().map(hash).collect();
        Ok(self.files.iter().map(name).zip(hashes).collect())
    }

    /// Number of rows N.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Never: a set without rows is refused.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Number of columns of a field, if the set has it.
    pub fn dim(&self, field: Field) -> Option<usize> {
        let stored = |field| self.dims.iter().find(|(f, _)| *f == field).map(|(_, dim)| *dim);
        if field.base() == Field::Features(Pooling::AvgStd) {
            let [avg, std] = field.sides().map(stored);
            return Some(avg? + std?);
        }
        stored(field)
    }

    /// The fields that it has, those of its parts last.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        self.dims.iter().map(|(field, _)| *field)
    }

    /// The parts that it has: other layers and views.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = self.fields().filter_map(Field::part).collect();
        parts.dedup();
        parts
    }

    /// The further layers that it has: its parts, but those of other views.
    pub fn layers(&self) -> Vec<Part> {
        let of_view =
            |part: &Part| part.name().split('.').next().and_then(super::View::known).is_some();
        self.parts().into_iter().filter(|part| !of_view(part)).collect()
    }

    /// The same rows with the features of a part: of another layer of the network, or of another
    /// view of the image.
    ///
    /// # Errors
    /// If it has no such part.
    pub fn part(&self, part: Part) -> Result<Self> {
        let dims = self.dims.iter().filter_map(|(f, dim)| Some((f.inside(part)?, *dim)));
        let mut dims: Vec<(Field, usize)> = dims.collect();
        if dims.is_empty() {
            let parts: Vec<&str> = self.parts().into_iter().map(Part::name).collect();
            let has = if parts.is_empty() { "none".to_owned() } else { parts.join(", ") };
            let what = format!("features of `{}`", part.name());
            let remedy = format!("layers and views that it has: {has}; extract it too");
            return Err(Error::missing(&self.name, what, remedy));
        }
        dims.sort_by_key(|(field, _)| field.order());
        let shards = self.shards.iter().map(|shard| shard.part(part)).collect();
        let name = format!("{} ({})", self.name, part.name());
        Ok(FeatureSet { name, dims, shards, ..self.clone() })
    }

    /// Whether the set has labels.
    pub fn labelled(&self) -> bool {
        self.labelled
    }

    /// Number of columns of a field.
    ///
    /// # Errors
    /// If the set lacks the field.
    pub fn require(&self, field: Field) -> Result<usize> {
        self.dim(field).ok_or_else(|| {
            let have: Vec<_> = self.fields().map(Field::name).collect();
            let remedy = match field.base() {
                Field::Features(Pooling::AvgStd) => "`avg` and `std` make it",
                Field::Features(_) => "extract that pooling, or choose another `pooling`",
                Field::Logits => "add them, or give the classifier's head",
                Field::Gram => "`heat extract --for gram` makes it",
                Field::Rankfeat => "`heat extract --for rankfeat` makes it",
                Field::Nac => "`heat extract --for nac` makes it",
                Field::Graduncertainty => "`heat extract --for graduncertainty` makes it",
                Field::Spread => {
                    "`heat extract --views dropout30` makes it, of a network that has dropout"
                }
                Field::Probabilities | Field::Of(_) => "add them",
            };
            let remedy = format!("it has: {}; {remedy}", have.join(", "));
            Error::missing(&self.name, format!("`{}`", field.name()), remedy)
        })
    }

    /// Check that `head` fits the `avg` features (and `logits`) of this set.
    ///
    /// # Errors
    /// If D or C disagree.
    pub fn check_head(&self, head: &Head) -> Result<()> {
        let pairs = [
            (Field::Features(Pooling::Avg), head.dim(), "D"),
            (Field::Logits, head.classes(), "C"),
        ];
        for (field, want, what) in pairs {
            if let Some(got) = self.dim(field)
                && got != want
            {
                return Err(Error::Shape {
                    place: self.name.clone(),
                    tensor: field.name().into(),
                    expected: format!("[N, {want}], because the head's weight has {what} = {want}"),
                    got: format!("[{}, {got}]", self.rows),
                });
            }
        }
        Ok(())
    }

    /// Copy rows of a field into `out` (`[range.len(), dim]`), checking that
    /// every value is finite.
    ///
    /// # Errors
    /// If the field is absent or a value is NaN or infinite.
    pub fn read(&self, field: Field, range: std::ops::Range<usize>, out: &mut [f32]) -> Result<()> {
        self.read_through(field, range, out, Shard::read)
    }

    /// The same on all threads of the pool.
    ///
    /// # Errors
    /// As [`FeatureSet::read`].
    pub fn read_parallel(
        &self,
        field: Field,
        range: std::ops::Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        const ROWS: usize = 256;
        let dim = self.require(field)?;
        let out = &mut out[..range.len() * dim];
        let pieces = out.par_chunks_mut(ROWS * dim).enumerate();
        parallel::run_all(pieces.map(|(i, out)| {
            let start = range.start + i * ROWS;
            self.read(field, start..start + out.len() / dim, out)
        }))
    }

    /// Copy the given rows of a field into `out`, in their order.
    ///
    /// # Errors
    /// As [`FeatureSet::read`].
    pub fn gather(&self, field: Field, rows: &[u32], out: &mut [f32]) -> Result<()> {
        let dim = self.require(field)?;
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(dim)) {
            let row = row as usize;
            self.read(field, row..row + 1, out)?;
        }
        Ok(())
    }

    /// Labels of the rows of `range`, each below `classes`.
    ///
    /// # Errors
    /// If the set has no labels, or one is out of range.
    pub fn labels(&self, range: std::ops::Range<usize>, classes: usize) -> Result<Vec<u32>> {
        if !self.labelled {
            return Err(Error::missing(
                &self.name,
                "`label`",
                "add class indices to the file, or give them apart",
            ));
        }
        self.check_rows()?;
        range
            .map(|row| {
                let row = self.view.stored_row(row);
                let shard = self.shard_of(row);
                let local = row - shard.start;
                let stored = shard.label.as_ref().map_or(-1, |l| l.integer(local));
                let label = u32::try_from(self.view.relabelled(self.classes.class(stored))).ok();
                label.filter(|&l| (l as usize) < classes).ok_or_else(|| Error::Label {
                    place: shard.label_place.clone(),
                    row: local,
                    label: stored,
                    classes,
                })
            })
            .collect()
    }

    /// The class of each row's largest logit.
    ///
    /// # Errors
    /// If the set has no logits, or holds NaN or infinity.
    pub fn largest_logits(&self) -> Result<Vec<u32>> {
        let classes = self.require(Field::Logits)?;
        let mut out = Vec::with_capacity(self.len());
        for range in blocks(self.len(), 1 << 14) {
            let logits = self.rows(Field::Logits, range)?;
            out.extend(logits.chunks_exact(classes).map(argmax));
        }
        Ok(out)
    }

    /// Number of classes: of labels that occur, or one more than the largest
    /// where they are numbers of classes already.
    ///
    /// # Errors
    /// If the set has no labels, or one of them is no class.
    pub fn classes(&self) -> Result<usize> {
        let classes = self.view.chosen().map_or(self.classes.count(), <[u32]>::len);
        for range in blocks(self.rows, 1 << 16) {
            self.labels(range, classes)?;
        }
        Ok(classes)
    }

    pub(super) fn shard_of(&self, row: usize) -> &Shard {
        let i = self.shards.partition_point(|s| s.start + s.rows <= row);
        &self.shards[i]
    }
}
