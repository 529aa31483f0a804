"use strict";

// What a link from a card asks this page to show, such as network=small&layer=8&neuron=3.
const linked = new URLSearchParams(location.hash.slice(1));

const config = { responsive: true, displayModeBar: false };
const parsed = new Map();

function viewsOf(plot) {
  if (!parsed.has(plot)) parsed.set(plot, JSON.parse(document.getElementById(plot.id + "-views").textContent));
  return parsed.get(plot);
}

// A plot is drawn once it is visible: a hidden one has no width.
function draw(plot) {
  const chosen = plot.dataset.view;
  if (plot.offsetParent === null || plot.dataset.drawn === chosen) return;
  const view = viewsOf(plot)[Number(chosen)];
  plot.dataset.drawn = chosen;
  plot.setAttribute("aria-label", view.alt);
  Plotly.react(plot, view.data, view.layout, config);
}

function drawVisible() {
  for (const plot of document.querySelectorAll(".plot")) draw(plot);
}

// Shows the chosen view of the plots, and the panels of this choice, of a group; groups within it are left as they are.
function choose(group, index) {
  for (const part of group.querySelectorAll(".plot, .panel")) {
    if (part.parentElement.closest(".switch") !== group) continue;
    if (part.classList.contains("plot")) part.dataset.view = index;
    else part.classList.toggle("chosen", part.dataset.panel.split(" ").includes(index));
  }
}

// The queries of one network show the same layer.
function chooseTogether(views, name) {
  for (const other of document.querySelectorAll(".views[data-together]")) {
    if (other === views || other.dataset.together !== views.dataset.together) continue;
    const same = [...other.querySelectorAll("input")].find((input) => input.dataset.name === name);
    if (!same) continue;
    same.checked = true;
    choose(other.closest(".switch"), same.value);
  }
}

for (const views of document.querySelectorAll(".views")) {
  views.hidden = false;
  views.addEventListener("change", (event) => {
    choose(views.closest(".switch"), event.target.value);
    if (views.dataset.together) chooseTogether(views, event.target.dataset.name);
    drawVisible();
  });
}
if (linked.has("query")) {
  const place = ["network", "seed", "query"].map((name) => linked.get(name)).join(" ");
  const card = [...document.querySelectorAll("[data-query]")].find((each) => each.dataset.query === place);
  const radio = card && [...document.querySelectorAll(".picker input")].find((each) => each.value === card.dataset.panel);
  if (radio) {
    radio.checked = true;
    choose(radio.closest(".switch"), radio.value);
  }
  (card ?? document.getElementById("queries"))?.scrollIntoView();
}
// A link into a folded part opens it.
function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const shut = [];
  for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) {
    if (!fold.open) shut.push(fold);
    fold.open = true;
  }
  if (shut.length) target.scrollIntoView();
}
for (const details of document.querySelectorAll("details")) details.addEventListener("toggle", drawVisible);
addEventListener("hashchange", unfold);
unfold();
drawVisible();

// A plot keeps its width in pixels, which may be wider than paper.
function relayout(size) {
  for (const plot of document.querySelectorAll(".plot[data-drawn]")) {
    if (plot.offsetParent !== null) Plotly.relayout(plot, size);
  }
}
window.addEventListener("beforeprint", () => relayout({ width: 640 }));
window.addEventListener("afterprint", () => relayout({ width: null, autosize: true }));
