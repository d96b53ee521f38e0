// The viewer: linked canvases of one case, its values and charts.

const root = document.getElementById('viewer');
const part = (name) => root.querySelector(`[data-part="${name}"]`);
const figure = (role) => root.querySelector(`[data-role="${role}"]`);
const ROLES = ['source', 'synthesis', 'truth', 'difference'];
const SLICES = { axial: 0, coronal: 1, sagittal: 2, all: 3 };
const AXES = { axial: 2, coronal: 1, sagittal: 0, all: 2 }; // of RAS+
// Names of the left, right, upper and lower side of a canvas.
const SIDES = { axial: 'RLAP', coronal: 'RLSI', sagittal: 'APSI', all: '' };
const MAPS = {
  grey: { R: [0, 255], G: [0, 255], B: [0, 255] },
  inverted: { R: [255, 0], G: [255, 0], B: [255, 0] },
  difference: {
    R: [5, 67, 247, 214, 103],
    G: [48, 147, 247, 96, 0],
    B: [97, 195, 247, 77, 31],
  },
};
const ARRAYS = { uint8: Uint8Array, int16: Int16Array, float32: Float32Array };
const NIFTI_CODES = { uint8: 2, int16: 4, float32: 16 };
const HEADER = 352; // bytes of a NIfTI header and of what follows it

async function unpacked(text) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed])
    .stream()
    .pipeThrough(new DecompressionStream('gzip'));
  return new Response(stream).arrayBuffer();
}

// Adds to differences the predictions that `viewer.residuals` took away.
function restored(values, [w, h]) {
  for (let i = 0; i < values.length; i++) {
    const x = i % w;
    const y = Math.floor(i / w) % h;
    const left = x ? values[i - 1] : 0;
    const upper = y ? values[i - w] : 0;
    const corner = x && y ? values[i - w - 1] : 0;
    const highest = Math.max(left, upper);
    const lowest = Math.min(left, upper);
    const plane = left + upper - corner;
    values[i] += Math.min(Math.max(plane, lowest), highest); // modulo 256
  }
  return values;
}

async function volumeOf(digest, type, shape) {
  const text = document.getElementById(`volume-${digest}`).textContent;
  const values = new ARRAYS[type](await unpacked(text));
  return type === 'uint8' ? restored(values, shape) : values;
}

const times = (matrix, [x, y, z]) =>
  matrix.slice(0, 3).map(([a, b, c, d]) => a * x + b * y + c * z + d);

// A volume of a case: `values` as stored; `at` gives physical values.
class Volume {
  constructor(view, values, shown) {
    const [low, high] = view.span ?? [0, 255];
    Object.assign(this, view, { values, shown });
    this.slope = view.span ? (high - low) / 255 : 1;
    this.offset = view.span ? low : 0;
    const widest = Math.max(...view.presets.map((p) => p.high - p.low));
    const step = view.span ? this.slope : widest / 1000;
    this.decimals = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9));
  }

  get range() {
    const ends = this.presets.flatMap(({ low, high }) => [low, high]);
    return this.span ?? [Math.min(...ends), Math.max(...ends)];
  }

  physical(index) {
    return this.values[index] * this.slope + this.offset;
  }

  // Index of the voxel at a position in mm; -1 outside of the volume.
  index(mm) {
    const [w, h, z] = this.shown.shape;
    const [i, j, k] = times(this.shown.inverse, mm).map(Math.round);
    const inside = i >= 0 && i < w && j >= 0 && j < h && k >= 0 && k < z;
    return inside ? i + w * (j + h * k) : -1;
  }

  text(mm, zones) {
    const index = this.index(mm);
    if (index < 0 || !zones[index]) return '–';
    const value = this.physical(index).toFixed(this.decimals);
    return `${signed(value.replace(/^-(0\.?0*)$/, '$1'))} ${this.unit}`;
  }

  // The volume as a NIfTI file.
  nifti() {
    const { shape, affine } = this.shown;
    const buffer = new ArrayBuffer(HEADER + this.values.byteLength);
    const header = new DataView(buffer);
    const int16 = (at, value) => header.setInt16(at, value, true);
    const float32 = (at, value) => header.setFloat32(at, value, true);
    header.setInt32(0, 348, true);
    [3, ...shape, 1, 1, 1, 1].forEach((n, i) => int16(40 + 2 * i, n));
    int16(70, NIFTI_CODES[this.type]);
    int16(72, 8 * this.values.BYTES_PER_ELEMENT);
    const columns = [0, 1, 2].map((c) => affine.slice(0, 3).map((r) => r[c]));
    const sizes = columns.map((column) => Math.hypot(...column));
    [1, ...sizes, 1, 1, 1, 1].forEach((x, i) => float32(76 + 4 * i, x));
    float32(108, HEADER);
    float32(112, this.slope);
    float32(116, this.offset);
    header.setUint8(123, 2); // mm
    int16(254, 1); // the affine is that of a scanner
    affine.slice(0, 3).flat().forEach((x, i) => float32(280 + 4 * i, x));
    [0x6e, 0x2b, 0x31].forEach((c, i) => header.setUint8(344 + i, c)); // n+1
    new Uint8Array(buffer, HEADER).set(new Uint8Array(this.values.buffer));
    return buffer;
  }
}

// Synthesis minus truth in physical units, with a symmetric range.
function differenceOf(synthesis, truth, inside, shown) {
  const values = Float32Array.from(
    synthesis.values,
    (_, i) => synthesis.physical(i) - truth.physical(i),
  );
  const sizes = Float32Array.from(inside, (i) => Math.abs(values[i])).sort();
  const [low, high] = truth.range;
  const most = sizes[Math.floor(0.995 * (sizes.length - 1))];
  const limit = roundedUp(Math.max(most, (high - low) / 100));
  const view = {
    ...truth,
    role: 'difference',
    label: '',
    type: 'float32',
    span: null,
    presets: [{ name: 'all values', low: -limit, high: limit }],
  };
  const volume = new Volume(view, values, shown);
  volume.decimals = Math.max(synthesis.decimals, truth.decimals);
  return volume;
}

class Viewer {
  #turn = 0;
  #planned = false;

  constructor({ Niivue, NVImage }, cases) {
    this.cases = cases;
    this.Niivue = Niivue;
    this.NVImage = NVImage;
    this.panes = {};
  }

  async start() {
    const groups = [...new Set(this.cases.map((shown) => shown.group))];
    this.#fill(part('group'), groups);
    part('group').onchange = () => this.#selectGroup();
    part('case').onchange = () => this.#show();
    part('source').onchange = () => this.#show();
    part('plane').onchange = () => this.#setPlane();
    part('window').onchange = () => this.#setWindow();
    part('voxels').onchange = () => this.#setInterpolation();
    part('slice').oninput = () => this.#toSlice(Number(part('slice').value));
    part('largest').onclick = () => this.#toLargest();
    this.#guard(part('stage'));
    for (const role of ROLES) this.panes[role] = await this.#pane(role);
    const panes = Object.values(this.panes);
    for (const pane of panes) {
      const others = panes.filter((other) => other !== pane);
      pane.broadcastTo(others, { '2d': true, '3d': false });
      pane.onLocationChange = ({ mm }) => this.#locate([...mm].slice(0, 3));
    }
    new ResizeObserver(() => this.#drawCharts()).observe(part('charts'));
    document.addEventListener('themechange', () => this.#drawCharts());
    await this.#selectGroup();
  }

  #fill(list, names) {
    list.replaceChildren(...names.map((name, i) => new Option(name, i)));
    list.closest('label').hidden = names.length < 2;
  }

  async #pane(role) {
    const pane = new this.Niivue({
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      multiplanarShowRender: 0,
      show3Dcrosshair: false,
      crosshairColor: [1, 0.75, 0, 0.8],
      crosshairWidth: 0.5,
      crosshairWidthUnit: 'percent',
      multiplanarLayout: 2, // a grid
      showAllOrientationMarkers: true,
      fontColor: [1, 0.75, 0, 1],
      fontMinPx: 11,
      dragMode: 4, // the right button moves and zooms
      dragAndDropEnabled: false,
      loadingText: '',
      logLevel: 'error',
    });
    await pane.attachToCanvas(figure(role).querySelector('canvas'));
    for (const [name, map] of Object.entries(MAPS)) {
      const last = map.R.length - 1;
      const I = map.R.map((_, i) => Math.round((255 * i) / last));
      pane.addColormap(name, { ...map, A: map.R.map(() => 255), I });
    }
    return pane;
  }

  // Leaves to the page what NiiVue would take: wheel without focus, most keys.
  #guard(stage) {
    const stop = (event) => event.stopPropagation();
    const capture = { capture: true };
    stage.addEventListener('dblclick', stop, capture);
    stage.addEventListener(
      'wheel',
      (event) => {
        if (!stage.contains(document.activeElement)) event.stopPropagation();
      },
      capture,
    );
    stage.addEventListener('keyup', stop, capture);
    stage.addEventListener(
      'keydown',
      (event) => {
        event.stopPropagation();
        const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
        if (step) {
          event.preventDefault();
          this.#toSlice(Number(part('slice').value) + step);
        }
      },
      capture,
    );
  }

  async #selectGroup() {
    const group = part('group').selectedOptions[0].text;
    this.listed = this.cases.filter((shown) => shown.group === group);
    this.#fill(part('case'), this.listed.map((shown) => shown.title));
    await this.#show();
  }

  async #show() {
    const turn = ++this.#turn;
    document.body.dataset.viewer = 'loading';
    const shown = this.listed[Number(part('case').value)];
    if (shown !== this.shown) {
      const sources = shown.views.filter(({ role }) => role === 'source');
      const names = sources.map(({ label }) => label);
      this.#fill(part('source'), names);
    }
    const volumes = await this.#volumes(shown);
    if (turn !== this.#turn) return; // another case has been selected
    const previous = this.shown;
    Object.assign(this, { shown, volumes });
    if (shown !== previous) this.#fillWindows();
    for (const role of ROLES) await this.#put(role);
    if (turn !== this.#turn) return;
    this.#setPlane();
    if (shown !== previous) this.#toWorstSlice();
    this.#drawCharts();
    document.body.dataset.viewer = 'ready';
  }

  async #volumes(shown) {
    const volumes = {};
    const sources = shown.views.filter(({ role }) => role === 'source');
    const source = sources[Number(part('source').value)];
    const chosen = shown.views.filter(
      (view) => view.role !== 'source' || view === source,
    );
    for (const view of chosen) {
      const values = await volumeOf(view.data, view.type, shown.shape);
      volumes[view.role] = new Volume(view, values, shown);
    }
    // 2 in the body, 1 near it, 0 where nothing is known.
    this.zones = await volumeOf(shown.zones, 'uint8', shown.shape);
    const all = Uint32Array.from(this.zones, (_, i) => i);
    const body = all.filter((i) => this.zones[i] === 2);
    this.inside = body.length ? body : all;
    const { synthesis, truth } = volumes;
    if (truth) {
      volumes.difference = differenceOf(synthesis, truth, this.inside, shown);
    }
    return volumes;
  }

  async #put(role) {
    const volume = this.volumes[role];
    const pane = this.panes[role];
    figure(role).hidden = !volume;
    while (pane.volumes.length) pane.removeVolume(pane.volumes[0]);
    if (!volume) return;
    const { low, high } = this.#presetOf(volume);
    const map = volume.inverted ? 'inverted' : 'grey';
    const image = await this.NVImage.new(
      volume.nifti(),
      `${role}.nii`,
      role === 'difference' ? 'difference' : map,
      1,
      null,
      low,
      high,
    );
    pane.addVolume(image);
    pane.opts.crosshairGap = 3 * Math.min(...image.pixDims.slice(1, 4));
    pane.resizeListener();
    const title = figure(role).querySelector('[data-title]');
    title.textContent = role + (volume.label && `: ${volume.label}`);
    if (role === 'difference') {
      part('scale-low').textContent = signed(low);
      part('scale-high').textContent = `${high} ${volume.unit}`;
    }
  }

  #fillWindows() {
    const names = (volume) => (volume?.presets ?? []).map(({ name }) => name);
    const { source, synthesis } = this.volumes;
    const all = [...new Set([...names(synthesis), ...names(source)])];
    const before = part('window').selectedOptions[0]?.text;
    this.#fill(part('window'), all);
    part('window').value = Math.max(all.indexOf(before), 0);
  }

  // The selected window if the volume has it, or else the one it begins with.
  #presetOf(volume) {
    const name = part('window').selectedOptions[0].text;
    const { presets } = volume;
    return presets.find((preset) => preset.name === name) ?? presets[0];
  }

  #setWindow() {
    for (const role of ['source', 'synthesis', 'truth']) {
      if (!this.volumes[role]) continue;
      const [image] = this.panes[role].volumes;
      const { low, high } = this.#presetOf(this.volumes[role]);
      image.cal_min = low;
      image.cal_max = high;
      this.panes[role].updateGLVolume();
    }
    root.dataset.window = part('window').selectedOptions[0].text;
  }

  #setInterpolation() {
    const nearest = part('voxels').checked;
    for (const pane of this.#shownPanes()) pane.setInterpolation(nearest);
  }

  #shownPanes() {
    return ROLES.filter((role) => this.volumes[role]).map(
      (role) => this.panes[role],
    );
  }

  #setPlane() {
    const plane = part('plane').value;
    for (const pane of this.#shownPanes()) {
      pane.opts.isOrientationTextVisible = plane === 'all';
      pane.setSliceType(SLICES[plane]);
    }
    for (const side of root.querySelectorAll('[data-side]')) {
      side.textContent = SIDES[plane][Number(side.dataset.side)] ?? '';
    }
    this.#setInterpolation();
    const { dimsRAS } = this.panes.synthesis.volumes[0];
    part('slice').max = dimsRAS[AXES[plane] + 1] - 1;
    if (this.mm) this.#locate(this.mm);
  }

  #toSlice(slice) {
    const axis = AXES[part('plane').value];
    const pane = this.panes.synthesis;
    const count = pane.volumes[0].dimsRAS[axis + 1];
    const position = [...pane.scene.crosshairPos];
    const inside = Math.min(Math.max(slice, 0), count - 1);
    position[axis] = (inside + 0.5) / count;
    this.#toFraction(position);
  }

  #toFraction(position) {
    for (const pane of this.#shownPanes()) {
      pane.scene.crosshairPos = [...position];
      pane.drawScene();
    }
    const mm = this.panes.synthesis.frac2mm(position, 0, true);
    this.#locate([...mm].slice(0, 3));
  }

  #toVoxel(index) {
    const [w, h] = this.shown.shape;
    const ijk = [index % w, Math.floor(index / w) % h, Math.floor(index / w / h)];
    const mm = times(this.shown.affine, ijk);
    this.#toFraction(this.panes.synthesis.mm2frac(mm, 0, true));
  }

  #toLargest() {
    const { values } = this.volumes.difference;
    this.#toVoxel(
      this.inside.reduce((best, i) =>
        Math.abs(values[i]) > Math.abs(values[best]) ? i : best,
      ),
    );
  }

  // To the centre of the body, in the slice with the largest mean difference.
  #toWorstSlice() {
    part('largest').hidden = !this.volumes.difference;
    const [w, h, z] = this.shown.shape;
    const sums = Array.from({ length: z }, () => [0, 0, 0, 0]);
    for (const i of this.inside) {
      const sum = sums[Math.floor(i / w / h)];
      const value = this.volumes.difference?.values[i] ?? 1;
      [1, Math.abs(value), i % w, Math.floor(i / w) % h].forEach((x, n) => {
        sum[n] += x;
      });
    }
    // A slice that barely touches the body says little.
    const least = 0.25 * Math.max(...sums.map(([count]) => count));
    const mean = ([count, sum]) => (count >= least ? sum / count : -1);
    const best = this.volumes.difference
      ? sums.reduce((a, b, i) => (mean(b) > mean(sums[a]) ? i : a), 0)
      : Math.floor(z / 2);
    const [count, , x, y] = sums[best];
    const centre = count ? [x / count, y / count] : [w / 2, h / 2];
    const [i, j] = centre.map(Math.round);
    this.#toVoxel(i + w * (j + h * best));
  }

  // Writes values and the profile at a position, once per frame.
  #locate(mm) {
    this.mm = mm;
    if (this.#planned) return;
    this.#planned = true;
    requestAnimationFrame(() => {
      this.#planned = false;
      this.#writeValues();
      this.#drawProfile();
    });
  }

  #writeValues() {
    for (const role of ROLES) {
      const text = this.volumes[role]?.text(this.mm, this.zones) ?? '';
      figure(role).querySelector('output').textContent = text;
    }
    const { scene, volumes } = this.panes.synthesis;
    const axis = AXES[part('plane').value];
    const count = volumes[0].dimsRAS[axis + 1];
    const slice = Math.floor(scene.crosshairPos[axis] * count);
    part('slice').value = Math.min(Math.max(slice, 0), count - 1);
    const [x, y, z] = this.mm.map((c) => signed(c.toFixed(0)));
    part('position').textContent = `R ${x}, A ${y}, S ${z} mm`;
  }

  // Values along the line from the patient's right to left.
  #drawProfile() {
    const { synthesis, truth } = this.volumes;
    const pane = this.panes.synthesis;
    const count = pane.volumes[0].dimsRAS[1];
    const [, y, z] = pane.scene.crosshairPos;
    const xs = [];
    const lines = { truth: [], synthesis: [] };
    for (let i = count - 1; i >= 0; i--) {
      const mm = [...pane.frac2mm([(i + 0.5) / count, y, z], 0, true)];
      xs.push(-mm[0]);
      for (const volume of [truth, synthesis]) {
        if (!volume) continue;
        const index = volume.index(mm);
        const value = index < 0 ? NaN : volume.physical(index);
        lines[volume.role].push(value);
      }
    }
    const chart = new Chart(part('profile'), {
      x: [xs[0], xs.at(-1)],
      y: synthesis.range,
      xLabel: 'right ← mm → left',
    });
    const cross = -this.mm[0];
    chart.line([cross, cross], synthesis.range, colourOf('soft'), 1);
    if (truth) chart.line(xs, lines.truth, colourOf('truth'));
    chart.line(xs, lines.synthesis, colourOf('synthesis'));
  }

  #drawCharts() {
    if (!this.volumes || !this.mm) return;
    this.#drawProfile();
    const { synthesis, truth } = this.volumes;
    const { range, unit } = synthesis;
    const physical = (volume, at) =>
      Float32Array.from(at, (i) => volume.physical(i));
    const bins = 64;
    const counts = [truth, synthesis].map((volume) =>
      volume ? histogram(physical(volume, this.inside), range, bins) : [],
    );
    const chart = new Chart(part('histogram'), {
      x: range,
      // The first bin, which may hold everything below the window, is clipped.
      y: [0, 1.15 * Math.max(1, ...counts.flatMap((c) => c.slice(1)))],
      xLabel: unit,
    });
    if (truth) chart.line(...steps(counts[0], range), colourOf('truth'));
    chart.line(...steps(counts[1], range), colourOf('synthesis'));
    part('scatter').closest('figure').hidden = !truth;
    for (const key of document.querySelectorAll('[data-series="truth"]')) {
      key.hidden = !truth;
    }
    if (!truth) return;
    const some = thinned(this.inside, 4000);
    const scatter = new Chart(part('scatter'), {
      x: truth.range,
      y: range,
      xLabel: `truth, ${unit}`,
    });
    scatter.line(truth.range, truth.range, colourOf('soft'), 1);
    scatter.points(
      physical(truth, some),
      physical(synthesis, some),
      colourOf('synthesis'),
    );
  }
}

function refuse(words) {
  part('state').textContent = words;
  part('state').hidden = false;
  part('body').hidden = true;
  document.body.dataset.viewer = 'unavailable';
}

async function begin() {
  document.body.dataset.viewer = 'loading';
  if (!document.createElement('canvas').getContext('webgl2')) {
    refuse(
      'The viewer needs WebGL2, which this browser lacks or has switched off. ' +
        'Numbers and pictures on this page do not need it.',
    );
    return;
  }
  const code = await unpacked(part('niivue').textContent);
  const url = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
  const module = await import(url);
  URL.revokeObjectURL(url);
  const cases = JSON.parse(part('cases').textContent);
  await new Viewer(module, cases).start();
  part('state').hidden = true;
}

begin().catch((error) => refuse(`The viewer failed: ${error.message}`));
