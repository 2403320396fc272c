// Names of classes on the map: each where it is the commonest and its photos lie densest, none over another.
"use strict";
(function (E) {
  const CELL = 48; // pixels that are looked at together
  const MOST = 24;
  const LETTERS = 22;
  const FONT = "600 12px system-ui, -apple-system, \"Segoe UI\", \"DejaVu Sans\", sans-serif";

  const short = (text) => (text.length > LETTERS ? `${text.slice(0, LETTERS - 1)}\u2026` : text);

  // [{name, x, y, count}] of the photos shown in the window, the most photos first: x, y are their mean on the map.
  E.namePlaces = function (store, projection, member) {
    const side = CELL / projection.unit;
    const cells = new Map(); // column, line and name -> photos there
    for (let row = 0; row < store.rows; row++) {
      const name = store.category(row);
      if (!member[row] || name < 0) continue;
      const [left, top] = projection.toPixels(store.x[row], store.y[row]);
      if (left < 0 || top < 0 || left > projection.width || top > projection.height) continue;
      const [column, line] = [Math.floor(store.x[row] / side), Math.floor(store.y[row] / side)];
      const key = `${column}:${line}:${name}`;
      const cell = cells.get(key) || { column, line, name, count: 0, x: 0, y: 0 };
      cell.count += 1;
      cell.x += store.x[row];
      cell.y += store.y[row];
      cells.set(key, cell);
    }
    const commonest = new Map(); // column and line -> the name with the most photos there and in the cells around it
    for (const cell of cells.values()) {
      const sum = { name: cell.name, count: 0, x: 0, y: 0 };
      for (let at = 0; at < 9; at++) {
        const near = cells.get(`${cell.column + (at % 3) - 1}:${cell.line + Math.floor(at / 3) - 1}:${cell.name}`);
        if (!near) continue;
        sum.count += near.count;
        sum.x += near.x;
        sum.y += near.y;
      }
      const place = `${cell.column}:${cell.line}`;
      const first = commonest.get(place);
      if (!first || sum.count > first.count) commonest.set(place, sum);
    }
    const best = new Map();
    for (const sum of commonest.values()) if (sum.count > (best.get(sum.name)?.count || 0)) best.set(sum.name, sum);
    return [...best.values()].sort((a, b) => b.count - a.count || a.name - b.name)
      .map(({ name, count, x, y }) => ({ name, count, x: x / count, y: y / count }));
  };

  E.MapNames = class {
    constructor(store, draw) {
      this.store = store;
      this.places = [];
      this.shown = []; // names drawn last
      this.sought = "";
      this.find = E.after(80, (projection, member) => {
        this.places = E.namePlaces(store, projection, member);
        draw();
      });
    }

    // Draw what was found last, and look again where window or photos (`version`) are others.
    draw(context, projection, member, version) {
      const wanted = [...projection.view, projection.width, projection.height, version].join();
      if (wanted !== this.sought) {
        this.sought = wanted;
        this.find(projection, member);
      }
      const taken = [];
      this.shown = [];
      const style = getComputedStyle(E.byId("map"));
      Object.assign(context, { font: FONT, textAlign: "center", textBaseline: "middle", lineJoin: "round", lineWidth: 4 });
      context.strokeStyle = style.getPropertyValue("--map-ground").trim();
      context.fillStyle = style.color;
      for (const { name, x, y } of this.places) {
        const text = short(this.store.names[name]);
        const half = context.measureText(text).width / 2 + 4;
        const [left, middle] = projection.toPixels(x, y);
        const at = Math.max(half, Math.min(projection.width - half, left));
        const box = [at - half, middle - 9, at + half, middle + 9];
        const hidden = box[1] < 0 || box[3] > projection.height || taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3]);
        if (hidden || this.shown.length === MOST) continue;
        taken.push(box);
        this.shown.push(name);
        context.strokeText(text, at, middle);
        context.fillText(text, at, middle);
      }
    }
  };
})(window.ElasticExplorer);
