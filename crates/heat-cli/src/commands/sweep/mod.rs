//! `heat sweep`: every combination of a grid, a run directory each, one summary.
//!
//! Runs are child processes (`child`), taken from a queue by `--jobs` threads.
//! What is finished is read off the run directories (`directory`), so a sweep goes on
//! wherever it was killed.

mod child;
mod directory;
mod evaluation;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use heat_ood::ebm::PriorKind;
use heat_ood::features::Subset;
use heat_ood::io::{mapping, memory_limit, write_own};
use heat_ood::math::parallel;
use heat_ood::recipe::{Grid, GridRun};
use heat_ood::{Event, Observer, Silent};
use serde_json::Value;

use super::outputs::{hashes_of, made};
use super::statistics::with_made;

use self::child::Launcher;
use self::directory::{Identity, SweepDirectory};
use self::evaluation::Sets;
use super::{Data, named, refuse_overwriting, write_output, wrote};
use crate::args::{Order, SweepArgs};
use crate::export::{self, Format, Outcome, Summary};
use crate::progress::{Progress, human, stop_on_ctrl_c};

/// Everything that the workers share.
struct Sweep<'a> {
    runs: &'a [GridRun],
    /// The part of the training set of each run.
    parts: &'a [Subset],
    directory: &'a SweepDirectory,
    launcher: Launcher,
    sets: Option<Sets>,
    /// How it came about, for sweep.json.
    made: &'a Value,
    /// Threads of each run.
    threads: usize,
    next: AtomicUsize,
    stop: AtomicBool,
}

/// What a worker tells.
enum Report {
    Line(usize, String),
    Ended(usize, Box<Outcome>),
}

pub fn run(args: &SweepArgs, progress: &mut Progress) -> Result<()> {
    let inputs = inputs(args);
    refuse_overwriting(args.output.as_deref(), &inputs.iter().map(|p| &**p).collect::<Vec<_>>())?;
    let runs = Grid::parse(&args.settings)?.resolve(args.recipes.as_deref())?;
    for notice in runs.first().map_or(&[][..], |r| &r.recipe.notices) {
        progress.say(&format!("note: {notice}"));
    }
    let data = Data::open(&args.data, progress)?;
    let parts = runs.iter().map(|run| check(run, &data)).collect::<Result<Vec<_>>>()?;
    let sets = args.id.as_ref().map(|id| Sets::open(id, &args.ood, &data, progress));
    let sets = sets.transpose()?;
    let identity = Identity {
        settings: &args.settings,
        runs: &runs,
        train: data.train.digests()?.into_iter().map(|(_, sha)| sha).collect(),
        head: data.head.as_ref().map(|h| h.digest()),
    };
    let directory = SweepDirectory::open(&args.out, &identity, args.resume)?;
    stop_on_ctrl_c()?;
    let threads = (parallel::threads() / usize::from(args.jobs)).max(1);
    let made = made(hashes_of(Some(&data), sets.as_ref().map(Sets::opened))?);
    let sweep = Sweep {
        made: &made,
        runs: &runs,
        parts: &parts,
        directory: &directory,
        launcher: Launcher::new(shared_arguments(args, threads, progress.is_quiet()))?,
        sets,
        threads,
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
    };
    let outcomes = sweep.run(usize::from(args.jobs), progress)?;
    let mut summary = Summary::new(&runs, &outcomes);
    if args.sort == Order::Auroc {
        summary.sort_by_auroc();
    }
    let text = export::sweep(&summary, args.format);
    let text = if args.format == Format::Json { with_made(&text, &made) } else { text };
    write_output(args.output.as_deref(), &text)?;
    if let Some(path) = &args.output {
        wrote(progress, path);
    }
    conclude(&runs, &outcomes, &args.out)
}

/// Exit 1 unless all runs are finished.
fn conclude(runs: &[GridRun], outcomes: &[Outcome], out: &Path) -> Result<()> {
    let done = outcomes.iter().filter(|o| o.last.is_some() && o.error.is_none()).count();
    let of = |(run, o): (&GridRun, &Outcome)| {
        Some(format!("\n  {}: {}", run.name, o.error.as_ref()?.replace('\n', "\n    ")))
    };
    let errors: Vec<String> = runs.iter().zip(outcomes).filter_map(of).collect();
    if !errors.is_empty() {
        bail!("{} of {} runs failed:{}", errors.len(), runs.len(), errors.concat());
    }
    if done < runs.len() {
        let out = out.display();
        bail!(
            "stopped; {done} of {} runs in {out} are finished: continue with `--resume`",
            runs.len()
        );
    }
    Ok(())
}

/// What would make a run fail at once; its part of the training set.
fn check(run: &GridRun, data: &Data) -> Result<Subset> {
    let part = run.recipe.subset().fit(&data.train)?;
    run.recipe.check(&part.apply(&data.train)?)?;
    let heat = &run.recipe.heat;
    if heat.ebm.prior == PriorKind::El && data.head.is_none() {
        heat.fit_prior(&data.training(), &mut Silent)?;
    }
    Ok(part)
}

fn described(outcome: &Outcome) -> String {
    match outcome {
        Outcome { error: Some(error), .. } => format!("failed: {error}"),
        Outcome { already: false, seconds: Some(s), .. } => {
            format!("finished in {}", human(Duration::from_secs_f64(*s)))
        }
        _ => "is finished already".to_owned(),
    }
}

fn inputs(args: &SweepArgs) -> Vec<PathBuf> {
    let data = [&args.data.labels, &args.data.head, &args.id].into_iter().flatten().cloned();
    let ood = args.ood.iter().map(|text| named(text).1);
    data.chain(ood).chain([args.data.train.clone()]).collect()
}

fn shared_arguments(args: &SweepArgs, threads: usize, quiet: bool) -> Vec<OsString> {
    let mut list: Vec<OsString> = vec!["--threads".into(), threads.to_string().into()];
    let data = &args.data;
    let files = [
        ("--train", Some(&data.train)),
        ("--labels", data.labels.as_ref()),
        ("--head", data.head.as_ref()),
        ("--recipes", args.recipes.as_ref()),
    ];
    for (name, file) in files {
        if let Some(file) = file {
            list.extend([name.into(), file.into()]);
        }
    }
    if let Some(dim) = data.dim {
        list.extend(["--dim".into(), dim.to_string().into()]);
    }
    if quiet {
        list.push("--quiet".into());
    }
    if !mapping() {
        list.push("--no-mmap".into());
    }
    list.extend(["--memory".into(), memory_limit().to_string().into()]);
    list
}

impl Sweep<'_> {
    /// Run what is not finished, `jobs` at a time, keeping sweep.json up to date.
    fn run(&self, jobs: usize, progress: &mut Progress) -> Result<Vec<Outcome>> {
        let mut outcomes = self.earlier();
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            for _ in 0..jobs.min(self.runs.len()) {
                let (sender, seconds) = (sender.clone(), outcomes.iter().map(|o| o.seconds));
                let seconds: Vec<Option<f64>> = seconds.collect();
                scope.spawn(move || self.work(&seconds, &sender));
            }
            drop(sender);
            let result = self.collect(&mut outcomes, &receiver, progress);
            if result.is_err() {
                self.stop.store(true, Ordering::SeqCst);
                self.launcher.stop();
            }
            result
        })?;
        progress.clear();
        Ok(outcomes)
    }

    /// Seconds that an earlier sweep measured.
    fn earlier(&self) -> Vec<Outcome> {
        let text = heat_ood::io::read_text(&self.directory.summary()).unwrap_or_default();
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        let seconds = |run: &GridRun| json["runs"][&run.name]["seconds"].as_f64();
        let outcome = |run| Outcome { seconds: seconds(run), ..Outcome::default() };
        self.runs.iter().map(outcome).collect()
    }

    /// Hear the workers until the last one ends.
    fn collect(
        &self,
        outcomes: &mut [Outcome],
        receiver: &Receiver<Report>,
        progress: &mut Progress,
    ) -> Result<()> {
        progress.on(Event::Begin { task: "sweep", total: self.runs.len() as u64 });
        let mut done = 0;
        loop {
            match receiver.recv_timeout(Duration::from_millis(50)) {
                Ok(Report::Line(i, line)) => self.say(i, &line, progress),
                Ok(Report::Ended(i, outcome)) => {
                    done += 1;
                    let text = described(&outcome);
                    self.say(i, &format!("{text} ({done} of {})", self.runs.len()), progress);
                    progress.on(Event::Advance { done, loss: None });
                    outcomes[i] = *outcome;
                    self.write_summary(outcomes)?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if progress.should_stop() {
                self.stop.store(true, Ordering::SeqCst);
                self.launcher.stop();
            }
        }
    }

    fn say(&self, run: usize, line: &str, progress: &mut Progress) {
        let name = &self.runs[run].name;
        match line.strip_prefix("warning: ") {
            Some(text) => progress.on(Event::Warning(&format!("{name}: {text}"))),
            None => progress.say(&format!("{name}: {line}")),
        }
    }

    fn write_summary(&self, outcomes: &[Outcome]) -> Result<()> {
        let mut json = Summary::new(self.runs, outcomes).json();
        json["made"] = self.made.clone();
        Ok(write_own(&self.directory.summary(), |w| w.write_all(format!("{json:#}\n").as_bytes()))?)
    }

    /// Take runs until there are none.
    fn work(&self, seconds: &[Option<f64>], sender: &Sender<Report>) {
        loop {
            let i = self.next.fetch_add(1, Ordering::SeqCst);
            if i >= self.runs.len() || self.stop.load(Ordering::SeqCst) {
                return;
            }
            let mut outcome = Outcome { seconds: seconds[i], ..Outcome::default() };
            let result = self.one(i, &mut outcome, sender);
            // An interrupted run has not failed.
            if result.is_err() && self.stop.load(Ordering::SeqCst) {
                return;
            }
            outcome.error = result.err();
            let _ = sender.send(Report::Ended(i, Box::new(outcome)));
        }
    }

    /// Train and evaluate one run, as far as that is not done.
    fn one(&self, i: usize, outcome: &mut Outcome, sender: &Sender<Report>) -> Result<(), String> {
        let text = |e: anyhow::Error| format!("{e:#}");
        let run = &self.runs[i];
        let directory = self.directory.run(run);
        if directory.is_dir() {
            directory::prepare(&directory, run).map_err(text)?;
        }
        outcome.already = directory::finished(&directory, run);
        if !outcome.already {
            let start = Instant::now();
            let mut say = |line: &str| drop(sender.send(Report::Line(i, line.to_owned())));
            self.launcher.train(i, run, &directory, &mut say)?;
            outcome.seconds = Some(start.elapsed().as_secs_f64());
        }
        heat_ood::io::remove_abandoned(&directory);
        if let Some(sets) = &self.sets {
            outcome.metrics =
                sets.metrics(&directory, &self.parts[i], self.threads, self.made).map_err(text)?;
        }
        outcome.last = Some(directory::last_epoch(&directory).map_err(text)?);
        Ok(())
    }
}
