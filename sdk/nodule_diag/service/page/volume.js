// A CT whose slices come from the server as pictures, for the viewer: those wanted first, then their neighbours.

import { ask } from "./api.js";
import { PLANES } from "./viewer.js";

const KEPT_BYTES = 128 * 2 ** 20; // of decoded pictures
const AHEAD = 6; // slices that are fetched before they are asked for, in the direction of the last step

export class ServedVolume {
  // ct: the server's document. changed: called when a picture has come; failed: with an error.
  constructor(ct, { changed, failed, busy }) {
    this.ct = ct;
    this.size = ct.size_xyz;
    this.stepMm = ct.spacing_xyz_mm;
    Object.assign(this, { changed, failed, busy });
    this.kept = new Map(); // address -> picture, the least used first
    this.lanes = new Map(PLANES.map((plane) => [plane.name, { wanted: null, loading: null, shown: null, slice: 0, ahead: 1 }]));
    this.closed = new AbortController();
  }

  close() { this.closed.abort(); }

  mm(at) {
    const { origin_lps_mm: origin, axes } = this.ct;
    return origin.map((value, k) => at.reduce((sum, index, axis) => sum + axes[axis][k] * this.stepMm[axis] * index, value));
  }

  index(mm) {
    const { origin_lps_mm: origin, axes } = this.ct;
    return axes.map((direction, axis) => direction.reduce((sum, part, k) => sum + part * (mm[k] - origin[k]), 0) / this.stepMm[axis]);
  }

  describe(at) { return `voxel ${at.map(Math.round).join(", ")}`; }

  address(plane, slice, [low, high]) {
    return `v1/cts/${this.ct.id}/slices/${plane.name.toLowerCase()}/${slice}.png?center=${Math.round((low + high) / 2)}&width=${Math.round(high - low)}`;
  }

  // The slice, or the one before it until it has come.
  picture(plane, slice, window) {
    const lane = this.lanes.get(plane.name), address = this.address(plane, slice, window);
    if (slice !== lane.slice) Object.assign(lane, { ahead: Math.sign(slice - lane.slice), slice });
    const kept = this.kept.get(address);
    if (kept) {
      this.kept.delete(address);
      this.kept.set(address, kept); // used last
      lane.shown = kept;
      lane.wanted = null;
      if (!lane.loading) this.lookAhead(plane, lane, window);
      this.tell();
      return kept;
    }
    lane.wanted = { plane, slice, window, address };
    if (!lane.loading) this.load(lane);
    this.tell();
    return lane.shown;
  }

  tell() { this.busy([...this.lanes.values()].some((lane) => lane.wanted)); }

  // One request a plane at a time: what is wanted when it ends is next, what was wanted in between is passed over.
  async load(lane) {
    while (lane.wanted && !this.closed.signal.aborted) {
      const { address } = (lane.loading = lane.wanted);
      try {
        await this.fetch(address);
      } catch (error) {
        lane.wanted = lane.loading = null;
        if (error.name !== "AbortError") this.failed(error);
        return this.tell();
      }
      lane.loading = null;
      if (lane.wanted?.address === address) this.changed(); // which draws it and asks for its neighbours
    }
  }

  async lookAhead(plane, lane, window) {
    const last = this.size[plane.through] - 1, from = lane.slice;
    for (let by = 1; by <= AHEAD; by++) {
      for (const slice of by < 3 ? [from + by * lane.ahead, from - by * lane.ahead] : [from + by * lane.ahead]) {
        const address = this.address(plane, slice, window);
        if (slice < 0 || slice > last || this.kept.has(address)) continue;
        if (lane.wanted || lane.loading || lane.slice !== from || this.closed.signal.aborted) return;
        lane.loading = { address };
        await this.fetch(address).catch(() => {}); // whoever wants it asks again, and is told
        lane.loading = null;
        if (lane.wanted) return this.load(lane);
      }
    }
  }

  async fetch(address) {
    const response = await ask(address, { signal: this.closed.signal });
    const picture = await createImageBitmap(await response.blob());
    this.kept.set(address, picture);
    let bytes = 0;
    for (const each of this.kept.values()) bytes += each.width * each.height * 4;
    for (const [old, each] of this.kept) {
      if (bytes <= KEPT_BYTES) break;
      bytes -= each.width * each.height * 4;
      this.kept.delete(old); // left to the collector: a view may still show it
    }
  }
}
