"""Writes what a container of a trained model is built from.

Dockerfile         image of a program that runs as a user without rights
requirements.txt   the library's requirements, in the versions of this machine
synermedgen_jax/   the library
weights/           a weights folder in the dtype of the computation
container.json     the route, for `python -m synermedgen_jax.container`
"""

from __future__ import annotations

import json
import re
import shutil
from importlib import metadata
from pathlib import Path

import synermedgen_jax
from synermedgen_jax.core import files
from synermedgen_jax.core.commit import commit
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import (
  Modality,
  Region,
  Route,
  find_route,
)
from synermedgen_jax.inference.challenge import check_interface
from synermedgen_jax.inference.shipping import ship
from synermedgen_jax.inference.workdir import RunRecord

SETTINGS, WEIGHTS = 'container.json', 'weights'
_PACKAGE = 'synermedgen_jax'
_DISTRIBUTION = 'synermedgen-jax'
_DOCKERFILE = f"""\
FROM python:3.12-slim

# grand-challenge.org refuses images that run as root.
RUN groupadd --system user && \\
    useradd --system --create-home --no-log-init --gid user user && \\
    mkdir -p /opt/app /input /output && \\
    chown user:user /opt/app /input /output

WORKDIR /opt/app
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

COPY requirements.txt /opt/app/
RUN python -m pip install --no-cache-dir --requirement requirements.txt

COPY --chown=user:user {WEIGHTS} /opt/app/{WEIGHTS}
COPY --chown=user:user {_PACKAGE} /opt/app/{_PACKAGE}
COPY --chown=user:user {SETTINGS} /opt/app/

USER user
ENTRYPOINT ["python", "-m", "{_PACKAGE}.container"]
"""


class ContextError(UserError):
  """A run that no container can have; one line that names it."""


def write_context(workdir: Path, output: Path, route: Route) -> None:
  """Writes the build context of a container for one route of a run.

  Args:
    workdir: workdir of a run that was trained on `route`.
    output: the new folder; it appears when it is complete.
    route: from MR or CBCT to CT.

  Raises:
    CaseError: the challenge does not have the route.
    ContextError: the run was not trained on it, or needs modules of a project.
    UserError: `output` exists, or as of `shipping.ship`.
  """
  check_interface(route)
  record = RunRecord.load(str(workdir))
  if route.name not in (record.routes or ()):
    known = ', '.join(record.routes or ()) or 'no route that it recorded'
    raise ContextError(
      f'{workdir}: was not trained on {route.name}, only on {known}; choose '
      'one of these, or another run.'
    )
  if modules := record.config.get('modules'):
    raise ContextError(
      f'{workdir}: needs {", ".join(modules)}, which the container lacks; pack '
      'a run of the library.'
    )
  with files.new_folder(output) as folder:
    weights = folder / WEIGHTS
    weights.mkdir()
    dtype = record.config.get('compute', {}).get('dtype', 'float32')
    ship(workdir, weights, dtype=dtype)
    _copy_package(folder / _PACKAGE)
    files.write_text(folder / 'requirements.txt', requirements())
    files.write_json(
      folder / SETTINGS,
      {'source': route.source, 'target': route.target, 'region': route.region},
    )
    files.write_text(folder / 'Dockerfile', _DOCKERFILE)


def read_route(context: Path) -> Route:
  """The route of a build context.

  Raises:
    ContextError: the folder has no valid container.json.
  """
  path = context / SETTINGS
  try:
    settings = json.loads(path.read_text('utf-8'))
    return find_route(
      Region.parse(settings['region']),
      [Modality.parse(settings['source'])],
      Modality.parse(settings['target']),
    )
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise ContextError(
      f'{path}: names no route ({error}); write the folder with '
      'python -m synermedgen_jax.pack.'
    ) from None


def _copy_package(folder: Path) -> None:
  """Copies the library, which then names its commit without git."""
  shutil.copytree(
    Path(synermedgen_jax.__file__).parent,
    folder,
    ignore=shutil.ignore_patterns('__pycache__', '.*'),
  )
  if known := commit():
    files.write_text(folder / 'COMMIT', f'{known}\n')


def requirements() -> str:
  """Lines NAME==VERSION, of the library's requirements without extras."""
  try:
    lines = metadata.requires(_DISTRIBUTION) or []
  except metadata.PackageNotFoundError:  # a repository that is not installed
    path = Path(synermedgen_jax.__file__).parents[1] / 'requirements.txt'
    lines = path.read_text('utf-8').splitlines()
  names = [
    re.match(r'[\w.-]+', line)[0]
    for line in lines
    if re.match(r'\w', line) and 'extra ==' not in line
  ]
  return ''.join(f'{name}=={metadata.version(name)}\n' for name in names)
