//! What fits gather from the rows, as values that can be merged.
//!
//! Where the rows lie in parts, on many machines or in files that are read one after the other,
//! [`Statistics::of`] gathers from each part what the fits of some scorers ask for; those of all parts
//! are [merged](Statistics::merge), and [`Statistics::finish`] makes the detectors. The same parts in
//! the same order give the same bits; against one pass over all rows results differ by rounding, since
//! sums are about other centres.
//!
//! Some fits ask for what depends on statistics of all rows (`vim` for its scale, ReAct for the lowest bits of
//! a quantile, Ledoit–Wolf for fourth powers). They take another round: [`Statistics::of`] on each part
//! *after* the merged ones, and so on until [`Statistics::is_complete`]. `knn`, `nnguide` and `relation` keep
//! rows, which are put one after the other. `cfood`, K-means and a shrinkage by held out classes read the
//! rows themselves and are refused.
//!
//! ```
//! use heat_ood::features::FeatureSet;
//! use heat_ood::scorers::ScorerSpec;
//! use heat_ood::statistics::Statistics;
//! use heat_ood::{Silent, TrainingData};
//!
//! # fn main() -> heat_ood::Result<()> {
//! # let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../heat-cli/data/cifar10-densenet");
//! let all = FeatureSet::open(format!("{directory}/train.safetensors"))?;
//! let specs = [ScorerSpec::parse("gmm")?];
//! let part = |rows: std::ops::Range<u32>| {
//!     let data = TrainingData::new(&all.select(rows.collect(), None)?).with_classes(10);
//!     Statistics::of(&specs, &data, None, &mut Silent)
//! };
//! let mut merged = part(0..900)?;
//! merged.merge(&part(900..all.len() as u32)?)?;
//! let gmm = merged.finish(&mut Silent)?.remove(0);
//! assert_eq!(gmm.score(&all)?.len(), all.len());
//! # Ok(())
//! # }
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Detector;
use crate::error::{Error, Result};
use crate::features::{Description, FeatureSet, FieldSet, Head, Origin, RowSketch};
use crate::io::{Tensor, TensorFile, check_means, save_tensors, sealed_tensors, sha256_of};
use crate::observe::Observer;
use crate::probes::Probes;
use crate::provenance::Provenance;
use crate::scorers::{
    ByLayer, Fitted, Gathered, Piece, ScorerSpec, TrainingData, fit_statistics, gather_round,
};

const FORMAT: &str = "heat-statistics";
const VERSION: u32 = 1;

/// So many classes are believed of a file that holds nothing of each.
const FEW_CLASSES: usize = 1 << 20;

/// What stands before the names of the tensors of hashes of rows.
const ROWS: &str = "train_rows";

/// Statistics of some of the rows of a training set.
#[derive(Clone)]
pub struct Statistics {
    about: About,
    head: Option<Head>,
    /// Those of all rows, of the rounds before.
    settled: ByLayer,
    /// Those of this round.
    current: ByLayer,
    sketches: Vec<RowSketch>,
    probes: Probes,
}

/// What they are of, as their file says it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct About {
    library_version: String,
    scorers: Vec<String>,
    set: Description,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    /// From 1.
    round: usize,
    /// Digest of the statistics of the rounds before, and the rows that these were of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<(String, usize)>,
    /// A digest of the rows of each part, its name, and how many they are.
    parts: Vec<(String, String, usize)>,
    /// Name and SHA-256 of the files of all parts.
    files: Vec<(String, String)>,
}

/// A piece as its file lists it.
#[derive(Debug, Serialize, Deserialize)]
struct Listed {
    layer: String,
    key: String,
    settled: bool,
    /// Kind and size of each piece.
    pieces: Vec<(String, usize)>,
}

impl Statistics {
    /// Gather what the fits of these scorers ask of a part of the rows, after the merged statistics
    /// of earlier rounds.
    ///
    /// # Errors
    /// If the part has labels and nothing tells how many classes there are in all, a scorer
    /// cannot be fitted from statistics, or a row cannot be read; if what comes before is of other
    /// scorers, features or classes, or needs no other round.
    pub fn of(
        scorers: &[ScorerSpec],
        part: &TrainingData,
        after: Option<&Statistics>,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        if scorers.is_empty() {
            return Err(Error::config("scorers", "", "name at least one, e.g. `gmm`"));
        }
        let set = &part.features;
        let told = part.classes.or(part.head.as_ref().map(Head::classes));
        if set.labelled() && told.is_none() {
            let what = "the number of classes";
            let remedy = "give the classifier's head, or the number: the labels of a part do not tell \
                          which classes the others have";
            return Err(Error::needs("statistics of a part of the rows", what, remedy));
        }
        check_means("statistics", 1, told.unwrap_or(0))?;
        let about = About {
            library_version: env!("CARGO_PKG_VERSION").to_owned(),
            scorers: scorers.iter().map(ScorerSpec::to_string).collect(),
            set: set.description(told),
            origin: set.origin().cloned(),
            round: 1 + after.map_or(0, |a| a.about.round),
            after: after.map(|a| Ok::<_, Error>((a.digest()?, a.rows()))).transpose()?,
            parts: Vec::new(),
            files: set.digests()?,
        };
        if let Some(after) = after {
            about.check_same(&after.about, "the statistics of the round before")?;
            check_head(part.head.as_ref(), after.head.as_ref())?;
        }
        let settled = after.map_or_else(ByLayer::new, Statistics::all);
        let rows = after.map(Statistics::rows);
        let (current, read) = gather_round(scorers, part, &settled, rows, observer)?;
        if after.is_some() && current.values().all(Gathered::is_empty) {
            let problem = "nothing more is needed: merge them into a detector";
            return Err(Error::Fit { what: "another round".into(), problem: problem.into() });
        }
        let (mut sketches, mut probes) = (Vec::new(), Probes::default());
        for needs in read.into_iter().map(FieldSet::of) {
            sketches.push(RowSketch::of(set, &needs)?);
            probes.include(&Probes::of(set, &needs)?);
        }
        let mut statistics =
            Statistics { about, head: part.head.clone(), settled, current, sketches, probes };
        let rows = statistics.sketches.iter().flat_map(|s| &s.hashes).flatten();
        let digest = sha256_of(rows.map(|h| h.to_le_bytes()));
        statistics.about.parts.push((digest, set.name().to_owned(), set.len()));
        Ok(statistics)
    }

    /// The scorers that they are for, as written.
    pub fn scorers(&self) -> &[String] {
        &self.about.scorers
    }

    /// Number of rows that they are of.
    pub fn rows(&self) -> usize {
        self.about.set.rows
    }

    /// The parts that were merged, each with its number of rows.
    pub fn parts(&self) -> impl Iterator<Item = (&str, usize)> {
        self.about.parts.iter().map(|(_, name, rows)| (&**name, *rows))
    }

    /// Which round they are of, from 1.
    pub fn round(&self) -> usize {
        self.about.round
    }

    /// Also the rows of another part, which follow.
    ///
    /// # Errors
    /// If it is of other scorers, features, classes, another head, network or round, or a part
    /// is in both.
    pub fn merge(&mut self, other: &Statistics) -> Result<()> {
        self.about.check_same(&other.about, "the other part")?;
        check_head(self.head.as_ref(), other.head.as_ref())?;
        if (self.about.round, &self.about.after) != (other.about.round, &other.about.after) {
            let problem = format!(
                "{} is of round {}, {} of round {}, or after other statistics: merge those of one round \
                 that were gathered after the same file",
                self.named(),
                self.about.round,
                other.named(),
                other.about.round
            );
            return Err(refused(problem));
        }
        let twice = other
            .about
            .parts
            .iter()
            .find(|(digest, ..)| self.about.parts.iter().any(|(known, ..)| known == digest));
        if let Some((_, name, _)) = twice {
            return Err(refused(format!("the rows of {name} are in both: count every part once")));
        }
        let pieces = |layers: &ByLayer| {
            let keys = layers.iter().flat_map(|(layer, gathered)| {
                gathered.iter().map(|(key, pieces)| (layer.clone(), key.clone(), pieces.len()))
            });
            keys.collect::<Vec<_>>()
        };
        let alike = pieces(&self.current) == pieces(&other.current);
        let theirs = || other.current.values().flat_map(|g| g.values()).flatten();
        let own = self.current.values().flat_map(|g| g.values()).flatten();
        if !alike || !own.zip(theirs()).all(|(a, b)| a.fits(b)) {
            let (a, b) = (self.named(), other.named());
            return Err(refused(format!(
                "{a} and {b} hold other sums: were both made by one version?"
            )));
        }
        let own = self.current.values_mut().flat_map(|g| g.values_mut()).flatten();
        own.zip(theirs()).for_each(|(a, b)| a.merge(b));
        self.about.set.rows += other.about.set.rows;
        self.about.parts.extend(other.about.parts.iter().cloned());
        for file in &other.about.files {
            if !self.about.files.contains(file) {
                self.about.files.push(file.clone());
            }
        }
        for (own, theirs) in self.sketches.iter_mut().zip(&other.sketches) {
            own.merge(theirs);
        }
        Ok(())
    }

    fn named(&self) -> &str {
        self.about.parts.first().map_or("statistics", |(_, name, _)| name)
    }

    /// All that is known of all rows.
    fn all(&self) -> ByLayer {
        let mut all = self.settled.clone();
        for (layer, gathered) in &self.current {
            let into = all.entry(layer.clone()).or_default();
            into.extend(gathered.iter().map(|(key, pieces)| (key.clone(), pieces.clone())));
        }
        all
    }

    /// Whether detectors can be made of them, if these are all rows.
    ///
    /// # Errors
    /// If a scorer cannot be fitted.
    pub fn is_complete(&self, observer: &mut dyn Observer) -> Result<bool> {
        match self.finish(observer) {
            Ok(_) => Ok(true),
            Err(Error::AnotherRound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The detectors, in the order of the scorers.
    ///
    /// # Errors
    /// [`Error::AnotherRound`] if more must be gathered; if these are not the rows of the round before, or
    /// a scorer cannot be fitted.
    pub fn finish(&self, observer: &mut dyn Observer) -> Result<Vec<Detector>> {
        if let Some((_, rows)) = self.about.after.as_ref().filter(|(_, rows)| *rows != self.rows())
        {
            return Err(refused(format!(
                "round {} has seen {} rows and the round before {rows}: gather it on the same parts, \
                 and merge all of them",
                self.about.round,
                self.rows()
            )));
        }
        let mut set = FeatureSet::described("the rows of all parts", &self.about.set)?;
        set = set.with_origin(self.about.origin.clone());
        let mut data = TrainingData::new(&set).with_head(self.head.as_ref());
        data.classes = self.about.set.classes();
        let specs = self.about.scorers.iter().map(|text| ScorerSpec::parse(text));
        let specs: Vec<ScorerSpec> = specs.collect::<Result<_>>()?;
        let scorers = fit_statistics(&specs, &data, &self.all(), observer)?;
        let detectors = scorers.into_iter().zip(&specs).map(|(scorer, spec)| {
            // The fit has seen no views.
            let needs = scorer.needs_of_training(&set).unwrap_or_default();
            let mut detector = Detector::new(Fitted::from_parts(scorer, self.provenance(&needs)));
            detector.record_recipe(spec.to_string(), None);
            detector
        });
        Ok(detectors.collect())
    }

    fn provenance(&self, needs: &FieldSet) -> Provenance {
        let mut provenance = Provenance::new();
        provenance.train.clone_from(&self.about.files);
        provenance.classes = self.about.set.class_names().to_vec();
        provenance.origin.clone_from(&self.about.origin);
        let field = needs.stored().fields().next();
        let sketch = field.and_then(|f| self.sketches.iter().find(|s| s.field == f.name()));
        provenance.rows.extend(sketch.cloned());
        provenance.probes = self.probes.only(needs);
        provenance
    }

    /// Write the file, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let (tensors, metadata) = self.encoded();
        save_tensors(path.as_ref(), &tensors, &metadata)
    }

    /// The bytes of that file.
    ///
    /// # Errors
    /// None that is expected.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let (tensors, metadata) = self.encoded();
        sealed_tensors(&tensors, &metadata)
    }

    fn digest(&self) -> Result<String> {
        Ok(sha256_of([self.to_bytes()?]))
    }

    #[expect(clippy::type_complexity, reason = "as `save_tensors` takes them")]
    fn encoded(&self) -> (Vec<(String, Tensor)>, Vec<(&'static str, String)>) {
        let (mut tensors, mut listed) = (Vec::new(), Vec::new());
        for (settled, layers) in [(true, &self.settled), (false, &self.current)] {
            for (layer, gathered) in layers {
                for (key, pieces) in gathered {
                    let place = listed.len();
                    let kinds = pieces.iter().map(|p| (p.kind().0.to_owned(), p.kind().1));
                    let (layer, key) = (layer.clone(), key.clone());
                    listed.push(Listed { layer, key, settled, pieces: kinds.collect() });
                    for (i, piece) in pieces.iter().enumerate() {
                        tensors.extend(piece.clone().tensors(&format!("s{place}.{i}")));
                    }
                }
            }
        }
        if let Some(head) = &self.head {
            let named = head.tensors().into_iter().map(|(name, t)| (format!("head.{name}"), t));
            tensors.extend(named);
        }
        for sketch in &self.sketches {
            tensors.extend(sketch.tensors(&format!("{ROWS}.{}", sketch.field)));
        }
        tensors.extend(self.probes.values());
        let json = |v: serde_json::Result<String>| v.unwrap_or_default();
        let seen: Vec<(&str, usize)> = self.sketches.iter().map(|s| (&*s.field, s.rows)).collect();
        let metadata = vec![
            ("format", FORMAT.to_owned()),
            ("version", VERSION.to_string()),
            ("about", json(serde_json::to_string(&self.about))),
            ("statistics", json(serde_json::to_string(&listed))),
            ("rows", json(serde_json::to_string(&seen))),
        ];
        (tensors, metadata)
    }

    /// Open a file of statistics.
    ///
    /// # Errors
    /// If it is truncated or damaged, of a newer version, or none.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_file(&TensorFile::open(path.as_ref())?)
    }

    /// Statistics of such bytes; `name` is used in messages.
    ///
    /// # Errors
    /// As [`Statistics::open`].
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self> {
        Self::from_file(&TensorFile::from_memory(Path::new(name), bytes)?)
    }

    fn from_file(file: &TensorFile) -> Result<Self> {
        let bad = |why: String| Error::format(file.path(), why);
        if file.metadata("format") != Some(FORMAT) {
            return Err(bad(format!(
                "holds {}, not statistics of a part of the rows",
                file.content()
            )));
        }
        let version: u32 = file.metadata("version").and_then(|v| v.parse().ok()).unwrap_or(0);
        if version != VERSION {
            return Err(bad(format!(
                "has format version {version}, this program reads {VERSION}: gather all parts with one version"
            )));
        }
        if !file.is_sealed() {
            return Err(bad("is damaged: it has no digest. Copy or create it again".into()));
        }
        let text = |key: &str| file.metadata(key).unwrap_or_default();
        let unreadable = |e: serde_json::Error| bad(format!("its header is not readable: {e}"));
        let about: About = serde_json::from_str(text("about")).map_err(unreadable)?;
        let listed: Vec<Listed> = serde_json::from_str(text("statistics")).map_err(unreadable)?;
        let seen: Vec<(String, usize)> = serde_json::from_str(text("rows")).map_err(unreadable)?;
        let (mut settled, mut current) = (ByLayer::new(), ByLayer::new());
        for (place, listed) in listed.into_iter().enumerate() {
            let pieces =
                listed.pieces.iter().enumerate().map(|(i, (kind, size))| {
                    Piece::read(kind, *size, file, &format!("s{place}.{i}"))
                });
            let pieces = pieces.collect::<Result<Vec<_>>>()?;
            let layers = if listed.settled { &mut settled } else { &mut current };
            layers.entry(listed.layer).or_default().insert(listed.key, pieces);
        }
        let head = match file.has("head.weight") {
            false => None,
            true => {
                let shape = file.shape("head.weight")?.to_vec();
                let bias = file.f32("head.bias", &shape[..1.min(shape.len())])?;
                Some(Head::new(file.f32("head.weight", &shape)?, bias)?)
            }
        };
        let mut sketches = Vec::new();
        for (field, rows) in seen {
            let mut sketch = RowSketch { field, rows, ..RowSketch::default() };
            sketch.read(file, &format!("{ROWS}.{}", sketch.field))?;
            sketches.push(sketch);
        }
        let probes = Probes::of_values(file)?;
        let classes = about.set.classes().unwrap_or(0);
        let of_head = head.as_ref().map_or(0, Head::classes);
        let held = settled.values().chain(current.values()).flat_map(|g| g.values()).flatten();
        let counted = held.map(Piece::classes).max().unwrap_or(0);
        if classes > FEW_CLASSES.max(of_head).max(counted) {
            return Err(bad(format!(
                "says {classes} classes, and holds sums of {counted}: it is damaged"
            )));
        }
        Ok(Statistics { about, head, settled, current, sketches, probes })
    }
}

impl About {
    /// That both are of the same scorers, features, classes and network.
    fn check_same(&self, other: &About, what: &str) -> Result<()> {
        let differs = if self.library_version != other.library_version {
            Some(format!("version {} of the library", other.library_version))
        } else if self.scorers != other.scorers {
            Some(format!("`{}` and not `{}`", other.scorers.join(", "), self.scorers.join(", ")))
        } else if !self.set.fits(&other.set) {
            Some("other features or classes".to_owned())
        } else {
            match (&self.origin, &other.origin) {
                (Some(a), Some(b)) => a.difference(b),
                (a, b) => (a != b).then(|| "an unknown network".to_owned()),
            }
        };
        differs.map_or(Ok(()), |differs| Err(refused(format!("{what} is of {differs}"))))
    }
}

fn check_head(own: Option<&Head>, other: Option<&Head>) -> Result<()> {
    if own.map(Head::digest) == other.map(Head::digest) {
        return Ok(());
    }
    Err(refused("they were gathered with another head: give every part the same one".into()))
}

fn refused(problem: String) -> Error {
    Error::Fit { what: "from these statistics".into(), problem }
}
