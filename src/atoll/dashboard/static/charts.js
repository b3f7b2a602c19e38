// Curves by uPlot, in the colours of the page, with a cursor that moves by mouse, finger and keyboard.
"use strict";
const MARKS = {
  join: "join",
  recovery: "recovery",
  death: "death or silence",
  reign: "new coordinator",
  rewind: "rewind",
};
const MARK_COLOURS = {
  join: "--blue",
  recovery: "--good",
  death: "--bad",
  reign: "--muted",
  rewind: "--violet",
};
const charts = new Map();

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const faint = (name, share) => `color-mix(in srgb, ${colour(name)} ${share}%, transparent)`;

// Draws a chart into the node of that id, or gives the one that is there new data. `make` gives its options
// without size and colours of axes; it is asked anew when the theme changes, or `kind` does.
atoll.chart = (id, data, make, kind = "", said = "") => {
  const host = atoll.byId(id);
  let chart = charts.get(id);
  if (!data[0].length) {
    chart?.plot.destroy();
    charts.delete(id);
    atoll.show(host, "none", () => [atoll.none("nothing is committed yet")]);
    return null;
  }
  const theme = document.documentElement.dataset.theme + kind;
  if (chart && chart.theme === theme && host.contains(chart.plot.root)) {
    chart.plot.setData(data);
  } else {
    chart?.plot.destroy();
    host.shown = null;
    host.replaceChildren();
    chart = { theme, plot: new uPlot(options(host, make()), data, host) };
    charts.set(id, chart);
    operable(host, chart);
  }
  host.plot = chart.plot;
  rest(chart.plot);
  host.setAttribute("aria-label", said);
  return chart.plot;
};

// Without a cursor the legend tells of the last point.
const rest = (plot) => {
  if (plot.cursor.idx == null || plot.cursor.left < 0) plot.setLegend({ idx: plot.data[0].length - 1 });
};

function options(host, own) {
  const grid = { stroke: colour("--line"), width: 1 };
  const axis = { stroke: colour("--muted"), grid, ticks: grid, font: "12px system-ui", size: 52 };
  const axes = own.axes.map((each, at) => ({ ...axis, ...(at ? {} : { size: 34 }), ...each }));
  return {
    width: host.clientWidth || 300,
    height: height(host),
    padding: [10, 8, 0, 0],
    cursor: { points: { size: 6 }, drag: { x: true, y: false } },
    ...own,
    axes,
  };
}

// Of the plot alone; its legend stands below it. The tall one takes the room that its panel has.
const height = (host) =>
  host.classList.contains("tall") ? Math.max(280, Math.min(520, host.clientHeight - 34)) : 210;

function operable(host, chart) {
  host.tabIndex = 0;
  host.setAttribute("role", "group");
  chart.plot.root.querySelector("canvas").setAttribute("aria-hidden", "true");
  host.onkeydown = (event) => {
    const plot = host.plot;
    const last = plot.data[0].length - 1;
    const at = plot.cursor.idx ?? last;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const index = Math.max(0, Math.min(last, to));
    plot.setCursor({ left: plot.valToPos(plot.data[0][index], "x"), top: 10 });
  };
  chart.plot.over.addEventListener("mouseleave", () => setTimeout(() => rest(chart.plot)));
  new ResizeObserver(() => {
    const width = host.clientWidth;
    if (width && (Math.abs(width - host.plot.width) > 1 || Math.abs(height(host) - host.plot.height) > 1))
      host.plot.setSize({ width, height: height(host) });
  }).observe(host);
}

const value = (show) => (plot, number) => (number == null ? "–" : show(number));
const line = (label, name, show, more) => ({
  label,
  stroke: colour(name),
  width: 1.8,
  spanGaps: true,
  points: { show: false },
  value: value(show),
  ...more,
});
const humanAxis = (show) => ({ values: (plot, ticks) => ticks.map(show) });

function markers(marks, over) {
  return {
    hooks: {
      draw: [
        (plot) => {
          const { ctx, bbox } = plot;
          ctx.save();
          ctx.lineWidth = devicePixelRatio;
          for (const mark of marks()) {
            const x = plot.valToPos(mark[over], "x", true);
            if (x < bbox.left || x > bbox.left + bbox.width) continue;
            ctx.strokeStyle = ctx.fillStyle = colour(MARK_COLOURS[mark.kind] || "--muted");
            ctx.globalAlpha = 0.35;
            ctx.beginPath();
            ctx.moveTo(x, bbox.top);
            ctx.lineTo(x, bbox.top + bbox.height);
            ctx.stroke();
            ctx.globalAlpha = 1;
            ctx.beginPath();
            ctx.arc(x, bbox.top + 4 * devicePixelRatio, 3.2 * devicePixelRatio, 0, 7);
            ctx.fill();
          }
          ctx.restore();
        },
      ],
    },
  };
}

atoll.drawLoss = (steps, over) => {
  atoll.marks = steps.marks;
  const show = (loss) => loss.toFixed(4);
  const data = [steps[over], steps.high, steps.low, steps.loss, steps.heldout];
  const last = steps.loss.length - 1;
  const said =
    last >= 0 ? `Loss by ${over}: ${atoll.fixed(steps.loss[last], 3)} at step ${steps.step[last]}` : "Loss";
  const isFine = steps.stride <= 1;
  atoll.chart(
    "loss",
    data,
    () => ({
      scales: { x: { time: over === "time" } },
      axes: [over === "time" ? { space: 70 } : { ...humanAxis(atoll.human), space: 60 }, {}],
      series: [
        over === "time" ? { label: "time" } : { label: "tokens", value: value(atoll.whole) },
        { ...line("highest", "--accent", show), width: 0, show: !isFine },
        { ...line("lowest", "--accent", show), width: 0, show: !isFine },
        line("training", "--accent", show),
        line("held out", "--amber", show, { dash: [6, 4] }),
      ],
      bands: [{ series: [1, 2], fill: faint("--accent", 18) }],
      plugins: [markers(() => atoll.marks, over)],
    }),
    over + isFine,
    said,
  );
  const kinds = Object.keys(MARKS).filter((kind) => steps.marks.some((mark) => mark.kind === kind));
  atoll.show(atoll.byId("loss-key"), kinds, () =>
    kinds.map((kind) => atoll.node("li", {}, atoll.node("i", { class: `dot mark ${kind}` }), MARKS[kind])),
  );
};

const PARTS = [
  ["computing", "--accent"],
  ["sending", "--blue"],
  ["reducing", "--violet"],
  ["holding", "--amber"],
  ["waiting", "--faint"],
];

// Bars that stand on one another: each series holds the sum of the parts below it, and shows its own.
atoll.drawParts = (recent) => {
  const own = PARTS.map(([name]) => recent[name]);
  const sums = [];
  own.forEach((column, at) =>
    sums.push(column.map((part, k) => (at ? sums[at - 1][k] || 0 : 0) + (part || 0))),
  );
  const data = [recent.step, ...[...sums].reverse()];
  const last = recent.step.length - 1;
  const said =
    last < 0
      ? ""
      : `Outer step ${recent.step[last]}: ` +
        PARTS.map(([name], at) => `${name} ${atoll.duration(own[at][last])}`).join(", ");
  atoll.byId("parts").own = atoll.own = Object.fromEntries(PARTS.map(([name], at) => [name, own[at]]));
  const count = PARTS.length;
  atoll.chart(
    "parts",
    data,
    () => ({
      scales: {
        x: { time: false, range: (plot, low, high) => [low - 0.6, high + 0.6] },
        y: { range: (plot, low, high) => [0, high * 1.05 || 1] },
      },
      axes: [{ incrs: [1, 2, 5, 10, 20, 50, 100, 1000], space: 40 }, humanAxis((s) => `${s} s`)],
      series: [
        { label: "step" },
        ...PARTS.map((_, at) => {
          const [name, hue] = PARTS[count - 1 - at];
          const shown = (plot, number, series, index) =>
            index == null ? "–" : atoll.duration(atoll.own[name][index]);
          return {
            label: name,
            fill: colour(hue),
            stroke: colour(hue),
            width: 0,
            paths: uPlot.paths.bars({ size: [0.8, 40] }),
            points: { show: false },
            value: shown,
          };
        }),
      ],
    }),
    "",
    said,
  );
};

atoll.drawUse = (steps) => {
  const share = steps.participants.map((count, k) =>
    count == null || !steps.there[k] ? null : count / steps.there[k],
  );
  const last = steps.step.length - 1;
  const [computing, taking] = [steps.as_original[last], share[last]].map(atoll.percent);
  const said =
    last < 0 ? "" : `Computing ${computing} of computing and exchanging; ${taking} of the islands took part`;
  atoll.chart(
    "use",
    [steps.step, steps.as_original, share, steps.end_to_end],
    () => ({
      scales: { x: { time: false }, y: { range: [0, 1.02] } },
      axes: [{ ...humanAxis(atoll.human), space: 50 }, humanAxis((s) => `${Math.round(100 * s)} %`)],
      series: [
        { label: "step" },
        line("computing of computing and exchanging", "--accent", atoll.percent),
        line("islands that took part", "--blue", atoll.percent),
        line("computing of all time", "--amber", atoll.percent),
      ],
    }),
    "",
    said,
  );
};

atoll.drawNorm = (steps) => {
  const show = (norm) => Number(norm.toPrecision(4)).toString();
  const last = steps.step.length - 1;
  const [norm, cosine] = [atoll.fixed(steps.norm[last], 4), atoll.fixed(steps.cosine[last], 3)];
  const said = last < 0 ? "" : `Norm of the update ${norm}, cosine ${cosine}`;
  const data = [steps.step, steps.norm_high, steps.norm_low, steps.norm, steps.cosine];
  atoll.chart(
    "norm",
    data,
    () => ({
      scales: { x: { time: false }, cosine: { range: [-1, 1.02] } },
      axes: [
        { ...humanAxis(atoll.human), space: 50 },
        {},
        { scale: "cosine", side: 1, grid: { show: false } },
      ],
      series: [
        { label: "step" },
        { ...line("largest contribution", "--blue", show), width: 1 },
        { ...line("smallest", "--blue", show), width: 1 },
        line("update", "--accent", show),
        line("cosine to the momentum", "--amber", (c) => c.toFixed(3), { scale: "cosine", dash: [6, 4] }),
      ],
      bands: [{ series: [1, 2], fill: faint("--blue", 14) }],
    }),
    "",
    said,
  );
};

atoll.drawHistory = (history) => {
  atoll.chart(
    "history-loss",
    [history.step, history.loss],
    () => ({
      scales: { x: { time: false } },
      axes: [{}, {}],
      series: [{ label: "step" }, line("loss", "--accent", (l) => l.toFixed(4))],
    }),
    history.island,
    "Loss of this island by outer step",
  );
  atoll.chart(
    "history-time",
    [history.step, history.computing, history.exchanging, history.waiting],
    () => ({
      scales: { x: { time: false } },
      axes: [{}, humanAxis((s) => `${s} s`)],
      series: [
        { label: "step" },
        line("computing", "--accent", atoll.duration),
        line("exchanging", "--violet", atoll.duration),
        line("waiting", "--amber", atoll.duration),
      ],
    }),
    history.island,
    "What its time went into, by outer step",
  );
};
