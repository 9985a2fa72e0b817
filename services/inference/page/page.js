// The page: what is drawn goes to both predictors, one question at a time, and what they say is put side by side.

import { Grid } from "./grid.js";
import { Paper } from "./paper.js";
import { MOST, SIDE, pixelsOf } from "./pixels.js";
import { Api, Browser, Problem } from "./predictors.js";
import { SAMPLES } from "./samples.js";

const CLASSES = 10;
const REMEMBERED = 20;
// Different processors round differently; less than this is no difference.
const SAME = 0.01;

const byId = (id) => document.getElementById(id);
const api = new Api(document.querySelector("main").dataset.model);
const browser = new Browser(api);
const latencies = { api: [], browser: [] };

const grid = new Grid(byId("grid"), (pixels) => {
  paper.show(pixels);
  ask(pixels);
});
const paper = new Paper(byId("paper"), (strokes) => {
  const pixels = pixelsOf(strokes);
  grid.show(pixels);
  ask(pixels);
});
const bars = { api: [], browser: [] };

let wanted = null;
let isAsking = false;
let served = null; // the version that the API answered with last

/** Have these pixels read; while an answer is on its way, only the newest ones wait. */
async function ask(pixels) {
  wanted = pixels;
  if (isAsking) return;
  isAsking = true;
  byId("verdict").ariaBusy = "true"; // it is still of what was there before, and not to be read out
  while (wanted) {
    const question = wanted;
    wanted = null;
    await answer(question);
  }
  byId("verdict").ariaBusy = "false";
  isAsking = false;
}

async function answer(pixels) {
  if (pixels.every((ink) => ink === 0)) {
    show("api", null);
    show("browser", null);
    byId("verdict").textContent = "Draw a digit.";
    return;
  }
  // One after the other, so that neither is in the other's time; the quick one first.
  const isReady = browser.version && browser.version === (served ?? browser.version);
  let here = isReady ? await attempt("browser", () => browser.predict(pixels)) : null;
  show("browser", here);
  const there = await attempt("api", () => api.predict(pixels));
  show("api", there);
  served = there?.version ?? served;
  if (there && here?.version !== there.version && !browser.isLoading) {
    here = await attempt("browser", async () => {
      await browser.load(there.version);
      return browser.predict(pixels);
    });
    show("browser", here);
  }
  byId("verdict").textContent = verdict(there, here);
}

/** What `work` gives, or null with the reason on the page; with success an earlier reason goes. */
async function attempt(who, work) {
  try {
    const result = await work();
    explain(who, null);
    return result;
  } catch (error) {
    if (!(error instanceof Problem)) console.error(error);
    explain(who, error);
    return null;
  }
}

function explain(who, error) {
  let line = byId(`${who}-problem`);
  const text = error && (error instanceof Problem ? error.message : `Something failed: ${error.message ?? error}`);
  if (text && !line) {
    line = document.createElement("p");
    line.id = `${who}-problem`;
    line.className = "problem";
    byId("problems").append(line);
  }
  if (text && line.textContent !== text) line.textContent = text;
  if (!text) line?.remove();
  if (error?.wantsToken) byId("access").hidden = false;
  if (!error && who === "api") byId("access").hidden = true;
}

function verdict(there, here) {
  if (!there && !here) return "There is no answer.";
  if (!there) return `The browser says ${here.label}; the API does not answer.`;
  if (!here) return `The API says ${there.label}; the browser does not answer.`;
  if (there.label !== here.label) return `They differ: the API says ${there.label}, the browser ${here.label}.`;
  const apart = Math.max(...there.probabilities.map((share, i) => Math.abs(share - here.probabilities[i])));
  const both = `Both say ${there.label}`;
  return apart > SAME ? `${both}, with probabilities up to ${percent(apart)} apart.` : `${both}.`;
}

function show(who, result) {
  bars[who].forEach((bar, digit) => {
    const share = result ? result.probabilities[digit] : 0;
    bar.style.setProperty("--share", share);
    bar.textContent = result ? percent(share) : "–";
    bar.classList.toggle("best", result?.label === digit);
  });
  if (!result) return;
  const times = latencies[who];
  times.push(result.ms);
  times.splice(0, times.length - REMEMBERED);
  byId(`${who}-version`).textContent = result.version;
  byId(`${who}-ms`).textContent = milliseconds(result.ms);
  byId(`${who}-median`).textContent = `${milliseconds(median(times))} (of ${times.length})`;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const milliseconds = (ms) => `${ms.toFixed(ms < 10 ? 2 : 0)} ms`;

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function build() {
  for (let digit = 0; digit < CLASSES; digit++) {
    const row = byId("probabilities").insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = digit;
    row.append(head);
    for (const who of ["api", "browser"]) {
      const bar = document.createElement("div");
      bar.className = `bar ${who}`;
      row.insertCell().append(bar);
      bars[who].push(bar);
    }
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = digit;
    button.setAttribute("aria-label", `Sample of a ${digit}`);
    button.addEventListener("click", () => take(SAMPLES[digit]));
    byId("samples").append(button);
  }
  byId("clear").addEventListener("click", () => take(new Array(SIDE * SIDE).fill(0)));
  byId("access").addEventListener("submit", (event) => {
    event.preventDefault();
    api.token = byId("token").value.trim();
    start();
  });
  show("api", null);
  show("browser", null);
}

function take(pixels) {
  grid.show(pixels);
  paper.show(pixels);
  ask(pixels);
}

/** Look up what is live, and get the browser ready for the version with the largest share. */
async function start() {
  const known = await attempt("api", async () => {
    const metadata = await api.metadata();
    check(metadata);
    return metadata;
  });
  if (!known) return;
  const [[version]] = Object.entries(known.shares).toSorted(([, a], [, b]) => b - a);
  if (!browser.isLoading) await attempt("browser", () => browser.load(version));
  if (grid.pixels.some((ink) => ink > 0)) ask(grid.pixels);
}

function check({ name, columns, outputs }) {
  const has = outputs.map((output) => output.name);
  if (columns.length === SIDE * SIDE && has.includes("label") && has.includes("probabilities")) return;
  throw new Problem(
    `The model “${name}” has ${columns.length} features and gives ${has.join(", ")}; this page is for a model of ` +
      `${SIDE} by ${SIDE} pixels (0 to ${MOST}) that gives a label and probabilities. The API itself is not affected.`,
  );
}

build();
start();
