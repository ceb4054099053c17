//! The report: what is in it, what it refuses, and how a real browser shows it.

use crate::common;

use std::fs;
use std::path::Path;

use common::browser::browser;
use common::{contains, data, fails, ok, text};
use serde_json::Value;

/// A name that would be markup, if it were let.
const EVIL: &str = "<script>alert(1)<b>&\"'{{body}}";

/// A run directory `run`, trained for two short epochs.
fn trained(path: &Path) {
    let tiny = ["ebm=quickstart_gmm", "ebm.model.hidden_dim=16", "ebm.model.steps=1", "n_epochs=2"];
    let train = data("train");
    ok(
        path,
        &[&["train"], &tiny[..], &["batch_size=500", "--train", &train, "--out=run"]].concat(),
    );
}

/// `heat` with the bundled features and these arguments.
fn with_sets(path: &Path, first: &[&str], more: &[&str]) -> String {
    let (train, head, id) = (data("train"), data("head"), data("test"));
    let ood = [format!("mnist={}", data("ood_mnist")), format!("{EVIL}={}", data("ood_textures"))];
    let sets = ["--train", &train, "--head", &head, "--id", &id, "--ood", &ood[0], &ood[1]];
    text(&ok(path, &[first, &sets, more].concat()).stdout)
}

fn page(path: &Path, name: &str) -> String {
    fs::read_to_string(path.join(name)).unwrap()
}

#[test]
fn an_evaluation_has_its_page_and_the_same_one_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let scorers = ["--scorers", "el,ssd,msp", "--combine", "el,ssd", "--report", "r.html"];
    let table = with_sets(path, &["eval"], &scorers);
    let html = page(path, "r.html");
    assert!(with_sets(path, &["eval"], &scorers[..4]) == table, "a report changes no result");
    contains(&html, &["FPR95 (ID+)", "FPR95 (OOD+)", "combine(el,ssd,beta=0)", "--report r.html"]);
    // Hashes of the sets; names as text only, and not as templates.
    contains(&html, &["&lt;script&gt;alert(1)&lt;b&gt;&amp;&quot;&#39;{{body}}"]);
    assert_eq!(html.matches("<script").count(), 1);
    assert!(!html.contains("alert(1)<"));
    // `sha256sum`.
    contains(
        &html,
        &["test.safetensors 5b11e73b527dc00a991d022d0c941a976aa197dd7878e8356cdd23232af0f1d9"],
    );
    // No address but those of the page itself.
    for address in ["http:", "https:", "//", "url(", "@import"] {
        let scripts = html.replace("// ", "");
        assert!(!scripts.contains(address), "{address}");
    }
    assert!(html.len() < 3_000_000, "{} bytes", html.len());
    // Not where they lie.
    assert!(!html.contains(env!("CARGO_MANIFEST_DIR")), "an absolute path");
    contains(&html, &["--train …/train.safetensors", "in-distribution: test.safetensors."]);
    // What was fitted here says on what.
    let (_, fitted) = html.split_once("<table id=\"scorers\"").unwrap();
    let (fitted, _) = fitted.split_once("</table>").unwrap();
    let train = heat_ood::io::sha256(Path::new(&data("train"))).unwrap();
    assert_eq!(fitted.matches(&format!("train.safetensors {train}")).count(), 4);
    // Seconds differ, and when it was.
    let stable = |html: &str| -> Vec<String> {
        let cost = html.find("<section id=\"cost\"").unwrap();
        let rest = html[cost..].find("</section>").unwrap() + cost;
        let all = format!("{}{}", &html[..cost], &html[rest..]);
        all.lines().filter(|l| !l.contains(" UTC</dd>")).map(str::to_owned).collect()
    };
    with_sets(path, &["eval"], &[&scorers[..], &["--threads", "1"]].concat());
    let again = page(path, "r.html");
    let differ = |(a, b): &(String, String)| a != b && !a.contains("<dt>");
    let mut pairs = stable(&html).into_iter().zip(stable(&again));
    assert_eq!(pairs.find(differ), None);
    assert_eq!(stable(&html).len(), stable(&again).len());
}

/// The numbers are those of `--format json`.
#[test]
fn groups_intervals_and_comparisons_are_on_the_page() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let more = ["--scorers", "el,knn", "--ci", "--compare", "--resamples", "50", "--near", EVIL];
    let more = [&more[..], &["--far", "mnist", "--format", "json", "--report", "r.html"]].concat();
    let json: Value = serde_json::from_str(&with_sets(path, &["eval"], &more)).unwrap();
    let html = page(path, "r.html");
    contains(&html, &["average of near", "average of far", "id=\"comparison-0\"", "Holm"]);
    let ci = &json["scorers"]["el"]["average"]["ci"]["auroc"];
    let ends = [0, 1].map(|i| format!("{:.2}", 100.0 * ci[i].as_f64().unwrap()));
    // In the first table too.
    contains(&html, &[&format!("<small>[{}, {}]</small>", ends[0], ends[1])]);
    contains(&html, &[&format!(" [{}, {}]<", ends[0], ends[1])]);
    let test = &json["comparison"]["scorers"]["el"]["average"]["auroc"];
    contains(&html, &[&format!("{:+.2}", 100.0 * test["difference"].as_f64().unwrap())]);
}

/// Of the 1,000 calibration rows themselves ⌊0.1·1001⌋ − 1 = 99 are flagged.
#[test]
fn promises_of_calibrated_detectors_are_on_the_page() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (train, head, id) = (data("train"), data("head"), data("test"));
    ok(path, &["fit", "norm", "--train", &train, "-o", "norm"]);
    let calibrate = ["calibrate", "norm", "--id", &id, "--alpha", "0.1"];
    ok(path, &[&calibrate[..], &["-o", "all"]].concat());
    let by_class = ["-o", "classes", "--per-class", "--head", &head];
    ok(path, &[&calibrate[..], &by_class].concat());
    let more = ["--detectors", "all", "classes", "norm", "--report", "r.html"];
    with_sets(path, &["eval"], &more);
    let html = page(path, "r.html");
    let (_, table) = html.split_once("<table id=\"promises\"").unwrap();
    let (table, _) = table.split_once("</table>").unwrap();
    let promise = "at most 0.1 of in-distribution rows are flagged";
    contains(
        table,
        &[">all<", ">classes<", promise, ">9.90<", ">10 classes<", "; 1000 calibration rows<"],
    );
    assert!(!table.contains(">norm<"), "it promises nothing");
    contains(&html, &["<dt>calibrated on</dt><dd>test.safetensors 5b11e73b"]);
    // A report without such has no such table.
    with_sets(path, &["eval"], &["--detectors", "norm", "--report", "none.html"]);
    assert!(!page(path, "none.html").contains("<table id=\"promises\""));
}

#[test]
fn runs_sweeps_and_results_have_pages() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    trained(path);
    ok(path, &["report", "run"]);
    let html = page(path, "report.html");
    contains(&html, &["fig-training", "train.safetensors", "<dt>seed</dt><dd>0</dd>"]);
    contains(&html, &["hidden_dim = 16"]);
    assert!(!html.contains("fig-roc"));

    let json = with_sets(path, &["eval"], &["--scorers", "el", "--format", "json"]);
    fs::write(path.join("results.json"), json).unwrap();
    ok(path, &["report", "results.json", "-o", "table.html"]);
    let html = page(path, "table.html");
    contains(&html, &["results-0", "metrics-0", "<h3>results.json</h3>"]);
    assert!(!html.contains("<figure") && !html.contains("id=\"seeds-"));

    let (train, id) = (data("train"), data("test"));
    let ood = format!("mnist={}", data("ood_mnist"));
    let tiny = ["ebm=quickstart_gmm", "ebm.model.hidden_dim=16", "ebm.model.steps=1", "n_epochs=1"];
    let grid = ["seed=0,1", "--train", &train, "--out=s"];
    let sets = ["--id", &id, "--ood", &ood];
    ok(path, &[&["sweep"], &tiny[..], &grid, &sets].concat());
    ok(path, &[&["report", "s", "run", "-o", "sweep.html"], &sets[..]].concat());
    let html = page(path, "sweep.html");
    contains(&html, &["<h3>Sweep s</h3>", "seed=1", "results-1", "fig-energies-2", "fig-training"]);
    // Over the seeds, of what both tables hold.
    let found: Value = serde_json::from_str(&page(path, "s/sweep.json")).unwrap();
    let auroc = &found["settings"][0]["metrics"]["average"]["auroc"];
    let spread = ["mean", "std"].map(|k| format!("{:.2}", 100.0 * auroc[k].as_f64().unwrap()));
    for table in ["seeds-0", "seeds-1"] {
        let (_, rest) = html.split_once(&format!("<table id=\"{table}\"")).unwrap();
        let (table, _) = rest.split_once("</table>").unwrap();
        let value = format!(">{} ± {}<", spread[0], spread[1]);
        contains(table, &[">all seeds<", ">2<", &value]);
    }
    assert!(!html.contains(&path.display().to_string()), "an absolute path");
    assert!(!html.contains("results-2"));

    // The members of a composition in a file are scored for its β, and not listed.
    let compose = ["compose", "a=run/detector.safetensors", "b=s/seed=1/detector.safetensors"];
    ok(path, &[&compose[..], &["--train", &train, "-o", "both.safetensors"]].concat());
    let eval = ["eval", "--detectors", "both.safetensors", "--report", "both.html"];
    ok(path, &[&eval[..], &sets].concat());
    let html = page(path, "both.html");
    contains(&html, &["fig-beta-0", "best member alone: ", "<dt>b</dt><dd>training mean"]);
    assert_eq!(html.matches("id=\"fig-histogram-").count(), 1);
    let sha = heat_ood::io::sha256(&path.join("both.safetensors")).unwrap();
    contains(&html, &[&format!("<td>both.safetensors {sha}</td>")]);
}

#[test]
fn what_cannot_be_reported_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    trained(path);
    fs::write(path.join("list.json"), "[1, 2]").unwrap();
    fs::create_dir(path.join("empty")).unwrap();
    let train = data("train");
    let refused = |args: &[&str], code: i32, parts: &[&str]| {
        let (got, error) = fails(path, &[&["report"], args].concat());
        assert_eq!(got, code, "{args:?}: {error}");
        contains(&error, parts);
        assert!(!path.join("report.html").exists());
    };
    refused(&["list.json"], 1, &["list.json", "heat eval --format json"]);
    refused(&[&train], 1, &["train.safetensors", "heat eval --format json"]);
    refused(&["empty"], 1, &["empty", "recipe.toml"]);
    refused(&["absent"], 1, &["absent", "does not exist"]);
    refused(&["run", "run"], 2, &["two runs have that name"]);
    refused(&["run", "--id", &train], 2, &["--ood"]);
    refused(&["run", "--train", &train], 2, &["--id"]);
    refused(&["run", "-o", "run/metrics.jsonl"], 2, &["read by this command"]);
    refused(&["run", "-o", "no/page.html"], 2, &["does not exist"]);
    fs::write(path.join("run/metrics.jsonl"), "{}\n").unwrap();
    refused(&["run"], 1, &["metrics.jsonl", "line 1"]);
    fs::write(path.join("run/metrics.jsonl"), "").unwrap();
    fs::remove_file(path.join("run/detector.safetensors")).unwrap();
    let ood = format!("mnist={}", data("ood_mnist"));
    refused(&["run", "--id", &data("test"), "--ood", &ood], 2, &["none of these runs is finished"]);
    ok(path, &["report", "run", "-o", "unfinished.html"]);
    contains(&page(path, "unfinished.html"), &["unfinished: there is no detector"]);

    let (id, eval) = (data("test"), ["eval", "--ood", &ood, "--train", &train, "--scorers", "ssd"]);
    let more = ["--id", &id, "-o", "same", "--report", "same"];
    let (code, error) = fails(path, &[&eval[..], &more].concat());
    assert_eq!(code, 2);
    contains(&error, &["where the results go"]);
}

/// On a narrow screen: what is wrong with texts, scrollers and captions.
const NARROW: &str = "
const out = [], width = document.documentElement.clientWidth;
const name = e => (e.closest('[id]') || {}).id + ': ' + e.textContent.slice(0, 40);
for (const e of document.querySelectorAll('th, td, p, li, figcaption, small, summary, dd')) {
  if (parseFloat(getComputedStyle(e).fontSize) < 11) out.push('small text: ' + name(e));
}
for (const e of document.querySelectorAll('.caption, figcaption')) {
  const b = e.getBoundingClientRect();
  if (e.closest('.scroll') || b.left < 0 || b.right > width) out.push('caption: ' + name(e));
}
for (const e of document.querySelectorAll('.scroll')) {
  const style = getComputedStyle(e);
  if (e.getBoundingClientRect().right > width) out.push('wide: ' + name(e));
  if (style.backgroundAttachment !== 'local, local, scroll, scroll') out.push('no shade: ' + name(e));
}
for (const svg of document.querySelectorAll('svg')) {
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  const boxes = [...svg.querySelectorAll('text')].map(t => [t, t.getBoundingClientRect()]);
  for (const [i, [t, a]] of boxes.entries()) {
    const size = parseFloat(getComputedStyle(t).fontSize) * scale;
    if (size < 9.5) out.push('small: ' + size + ' ' + name(t));
    for (const [u, b] of boxes.slice(i + 1)) {
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (x > 2 && y > 4) out.push('overlap: ' + name(t) + ' / ' + name(u));
    }
  }
}
for (const e of document.querySelectorAll('.matrix td, #cost-table td')) {
  if (e.scrollWidth > e.clientWidth + 1) out.push('cut: ' + name(e));
}
return out;";

/// A wide table after it was scrolled: how much it was, how far its first column moved, and how
/// much of the second one that column covers.
const SCROLLED: &str = "
const scroller = document.querySelector('#results-0').parentElement, row = document.querySelector('#results-0 tbody tr');
const place = () => row.cells[0].getBoundingClientRect().left;
const before = place();
scroller.scrollLeft = 60;
const [first, second] = [...row.cells].map(c => c.getBoundingClientRect());
const found = [scroller.scrollLeft, place() - before, first.right - second.left];
scroller.scrollLeft = 0;
return found;";

/// How much is seen of two series once the name of the second is focused, then of both without.
const FOCUSED: &str = "
const seen = n => getComputedStyle(document.querySelector(`#fig-roc svg polyline[stroke='var(--s${n})']`)).opacity;
const item = document.querySelectorAll('#fig-roc .legend li')[1];
item.focus();
const out = [document.activeElement === item, seen(0), seen(1)];
item.blur();
return [...out, seen(0), seen(1)];";

/// Every figure with whether all its drawings are there: their size, something
/// visible in them, labels within them, a caption.
const FIGURES: &str = "
for (const d of document.querySelectorAll('details')) d.open = true;
const within = (a, b) => a.left >= b.left - 2 && a.right <= b.right + 2 && a.top >= b.top - 2 && a.bottom <= b.bottom + 2;
const faults = svg => {
  const box = svg.getBoundingClientRect(), out = [];
  if (!(box.width > 100 && box.height > 50)) out.push('size ' + box.width + 'x' + box.height);
  if (svg.getAttribute('role') !== 'img' || !svg.getAttribute('aria-label')) out.push('no name');
  const shapes = [...svg.querySelectorAll('polyline,polygon,circle,rect')];
  const seen = shapes.filter(s => {
    const b = s.getBoundingClientRect(), style = getComputedStyle(s);
    return b.width + b.height > 1 && within(b, box) && /rgb/.test(style.stroke + style.fill);
  });
  if (seen.length === 0) out.push('nothing drawn');
  if (seen.length < shapes.length) out.push((shapes.length - seen.length) + ' shapes outside or without colour');
  for (const t of svg.querySelectorAll('text')) if (!within(t.getBoundingClientRect(), box)) out.push('outside: ' + t.textContent);
  return out;
};
return [...document.querySelectorAll('figure')].map(f => {
  const svgs = [...f.querySelectorAll('svg')], caption = f.querySelector('figcaption');
  const found = svgs.flatMap(faults);
  if (svgs.length === 0 && !f.querySelector('table.matrix td')) found.push('no drawing');
  if (!(caption && caption.textContent.length > 40)) found.push('no caption');
  return [f.id, found.join('; ')];
});";

#[test]
fn a_browser_shows_everything() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let Some(browser) = browser("a_browser_shows_everything", path) else {
        return;
    };
    trained(path);
    let scorers = ["--scorers", "el,ssd,knn(k=50)", "--combine", "run,el", "-o", "page.html"];
    with_sets(path, &["report", "run"], &scorers);
    assert!(!page(path, "page.html").contains(&path.display().to_string()), "an absolute path");
    browser.open(&path.join("page.html"));

    let figures = browser.run(FIGURES);
    let figures: Vec<(String, String)> = serde_json::from_value(figures).unwrap();
    for (id, faults) in &figures {
        assert_eq!(faults, "", "{id}");
    }
    let ids: Vec<&str> = figures.iter().map(|(id, _)| id.as_str()).collect();
    for id in [
        "fig-histogram-0",
        "fig-histogram-4",
        "fig-roc",
        "fig-precision",
        "fig-energies-3",
        "fig-beta-0",
        "fig-correlation",
        "fig-calibration",
        "fig-detection",
        "fig-training",
        "fig-training-energies",
    ] {
        assert_eq!(ids.iter().filter(|i| **i == id).count(), 1, "{id} of {ids:?}");
    }
    let alt =
        browser.run("return [...document.querySelectorAll('#fig-roc svg')].map(s => s.ariaLabel)");
    assert_eq!(alt[1], format!("ROC curves of 5 scorers on {EVIL}"));

    // The second column holds average AUROCs: up, then down.
    let column = "return [...document.querySelectorAll('#results-0 tbody tr')].map(r => Number(r.cells[1].textContent))";
    let values = || serde_json::from_value::<Vec<f64>>(browser.run(column)).unwrap();
    let title = "#results-0 thead tr:last-child th:nth-child(2)";
    let state = format!("return document.querySelector('{title}').getAttribute('aria-sort')");
    for (direction, sign) in [("ascending", 1.0), ("descending", -1.0), ("ascending", 1.0)] {
        browser.click(&format!("{title} button"));
        let values = values();
        assert_eq!(values.len(), 5);
        assert!(values.windows(2).all(|w| sign * w[0] <= sign * w[1]), "{direction}: {values:?}");
        assert_eq!(browser.run(&state), direction);
    }
    browser.click("#results-0 thead tr:last-child th:first-child button");
    assert_eq!(browser.run(&state), Value::Null);
    let first = browser.run("return document.querySelector('#results-0 tbody th').textContent");
    assert_eq!(first, "combine(run,el,beta=0)");

    for width in [1280, 400] {
        browser.width(width);
        let widths = "const e = document.documentElement; return [e.clientWidth, e.scrollWidth]";
        let [shown, needed]: [u32; 2] = serde_json::from_value(browser.run(widths)).unwrap();
        // But for a scroll bar.
        assert!(width - shown < 20 && needed == shown, "{needed} of {shown} in {width}");
    }
    assert_eq!(browser.run(NARROW), Value::Array(Vec::new()));
    let [way, moved, covered]: [f64; 3] = serde_json::from_value(browser.run(SCROLLED)).unwrap();
    assert_eq!(way, 60.0, "nothing to scroll");
    assert!(moved.abs() < 1.0 && (covered - 60.0).abs() < 2.0, "{moved}, {covered}");
    assert_eq!(browser.run(FOCUSED), serde_json::json!([true, "0.08", "1", "1", "1"]));
    // Text can be told from its ground in light and in dark.
    let colours = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor].map(c => c.match(/\\d+/g).reduce((a, b) => a + Number(b), 0))";
    for dark in [false, true] {
        browser.dark(dark);
        let [ink, paper]: [f64; 2] = serde_json::from_value(browser.run(colours)).unwrap();
        assert!((paper - ink) * if dark { -1.0 } else { 1.0 } > 450.0, "{ink} on {paper}");
    }
    assert!(browser.print().starts_with("JVBERi0"), "no PDF");
    let closed = "return document.querySelectorAll('details:not([open])').length";
    assert_eq!(browser.run(closed), 0);

    assert_eq!(browser.console(), Vec::<Value>::new());
    let requests = browser.requests();
    assert!(requests.iter().any(|a| a.ends_with("/page.html")));
    // `chrome:` is the browser's own first tab.
    let known =
        |a: &str| a.ends_with("/page.html") || a.starts_with("data:") || a.starts_with("chrome:");
    let elsewhere = |a: &&String| !known(a);
    assert_eq!(requests.iter().find(elsewhere), None);
}
