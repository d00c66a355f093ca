// ---- table cells

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

// Number of models behind a row, linked to their records, and the states of the others.
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
const rate = (id, label, hint, gauge) => ({
  id, label, hint, numeric: true, align: "num",
  value: (row) => (row[id] ? row[id][0] : null),
  cell: (row) => figure(row[id], percent, gauge),
});
const seconds = count("seconds", "Time", (row) => (row.seconds === undefined || row.seconds === null ? DASH : duration(row.seconds)));
const signed = (value) => `${value > 0 ? "+" : ""}${minus((100 * value).toFixed(1))}`;

const ATTACK = name("attack", "Attack"), TASK = name("task", "Task"), CHAIN = name("chain", "Chain");
const ASR = rate("asr", "ASR,\u00a0%", "attack success rate", true);
const PLANTED = rate("planted", "ASR planted,\u00a0%", "attack success rate right after planting");
const CONTROL = rate("control", "Control,\u00a0%", "the same trigger on the clean control");
const CA = rate("ca", "CA,\u00a0%", "clean accuracy"), RA = rate("ra", "RA,\u00a0%", "triggered inputs with their true class");
const AUC = { ...rate("auc", "AUC"), cell: (row) => figure(row.auc, area, true) };
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
    columns: [ATTACK, TASK, CHAIN, ASR, PLANTED, CONTROL, CA, RA, modelsOf("measure", "Valid models")],
  },
  detectors: {
    rows: board.detectors, sort: "-auc", filters: [...WHERE, "detector", "state"],
    columns: [
      name("detector", "Detector"), ATTACK, TASK, CHAIN, AUC,
      rate("asr", "ASR,\u00a0%", "attack success rate of the backdoored models at the end of their chain"),
      rate("above", "Above all clean,\u00a0%", "fraction of the backdoored models with a score above that of every clean model"),
      rate("found5", "Found at 5\u00a0%", "fraction of the backdoored models found at the threshold for 5 % false alarms; needs 19 clean models"),
      rate("found1", "Found at 1\u00a0%", "fraction of the backdoored models found at the threshold for 1 % false alarms; needs 99 clean models"),
      rate("found", "By verdict,\u00a0%", "fraction of the backdoored models with the detector's own verdict; only the full audit has verdicts"),
      rate("alarms", "False verdicts,\u00a0%", "fraction of the clean models with the detector's own verdict “backdoored”"),
      rate("target", "Right target,\u00a0%", "fraction of the backdoored models with the right target class"),
      count("clean", "Clean models"), modelsOf("detect"), seconds,
    ],
  },
  mitigations: {
    rows: board.mitigations, sort: "asr", filters: [...WHERE, "mitigation", "state"],
    columns: [
      name("mitigation", "Mitigation"), ATTACK, TASK, CHAIN, { ...ASR, label: "ASR after,\u00a0%" },
      rate("before", "ASR before,\u00a0%"), CA, RA, modelsOf("mitigate"), seconds,
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
