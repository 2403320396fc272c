// Between the map's coordinates (0..1 each way, y upwards) and the pixels of its canvas.
"use strict";
(function (E) {
  E.Projection = class {
    // wide, high: the part of the unit square that the points take
    constructor(wide, high) {
      this.wide = Math.max(wide, 0.05);
      this.high = Math.max(high, 0.05);
      this.resize(300, 300);
      this.home();
    }
    resize(width, height) {
      this.width = width;
      this.height = height;
    }
    home() { this.set([0.5, 0.5, 1]); }
    set([x, y, zoom]) {
      this.x = Math.max(-0.5, Math.min(1.5, x));
      this.y = Math.max(-0.5, Math.min(1.5, y));
      this.zoom = Math.max(0.5, Math.min(400, zoom));
    }
    get view() { return [this.x, this.y, this.zoom]; }
    get isHome() { return this.x === 0.5 && this.y === 0.5 && this.zoom === 1; }
    get unit() { return 0.94 * Math.min(this.width / this.wide, this.height / this.high) * this.zoom; } // pixels of one map unit
    toPixels(x, y) { return [this.width / 2 + (x - this.x) * this.unit, this.height / 2 - (y - this.y) * this.unit]; }
    toMap(left, top) { return [this.x + (left - this.width / 2) / this.unit, this.y - (top - this.height / 2) / this.unit]; }
    pan(dx, dy) { this.set([this.x - dx / this.unit, this.y + dy / this.unit, this.zoom]); }
    zoomAt(left, top, factor) {
      const [x, y] = this.toMap(left, top);
      this.set([this.x, this.y, this.zoom * factor]);
      const [nowX, nowY] = this.toMap(left, top);
      this.set([this.x + x - nowX, this.y + y - nowY, this.zoom]);
    }
    // The window as a polygon x0, y0, x1, y1, ...
    window() {
      const [left, top] = this.toMap(0, 0);
      const [right, bottom] = this.toMap(this.width, this.height);
      return [left, top, right, top, right, bottom, left, bottom];
    }
  };
})(window.ElasticExplorer);
