//! `heat quickstart`: the whole job on bundled real features.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use heat_ood::compose::{Combined, Member};
use heat_ood::evaluate::{Candidate, measure, score_all};
use heat_ood::features::{FeatureSet, Head, TensorFile};
use heat_ood::recipe::Recipe;
use heat_ood::scorers::{Scorer, ScorerSpec};
use heat_ood::{Detector, Error, Observer};

use super::write_output;
use crate::args::{Format, QuickstartArgs};
use crate::export;
use crate::progress::{Progress, human};
use crate::report::{self, About, Evaluation, ReportData, Set};

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

fn set(name: &str, bytes: &[u8]) -> heat_ood::Result<FeatureSet> {
    FeatureSet::from_safetensors(name, bytes.to_vec())
}

pub fn run(args: &QuickstartArgs, progress: &mut Progress) -> Result<()> {
    let start = Instant::now();
    std::fs::create_dir_all(&args.out).map_err(Error::io("create", &args.out))?;
    let train = set("train", bundled!("train"))?;
    let test = set("test", bundled!("test"))?;
    let bytes = bundled!("head").to_vec();
    let head = Head::from_file(&TensorFile::from_memory("head".as_ref(), bytes)?)?;
    let mut ood = Vec::new();
    for (name, bytes) in OOD {
        ood.push((name.to_owned(), set(name, bytes)?));
    }
    progress.say(&format!(
        "CIFAR-10 features of a DenseNet-BC-100-12: {} training rows, {} test rows, {} OOD sets",
        train.len(),
        test.len(),
        ood.len()
    ));

    let mut candidates = Vec::new();
    for text in BASELINES {
        let spec = ScorerSpec::parse(text)?;
        let start = Instant::now();
        let scorer = spec.fit(&train, Some(&head), progress)?;
        let fit_seconds = Some(start.elapsed().as_secs_f64());
        candidates.push(Candidate { name: text.to_owned(), scorer, fit_seconds });
    }
    progress.say(&format!("fitted {} baselines in {}", BASELINES.len(), human(start.elapsed())));

    let mut members = Vec::new();
    for (name, recipe) in RECIPES {
        let start = Instant::now();
        let scorer = train_heat(name, recipe, args, &train, &head, progress)?;
        progress.say(&format!("trained {name} in {}", human(start.elapsed())));
        members.push(Member::fit(name, scorer.clone(), &train, progress)?);
        let fit_seconds = Some(start.elapsed().as_secs_f64());
        candidates.push(Candidate { name: name.to_owned(), scorer, fit_seconds });
    }
    let heat: Arc<dyn Scorer> = Arc::new(Combined::new(members, 0.0)?);
    Detector::shared(heat.clone()).save(args.out.join("heat.safetensors"))?;
    candidates.push(Candidate { name: "HEAT".into(), scorer: heat, fit_seconds: None });

    // The composition's members are candidates, so nothing is scored twice.
    let (all, compositions) = report::with_members(&candidates);
    let scores = score_all(&test, &ood, &all, true, progress)?;
    let results = measure(test.name(), &candidates, &scores)?;
    let evaluation = Evaluation {
        id: Set::of(test.name(), &test)?,
        ood: ood.iter().map(|(name, set)| Set::of(name, set)).collect::<Result<_, _>>()?,
        train: Some(Set::of(train.name(), &train)?),
        head: Some(Set::head(&head)),
        scorers: candidates.iter().map(|c| About::fitted(&c.name)).collect(),
        components: candidates.iter().map(|c| c.scorer.components()).collect(),
        scores,
        compositions,
    };
    let page = args.out.join("report.html");
    report::write(&page, &ReportData::of(&results, Some(evaluation), Vec::new()))?;
    progress.clear();
    write_output(None, &export::results(&results, Format::Table))?;
    let json = args.out.join("results.json");
    write_output(Some(&json), &export::results(&results, Format::Json))?;
    progress.say(&format!(
        "wrote {}, {} for a browser, and the composed detector {}; {} in all",
        json.display(),
        page.display(),
        args.out.join("heat.safetensors").display(),
        human(start.elapsed())
    ));
    progress.say("next: heat train ebm=heat_gmm_c10 --train YOUR_FEATURES --head YOUR_HEAD");
    Ok(())
}

fn train_heat(
    name: &str,
    recipe: &str,
    args: &QuickstartArgs,
    train: &FeatureSet,
    head: &Head,
    progress: &mut Progress,
) -> Result<Arc<dyn Scorer>> {
    let settings = [format!("ebm={recipe}"), format!("seed={}", args.seed)];
    let recipe = Recipe::resolve(&settings, None)?;
    let prior = recipe.heat.fit_prior(train, Some(head), None, progress)?;
    progress.label = name.to_owned();
    progress.epochs_left = Some(recipe.heat.n_epochs);
    let observer: &mut dyn Observer = progress;
    let heat = recipe.heat.train(prior, train, observer)?;
    progress.label.clear();
    let scorer: Arc<dyn Scorer> = Arc::new(heat);
    let mut detector = Detector::shared(scorer.clone());
    detector.provenance.recipe = Some(recipe.to_toml());
    detector.provenance.seed = Some(args.seed);
    detector.save(args.out.join(format!("{}.safetensors", recipe.exp_name)))?;
    Ok(scorer)
}
