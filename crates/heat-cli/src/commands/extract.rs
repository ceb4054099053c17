//! `heat extract`: pictures to features.

use anyhow::Result;
use heat_ood::Error;
use heat_ood::backbone::{Backbone, BackboneOptions, ExtractConfig, extract};
use heat_ood::images::{Format, ImageOptions, Resize, TransformConfig, open};

use super::backbone::describe;
use super::wrote;
use crate::args::ExtractArgs;
use crate::progress::Progress;

/// Unreadable pictures named on the terminal; the folder lists all.
const NAMED: usize = 5;

pub fn run(args: &ExtractArgs, progress: &mut Progress) -> Result<()> {
    let options = BackboneOptions { tap: args.tap.clone(), ..BackboneOptions::default() };
    let backbone = Backbone::open(&args.backbone, &options)?;
    let config = ExtractConfig {
        transform: transform(args)?,
        batch_size: backbone.found().batch().unwrap_or(args.batch_size),
        shard_rows: args.shard_rows,
        skip_unreadable: args.skip_unreadable,
        dtype: args.dtype.parse()?,
    };
    let format = args.format.as_deref().map(format).transpose()?;
    let set = open(
        &args.pictures,
        &ImageOptions { format, split: args.split.clone(), max_pixels: None },
    )?;
    for line in describe(backbone.found()) {
        progress.say(&line);
    }
    let begun = std::time::Instant::now();
    let done = extract(&*set, &backbone, &args.output, &config, progress)?;
    wrote(progress, &args.output);
    let seconds = begun.elapsed().as_secs_f64();
    let fresh = set.len() - done.resumed;
    progress.say(&format!(
        "{} rows; {fresh} pictures in {seconds:.1} s, {:.0} a second",
        done.rows,
        fresh as f64 / seconds
    ));
    if done.resumed > 0 {
        progress.say(&format!("note: {} pictures were there already", done.resumed));
    }
    if !done.unreadable.is_empty() {
        progress.say(&format!("note: {} pictures could not be read:", done.unreadable.len()));
        for line in done.unreadable.iter().take(NAMED) {
            progress.say(&format!("  {line}"));
        }
    }
    Ok(())
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
    ];
    Ok(named.map_err(|_| Error::unknown("format", name, all))?)
}

fn three(key: &'static str, values: &[f32]) -> Result<[f32; 3]> {
    let problem = "expected three numbers, for red, green and blue";
    Ok(values.try_into().map_err(|_| Error::config(key, format!("{values:?}"), problem))?)
}

fn transform(args: &ExtractArgs) -> Result<TransformConfig> {
    let mut config = match args.preset.as_deref() {
        Some("cifar10") => TransformConfig::cifar10(),
        Some("cifar100") => TransformConfig::cifar100(),
        Some("imagenet") => TransformConfig::imagenet(),
        Some(other) => {
            return Err(Error::unknown("preset", other, ["cifar10", "cifar100", "imagenet"]).into());
        }
        None if args.mean.is_none() || args.std.is_none() => {
            let remedy = "give what the network was trained with: `--preset cifar10|cifar100|imagenet`, \
                          or `--mean R,G,B --std R,G,B`";
            return Err(Error::missing("the command", "the normalisation", remedy).into());
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
