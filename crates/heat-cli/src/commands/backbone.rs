//! `heat backbone inspect` and `heat doctor`.

use std::io::Write;

use anyhow::Result;
use heat_ood::backbone::{Backbone, BackboneOptions, Found, Tap, find_library};

use crate::args::BackboneCommand;

pub fn run(command: &BackboneCommand) -> Result<()> {
    let BackboneCommand::Inspect { file, tap } = command;
    let options = BackboneOptions { tap: tap.clone(), ..BackboneOptions::default() };
    let backbone = Backbone::open(file, &options)?;
    let mut out = std::io::stdout().lock();
    for line in describe(backbone.found()) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// What was found, one thing a line.
pub fn describe(found: &Found) -> Vec<String> {
    let mut lines = vec![
        format!("input     {} {}", found.input, found.input_text()),
        match &found.tap {
            Tap::Map(name) => format!("features  {name}: a map, pooled to avg, std and max"),
            Tap::Vector(name) => format!("features  {name}: a vector, avg alone"),
        },
    ];
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
