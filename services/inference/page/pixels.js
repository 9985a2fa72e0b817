// From strokes to the 8 by 8 pixels of the model, the way its data set was made: each digit was a black-and-white bitmap
// of 32 by 32, in which NIST's form reader had scaled it to 20 wide and 32 high; a pixel is the number of black points
// (0 to 16) in a block of 4 by 4. See https://archive.ics.uci.edu/dataset/80.

export const SIDE = 8;
export const MOST = 16;

const BITMAP = 32;
const WIDTH = 20;
const BLOCK = BITMAP / SIDE;
// The width of the line that gives drawn digits as much ink as the data set's have (0.3 of all points).
const LINE = 5;
// A 1 would become a block if it were stretched to the full width.
const MOST_STRETCH = 1.5;

/** The model's pixels, row by row, for strokes: lists of points [x, y] in any unit, y downwards. */
export function pixelsOf(strokes) {
  const pixels = new Array(SIDE * SIDE).fill(0);
  const segments = segmentsOf(toBitmap(strokes));
  for (let y = 0; y < BITMAP; y++) {
    for (let x = 0; x < BITMAP; x++) {
      if (segments.some((segment) => distance(segment, x + 0.5, y + 0.5) <= LINE / 2)) {
        pixels[Math.floor(y / BLOCK) * SIDE + Math.floor(x / BLOCK)] += 1;
      }
    }
  }
  return pixels;
}

/** The strokes where they are in the bitmap: in its middle, as high as it is, and as wide as the data set's. */
function toBitmap(strokes) {
  const [left, right] = extent(strokes, 0);
  const [top, bottom] = extent(strokes, 1);
  const widest = (WIDTH - LINE) / (right - left);
  const highest = (BITMAP - LINE) / (bottom - top);
  const across = Math.min(widest, highest * MOST_STRETCH);
  const down = Math.min(highest, widest * 2 * MOST_STRETCH);
  const place = (value, middle, scale) => BITMAP / 2 + (value === middle ? 0 : (value - middle) * scale);
  return strokes.map((points) =>
    points.map(([x, y]) => [place(x, (left + right) / 2, across), place(y, (top + bottom) / 2, down)]),
  );
}

function extent(strokes, axis) {
  const values = strokes.flat().map((point) => point[axis]);
  return [Math.min(...values), Math.max(...values)];
}

/** Pairs of points; a stroke of one point is a dot. */
function segmentsOf(strokes) {
  return strokes.flatMap((points) => points.map((point, i) => [points[Math.max(i - 1, 0)], point]));
}

/** How far the point (x, y) is from a segment. */
function distance([[x1, y1], [x2, y2]], x, y) {
  const [dx, dy] = [x2 - x1, y2 - y1];
  const length = dx * dx + dy * dy;
  const along = length ? Math.min(1, Math.max(0, ((x - x1) * dx + (y - y1) * dy) / length)) : 0;
  return Math.hypot(x - x1 - along * dx, y - y1 - along * dy);
}
