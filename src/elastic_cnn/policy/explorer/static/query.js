// Which photos are shown, and in which order; and the nearest in policy space.
"use strict";
(function (E) {
  const SHIFT = 2 ** 21; // a row number fits below; a sortable 32-bit key above it: 53 bits, exact in a double

  function insidePolygon(polygon, x, y) {
    let inside = false;
    for (let i = 0, j = polygon.length - 2; i < polygon.length; j = i, i += 2) {
      const above = polygon[i + 1] > y;
      if (above !== polygon[j + 1] > y) {
        const cross = polygon[i] + ((y - polygon[i + 1]) / (polygon[j + 1] - polygon[i + 1])) * (polygon[j] - polygon[i]);
        if (x < cross) inside = !inside;
      }
    }
    return inside;
  }

  function outcomeTest(store, outcome) {
    const { correct, base_correct: base } = store;
    if (outcome === "right") return (row) => correct[row] === 1;
    if (outcome === "wrong") return (row) => correct[row] === 0;
    if (outcome === "gain") return (row) => correct[row] === 1 && base[row] === 0;
    if (outcome === "loss") return (row) => correct[row] === 0 && base[row] === 1;
    return null;
  }

  function tests(store, state) {
    const list = [];
    const outcome = outcomeTest(store, state.outcome);
    if (outcome) list.push(outcome);
    if (state.category) {
      const name = store.names.indexOf(state.category);
      list.push((row) => store.isOf(row, name));
    }
    const { confidence, x, y } = store;
    const low = state.low / 100;
    const high = state.high / 100;
    if (state.low > 0) list.push((row) => confidence[row] >= low);
    if (state.high < 100) list.push((row) => confidence[row] <= high);
    if (state.lasso.length) list.push((row) => insidePolygon(state.lasso, x[row], y[row]));
    const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length) {
      const text = store.text;
      list.push((row) => words.every((word) => text[row].includes(word)));
    }
    return list;
  }

  // Rows that match the state, in table order: Uint32Array.
  E.filter = function (store, state) {
    const checks = tests(store, state);
    const rows = new Uint32Array(store.rows);
    let count = 0;
    for (let row = 0; row < store.rows; row++) {
      let keep = true;
      for (let i = 0; keep && i < checks.length; i++) keep = checks[i](row);
      if (keep) rows[count++] = row;
    }
    return rows.slice(0, count);
  };

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

  function keyOf(store, key) {
    const block = /^b(\d+)$/.exec(key);
    if (block) return (row) => store.score(row, Number(block[1]));
    if (key === "mean") return (row) => store.means[row];
    if (key === "confidence") return (row) => store.confidence[row];
    if (key === "base") return (row) => store.base_confidence[row];
    if (key === "category") return (row) => { const name = store.category(row); return name < 0 ? NaN : store.rank[name]; };
    if (key === "prediction") return (row) => { const list = store.predictions(row); return list.length ? store.rank[list[0]] : NaN; };
    if (key === "category-mean") {
      const means = E.nameMeans(store);
      const order = [...means.keys()].sort((a, b) => means[a] - means[b] || a - b);
      const place = new Float64Array(means.length);
      order.forEach((name, i) => { place[name] = i; });
      return (row) => { const name = store.category(row); return name < 0 ? NaN : place[name]; };
    }
    return null; // order of the table
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

  // The `count` photos of `rows` whose policies are nearest to `policy`, each block measured in its spread over the table.
  E.nearest = function (store, policy, count, rows) {
    const width = store.blocks.length;
    const weight = store.blocks.map((block) => (block.deviation > 0 ? 1 / block.deviation ** 2 : 0));
    const best = []; // the nearest so far, in order
    for (const row of rows) {
      let distance = 0;
      for (let block = 0, at = row * width; block < width; block++, at++) {
        const difference = store.scores[at] - policy[block];
        distance += difference * difference * weight[block];
      }
      if (best.length === count && distance >= best[count - 1].distance) continue;
      let place = best.length;
      while (place > 0 && best[place - 1].distance > distance) place--;
      best.splice(place, 0, { row, distance });
      best.length = Math.min(best.length, count);
    }
    return best.map(({ row, distance }) => ({ row, distance: Math.sqrt(distance / width) }));
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
