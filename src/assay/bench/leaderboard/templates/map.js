// ---- the heat map

function drawMap(rows) {
  const cells = cellsOf(rows);
  const attacks = ranked(cells, "attack"), detectors = ranked(cells, "detector");
  const head = ["Attack", ...detectors.map((column) => column.name), "Mean"].map((text) => make("th", { scope: "col" }, breakable(text)));
  const body = attacks.map(({ name: attack, mean }) => {
    const line = detectors.map(({ name: detector }) => heatCell(cells.get(pair(attack, detector)) ?? { attack, detector, rows: [], mean: null }));
    return make("tr", null, make("th", { scope: "row" }, attack), ...line, meanCell(mean));
  });
  const foot = make("tr", null, make("th", { scope: "row" }, "Mean"), ...detectors.map(({ mean }) => meanCell(mean)), make("td"));
  document.getElementById("map").replaceChildren(
    make("thead", null, make("tr", null, ...head)), make("tbody", null, ...body), make("tfoot", null, foot));
}

// Long words may break: columns are as wide as numbers, not as names.
const breakable = (text) => text.replace(/[a-z]{11,}/gi, (word) => word.slice(0, 8) + "\u00ad" + word.slice(8));
const pair = (attack, detector) => JSON.stringify([attack, detector]);
const average = (values) => (values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null);

// Rows (one per task and chain) and mean AUC of every attack and detector.
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

// Attacks or detectors, highest mean first.
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
  const low = Math.min(...figures.map((figure) => figure[1])), high = Math.max(...figures.map((figure) => figure[2]));
  const range = `${low.toFixed(2)}–${high.toFixed(2)}`;
  const link = make("a", { href }, mean.toFixed(2), make("small", null, range));
  if (values.length < rows.length) link.append(make("small", null, `${values.length} of ${rows.length}`));
  link.title = `${detector} against ${attack}: AUC ${mean.toFixed(3)}, ` +
    (several ? `mean of ${values.length} of ${rows.length} tasks and chains, their 95 % intervals within ${range}` : `95 % interval ${range}`);
  const cell = make("td", { class: mean < 0.5 ? "low" : "high" }, link);
  cell.style.setProperty("--strength", Math.abs(mean - 0.5) * 2);
  return cell;
}

const meanCell = (mean) => make("td", { class: "mean" }, mean === null ? DASH : mean.toFixed(2));

// Reason for a missing AUC: in a word for the cell, and in full.
function emptiness(rows) {
  if (!rows.length) return ["not asked", "the filtered matrix has no such cell"];
  const sum = (pick) => rows.reduce((count, row) => count + (pick(row) ?? 0), 0);
  const why = rows.find((row) => row.why)?.why;
  const because = why ? `, for instance: ${why}` : "";
  const words = [
    ["no clean", sum((row) => row.models), "no clean model has a score to compare with"],
    ["abstained", sum((row) => row.abstained), `the detector abstained${because}`],
    ["failed", sum((row) => row.states.failed), `failed${because}`],
    ["invalid", sum((row) => row.states.invalid), `the attack was not valid${because}`],
    ["not run", sum((row) => row.states.missing), "not run yet"],
  ].filter(([, count]) => count);
  const long = words.map(([, count, text]) => `${count}: ${text}`).join("; ");
  return [words[0]?.[0] ?? "empty", long];
}
