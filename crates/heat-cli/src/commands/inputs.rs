//! What commands read: training sets, test sets, detectors, lists of names.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Result;
use heat_ood::ebm::RunDirectory;
use heat_ood::evaluate::{Remarks, remarks};
use heat_ood::features::{FeatureSet, HEAD, Head, OpenOptions, Subset, SubsetConfig};
use heat_ood::{Detector, Error, Provenance, TrainingData};

use crate::args::{SubsetArgs, TrainSet};
use crate::progress::Progress;

/// The column of labels in tables, for all sets of this process.
static LABEL_COLUMN: OnceLock<Option<String>> = OnceLock::new();

/// Read labels of tables from this column from now on.
pub fn set_label_column(column: Option<&str>) {
    let _ = LABEL_COLUMN.set(column.map(str::to_owned));
}

/// How sets are opened, with what the command line says.
pub fn open_options(dim: Option<usize>, head: Option<&Head>) -> OpenOptions {
    let label_column = LABEL_COLUMN.get().cloned().flatten();
    OpenOptions { dim, fallback_dim: head.map(Head::dim), label_column, ..OpenOptions::default() }
}

/// Open a set, and say what is odd about it.
pub fn open(
    path: &Path,
    options: &OpenOptions,
    head: Option<&Head>,
    progress: &Progress,
) -> Result<FeatureSet> {
    let set = FeatureSet::open_with(path, options)?;
    tell(&set, head, progress);
    Ok(set)
}

/// Say how a set was read, and what is odd about its logits. (What cannot be read is said by
/// who needs it.)
fn tell(set: &FeatureSet, head: Option<&Head>, progress: &Progress) {
    for notice in set.notices() {
        progress.say(&format!("note: {notice}"));
    }
    for warning in set.check_logits(head).unwrap_or_default() {
        progress.say(&format!("warning: {warning}"));
    }
}

/// A training set with its head, checked against each other.
pub struct Data {
    pub train: FeatureSet,
    pub head: Option<Head>,
    /// How the training set was opened; other sets are opened alike.
    pub options: OpenOptions,
    /// Which part of the training set `train` and `head` are.
    pub subset: Subset,
    /// All of the training set.
    pub whole: FeatureSet,
}

impl Data {
    /// The head is that given, else the one in the set's directory. Also says how far head and
    /// labels agree.
    pub fn open(args: &TrainSet, progress: &Progress) -> Result<Self> {
        let (labels, head) = (args.labels.as_deref(), args.head.as_deref());
        let data = Self::from(&args.train, labels, head, args.dim, progress)?;
        say_agreement(&data.train, data.head.as_ref(), progress)?;
        Ok(data)
    }

    pub fn from(
        train: &Path,
        labels: Option<&Path>,
        head: Option<&Path>,
        dim: Option<usize>,
        progress: &Progress,
    ) -> Result<Self> {
        let beside = train.join(HEAD);
        let head = head.or_else(|| beside.is_file().then_some(&*beside));
        let head = head.map(Head::open).transpose()?;
        let options = open_options(dim, head.as_ref());
        let mut train = FeatureSet::open_with(train, &options)?;
        if let Some(labels) = labels {
            train = train.with_labels(labels)?;
        }
        if let Some(head) = &head {
            train.check_head(head)?;
            train = train.indexing(head.classes());
            train.check_classes(head.classes())?;
        }
        tell(&train, head.as_ref(), progress);
        for notice in train.label_notices() {
            progress.say(&format!("note: {notice}"));
        }
        let whole = train.clone();
        Ok(Data { train, head, options, subset: Subset::default(), whole })
    }

    /// What scorers are fitted on.
    pub fn training(&self) -> TrainingData {
        TrainingData::new(&self.train).with_head(self.head.as_ref())
    }

    /// The part of it that `config` asks for, and the head of its classes.
    pub fn subset(mut self, config: &SubsetConfig) -> Result<Self> {
        self.subset = config.fit(&self.train)?;
        self.train = self.subset.apply(&self.train)?;
        self.head = self.head.map(|head| self.subset.apply_head(&head)).transpose()?;
        Ok(self)
    }
}

/// Say whether the head is that of the network that made the features, and how many labelled rows
/// it gets right: a head or labels of another network, or written in another order, would give
/// confident nonsense.
pub fn say_agreement(set: &FeatureSet, head: Option<&Head>, progress: &Progress) -> Result<()> {
    let Remarks { notes, warnings } = remarks(set, head)?;
    warnings.iter().for_each(|warning| progress.warn(warning));
    notes.iter().for_each(|note| progress.say(&format!("note: {note}")));
    Ok(())
}

/// Refuse features of another network or transform than something was fitted on.
pub fn check_origin(provenance: &Provenance, set: &FeatureSet, force: bool) -> Result<()> {
    unless_forced(provenance.check_origin(set), force)
}

/// What was found out about an origin, which `--force` overrules.
pub fn unless_forced(checked: heat_ood::Result<()>, force: bool) -> Result<()> {
    match checked {
        Err(Error::Foreign { .. }) if force => Ok(()),
        Err(Error::Foreign { place, problem }) => {
            let problem = format!("{problem}; `--force` goes on all the same");
            Err(Error::Foreign { place, problem }.into())
        }
        other => Ok(other?),
    }
}

impl SubsetArgs {
    pub fn config(&self) -> SubsetConfig {
        SubsetConfig {
            proportion: self.subset_proportion,
            number_labels: self.subset_labels,
            random_state: self.subset_seed,
        }
    }
}

/// `NAME=FILE`, or FILE under its own name.
pub fn named(text: &str) -> (String, PathBuf) {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !name.contains(['/', '\\']) => {
            (name.to_owned(), path.into())
        }
        _ => {
            let path = PathBuf::from(text);
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            (name, path)
        }
    }
}

/// The file of a detector: the path itself, or what a run directory holds: its detector, else the
/// checkpoint that is furthest on.
pub fn detector_file(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let file = path.join("detector.safetensors");
    if file.is_file() {
        return Ok(file);
    }
    let latest = RunDirectory::latest(path)?;
    Ok(latest.ok_or_else(|| {
        let problem =
            "is a directory without detector.safetensors and checkpoints: not that of a run";
        Error::format(path, problem)
    })?)
}

/// Open a detector, a checkpoint, or that of a run directory.
pub fn open_detector(path: &Path) -> Result<Detector> {
    Ok(Detector::open(detector_file(path)?)?)
}

/// A detector, and where it was read from.
pub struct NamedDetector {
    pub name: String,
    pub file: PathBuf,
    pub detector: Detector,
}

/// Open detectors given as `FILE` or `NAME=FILE`. A `detector.safetensors`
/// goes by the name of its run directory.
pub fn detectors(list: &[String]) -> Result<Vec<NamedDetector>> {
    let mut out: Vec<NamedDetector> = Vec::new();
    for text in list {
        let (mut name, file) = named(text);
        if name == "detector" {
            let directory = file.parent().and_then(Path::file_name);
            name = directory.map_or(name, |d| d.to_string_lossy().into_owned());
        }
        let refuse = |problem: &str| Err(Error::config("detectors", text, problem).into());
        if split(&name).len() != 1 {
            return refuse("a name with commas outside brackets cannot be listed; write NAME=FILE");
        }
        if out.iter().any(|d| d.name == name) {
            return refuse(&format!("two are named `{name}`; write NAME=FILE"));
        }
        let file = detector_file(&file)?;
        let detector = Detector::open(&file)?;
        out.push(NamedDetector { name, file, detector });
    }
    Ok(out)
}

/// The ID test set and the OOD sets.
pub struct TestSets {
    pub id: FeatureSet,
    pub ood: Vec<(String, FeatureSet)>,
}

impl TestSets {
    /// All opened as the training set was, if there is one, the labels of ID numbered as there.
    pub fn open(
        id: &Path,
        ood: &[String],
        options: &OpenOptions,
        data: Option<&Data>,
        progress: &Progress,
    ) -> Result<Self> {
        let head = data
            .and_then(|d| d.head.as_ref())
            .filter(|_| data.is_some_and(|d| d.subset.classes.is_none()));
        let mut id = open(id, options, head, progress)?;
        if let Some(data) = data {
            id = id.numbered_as(&data.whole);
        }
        Ok(TestSets { id, ood: ood_sets(ood, options, head, progress)? })
    }

    /// What goes with a part of the training set.
    pub fn part(&self, subset: &Subset) -> Result<Self> {
        let ood = self.ood.iter().map(|(name, set)| Ok((name.clone(), subset.apply_ood(set)?)));
        Ok(TestSets { id: subset.apply_test(&self.id)?, ood: ood.collect::<Result<_>>()? })
    }
}

/// Open OOD sets given as `NAME=FEATURES`.
fn ood_sets(
    list: &[String],
    options: &OpenOptions,
    head: Option<&Head>,
    progress: &Progress,
) -> Result<Vec<(String, FeatureSet)>> {
    let mut sets: Vec<(String, FeatureSet)> = Vec::new();
    for text in list {
        let (name, path) = named(text);
        const TAKEN: [&str; 4] = ["average", "mean", "nearood", "farood"];
        if TAKEN.contains(&&*name) || sets.iter().any(|(n, _)| *n == name) {
            let problem = format!(
                "two sets are named `{name}` (averages are {}); write NAME=FEATURES",
                TAKEN.join(", ")
            );
            return Err(Error::config("ood", text, problem).into());
        }
        let slash = text.split_once('=').is_some_and(|(name, _)| name.contains(['/', '\\']));
        if slash && !path.exists() {
            let problem = "there is no such file, and a name holds no slash; write NAME=FEATURES";
            return Err(Error::config("ood", text, problem).into());
        }
        sets.push((name, open(&path, options, head, progress)?));
    }
    Ok(sets)
}

/// Split at commas outside brackets.
pub fn split(list: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut depth = 0;
    for c in list.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if c == ',' && depth == 0 {
            out.push(String::new());
        } else if let Some(last) = out.last_mut() {
            last.push(c);
        }
    }
    out.into_iter().map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn commas_within_brackets_do_not_split() {
        assert_eq!(
            split("el, knn(k=50,normalize=true),ssd"),
            ["el", "knn(k=50,normalize=true)", "ssd"]
        );
        assert!(split("").is_empty());
    }
}
