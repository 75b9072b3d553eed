// What the pages draw with: scatter is part of the core, the others are registered.
const Plotly = require("plotly.js/lib/core");
for (const trace of [
  require("plotly.js/lib/bar"),
  require("plotly.js/lib/contour"),
  require("plotly.js/lib/heatmap"),
  require("plotly.js/lib/scatter3d"),
  require("plotly.js/lib/surface"),
]) {
  Plotly.register(trace);
}
module.exports = Plotly;
