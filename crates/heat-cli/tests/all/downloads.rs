//! `heat data` against servers on the loopback interface that cut, lie, move,
//! change and vanish. What counts: the bytes on disk, and what is said.

use crate::common;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::place::*;
use common::server::{Answer, Server, nobody};
use common::{contains, text, wait_until};

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

/// A server that does not say how much it sends could fill the disk.
#[test]
fn what_nobody_knows_the_length_of_is_bounded() {
    let want = bytes(200_000, 30);
    for told in [false, true] {
        let answer = want.clone();
        let server = Server::start(move |_, _| {
            let mut answer = Answer::new("200 OK", &answer);
            answer.length = answer.length.filter(|_| told);
            answer
        });
        let place = unvouched(&server);
        let error = place.fails(&["get", "own", "--most", "100kB"]);
        let sends =
            if told { "sends 200000 bytes, and 100.00 kB" } else { "sends more than 100.00 kB" };
        contains(&error, &[sends, "--most SIZE"]);
        assert!(place.names().is_empty());
        // Its description says how much it is.
        let place = Place::new(&[("a.bin", &server.url, "size = 200000".into())]);
        place.ok(&["get", "own", "--most", "100kB"]);
        place.holds("a.bin", &want);
        let place = unvouched(&server);
        place.ok(&GET);
        place.holds("a.bin", &want);
    }
    // A size that no disk has.
    let server = Server::start(|_, _| {
        let mut answer = Answer::new("200 OK", b"x");
        answer.length = Some(1 << 60);
        answer
    });
    let sums = format!("size = {}", 1u64 << 60);
    let place = Place::new(&[("a.bin", &server.url, sums)]);
    contains(
        &place.fails(&GET),
        &["has 1152921504606846976 bytes", "there is room for", "make room"],
    );
    assert!(place.names().is_empty(), "{:?}", place.names());
}

/// Who can make the first address fail could otherwise choose the bytes.
#[test]
fn without_a_checksum_https_does_not_become_http() {
    let want = bytes(3_000, 31);
    let server = serves(&want);
    let place = unvouched(&server);
    let secure = nobody().replace("http:", "https:");
    let describe = |lines: &str| {
        let urls = format!("urls = [\"{secure}/a.bin\", \"{}/a.bin\"]", server.url);
        let text = format!(
            "[own]\ntitle = \"\"\nterms = \"\"\n[[own.files]]\nname = \"a.bin\"\n{urls}\n{lines}\n"
        );
        fs::write(place.0.path().join("own.toml"), text).unwrap();
    };
    let get = ["get", "own", "--retries", "0"];
    // The few digits of a prefix can be met.
    for lines in [String::new(), format!("sha256_prefix = \"{}\"", &sha256(&want)[..8])] {
        describe(&lines);
        contains(&place.fails(&get), &["was not asked: it is no https", "no checksum"]);
        assert!(server.requests().is_empty());
    }
    describe(&format!("sha256 = \"{}\"", sha256(&want)));
    place.ok(&get);
    place.holds("a.bin", &want);
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

/// A download that has come to `length` bytes.
fn downloading(place: &Place, length: u64) -> Child {
    let mut command = place.command(&GET);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let part = place.path(".heat-a.bin.part");
    wait_until(&mut child, || fs::metadata(&part).is_ok_and(|m| m.len() >= length));
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
    #[cfg(unix)]
    {
        assert_eq!(common::interrupt(&mut child), Some(130));
        let out = child.wait_with_output().unwrap();
        contains(&text(&out.stderr), &["stopped; what is downloaded is kept"]);
    }
    #[cfg(not(unix))]
    {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut child = downloading(&place, 600_000);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!place.path("a.bin").exists());
    let kept = fs::metadata(place.path(".heat-a.bin.part")).unwrap().len();
    assert!((600_000..1_500_000).contains(&kept), "{kept}");
    contains(&place.ok(&GET), &["a.bin: resuming after"]);
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
    // Within the first piece that comes, and after some.
    for blocks in [8, 200] {
        let place = vouched(&server, &want);
        // A limit on the size of files stands for a full disk.
        let mut shell = Command::new("sh");
        let limit = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        shell.args(["-c", &limit, "sh"]);
        shell.args([env!("CARGO_BIN_EXE_heat"), "data", "get", "own", "--sources", "own.toml"]);
        let out = shell.current_dir(place.0.path()).env("NO_PROXY", "127.0.0.1").output().unwrap();
        assert_eq!(out.status.code(), Some(1));
        contains(&text(&out.stderr), &["error: write datasets/.heat-a.bin.part: ", "make room"]);
        contains(&place.ok(&GET), &["resuming after"]);
        place.holds("a.bin", &want);
    }
    let place = vouched(&server, &want);
    fs::write(place.0.path().join("file"), "").unwrap();
    contains(&place.fails(&["get", "own", "--data", "file/data"]), &["create file/data: "]);
}
