"use strict";

const config = { responsive: true, displayModeBar: false };

function show(plot, view) {
  plot.setAttribute("aria-label", view.alt);
  return Plotly.react(plot, view.data, view.layout, config);
}

for (const plot of document.querySelectorAll(".plot")) {
  const views = JSON.parse(document.getElementById(plot.id + "-views").textContent);
  show(plot, views[0]);
  const choices = plot.parentElement.querySelector(".views");
  if (choices) {
    choices.hidden = false;
    choices.addEventListener("change", (event) => show(plot, views[Number(event.target.value)]));
  }
}

// A plot keeps its width in pixels, which may be wider than paper.
window.addEventListener("beforeprint", () => {
  for (const plot of document.querySelectorAll(".plot")) Plotly.relayout(plot, { width: 640 });
});
window.addEventListener("afterprint", () => {
  for (const plot of document.querySelectorAll(".plot")) Plotly.relayout(plot, { width: null, autosize: true });
});
