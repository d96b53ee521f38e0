"""The app in a browser: its flows, two users, and what it leaves behind."""

import browsers
import pytest
from serving_fakes import eventually, predicted, serve, write_pair

playwright = pytest.importorskip(
  'playwright.sync_api', reason='playwright is not installed'
)
pytestmark = pytest.mark.skipif(
  browsers.CHROMIUM is None, reason=browsers.MISSING
)


@pytest.fixture(scope='module')
def chromium():
  with browsers.launched() as launched:
    yield launched


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
  return write_pair(tmp_path_factory.mktemp('pair'))


@pytest.fixture
def served(tmp_path):
  with serve(tmp_path / 'root') as running:
    yield running


@pytest.fixture
def user(chromium, served):
  """Opens a browser of its own; fails if it asks another address."""
  contexts, problems = [], []

  def looked_at(request):
    if not request.url.startswith((f'{served.url}/', 'blob:', 'data:')):
      problems.append(request.url)

  def open_page(path='/', *, width=1280, theme='light'):
    context = chromium.new_context(
      viewport={'width': width, 'height': 900}, color_scheme=theme
    )
    contexts.append(context)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on('request', looked_at)
    page.on('pageerror', lambda error: problems.append(str(error)))
    page.goto(f'{served.url}{path}')
    return page

  yield open_page
  for context in contexts:
    context.close()
  assert not problems


def choose(page, source='mr', target='ct'):
  page.select_option('[data-choice=source]', source)
  page.select_option('[data-choice=target]', target)


def drop(page, place, *paths):
  page.set_input_files(f'[data-place={place}] [data-files]', paths)


def read(page, level):
  """The lines that say how the volume is read."""
  page.wait_for_selector(f'#reading.{level}')
  return page.locator('#reading p').all_inner_texts()


def translated(page):
  page.click('#go:enabled')
  page.wait_for_url('**/results/*')
  page.wait_for_selector('body[data-viewer=ready]')


def titles(page):
  """The volumes that the viewer shows."""
  texts = page.locator('.stage figure:visible [data-title]')
  return texts.all_inner_texts()


def test_drop_read_translate_compare_download(user, pair, tmp_path):
  page = user()
  assert page.locator('#go').is_disabled()
  drop(page, 'source', pair / 'mr.nii.gz')
  assert read(page, 'waiting') == ['Select its modality; then it is read.']
  choose(page)
  assert read(page, 'ok') == [
    'mr.nii.gz: 24 × 20 × 8 voxels of 2 × 2 × 3 mm.',
    'Read as MRI in 16 of 16 slices.',
  ]
  assert not page.locator('#anyway').is_visible()
  translated(page)
  assert titles(page) == ['source: MRI', 'synthesis: CT']
  assert page.locator('.message.warning').inner_text() == (
    'mr.nii.gz: is a ball.'
  )
  assert page.locator('td', has_text='CTS').count() == 1
  drop(page, 'truth', pair / 'ct.nii.gz')
  page.wait_for_selector('text=Mean absolute difference')
  page.wait_for_selector('body[data-viewer=ready]')
  assert titles(page) == [
    'source: MRI',
    'synthesis: CT',
    'truth: CT',
    'difference',
  ]
  with page.expect_download() as download:
    page.get_by_text('Download mr_ct.nii.gz').click()
  assert download.value.suggested_filename == 'mr_ct.nii.gz'
  output = predicted(pair / 'mr.nii.gz', tmp_path / 'ct.nii.gz')
  content = download.value.path().read_bytes()
  assert content[10:] == output.read_bytes()[10:]  # a gzip header has a time


def test_a_ct_as_mr_is_refused_until_the_user_insists(user, pair):
  page = user()
  choose(page)
  drop(page, 'source', pair / 'ct.nii.gz')
  lines = read(page, 'refused')
  assert lines[-1] == (
    'Stated as MRI, but the model reads CT in 16 of 16 slices.'
  )
  assert page.locator('#go').is_disabled()
  choose(page, 'ct', 'mr')
  read(page, 'ok')
  assert not page.locator('#anyway').is_visible()
  choose(page)
  read(page, 'refused')
  page.get_by_label('Translate anyway').check()
  translated(page)
  assert titles(page) == ['source: MRI', 'synthesis: CT']


def test_ask_about_a_pair(user, pair):
  page = user('/ask')
  drop(page, 'first', pair / 'mr.nii.gz')
  drop(page, 'second', pair / 'ct.nii.gz')
  choose(page)
  page.click('#go:enabled')
  page.wait_for_selector('#answers:visible')
  row = page.locator('[data-rows] tr').inner_text().split('\t')
  assert row[1:] == ['1 of 2', '0.50', '0.25']
  panels = page.locator('[data-panels] figure')
  assert panels.count() == 5
  assert page.locator('figure.right').inner_text().endswith('right answer')
  assert page.locator('figure.given').inner_text().endswith('model’s answer')
  widths = panels.locator('img').evaluate_all(
    'all => all.map((image) => image.naturalWidth)'
  )
  assert min(widths) > 100


def test_two_users_wait_for_each_other_and_see_their_own(user, pair, served):
  first, second = user(), user()
  for page in (first, second):
    choose(page)
    drop(page, 'source', pair / 'mr.nii.gz')
    read(page, 'ok')
  served.model.gate.clear()
  first.click('#go')
  first.wait_for_selector('text=0 of 8 slices')
  second.click('#go')
  second.wait_for_selector('text=Waiting for 1 other job')
  assert len([*served.root.iterdir()]) == 2
  served.model.gate.set()
  for page in (first, second):
    page.wait_for_url('**/results/*')
  assert first.url != second.url
  second.goto(first.url)
  assert 'does not exist any more' in second.inner_text('main')


def test_a_translation_can_be_stopped_and_started_again(user, pair, served):
  page = user()
  choose(page)
  drop(page, 'source', pair / 'mr.nii.gz')
  read(page, 'ok')
  served.model.gate.clear()
  page.click('#go')
  assert served.model.began.wait(20)
  page.get_by_role('button', name='Stop').click()
  served.model.gate.set()
  page.wait_for_selector('text=The translation was stopped.')
  translated(page)


def test_an_upload_that_is_no_volume_gets_one_line(user, tmp_path, pair):
  page = user()
  path = tmp_path / 'letter.pdf'
  path.write_bytes(b'%PDF-1.7')
  choose(page)
  drop(page, 'source', path)
  (line,) = read(page, 'refused')
  assert line.startswith('letter.pdf: not a volume; expected a name ending in')
  assert page.locator('#go').is_disabled()
  assert not page.locator('#anyway').is_visible()
  drop(page, 'source', pair / 'mr.nii.gz')
  read(page, 'ok')


def test_a_large_file_is_refused_before_it_is_sent(user, tmp_path, served):
  page = user()
  path = tmp_path / 'huge.nii'
  with path.open('wb') as file:
    file.truncate(3_000_000_000)  # takes no space on the disk
  drop(page, 'source', path)
  page.wait_for_selector('text=The upload has 3000 MB, at most 50 MB')
  assert not [*served.root.iterdir()]


def test_a_closed_browser_leaves_nothing(user, pair, served):
  staying, leaving = user(), user()
  for page in (staying, leaving):
    choose(page)
    drop(page, 'source', pair / 'mr.nii.gz')
    read(page, 'ok')
  served.model.gate.clear()
  leaving.click('#go')
  assert served.model.began.wait(20)
  staying.click('#go')
  staying.wait_for_selector('text=Waiting for 1 other job')
  served.state.sessions.grace = 0.5
  leaving.context.close()
  eventually(lambda: len(served.state.sessions) == 1)
  served.state.sessions.grace = 30
  # The running job ends at its next slice, and that of the other browser runs.
  served.model.gate.set()
  staying.wait_for_url('**/results/*')
  eventually(lambda: len([*served.root.iterdir()]) == 1)
  served.state.sessions.grace = 0.5
  staying.context.close()
  eventually(lambda: not [*served.root.iterdir()])


def test_a_page_that_is_loaded_again_keeps_its_session(user, pair, served):
  page = user()
  choose(page)
  drop(page, 'source', pair / 'mr.nii.gz')
  read(page, 'ok')
  (folder,) = served.root.iterdir()
  page.reload()
  page.goto(f'{served.url}/ask')
  (cookie,) = page.context.cookies()
  session = served.state.sessions.find(cookie['value'])
  eventually(lambda: session.streams)
  served.state.sessions.grace = 0.5
  page.wait_for_timeout(2500)  # the stream of the page counts, not its requests
  assert [*served.root.iterdir()] == [folder]


def test_lists_and_buttons_work_from_the_keyboard(user, pair):
  page = user()
  drop(page, 'source', pair / 'mr.nii.gz')
  page.focus('[data-choice=source]')
  page.keyboard.press('M')
  page.keyboard.press('Tab')
  page.keyboard.press('Tab')
  page.keyboard.press('C')
  read(page, 'ok')
  page.keyboard.press('Tab')
  assert page.evaluate('document.activeElement.id') == 'go'
  page.keyboard.press('Enter')
  page.wait_for_url('**/results/*')


@pytest.mark.parametrize('path', ['/', '/ask'])
def test_controls_have_names_and_phones_do_not_scroll_sideways(user, path):
  light = user(path)
  dark = user(path, width=390, theme='dark')
  width = 'document.documentElement.scrollWidth'
  paper = 'getComputedStyle(document.body).backgroundColor'
  assert light.evaluate(width) <= 1280
  assert dark.evaluate(width) <= 390
  assert light.evaluate(paper) != dark.evaluate(paper)
  names = light.locator('select, input, button').evaluate_all(
    'all => all.map((x) => x.labels?.[0]?.innerText || x.innerText)'
  )
  assert names
  assert all(names)
  light.select_option('#theme', 'dark')
  light.reload()
  assert light.evaluate(paper) == dark.evaluate(paper)
