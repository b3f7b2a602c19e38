// Where everything comes from: a server that tells what is new, or what this file keeps.
"use strict";
const LOST_MILLISECONDS = 12000; // of silence; the server says something every five seconds
const view = {},
  versions = {};
const keptNode = atoll.byId("kept");
const kept = keptNode && JSON.parse(keptNode.textContent);
let heardAt = performance.now(),
  busy = false,
  wanted = {};

async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

const DRAW = {
  about: () => atoll.drawAbout(view.about),
  now: () => {
    atoll.drawNow(view.now, view.about);
    atoll.setCounter(view.now);
  },
  islands: () => {
    atoll.drawIslands(view.islands);
    atoll.drawTable(view.islands);
    drawPanel();
  },
  steps: () => {
    atoll.drawLoss(view.steps, document.querySelector("[name=over]:checked").value);
    atoll.drawParts(view.steps.recent);
    atoll.drawUse(view.steps);
    atoll.drawNorm(view.steps);
  },
  story: () => atoll.drawStory(view.story, view.about),
};
const drawAll = () => Object.keys(DRAW).forEach((name) => view[name] && DRAW[name]());

// Fetches the parts of which there are newer versions, one after the other, and shows each.
async function refresh() {
  if (busy) return;
  busy = true;
  try {
    for (const name of Object.keys(DRAW)) {
      if (!wanted[name] || wanted[name] === versions[name]) continue;
      const version = wanted[name];
      view[name] = await get(`part/${name}`);
      versions[name] = version;
      if (view.about) DRAW[name]();
    }
    lost(false);
  } catch (error) {
    lost(true);
  } finally {
    busy = false;
  }
}

function lost(is) {
  atoll.isLost = is;
  if (!is) heardAt = performance.now();
  atoll.byId("lost").hidden = !is;
}

function follow() {
  const news = new EventSource("news");
  news.addEventListener("news", (event) => {
    heardAt = performance.now();
    Object.assign(wanted, JSON.parse(event.data));
    refresh();
  });
  news.onerror = () => {
    if (news.readyState !== EventSource.CLOSED) return; // it tries again by itself
    lost(true);
    setTimeout(follow, 5000);
  };
}

async function drawPanel() {
  const island = atoll.wantedIsland();
  const panel = atoll.byId("island");
  const each = island && view.islands && view.islands.find((one) => one.island === island);
  if (!each) {
    if (panel.open) panel.close();
    return;
  }
  if (!panel.open) panel.showModal();
  const history = kept
    ? kept.histories[island]
    : await get(`island/${encodeURIComponent(island)}`).catch(() => null);
  if (atoll.wantedIsland() === island) atoll.drawIsland(each, history);
}

function chooseTheme(theme) {
  document.documentElement.dataset.theme = theme;
  atoll.text("theme", theme === "dark" ? "Light" : "Dark");
  drawAll();
}

const light = matchMedia("(prefers-color-scheme: light)");
chooseTheme(light.matches ? "light" : "dark");
light.onchange = () => chooseTheme(light.matches ? "light" : "dark");
atoll.byId("theme").onclick = () =>
  chooseTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
atoll.byId("find").oninput = () => view.islands && atoll.drawTable(view.islands);
document.querySelectorAll("[name=over]").forEach((input) => {
  input.onchange = () => view.steps && DRAW.steps();
});
atoll.byId("island-close").onclick = () => atoll.byId("island").close();
atoll.byId("island").onclose = () => {
  if (atoll.wantedIsland()) history.replaceState(null, "", location.pathname + location.search);
};
addEventListener("hashchange", drawPanel);
setInterval(atoll.runCounter, matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 100);

if (kept) {
  atoll.drawWorld(kept.world);
  Object.assign(view, kept);
  document.documentElement.dataset.kept = "";
  drawAll();
} else {
  get("world.json")
    .then((world) => {
      atoll.drawWorld(world);
      follow();
    })
    .catch(() => setTimeout(() => location.reload(), 5000));
  setInterval(() => {
    if (performance.now() - heardAt > LOST_MILLISECONDS) lost(true);
  }, 1000);
}
