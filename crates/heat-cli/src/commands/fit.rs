//! `heat fit`: one scorer, or the committee, one detector file.

use anyhow::Result;
use heat_ood::Error;
use heat_ood::scorers::ScorerSpec;
use heat_ood::select::{Standardise, fit_committee};

use super::scorers::COMMITTEE;
use super::{Data, merge, open, refuse_overwriting, scorers, wrote};
use crate::args::FitArgs;
use crate::progress::Progress;
use crate::words::with_help;

pub fn run(args: &FitArgs, progress: &mut Progress) -> Result<()> {
    if args.scorer.contains('=') && !args.scorer.contains('(') {
        let problem = "the scorer's name comes first, then its settings: `heat fit knn k=50 …`";
        return Err(Error::config(&args.scorer, "", problem).into());
    }
    if args.scorer == COMMITTEE {
        return committee(args, progress);
    }
    if args.standardise.is_some() {
        let problem = format!("members of a composition are standardised: `heat fit {COMMITTEE}`");
        return Err(Error::config("standardise", &args.scorer, problem).into());
    }
    let mut spec = ScorerSpec::parse(&args.scorer)?;
    let more = ScorerSpec::new(&spec.name, args.settings.iter().map(String::as_str))?;
    spec.settings.extend(more.settings);
    let data = data(args, progress)?;
    if args.partial {
        return merge::partial(args, &spec, &data, progress);
    }
    let fitted = scorers::fit(std::slice::from_ref(&spec), &data, progress)?.remove(0);
    scorers::detector(fitted.scorer, &spec.to_string()).save(&args.output)?;
    wrote(progress, &args.output);
    Ok(())
}

fn data(args: &FitArgs, progress: &Progress) -> Result<Data> {
    let mut inputs = vec![&*args.data.train];
    let more = [&args.data.labels, &args.data.head, &args.standardise, &args.after];
    inputs.extend(more.into_iter().flatten().map(|p| &**p));
    refuse_overwriting(Some(&args.output), &inputs)?;
    Data::open(&args.data, progress)?.subset(&args.subset.config())
}

/// The fixed committee as one detector.
fn committee(args: &FitArgs, progress: &mut Progress) -> Result<()> {
    if args.partial {
        let problem =
            "its members are standardised on rows: gather and merge each, then `heat compose` them";
        return Err(Error::config("partial", COMMITTEE, problem).into());
    }
    if let Some(setting) = args.settings.first() {
        let problem = "the committee has no settings; fit its members, and `heat compose` them";
        return Err(Error::config(setting, "", problem).into());
    }
    let data = data(args, progress)?;
    let held_out = args.standardise.as_ref();
    let held_out = held_out.map(|path| open(path, &data.options, data.head.as_ref(), progress));
    let held_out = held_out.transpose()?;
    if let (Some(set), Some(origin)) = (&held_out, data.train.origin()) {
        set.check_origin(origin)?;
    }
    let standardise = match &held_out {
        Some(set) => Standardise::HeldOut(set),
        None => Standardise::Fifth(0),
    };
    let found = fit_committee(standardise, &data.training(), progress)?;
    progress.clear();
    for (name, reason) in &found.skipped {
        progress.warn(&format!("{name} is left out: {}", with_help(reason.clone())));
    }
    let recipe = format!("committee: {}", found.members.join(" + "));
    progress.say(&recipe);
    scorers::detector(found.scorer, &recipe).save(&args.output)?;
    wrote(progress, &args.output);
    Ok(())
}
