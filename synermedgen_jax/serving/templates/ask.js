const go = one('#go');
const filled = { first: false, second: false };
let busy = false;

function settle() {
  const ready =
    filled.first && filled.second && choices.complete && !('unavailable' in go.dataset);
  go.disabled = busy || !ready;
}

function element(name, values, ...children) {
  const made = Object.assign(document.createElement(name), values);
  made.append(...children);
  return made;
}

function row({ task, definition, right, accuracy, chance }) {
  const number = (text) => element('td', { className: 'n' }, text);
  const range = element('span', { className: 'range' }, definition);
  const name = element('td', {}, task, element('br', {}), range);
  return element('tr', {}, name, number(right), number(accuracy), number(chance));
}

function panel({ picture, title, right, given }) {
  const words = [title, right && 'right answer', given && 'the model’s answer'];
  const caption = words.filter(Boolean).join(' · ');
  const marks = [right && 'right', given && 'given'].filter(Boolean).join(' ');
  return element(
    'figure',
    { className: marks },
    element('img', { src: picture, alt: `slice: ${caption}` }),
    element('figcaption', {}, caption),
  );
}

const choices = new Choices(settle);
for (const name of Object.keys(filled)) {
  new Place(name, (now) => {
    filled[name] = now;
    settle();
  });
}
go.onclick = async () => {
  busy = true;
  settle();
  show(one('#failure'));
  const section = one('#answers');
  section.hidden = true;
  try {
    const said = await shownJob('ask', choices.values);
    if (said) {
      show(one('#warnings'), said.lines.join(' '));
      one('[data-rows]').replaceChildren(...said.rows.map(row));
      const question = one('#question');
      question.hidden = !said.question;
      if (said.question) {
        one('[data-panels]').replaceChildren(...said.question.panels.map(panel));
        one('[data-words]', question).textContent = said.question.words;
      }
      section.hidden = false;
      one('h2', section).focus();
    }
  } catch (error) {
    show(one('#failure'), error.message);
  }
  busy = false;
  settle();
};
