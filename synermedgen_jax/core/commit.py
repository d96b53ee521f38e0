"""The commit of this code, for records of runs and outputs."""

from __future__ import annotations

import os
import subprocess
from importlib import resources


def commit() -> str:
  """Commit of this code, '-dirty' appended if modified; '' = unknown."""

  def git(*words: str) -> str:
    return subprocess.run(
      ['git', *words],
      cwd=os.path.dirname(__file__),
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()

  try:
    # An installed package may be inside another repository.
    git('ls-files', '--error-unmatch', os.path.basename(__file__))
    return git('describe', '--always', '--dirty', '--abbrev=40', '--match=')
  except (OSError, subprocess.CalledProcessError):
    # `git archive` writes the commit into this file.
    text = (
      resources.files('synermedgen_jax').joinpath('COMMIT').read_text('utf-8')
    )
    return '' if text.startswith('$') else text.strip()
