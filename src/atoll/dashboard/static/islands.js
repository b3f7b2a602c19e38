// The table of islands, and the panel of one: #island=ID in the address.
"use strict";
const MANY = innerWidth < 760 ? 12 : 60; // rows that are shown at first
atoll.showsAll = false;

const yes = { true: "yes", false: "no", null: atoll.NOT_KNOWN };

const tone = (state, no) => (state == null ? "unsure" : state ? "good" : no);

function tells(label, state, why, kind) {
  return atoll.node(
    "td",
    { "data-label": label, class: `tell ${kind}` },
    atoll.node("b", {}, state),
    atoll.node("small", {}, why),
  );
}

function row(each) {
  const part = each.planned
    ? atoll.bar(each.inner_step / each.planned, `${each.inner_step} of ${each.planned} inner steps`)
    : null;
  const figure = (label, text) =>
    atoll.node(
      "td",
      { "data-label": label, class: `number${text === atoll.NOT_KNOWN ? " unknown" : ""}` },
      text,
    );
  return atoll.node(
    "tr",
    {},
    atoll.node(
      "th",
      { scope: "row" },
      atoll.link(each.island, each.name),
      atoll.node("small", {}, each.relay ? "relay" : each.place || "place not told"),
    ),
    tells("alive", yes[each.alive], each.alive_why, tone(each.alive, "bad")),
    tells("takes part", yes[each.taking_part], each.taking_part_why, tone(each.taking_part, "idle")),
    tells("committed", yes[each.committed], each.committed_why, tone(each.committed, "idle")),
    atoll.node(
      "td",
      { "data-label": "inner step", class: `number${part ? "" : " unknown"}` },
      part ? `${each.inner_step}/${each.planned}` : atoll.NOT_KNOWN,
      part,
    ),
    figure("tokens/s", atoll.human(each.tokens_per_second)),
    figure("loss", atoll.fixed(each.loss, 3)),
    figure("tokens", atoll.human(each.tokens)),
    figure("computing", atoll.percent(each.utilisation)),
  );
}

atoll.drawTable = (rows) => {
  const wanted = atoll.byId("find").value.trim().toLowerCase();
  const found = wanted
    ? rows.filter((each) =>
        `${each.name} ${each.contributor} ${each.place} ${each.island}`.toLowerCase().includes(wanted),
      )
    : rows;
  const shown = atoll.showsAll ? found : found.slice(0, MANY);
  const host = atoll.byId("islands");
  atoll.show(host, [shown, found.length], () => {
    if (!rows.length) return [atoll.none("no island has enrolled yet")];
    if (!found.length) return [atoll.none("no island is called so, or stands there")];
    const names = [
      "island",
      "alive",
      "takes part",
      "committed",
      "inner step",
      "tokens/s",
      "loss",
      "tokens",
      "computing",
    ];
    const head = atoll.node(
      "thead",
      {},
      atoll.node("tr", {}, ...names.map((name) => atoll.node("th", { scope: "col" }, name))),
    );
    const table = atoll.node("table", {}, head, atoll.node("tbody", {}, ...shown.map(row)));
    if (shown.length === found.length) return [table];
    const more = atoll.node(
      "button",
      { type: "button", class: "quiet", "data-key": "more" },
      `Show all ${found.length}`,
    );
    more.onclick = () => {
      atoll.showsAll = true;
      atoll.drawTable(rows);
    };
    return [table, more];
  });
};

atoll.wantedIsland = () => {
  const match = /^#island=(.+)$/.exec(location.hash);
  try {
    return match && decodeURIComponent(match[1]);
  } catch {
    return null;
  }
};

atoll.drawIsland = (each, history) => {
  const since = each.since == null ? "" : `, since ${atoll.clock(each.since)}`;
  const facts = [
    ["alive", `${yes[each.alive]}: ${each.alive_why}${since}`],
    ["takes part", `${yes[each.taking_part]}: ${each.taking_part_why}`],
    ["committed", `${yes[each.committed]}: ${each.committed_why}`],
    ["contributor", each.contributor || "nobody was named"],
    ["place", each.place || "not told"],
    ["page", each.link || "not told"],
    ["id", each.island],
    ["doing", each.note || atoll.NOT_KNOWN],
    [
      "committed tokens",
      `${atoll.whole(each.tokens)} in ${atoll.count(each.num_commits, "outer step", "outer steps")}`,
    ],
    ["dialled in", atoll.count(each.num_joins, "time", "times")],
    ["tokens a second", atoll.human(each.tokens_per_second)],
    ["loss", atoll.fixed(each.loss, 4)],
    ["held-out loss", atoll.fixed(each.heldout_loss, 4)],
    [
      "norm of its contribution",
      each.norm == null ? atoll.NOT_KNOWN : Number(each.norm.toPrecision(4)).toString(),
    ],
    [
      "computing",
      each.utilisation == null ? atoll.NOT_KNOWN : `${atoll.percent(each.utilisation)} of its time`,
    ],
    [
      "link",
      each.up_mbit == null
        ? atoll.NOT_KNOWN
        : `${Math.round(each.up_mbit)} Mbit/s up, ${Math.round(each.down_mbit)} down`,
    ],
    ["reached at", each.addresses.length ? each.addresses.join(", ") : atoll.NOT_KNOWN],
  ];
  atoll.text("island-name", each.name);
  const body = atoll.byId("island-body");
  if (body.island !== each.island) {
    body.island = each.island;
    body.replaceChildren(
      atoll.node("dl", { class: "facts" }),
      atoll.node("h3", {}, "Loss"),
      atoll.node("div", { class: "chart", id: "history-loss" }),
      atoll.node("h3", {}, "Its time, by outer step"),
      atoll.node("div", { class: "chart", id: "history-time" }),
      atoll.node("h3", {}, "What happened to it"),
      atoll.node("ol", { class: "timeline" }),
    );
  }
  atoll.show(body.querySelector("dl"), facts, () =>
    facts.flatMap(([name, text]) => [atoll.node("dt", {}, name), atoll.node("dd", {}, text)]),
  );
  if (history) {
    atoll.drawHistory(history);
    atoll.show(body.querySelector("ol"), history.lines, () =>
      history.lines.length ? atoll.lines(history.lines) : [atoll.node("li", {}, "nothing yet")],
    );
  } else {
    for (const id of ["history-loss", "history-time"])
      atoll.show(atoll.byId(id), "left out", () => [atoll.none("this file keeps no curves of it")]);
  }
};
