// In which order photos are shown, the numbers that they are ordered by, and the nearest ones.
"use strict";
(function (E) {
  const SHIFT = 2 ** 21; // a row number fits below; a sortable 32-bit key above it: 53 bits, exact in a double

  // Mean over blocks and photos of each name: Float64Array, NaN where no photo has it.
  E.nameMeans = function (store) {
    const sums = new Float64Array(store.names.length);
    const counts = new Float64Array(store.names.length);
    for (let row = 0; row < store.rows; row++) {
      const name = store.category(row);
      if (name < 0) continue;
      sums[name] += store.means[row];
      counts[name] += 1;
    }
    return sums.map((sum, name) => sum / counts[name]);
  };

  // The number of a row under a key, NaN where it is unknown: what is sorted by, drawn as a histogram and brushed.
  E.valueOf = function (store, key) {
    const block = /^b(\d+)$/.exec(key);
    if (block) return (row) => store.score(row, Number(block[1]));
    if (key === "mean") return (row) => store.means[row];
    if (key === "base") return (row) => store.base_confidence[row];
    if (key === "margin") return (row) => store.margin(row);
    if (key === "iou") return (row) => store.iou[row];
    if (key === "size") return (row) => store.largest(row);
    return (row) => store.confidence[row];
  };

  // [[key, title]] of the numbers that this table has.
  E.scoreKeys = function (store) {
    const { info } = store;
    return [["confidence", "confidence"], store.iou && ["iou", "mean IoU of the photo"], info.has_top && ["margin", "margin of the best class over the second"],
      info.has_base && ["base", "base network's confidence"], store.size_values && ["size", `largest object (${info.size_unit})`],
      store.hasPolicy && ["mean", "mean score"], ...store.blocks.map((block, i) => [`b${i}`, `block ${i + 1}: ${E.blockTitle(block)}`])].filter(Boolean);
  };

  function keyOf(store, key) {
    if (key === "table") return null;
    if (key === "category") return (row) => { const name = store.category(row); return name < 0 ? NaN : store.rank[name]; };
    if (key === "copies") return (row) => store.copies[row] || NaN;
    if (key === "prediction") return (row) => { const name = store.first("prediction", row); return name < 0 ? NaN : store.rank[name]; };
    if (key === "category-mean") {
      const means = E.nameMeans(store);
      const order = [...means.keys()].sort((a, b) => means[a] - means[b] || a - b);
      const place = new Float64Array(means.length);
      order.forEach((name, i) => { place[name] = i; });
      return (row) => { const name = store.category(row); return name < 0 ? NaN : place[name]; };
    }
    return E.valueOf(store, key);
  }

  const float = new Float32Array(1);
  const bits = new Uint32Array(float.buffer);
  function sortable(value) { // unsigned integers in the order of the floats
    float[0] = value;
    return bits[0] & 0x80000000 ? ~bits[0] >>> 0 : (bits[0] | 0x80000000) >>> 0;
  }

  // Rows in the order of a key; equal ones stay in table order, unknown values come last either way.
  E.sort = function (store, rows, key, descending) {
    const value = keyOf(store, key);
    if (!value) return descending ? rows.slice().reverse() : rows;
    const packed = new Float64Array(rows.length);
    for (let i = 0; i < rows.length; i++) {
      const number = value(rows[i]);
      let order = 0xffffffff;
      if (!Number.isNaN(number)) order = descending ? 0xffffffff - sortable(number) : sortable(number);
      packed[i] = order * SHIFT + rows[i];
    }
    packed.sort();
    return Uint32Array.from(packed, (item) => item % SHIFT);
  };

  // The `count` photos of `rows` that are nearest to `point` in policy space (of a plain network: in feature space), each
  // dimension measured in its spread over the table.
  E.nearest = function (store, point, count, rows) {
    const { values, width, weight } = store.space;
    const best = []; // the nearest so far, in order
    for (const row of rows) {
      let distance = 0;
      for (let i = 0, at = row * width; i < width; i++, at++) {
        const difference = values[at] - point[i];
        distance += difference * difference * weight[i];
      }
      if (best.length === count && distance >= best[count - 1].distance) continue;
      let place = best.length;
      while (place > 0 && best[place - 1].distance > distance) place--;
      best.splice(place, 0, { row, distance });
      best.length = Math.min(best.length, count);
    }
    return best.map(({ row, distance }) => ({ row, distance: Math.sqrt(distance / width) }));
  };

  // The mean of rows in the space of `E.nearest`.
  E.middle = function (store, rows) {
    const sum = new Float64Array(store.space.width);
    for (const row of rows) store.point(row).forEach((value, i) => { sum[i] += value; });
    return sum.map((value) => value / rows.length);
  };

  // Mean and deviation of each block over rows.
  E.summary = function (store, rows) {
    const width = store.blocks.length;
    const sum = new Float64Array(width);
    const square = new Float64Array(width);
    for (const row of rows) {
      for (let block = 0, at = row * width; block < width; block++, at++) {
        sum[block] += store.scores[at];
        square[block] += store.scores[at] ** 2;
      }
    }
    const mean = sum.map((value) => value / rows.length);
    const deviation = square.map((value, block) => Math.sqrt(Math.max(0, value / rows.length - mean[block] ** 2)));
    return { mean, deviation };
  };
})(window.ElasticExplorer);
