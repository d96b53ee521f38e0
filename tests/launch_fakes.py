"""Stand-ins for `gcloud`, `srun` and Python.

They write down how they are called, and answer as told.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = (*ROOT.glob('launch/*.sh'), *ROOT.glob('projects/*/run.sh'))

# What tpu_pod.sh has every worker do with the archive.
UNPACK = (
  'mkdir -p synermedgen && cd synermedgen && if flock -n lock true; then'
  ' rm -rf code && mkdir code && tar -xzf ../synermedgen.tar.gz -C code &&'
  ' bash code/launch/tpu_worker.sh setup; fi'
)

# A line of the file named after a word of the call is a status and an answer,
# which goes to stderr if it begins with Error:.
FAKE = """\
#!/usr/bin/env bash
echo "${0##*/} $*" >> "$FAKES/calls"
for answers in "$FAKES"/answers/*; do
  if [[ "$* " == *"${answers##*/} "* ]]; then
    read -r code said < "$answers" || { echo "no answer to $*" >&2; exit 99; }
    sed -i 1d "$answers"
    case "$said" in
      '') ;;
      Error:*) echo "$said" >&2 ;;
      *) echo "$said" ;;
    esac
    exit "$code"
  fi
done
"""

# Runs until a test writes its exit status; SIGTERM makes it save.
TRAINING = """\
#!/usr/bin/env bash
[ "$1" != -c ] || exit 0
trap 'echo 75 > "$FAKES/end"' TERM
echo "$$ $PPID" > "$FAKES/pids"
echo "$PWD $*" >> "$FAKES/calls"
until [ -s "$FAKES/end" ]; do sleep 0.02; done
exit "$(cat "$FAKES/end")"
"""


class Stage:
  """A copy of the scripts, and programs that only write down their calls."""

  def __init__(self, path):
    self.root = path / 'repository'
    for script in SCRIPTS:
      copy = self.root / script.relative_to(ROOT)
      copy.parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(script, copy)
    self.fakes = path / 'fakes'
    (self.fakes / 'answers').mkdir(parents=True)
    self.home = path / 'home'
    self.home.mkdir()
    self.env = {
      'PATH': f'{self.fakes}:{os.environ["PATH"]}',
      'HOME': str(self.home),
      'FAKES': str(self.fakes),
    }

  def fake(self, *programs, script=FAKE):
    for program in programs:
      path = self.fakes / program
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(script)
      path.chmod(0o755)

  def answers(self, **lines):
    for word, of_word in lines.items():
      text = ''.join(f'{line}\n' for line in of_word)
      (self.fakes / 'answers' / word).write_text(text)

  def run(self, script, *arguments, **env):
    return subprocess.run(
      ['bash', str(self.root / script), *arguments],
      env={**self.env, **env},
      capture_output=True,
      text=True,
      timeout=30,
    )

  def calls(self, *with_words):
    path = self.fakes / 'calls'
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if all(w in line for w in with_words)]


def assert_refused(result, *phrases):
  """Asserts a status above 0 and one `Error:` line with all phrases."""
  assert result.returncode != 0
  (line,) = result.stderr.splitlines()
  assert line.startswith('Error: ')
  for phrase in phrases:
    assert phrase in line


def wait_for(condition):
  until = time.monotonic() + 10
  while not condition():
    assert time.monotonic() < until, 'it did not come'
    time.sleep(0.01)
