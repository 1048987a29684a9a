// Draws linked Vega-Lite pictures and plays them through training time. Everything after the first message
// happens here: the server is never asked for a frame.

const SPEEDS = [0.25, 0.5, 1, 2, 4];
const PASS_SECONDS = 8; // one pass at speed 1, within the two rates below
const SLOWEST = 4; // frames per second at speed 1
const FASTEST = 15; // hence 60 at speed 4, a screen's own rate
const CALM_STOPS = 20; // a reduced-motion pass shows about this many pictures, one a second
const MANY_STILL = 3000; // rows above which a canvas is drawn, not SVG: it costs a quarter
const MANY_MOVING = 60; // the same for the rows of one frame
const MOST_ROWS = 200; // of a table of numbers; the files to take away have all of them

const PALETTE = {
  light: ["#0072B2", "#C44E00", "#00795A", "#A3437C", "#8A6100", "#3B3B98", "#5C5C5C"],
  dark: ["#56B4E9", "#F58A4B", "#2FC99B", "#E08DB9", "#E6B23C", "#A9A9F5", "#BDBDBD"],
};

const ICONS = {
  back: "M6 5h2.5v14H6zM19 5v14L9.5 12z",
  play: "M7 4.5v15l12.5-7.5z",
  pause: "M6 5h4v14H6zM14 5h4v14h-4z",
  forward: "M15.5 5H18v14h-2.5zM5 5l9.5 7L5 19z",
};

const players = new WeakMap(); // mount point -> Player
const remembered = new Map(); // player key -> {step, speed}: a remount goes on where the last one stood
const mounted = []; // the players of the page
let leading = null; // the one that was touched last

// ---------------------------------------------------------------------------------------------- the library

let library = null;

/** Vega, fetched once a page from beside the app's own scripts, so that a sub-path needs no setting. */
function loadVega() {
  if (window.vegaEmbed) return Promise.resolve(window.vegaEmbed); // a file that brings it along
  if (!library) {
    const script = document.querySelector('script[type="module"][src*="static/js/"]');
    const base = new URL("../../", script ? script.src : new URL("./static/js/x", document.baseURI));
    const url = new URL("assets/vega.js", base).href;
    // The bundle is a plain script; as a module its thousands of one-letter names stay out of the page.
    library = import(url).then(
      () => window.vegaEmbed,
      (reason) => {
        library = null;
        throw new Error(`the drawing library at ${url} did not load (${reason.message})`);
      },
    );
  }
  return library;
}

/** Whether the page forbids code made from text; Vega's interpreter, at half the speed, then takes over. */
function isCodeForbidden() {
  try {
    return !new Function("return true")();
  } catch {
    return true;
  }
}

// ------------------------------------------------------------------------------------------------- the data

/** The message: header length (uint32), JSON header, padding to 8 bytes, then the columns' own bytes. */
function unpack(bytes) {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  const body = bytes.slice(Math.ceil((4 + length) / 8) * 8).buffer;
  for (const picture of header.pictures) {
    picture.data = tables(picture.data, body);
    picture.frames = tables(picture.frames, body);
  }
  return header;
}

const tables = (described, body) => Object.entries(described).map(([name, table]) => new Table(name, table, body));

class Table {
  constructor(name, { rows, offsets, columns }, body) {
    this.name = name;
    this.count = rows;
    this.offsets = offsets; // of frame f: rows offsets[f] to offsets[f + 1]; null when it does not move
    this.columns = columns.map(({ name, kind, at, words }) => [name, reader(kind, at, rows, words, body)]);
  }

  /** Row objects, fresh each time: Vega writes its own marks into the objects that it is given. */
  rows(moment = null) {
    // While a new run is being drawn, the clock may already run past the old one's last frame.
    const frame = moment === null ? null : Math.min(moment, this.offsets.length - 2);
    const first = frame === null ? 0 : this.offsets[frame];
    const last = frame === null ? this.count : this.offsets[frame + 1];
    const rows = new Array(last - first);
    for (let i = first; i < last; i += 1) {
      const row = frame === null ? {} : { frame };
      for (const [name, read] of this.columns) row[name] = read(i);
      rows[i - first] = row;
    }
    return rows;
  }
}

function reader(kind, at, rows, words, body) {
  if (kind === "words") {
    const codes = new Int32Array(body, at, rows);
    return (i) => words[codes[i]];
  }
  if (kind === "i4") {
    const values = new Int32Array(body, at, rows);
    return (i) => values[i];
  }
  if (kind === "f4") {
    const values = new Float32Array(body, at, rows);
    // Seven digits are all a float32 has; without this 0.1 reads 0.10000000149 in a tooltip.
    return (i) => (Number.isFinite(values[i]) ? Number(values[i].toPrecision(7)) : null);
  }
  const values = new Float64Array(body, at, rows);
  return (i) => (Number.isFinite(values[i]) ? values[i] : null);
}

// ------------------------------------------------------------------------------------------------- the look

/** Colours, font and sizes, from the theme's CSS variables at this element. */
function readLook(element, present) {
  const style = getComputedStyle(element);
  const probe = document.createElement("span");
  element.append(probe);
  const solid = (variable) => {
    probe.style.color = `var(${variable})`;
    return getComputedStyle(probe).color;
  };
  const background = solid("--st-background-color");
  const text = solid("--st-text-color");
  const border = solid("--st-border-color");
  probe.remove();
  const [red, green, blue] = background.match(/[\d.]+/g).map(Number);
  const dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 128;
  const palette = dark ? PALETTE.dark : PALETTE.light;
  const ink = present ? (dark ? "#ffffff" : "#000000") : text;
  const look = {
    dark,
    present,
    font: style.getPropertyValue("--st-font").trim() || "sans-serif",
    tokens: {
      $text: ink,
      $muted: present ? (dark ? "#d0d0d0" : "#404040") : dark ? "#a3a8b4" : "#5f6470",
      $grid: present ? (dark ? "#5a5f6b" : "#c8c8c8") : border,
      $background: background,
      ...Object.fromEntries(palette.map((colour, at) => [`$run${at + 1}`, colour])),
    },
    palette,
  };
  look.signature = JSON.stringify(look);
  return look;
}

function vegaConfig({ font, tokens, palette, present }) {
  const scale = present ? 1.6 : 1;
  const words = { labelColor: tokens.$text, titleColor: tokens.$text, labelFontSize: 12 * scale, titleFontSize: 13 * scale };
  const width = present ? 3 : 2;
  return {
    aria: false, // the whole picture carries one label; its parts would be noise to a screen reader
    background: null,
    font,
    padding: { left: 2, right: 8, top: 6, bottom: 2 },
    range: { category: palette },
    view: { stroke: null },
    axis: {
      ...words,
      titleFontWeight: 500,
      titlePadding: 6 * scale,
      gridColor: tokens.$grid,
      gridOpacity: 0.6,
      domainColor: tokens.$muted,
      tickColor: tokens.$muted,
      labelOverlap: true,
      labelFlush: false,
      tickCount: present ? 5 : 6,
    },
    axisX: { labelSeparation: 6 * scale }, // numbers that touch read as one
    legend: { ...words, titleFontWeight: 500, orient: "top", symbolStrokeWidth: width, symbolSize: 100 * scale, offset: 6 },
    header: words,
    title: { color: tokens.$text, fontSize: 14 * scale },
    text: { color: tokens.$text, fontSize: 12 * scale },
    mark: { color: palette[0] },
    line: { strokeWidth: width },
    trail: { color: palette[0] },
    rule: { color: tokens.$muted, strokeWidth: present ? 3 : 1.5 },
    point: { size: 50 * scale, filled: true },
    circle: { size: 50 * scale },
  };
}

const GROWS = {
  strokeWidth: (value) => Math.max(3, 1.5 * value),
  fontSize: (value) => 1.6 * value,
  labelFontSize: (value) => 1.6 * value,
  titleFontSize: (value) => 1.6 * value,
  size: (value) => 1.6 * value,
};

/** A copy of a spec with its colour names ("$text") filled in and, for the projector, its numbers grown. */
function dress(node, look) {
  if (Array.isArray(node)) return node.map((item) => dress(item, look));
  if (typeof node === "string") return Object.hasOwn(look.tokens, node) ? look.tokens[node] : node;
  if (node === null || typeof node !== "object") return node;
  return Object.fromEntries(
    Object.entries(node).map(([name, value]) => [
      name,
      look.present && typeof value === "number" && Object.hasOwn(GROWS, name) ? GROWS[name](value) : dress(value, look),
    ]),
  );
}

const COMPOSED = ["hconcat", "vconcat", "concat", "facet", "repeat"];

function isComposed(spec) {
  return COMPOSED.some((name) => name in spec) || ["row", "column", "facet"].some((name) => name in (spec.encoding ?? {}));
}

// ---------------------------------------------------------------------------------------------- one picture

class Picture {
  constructor(player) {
    this.player = player;
    this.canvas = make("div", { class: "canvas", role: "img" });
    this.caption = make("figcaption");
    this.numbers = new Numbers(this);
    this.note = make("p", { class: "note" });
    this.figure = make("figure", {}, this.caption, this.canvas, this.note, this.numbers.root);
    this.embedded = null;
    this.model = null;
    this.signature = null;
    this.wanted = null;
    this.busy = null;
    this.gone = false;
    this.observer = new ResizeObserver(() => this.fit());
    this.observer.observe(this.canvas);
    this.picker = new Picker(this);
  }

  /** Draw this model; of several asked for while one is being drawn, only the newest. */
  show(model, look) {
    this.wanted = { model, look };
    this.busy ??= this.settle().finally(() => {
      this.busy = null;
    });
    return this.busy;
  }

  async settle() {
    while (this.wanted && !this.gone) {
      const { model, look } = this.wanted;
      this.wanted = null;
      try {
        await this.apply(model, look);
      } catch (reason) {
        this.fail(reason);
      }
    }
  }

  async apply(model, look) {
    const signature = `${look.signature} ${model.height} ${model.spec}`;
    this.caption.textContent = model.title;
    this.picker.serve(model);
    this.note.textContent = model.note;
    this.canvas.setAttribute("aria-label", model.alt);
    this.canvas.style.setProperty("--picture-height", `${model.height}px`);
    if (signature !== this.signature || !this.embedded) {
      await this.build(model, look);
      this.signature = signature;
      return;
    }
    // The same drawing with other numbers: poured in place, so that nothing flashes.
    const { view } = this.embedded;
    for (const [name, value] of Object.entries(model.values)) {
      if (JSON.stringify(value) !== JSON.stringify(this.model.values[name])) view.signal(name, value);
    }
    this.model = model;
    for (const table of model.data) view.data(table.name, table.rows());
    await this.draw();
  }

  /** A new drawing, made out of sight and put in the old one's place when it is complete. */
  async build(model, look) {
    const embed = await loadVega();
    await document.fonts.ready; // Vega measures its labels once
    if (this.gone) return;
    const spec = dress(JSON.parse(model.spec), look);
    const { frame, step } = this.player;
    const composed = isComposed(spec);
    if (!composed) {
      spec.width ??= "container";
      spec.height ??= model.height;
    }
    const stepped = (spec.params ?? []).find((param) => param.name === "step");
    if (stepped && step !== null) stepped.value = step;
    spec.params = [...(spec.params ?? []), ...Object.entries(model.values).map(([name, value]) => ({ name, value }))];
    spec.datasets = Object.fromEntries([
      ...model.data.map((table) => [table.name, table.rows()]),
      ...model.frames.map((table) => [table.name, table.rows(frame)]),
    ]);
    const rows = (which) => which.reduce((sum, { name }) => sum + spec.datasets[name].length, 0);
    const crowded = rows(model.data) > MANY_STILL || rows(model.frames) > MANY_MOVING;
    const stage = make("div", { class: "drawing staged", "aria-hidden": "true" });
    this.canvas.append(stage);
    try {
      const embedded = await embed(stage, spec, {
        mode: "vega-lite",
        actions: false,
        defaultStyle: false,
        renderer: crowded ? "canvas" : "svg",
        ast: isCodeForbidden(),
        config: vegaConfig(look),
        tooltip: { theme: look.dark ? "dark" : "light" },
      });
      if (this.gone) {
        embedded.finalize();
        return;
      }
      this.embedded?.finalize();
      this.embedded = embedded;
    } catch (reason) {
      stage.remove();
      throw reason;
    }
    this.model = model;
    this.stepped = Boolean(stepped);
    this.fluid = spec.width === "container";
    stage.classList.remove("staged");
    this.canvas.replaceChildren(stage);
    this.fit();
    if (this.player.frame !== frame) await this.draw();
    else this.numbers.tell();
  }

  /** Put the player's current frame and step into the view. */
  async draw() {
    if (!this.embedded) return;
    const { view } = this.embedded;
    const { frame, step } = this.player;
    for (const table of this.model.frames) view.data(table.name, table.rows(frame));
    if (this.stepped && step !== null) view.signal("step", step);
    await view.runAsync();
    if (!this.player.playing) this.numbers.tell();
  }

  fit() {
    const width = this.canvas.clientWidth;
    if (!this.embedded || !this.fluid || width === 0) return;
    const { view } = this.embedded;
    if (view.signal("width") === width) return;
    view.signal("width", width).runAsync().catch((reason) => this.fail(reason));
  }

  fail(reason) {
    if (this.gone) return;
    this.embedded?.finalize();
    this.embedded = null;
    this.signature = null;
    const text = make("p", { class: "trouble", role: "alert" });
    text.textContent = `This picture could not be drawn: ${reason.message}.`;
    this.canvas.replaceChildren(text);
  }

  remove() {
    this.gone = true;
    this.observer.disconnect();
    this.embedded?.finalize();
    this.embedded = null;
    this.figure.remove();
  }
}

// --------------------------------------------------------------------------------------------- picking a point

const STRIDES = 40; // arrow keys cross a picture in so many

/** A point of a picture, picked by a click or by keys; the picture's table "picked" holds it. */
class Picker {
  constructor(picture) {
    this.picture = picture;
    this.at = null; // in pixels of the plotting area
    const { canvas } = picture;
    canvas.addEventListener("click", (event) => this.wanted && this.click(event));
    canvas.addEventListener("keydown", (event) => this.wanted && this.key(event));
  }

  serve(model) {
    const { canvas, player } = this.picture;
    this.wanted = Boolean(player.model.picks) && model.data.some(({ name }) => name === "picked");
    canvas.classList.toggle("pickable", this.wanted);
    canvas.setAttribute("role", this.wanted ? "application" : "img");
    if (this.wanted) {
      canvas.tabIndex = 0;
      canvas.setAttribute("aria-description", "Arrow keys move a point, Enter picks it. A click picks a point, too.");
    } else {
      canvas.removeAttribute("tabindex");
      canvas.removeAttribute("aria-description");
    }
  }

  click(event) {
    const drawing = this.picture.canvas.querySelector("svg, canvas");
    const view = this.picture.embedded?.view;
    if (!view || !drawing) return;
    const box = drawing.getBoundingClientRect();
    const wide = drawing.viewBox?.baseVal.width || parseFloat(drawing.style.width) || box.width;
    const [left, top] = view.origin();
    const zoom = wide / box.width;
    this.at = [(event.clientX - box.left) * zoom - left, (event.clientY - box.top) * zoom - top];
    const [x, y] = this.at;
    if (x >= 0 && y >= 0 && x <= view.width() && y <= view.height()) this.pour(true);
  }

  key(event) {
    const view = this.picture.embedded?.view;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], Enter: [0, 0] };
    const move = moves[event.key];
    if (!view || !move || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    const size = [view.width(), view.height()];
    this.at ??= size.map((length) => length / 2);
    this.at = this.at.map((value, axis) => {
      return Math.min(size[axis], Math.max(0, value + (move[axis] * size[axis]) / STRIDES));
    });
    this.pour(event.key === "Enter");
  }

  /** Draw the point and, if it is final, send it. */
  pour(final) {
    const { player, embedded } = this.picture;
    const [x, y] = ["x", "y"].map((name, axis) => embedded.view.scale(name).invert(this.at[axis]));
    embedded.view.data("picked", [{ x, y }]).runAsync();
    const words = [x, y].map((value) => Number(value.toPrecision(3)).toLocaleString("en")).join(", ");
    player.say(final ? `Picked ${words}` : words);
    if (final) player.report({ x, y });
  }
}

// ------------------------------------------------------------------------------------- the picture in numbers

/** What a picture shows, in words and as tables, made when it is opened: of what moves, the present frame. */
class Numbers {
  constructor(picture) {
    this.picture = picture;
    const summary = make("summary");
    summary.textContent = "In words and numbers";
    this.body = make("div");
    this.root = make("details", { class: "numbers" }, summary, this.body);
    this.root.addEventListener("toggle", () => this.tell());
  }

  tell() {
    const { model, player } = this.picture;
    if (!this.root.open || !model) return;
    const words = make("p");
    words.textContent = model.alt;
    const tables = [
      ...model.data.map((table) => [table, table.rows()]),
      ...model.frames.map((table) => [table, table.rows(player.frame)]),
    ];
    this.body.replaceChildren(words, ...tables.filter(([, rows]) => rows.length).map((one) => this.table(...one)));
  }

  table({ name, columns }, rows) {
    const names = columns.map(([column]) => column);
    const cells = (tag, texts, attributes) =>
      make("tr", {}, ...texts.map((text) => {
        const cell = make(tag, attributes);
        cell.textContent = text;
        return cell;
      }));
    const caption = make("caption");
    const more = rows.length > MOST_ROWS ? `, the first ${MOST_ROWS} of ${rows.length} rows` : "";
    caption.textContent = `${name.replaceAll("_", " ")}${more}`;
    const head = make("thead", {}, cells("th", names.map((one) => one.replaceAll("_", " ")), { scope: "col" }));
    const body = make("tbody", {}, ...rows.slice(0, MOST_ROWS).map((row) => cells("td", names.map((one) => digits(row[one])))));
    const label = `${this.picture.model.title}: ${caption.textContent}`;
    return make("div", { class: "rows", role: "region", tabindex: "0", "aria-label": label }, make("table", {}, caption, head, body));
  }
}

/** Five digits of a number, a dash for none, other things as they are. */
function digits(value) {
  if (value === null || value === undefined) return "\u2013";
  return typeof value === "number" ? String(Number(value.toPrecision(5))) : String(value);
}

// ----------------------------------------------------------------------------------------------- the player

class Player {
  constructor(parent) {
    this.pictures = new Map(); // id -> Picture, in drawing order
    this.model = null;
    this.frame = 0;
    this.speed = 1;
    this.playing = false;
    this.turn = 0;
    this.drawn = 0;
    this.painting = false;
    this.request = 0;
    this.calm = window.matchMedia("(prefers-reduced-motion: reduce)");

    this.back = button("Step back", "back", () => this.go(this.frame - 1));
    this.toggle = button("Play", "play", () => (this.playing ? this.pause() : this.play()));
    this.forward = button("Step forward", "forward", () => this.go(this.frame + 1));
    this.slider = make("input", { type: "range", min: "0", step: "1" });
    this.slider.addEventListener("input", () => this.go(this.slider.valueAsNumber));
    this.readout = make("span", { class: "readout", "aria-hidden": "true" });
    this.rate = make("select", { "aria-label": "Playback speed" });
    for (const speed of SPEEDS) {
      const option = make("option", { value: String(speed) });
      option.textContent = `${speed}\u00d7`;
      this.rate.append(option);
    }
    this.rate.addEventListener("change", () => {
      this.speed = Number(this.rate.value);
      this.remember();
    });
    this.spoken = make("div", { class: "spoken", "aria-live": "polite" });
    this.controls = make(
      "div",
      { class: "controls", role: "group", "aria-label": "Playback" },
      make("div", { class: "buttons" }, this.back, this.toggle, this.forward),
      this.slider,
      this.readout,
      this.rate,
    );
    this.gallery = make("div", { class: "pictures" });
    this.root = make("div", { class: "player", tabindex: "-1" }, this.controls, this.gallery, this.spoken);
    this.root.addEventListener("keydown", (event) => this.key(event));
    this.root.addEventListener("pointerdown", () => (leading = this));
    // On a projector nobody looks for the focus: keys that nothing else has asked for are the player's.
    this.heard = (event) => {
      const idle = document.activeElement === document.body || document.activeElement === null;
      if (this.model?.present && idle && this === lead()) this.key(event);
    };
    document.addEventListener("keydown", this.heard);
    mounted.push(this);
    parent.append(this.root);
  }

  get last() {
    return this.model.steps.length - 1;
  }

  get step() {
    return this.model.steps.length ? this.model.steps[this.frame] : null;
  }

  /** Take a message: new pictures are built, known ones are updated, position, speed and motion stay. */
  async update(bytes) {
    this.newest = bytes;
    if (!this.root.isConnected) {
      // The page is moving it, and out of the page there are no colours to read.
      requestAnimationFrame(() => !this.gone && this.newest === bytes && this.update(bytes));
      return;
    }
    const model = unpack(bytes);
    this.root.dataset.present = String(model.present);
    const look = readLook(this.root, model.present);
    const header = document.querySelector('[data-testid="stHeader"]');
    this.root.style.setProperty("--below", `${Math.max(0, header?.getBoundingClientRect().bottom ?? 0)}px`);
    if (this.model && this.model.digest === model.digest && this.look.signature === look.signature) return;
    this.place(model);
    this.look = look;
    this.root.style.colorScheme = look.dark ? "dark" : "light";
    this.controls.hidden = model.steps.length < 2;
    this.slider.setAttribute("aria-label", `Position in training, in ${model.label}s`);
    this.tell();

    const ids = new Set(model.pictures.map(({ id }) => id));
    for (const [id, picture] of this.pictures) {
      if (!ids.has(id)) {
        picture.remove();
        this.pictures.delete(id);
      }
    }
    model.pictures.forEach((wanted, at) => {
      if (!this.pictures.has(wanted.id)) this.pictures.set(wanted.id, new Picture(this));
      const { figure } = this.pictures.get(wanted.id);
      if (this.gallery.children[at] !== figure) this.gallery.insertBefore(figure, this.gallery.children[at] ?? null);
    });
    await Promise.all(model.pictures.map((wanted) => this.pictures.get(wanted.id).show(wanted, look)));
    this.root.dataset.shown = model.digest;
  }

  place(model) {
    const before = this.model;
    const memory = before ? { step: this.step, speed: this.speed } : remembered.get(model.key);
    this.model = model;
    if (!before && memory) this.speed = memory.speed;
    this.rate.value = String(this.speed);
    if (!memory || memory.step === null) {
      this.frame = Math.max(this.last, 0); // the finished run; Play starts from the beginning
    } else if (!before || before.steps.join() !== model.steps.join()) {
      this.frame = nearest(model.steps, memory.step);
    }
    if (this.last < 1) this.pause();
  }

  go(frame) {
    this.pause();
    this.seek(frame);
    this.speak();
  }

  seek(frame) {
    const target = Math.max(0, Math.min(this.last, frame));
    if (target === this.frame) return;
    this.frame = target;
    this.tell();
    this.paint();
  }

  play() {
    if (this.last < 1) return;
    this.playing = true;
    if (this.frame === this.last) this.seek(0);
    this.clock = 0;
    this.before = null;
    this.tell();
    this.say("Playing");
    this.request = requestAnimationFrame((now) => this.tick(now));
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    cancelAnimationFrame(this.request);
    this.tell();
    this.speak();
    for (const picture of this.pictures.values()) picture.numbers.tell();
  }

  tick(now) {
    if (!this.playing) return;
    const frames = this.model.steps.length;
    const calm = this.calm.matches;
    const stride = calm ? Math.ceil(frames / CALM_STOPS) : 1;
    const rate = calm ? 1 : Math.min(FASTEST, Math.max(SLOWEST, frames / PASS_SECONDS));
    // A tab that slept must not jump: no more than a quarter of a second counts at once.
    const passed = this.before === null ? 0 : (now - this.before) / 1000;
    this.before = now;
    this.clock += Math.min(passed, 0.25) * rate * this.speed;
    if (this.clock >= 1) {
      const whole = Math.floor(this.clock);
      this.clock -= whole;
      this.seek(this.frame + whole * stride);
    }
    if (this.frame === this.last) {
      this.pause();
      return;
    }
    this.request = requestAnimationFrame((next) => this.tick(next));
  }

  /** Draw the newest position, never two at once: a slow picture skips frames instead of falling behind. */
  async paint() {
    if (this.painting) return;
    this.painting = true;
    try {
      let painted = null;
      while (painted !== this.frame && !this.gone) {
        painted = this.frame;
        await Promise.all([...this.pictures.values()].map((picture) => picture.draw().catch((reason) => picture.fail(reason))));
        this.drawn += 1;
        this.root.dataset.frame = String(painted);
        this.root.dataset.drawn = String(this.drawn);
      }
    } finally {
      this.painting = false;
    }
  }

  /** Bring buttons, slider and readout in line with the state. */
  tell() {
    const { steps, label } = this.model;
    if (!steps.length) return;
    const text = `${label} ${this.step} of ${steps[this.last]}`;
    this.readout.textContent = text;
    this.readout.dataset.widest = `${label} ${steps[this.last]} of ${steps[this.last]}`;
    this.slider.max = String(this.last);
    this.slider.value = String(this.frame);
    // While playing the value is not spoken: a screen reader would read sixty a second.
    if (!this.playing) this.slider.setAttribute("aria-valuetext", text);
    paintButton(this.toggle, this.playing ? "Pause" : "Play", this.playing ? "pause" : "play");
    this.back.setAttribute("aria-disabled", String(this.frame === 0));
    this.forward.setAttribute("aria-disabled", String(this.frame === this.last));
    this.root.dataset.playing = String(this.playing);
    this.remember();
  }

  remember() {
    remembered.set(this.model.key, { step: this.step, speed: this.speed });
  }

  /** Speak the readout, once things have come to rest. */
  speak() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      if (!this.playing) this.say(this.readout.textContent);
    }, 400);
  }

  say(text) {
    this.spoken.textContent = text;
  }

  key(event) {
    if (this.last < 1 || event.altKey || event.ctrlKey || event.metaKey || event.target === this.rate) return;
    if (event.target instanceof Element && event.target.closest(".numbers")) return; // they scroll and fold
    const onButton = event.target instanceof HTMLButtonElement;
    const actions = {
      ArrowLeft: () => this.go(this.frame - 1),
      ArrowDown: () => this.go(this.frame - 1),
      ArrowRight: () => this.go(this.frame + 1),
      ArrowUp: () => this.go(this.frame + 1),
      Home: () => this.go(0),
      End: () => this.go(this.last),
    };
    // On a button Space is the button's own.
    if (!onButton) actions[" "] = () => !event.repeat && this.toggle.click();
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  remove() {
    this.gone = true;
    this.playing = false;
    cancelAnimationFrame(this.request);
    clearTimeout(this.silence);
    document.removeEventListener("keydown", this.heard);
    mounted.splice(mounted.indexOf(this), 1);
    for (const picture of this.pictures.values()) picture.remove();
    this.root.remove();
  }
}

// --------------------------------------------------------------------------------------------- small helpers

/** The player that answers keys which are nobody's: the one touched last, else the first of the page that moves. */
function lead() {
  const moving = mounted.filter((player) => player.model && player.last > 0);
  if (moving.includes(leading)) return leading;
  const place = (player) => player.root.getRootNode().host ?? player.root;
  const follows = (one, other) => place(one).compareDocumentPosition(place(other)) & Node.DOCUMENT_POSITION_PRECEDING;
  return moving.reduce((first, player) => (first && !follows(first, player) ? first : player), undefined);
}

function nearest(steps, step) {
  let best = 0;
  steps.forEach((candidate, at) => {
    if (Math.abs(candidate - step) < Math.abs(steps[best] - step)) best = at;
  });
  return best;
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function button(label, icon, act) {
  const element = make("button", { type: "button" });
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  drawing.setAttribute("viewBox", "0 0 24 24");
  drawing.setAttribute("aria-hidden", "true");
  drawing.append(document.createElementNS("http://www.w3.org/2000/svg", "path"));
  element.append(drawing);
  element.addEventListener("click", act);
  paintButton(element, label, icon);
  return element;
}

function paintButton(element, label, icon) {
  if (element.getAttribute("aria-label") === label) return;
  element.setAttribute("aria-label", label);
  element.title = label;
  element.querySelector("path").setAttribute("d", ICONS[icon]);
}

/** Called by Streamlit at the first mount, on every new message and on a change of theme. */
export default function ({ data, parentElement, setTriggerValue }) {
  let player = players.get(parentElement);
  if (!player) {
    player = new Player(parentElement);
    players.set(parentElement, player);
  }
  player.report = (point) => setTriggerValue("picked", point);
  player.turn += 1;
  const { turn } = player;
  player.update(data);
  return () => {
    // An overtaken call is cleaned up too, after its successor began: only the newest may take the player down.
    if (player.turn !== turn) return;
    players.delete(parentElement);
    player.remove();
  };
}
