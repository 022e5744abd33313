// What a diagnosis shows over a CT: the class activation map in colour and the segmented nodule's outline.
// Arrays run x fastest, then y, then z, along the CT's own axes: x to the patient's left, y to the back, z to the head.
// A place is three offsets from the nodule in mm along these axes.

const MASK_SIZE = 64, MASK_STEP_MM = 0.5, CAM_SIZE = 16;

export function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

function unpacked(bits) {
  const values = new Uint8Array(bits.length * 8);
  for (let i = 0; i < values.length; i++) values[i] = (bits[i >> 3] >> (7 - (i & 7))) & 1;
  return values;
}

// The voxels of a picture of size x size, row by row: [x, y, z], whose third one the caller has set.
export function* pixels(plane, size, at) {
  const oriented = ([axis, backwards], index) => { at[axis] = backwards ? size - 1 - index : index; };
  for (let row = 0; row < size; row++) {
    oriented(plane.down, row);
    for (let column = 0; column < size; column++) {
      oriented(plane.across, column);
      yield at;
    }
  }
}

export function painted(image) {
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
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

// Where a picture passes 0.5, cell by cell (marching squares): pieces [x, y, x, y] in pixels from its corner.
function outlined(picture, size) {
  const pieces = [];
  for (let row = 0; row < size - 1; row++) {
    for (let column = 0; column < size - 1; column++) {
      const i = row * size + column;
      const corners = [[0, 0, picture[i]], [1, 0, picture[i + 1]], [1, 1, picture[i + size + 1]], [0, 1, picture[i + size]]];
      const crossings = [];
      for (let edge = 0; edge < 4; edge++) {
        const [x, y, a] = corners[edge], [toX, toY, b] = corners[(edge + 1) % 4];
        if (a >= 0.5 === b >= 0.5) continue;
        const part = (0.5 - a) / (b - a);
        crossings.push([column + x + (toX - x) * part + 0.5, row + y + (toY - y) * part + 0.5]);
      }
      for (let k = 0; k + 1 < crossings.length; k += 2) pieces.push([...crossings[k], ...crossings[k + 1]]);
    }
  }
  return pieces;
}

export class Evidence {
  // data: what nodule_diag.report.cube.Cube.for_viewer() writes; its HU are not needed.
  constructor(data) {
    this.size = data.size; // cells along an edge of what is drawn
    this.stepMm = data.stepMm;
    this.centre = data.centre; // LPS mm
    this.cam = bytes(data.cam);
    this.camStepMm = data.camStepMm;
    this.nodule = unpacked(bytes(data.noduleBits));
    this.heat = data.heat;
    this.drawn = new Map(); // plane -> its last slice
  }

  get edgeMm() { return this.size * this.stepMm; }

  camAt(offset) { return sampled(this.cam, CAM_SIZE, offset.map((mm) => mm / this.camStepMm + (CAM_SIZE - 1) / 2)) / 255; }
  noduleAt(offset) { return sampled(this.nodule, MASK_SIZE, offset.map((mm) => mm / MASK_STEP_MM + (MASK_SIZE - 1) / 2)); }

  colour(weight) {
    const stops = this.heat;
    let k = 1;
    while (k < stops.length - 1 && weight > stops[k][0]) k++;
    const [from, a] = stops[k - 1], [to, b] = stops[k], part = Math.min(Math.max((weight - from) / (to - from), 0), 1);
    return a.map((value, channel) => value + (b[channel] - value) * part);
  }

  // {heat, outline} of the plane that lies so many mm from the nodule; null where it passes by.
  slice(plane, throughMm) {
    if (Math.abs(throughMm) > this.edgeMm / 2) return null;
    const last = this.drawn.get(plane);
    if (last?.throughMm === throughMm) return last;
    const size = this.size, heat = new ImageData(size, size), inside = new Float32Array(size * size), offset = [0, 0, 0];
    let i = 0;
    for (const at of pixels(plane, size, [0, 0, 0])) {
      for (let axis = 0; axis < 3; axis++) offset[axis] = axis === plane.through ? throughMm : (at[axis] - (size - 1) / 2) * this.stepMm;
      const weight = this.camAt(offset);
      heat.data.set([...this.colour(weight), weight * 255], 4 * i);
      inside[i++] = this.noduleAt(offset);
    }
    const made = { throughMm, heat: painted(heat), outline: outlined(inside, size) };
    this.drawn.set(plane, made);
    return made;
  }
}
