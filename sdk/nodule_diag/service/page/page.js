// The page: one CT, its viewer, a list of nodules, and the diagnosis of the one that is chosen.

import { Problem, ask, askJson, predict } from "./api.js";
import { failureBox, progressBox, resultBox, spoken } from "./diagnosis.js";
import { button, byId, make, problemBox, warningList } from "./dom.js";
import { Evidence } from "./evidence.js";
import { Intake, nameOf } from "./intake.js";
import { Viewer } from "./viewer.js";
import { ServedVolume } from "./volume.js";

const centred = (middle, width) => [middle - width / 2, middle + width / 2];
const WINDOWS = { Lung: centred(-600, 1500), Mediastinal: centred(40, 400), Bone: centred(400, 1800) }; // as reading rooms set them
const HU_RANGE = [-1024, 3071];
const CAM_OPACITY = 0.35;
const CLOSE_UP_MM = 64;
const TOOLS = { cross: "Cross", window: "Window", pan: "Move" };
const ZIP = "application/zip";

const page = { about: null, ct: null, nodules: [], chosen: null, count: 0, viewer: null, hidden: false }; // hidden: the evidence
const intake = new Intake({ opened: openCt, closed: () => { showReading(); byId("another").focus(); }, about: () => page.about });
const say = (words) => { byId("said").textContent = words; };
const place = (mm) => mm.map((value) => value.toFixed(1).replace("-", "−")).join(", ");

function wayOut(problem) {
  if (problem.code === "ct-expired-or-unknown") return [button("Open a CT again", () => { closeCt(); intake.show(false); })];
  return [button("Close", () => byId("problem").replaceChildren())];
}

function show(problem) {
  if (problem.name === "AbortError") return;
  if (!(problem instanceof Problem)) throw problem;
  byId("problem").replaceChildren(problemBox(problem, ...wayOut(problem)));
}

// ---- the CT

function openCt(ct) {
  if (ct.id === page.ct?.id) return showReading();
  const chosen = !byId("intake").hidden; // by whoever sits here, and not by the page
  closeCt();
  Object.assign(page, { ct, count: ct.suggested?.length ?? 0 }); // the suggested ones have their numbers
  byId("ct-name").textContent = `${nameOf(ct)}: ${ct.size_xyz.join(" × ")} voxels of ${ct.spacing_xyz_mm.map((mm) => Number(mm.toPrecision(3))).join(" × ")} mm`;
  byId("ct-warnings").replaceChildren(...[warningList("Warnings about the CT", ct.warnings)].filter(Boolean));
  const suggested = ct.suggested ?? [];
  byId("suggested").replaceChildren(...(suggested.length
    ? [make("p", { class: "choices" }, make("span", { class: "quiet" }, "Try"), suggested.map((mm, k) => button(`Nodule ${k + 1}`, () => tryOut(mm, k + 1), { "aria-label": `Try nodule ${k + 1}` })))] : []));
  byId("hint").textContent = suggested.length ? "This chest is made up, and its nodules are known. Try one, or click anywhere in it." : "Click on a nodule in the CT, then diagnose it.";
  showReading();
  const views = document.querySelector(".views");
  const volume = new ServedVolume(ct, { changed: () => page.viewer.draw(), failed: show, busy: (is) => views.setAttribute("aria-busy", is) });
  if (page.viewer) page.viewer.show(volume);
  else startViewer(volume);
  if (suggested.length) goTo(suggested[0]);
  draw();
  if (chosen) page.viewer.views[0].canvas.focus();
  say(`${nameOf(ct)} is open.`);
}

function tryOut(mm, number) {
  goTo(mm);
  closeUp();
  diagnoseAt(mm, number);
}

function closeCt() {
  for (const nodule of page.nodules) nodule.abort.abort();
  page.viewer?.volume.close();
  if (page.ct?.sent) ask(`v1/cts/${page.ct.id}`, { method: "DELETE" }).catch(() => {}); // what this page brought, it takes away
  Object.assign(page, { ct: null, nodules: [], chosen: null, count: 0 });
  byId("problem").replaceChildren();
}

function showReading() {
  intake.hide();
  byId("ct-name").hidden = false;
  byId("reading").hidden = byId("another").hidden = false;
}

function startViewer(volume) {
  const root = document.querySelector(".viewer");
  page.viewer = new Viewer(root, volume, { windows: WINDOWS, huRange: HU_RANGE, camOpacity: CAM_OPACITY });
  page.viewer.onmove = showCross;
  showCross();
  const tools = make("fieldset", { class: "tools" }, make("legend", { class: "unseen" }, "What dragging does"),
    Object.entries(TOOLS).map(([tool, words]) => make("label", {}, make("input", { type: "radio", name: "tool", value: tool, checked: tool === "cross", onchange: () => { page.viewer.tool = tool; } }), words)));
  page.viewer.sliders.level.parentElement.before(make("span", { class: "break" }));
  root.querySelector(".controls").prepend(tools,
    make("span", { class: "zooms" }, button("−", () => page.viewer.zoom(0.8), { "aria-label": "Zoom out" }), button("+", () => page.viewer.zoom(1.25), { "aria-label": "Zoom in" }),
      button("All", () => page.viewer.fit()), button("Close-up", closeUp)));
  const views = root.querySelector(".views");
  views.addEventListener("dblclick", diagnoseHere);
  views.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName !== "CANVAS") return;
    const presets = Object.values(WINDOWS), preset = presets[Number(event.key) - 1];
    if (preset) page.viewer.setWindow(...preset);
    else if (event.key === "Enter") diagnoseHere();
    else if (event.key === "c") closeUp();
    else if (event.key === "h") { page.hidden = !page.hidden; drawEvidence(); }
  });
}

const closeUp = () => page.viewer.closeUp(CLOSE_UP_MM);

// ---- the cross

const cross = byId("cross");
const numbers = ["x", "y", "z"].map((name) => cross.elements[name]);
const crossMm = () => page.viewer.volume.mm(page.viewer.at);
const goTo = (mm) => page.viewer.goTo(page.viewer.volume.index(mm));
const same = (a, b) => a.every((value, k) => Math.abs(value - b[k]) < 0.05);

function showCross() {
  crossMm().forEach((value, k) => {
    if (document.activeElement === numbers[k]) return;
    numbers[k].value = value.toFixed(1);
    numbers[k].setCustomValidity("");
  });
  drawMoveButton();
}

// The cross ends at the middles of the outermost voxels; the numbers are shown to 0.1 mm.
function inside(mm) {
  const { size, stepMm } = page.viewer.volume;
  return page.viewer.volume.index(mm).every((at, axis) => Math.min(at, size[axis] - 1 - at) * stepMm[axis] > -0.1);
}

for (const input of numbers) {
  input.addEventListener("input", () => input.setCustomValidity(""));
  input.addEventListener("change", () => {
    const mm = numbers.map((each) => Number(each.value));
    if (input.checkValidity() && !inside(mm)) input.setCustomValidity(`${input.name} ${input.value} mm lies outside the CT.`);
    if (input.reportValidity() && numbers.every((each) => each.checkValidity())) goTo(mm);
    showCross();
  });
}
cross.addEventListener("submit", (event) => { event.preventDefault(); diagnoseHere(); });

// ---- nodules

const diagnoseHere = () => diagnoseAt(crossMm());

function diagnoseAt(mm, number) {
  const known = page.nodules.find((nodule) => same(nodule.mm, mm));
  if (known) return known.state === "failed" ? diagnose(known) : choose(known);
  const taken = page.nodules.some((nodule) => nodule.number === String(number)); // a suggested one that was moved
  const nodule = { number: String(taken ? ++page.count : number ?? ++page.count), mm, abort: new AbortController() };
  page.nodules.push(nodule);
  Object.assign(page, { chosen: nodule, hidden: false });
  diagnose(nodule);
}

function requestOf(nodules) {
  const options = byId("options").querySelector("form").elements, prevalence = Number(options.prevalence.value) / 100;
  return { ct: page.ct.id, space: "lps", nodules: nodules.map(({ number, mm }) => ({ id: number, xyz: mm })), k: Number(options.k.value) || null,
    symmetries: Number(options.symmetries.value), prevalence: prevalence || null, no_lung_check: options.no_lung_check.checked };
}

async function diagnose(nodule) {
  nodule.abort.abort();
  const abort = (nodule.abort = new AbortController()), request = requestOf([nodule]), now = () => nodule.abort === abort;
  Object.assign(nodule, { state: "running", stage: null, progress: 0, waiting: "", document: null, view: null, evidence: null, problem: null });
  draw();
  say(`Nodule ${nodule.number}: the diagnosis has begun.`);
  try {
    const document = await predict(request, { signal: abort.signal,
      onjob: (job) => { Object.assign(nodule, { stage: job.stage, progress: job.progress, waiting: job.state === "queued" ? "Waiting for others to finish." : "" }); if (now()) draw(); },
      onbusy: (seconds) => { nodule.waiting = `The server is busy; it is asked again in ${seconds} s.`; draw(); } });
    const view = await askJson("v1/maps", { method: "POST", json: request, signal: abort.signal });
    if (!now()) return;
    Object.assign(nodule, { state: "done", document: document.nodules[0], view, evidence: new Evidence(view) });
    say(spoken(nodule));
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Problem)) throw error;
    Object.assign(nodule, { state: "failed", problem: error });
    say(`Nodule ${nodule.number}: ${error.message} ${error.hint ?? ""}`);
    if (error.code === "ct-expired-or-unknown") show(error);
  }
  draw();
}

function choose(nodule) {
  page.chosen = nodule;
  goTo(nodule.mm);
  draw();
}

function remove(nodule) {
  nodule.abort.abort();
  page.nodules = page.nodules.filter((each) => each !== nodule);
  if (page.chosen === nodule) page.chosen = page.nodules.at(-1) ?? null;
  draw();
  (page.nodules.length ? byId("nodules").querySelector("button") : numbers[0]).focus();
}

byId("options").querySelector("form").addEventListener("change", (event) => {
  if (event.currentTarget.reportValidity()) for (const nodule of page.nodules) diagnose(nodule);
});
byId("options").querySelector("form").addEventListener("submit", (event) => event.preventDefault());

// ---- what is shown

function row(nodule) {
  const { document: d } = nodule, chosen = nodule === page.chosen;
  const state = { running: "working", failed: "failed", done: d && `P ${d.malignancy.toFixed(2)}` }[nodule.state];
  return make("li", { class: chosen ? "chosen" : "" },
    button([make("b", { class: "number" }, nodule.number), make("span", { class: "where" }, place(nodule.mm)), make("span", { class: `state ${nodule.state}` }, state)], () => choose(nodule),
      { class: "row", "aria-current": chosen, "aria-label": `Nodule ${nodule.number} at ${place(nodule.mm)} mm: ${state}` }),
    button("×", () => remove(nodule), { class: "remove", "aria-label": `Remove nodule ${nodule.number}` }));
}

function drawMoveButton() {
  const nodule = page.chosen, moved = nodule && !same(nodule.mm, crossMm());
  let move = byId("move");
  if (!moved) return move?.remove();
  const words = `Move nodule ${nodule.number} here`;
  move ??= cross.appendChild(button(words, () => { page.chosen.mm = crossMm(); numbers[0].focus(); diagnose(page.chosen); }, { id: "move" }));
  move.textContent = words;
}

function draw() {
  const focused = [...byId("nodules").querySelectorAll("button")].indexOf(document.activeElement);
  byId("nodules").replaceChildren(...page.nodules.map(row));
  byId("hint").hidden = page.nodules.length > 0;
  if (focused >= 0) byId("nodules").querySelectorAll("button")[focused]?.focus();
  drawMoveButton();
  drawEvidence();
  drawResult(page.chosen);
  drawDownloads();
}

function drawEvidence() {
  const { viewer, chosen } = page;
  viewer.evidence = page.hidden ? null : (chosen?.evidence ?? null);
  viewer.marks = page.hidden ? [] : page.nodules.filter((nodule) => nodule !== chosen || !viewer.evidence).map(({ mm, number }) => ({ mm, label: number }));
  viewer.draw();
}

function drawResult(nodule) {
  byId("diagnosis").hidden = !nodule;
  if (!nodule || nodule === page.drawn?.nodule && nodule.state === "done" && page.drawn.document === nodule.document) return;
  page.drawn = { nodule, document: nodule.document };
  byId("diagnosis-title").textContent = `Nodule ${nodule.number}`;
  byId("result").replaceChildren({
    running: () => progressBox(nodule, () => remove(nodule)),
    failed: () => failureBox(nodule, () => diagnose(nodule), () => remove(nodule)),
    done: () => resultBox(nodule, { ctWarnings: page.ct.warnings, hasPictures: Boolean(page.about?.cases?.pictured) }),
  }[nodule.state]());
}

function drawDownloads() {
  const done = page.nodules.filter((nodule) => nodule.state === "done");
  byId("downloads").hidden = done.length === 0;
  if (page.offered === done.length) return;
  page.offered = done.length;
  const one = (words, name, accept) => button(words, (event) => save(event.currentTarget, name, accept));
  byId("downloads").querySelector("p").replaceChildren(
    one("Report", "report.html", "text/html"), one("3D Slicer", "nodules.mrk.json", "application/vnd.slicer.mrk+json"), one("JSON", "prediction.json", "application/json"),
    ...(page.ct?.dicom ? [one("DICOM", "dicom.zip", ZIP)] : []));
}

// All nodules that are diagnosed, as a file.
async function save(from, name, accept) {
  from.disabled = true;
  try {
    const done = page.nodules.filter((nodule) => nodule.state === "done");
    const response = await ask("v1/predictions", { method: "POST", json: requestOf(done), headers: { Accept: accept }, onbusy: (seconds) => say(`The server is busy; it is asked again in ${seconds} seconds.`) });
    const address = URL.createObjectURL(await response.blob());
    make("a", { href: address, download: `nodule-diag-${name}` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  } catch (error) {
    show(error);
  } finally {
    from.disabled = false;
    from.focus();
  }
}

byId("another").addEventListener("click", () => {
  intake.show();
  byId("files").focus();
});

function drawAbout({ bundle, cases, runtime, intended_use: use }) {
  byId("about").replaceChildren(make("details", {}, make("summary", {}, "About the model"),
    make("p", {}, use ?? ""), make("p", {}, `Model ${bundle.name} ${bundle.version}; case base ${cases.name}, ${cases.count} cases, ${cases.malignant} malignant; nodule-diag ${runtime.sdk_version}, ${runtime.backend} on ${runtime.device}.`)));
}

async function start() {
  page.about = await askJson("v1/about");
  drawAbout(page.about);
  byId("keeps").hidden = !page.about.limits?.keeps;
  const phantom = (await intake.list()).find((ct) => ct.suggested?.length);
  if (phantom) openCt(phantom);
  else await intake.show(false);
}

start().catch((error) => {
  byId("intake").hidden = false;
  byId("intake-problem").replaceChildren(problemBox(error));
});
