//! Feature sets of surrogates: what is written, what a later run takes over, which images are left
//! out, what is refused.

use crate::common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::bytes::contains;
use common::runtime;
use heat_images::backbone::{Backbone, BackboneOptions, ExtractConfig, extract};
use heat_images::surrogates::{ExtractedSurrogates, Kind, SurrogateConfig, extract_surrogates};
use heat_images::{ImageOptions, MixedClasses, Resize, TransformConfig, open};
use heat_ood::features::{ConvertConfig, FeatureSet, Field, FloatType, HEAD, Pooling, convert};
use heat_ood::math::parallel::with_threads;
use heat_ood::{Event, Observer, Result, Silent};

/// Keeps what is said, and stops after so many steps.
struct Watch {
    steps: usize,
    said: Vec<String>,
}

impl Observer for Watch {
    fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Advance { .. } => self.steps = self.steps.saturating_sub(1),
            Event::Note(text) => self.said.push(text.to_owned()),
            _ => {}
        }
    }

    fn should_stop(&self) -> bool {
        self.steps == 0
    }
}

fn onnx(name: &str) -> PathBuf {
    common::path("onnx").join(name).with_extension("onnx")
}

/// Twenty images of two classes, by a network for 8×8.
struct Place {
    directory: tempfile::TempDir,
    extraction: ExtractConfig,
    config: SurrogateConfig,
    network: PathBuf,
    /// Within the directory.
    images: &'static str,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // As ImageNet's: an image of the crop's size would be resized and cropped again.
        let transform = TransformConfig {
            resize: Some(Resize::Short(10)),
            crop: Some(8),
            ..TransformConfig::imagenet()
        };
        let extraction = ExtractConfig {
            transform,
            batch_size: 2,
            shard_rows: 8,
            dtype: FloatType::F32,
            ..ExtractConfig::default()
        };
        let config = SurrogateConfig { rows: 30, seed: 1, ..SurrogateConfig::default() };
        let place =
            Place { directory, extraction, config, network: onnx("plain"), images: "images" };
        let whole = fs::read(common::path("images/rgb.bmp")).unwrap();
        for i in 0..20u8 {
            let class = place.path("images").join(if i < 8 { "a" } else { "b" });
            fs::create_dir_all(&class).unwrap();
            let mut bmp = whole.clone();
            bmp[54..].iter_mut().for_each(|v| *v = v.wrapping_mul(2 * i + 1).wrapping_add(i));
            fs::write(class.join(format!("{i:02}.bmp")), bmp).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn network(&self) -> Backbone {
        Backbone::open(&self.network, &BackboneOptions::default()).unwrap()
    }

    fn stopped(&self, out: &str, steps: usize) -> (Result<ExtractedSurrogates>, String) {
        let set = open(self.path(self.images), &ImageOptions::default()).unwrap();
        let mut watch = Watch { steps, said: Vec::new() };
        let (network, out) = (self.network(), self.path(out));
        let done =
            extract_surrogates(&*set, &network, &out, &self.extraction, &self.config, &mut watch);
        (done, watch.said.join("\n"))
    }

    fn run(&self, out: &str) -> ExtractedSurrogates {
        self.stopped(out, usize::MAX).0.unwrap()
    }

    fn refused(&self, out: &str) -> String {
        self.stopped(out, usize::MAX).0.unwrap_err().to_string()
    }

    /// Plain features of the images.
    fn plain(&self, out: &str) -> FeatureSet {
        let set = open(self.path(self.images), &ImageOptions::default()).unwrap();
        let (network, path) = (self.network(), self.path(out));
        extract(&*set, &network, &path, &self.extraction, &mut Silent).unwrap();
        FeatureSet::open(path).unwrap()
    }
}

/// All files below a directory but for the records of files' times.
fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(tree(&path));
        } else if !path.file_name().unwrap().to_string_lossy().starts_with("inputs-") {
            all.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    all
}

fn same_files(a: &Path, b: &Path, when: &str) {
    let relative = |root: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        let files = tree(root).into_iter();
        files.map(|(path, bytes)| (path.strip_prefix(root).unwrap().to_owned(), bytes)).collect()
    };
    let (a, b) = (relative(a), relative(b));
    assert!(a.keys().eq(b.keys()), "{when}: {:?} {:?}", a.keys(), b.keys());
    for (name, bytes) in &a {
        assert!(*bytes == b[name], "{} {when}", name.display());
    }
}

fn json(file: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

#[test]
fn sets_of_all_kinds_are_written_and_resumed() {
    if !runtime("sets_of_all_kinds_are_written_and_resumed") {
        return;
    }
    let mut place = Place::new();
    place.config.preview = Some(place.path("sheet.png"));
    let done = place.run("out");
    assert_eq!((done.id.rows, done.of.used, done.of.classes), (20, 20, MixedClasses::Labels));
    assert!(place.path("sheet.png").is_file());
    let id = FeatureSet::open(place.path("out/id")).unwrap();
    // The images themselves, as an extraction without surrogates writes them.
    place.plain("plain");
    same_files(&place.path("out/id"), &place.path("plain"), "as they are");
    assert!(id.labelled());
    for (kind, extracted) in &done.kinds {
        let set = FeatureSet::open(place.path("out").join(kind.name())).unwrap();
        let rows = if ["blur", "invert", "edges"].contains(&kind.name()) { 20 } else { 30 };
        assert_eq!((set.len(), extracted.rows, set.labelled()), (rows, rows, false), "{kind:?}");
        assert_eq!(set.origin(), id.origin(), "{kind:?}");
        contains(&set.names().unwrap().get(3), &[kind.name(), "/00003/", ".bmp"]);
        let made = &json(&place.path("out").join(kind.name()).join("extract.json"))["made"];
        assert_eq!((&made["kind"], &made["seed"]), (&kind.name().into(), &1.into()));
        assert_eq!(made["of"]["used"], 20);
        assert!(place.path("out").join(kind.name()).join(HEAD).is_file());
    }
    let record = json(&place.path("out/surrogates.json"));
    assert_eq!(record["kinds"].as_array().unwrap().len(), 14);
    assert_eq!((&record["rows"], &record["of"]["classes"]), (&30.into(), &"labels".into()));
    // Inverted twice over the network's own transform: a surrogate is what the network gets.
    let inverted = FeatureSet::open(place.path("out/invert")).unwrap();
    let differ = |a: &FeatureSet, b: &FeatureSet| {
        let row = |set: &FeatureSet| {
            let mut row = vec![0.0; set.dim(Field::Features(Pooling::Avg)).unwrap()];
            set.read(Field::Features(Pooling::Avg), 0..1, &mut row).unwrap();
            row
        };
        row(a) != row(b)
    };
    assert!(differ(&inverted, &id));
    // Once more: nothing is done.
    let again = place.run("out");
    assert_eq!(again.id.resumed, 20);
    assert!(again.kinds.iter().all(|(_, done)| done.resumed == done.rows));
    // On other threads, and stopped again and again: the same bytes.
    with_threads(3, || place.run("threads")).unwrap();
    same_files(&place.path("out"), &place.path("threads"), "on three threads");
    let (mut steps, mut stops) = (1, 0);
    while place.stopped("stopped", steps).0.is_err() {
        (steps, stops) = (steps + 7, stops + 1);
    }
    assert!(stops > 10, "{stops}");
    same_files(&place.path("out"), &place.path("stopped"), "after interruptions");
    // Some kinds first, others later.
    place.config.kinds = vec![Kind::Blur];
    place.run("added");
    assert_eq!(json(&place.path("added/surrogates.json"))["kinds"], serde_json::json!(["blur"]));
    place.config.kinds = vec![Kind::Pink];
    place.run("added");
    same_files(&place.path("out/pink"), &place.path("added/pink"), "made alone");
    let kinds = json(&place.path("added/surrogates.json"))["kinds"].clone();
    assert_eq!(kinds, serde_json::json!(["blur", "pink"]));
}

#[test]
fn images_of_excluded_sets_are_left_out() {
    if !runtime("images_of_excluded_sets_are_left_out") {
        return;
    }
    let mut place = Place::new();
    place.config.kinds = vec![Kind::Mixup, Kind::Noise];
    let plain = place.plain("plain");
    // Rows 4 to 9 as they are, 15 in half precision without an origin.
    let six = plain.select((4..10).collect(), None).unwrap();
    let one = plain.select(vec![15], None).unwrap();
    let half = ConvertConfig { dtype: Some(FloatType::F16), ..ConvertConfig::default() };
    let npy = ConvertConfig { fields: Some(vec!["avg".into()]), ..ConvertConfig::default() };
    convert(&six, None, &place.path("six"), &half, &mut Silent).unwrap();
    convert(&one, None, &place.path("one.npy"), &npy, &mut Silent).unwrap();
    let root = place.directory.path().to_owned();
    let open_set = |name: &str| FeatureSet::open(root.join(name)).unwrap();
    place.config.exclude = vec![open_set("six"), open_set("one.npy")];
    let done = place.run("out");
    let left_out: Vec<usize> = done.of.excluded.iter().map(|e| e.left_out).collect();
    assert_eq!((done.of.images, done.of.used, &left_out[..]), (20, 13, &[6, 1][..]));
    let id = open_set("out/id");
    let kept: Vec<usize> = (0..20).filter(|i| !(4..10).contains(i) && *i != 15).collect();
    let names: Vec<String> = (0..13).map(|i| id.names().unwrap().get(i).into_owned()).collect();
    let want: Vec<String> =
        kept.iter().map(|i| format!("{}/{i:02}.bmp", if *i < 8 { "a" } else { "b" })).collect();
    assert_eq!(names, want);
    let all_names = plain.names().unwrap();
    let noise = open_set("out/noise");
    for row in 0..30 {
        let name = noise.names().unwrap().get(row).into_owned();
        let source = name.splitn(3, '/').nth(2).unwrap();
        assert!(want.iter().any(|kept| kept == source), "{name}");
    }
    assert_eq!(all_names.get(4), "a/04.bmp");
    // Their rows are those of the extraction, with labels and head.
    let mut rows = [vec![0.0; 13 * 6], vec![0.0; 20 * 6]];
    let avg = Field::Features(Pooling::Avg);
    id.read(avg, 0..13, &mut rows[0]).unwrap();
    plain.read(avg, 0..20, &mut rows[1]).unwrap();
    for (row, i) in rows[0].chunks(6).zip(&kept) {
        assert_eq!(row, &rows[1][i * 6..][..6]);
    }
    assert!(id.labelled() && place.path("out/id").join(HEAD).is_file());
    assert_eq!(id.origin(), plain.origin());
    let manifest = json(&place.path("out/id/extract.json"));
    assert_eq!(manifest["made"]["of"]["used"], 13);
    let before = tree(&place.path("out"));
    place.run("out");
    assert!(before == tree(&place.path("out")), "given again");
    // A damaged set is made again.
    fs::write(place.path("out/id/shard-00000.safetensors"), "x").unwrap();
    place.run("out");
    assert!(before == tree(&place.path("out")), "mended");
    // Others are another directory's.
    place.config.exclude.pop();
    contains(&place.refused("out"), &["`output`", "leaving out", "one.npy", "another name"]);
    // All of them.
    place.config.exclude = vec![plain];
    contains(&place.refused("none"), &["no image left to make surrogates of", "fewer sets"]);
    // That has made nothing, and can be mended.
    place.config.exclude = vec![open_set("six")];
    assert_eq!(place.run("none").of.used, 14);
    // Of another network, and without what is compared.
    place.network = onnx("matmul");
    contains(&place.refused("foreign"), &["network plain.onnx", "not matmul.onnx"]);
    assert!(!place.path("foreign").exists());
}

#[test]
fn classes_are_predicted_where_there_are_no_labels() {
    if !runtime("classes_are_predicted_where_there_are_no_labels") {
        return;
    }
    let mut place = Place::new();
    // Without directories of classes.
    fs::create_dir(place.path("flat")).unwrap();
    for class in ["a", "b"] {
        for entry in fs::read_dir(place.path("images").join(class)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, place.path("flat").join(path.file_name().unwrap())).unwrap();
        }
    }
    place.images = "flat";
    place.config.kinds = vec![Kind::Mixup];
    // This network calls all of them the same.
    let (done, said) = place.stopped("one", usize::MAX);
    assert_eq!(done.unwrap().of.classes, MixedClasses::None);
    contains(&said, &["mixup mix any two images", "nor the network"]);
    // Its head less the mean of its logits does not.
    let one = FeatureSet::open(place.path("one/id")).unwrap();
    let mut logits = vec![0.0; 20 * 4];
    one.read(Field::Logits, 0..20, &mut logits).unwrap();
    let mean = |c: usize| logits.iter().skip(c).step_by(4).sum::<f32>() / 20.0;
    let network = place.network();
    let bias = network.head().unwrap().bias();
    let bytes = |values: Vec<f32>| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let (old, new) =
        (bytes(bias.to_vec()), bytes(bias.iter().enumerate().map(|(c, b)| b - mean(c)).collect()));
    let mut model = fs::read(network.path()).unwrap();
    let at = model.windows(16).position(|window| window == old).unwrap();
    model[at..at + 16].copy_from_slice(&new);
    fs::write(place.path("centred.onnx"), model).unwrap();
    place.network = place.path("centred.onnx");
    let (done, said) = place.stopped("out", usize::MAX);
    assert_eq!(done.unwrap().of.classes, MixedClasses::Predicted);
    contains(&said, &["mixup mix images of different predicted classes"]);
    let id = FeatureSet::open(place.path("out/id")).unwrap();
    let mut logits = vec![0.0; 20 * 4];
    id.read(Field::Logits, 0..20, &mut logits).unwrap();
    let names = id.names().unwrap();
    let class: BTreeMap<String, usize> = (0..20)
        .map(|i| {
            let row = &logits[i * 4..][..4];
            let largest = (0..4).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
            (names.get(i).into_owned(), largest)
        })
        .collect();
    let mixed = FeatureSet::open(place.path("out/mixup")).unwrap();
    for i in 0..mixed.len() {
        let name = mixed.names().unwrap().get(i).into_owned();
        let (a, b) = name.splitn(3, '/').nth(2).unwrap().split_once(" + ").unwrap();
        assert_ne!(class[a], class[b], "{name}");
    }
}

#[test]
fn images_that_cannot_be_read_are_no_sources() {
    if !runtime("images_that_cannot_be_read_are_no_sources") {
        return;
    }
    let mut place = Place::new();
    fs::write(place.path("images/a/00.bmp"), "x").unwrap();
    fs::write(place.path("images/b/10.bmp"), "x").unwrap();
    place.config.kinds = vec![Kind::Noise];
    contains(&place.refused("out"), &["00.bmp"]);
    place.extraction.skip_unreadable = true;
    let done = place.run("out");
    assert_eq!((done.id.unreadable.len(), done.of.used, done.kinds[0].1.rows), (2, 18, 30));
    let noise = FeatureSet::open(place.path("out/noise")).unwrap();
    let names: Vec<_> = (0..30).map(|i| noise.names().unwrap().get(i).into_owned()).collect();
    assert!(names.iter().all(|name| !name.contains("00.bmp") && !name.contains("10.bmp")));
}

#[test]
fn what_does_not_fit_is_refused() {
    if !runtime("what_does_not_fit_is_refused") {
        return;
    }
    let mut place = Place::new();
    place.config.kinds = vec![Kind::Blur];
    place.run("out");
    let refused = |change: &dyn Fn(&mut Place), parts: &[&str]| {
        let mut other = Place::new();
        other.config.kinds = vec![Kind::Blur];
        change(&mut other);
        // The same images under the same name.
        fs::remove_dir_all(other.path("images")).unwrap();
        let Place { extraction, config, network, .. } = &other;
        let changed = Place {
            directory: tempfile::tempdir().unwrap(),
            extraction: extraction.clone(),
            config: config.clone(),
            network: network.clone(),
            images: "images",
        };
        let set = open(place.path("images"), &ImageOptions::default()).unwrap();
        let (network, out) = (changed.network(), place.path("out"));
        let error =
            extract_surrogates(&*set, &network, &out, extraction, config, &mut Silent).unwrap_err();
        contains(&error.to_string(), parts);
    };
    refused(&|p| p.network = onnx("matmul"), &["`output`", "by another network, plain.onnx"]);
    refused(&|p| p.config.seed = 2, &["with seed 1", "another name"]);
    refused(&|p| p.config.rows = 31, &["of 30 rows a kind"]);
    refused(&|p| p.extraction.transform.crop = None, &["with another transform"]);
    refused(&|p| p.config.rows = 0, &["`rows` = 0", "1 to 16777216"]);
    refused(&|p| p.config.kinds.clear(), &["`surrogates`", "no kind"]);
    // A directory that holds something else.
    fs::create_dir(place.path("mine")).unwrap();
    fs::write(place.path("mine/notes.txt"), "x").unwrap();
    contains(&place.refused("mine"), &["holds `notes.txt`", "a directory of its own"]);
    fs::write(place.path("file"), "x").unwrap();
    contains(&place.refused("file"), &["is a file"]);
    // One image alone.
    fs::create_dir_all(place.path("single")).unwrap();
    fs::copy(place.path("images/a/03.bmp"), place.path("single/03.bmp")).unwrap();
    place.images = "single";
    place.config.kinds = vec![Kind::Cutmix];
    contains(&place.refused("alone"), &["`surrogates` = cutmix", "mixes two images"]);
    // Smaller than the patches: before anything is written.
    place.config.kinds = vec![Kind::Jigsaw8];
    place.extraction.transform.crop = Some(7);
    contains(&place.refused("small"), &["03.bmp", "7×7", "`jigsaw8` needs 8 pixels"]);
    assert!(!place.path("small").exists());
}
