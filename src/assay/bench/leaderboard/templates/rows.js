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

// ---- selection and order of rows

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
  const wish = parameters.get("sort") || tab.sort || "";
  const down = wish.startsWith("-");
  const column = tab.columns.find(({ id }) => id === (down ? wish.slice(1) : wish));
  return { column, down };
}

// Rows without a value come last in both directions. Equal rows keep the order of the matrix.
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
