// How a CT comes in: dropped, chosen, or already open on the server.

import { Problem, askJson, upload } from "./api.js";
import { button, byId, make, problemBox } from "./dom.js";

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

export const nameOf = (ct) => (ct.suggested?.length ? "Made-up chest" : ct.name);

// The files of what was dropped; folders are gone through.
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const files = [];
  for (let entry; (entry = entries.shift());) {
    if (entry.isFile) files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    else {
      const reader = entry.createReader();
      for (let some; (some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length;) entries.push(...some);
    }
  }
  return files;
}

// opened: called with the document of each CT that is opened.
export class Intake {
  constructor({ opened, closed, about }) {
    Object.assign(this, { opened, about });
    for (const id of ["files", "folder"]) byId(id).addEventListener("change", (event) => this.send([...event.target.files]).finally(() => { event.target.value = ""; }));
    byId("back").addEventListener("click", closed);
    const drop = byId("drop");
    document.addEventListener("dragover", (event) => { event.preventDefault(); this.show(); drop.classList.add("over"); });
    document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
    document.addEventListener("drop", async (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      this.send(await dropped(event.dataTransfer));
    });
  }

  async show(canGoBack = !byId("reading").hidden) {
    if (!byId("intake").hidden) return;
    byId("intake").hidden = false;
    byId("reading").hidden = byId("another").hidden = byId("ct-name").hidden = true;
    byId("back").hidden = !canGoBack;
    byId("intake-problem").replaceChildren();
    try {
      await this.list();
    } catch (error) {
      byId("intake-problem").replaceChildren(problemBox(error));
    }
  }

  hide() { byId("intake").hidden = true; }

  async list() {
    const { cts } = await askJson("v1/cts");
    byId("held").hidden = cts.length === 0;
    byId("held").querySelector("ul").replaceChildren(...cts.map((ct) => make("li", {}, button(nameOf(ct), () => this.opened(ct)), make("span", { class: "quiet" }, ` ${ct.size_xyz.join(" × ")} voxels`))));
    return cts;
  }

  async send(files) {
    if (!files.length) return;
    this.show();
    byId("intake-problem").replaceChildren();
    const stop = new AbortController(), bar = byId("upload-bar"), total = files.reduce((sum, file) => sum + file.size, 0);
    const what = files.length === 1 ? files[0].name : `${files.length} files`;
    const progress = (share) => {
      bar.value = share;
      byId("upload-words").textContent = share < 1 ? `Sending ${what}: ${Math.round(share * 100)} % of ${megabytes(total)}` : `The server reads ${what}`;
    };
    byId("upload").hidden = false;
    byId("upload-stop").onclick = () => stop.abort();
    progress(0);
    try {
      const limit = this.about()?.limits?.upload_bytes;
      if (limit && total > limit) throw new Problem({ title: `${what}: ${megabytes(total)} are more than this server takes, ${megabytes(limit)}.`, hint: "Send one series alone, or compressed (.nii.gz, .zip)." });
      this.opened({ ...(await upload(files, { progress, signal: stop.signal })), sent: true });
    } catch (error) {
      if (error.name !== "AbortError") byId("intake-problem").replaceChildren(problemBox(error));
    } finally {
      byId("upload").hidden = true;
    }
  }
}
