// What all pages of the app share: requests, jobs, places for volumes.

const settings = JSON.parse(document.getElementById('settings').textContent);
const one = (selector, within = document) => within.querySelector(selector);
const MB = 1e6;

function show(element, words) {
  element.textContent = words ?? '';
  element.hidden = !words;
}

async function post(path, body) {
  let answer;
  try {
    answer = await fetch(path, { method: 'POST', body });
  } catch {
    throw new Error('The app cannot be reached; is it still running?');
  }
  const values = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(values.error ?? `The app answers ${answer.status}.`);
  return values;
}

// The states of jobs arrive as events, which also say that this page is open.
const waiting = new Map(); // id of a job -> what is called with its state
let states = {};
const events = new EventSource('/events');
events.onmessage = ({ data }) => {
  show(one('#lost'));
  states = JSON.parse(data);
  for (const id of waiting.keys()) waiting.get(id)(states[id]);
};
events.onerror = () => {
  const gone = events.readyState === EventSource.CLOSED;
  show(
    one('#lost'),
    gone
      ? 'This page was left too long, and its volumes are deleted; load it again.'
      : 'The app cannot be reached; is it still running?',
  );
};
window.addEventListener('pagehide', () => events.close());
window.addEventListener('pageshow', ({ persisted }) => {
  if (persisted) location.reload();
});

const plural = (count, noun) => `${count} ${noun}${count === 1 ? '' : 's'}`;

function wordsOf(state) {
  if (!state || state.state === 'queued') {
    const ahead = state?.ahead ?? 0;
    return ahead ? `Waiting for ${plural(ahead, 'other job')} …` : 'Starting …';
  }
  const compiling = state.cold ? ' The first one compiles the model, which can take a minute.' : '';
  if (!state.total) return `Working …${compiling}`;
  if (!state.finished) return `0 of ${state.total} slices.${compiling}`;
  if (state.finished >= state.total) return 'Checking the result …';
  return `${state.finished} of ${state.total} slices`;
}

// Starts a job and returns its result; null if it was stopped.
async function job(kind, asked, progress = () => {}) {
  const { job: id } = await post(`/jobs/${kind}`, JSON.stringify(asked));
  try {
    return await new Promise((resolve, reject) => {
      const look = (state) => {
        progress(state);
        if (state?.state === 'done') resolve(state.result);
        else if (state?.state === 'stopped') resolve(null);
        else if (state?.state === 'failed') reject(new Error(state.error));
      };
      waiting.set(id, look);
      look(states[id]);
    });
  } finally {
    waiting.delete(id);
  }
}

// A job with the bar of progress of the page.
async function shownJob(kind, asked) {
  const bar = one('[data-progress]');
  const meter = one('progress', bar);
  one('[data-stop]', bar).onclick = () => post(`/jobs/${kind}/stop`).catch(() => {});
  bar.hidden = false;
  try {
    return await job(kind, asked, (state) => {
      one('[data-words]', bar).textContent = wordsOf(state);
      if (state?.finished) {
        meter.max = Math.max(state.total, 1);
        meter.value = Math.min(state.finished, meter.max);
      } else {
        meter.removeAttribute('value');
      }
    });
  } finally {
    bar.hidden = true;
  }
}

// All files of a drop, also those in folders.
async function filesOf(transfer) {
  const entries = [...transfer.items]
    .map((item) => item.webkitGetAsEntry?.())
    .filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const files = [];
  const visit = async (entry) => {
    if (entry.isFile) {
      files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
      return;
    }
    const reader = entry.createReader();
    for (;;) { // a reader returns some entries at a time
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) return;
      for (const child of some) await visit(child);
    }
  };
  for (const entry of entries) await visit(entry);
  return files;
}

// A place for a volume; `changed` is called with whether it holds one.
class Place {
  #turn = 0;

  constructor(name, changed) {
    this.name = name;
    this.root = one(`[data-place="${name}"]`);
    this.changed = changed;
    const over = (on) => (event) => {
      event.preventDefault();
      this.root.classList.toggle('over', on);
    };
    this.root.addEventListener('dragover', over(true));
    this.root.addEventListener('dragleave', over(false));
    this.root.addEventListener('drop', async (event) => {
      over(false)(event);
      this.#take(await filesOf(event.dataTransfer));
    });
    for (const input of this.root.querySelectorAll('input')) {
      input.onchange = () => {
        const files = [...input.files];
        input.value = '';
        this.#take(files);
      };
    }
  }

  get #held() {
    return one('[data-held]', this.root);
  }

  async #take(all) {
    // Hidden files and DICOM's list of contents are no slices.
    const files = all.filter(
      ({ name }) => all.length === 1 || !(name.startsWith('.') || name === 'DICOMDIR'),
    );
    if (!files.length) return;
    const turn = ++this.#turn;
    this.root.classList.remove('filled');
    this.changed(false);
    try {
      const size = files.reduce((sum, file) => sum + file.size, 0);
      if (size > settings.limit) {
        throw new Error(
          `The upload has ${Math.round(size / MB)} MB, at most ` +
            `${Math.round(settings.limit / MB)} MB are accepted; ` +
            '--max_upload_mb of synermedgen app raises the limit.',
        );
      }
      let held = {};
      for (const [i, file] of files.entries()) {
        this.#held.textContent = `Uploading ${i + 1} of ${plural(files.length, 'file')} …`;
        const more = i ? `&more=${held.upload}` : '';
        const name = encodeURIComponent(file.name);
        const path = `/uploads/${this.name}?name=${name}${more}`;
        held = await post(path, file);
        if (turn !== this.#turn) return;
      }
      this.#held.textContent = held.name;
      this.root.classList.add('filled');
      this.changed(true);
    } catch (error) {
      if (turn === this.#turn) this.#held.textContent = error.message;
    }
  }
}

// A file beside a place would replace the page.
for (const name of ['dragover', 'drop']) {
  window.addEventListener(name, (event) => event.preventDefault());
}

// Lists of source, region and target, each with what the ones before allow. A
// list of several begins with none: a guess would pass for a statement.
class Choices {
  #order = ['source', 'region', 'target'];

  constructor(changed) {
    this.changed = changed;
    for (const name of this.#order) {
      this.#list(name).onchange = () => {
        this.#fill();
        changed(name);
      };
    }
    this.#fill();
  }

  get complete() {
    return this.#order.every((name) => this.#list(name).value);
  }

  get values() {
    return Object.fromEntries(this.#order.map((name) => [name, this.#list(name).value]));
  }

  #list(name) {
    return one(`[data-choice="${name}"]`);
  }

  #fill() {
    let left = settings.routes;
    for (const name of this.#order) {
      const list = this.#list(name);
      const before = list.value;
      const labels = new Map(left.map((route) => route[name]));
      const options = [...labels].map(([value, label]) => new Option(label, value));
      if (options.length !== 1) options.unshift(new Option('select …', ''));
      list.replaceChildren(...options);
      if (labels.has(before)) list.value = before;
      left = left.filter((route) => route[name][0] === list.value);
    }
  }
}

// The theme is kept while the browser is open.
const theme = one('#theme');
const kept = sessionStorage.getItem('theme');
if (kept) {
  theme.value = kept;
  theme.dispatchEvent(new Event('change'));
}
theme.addEventListener('change', () => sessionStorage.setItem('theme', theme.value));
