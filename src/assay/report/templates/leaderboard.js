"use strict";
// The address after # says what is shown; every control changes that address, and show() draws it.
// Text from the records becomes text nodes only: nothing here reads markup, and the page's policy forbids it.

const parse = (id) => JSON.parse(document.getElementById(id).textContent);
const board = parse("board");
const DASH = "–";
const PAGE = 100; // rows drawn at first, and with every "show more"

// ---- small tools

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const percent = (value) => (100 * value).toFixed(1);
const area = (value) => value.toFixed(3);
const minus = (text) => text.replace("-", "−");
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
const total = (counts) => Object.values(counts).reduce((sum, count) => sum + count, 0);

function duration(seconds) {
  if (seconds < 100) return `${seconds.toFixed(1)} s`;
  return seconds < 6000 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

// ---- cells: what stands in a table

function figure(values, format, gauge) {
  if (!values) return DASH;
  const [value, low, high] = values;
  const cell = make("span", { class: "figure" }, format(value), make("small", null, `${format(low)}–${format(high)}`));
  if (gauge) {
    const bar = make("span", { class: "gauge", "aria-hidden": "true" }, make("i"), make("b"));
    bar.style.setProperty("--low", low);
    bar.style.setProperty("--high", high);
    bar.style.setProperty("--value", value);
    cell.append(bar);
  }
  return cell;
}

const badge = (state, text) => make("span", { class: `state ${state}` }, text ?? state);

// How many models a row is made of, leading to their records, and what became of the others.
function models(row, kind) {
  const here = { tab: "records", kind, q: "", state: "", sort: "" };
  for (const name of ["task", "chain", "attack", "detector", "mitigation"]) here[name] = row[name] ?? "";
  const cell = make("span", { class: "models" });
  cell.append(make("a", { href: address(here) }, `${row.models} of ${total(row.states)}`));
  for (const state of ["invalid", "failed", "missing"]) {
    if (row.states[state]) cell.append(badge(state, `${row.states[state]} ${state}`));
  }
  if (row.abstained) cell.append(badge("missing", `${row.abstained} abstained`));
  if (!row.models && row.why) cell.append(make("small", null, row.why));
  return cell;
}

function stateCell(row) {
  const cell = make("span", { class: "models" }, badge(row.state));
  if (row.why) cell.append(make("small", { class: "why" }, row.why));
  return cell;
}

// ---- columns

const name = (id, label) => ({ id, label, align: "text", value: (row) => row[id] ?? null, cell: (row) => row[id] ?? DASH });
const count = (id, label, cell) => ({ ...name(id, label), numeric: true, align: "num", ...(cell && { cell }) });
const modelsOf = (kind, label = "Models") => ({ ...count("models", label, (row) => models(row, kind)), align: "text" });
const share = (id, label, hint, gauge) => ({
  id, label, hint, numeric: true, align: "num",
  value: (row) => (row[id] ? row[id][0] : null),
  cell: (row) => figure(row[id], percent, gauge),
});
const seconds = count("seconds", "Time", (row) => (row.seconds === undefined || row.seconds === null ? DASH : duration(row.seconds)));
const signed = (value) => `${value > 0 ? "+" : ""}${minus((100 * value).toFixed(1))}`;

const ATTACK = name("attack", "Attack"), TASK = name("task", "Task"), CHAIN = name("chain", "Chain");
const ASR = share("asr", "ASR,\u00a0%", "attack success rate", true);
const CONTROL = share("control", "Control,\u00a0%", "the same trigger on the clean twin");
const CA = share("ca", "CA,\u00a0%", "clean accuracy"), RA = share("ra", "RA,\u00a0%", "triggered inputs that get their true class");
const AUC = { ...share("auc", "AUC"), cell: (row) => figure(row.auc, area, true) };
const KEY = { ...name("id", "Key"), cell: (row) => make("a", { href: address({ record: row.id }), class: "key" }, row.id) };
const METHOD = { ...name("method", "Method"), value: (row) => row.detector ?? row.mitigation ?? null, cell: (row) => row.detector ?? row.mitigation ?? DASH };
const SCORE = count("score", "Score", (row) => (row.abstained ? "abstained" : row.score === undefined ? DASH : minus(String(Number(row.score.toPrecision(4))))));
const CHANGE = count("change", "Change", (row) => {
  if (row.change === null) return DASH;
  return make("span", { class: "figure" }, signed(row.change), make("small", null, `from ${row.parent}`));
});
const WHERE = ["task", "chain", "attack"];

const TABS = {
  map: { rows: board.detectors, filters: [...WHERE, "detector"] },
  attacks: {
    rows: board.attacks, sort: "-asr", filters: [...WHERE, "state"],
    columns: [ATTACK, TASK, CHAIN, ASR, CONTROL, CA, RA, modelsOf("measure", "Valid models")],
  },
  detectors: {
    rows: board.detectors, sort: "-auc", filters: [...WHERE, "detector", "state"],
    columns: [
      name("detector", "Detector"), ATTACK, TASK, CHAIN, AUC,
      share("found5", "Found at 5\u00a0%", "share of the backdoored models found at the threshold for 5 % false alarms"),
      share("found1", "Found at 1\u00a0%", "share of the backdoored models found at the threshold for 1 % false alarms"),
      share("alarms5", "False alarms,\u00a0%", "share of the clean models flagged at the threshold for 5 %"),
      share("target", "Right target,\u00a0%", "share of the scored models of which the target class was named"),
      count("clean", "Clean models"), modelsOf("detect"), seconds,
    ],
  },
  mitigations: {
    rows: board.mitigations, sort: "asr", filters: [...WHERE, "mitigation", "state"],
    columns: [
      name("mitigation", "Mitigation"), ATTACK, TASK, CHAIN, { ...ASR, label: "ASR after,\u00a0%" },
      share("before", "ASR before,\u00a0%"), CA, RA, modelsOf("mitigate"), seconds,
    ],
  },
  chains: {
    rows: board.chains, sort: "", filters: [...WHERE, "state"],
    columns: [ATTACK, CHAIN, TASK, ASR, CHANGE, CONTROL, CA, modelsOf("measure", "Measured models")],
  },
  records: {
    rows: board.records, sort: "", filters: ["kind", ...WHERE, "detector", "mitigation", "state"],
    columns: [
      KEY, name("kind", "Kind"), METHOD, ATTACK, TASK, CHAIN, count("seed", "Seed"),
      { ...name("state", "State"), cell: stateCell }, { ...ASR, cell: (row) => figure(row.asr, percent) }, CA, SCORE, seconds,
    ],
  },
};
const FILTERS = {
  task: "Task", chain: "Chain", attack: "Attack", detector: "Detector", mitigation: "Mitigation", kind: "Kind", state: "State",
};

// ---- the address

const wanted = () => new URLSearchParams(location.hash.slice(1));

function address(changes) {
  const parameters = wanted();
  parameters.delete("record");
  for (const [key, value] of Object.entries(changes)) {
    if (value) parameters.set(key, value);
    else parameters.delete(key);
  }
  return `#${parameters}`;
}

function go(changes) {
  history.replaceState(null, "", address(changes));
  show();
}

// ---- which rows, in which order

const texts = new WeakMap();

function textOf(row) {
  if (!texts.has(row)) {
    const words = Object.values(row).filter((value) => typeof value === "string");
    texts.set(row, words.join(" ").toLowerCase());
  }
  return texts.get(row);
}

const isIn = (row, state) => (row.states ? row.states[state] > 0 : row.state === state);

function chosen(tab, parameters) {
  const filters = tab.filters.filter((key) => parameters.get(key));
  const words = (parameters.get("q") ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  return tab.rows.filter((row) => {
    for (const key of filters) {
      const value = parameters.get(key);
      if (key === "state" ? !isIn(row, value) : row[key] !== value) return false;
    }
    return words.every((word) => textOf(row).includes(word));
  });
}

function sortOf(tab, parameters) {
  const asked = parameters.get("sort") || tab.sort || "";
  const down = asked.startsWith("-");
  const column = tab.columns.find(({ id }) => id === (down ? asked.slice(1) : asked));
  return { column, down };
}

// Rows without a value come last in both directions; equal ones stay in the order of the matrix.
function sorted(rows, { column, down }) {
  if (!column) return rows;
  const sign = down ? -1 : 1;
  const keyed = rows.map((row) => {
    const value = column.value(row);
    return { row, value: typeof value === "string" ? value.toLowerCase() : value };
  });
  keyed.sort((a, b) => {
    if (a.value === b.value) return 0;
    if (a.value === null) return 1;
    if (b.value === null) return -1;
    return a.value < b.value ? -sign : sign;
  });
  return keyed.map(({ row }) => row);
}

// ---- tables

function buildTable(key) {
  const tab = TABS[key];
  const heads = tab.columns.map((column) => {
    const button = make("button", { type: "button" }, column.label);
    if (column.hint) button.title = column.hint;
    button.addEventListener("click", () => sortBy(tab, column));
    return make("th", { scope: "col", class: column.align }, button);
  });
  tab.heads = heads;
  tab.body = make("tbody");
  tab.more = make("button", { type: "button", class: "more" });
  tab.more.addEventListener("click", () => {
    drawRows(tab, tab.drawn + PAGE);
  });
  const table = make("table", { class: "board" }, make("thead", null, make("tr", null, ...heads)), tab.body);
  tab.wrap = make("div", { class: "table" }, table, tab.more);
  if (key === "records") tab.body.addEventListener("click", openRow);
  return tab.wrap;
}

function sortBy(tab, column) {
  const now = sortOf(tab, wanted());
  const down = now.column === column ? !now.down : Boolean(column.numeric);
  go({ sort: `${down ? "-" : ""}${column.id}` });
}

// A click anywhere in a record's row opens it; the keyboard has the link in its first cell.
function openRow(event) {
  const row = event.target.closest("tr");
  if (row && !event.target.closest("a") && !String(getSelection())) row.querySelector("a").click();
}

function drawTable(tab, rows, parameters) {
  const sort = sortOf(tab, parameters);
  tab.columns.forEach((column, index) => {
    if (column === sort.column) tab.heads[index].setAttribute("aria-sort", sort.down ? "descending" : "ascending");
    else tab.heads[index].removeAttribute("aria-sort");
  });
  tab.shown = sorted(rows, sort);
  tab.body.replaceChildren();
  tab.drawn = 0;
  drawRows(tab, PAGE);
}

function drawRows(tab, upTo) {
  tab.body.append(...tab.shown.slice(tab.drawn, upTo).map((row) => drawRow(tab, row)));
  tab.drawn = Math.min(upTo, tab.shown.length);
  const left = tab.shown.length - tab.drawn;
  tab.more.hidden = left === 0;
  tab.more.textContent = `Show ${Math.min(PAGE, left)} more of ${plural(left, "row")}`;
}

function drawRow(tab, row) {
  const cells = tab.columns.map((column, index) => {
    const attributes = { "data-label": column.label, class: column.align };
    return make(index ? "td" : "th", index ? attributes : { ...attributes, scope: "row" }, column.cell(row));
  });
  return make("tr", { class: row.states && !row.models ? "empty" : "" }, ...cells);
}

// ---- the heat map

function drawMap(rows) {
  const cells = cellsOf(rows);
  const attacks = ranked(cells, "attack"), detectors = ranked(cells, "detector");
  const head = ["Attack", ...detectors.map((column) => column.name), "Mean"].map((text) => make("th", { scope: "col" }, text));
  const body = attacks.map(({ name: attack, mean }) => {
    const line = detectors.map(({ name: detector }) => heatCell(cells.get(pair(attack, detector)) ?? { attack, detector, rows: [], mean: null }));
    return make("tr", null, make("th", { scope: "row" }, attack), ...line, meanCell(mean));
  });
  const foot = make("tr", null, make("th", { scope: "row" }, "Mean"), ...detectors.map(({ mean }) => meanCell(mean)), make("td"));
  document.getElementById("map").replaceChildren(
    make("thead", null, make("tr", null, ...head)), make("tbody", null, ...body), make("tfoot", null, foot));
}

const pair = (attack, detector) => JSON.stringify([attack, detector]);
const average = (values) => (values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null);

// The rows, one for each task and chain, of every attack and detector, and their mean AUC.
function cellsOf(rows) {
  const cells = new Map();
  for (const row of rows) {
    const key = pair(row.attack, row.detector);
    if (!cells.has(key)) cells.set(key, { attack: row.attack, detector: row.detector, rows: [] });
    cells.get(key).rows.push(row);
  }
  for (const cell of cells.values()) {
    cell.figures = cell.rows.map((row) => row.auc).filter(Boolean);
    cell.mean = average(cell.figures.map(([value]) => value));
  }
  return cells;
}

// The attacks or the detectors, those with the highest mean of their cells first.
function ranked(cells, key) {
  const groups = new Map();
  for (const cell of cells.values()) {
    if (!groups.has(cell[key])) groups.set(cell[key], []);
    if (cell.mean !== null) groups.get(cell[key]).push(cell.mean);
  }
  const means = [...groups].map(([name, values]) => ({ name, mean: average(values) }));
  return means.sort((a, b) => (b.mean ?? -1) - (a.mean ?? -1));
}

function heatCell({ attack, detector, rows, figures, mean }) {
  const href = address({ tab: "detectors", attack, detector, sort: "" });
  if (mean === null) {
    const [short, long] = emptiness(rows);
    return make("td", { class: "void", title: long }, make("a", { href }, short));
  }
  const several = rows.length > 1, values = figures.map(([value]) => value);
  const [low, high] = several ? [Math.min(...values), Math.max(...values)] : figures[0].slice(1);
  const range = `${low.toFixed(2)}–${high.toFixed(2)}`;
  const link = make("a", { href }, mean.toFixed(2), make("small", null, range));
  if (values.length < rows.length) link.append(make("small", null, `${values.length} of ${rows.length}`));
  link.title = `${detector} against ${attack}: AUC ${mean.toFixed(3)}, ` +
    (several ? `mean of ${values.length} of ${rows.length} tasks and chains, from ${range}` : `95 % interval ${range}`);
  const cell = make("td", { class: mean < 0.5 ? "low" : "high" }, link);
  cell.style.setProperty("--strength", Math.abs(mean - 0.5) * 2);
  return cell;
}

const meanCell = (mean) => make("td", { class: "mean" }, mean === null ? DASH : mean.toFixed(2));

// Why there is no AUC: in a word for the cell, and in full.
function emptiness(rows) {
  if (!rows.length) return ["not asked", "this matrix, as filtered, has no such cell"];
  const sum = (pick) => rows.reduce((count, row) => count + (pick(row) ?? 0), 0);
  const why = rows.find((row) => row.why)?.why;
  const because = why ? `, for instance: ${why}` : "";
  const words = [
    ["no clean", sum((row) => row.models), "no clean model has a score, so there is nothing to compare with"],
    ["abstained", sum((row) => row.abstained), `the detector abstained${because}`],
    ["failed", sum((row) => row.states.failed), `failed${because}`],
    ["invalid", sum((row) => row.states.invalid), `the attack was not valid${because}`],
    ["not run", sum((row) => row.states.missing), "not run yet"],
  ].filter(([, count]) => count);
  const long = words.map(([, count, text]) => `${count}: ${text}`).join("; ");
  return [words[0]?.[0] ?? "empty", long];
}

// ---- one record

let details = null, pictures = null; // read at the first click: they are most of the page

function drawRecord(id) {
  const dialog = document.getElementById("record");
  const index = id ? board.records.findIndex((row) => row.id === id) : -1;
  if (index < 0) {
    if (dialog.open) dialog.close();
    return;
  }
  details ??= parse("details");
  const close = make("button", { type: "button", class: "close", "aria-label": "Close" }, "×");
  close.addEventListener("click", () => dialog.close());
  dialog.replaceChildren(close, ...recordParts(board.records[index], details[index]));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function recordParts(row, detail) {
  const what = [row.kind, row.detector ?? row.mitigation].filter(Boolean).join(" ");
  const parts = [
    make("h2", { id: "record-title" }, `${what}: ${row.attack}`),
    make("p", { class: "where" }, badge(row.state), ` ${row.task} · ${row.chain} · seed ${row.seed}`),
  ];
  if (row.why && !detail.error) parts.push(make("p", { class: "absent" }, row.why));
  if (detail.error) parts.push(make("p", { class: "absent" }, detail.error));
  if (detail.pictures) parts.push(gallery(detail.pictures));
  if (detail.elsewhere) parts.push(make("p", { class: "note" }, `Its ${plural(detail.elsewhere, "picture")} would make this page too heavy; see records.json.`));
  if (detail.result.length) parts.push(make("h3", null, "Result"), lines(detail.result));
  parts.push(make("h3", null, "What was run"), lines(detail.facts));
  const command = board.command + row.id.split("~")[0];
  parts.push(make("h3", null, "Compute it again"), make("pre", { tabindex: "0" }, make("code", null, command)));
  return parts;
}

function gallery(places) {
  pictures ??= parse("pictures");
  return make("div", { class: "gallery" }, ...Object.entries(places).map(([name, place]) =>
    make("figure", null, make("img", { src: pictures[place], alt: name }), make("figcaption", null, name))));
}

const lines = (pairs) =>
  make("dl", { class: "facts" }, ...pairs.flatMap(([label, text]) => [make("dt", null, label), make("dd", null, text)]));

// ---- filters

const controls = {};

function buildFilters() {
  const form = document.getElementById("filters");
  const search = make("input", { type: "search", placeholder: "Search", "aria-label": "Search", autocomplete: "off", spellcheck: "false" });
  search.addEventListener("input", () => go({ q: search.value }));
  controls.q = search;
  form.append(make("label", { class: "by-q" }, make("span", null, "Search"), search));
  for (const [key, label] of Object.entries(FILTERS)) form.append(select(key, label, optionsOf(key)));
  form.append(select("sort", "Sort by", []));
  const clear = make("button", { type: "button", class: "clear" }, "Clear");
  clear.addEventListener("click", () => go({ q: "", sort: "", ...Object.fromEntries(Object.keys(FILTERS).map((key) => [key, ""])) }));
  controls.clear = clear;
  form.append(clear);
  form.addEventListener("submit", (event) => event.preventDefault());
}

function select(key, label, values) {
  controls[key] = make("select", { name: key });
  fill(controls[key], [["", "All"], ...values.map((value) => [value, value])]);
  controls[key].addEventListener("change", () => go({ [key]: controls[key].value }));
  return make("label", { class: `by-${key}` }, make("span", null, label), controls[key]);
}

const fill = (control, options) => control.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));

function optionsOf(key) {
  if (key === "state") return ["done", "invalid", "failed", "missing"];
  const values = Object.values(TABS).flatMap(({ rows }) => rows.map((row) => row[key]));
  const found = [...new Set(values.filter(Boolean))];
  return key === "chain" ? found : found.sort();
}

function syncFilters(tab, parameters) {
  for (const key of Object.keys(FILTERS)) {
    const control = controls[key], value = parameters.get(key) ?? "";
    if (value && ![...control.options].some((option) => option.value === value)) control.append(make("option", { value }, value));
    control.value = value;
    control.parentElement.hidden = !tab.filters.includes(key) || (control.options.length <= 2 && !value);
  }
  if (document.activeElement !== controls.q) controls.q.value = parameters.get("q") ?? "";
  controls.clear.hidden = ![...Object.keys(FILTERS), "q", "sort"].some((key) => parameters.get(key));
  syncSort(tab, parameters);
}

// On a narrow page the columns' heads are gone, and this stands for them.
function syncSort(tab, parameters) {
  controls.sort.parentElement.hidden = !tab.columns;
  if (!tab.columns) return;
  const options = tab.columns.flatMap(({ id, label, numeric }) => {
    const up = [id, `${label}, ${numeric ? "lowest first" : "A to Z"}`], down = [`-${id}`, `${label}, ${numeric ? "highest first" : "Z to A"}`];
    return numeric ? [down, up] : [up, down];
  });
  fill(controls.sort, [["", "As it comes"], ...options]);
  controls.sort.value = parameters.get("sort") || tab.sort || "";
}

// ---- all of it

let drawn = null; // the address, but for the record, that the tables were last drawn for

const first = () => Object.keys(TABS).find((key) => TABS[key].rows.length) ?? "records";

function show() {
  const parameters = wanted();
  const key = Object.hasOwn(TABS, parameters.get("tab") ?? "") ? parameters.get("tab") : first();
  if (drawn !== address({})) drawTab(key, parameters);
  drawn = address({});
  drawRecord(parameters.get("record"));
}

function drawTab(key, parameters) {
  const tab = TABS[key];
  for (const link of document.querySelectorAll(".tabs a")) {
    link.href = address({ tab: link.dataset.tab, sort: "" });
    if (link.dataset.tab === key) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  for (const panel of document.querySelectorAll(".panel")) panel.hidden = panel.dataset.tab !== key;
  for (const [name, other] of Object.entries(TABS)) if (other.wrap) other.wrap.hidden = name !== key;
  syncFilters(tab, parameters);
  const rows = chosen(tab, parameters);
  const all = tab.rows.length;
  document.getElementById("shown").textContent = rows.length === all ? plural(all, "row") : `${rows.length.toLocaleString("en")} of ${plural(all, "row")}`;
  if (key === "map") drawMap(rows);
  else drawTable(tab, rows, parameters);
  if (key === "chains") showCharts(rows);
}

function showCharts(rows) {
  const shown = new Set(rows.map((row) => JSON.stringify([row.task, row.attack])));
  for (const chart of document.querySelectorAll(".lines figure")) {
    chart.hidden = !shown.has(JSON.stringify([chart.dataset.task, chart.dataset.attack]));
  }
}

// With #timing=1 the page says in its DOM how long it took to open and to sort: benchmarks/leaderboard_speed.py reads it.
async function measure() {
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const timed = (changes) => {
    const start = performance.now();
    go(changes);
    document.body.getBoundingClientRect(); // makes the browser lay the page out now
    return performance.now() - start;
  };
  document.body.getBoundingClientRect();
  const times = { drawn_ms: performance.now(), sort_ms: {} };
  await painted();
  times.painted_ms = performance.now();
  times.first_content_ms = performance.getEntriesByName("first-contentful-paint")[0]?.startTime;
  go({ tab: "records" });
  for (const { id } of TABS.records.columns) {
    await painted();
    times.sort_ms[id] = Math.max(timed({ sort: id }), timed({ sort: `-${id}` }));
  }
  await painted();
  times.search_ms = timed({ sort: "", q: "seed badnets" });
  times.open_record_ms = timed({ q: "", record: board.records[0].id });
  document.getElementById("timing").textContent = JSON.stringify(times);
}

for (const key of Object.keys(TABS)) if (TABS[key].columns) document.getElementById("tables").append(buildTable(key));
buildFilters();
document.getElementById("record").addEventListener("close", () => {
  if (wanted().has("record")) go({});
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // its # would take the place of all that the address says
  document.getElementById("shown").focus();
});
addEventListener("hashchange", show);
show();
if (wanted().has("timing")) measure();
