//! `heat data` against servers on the loopback interface that cut, lie, move,
//! change and vanish. What counts: the bytes on disk, and what is said.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use common::server::{Answer, Server, nobody};
use common::{contains, text, tree};

/// Bytes that no two places share.
fn bytes(n: usize, seed: u64) -> Vec<u8> {
    let mut x = seed;
    let mut next = || {
        x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (x >> 56) as u8
    };
    (0..n).map(|_| next()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A folder with `own.toml`, which describes one data set `own`.
struct Place(tempfile::TempDir);

impl Place {
    fn new(files: &[(&str, &str, String)]) -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        place.describe(files);
        place
    }

    /// Each: name, address, further lines.
    fn describe(&self, files: &[(&str, &str, String)]) {
        let mut toml = "[own]\ntitle = \"Own\"\nterms = \"none\"\n".to_owned();
        for (name, url, lines) in files {
            let base = name.rsplit('/').next().unwrap();
            toml += "[[own.files]]\n";
            toml += &format!("name = \"{name}\"\nurls = [\"{url}/{base}\"]\n{lines}\n");
        }
        fs::write(self.0.path().join("own.toml"), toml).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = common::command(self.0.path(), &["data"]);
        command.args(args).args(["--sources", "own.toml"]);
        command.env("NO_PROXY", "127.0.0.1").env_remove("HEAT_MIRROR");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Standard error of a command that must succeed.
    fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
        text(&out.stderr)
    }

    /// Standard error of a command that must fail, with code 1.
    fn fails(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {}", text(&out.stderr));
        text(&out.stderr)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("datasets").join(name)
    }

    fn names(&self) -> Vec<String> {
        tree(&self.path("")).into_keys().filter(|n| !n.ends_with(".lock")).collect()
    }

    #[track_caller]
    fn holds(&self, name: &str, want: &[u8]) {
        assert!(fs::read(self.path(name)).unwrap() == want, "{name} has other bytes");
        assert!(!self.names().iter().any(|n| n.contains(".heat-")), "{:?}", self.names());
    }
}

/// One file `a.bin` with its SHA-256 at `server`.
fn vouched(server: &Server, want: &[u8]) -> Place {
    Place::new(&[("a.bin", &server.url, format!("sha256 = \"{}\"", sha256(want)))])
}

/// One file `a.bin` without any checksum.
fn unvouched(server: &Server) -> Place {
    Place::new(&[("a.bin", &server.url, String::new())])
}

fn serves(want: &[u8]) -> Server {
    let want = want.to_vec();
    Server::start(move |_, request| Answer::file(&want, "\"v1\"", request))
}

const GET: [&str; 2] = ["get", "own"];

#[test]
fn what_is_built_in_is_well_formed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/sources.toml");
    let sources: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
    let (mut names, mut bases) = (Vec::new(), Vec::new());
    for (name, source) in &sources {
        assert!(source["title"].as_str().is_some() && source["terms"].as_str().is_some(), "{name}");
        for file in source["files"].as_array().unwrap() {
            let place = file["name"].as_str().unwrap();
            names.push(place);
            bases.push(place.rsplit('/').next().unwrap());
            for url in file["urls"].as_array().unwrap() {
                let url = url.as_str().unwrap();
                assert!(url.starts_with("https://") || url.starts_with("http://"), "{url}");
                assert!(url.ends_with(bases.last().unwrap()), "{url} is not {place}");
            }
            let mut sums = 0;
            for (key, length) in [("md5", 32..=32), ("sha256", 64..=64), ("sha256_prefix", 8..=64)]
            {
                let Some(sum) = file.get(key).map(|s| s.as_str().unwrap()) else { continue };
                let digits = sum.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                assert!(digits && length.contains(&sum.len()), "{place}: {sum}");
                sums += 1;
            }
            assert_eq!(sums, 1, "{place}");
            assert!(file.get("checksum_by").is_some(), "{place}");
        }
    }
    let count = names.len();
    assert_eq!((sources.len(), count), (19, 33));
    for mut list in [names, bases] {
        list.sort_unstable();
        list.dedup();
        assert_eq!(list.len(), count, "two files of one name");
    }
}

#[test]
fn names_are_listed_with_what_is_here() {
    let server = serves(b"bytes");
    let place = unvouched(&server);
    let said = text(&place.run(&["list"]).stdout);
    contains(&said, &["cifar10-binary", "170.50 MB", "Textures", "iNaturalist", "own", "imagenet"]);
    let line = |text: &str| text.lines().find(|l| l.contains(" own ")).unwrap().to_owned();
    assert!(!line(&said).contains("yes"));
    fs::create_dir(place.path("")).unwrap();
    fs::write(place.path(".heat-a.bin.part"), "ab").unwrap();
    contains(&line(&text(&place.run(&["list"]).stdout)), &["2 B of it"]);
    fs::write(place.path("a.bin"), "abc").unwrap();
    contains(&line(&text(&place.run(&["list"]).stdout)), &["yes"]);
    let details = text(&place.run(&["list", "svhn", "own", "imagenet"]).stdout);
    contains(&details, &["MD5 eb5a983be6a315427106f1b164d9cef3, by torchvision", "64275384 bytes"]);
    contains(&details, &["http://ufldl.stanford.edu/housenumbers/test_32x32.mat", "account"]);
    contains(&details, &["none is published: the first download decides", "a.bin: here"]);
    assert!(server.requests().is_empty(), "listing downloads nothing");
}

#[test]
fn what_cannot_be_asked_for_is_said_before_anything_is_downloaded() {
    let server = serves(b"bytes");
    let place = unvouched(&server);
    let usage = |args: &[&str], parts: &[&str]| {
        let out = place.run(args);
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        contains(&text(&out.stderr), parts);
    };
    usage(&["get", "own", "cifar-10"], &["unknown data set `cifar-10`", "did you mean `cifar10`?"]);
    usage(&["get", "own", "imagenet"], &["account", "https://image-net.org/download.php"]);
    usage(
        &["get", "own", "--mirror", "mirror.example"],
        &["`mirror` = mirror.example", "https://"],
    );
    fs::write(place.0.path().join("own.toml"), "[own]\ntitle = 3").unwrap();
    contains(&place.fails(&["list"]), &["own.toml: [own]", "expected a string"]);
    assert!(server.requests().is_empty() && !place.path("").exists());
}

#[test]
fn a_file_is_downloaded_once() {
    let want = bytes(300_000, 1);
    let server = serves(&want);
    let sums = format!(
        "size = {}\nmd5 = \"{}\"",
        want.len(),
        hex(&md5::Md5::digest(&want)).to_uppercase()
    );
    let prefix = format!("sha256_prefix = \"{}\"", &sha256(&want)[..8]);
    let place = Place::new(&[("b/a.bin", &server.url, sums), ("c.pth", &server.url, prefix)]);
    let said = place.ok(&GET);
    contains(
        &said,
        &["own: Own; terms: none", "wrote", "a.bin (300.00 kB), MD5 agrees", "beginning of"],
    );
    place.holds("b/a.bin", &want);
    // A prefix is all that is published: the whole sum is kept besides.
    contains(
        &fs::read_to_string(place.path("checksums.toml")).unwrap(),
        &[&sha256(&want), "c.pth"],
    );
    contains(&place.ok(&GET), &["already here, MD5 agrees"]);
    assert_eq!(server.requests().len(), 2);
    let out = place.run(&["verify"]);
    assert!(out.status.success());
    contains(&text(&out.stdout), &["ok      datasets/b/a.bin: MD5 agrees", "c.pth"]);
    // Files that are here are never overwritten.
    fs::write(place.path("b/a.bin"), &want[1..]).unwrap();
    let error = place.fails(&GET);
    contains(&error, &["a.bin: size in bytes is 299999, expected 300000; delete or move it"]);
    place.holds("b/a.bin", &want[1..]);
    let out = place.run(&["verify"]);
    assert_eq!(out.status.code(), Some(1));
    contains(&text(&out.stdout), &["WRONG", "ok "]);
    contains(&text(&out.stderr), &["1 of 2 files"]);
    fs::remove_file(place.path("b/a.bin")).unwrap();
    contains(&text(&place.run(&["verify", "own"]).stdout), &["absent"]);
}

#[test]
fn without_a_checksum_the_first_download_decides() {
    let (first, second) = (bytes(50_000, 2), bytes(50_000, 3));
    let answers = (first.clone(), second.clone());
    let server = Server::start(move |n, request| match n {
        0 | 1 => Answer::file(&answers.0, "\"v1\"", request),
        _ => Answer::file(&answers.1, "\"v2\"", request),
    });
    let place = unvouched(&server);
    contains(&place.ok(&GET), &["no checksum is published", "checksums.toml"]);
    place.holds("a.bin", &first);
    contains(&place.ok(&GET), &["already here, SHA-256 agrees with the first download"]);
    fs::remove_file(place.path("a.bin")).unwrap();
    contains(&place.ok(&GET), &["SHA-256 agrees with the first download"]);
    // The source changes: refused, until its line is removed.
    fs::remove_file(place.path("a.bin")).unwrap();
    let error = place.fails(&GET);
    contains(&error, &["datasets/a.bin", &sha256(&first), &sha256(&second), "checksums.toml"]);
    assert_eq!(place.names(), ["checksums.toml"]);
    fs::remove_file(place.path("checksums.toml")).unwrap();
    place.ok(&GET);
    place.holds("a.bin", &second);
    // What somebody put here is taken as it is.
    fs::remove_file(place.path("checksums.toml")).unwrap();
    contains(&text(&place.run(&["verify"]).stdout), &["?", "nothing is known"]);
    contains(&place.ok(&GET), &["its SHA-256 is now kept"]);
}

#[test]
fn cut_connections_are_taken_up_where_they_ended() {
    let want = bytes(900_000, 4);
    let answer = want.clone();
    let server = Server::start(move |n, request| {
        let cut = if n < 2 { 300_000 } else { usize::MAX };
        Answer::file(&answer, "\"v1\"", request).cut(cut)
    });
    for place in [vouched(&server, &want), unvouched(&server)] {
        let before = server.requests().len();
        let said = place.ok(&GET);
        place.holds("a.bin", &want);
        if before == 0 {
            contains(&said, &["was cut after 300000 of 900000 bytes", "trying again"]);
        }
    }
    let requests = server.requests();
    let froms: Vec<_> = requests.iter().map(|r| r.from).collect();
    assert_eq!(froms, [None, Some(300_000), Some(600_000), None]);
    assert_eq!(requests[1].if_range.as_deref(), Some("\"v1\""));
}

#[test]
fn servers_without_ranges_start_over() {
    let want = bytes(400_000, 5);
    let answer = want.clone();
    let server = Server::start(move |n, _| {
        Answer::new("200 OK", &answer).cut(if n == 0 { 100_000 } else { usize::MAX })
    });
    let place = vouched(&server, &want);
    contains(&place.ok(&GET), &["starting over"]);
    place.holds("a.bin", &want);
    assert_eq!(server.requests()[1].from, Some(100_000));
    // Without tag, date and checksum nothing would show that the file has changed.
    let answer = want.clone();
    let server = Server::start(move |n, _| {
        Answer::new("200 OK", &answer).cut(if n == 0 { 100_000 } else { usize::MAX })
    });
    let place = unvouched(&server);
    place.ok(&GET);
    place.holds("a.bin", &want);
    assert_eq!(server.requests()[1].from, None);
}

#[test]
fn a_file_that_changes_between_two_tries_starts_over() {
    let (old, new) = (bytes(200_000, 6), bytes(200_000, 7));
    // Once with a server that obeys If-Range, once with one that does not.
    for obeys in [true, false] {
        let answers = (old.clone(), new.clone());
        let server = Server::start(move |n, request| {
            let mut request = request.clone();
            if !obeys {
                request.if_range = None;
            }
            match n {
                0 => Answer::file(&answers.0, "\"old\"", &request).cut(90_000),
                _ => Answer::file(&answers.1, "\"new\"", &request),
            }
        });
        let place = unvouched(&server);
        place.ok(&GET);
        place.holds("a.bin", &new);
        assert_eq!(server.requests()[1].if_range.as_deref(), Some("\"old\""));
    }
    // No tag tells, but the checksum does.
    let (old, answer) = (old, new.clone());
    let server = Server::start(move |n, request| {
        let bytes = if n == 0 { &old } else { &answer };
        let mut reply = Answer::file(bytes, "\"v\"", request);
        reply.headers.pop();
        reply.cut(if n == 0 { 90_000 } else { usize::MAX })
    });
    let place = vouched(&server, &new);
    contains(&place.ok(&GET), &["starting over"]);
    place.holds("a.bin", &new);
    let froms: Vec<_> = server.requests().iter().map(|r| r.from).collect();
    assert_eq!(froms, [None, Some(90_000), None]);
}

#[test]
fn wrong_bytes_are_deleted_and_named() {
    let want = bytes(10_000, 8);
    let mut wrong = want.clone();
    wrong[5_000] ^= 1;
    let server = serves(&wrong);
    let place = vouched(&server, &want);
    let error = place.fails(&GET);
    contains(
        &error,
        &["datasets/a.bin: not downloaded", &sha256(&wrong), &sha256(&want), "deleted"],
    );
    contains(&error, &[&server.url, "--sources FILE"]);
    assert!(place.names().is_empty(), "{:?}", place.names());
    assert_eq!(server.requests().len(), 1, "the same bytes would come again");
}

#[test]
fn a_page_instead_of_the_file_is_refused() {
    let want = bytes(10_000, 9);
    let page = b"<!DOCTYPE html><title>Sign in</title>";
    let plain = Server::start(|_, _| Answer::new("200 OK", page));
    let place = vouched(&plain, &want);
    contains(&place.fails(&GET), &["SHA-256 is", &sha256(page)]);
    place.describe(&[("a.bin", &plain.url, "size = 10000".into())]);
    contains(&place.fails(&GET), &["has 37 bytes, expected 10000"]);
    let honest = Server::start(|_, _| {
        Answer::new("200 OK", page).header("Content-Type: text/html; charset=x")
    });
    place.describe(&[("a.bin", &honest.url, String::new())]);
    contains(&place.fails(&GET), &["sent a web page (text/html)"]);
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn a_page_does_not_cost_what_is_here_already() {
    let want = bytes(30_000, 19);
    let answer = want.clone();
    let server = Server::start(move |n, request| match n {
        0 => Answer::file(&answer, "\"v1\"", request).cut(20_000),
        1 => Answer::new("200 OK", b"<html>").header("Content-Type: text/html"),
        _ => Answer::file(&answer, "\"v1\"", request),
    });
    let place = vouched(&server, &want);
    contains(&place.fails(&GET), &["sent a web page", "20.00 kB are kept"]);
    place.ok(&GET);
    place.holds("a.bin", &want);
    assert_eq!(server.requests()[2].from, Some(20_000));
}

#[test]
fn the_mirror_is_tried_first_and_left_when_it_has_not_the_file() {
    let want = bytes(20_000, 10);
    let (official, mirror) = (serves(&want), serves(&want));
    let empty = Server::start(|_, _| Answer::new("404 Not Found", b"no"));
    let liar = serves(&want[1..]);
    let place = vouched(&official, &want);
    let again = || fs::remove_file(place.path("a.bin")).unwrap();
    place.ok(&["get", "own", "--mirror", &format!("{}/deep/", mirror.url)]);
    place.holds("a.bin", &want);
    assert_eq!(mirror.requests()[0].path, "/deep/a.bin");
    assert!(official.requests().is_empty());
    again();
    for (i, (base, why)) in [
        (&empty.url, "answered 404 Not Found"),
        (&liar.url, "sent something else"),
        (&nobody(), "Connection refused"),
    ]
    .into_iter()
    .enumerate()
    {
        let begun = Instant::now();
        let out = place.command(&GET).env("HEAT_MIRROR", base).output().unwrap();
        assert!(out.status.success());
        contains(&text(&out.stderr), &[base, why, "trying the next address"]);
        place.holds("a.bin", &want);
        assert_eq!(official.requests().len(), i + 1);
        assert!(begun.elapsed() < Duration::from_secs(4), "nothing is gained by waiting");
        again();
    }
    // Half from the mirror, the rest from the official address.
    let half = want.clone();
    let dying = Server::start(move |n, request| match n {
        0 => Answer::file(&half, "\"m\"", request).cut(10_000),
        _ => Answer::new("410 Gone", b""),
    });
    place.ok(&["get", "own", "--mirror", &dying.url]);
    place.holds("a.bin", &want);
    let last = official.requests().pop().unwrap();
    assert_eq!((last.from, last.if_range), (Some(10_000), None));
}

#[test]
fn redirects_are_followed_and_resumed() {
    let want = bytes(200_000, 11);
    let answer = want.clone();
    let real = Server::start(move |n, request| {
        Answer::file(&answer, "\"v1\"", request).cut(if n == 0 { 80_000 } else { usize::MAX })
    });
    let target = real.url.clone();
    let server = Server::start(move |_, r| {
        Answer::new("302 Found", b"").header(&format!("Location: {target}{}", r.path))
    });
    let place = vouched(&server, &want);
    place.ok(&GET);
    place.holds("a.bin", &want);
    assert_eq!(real.requests()[1].from, Some(80_000));
    let round = Server::start(|_, r| {
        Answer::new("302 Found", b"").header(&format!("Location: {}", r.path))
    });
    place.describe(&[("b.bin", &round.url, String::new())]);
    contains(&place.fails(&GET), &["b.bin", "redirect"]);
}

#[test]
fn lengths_that_are_not_kept_are_noticed() {
    let want = bytes(50_000, 12);
    let answer = want.clone();
    // Says more than it sends, again and again.
    let server = Server::start(move |_, _| {
        let mut answer = Answer::new("200 OK", &answer);
        answer.length = Some(60_000);
        answer
    });
    let place = unvouched(&server);
    let error = place.fails(&["get", "own", "--retries", "1"]);
    contains(&error, &["was cut after 50000 of 60000 bytes", "50.00 kB are kept: run the same"]);
    assert_eq!(server.requests().len(), 2);
    assert!(!place.path("a.bin").exists());
    // Says less than it sends.
    let answer = want.clone();
    let server = Server::start(move |_, _| {
        let mut answer = Answer::new("200 OK", &answer);
        answer.length = Some(40_000);
        answer
    });
    contains(
        &vouched(&server, &want).fails(&GET),
        &["sent something else", &sha256(&want[..40_000])],
    );
    // Says nothing: the end of the connection may be the end of the file, or not.
    let answer = want.clone();
    let server = Server::start(move |n, _| {
        let mut answer = Answer::new("200 OK", &answer).cut(if n == 0 { 7 } else { usize::MAX });
        answer.length = None;
        answer
    });
    let sums = format!("size = 50000\nsha256 = \"{}\"", sha256(&want));
    let place = Place::new(&[("a.bin", &server.url, sums)]);
    contains(&place.ok(&GET), &["was cut after 7 of 50000 bytes"]);
    place.holds("a.bin", &want);
    // Sends more than the file has, without an end.
    let server = Server::start(move |_, _| {
        let mut answer = Answer::new("200 OK", &[7; 200_000]);
        answer.length = None;
        answer
    });
    place.describe(&[("b.bin", &server.url, "size = 100000".into())]);
    contains(&place.fails(&GET), &["sends more than 100000 bytes"]);
    assert_eq!(place.names(), ["a.bin"]);
}

#[test]
fn slow_is_not_silent() {
    let want = bytes(3_000, 13);
    let answer = want.clone();
    let server = Server::start(move |_, request| {
        let mut answer = Answer::file(&answer, "\"v1\"", request);
        (answer.piece, answer.pause) = (100, Duration::from_millis(60));
        answer
    });
    // 1.8 seconds in all, with one second of patience for each silence.
    let place = vouched(&server, &want);
    place.ok(&["get", "own", "--timeout", "1"]);
    place.holds("a.bin", &want);
    let answer = want.clone();
    let server = Server::start(move |_, request| {
        let mut answer = Answer::file(&answer, "\"v1\"", request);
        (answer.piece, answer.pause) = (2_000, Duration::from_secs(4));
        answer
    });
    let place = vouched(&server, &want);
    let error = place.fails(&["get", "own", "--timeout", "1", "--retries", "0"]);
    contains(&error, &["was cut after 2000 of 3000 bytes", "timeout", "2.00 kB are kept"]);
}

#[test]
fn a_server_that_is_down_is_tried_a_few_times() {
    let place = Place::new(&[("a.bin", &nobody(), String::new())]);
    let begun = Instant::now();
    let error = place.fails(&["get", "own", "--retries", "2"]);
    contains(&error, &["datasets/a.bin: not downloaded", "http://127.0.0.1", "Connection refused"]);
    assert!((1..8).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert!(place.names().is_empty());
    let busy = Server::start(|n, request| match n {
        0 => Answer::new("503 Service Unavailable", b""),
        _ => Answer::file(b"here", "\"v\"", request),
    });
    place.describe(&[("a.bin", &busy.url, String::new())]);
    contains(&place.ok(&GET), &["answered 503 Service Unavailable; trying again"]);
    place.holds("a.bin", b"here");
}

#[test]
fn one_set_that_fails_does_not_stop_the_next() {
    let good = serves(b"good");
    let place = Place::new(&[("bad.bin", &nobody(), String::new())]);
    let toml = fs::read_to_string(place.0.path().join("own.toml")).unwrap();
    let second = toml.replace("own", "two").replace("bad.bin", "good.bin");
    let second = second
        .replace(&second[second.find("http").unwrap()..second.rfind('/').unwrap()], &good.url);
    fs::write(place.0.path().join("own.toml"), format!("{toml}\n{second}")).unwrap();
    contains(&place.fails(&["get", "own", "two", "--retries", "0"]), &["bad.bin: not downloaded"]);
    place.holds("good.bin", b"good");
}

/// A download that has come to `length` bytes.
fn downloading(place: &Place, length: u64) -> Child {
    let mut command = place.command(&GET);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let part = place.path(".heat-a.bin.part");
    while fs::metadata(&part).map_or(0, |m| m.len()) < length {
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

#[test]
fn killed_downloads_go_on() {
    let want = bytes(1_500_000, 14);
    let answer = want.clone();
    let server = Server::start(move |n, request| {
        let mut answer = Answer::file(&answer, "\"v1\"", request);
        if n < 2 {
            (answer.piece, answer.pause) = (20_000, Duration::from_millis(20));
        }
        answer
    });
    let place = unvouched(&server);
    let mut child = downloading(&place, 200_000);
    // Meanwhile nobody else writes that file.
    contains(&place.fails(&GET), &[".heat-a.bin.part: another process is downloading this file"]);
    if cfg!(unix) {
        let id = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(1));
        contains(&text(&out.stderr), &["stopped; what is downloaded is kept"]);
    } else {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut child = downloading(&place, 600_000);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!place.path("a.bin").exists());
    let kept = fs::metadata(place.path(".heat-a.bin.part")).unwrap().len();
    assert!((600_000..1_500_000).contains(&kept), "{kept}");
    contains(&place.ok(&GET), &["a.bin: going on after"]);
    place.holds("a.bin", &want);
    let requests = server.requests();
    assert!(requests[1].from.is_some_and(|from| from >= 200_000));
    assert_eq!(requests[2].from, Some(kept as usize));
    assert_eq!(requests[2].if_range.as_deref(), Some("\"v1\""));
}

#[test]
fn partial_files_of_any_kind_lead_to_the_right_bytes() {
    let want = bytes(5_000, 15);
    let longer = [&want[..], b"more"].concat();
    for (part, requests) in [(&want[..], 1), (&longer[..], 2), (b"other", 2), (b"", 1)] {
        let server = serves(&want);
        let place = vouched(&server, &want);
        fs::create_dir(place.path("")).unwrap();
        fs::write(place.path(".heat-a.bin.part"), part).unwrap();
        fs::write(place.path(".heat-a.bin.part.toml"), "not = [ toml").unwrap();
        place.ok(&GET);
        place.holds("a.bin", &want);
        // Whole files whose size is not known are answered with 416 and fetched again.
        let whole = usize::from(part == &want[..]);
        assert_eq!(server.requests().len(), requests + whole, "{}", part.len());
    }
    // With its size known, nothing is asked at all.
    let server = serves(&want);
    let sums = format!("size = 5000\nsha256 = \"{}\"", sha256(&want));
    let place = Place::new(&[("a.bin", &server.url, sums)]);
    fs::create_dir(place.path("")).unwrap();
    fs::write(place.path(".heat-a.bin.part"), &want).unwrap();
    place.ok(&GET);
    place.holds("a.bin", &want);
    assert!(server.requests().is_empty());
}

#[cfg(unix)]
#[test]
fn what_the_disk_refuses_is_named() {
    let want = bytes(400_000, 16);
    let server = serves(&want);
    let place = vouched(&server, &want);
    // A limit on the size of files stands for a full disk.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 200; exec \"$@\"", "sh"]);
    shell.args([env!("CARGO_BIN_EXE_heat"), "data", "get", "own", "--sources", "own.toml"]);
    let out = shell.current_dir(place.0.path()).env("NO_PROXY", "127.0.0.1").output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    contains(&text(&out.stderr), &["error: write datasets/.heat-a.bin.part: ", "make room"]);
    contains(&place.ok(&GET), &["going on after"]);
    place.holds("a.bin", &want);
    fs::write(place.0.path().join("file"), "").unwrap();
    contains(&place.fails(&["get", "own", "--data", "file/data"]), &["create file/data: "]);
}

fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn archives_are_unpacked_whole() {
    let (data, lock) = (bytes(30_000, 17), bytes(8, 18));
    let archive = zip(&[("x_lmdb/data.mdb", &data), ("x_lmdb/lock.mdb", &lock)]);
    let server = serves(&archive);
    let lines = format!("unpack = true\nsha256 = \"{}\"", sha256(&archive));
    let place = Place::new(&[("LSUN/x_lmdb.zip", &server.url, lines)]);
    contains(&place.ok(&GET), &["unpacked datasets/LSUN/x_lmdb"]);
    place.holds("LSUN/x_lmdb/data.mdb", &data);
    place.holds("LSUN/x_lmdb/lock.mdb", &lock);
    assert!(!place.ok(&GET).contains("unpacked"));
    assert!(place.run(&["verify"]).status.success());
    // The folder alone is lost; then a part of it.
    fs::remove_dir_all(place.path("LSUN/x_lmdb")).unwrap();
    contains(&text(&place.run(&["verify"]).stdout), &["WRONG", "not unpacked into"]);
    contains(&place.ok(&GET), &["unpacked"]);
    fs::write(place.path("LSUN/x_lmdb/data.mdb"), "short").unwrap();
    contains(
        &place.fails(&GET),
        &["data.mdb: 5 bytes, expected 30000", "delete datasets/LSUN/x_lmdb"],
    );
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn archives_do_not_reach_outside_their_folder() {
    let archive = zip(&[("fine.txt", b"fine"), ("../../evil.txt", b"evil")]);
    let server = serves(&archive);
    let place = Place::new(&[("x.zip", &server.url, "unpack = true".into())]);
    contains(&place.fails(&GET), &["x.zip: `../../evil.txt` would lie outside the folder"]);
    assert_eq!(place.names(), ["checksums.toml", "x.zip"]);
    assert!(!place.0.path().join("evil.txt").exists());
    let broken = serves(&archive[..archive.len() - 4]);
    place.describe(&[("y.zip", &broken.url, "unpack = true".into())]);
    contains(&place.fails(&GET), &["y.zip: not a whole .zip"]);
}
