"""Sessions: a temporary folder for each browser, deleted when it has left.

A browser is present while one of its pages holds a stream of events open.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from synermedgen_jax.serving.jobs import Jobs

GRACE = 30.0  # seconds without a page, as while one page replaces another
_MOST_RESULTS = 8


@dataclasses.dataclass(eq=False)
class Upload:
  """A volume from a browser: one file, or those of a DICOM series.

  Attributes:
    folder: its own folder, whose name identifies the upload.
    title: name of the file, or of the first one, as the browser gives it.
    files: names in the folder.
    size: bytes.
    refusals: DICOM series ('' = the only one) and modality -> why it is not
      translated from; '' = it is.
  """

  folder: Path
  title: str
  files: list[str] = dataclasses.field(default_factory=list)
  size: int = 0
  refusals: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)

  @property
  def path(self) -> Path:
    """What `read_volume` takes."""
    if len(self.files) == 1:
      return self.folder / self.files[0]
    return self.folder

  @property
  def name(self) -> str:
    """Name in messages and records."""
    more = len(self.files) - 1
    first = self.files[0] if self.files else self.title
    return f'{first} and {more} more files' if more > 0 else first


@dataclasses.dataclass(eq=False)
class Session:
  """A browser.

  Attributes:
    token: its secret, in a cookie.
    folder: its temporary folder, made at the first upload.
    uploads: place in a page, such as 'source' -> the volume.
    results: id -> a result.
    streams: open streams of events.
    seen: when it last asked for anything, in seconds.
    closed: whether it has left.
  """

  token: str
  folder: Path
  seen: float
  uploads: dict[str, Upload] = dataclasses.field(default_factory=dict)
  results: dict[str, Any] = dataclasses.field(default_factory=dict)
  streams: int = 0
  closed: bool = False

  @property
  def size(self) -> int:
    """Bytes of all uploads."""
    return sum(upload.size for upload in self.uploads.values())

  def begin_upload(self, place: str, title: str) -> Upload:
    """An empty upload, which replaces the former one of its place."""
    old = self.uploads.pop(place, None)
    if old:
      shutil.rmtree(old.folder, ignore_errors=True)
    upload = Upload(self.new_folder(), title)
    self.uploads[place] = upload
    return upload

  def drop_upload(self, upload: Upload) -> None:
    """Deletes an upload."""
    shutil.rmtree(upload.folder, ignore_errors=True)
    for place, kept in list(self.uploads.items()):
      if kept is upload:
        del self.uploads[place]

  def new_folder(self) -> Path:
    """A new folder with a random name, in the session's own."""
    self.folder.mkdir(mode=0o700, exist_ok=True)
    folder = self.folder / secrets.token_hex(8)
    folder.mkdir(mode=0o700)
    return folder

  @contextlib.contextmanager
  def result_folder(self) -> Iterator[Path]:
    """A new folder, which is deleted if the block raises an error."""
    folder = self.new_folder()
    try:
      yield folder
    except BaseException:
      shutil.rmtree(folder, ignore_errors=True)
      raise

  def add_result(self, result: Any) -> str:
    """Keeps a result, which has a `folder`, and returns its id.

    The oldest one is deleted beyond eight.
    """
    key = secrets.token_urlsafe(16)
    self.results[key] = result
    while len(self.results) > _MOST_RESULTS:
      oldest = self.results.pop(next(iter(self.results)))
      shutil.rmtree(oldest.folder, ignore_errors=True)
    return key


class Sessions:
  """All sessions; one thread calls the methods.

  Attributes:
    root: folder of the sessions' folders.
    grace: seconds without a page after which a session is closed.
  """

  def __init__(
    self,
    root: Path,
    jobs: Jobs,
    *,
    grace: float = GRACE,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Begins without a session.

    Args:
      root: see above; it exists.
      jobs: the queue, whose owners are the tokens of sessions.
      grace: see above.
      clock: the time in seconds.
    """
    self.root = root
    self._jobs = jobs
    self.grace = grace
    self._clock = clock
    self._sessions: dict[str, Session] = {}

  def __len__(self) -> int:
    """Sessions that are open."""
    return len(self._sessions)

  def open(self) -> Session:
    """A new session with a token that cannot be guessed."""
    token = secrets.token_urlsafe(32)
    folder = self.root / secrets.token_hex(8)
    session = self._sessions[token] = Session(token, folder, self._clock())
    return session

  def find(self, token: str) -> Session | None:
    """The session of a cookie, which is present from now on."""
    session = self._sessions.get(token)
    if session:
      session.seen = self._clock()
    return session

  @contextlib.contextmanager
  def present(self, session: Session) -> Iterator[None]:
    """Keeps a session while one of its streams, or an upload, is open."""
    session.streams += 1
    try:
      yield
    finally:
      session.streams -= 1
      session.seen = self._clock()

  def sweep(self) -> None:
    """Closes sessions whose pages are closed."""
    now = self._clock()
    for session in list(self._sessions.values()):
      if not session.streams and now - session.seen > self.grace:
        self.close(session)

  def close(self, session: Session) -> None:
    """Ends its jobs, then deletes its folder."""
    session.closed = True
    self._sessions.pop(session.token, None)
    self._jobs.drop(
      session.token,
      lambda: shutil.rmtree(session.folder, ignore_errors=True),
    )

  def close_all(self) -> None:
    """Closes every session."""
    for session in list(self._sessions.values()):
      self.close(session)
