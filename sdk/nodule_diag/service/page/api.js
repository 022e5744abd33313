// The service's HTTP interface: requests with the token, typed errors, uploads with progress, jobs with their events.

import { byId } from "./dom.js";

const RETRY_AFTER_S = 2; // where a busy server does not say
const POLL_MS = 500;
const ENDED = ["done", "failed", "cancelled"];

let token = null; // in memory only
let asking = null;

// One of the server's RFC 9457 problems, or of the way to it.
export class Problem extends Error {
  constructor({ title, detail, hint, code, request_id: requestId } = {}, status = 0) {
    super(detail || title || `The server answered with status ${status}.`);
    Object.assign(this, { hint, code, requestId, status });
  }
}

const unreachable = () => new Problem({ title: "The server does not answer.", hint: "Is nodule-diag serve still running? Start it again, then reload this page.", code: "no-answer" });
const authorised = () => (token ? { Authorization: `Bearer ${token}` } : {});

async function problemOf(response) {
  const text = await response.text();
  try {
    return new Problem(JSON.parse(text), response.status);
  } catch {
    return new Problem({}, response.status);
  }
}

// Asks for the token once, however many requests wait for it.
function askToken(wrong) {
  asking ??= new Promise((resolve) => {
    const dialog = byId("token"), input = dialog.querySelector("input");
    byId("token-wrong").hidden = !wrong;
    input.value = "";
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => {
      token = input.value;
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

// A response whose status is good; a busy server is asked again when it says so.
export async function ask(path, { method = "GET", json, headers = {}, signal, onbusy } = {}) {
  for (;;) {
    const used = token, body = json === undefined ? undefined : JSON.stringify(json);
    let response;
    try {
      response = await fetch(path, { method, body, signal, headers: { ...headers, ...authorised(), ...(body ? { "Content-Type": "application/json" } : {}) } });
    } catch (error) {
      throw error.name === "AbortError" ? error : unreachable();
    }
    if (response.ok) return response;
    if (response.status === 401) {
      if (used === token) await askToken(used !== null);
    } else if (response.status === 429 && onbusy) {
      const seconds = Number(response.headers.get("Retry-After")) || RETRY_AFTER_S;
      onbusy(seconds);
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
      signal?.throwIfAborted();
    } else {
      throw await problemOf(response);
    }
  }
}

export const askJson = async (path, options) => (await ask(path, options)).json();

// Sends files as one CT. XMLHttpRequest, as fetch tells nothing of an upload's progress.
export async function upload(files, { progress, signal }) {
  for (;;) {
    const used = token, form = new FormData();
    for (const file of files) form.append("file", file, file.name);
    const request = new XMLHttpRequest();
    await new Promise((resolve, reject) => {
      request.open("POST", "v1/cts");
      for (const [name, value] of Object.entries(authorised())) request.setRequestHeader(name, value);
      request.upload.addEventListener("progress", (event) => progress(event.loaded / event.total));
      request.addEventListener("load", resolve);
      request.addEventListener("error", () => reject(unreachable()));
      request.addEventListener("abort", () => reject(new DOMException("stopped", "AbortError")));
      signal.addEventListener("abort", () => request.abort());
      request.send(form);
    });
    if (request.status === 201) return JSON.parse(request.responseText);
    if (request.status !== 401) throw await problemOf(new Response(request.responseText, { status: request.status }));
    if (used === token) await askToken(used !== null);
  }
}

async function* events(path, signal) {
  const reader = (await ask(path, { headers: { Accept: "text/event-stream" }, signal })).body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value.replaceAll("\r\n", "\n");
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (data) yield JSON.parse(data);
    }
  }
}

// Starts a prediction, tells of its way, and gives the document; an abort cancels it on the server too.
export async function predict(request, { onjob, onbusy, signal }) {
  const started = await ask("v1/predictions", { method: "POST", json: request, headers: { Prefer: "respond-async" }, signal, onbusy });
  const path = `v1/jobs/${started.headers.get("Location").split("/").pop()}`;
  const cancel = () => ask(path, { method: "DELETE" }).catch(() => {});
  signal.addEventListener("abort", cancel);
  try {
    let job = null;
    try {
      for await (job of events(`${path}/events`, signal)) {
        onjob(job);
        if (ENDED.includes(job.state)) break;
      }
    } catch (error) {
      if (error.name === "AbortError" || error.status) throw error; // and not when the stream was cut: a proxy may do that
    }
    while (!ENDED.includes(job?.state)) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      onjob(job = await askJson(path, { signal }));
    }
    if (job.state === "failed") throw new Problem(job.error ?? {});
    if (job.state === "cancelled") throw new Problem({ title: "The diagnosis was cancelled.", code: "cancelled" });
    const document = await askJson(`${path}/result`, { signal });
    ask(path, { method: "DELETE" }).catch(() => {}); // the server need not keep it
    return document;
  } finally {
    signal.removeEventListener("abort", cancel);
  }
}
