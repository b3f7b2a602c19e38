// The world, and the islands on it. Places are on the map already: the page looks nothing up.
"use strict";
atoll.STATES = [
  ["part", "takes part in the open step"],
  ["alive", "alive, does not take part"],
  ["unknown", "not known now"],
  ["gone", "not alive"],
];
const LABELLED = 14; // places, up to which each has its name beside it

atoll.stateOf = (row) => {
  if (row.alive === false) return "gone";
  return row.alive == null || row.taking_part == null ? "unknown" : row.taking_part ? "part" : "alive";
};

atoll.drawWorld = (world) => {
  const box = `0 0 ${world.width} ${world.height}`;
  atoll.dots = atoll.svg("g", { class: "dots" });
  const picture = atoll.svg(
    "svg",
    { viewBox: box, role: "group", "aria-label": "World map with the islands" },
    atoll.svg("path", { class: "land", d: world.land, "fill-rule": "evenodd" }),
    atoll.dots,
  );
  atoll.byId("map").replaceChildren(picture);
  atoll.world = world;
  const key = atoll.STATES.map(([state, text]) =>
    atoll.node("li", {}, atoll.node("i", { class: `dot ${state}` }), text),
  );
  key.push(atoll.node("li", {}, atoll.node("i", { class: "dot ring" }), "in the newest update"));
  atoll.byId("map-key").replaceChildren(...key);
};

atoll.drawIslands = (rows) => {
  const shown = rows.filter((row) => !row.relay || row.alive);
  const places = new Map();
  for (const row of shown.filter((row) => row.at)) {
    const key = row.at.join();
    places.set(key, [...(places.get(key) || []), row]);
  }
  const groups = [...places.values()];
  const facts = groups.map((group) =>
    group.map((row) => [row.island, row.name, atoll.stateOf(row), row.committed]),
  );
  atoll.show(atoll.dots, facts, () => {
    const taken = groups.map((group) => [group[0].at[0] - 8, group[0].at[0] + 8, group[0].at[1]]);
    return groups.map((group) => dot(group, groups.length <= LABELLED ? taken : null));
  });
  const others = shown.filter((row) => !row.at);
  atoll.show(
    atoll.byId("unplaced"),
    others.map((row) => [row.island, row.name, row.place, atoll.stateOf(row)]),
    () => (others.length ? [atoll.node("h3", {}, "Not on the map"), chips(others)] : []),
  );
};

const ORDER = ["part", "alive", "unknown", "gone"];

// A dot, with its name on a side where there is room beside what is `taken`; null: without names.
function dot(group, taken) {
  const state = ORDER.find((name) => group.some((row) => atoll.stateOf(row) === name));
  const [x, y] = group[0].at;
  const radius = 5 + 2.2 * Math.log2(group.length);
  const names =
    group
      .map((row) => row.name)
      .slice(0, 6)
      .join(", ") + (group.length > 6 ? ` and ${group.length - 6} more` : "");
  const text = `${names}: ${group[0].place}`;
  const name = group.length === 1 ? group[0].name : `${group.length} islands`;
  const long = 7.2 * name.length;
  const side =
    taken &&
    [
      [x + radius + 7, x + radius + 7 + long],
      [x - radius - 7 - long, x - radius - 7],
    ].find(
      ([from, to]) =>
        from > 0 &&
        to < atoll.world.width &&
        !taken.some(
          ([left, right, at]) =>
            Math.abs(at - y) < 15 && from < right && to > left && !(left < x && right > x),
        ),
    );
  if (side) taken.push([...side, y]);
  return atoll.svg(
    "a",
    {
      href: `#island=${encodeURIComponent(group[0].island)}`,
      class: state,
      "data-key": group[0].island,
      "aria-label": text,
    },
    atoll.svg("title", {}, text),
    group.some((row) => row.committed)
      ? atoll.svg("circle", { class: "halo", cx: x, cy: y, r: radius + 4.5 })
      : null,
    atoll.svg("circle", { class: "core", cx: x, cy: y, r: radius }),
    side ? atoll.svg("text", { x: side[0], y: y + 4 }, name) : null,
  );
}

function chips(rows) {
  const some = rows.slice(0, 40).map((row) => {
    const why = row.place ? ` (${row.place}: no such city is known here)` : "";
    return atoll.node(
      "li",
      {},
      atoll.node("i", { class: `dot ${atoll.stateOf(row)}` }),
      atoll.link(row.island, row.name),
      why,
    );
  });
  if (rows.length > 40) some.push(atoll.node("li", {}, `and ${rows.length - 40} more`));
  return atoll.node("ul", { class: "chips" }, ...some);
}
