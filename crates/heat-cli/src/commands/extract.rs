//! `heat extract`: images to features.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use heat_images::backbone::{
    Backbone, BackboneOptions, ExtractConfig, Extracted, Perturbation, extract,
};
use heat_images::surrogates::{Kind, SurrogateConfig, extract_surrogates};
use heat_images::{Format, ImageDataset, ImageOptions, Resize, TransformConfig, open};
use heat_ood::evaluate::Agreement;
use heat_ood::features::FeatureSet;
use heat_ood::{Error, recipe};
use serde_json::Map;

use super::backbone::describe;
use super::outputs::{RECORD, made, write_record};
use super::{open_detector, wrote};
use crate::args::{ExtractArgs, ImageArgs};
use crate::progress::Progress;

/// Unreadable images named on the terminal; the directory lists all.
pub(super) const NAMED: usize = 5;

pub fn run(args: &ExtractArgs, progress: &mut Progress) -> Result<()> {
    let given = &args.given;
    let set = open(&args.images, &image_options(given)?)?;
    let options = BackboneOptions { classes: classes(&*set), ..args.network.options() };
    let backbone = Backbone::open(&args.backbone, &options)?;
    let backbone = backbone.on(given.device.clone(), given.precision)?;
    let config = ExtractConfig {
        transform: transform(given)?,
        batch_size: backbone.found().batch().unwrap_or(given.batch_size),
        shard_rows: args.shard_rows,
        skip_unreadable: args.skip_unreadable,
        dtype: given.dtype.parse()?,
        perturb: perturbation(args)?,
        views: args.views.iter().copied().collect(),
    };
    let layers = args.network.layers(args.taps)?;
    let backbone = backbone.with_layers_of(&layers, &*set, &config.transform)?;
    let backbone = backbone.with_fields_of_maps(&args.maps.fields())?;
    describe(&backbone).iter().for_each(|line| progress.say(line));
    let agreement = match args.surrogates.surrogates.is_empty() {
        true => extract_into(&*set, &backbone, &args.output, &config, progress)?,
        false => surrogates(args, &*set, &backbone, &config, progress)?,
    };
    match (agreement, classes(&*set), backbone.head()) {
        (Some(agreement), ..) => say_agreement(&agreement, progress),
        (None, Some(labels), Some(head)) if labels > head.classes() => progress.say(&format!(
            "note: labels go up to {}, and the network has {} classes: how many it gets right says \
             nothing",
            labels - 1,
            head.classes()
        )),
        _ => {}
    }
    Ok(())
}

/// How images are opened, as the options say.
pub(super) fn image_options(args: &ImageArgs) -> Result<ImageOptions> {
    let format = args.format.as_deref().map(format).transpose()?;
    let (split, root) = (args.split.clone(), args.root.clone());
    Ok(ImageOptions { format, split, root, max_pixels: None })
}

/// Whether an option says how images reach the network.
pub(super) fn says_transform(args: &ImageArgs) -> bool {
    let ImageArgs { preset, resize, crop, filter, mean, std, .. } = args;
    let texts = [preset, resize, filter].iter().any(|option| option.is_some());
    texts || crop.is_some() || mean.is_some() || std.is_some()
}

/// Classes of the labels, numbered from 0.
pub(super) fn classes(set: &dyn ImageDataset) -> Option<usize> {
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
) -> Result<Option<Agreement>> {
    let begun = std::time::Instant::now();
    contents(set).iter().for_each(|line| progress.say(line));
    let done = extract(set, backbone, out, config, progress)?;
    record(out, backbone, done.resumed == set.len())?;
    if done.resumed == set.len() {
        progress.clear();
        progress.say(&format!("{} already exists: {} rows", out.display(), done.rows));
        return Ok(done.agreement);
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
    say_unreadable(&done.unreadable, progress);
    Ok(done.agreement)
}

/// Say in a directory of features what command made it: in a file of its own, since the manifest is
/// compared, and the same features are the same bytes whatever made them. A record of what all is
/// there already stays.
pub(super) fn record(out: &Path, backbone: &Backbone, all_there: bool) -> Result<()> {
    if all_there && out.join(RECORD).exists() {
        return Ok(());
    }
    let read = Map::from_iter([("backbone".to_owned(), backbone.sha256().into())]);
    write_record(out, &made(read))
}

/// Extract surrogates, and say what was done.
fn surrogates(
    args: &ExtractArgs,
    set: &dyn ImageDataset,
    backbone: &Backbone,
    config: &ExtractConfig,
    progress: &mut Progress,
) -> Result<Option<Agreement>> {
    let (asked, out) = (&args.surrogates, &args.output);
    let surrogates = SurrogateConfig {
        kinds: Kind::parse(&asked.surrogates)?,
        rows: asked.surrogate_rows,
        seed: asked.seed,
        exclude: asked.exclude.iter().map(FeatureSet::open).collect::<Result<_, _>>()?,
        preview: asked.preview.clone(),
    };
    let begun = std::time::Instant::now();
    contents(set).iter().for_each(|line| progress.say(line));
    let done = extract_surrogates(set, backbone, out, config, &surrogates, progress)?;
    for excluded in &done.of.excluded {
        progress
            .say(&format!("{} images left out that are in {}", excluded.left_out, excluded.set));
        if excluded.left_out == 0 {
            progress.say(
                "note: images are known again by their features; those of another preprocessing (other \
                 means and deviations, another resizing) are not",
            );
        }
    }
    if done.of.excluded.is_empty() {
        progress.say(
            "note: made of the images given, whatever they were used for before; if the network was trained \
             on them, `--exclude FEATURES` leaves such out",
        );
    }
    if let Some(file) = &asked.preview {
        wrote(progress, file);
    }
    let fresh = |(images, done): (usize, &Extracted)| images.saturating_sub(done.resumed);
    let mut images = fresh((set.len(), &done.id));
    progress.say(&format!("{}: {} images as they are", out.join("id").display(), done.of.used));
    for (kind, extracted) in &done.kinds {
        images += fresh((extracted.rows + extracted.unreadable.len(), extracted));
        progress.say(&format!("{}: {} rows", out.join(kind.name()).display(), extracted.rows));
    }
    let seconds = begun.elapsed().as_secs_f64();
    match images {
        0 => progress.say("all of it already exists"),
        _ => progress.say(&format!(
            "{images} images in {seconds:.1} s, {:.0} a second",
            images as f64 / seconds
        )),
    }
    record(out, backbone, images == 0)?;
    say_unreadable(&done.id.unreadable, progress);
    Ok(done.id.agreement)
}

fn say_unreadable(unreadable: &[String], progress: &mut Progress) {
    if !unreadable.is_empty() {
        progress.say(&format!("note: {} images could not be read:", unreadable.len()));
        for line in unreadable.iter().take(NAMED) {
            progress.say(&format!("  {line}"));
        }
    }
}

pub(super) fn say_agreement(agreement: &Agreement, progress: &Progress) {
    progress.say(&agreement.to_string());
    if agreement.near_chance() {
        progress.warn(
            "that is hardly more than chance. Unless these images are of other classes than the \
             network's, its weights are read wrongly (`--arch stem=…`, `stride_in=…`), the \
             preprocessing is another, or classes are in another order",
        );
    }
}

/// What a set holds: images and classes, what is left out, what should be known.
pub(super) fn contents(set: &dyn ImageDataset) -> Vec<String> {
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
    let perturbation = Perturbation::new(detector.scorer().clone(), epsilon)?;
    Ok(Some(perturbation.of_largest(args.perturb_values)?))
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

/// How images reach the network, as the options say.
pub(super) fn transform(args: &ImageArgs) -> Result<TransformConfig> {
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
