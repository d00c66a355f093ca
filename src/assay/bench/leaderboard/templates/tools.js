"use strict";
// The part of the address after # holds the state of the page. Controls change it, and show() draws it.
// Text from the records becomes text nodes only. The page's security policy forbids markup from scripts.

const parse = (id) => JSON.parse(document.getElementById(id).textContent);
const board = parse("board");
const DASH = "–";
const PAGE = 100; // rows per step of "show more"

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
