"""The command app: its start, and that it predicts what predict predicts."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import commands
import httpx
import nibabel as nib
import numpy as np
import pytest
from commands import ROOT, assert_refused
from starlette.testclient import TestClient
from store_fakes import CANVAS

from synermedgen_jax.inference.prediction_runs import PredictSettings, Runs
from synermedgen_jax.inference.volume import Synthesiser
from synermedgen_jax.serving.model import ServedModel
from synermedgen_jax.serving.server import make_app

PORT = 7860
HOME = f'http://127.0.0.1:{PORT}'


def test_a_port_that_is_taken_is_refused_at_once():
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    taken.listen()
    port = taken.getsockname()[1]
    result = commands.run('app', '--workdir=RUN', f'--port={port}')
  assert_refused(result, f'Error: --port={port}: is taken; name another one')


def test_a_folder_that_is_no_run_is_refused(tmp_path):
  result = commands.run('app', f'--workdir={tmp_path}', '--port=0', '--noopen')
  assert_refused(result, f'{tmp_path}: has no config.json')


def test_without_the_extra_the_command_says_what_to_install(monkeypatch):
  from importlib import util

  def find_spec(name, *arguments):
    return None if name == 'uvicorn' else real(name, *arguments)

  real = util.find_spec
  monkeypatch.setattr(util, 'find_spec', find_spec)
  result = commands.run('app', '--workdir=RUN')
  assert_refused(
    result, "The app needs uvicorn: pip install 'synermedgen-jax[app]'"
  )


def test_help_needs_neither_the_extra_nor_jax():
  code = (
    'import sys, runpy; sys.argv = ["app", "--help"]\n'
    'try: runpy.run_module("synermedgen_jax.app", run_name="__main__")\n'
    'finally: print({"jax", "uvicorn", "starlette"} & set(sys.modules))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert '--max_upload_mb' in done.stdout
  assert done.stdout.splitlines()[-1] == 'set()'


SERVE = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the test may run under nohup
sys.path[:0] = ['tests', 'tests/serving']
from serving_fakes import FakeModel
from synermedgen_jax import app
from synermedgen_jax.config.command_line import run_command
from synermedgen_jax.inference import prediction_runs
from synermedgen_jax.serving.model import ServedModel
prediction_runs.Runs = lambda settings: None
ServedModel.load = lambda runs: FakeModel()
sys.argv = ['app', '--workdir=RUN', '--port=0', '--noopen']
run_command(app.main, required=['workdir'])
"""


def test_the_end_of_the_terminal_deletes_the_volumes(tmp_path):
  command = [sys.executable, '-c', SERVE]
  env = os.environ | {'TMPDIR': str(tmp_path)}
  with subprocess.Popen(
    command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
  ) as served:
    try:
      url = next(line.strip() for line in served.stdout if '127.0.0.1' in line)
      with httpx.Client(base_url=url, headers={'origin': url[:-1]}) as client:
        client.get('/')
        client.post('/uploads/source?name=mr.nii', content=b'a patient')
      assert [*tmp_path.rglob('mr.nii')]
      served.send_signal(signal.SIGHUP)  # as a terminal that is closed
      served.wait(60)
    finally:
      served.kill()
  assert not [*tmp_path.rglob('synermedgen_app_*')]


@pytest.fixture
def source(tmp_path):
  values = np.random.default_rng(0).uniform(-900, 900, (CANVAS, CANVAS, 5))
  path = tmp_path / 'cbct.nii.gz'
  nib.save(
    nib.Nifti1Image(values.astype(np.float32), np.diag([2.0, 2, 3, 1])), path
  )
  return path


def predicted_by_the_app(workdir, source, root):
  """The files of a result, name -> content."""
  settings = PredictSettings([str(workdir)], ['ucg'], force=True, read=False)
  root.mkdir()
  model = ServedModel.load(Runs(settings))
  assert 'pelvis_cbct_to_ct' in {route.name for route in model.routes}
  app = make_app(model, root, port=PORT)
  route = {'source': 'cbct', 'region': 'pelvis', 'target': 'ct'}
  with TestClient(app, base_url=HOME, headers={'origin': HOME}) as client:
    token = client.get('/').cookies[f'synermedgen_{PORT}']
    client.post(
      '/uploads/source',
      params={'name': source.name},
      content=source.read_bytes(),
    )
    for kind in ('read', 'translate'):
      key = client.post(f'/jobs/{kind}', json=route).json()['job']
      end = time.monotonic() + 300
      while (state := app.state.jobs.states(token)[key])['state'] != 'done':
        assert state['state'] in ('queued', 'running'), state
        assert time.monotonic() < end
        time.sleep(0.05)
    page = f'/results/{state["result"]["result"]}'
    names = re.findall(rf'{page}/([\w.]+)', client.get(page).text)
    return {name: client.get(f'{page}/{name}').content for name in names}


def test_the_app_predicts_what_predict_predicts(
  nano_runs, source, tmp_path, monkeypatch
):
  def synthesise(self, route, sources, *, seed, progress):
    progress(sources.shape[1])
    noise = np.random.default_rng(seed).normal(size=sources[0].shape)
    return np.clip(0.5 * sources[0] + 0.1 * noise, -1, 1).astype(np.float32)

  monkeypatch.setattr(Synthesiser, 'synthesise', synthesise)
  workdir, output = nano_runs / 'stage2', tmp_path / 'cbct_ct.nii.gz'
  code, _, err = commands.run(
    'predict',
    *(f'--workdir={workdir}', f'--input={source}', f'--output={output}'),
    *('--source=cbct', '--target=ct', '--region=pelvis', '--noread'),
  )
  assert code == 0, err
  files = predicted_by_the_app(workdir, source, tmp_path / 'root')
  assert sorted(files) == ['cbct_ct.json', 'cbct_ct.nii.gz']
  # A gzip header has a time.
  assert files['cbct_ct.nii.gz'][10:] == output.read_bytes()[10:]
  record = json.loads(output.with_name('cbct_ct.json').read_text())
  served = json.loads(files['cbct_ct.json'])
  # The upload is another file, of the same size.
  ((size, _),) = served.pop('SourceStamps')
  assert size == source.stat().st_size == record.pop('SourceStamps')[0][0]
  assert record.pop('Sources') == [str(source)]
  assert served.pop('Sources') == [source.name]
  assert served == record
