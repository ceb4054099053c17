//! `heat quickstart`: the whole job on bundled real features.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use heat_ood::compose::Part;
use heat_ood::evaluate::Candidate;
use heat_ood::features::{FeatureSet, Head, OpenOptions, Subset};
use heat_ood::io::TensorFile;
use heat_ood::recipe::Recipe;
use heat_ood::scorers::{Scorer, ScorerSpec};
use heat_ood::{Detector, Error, Fit, Fitted};

use super::outputs::{command_line, hashes_of, made};
use super::scorers::{compose, fit};
use super::statistics::{shown, with_made};
use super::{Data, TestSets, write_output};
use crate::args::QuickstartArgs;
use crate::export::{self, Format};
use crate::progress::{Progress, human};
use crate::report::{self, Evaluation, ReportData};

macro_rules! bundled {
    ($name:literal) => {
        include_bytes!(concat!("../../data/cifar10-densenet/", $name, ".safetensors"))
    };
}

const OOD: [(&str, &[u8]); 3] = [
    ("cifar100", bundled!("ood_cifar100")),
    ("textures", bundled!("ood_textures")),
    ("mnist", bundled!("ood_mnist")),
];

const BASELINES: [&str; 7] = ["msp", "max_logit", "el", "knn", "maha", "ssd", "ssd(pooling=std)"];

const RECIPES: [(&str, &str); 3] = [
    ("HEAT-GMM", "quickstart_gmm"),
    ("HEAT-GMM-std", "quickstart_gmm_std"),
    ("HEAT-EL", "quickstart_el"),
];

pub fn run(args: &QuickstartArgs, progress: &mut Progress) -> Result<()> {
    let start = Instant::now();
    std::fs::create_dir_all(&args.out).map_err(Error::io("create", &args.out))?;
    let (data, sets) = bundled()?;
    progress.say(&format!(
        "CIFAR-10 features of a DenseNet-BC-100-12: {} training rows, {} test rows, {} OOD sets",
        data.train.len(),
        sets.id.len(),
        sets.ood.len()
    ));
    let specs = BASELINES.iter().map(|text| ScorerSpec::parse(text));
    let mut candidates = fit(&specs.collect::<Result<Vec<_>, _>>()?, &data, progress)?;
    progress.say(&format!("fitted {} baselines in {}", BASELINES.len(), human(start.elapsed())));
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    for (name, recipe) in RECIPES {
        let (candidate, file) = train_heat(name, recipe, args, &data, progress)?;
        candidates.push(candidate);
        files.push((name.to_owned(), file));
    }
    let parts = candidates[BASELINES.len()..].iter().map(|c| Part::new(&c.name, c.scorer.clone()));
    let heat = compose("HEAT", parts.collect(), 0.0, &data.training(), progress)?;
    let saved = args.out.join("heat.safetensors");
    Detector::new(heat.scorer.clone()).save(&saved)?;
    files.push((heat.name.clone(), saved.clone()));
    candidates.push(heat);

    let (results, evaluation) = Evaluation::of(&sets.id, &sets.ood, &candidates, progress)?;
    let mut evaluation = evaluation.with_training(&data.train, data.head.as_ref())?;
    for (name, file) in &files {
        let detector = Detector::open(file)?;
        evaluation = evaluation.with_detector(name, Some(file), &detector, &sets.id, &sets.ood)?;
    }
    let page = args.out.join("report.html");
    let report = ReportData::new(command_line(), Vec::new()).with_results(&results, evaluation);
    report::write(&page, &report)?;
    progress.clear();
    write_output(None, &shown(&results))?;
    let json = args.out.join("results.json");
    let made = made(hashes_of(Some(&data), Some(&sets))?);
    let text = with_made(&export::results(&results, Format::Json), &made);
    write_output(Some(&json), &text)?;
    progress.say(&format!(
        "wrote {}, {} for a browser, and the composed detector {}; {} in all",
        json.display(),
        page.display(),
        saved.display(),
        human(start.elapsed())
    ));
    progress.say("next: heat train ebm=heat_gmm_c10 --train YOUR_FEATURES --head YOUR_HEAD");
    Ok(())
}

/// The training set with its head, and the test sets.
fn bundled() -> Result<(Data, TestSets)> {
    let set = |name: &str, bytes: &[u8]| {
        FeatureSet::from_safetensors(&format!("{name}.safetensors"), bytes.to_vec())
    };
    let head = TensorFile::from_memory("head".as_ref(), bundled!("head").to_vec())?;
    let train = set("train", bundled!("train"))?;
    let data = Data {
        whole: train.clone(),
        train,
        head: Some(Head::from_file(&head)?),
        options: OpenOptions::default(),
        subset: Subset::default(),
    };
    let ood = OOD
        .iter()
        .map(|(name, bytes)| Ok(((*name).to_owned(), set(&format!("ood_{name}"), bytes)?)));
    let ood = ood.collect::<heat_ood::Result<_>>()?;
    Ok((data, TestSets { id: set("test", bundled!("test"))?, ood }))
}

fn train_heat(
    name: &str,
    recipe: &str,
    args: &QuickstartArgs,
    data: &Data,
    progress: &mut Progress,
) -> Result<(Candidate, PathBuf)> {
    let start = Instant::now();
    let settings = [format!("ebm={recipe}"), format!("seed={}", args.seed)];
    let recipe = Recipe::resolve(&settings, None)?;
    progress.label = name.to_owned();
    progress.epochs_left = Some(recipe.heat.total_epochs());
    let scorer: Fitted<dyn Scorer> = recipe.heat.fit(&data.training(), progress)?.into();
    progress.label.clear();
    let mut detector = Detector::new(scorer.clone());
    detector.record_recipe(recipe.to_toml(), Some(args.seed));
    let file = args.out.join(format!("{}.safetensors", recipe.exp_name));
    detector.save(&file)?;
    progress.say(&format!("trained {name} in {}", human(start.elapsed())));
    let fit_seconds = Some(start.elapsed().as_secs_f64());
    Ok((Candidate { name: name.to_owned(), scorer, fit_seconds }, file))
}
