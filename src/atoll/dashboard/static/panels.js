// What stands beside the curves: counter, tiles, alerts, timeline, contributors, mixture, evaluations.
"use strict";
const KINDS = {
  joined: "join",
  recovered: "recovery",
  thawed: "recovery",
  resumed: "recovery",
  left: "death",
  frozen: "death",
  evicted: "death",
  stalled: "death",
  excluded: "death",
  unequal: "death",
  alert: "alert",
  term: "reign",
  rewound: "rewind",
};

atoll.drawAbout = (about) => {
  atoll.text("name", about.name);
  const facts = [
    about.run_id && `run ${about.run_id}`,
    about.num_parameters && `${atoll.human(about.num_parameters)} parameters`,
    about.inner_steps && `${about.inner_steps} inner steps to an outer step`,
    about.tokens_per_inner_step &&
      `${atoll.human(about.tokens_per_inner_step)} tokens to an inner step of an island`,
    about.codec && `updates in ${about.codec}`,
  ];
  atoll.text("facts", [...facts.filter(Boolean), "made by atoll"].join(" · "));
  const first = about.first_step
    ? `These events begin at outer step ${about.first_step}; what was before is in an earlier file. `
    : "";
  atoll.text("notice", first + about.complaint).hidden = !(first || about.complaint);
};

function stateOf(now) {
  if (now.reading != null) return ["busy", `reading the events: ${atoll.percent(now.reading)}`];
  if (now.finished) return ["good", "finished"];
  if (now.newest == null) return ["busy", "nothing has happened yet"];
  if (now.hosted === false)
    return ["idle", `no coordinator answers: events until ${atoll.clock(now.newest)}`];
  if (now.stall) return ["bad", `stalled: ${now.stall}`];
  if (now.num_alive === 0) return ["busy", "waiting for islands"];
  return ["good", now.attempt ? `reducing, attempt ${now.attempt}` : "training"];
}

atoll.drawNow = (now, about) => {
  const [kind, text] = stateOf(now);
  atoll.text("state", text).className = `pill ${kind}`;
  const of = about.num_outer_steps;
  atoll.text("step", of == null ? atoll.whole(now.step) : `${atoll.whole(now.step)} of ${atoll.whole(of)}`);
  const progress = atoll.byId("progress");
  progress.hidden = of == null;
  progress.setAttribute("aria-valuemax", of ?? 0);
  progress.setAttribute("aria-valuenow", now.step);
  progress.firstElementChild.style.width = `${of ? (100 * now.step) / of : 0}%`;
  const pace =
    now.seconds_per_step == null
      ? "its pace is not known yet"
      : `${atoll.duration(now.seconds_per_step)} a step`;
  const left =
    now.finished || now.remaining_seconds == null
      ? ""
      : `, about ${atoll.duration(now.remaining_seconds)} left`;
  atoll.text("step-note", pace + left);
  const speed = now.finished ? "the run is finished" : `${atoll.human(now.tokens_per_second)} a second`;
  atoll.text("tokens-note", `${atoll.whole(now.tokens)} committed · ${speed}`);
  const tiles = [
    ["loss", atoll.fixed(now.loss, 3), "nats per token, newest step"],
    [
      "alive",
      atoll.whole(now.num_alive),
      `islands${now.num_relays ? `, and ${atoll.count(now.num_relays, "relay", "relays")}` : ""}`,
    ],
    ["taking part", atoll.whole(now.num_taking_part), "in the open step"],
    ["committed", atoll.whole(now.num_committed), "in the newest update"],
    [
      "traffic saved",
      now.saved == null ? atoll.NOT_KNOWN : `${atoll.human(now.saved)}×`,
      `${atoll.bytes(now.sent_bytes)} sent for updates`,
    ],
  ];
  atoll.show(atoll.byId("tiles"), tiles, () =>
    tiles.map(([name, figure, note]) =>
      atoll.node(
        "div",
        {},
        atoll.node("dt", {}, name),
        atoll.node("dd", { class: figure === atoll.NOT_KNOWN ? "unknown" : "" }, figure),
        atoll.node("dd", { class: "note" }, note),
      ),
    ),
  );
  const box = atoll.byId("alerts");
  box.hidden = !now.alerts.length;
  atoll.show(box.firstElementChild, now.alerts, () =>
    now.alerts.map((alert) =>
      atoll.node(
        "li",
        {},
        atoll.node("time", {}, atoll.clock(alert.since)),
        " ",
        alert.island ? atoll.link(alert.island, alert.text) : alert.text,
      ),
    ),
  );
  const step = now.finished ? "finished" : `step ${now.step}`;
  const loss = now.loss == null ? [] : [now.loss.toFixed(3)];
  document.title = [step, ...loss, about.name].join(" · ");
};

// The counter runs between two looks, at the pace that the islands tell; it never runs back by itself.
atoll.counter = { base: null, rate: 0, at: 0, shown: 0 };
atoll.setCounter = (now) => {
  const base = now.tokens + (now.open_tokens || 0);
  const fell = base < 0.9 * atoll.counter.shown;
  const isLive = !now.finished && now.hosted && now.num_alive;
  Object.assign(atoll.counter, {
    base,
    rate: isLive ? now.tokens_per_second || 0 : 0,
    at: performance.now(),
    shown: fell ? 0 : atoll.counter.shown,
  });
};
atoll.runCounter = () => {
  const { base, rate, at } = atoll.counter;
  if (base != null) {
    const seconds = Math.min((performance.now() - at) / 1000, 10);
    atoll.counter.shown = Math.max(atoll.counter.shown, base + (atoll.isLost ? 0 : rate * seconds));
    atoll.text("tokens", atoll.whole(atoll.counter.shown));
  }
};

atoll.lines = (lines) =>
  lines.map((line) =>
    atoll.node(
      "li",
      { class: KINDS[line.kind] || "other" },
      atoll.node("time", {}, atoll.clock(line.time)),
      " ",
      atoll.node("span", {}, line.text),
    ),
  );

atoll.drawStory = (story, about) => {
  atoll.show(atoll.byId("timeline"), story.lines, () =>
    story.lines.length ? atoll.lines(story.lines) : [atoll.node("li", {}, "nothing yet")],
  );
  const most = Math.max(1, ...story.contributors.map((each) => each.tokens));
  atoll.show(atoll.byId("contributors"), story.contributors, () => [
    ...story.contributors
      .slice(0, 12)
      .map((each) =>
        atoll.node(
          "li",
          {},
          atoll.node("span", { class: each.is_named ? "" : "id" }, each.name),
          atoll.node("span", { class: "note" }, atoll.count(each.num_islands, "island", "islands")),
          atoll.node("span", { class: "figure" }, atoll.human(each.tokens)),
          atoll.bar(each.tokens / most, `${atoll.whole(each.tokens)} tokens`),
        ),
      ),
    ...(story.num_contributors > 12
      ? [atoll.node("li", { class: "note" }, `and ${story.num_contributors - 12} more`)]
      : []),
  ]);
  drawMixture(story.consumed, about);
  drawEvaluations(story.evaluations);
};

function drawMixture(consumed, about) {
  const total = Object.values(consumed || {}).reduce((a, b) => a + b, 0);
  const stage = about.mixture[about.mixture.length - 1] || {};
  const planned = about.mixture.length === 1 ? stage : null;
  atoll.show(atoll.byId("mixture"), [consumed, planned], () => {
    if (!total)
      return [atoll.none("not known: nothing is committed yet, or these events do not tell of sources")];
    const rows = Object.entries(consumed)
      .sort((a, b) => b[1] - a[1])
      .slice(0, 20)
      .map(([source, tokens]) => {
        const plan = planned && planned[source] != null ? `, planned ${atoll.percent(planned[source])}` : "";
        return atoll.node(
          "li",
          {},
          atoll.node("span", {}, source),
          atoll.node("span", { class: "note" }, `${atoll.human(tokens)} tokens${plan}`),
          atoll.node("span", { class: "figure" }, atoll.percent(tokens / total)),
          atoll.bar(tokens / total, `${atoll.whole(tokens)} tokens`),
        );
      });
    return [atoll.node("ol", { class: "rows" }, ...rows)];
  });
}

function drawEvaluations(found) {
  atoll.show(atoll.byId("evaluations"), found, () => {
    if (!found.length)
      return [
        atoll.none(
          "nobody has told of any yet: atoll evaluate RUN --follow measures the states of a run as they come",
        ),
      ];
    return found.slice(0, 30).map((each) => {
      const figures = [
        ...Object.entries(each.scores).map(
          ([task, [score, error]]) =>
            `${task} ${score.toFixed(4)}${error == null ? "" : ` ± ${error.toFixed(4)}`}`,
        ),
        ...Object.entries(each.heldout_losses).map(
          ([source, loss]) => `held-out ${source} ${loss.toFixed(3)}`,
        ),
      ];
      return atoll.node(
        "article",
        {},
        atoll.node("h3", {}, `state ${each.step}`, atoll.node("time", {}, ` ${atoll.clock(each.time)}`)),
        atoll.node("ul", { class: "chips" }, ...figures.map((figure) => atoll.node("li", {}, figure))),
        ...each.samples.map((sample) => atoll.node("blockquote", {}, sample)),
      );
    });
  });
}
