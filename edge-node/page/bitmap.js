// From strokes to what the model takes, as the digits set was made: a bitmap of 4 by 4 points for each value, which
// counts the inked ones (UCI, Optical Recognition of Handwritten Digits). There a digit is as high as the bitmap, five
// eighths as wide at most, in the middle, and whatever it is about three tenths of the points are ink: strokes of few
// lines are thick.

const BLOCK = 4;
const MOST_WIDE = 0.625;
const INK = 0.305;
/** Of a pen in points, thinnest and thickest, for a bitmap of 32 rows. */
const PEN = [2.5, 11];
/** A drawing that is this much wider than high keeps its shape. */
const FLAT = 3;

/**
 * `strokes`: lists of [x, y]. Gives `height * width` values from 0 to 1, row by row; null of nothing.
 */
export function bitmap(strokes, height, width) {
  const points = strokes.flat();
  if (points.length === 0) return null;
  const rows = height * BLOCK;
  const columns = width * BLOCK;
  let [low, high] = PEN.map((pen) => (pen * rows) / 32);
  let inked = null;
  for (let round = 0; round < 12; round += 1) {
    const pen = (low + high) / 2;
    inked = rasterise(fit(strokes, rows, columns, pen), rows, columns, pen);
    const share = inked.reduce((sum, point) => sum + point, 0) / inked.length;
    if (share < INK) low = pen;
    else high = pen;
  }
  return counts(inked, height, width);
}

/** The strokes as large as the bitmap lets them be with this pen, in its middle. */
function fit(strokes, rows, columns, pen) {
  const extent = (axis) => {
    const values = strokes.flat().map((point) => point[axis]);
    return [Math.min(...values), Math.max(...values)];
  };
  const [[left, right], [top, bottom]] = [extent(0), extent(1)];
  const wide = Math.max(right - left, 1e-6);
  const high = Math.max(bottom - top, 1e-6);
  const room = Math.max(columns * MOST_WIDE - pen, 1);
  let down = (rows - pen) / high;
  let across = Math.min(down, room / wide);
  if (wide > FLAT * high) down = across;
  const x = (value) => columns / 2 + (value - (left + right) / 2) * across;
  const y = (value) => rows / 2 + (value - (top + bottom) / 2) * down;
  return strokes.map((stroke) => stroke.map((point) => [x(point[0]), y(point[1])]));
}

/** 1 for each point whose middle the pen covers. */
function rasterise(strokes, rows, columns, pen) {
  const inked = new Uint8Array(rows * columns);
  const reach = pen / 2;
  for (const stroke of strokes) {
    for (let i = 0; i < stroke.length; i += 1) {
      const [from, to] = [stroke[Math.max(i - 1, 0)], stroke[i]];
      const span = (axis, most) => [
        Math.max(0, Math.floor(Math.min(from[axis], to[axis]) - reach)),
        Math.min(most - 1, Math.ceil(Math.max(from[axis], to[axis]) + reach)),
      ];
      const [[left, right], [top, bottom]] = [span(0, columns), span(1, rows)];
      for (let row = top; row <= bottom; row += 1) {
        for (let column = left; column <= right; column += 1) {
          if (distance([column + 0.5, row + 0.5], from, to) <= reach) inked[row * columns + column] = 1;
        }
      }
    }
  }
  return inked;
}

function distance([x, y], [x0, y0], [x1, y1]) {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const length = dx * dx + dy * dy;
  const along = length > 0 ? ((x - x0) * dx + (y - y0) * dy) / length : 0;
  const nearest = Math.max(0, Math.min(1, along));
  return Math.hypot(x - x0 - nearest * dx, y - y0 - nearest * dy);
}

function counts(inked, height, width) {
  const values = new Array(height * width).fill(0);
  const columns = width * BLOCK;
  inked.forEach((point, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    values[Math.floor(row / BLOCK) * width + Math.floor(column / BLOCK)] += point;
  });
  return values.map((count) => count / (BLOCK * BLOCK));
}
