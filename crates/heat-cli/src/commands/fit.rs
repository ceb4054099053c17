//! `heat fit`: one scorer, one detector file.

use anyhow::Result;
use heat_ood::Error;
use heat_ood::scorers::ScorerSpec;

use super::{Data, refuse_overwriting, scorers, wrote};
use crate::args::FitArgs;
use crate::progress::Progress;

pub fn run(args: &FitArgs, progress: &mut Progress) -> Result<()> {
    if args.scorer.contains('=') && !args.scorer.contains('(') {
        let problem = "the scorer's name comes first, then its settings: `heat fit knn k=50 …`";
        return Err(Error::config(&args.scorer, "", problem).into());
    }
    let mut spec = ScorerSpec::parse(&args.scorer)?;
    let more = ScorerSpec::new(&spec.name, args.settings.iter().map(String::as_str))?;
    spec.settings.extend(more.settings);
    let mut inputs = vec![&*args.data.train];
    inputs.extend([&args.data.labels, &args.data.head].into_iter().flatten().map(|p| &**p));
    refuse_overwriting(Some(&args.output), &inputs)?;
    let data = Data::open(&args.data, progress)?.subset(&args.subset.config())?;
    let fitted = scorers::fit(std::slice::from_ref(&spec), &data, progress)?.remove(0);
    scorers::detector(fitted.scorer, &spec.to_string()).save(&args.output)?;
    wrote(progress, &args.output);
    Ok(())
}
