// Three planes of a CT to scroll, with a cross, a window, and a diagnosis's evidence over them; on canvases, without WebGL.
// The report shows the cube round a nodule with it, the service's page a whole CT. Both give it a volume:
//   size, stepMm   voxels and their spacing along x, y, z
//   mm(at)         LPS mm of an index [x, y, z], and index(mm) the other way; voxel centres are whole
//   picture(plane, slice, window)  what to draw, one pixel a voxel, or null while it is on its way
//   describe(at)   what is known of a voxel, for the line below
// An index is one of the CT's own axes: x to the patient's left, y to the back, z to the head.

import { listen } from "./gestures.js";

export const PLANES = [
  // across and down: which axis runs along the picture, and whether backwards; through: the axis that is scrolled.
  { name: "Axial", across: [0, false], down: [1, false], through: 2, letters: "RLAP" },
  { name: "Coronal", across: [0, false], down: [2, true], through: 1, letters: "RLSI" },
  { name: "Sagittal", across: [1, false], down: [2, true], through: 0, letters: "APSI" },
];
const OUTLINE = "#26e3ff", MARK = "#ffd166", DARK = "#000";
const ZOOM_MOST = 16;
const FONT = "system-ui, sans-serif";

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export class Viewer {
  // root holds .views, .controls and .readout. options: windows {words: [low, high] in HU}, huRange, camOpacity.
  constructor(root, volume, options) {
    this.options = options;
    this.evidence = null;
    this.marks = []; // {mm, label}
    this.tool = "cross"; // what the left button or one finger does; or "window", "pan"
    this.camOpacity = options.camOpacity;
    this.outlineOpacity = 1;
    this.window = [...Object.values(options.windows)[0]];
    this.onmove = () => {};
    this.readout = root.querySelector(".readout");
    this.volume = volume;
    this.views = PLANES.map((plane) => this.addView(root.querySelector(".views"), plane));
    this.addControls(root.querySelector(".controls"));
    root.hidden = false;
    this.show(volume);
    this.setWindow(...this.window);
    const resized = new ResizeObserver(() => this.draw());
    for (const { canvas } of this.views) resized.observe(canvas);
  }

  show(volume) {
    this.volume = volume;
    this.at = volume.size.map((size) => Math.floor(size / 2));
    for (const view of this.views) Object.assign(view.slider, { max: volume.size[view.plane.through] - 1 });
    this.fit();
  }

  addView(parent, plane) {
    const box = document.createElement("div"), canvas = document.createElement("canvas");
    box.className = `view ${plane.name.toLowerCase()}`;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${plane.name} plane; arrow keys move the cross, Page Up and Page Down scroll, plus and minus zoom`);
    const slider = this.slider(plane.name, 0, 1, 1, 0, (value) => this.move(plane.through, value));
    box.append(canvas, slider.label);
    parent.append(box);
    const view = { plane, canvas, slider: slider.input, words: slider.words, zoom: 1, middle: [0, 0] };
    listen(this, view);
    return view;
  }

  slider(text, min, max, step, value, changed) {
    const [label, words, input] = ["label", "span", "input"].map((tag) => document.createElement(tag));
    words.textContent = text;
    Object.assign(input, { type: "range", min, max, step, value });
    input.addEventListener("input", () => changed(Number(input.value)));
    label.append(words, input);
    return { label, words, input };
  }

  addControls(parent) {
    const opacity = (text, field) => parent.append(this.slider(text, 0, 1, 0.05, this[field], (value) => { this[field] = value; this.draw(); }).label);
    opacity("CAM", "camOpacity");
    opacity("Outline", "outlineOpacity");
    const [low, high] = this.options.huRange, set = () => this.setWindow(level.input.valueAsNumber - wide.input.valueAsNumber / 2, level.input.valueAsNumber + wide.input.valueAsNumber / 2);
    const level = this.slider("Centre, HU", low, high, 1, 0, set), wide = this.slider("Width, HU", 50, high - low, 1, 0, set);
    this.sliders = { level: level.input, wide: wide.input };
    parent.append(level.label, wide.label);
    this.presets = Object.entries(this.options.windows).map(([name, preset]) => {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", textContent: name });
      button.addEventListener("click", () => this.setWindow(...preset));
      parent.append(button);
      return { button, preset };
    });
  }

  // From black to white, HU.
  setWindow(black, white) {
    const [low, high] = this.options.huRange, centre = clamp((black + white) / 2, low, high), wide = clamp(white - black, 50, high - low);
    this.window = [centre - wide / 2, centre + wide / 2];
    this.sliders.level.value = centre;
    this.sliders.wide.value = wide;
    for (const { button, preset } of this.presets) button.ariaPressed = preset.every((hu, k) => hu === this.window[k]);
    this.draw();
  }

  // The cross: anywhere between the outermost voxels' centres, to a part of a voxel where a finger or a number puts it.
  goTo(at) {
    this.at = at.map((index, axis) => clamp(index, 0, this.volume.size[axis] - 1));
    for (const view of this.views) this.follow(view);
    this.draw();
    this.onmove(this.at);
  }
  move(axis, index) { this.goTo(this.at.map((old, k) => (k === axis ? index : old))); }
  step(axis, by) { this.move(axis, Math.round(this.at[axis]) + by); }
  put(view, x, y) {
    const [u, v] = this.voxels(view, x, y), at = [...this.at];
    at[view.plane.across[0]] = u;
    at[view.plane.down[0]] = v;
    at[view.plane.through] = Math.round(at[view.plane.through]);
    this.goTo(at);
  }

  // CSS pixels a mm. At zoom 1 the whole plane is seen.
  scale({ plane, canvas, zoom }) {
    const edge = (axis) => this.volume.size[axis] * this.volume.stepMm[axis];
    return zoom * Math.min(canvas.clientWidth / edge(plane.across[0]), canvas.clientHeight / edge(plane.down[0]));
  }
  // Where an index lies on a canvas, in CSS pixels, and the other way; middle is the index at the canvas's middle.
  pixel(view, at) {
    const scale = this.scale(view), { canvas, plane, middle } = view;
    return [[plane.across, canvas.clientWidth, middle[0]], [plane.down, canvas.clientHeight, middle[1]]].map(
      ([[axis, backwards], edge, from]) => edge / 2 + (backwards ? -1 : 1) * (at[axis] - from) * this.volume.stepMm[axis] * scale);
  }
  voxels(view, x, y) {
    const scale = this.scale(view), { canvas, plane, middle } = view;
    return [[plane.across, x - canvas.clientWidth / 2, middle[0]], [plane.down, y - canvas.clientHeight / 2, middle[1]]].map(
      ([[axis, backwards], offset, from]) => from + ((backwards ? -1 : 1) * offset) / (this.volume.stepMm[axis] * scale));
  }

  fit() {
    for (const view of this.views) Object.assign(view, { zoom: 1, middle: this.centreOf(view) });
    this.goTo(this.at);
  }
  centreOf({ plane }) { return [plane.across[0], plane.down[0]].map((axis) => (this.volume.size[axis] - 1) / 2); }
  // Round a place of one view, or round the cross in all of them.
  zoom(factor, view = null, place = null) {
    for (const each of view ? [view] : this.views) {
      const [x, y] = place ?? this.pixel(each, this.at), before = this.voxels(each, x, y);
      each.zoom = clamp(each.zoom * factor, 1, ZOOM_MOST);
      const after = this.voxels(each, x, y);
      each.middle = each.zoom === 1 ? this.centreOf(each) : each.middle.map((index, k) => index + before[k] - after[k]);
    }
    this.draw();
  }
  // So many mm round the cross fill each view.
  closeUp(mm) {
    for (const view of this.views) {
      const { canvas, plane } = view, whole = this.scale({ ...view, zoom: 1 });
      view.zoom = clamp(Math.min(canvas.clientWidth, canvas.clientHeight) / mm / whole, 1, ZOOM_MOST);
      view.middle = [this.at[plane.across[0]], this.at[plane.down[0]]];
    }
    this.draw();
  }
  pan(view, dx, dy) {
    if (view.zoom === 1) return;
    const [from, to] = [this.voxels(view, 0, 0), this.voxels(view, dx, dy)], { plane } = view;
    view.middle = view.middle.map((index, k) => clamp(index - to[k] + from[k], 0, this.volume.size[[plane.across, plane.down][k][0]] - 1));
    this.draw();
  }
  pinch(view, before, after) {
    const apart = ([a, b]) => Math.hypot(a[0] - b[0], a[1] - b[1]), between = ([a, b]) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    const from = between(before), to = between(after);
    this.zoom(apart(after) / Math.max(apart(before), 1), view, from);
    this.pan(view, to[0] - from[0], to[1] - from[1]);
  }
  // A cross that has left what is seen takes the view along.
  follow(view) {
    const [x, y] = this.pixel(view, this.at), { canvas, plane } = view, edge = 8;
    if (view.zoom === 1 || (x >= edge && y >= edge && x <= canvas.clientWidth - edge && y <= canvas.clientHeight - edge)) return;
    view.middle = [this.at[plane.across[0]], this.at[plane.down[0]]];
  }

  draw() {
    for (const view of this.views) this.drawView(view);
    const mm = this.volume.mm(this.at), cam = this.evidence ? `, CAM ${this.evidence.camAt(this.fromEvidence(this.at)).toFixed(2)}` : "";
    this.readout.textContent = `x ${mm[0].toFixed(1)}, y ${mm[1].toFixed(1)}, z ${mm[2].toFixed(1)} mm (LPS): ${this.volume.describe(this.at)}${cam}`;
  }

  fromEvidence(at) {
    const centre = this.volume.index(this.evidence.centre);
    return at.map((index, axis) => (index - centre[axis]) * this.volume.stepMm[axis]);
  }

  drawView(view) {
    const { plane, canvas, slider, words } = view, { size, stepMm } = this.volume, dots = window.devicePixelRatio;
    const slice = Math.round(this.at[plane.through]), [a, d] = [plane.across[0], plane.down[0]];
    slider.value = slice;
    words.textContent = `${plane.name}, slice ${slice + 1} of ${size[plane.through]}`;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    if (canvas.width !== Math.round(width * dots) || canvas.height !== Math.round(height * dots)) Object.assign(canvas, { width: Math.round(width * dots), height: Math.round(height * dots) });
    const context = canvas.getContext("2d"), scale = this.scale(view);
    context.setTransform(dots, 0, 0, dots, 0, 0);
    context.clearRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    const [x, y] = this.pixel(view, size.map((n, axis) => ([plane.across, plane.down].some(([k, backwards]) => k === axis && backwards) ? n - 0.5 : -0.5)));
    const picture = this.volume.picture(plane, slice, this.window);
    if (picture) context.drawImage(picture, x, y, size[a] * stepMm[a] * scale, size[d] * stepMm[d] * scale);
    if (this.evidence) this.drawEvidence(view, context, slice, scale);
    for (const mark of this.marks) this.drawMark(view, context, slice, mark);
    this.drawCross(view, context, width, height);
    this.drawLabels(plane, context, width, height, scale);
  }

  drawEvidence(view, context, slice, scale) {
    const { plane } = view, there = this.evidence.slice(plane, this.fromEvidence([slice, slice, slice])[plane.through]);
    if (!there) return;
    const [x, y] = this.pixel(view, this.volume.index(this.evidence.centre)), edge = this.evidence.edgeMm * scale, cell = this.evidence.stepMm * scale;
    context.globalAlpha = this.camOpacity;
    context.drawImage(there.heat, x - edge / 2, y - edge / 2, edge, edge);
    context.globalAlpha = this.outlineOpacity;
    context.beginPath();
    for (const [fromX, fromY, toX, toY] of there.outline) {
      context.moveTo(x - edge / 2 + fromX * cell, y - edge / 2 + fromY * cell);
      context.lineTo(x - edge / 2 + toX * cell, y - edge / 2 + toY * cell);
    }
    context.lineCap = "round";
    this.stroke(context, OUTLINE, 1.6, 3.4);
    context.globalAlpha = 1;
  }

  // On a dark rim, so that it is seen on every grey.
  stroke(context, colour, width, rim) {
    for (const [style, wide] of [[DARK, rim], [colour, width]]) Object.assign(context, { strokeStyle: style, lineWidth: wide }), context.stroke();
  }
  text(context, words, x, y, align, size, colour = "#fff") {
    Object.assign(context, { font: `600 ${size}px ${FONT}`, textAlign: align, textBaseline: "middle", strokeStyle: "#000", lineWidth: 3, lineJoin: "round", fillStyle: colour });
    context.strokeText(words, x, y);
    context.fillText(words, x, y);
  }

  drawMark(view, context, slice, { mm, label }) {
    const at = this.volume.index(mm), { through } = view.plane;
    if (Math.abs(at[through] - slice) * this.volume.stepMm[through] > 5) return;
    const [x, y] = this.pixel(view, at), radius = Math.max(12, 6 * this.scale(view));
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    this.stroke(context, MARK, 1.6, 3.4);
    this.text(context, label, x + radius * 0.75 + 4, y - radius * 0.75 - 4, "left", 13, MARK);
  }

  drawCross(view, context, width, height) {
    const [x, y] = this.pixel(view, this.at), gap = 14;
    context.strokeStyle = "rgba(255, 255, 255, 0.6)";
    context.lineWidth = 1;
    context.beginPath();
    for (const [fromX, fromY, toX, toY] of [[0, y, x - gap, y], [x + gap, y, width, y], [x, 0, x, y - gap], [x, y + gap, x, height]]) {
      context.moveTo(fromX, fromY);
      context.lineTo(toX, toY);
    }
    context.stroke();
  }

  drawLabels(plane, context, width, height, scale) {
    const size = clamp(width / 26, 12, 17), edge = size;
    for (const [letter, x, y] of [[0, edge, height / 2], [1, width - edge, height / 2], [2, width / 2, edge], [3, width / 2, height - edge]]) this.text(context, plane.letters[letter], x, y, "center", size);
    const mm = [100, 50, 20, 10].find((length) => length * scale <= width / 4) ?? 5;
    context.beginPath();
    context.moveTo(width - 12 - mm * scale, height - 12);
    context.lineTo(width - 12, height - 12);
    this.stroke(context, "#fff", 2, 4);
    this.text(context, `${mm} mm`, width - 12 - (mm * scale) / 2, height - 22, "center", 11);
  }
}
