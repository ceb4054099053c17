//! One file per subcommand, and what they share.

pub mod backbone;
pub mod calibrate;
pub mod compose;
pub mod convert;
pub mod data;
pub mod eval;
pub mod export_torch;
pub mod extract;
pub mod fit;
pub mod import_torch;
pub mod info;
pub mod quickstart;
pub mod report;
pub mod run;
pub mod score;
pub mod select;
pub mod statistics;
pub mod sweep;
pub mod train;
pub mod watch;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use heat_ood::features::{FeatureSet, FileFormat, Head, OpenOptions, Subset, SubsetConfig};
use heat_ood::{Detector, Error};

use crate::args::{SubsetArgs, TrainSet};
use crate::progress::Progress;

/// A training set with its head, checked against each other.
pub struct Data {
    pub train: FeatureSet,
    pub head: Option<Head>,
    /// How the training set was opened; other sets are opened alike.
    pub options: OpenOptions,
    /// Which part of the training set `train` and `head` are.
    pub subset: Subset,
}

impl Data {
    pub fn open(args: &TrainSet) -> Result<Self> {
        Self::from(&args.train, args.labels.as_deref(), args.head.as_deref(), args.dim)
    }

    pub fn from(
        train: &Path,
        labels: Option<&Path>,
        head: Option<&Path>,
        dim: Option<usize>,
    ) -> Result<Self> {
        let head = head.map(Head::open).transpose()?;
        let options = OpenOptions { dim, fallback_dim: head.as_ref().map(Head::dim) };
        let mut train = FeatureSet::open_with(train, &options)?;
        if let Some(labels) = labels {
            train = train.with_labels(labels)?;
        }
        if let Some(head) = &head {
            train.check_head(head)?;
        }
        Ok(Data { train, head, options, subset: Subset::default() })
    }

    /// The part of it that `config` asks for, and the head of its classes.
    pub fn subset(mut self, config: &SubsetConfig) -> Result<Self> {
        self.subset = config.fit(&self.train)?;
        self.train = self.subset.apply(&self.train)?;
        self.head = self.head.map(|head| self.subset.apply_head(&head)).transpose()?;
        Ok(self)
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

/// Open detectors given as `FILE` or `NAME=FILE`. A `detector.safetensors`
/// goes by the name of its run folder.
pub fn detectors(list: &[String]) -> Result<Vec<(String, Detector)>> {
    let mut out: Vec<(String, Detector)> = Vec::new();
    for text in list {
        let (mut name, path) = named(text);
        if name == "detector" {
            let folder = path.parent().and_then(Path::file_name);
            name = folder.map_or(name, |f| f.to_string_lossy().into_owned());
        }
        if eval::split(&name).len() != 1 {
            let problem = "a name with commas outside brackets cannot be listed; write NAME=FILE";
            return Err(Error::config("detectors", text, problem).into());
        }
        if out.iter().any(|(n, _)| *n == name) {
            anyhow::bail!(Error::config(
                "detectors",
                text,
                format!("there are two named `{name}`; write NAME=FILE"),
            ));
        }
        out.push((name, Detector::open(&path)?));
    }
    Ok(out)
}

/// Write a file whole, or standard output.
pub fn write_output(path: Option<&Path>, text: &str) -> Result<()> {
    use std::io::Write;
    match path {
        Some(path) => {
            heat_ood::io::write_atomically(path, |w| w.write_all(text.as_bytes()))?;
        }
        None => std::io::stdout().lock().write_all(text.as_bytes()).context("write results")?,
    }
    Ok(())
}

/// Refuse to replace a file that is read, and what is no file; said before any work.
pub fn refuse_overwriting(output: Option<&Path>, inputs: &[&Path]) -> Result<()> {
    let Some(output) = output else {
        return Ok(());
    };
    let refuse = |problem: &str| Err(Error::config("output", output.display(), problem).into());
    if is_folder_name(output) {
        return refuse("is the name of a folder; name a file");
    }
    let folder_of = |file: &Path| match file.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_owned(),
        _ => PathBuf::from("."),
    };
    if !folder_of(output).is_dir() {
        return refuse("that folder does not exist");
    }
    let target = heat_ood::io::destination(output)?;
    let real = |p: &Path| p.canonicalize().ok();
    for input in inputs.iter().filter_map(|input| real(input)) {
        if real(&target).as_ref() == Some(&input) {
            return refuse("that file is read by this command; choose another name");
        }
        let folder = real(&folder_of(&target));
        if input.is_dir() && FileFormat::of(&target).is_some() && folder == Some(input) {
            return refuse("that folder is a feature set that is read: this would be a part of it");
        }
    }
    Ok(())
}

/// Whether a folder of that name exists, or a slash at the end says one is meant.
pub fn is_folder_name(path: &Path) -> bool {
    path.is_dir() || path.as_os_str().to_string_lossy().ends_with(['/', '\\'])
}

/// 2 for settings that cannot be understood, 3 for an alarm, 1 for everything else.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<watch::Alarmed>() {
        return 3;
    }
    match error.downcast_ref::<Error>() {
        Some(Error::Unknown { .. } | Error::Config { .. }) => 2,
        _ => 1,
    }
}

/// Whether the reader of our output has gone.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|e| e.downcast_ref::<std::io::Error>());
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Say that a file was written.
pub fn wrote(progress: &mut Progress, path: &Path) {
    progress.clear();
    progress.say(&format!("wrote {}", path.display()));
}
