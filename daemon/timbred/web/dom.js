// Creation and update of page elements.

const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
  play: "M7 4.5v15l12.5-7.5z",
  pause: "M6 4.5h4.5v15H6zM13.5 4.5H18v15h-4.5z",
  star: "M12 3l2.7 5.9 6.3.8-4.7 4.4 1.3 6.4L12 17.3 6.4 20.5l1.3-6.4L3 9.7l6.3-.8z",
  lock: "M7 10V8a5 5 0 0 1 10 0v2h1.5v10h-13V10zm2.2 0h5.6V8a2.8 2.8 0 0 0-5.6 0z",
  open: "M7 10V8a5 5 0 0 1 9.6-1.9l-2 .9A2.8 2.8 0 0 0 9.2 8v2h9.3v10h-13V10z",
  cross: "M5.2 6.6L6.6 5.2 12 10.6l5.4-5.4 1.4 1.4-5.4 5.4 5.4 5.4-1.4 1.4-5.4-5.4-5.4 5.4-1.4-1.4 5.4-5.4z",
  stop: "M5.5 5.5h13v13h-13z",
  loop: "M7 7h9V4l5 4.5L16 13v-3H9v2H7zm10 10H8v3l-5-4.5L8 11v3h7v-2h2z",
  drag: "M9 4h2.5v3H9zm3.5 0H15v3h-2.5zM9 9h2.5v3H9zm3.5 0H15v3h-2.5zM9 14h2.5v3H9zm3.5 0H15v3h-2.5z",
};

/** Creates an element with attributes, listeners (`onclick`...) and children (elements or text). */
export function createElement(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "text") element.textContent = value;
    else set(element, name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets an attribute: null and false remove it, true sets it without a value. */
export function set(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : String(value));
}

/** Creates an icon for a button; screen readers get the button's own label. */
export function icon(name) {
  const drawn = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  drawn.setAttribute("viewBox", "0 0 24 24");
  drawn.setAttribute("class", "icon");
  drawn.setAttribute("aria-hidden", "true");
  drawn.append(path);
  return drawn;
}

export const find = (id) => document.getElementById(id);

/** Sets an element's text if it has changed, so that screen readers don't repeat it. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

let lastId = 0;

/** Returns an id that is unique on the page. */
export const uniqueId = (about) => `${about}-${(lastId += 1)}`;
