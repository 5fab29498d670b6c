"use strict";

// Charts take their colours from the page, so that they follow when it turns dark.
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function themed(layout) {
  const axis = { gridcolor: colour("--grid"), linecolor: colour("--line"), tickcolor: colour("--line") };
  const found = { "font.color": colour("--fore"), "hoverlabel.bgcolor": colour("--raised"), "hoverlabel.font.color": colour("--fore") };
  const axes = Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name));
  for (const name of axes) for (const [key, value] of Object.entries(axis)) found[`${name}.${key}`] = value;
  return found;
}

// Names in a legend are switches, which plotly makes for the mouse alone, and draws anew whenever one is used.
const switches = (chart) => [...chart.querySelectorAll(".legend .traces")];
const curve = (item) => item.__data__[0].trace;

function name(chart) {
  for (const item of switches(chart)) {
    const { name, visible } = curve(item);
    const said = { tabindex: 0, role: "switch", "aria-label": name, "aria-checked": visible === true };
    for (const [key, value] of Object.entries(said)) item.setAttribute(key, value);
  }
}

function toggle(event) {
  const place = switches(event.currentTarget).indexOf(event.target);
  if (place < 0 || !["Enter", " "].includes(event.key)) return;
  event.preventDefault();
  const chart = event.currentTarget;
  const { index, visible } = curve(event.target);
  Plotly.restyle(chart, { visible: visible === true ? "legendonly" : true }, [index]).then(() => switches(chart)[place].focus());
}

const charts = [...document.querySelectorAll(".chart")];
for (const chart of charts) {
  const { data, layout } = JSON.parse(chart.nextElementSibling.textContent);
  Plotly.newPlot(chart, data, layout, { responsive: true, displayModeBar: false }).then(() => {
    chart.on("plotly_afterplot", () => name(chart));
    chart.addEventListener("keydown", toggle);
    Plotly.relayout(chart, themed(chart.layout));
  });
}
const repaint = () => charts.forEach((chart) => Plotly.relayout(chart, themed(chart.layout)));
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

// A bit for each frame, gate and token, the first one highest in its byte.
const bytesOf = (text) => Uint8Array.from(atob(text), (x) => x.charCodeAt(0));

for (const viewer of document.querySelectorAll(".viewer")) {
  const of = JSON.parse(viewer.querySelector(".content").textContent);
  const part = (name) => viewer.querySelector(name);
  const [picture, canvas, frame, play, chart] = ["img", "canvas", ".frame", ".play", ".chart"].map(part);
  const pen = canvas.getContext("2d");
  const passed = bytesOf(of.passed);
  const [rows, columns] = of.grid;
  const [nBlocks, nParts] = of.gates;
  let timer = null;

  // The gates that are chosen, by their numbers.
  function chosen() {
    const [block, gate] = [".block", ".gate"].map((name) => +part(name).value);
    const all = [...Array(nBlocks * nParts).keys()];
    return all.filter((x) => (block < 0 || Math.floor(x / nParts) === block) && (gate < 0 || x % nParts === gate));
  }

  // At which share of the gates each token passed.
  function shares(now, gates) {
    const found = new Float32Array(rows * columns);
    for (const gate of gates) {
      const start = (now * nBlocks * nParts + gate) * rows * columns;
      for (let i = 0; i < found.length; i++) found[i] += ((passed[(start + i) >> 3] >> (7 - ((start + i) & 7))) & 1) / gates.length;
    }
    return found;
  }

  function drawMask(now, share) {
    pen.clearRect(0, 0, canvas.width, canvas.height);
    if (!part(".mask").checked || of.first[now]) return;
    const [top, left, height, width] = of.place[now];
    const [across, down] = [canvas.width / width, canvas.height / height];
    for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) {
      const x = share[row * columns + column];
      const [x0, x1] = [column, column + 1].map((k) => Math.round((k / columns - left) * across));
      const [y0, y1] = [row, row + 1].map((k) => Math.round((k / rows - top) * down));
      for (const tint of [`rgba(16, 16, 16, ${0.65 * (1 - x)})`, `rgba(255, 0, 255, ${0.28 * x})`]) {
        pen.fillStyle = tint;
        pen.fillRect(x0, y0, x1 - x0, y1 - y0);
      }
    }
  }

  function show() {
    const now = +frame.value;
    const gates = chosen();
    const share = shares(now, gates);
    picture.src = of.pictures[now];
    drawMask(now, share);
    const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
    const tokens = of.first[now] ? "a flush, in which all tokens pass" : `${(100 * mean([...share])).toFixed(0)}% of the tokens pass, mean norm of the errors ${mean(gates.map((x) => of.norms[now][x])).toPrecision(3)}`;
    const error = of.error[now] === null ? "" : `; relative L2 error ${of.error[now].toPrecision(3)}`;
    const said = `Frame ${now}: ${tokens}; ${of.ops[now].toPrecision(3)} GFlops${error}.`;
    part(".said").textContent = said;
    frame.setAttribute("aria-valuetext", said);
    Plotly.relayout(chart, { shapes: [{ type: "line", x0: now, x1: now, y0: 0, y1: 1, yref: "paper", line: { color: colour("--soft"), width: 1 } }] });
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }

  play.addEventListener("click", () => {
    if (timer) return stop();
    play.textContent = "Stop";
    timer = setInterval(() => {
      frame.value = (+frame.value + 1) % of.pictures.length;
      show();
    }, 120);
  });
  frame.addEventListener("input", () => { stop(); show(); });
  for (const name of [".block", ".gate", ".mask"]) part(name).addEventListener("change", show);
  chart.on("plotly_click", ({ points: [{ x, y, data }] }) => {
    frame.value = x;
    if (data.type === "heatmap") {
      const gate = data.y.indexOf(y);
      part(".block").value = Math.floor(gate / nParts);
      part(".gate").value = gate % nParts;
    }
    show();
  });
  show();
}
