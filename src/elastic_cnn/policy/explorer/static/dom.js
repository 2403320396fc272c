// Building page elements. Text is set as text, never parsed as markup.
"use strict";
window.ElasticExplorer = window.ElasticExplorer || {};
(function (E) {
  const SVG = "http://www.w3.org/2000/svg";

  window.requestIdleCallback = window.requestIdleCallback || ((action) => setTimeout(() => action({ timeRemaining: () => 5 }), 30));

  E.byId = (id) => document.getElementById(id);

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "style") Object.assign(element.style, value); // through the object model: the policy forbids inline style
      else element.setAttribute(name, value === true ? "" : String(value));
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
    return element;
  }

  // el("p", {class: "note"}, "text", otherElement)
  E.el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  E.svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  E.clear = (element, ...children) => element.replaceChildren(...children.flat().filter(Boolean));

  E.number = function (value, digits = 3) {
    if (!Number.isFinite(value)) return "\u2013";
    const text = value.toFixed(digits);
    return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "\u2212");
  };
  E.percent = (value, digits = 1) => (Number.isFinite(value) ? `${(100 * value).toFixed(digits)}%` : "\u2013");
  E.count = (value) => value.toLocaleString("en");

  // At most one call a frame, with the latest arguments.
  E.everyFrame = function (action) {
    let waiting = false;
    return () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        action();
      });
    };
  };

  E.after = function (milliseconds, action) {
    let timer = 0;
    return (...values) => {
      clearTimeout(timer);
      timer = setTimeout(() => action(...values), milliseconds);
    };
  };
})(window.ElasticExplorer);
