"""The report's viewer in a browser, without network."""

import browsers
import numpy as np
import pytest
from report_fakes import (
  SHAPE,
  write_evaluation,
  write_stage,
  write_volumes,
)

from synermedgen_jax.reporting.run_report import report

playwright = pytest.importorskip(
  'playwright.sync_api', reason='playwright is not installed'
)
pytestmark = pytest.mark.skipif(
  browsers.CHROMIUM is None, reason=browsers.MISSING
)
ROUTES = ('brain_mr_to_ct', 'brats_t1+t2_to_flair')
ROLES = ('source', 'synthesis', 'truth', 'difference')
FLIPPED = np.diag([2.0, 2.0, 3.0, 1.0])  # columns to the patient's right


@pytest.fixture(scope='module')
def page_path(tmp_path_factory):
  workdir = write_stage(tmp_path_factory.mktemp('run') / 'stage2', 'ucg')
  evaluation = write_evaluation(workdir, ROUTES, panels=(), subjects=('1', '2'))
  write_volumes(evaluation, ROUTES[0], kinds=('worst',))
  write_volumes(evaluation, ROUTES[0], kinds=('best',), affine=FLIPPED)
  write_volumes(evaluation, ROUTES[1], kinds=('worst',))
  report(workdir, workdir / 'report')
  return workdir / 'report' / 'index.html'


@pytest.fixture(scope='module')
def browser():
  with browsers.launched() as launched:
    yield launched


def open_page(browser, path, *, width=1280, theme='light', script=None):
  """A page that has loaded its viewer; fails on requests and errors."""
  context = browser.new_context(
    viewport={'width': width, 'height': 900}, color_scheme=theme, offline=True
  )
  page = context.new_page()
  page.set_default_timeout(60_000)
  page.problems = []
  page.on('pageerror', lambda error: page.problems.append(str(error)))
  page.on(
    'request',
    lambda request: (
      request.url == path.as_uri()
      or request.url.startswith(('blob:', 'data:'))
      or page.problems.append(request.url)
    ),
  )
  if script:
    page.add_init_script(script)
  page.goto(path.as_uri())
  settle(page, '["ready", "unavailable"]')
  return page


def settle(page, states='["ready"]'):
  page.wait_for_function(f'{states}.includes(document.body.dataset.viewer)')
  two_frames = 'requestAnimationFrame(() => requestAnimationFrame(done))'
  page.evaluate(f'() => new Promise((done) => {two_frames})')


@pytest.fixture(scope='module')
def desktop(browser, page_path):
  page = open_page(browser, page_path)
  yield page
  assert not page.problems
  page.context.close()


def select(page, **choices):
  for name, label in choices.items():
    page.select_option(f'[data-part="{name}"]', label=label)
    settle(page)


def click(page, role, x, y):
  """Clicks at a position of a canvas, in shares of its width and height."""
  canvas = page.locator(f'[data-role="{role}"] canvas')
  box = canvas.bounding_box()
  canvas.click(position={'x': x * box['width'], 'y': y * box['height']})
  settle(page)


def values(page):
  """Role -> value under the cross, without unit."""
  texts = {
    role: page.locator(f'[data-role="{role}"] output').inner_text()
    for role in ROLES
  }
  return {
    role: float(text.split()[0].replace('−', '-'))
    for role, text in texts.items()
  }


def voxel(shown):
  """Column, row and slice that values of `write_volumes` belong to."""
  return (
    shown['truth'] / 20,
    shown['synthesis'] - shown['truth'],
    shown['source'] / 20,  # a byte of the source is two units
  )


def test_the_page_is_ready_offline_and_asks_for_nothing(desktop):
  assert desktop.evaluate('document.body.dataset.viewer') == 'ready'
  assert not desktop.problems
  assert (
    desktop.evaluate('performance.getEntriesByType("resource").length') <= 1
  )


def test_a_click_moves_the_cross_of_all_four(desktop):
  select(desktop, group='brain MRI → CT', case='worst: s.1, SSIM 0.500')
  for role in ROLES:
    click(desktop, role, 0.2, 0.2)
    near = values(desktop)
    click(desktop, role, 0.8, 0.8)
    far = values(desktop)
    for name in ('synthesis', 'truth', 'difference'):
      assert near[name] != far[name]
    for shown in (near, far):
      assert shown['difference'] == shown['synthesis'] - shown['truth']
    # The patient's right is on the left, anterior is up.
    (left, top, _), (right, bottom, _) = voxel(near), voxel(far)
    assert 0 <= left < 4 < 7 < right <= 11
    assert 0 <= top < 3 < 6 < bottom <= 9


def test_an_affine_to_the_other_side_is_shown_the_same_way(desktop):
  select(desktop, group='brain MRI → CT', case='best: s.1, SSIM 0.500')
  click(desktop, 'truth', 0.2, 0.2)
  column, row, _ = voxel(values(desktop))
  # Columns run to the patient's right and rows to anterior.
  assert 8 <= column <= 11
  assert 7 <= row <= 9


def test_the_slider_and_the_plane_move_through_the_volume(desktop):
  select(desktop, group='brain MRI → CT', case='worst: s.1, SSIM 0.500')
  slider = desktop.locator('[data-part="slice"]')
  assert slider.get_attribute('max') == str(SHAPE[0] - 1)
  for slice_ in (1, 4):
    slider.fill(str(slice_))
    settle(desktop)
    assert voxel(values(desktop))[2] == slice_
  click(desktop, 'source', 0.5, 0.5)
  desktop.keyboard.press('ArrowUp')
  settle(desktop)
  assert voxel(values(desktop))[2] == 5
  select(desktop, plane='sagittal')
  assert slider.get_attribute('max') == str(SHAPE[2] - 1)
  select(desktop, plane='axial')


@pytest.mark.parametrize(
  ('plane', 'sides'), [('axial', 'RLAP'), ('sagittal', 'APSI'), ('all', '')]
)
def test_sides_are_named(desktop, plane, sides):
  select(desktop, plane=plane)
  names = desktop.locator('[data-role="truth"] [data-side]').all_inner_texts()
  assert ''.join(names) == sides
  select(desktop, plane='axial')


def test_the_front_is_on_the_left_of_a_sagittal_slice(desktop):
  select(desktop, group='brain MRI → CT', case='worst: s.1, SSIM 0.500')
  select(desktop, plane='sagittal')
  click(desktop, 'truth', 0.2, 0.5)
  _, front, _ = voxel(values(desktop))
  click(desktop, 'truth', 0.8, 0.5)
  _, back, _ = voxel(values(desktop))
  assert front < 3 < 6 < back
  select(desktop, plane='axial')


def test_the_largest_difference_is_where_it_is(desktop):
  select(desktop, group='brain MRI → CT', case='worst: s.1, SSIM 0.500')
  desktop.locator('[data-part="largest"]').click()
  settle(desktop)
  assert values(desktop)['difference'] == SHAPE[1] - 1


def test_a_window_changes_the_picture(desktop):
  select(desktop, group='brain MRI → CT', case='worst: s.1, SSIM 0.500')
  canvas = desktop.locator('[data-role="truth"] canvas')
  before = canvas.screenshot()
  select(desktop, window='brain 80/40')
  assert canvas.screenshot() != before
  select(desktop, window='all values')
  assert canvas.screenshot() == before


def test_a_route_of_several_sources_shows_the_selected_one(desktop):
  select(desktop, group='brain T1 (MRI) + T2 (MRI) → FLAIR (MRI)')
  title = desktop.locator('[data-role="source"] [data-title]')
  assert title.inner_text() == 'source: T1 (MRI)'
  first = values(desktop)['source']
  select(desktop, source='T2 (MRI)')
  assert title.inner_text() == 'source: T2 (MRI)'
  assert values(desktop)['source'] == first + 2


def test_charts_are_drawn(desktop):
  for name in ('profile', 'histogram', 'scatter'):
    colours = desktop.evaluate(
      f"""() => {{
        const canvas = document.querySelector('[data-part="{name}"]');
        const {{ data }} = canvas.getContext('2d').getImageData(
          0, 0, canvas.width, canvas.height);
        return new Set(new Uint32Array(data.buffer)).size;
      }}"""
    )
    assert colours > 3


PAPER = 'getComputedStyle(document.body).backgroundColor'
WIDTH = 'document.documentElement.scrollWidth'


def test_a_desktop_shows_all_columns_and_switches_its_theme(desktop):
  assert desktop.evaluate(WIDTH) <= 1280
  light = desktop.evaluate(PAPER)
  desktop.select_option('#theme', 'dark')
  assert desktop.evaluate(PAPER) != light
  desktop.select_option('#theme', 'system')
  assert desktop.evaluate(PAPER) == light


def test_a_phone_does_not_scroll_sideways_and_is_dark_if_it_asks_to_be(
  browser, page_path, desktop
):
  page = open_page(browser, page_path, width=390, theme='dark')
  assert not page.problems
  assert page.evaluate(WIDTH) <= 390
  assert page.evaluate(PAPER) != desktop.evaluate(PAPER)
  click(page, 'truth', 0.3, 0.3)
  left = values(page)
  click(page, 'truth', 0.7, 0.3)
  assert values(page)['truth'] > left['truth']
  page.context.close()


def test_the_link_saves_the_scores_of_subjects(desktop):
  with desktop.expect_download() as download:
    desktop.get_by_text('as CSV').click()
  assert download.value.suggested_filename == 'subjects.csv'


def test_a_browser_without_webgl_gets_a_sentence(browser, page_path):
  page = open_page(
    browser,
    page_path,
    script='HTMLCanvasElement.prototype.getContext = () => null',
  )
  assert page.evaluate('document.body.dataset.viewer') == 'unavailable'
  assert 'needs WebGL2' in page.locator('[data-part="state"]').inner_text()
  assert not page.locator('[data-part="body"]').is_visible()
  page.context.close()
