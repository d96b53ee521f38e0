"""The chip of a device, by its name in JAX."""

import types

import jax
import pytest

from synermedgen_jax.core import chips
from synermedgen_jax.core.chips import Chip, chip_of


def device(kind):
  return types.SimpleNamespace(device_kind=kind)


@pytest.mark.parametrize(
  ('kind', 'name', 'tflops'),
  [
    ('TPU v5 lite', 'v5e', 197),
    ('TPU v5', 'v5p', 459),
    ('TPU v6 lite', 'v6e', 918),
    ('TPU v4', 'v4', 275),
    ('NVIDIA A100-SXM4-80GB', 'a100', 312),
    ('NVIDIA H100 80GB HBM3', 'h100', 989),
    ('NVIDIA H200', 'h200', 989),
  ],
)
def test_a_chip_is_known_by_how_its_kind_begins(kind, name, tflops):
  chip = chip_of(device(kind))
  assert (chip.name, chip.tflops) == (name, tflops)


@pytest.mark.parametrize('turn', [1, -1])
def test_the_longest_beginning_decides_whatever_the_order(monkeypatch, turn):
  listed = (Chip('short', 'A', 1, 1), Chip('long', 'A b', 1, 1))[::turn]
  monkeypatch.setattr(chips, 'CHIPS', listed)
  assert chip_of(device('A b c')).name == 'long'
  assert chip_of(device('A c')).name == 'short'


@pytest.mark.parametrize('kind', ['cpu', 'TPU v3', 'NVIDIA T4', '', 'a TPU v4'])
def test_a_device_that_is_not_listed_is_no_chip(kind):
  assert chip_of(device(kind)) is None


def test_the_cpu_is_no_chip():
  assert chip_of(jax.devices('cpu')[0]) is None
