// What is shown, as one object and as the address's hash, so that a view can be shared.
"use strict";
(function (E) {
  const DEFAULTS = {
    query: "", outcome: "all", category: "", low: 0, high: 100, sort: "table", descending: false, ribbon: "relative",
    map: true, photos: false, names: true, color: "category", view: [], lasso: [], photo: -1, pair: [], classes: [], theme: "",
    among: [], cell: [], tag: "", brush: [], chart: "confidence", tagged: 0, copies: false,
  };
  const KEY = "(?:confidence|margin|base|size|mean|iou|b\\d{1,4})"; // of E.valueOf
  const BRUSH = new RegExp(`^(${KEY})~(-?[\\d.]+(?:e-?\\d+)?)~(-?[\\d.]+(?:e-?\\d+)?)$`);
  // a step of the browser's history; the rest (typing, dragging, going from photo to photo) is none
  const STEPS = ["outcome", "category", "among", "cell", "tag", "copies", "lasso", "brush", "pair", "classes"];
  // name in the hash -> [field, to text, from text]; what is wrong in a hash is left out
  const text = (limit) => [(value) => value, (value) => value.slice(0, limit)];
  const choice = (...values) => [(value) => value, (value) => (values.includes(value) ? value : undefined)];
  const whole = (low, high) => [String, (value) => (/^\d+$/.test(value) && +value >= low && +value <= high ? +value : undefined)];
  const flag = [(value) => (value ? "1" : "0"), (value) => value === "1"];
  const numbers = (most) => [
    (list) => list.map((value) => String(+value.toFixed(4))).join("_"),
    (value) => {
      const list = value.split("_").map(Number);
      return list.length <= most && list.every((item) => Number.isFinite(item) && Math.abs(item) < 1e7) ? list : undefined;
    },
  ];
  function readBrushes(value) {
    const list = value.split("_").map((part) => BRUSH.exec(part)).filter(Boolean).slice(0, E.MOST_BRUSHES);
    return list.map(([, key, low, high]) => ({ key, low: +low, high: +high })).filter(({ low, high }) => low <= high);
  }
  const FIELDS = {
    q: ["query", ...text(200)],
    show: ["outcome", ...choice("all", "right", "wrong", "gain", "loss", "both-right", "both-wrong")],
    class: ["category", ...text(1000)],
    low: ["low", ...whole(0, 100)],
    high: ["high", ...whole(0, 100)],
    sort: ["sort", (value) => value, (value) => (new RegExp(`^(?:table|category|category-mean|prediction|copies|${KEY})$`).test(value) ? value : undefined)],
    down: ["descending", ...flag],
    ribbon: ["ribbon", ...choice("relative", "absolute")],
    map: ["map", ...flag],
    photos: ["photos", ...flag],
    names: ["names", ...flag],
    color: ["color", (value) => value, (value) => (new RegExp(`^(?:category|outcome|${KEY})$`).test(value) ? value : undefined)],
    view: ["view", ...numbers(3)],
    lasso: ["lasso", ...numbers(400)],
    photo: ["photo", ...whole(0, 2 ** 21)],
    pair: ["pair", ...numbers(2)],
    classes: ["classes", (list) => list.map((name) => encodeURIComponent(name).replaceAll("_", "%5F")).join("_"), (value) => value.split("_").slice(0, 2).map(decodeURIComponent)],
    among: ["among", ...numbers(500)],
    cell: ["cell", ...numbers(2)],
    tag: ["tag", ...text(60)],
    copies: ["copies", ...flag],
    brush: ["brush", (list) => list.map(({ key, low, high }) => `${key}~${low}~${high}`).join("_"), readBrushes],
    chart: ["chart", (value) => value, (value) => (new RegExp(`^${KEY}$`).test(value) ? value : undefined)],
    theme: ["theme", ...choice("light", "dark")],
  };
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

  E.formatHash = function (state) {
    const parts = [];
    for (const [name, [field, write]] of Object.entries(FIELDS)) {
      if (!same(state[field], DEFAULTS[field])) parts.push(`${name}=${encodeURIComponent(write(state[field]))}`);
    }
    return parts.length ? `#${parts.join("&")}` : "";
  };

  E.parseHash = function (hash) {
    const state = { ...DEFAULTS };
    for (const part of hash.replace(/^#/, "").split("&")) {
      const [name, value] = part.split("=");
      const field = Object.hasOwn(FIELDS, name) ? FIELDS[name] : null;
      if (!field || value === undefined) continue;
      try {
        const read = field[2](decodeURIComponent(value));
        if (read !== undefined) state[field[0]] = read;
      } catch { /* not a text that this page writes */ }
    }
    return state;
  };

  // What is sorted and coloured by, but for numbers.
  const otherKeys = ({ copyCount, hasPolicy }) => ["table", "category", "prediction", "outcome", ...(copyCount ? ["copies"] : []), ...(hasPolicy ? ["category-mean"] : [])];

  // Rows and blocks of another table are left out.
  E.fitState = function (state, store) {
    const known = new Set(E.scoreKeys(store).map(([key]) => key));
    const others = otherKeys(store);
    const isKey = (key) => known.has(key) || others.includes(key);
    const isName = (name) => Number.isInteger(name) && name >= 0 && name < store.names.length;
    const isRow = (row) => Number.isInteger(row) && row >= 0 && row < store.rows;
    const fitted = { ...state };
    if (!isKey(state.sort)) fitted.sort = DEFAULTS.sort;
    if (!isKey(state.color)) fitted.color = DEFAULTS.color;
    if (!known.has(state.chart)) fitted.chart = DEFAULTS.chart;
    fitted.brush = state.brush.filter(({ key }) => known.has(key));
    fitted.among = state.among.filter(isName);
    fitted.copies = state.copies && store.copyCount > 0;
    if (state.cell.length !== 2 || !state.cell.every(isName)) fitted.cell = [];
    if (!isRow(state.photo)) fitted.photo = -1;
    if (state.pair.length !== 2 || !state.pair.every(isRow)) fitted.pair = [];
    if (state.classes.length !== 2 || !state.classes.every((name) => store.names.includes(name))) fitted.classes = [];
    if (state.category && !store.names.includes(state.category)) fitted.category = "";
    if (state.lasso.length < 6 || state.lasso.length % 2) fitted.lasso = [];
    if (state.view.length !== 3 || !(state.view[2] > 0)) fitted.view = [];
    if (!store.info.has_base && !["all", "right", "wrong"].includes(state.outcome)) fitted.outcome = "all";
    return fitted;
  };

  E.State = class {
    constructor(store, listener) {
      this.store = store;
      this.listener = listener;
      this.now = E.fitState(E.parseHash(location.hash), store);
      this.step = false; // whether what waits to be written is a step of the history
      this.write = E.after(150, () => {
        const address = location.href.split("#")[0] + E.formatHash(this.now);
        if (this.step && address !== location.href) history.pushState(null, "", address);
        else history.replaceState(null, "", address);
        this.step = false;
      });
      window.addEventListener("hashchange", () => { // back, forward, or an address typed
        this.step = false;
        this.#replace(E.fitState({ ...E.parseHash(location.hash), tagged: this.now.tagged }, store));
      });
    }

    #replace(next) {
      const changed = new Set(Object.keys(DEFAULTS).filter((field) => !same(next[field], this.now[field])));
      this.now = next;
      if (changed.size) this.listener(changed);
      return changed;
    }

    // quiet: a moment of a movement that goes on, no step of the history
    set(patch, quiet) {
      const opens = patch.photo >= 0 && this.now.photo < 0;
      const changed = this.#replace({ ...this.now, ...patch });
      const closes = patch.photo === -1 && Object.keys(patch).length === 1;
      if (!quiet && !closes && (opens || STEPS.some((field) => changed.has(field)))) this.step = true;
      this.write();
    }

    get isFiltered() {
      return E.FILTER_FIELDS.some((field) => field !== "tagged" && !same(this.now[field], DEFAULTS[field]));
    }

    clear() {
      this.set(Object.fromEntries(E.FILTER_FIELDS.filter((field) => field !== "tagged").map((field) => [field, DEFAULTS[field]])));
    }
  };
})(window.ElasticExplorer);
