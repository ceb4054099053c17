//! `heat select`: which scorer, without looking at test data.

use std::path::Path;

use anyhow::Result;
use heat_ood::features::FeatureSet;
use heat_ood::scorers::ScorerSpec;
use heat_ood::select::{
    IdRows, SelectConfig, Selection, Standardise, Surrogates, Tuning, fit_composition, tune,
};
use heat_ood::{Detector, Error, printable};
use serde_json::Value;

use super::outputs::{hashes, hashes_of, hashes_of_each, made};
use super::statistics::with_made;
use super::{
    Data, TestSets, named, open, refuse_overwriting, scorers, unless_forced, write_output, wrote,
};
use crate::args::{Form, SelectArgs};
use crate::export::aligned;
use crate::progress::Progress;
use crate::words::with_help;

pub fn run(args: &SelectArgs, progress: &mut Progress) -> Result<()> {
    refuse(args)?;
    // Words that are none are told before anything is opened.
    specs(args, None)?;
    let data = Data::open(&args.data, progress)?;
    let specs = specs(args, Some(&data))?;
    let choice = match (&args.surrogates, args.tune_on.is_empty()) {
        (Some(directory), _) => by_surrogates(args, &specs, &data, directory, progress)?,
        (None, false) => tuned(args, &specs, &data, progress)?,
        (None, true) => selected(args, &specs, &data, progress)?,
    };
    progress.clear();
    write_output(None, &choice.text)?;
    if let Some(path) = &args.output {
        detector(&choice, &data, args.seed, progress)?.save(path)?;
        wrote(progress, path);
    }
    Ok(())
}

/// What was chosen.
struct Choice {
    text: String,
    chosen: Chosen,
    /// ID rows that it was chosen by, where these are given.
    id: Option<FeatureSet>,
    /// Sets that played OOD, where these are given.
    ood: Vec<(String, FeatureSet)>,
}

enum Chosen {
    One(String),
    Several(Box<Selection>),
}

/// Refuse test sets, and outputs that would replace an input.
fn refuse(args: &SelectArgs) -> Result<()> {
    if args.id.is_some() || !args.ood.is_empty() {
        let problem = "test sets are not looked at: a choice made on them proves nothing there. \
                       Validation sets are given with --tune-on NAME=FEATURES --id-val FEATURES";
        return Err(Error::config("ood", "", problem).into());
    }
    if let (Some(id), None, true) = (&args.id_val, &args.surrogates, args.tune_on.is_empty()) {
        let problem = "ID validation rows go with `--tune-on` or `--surrogates`";
        return Err(Error::config("id-val", id.display(), problem).into());
    }
    let files: Vec<_> = args.tune_on.iter().map(|t| named(t).1).collect();
    let plain = [&args.data.labels, &args.data.head, &args.id_val, &args.surrogates];
    let mut inputs = vec![&*args.data.train];
    inputs.extend(plain.into_iter().flatten().chain(&files).map(|p| &**p));
    refuse_overwriting(args.output.as_deref(), &inputs)
}

fn tuned(
    args: &SelectArgs,
    specs: &[ScorerSpec],
    data: &Data,
    progress: &mut Progress,
) -> Result<Choice> {
    let Some(id) = &args.id_val else {
        let remedy = "give it with `--id-val`";
        return Err(Error::needs("`--tune-on`", "an ID validation set", remedy).into());
    };
    let sets = TestSets::open(id, &args.tune_on, &data.options, Some(data), progress)?;
    if let Some(origin) = data.train.origin() {
        let theirs = sets.ood.iter().map(|(_, set)| set);
        std::iter::once(&sets.id)
            .chain(theirs)
            .try_for_each(|set| unless_forced(set.check_origin(origin), args.force))?;
    }
    let found = tune(specs, &data.training(), &sets.id, &sets.ood, args.strict, progress)?;
    warn_without_effect(&found, progress);
    Ok(Choice {
        text: tuning_text(&found, args.format, &made(hashes_of(Some(data), Some(&sets))?)),
        chosen: Chosen::One(found.candidates[found.best].name.clone()),
        id: Some(sets.id),
        ood: sets.ood,
    })
}

fn selected(
    args: &SelectArgs,
    specs: &[ScorerSpec],
    data: &Data,
    progress: &mut Progress,
) -> Result<Choice> {
    let found = config(args).run(specs, &data.training(), progress)?;
    let text = selection_text(&found, args.format, &made(hashes_of(Some(data), None)?));
    Ok(Choice { text, chosen: Chosen::Several(Box::new(found)), id: None, ood: Vec::new() })
}

fn config(args: &SelectArgs) -> SelectConfig {
    let SelectArgs { folds, rows, kind_rows, members, seed, strict, .. } = *args;
    SelectConfig { folds, rows, kind_rows, members, seed, strict }
}

fn by_surrogates(
    args: &SelectArgs,
    specs: &[ScorerSpec],
    data: &Data,
    directory: &Path,
    progress: &mut Progress,
) -> Result<Choice> {
    let mut sets = Surrogates::open(directory, &data.options)?;
    if let Some(path) = &args.id_val {
        sets.id = Some(open(path, &data.options, data.head.as_ref(), progress)?);
    }
    sets.id = sets.id.map(|id| id.numbered_as(&data.whole));
    if let Some(origin) = data.train.origin() {
        unless_forced(sets.check_origin(origin), args.force)?;
    }
    let found = config(args).run_on(specs, &data.training(), &sets, progress)?;
    progress.clear();
    match (found.id, &sets.id) {
        (IdRows::OfTraining { rows }, Some(id)) => progress.say(&format!(
            "note: {rows} training rows are ID rows of {}: left out of the fits that scorers are \
             ranked by, not of the detector's",
            id.name()
        )),
        (IdRows::Fifth, _) => progress.say(
            "note: there are no ID rows beside what plays OOD: a fifth of the training rows is left \
             out of the fits that scorers are ranked by, not of the detector's",
        ),
        _ => {}
    }
    let mut read = hashes_of(Some(data), None)?;
    read.extend(hashes_of_each("surrogates", &sets.kinds)?);
    if let Some(id) = &sets.id {
        read.insert("id".into(), hashes(id)?);
    }
    let text = selection_text(&found, args.format, &made(read));
    Ok(Choice { text, chosen: Chosen::Several(Box::new(found)), id: sets.id, ood: sets.kinds })
}

/// What was chosen, fitted on the whole training set.
fn detector(choice: &Choice, data: &Data, seed: u64, progress: &mut Progress) -> Result<Detector> {
    let one;
    let (composition, standardise) = match &choice.chosen {
        Chosen::One(name) => {
            one = [(name.clone(), 1.0)];
            (&one[..], Standardise::Training)
        }
        Chosen::Several(found) => {
            (&found.composition[..], found.standardise(choice.id.as_ref(), seed))
        }
    };
    let scorer = fit_composition(composition, standardise, &data.training(), progress)?;
    let words: Vec<String> = composition.iter().map(|(n, w)| format!("{w:.4} {n}")).collect();
    let recipe = format!("select: {}", words.join(" + "));
    let mut detector = scorers::detector(scorer, &recipe);
    // These are no rows to calibrate on.
    choice.id.iter().try_for_each(|id| detector.record_seen(id))?;
    choice.ood.iter().try_for_each(|(_, set)| detector.record_tuning(set))?;
    Ok(detector)
}

fn specs(args: &SelectArgs, data: Option<&Data>) -> Result<Vec<ScorerSpec>> {
    scorers::specs(args.scorers.as_deref().unwrap_or("all,committee"), true, data)
}

/// Settings that change nothing that was fitted, and no score.
fn warn_without_effect(found: &Tuning, progress: &mut Progress) {
    for (i, c) in found.candidates.iter().enumerate() {
        let same = |o: &&heat_ood::select::Tuned| {
            o.tensors_sha256 == c.tensors_sha256 && o.by_set == c.by_set
        };
        if let Some(other) = found.candidates[..i].iter().find(same) {
            progress.say(&format!(
                "warning: {} was fitted to the same numbers as {}, with the same results: \
                 the setting between them has no effect here",
                c.name, other.name
            ));
        }
    }
}

fn percent(value: f64) -> String {
    format!("{:.2}", 100.0 * value)
}

/// Scorers that could not be tried.
fn left_out(skipped: &[(String, String)]) -> String {
    let line = |(name, reason): &(String, String)| {
        format!("left out: {name}: {}\n", printable(&with_help(reason.clone())))
    };
    skipped.iter().map(line).collect()
}

fn selection_text(found: &Selection, form: Form, made: &Value) -> String {
    if form == Form::Json {
        let json = serde_json::to_string(found).unwrap_or_default();
        return with_made(&json, made);
    }
    // All kinds where a line has room for them, else what sums them up; JSON has all.
    const MOST: usize = 6;
    let several = found.groups.len() > 1;
    let mut titles = vec!["scorer".to_owned(), "AUROC".into()];
    let with_error = found.ranking.iter().any(|r| r.error.is_some());
    titles.extend(with_error.then(|| "± error".to_owned()));
    titles.extend(found.groups.iter().filter(|_| several).map(|g| (*g).to_owned()));
    let kinds: &[String] = if found.kinds.len() <= MOST { &found.kinds } else { &[] };
    titles.extend(kinds.iter().map(|kind| printable(kind)));
    titles.extend(kinds.is_empty().then(|| "lowest".to_owned()));
    let rows = found.ranking.iter().map(|r| {
        let mut row = vec![r.name.clone(), percent(r.auroc)];
        row.extend(with_error.then(|| r.error.map_or("–".to_owned(), percent)));
        row.extend(r.by_group.iter().map(|a| percent(*a)));
        match kinds {
            [] => {
                let lowest = (0..r.by_kind.len())
                    .min_by(|a, b| r.by_kind[*a].total_cmp(&r.by_kind[*b]))
                    .map(|k| format!("{} {}", percent(r.by_kind[k]), printable(&found.kinds[k])));
                row.extend(lowest);
            }
            _ => row.extend(r.by_kind.iter().map(|a| percent(*a))),
        }
        row
    });
    let mut out = format!("{}\n\n", aligned(titles, rows.collect(), 1));
    out.push_str(&about(found));
    out.push_str(&composed(found));
    out.push_str(&left_out(&found.skipped));
    out
}

/// What the table shows, and how far the ranking is to be trusted.
fn about(found: &Selection) -> String {
    let number = |value: Option<f64>| value.map_or("–".to_owned(), |a| format!("{a:.2}"));
    let trust = found.trust();
    if found.folds > 1 {
        return format!(
            "AUROC on pseudo-OOD rows made of the training set alone, in percent, mean of {} folds.\n\
             agreement of the kinds of outliers (rank correlation): {}: {trust}\n",
            found.folds,
            number(found.agreement),
        );
    }
    let kinds: Vec<_> = found.kinds.iter().map(|kind| printable(kind)).collect();
    let mut out =
        format!("AUROC on {} in percent; each scorer was fitted once.\n", kinds.join(", "));
    if let [a, b] = found.groups[..] {
        let disputed = found.disputed(3).into_iter();
        let disputed = disputed.map(|(name, [x, y])| format!("{name} {x} and {y}"));
        out.push_str(&format!(
            "two groups count alike, {a} (like near OOD) and {b} (like far OOD): rank correlation {}; \
             places differ most of {}\n",
            number(found.agreement),
            disputed.collect::<Vec<_>>().join(", "),
        ));
    }
    let halves = number(found.stability);
    out.push_str(&format!("rank correlation of two halves of the kinds: {halves}: {trust}\n"));
    out
}

/// What is composed, and why.
fn composed(found: &Selection) -> String {
    let list = |members: &[(String, f64)]| -> String {
        let words: Vec<String> = members.iter().map(|(name, w)| format!("{w:.2} {name}")).collect();
        words.join(" + ")
    };
    let known = if found.fallback.len() > 1 { "committee" } else { "best scorer" };
    let mut out =
        format!("{known}: {} ({})\n", list(&found.fallback), percent(found.fallback_auroc));
    out.push_str(&match &found.evidence {
        None => "too few kinds to show that another composition is better\n".to_owned(),
        Some(e) => format!(
            "found: {} ({} on the rows that chose it); each kind left out of the choice in turn, it \
             gains {:+.2} ± {:.2} there: {}\n",
            list(&found.found),
            percent(found.found_auroc),
            100.0 * e.mean,
            100.0 * e.standard_error,
            if e.suffices { "better" } else { "not shown to be better" },
        ),
    });
    out.push_str(&format!("composition: {}\n", list(&found.composition)));
    out
}

fn tuning_text(found: &Tuning, form: Form, made: &Value) -> String {
    if form == Form::Json {
        let json = serde_json::to_string(found).unwrap_or_default();
        return with_made(&json, made);
    }
    let sets = found.candidates[0].by_set.iter().map(|(name, _)| name.clone());
    let titles = ["fit", "scorer", "fitted sha256", "AUROC"].map(str::to_owned);
    let rows = found.candidates.iter().map(|c| {
        let mut row =
            vec![c.fit.to_string(), c.name.clone(), c.sha256[..12].to_owned(), percent(c.auroc)];
        row.extend(c.by_set.iter().map(|(_, a)| percent(*a)));
        row
    });
    format!(
        "{}\n\nEach candidate was fitted anew on the training set. best: {}\n\
         The validation sets are no sets to report results on.\n{}",
        aligned(titles.into_iter().chain(sets).collect(), rows.collect(), 3),
        found.candidates[found.best].name,
        left_out(&found.skipped),
    )
}
