"""NiiVue, the WebGL viewer of volumes, from the installed ipyniivue.

The wheel of ipyniivue has one script, `static/widget.js`. It holds NiiVue as an
ES module in a percent-encoded string, which ipyniivue writes into pages that it
saves. No other package of the registry has that module, and a page without
network needs it within itself.
"""

from __future__ import annotations

import functools
import re
from importlib import metadata
from urllib.parse import unquote

from synermedgen_jax.core.errors import UserError

_PACKAGE = 'ipyniivue'
_FILE = 'ipyniivue/static/widget.js'
# Characters that JavaScript's encodeURIComponent leaves or writes.
_ENCODED = re.compile(r"[A-Za-z0-9%_.!~*'()-]{1000000,}")
_EXPORTED = ('Niivue', 'NVImage', 'SLICE_TYPE')


class NiivueMissing(UserError):
  """The installed ipyniivue has no bundle of NiiVue."""


@functools.cache
def niivue_module() -> str:
  """The source of NiiVue as an ES module without imports, about 2.4 MB.

  Raises:
    NiivueMissing: ipyniivue is not installed, or has no such module.
  """
  try:
    package = metadata.distribution(_PACKAGE)
    script = package.locate_file(_FILE).read_text('utf-8')
  except (metadata.PackageNotFoundError, OSError):
    raise NiivueMissing(
      f'{_PACKAGE} is not installed, and the viewer of a report needs it; '
      'install it with pip install -r requirements.txt.'
    ) from None
  for encoded in _ENCODED.findall(script):
    module = unquote(encoded)
    _, _, exports = module.rpartition('export{')
    if all(re.search(rf'\b{name}\b', exports) for name in _EXPORTED):
      return module
  raise NiivueMissing(
    f'{_PACKAGE} {package.version} has no module of NiiVue in {_FILE}; install '
    'the version of requirements.txt.'
  )
