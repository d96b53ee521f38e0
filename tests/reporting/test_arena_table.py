"""The tables of an arena from hand-made standings."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from synermedgen_jax.evaluation.standings import Standing
from synermedgen_jax.planning.arena import Training
from synermedgen_jax.reporting.arena_table import (
  Entry,
  costs,
  markdown,
  record,
)


def standing(ssim, *, rank, leads, difference=None, seeds=('0',)):
  routes = {
    'brain_mr_to_ct': {'ssim': ssim, 'psnr': 20.0, 'mae': 100.0},
    'brain_ct_to_mr': {'ssim': ssim - 0.1, 'psnr': 22.0, 'mae': 7.0},
  }
  scores = {'ssim': ssim - 0.05, 'psnr': 21.0, 'mae': 53.5}
  return Standing(
    scores,
    (ssim - 0.1, ssim),
    difference,
    rank,
    leads,
    routes,
    dict.fromkeys(seeds, ssim),
    ceiling=0.9 if difference else None,
  )


TABLE = {
  'unet': standing(0.8, rank=1, leads=2, difference=(0.1, 0.05, 0.15)),
  'synermedgen': standing(0.7, rank=2, leads=0),
  'copy_source': standing(
    0.2, rank=3, leads=0, difference=(-0.5, -0.6, -0.4), seeds=()
  ),
}
ENTRIES = {
  name: Entry(
    system=name,
    title=title,
    scope='all',
    paired=True,
    departures=departures,
    trained=2_010_000,
    used=1_000_000,
    images=24_000,
    operations=2.16e13,
    steps={'unet': 1500},
    slice_operations=2.5e8,
    seconds=0.0123,
  )
  for name, title, departures in (
    ('unet', 'U-Net', ('2-D slices', 'no patches')),
    ('synermedgen', 'Ours', ()),
  )
}
SETTINGS = {
  'budget': 'images:24000',
  'slices': 6,
  'split': 'test',
  'subjects': 24,
  'reference': 'synermedgen',
}


def rows(page, start):
  """The cells of the table after a heading."""
  lines = page.partition(f'## {start}\n')[2].strip().splitlines()
  table = [line for line in lines if line.startswith('|')]
  return [[cell.strip() for cell in line[1:-1].split('|')] for line in table]


def test_a_row_has_every_fact_of_a_system():
  head, _, unet, ours, copy, *_ = rows(
    markdown(TABLE, ENTRIES, SETTINGS), 'Systems'
  )
  assert head[3] == 'difference from Ours (95 %)'
  assert unet == [
    *('1', 'U-Net', '0.750 (0.700–0.800)', '+0.100 (+0.050 to +0.150)'),
    *('1', '0.900', '2'),
    # The MAE of the route to CT alone, in HU.
    *('21.0', '100', 'all', 'paired', '2.01 M / 1.00 M', '24,000', '21.6'),
    *('0.25', '0.012'),
  ]
  assert ours[3] == ours[5] == '–'
  assert copy[1] == 'copy of the source'
  assert head[4] == 'seeds'
  assert copy[4] == '–'
  assert copy[-7:] == ['–'] * 7


def test_several_seeds_show_their_spread():
  table = TABLE | {
    'unet': dataclasses.replace(
      TABLE['unet'], seeds={'0': 0.76, '1': 0.74, '2': 0.75}
    )
  }
  _, _, unet, *_ = rows(markdown(table, ENTRIES, SETTINGS), 'Systems')
  assert unet[4] == '3 (0.740–0.760)'


def test_the_best_system_of_a_route_is_bold():
  table = rows(markdown(TABLE, ENTRIES, SETTINGS), 'SSIM by route')
  assert ['brain_ct_to_mr', '**0.700**', '0.600', '0.100'] in table


def test_departures_are_listed_by_system():
  page = markdown(TABLE, ENTRIES, SETTINGS)
  assert '* **U-Net**: 2-D slices; no patches.' in page
  assert '* **Ours**' not in page


def test_the_record_is_json_with_all_facts():
  read = json.loads(json.dumps(record(TABLE, ENTRIES, SETTINGS)))
  assert read['systems']['unet']['facts']['operations'] == 2.16e13
  assert read['systems']['unet']['facts']['steps'] == {'unet': 1500}
  assert 'facts' not in read['systems']['copy_source']
  # HU of the route to CT; the other route has another unit.
  assert read['systems']['unet']['scores'] == {
    'ssim': pytest.approx(0.75),
    'psnr': 21.0,
    'mae_to_ct': 100.0,
  }


def test_one_subject_has_no_interval():
  nothing = (math.nan, math.nan)
  table = {
    name: dataclasses.replace(
      standing,
      interval=nothing,
      difference=standing.difference and (standing.difference[0], *nothing),
    )
    for name, standing in TABLE.items()
  }
  page = markdown(table, ENTRIES, SETTINGS | {'subjects': 1})
  assert '2 routes, 1 subject of split' in page
  _, _, unet, *_ = rows(page, 'Systems')
  assert unet[2:4] == ['0.750', '+0.100']
  read = json.loads(json.dumps(record(table, ENTRIES, SETTINGS)))
  assert read['systems']['unet']['interval'] is None
  assert read['systems']['unet']['difference'] == [
    pytest.approx(0.1),
    None,
    None,
  ]


def test_costs_are_summed_and_aligned():
  training = Training(
    'c.py', {}, Path('w'), 100, 1600.0, 5.4e13, False, {'a': 10}, 5, {}
  )
  other = dataclasses.replace(training, workdir=Path('v'))
  text = costs(
    [
      ('unet', Path('runs/0/unet'), [training, other]),
      ('unet_2', Path('runs/0/unet_2'), [training]),
    ],
    30e9,
  )
  head, unet, _, total, note = text.splitlines()
  assert unet.split() == [
    *('unet', 'runs/0/unet', '2', '200', '3,200', '108.0', '1.00')
  ]
  # The training in the folder w is that of both.
  assert total.split() == ['total', '108.0', '1.00']
  assert len(head) == len(unet) == len(total)
  assert '30 GFLOP/s' in note
  assert 'counts a stage that systems share once' in note
