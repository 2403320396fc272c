// "Drop a photo here": its prediction and policy at several sizes, asked of the server on this machine that shows this page.
"use strict";
(function (E) {
  const { el } = E;

  // Blocks as the chart wants them, with the table's ranges where it is of the same network, else those of the answer.
  function blocksFor(answer, store) {
    const alike = store && store.blocks.length === answer.blocks.length && store.blocks.every((block, i) => block.name === answer.blocks[i].name);
    if (alike) return store;
    const all = answer.sizes.flatMap((size) => size.scores);
    const range = { low: Math.min(...all), high: Math.max(...all) };
    const blocks = answer.blocks.map((block, i) => {
      const here = answer.sizes.map((size) => size.scores[i]);
      const mean = here.reduce((sum, value) => sum + value, 0) / here.length;
      return { ...block, ...range, mean, q10: Math.min(...here), q90: Math.max(...here), deviation: 0 };
    });
    const made = { blocks, info: { range } };
    made.levels = E.Store.prototype.levels;
    return made;
  }

  E.Live = class {
    constructor(info, store) {
      this.info = info;
      this.store = store;
      this.dialog = E.byId("live");
      this.#build();
      for (const kind of ["dragover", "drop"]) {
        window.addEventListener(kind, (event) => {
          if (!event.dataTransfer || ![...event.dataTransfer.types].includes("Files")) return;
          event.preventDefault();
          this.open();
          if (kind === "drop") this.#take(event.dataTransfer.files);
        });
      }
    }

    open() {
      if (!this.dialog.open) this.dialog.showModal();
    }

    #build() {
      const { info } = this;
      this.input = el("input", { type: "file", id: "live-file", accept: [...info.types, ...(info.types.includes("image/heic") ? [".heic"] : [])].join(","), class: "visually-hidden", onchange: () => this.#take(this.input.files) });
      this.message = el("p", { id: "live-message", role: "status" });
      this.answer = el("div", { id: "live-answer" });
      E.clear(this.dialog,
        el("div", { class: "dialog-head" }, el("h2", { id: "live-title" }, "Try a photo"),
          el("button", { type: "button", class: "close", onclick: () => this.dialog.close() }, "Close")),
        el("label", { class: "drop", for: "live-file" }, el("strong", {}, "Drop a photo here"), " or choose a file", this.input,
          el("span", { class: "small" }, `${info.kinds} up to ${Math.floor(info.max_bytes / 2 ** 20)} MB and ${Math.floor(info.max_pixels / 1e6)} megapixels; it goes to ${info.network} on this machine and is not kept.`)),
        this.message, this.answer);
    }

    async #take(files) {
      const file = files[0];
      this.input.value = ""; // so that the same file can be chosen again
      if (!file || this.busy) return;
      E.clear(this.answer);
      if (file.size > this.info.max_bytes) {
        this.message.textContent = `This file has ${(file.size / 2 ** 20).toFixed(1)} MB; the limit is ${Math.floor(this.info.max_bytes / 2 ** 20)} MB.`;
        return;
      }
      this.busy = true;
      this.message.textContent = "Looking at it\u2026";
      try {
        const reply = await fetch("live/predict", {
          method: "POST", body: file, headers: { "Content-Type": "application/octet-stream", "X-Elastic-Explorer": "1" }, credentials: "omit",
        });
        const answer = await reply.json();
        if (reply.ok) this.#show(file, answer);
        else this.message.textContent = answer.error;
      } catch {
        this.message.textContent = "The server gave no answer. Is `elastic explore --serve` still running?";
      } finally {
        this.busy = false;
      }
    }

    #show(file, answer) {
      this.message.textContent = `${answer.width} by ${answer.height} pixels, looked at in ${answer.sizes.length} sizes.`;
      const store = blocksFor(answer, this.store);
      const address = URL.createObjectURL(file);
      const image = el("img", { src: address, alt: "The photo that you gave", onload: () => URL.revokeObjectURL(address),
        onerror: () => image.replaceWith(el("p", { class: "note" }, "This browser does not show pictures of this kind; the network read it.")) });
      E.clear(this.answer, el("div", { class: "two" }, el("div", { class: "picture" }, image),
        el("div", {}, ...answer.sizes.map((size) => this.#size(size, store)))));
    }

    #size(size, store) {
      const series = [{ name: `at ${size.height}\u00d7${size.width}`, policy: size.scores, kind: "" }];
      const guesses = size.predictions.map((guess) => el("li", {}, el("bdi", {}, guess.name), ` ${E.percent(guess.confidence)}`));
      return el("section", { class: "size" },
        el("h3", {}, `${size.height}\u00d7${size.width} `, el("span", { class: "note" }, size.trained ? "the size it was trained for" : "")),
        el("ol", { class: "guesses" }, ...guesses), ...(size.scores.length ? [E.ribbon(store, size.scores, "relative"),
          el("details", {}, el("summary", {}, "Block by block"), E.policyChart(store, series, { scale: "relative", width: 560 }), E.scoreTable(store, series))] : []));
    }
  };
})(window.ElasticExplorer);
