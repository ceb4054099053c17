//! `heat convert`: a feature set in another form.

use std::path::Path;

use anyhow::Result;
use heat_ood::features::{ConvertConfig, FileFormat, Form, convert};

use super::{Data, wrote};
use crate::args::{ConvertArgs, To};
use crate::progress::Progress;

pub fn run(args: &ConvertArgs, progress: &mut Progress) -> Result<()> {
    let (labels, head) = (args.labels.as_deref(), args.head.as_deref());
    let data = Data::from(&args.input, labels, head, args.dim, progress)?;
    let data = data.subset(&args.subset.config())?;
    let given = [&args.labels, &args.head].into_iter().flatten().cloned();
    let config = ConvertConfig {
        form: args.to.map(|to| form(to, &args.output)),
        dtype: args.dtype.as_deref().map(str::parse).transpose()?,
        fields: args.fields.clone(),
        logits: args.logits,
        shard_rows: args.shard_rows,
        force: args.force,
        inputs: given.chain([args.input.clone()]).collect(),
    };
    let done = convert(&data.train, data.head.as_ref(), &args.output, &config, progress)?;
    wrote(progress, &args.output);
    progress.say(&format!(
        "{} rows of {} in {} file(s)",
        done.rows,
        done.written.join(", "),
        done.files
    ));
    if !done.left_out.is_empty() {
        progress
            .say(&format!("note: left out {}, which the set also has", done.left_out.join(", ")));
    }
    if done.form == Form::Memmap && !done.written.contains(&"label") {
        progress.say("note: memmaps without labels do not say what D is; read them with `--dim`");
    }
    Ok(())
}

fn form(to: To, output: &Path) -> Form {
    match to {
        To::Shards => Form::Shards,
        To::Safetensors => Form::Safetensors,
        To::Npy if FileFormat::of(output) == Some(FileFormat::Npy) => Form::Npy,
        To::Npy => Form::NpyDirectory,
        To::Npz => Form::Npz,
        To::Memmap => Form::Memmap,
        To::Csv => Form::Csv,
    }
}
