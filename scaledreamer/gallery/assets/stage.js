// One prompt at large: its object in each run, to turn with the mouse, its video, its scores.
"use strict";

/** Meshes come as scripts, since a page on a disk may not read files: each calls `gallery.mesh` once, and goes. */
const meshes = {
  arrived: new Map(),

  /** The GLB of an object, from the address of its script. */
  load(source) {
    return new Promise((resolve, reject) => {
      const script = element("script", { src: source });
      script.onerror = () => { script.remove(); reject(new Error(`${source} is not there`)); };
      script.onload = () => {
        script.remove();
        const content = this.arrived.get(script);
        this.arrived.delete(script);
        if (content) resolve(unpacked(content));
        else reject(new Error(`${source} is broken`));
      };
      document.head.append(script);
    });
  },
};

/** Base64 of gzip -> a file. */
async function unpacked(content) {
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Blob([await new Response(stream).arrayBuffer()], { type: "model/gltf-binary" });
}

/** The viewer is loaded when the first object is looked at: a megabyte that a list does not need. */
let viewer = null;
function viewerReady() {
  viewer ??= new Promise((resolve, reject) => {
    const script = element("script", { src: "assets/model-viewer/model-viewer-umd.min.js" });
    script.onload = () => customElements.whenDefined("model-viewer").then(resolve);
    script.onerror = () => reject(new Error("the viewer is not there"));
    document.head.append(script);
  });
  return viewer;
}

class Stage {
  constructor(data, list) {
    this.data = data;
    this.list = list;
    this.dialog = byId("stage");
    this.place = null;
    this.addresses = [];
    this.kind = "mesh";
    this.visit = 0;
    byId("together-label").hidden = data.runs.length < 2;
    byId("close").addEventListener("click", () => this.dialog.close());
    byId("previous").addEventListener("click", () => this.step(-1));
    byId("next").addEventListener("click", () => this.step(1));
    this.dialog.addEventListener("close", () => this.closed());
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("keydown", (event) => {
      // A viewer in focus turns with these keys itself.
      if (event.target.closest("model-viewer, input") || event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.key === "ArrowLeft") this.step(-1);
      if (event.key === "ArrowRight") this.step(1);
    });
  }

  /** Show a prompt by its place in the data. */
  open(place) {
    this.clear();
    this.place = place;
    const object = this.data.objects[place];
    byId("stage-title").textContent = object.prompt;
    byId("panels").replaceChildren(...object.runs.map((shown, i) => this.panel(object, shown, i)));
    const at = this.list.shown.indexOf(place);
    byId("previous").disabled = at <= 0;
    byId("next").disabled = at < 0 || at >= this.list.shown.length - 1;
    if (!this.dialog.open) this.dialog.showModal();
    this.onchange?.();
  }

  step(by) {
    const next = this.list.shown[this.list.shown.indexOf(this.place) + by];
    if (next !== undefined && this.list.shown.includes(this.place)) this.open(next);
  }

  closed() {
    const place = this.place;
    this.clear();
    byId("panels").replaceChildren();
    this.place = null;
    if (place !== null) this.list.cards[place].querySelector("button").focus({ preventScroll: true });
    this.onchange?.();
  }

  /** Let go of viewers, videos and the memory of meshes. */
  clear() {
    this.visit += 1;
    byId("panels").querySelectorAll("model-viewer").forEach((one) => one.remove());
    byId("panels").querySelectorAll("video").forEach((one) => { one.removeAttribute("src"); one.load(); });
    this.addresses.forEach((address) => URL.revokeObjectURL(address));
    this.addresses = [];
  }

  panel(object, shown, i) {
    const run = this.data.runs[i];
    const view = element("div", { class: "view" });
    const tools = element("div", { class: "tools" });
    const panel = element("section", { class: "panel", "aria-label": run.name },
      element("h3", {}, run.name, shown && shown.seen !== null
        ? element("span", { class: shown.seen ? "seen" : "unseen" }, shown.seen ? "trained on" : "not trained on")
        : null),
      view, tools, shown ? this.figures(shown) : null);
    if (!shown) {
      view.append(element("span", { class: "nothing" }, "This run has not made it."));
      return panel;
    }
    const kinds = [["mesh", "3D"], ["video", "Video"]].filter(([kind]) => shown[kind]);
    const show = (kind) => {
      tools.querySelectorAll("[data-kind]").forEach((b) => b.setAttribute("aria-pressed", b.dataset.kind === kind));
      if (kind === "mesh") this.turn(view, tools, run, shown, object.prompt);
      else view.replaceChildren(movie(run, shown, { "aria-label": object.prompt, autoplay: !calm.matches, controls: calm.matches }));
    };
    for (const [kind, name] of kinds) {
      const button = element("button", { type: "button", class: "quiet", "data-kind": kind }, name);
      button.addEventListener("click", () => { this.kind = kind; show(kind); });
      tools.append(button);
    }
    if (!shown.mesh) tools.append(element("span", { class: "note" }, "no mesh"));
    if (kinds.length) show(kinds.some(([kind]) => kind === this.kind) ? this.kind : kinds[0][0]);
    else view.append(element("span", { class: "nothing" }, "There is nothing to see."));
    return panel;
  }

  /** Put a viewer in, with the poster until its object is there. */
  async turn(view, tools, run, shown, prompt) {
    const visit = this.visit;
    view.replaceChildren();
    if (shown.video) view.append(element("img", { class: "poster", src: file(run, shown, "webp"), alt: "" }));
    view.append(element("span", { class: "busy", role: "status" }, "loading"));
    try {
      const [glb] = await Promise.all([meshes.load(file(run, shown, "js")), viewerReady()]);
      if (visit !== this.visit) return;
      const address = URL.createObjectURL(glb);
      this.addresses.push(address);
      const made = element("model-viewer", {
        src: address, alt: prompt, "camera-controls": true, "interaction-prompt": "none", "touch-action": "pan-y",
        "tone-mapping": "none", "shadow-intensity": "0", "camera-orbit": "0deg 75deg auto",
        "min-camera-orbit": "auto 0deg auto", "max-camera-orbit": "auto 180deg auto",
        "auto-rotate": !calm.matches, "auto-rotate-delay": "600", "rotation-per-second": "40deg",
      });
      made.addEventListener("load", () => {
        view.querySelectorAll(".poster, .busy").forEach((one) => one.remove());
        view.dataset.ready = "";
      });
      made.addEventListener("error", () => this.failed(view, "This browser cannot draw it; is WebGL off?"));
      made.addEventListener("camera-change", (event) => {
        if (event.detail.source === "user-interaction") this.turned(made);
      });
      delete view.dataset.ready;
      view.append(made);
      this.offer(tools, address, shown.name, glb.size);
    } catch (error) {
      if (visit === this.visit) this.failed(view, `It cannot be shown: ${error.message}.`);
    }
  }

  failed(view, line) {
    view.querySelector(".busy")?.remove();
    view.append(element("span", { class: "failed", role: "alert" }, line));
  }

  offer(tools, address, name, size) {
    tools.querySelector("a")?.remove();
    const link = element("a", { href: address, download: `${name}.glb`, class: "quiet" }, "Download GLB");
    link.title = `${(size / 1e6).toFixed(1)} MB`;
    tools.append(link);
  }

  /** Someone has turned an object: it rests, and the others follow. */
  turned(made) {
    const others = [...byId("panels").querySelectorAll("model-viewer")].filter((one) => one !== made);
    made.removeAttribute("auto-rotate");
    if (!byId("together").checked) return;
    const { theta, phi, radius } = made.getCameraOrbit();
    const far = made.far ??= radius;
    for (const other of others) {
      other.removeAttribute("auto-rotate");
      other.resetTurntableRotation?.(made.turntableRotation);
      other.far ??= other.getCameraOrbit().radius;
      other.cameraOrbit = `${theta}rad ${phi}rad ${(other.far * radius) / far}m`;
      other.fieldOfView = `${made.getFieldOfView()}deg`;
      other.jumpCameraToGoal();
    }
  }

  figures(shown) {
    const rows = this.data.measures.map((measure, i) => [measure, shown.scores[i]]).filter(([, one]) => one !== null);
    if (!rows.length) return null;
    const protocols = new Set(rows.map(([measure]) => measure.protocol));
    return element("table", { class: "figures" }, element("tbody", {}, ...rows.map(([measure, one]) =>
      element("tr", {},
        element("th", { scope: "row" }, protocols.size > 1 ? `${measure.name} · ${measure.protocol}` : measure.name),
        element("td", {}, figure(one))))));
  }
}
