"use strict";

// Charts take their colours from the page, so that they follow when it turns dark.
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function themed() {
  const axis = { gridcolor: colour("--grid"), linecolor: colour("--line"), tickcolor: colour("--line") };
  const found = { "font.color": colour("--fore"), "hoverlabel.bgcolor": colour("--raised"), "hoverlabel.font.color": colour("--fore") };
  for (const name of ["xaxis", "yaxis"]) for (const [key, value] of Object.entries(axis)) found[`${name}.${key}`] = value;
  return found;
}

const charts = [...document.querySelectorAll(".chart")];
for (const chart of charts) {
  const { data, layout } = JSON.parse(chart.nextElementSibling.textContent);
  Plotly.newPlot(chart, data, layout, { responsive: true, displayModeBar: false }).then(() => Plotly.relayout(chart, themed()));
}
const repaint = () => charts.forEach((chart) => Plotly.relayout(chart, themed()));
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.addEventListener("change", repaint);
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const now = root.dataset.theme || (dark.matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  repaint();
});

// What is missing goes last, whichever way a column is sorted.
function compared(a, b, number, sign) {
  if (number) {
    const [x, y] = [parseFloat(a), parseFloat(b)];
    return isNaN(x) || isNaN(y) ? isNaN(x) - isNaN(y) : sign * (x - y);
  }
  return a === "–" || b === "–" ? (a === "–") - (b === "–") : sign * a.localeCompare(b, "en", { numeric: true });
}

const keyOf = (cell) => cell.dataset.key ?? cell.textContent;

function sort(table, place) {
  const heads = [...table.tHead.rows[0].cells];
  const head = heads[place];
  const way = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  heads.forEach((x) => x.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", way);
  const sign = way === "ascending" ? 1 : -1;
  const number = head.classList.contains("number");
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => compared(keyOf(a.cells[place]), keyOf(b.cells[place]), number, sign));
  table.tBodies[0].append(...rows);
}

// Of what was typed: `column>3` compares numbers, anything else is to stand in the row.
function filter(table, typed, count) {
  const names = [...table.tHead.rows[0].cells].map((x) => x.textContent.trim().toLowerCase().replace(" ±", ""));
  const tests = typed.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
    const [, name, sign, value] = word.match(/^([^<>]+)([<>])(-?[\d.]+)$/) ?? [];
    const place = names.indexOf(name);
    if (place < 0) return (row) => row.textContent.toLowerCase().includes(word);
    const more = sign === ">" ? 1 : -1;
    return (row) => more * (parseFloat(keyOf(row.cells[place])) - parseFloat(value)) > 0;
  });
  const rows = [...table.tBodies[0].rows];
  rows.forEach((row) => { row.hidden = !tests.every((test) => test(row)); });
  count.textContent = tests.length ? `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows` : "";
}

for (const part of document.querySelectorAll("article.table")) {
  const table = part.querySelector("table");
  [...table.tHead.rows[0].cells].forEach((head, place) => head.firstElementChild.addEventListener("click", () => sort(table, place)));
  const typed = part.querySelector("input");
  typed.addEventListener("input", () => filter(table, typed.value, part.querySelector(".count")));
}
