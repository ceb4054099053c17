//! What a fit writes can be opened, whatever its settings: every number of every scorer set to
//! values that nobody meant.

use heat_ood::ebm::HeatConfig;
use heat_ood::features::{FeatureSet, Field, Head};
use heat_ood::io::set_memory_limit;
use heat_ood::math::rng::{Purpose, Stream};
use heat_ood::scorers::{Scorer, ScorerSpec, catalogue};
use heat_ood::{Detector, Fit, Fitted, Silent, TrainingData};
use ndarray::Array2;

const DIM: usize = 24;

/// Integers are given as such, since a float is none.
const VALUES: [&str; 13] = [
    "nan",
    "inf",
    "-inf",
    "-1",
    "-1.0",
    "0",
    "0.0",
    "1e300",
    "-1e300",
    "1e-300",
    "5e-324",
    "9223372036854775807",
    "1000000",
];

fn set(rows: usize, seed: u64) -> FeatureSet {
    let mut values = vec![0.0; rows * DIM];
    Stream::new(seed, Purpose::User, 0, 0).fill_normal(&mut values);
    let value = |(i, j): (usize, usize)| {
        (values[i * DIM + j] + if i % 3 == j % 3 { 2.0 } else { 0.0 }).abs()
    };
    let avg = Array2::from_shape_fn((rows, DIM), value);
    let labels = (0..rows).map(|i| (i % 3) as u32);
    let field = |name| Field::named(name).unwrap();
    let set = FeatureSet::in_memory("made up").field(field("nudged5.avg"), avg.mapv(|v| 0.9 * v));
    let set = set.field(field("noise8x256.avg"), avg.mapv(|v| v - 0.01 * v * v));
    let set = set.field(field("dropout30.spread"), avg.mapv(|v| 0.1 * v));
    set.avg(avg.clone()).std(avg).labels(labels).build().unwrap()
}

fn head() -> Head {
    let weight = (0..3 * DIM).map(|i| ((i * 7) % 5) as f32 - 2.0).collect();
    Head::new(weight, vec![0.1, 0.2, 0.3]).unwrap()
}

/// The scores of a set, or the error, before and after a file.
fn the_same_when_opened(
    what: &str,
    scorer: Fitted<dyn Scorer>,
    test: &FeatureSet,
) -> Result<(), String> {
    // In memory, where the system has that: thousands of files are flushed.
    let memory = std::path::Path::new("/dev/shm");
    let directory = match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    };
    let path = directory.path().join("d.safetensors");
    let before = scorer.score(test).map_err(|e| e.to_string());
    let detector = Detector::new(scorer);
    detector.save(&path).map_err(|e| format!("{what} was fitted, but not written: {e}"))?;
    let opened = Detector::open(&path).map_err(|e| format!("{what}: not opened: {e}"))?;
    let bits = |s: Vec<f32>| s.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let after = opened.score(test).map_err(|e| e.to_string());
    if after.map(bits) != before.map(bits) {
        return Err(format!("{what}: other scores"));
    }
    opened.verify().map_err(|e| format!("{what}: {e}")).map(drop)
}

#[test]
fn what_is_fitted_can_be_opened() {
    set_memory_limit(1 << 30);
    let (train, test, head) = (set(60, 1), set(20, 2), head());
    let data = TrainingData::new(&train).with_head(&head);
    let (mut fitted, mut refused, mut wrong) = (0, 0, Vec::new());
    for scorer in catalogue() {
        for (key, _) in &scorer.settings {
            for value in VALUES {
                // The default numbers of projections and Fourier features take their time.
                // And there are fewer rows than neighbours.
                let own = [
                    ("weiper", "repeats=8,"),
                    ("kpca", "kernel=corp,features=64,"),
                    ("dknn", "k=5,"),
                ];
                let own = own.into_iter().find(|(name, keys)| {
                    let goes_with = ["gamma", "features", "seed"].contains(&&**key);
                    *name == scorer.name
                        && !keys.contains(&format!("{key}="))
                        && (*name != "kpca" || goes_with)
                });
                let own = own.map_or("", |(_, keys)| keys);
                let mut text = format!("{}({own}{key}={value})", scorer.name);
                if scorer.name == "kpca" && key == "features" {
                    text = format!("kpca(kernel=corp,features={value})");
                }
                let scorer = ScorerSpec::parse(&text).and_then(|s| s.fit(&data, &mut Silent));
                match scorer {
                    Ok(scorer) => {
                        wrong.extend(the_same_when_opened(&text, scorer, &test).err());
                        fitted += 1;
                    }
                    Err(error) => {
                        let error = error.to_string();
                        let named =
                            error.contains(key.as_str()) || error.contains(scorer_of(&text));
                        wrong.extend((!named).then(|| format!("{text}: {error}")));
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(fitted > 200 && refused > 500, "{fitted} fitted, {refused} refused");
}

fn scorer_of(text: &str) -> &str {
    text.split('(').next().unwrap()
}

/// The same of the energy model's numbers, which come as settings of a recipe do.
#[test]
fn what_is_trained_can_be_opened() {
    let (train, test, head) = (set(60, 1), set(20, 2), head());
    let data = TrainingData::new(&train).with_head(&head);
    let mut small = HeatConfig { batch_size: 30, n_epochs: 1, ..HeatConfig::default() };
    let model = &mut small.ebm.model;
    (model.hidden_dim, model.n_hidden_layers, model.steps) = (8, 2, 2);
    let numbers = toml::Table::try_from(&small).unwrap();
    let mut keys = Vec::new();
    numbers_of(&numbers, "", &mut keys);
    assert!(keys.len() >= 20, "{keys:?}");
    for key in keys.iter().filter(|key| !["n_epochs", "ebm.model.steps"].contains(&&***key)) {
        for value in ["nan", "inf", "-1.0", "0.0", "1e300", "1e-300", "0", "-1", "1000000000000"] {
            let mut settings = numbers.clone();
            let known: toml::Table = toml::from_str(&format!("{key} = {value}")).unwrap();
            merge(&mut settings, known);
            let what = format!("heat({key}={value})");
            let Ok(config) = settings.try_into::<HeatConfig>() else { continue };
            if let Ok(scorer) = config.fit(&data, &mut Silent) {
                the_same_when_opened(&what, scorer.into(), &test).unwrap();
            }
        }
    }
}

fn numbers_of(table: &toml::Table, before: &str, out: &mut Vec<String>) {
    for (key, value) in table {
        let name = format!("{before}{key}");
        match value {
            toml::Value::Table(inner) => numbers_of(inner, &format!("{name}."), out),
            toml::Value::Float(_) | toml::Value::Integer(_) => out.push(name),
            _ => {}
        }
    }
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => merge(inner, value),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
