//! State dicts: a network's tensors by name, from PyTorch checkpoints and
//! safetensors files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use heat_ood::io::{TensorFile, open_regular};
use heat_ood::torch::{Checkpoint, likeliest, quoted};
use heat_ood::{Error, Result};

/// Counters that PyTorch keeps and no network needs.
const COUNTER: &str = "num_batches_tracked";

enum Source {
    Torch(Checkpoint),
    Safetensors(TensorFile),
}

/// The tensors of the one network in a file, by their names within it.
pub(super) struct StateDict {
    path: PathBuf,
    prefix: String,
    source: Source,
    /// Shapes of the tensors of a float type.
    shapes: BTreeMap<String, Vec<usize>>,
    /// Prefixes of other networks in the file.
    others: Vec<String>,
}

/// Whether a file holds weights rather than a graph, from its first bytes.
pub(super) fn holds_weights(bytes: &[u8]) -> bool {
    let safetensors = bytes.get(8) == Some(&b'{') && bytes.get(6..8) == Some(&[0, 0]);
    bytes.starts_with(b"PK") || bytes.starts_with(b"\x80") || safetensors
}

impl StateDict {
    /// Open a file; the network is where all `anchors` stand under one prefix:
    /// `state_dict.module.`, or whatever else precedes them.
    ///
    /// # Errors
    /// If the file cannot be read, or has no such network, or several and no
    /// prefix is given.
    pub fn open(path: &Path, anchors: &[&str], prefix: Option<&str>) -> Result<Self> {
        let mut start = [0; 9];
        let mut file = open_regular(path)?;
        let n = std::io::Read::read(&mut file, &mut start).map_err(Error::io("read", path))?;
        let (source, shapes) = if start[..n].get(8) == Some(&b'{') {
            let file = TensorFile::open(path)?;
            let shapes = file.list().into_iter().map(|(name, _, shape)| (name, shape)).collect();
            (Source::Safetensors(file), shapes)
        } else {
            let file = Checkpoint::open(path)?;
            let shapes = file.shapes().map(|(name, shape)| (name.to_owned(), shape.to_vec()));
            let shapes = shapes.collect();
            (Source::Torch(file), shapes)
        };
        let shapes: BTreeMap<String, Vec<usize>> = shapes;
        let all = prefixes(&shapes, anchors);
        let prefix = match prefix {
            // The dot after it may be left out.
            Some(prefix) => {
                let dotted = format!("{prefix}.");
                if all.contains(&dotted) { dotted } else { prefix.to_owned() }
            }
            None => find_prefix(path, &shapes, all.clone(), anchors)?,
        };
        let within = |(name, shape): (String, Vec<usize>)| {
            let name = name.strip_prefix(&prefix)?.to_owned();
            (!name.ends_with(COUNTER)).then_some((name, shape))
        };
        let shapes: BTreeMap<_, _> = shapes.into_iter().filter_map(within).collect();
        if let Some(absent) = anchors.iter().find(|name| !shapes.contains_key(**name)) {
            let what = format!("tensor `{prefix}{absent}`");
            let remedy = match all.is_empty() {
                true => "try another prefix".to_owned(),
                false => format!("its networks stand under these prefixes: {}", quoted(&all)),
            };
            return Err(Error::missing(path.display().to_string(), what, remedy));
        }
        let others = all.into_iter().filter(|p| *p != prefix).collect();
        Ok(StateDict { path: path.to_owned(), prefix, source, shapes, others })
    }

    /// Names of its tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shapes.keys().map(String::as_str)
    }

    /// Which network of several it is, if it is one of several.
    pub fn note(&self) -> Option<String> {
        if self.others.is_empty() {
            return None;
        }
        let (own, others) = (&self.prefix, quoted(&self.others));
        Some(format!("the network under `{own}` is taken; others are under {others}"))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(name).map(Vec::as_slice)
    }

    /// That the network's tensors are those expected, and no others of a layer:
    /// every mismatch is listed.
    pub fn check(
        &self,
        network: &str,
        expected: &[(String, Vec<usize>)],
        is_of_layer: fn(&str) -> bool,
    ) -> Result<()> {
        let mut problems = Vec::new();
        let mut rest = self.shapes.clone();
        for (name, shape) in expected {
            match rest.remove(name) {
                None => problems.push(format!("`{name}` {shape:?} is missing")),
                Some(got) if got != *shape => {
                    problems.push(format!("`{name}` has shape {got:?}, expected {shape:?}"));
                }
                Some(_) => {}
            }
        }
        let rest = rest.into_keys().filter(|name| is_of_layer(name));
        problems.extend(rest.map(|name| format!("`{name}` is unexpected")));
        if problems.is_empty() {
            let names: Vec<String> = expected.iter().map(|(name, _)| self.full(name)).collect();
            return match &self.source {
                Source::Torch(file) => file.check_size(names.iter().map(String::as_str)),
                // Its reader has compared sizes with the file's length.
                Source::Safetensors(_) => Ok(()),
            };
        }
        let problem = format!("not the weights of a {network}: {}", problems.join("; "));
        Err(Error::format(&self.path, problem))
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A tensor's values in single precision.
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        let full = self.full(name);
        match &self.source {
            Source::Safetensors(file) => file.f32(&full, file.shape(&full)?),
            Source::Torch(file) => file.values(&full),
        }
    }
}

/// What stands before the anchors, of every network.
fn prefixes(shapes: &BTreeMap<String, Vec<usize>>, anchors: &[&str]) -> Vec<String> {
    let prefixes = shapes.keys().filter_map(|name| name.strip_suffix(anchors[0]));
    let whole = |p: &&str| anchors.iter().all(|a| shapes.contains_key(&format!("{p}{a}")));
    prefixes.filter(whole).map(str::to_owned).collect()
}

/// The prefix of the network that is wanted.
fn find_prefix(
    path: &Path,
    shapes: &BTreeMap<String, Vec<usize>>,
    found: Vec<String>,
    anchors: &[&str],
) -> Result<String> {
    likeliest(path, found)?.ok_or_else(|| {
        let names: Vec<String> = shapes.keys().cloned().collect();
        let wanted = anchors.iter().map(|a| format!("`{a}`")).collect::<Vec<_>>().join(", ");
        let remedy = format!(
            "ResNets are read from their weights, with whatever stands before these names; \
             export other networks as ONNX (docs/images.md). It holds: {}",
            if names.is_empty() { "no tensor at all".into() } else { quoted(&names) }
        );
        Error::missing(path.display().to_string(), wanted, remedy)
    })
}
