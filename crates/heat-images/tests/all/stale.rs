//! What an earlier extraction left is taken over where it holds, and nowhere else.

use crate::common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::bytes::contains;
use common::runtime;
use heat_images::backbone::{Backbone, BackboneOptions, ExtractConfig, Extracted, extract};
use heat_images::{ImageOptions, Resize, TransformConfig, open};
use heat_ood::features::{FeatureSet, FloatType};
use heat_ood::{Event, Observer, Result};

/// Stops after so many steps, and keeps what is said.
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

/// Twelve images of grey in three shards of four, written an hour ago.
struct Place {
    directory: tempfile::TempDir,
    config: ExtractConfig,
    network: &'static str,
}

const IMAGES: u8 = 12;

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let transform = TransformConfig {
            resize: Some(Resize::Exact([8, 8])),
            crop: None,
            ..TransformConfig::imagenet()
        };
        let config = ExtractConfig {
            transform,
            batch_size: 2,
            shard_rows: 4,
            dtype: FloatType::F32,
            ..ExtractConfig::default()
        };
        let place = Place { directory, config, network: "plain" };
        (0..IMAGES).for_each(|i| place.image(i, 10 * i));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, i: u8) -> PathBuf {
        self.path(&format!("images/{}/{i:02}.bmp", ["a", "b"][usize::from(i > 7)]))
    }

    /// All of the same size.
    fn image(&self, i: u8, grey: u8) {
        let file = self.file(i);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let mut bmp = fs::read(common::path("images/rgb.bmp")).unwrap();
        bmp[54..].fill(grey);
        fs::write(&file, bmp).unwrap();
        dated(&file, 3600);
    }

    fn stopped(&self, out: &str, steps: usize) -> (Result<Extracted>, String) {
        let set = open(self.path("images"), &ImageOptions::default()).unwrap();
        let network = common::path("onnx").join(self.network).with_extension("onnx");
        let network = Backbone::open(network, &BackboneOptions::default()).unwrap();
        let mut watch = Watch { steps, said: Vec::new() };
        let done = extract(&*set, &network, &self.path(out), &self.config, &mut watch);
        (done, watch.said.join("\n"))
    }

    /// Images that were taken over, and what was said.
    fn run(&self, out: &str) -> (usize, String) {
        let (done, said) = self.stopped(out, usize::MAX);
        (done.unwrap().resumed, said)
    }

    fn refused(&self, out: &str) -> String {
        self.stopped(out, usize::MAX).0.unwrap_err().to_string()
    }

    /// The features in `out` are those of an extraction that met nothing.
    fn assert_fresh(&self, out: &str, when: &str) {
        let fresh = tempfile::tempdir_in(self.directory.path()).unwrap();
        let name = fresh.path().join("fresh");
        let name = name.strip_prefix(self.directory.path()).unwrap().to_str().unwrap().to_owned();
        self.run(&name);
        let files = |name: &str| {
            let entries = fs::read_dir(self.path(name)).unwrap().map(|e| e.unwrap().path());
            let mut files: Vec<(String, Vec<u8>)> = entries
                .map(|p| {
                    (p.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(p).unwrap())
                })
                .filter(|(name, _)| !name.starts_with("inputs-"))
                .collect();
            files.sort();
            files
        };
        let (got, want) = (files(out), files(&name));
        let names = |f: &[(String, Vec<u8>)]| f.iter().map(|f| f.0.clone()).collect::<Vec<_>>();
        assert_eq!(names(&got), names(&want), "{when}");
        for ((name, got), (_, want)) in got.iter().zip(&want) {
            assert!(got == want, "{name} {when}");
        }
        FeatureSet::open(self.path(out)).unwrap();
    }
}

/// As if written so many seconds ago.
fn dated(file: &Path, seconds: u64) {
    let time = SystemTime::now() - Duration::from_secs(seconds);
    File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
}

#[test]
fn images_that_change_are_extracted_again_and_those_that_do_not_are_not() {
    if !runtime("images_that_change_are_extracted_again_and_those_that_do_not_are_not") {
        return;
    }
    let place = Place::new();
    assert_eq!(place.run("out").0, 0);
    assert_eq!(place.run("out"), (12, String::new()));
    // Touched, and written anew with the same bytes.
    dated(&place.file(3), 60);
    place.image(5, 50);
    assert_eq!(place.run("out"), (12, String::new()));
    // Replaced under the same name, with as many bytes, and the time that it had.
    let time = fs::metadata(place.file(6)).unwrap().modified().unwrap();
    place.image(6, 200);
    File::options().write(true).open(place.file(6)).unwrap().set_modified(time).unwrap();
    let (resumed, said) = place.run("out");
    assert_eq!(resumed, 8, "{said}");
    contains(&said, &["images have changed", "06.bmp", "1 shard extracted again"]);
    place.assert_fresh("out", "after a replaced image");
    assert_eq!(place.run("out").0, 12);
    // Just written: as it was is not believed, and as it is is looked at.
    fs::write(place.file(9), fs::read(place.file(2)).unwrap()).unwrap();
    assert_eq!(place.run("out").0, 8);
    fs::write(place.file(9), fs::read(place.file(4)).unwrap()).unwrap();
    assert_eq!(place.run("out").0, 8);
    assert_eq!(place.run("out").0, 12);
    place.assert_fresh("out", "after images that were just written");
    // One more, one less: the rows are others.
    fs::write(place.path("images/b/99.bmp"), fs::read(place.file(2)).unwrap()).unwrap();
    contains(&place.refused("out"), &["`output`", "of 12 images, and there are 13", "remove it"]);
    fs::remove_file(place.path("images/b/99.bmp")).unwrap();
    assert_eq!(place.run("out").0, 12);
    fs::rename(place.file(11), place.path("images/b/98.bmp")).unwrap();
    contains(&place.refused("out"), &["of images of other names, places or labels"]);
    fs::rename(place.path("images/b/98.bmp"), place.file(11)).unwrap();
    // It could be read, and cannot be now; then it can again.
    let whole = fs::read(place.file(0)).unwrap();
    fs::write(place.file(0), &whole[..60]).unwrap();
    contains(&place.refused("out"), &["00.bmp"]);
    assert_eq!(FeatureSet::open(place.path("out")).unwrap().len(), 12);
    fs::write(place.file(0), whole).unwrap();
    assert_eq!(place.run("out").0, 12);
}

#[test]
fn unreadable_images_that_are_repaired_are_extracted() {
    if !runtime("unreadable_images_that_are_repaired_are_extracted") {
        return;
    }
    let mut place = Place::new();
    place.config.skip_unreadable = true;
    let whole: Vec<Vec<u8>> = (4..8).map(|i| fs::read(place.file(i)).unwrap()).collect();
    // A whole shard.
    (4..8).for_each(|i| fs::write(place.file(i), "x").unwrap());
    let (done, _) = place.stopped("out", usize::MAX);
    assert_eq!(done.unwrap().rows, 8);
    assert!(!place.path("out/shard-00001.safetensors").exists());
    assert_eq!(place.run("out").0, 12);
    for i in [4, 5, 6] {
        fs::write(place.file(i), &whole[usize::from(i) - 4]).unwrap();
    }
    let (done, _) = place.stopped("out", usize::MAX);
    let done = done.unwrap();
    assert_eq!((done.rows, done.resumed, done.unreadable.len()), (11, 8, 1));
    place.assert_fresh("out", "after three were repaired");
    fs::write(place.file(7), &whole[3]).unwrap();
    assert_eq!(place.run("out").0, 8);
    assert!(!place.path("out/unreadable-00001.txt").exists());
    place.assert_fresh("out", "after all were repaired");
}

#[test]
fn outputs_are_verified() {
    if !runtime("outputs_are_verified") {
        return;
    }
    let place = Place::new();
    place.run("out");
    let file = |name: &str| place.path("out").join(name);
    let shard = file("shard-00001.safetensors");
    let bytes = fs::read(&shard).unwrap();
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 16;
        bytes
    };
    type Damage<'a> = Box<dyn Fn() + 'a>;
    let damages: Vec<(&str, Damage<'_>)> = vec![
        ("missing", Box::new(|| fs::remove_file(&shard).unwrap())),
        ("truncated", Box::new(|| fs::write(&shard, &bytes[..bytes.len() / 2]).unwrap())),
        ("one byte less", Box::new(|| fs::write(&shard, &bytes[..bytes.len() - 1]).unwrap())),
        ("empty", Box::new(|| fs::write(&shard, "").unwrap())),
        ("flipped", Box::new(|| fs::write(&shard, flipped(bytes.len() - 9)).unwrap())),
        ("flipped in the header", Box::new(|| fs::write(&shard, flipped(20)).unwrap())),
        (
            "another's",
            Box::new(|| fs::copy(file("shard-00002.safetensors"), &shard).map(drop).unwrap()),
        ),
        ("without its record", Box::new(|| fs::remove_file(file("inputs-00001.txt")).unwrap())),
        (
            "with another's record",
            Box::new(|| {
                fs::copy(file("inputs-00000.txt"), file("inputs-00001.txt")).map(drop).unwrap()
            }),
        ),
    ];
    for (what, damage) in damages {
        fs::remove_file(&shard).unwrap();
        fs::write(&shard, &bytes).unwrap();
        damage();
        let (resumed, said) = place.run("out");
        assert_eq!(resumed, 8, "{what}");
        contains(&said, &["shard-00001", "1 shard extracted again"]);
        place.assert_fresh("out", what);
    }
    for damage in ["missing", "flipped"] {
        let head = file("head.safetensors");
        let mut bytes = fs::read(&head).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::remove_file(&head).unwrap();
        if damage == "flipped" {
            fs::write(&head, bytes).unwrap();
        }
        assert_eq!(place.run("out").0, 12, "{damage}");
        place.assert_fresh("out", "after a damaged head");
    }
    // What is not ours is not removed with what is.
    fs::remove_file(&shard).unwrap();
    fs::write(file("notes.txt"), "mine").unwrap();
    contains(&place.refused("out"), &["out of date", "`notes.txt`", "move that away"]);
    assert_eq!(fs::read(file("notes.txt")).unwrap(), b"mine");
    fs::remove_file(file("notes.txt")).unwrap();
    assert_eq!(place.run("out").0, 8);
    fs::write(file("extract.json"), "{").unwrap();
    contains(&place.refused("out"), &["no whole extract.json"]);
}

#[test]
fn a_resume_mixes_nothing() {
    if !runtime("a_resume_mixes_nothing") {
        return;
    }
    let mut place = Place::new();
    // Two shards, and half of the third: two batches and the shard itself are three steps.
    let stopped = place.stopped("out", 7).0.unwrap_err().to_string();
    contains(&stopped, &["interrupted", "go on"]);
    assert!(!place.path("out").exists());
    place.image(1, 99);
    place.image(10, 98);
    let (resumed, said) = place.run("out");
    assert_eq!(resumed, 4, "{said}");
    contains(&said, &["01.bmp"]);
    place.assert_fresh("out", "after a resume");
    // A replacement that is interrupted leaves what there was, and is gone on with.
    let before = fs::read(place.path("out/shard-00000.safetensors")).unwrap();
    place.image(0, 77);
    place.image(11, 76);
    place.stopped("out", 3 + 3 + 1).0.unwrap_err();
    assert!(fs::read(place.path("out/shard-00000.safetensors")).unwrap() == before);
    place.image(11, 75);
    assert_eq!(place.run("out").0, 8);
    place.assert_fresh("out", "after an interrupted replacement");
    assert!(!place.path(".heat-out.tmp").exists());
    // Another network, another transform: by name.
    place.network = "matmul";
    contains(&place.refused("out"), &["by another network, plain.onnx (", "remove it"]);
    place.network = "plain";
    place.config.transform.mean = [0.0; 3];
    contains(&place.refused("out"), &["with another transform"]);
}

#[test]
fn one_process_at_a_time_and_nothing_is_left_of_early_failures() {
    if !runtime("one_process_at_a_time_and_nothing_is_left_of_early_failures") {
        return;
    }
    let place = Place::new();
    fs::write(place.file(0), "x").unwrap();
    contains(&place.refused("new/deep/out"), &["00.bmp"]);
    assert!(!place.path("new").exists());
    fs::write(place.file(5), "x").unwrap();
    place.image(0, 0);
    // One shard is finished: it stays.
    contains(&place.refused("kept"), &["05.bmp"]);
    assert!(place.path(".heat-kept.tmp/shard-00000.safetensors").is_file());
    place.image(5, 50);
    assert_eq!(place.run("kept").0, 4);
    // Held by another: this process, as it happens.
    fs::create_dir(place.path(".heat-held.tmp")).unwrap();
    let lock = place.path(".heat-held.tmp/.lock");
    let held = heat_ood::io::hold(&lock, &lock, "").unwrap();
    let own = format!("held: process {} is extracting into this directory", std::process::id());
    contains(&place.refused("held"), &[&own, "wait until it has ended"]);
    drop(held);
    place.run("held");
    assert!(!place.path("held/.lock").exists());
    // The longest name that there can be.
    let long = "x".repeat(255);
    assert_eq!(place.run(&long).0, 0);
    assert_eq!(place.run(&long).0, 12);
    contains(&place.refused(&"x".repeat(256)), &["long"]);
    let left = fs::read_dir(place.directory.path()).unwrap().map(|e| e.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with(".heat")).collect();
    assert!(left.is_empty(), "{left:?}");
}
