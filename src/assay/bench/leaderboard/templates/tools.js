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
