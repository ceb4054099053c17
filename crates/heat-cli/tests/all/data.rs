//! `heat data`: which sets there are, what is downloaded, checked and unpacked.

use crate::common;

use std::fs;
use std::time::{Duration, Instant};

use sha2::Digest;

use common::place::*;
use common::server::{Answer, Server, nobody};
use common::{contains, text};

#[test]
fn what_is_built_in_is_well_formed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/download/sources.toml");
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
    contains(&text(&place.run(&["verify"]).stdout), &["?", "no checksum of it is known"]);
    contains(&place.ok(&GET), &["its SHA-256 is now kept"]);
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
    // The directory alone is lost; then a part of it.
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
fn archives_unpack_to_no_more_than_they_may() {
    let data = vec![0; 30_000];
    let archive = zip(&[("data.mdb", &data[..]), ("lock.mdb", b"01234567")]);
    let server = serves(&archive);
    let place = Place::new(&[("x.zip", &server.url, "unpack = true".into())]);
    let error = place.fails(&["get", "own", "--most", "30kB"]);
    contains(&error, &["x.zip: unpacks to 30008 bytes, and 30.00 kB are the most", "--most SIZE"]);
    assert_eq!(place.names(), ["checksums.toml", "x.zip"]);
    contains(&place.ok(&GET), &["unpacked"]);
    // More bytes than it says: nothing is left of them.
    let mut lies = archive.clone();
    for (signature, at) in [(&b"PK\x03\x04"[..], 22), (b"PK\x01\x02", 24)] {
        let header = lies.windows(4).position(|w| w == signature).unwrap();
        lies[header + at..header + at + 4].copy_from_slice(&10u32.to_le_bytes());
    }
    let server = serves(&lies);
    place.describe(&[("y.zip", &server.url, "unpack = true".into())]);
    let error = place.fails(&GET);
    contains(&error, &["y.zip: `data.mdb` in it is", "delete it and download it again"]);
    let left = ["checksums.toml", "x.zip", "x/data.mdb", "x/lock.mdb", "y.zip"];
    assert_eq!(place.names(), left, "{error}");
    // A directory that says that it has more entries than it has.
    let mut many = archive.clone();
    let end = many.len() - 22;
    many[end + 8..end + 12].fill(0xee);
    let server = serves(&many);
    place.describe(&[("z.zip", &server.url, "unpack = true".into())]);
    contains(&place.fails(&GET), &["z.zip: not a whole .zip"]);
}

#[test]
fn archives_do_not_reach_outside_their_directory() {
    let archive = zip(&[("fine.txt", b"fine"), ("../../evil.txt", b"evil")]);
    let server = serves(&archive);
    let place = Place::new(&[("x.zip", &server.url, "unpack = true".into())]);
    contains(&place.fails(&GET), &["x.zip: `../../evil.txt` would lie outside the directory"]);
    assert_eq!(place.names(), ["checksums.toml", "x.zip"]);
    assert!(!place.0.path().join("evil.txt").exists());
    let broken = serves(&archive[..archive.len() - 4]);
    place.describe(&[("y.zip", &broken.url, "unpack = true".into())]);
    contains(&place.fails(&GET), &["y.zip: not a whole .zip"]);
}
