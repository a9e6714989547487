// The drawing area: strokes by mouse, finger, pen or keys. It tells who listens when a stroke begins and when it has ended.

const PEN = 0.075;
/** How far an arrow key moves the pen, of the area's side. */
const STEP = 1 / 24;

export class Drawing {
  constructor(canvas, { begun, changed }) {
    Object.assign(this, { canvas, begun, changed });
    this.strokes = [];
    this.pointer = null;
    this.key = { x: 0.5, y: 0.5, down: false };
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.end(event));
    canvas.addEventListener("keydown", (event) => this.press(event));
    for (const focus of ["focus", "blur"]) canvas.addEventListener(focus, () => this.paint());
  }

  clear() {
    this.strokes = [];
    this.key.down = false;
    this.paint();
    this.changed();
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  begin(event) {
    if (event.button !== 0 || this.pointer !== null) return;
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.strokes.push([this.place(event)]);
    this.begun();
    this.paint();
  }

  move(event) {
    if (event.pointerId !== this.pointer) return;
    const between = event.getCoalescedEvents?.() ?? [];
    for (const each of between.length > 0 ? between : [event]) this.strokes.at(-1).push(this.place(each));
    this.paint();
  }

  end(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = null;
    this.changed();
  }

  press(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    if (event.key === "Delete" || event.key === "Backspace") this.clear();
    else if (event.key === " ") this.lower(!this.key.down);
    else if (move) this.go(move);
    else return;
    event.preventDefault();
  }

  lower(down) {
    this.key.down = down;
    if (down) {
      this.strokes.push([[this.key.x, this.key.y]]);
      this.begun();
    } else this.changed();
    this.paint();
  }

  go([x, y]) {
    const within = (value) => Math.max(0, Math.min(1, value));
    this.key.x = within(this.key.x + x * STEP);
    this.key.y = within(this.key.y + y * STEP);
    if (this.key.down) this.strokes.at(-1)?.push([this.key.x, this.key.y]);
    this.paint();
  }

  paint() {
    const { canvas } = this;
    const side = canvas.width;
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, side, side);
    pen.strokeStyle = pen.fillStyle = getComputedStyle(canvas).color;
    pen.lineWidth = PEN * side;
    pen.lineCap = pen.lineJoin = "round";
    for (const stroke of this.strokes) {
      pen.beginPath();
      stroke.forEach(([x, y], i) => (i === 0 ? pen.moveTo(x * side, y * side) : pen.lineTo(x * side, y * side)));
      if (stroke.length === 1) pen.lineTo(stroke[0][0] * side, stroke[0][1] * side + 0.1);
      pen.stroke();
    }
    // Where the keys' pen is, while they are meant.
    if (canvas.matches(":focus-visible")) {
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(this.key.x * side, this.key.y * side, this.key.down ? 5 : 9, 0, 2 * Math.PI);
      pen.stroke();
    }
  }
}

/** Values from 0 to 1 as ink on a canvas of one point each. */
export function ink(canvas, values, height, width) {
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(width, height);
  const [red, green, blue] = getComputedStyle(canvas).color.match(/[\d.]+/g).map(Number);
  values.forEach((value, i) => image.data.set([red, green, blue, Math.round(255 * value)], 4 * i));
  pen.putImageData(image, 0, 0);
}
