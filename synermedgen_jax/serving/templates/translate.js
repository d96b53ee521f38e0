const go = one('#go');
const reading = one('#reading');
const anyway = one('#anyway');
const series = one('[data-series]');
let filled = false;
let level = '';
let turn = 0;
let busy = false;

function settle() {
  anyway.hidden = level !== 'refused';
  const allowed = level === 'ok' || level === 'warning';
  const insisted = level === 'refused' && one('input', anyway).checked;
  go.disabled = busy || !choices.complete || !(allowed || insisted);
}

function tell(kind, lines) {
  reading.className = `message ${kind}`;
  reading.hidden = !lines.length;
  reading.replaceChildren(
    ...lines.map((line) => Object.assign(document.createElement('p'), { textContent: line })),
  );
}

async function read() {
  const mine = ++turn;
  level = '';
  one('input', anyway).checked = false;
  show(one('#failure'));
  const stated = choices.values.source;
  const todo = stated ? 'Reading …' : 'Select its modality; then it is read.';
  tell('waiting', filled ? [todo] : []);
  settle();
  if (!filled || !stated) return;
  try {
    const asked = { source: stated, series: one('input', series).value };
    const said = await job('read', asked, (state) => {
      if (mine === turn) tell('waiting', [`Reading: ${wordsOf(state)}`]);
    });
    if (mine !== turn || !said) return;
    ({ level } = said);
    tell(level, [said.title, ...said.lines]);
  } catch (error) {
    if (mine !== turn) return;
    tell('refused', [error.message]);
    if (error.message.includes('series')) series.hidden = false;
  }
  settle();
}

const choices = new Choices((name) => {
  if (name === 'source') read();
  else settle();
});
new Place('source', (now) => {
  filled = now;
  series.hidden = true;
  one('input', series).value = '';
  if (busy) post('/jobs/translate/stop').catch(() => {});
  read();
});
one('input', series).onchange = read;
one('input', anyway).onchange = settle;
go.onclick = async () => {
  busy = true;
  settle();
  show(one('#failure'));
  const insisted = one('input', anyway).checked ? '1' : '';
  try {
    const stated = { series: one('input', series).value, anyway: insisted };
    const asked = { ...choices.values, ...stated };
    const made = await shownJob('translate', asked);
    if (made) location.href = `/results/${made.result}`;
    else show(one('#failure'), 'The translation was stopped.');
  } catch (error) {
    show(one('#failure'), error.message);
  }
  busy = false;
  settle();
};
