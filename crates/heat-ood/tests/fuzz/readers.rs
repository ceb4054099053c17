//! What is done with the bytes of an untrusted file: one function per reader.
//! Each reads everything there is, and works with it as the program would.

use std::fs;
use std::path::{Path, PathBuf};

use heat_ood::calibrate::Ties;
use heat_ood::ebm::{HeatConfig, PriorKind, Proposal, checkpoint, torch};
use heat_ood::features::{FeatureSet, Field, Head, InMemory, OpenOptions, Pooling, gram_rows};
use heat_ood::io::TensorFile;
use heat_ood::recipe::{Grid, Recipe};
use heat_ood::scorers::ScorerSpec;
use heat_ood::{Detector, Result, Silent, TrainingData};
use ndarray::Array2;

/// Feature dimension of the seeds, and of the rows given to what was read.
pub const D: usize = 6;
/// Classes of the seeds.
pub const C: usize = 3;
/// Rows of the training set of the seeds.
pub const N: usize = 24;

/// A reader: a directory to work in, used again and again, and the input.
pub type Reader = fn(&Path, &[u8]);

/// Every reader, by the name of its fuzz target.
pub const READERS: &[(&str, Reader)] = &[
    ("features_safetensors", features_safetensors),
    ("features_npy", features_npy),
    ("features_npz", features_npz),
    ("features_memmap", features_memmap),
    ("detector", detector),
    ("checkpoint", resume),
    ("recipe", recipe),
    ("torch", torch_checkpoint),
];

pub fn file(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, bytes).expect("the directory can be written");
    path
}

/// A few training rows, always the same.
pub fn train() -> FeatureSet {
    let value = |i: usize| ((i * i * 31 + i * 7) % 97) as f32 / 97.0 + (i % C) as f32;
    let values: Vec<f32> = (0..N * D).map(value).collect();
    let labels: Vec<u32> = (0..N as u32).map(|i| i % C as u32).collect();
    let matrix = |values: Vec<f32>| {
        Array2::from_shape_vec((N, values.len() / N), values).expect("a row for each")
    };
    // Rows as maps of two cells.
    let gram = values.chunks_exact(D).flat_map(|row| gram_rows(row, D / 2)).collect();
    let set = FeatureSet::in_memory("memory").field(Field::Gram, matrix(gram));
    let set = set.field(Field::Rankfeat, matrix(values.iter().map(|v| 0.5 * v).collect()));
    let of_view = |set: InMemory, name, by: f32| {
        let field = Field::named(name).expect("a view's field");
        set.field(field, matrix(values.iter().map(|v| by * v).collect()))
    };
    let set = of_view(of_view(set, "nudged5.avg", 0.9), "noise8x256.avg", 0.99);
    let set = of_view(set, "dropout30.spread", 0.01);
    set.avg(matrix(values)).labels(labels).build().expect("a sound set")
}

/// A head for them.
pub fn head() -> Head {
    let weight = (0..C * D).map(|i| (i * 5 % 11) as f32 - 5.0).collect();
    Head::new(weight, vec![0.5, -0.25, 0.0]).expect("a sound head")
}

/// Settings of the checkpoints among the seeds.
pub fn training(kind: usize) -> HeatConfig {
    let mut config = HeatConfig { batch_size: 8, n_epochs: 2, accum_iter: 2, ..Default::default() };
    let model = &mut config.ebm.model;
    (model.hidden_dim, model.n_hidden_layers, model.steps) = (8, 2, 2);
    if kind == 1 {
        (model.use_pcd, model.use_spectral_norm, model.buffer_size) = (true, true, 16);
        (model.tied, model.base_dist.use_simplified_mahalanobis_score) = (false, true);
    }
    if kind == 2 {
        (config.use_pca, config.pca_n_principal_components) = (true, 4);
        model.base_dist.use_react = true;
    }
    if kind == 3 {
        (model.reduce_width, model.proposal_type) = (true, Proposal::Data);
        (config.ebm.prior, config.normalize) = (PriorKind::El, false);
    }
    if kind == 4 {
        (model.base_dist.principal_dim, model.proposal_type) = (Some(2), Proposal::Data);
        config.ebm.prior = PriorKind::Vim;
    }
    if kind == 5 {
        (model.base_dist.k, model.proposal_type) = (Some(3), Proposal::Data);
        config.ebm.prior = PriorKind::Knn;
    }
    config
}

/// Everything that a feature set holds.
fn read_all(set: &FeatureSet) -> Result<()> {
    const ROWS: usize = 256;
    let _ = (set.digests(), set.proportion(), set.classes());
    let pooled = [Pooling::Avg, Pooling::Std, Pooling::Max].map(Field::Features);
    for field in pooled.into_iter().chain([Field::Logits]) {
        let Some(dim) = set.dim(field) else { continue };
        let mut out = vec![0.0; ROWS.min(set.len()) * dim];
        for start in (0..set.len()).step_by(ROWS) {
            let range = start..set.len().min(start + ROWS);
            let out = &mut out[..range.len() * dim];
            let _ = set.read(field, range.clone(), out);
            let _ = set.read_parallel(field, range, out);
        }
        let last = set.len() as u32 - 1;
        let _ = set.gather(field, &[last, 0], &mut vec![0.0; 2 * dim]);
    }
    let view = set.select(vec![set.len() as u32 - 1, 0], None)?;
    view.labels(0..2, 1 << 20)?;
    set.select(vec![0], Some(vec![0, 2]))?;
    Ok(())
}

/// Some rows with every field a scorer may ask for.
fn probe() -> FeatureSet {
    let entry = |name: &'static str, dim: usize| {
        let value = |i: usize| ((i * 13 + name.len()) % 7) as f32 / 3.0;
        let bytes: Vec<u8> = (0..3 * dim).flat_map(|i| value(i).to_le_bytes()).collect();
        (name, dim, bytes)
    };
    let all = [entry("avg", D), entry("std", D), entry("max", D), entry("logits", C)];
    let views = all.iter().map(|(name, dim, bytes)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![3, *dim], bytes);
        (*name, view.expect("3 rows"))
    });
    let bytes = safetensors::serialize(views, None).expect("sound tensors");
    FeatureSet::from_safetensors("probe", bytes).expect("a sound set")
}

fn features_safetensors(directory: &Path, bytes: &[u8]) {
    let path = file(directory, "x.safetensors", bytes);
    let _ = FeatureSet::open(&path).and_then(|set| read_all(&set));
    let _ = train().with_labels(&path).and_then(|set| read_all(&set));
    use_head(&path);
}

fn use_head(path: &Path) {
    let Ok(head) = Head::open(path) else { return };
    let _ = train().check_head(&head);
    let rows = vec![0.5; 2 * head.dim()];
    head.logits(&rows, &mut vec![0.0; 2 * head.classes()], &mut Default::default());
    let _ = (head.select(&[0, 1]), head.digest());
}

fn features_npy(directory: &Path, bytes: &[u8]) {
    let path = file(directory, "avg.npy", bytes);
    let _ = FeatureSet::open(&path).and_then(|set| read_all(&set));
    let options = OpenOptions { dim: Some(D), ..OpenOptions::default() };
    let _ = FeatureSet::open_with(directory, &options).and_then(|set| read_all(&set));
    let _ = train().with_labels(&path).and_then(|set| read_all(&set));
}

/// Bytes of an `.npy` file become an archive of it, compressed.
fn features_npz(directory: &Path, bytes: &[u8]) {
    let packed;
    let whole = if bytes.starts_with(b"\x93NUMPY") {
        packed = super::seeds::npz(&["avg", "label", "weight"].map(|n| (n, bytes)), true);
        &packed[..]
    } else {
        bytes
    };
    let path = file(directory, "x.npz", whole);
    let _ = FeatureSet::open(&path).and_then(|set| read_all(&set));
    let _ = train().with_labels(&path).and_then(|set| read_all(&set));
    use_head(&path);
}

/// The input: which files there are, D, the bytes of labels and deviations
/// (in eights), then those files and the features.
fn features_memmap(directory: &Path, bytes: &[u8]) {
    let Some(([flags, dim, labels, deviations], rest)) = bytes.split_first_chunk() else { return };
    let (labels, rest) = rest.split_at(rest.len().min(8 * usize::from(*labels)));
    let (deviations, features) = rest.split_at(rest.len().min(8 * usize::from(*deviations)));
    file(directory, "feat.mmap", features);
    for (flag, name, bytes) in [(1, "label.mmap", labels), (2, "std.mmap", deviations)] {
        match flags & flag {
            0 => drop(fs::remove_file(directory.join(name))),
            _ => drop(file(directory, name, bytes)),
        }
    }
    let dim = Some(usize::from(*dim));
    let options = OpenOptions {
        dim: dim.filter(|_| flags & 4 != 0),
        fallback_dim: dim.filter(|_| flags & 8 != 0),
        ..OpenOptions::default()
    };
    let _ = FeatureSet::open_with(directory, &options).and_then(|set| read_all(&set));
    if flags & 1 != 0 {
        let labels = directory.join("label.mmap");
        let _ = train().with_labels(labels).and_then(|set| read_all(&set));
    }
}

fn detector(directory: &Path, bytes: &[u8]) {
    let path = file(directory, "x.safetensors", bytes);
    let Ok(file) = TensorFile::open(&path) else { return };
    let _ = (file.list(), torch::network(&file).map(|net| net.applied().to_vec()));
    let Ok(detector) = Detector::from_file(&file) else { return };
    for set in [probe(), train()] {
        let _ = detector.score(&set);
        let _ = detector.scorer().score_components(&set);
        let _ = detector.predict(&set, Ties::Randomized { seed: 1, first: 0 }, &mut Silent);
    }
    let _ = (detector.scorer().section(), detector.verify());
}

/// Go on from a checkpoint to the end of the run.
fn resume(directory: &Path, bytes: &[u8]) {
    let path = file(directory, "x.safetensors", bytes);
    let Ok(file) = TensorFile::open(&path) else { return };
    let _ = (checkpoint::read_state(&file), checkpoint::read_config(&file));
    let _ = Detector::from_file(&file).and_then(|d| d.score(&probe()));
    let train = train();
    for kind in 0..4 {
        let Ok(mut trainer) = checkpoint::resume(&path, &training(kind), &train, "d") else {
            continue;
        };
        let _ = trainer.run(&mut Silent);
    }
}

/// TOML, a line of three dashes, then one argument a line.
fn recipe(directory: &Path, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (toml, arguments) = text.split_once("\n---\n").unwrap_or((&text, ""));
    let arguments: Vec<&str> = arguments.lines().take(64).collect();
    let group = directory.join("ebm");
    fs::create_dir_all(&group).expect("the directory can be written");
    file(&group, "mine.toml", toml.as_bytes());
    let resolved = [
        Recipe::parse(toml),
        Recipe::resolve_onto(toml, &arguments, None),
        Recipe::resolve(&["ebm=mine"], Some(directory)),
    ];
    for recipe in resolved.into_iter().flatten() {
        let text = recipe.to_toml();
        let again = Recipe::parse(&text).expect("a resolved recipe can be read");
        assert_eq!(again.to_toml(), text, "a resolved recipe reads back as itself");
    }
    let _ = Grid::parse(&arguments);
    for argument in arguments.iter().take(4) {
        let _ = ScorerSpec::parse(argument)
            .and_then(|s| s.fit(&TrainingData::new(&train()), &mut Silent));
    }
}

fn torch_checkpoint(directory: &Path, bytes: &[u8]) {
    let path = file(directory, "x.pt", bytes);
    for tied in [None, Some(true), Some(false)] {
        let options = torch::ReadOptions { tied, prefix: tied.map(|_| String::new()) };
        let _ = torch::read(&path, &options).map(|net| net.tensors());
    }
}
