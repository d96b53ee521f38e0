import dataclasses
import io
import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.contour import ContourSet
from matplotlib.text import Text
from PIL import Image

from synermedgen_jax.core.modalities import ROUTES, Modality, route_named
from synermedgen_jax.reporting import charts, pictures
from synermedgen_jax.reporting.results import Panel, Question, Stage
from synermedgen_jax.tasks import prompts


def panel(route='brain_mr_to_ct', slices=3, shape=(16, 20), **changes):
  """Flat images whose error is 0.1 of the range [-1, 1] in the body."""
  size = (slices, *shape)
  truth = np.full(size, -1, np.float32)
  mask = np.zeros(size, bool)
  mask[:, 4:12, 5:15] = True
  truth[mask] = 0
  made = Panel(
    route_named(route),
    sources=-truth[None],
    synthesis=np.where(mask, truth + np.float32(0.2), truth),
    truth=truth,
    mask=mask,
    indices=np.arange(slices) * 10 + 7,
    source_windows=((0.0, 812.5),),
    target_window=(-1000.0, 1000.0),
    plane='axial',
    subject='S1',
  )
  return dataclasses.replace(made, **changes)


def score(ssim=0.5, win=True, **baselines):
  numbers = {'psnr': 20.0, 'mae': 40.0}
  given = {'copy_source': 0.4, 'mean_target': 0.3, 'ceiling': 0.9} | baselines
  return {
    'ssim': ssim,
    **numbers,
    'count': 4,
    'unit': 'HU',
    'win': win,
    'full_frame': {'ssim': ssim, **numbers},
    'baselines': {
      name: {'ssim': value, **numbers} for name, value in given.items()
    },
  }


def images(figure, column=None):
  """The images of the axes, as drawn."""
  axes = [axis for axis in figure.axes if axis.images]
  axes = axes if column is None else axes[column::4]
  return [axis.images[0] for axis in axes]


def texts(figure):
  """Every text of a figure and its parts that is not empty."""
  return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def test_the_error_is_in_the_unit_of_the_target():
  error = panel().error
  assert error[0, 8, 8] == pytest.approx(200, rel=1e-6)
  assert error[0, 0, 0] == 0
  suv = dataclasses.replace(panel(), target_window=(0.0, 10.0))
  assert suv.error[0, 8, 8] == pytest.approx(1, rel=1e-6)


def test_the_error_is_clipped_as_the_metrics_clip():
  made = panel(synthesis=np.full((3, 16, 20), 5, np.float32))
  assert made.error.max() == 2000


@pytest.mark.parametrize(
  ('error', 'limit'),
  [(0.2, 200), (0.23, 250), (0.001, 1), (0.9, 1000), (0, 20)],
)
def test_the_limit_of_the_error_reads_well_and_holds_it(error, limit):
  made = panel()
  made = dataclasses.replace(
    made, synthesis=(made.truth + made.mask * np.float32(error))
  )
  assert pictures.error_limit(made) == pytest.approx(limit)


def test_errors_outside_the_body_do_not_set_the_limit():
  made = panel()
  synthesis = np.where(made.mask, made.synthesis, 1)
  outside = dataclasses.replace(made, synthesis=synthesis)
  assert pictures.error_limit(outside) == pictures.error_limit(made)


def test_a_route_panel_shows_source_synthesis_truth_and_signed_error():
  made = panel()
  figure = pictures.route_panel(made, 0.5)
  drawn = images(figure)
  assert len(drawn) == 12
  shown = (made.sources[0], made.synthesis, made.truth)
  for column, slices in enumerate(shown):
    for row, image in enumerate(drawn[column::4]):
      np.testing.assert_array_equal(image.get_array(), slices[row])
      assert image.get_clim() == (-1, 1)
  for row, image in enumerate(drawn[3::4]):
    np.testing.assert_allclose(image.get_array(), made.error[row])
    assert image.get_clim() == (-200, 200)


def several(name='brats_t1+t2+flair_to_t1ce', **changes):
  """A panel whose sources are darker and darker."""
  made = panel('brats_t1_to_t1ce')
  levels = np.float32([0.3, 0.2, 0.1]).reshape(3, 1, 1, 1)
  return dataclasses.replace(
    made,
    route=route_named(name),
    sources=np.broadcast_to(levels, (3, *made.truth.shape)),
    source_windows=((0, 700), (0, 800), (0, 900)),
    **changes,
  )


def test_a_route_panel_shows_every_source():
  figure = pictures.route_panel(several())
  drawn = images(figure)
  assert len(drawn) == 6 * 3
  for column, level in enumerate((0.3, 0.2, 0.1)):
    for image in drawn[column::6]:
      np.testing.assert_allclose(image.get_array(), level)
  titles = [axis.get_title() for axis in figure.axes[:6]]
  assert titles == [
    'source: T1 (MRI)',
    'source: T2 (MRI)',
    'source: FLAIR (MRI)',
    'synthesis: T1CE (MRI)',
    'truth: T1CE (MRI)',
    'synthesis − truth',
  ]
  words = '\n'.join(texts(figure))
  assert 'brain T1 (MRI) + T2 (MRI) + FLAIR (MRI) → T1CE (MRI)' in words
  assert 'source: 0 to 700 a.u., 0 to 800 a.u., 0 to 900 a.u.; of' in words


def test_an_overview_has_a_row_for_every_source():
  figure = pictures.overview(
    {
      'brats_t1_to_t2': panel('brats_t1_to_t2'),
      'brats_t1+t2+flair_to_t1ce': several(),
    }
  )
  names = [axis.get_ylabel() for axis in figure.axes[::2]]
  assert names == ['source', 'source', 'source', 'synthesis', 'truth']
  shown = [[bool(axis.images) for axis in figure.axes[i::2]] for i in (0, 1)]
  assert shown == [[True, False, False, True, True], [True] * 5]
  assert figure.axes[1].get_title() == 'brain\nT1 + T2 + FLAIR → T1CE'
  for axis, level in zip(figure.axes[1:6:2], (0.3, 0.2, 0.1), strict=True):
    np.testing.assert_allclose(axis.images[0].get_array(), level)


def test_the_first_row_of_a_slice_is_at_the_top():
  figure = pictures.route_panel(panel())
  bottom, top = figure.axes[0].get_ylim()
  assert bottom > top


def test_a_route_panel_names_route_score_slices_windows_and_unit():
  words = '\n'.join(texts(pictures.route_panel(panel(), 0.8125)))
  for part in (
    'brain_mr_to_ct',
    'brain MRI → CT',
    'Subject S1: SSIM 0.812 over its slices',
    'source: MRI',
    'synthesis: CT',
    'truth: CT',
    'error (HU)',
    'slice 7',
    'slice 27',
    'Subject S1',
    'of the source: 0 to 812.5 a.u.',
    'of synthesis and truth: −1000 to 1000 HU',
    'Anterior is up',
  ):
    assert part in words
  pet = panel('whole_body_pet_to_ct', plane='coronal')
  words = '\n'.join(texts(pictures.route_panel(pet)))
  assert 'of the source: 0 (white) to 406.2 SUV (black); of synthesis' in words
  assert 'Superior is up' in words


@pytest.mark.parametrize(
  ('route', 'looks'),
  [
    ('whole_body_pet_to_ct', [('gray_r', (-1, 0)), ('gray', (-1, 1))]),
    ('whole_body_ct_to_pet', [('gray', (-1, 1)), ('gray_r', (-1, 0))]),
  ],
)
def test_pet_is_dark_where_it_is_high_and_ends_at_half_of_its_window(
  route, looks
):
  source, target = looks
  panels = {route: panel(route, slices=1)}
  drawn = images(pictures.route_panel(panels[route]))
  assert [(i.get_cmap().name, i.get_clim()) for i in drawn[:3]] == [
    source,
    target,
    target,
  ]
  drawn = images(pictures.overview(panels))
  assert [(i.get_cmap().name, i.get_clim()) for i in drawn] == [
    source,
    target,
    target,
  ]


@pytest.mark.parametrize(('slices', 'rows'), [(1, 1), (2, 2), (5, 3)])
def test_a_route_panel_has_at_most_three_rows(slices, rows):
  figure = pictures.route_panel(panel(slices=slices))
  assert len(images(figure)) == 4 * rows


@pytest.mark.parametrize('value', [False, True])
def test_a_mask_of_nothing_or_of_everything_has_no_outline(value):
  made = panel(mask=np.full((3, 16, 20), value))
  figure = pictures.route_panel(made)
  figure.draw_without_rendering()
  assert not figure.findobj(ContourSet)
  assert len(pictures.route_panel(panel()).findobj(ContourSet)) == 3


def test_the_error_bar_says_when_colours_end_before_the_error():
  made = panel()
  spike = made.synthesis.copy()
  spike[0, 4, 5] = 1
  figures = {
    extend: pictures.route_panel(dataclasses.replace(made, synthesis=x))
    for extend, x in (('neither', made.synthesis), ('both', spike))
  }
  for extend, figure in figures.items():
    assert images(figure)[-1].colorbar.extend == extend


def test_a_png_is_whole_and_pyplot_is_left_alone():
  figure = pictures.route_panel(panel())
  image = Image.open(io.BytesIO(pictures.to_png(figure, dpi=100)))
  image.load()
  size = 100 * figure.get_size_inches()
  np.testing.assert_allclose(image.size, size, rtol=0.1)
  # Black, white, grey, and an error in colour.
  assert len(set(image.convert('RGB').getdata())) > 3
  assert not plt.get_fignums()


def test_an_overview_shows_the_middle_slice_of_its_favourites_first():
  names = ['brats_t1_to_t2', 'pelvis_cbct_to_ct', 'brain_mr_to_ct']
  panels = {name: panel(name) for name in names}
  panels['brain_mr_to_ct'].truth[1] = 0.5
  figure = pictures.overview(panels)
  drawn = images(figure)
  assert len(drawn) == 9
  titles = [axis.get_title() for axis in figure.axes[:3]]
  assert titles == ['brain\nMRI → CT', 'brain\nT1 → T2', 'pelvis\nCBCT → CT']
  np.testing.assert_array_equal(drawn[6].get_array(), 0.5)


def test_an_overview_has_no_more_routes_than_asked():
  panels = {route.name: panel(route.name) for route in ROUTES}
  assert len(images(pictures.overview(panels))) == 3 * 8
  assert len(images(pictures.overview(panels, most=2))) == 3 * 2
  with pytest.raises(ValueError, match='at least one route'):
    pictures.overview({})


def question(task, answer, prediction, words, count, letters):
  rng = np.random.default_rng(0)
  shown = rng.uniform(-1, 1, (count, 12, 12)).astype(np.float32)
  return Question(task, words, answer, prediction, shown, letters)


def cts(prediction):
  letters = ('', *prompts.LETTERS)
  return question('cts', 'B', prediction, 'Which slice?', 5, letters)


def mi(prediction):
  answer = prompts.mi_answer(
    [Modality.CT, Modality.PET, Modality.T1, Modality.MR]
  )
  return question(
    'mi', answer, prediction, prompts.SHORT.mi[0], 4, tuple(prompts.LETTERS)
  )


def tia(prediction):
  words = f'{prompts.SHORT.tia[0]}\none A\ntwo B\nthree C\nfour D'
  labels = (prompts.TIA_SOURCE, prompts.TIA_TARGET)
  return question('tia', 'D', prediction, words, 2, labels)


def colors(figure):
  """The colour of every text that is not empty."""
  result = [text for text in figure.findobj(Text) if text.get_text()]
  return {text.get_text(): to_hex(text.get_color()).upper() for text in result}


def test_questions_are_shown_with_letters_answer_and_prediction():
  asked = [tia('D'), cts('C'), mi('A CT B MRI C T1 (MRI)'), cts('B')]
  figure = pictures.understanding_picture(asked)
  assert len(images(figure)) == 5 + 4 + 2
  words = texts(figure)
  assert [w[:3].strip() for w in words if w[:3] in ('CTS', 'MI ', 'TIA')] == [
    'CTS',
    'MI',
    'TIA',
  ]
  assert {'source', 'first', 'second', 'one A', 'three C'} <= set(words)
  assert '✗ model: C     right answer: B' in words
  assert '✓ model: D     right answer: D' in words


def test_a_wrong_choice_is_red_and_the_right_one_green():
  result = colors(pictures.understanding_picture([cts('C'), tia('A')]))
  assert result['B ✓'] == pictures.GREEN
  assert result['C ✗'] == pictures.RED
  assert result['four D ✓'] == pictures.GREEN
  assert result['one A ✗'] == pictures.RED
  assert result['✗ model: C     right answer: B'] == pictures.RED
  assert result['two B'] == '#000000'


def test_a_right_choice_has_no_cross():
  result = colors(pictures.understanding_picture([cts('B'), tia('D')]))
  assert not any('✗' in text for text in result)
  assert result['✓ model: B     right answer: B'] == pictures.GREEN


def test_every_panel_of_mi_says_what_it_was_taken_for():
  result = colors(pictures.understanding_picture([mi('A CT B MRI D MRI')]))
  assert result['✓ CT'] == pictures.GREEN
  assert result['✗ MRI\nis PET'] == pictures.RED
  assert result['✗ unread\nis T1 (MRI)'] == pictures.RED
  assert result['✓ MRI'] == pictures.GREEN


@pytest.mark.parametrize(
  ('given', 'shown'),
  [
    ('', '(empty)'),
    ('A ' * 200, 30 * 'A ' + '\n'),
    ('$\\bad$ <b>', '$\\bad$ <b>'),
  ],
  ids=['empty', 'endless', 'markup'],
)
def test_any_prediction_is_shown_within_the_picture(given, shown):
  figure = pictures.understanding_picture([cts(given)])
  figure.draw_without_rendering()
  (words,) = (
    text for text in figure.findobj(Text) if ' model: ' in text.get_text()
  )
  assert shown in words.get_text()
  box = words.get_window_extent()
  assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
  assert 0 <= box.y0 < box.y1 <= figure.bbox.y1


def stage(name, rows):
  return Stage(Path('run'), {'stage': name}, {}, rows)


def rows(**values):
  return [
    {
      'step': 10.0 * (i + 1),
      **{k.replace('__', '/'): v / (i + 1) for k, v in values.items()},
    }
    for i in range(4)
  ]


def test_curves_have_a_column_per_stage_and_a_row_per_kind():
  stages = [
    stage('autoencoder', rows(loss=1, l1=0.9, kl=50)),
    stage('gau', rows(loss=3, ntp__mi=1, ntp__tia=2, token_accuracy__mi=0.5)),
    stage('ucg', rows(loss=2, flow=2, val__loss=2.5)),
  ]
  figure = charts.loss_curves(stages)
  axes = np.array(figure.axes).reshape(3, 3)
  assert [[a.axison for a in line] for line in axes] == [
    [True, True, True],
    [True, True, False],  # the flow is the whole loss of Stage II
    [False, True, False],
  ]
  assert [a.get_title() for a in axes[0]] == [
    'Stage 0, autoencoder',
    'Stage I, understanding',
    'Stage II, synthesis',
  ]
  training, validation = axes[0, 2].lines
  np.testing.assert_allclose(training.get_xdata(), [10, 20, 30, 40])
  np.testing.assert_allclose(training.get_ydata(), [2, 1, 2 / 3, 0.5])
  np.testing.assert_allclose(validation.get_ydata()[0], 2.5)
  assert axes[1, 0].get_yscale() == 'log'
  assert axes[1, 1].get_yscale() == 'linear'
  labels = [t.get_text() for t in axes[1, 1].get_legend().get_texts()]
  assert labels == ['MI', 'TIA']
  for axis in (axes[0, 2], axes[1, 0], axes[2, 1]):
    assert axis.get_xlabel() == 'step'


def test_the_terms_of_the_detail_path_are_parts_of_the_loss():
  terms = {'flow': 1.0, 'pixels': 0.5, 'edges': 0.25}
  figure = charts.loss_curves([stage('ucg', rows(loss=1.75, **terms))])
  _, parts = figure.axes
  labels = [t.get_text() for t in parts.get_legend().get_texts()]
  assert labels == list(terms)
  training = [line.get_ydata()[0] for line in parts.lines[::2]]
  assert training == list(terms.values())


def test_a_loss_that_is_not_a_number_leaves_its_axis_empty():
  figure = charts.loss_curves([stage('ucg', rows(loss=float('nan')))])
  figure.draw_without_rendering()
  (axis,) = figure.axes
  assert axis.get_title() == 'Stage II, synthesis'
  assert axis.get_yscale() == 'linear'
  assert np.isnan(axis.lines[0].get_ydata()).all()


def metrics(scores):
  return {
    'synthesis': scores,
    'summary': {'wins': 1, 'routes': len(scores)},
  }


def test_bars_show_every_method_of_every_route():
  scores = {route.name: score(0.3 + 0.02 * i) for i, route in enumerate(ROUTES)}
  axis = charts.route_bars(metrics(scores)).axes[0]
  labels = [label.get_text() for label in axis.get_yticklabels()]
  assert labels == [pictures.route_title(route) for route in ROUTES]
  widths = [bar.get_width() for bar in axis.patches]
  assert widths[::3] == pytest.approx([s['ssim'] for s in scores.values()])
  assert widths[1::3] == pytest.approx([0.4] * 22)
  assert widths[2::3] == pytest.approx([0.3] * 22)
  assert len(axis.collections) == 22
  low, high = axis.get_ylim()
  assert low > high  # the first route is at the top


def test_no_label_of_the_bars_covers_another():
  scores = {route.name: score() for route in ROUTES}
  figure = charts.route_bars(metrics(scores))
  figure.draw_without_rendering()
  boxes = [
    label.get_window_extent() for label in figure.axes[0].get_yticklabels()
  ]
  for above, below in itertools.pairwise(boxes):
    assert above.y0 > below.y1
  assert min(box.x0 for box in boxes) >= 0


def test_a_missing_ceiling_has_no_line_and_a_negative_ssim_is_in_view():
  without = score(0.1, mean_target=-0.2)
  del without['baselines']['ceiling']
  axis = charts.route_bars(metrics({'brain_mr_to_ct': without})).axes[0]
  assert not axis.collections
  assert axis.get_xlim()[0] == pytest.approx(-0.2)


def test_a_negative_bar_stays_clear_of_the_names():
  figure = charts.route_bars(
    metrics({'brain_mr_to_ct': score(0.1, copy_source=-0.5)})
  )
  figure.draw_without_rendering()
  (axis,) = figure.axes
  (name,) = axis.get_yticklabels()
  lowest = min(bar.get_window_extent().x0 for bar in axis.patches)
  assert name.get_window_extent().x1 < lowest


def test_only_wins_are_marked():
  scores = {
    'brain_mr_to_ct': score(0.7),
    'brain_ct_to_mr': score(0.2, win=False),
  }
  words = texts(charts.route_bars(metrics(scores)))
  assert '0.700 win' in words
  assert '0.200' in words


def test_the_confusion_is_coloured_by_share_and_says_counts():
  confusion = {
    'truth': ['CT', 'PET'],
    'given': ['CT', 'PET', 'unread'],
    'counts': [[6, 2, 0], [0, 0, 0]],
  }
  figure = charts.confusion_picture('mi', confusion)
  (image,) = figure.axes[0].images
  np.testing.assert_allclose(image.get_array(), [[0.75, 0.25, 0], [0, 0, 0]])
  assert [text.get_text() for text in figure.axes[0].texts] == ['6', '2']
