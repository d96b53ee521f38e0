import re
from importlib import metadata

import pytest

from synermedgen_jax.reporting import niivue


def test_the_installed_wheel_has_the_module():
  module = niivue.niivue_module()
  assert len(module) > 1e6
  _, _, exports = module.rpartition('export{')
  names = set(re.findall(r'[\w$]+', exports))
  assert {'Niivue', 'NVImage', 'SLICE_TYPE'} <= names


def test_the_module_imports_no_other():
  module = niivue.niivue_module()
  assert not re.search(r'(^|;)\s*import[\s{*"\']', module)


class Package:
  version = '9.9'

  def __init__(self, script):
    self._script = script

  def locate_file(self, name):
    return self

  def read_text(self, encoding):
    if self._script is None:
      raise FileNotFoundError
    return self._script


@pytest.mark.parametrize(
  ('script', 'message'),
  [
    (None, 'is not installed'),
    ('var a = 1;', r'ipyniivue 9\.9 has no module'),
    ('"' + 'a' * 1_000_000 + '"', r'ipyniivue 9\.9 has no module'),
  ],
)
def test_a_wheel_without_the_module_is_refused(script, message, monkeypatch):
  monkeypatch.setattr(metadata, 'distribution', lambda _: Package(script))
  with pytest.raises(niivue.NiivueMissing, match=message):
    niivue.niivue_module.__wrapped__()
