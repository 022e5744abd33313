// Elements without templates: texts from outside become text and never markup.

export const byId = (id) => document.getElementById(id);

// make("p", { class: "quiet", onclick: f }, "text", child); null and false children are left out.
export function make(tag, attributes = {}, ...children) {
  const drawn = ["svg", "rect", "path", "title"].includes(tag);
  const element = drawn ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== false && child !== undefined));
  return element;
}

export function button(words, onclick, attributes = {}) {
  return make("button", { type: "button", onclick, ...attributes }, words);
}

// What is wrong, what to do, and the way out as buttons.
export function problemBox(problem, ...buttons) {
  return make("div", { class: "problem" },
    make("p", {}, make("strong", {}, problem.message)),
    problem.hint ? make("p", {}, problem.hint) : null,
    problem.requestId ? make("p", { class: "quiet small" }, `Request ${problem.requestId}`) : null,
    buttons.length ? make("p", { class: "choices" }, buttons) : null);
}

export const warningList = (label, texts) => (texts.length ? make("ul", { class: "warnings", "aria-label": label }, texts.map((text) => make("li", {}, text))) : null);
