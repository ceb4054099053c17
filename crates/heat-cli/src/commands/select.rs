//! `heat select`: which scorer, without looking at test data.

use std::path::Path;

use anyhow::Result;
use heat_ood::scorers::ScorerSpec;
use heat_ood::select::{SelectConfig, Selection, Tuning, fit_composition, kinds, tune};
use heat_ood::{Detector, Error, printable};
use serde_json::Value;

use super::outputs::{hashes_of, made};
use super::statistics::with_made;
use super::{
    Data, TestSets, named, refuse_overwriting, scorers, unless_forced, write_output, wrote,
};
use crate::args::{Form, SelectArgs};
use crate::export::aligned;
use crate::progress::Progress;
use crate::words::with_help;

pub fn run(args: &SelectArgs, progress: &mut Progress) -> Result<()> {
    refuse(args)?;
    let specs = specs(args)?;
    let data = Data::open(&args.data, progress)?;
    let choice = match &args.id_val {
        Some(id) => tuned(args, &specs, &data, id, progress)?,
        None => selected(args, &specs, &data, progress)?,
    };
    progress.clear();
    write_output(None, &choice.text)?;
    if let Some(path) = &args.output {
        detector(&choice, &data, progress)?.save(path)?;
        wrote(progress, path);
    }
    Ok(())
}

/// What was chosen.
struct Choice {
    text: String,
    /// Scorers with their weights.
    composition: Vec<(String, f64)>,
    /// The rows that settings were chosen on.
    validation: Option<TestSets>,
}

/// Refuse test sets, and outputs that would replace an input.
fn refuse(args: &SelectArgs) -> Result<()> {
    if args.id.is_some() || !args.ood.is_empty() {
        let problem = "test sets are not looked at: a choice made on them proves nothing there. \
                       Validation sets are given with --tune-on NAME=FEATURES --id-val FEATURES";
        return Err(Error::config("ood", "", problem).into());
    }
    let files: Vec<_> = args.tune_on.iter().map(|t| named(t).1).collect();
    let plain = [&args.data.labels, &args.data.head, &args.id_val].into_iter().flatten();
    let mut inputs = vec![&*args.data.train];
    inputs.extend(plain.chain(&files).map(|p| &**p));
    refuse_overwriting(args.output.as_deref(), &inputs)
}

fn tuned(
    args: &SelectArgs,
    specs: &[ScorerSpec],
    data: &Data,
    id: &Path,
    progress: &mut Progress,
) -> Result<Choice> {
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
        composition: vec![(found.candidates[found.best].name.clone(), 1.0)],
        validation: Some(sets),
    })
}

fn selected(
    args: &SelectArgs,
    specs: &[ScorerSpec],
    data: &Data,
    progress: &mut Progress,
) -> Result<Choice> {
    let SelectArgs { folds, rows, members, seed, strict, .. } = *args;
    let config = SelectConfig { folds, rows, members, seed, strict };
    let found = config.run(specs, &data.training(), progress)?;
    let text = selection_text(&found, args.format, &made(hashes_of(Some(data), None)?));
    Ok(Choice { text, composition: found.composition, validation: None })
}

/// What was chosen, fitted on the whole training set.
fn detector(choice: &Choice, data: &Data, progress: &mut Progress) -> Result<Detector> {
    let composition = &choice.composition;
    let scorer = fit_composition(composition, &data.training(), progress)?;
    let words: Vec<String> = composition.iter().map(|(n, w)| format!("{w:.4} {n}")).collect();
    let recipe = format!("select: {}", words.join(" + "));
    let mut detector = scorers::detector(scorer, &recipe);
    // These are no rows to calibrate on.
    if let Some(TestSets { id, ood }) = &choice.validation {
        detector.record_seen(id)?;
        ood.iter().try_for_each(|(_, set)| detector.record_tuning(set))?;
    }
    Ok(detector)
}

fn specs(args: &SelectArgs) -> Result<Vec<ScorerSpec>> {
    scorers::specs(args.scorers.as_deref().unwrap_or("all"), true)
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
    let mut titles = vec!["scorer".to_owned(), "AUROC".into(), "± error".into()];
    titles.extend(kinds().into_iter().map(str::to_owned));
    let rows = found.ranking.iter().map(|r| {
        let mut row = vec![r.name.clone(), percent(r.auroc), percent(r.error)];
        row.extend(r.by_kind.iter().map(|a| percent(*a)));
        row
    });
    let members: Vec<String> =
        found.composition.iter().map(|(name, w)| format!("{w:.2} {name}")).collect();
    format!(
        "{}\n\nAUROC on pseudo-OOD rows made of the training set alone, in percent, mean of {} folds.\n\
         agreement of the kinds of outliers (rank correlation): {}: {}\n\
         composition: {} ({} on the rows that chose it)\n{}",
        aligned(titles, rows.collect(), 1),
        found.folds,
        found.agreement.map_or("–".to_owned(), |a| format!("{a:.2}")),
        found.trust(),
        members.join(" + "),
        percent(found.composed_auroc),
        left_out(&found.skipped),
    )
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
