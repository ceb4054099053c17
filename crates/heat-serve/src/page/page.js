"use strict";

const every = 2000;
const byId = (id) => document.getElementById(id);
let token = "";
let failures = 0;
// Evidence as it came, by model: the server keeps the latest value alone.
const evidence = new Map();

// Text alone: nothing that clients sent is ever read as markup.
function made(tag, text, attributes) {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = String(text);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  return node;
}

function drawn(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

const number = (value, digits) => value === null || value === undefined ? "–"
  : Number(value).toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: 0 });
const percent = (value) => value === null || value === undefined ? "–" : `${number(100 * value, 2)} %`;
const clock = (seconds) => new Date(1000 * seconds).toLocaleTimeString();
const p = (value) => value === null || value === undefined ? "–"
  : value < 0.001 ? value.toExponential(1) : number(value, 4);

function list(pairs) {
  const nodes = [];
  for (const [name, value, kind] of pairs) {
    const box = made("div");
    box.append(made("dt", name), made("dd", value, kind ? { class: kind } : {}));
    nodes.push(box);
  }
  return nodes;
}

async function ask(path, method) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { method: method || "GET", headers, cache: "no-store" });
  if (answer.status === 401 || answer.status === 403) {
    byId("entry").hidden = false;
    throw new Error("a token is needed");
  }
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error || `status ${answer.status}`);
  byId("entry").hidden = true;
  return body;
}

function say(text, bad) {
  const state = byId("state");
  if (state.textContent !== text) state.textContent = text;
  state.className = bad ? "bad" : "";
}

function histogram(bins) {
  const [width, height, left, bottom] = [320, 130, 34, 20];
  const total = bins.reduce((a, b) => a + b, 0);
  const most = Math.max(...bins, total / bins.length, 1);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  svg.append(drawn("title", {}, `p-values of ${total} rows in ${bins.length} bins`));
  const step = (width - left - 4) / bins.length;
  const y = (n) => height - bottom - (height - bottom - 12) * n / most;
  bins.forEach((n, i) => svg.append(drawn("rect", { class: "bar", x: left + i * step,
    y: y(n), width: Math.max(step - 1, 1), height: height - bottom - y(n) })));
  const even = y(total / bins.length);
  svg.append(drawn("line", { class: "even", x1: left, x2: width - 4, y1: even, y2: even }));
  svg.append(drawn("line", { class: "axis", x1: left, x2: width - 4, y1: height - bottom,
    y2: height - bottom }));
  for (const [at, text, anchor] of [[left, "0", "start"], [width - 4, "1", "end"]]) {
    svg.append(drawn("text", { x: at, y: height - 6, "text-anchor": anchor }, text));
  }
  svg.append(drawn("text", { x: left - 4, y: 16, "text-anchor": "end" }, number(most, 0)));
  return svg;
}

function evidenceChart(points, threshold) {
  const [width, height, left, bottom] = [320, 130, 34, 20];
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  svg.append(drawn("title", {}, "evidence for drift since this page was opened: the part of what is an alarm, in digits"));
  const values = points.map(([, value]) => value);
  const low = Math.min(-1, ...values);
  const high = Math.max(threshold + 0.5, ...values);
  const y = (v) => 12 + (height - bottom - 12) * (high - v) / (high - low);
  const last = Math.max(points.length - 1, 1);
  const x = (i) => left + (width - left - 4) * i / last;
  svg.append(drawn("line", { class: "limit", x1: left, x2: width - 4, y1: y(threshold),
    y2: y(threshold) }));
  svg.append(drawn("line", { class: "axis", x1: left, x2: width - 4, y1: y(0), y2: y(0) }));
  svg.append(drawn("polyline", { class: "evidence",
    points: points.map(([, v], i) => `${x(i)},${y(v)}`).join(" ") }));
  for (const v of [0, threshold]) {
    svg.append(drawn("text", { x: left - 4, y: y(v) + 4, "text-anchor": "end" }, number(v, 1)));
  }
  return svg;
}

function table(rows) {
  const scroll = made("div", null, { class: "scroll", tabindex: "0", role: "region",
    "aria-label": "latest requests" });
  const all = made("table");
  const head = made("tr");
  for (const name of ["time", "id", "rows", "highest score", "its p", "anomalous", "ms"]) {
    head.append(made("th", name, { scope: "col" }));
  }
  const top = made("thead");
  top.append(head);
  const body = made("tbody");
  for (const row of rows) {
    const line = made("tr");
    line.append(made("td", clock(row.time)), made("td", row.id || ""), made("td", row.rows),
      made("td", number(row.score, 4)), made("td", p(row.p_value)),
      made("td", row.ood, row.ood ? { class: "ood" } : {}), made("td", number(row.ms, 2)));
    body.append(line);
  }
  all.append(top, body);
  scroll.append(all);
  return scroll;
}

// What a button does must not be lost when the page is drawn anew: sections are kept.
const sections = new Map();

function section(name) {
  if (!sections.has(name)) {
    const node = made("section");
    const parts = { node, title: made("h2"), facts: made("dl"), alarm: made("p"),
      charts: made("div", null, { class: "charts" }), buttons: made("div", null,
      { class: "buttons" }), recent: made("div"), note: made("p", "", { class: "note" }) };
    const act = (text, path) => {
      const button = made("button", text, { type: "button" });
      button.addEventListener("click", async () => {
        try {
          await ask(path.replace("*", encodeURIComponent(name)), "POST");
          parts.note.textContent = `${text}: done`;
        } catch (error) {
          parts.note.textContent = `${text}: ${error.message}`;
        }
        refresh();
      });
      parts.buttons.append(button);
    };
    act("Read the file again", "/v2/repository/models/*/load");
    act("Acknowledge the alarm", "/heat/v1/models/*/drift/acknowledge");
    act("Begin anew with drift", "/heat/v1/models/*/drift/reset");
    node.append(parts.title, parts.facts, parts.alarm, parts.charts, made("h3", "Latest requests"),
      parts.recent, parts.buttons, parts.note);
    byId("models").append(node);
    sections.set(name, parts);
  }
  return sections.get(name);
}

function show(status) {
  byId("main").hidden = false;
  const traffic = status.traffic;
  byId("traffic").replaceChildren(...list([
    ["requests a second", number(traffic.requests_per_second, 1)],
    ["rows a second", number(traffic.rows_per_second, 1)],
    ["p50", `${number(traffic.milliseconds.p50, 2)} ms`],
    ["p95", `${number(traffic.milliseconds.p95, 2)} ms`],
    ["p99", `${number(traffic.milliseconds.p99, 2)} ms`],
    ["rows that wait", number(status.queue_rows, 0)],
    ["held by requests", `${number(status.memory_bytes / 1048576, 1)} MiB`],
    ["up", `${number(status.uptime_seconds / 3600, 2)} h`],
  ]));
  const refused = Object.entries(traffic.refused).map(([reason, n]) => `${reason} ${n}`);
  byId("refused").textContent = refused.length
    ? `Refused in the last 15 minutes: ${refused.join(", ")}` : "";
  for (const model of status.models) {
    const parts = section(model.name);
    const watched = model.watched || {};
    parts.title.textContent = `${model.name} ${model.version || ""}`;
    const band = watched.band ? ` (usual: ${percent(watched.band[0])} to ${percent(watched.band[1])})` : "";
    const state = watched.state || "no rows yet";
    parts.facts.replaceChildren(...list([
      ["state", model.state === "READY" ? "ready" : model.state,
        model.state === "READY" ? "steady" : "alarm"],
      ["scorer", model.scorer || "–"],
      ["SHA-256", (model.sha256 || "–").slice(0, 16)],
      ["last read", clock(model.loaded)],
      ["rows in 15 minutes", number(watched.rows, 0)],
      ["called anomalous", `${percent(watched.flagged)}${band}`],
      ["decided at", watched.alpha === null || watched.alpha === undefined ? "–" : percent(watched.alpha)],
      ["drift", state, state.startsWith("drifting") ? "alarm" : state === "steady" ? "steady" : ""],
    ]));
    if (model.reason) {
      parts.note.textContent = model.reason;
    }
    const alarms = watched.alarms || [];
    const [first] = alarms;
    const last = alarms[alarms.length - 1];
    parts.alarm.className = first ? "alarm" : "";
    parts.alarm.textContent = first
      ? `Since watched row ${first.since} (${clock(first.time)}) about ${percent(last.admixture)} of the `
        + `rows are anomalous; last alarm ${clock(last.time)}, ${last.test}` : "";
    const points = evidence.get(model.name) || [];
    if (watched.evidence && watched.evidence.length) {
      // Tests ask for different evidence: what counts is the part of it that is there.
      points.push([Date.now(), Math.max(...watched.evidence.map((e) => e.log10 / e.threshold_log10))]);
      if (points.length > 450) points.shift();
      evidence.set(model.name, points);
    }
    const charts = [];
    if (watched.p_values && watched.rows && watched.alpha !== null) {
      const box = made("div");
      box.append(made("h3", "p-values, against even ones"), histogram(watched.p_values));
      charts.push(box);
    }
    if (points.length > 1 && watched.alpha !== null) {
      const box = made("div");
      box.append(made("h3", "Evidence for drift; 1 is an alarm"), evidenceChart(points, 1));
      charts.push(box);
    }
    parts.charts.replaceChildren(...charts);
    const scroll = parts.recent.firstChild;
    const [top, focused] = scroll ? [scroll.scrollTop, document.activeElement === scroll] : [0, false];
    parts.recent.replaceChildren(table(model.recent || []));
    parts.recent.firstChild.scrollTop = top;
    if (focused) parts.recent.firstChild.focus();
  }
  for (const [name, parts] of sections) {
    if (!status.models.some((model) => model.name === name)) {
      parts.node.remove();
      sections.delete(name);
    }
  }
}

async function refresh() {
  try {
    const status = await ask("/heat/v1/status");
    failures = 0;
    show(status);
    say(status.ready ? `ready, version ${status.version}` : "not ready", !status.ready);
  } catch (error) {
    failures += 1;
    say(failures > 0 && !byId("main").hidden ? `stale: ${error.message}` : error.message, true);
  }
}

byId("entry").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value;
  refresh();
});

refresh();
setInterval(refresh, every);
