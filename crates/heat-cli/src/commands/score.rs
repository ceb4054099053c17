//! `heat score`: one score per row, and a verdict from calibrated detectors.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use heat_images::backbone::{Backbone, BackboneOptions, ExtractConfig, LayersAsked, Part, stream};
use heat_images::{ImageDataset, TransformConfig, open_all};
use heat_ood::calibrate::{Ties, benjamini_hochberg};
use heat_ood::features::{FeatureSet, FeatureStream, StreamForm, View};
use heat_ood::io::is_standard_output;
use heat_ood::{Detector, Error, Prediction, Silent, printable};

use super::backbone::describe;
use super::extract::{NAMED, contents, image_options, says_transform, transform};
use super::outputs::write_along;
use super::standard_input::Pump;
use super::{
    check_origin, open, open_detector, open_options, refuse_overwriting, unless_forced, wrote,
};
use crate::args::{ScoreArgs, StreamKind, TiesRule};
use crate::export::{ScoreFormat, ScoreWriter};
use crate::progress::{self, Progress};

/// Rows of a stream that are scored together.
const ROWS: usize = 512;

pub fn run(args: &ScoreArgs, progress: &mut Progress) -> Result<()> {
    check(args)?;
    let format = format(args)?;
    let inputs = args.inputs.iter().map(|input| &**input).chain(args.backbone.as_deref());
    let inputs: Vec<&Path> = inputs.chain([&*args.detector]).collect();
    refuse_overwriting(args.output.as_deref(), &inputs)?;
    let mut detector = open_detector(&args.detector)?;
    if let Some(alpha) = args.alpha {
        calibrated(&detector, "alpha")?;
        detector.set_alpha(alpha)?;
    }
    if args.fdr.is_some() {
        calibrated(&detector, "fdr")?;
    }
    if args.ties.is_some_and(|ties| ties == TiesRule::Randomized) {
        calibrated(&detector, "ties")?;
    }
    let source = Source::open(args, &detector, progress)?;
    let detector = detector.of_any_origin();
    if !matches!(source, Source::Set(_)) && args.output.is_some() {
        progress::stop_on_ctrl_c()?;
    }
    let mut counts = Counts::default();
    write_along(args.output.as_deref(), |out| {
        let writer = ScoreWriter::new(out, format, detector.scorer().components());
        let mut sink = Sink { args, detector: &detector, writer, held: Vec::new(), counts };
        source.give(&mut sink, args, progress)?;
        counts = sink.finish()?;
        Ok(())
    })?;
    progress.clear();
    if let Some(text) = counts.summary(&detector, args.fdr) {
        progress.say(&text);
    }
    if let Some(path) = &args.output {
        wrote(progress, path);
    }
    match (counts.unreadable, args.skip_unreadable) {
        (0, _) => Ok(()),
        (n, true) => {
            progress.warn(&format!("{n} images could not be read and are left out"));
            Ok(())
        }
        (n, false) => Err(anyhow!(
            "{n} of {} images could not be read, and have no score; `--skip-unreadable` leaves \
             them out",
            n + counts.rows
        )),
    }
}

/// Refuse what goes together with nothing.
fn check(args: &ScoreArgs) -> Result<()> {
    let piped = args.inputs.iter().any(|input| input.as_os_str() == "-");
    let network = &args.network;
    let tap = network.tap.first().cloned();
    let network = [&tap, &network.output_name, &network.arch, &network.prefix];
    let refuse = |key: &str, problem: &str| Err(Error::config(key, "", problem).into());
    match &args.backbone {
        _ if piped && args.inputs.len() > 1 => refuse("-", "standard input comes alone"),
        Some(_) if piped => refuse("-", "images are files: standard input takes rows of features"),
        Some(_) if args.dim.is_some() => refuse("dim", "is for raw memmaps, not for images"),
        None if network.iter().any(|option| option.is_some()) => {
            refuse("backbone", "its options go with a network: give `--backbone FILE`")
        }
        None if args.inputs.len() > 1 => refuse(
            "inputs",
            "one feature set at a time; of images, name their network: `--backbone FILE`",
        ),
        None if args.from.is_some() && !piped => {
            refuse("from", "is for rows on standard input, which is named `-`")
        }
        None if piped && args.dim.is_some() => {
            refuse("dim", "is for raw memmaps; rows on standard input have their own")
        }
        _ => Ok(()),
    }
}

/// By the output's ending, which must be able to hold what is asked for.
fn format(args: &ScoreArgs) -> Result<ScoreFormat> {
    let format = match &args.output {
        None => ScoreFormat::Csv,
        Some(path) if is_standard_output(path) => ScoreFormat::Csv,
        Some(path) => ScoreFormat::of(path).ok_or_else(|| {
            Error::config("output", path.display(), "the ending must be .csv, .jsonl or .npy")
        })?,
    };
    let judging = args.alpha.is_some() || args.fdr.is_some() || args.ties.is_some();
    if format == ScoreFormat::Npy && judging {
        let problem = "holds scores alone; write .csv or .jsonl for verdicts";
        return Err(Error::config("output", ".npy", problem).into());
    }
    Ok(format)
}

fn calibrated<'a>(
    detector: &'a Detector,
    option: &str,
) -> Result<&'a heat_ood::calibrate::Calibration, Error> {
    detector.calibration().map(|c| &**c).ok_or_else(|| {
        let problem = "the detector is not calibrated: `heat calibrate DETECTOR --id CAL -o OUT`";
        Error::config(option, "", problem)
    })
}

/// Where rows come from.
enum Source {
    Set(Box<FeatureSet>),
    Pipe(Box<FeatureStream<'static>>, super::standard_input::Waiting),
    Images(Box<Images>),
}

/// Images and the network that makes rows of them.
struct Images {
    set: Box<dyn ImageDataset>,
    backbone: Backbone,
    config: ExtractConfig,
}

impl Source {
    fn open(args: &ScoreArgs, detector: &Detector, progress: &mut Progress) -> Result<Self> {
        if let Some(backbone) = &args.backbone {
            let images = Images::open(args, backbone, detector, progress)?;
            return Ok(Source::Images(Box::new(images)));
        }
        let options = open_options(args.dim, None);
        let path = &args.inputs[0];
        if path.as_os_str() != "-" {
            let set = open(path, &options, None, progress)?;
            check_origin(detector.provenance(), &set, args.force)?;
            return Ok(Source::Set(Box::new(set)));
        }
        let form = args.from.map(|kind| match kind {
            StreamKind::Csv => StreamForm::Csv,
            StreamKind::Jsonl => StreamForm::Jsonl,
            StreamKind::Npy => StreamForm::Npy,
        });
        let (pump, waiting) = Pump::start();
        let rows = FeatureStream::open("standard input", Box::new(pump), form, &options)?;
        for notice in rows.notices() {
            progress.say(&format!("note: {notice}"));
        }
        Ok(Source::Pipe(Box::new(rows), waiting))
    }

    /// Give all rows to the sink.
    fn give(
        self,
        sink: &mut Sink<'_, '_>,
        args: &ScoreArgs,
        progress: &mut Progress,
    ) -> Result<()> {
        match self {
            Source::Set(set) => {
                let judged = sink.detector.predict(&set, sink.ties(), progress)?;
                sink.take(Block { judged: Some(judged), names: Names::Set(set), lost: Vec::new() })
            }
            Source::Pipe(mut rows, waiting) => {
                while let Some(set) = rows.next(ROWS, &|| waiting.any())? {
                    let judged = sink.detector.predict(&set, sink.ties(), &mut Silent)?;
                    sink.take(Block {
                        judged: Some(judged),
                        names: Names::Set(Box::new(set)),
                        lost: Vec::new(),
                    })?;
                }
                Ok(())
            }
            Source::Images(images) => {
                let Images { set, backbone, config } = *images;
                let mut failure = None;
                let mut named = Vec::new();
                let whole = stream(&*set, &backbone, &config, progress, &mut |part| {
                    let reasons = part.unreadable.iter().map(|(_, reason)| reason.clone());
                    named.extend(reasons.take(NAMED - named.len()));
                    let taken = sink.images(&*set, part, args.skip_unreadable);
                    failure = taken.err();
                    Ok(failure.is_none())
                });
                progress.clear();
                for reason in named {
                    progress.warn(&printable(&reason));
                }
                match (failure, whole?) {
                    (Some(error), _) => Err(error),
                    (None, true) => Ok(()),
                    (None, false) => Err(anyhow!("interrupted before the last image")),
                }
            }
        }
    }
}

impl Images {
    fn open(
        args: &ScoreArgs,
        backbone: &Path,
        detector: &Detector,
        progress: &Progress,
    ) -> Result<Self> {
        let given = &args.images;
        let provenance = detector.provenance();
        let set = open_all(&args.inputs, &image_options(given)?)?;
        let classes = Some(provenance.classes.len()).filter(|n| *n > 0);
        let options = BackboneOptions { classes, ..args.network.options() };
        let backbone = Backbone::open(backbone, &options)?;
        let backbone = backbone.on(given.device.clone(), given.precision)?;
        let expected = provenance.origin.as_ref();
        let transform = match expected.filter(|_| !says_transform(given)) {
            Some(origin) => {
                let told = printable(&origin.transform);
                progress.say(&format!("note: images are transformed as the detector's: {told}"));
                serde_json::from_str::<TransformConfig>(&origin.transform).map_err(|e| {
                    let problem = format!("the transform that it names is not readable: {e}");
                    Error::format(&args.detector, problem)
                })?
            }
            None => transform(given)?,
        };
        let place = backbone.path().display().to_string();
        match expected.map(|expected| expected.difference(&backbone.origin(&transform))) {
            None => progress.say(
                "note: the detector does not say which network made its features: whether it is \
                 this one is not known",
            ),
            Some(None) => {}
            Some(Some(difference)) => {
                let problem = format!(
                    "gives features of {difference}, which the detector was fitted on: take that \
                     network and transform"
                );
                unless_forced(Err(Error::Foreign { place, problem }), args.force)?;
            }
        }
        let backbone = backbone.with_layers_of(&layers(args, detector)?, &*set, &transform)?;
        let backbone = backbone.with_fields_of_maps(&detector.scorer().of_maps())?;
        describe(&backbone).iter().for_each(|line| progress.say(line));
        contents(&*set).iter().for_each(|line| progress.say(line));
        let batch_size = backbone.found().batch().unwrap_or(given.batch_size);
        let config = ExtractConfig {
            transform,
            batch_size,
            shard_rows: ROWS.max(batch_size),
            skip_unreadable: true,
            dtype: given.dtype.parse()?,
            perturb: None,
            views: View::of(&detector.scorer().parts()),
        };
        Ok(Images { set, backbone, config })
    }
}

/// The further layers that a detector reads, where they are in the network.
fn layers(args: &ScoreArgs, detector: &Detector) -> Result<LayersAsked> {
    let given = args.network.layers(None)?;
    if !given.is_empty() {
        return Ok(given);
    }
    let read = detector.scorer().parts();
    let known = detector.provenance().origin.iter().flat_map(|origin| &origin.layers);
    let named = known.filter(|(name, _)| read.iter().any(|part| part.name() == name.as_str()));
    let named = named.map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    Ok(LayersAsked { named, found: None })
}

/// Some rows with their scores.
struct Block {
    judged: Option<Prediction>,
    names: Names,
    /// Rows without a score among them: place, name, reason.
    lost: Vec<(usize, String, String)>,
}

/// Names of scored rows.
enum Names {
    Set(Box<FeatureSet>),
    List(Option<Vec<String>>),
}

impl Names {
    fn get(&self, row: usize) -> Option<String> {
        match self {
            Names::Set(set) => set.names().map(|names| names.get(row).into_owned()),
            Names::List(names) => names.as_ref().map(|names| names[row].clone()),
        }
    }

    /// Without the features of rows that came from a pipe or a network.
    fn alone(self) -> Self {
        match self {
            Names::Set(set) if set.files().is_empty() => {
                let names = set.names();
                let names = names.map(|n| (0..set.len()).map(|i| n.get(i).into_owned()).collect());
                Names::List(names)
            }
            other => other,
        }
    }
}

/// What was scored.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    rows: usize,
    flagged: usize,
    unreadable: usize,
}

impl Counts {
    fn summary(&self, detector: &Detector, fdr: Option<f64>) -> Option<String> {
        let calibration = detector.calibration()?;
        let promise = match fdr {
            Some(rate) if !calibration.forced => format!(
                "of those called so, at most {rate} are in-distribution on average (Benjamini-Hochberg)"
            ),
            _ => calibration.words(),
        };
        Some(format!("{} of {} rows out-of-distribution; {promise}", self.flagged, self.rows))
    }
}

/// Where scored rows go.
struct Sink<'a, 'w> {
    args: &'a ScoreArgs,
    detector: &'a Detector,
    writer: ScoreWriter<'a, &'w mut dyn Write>,
    /// All rows, where verdicts hang on all of them.
    held: Vec<Block>,
    counts: Counts,
}

impl Sink<'_, '_> {
    /// How ties of the next rows are ranked.
    fn ties(&self) -> Ties {
        match (self.args.ties, self.args.ties_seed) {
            (Some(TiesRule::Randomized), Some(seed)) => {
                Ties::Randomized { seed, first: self.counts.rows as u64 }
            }
            _ => Ties::Conservative,
        }
    }

    fn images(&mut self, set: &dyn ImageDataset, part: Part, skip: bool) -> Result<()> {
        self.counts.unreadable += part.unreadable.len();
        let judged = part.rows.as_ref();
        let judged = judged.map(|rows| self.detector.predict(rows, self.ties(), &mut Silent));
        let lost = part.unreadable.into_iter().filter(|_| !skip);
        let lost =
            lost.map(|(i, reason)| (i - part.images.start, set.image_name(i), reason)).collect();
        let names = part.rows.map_or(Names::List(None), |set| Names::Set(Box::new(set)));
        self.take(Block { judged: judged.transpose()?, names, lost })
    }

    fn take(&mut self, block: Block) -> Result<()> {
        self.counts.rows += block.judged.as_ref().map_or(0, |judged| judged.scores.len());
        if self.args.fdr.is_some() {
            self.held.push(Block { names: block.names.alone(), ..block });
            return Ok(());
        }
        self.write(&block)
    }

    fn write(&mut self, block: &Block) -> Result<()> {
        let Block { judged, names, lost } = block;
        let verdicts = judged.as_ref().and_then(|judged| judged.verdicts.as_ref());
        self.counts.flagged += verdicts.map_or(0, |all| all.iter().filter(|v| v.ood).count());
        let scored = judged.as_ref().map_or(0, |judged| judged.scores.len());
        let (mut row, mut lost) = (0, lost.iter().peekable());
        for place in 0..scored + lost.len() {
            let written = match (lost.next_if(|(at, ..)| *at == place), judged) {
                (Some((_, name, reason)), _) => self.writer.missing(name, reason),
                (None, Some(judged)) => {
                    row += 1;
                    self.writer.row(judged, row - 1, names.get(row - 1))
                }
                (None, None) => Ok(()),
            };
            written.context("write scores")?;
        }
        self.writer.flush().context("write scores")
    }

    fn finish(mut self) -> Result<Counts> {
        if let Some(rate) = self.args.fdr {
            let mut held = std::mem::take(&mut self.held);
            select(&mut held, rate)?;
            held.iter().try_for_each(|block| self.write(block))?;
        }
        let counts = self.counts;
        self.writer.finish().context("write scores")?;
        Ok(counts)
    }
}

/// Let the false discovery rate decide the verdicts.
fn select(blocks: &mut [Block], rate: f64) -> Result<()> {
    let judged = || blocks.iter().filter_map(|block| block.judged.as_ref()?.verdicts.as_ref());
    let p: Vec<f64> = judged().flatten().map(|v| v.p_value).collect();
    let mut selected = benjamini_hochberg(&p, rate)?.into_iter();
    let judged = blocks.iter_mut().filter_map(|block| block.judged.as_mut()?.verdicts.as_mut());
    for (verdict, ood) in judged.flatten().zip(&mut selected) {
        verdict.ood = ood;
    }
    Ok(())
}
