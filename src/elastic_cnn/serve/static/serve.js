// The drop page of `elastic serve`. Text is set as text, never parsed as markup.
"use strict";
(function () {
  const byId = (id) => document.getElementById(id);
  let about = null;

  function el(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "style") Object.assign(element.style, value);
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  const percent = (value) => `${(100 * value).toFixed(1)}%`;

  function picture(file) {
    const address = URL.createObjectURL(file);
    const image = el("img", { src: address, alt: "" });
    image.addEventListener("load", () => URL.revokeObjectURL(address));
    image.addEventListener("error", () => image.replaceWith(el("span", { class: "name" }, "not shown by this browser")));
    return image;
  }

  function card(file, answer) {
    const lines = (answer.classes || []).map((entry) => el("li", {}, el("bdi", {}, entry.class),
      el("span", { class: "track" }, el("i", { style: { width: percent(entry.probability) } })), el("span", { class: "figure" }, percent(entry.probability))));
    const labels = answer.labels ? [el("p", { class: "name" }, `labels: ${answer.labels.join(", ") || "none"}`)] : [];
    return el("li", {}, picture(file), el("div", {}, el("p", { class: "name" }, file.name), answer.error ? answer.error : el("ol", {}, ...lines), ...labels));
  }

  async function ask(files) {
    const list = [...files];
    byId("files").value = "";
    if (!list.length || !about) return;
    if (list.length > about.limits.photos) {
      byId("message").textContent = `At most ${about.limits.photos} photos at a time.`;
      return;
    }
    const large = list.find((file) => file.size > about.limits.bytes);
    if (large) {
      byId("message").textContent = `${large.name} is too large; the limit is ${(about.limits.bytes / 2 ** 20).toFixed(0)} MB.`;
      return;
    }
    byId("message").textContent = "Looking\u2026";
    const form = new FormData();
    for (const file of list) form.append("file", file);
    try {
      const reply = await fetch("predict", { method: "POST", body: form });
      const answer = await reply.json();
      if (!reply.ok) throw new Error(answer.error);
      byId("message").textContent = `${list.length} ${list.length === 1 ? "photo" : "photos"} in ${(1000 * answer.seconds).toFixed(0)} ms`;
      byId("results").prepend(...answer.results.map((result, i) => card(list[i], result)));
    } catch (error) {
      byId("message").textContent = error instanceof TypeError ? "The server gave no answer. Is it still running?" : error.message;
    }
  }

  byId("files").addEventListener("change", (event) => ask(event.target.files));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    window.addEventListener(kind, (event) => {
      event.preventDefault();
      document.querySelector(".drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop") ask(event.dataTransfer.files);
    });
  }
  byId("example").textContent = `curl --data-binary @photo.jpg "${location.origin}/predict?top=3"\ncurl -F file=@a.jpg -F file=@b.jpg ${location.origin}/predict`;
  fetch("model").then((reply) => reply.json()).then((answer) => {
    about = answer;
    byId("network").textContent = answer.network;
    document.title = answer.network;
    byId("about").textContent = `${answer.classes.length} classes, ${answer.input.height}\u00d7${answer.input.width} pixels, ${answer.precision}; up to ${answer.limits.photos} photos of ${(answer.limits.bytes / 2 ** 20).toFixed(0)} MB at a time. They are not kept.`;
    document.documentElement.dataset.ready = "1";
  });
})();
