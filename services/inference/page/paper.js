// The paper: strokes of a mouse, a finger or a pen.

import { MOST, SIDE } from "./pixels.js";

const LINE = 0.1; // of the paper's width

export class Paper {
  /** `onDrawn` is told the strokes, each a list of points [x, y] from 0 to 1, whenever they have become more. */
  constructor(canvas, onDrawn) {
    this.canvas = canvas;
    this.strokes = [];
    this.onDrawn = onDrawn;
    this.pointer = null;
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.go(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => this.end(event));
    }
  }

  /** Empty it, or show pixels that were not drawn here: the next stroke begins a new drawing. */
  show(pixels = []) {
    this.strokes = [];
    this.pointer = null;
    this.wipe();
    const context = this.canvas.getContext("2d");
    const size = this.canvas.width / SIDE;
    pixels.forEach((ink, i) => {
      context.globalAlpha = ink / MOST;
      context.fillRect((i % SIDE) * size, Math.floor(i / SIDE) * size, size, size);
    });
    context.globalAlpha = 1;
  }

  begin(event) {
    if (this.pointer !== null || event.button !== 0) return;
    event.preventDefault();
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.strokes.push([]);
    this.add(event);
  }

  go(event) {
    if (event.pointerId !== this.pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    (events.length ? events : [event]).forEach((each) => this.add(each));
  }

  end(event) {
    if (event.pointerId === this.pointer) this.pointer = null;
  }

  add(event) {
    const box = this.canvas.getBoundingClientRect();
    this.strokes.at(-1).push([(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
    this.draw();
    this.onDrawn(this.strokes);
  }

  draw() {
    this.wipe();
    const context = this.canvas.getContext("2d");
    context.lineWidth = LINE * this.canvas.width;
    context.lineCap = context.lineJoin = "round";
    for (const points of this.strokes) {
      context.beginPath();
      for (const [x, y] of [points[0], ...points]) context.lineTo(x * this.canvas.width, y * this.canvas.height);
      context.stroke();
    }
  }

  wipe() {
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.fillStyle = context.strokeStyle = getComputedStyle(this.canvas).getPropertyValue("--pen");
  }
}
