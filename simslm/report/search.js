"use strict";
// The explorer of a search: bounds, axes and the chosen point are the reader's; everything drawn follows from them and
// from `simslm.data`, which explorer.py makes.
const explorer = (() => {
  const data = revived(simslm.data);
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
  const NAMED = 3;
  const TURNED_AWAY = ["requests.rejected_share", "requests.failed_share"];
  const WIDE = 30;
  const grouped = new Intl.NumberFormat("en-US");
  const at = (id) => document.getElementById(id);

  // A null among figures is one that is infinite, because requests were missed.
  function revived(data) {
    const infinite = (values) => values.map((value) => value ?? Infinity);
    for (const figure of data.figures) {
      figure.values = infinite(figure.values);
      if (figure.means) figure.means = infinite(figure.means);
    }
    for (const path of data.objectives) data.seeds[path] = data.seeds[path].map(infinite);
    return data;
  }

  // ---- numbers on screens -------------------------------------------------------------------------------------

  function number(value) {
    if (!Number.isFinite(value)) return "none";
    if (Math.abs(value) >= 999.5) return grouped.format(Math.round(value));
    return String(Number(value.toPrecision(3)));
  }

  function shown(path, value) {
    const { unit, per } = figures.get(path);
    return Number.isFinite(value) ? `${number(value * per)} ${unit}`.trimEnd() : "none";
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

  // Half the width of the t interval of a mean.
  function half(values) {
    const size = values.length;
    const mean = values.reduce((sum, value) => sum + value, 0) / size;
    const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    return (data.quantiles[size - 2] * Math.sqrt(squares / (size - 1))) / Math.sqrt(size);
  }

  const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const seedsOf = (point) => data.seeds[data.objectives[0]][point].length;

  // How one point compares with another in each objective, under the seeds that both have; see intervals.py.
  function compared(one, other) {
    const seeds = [...Array(Math.min(seedsOf(one), seedsOf(other))).keys()];
    const [mine, theirs] = [one, other].map((point) => seeds.map((seed) => gains(point, seed)));
    return data.objectives.map((_, i) => {
      const differences = seeds.map((seed) => (mine[seed][i] === theirs[seed][i] ? 0 : mine[seed][i] - theirs[seed][i]));
      const [low, high] = [Math.min(...differences), Math.max(...differences)];
      let [better, worse] = [low >= 0 && high > 0, high <= 0 && low < 0];
      if (seeds.length > 1 && differences.every(Number.isFinite)) {
        const [middle, arm] = [average(differences), half(differences)];
        [better, worse] = [middle > arm, middle < -arm];
      }
      const [a, b] = [mine, theirs].map((each) => average(each.map((gain) => gain[i])));
      const apart = a === b ? 0 : Math.abs(a - b);
      const beyond = apart === Infinity || apart > data.margin * Math.max(Math.abs(a), Math.abs(b));
      return { better, worse, beyond };
    });
  }

  function relations(points) {
    const both = points.map((one) => points.map((other) => compared(one, other)));
    const beats = both.map((row) => row.map((each) => {
      const plainly = each.some(({ better }) => better) && !each.some(({ worse }) => worse);
      const largely = each.some(({ better, beyond }) => better && beyond)
        && !each.some(({ worse, beyond }) => worse && beyond);
      return plainly || largely;
    }));
    const alike = both.map((row, i) => row.map((each, j) => i !== j && !each.some(({ beyond }) => beyond)));
    return { beats, alike };
  }

  // Places of points that stand: each of the others is beaten by one of them; see intervals.py.
  function standing(beats, rank) {
    let left = beats.map((_, i) => i);
    const kept = [];
    while (left.length) {
      let free = left.filter((i) => !left.some((j) => beats[j][i]));
      if (!free.length) free = [ofCircle(beats, left, rank)];
      kept.push(...free);
      left = left.filter((i) => !free.includes(i) && !free.some((j) => beats[j][i]));
    }
    return kept;
  }

  function ofCircle(beats, left, rank) {
    const reaching = (start) => {
      const seen = new Set([start]);
      for (const i of seen) for (const j of left) if (beats[j][i]) seen.add(j);
      return seen.size;
    };
    const sizes = new Map(left.map((i) => [i, reaching(i)]));
    return left.reduce((found, i) => (sizes.get(i) - sizes.get(found) || rank[i] - rank[found]) < 0 ? i : found);
  }

  // The place of each point in the order of the search: those first of which every objective is finite, by the deciding
  // objective, then the others, then numbers.
  function ranks(points) {
    const paths = [data.deciding, ...data.objectives.filter((path) => path !== data.deciding)];
    const gain = (point) => {
      const gains = paths.map((path) => figures.get(path).better * mean(path, point));
      return [gains.every(Number.isFinite) ? 1 : 0, ...gains];
    };
    const all = points.map((point, i) => [i, gain(point), data.numbers[point]]);
    all.sort(([, one, first], [, other, second]) => {
      const i = one.findIndex((each, j) => each !== other[j]);
      return i < 0 ? first - second : other[i] - one[i];
    });
    const rank = [];
    all.forEach(([i], place) => { rank[i] = place; });
    return rank;
  }

  // The points that no other beats, the best first, and for each those that are the same.
  function frontier(points) {
    const candidates = near(points);
    const { beats, alike } = relations(candidates);
    const rank = ranks(candidates);
    const kept = [];
    for (const i of standing(beats, rank).sort((one, other) => rank[one] - rank[other])) {
      if (!kept.some((j) => alike[i][j])) kept.push(i);
    }
    const same = new Map(kept.map((i) => [candidates[i], []]));
    candidates.forEach((point, j) => {
      const first = kept.find((i) => alike[i][j]);
      if (first !== undefined && !kept.includes(j)) same.get(candidates[first]).push(point);
    });
    return same;
  }

  // The frontier of two figures alone, in the order of the first.
  function curve(points, first, second) {
    const pair = [first, second].map((path) => figures.get(path));
    if (first === second || !pair.every((each) => each?.better)) return [];
    const [a, b] = pair.map(({ better, values }) => (point) => better * values[point]);
    const finite = points.filter((point) => [a(point), b(point)].every(Number.isFinite));
    return nonDominated(finite, (point) => [a(point), b(point)]).sort((one, other) => a(one) - a(other));
  }

  // What is to be drawn and said now.
  function answer() {
    const kept = every.filter(keeps);
    const same = frontier(kept);
    const front = [...same.keys()];
    const line = curve(kept, state.axes[0], state.axes[1]);
    const best = front[0] ?? null;
    return { kept, front, same, line, best, chosen: state.chosen ?? best };
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
    return { name, value, note: `mean of ${seeds.length} seeds ${spread(seeds, per)}` };
  }

  // The mean over seeds with its interval: of positive values in the logarithm, see intervals.py.
  function spread(seeds, per) {
    const mean = average(seeds);
    if (!seeds.every(Number.isFinite)) return "none";
    const arm = half(seeds);
    const factor = Math.exp(Math.min(arm / mean, 700));
    const [low, high] = Math.min(...seeds) < 0 || !mean ? [mean - arm, mean + arm] : [mean / factor, mean * factor];
    const [below, above] = [mean - low, high - mean];
    if (low === high) return number(mean * per);
    if (Math.abs(above - below) <= 0.1 * Math.max(above, below)) {
      return `${number(mean * per)} ± ${number(((high - low) / 2) * per)}`;
    }
    return `${number(mean * per)} (${number(low * per)} to ${number(high * per)})`;
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
    return points.map((point) => (Number.isFinite(values[point]) ? values[point] * per : null));
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
    const values = along(path, every).filter((value) => value !== null);
    if (!values.length) return { nticks: 6 };
    const [low, high] = [Math.min(...values), Math.max(...values)];
    if (low <= 0 || high / low <= WIDE) return { nticks: 6, separatethousands: true };
    const vals = ticks(low, high);
    const range = [Math.log10(low) - 0.06, Math.log10(high) + 0.06];
    return { type: "log", range, tickvals: vals, ticktext: vals.map(number) };
  }

  const LAYERS = {
    broken: { name: "breaks a bound", marker: { color: "@muted", symbol: "circle-open", size: 6, opacity: 0.5 } },
    dominated: { name: "beaten or the same", marker: { color: "@muted", size: 6, opacity: 0.4 } },
    front: { name: "frontier", marker: { color: "@accent", size: 9 } },
    best: { name: "best", marker: { color: "@second", symbol: "diamond", size: 14 } },
    chosen: { name: "chosen", marker: { color: "@ink", symbol: "circle-open", size: 20, line: { width: 2 } } },
  };

  function layers(found) {
    const kept = new Set(found.kept);
    const front = new Set(found.front);
    return {
      broken: every.filter((point) => !kept.has(point)),
      dominated: found.kept.filter((point) => !front.has(point)),
      front: found.front,
      best: found.best === null ? [] : [found.best],
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
      z: each((point) => (Number.isFinite(values[point]) ? values[point] * per : null), null),
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

  function sentence({ kept, front, best }) {
    if (!kept.length) return `None of ${number(count)} points keeps the bounds: loosen one.`;
    const path = data.deciding;
    const { name, better, per, unit } = figures.get(path);
    const what = /^.[a-z]/.test(name) ? name[0].toLowerCase() + name.slice(1) : name;
    const seeds = data.seeds[path][best];
    const figure = seeds.length > 1 ? spread(seeds, per) : number(seeds[0] * per);
    return `Choose ${label(best)}: ${`${figure} ${unit}`.trimEnd()}, the ${better > 0 ? "highest" : "lowest"} ${what}. `
      + `${number(kept.length)} of ${number(count)} points keep the bounds; ${number(front.length)} on the frontier.`;
  }

  function card({ chosen: point, same }) {
    const card = at("chosen");
    card.hidden = point === null;
    if (point === null) return;
    at("choice").value = String(point);
    at("chosen-name").textContent = plainText(label(point));
    const others = same.get(point) ?? [];
    const few = others.slice(0, NAMED).map((each) => label(each)).join("; ");
    const more = others.length > NAMED ? `; and ${number(others.length - NAMED)} more` : "";
    at("chosen-same").textContent = others.length
      ? plainText(`The same within ${number(100 * data.margin)} % in every objective: ${few}${more}`) : "";
    const facts = [...new Set([...data.objectives, ...TURNED_AWAY, ...state.axes, ...state.bounds.map(({ path }) => path)])];
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
    card(found);
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
    const known = [...every.map((point) => mean(path, point)), ...(start?.path === path ? [start.bound] : [])]
      .filter(Number.isFinite);
    const [low, high] = known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
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
