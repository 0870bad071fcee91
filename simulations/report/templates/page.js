"use strict";
// Draw each chart from the JSON beside it. Colours of text and rules come from the page's CSS,
// so that dark mode and print need no redrawing.
for (const holder of document.querySelectorAll("figure.chart")) {
  const figure = JSON.parse(holder.querySelector("script").textContent);
  Plotly.newPlot(holder.querySelector(".plot"), figure.data, figure.layout, {
    displayModeBar: false,
    displaylogo: false,
    responsive: true,
  });
}
// A fold-out is of no use on paper; the study file is too long for it.
window.addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details:not(.file)")) fold.open = true;
});
