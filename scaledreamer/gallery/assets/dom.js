// Parts of a page. Text is put in as text, never as markup: prompts and settings are anyone's.
"use strict";

/** The element with this id. */
const byId = (id) => document.getElementById(id);

/**
 * A new element.
 * @param {string} tag
 * @param {Object} attributes - `class`, `title`, ...; what is null, undefined or false is left out.
 * @param {...(Node|string|null)} children
 */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** A number as scores are written; "–" for none. */
function figure(value) {
  if (value === null || value === undefined) return "–";
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(3);
}

/** Call `action` once nothing has called for so many milliseconds. */
function later(milliseconds, action) {
  let waiting;
  return (...given) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => action(...given), milliseconds);
  };
}

const calm = matchMedia("(prefers-reduced-motion: reduce)");
