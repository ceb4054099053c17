//! `heat auto`: from images, or features, to a calibrated detector.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use heat_images::backbone::{Backbone, BackboneOptions, ExtractConfig, LayersAsked};
use heat_images::surrogates::{Kind, SurrogateConfig, extract_surrogates};
use heat_images::{ImageDataset, ImageSubset, open};
use heat_ood::auto::{Auto, AutoConfig, AutoData};
use heat_ood::calibrate::CalibrationConfig;
use heat_ood::features::{FeatureSet, View};
use heat_ood::io::write_own;
use heat_ood::math::rng::{Purpose, Stream};
use heat_ood::select::{SelectConfig, Surrogates};
use heat_ood::{Error, printable};

use super::backbone::describe;
use super::extract::{
    classes, contents, extract_into, image_options, record, say_agreement, transform,
};
use super::outputs::{hashes, hashes_of, hashes_of_each, made};
use super::statistics::with_made;
use super::{Data, open as open_features, open_options, refuse_overwriting, write_output, wrote};
use crate::args::AutoArgs;
use crate::progress::Progress;

/// ID images that are held out where none are given, at most.
const HELD_OUT: usize = 10_000;

pub fn run(args: &AutoArgs, progress: &mut Progress) -> Result<()> {
    let inputs = [&args.images, &args.val, &args.train, &args.head, &args.labels, &args.backbone];
    let inputs: Vec<&Path> = inputs.into_iter().flatten().map(|path| &**path).collect();
    refuse_overwriting(Some(&args.output), &inputs)?;
    let config = AutoConfig {
        select: SelectConfig { rows: args.rows, seed: args.seed, ..SelectConfig::default() },
        residual: !args.no_residual,
        views: !args.no_mirror,
        calibration: CalibrationConfig { alpha: args.alpha, ..CalibrationConfig::default() },
    };
    let Gathered { data, surrogates, calibration, mut notes } = match (&args.images, &args.train) {
        (Some(images), _) => of_images(args, images, progress)?,
        (None, Some(train)) => of_features(args, train, progress)?,
        (None, None) => {
            let remedy = "give images and their network, or `--train FEATURES`";
            return Err(Error::needs("the command", "something to fit on", remedy).into());
        }
    };
    let training = data.training();
    let given = AutoData {
        train: &training,
        surrogates: surrogates.as_ref(),
        calibration: calibration.as_ref(),
    };
    let Auto { detector, mut report } = config.run(given, progress)?;
    notes.append(&mut report.notes);
    report.notes = notes;
    detector.save(&args.output)?;
    progress.clear();
    let json = serde_json::to_string(&report).unwrap_or_default();
    let mut read = hashes_of(Some(&data), None)?;
    if let Some(sets) = &surrogates {
        read.extend(hashes_of_each("surrogates", &sets.kinds)?);
    }
    if let Some(set) = &calibration {
        read.insert("calibration".into(), hashes(set)?);
    }
    let json = with_made(&json, &made(read));
    if args.images.is_some() {
        write_own(&work(args).join(REPORT), |to| to.write_all(json.as_bytes()))?;
    }
    let text = match args.json {
        true => json,
        false => {
            let text = report.to_string();
            text.lines().map(|line| printable(line) + "\n").collect()
        }
    };
    write_output(None, &text)?;
    wrote(progress, &args.output);
    Ok(())
}

/// The findings, among the work on images.
const REPORT: &str = "auto.json";

/// Where features and surrogates of images lie.
fn work(args: &AutoArgs) -> PathBuf {
    let beside = || PathBuf::from(format!("{}.auto", args.output.display()));
    args.work.clone().unwrap_or_else(beside)
}

/// What a detector is made of.
struct Gathered {
    data: Data,
    surrogates: Option<Surrogates>,
    calibration: Option<FeatureSet>,
    notes: Vec<String>,
}

fn of_features(args: &AutoArgs, train: &Path, progress: &mut Progress) -> Result<Gathered> {
    let data = Data::from(train, args.labels.as_deref(), args.head.as_deref(), None, progress)?;
    let val = args
        .val
        .as_deref()
        .map(|path| open_features(path, &data.options, data.head.as_ref(), progress));
    let val = val.transpose()?;
    let surrogates = args.surrogates.as_deref();
    let surrogates = surrogates.map(|path| Surrogates::open(path, &data.options));
    let surrogates = surrogates.transpose()?;
    let mut notes = Vec::new();
    if surrogates.is_none() {
        notes.push(
            "of features alone: what plays OOD are classes left out and outliers made of rows, which look \
             less like what a network makes of strange inputs; no residual was trained. Bring sets \
             that play OOD (--surrogates), or images"
                .into(),
        );
    }
    Ok(Gathered { data, surrogates, calibration: val, notes })
}

/// Two halves of the numbers below `n`, each ascending.
fn halves(n: usize, seed: u64) -> [Vec<u32>; 2] {
    let mut order = Stream::new(seed, Purpose::HoldOut, 7, 0).permutation(n as u32);
    let mut second = order.split_off(n / 2);
    order.sort_unstable();
    second.sort_unstable();
    [order, second]
}

fn of_images(args: &AutoArgs, images: &Path, progress: &mut Progress) -> Result<Gathered> {
    let given = &args.given;
    let options = image_options(given)?;
    let set = open(images, &options)?;
    let val = args.val.as_deref().map(|path| open(path, &options)).transpose()?;
    let network = args.backbone.as_deref().unwrap_or(Path::new(""));
    let options = BackboneOptions { classes: classes(&*set), ..args.network.options() };
    let backbone = Backbone::open(network, &options)?.on(given.device.clone(), given.precision)?;
    let config = ExtractConfig {
        transform: transform(given)?,
        batch_size: backbone.found().batch().unwrap_or(given.batch_size),
        skip_unreadable: true,
        dtype: given.dtype.parse()?,
        views: (!args.no_mirror).then_some(View::Mirror).into_iter().collect(),
        ..ExtractConfig::default()
    };
    let mut notes = Vec::new();
    let backbone = with_layers(args, &backbone, &*set, &config, &mut notes)?;
    let backbone = backbone.with_fields_of_maps(&args.maps.fields())?;
    describe(&backbone).iter().for_each(|line| progress.say(line));
    let [train, id, calibration] = match &val {
        Some(val) => {
            let [id, calibration] = halves(val.len(), args.seed).map(numbers);
            [None, part(&**val, id)?, part(&**val, calibration)?]
        }
        None => {
            notes.push(
                "no ID images outside training were given (--val): a fifth of the images was held out of \
                 the fits. If the network was trained on them, it is surer of them than of new ones, \
                 and more of these will be flagged than the calibration promises"
                    .into(),
            );
            let most = (set.len() / 5).clamp(2.min(set.len()), HELD_OUT);
            let order =
                Stream::new(args.seed, Purpose::HoldOut, 8, 0).permutation(set.len() as u32);
            let parts = [&order[most..], &order[..most / 2], &order[most / 2..most]];
            let mut parts = parts.map(<[u32]>::to_vec);
            parts.iter_mut().for_each(|part| part.sort_unstable());
            let [train, id, calibration] = parts.map(numbers);
            [part(&*set, train)?, part(&*set, id)?, part(&*set, calibration)?]
        }
    };
    let (Some(id), Some(calibration)) = (id, calibration) else {
        let problem = "too few images to hold some out: give ID images outside training as --val";
        return Err(Error::format(set.name(), problem).into());
    };
    let work = work(args);
    std::fs::create_dir_all(&work).map_err(Error::io("create", &work))?;
    let place = |name: &str| work.join(name);
    let train: &dyn ImageDataset = train.as_ref().map_or(&*set, |subset| subset);
    // The mirrored images are scored, not fitted on.
    let plain = ExtractConfig { views: BTreeSet::new(), ..config.clone() };
    let agreement = extract_into(train, &backbone, &place("train"), &plain, progress)?;
    agreement.iter().for_each(|agreement| say_agreement(agreement, progress));
    extract_into(&calibration, &backbone, &place("calibration"), &config, progress)?;
    let asked = SurrogateConfig {
        kinds: Kind::ALL.to_vec(),
        rows: args.surrogate_rows,
        seed: args.seed,
        ..SurrogateConfig::default()
    };
    contents(&id).iter().for_each(|line| progress.say(line));
    extract_surrogates(&id, &backbone, &place("surrogates"), &config, &asked, progress)?;
    record(&place("surrogates"), &backbone, true)?;
    wrote(progress, &place("surrogates"));
    let data = Data::from(&place("train"), None, None, None, progress)?;
    let surrogates =
        Surrogates::open(place("surrogates"), &open_options(None, data.head.as_ref()))?;
    let calibration = FeatureSet::open(place("calibration"))?;
    Ok(Gathered { data, surrogates: Some(surrogates), calibration: Some(calibration), notes })
}

fn numbers(rows: Vec<u32>) -> Vec<usize> {
    rows.into_iter().map(|row| row as usize).collect()
}

/// Some images of a set; none where there would be none.
fn part(set: &dyn ImageDataset, images: Vec<usize>) -> Result<Option<ImageSubset<'_>>> {
    Ok(if images.is_empty() { None } else { Some(ImageSubset::of(set, images)?) })
}

/// The network with the further layers that are named, and those found where the graph has some.
fn with_layers(
    args: &AutoArgs,
    backbone: &Backbone,
    set: &dyn ImageDataset,
    config: &ExtractConfig,
    notes: &mut Vec<String>,
) -> Result<Backbone> {
    // Named ones must be there; found ones need not.
    let named = args.network.layers(None)?;
    let with = |asked: &LayersAsked| backbone.with_layers_of(asked, set, &config.transform);
    match with(&LayersAsked { found: args.taps.0, ..named.clone() }) {
        Err(error) if args.taps.0.is_some() => {
            notes.push(format!("no further layers: {error}"));
            Ok(with(&named)?)
        }
        done => Ok(done?),
    }
}
