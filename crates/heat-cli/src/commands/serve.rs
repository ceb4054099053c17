//! `heat serve`: verdicts over HTTP. `heat token`: who may ask.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow};
use heat_ood::Error;
use heat_ood::io::read_text;
use heat_serve::{Ended, Form, NamedFile, Scope, Server, Settings, check_name, make_token};

use super::{detector_file, write_output};
use crate::args::{LogForm, ServeArgs, TokenArgs, TokenScope};
use crate::progress::Progress;

pub fn run(
    args: &ServeArgs,
    threads: Option<usize>,
    memory: Option<usize>,
    progress: &mut Progress,
) -> Result<()> {
    let mut settings = settings(args)?;
    if let Some(threads) = threads {
        settings.threads = threads;
    }
    if let Some(memory) = memory {
        settings.memory = memory;
    }
    let text = settings.to_text();
    if args.check {
        // Which a server that runs may hold.
        settings.monitor_state = None;
    }
    let server = Server::open(settings)?;
    for line in server.describe() {
        progress.say(&line);
    }
    if args.check {
        return write_output(None, &text);
    }
    let ended = server.run(|addresses| {
        progress.say(&format!("listening on {}", addresses.data));
        if let Some(grpc) = addresses.grpc {
            progress.say(&format!("gRPC on {grpc}"));
        }
        if let Some(admin) = addresses.admin {
            progress.say(&format!("page and metrics on {admin}"));
        }
    })?;
    match ended {
        Ended::Clean => Ok(()),
        Ended::Cut => Err(anyhow!("some requests were cut off at the end")),
    }
}

/// Those of the file, and before them those of the command line.
fn settings(args: &ServeArgs) -> Result<Settings> {
    let mut settings = match &args.config {
        None => Settings::default(),
        Some(path) => {
            let text = read_text(path)?;
            Settings::parse(&text).map_err(|problem| Error::format(path, problem))?
        }
    };
    if !args.detectors.is_empty() {
        settings.detectors =
            args.detectors.iter().map(|text| named(text, true)).collect::<Result<_>>()?;
    }
    if !args.backbone.is_empty() {
        settings.backbones =
            args.backbone.iter().map(|text| named(text, false)).collect::<Result<_>>()?;
    }
    for detector in &mut settings.detectors {
        detector.path = detector_file(&detector.path)?;
    }
    let s = &mut settings;
    set(&mut s.listen, args.listen);
    if args.grpc.is_some() {
        s.grpc = args.grpc;
    }
    if args.admin.is_some() || args.no_admin {
        s.admin = args.admin;
    }
    s.admin_hosts.extend(args.admin_host.iter().cloned());
    for (to, from) in [
        (&mut s.tokens, &args.tokens),
        (&mut s.tls_cert, &args.tls_cert),
        (&mut s.tls_key, &args.tls_key),
        (&mut s.tls_client_ca, &args.tls_client_ca),
        (&mut s.monitor_state, &args.monitor_state),
    ] {
        if from.is_some() {
            to.clone_from(from);
        }
    }
    set(&mut s.max_batch_rows, args.max_batch_rows);
    set(&mut s.max_request_rows, args.max_request_rows);
    set(&mut s.max_body, args.max_body);
    set(&mut s.max_pixels, args.max_pixels);
    set(&mut s.queue_rows, args.queue_rows);
    set(&mut s.max_connections, args.max_connections);
    set(&mut s.recent, args.recent);
    set(&mut s.drift_effect, args.drift_effect);
    for (key, to, from) in [
        ("batch-wait", &mut s.batch_wait, &args.batch_wait),
        ("request-timeout", &mut s.request_timeout, &args.request_timeout),
        ("body-timeout", &mut s.body_timeout, &args.body_timeout),
        ("header-timeout", &mut s.header_timeout, &args.header_timeout),
        ("idle-timeout", &mut s.idle_timeout, &args.idle_timeout),
        ("drain", &mut s.drain, &args.drain),
        ("drain-delay", &mut s.drain_delay, &args.drain_delay),
    ] {
        set(to, from.as_deref().map(|text| time(key, text)).transpose()?);
    }
    s.insecure |= args.insecure;
    s.watch |= args.watch;
    s.compress |= args.compress;
    s.log_requests &= !args.no_request_log;
    let form = |form| match form {
        LogForm::Auto => Form::Auto,
        LogForm::Text => Form::Text,
        LogForm::Json => Form::Json,
    };
    set(&mut s.log, args.log.map(form));
    Ok(settings)
}

fn set<T>(to: &mut T, from: Option<T>) {
    if let Some(value) = from {
        *to = value;
    }
}

fn time(key: &str, text: &str) -> Result<Duration> {
    humantime::parse_duration(text).map_err(|_| {
        Error::config(key, text, "expected a time with its unit, such as 500ms or 10s").into()
    })
}

/// `NAME=FILE`, or a file that gives the name.
fn named(text: &str, alone: bool) -> Result<NamedFile> {
    if let Some((name, path)) = text.split_once('=').filter(|(name, _)| !name.contains('/')) {
        check_name(name)?;
        return Ok(NamedFile { name: name.to_owned(), path: PathBuf::from(path) });
    }
    if !alone {
        let problem = "a network goes before a detector: NAME=MODEL.onnx";
        return Err(Error::config("backbone", text, problem).into());
    }
    let path = Path::new(text);
    // Of a run, whose detector is in it, its directory.
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    check_name(&name)?;
    Ok(NamedFile { name, path: path.to_owned() })
}

/// `heat token`
pub fn token(args: &TokenArgs, progress: &mut Progress) -> Result<()> {
    let scope = match args.scope {
        TokenScope::Score => Scope::Score,
        TokenScope::Admin => Scope::Admin,
    };
    let (token, line) = make_token(&args.name, scope)?;
    // Also where nothing else is said: it is shown once.
    eprintln!("the token, which is shown once; clients send it as `Authorization: Bearer TOKEN`:");
    eprintln!("  {token}");
    progress.say("the line for the file of `heat serve --tokens FILE`:");
    write_output(None, &format!("{line}\n"))
}
