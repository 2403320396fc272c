// Shades of a score (dark: high resolution, light: low) and colours of categories.
"use strict";
(function (E) {
  // ColorBrewer's YlGnBu: lightness falls steadily, so it reads without colour vision and in grey.
  const STOPS = ["#ffffd9", "#edf8b1", "#c7e9b4", "#7fcdbb", "#41b6c4", "#1d91c0", "#225ea8", "#253494", "#081d58"];
  // Okabe and Ito's set, without black; then golden-angle hues.
  const CATEGORIES = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#b8a800", "#7a5195", "#8c564b", "#6b8e23"];
  E.OUTCOMES = { right: "#0072b2", wrong: "#d55e00", gain: "#009e73", loss: "#b5508f", unknown: "#8a8f98" };

  const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const pack = (r, g, b) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0; // ImageData's order on little-endian machines

  const ramp = new Uint32Array(256);
  E.rampCss = [];
  const stops = STOPS.map(channels);
  for (let level = 0; level < 256; level++) {
    const place = (level / 255) * (stops.length - 1);
    const left = Math.min(Math.floor(place), stops.length - 2);
    const [r, g, b] = stops[left].map((value, i) => Math.round(value + (stops[left + 1][i] - value) * (place - left)));
    ramp[level] = pack(r, g, b);
    E.rampCss.push(`rgb(${r}, ${g}, ${b})`);
  }
  E.ramp = ramp;

  // 0..255 of a value in a range; the middle shade where the range is empty or the value unknown
  E.level = function (value, low, high) {
    if (!Number.isFinite(value) || !(high > low)) return 128;
    return Math.max(0, Math.min(255, Math.round((255 * (value - low)) / (high - low))));
  };

  function fromHue(hue, lightness) {
    const chroma = 0.62 * Math.min(lightness, 1 - lightness);
    return [0, 8, 4].map((n) => {
      const k = (n + hue / 30) % 12;
      return Math.round(255 * (lightness - chroma * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
    });
  }
  E.categoryRgb = function (index) {
    if (index < 0) return channels(E.OUTCOMES.unknown);
    if (index < CATEGORIES.length) return channels(CATEGORIES[index]);
    return fromHue((index * 137.508) % 360, 0.4 + 0.06 * (index % 4));
  };
  E.categoryPacked = (index) => pack(...E.categoryRgb(index));
  E.categoryCss = (index) => `rgb(${E.categoryRgb(index).join(", ")})`;
  E.packHex = (hex) => pack(...channels(hex));

  // Paint levels (one a block) on a canvas one pixel high; the style sheet stretches it.
  E.paintRibbon = function (canvas, levels) {
    if (canvas.width !== levels.length) canvas.width = levels.length;
    const context = canvas.getContext("2d");
    const image = context.createImageData(levels.length, 1);
    const pixels = new Uint32Array(image.data.buffer);
    for (let block = 0; block < levels.length; block++) pixels[block] = ramp[levels[block]];
    context.putImageData(image, 0, 0);
  };
})(window.ElasticExplorer);
