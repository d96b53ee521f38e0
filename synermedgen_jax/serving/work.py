"""The jobs of the pages: read, translate, compare, ask.

Every function runs in the thread of `jobs`, and returns JSON values for the
page. Messages name files as the user does, without temporary folders. `series`
is the DICOM series that the page asks for; '' = the only one.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from synermedgen_jax.core import files
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality, Route
from synermedgen_jax.inference import sidecar
from synermedgen_jax.inference.prediction_inputs import Request
from synermedgen_jax.inference.reading import Doubt
from synermedgen_jax.reporting import prediction_page
from synermedgen_jax.reporting.viewer import Case, Contents
from synermedgen_jax.serving import display
from synermedgen_jax.serving.jobs import Job
from synermedgen_jax.serving.model import Model
from synermedgen_jax.serving.sessions import Session, Upload
from synermedgen_jax.serving.uploads import check_contents, shape_check
from synermedgen_jax.slices.input_files import volume_stem
from synermedgen_jax.slices.units import suspicious_units
from synermedgen_jax.slices.volumes import Volume, read_volume
from synermedgen_jax.slices.windows import Window

Run = Callable[[Job], dict[str, Any]]
_VIEWER = 'viewer.html'


class RefusedError(UserError):
  """A volume that is translated only where the user insists; one line."""


@dataclasses.dataclass(eq=False)
class Result:
  """A synthesised volume.

  Attributes:
    folder: its folder, with `volume`, `record` and the viewer.
    volume, record: names of the NIfTI file and of the JSON record.
    source: name of the source.
    route: the route.
    window: values of black and white in the volume.
    findings: texts, as of `prediction_page.described`.
    case: what the viewer shows.
    notes: lines about the comparison with a true volume.
  """

  folder: Path
  volume: str
  record: str
  source: str
  route: Route
  window: Window
  findings: dict[str, Any]
  case: Case
  notes: Sequence[str] = ()

  @property
  def viewer(self) -> Markup:
    """The viewer as a part of a page."""
    return Markup((self.folder / _VIEWER).read_text('utf-8'))

  def write_viewer(self, nonce: str) -> None:
    """Packs the case, which takes seconds for a large volume."""
    contents = Contents()
    contents.add(self.case)
    files.write_text(self.folder / _VIEWER, contents.html(nonce))


@contextlib.contextmanager
def named(upload: Upload) -> Iterator[None]:
  """Replaces the path of an upload by its name in errors."""
  try:
    yield
  except (UserError, OSError) as error:
    line = str(error).replace(str(upload.path), upload.name)
    raise UserError(line.replace(f'{upload.folder}/', '')) from error


def _read(upload: Upload, series: str, limit: int) -> Volume:
  check_contents(upload, limit)
  fits = shape_check(upload.name, limit)
  with named(upload):
    return read_volume(upload.path, series=series, check_shape=fits)


def refusal_of(upload: Upload, volume: Volume, modality: Modality) -> str:
  """Why the values are not those of the modality; '' if they may be."""
  for sign in suspicious_units(modality, volume):
    unit = '' if modality.unit == 'a.u.' else f' in {modality.unit}'
    return f'{upload.name}: as {modality.label}{unit}: {sign}'
  return ''


def read(
  model: Model, upload: Upload, series: str, modality: Modality, limit: int
) -> Run:
  """Reads a volume: what it is, and what the model sees in it.

  The job returns 'title', the level 'ok', 'warning' or 'refused', and 'lines'.
  """

  def run(job: Job) -> dict[str, Any]:
    volume = _read(upload, series, limit)
    job.advance()
    shape = ' × '.join(map(str, volume.data.shape))
    sizes = ' × '.join(f'{s:.3g}' for s in volume.spacing)
    title = f'{upload.name}: {shape} voxels of {sizes} mm.'
    refusal = refusal_of(upload, volume, modality)
    reading = model.read(volume, modality)
    doubt = Doubt.NONE if reading is None else reading.doubt(modality)
    lines = [refusal] if refusal else []
    if doubt is Doubt.NONE:
      lines.append(f'Read as {reading}.' if reading else 'This run reads none.')
    else:
      lines.append(
        f'Stated as {modality.label}, but the model reads {reading}.'
      )
    if doubt is Doubt.OTHER_FAMILY:
      refusal = refusal or lines[-1]
    upload.refusals[series, modality] = refusal
    level = 'refused' if refusal else 'warning' if doubt.value else 'ok'
    return {'title': title, 'level': level, 'lines': lines}

  return run


def check_allowed(
  upload: Upload, series: str, modality: Modality, anyway: bool
) -> None:
  """Refuses a volume that has not been read, or that was refused.

  Raises:
    RefusedError: it may be translated with `anyway` only, or not yet.
  """
  refusal = upload.refusals.get((series, modality))
  if refusal is None:
    raise RefusedError(
      f'{upload.name}: is not read as {modality.label} yet; wait for the line '
      'that says how it is read.'
    )
  if refusal and not anyway:
    raise RefusedError(
      f'{refusal.rstrip(".")}. Select another modality, or tick “translate '
      'anyway”.'
    )


def translate(
  model: Model,
  session: Session,
  upload: Upload,
  series: str,
  route: Route,
  limit: int,
  nonce: str,
) -> Run:
  """Synthesises the target; the job returns the id of the `Result`."""

  def run(job: Job) -> dict[str, Any]:
    volume = _read(upload, series, limit)
    job.total = model.count(volume)
    job.advance()
    stem = volume_stem(Path(upload.files[0]))
    with session.result_folder() as folder:
      output = folder / f'{stem}_{route.target}.nii.gz'
      request = Request(
        stem,
        route,
        {route.source: upload.path},
        output,
        {route.source: series},
      )
      names = {route.source: Path(upload.name)}
      with named(upload):
        written = model.predict(
          request, {route.source: volume}, names, job.advance
        )
      job.advance()
      result = Result(
        folder,
        output.name,
        sidecar.sidecar_path(output).name,
        upload.name,
        route,
        written.prediction.window,
        prediction_page.described(written.prediction.findings),
        prediction_page.shown_case(written, upload.name),
      )
      result.write_viewer(nonce)
      job.advance()  # a stopped one is not kept
    return {'result': session.add_result(result)}

  return run


def compare(
  result: Result, truth: Upload, series: str, limit: int, nonce: str
) -> Run:
  """Adds a true volume to the viewer of a result."""

  def run(job: Job) -> dict[str, Any]:
    volume = _read(truth, series, limit)
    target = result.route.target
    refusal = refusal_of(truth, volume, target)
    if refusal:
      raise UserError(refusal)
    job.advance()
    synthesis = read_volume(result.folder / result.volume)
    result.case, result.notes = display.compared(
      result.case, synthesis, volume, target, result.window
    )
    result.write_viewer(nonce)
    return {}

  return run


def ask(
  model: Model, uploads: tuple[Upload, Upload], route: Route, limit: int
) -> Run:
  """Asks the tasks about two volumes.

  The job returns 'rows' as of `prediction_page.answer_rows`, 'question' as of
  `display.shown_question`, and 'lines', warnings.
  """

  def run(job: Job) -> dict[str, Any]:
    volumes, lines = {}, []
    for upload, modality in zip(
      uploads, (route.source, route.target), strict=True
    ):
      volumes[modality] = _read(upload, '', limit)
      refusal = refusal_of(upload, volumes[modality], modality)
      lines += [refusal] if refusal else []
      job.advance()
    asked = model.ask(volumes, route)
    if not asked.answers:
      raise UserError(
        'No question can be asked about these volumes: none of the slices '
        'shows the body.'
      )
    return {
      'lines': lines,
      'rows': prediction_page.answer_rows(asked.answers),
      'question': display.shown_question(asked),
    }

  return run
