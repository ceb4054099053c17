//! `heat extract`: images to features.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use heat_images::backbone::{
    Accuracy, Backbone, BackboneOptions, ExtractConfig, Perturbation, extract,
};
use heat_images::{Format, ImageDataset, ImageOptions, Resize, TransformConfig, open};
use heat_ood::{Error, recipe};

use super::backbone::describe;
use super::{open_detector, wrote};
use crate::args::ExtractArgs;
use crate::progress::Progress;

/// Unreadable images named on the terminal; the directory lists all.
const NAMED: usize = 5;

pub fn run(args: &ExtractArgs, progress: &mut Progress) -> Result<()> {
    let format = args.format.as_deref().map(format).transpose()?;
    let (split, root) = (args.split.clone(), args.root.clone());
    let set = open(&args.images, &ImageOptions { format, split, root, max_pixels: None })?;
    let options = BackboneOptions { classes: classes(&*set), ..args.network.options() };
    let backbone = Backbone::open(&args.backbone, &options)?;
    let config = ExtractConfig {
        transform: transform(args)?,
        batch_size: backbone.found().batch().unwrap_or(args.batch_size),
        shard_rows: args.shard_rows,
        skip_unreadable: args.skip_unreadable,
        dtype: args.dtype.parse()?,
        perturb: perturbation(args)?,
    };
    describe(&backbone).iter().for_each(|line| progress.say(line));
    let accuracy = extract_into(&*set, &backbone, &args.output, &config, progress)?;
    accuracy.iter().for_each(|accuracy| say_accuracy(accuracy, progress));
    Ok(())
}

/// Classes of the labels, numbered from 0.
fn classes(set: &dyn ImageDataset) -> Option<usize> {
    let largest = (0..set.len()).filter_map(|i| set.label(i)).max();
    largest.map(|label| label as usize + 1)
}

/// Extract, and say what was done; how many labelled rows the network gets
/// right is for the caller to say, who may know that the labels are its classes.
pub(super) fn extract_into(
    set: &dyn ImageDataset,
    backbone: &Backbone,
    out: &Path,
    config: &ExtractConfig,
    progress: &mut Progress,
) -> Result<Option<Accuracy>> {
    let begun = std::time::Instant::now();
    contents(set).iter().for_each(|line| progress.say(line));
    let done = extract(set, backbone, out, config, progress)?;
    if done.resumed == set.len() {
        progress.clear();
        progress.say(&format!("{} already exists: {} rows", out.display(), done.rows));
        return Ok(done.accuracy);
    }
    wrote(progress, out);
    let seconds = begun.elapsed().as_secs_f64();
    let fresh = set.len() - done.resumed;
    progress.say(&format!(
        "{} rows; {fresh} images in {seconds:.1} s, {:.0} a second",
        done.rows,
        fresh as f64 / seconds
    ));
    if done.resumed > 0 {
        progress.say(&format!("note: {} images had been extracted before", done.resumed));
    }
    if !done.unreadable.is_empty() {
        progress.say(&format!("note: {} images could not be read:", done.unreadable.len()));
        for line in done.unreadable.iter().take(NAMED) {
            progress.say(&format!("  {line}"));
        }
    }
    Ok(done.accuracy)
}

pub(super) fn say_accuracy(accuracy: &Accuracy, progress: &mut Progress) {
    let Accuracy { right, rows, classes, strangers } = accuracy;
    if *strangers > 0 {
        progress.say(&format!(
            "note: {strangers} of {rows} rows have a label beyond the network's {classes} classes: its \
             accuracy says nothing"
        ));
        return;
    }
    let percent = |part: f64| 100.0 * part;
    progress.say(&format!(
        "accuracy  {:.2} %: the logits get {right} of {rows} labelled rows right",
        percent(*right as f64 / *rows as f64)
    ));
    if accuracy.is_at_chance() {
        progress.say(&format!(
            "warning: that is chance ({:.2} % for {classes} classes). Unless these images are of other \
             classes than the network's, its weights are read wrongly (`--arch stem=…`, \
             `stride_in=…`), the preprocessing is another, or classes are in another order",
            percent(1.0 / *classes as f64)
        ));
    }
}

/// What a set holds: images and classes, what is left out, what should be known.
fn contents(set: &dyn ImageDataset) -> Vec<String> {
    let named = |names: &[String]| {
        let more = if names.len() > NAMED { ", …" } else { "" };
        format!("{}{more}", names[..names.len().min(NAMED)].join(", "))
    };
    let n = set.len();
    let labels: Vec<u32> = (0..n).filter_map(|i| set.label(i)).collect();
    let classes: BTreeSet<u32> = labels.iter().copied().collect();
    let classes = match (labels.len(), set.classes()) {
        (0, _) => "no labels".to_owned(),
        (k, _) if k < n => format!("labels of {k} alone, so none is kept"),
        (_, []) => format!("{} classes", classes.len()),
        (_, names) => format!("{} classes ({})", names.len(), named(names)),
    };
    let mut lines = vec![format!("{}: {n} images, {classes}", set.name())];
    if !set.left_out().is_empty() {
        let left_out = set.left_out();
        lines.push(format!("note: {} files left out: {}", left_out.len(), named(left_out)));
    }
    lines.extend(set.notes().iter().map(|text| format!("note: {text}")));
    lines
}

fn perturbation(args: &ExtractArgs) -> Result<Option<Perturbation>> {
    let Some((path, epsilon)) = args.perturb.as_ref().zip(args.epsilon) else {
        return Ok(None);
    };
    let detector = open_detector(path)?;
    Ok(Some(Perturbation::new(detector.scorer().clone(), epsilon)?))
}

fn format(name: &str) -> Result<Format> {
    let named = serde_json::from_value(serde_json::Value::String(name.to_lowercase()));
    let all = [
        "cifar10",
        "cifar100",
        "svhn",
        "idx",
        "tinyimagenet",
        "textures",
        "lsun",
        "places",
        "folder",
        "list",
        "numpy",
    ];
    Ok(named.map_err(|_| Error::unknown("format", name, all))?)
}

fn three(key: &'static str, values: &[f32]) -> Result<[f32; 3]> {
    let problem = "expected three numbers, for red, green and blue";
    Ok(values.try_into().map_err(|_| Error::config(key, format!("{values:?}"), problem))?)
}

fn transform(args: &ExtractArgs) -> Result<TransformConfig> {
    let recipes = args.recipes.as_deref();
    let mut config = match args.preset.as_deref() {
        Some(name) => recipe::transform(name, recipes)?,
        None if args.mean.is_none() || args.std.is_none() => {
            let remedy = "give what the network was trained with: `--preset cifar10|cifar100|imagenet`, \
                          or `--mean R,G,B --std R,G,B`";
            return Err(Error::needs("the command", "the normalisation of images", remedy).into());
        }
        None => TransformConfig::default(),
    };
    if let Some(size) = &args.resize {
        config.resize = Some(resize(size)?);
    }
    if args.crop.is_some() {
        config.crop = args.crop;
    }
    if let Some(name) = &args.filter {
        let named = serde_json::from_value(serde_json::Value::String(name.to_lowercase()));
        config.filter =
            named.map_err(|_| Error::unknown("filter", name, ["bilinear", "bicubic"]))?;
    }
    if let Some(mean) = &args.mean {
        config.mean = three("mean", mean)?;
    }
    if let Some(std) = &args.std {
        config.std = three("std", std)?;
    }
    Ok(config)
}

fn resize(text: &str) -> Result<Resize> {
    let problem = "expected N (the short side) or HxW, such as 256 or 32x32";
    let number = |t: &str| t.parse().map_err(|_| Error::config("resize", text, problem));
    Ok(match text.split_once(['x', '×']) {
        Some((h, w)) => Resize::Exact([number(h)?, number(w)?]),
        None => Resize::Short(number(text)?),
    })
}
