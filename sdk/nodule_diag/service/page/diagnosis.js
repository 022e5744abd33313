// A nodule's diagnosis beside the CT: its way there, its figures, what they rest on, and similar cases.

import { ask } from "./api.js";
import { button, make, problemBox, warningList } from "./dom.js";

const STAGES = { read: "Reading the CT", lung_mask: "Finding the lungs", patch: "Cutting out the nodule", inference: "Running the model", retrieval: "Looking for similar cases" };
const SPACES = { "machine+expert": "by P and score together", machine: "by P alone", expert: "by score alone" };
const CARDS_AT_FIRST = 6;

const two = (value) => value.toFixed(2);
const kind = (label) => (label ? make("span", { class: "malignant-word" }, "▲ malignant") : make("span", { class: "benign-word" }, "● benign"));

export function progressBox(nodule, cancel) {
  const names = Object.keys(STAGES), now = names.indexOf(nodule.stage);
  return make("div", { class: "working" },
    make("progress", { max: 1, value: nodule.progress ?? 0, "aria-label": `Diagnosis of nodule ${nodule.number}` }),
    make("ol", { class: "stages" }, names.map((name, k) => make("li", { class: k < now ? "past" : k === now ? "now" : "", "aria-current": k === now ? "step" : null }, STAGES[name]))),
    nodule.waiting ? make("p", { class: "quiet" }, nodule.waiting) : null,
    button("Cancel", cancel));
}

function bar(share, words) {
  const width = 100 * Math.min(Math.max(share, 0), 1);
  return make("svg", { class: "bar", viewBox: "0 0 100 6", preserveAspectRatio: "none", role: "img", "aria-label": words },
    make("rect", { class: "track", width: 100, height: 6 }), make("rect", { class: "fill", width: width.toFixed(1), height: 6 }));
}

function answer(name, figure, unit, ...below) {
  return make("div", { class: "answer" }, make("h3", {}, name), make("p", { class: "figure" }, figure, unit ? make("small", {}, ` ${unit}`) : null), below);
}

function answers({ document: d, view }) {
  const { prior, score, faithfulness } = view.words, spread = d.malignancy_spread;
  return make("div", { class: "answers" },
    make("div", { class: "answer first" }, make("h3", {}, "Malignancy"), make("p", { class: "figure" }, two(d.malignancy)),
      bar(d.malignancy, `${two(d.malignancy)} on a scale from 0 to 1`),
      make("p", {}, `The model's probability that it is malignant, ${prior}.${spread === null ? "" : ` It varies by ${spread.toFixed(3)} over turned views.`}`)),
    d.presence === null ? null : answer("Is it a nodule?", two(d.presence), "", bar(d.presence, `${two(d.presence)} on a scale from 0 to 1`), make("p", {}, "How likely there is a nodule at all, by its segmentation.")),
    answer("Expert score", d.expert_score.toFixed(1), "of 5", bar((d.expert_score - 1) / 4, `${d.expert_score.toFixed(1)} on a scale from 1 to 5`), make("p", {}, `What radiologists would say: ${score} to be malignant.`)),
    answer("Size", d.segmentation.diameter_mm.toFixed(1), "mm", make("p", {}, `Diameter of a ball of the segmented volume, ${d.segmentation.volume_mm3.toFixed(0)} mm³.`)),
    answer("Evidence on it", `${d.faithfulness.margin < 0 ? "−" : "+"}${two(Math.abs(d.faithfulness.margin))}`, "", make("p", {}, faithfulness)));
}

// The nearest cases one by one, nearest first; then what they imply, beside what any nodule would get.
function neighbours(d) {
  const nearest = d.similar["machine+expert"], malignant = nearest.filter((item) => item.label).length;
  const row = ([space, words]) => make("tr", {}, make("th", { scope: "row" }, words),
    make("td", {}, `${d.similar[space].filter((item) => item.label).length} of ${d.similar[space].length}`), make("td", {}, two(d.diagnosis[space])),
    make("td", {}, d.diagnosis_balanced[space] === null ? "–" : two(d.diagnosis_balanced[space])));
  return [
    make("p", { class: "strip", role: "img", "aria-label": `${malignant} of the ${nearest.length} nearest cases are malignant` },
      nearest.map((item) => make("span", { class: item.label ? "malignant-word" : "benign-word", title: `${item.case_id}: ${item.label ? "malignant" : "benign"}` }, item.label ? "▲" : "●"))),
    make("table", {}, make("caption", { class: "unseen" }, "What the nearest cases imply"),
      make("thead", {}, make("tr", {}, ["Nearest", "Malignant", "Share", "Balanced"].map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, Object.entries(SPACES).map(row),
        make("tr", { class: "rate" }, make("th", { scope: "row" }, `of all ${d.retrieval.cases} cases`), make("td", {}, ""), make("td", {}, two(d.base_rate)), make("td", {}, "0.50")))),
    make("p", { class: "quiet small" }, "Read each share against the last line: it is what any nodule would get. Balanced: as if the case base held as many benign as malignant cases."),
  ];
}

function card(item, hasPictures) {
  const box = make("li", { class: "card" }, make("h4", {}, item.case_id), make("p", {}, kind(item.label)),
    make("p", {}, `by ${item.label_source}${item.label_certainty === "patient" ? ", of the patient" : ""}`),
    make("p", {}, `P ${two(item.malignancy)}, score ${item.expert_score.toFixed(1)}${item.diameter_mm === null ? "" : `, ${item.diameter_mm.toFixed(1)} mm`}`),
    make("p", { class: "quiet" }, `distance ${item.distance.toFixed(3)}`));
  if (hasPictures) addPicture(box, item.case_id);
  return box;
}

async function addPicture(box, caseId) {
  try {
    const address = URL.createObjectURL(await (await ask(`v1/cases/${encodeURIComponent(caseId)}/picture`)).blob());
    box.prepend(make("img", { src: address, alt: `Picture of case ${caseId}`, onload: () => URL.revokeObjectURL(address) }));
  } catch {
    return; // it has none, and the card says all but that
  }
}

function cards(d, hasPictures) {
  const nearest = d.similar["machine+expert"], list = make("ol", { class: "cards" }, nearest.slice(0, CARDS_AT_FIRST).map((item) => card(item, hasPictures)));
  if (nearest.length <= CARDS_AT_FIRST) return [list];
  const more = button(`Show all ${nearest.length}`, () => {
    const rest = nearest.slice(CARDS_AT_FIRST).map((item) => card(item, hasPictures));
    list.append(...rest);
    Object.assign(rest[0], { tabIndex: -1 }).focus();
    more.remove();
  });
  return [list, more];
}

export function resultBox(nodule, { ctWarnings, hasPictures }) {
  const { document: d, view } = nodule, warnings = d.warnings.filter((text) => !ctWarnings.includes(text));
  if (view.words.evidence_warning) warnings.push(view.words.evidence_warning);
  return make("div", {},
    warningList(`Warnings about nodule ${nodule.number}`, warnings),
    answers(nodule),
    make("h3", {}, `The ${d.similar["machine+expert"].length} most similar cases, nearest first`), neighbours(d), cards(d, hasPictures));
}

export function failureBox(nodule, again, remove) {
  return problemBox(nodule.problem, button("Try again", again), button("Remove", remove));
}

// For who hears the page: what has come.
export function spoken({ number, document: d, view }) {
  const count = d.warnings.length + (view.words.evidence_warning ? 1 : 0);
  return `Nodule ${number}: malignancy ${two(d.malignancy)}, ${view.words.prior}. Expert score ${d.expert_score.toFixed(1)} of 5. `
    + `Diameter ${d.segmentation.diameter_mm.toFixed(1)} millimetres. ${count ? `${count} warning${count > 1 ? "s" : ""}.` : "No warnings."}`;
}
