// The model's pixels as a grid that a keyboard can reach: one stop of the tab key, arrow keys inside.

import { MOST, SIDE } from "./pixels.js";

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

export class Grid {
  /** `onChange` is told the pixels when somebody has changed one here. */
  constructor(table, onChange) {
    this.onChange = onChange;
    this.pixels = new Array(SIDE * SIDE).fill(0);
    this.cells = this.pixels.map((_, i) => {
      const row = i % SIDE ? table.rows[Math.floor(i / SIDE)] : table.insertRow();
      const cell = row.insertCell();
      row.setAttribute("role", "row");
      cell.setAttribute("role", "gridcell");
      cell.tabIndex = i ? -1 : 0;
      cell.addEventListener("click", () => this.toggle(i));
      cell.addEventListener("keydown", (event) => this.press(event, i));
      return cell;
    });
    this.show(this.pixels);
  }

  /** Show these pixels. */
  show(pixels) {
    this.pixels = [...pixels];
    this.cells.forEach((cell, i) => {
      cell.style.setProperty("--ink", this.pixels[i] / MOST);
      const place = `row ${Math.floor(i / SIDE) + 1}, column ${(i % SIDE) + 1}`;
      cell.setAttribute("aria-label", `${place}, ink ${this.pixels[i]}`);
    });
  }

  press(event, i) {
    const [row, column] = [Math.floor(i / SIDE), i % SIDE];
    if (event.altKey || event.metaKey) return;
    if (STEPS[event.key]) {
      const [down, right] = STEPS[event.key];
      this.move(row + down, column + right);
    } else if (event.key === "Home") this.move(event.ctrlKey ? 0 : row, 0);
    else if (event.key === "End") this.move(event.ctrlKey ? SIDE - 1 : row, SIDE - 1);
    else if (event.ctrlKey) return;
    else if (event.key === " " || event.key === "Enter") this.toggle(i);
    else if (event.key === "+" || event.key === "=") this.set(i, this.pixels[i] + 1);
    else if (event.key === "-") this.set(i, this.pixels[i] - 1);
    else if (event.key === "Delete" || event.key === "Backspace") this.set(i, 0);
    else return;
    event.preventDefault();
  }

  move(row, column) {
    const inside = (value) => Math.min(SIDE - 1, Math.max(0, value));
    this.focus(inside(row) * SIDE + inside(column));
  }

  focus(i) {
    this.cells.forEach((cell, k) => (cell.tabIndex = k === i ? 0 : -1));
    this.cells[i].focus();
  }

  toggle(i) {
    this.focus(i);
    this.set(i, this.pixels[i] ? 0 : MOST);
  }

  set(i, ink) {
    this.show(this.pixels.with(i, Math.min(MOST, Math.max(0, ink))));
    this.onChange(this.pixels);
  }
}
