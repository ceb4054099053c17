//! `heat data`: list, get and verify.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use heat_ood::{Error, Event, Observer};
use indicatif::DecimalBytes;

use crate::args::{DataCommand, DataGetArgs};
use crate::download::{Directory, RemoteFile, Settings, Source, Sources, State, Verdict};
use crate::progress::{Progress, leave_on_ctrl_c};

pub fn run(command: &DataCommand, progress: &mut Progress) -> Result<()> {
    match command {
        DataCommand::List { names, place } => {
            let sources = Sources::open(place.sources.as_deref())?;
            let chosen = sources.select(names)?;
            let directory = Directory::new(&place.data);
            let text = match names.is_empty() {
                true => overview(&chosen, &directory),
                false => details(&chosen, &directory),
            };
            std::io::stdout().lock().write_all(text.as_bytes())?;
            Ok(())
        }
        DataCommand::Get(args) => get(args, progress),
        DataCommand::Verify { names, place } => {
            let sources = Sources::open(place.sources.as_deref())?;
            verify(
                &sources.select(names)?,
                !names.is_empty(),
                &Directory::new(&place.data),
                progress,
            )
        }
    }
}

fn get(args: &DataGetArgs, progress: &mut Progress) -> Result<()> {
    let sources = Sources::open(args.place.sources.as_deref())?;
    let mut chosen = Vec::new();
    for name in &args.names {
        let source = sources.get(name)?;
        if let Some(problem) = &source.by_hand {
            return Err(Error::config("NAME", name, problem.as_str()).into());
        }
        chosen.push((name, source));
    }
    let environment = std::env::var("HEAT_MIRROR").ok().filter(|m| !m.is_empty());
    let mirror = args.mirror.clone().or(environment);
    let settings =
        Settings::new(mirror, args.retries, Duration::from_secs(args.timeout), args.most as u64)?;
    leave_on_ctrl_c("stopped; what is downloaded is kept: run the same command again to resume")?;
    let directory = Directory::new(&args.place.data);
    let mut failed = None;
    for (name, source) in chosen {
        progress.say(&format!("{name}: {}; terms: {}", source.title, source.terms));
        let Err(error) = directory.get(source, &settings, progress) else { continue };
        progress.clear();
        // The others may come from servers that answer, but not onto a disk that is full.
        let hopeless = matches!(error, Error::Io { .. });
        if let Some(earlier) = failed.replace(error) {
            progress.on(Event::Warning(&earlier.to_string()));
        }
        if hopeless {
            break;
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn overview(chosen: &[(&str, &Source)], directory: &Directory) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_BORDERS_ONLY_CONDENSED);
    table.set_header(["name", "size", "here", "what"]);
    for (name, source) in chosen {
        let sizes: Option<u64> = source.files.iter().map(|f| f.size).sum();
        let size = sizes.filter(|n| *n > 0).map_or("?".into(), |n| DecimalBytes(n).to_string());
        table.add_row([(*name).to_owned(), size, here(source, directory), source.title.clone()]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

/// "yes", "2 of 10 files", "12.3 MB of it", or nothing.
fn here(source: &Source, directory: &Directory) -> String {
    let (mut whole, mut part) = (0, 0);
    for file in &source.files {
        match directory.state(file) {
            State::Here => whole += 1,
            State::Part(bytes) => part += bytes,
            State::WrongSize(_) => return "wrong size".into(),
            State::Absent => {}
        }
    }
    match (whole, part) {
        (0, 0) => String::new(),
        (0, part) => format!("{} of it", DecimalBytes(part)),
        (n, _) if n == source.files.len() => "yes".into(),
        (n, _) => format!("{n} of {} files", source.files.len()),
    }
}

fn details(chosen: &[(&str, &Source)], directory: &Directory) -> String {
    let mut text = String::new();
    for (name, source) in chosen {
        text += &format!("{name}: {}\n  terms     {}\n", source.title, source.terms);
        if let Some(problem) = &source.by_hand {
            text += &format!("  by hand   {problem}\n");
        }
        for file in &source.files {
            let state = match directory.state(file) {
                State::Absent => "absent".into(),
                State::Part(n) => format!("{} downloaded", DecimalBytes(n)),
                State::WrongSize(n) => format!("{n} bytes, expected {}", file.size.unwrap_or(n)),
                State::Here => "here".into(),
            };
            text += &format!("  {}: {state}\n", directory.path(file).display());
            let size = file.size.map_or("not known".into(), |n| format!("{n} bytes"));
            text += &format!("    size      {size}\n    checksum  {}\n", checksum(file));
            for url in &file.urls {
                text += &format!("    from      {url}\n");
            }
        }
    }
    text
}

fn checksum(file: &RemoteFile) -> String {
    let by = file.checksum_by.as_ref().map_or(String::new(), |by| format!(", by {by}"));
    match (&file.sha256, &file.md5, &file.sha256_prefix) {
        (Some(sum), ..) => format!("SHA-256 {sum}{by}"),
        (_, Some(sum), _) => format!("MD5 {sum}{by}"),
        (.., Some(sum)) => format!("SHA-256 begins with {sum}{by}"),
        _ => "none is published: the first download decides".into(),
    }
}

fn verify(
    chosen: &[(&str, &Source)],
    all: bool,
    directory: &Directory,
    progress: &mut Progress,
) -> Result<()> {
    let (mut seen, mut bad) = (0, Vec::new());
    for (name, source) in chosen {
        for file in &source.files {
            let verdict = directory.verify(file, progress)?;
            if !all && matches!(verdict, Verdict::Absent) {
                continue;
            }
            seen += 1;
            let path = directory.path(file);
            let (word, text) = match &verdict {
                Verdict::Right(what) => ("ok", (*what).to_owned()),
                Verdict::Unknown => ("?", "no checksum of it is known".to_owned()),
                Verdict::Absent => ("absent", format!("`heat data get {name}` says how to get it")),
                Verdict::Wrong(what) => ("WRONG", what.clone()),
            };
            writeln!(std::io::stdout().lock(), "{word:<7} {}: {text}", path.display())?;
            if matches!(verdict, Verdict::Absent | Verdict::Wrong(_)) {
                bad.push(path.display().to_string());
            }
        }
    }
    if bad.is_empty() {
        progress.say(&format!("{seen} files checked"));
        return Ok(());
    }
    let remedy = "delete what is wrong and run `heat data get` again";
    let problem = format!("{} of {seen} files are missing or wrong; {remedy}", bad.len());
    Err(Error::format(bad.swap_remove(0), problem).into())
}
