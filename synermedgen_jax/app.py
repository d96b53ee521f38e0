"""Opens pages in the browser: read, translate, compare, ask.

  synermedgen app --workdir=RUN/stage2
  synermedgen app --demo

The page *Translate* takes a volume (NIfTI, MetaImage, NRRD, or a DICOM series),
says which modality the model sees in it, synthesises another and shows both.
The page *Ask* asks the three tasks of Stage I about two volumes of a subject.

The server listens on 127.0.0.1 alone, and nothing is sent elsewhere. Volumes
lie in a temporary folder (TMPDIR), which is deleted when the browser has left
and when the command ends. Several browsers may use it; their jobs queue. It
needs the extra: pip install '.[app]'.
"""

import errno
import importlib.util
import os
import signal
import socket
import tempfile
import webbrowser
from pathlib import Path

from absl import flags

from synermedgen_jax.config.command_line import (
  UsageError,
  define_modules_flag,
  run_command,
)

_HOST = '127.0.0.1'
_NEEDED = ('starlette', 'uvicorn')

_DEMO = flags.DEFINE_bool(
  'demo',
  False,
  'Use the weights of the package; prints the path of a phantom to drop.',
)
_WORKDIR = flags.DEFINE_list(
  'workdir',
  None,
  'Workdir of a trained run that synthesises, or its weights folder. Several, '
  'separated by commas, give the mean of their volumes; all must have one '
  'window of the target.',
)
_MODULES = define_modules_flag()
_PORT = flags.DEFINE_integer(
  'port',
  7860,
  'Port on 127.0.0.1; 0 = one that is free.',
  lower_bound=0,
  upper_bound=65535,
)
_OPEN = flags.DEFINE_bool(
  'open', True, 'Open the page in the browser, if there is a display.'
)
_MAX_UPLOAD = flags.DEFINE_integer(
  'max_upload_mb',
  2048,
  'Largest upload in megabytes (10^6 bytes); it also limits an unpacked '
  'archive and the voxels of a volume in memory, four bytes each.',
  lower_bound=1,
)


def _check_installed() -> None:
  missing = [n for n in _NEEDED if importlib.util.find_spec(n) is None]
  if missing:
    raise UsageError(
      f'The app needs {" and ".join(missing)}: pip install '
      "'synermedgen-jax[app]'."
    )


def _listen(port: int) -> socket.socket:
  """A socket on the loopback address."""
  listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
  listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  try:
    listening.bind((_HOST, port))
    listening.listen()
  except OSError as error:
    listening.close()
    taken = error.errno == errno.EADDRINUSE
    reason = 'is taken' if taken else f'cannot be used ({error.strerror})'
    raise UsageError(
      f'--port={port}: {reason}; name another one, or 0 for one that is free.'
    ) from None
  return listening


def _use_demo() -> None:
  from synermedgen_jax.inference import demo

  flags.set_default(_WORKDIR, [str(demo.weights())])
  print('A brain MR and its CT, to drop onto the pages:')
  for path in demo.volumes().values():
    print(f'  {path}')


def _end_with_terminal(server) -> None:
  """Ends a uvicorn server, which deletes the volumes, on SIGHUP.

  uvicorn handles Ctrl-C and SIGTERM alone. Under `nohup` the server goes on.
  """

  def end(number: int, frame: object) -> None:
    del number, frame
    server.should_exit = True

  if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
    signal.signal(signal.SIGHUP, end)


def main() -> None:
  _check_installed()
  with _listen(_PORT.value) as listening:  # before seconds of imports
    _serve(listening)


def _serve(listening: socket.socket) -> None:
  import uvicorn

  from synermedgen_jax.config.modules import import_modules
  from synermedgen_jax.inference.prediction_runs import PredictSettings, Runs
  from synermedgen_jax.serving.model import ServedModel
  from synermedgen_jax.serving.server import make_app
  from synermedgen_jax.serving.uploads import MB
  from synermedgen_jax.training.objectives import OBJECTIVES

  import_modules(_MODULES.value)
  if _DEMO.value:
    _use_demo()
  stages = [name for name, o in OBJECTIVES.items() if 'flow' in o.terms]
  print(f'Loading {", ".join(_WORKDIR.value)} …', flush=True)
  # The pages ask before they accept what `force` accepts.
  settings = PredictSettings(_WORKDIR.value, stages, force=True)
  model = ServedModel.load(Runs(settings))
  port = listening.getsockname()[1]
  with tempfile.TemporaryDirectory(
    prefix='synermedgen_app_', ignore_cleanup_errors=True
  ) as root:
    tempfile.tempdir = root  # also of what unpacks archives
    app = make_app(model, Path(root), port=port, limit=_MAX_UPLOAD.value * MB)
    server = uvicorn.Server(
      uvicorn.Config(
        app,
        log_level='warning',
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
      )
    )
    app.state.ending = lambda: server.should_exit
    _end_with_terminal(server)
    url = f'http://{_HOST}:{port}/'
    if _OPEN.value and {'DISPLAY', 'WAYLAND_DISPLAY'} & os.environ.keys():
      webbrowser.open(url)  # the socket listens already
    print('Ctrl-C ends the app and deletes its volumes. Open:')
    print(url, flush=True)
    server.run(sockets=[listening])


if __name__ == '__main__':
  run_command(main, required=['workdir'], unless='demo')
