//! `heat backbone inspect`, `heat backbone export` and `heat doctor`.

use std::io::Write;

use anyhow::Result;
use heat_images::backbone::{Backbone, BackboneOptions, Tap, find_library};

use super::{refuse_overwriting, wrote};
use crate::args::{BackboneCommand, NetworkArgs};
use crate::progress::Progress;

impl NetworkArgs {
    pub fn options(&self) -> BackboneOptions {
        BackboneOptions {
            tap: self.tap.clone(),
            arch: self.arch.clone(),
            prefix: self.prefix.clone(),
            library: None,
        }
    }
}

pub fn run(command: &BackboneCommand, progress: &mut Progress) -> Result<()> {
    match command {
        BackboneCommand::Inspect { file, network } => {
            let backbone = Backbone::open(file, &network.options())?;
            let mut out = std::io::stdout().lock();
            for line in describe(&backbone) {
                writeln!(out, "{line}")?;
            }
        }
        BackboneCommand::Export { file, network, output } => {
            refuse_overwriting(Some(output), &[file])?;
            let backbone = Backbone::open(file, &network.options())?;
            describe(&backbone).iter().for_each(|line| progress.say(line));
            backbone.save(output)?;
            wrote(progress, output);
        }
    }
    Ok(())
}

/// What was found, one thing a line.
pub fn describe(backbone: &Backbone) -> Vec<String> {
    let found = backbone.found();
    let network = backbone.architecture().map(|name| format!("weights   of a {name}"));
    let mut lines: Vec<String> = network.into_iter().collect();
    lines.extend([
        format!("input     {} {}", found.input, found.input_text()),
        match &found.tap {
            Tap::Map(name) => format!("features  {name}: a map, pooled to avg, std and max"),
            Tap::Vector(name) => format!("features  {name}: a vector, avg alone"),
        },
    ]);
    lines.push(match (&found.head, &found.linear) {
        (Some(head), Some((node, output))) => {
            format!("head      {node}: {} → {} classes, as {output}", head.dim(), head.classes())
        }
        _ => "head      none: no linear layer with constant weights at the end".into(),
    });
    lines.push(format!("graph     {} nodes, opset {}", found.nodes, found.opset));
    lines
}

pub fn doctor() -> Result<()> {
    let library = find_library(None)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "ONNX Runtime  {} (found by {})", library.path.display(), library.found_by)?;
    Ok(())
}
