//! `heat info`: what a file holds.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use heat_ood::ebm::checkpoint;
use heat_ood::ebm::torch::{self, ReadOptions};
use heat_ood::features::{FeatureSet, FileFormat, Head};
use heat_ood::io::TensorFile;
use heat_ood::scorers::Section;
use heat_ood::statistics::Statistics;
use heat_ood::{Detector, Error, printable};

use super::{detector_file, open_options, write_output};
use crate::args::InfoArgs;

pub fn run(args: &InfoArgs) -> Result<()> {
    let path = &args.file;
    let run = path.join("recipe.toml").is_file();
    let path = if run { &detector_file(path)? } else { path };
    let numpy = matches!(FileFormat::of(path), Some(FileFormat::Npy | FileFormat::Npz));
    let options = open_options(args.dim, None);
    let torch = path.is_file() && path.extension().is_some_and(|e| e == "pt" || e == "pth");
    let tensors = path.is_file() && !numpy && FileFormat::of(path) != Some(FileFormat::Csv);
    let mut out = String::new();
    if torch {
        let net = torch::read(path, &ReadOptions::default())?;
        writeln!(out, "PyTorch checkpoint\n{}", torch::describe(net.architecture()))?;
    } else if tensors {
        let file = TensorFile::open(path)?;
        match file.metadata("format") {
            Some("heat-detector") => detector(&mut out, "detector", &file, args.verify)?,
            Some("heat-checkpoint") => {
                detector(&mut out, "checkpoint", &file, args.verify)?;
                let state = checkpoint::read_state(&file)?;
                let config = checkpoint::read_config(&file)?;
                writeln!(
                    out,
                    "epoch    {} of {}, step {}",
                    state.epoch,
                    config.total_epochs(),
                    state.step
                )?;
                writeln!(out, "seed     {}", config.seed)?;
            }
            Some("heat-statistics") => statistics(&mut out, &Statistics::open(path)?)?,
            _ if args.verify => return Err(no_proof(path, "this is no detector").into()),
            _ if file.has("weight") && file.has("bias") => head(&mut out, &Head::open(path)?)?,
            _ => features(&mut out, &FeatureSet::open_with(path, &options)?)?,
        }
    } else {
        features(&mut out, &FeatureSet::open_with(path, &options)?)?;
    }
    // Names, provenance and settings are texts of the file.
    let lines: Vec<String> = out.lines().map(|line| printable(line) + "\n").collect();
    write_output(None, &lines.concat())
}

fn statistics(out: &mut String, found: &Statistics) -> Result<()> {
    writeln!(out, "statistics of round {}", found.round())?;
    writeln!(out, "scorers  {}", found.scorers().join(", "))?;
    writeln!(out, "rows     {}", found.rows())?;
    for (name, rows) in found.parts() {
        writeln!(out, "part     {name} ({rows} rows)")?;
    }
    Ok(())
}

fn head(out: &mut String, head: &Head) -> Result<()> {
    writeln!(out, "head     {} classes, D = {}", head.classes(), head.dim())?;
    Ok(())
}

fn features(out: &mut String, set: &FeatureSet) -> Result<()> {
    writeln!(out, "features {} rows", set.len())?;
    let longest = set.fields().map(|field| field.name().len()).max().unwrap_or(0).max(6);
    for field in set.fields() {
        if let Some(dim) = set.dim(field) {
            writeln!(out, "  {:<longest$} [{}, {dim}]", field.name(), set.len())?;
        }
    }
    if set.labelled() {
        writeln!(out, "  label  {} classes", set.classes()?)?;
        class_names(out, &set.class_names())?;
    }
    if let Some(names) = set.names() {
        let (first, last) = (names.printable(0), names.printable(set.len() - 1));
        writeln!(out, "  name   {first} … {last}")?;
    }
    for notice in set.notices().iter().cloned().chain(set.label_notices()) {
        writeln!(out, "note     {notice}")?;
    }
    writeln!(out, "files    {}", set.files().len())?;
    Ok(())
}

/// What the classes are called, the first and the last of many.
fn class_names(out: &mut String, names: &[String]) -> Result<()> {
    const SHOWN: usize = 20;
    let line = |i: usize| format!("  class  {i} {}", names[i].escape_debug());
    for i in 0..names.len().min(SHOWN) {
        writeln!(out, "{}", line(i))?;
    }
    if names.len() > SHOWN {
        writeln!(out, "  …\n{}", line(names.len() - 1))?;
    }
    Ok(())
}

fn no_proof(path: &Path, why: &str) -> Error {
    Error::missing(path.display().to_string(), "probe rows to prove itself by", why)
}

fn detector(out: &mut String, what: &str, file: &TensorFile, verify: bool) -> Result<()> {
    let detector = Detector::from_file(file)?;
    if verify {
        let missing = || {
            let why = "files of earlier versions have none, nor have checkpoints; fit it again";
            no_proof(file.path(), why)
        };
        let proof = detector.verify()?.ok_or_else(missing)?;
        writeln!(
            out,
            "verified {} probe rows score as where it was made: the largest difference is {:.1e}, \
             rounding explains {:.1e}",
            proof.rows, proof.difference, proof.tolerance
        )?;
    }
    writeln!(out, "{what}, format version {}", file.metadata("version").unwrap_or("?"))?;
    section(out, "", &detector.scorer().section(), 0)?;
    let p = detector.provenance();
    if !p.library_version.is_empty() {
        writeln!(out, "made by  heat-ood {}", p.library_version)?;
    }
    class_names(out, &p.classes)?;
    for (name, sha) in &p.train {
        writeln!(out, "train    {name} sha256 {sha}")?;
    }
    for (name, sha) in &p.standardised_on {
        writeln!(out, "standardised on {name} sha256 {sha}")?;
    }
    if let Some(calibration) = detector.calibration() {
        writeln!(out, "verdicts {}", calibration.words())?;
        let thresholds = calibration.thresholds();
        match thresholds[..] {
            [one] => writeln!(out, "  rows scoring above {one} are called out-of-distribution")?,
            _ => writeln!(out, "  thresholds of the classes {thresholds:?}")?,
        }
        for (name, sha) in &calibration.files {
            writeln!(out, "  calibrated on {name} sha256 {sha}")?;
        }
    }
    if let Some(recipe) = &p.recipe {
        writeln!(out, "recipe")?;
        for line in recipe.lines() {
            writeln!(out, "  {line}")?;
        }
    }
    Ok(())
}

fn section(out: &mut String, name: &str, s: &Section, depth: usize) -> Result<()> {
    let indent = "  ".repeat(depth);
    let label = if name.is_empty() { String::new() } else { format!("{name}: ") };
    writeln!(out, "{indent}{label}{} {}", s.kind, s.config)?;
    for (tensor, t) in &s.tensors {
        writeln!(out, "{indent}  {tensor} {:?}", t.shape)?;
    }
    for (name, part) in &s.parts {
        section(out, name, part, depth + 1)?;
    }
    Ok(())
}
