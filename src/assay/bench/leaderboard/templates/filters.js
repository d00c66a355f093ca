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

// Narrow pages have no column heads: this list replaces them.
function syncSort(tab, parameters) {
  controls.sort.parentElement.hidden = !tab.columns;
  if (!tab.columns) return;
  const options = tab.columns.flatMap(({ id, label, numeric }) => {
    const up = [id, `${label}, ${numeric ? "lowest first" : "A to Z"}`], down = [`-${id}`, `${label}, ${numeric ? "highest first" : "Z to A"}`];
    return numeric ? [down, up] : [up, down];
  });
  fill(controls.sort, [["", "Matrix order"], ...options]);
  controls.sort.value = parameters.get("sort") || tab.sort || "";
}
