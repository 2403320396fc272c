// The scatter map: photos at their coordinates, with pan, zoom and lasso, linked with the grid.
"use strict";
(function (E) {
  const CELL = 46; // pixels between photos drawn on the map
  const MOST_CORNERS = 150; // of a lasso, kept in the address

  const extent = (values) => values.reduce((most, value) => Math.max(most, value), 0) - values.reduce((least, value) => Math.min(least, value), 1);

  E.Map = class {
    constructor(store, actions) {
      this.store = store;
      this.actions = actions;
      this.place = E.byId("map");
      this.canvas = E.byId("map-canvas");
      this.tip = E.byId("map-tip");
      this.projection = new E.Projection(extent(store.x), extent(store.y));
      this.sprites = new Map(); // address -> image, the latest used last
      this.member = new Uint8Array(store.rows).fill(1);
      this.colors = new Uint32Array(store.rows);
      this.polygon = [];
      this.path = null; // lasso being drawn, in pixels
      this.lassoMode = false;
      this.withPhotos = false;
      this.withNames = true;
      this.members = 0; // which they are, counted
      this.selected = -1;
      this.draw = E.everyFrame(() => this.#draw());
      this.names = new E.MapNames(store, this.draw);
      new ResizeObserver(() => this.#resize()).observe(this.place);
      this.#listen();
    }

    #resize() {
      const { clientWidth: width, clientHeight: height } = this.place;
      if (!width || !height) return;
      this.projection.resize(width, height);
      this.ratio = Math.min(2, window.devicePixelRatio || 1);
      this.canvas.width = Math.round(width * this.ratio);
      this.canvas.height = Math.round(height * this.ratio);
      this.draw();
    }

    setMembers(rows) {
      this.member.fill(0);
      for (const row of rows) this.member[row] = 1;
      this.members += 1;
      this.draw();
    }

    #draw() {
      if (!this.canvas.width || !this.place.clientWidth) return;
      const context = this.canvas.getContext("2d");
      this.#points(context);
      context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      if (this.withPhotos) this.#photos(context);
      if (this.withNames) this.names.draw(context, this.projection, this.member, this.members);
      if (this.selected >= 0) this.#ring(context, this.selected);
      this.#outline(context);
    }

    // Points as small squares written straight into pixels: 50,000 take a few milliseconds without a GPU.
    #points(context) {
      const { width, height } = this.canvas;
      const image = context.createImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer);
      const style = getComputedStyle(this.place);
      pixels.fill(E.packHex(style.getPropertyValue("--map-ground").trim()));
      const faint = E.packHex(style.getPropertyValue("--map-faint").trim());
      const size = Math.round(this.ratio * Math.max(2, Math.min(7, 1.6 + Math.sqrt(this.projection.unit / Math.sqrt(this.store.rows)) * 0.35)));
      for (const wanted of [0, 1]) this.#plot(pixels, width, height, size, wanted, faint);
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.putImageData(image, 0, 0);
    }

    #plot(pixels, width, height, size, wanted, faint) {
      const { store: { x, y, rows }, member, colors, projection, ratio } = this;
      const unit = projection.unit * ratio;
      const left = width / 2 - projection.x * unit - size / 2;
      const top = height / 2 + projection.y * unit - size / 2;
      for (let row = 0; row < rows; row++) {
        if (member[row] !== wanted) continue;
        const px = Math.round(left + x[row] * unit);
        const py = Math.round(top - y[row] * unit);
        if (px < 0 || py < 0 || px + size >= width || py + size >= height) continue;
        const color = wanted ? colors[row] : faint;
        for (let line = 0, at = py * width + px; line < size; line++, at += width) pixels.fill(color, at, at + size);
      }
    }

    // One photo for each cell of the window that holds any.
    #photos(context) {
      const taken = new Set();
      const { store, projection, member } = this;
      const side = store.info.thumbnails.side;
      const drawn = CELL - 4;
      for (let row = 0; row < store.rows; row++) {
        if (!member[row]) continue;
        const [left, top] = projection.toPixels(store.x[row], store.y[row]);
        if (left < 0 || top < 0 || left > projection.width || top > projection.height) continue;
        const column = Math.floor(left / CELL);
        const line = Math.floor(top / CELL);
        if (taken.has(line * 4096 + column)) continue;
        taken.add(line * 4096 + column);
        const sprite = store.sprite(row);
        const image = this.#sprite(sprite.url);
        if (image) context.drawImage(image, sprite.x, sprite.y, side, side, column * CELL + 2, line * CELL + 2, drawn, drawn);
      }
    }

    #sprite(url) {
      let image = this.sprites.get(url);
      this.sprites.delete(url);
      if (!image) {
        image = new Image();
        image.addEventListener("load", () => this.draw());
        image.src = url;
      }
      this.sprites.set(url, image);
      if (this.sprites.size > 600) this.sprites.delete(this.sprites.keys().next().value);
      return image.complete && image.naturalWidth ? image : null;
    }

    #ring(context, row) {
      const [left, top] = this.projection.toPixels(this.store.x[row], this.store.y[row]);
      for (const [color, width] of [["#ffffff", 5], ["#d00000", 2.5]]) {
        context.beginPath();
        context.arc(left, top, 8, 0, 2 * Math.PI);
        context.lineWidth = width;
        context.strokeStyle = color;
        context.stroke();
      }
    }

    #outline(context) {
      const points = this.path || [];
      const corners = points.length ? points : this.polygon.flatMap((_, i) =>
        (i % 2 ? [] : [this.projection.toPixels(this.polygon[i], this.polygon[i + 1])]));
      if (corners.length < 2) return;
      context.beginPath();
      corners.forEach(([left, top]) => context.lineTo(left, top));
      context.closePath();
      context.lineWidth = 1.5;
      context.setLineDash([5, 4]);
      context.strokeStyle = getComputedStyle(this.place).color;
      context.stroke();
      context.setLineDash([]);
    }

    // The photo nearest to a place in the window, within 12 pixels; -1 for none.
    at(left, top) {
      const { store, projection, member } = this;
      const [x, y] = projection.toMap(left, top);
      let best = -1;
      let least = (12 / projection.unit) ** 2;
      for (let row = 0; row < store.rows; row++) {
        const distance = (store.x[row] - x) ** 2 + (store.y[row] - y) ** 2;
        if (distance < least && member[row]) {
          least = distance;
          best = row;
        }
      }
      return best;
    }

    #listen() {
      const place = this.place;
      const where = (event) => {
        const box = place.getBoundingClientRect();
        return [event.clientX - box.left - place.clientLeft, event.clientY - box.top - place.clientTop];
      };
      let from = null;
      let moved = 0;
      place.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        place.setPointerCapture(event.pointerId);
        from = where(event);
        moved = 0;
        this.#hideTip();
        if (this.lassoMode || event.shiftKey) this.path = [from];
      });
      place.addEventListener("pointermove", (event) => {
        const to = where(event);
        if (!from) return this.#hover(to);
        moved += Math.abs(to[0] - from[0]) + Math.abs(to[1] - from[1]);
        if (this.path) this.path.push(to);
        else this.#change(() => this.projection.pan(to[0] - from[0], to[1] - from[1]));
        from = to;
        return this.draw();
      });
      place.addEventListener("pointerup", (event) => {
        if (this.path) this.#closeLasso();
        else if (from && moved < 5) {
          const row = this.at(...where(event));
          if (row >= 0) this.actions.open(row);
        }
        from = null;
      });
      place.addEventListener("pointercancel", () => { from = null; this.path = null; this.draw(); });
      place.addEventListener("pointerleave", () => this.#hideTip());
      place.addEventListener("wheel", (event) => {
        event.preventDefault();
        this.#change(() => this.projection.zoomAt(...where(event), Math.exp(-event.deltaY * 0.0016)));
      }, { passive: false });
      place.addEventListener("keydown", (event) => this.#key(event));
    }

    #key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const { projection } = this;
      const pans = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
      if (event.key in pans) this.#change(() => projection.pan(...pans[event.key]));
      else if (event.key === "+" || event.key === "=") this.#change(() => projection.zoomAt(projection.width / 2, projection.height / 2, 1.4));
      else if (event.key === "-") this.#change(() => projection.zoomAt(projection.width / 2, projection.height / 2, 1 / 1.4));
      else if (event.key.toLowerCase() === "w") this.actions.lasso(projection.window());
      else if (event.key === "Escape" && this.polygon.length) this.actions.lasso([]);
      else return;
      event.preventDefault();
    }

    #change(action) {
      action();
      this.#hideTip();
      this.draw();
      this.actions.view(this.projection.isHome ? [] : this.projection.view);
    }

    #closeLasso() {
      const path = this.path;
      this.path = null;
      const every = Math.max(1, Math.ceil(path.length / MOST_CORNERS));
      const corners = path.filter((_, i) => i % every === 0);
      this.draw();
      if (corners.length >= 3) this.actions.lasso(corners.flatMap(([left, top]) => this.projection.toMap(left, top)));
    }

    #hover([left, top]) {
      const row = this.at(left, top);
      if (row < 0) return this.#hideTip();
      if (row !== this.tipRow) {
        this.tipRow = row;
        E.clear(this.tip, E.thumb(this.store, row), E.el("span", { dir: "auto" }, this.store.isKnown ? this.store.labelText(row) : this.store.predictionText(row)));
        this.tip.hidden = false;
      }
      const [x, y] = this.projection.toPixels(this.store.x[row], this.store.y[row]);
      const { offsetWidth: width, offsetHeight: height } = this.tip;
      this.tip.style.left = `${x + width + 16 > this.projection.width ? Math.max(0, x - width - 12) : x + 12}px`;
      this.tip.style.top = `${Math.max(0, Math.min(this.projection.height - height, y - height / 2))}px`;
      return undefined;
    }
    #hideTip() {
      this.tip.hidden = true;
      this.tipRow = -1;
    }
  };
})(window.ElasticExplorer);
