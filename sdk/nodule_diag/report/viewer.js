"use strict";
// Scrolls through the cube round each nodule: CT, CAM and the nodule's outline on three canvases, without WebGL.
// Arrays run x fastest, then y, then z, along the CT's own axes: x to the patient's left, y to the back, z to the head.

const PLANES = [
  // across and down: which axis runs along the picture, and whether backwards; through: the axis that is scrolled.
  { name: "Axial", across: [0, false], down: [1, false], through: 2, letters: "RLAP" },
  { name: "Coronal", across: [0, false], down: [2, true], through: 1, letters: "RLSI" },
  { name: "Sagittal", across: [1, false], down: [2, true], through: 0, letters: "APSI" },
];
const PIXELS = 480; // of a canvas, along its edge
const OUTLINE = "#26e3ff";
const MASK_SIZE = 64, MASK_STEP_MM = 0.5, CAM_SIZE = 16;

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

function unpacked(bits) {
  const values = new Uint8Array(bits.length * 8);
  for (let i = 0; i < values.length; i++) values[i] = (bits[i >> 3] >> (7 - (i & 7))) & 1;
  return values;
}

// Trilinear value of an array of size^3 at an index [x, y, z]; 0 outside, the outermost value on its rim.
function sampled(values, size, at) {
  const low = [0, 0, 0], part = [0, 0, 0];
  for (let axis = 0; axis < 3; axis++) {
    if (at[axis] < -0.5 || at[axis] > size - 0.5) return 0;
    const inside = Math.min(Math.max(at[axis], 0), size - 1);
    low[axis] = Math.min(Math.floor(inside), size - 2);
    part[axis] = inside - low[axis];
  }
  let sum = 0;
  for (let corner = 0; corner < 8; corner++) {
    let weight = 1, index = 0;
    for (let axis = 2; axis >= 0; axis--) {
      const up = (corner >> axis) & 1;
      weight *= up ? part[axis] : 1 - part[axis];
      index = index * size + low[axis] + up;
    }
    if (weight > 0) sum += weight * values[index];
  }
  return sum;
}

// The line where a picture passes 0.5, drawn cell by cell (marching squares).
function drawOutline(context, picture, size, scale) {
  context.beginPath();
  for (let row = 0; row < size - 1; row++) {
    for (let column = 0; column < size - 1; column++) {
      const i = row * size + column;
      const corners = [[0, 0, picture[i]], [1, 0, picture[i + 1]], [1, 1, picture[i + size + 1]], [0, 1, picture[i + size]]];
      const crossings = [];
      for (let edge = 0; edge < 4; edge++) {
        const [x, y, a] = corners[edge], [toX, toY, b] = corners[(edge + 1) % 4];
        if (a >= 0.5 === b >= 0.5) continue;
        const part = (0.5 - a) / (b - a);
        crossings.push([(column + x + (toX - x) * part + 0.5) * scale, (row + y + (toY - y) * part + 0.5) * scale]);
      }
      for (let k = 0; k + 1 < crossings.length; k += 2) {
        context.moveTo(...crossings[k]);
        context.lineTo(...crossings[k + 1]);
      }
    }
  }
  context.stroke();
}

class Viewer {
  constructor(root, data) {
    this.data = data;
    this.size = data.size;
    this.hu = bytes(data.hu);
    this.cam = bytes(data.cam);
    this.nodule = unpacked(bytes(data.noduleBits));
    this.at = [0, 0, 0].map(() => Math.floor(this.size / 2));
    this.window = [...data.windows.lung];
    this.camOpacity = data.heatOpacity;
    this.outlineOpacity = 1;
    this.readout = root.querySelector(".readout");
    this.views = PLANES.map((plane) => this.addView(root.querySelector(".views"), plane));
    this.addControls(root.querySelector(".controls"));
    root.hidden = false;
    this.draw();
  }

  addView(parent, plane) {
    const box = document.createElement("div"), canvas = document.createElement("canvas");
    canvas.width = canvas.height = PIXELS;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${plane.name} plane; arrow keys move the cross, Page Up and Page Down scroll`);
    const slider = this.slider(`${plane.name}, slice`, 0, this.size - 1, 1, this.at[plane.through], (value) => this.move(plane.through, value));
    box.append(canvas, slider.label);
    parent.append(box);
    const place = (event) => {
      const frame = canvas.getBoundingClientRect();
      const along = [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
      [plane.across, plane.down].forEach(([axis, backwards], k) => {
        const index = Math.floor(along[k] * this.size);
        this.at[axis] = this.clamped(backwards ? this.size - 1 - index : index);
      });
      this.draw();
    };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); place(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) place(event); });
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); this.step(plane.through, event.deltaY > 0 ? 1 : -1); }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const sign = ([, backwards]) => (backwards ? -1 : 1);
      const steps = {
        ArrowLeft: [plane.across[0], -sign(plane.across)], ArrowRight: [plane.across[0], sign(plane.across)],
        ArrowUp: [plane.down[0], -sign(plane.down)], ArrowDown: [plane.down[0], sign(plane.down)],
        PageUp: [plane.through, 1], PageDown: [plane.through, -1],
      };
      if (!(event.key in steps)) return;
      event.preventDefault();
      this.step(...steps[event.key]);
    });
    return { plane, canvas, slider: slider.input };
  }

  slider(text, min, max, step, value, changed) {
    const label = document.createElement("label"), input = document.createElement("input");
    label.textContent = text;
    Object.assign(input, { type: "range", min, max, step, value });
    input.addEventListener("input", () => changed(Number(input.value)));
    label.append(input);
    return { label, input };
  }

  addControls(parent) {
    const opacity = (text, field) => parent.append(this.slider(text, 0, 1, 0.05, this[field], (value) => { this[field] = value; this.draw(); }).label);
    opacity("CAM", "camOpacity");
    opacity("Outline", "outlineOpacity");
    const [low, high] = this.data.huRange, middle = () => (this.window[0] + this.window[1]) / 2, width = () => this.window[1] - this.window[0];
    const set = (centre, wide) => { this.window = [centre - wide / 2, centre + wide / 2]; this.draw(); };
    const level = this.slider("Window centre, HU", low, high, 10, middle(), (value) => set(value, width()));
    const wide = this.slider("Window width, HU", 50, high - low, 10, width(), (value) => set(middle(), value));
    parent.append(level.label, wide.label);
    for (const [name, window] of Object.entries(this.data.windows)) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `${name} window`;
      button.addEventListener("click", () => {
        this.window = [...window];
        level.input.value = middle();
        wide.input.value = width();
        this.draw();
      });
      parent.append(button);
    }
  }

  clamped(index) { return Math.min(Math.max(index, 0), this.size - 1); }
  move(axis, index) { this.at[axis] = this.clamped(index); this.draw(); }
  step(axis, by) { this.move(axis, this.at[axis] + by); }
  offsetMm(index) { return (index - (this.size - 1) / 2) * this.data.stepMm; }

  // The cube's index of each pixel of a plane, row by row.
  *pixels(plane) {
    const at = [...this.at], oriented = ([axis, backwards], index) => { at[axis] = backwards ? this.size - 1 - index : index; };
    for (let row = 0; row < this.size; row++) {
      oriented(plane.down, row);
      for (let column = 0; column < this.size; column++) {
        oriented(plane.across, column);
        yield at;
      }
    }
  }

  huAt([x, y, z]) {
    const [low, high] = this.data.huRange;
    return low + (this.hu[(z * this.size + y) * this.size + x] / 255) * (high - low);
  }

  colour(weight) {
    const stops = this.data.heat;
    let k = 1;
    while (k < stops.length - 1 && weight > stops[k][0]) k++;
    const [from, a] = stops[k - 1], [to, b] = stops[k], part = Math.min(Math.max((weight - from) / (to - from), 0), 1);
    return a.map((value, channel) => value + (b[channel] - value) * part);
  }

  draw() {
    for (const { plane, canvas, slider } of this.views) {
      slider.value = this.at[plane.through];
      this.drawPlane(plane, canvas.getContext("2d"));
    }
    const { centre, direction } = this.data, offset = this.at.map((index) => this.offsetMm(index));
    const mm = centre.map((value, k) => value + direction[3 * k] * offset[0] + direction[3 * k + 1] * offset[1] + direction[3 * k + 2] * offset[2]);
    const cam = sampled(this.cam, CAM_SIZE, this.indexIn(CAM_SIZE, this.data.camStepMm, this.at)) / 255;
    this.readout.textContent = `x ${mm[0].toFixed(1)}, y ${mm[1].toFixed(1)}, z ${mm[2].toFixed(1)} mm (LPS): ${Math.round(this.huAt(this.at))} HU, CAM ${cam.toFixed(2)}`;
  }

  indexIn(size, stepMm, at) { return at.map((index) => this.offsetMm(index) / stepMm + (size - 1) / 2); }

  drawPlane(plane, context) {
    const size = this.size, scale = PIXELS / size, [low, high] = this.window;
    const grey = new ImageData(size, size), heat = new ImageData(size, size), inside = new Float32Array(size * size);
    let i = 0;
    for (const at of this.pixels(plane)) {
      const shade = Math.min(Math.max((this.huAt(at) - low) / (high - low), 0), 1) * 255;
      grey.data.set([shade, shade, shade, 255], 4 * i);
      const weight = sampled(this.cam, CAM_SIZE, this.indexIn(CAM_SIZE, this.data.camStepMm, at)) / 255;
      heat.data.set([...this.colour(weight), weight * this.camOpacity * 255], 4 * i);
      inside[i++] = sampled(this.nodule, MASK_SIZE, this.indexIn(MASK_SIZE, MASK_STEP_MM, at));
    }
    for (const layer of [grey, heat]) {
      const small = new OffscreenCanvas(size, size);
      small.getContext("2d").putImageData(layer, 0, 0);
      context.drawImage(small, 0, 0, PIXELS, PIXELS);
    }
    context.globalAlpha = this.outlineOpacity;
    for (const [colour, width] of [["#00141a", 4.5], [OUTLINE, 2.2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      drawOutline(context, inside, size, scale);
    }
    context.globalAlpha = 1;
    this.drawCross(plane, context, scale);
  }

  drawCross(plane, context, scale) {
    const [x, y] = [plane.across, plane.down].map(([axis, backwards]) => ((backwards ? this.size - 1 - this.at[axis] : this.at[axis]) + 0.5) * scale);
    const gap = 14;
    context.strokeStyle = "rgba(255, 255, 255, 0.75)";
    context.lineWidth = 1;
    context.beginPath();
    for (const [fromX, fromY, toX, toY] of [[0, y, x - gap, y], [x + gap, y, PIXELS, y], [x, 0, x, y - gap], [x, y + gap, x, PIXELS]]) {
      context.moveTo(fromX, fromY);
      context.lineTo(toX, toY);
    }
    context.stroke();
    context.fillStyle = "#fff";
    context.font = "600 20px system-ui, sans-serif";
    context.textBaseline = "middle";
    const middle = PIXELS / 2, edge = 16;
    for (const [letter, atX, atY] of [[0, edge, middle], [1, PIXELS - edge, middle], [2, middle, edge], [3, middle, PIXELS - edge]]) {
      context.textAlign = "center";
      context.fillText(plane.letters[letter], atX, atY);
    }
  }
}

for (const root of document.querySelectorAll(".viewer")) {
  new Viewer(root, JSON.parse(document.getElementById(`cube-${root.dataset.nodule}`).textContent));
}
