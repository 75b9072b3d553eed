"use strict";
// The explorer of a search: bounds, axes and the chosen point are the reader's; everything drawn follows from them and
// from `simslm.data`, which explorer.py makes.
const explorer = (() => {
  const data = simslm.data;
  const count = data.numbers.length;
  const every = [...Array(count).keys()];
  const figures = new Map(data.figures.map((each) => [each.path, each]));
  const numeric = new Map(data.parameters.filter((each) => each.numbers).map((each) => [each.path, each]));
  const state = {
    bounds: data.bounds.map((each) => ({ ...each })),
    axes: data.axes.slice(),
    solid: false,
    chosen: null,
    heat: data.heat && { ...data.heat },
  };
  const STEPS = 200;
  const WIDE = 30;
  const grouped = new Intl.NumberFormat("en-US");
  const at = (id) => document.getElementById(id);

  // ---- numbers on screens -------------------------------------------------------------------------------------

  function number(value) {
    if (!Number.isFinite(value)) return "–";
    if (Math.abs(value) >= 999.5) return grouped.format(Math.round(value));
    return String(Number(value.toPrecision(3)));
  }

  function shown(path, value) {
    const { unit, per } = figures.get(path);
    return `${number(value * per)} ${unit}`.trimEnd();
  }

  // ---- which points keep the bounds, and which are on the frontier ----------------------------------------------

  // Bounds hold in the mean over the seeds of a point; all else compares points under the one seed that all have.
  function mean(path, point) {
    const { values, means } = figures.get(path);
    return (means ?? values)[point];
  }

  function keeps(point) {
    return state.bounds.every(({ path, sign, bound }) =>
      bound === null || sign * (mean(path, point) - bound) >= 0);
  }

  function gains(point, seed) {
    return data.objectives.map((path) => figures.get(path).better * data.seeds[path][point][seed]);
  }

  const dominates = (one, other) => one.every((gain, i) => gain >= other[i]) && one.some((gain, i) => gain > other[i]);

  function nonDominated(points, gainsOf) {
    const all = points.map((point) => [point, gainsOf(point)]);
    all.sort(([, one], [, other]) => {
      const i = one.findIndex((gain, j) => gain !== other[j]);
      return i < 0 ? 0 : other[i] - one[i];
    });
    const front = [];
    for (const each of all) {
      if (!front.some(([, better]) => dominates(better, each[1]))) front.push(each);
    }
    return front.map(([point]) => point);
  }

  // Points that would not be dominated if they were better by a margin, under the scenario's own seed.
  function near(points) {
    const front = nonDominated(points, (point) => gains(point, 0)).map((point) => gains(point, 0));
    return points.filter((point) => {
      const better = gains(point, 0).map((gain) => gain + data.near * Math.abs(gain));
      return !front.some((other) => dominates(other, better));
    });
  }

  // Where the t interval of a mean begins and ends; the value itself from a single one.
  function interval(values) {
    const size = values.length;
    const mean = values.reduce((sum, value) => sum + value, 0) / size;
    if (size < 2) return [mean, mean];
    const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    const half = (data.quantiles[size - 2] * Math.sqrt(squares / (size - 1))) / Math.sqrt(size);
    return [mean - half, mean + half];
  }

  function surelyDominates(one, other) {
    const first = data.objectives[0];
    const seeds = Math.min(data.seeds[first][one].length, data.seeds[first][other].length);
    const pairs = [...Array(seeds).keys()].map((seed) => [gains(one, seed), gains(other, seed)]);
    const lows = data.objectives.map((_, i) => interval(pairs.map(([mine, theirs]) => mine[i] - theirs[i]))[0]);
    return lows.every((low) => low >= 0) && lows.some((low) => low > 0);
  }

  function frontier(points) {
    const candidates = near(points);
    return candidates.filter((point) => !candidates.some((other) => surelyDominates(other, point)));
  }

  // The frontier of two figures alone, in the order of the first, and its knee: where it bulges most beyond the line
  // between its ends, both figures scaled to their range on it (Das 1999).
  function curve(points, first, second) {
    const pair = [first, second].map((path) => figures.get(path));
    if (first === second || !pair.every((each) => each?.better)) return { line: [], knee: null };
    const [a, b] = pair.map(({ better, values }) => (point) => better * values[point]);
    const line = nonDominated(points, (point) => [a(point), b(point)]).sort((one, other) => a(one) - a(other));
    const scaled = (gain) => {
      const all = line.map(gain);
      const [low, high] = [Math.min(...all), Math.max(...all)];
      return (point) => (gain(point) - low) / (high - low || 1);
    };
    const bulge = (point) => scaledA(point) + scaledB(point) - 1;
    const [scaledA, scaledB] = [scaled(a), scaled(b)];
    const inner = line.slice(1, -1).filter((point) => bulge(point) > 1e-9);
    const knee = inner.length ? inner.reduce((best, point) => (bulge(point) > bulge(best) ? point : best)) : null;
    return { line, knee };
  }

  function best(points, path) {
    const { better, values } = figures.get(path);
    if (!points.length) return null;
    return points.reduce((found, point) => (better * (values[point] - values[found]) > 0 ? point : found));
  }

  // What is to be drawn and said now.
  function answer() {
    const kept = every.filter(keeps);
    const front = frontier(kept);
    const { line, knee } = curve(kept, state.axes[0], state.axes[1]);
    const top = best(kept, data.objectives[0]);
    const chosen = state.chosen ?? (state.solid ? null : knee) ?? top;
    return { kept, front, line, knee, top, chosen };
  }

  // ---- words ----------------------------------------------------------------------------------------------------

  function label(point, divider = ", ") {
    return data.parameters.map(({ name, levels, at: place }) => `${name} ${levels[place[point]]}`).join(divider);
  }

  // A figure at a point, and its mean with the half width of its interval where it has several seeds.
  function estimate(path, point) {
    const { name, values, per } = figures.get(path);
    const seeds = data.seeds[path]?.[point] ?? [];
    const value = shown(path, values[point]);
    if (seeds.length < 2) return { name, value, note: "" };
    const [low, high] = interval(seeds);
    const note = `mean of ${seeds.length} seeds ${number(mean(path, point) * per)} ± ${number(((high - low) / 2) * per)}`;
    return { name, value, note };
  }

  function hover(point, paths) {
    const lines = [...new Set(paths)].filter((path) => figures.has(path)).map((path) => estimate(path, point));
    return [`<b>${label(point, "<br>")}</b>`, ...lines.map(({ name, value, note }) => `${name} ${value}${note && ` (${note})`}`)].join("<br>");
  }

  function use(role, point) {
    return data.uses[role][point].map((word) => data.words[word]).join(data.dividers[role]);
  }

  // ---- drawing --------------------------------------------------------------------------------------------------

  const axisOf = (path) => figures.get(path) ?? { ...numeric.get(path), values: numeric.get(path).numbers, per: 1, unit: "" };

  function along(path, points) {
    const { values, per } = axisOf(path);
    return points.map((point) => values[point] * per);
  }

  function titled(path) {
    const { name, unit, better } = axisOf(path);
    const arrow = { 1: " ↑", "-1": " ↓" }[better] ?? "";
    return `${name}${unit && `, ${unit}`}${arrow}`;
  }

  function ticks(low, high) {
    const steps = Math.log10(high / low) > 3 ? [1] : [1, 3];
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
      found.push(...steps.map((step) => step * 10 ** power));
    }
    return found.filter((tick) => tick >= low * 0.93 && tick <= high * 1.12);
  }

  // Logarithmic where the figures span it.
  function scaling(path) {
    const values = along(path, every);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    if (low <= 0 || high / low <= WIDE) return { nticks: 6, separatethousands: true };
    const vals = ticks(low, high);
    const range = [Math.log10(low) - 0.06, Math.log10(high) + 0.06];
    return { type: "log", range, tickvals: vals, ticktext: vals.map(number) };
  }

  const LAYERS = {
    broken: { name: "breaks a bound", marker: { color: "@muted", symbol: "circle-open", size: 6, opacity: 0.5 } },
    dominated: { name: "dominated", marker: { color: "@muted", size: 6, opacity: 0.4 } },
    front: { name: "frontier", marker: { color: "@accent", size: 9 } },
    knee: { name: "knee", marker: { color: "@second", symbol: "diamond", size: 14 } },
    chosen: { name: "chosen", marker: { color: "@ink", symbol: "circle-open", size: 20, line: { width: 2 } } },
  };

  function layers(found) {
    const kept = new Set(found.kept);
    const front = new Set(found.front);
    return {
      broken: every.filter((point) => !kept.has(point)),
      dominated: found.kept.filter((point) => !front.has(point)),
      front: found.front,
      knee: state.solid || found.knee === null ? [] : [found.knee],
      chosen: found.chosen === null ? [] : [found.chosen],
    };
  }

  function traces(found) {
    const paths = state.axes.slice(0, state.solid ? 3 : 2);
    const names = state.solid ? ["x", "z", "y"] : ["x", "y"];
    return Object.entries(layers(found)).map(([layer, points]) => ({
      type: state.solid ? "scatter3d" : "scatter",
      mode: "markers",
      name: LAYERS[layer].name,
      marker: { ...LAYERS[layer].marker, size: LAYERS[layer].marker.size * (state.solid ? 0.7 : 1) },
      ...Object.fromEntries(paths.map((path, i) => [names[i], along(path, points)])),
      customdata: points,
      text: points.map((point) => hover(point, [...paths, ...data.objectives])),
      hovertemplate: "%{text}<extra></extra>",
      ...(layer === "chosen" && { hoverinfo: "skip", hovertemplate: null }),
    }));
  }

  function flat(found) {
    const [x, y] = state.axes;
    const figure = simslm.figure("explorer");
    const line = {
      type: "scatter",
      mode: "lines",
      x: along(x, found.line),
      y: along(y, found.line),
      line: { color: "@accent", width: 1.5, dash: "dot" },
      hoverinfo: "skip",
    };
    const base = data.axis;
    figure.layout = {
      ...data.frame,
      xaxis: { ...base, title: { ...base.title, text: titled(x) }, ...scaling(x) },
      yaxis: { ...base, title: { ...base.title, text: titled(y) }, ...scaling(y) },
      uirevision: `${x} ${y}`,
    };
    figure.data = [line, ...traces(found)];
    return figure;
  }

  function solid(found) {
    const axis = (path) => {
      const { type, tickvals, ticktext } = scaling(path);
      const logarithmic = type && { type, tickvals, ticktext };
      const title = { text: titled(path), font: { size: 12, color: "@muted" } };
      return { title, color: "@muted", gridcolor: "@idle", nticks: 5, showspikes: false, ...logarithmic };
    };
    const [x, z, y] = state.axes; // the second goes up
    const scene = { xaxis: axis(x), yaxis: axis(y), zaxis: axis(z), aspectmode: "cube", camera: CAMERA };
    const layout = { ...data.frame, scene, margin: { l: 0, r: 0, t: 0, b: 0 }, uirevision: `${x} ${y} ${z}` };
    return { data: traces(found), layout };
  }

  const CAMERA = { eye: { x: 1.35, y: -1.75, z: 0.65 }, center: { x: 0, y: 0, z: -0.2 } };

  function heat(found) {
    const [row, column] = [state.heat.row, state.heat.column].map((path) => {
      const parameter = data.parameters.find((each) => each.path === path);
      return { ...parameter, ...parameter.ranges };
    });
    const path = state.heat.figure;
    const { values, per, better, name, unit } = figures.get(path);
    const cells = row.levels.map(() => column.levels.map(() => null));
    for (const point of found.kept) {
      const [i, j] = [row.at[point], column.at[point]];
      const before = cells[i][j];
      if (before === null || (better || -1) * (values[point] - values[before]) > 0) cells[i][j] = point;
    }
    const each = (write, empty) => cells.map((line) => line.map((point) => (point === null ? empty : write(point))));
    at("heat-title").querySelector(".name").textContent = `Best of each cell: ${name}${unit && `, ${unit}`}`;
    const few = row.levels.length * column.levels.length <= 120;
    const base = data.axis;
    const axis = (parameter, extra) => ({
      ...base, title: { ...base.title, text: parameter.name }, type: "category", showgrid: false,
      tickvals: parameter.levels.map((_, i) => i), ticktext: parameter.levels, nticks: 12, ...extra,
    });
    const left = Math.min(46 + 7 * Math.max(...row.levels.map((level) => level.length)), 150);
    const trace = {
      type: "heatmap",
      x: column.levels.map((_, i) => i),
      y: row.levels.map((_, i) => i),
      z: each((point) => values[point] * per, null),
      customdata: cells,
      hovertext: each((point) => hover(point, [path, ...data.objectives]), "no point keeps the bounds"),
      hovertemplate: "%{hovertext}<extra></extra>",
      text: few ? each((point) => number(values[point] * per), "") : undefined,
      texttemplate: few ? "%{text}" : undefined,
      colorscale: data.scale,
      showscale: !few,
      colorbar: { title: { text: unit || name, side: "top" }, thickness: 12 },
      xgap: 2,
      ygap: 2,
    };
    const layout = {
      ...data.frame,
      height: Math.max(150, Math.min(96 + 38 * row.levels.length, 520)),
      margin: { l: left, r: few ? 14 : 70, t: 10, b: 56 },
      xaxis: axis(column, { automargin: true }),
      yaxis: axis(row, {}),
    };
    return { data: [trace], layout };
  }

  // ---- the page ---------------------------------------------------------------------------------------------------

  function sentence({ kept, front, knee, top }) {
    if (!kept.length) return `None of ${number(count)} points keeps the bounds: loosen one.`;
    const path = data.objectives[0];
    const { name } = figures.get(path);
    const parts = [`${number(kept.length)} of ${number(count)} points keep the bounds; ${number(front.length)} on the frontier.`];
    parts.push(`Best ${/^.[a-z]/.test(name) ? name[0].toLowerCase() + name.slice(1) : name}: ${shown(path, figures.get(path).values[top])} with ${label(top)}.`);
    if (knee !== null && !state.solid) parts.push(`Knee: ${label(knee)}.`);
    return parts.join(" ");
  }

  function card(point) {
    const card = at("chosen");
    card.hidden = point === null;
    if (point === null) return;
    at("choice").value = String(point);
    at("chosen-name").textContent = plainText(label(point));
    const facts = [...new Set([...data.objectives, ...state.axes, ...state.bounds.map(({ path }) => path)])];
    const rows = facts.filter((path) => figures.has(path)).map((path) => estimate(path, point));
    at("chosen-figures").replaceChildren(...rows.map(({ name, value, note }) => {
      const [row, term, figure, more] = ["div", "dt", "dd", "dd"].map((tag) => document.createElement(tag));
      [term.textContent, figure.textContent, more.textContent] = [name, value, note];
      [row.className, figure.className, more.className] = ["tile", "figure", "muted"];
      row.append(term, figure, more);
      return row;
    }));
    for (const button of card.querySelectorAll("[data-use]")) button.disabled = !data.uses[button.dataset.use][point].length;
  }

  function options(found) {
    const listed = found.front.join();
    if (at("choice").dataset.front === listed) return;
    at("choice").dataset.front = listed;
    const front = new Set(found.front);
    const groups = [["Frontier", found.front], ["Other points", every.filter((point) => !front.has(point))]];
    at("choice").replaceChildren(...groups.filter(([, points]) => points.length).map(([name, points]) => {
      const group = document.createElement("optgroup");
      group.label = name;
      group.append(...points.map((point) => new Option(plainText(label(point)), point)));
      return group;
    }));
  }

  const plainText = (html) => !html.includes("&") ? html : new DOMParser().parseFromString(html, "text/html").documentElement.textContent;

  async function update() {
    const found = answer();
    at("answer").textContent = plainText(sentence(found));
    options(found);
    card(found.chosen);
    const drawn = [simslm.show("explorer", state.solid ? solid(found) : flat(found))];
    if (state.heat) drawn.push(simslm.show("heat", heat(found)));
    await Promise.all(drawn);
    return found;
  }

  function choose(point) {
    state.chosen = point;
    return update();
  }

  // A slider's positions: evenly over the figure's range, in logarithms where it is wide, and one for no bound.
  function positions({ path, sign, start }) {
    const { per } = figures.get(path);
    const known = [...every.map((point) => mean(path, point)), ...(start?.path === path ? [start.bound] : [])];
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const wide = low > 0 && high / low > 3;
    const round = sign < 0 ? Math.ceil : Math.floor;
    const all = [...Array(STEPS).keys()].map((step) => {
      const share = step / (STEPS - 1);
      const value = (wide ? low * (high / low) ** share : low + share * (high - low)) * per;
      const unit = 10 ** (Math.floor(Math.log10(Math.abs(value) || 1)) - 2);
      return Number((round(value / unit + sign * 1e-9) * unit).toPrecision(12)) / per;
    });
    return sign < 0 ? [...all, null] : [null, ...all];
  }

  function slider(bound, row) {
    const [input, output, select] = ["input", "output", "select"].map((tag) => row.querySelector(tag));
    const start = { path: bound.path, bound: bound.bound };
    let places;
    const show = () => {
      output.textContent = bound.bound === null ? "any" : shown(bound.path, bound.bound);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    const place = () => {
      places = positions({ ...bound, start: start.bound === null ? null : start });
      const off = places.indexOf(null);
      const distance = (value) => (value === null ? Infinity : Math.abs(value - bound.bound));
      const nearest = places.reduce((found, value, i) => (distance(value) < distance(places[found]) ? i : found), 0);
      input.max = STEPS;
      input.value = bound.bound === null ? off : nearest;
      show();
    };
    input.addEventListener("input", () => {
      bound.bound = places[input.value];
      show();
      update();
    });
    select?.addEventListener("change", () => {
      bound.path = select.value;
      place();
      update();
    });
    row.querySelector("button")?.addEventListener("click", () => {
      bound.bound = bound.stated;
      place();
      update();
    });
    place();
    return () => {
      Object.assign(bound, start);
      if (select) select.value = start.path;
      place();
    };
  }

  function begin() {
    const resets = [...document.querySelectorAll("[data-bound]")].map((row) => slider(state.bounds[row.dataset.bound], row));
    at("reset").addEventListener("click", () => {
      for (const reset of resets) reset();
      update();
    });
    for (const [i, id] of ["axis-x", "axis-y", "axis-z"].entries()) {
      at(id).value = state.axes[i];
      at(id).addEventListener("change", () => {
        state.axes[i] = at(id).value;
        update();
      });
    }
    for (const [id, three] of [["tab-2d", false], ["tab-3d", true]]) {
      at(id).addEventListener("click", () => {
        state.solid = three;
        at("tab-2d").setAttribute("aria-pressed", String(!three));
        at("tab-3d").setAttribute("aria-pressed", String(three));
        at("depth").hidden = !three;
        for (const key of [...document.querySelectorAll("#explorer-title .key")].slice(1, 3)) key.hidden = three;
        Plotly.purge(at("explorer"));
        update().then(listen);
      });
    }
    at("choice").addEventListener("change", () => choose(Number(at("choice").value)));
    for (const button of document.querySelectorAll("#chosen [data-use]")) {
      button.addEventListener("click", () => simslm.copy(use(button.dataset.use, answer().chosen), button));
    }
    for (const name of ["row", "column", "figure"]) {
      const select = at(`heat-${name}`);
      if (!select) continue;
      select.value = state.heat[name];
      select.addEventListener("change", () => {
        state.heat[name] = select.value;
        update();
      });
    }
    return update().then(listen);
  }

  function listen() {
    at("explorer").on("plotly_click", (event) => {
      const point = event.points[0].customdata;
      if (Number.isInteger(point)) choose(point);
    });
    if (state.heat && !at("heat").dataset.listens) {
      at("heat").dataset.listens = "true";
      at("heat").on("plotly_click", (event) => {
        if (Number.isInteger(event.points[0].customdata)) choose(event.points[0].customdata);
      });
    }
  }

  if (count) simslm.ready.then(begin).then(() => { document.documentElement.dataset.explored = "true"; });
  return { state, answer, update };
})();
