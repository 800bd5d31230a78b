// The pages work without this. With it, results follow the typing and images follow the wheel.
"use strict";

const one = (selector, within = document) => within.querySelector(selector);
const isField = (element) => Boolean(element?.matches("input, select, textarea"));

// ---------------------------------------------------------------- Search

function search(form) {
  let timer = 0;
  let running = null;

  async function answer() {
    // Whoever types on no longer wants the answer before.
    running?.abort();
    running = new AbortController();
    const { signal } = running;
    const fields = [...new FormData(form)].filter(([, value]) => value.trim() !== "");
    const query = String(new URLSearchParams(fields));
    const address = query ? `/?${query}` : "/";
    const results = one("#results");
    results.setAttribute("aria-busy", "true");
    try {
      const response = await fetch(address, { signal });
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      if (signal.aborted) return;
      const found = one("#results", page);
      one("#count").textContent = (one("#count", page) ?? one("#why", page))?.textContent ?? "The node did not answer.";
      if (found) results.replaceChildren(...found.childNodes);
      history.replaceState(null, "", address);
    } catch (error) {
      if (error.name === "AbortError") return;
      one("#count").textContent = "The node cannot be reached.";
    }
    results.setAttribute("aria-busy", "false");
  }

  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(answer, 120);
  });
}

// Arrow keys go through the links of a list, and from the search field to the first of them.
function moveInList(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const active = document.activeElement;
  const field = one("input[type=search]");
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "/" && field && !isField(active)) {
    field.focus();
    field.select();
    event.preventDefault();
    return;
  }
  const links = [...document.querySelectorAll("a.main")];
  const at = links.indexOf(active);
  if (event.key === "Escape" && at >= 0) field?.focus();
  if (!step || (at < 0 && !(active === field && field && step > 0))) return;
  event.preventDefault();
  const next = at + step;
  if (next < 0) field?.focus();
  else links[Math.min(next, links.length - 1)]?.focus();
}

// ---------------------------------------------------------------- Viewer

// Instances whose attributes are asked for together.
const BLOCK = 200;
// Images that are loaded before they are asked for, and images that are kept.
const AHEAD = 6;
const KEPT = 60;
// A larger image is made smaller by the node: no screen shows all its pixels.
const LARGEST = 2048;
// Pixels of a drag for one image on a touch screen, and for the whole width of a window.
const PIXELS_PER_IMAGE = 16;
const PIXELS_PER_WINDOW = 300;

// The first value of an attribute in DICOM JSON, also in the items of sequences.
function value(data, tag) {
  const own = data?.[tag]?.Value?.[0];
  if (own !== undefined) return own;
  for (const element of Object.values(data ?? {})) {
    for (const item of element?.vr === "SQ" ? element.Value ?? [] : []) {
      const found = value(item, tag);
      if (found !== undefined) return found;
    }
  }
  return undefined;
}

class Stack {
  constructor(series, count) {
    this.series = series;
    this.count = count;
    this.instances = new Map();
    this.blocks = new Map();
    this.pictures = new Map();
  }

  // What is known of the instance at a place from 1.
  async instance(at) {
    if (!this.instances.has(at)) await this.block(at - 1 - ((at - 1) % BLOCK));
    // The node may give fewer results than were asked for.
    if (!this.instances.has(at)) await this.block(at - 1);
    return this.instances.get(at);
  }

  block(offset) {
    if (!this.blocks.has(offset)) {
      const loading = this.load(offset);
      loading.catch(() => this.blocks.delete(offset));
      this.blocks.set(offset, loading);
    }
    return this.blocks.get(offset);
  }

  async load(offset) {
    const query = `includefield=PhotometricInterpretation&offset=${offset}&limit=${BLOCK}`;
    const response = await fetch(`${this.series}/instances?${query}`, { headers: { accept: "application/dicom+json" } });
    if (response.status === 204) return;
    if (!response.ok) throw new Error((await response.text()).trim());
    (await response.json()).forEach((found, index) => {
      const photometric = value(found, "00280004") ?? "";
      this.instances.set(offset + index + 1, {
        address: `${this.series}/instances/${encodeURIComponent(value(found, "00080018"))}`,
        frames: Number(value(found, "00280008")) || 1,
        isLarge: Number(value(found, "00280010")) > LARGEST || Number(value(found, "00280011")) > LARGEST,
        hasWindow: photometric === "" || photometric.startsWith("MONOCHROME"),
      });
    });
  }

  framesAt(at) {
    return this.instances.get(at)?.frames ?? 1;
  }

  // The place so many images on; the same place at an end.
  moved({ at, frame }, step) {
    const last = this.framesAt(at);
    const next = Math.min(frame, last) + step;
    if (next < 1) return at > 1 ? { at: at - 1, frame: Infinity } : { at, frame: 1 };
    if (next <= last) return { at, frame: next };
    return at < this.count ? { at: at + 1, frame: 1 } : { at, frame: last };
  }

  // The image at a place: `{ source }`, or `{ problem }`.
  async picture({ at, frame }, window) {
    let instance;
    try {
      instance = await this.instance(at);
    } catch (error) {
      return { problem: error.message };
    }
    if (!instance) return { problem: "The index knows no instance at this place any more." };
    const parameters = [];
    if (instance.isLarge) parameters.push(`viewport=${LARGEST},${LARGEST}`);
    if (window && instance.hasWindow) parameters.push(`window=${window.center},${window.width}`);
    const query = parameters.length > 0 ? `?${parameters.join("&")}` : "";
    return this.kept(`${instance.address}/frames/${Math.min(frame, instance.frames)}/rendered${query}`);
  }

  kept(address) {
    const loading = this.pictures.get(address) ?? this.fetched(address);
    // The oldest is let go first.
    this.pictures.delete(address);
    this.pictures.set(address, loading);
    if (this.pictures.size > KEPT) {
      const [oldest, picture] = this.pictures.entries().next().value;
      this.pictures.delete(oldest);
      picture.then(({ source }) => source && URL.revokeObjectURL(source));
    }
    return loading;
  }

  async fetched(address) {
    try {
      const response = await fetch(address, { headers: { accept: "image/jpeg, image/png" } });
      if (response.ok) return { source: URL.createObjectURL(await response.blob()) };
      // What was only busy is asked for again the next time.
      if (response.status >= 500) this.pictures.delete(address);
      return { problem: (await response.text()).trim(), isNotRendered: response.status === 406 };
    } catch {
      this.pictures.delete(address);
      return { problem: "The node cannot be reached." };
    }
  }

  // The window of an object, or that of all its stored values.
  async window(at) {
    const instance = await this.instance(at);
    const response = await fetch(`${instance.address}/metadata`, { headers: { accept: "application/dicom+json" } });
    if (!response.ok) return null;
    const [data] = await response.json();
    const number = (tag, otherwise) => {
      const found = Number(value(data, tag));
      return Number.isFinite(found) ? found : otherwise;
    };
    const center = number("00281050", NaN);
    const width = number("00281051", NaN);
    if (width >= 1 && Number.isFinite(center)) return { center, width };
    const range = 2 ** number("00280101", 8);
    const low = number("00280103", 0) === 1 ? -range / 2 : 0;
    const slope = number("00281053", 1);
    return { center: (low + range / 2) * slope + number("00281052", 0), width: Math.max(1, range * Math.abs(slope)) };
  }
}

function view(viewer) {
  const count = Number(viewer.dataset.count);
  const stack = new Stack(viewer.dataset.series, count);
  const [stage, picture, problem] = ["#stage", "#picture", "#problem"].map((id) => one(id, viewer));
  const [atField, frameField] = ["#at", "#frame"].map((id) => one(id, viewer));
  const [centerField, widthField, reset] = ["#center", "#width", "#reset"].map((id) => one(id, viewer));
  let place = { at: Number(atField.value), frame: Number(frameField.value) };
  let direction = 1;
  let isDrawing = false;
  let isStale = false;
  let turn = 0;

  one("#apply", viewer).hidden = true;
  one(".paging", viewer).hidden = true;
  reset.hidden = false;

  const window = () => {
    const [center, width] = [centerField.valueAsNumber, widthField.valueAsNumber];
    return Number.isFinite(center) && width >= 1 ? { center, width } : null;
  };

  // A screen reader reads a slider as soon as its value changes, so its text is set first.
  function slide({ at, frame }, frames) {
    const image = `Image ${at} of ${count}`;
    const shown = Math.min(frame, frames);
    const text = frames > 1 ? `${image}, frame ${shown} of ${frames}` : image;
    atField.setAttribute("aria-valuetext", text);
    atField.value = at;
    frameField.setAttribute("aria-valuetext", `Frame ${shown} of ${frames}`);
    frameField.max = frames;
    frameField.value = shown;
    return text;
  }

  function tell(frames) {
    const text = slide(place, frames);
    one("#position", viewer).textContent = text;
    picture.alt = text;
    frameField.closest("label").hidden = frames === 1;
    const shown = window();
    const query = shown ? `&center=${shown.center}&width=${shown.width}` : "";
    history.replaceState(null, "", `?at=${place.at}&frame=${place.frame}${query}`);
  }

  async function draw() {
    const wanted = place;
    const result = await stack.picture(wanted, window());
    const frames = stack.framesAt(wanted.at);
    if (place === wanted) place = { at: wanted.at, frame: Math.min(wanted.frame, frames) };
    else if (!result.source) return;
    if (result.source) {
      picture.src = result.source;
      await picture.decode().catch(() => {});
    }
    picture.hidden = !result.source;
    problem.hidden = Boolean(result.source);
    const note = result.isNotRendered ? " OHIF or another viewer may show it." : "";
    const text = result.source ? "" : `This image cannot be shown here: ${result.problem}.${note}`;
    if (problem.textContent !== text) problem.textContent = text;
    const object = one("#object");
    const { address } = stack.instances.get(place.at) ?? {};
    if (object && address) object.href = `${address}?accept=application/dicom`;
    const { hasWindow } = stack.instances.get(place.at) ?? {};
    one("#window", viewer).hidden = hasWindow === false;
    tell(frames);
  }

  // One image is loaded at a time. Those that are passed meanwhile are left out.
  async function show() {
    turn += 1;
    isStale = true;
    if (isDrawing) return;
    isDrawing = true;
    viewer.dataset.state = "loading";
    while (isStale) {
      isStale = false;
      await draw();
    }
    isDrawing = false;
    viewer.dataset.state = "done";
    prefetch(turn);
  }

  // The neighbours in the direction of the last step, the nearest first.
  async function prefetch(mine) {
    let next = place;
    for (let number = 0; number < AHEAD && mine === turn; number += 1) {
      const further = stack.moved(next, direction);
      if (further.at === next.at && further.frame === next.frame) return;
      await stack.picture(further, window());
      next = { at: further.at, frame: Math.min(further.frame, stack.framesAt(further.at)) };
    }
  }

  function go(next) {
    if (next.at === place.at && next.frame === place.frame) return;
    direction = next.at > place.at || (next.at === place.at && next.frame > place.frame) ? 1 : -1;
    place = next;
    slide(place, stack.framesAt(place.at));
    show();
  }

  function step(steps) {
    let next = place;
    for (let number = 0; number < Math.abs(steps); number += 1) next = stack.moved(next, Math.sign(steps));
    go(next);
  }

  atField.addEventListener("input", () => go({ at: Number(atField.value), frame: 1 }));
  frameField.addEventListener("input", () => go({ at: place.at, frame: Number(frameField.value) }));
  for (const field of [centerField, widthField]) field.addEventListener("change", show);
  reset.addEventListener("click", () => {
    centerField.value = "";
    widthField.value = "";
    show();
  });
  viewer.addEventListener("submit", (event) => {
    event.preventDefault();
    show();
  });

  const keys = {
    ArrowUp: () => step(-1), ArrowLeft: () => step(-1), ArrowDown: () => step(1), ArrowRight: () => step(1),
    PageUp: () => step(-10), PageDown: () => step(10),
    Home: () => go({ at: 1, frame: 1 }), End: () => go({ at: count, frame: Infinity }),
  };
  document.addEventListener("keydown", (event) => {
    // A field has its own use for these keys; the slider of the images has the same use.
    if ((isField(event.target) && event.target !== atField) || event.ctrlKey || event.altKey || event.metaKey) return;
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  let turned = 0;
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    // A wheel gives one large step, a touch pad many small ones.
    turned += event.deltaMode === 0 ? event.deltaY : event.deltaY * 40;
    const steps = Math.trunc(turned / 40);
    turned -= steps * 40;
    if (steps !== 0) step(Math.max(-3, Math.min(3, Math.abs(event.deltaY) >= 100 ? Math.sign(steps) : steps)));
  }, { passive: false });

  let drag = null;
  stage.addEventListener("pointerdown", async (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    stage.setPointerCapture(event.pointerId);
    const mine = { x: event.clientX, y: event.clientY, from: null, last: null };
    drag = mine;
    if (event.pointerType === "touch" || one("#window", viewer).hidden) return;
    mine.from = window() ?? await stack.window(place.at).catch(() => null);
    if (mine.last) drawWindow(mine);
  });
  stage.addEventListener("pointermove", (event) => {
    if (!drag) return;
    if (event.pointerType === "touch") {
      const steps = Math.trunc((event.clientY - drag.y) / PIXELS_PER_IMAGE);
      drag.y += steps * PIXELS_PER_IMAGE;
      if (steps !== 0) step(steps);
      return;
    }
    drag.last = { x: event.clientX, y: event.clientY };
    drawWindow(drag);
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => { drag = null; });

  function drawWindow({ x, y, from, last }) {
    if (!from) return;
    const round = (number) => (from.width > 20 ? Math.round(number) : Math.round(number * 100) / 100);
    widthField.value = Math.max(1, round(from.width * (1 + (last.x - x) / PIXELS_PER_WINDOW)));
    centerField.value = round(from.center + (from.width * (last.y - y)) / PIXELS_PER_WINDOW);
    show();
  }

  show();
}

// An icon lies behind each thumbnail, for series that have none.
for (const image of document.querySelectorAll(".thumb img")) {
  const hide = () => { image.hidden = true; };
  if (image.complete && image.naturalWidth === 0) hide();
  else image.addEventListener("error", hide);
}

const form = one("form[role=search]");
if (form) search(form);
const viewer = one("#viewer");
if (viewer) view(viewer);
else document.addEventListener("keydown", moveInList);
