// Nodes. Whatever a stranger has written is set as text, so that it stays text.
"use strict";
atoll.byId = (id) => document.getElementById(id);

// A node with attributes and children; a child that is no node becomes text.
atoll.node = (tag, attributes, ...children) =>
  atoll.filled(document.createElement(tag), attributes, children);

atoll.svg = (tag, attributes, ...children) =>
  atoll.filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

atoll.filled = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(
    ...children.filter((child) => child != null).map((child) => (child instanceof Node ? child : `${child}`)),
  );
  return node;
};

atoll.text = (id, text) => {
  const node = typeof id === "string" ? atoll.byId(id) : id;
  if (node.textContent !== text) node.textContent = text;
  return node;
};

// Puts these children into a node, unless it shows the same already: focus and selection stay where they are.
atoll.show = (node, key, make) => {
  const now = JSON.stringify(key);
  if (node.shown === now) return;
  node.shown = now;
  const focused = node.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  node.replaceChildren(...make());
  if (focused) node.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
};

atoll.link = (island, name) =>
  atoll.node("a", { href: `#island=${encodeURIComponent(island)}`, "data-key": `link ${island}` }, name);

// A bar that is filled to a share from 0 to 1.
atoll.bar = (share, label) => {
  const inner = atoll.node("span");
  inner.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  return atoll.node("span", { class: "bar", role: "img", "aria-label": label }, inner);
};

atoll.none = (text) => atoll.node("p", { class: "note" }, text);
