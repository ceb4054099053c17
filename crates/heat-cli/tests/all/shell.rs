//! What shells, manuals and scripts see of the command: completions, man pages, exit codes.

use crate::common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::{contains, data, fails, ok, text};

/// The commands that `heat PARENT… --help` lists.
fn commands(path: &Path, parent: &[&str]) -> Vec<String> {
    let help = text(&ok(path, &[parent, &["--help"]].concat()).stdout);
    let Some((_, list)) = help.split_once("Commands:\n") else { return Vec::new() };
    let (list, _) = list.split_once("\n\n").unwrap();
    let names = list.lines().filter(|l| l.starts_with("  ") && !l.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    names.filter(|name| name != "help").collect()
}

/// Whether that program is here; its own words where it fails.
fn passes(program: &str, args: &[&str], what: &str) -> bool {
    let Ok(out) = Command::new(program).args(args).output() else {
        let text = format!("SKIPPED {what}: there is no {program}\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        return false;
    };
    assert!(out.status.success(), "{what}: {}", text(&out.stderr));
    assert_eq!(text(&out.stderr), "", "{what}");
    true
}

#[test]
fn shells_can_read_their_completions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let commands = commands(path, &[]);
    assert!(commands.len() > 20 && commands.contains(&"train".to_owned()), "{commands:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&ok(path, &["completions", shell]).stdout);
        for command in &commands {
            assert!(script.contains(command.as_str()), "{command} in {shell}");
        }
        contains(&script, &["scorers", "subset-labels"]);
        let file = path.join(shell);
        fs::write(&file, script).unwrap();
        passes(shell, &["-n", file.to_str().unwrap()], &format!("completions for {shell}"));
    }
    let (code, error) = fails(path, &["completions", "tcsh"]);
    assert_eq!(code, 2);
    contains(&error, &["bash", "zsh", "fish"]);
    // What bash offers.
    let offered = |words: &str| -> BTreeSet<String> {
        let script = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _heat heat \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[@]}}\"",
            path.join("bash").display()
        );
        match Command::new("bash").args(["--norc", "-c", &script]).output() {
            Ok(out) => text(&out.stdout).split_whitespace().map(str::to_owned).collect(),
            Err(_) => BTreeSet::new(),
        }
    };
    if !offered("heat ").is_empty() || cfg!(target_os = "linux") {
        assert_eq!(offered("heat extr"), BTreeSet::from(["extract".to_owned()]));
        assert!(offered("heat eval --sc").contains("--scorers"), "{:?}", offered("heat eval --sc"));
        assert!(offered("heat eval --format lea").contains("leaderboard"));
    }
}

#[test]
fn every_command_has_a_page() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    ok(path, &["man", "pages"]);
    let mut wanted = BTreeSet::from(["heat.1".to_owned()]);
    for command in commands(path, &[]) {
        wanted.insert(format!("heat-{command}.1"));
        for part in commands(path, &[&command]) {
            wanted.insert(format!("heat-{command}-{part}.1"));
        }
    }
    assert!(wanted.contains("heat-data-get.1"), "{wanted:?}");
    let files = fs::read_dir(path.join("pages")).unwrap();
    let files: BTreeSet<String> =
        files.map(|f| f.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(files, wanted);
    for name in &files {
        let file = path.join("pages").join(name);
        let page = fs::read_to_string(&file).unwrap();
        contains(&page, &[".TH ", ".SH NAME", ".SH SYNOPSIS"]);
        let of = name.trim_end_matches(".1").replace('-', "\\-");
        contains(&page, &[&format!(".SH NAME\n{of} \\- ")]);
        let args = ["-Kutf8", "-man", "-z", "-ww", "-W", "break", "-Tutf8", file.to_str().unwrap()];
        passes("groff", &args, name);
    }
    let page = fs::read_to_string(path.join("pages/heat.1")).unwrap();
    contains(&page, &["Exit codes", "130"]);
}

/// Each code that the help lists, but 130: the tests that interrupt commands see it.
#[test]
fn exit_codes_are_those_of_the_help() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let help = text(&ok(path, &["--help"]).stdout);
    let (_, listed) = help.split_once("Exit codes: ").unwrap();
    let codes: Vec<i32> =
        listed.split(';').filter_map(|part| part.split_whitespace().next()?.parse().ok()).collect();
    // 4 is in tests/all/files.rs, 130 in those of interruptions.
    assert_eq!(codes, [0, 1, 2, 3, 4, 130]);
    assert_eq!(fails(path, &["info", "nowhere"]).0, 1);
    assert_eq!(fails(path, &["fit"]).0, 2);
    assert_eq!(fails(path, &["fit", "nothing", "--train", &data("train"), "-o", "d"]).0, 2);
    ok(path, &["fit", "ssd", "--train", &data("train"), "-o", "d"]);
    ok(path, &["calibrate", "d", "--id", &data("test"), "-o", "c"]);
    let ood = data("ood_mnist");
    let watch = ["watch", "c", &ood, "--fail"];
    assert_eq!(fails(path, &watch).0, 3);
}
