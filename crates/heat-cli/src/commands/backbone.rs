//! `heat backbone inspect`, `heat backbone export` and `heat doctor`.

use std::io::Write;

use anyhow::Result;
use heat_images::backbone::{
    Backbone, BackboneOptions, Chosen, Layer, LayersAsked, Tap, find_library,
};
use heat_ood::Error;

use super::{refuse_overwriting, wrote};
use crate::args::{BackboneCommand, NetworkArgs};
use crate::progress::Progress;

impl NetworkArgs {
    pub fn options(&self) -> BackboneOptions {
        BackboneOptions {
            tap: self.tap.iter().find(|tap| named(tap).is_none()).cloned(),
            output: self.output_name.clone(),
            classes: None,
            arch: self.arch.clone(),
            prefix: self.prefix.clone(),
            library: None,
        }
    }

    /// Further layers: those named, and as many as are to be found.
    pub fn layers(&self, found: Option<usize>) -> Result<LayersAsked> {
        if let Some(twice) = self.tap.iter().filter(|tap| named(tap).is_none()).nth(1) {
            let problem = "features are taken at one tensor; name further ones, as NAME=TENSOR";
            return Err(Error::config("tap", twice, problem).into());
        }
        Ok(LayersAsked { named: self.tap.iter().filter_map(|tap| named(tap)).collect(), found })
    }
}

/// A tensor to take beside the features, with its name.
fn named(tap: &str) -> Option<(String, String)> {
    tap.split_once('=').map(|(name, tensor)| (name.to_owned(), tensor.to_owned()))
}

pub fn run(command: &BackboneCommand, progress: &mut Progress) -> Result<()> {
    match command {
        BackboneCommand::Inspect { file, network } => {
            let backbone = Backbone::open(file, &network.options())?;
            let mut out = std::io::stdout().lock();
            for line in describe(&backbone).into_iter().chain(seen(&backbone)) {
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
    let last = if found.channels_last { ", channels last: images are turned" } else { "" };
    lines.extend([
        format!("input     {} {}{last}", found.input, found.input_text()),
        match &found.tap {
            Tap::Map(name) => format!("features  {name}: a map, pooled to avg, std and max"),
            Tap::Vector(name) => format!("features  {name}: a vector, avg alone"),
        },
    ]);
    lines.push(match (&found.head, &found.linear, &found.headless) {
        (Some(head), Some((node, output)), _) => {
            format!("head      {node}: {} → {} classes, as {output}", head.dim(), head.classes())
        }
        (_, _, Some(why)) => format!("head      none: {why}"),
        _ => "head      none".into(),
    });
    if let Some(Chosen { output, others, why }) = &found.chosen {
        let others = others.join(", ");
        lines.push(format!(
            "output    {output}, chosen {why}; others: {others} (--output-name takes another)"
        ));
    }
    lines.extend(found.layers().iter().map(Layer::text));
    if !found.of_maps().is_empty() {
        let names: Vec<&str> = found.of_maps().iter().map(|field| field.name()).collect();
        lines.push(format!("maps      kept as {}", names.join(", ")));
    }
    lines.push(format!("graph     {} nodes, opset {}", found.nodes, found.opset));
    lines.extend(backbone.notes().iter().map(|note| format!("note: {note}")));
    lines
}

/// What is seen when it is run, where there is a runtime and the graph fixes
/// the size of its images.
fn seen(backbone: &Backbone) -> Vec<String> {
    let Some(size) = backbone.found().image_size().filter(|_| find_library(None).is_ok()) else {
        return Vec::new();
    };
    match backbone.load().and_then(|mut network| network.check(size)) {
        Ok(checked) => {
            let notes = backbone.notes_of(&checked);
            notes.into_iter().map(|note| format!("note: {note}")).collect()
        }
        Err(error) => vec![format!("note: it cannot be run: {error}")],
    }
}

pub fn doctor() -> Result<()> {
    let library = find_library(None)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "ONNX Runtime  {} (found by {})", library.path.display(), library.found_by)?;
    Ok(())
}
