"""A model with instant answers, and the app that serves it."""

import contextlib
import dataclasses
import socket
import threading
import time

import nibabel as nib
import numpy as np
import uvicorn

from synermedgen_jax.core.modalities import Modality, route_named
from synermedgen_jax.inference import sidecar
from synermedgen_jax.inference.asking import Answers
from synermedgen_jax.inference.predicting import predict_request
from synermedgen_jax.inference.prediction import Findings, Prediction
from synermedgen_jax.inference.prediction_inputs import Request
from synermedgen_jax.inference.reading import Reading
from synermedgen_jax.serving.model import Asked
from synermedgen_jax.serving.server import make_app
from synermedgen_jax.slices import grids
from synermedgen_jax.slices.case import Case
from synermedgen_jax.slices.volumes import Volume, read_volume
from synermedgen_jax.slices.windows import Window
from synermedgen_jax.tasks import cts
from synermedgen_jax.tasks.pairs import Pair, Pool
from synermedgen_jax.tasks.prompts import SHORT

MR, CT = Modality.MR, Modality.CT
ROUTES = tuple(map(route_named, ('brain_mr_to_ct', 'brain_ct_to_mr')))
WINDOWS = {CT: Window(-1000.0, 1000.0), MR: Window(0.0, 1000.0)}
SHAPE = (24, 20, 8)
SPACING = np.diag([2.0, 2.0, 3.0, 1.0])


def ball():
  """Distance from the centre, as a share of the half axes."""
  axes = [np.linspace(-1, 1, n) for n in SHAPE]
  return np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing='ij')))


def write_pair(folder):
  """mr.nii.gz and ct.nii.gz of a ball whose values differ everywhere."""
  folder.mkdir(parents=True, exist_ok=True)
  grain = np.random.default_rng(0).random(SHAPE)
  inside = ball() < 0.8
  values = {
    'mr': np.where(inside, 300 + 500 * grain, 5 * grain),
    'ct': np.rint(np.where(inside, -100 + 300 * grain, -1000 + 9 * grain)),
  }
  for name, data in values.items():
    image = nib.Nifti1Image(data.astype(np.float32), SPACING)
    nib.save(image, folder / f'{name}.nii.gz')
  return folder


@dataclasses.dataclass(frozen=True)
class FakePredictor:
  """Turns the values of a source upside down, in the target's window."""

  def predict(self, volumes, route, *, names, progress):
    (volume,) = volumes.values()
    own, window = WINDOWS[route.source], WINDOWS[route.target]
    for _ in range(volume.data.shape[2]):
      progress(1)
    data = window.denormalise(-own.normalise(volume.data))
    answers = {'cts': Answers([], [], right=10, asked=16, chance=0.25)}
    findings = Findings(
      {route.source: Reading({route.source: 16}, 16)},
      Reading({route.target: 16}, 16),
      answers,
      warnings=(f'{names[route.source]}: is a ball.',),
    )
    return Prediction(Volume(data, volume.affine), window, findings)


class FakeRuns:
  """The part of `Runs` that `predict_request` needs."""

  predictor = FakePredictor()

  def record(self, request, names=None):
    return sidecar.request_record(
      request.route,
      request.files,
      request.series,
      [],
      [],
      seed=0,
      window=WINDOWS[request.route.target],
      names=names,
    )


class FakeModel:
  """See `serving.model.Model`.

  Attributes:
    gate: a translation pauses before each slice until it is set.
    began: set when a translation waits at the gate.
  """

  title = 'runs/fake'
  routes = ROUTES
  answers = True

  def __init__(self):
    self.gate, self.began = threading.Event(), threading.Event()
    self.gate.set()

  def count(self, volume):
    return volume.data.shape[2]

  def read(self, volume, modality):
    return Reading({CT if volume.data.min() < -500 else MR: 16}, 16)

  def predict(self, request, sources, names, progress):
    def paused(count):
      self.began.set()
      assert self.gate.wait(30)
      progress(count)

    return predict_request(
      request, sources, FakeRuns(), names=names, progress=paused
    )

  def ask(self, volumes, route):
    slices = {
      m: WINDOWS[m].normalise(grids.to_slices(v.data))
      for m, v in volumes.items()
    }
    count = len(slices[route.source])
    case = Case(
      'pair',
      dataset='pair',
      subject='pair',
      region=route.region,
      modalities=dict.fromkeys(volumes, Window(-1.0, 1.0)),
      sources={},
      shape=slices[route.source].shape,
      affine=tuple(map(tuple, np.eye(4).tolist())),
      plane='axial',
      usable=range(count),
    )
    pool, rng = Pool([case], SHORT, 3), np.random.default_rng(0)
    examples = [cts.build(Pair(case, route, i), pool, rng) for i in (3, 4)]
    wrong = next(x for x in 'ABCD' if x != examples[1].answer)
    answers = Answers(
      examples, [examples[0].answer, wrong], right=1, asked=2, chance=0.25
    )
    return Asked({'cts': answers}, slices)


def predicted(source, output):
  """What `predict` writes for `mr.nii.gz`, with the fake model."""
  route = ROUTES[0]
  request = Request('mr', route, {MR: source}, output)
  model = FakeModel()
  model.predict(
    request, {MR: read_volume(source)}, {MR: source}, lambda count: None
  )
  return output


@dataclasses.dataclass
class Served:
  """A server that runs.

  Attributes:
    url: its address, without a slash at the end.
    port: its port.
    model: a `FakeModel`.
    root: folder of its sessions.
    state: the `server.App`.
  """

  url: str
  port: int
  model: FakeModel
  root: object
  state: object


@contextlib.contextmanager
def serve(root, *, limit=50_000_000):
  """Serves a `FakeModel` in a thread, at a free port of 127.0.0.1."""
  root.mkdir(parents=True)
  model = FakeModel()
  with socket.socket() as listening:
    listening.bind(('127.0.0.1', 0))
    listening.listen()
    port = listening.getsockname()[1]
    app = make_app(model, root, port=port, limit=limit)
    config = uvicorn.Config(app, log_level='warning', access_log=False)
    server = uvicorn.Server(config)
    app.state.ending = lambda: server.should_exit
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
      yield Served(f'http://127.0.0.1:{port}', port, model, root, app.state)
    finally:
      model.gate.set()
      server.should_exit = True
      thread.join(20)
  assert not thread.is_alive()


def eventually(condition, seconds=20):
  """Waits until a condition is true; returns its value."""
  end = time.monotonic() + seconds
  while not (value := condition()):
    assert time.monotonic() < end, 'it does not happen'
    time.sleep(0.05)
  return value
