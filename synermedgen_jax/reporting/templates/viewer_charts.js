// Charts of the viewer on canvases, in the colours of the page's theme.

// The colour of an element that names a series, as the theme resolves it.
const colourOf = (name) =>
  getComputedStyle(document.querySelector(`[data-colour="${name}"]`)).color;

function niceTicks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((x) => x * power).find((x) => x >= raw);
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

// The next number of the form 1, 1.5, 2, 3, 5 or 8 times a power of ten.
function roundedUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  const steps = [1, 1.5, 2, 3, 5, 8, 10];
  const step = steps.find((x) => x * power >= value * (1 - 1e-6));
  return Number((step * power).toPrecision(6));
}

const signed = (value) => String(value).replace('-', '−');

// Axes of a chart: draws frame, ticks and labels, and maps values to pixels.
class Chart {
  constructor(canvas, { x, y, xLabel, yTicks = true }) {
    const ratio = window.devicePixelRatio || 1;
    this.width = canvas.clientWidth;
    this.height = canvas.clientHeight;
    canvas.width = Math.round(this.width * ratio);
    canvas.height = Math.round(this.height * ratio);
    this.pen = canvas.getContext('2d');
    this.pen.scale(ratio, ratio);
    this.x = x;
    this.y = y;
    this.left = yTicks ? 46 : 10;
    this.bottom = 34;
    this.#frame(xLabel, yTicks);
  }

  at(x, y) {
    const [x0, x1] = this.x;
    const [y0, y1] = this.y;
    const width = this.width - this.left - 18;
    const height = this.height - this.bottom - 8;
    return [
      this.left + ((x - x0) / (x1 - x0)) * width,
      8 + (1 - (y - y0) / (y1 - y0)) * height,
    ];
  }

  line(xs, ys, colour, width = 1.6) {
    this.#clipped(() => {
      this.pen.strokeStyle = colour;
      this.pen.lineWidth = width;
      this.pen.lineJoin = 'round';
      this.pen.beginPath();
      xs.forEach((x, i) => this.pen.lineTo(...this.at(x, ys[i])));
      this.pen.stroke();
    });
  }

  points(xs, ys, colour) {
    this.#clipped(() => {
      this.pen.fillStyle = colour;
      this.pen.globalAlpha = 0.35;
      xs.forEach((x, i) => {
        const [left, top] = this.at(x, ys[i]);
        this.pen.fillRect(left - 1, top - 1, 2, 2);
      });
    });
  }

  #clipped(draw) {
    const [left, top] = this.at(this.x[0], this.y[1]);
    const [right, bottom] = this.at(this.x[1], this.y[0]);
    this.pen.save();
    this.pen.beginPath();
    this.pen.rect(left - 1, top - 1, right - left + 2, bottom - top + 2);
    this.pen.clip();
    draw();
    this.pen.restore();
  }

  #frame(xLabel, yTicks) {
    const { pen } = this;
    const soft = colourOf('soft');
    const grid = colourOf('line');
    pen.font = '11px system-ui, sans-serif';
    pen.lineWidth = 1;
    pen.textBaseline = 'top';
    pen.textAlign = 'center';
    for (const tick of niceTicks(...this.x, this.width / 70)) {
      const [left, top] = this.at(tick, this.y[0]);
      this.#rule([left, top], this.at(tick, this.y[1]), grid);
      pen.fillStyle = soft;
      pen.fillText(signed(tick), left, top + 4);
    }
    const [right, base] = this.at(this.x[1], this.y[0]);
    pen.fillStyle = soft;
    pen.textAlign = 'right';
    pen.fillText(xLabel, right, base + 18);
    if (yTicks) {
      pen.textBaseline = 'middle';
      for (const tick of niceTicks(...this.y, this.height / 45)) {
        const [left, top] = this.at(this.x[0], tick);
        this.#rule([left, top], this.at(this.x[1], tick), grid);
        pen.fillStyle = soft;
        pen.fillText(signed(tick), left - 5, top);
      }
    }
  }

  #rule(from, to, colour) {
    this.pen.strokeStyle = colour;
    this.pen.beginPath();
    this.pen.moveTo(...from);
    this.pen.lineTo(...to);
    this.pen.stroke();
  }
}

// Share of the values in each of `bins` equal parts of [low, high], in percent.
function histogram(values, [low, high], bins) {
  const counts = new Array(bins).fill(0);
  for (const value of values) {
    const bin = Math.floor(((value - low) / (high - low)) * bins);
    counts[Math.min(Math.max(bin, 0), bins - 1)] += 1;
  }
  return counts.map((count) => (100 * count) / Math.max(values.length, 1));
}

// A step line through the bins of a histogram.
function steps(counts, [low, high]) {
  const width = (high - low) / counts.length;
  return [
    counts.flatMap((_, i) => [low + i * width, low + (i + 1) * width]),
    counts.flatMap((count) => [count, count]),
  ];
}

// At most `most` values, evenly picked.
function thinned(values, most) {
  const step = Math.max(1, Math.ceil(values.length / most));
  return values.filter((_, i) => i % step === 0);
}
