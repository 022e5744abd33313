// The report's own part: the cube round each nodule, whose CT lies in the page, is what its viewer scrolls.

import { Evidence, bytes, painted, pixels } from "./evidence.js";
import { Viewer } from "./viewer.js";

class Cube {
  constructor(data) {
    this.data = data;
    this.size = [data.size, data.size, data.size];
    this.stepMm = [data.stepMm, data.stepMm, data.stepMm];
    this.hu = bytes(data.hu);
  }

  mm(at) {
    const { centre, direction } = this.data, offset = at.map((index) => (index - (this.data.size - 1) / 2) * this.data.stepMm);
    return centre.map((value, k) => value + direction[3 * k] * offset[0] + direction[3 * k + 1] * offset[1] + direction[3 * k + 2] * offset[2]);
  }

  index(mm) {
    const { centre, direction } = this.data, from = mm.map((value, k) => value - centre[k]);
    return [0, 1, 2].map((axis) => from.reduce((sum, value, k) => sum + direction[3 * k + axis] * value, 0) / this.data.stepMm + (this.data.size - 1) / 2);
  }

  huAt([x, y, z]) {
    const [low, high] = this.data.huRange;
    return low + (this.hu[(z * this.data.size + y) * this.data.size + x] / 255) * (high - low);
  }

  picture(plane, slice, [low, high]) {
    const size = this.data.size, grey = new ImageData(size, size), at = [slice, slice, slice];
    let i = 0;
    for (const voxel of pixels(plane, size, at)) {
      const shade = clamped((this.huAt(voxel) - low) / (high - low)) * 255;
      grey.data.set([shade, shade, shade, 255], 4 * i++);
    }
    return painted(grey);
  }

  describe(at) { return `${Math.round(this.huAt(at.map(Math.round)))} HU`; }
}

function clamped(share) { return Math.min(Math.max(share, 0), 1); }

for (const root of document.querySelectorAll(".viewer")) {
  const data = JSON.parse(document.getElementById(`cube-${root.dataset.nodule}`).textContent);
  const windows = Object.fromEntries(Object.entries(data.windows).map(([name, window]) => [`${name} window`, window]));
  const viewer = new Viewer(root, new Cube(data), { windows, huRange: data.huRange, camOpacity: data.heatOpacity });
  viewer.evidence = new Evidence(data);
  viewer.draw();
}
