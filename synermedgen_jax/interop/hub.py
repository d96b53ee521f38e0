"""Folders of files on the Hugging Face hub: hf://OWNER/NAME[@REVISION].

`huggingface_hub` is imported when an address is used. Its settings apply: the
token (HF_TOKEN or `hf auth login`), the cache (HF_HUB_CACHE), HF_HUB_OFFLINE
and HF_ENDPOINT.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from synermedgen_jax.core.errors import UserError

SCHEME = 'hf://'
_NAME = r'[A-Za-z0-9][A-Za-z0-9._-]*'
_REPOSITORY = re.compile(rf'{_NAME}/{_NAME}')
_REVISION = re.compile(r'[A-Za-z0-9][A-Za-z0-9._/-]*')
_COMMIT = re.compile(r'[0-9a-f]{40}')
_MESSAGE = 'Upload a weights folder'


class HubError(UserError):
  """A repository of the hub cannot be read or written; one line naming it."""


@dataclasses.dataclass(frozen=True)
class Address:
  """A repository of the hub at a revision.

  Attributes:
    repository: OWNER/NAME.
    revision: a branch, a tag or a commit.
  """

  repository: str
  revision: str = 'main'

  @classmethod
  def parse(cls, text: str) -> Address:
    """Reads hf://OWNER/NAME[@REVISION].

    Raises:
      HubError: the text is something else.
    """
    repository, at, revision = text.removeprefix(SCHEME).partition('@')
    if (
      not text.startswith(SCHEME)
      or not _REPOSITORY.fullmatch(repository)
      or (at and not _REVISION.fullmatch(revision))
    ):
      raise HubError(f'{text}: expected {SCHEME}OWNER/NAME[@REVISION].')
    return cls(repository, revision) if at else cls(repository)

  def __str__(self) -> str:
    return f'{SCHEME}{self.repository}@{self.revision}'


def is_address(path: object) -> bool:
  """Whether a path is an address of the hub."""
  return str(path).startswith(SCHEME)


def download(address: str, patterns: Sequence[str]) -> tuple[Path, Address]:
  """Downloads files of a repository into the cache of `huggingface_hub`.

  Args:
    address: hf://OWNER/NAME[@REVISION]; of a commit that the cache holds, no
      file is downloaded again.
    patterns: names of the files to download; other files stay on the hub.

  Returns:
    The folder, and the address with the commit in place of the revision.

  Raises:
    HubError: the address is malformed, the repository, the revision or the
      network is missing, or the files are not in the cache without a network.
  """
  wanted = Address.parse(address)
  from huggingface_hub import snapshot_download

  with _errors(str(wanted)):
    folder = Path(
      snapshot_download(
        wanted.repository,
        revision=wanted.revision,
        allow_patterns=list(patterns),
      )
    )
  if not _COMMIT.fullmatch(folder.name):
    raise HubError(f'{address}: the hub names no commit of this revision.')
  return folder, dataclasses.replace(wanted, revision=folder.name)


def upload(
  folder: Path, repository: str, patterns: Sequence[str], *, public: bool
) -> str:
  """Uploads a folder in one commit; creates the repository if it is missing.

  Files of the repository that match `patterns` and that the folder lacks are
  deleted in the same commit; its other files stay.

  Args:
    folder: the folder.
    repository: OWNER/NAME.
    patterns: names of all files of such a folder.
    public: whether the repository is public; otherwise it is private.

  Returns:
    The address with the new commit.

  Raises:
    HubError: the name is malformed, there is no token, the repository exists
      with another visibility, or the hub refuses the commit.
  """
  if not _REPOSITORY.fullmatch(repository):
    raise HubError(f'{repository}: expected OWNER/NAME.')
  import huggingface_hub as hub

  if hub.get_token() is None:
    raise HubError(
      f'{repository}: uploading needs a token; set HF_TOKEN, or run '
      'hf auth login.'
    )
  api = hub.HfApi()
  with _errors(repository):
    _require_visibility(api, repository, public)
    names = sorted(
      path.relative_to(folder).as_posix()
      for path in folder.rglob('*')
      if path.is_file()
    )
    stale = [
      name
      for name in api.list_repo_files(repository)
      if name not in names and any(fnmatch.fnmatch(name, p) for p in patterns)
    ]
    commit = api.create_commit(
      repository,
      [
        *(hub.CommitOperationAdd(name, str(folder / name)) for name in names),
        *(hub.CommitOperationDelete(name) for name in stale),
      ],
      commit_message=_MESSAGE,
    )
  return str(Address(repository, commit.oid))


def _require_visibility(api, repository: str, public: bool) -> None:
  """Creates the repository, or refuses one with another visibility."""
  from huggingface_hub.errors import RepositoryNotFoundError

  try:
    private = api.model_info(repository).private
  except RepositoryNotFoundError:
    api.create_repo(repository, private=not public)
    return
  if bool(private) == public:
    state, wanted = ('private', 'public') if private else ('public', 'private')
    remedy = 'leave out --public' if private else 'add --public'
    raise HubError(
      f'{repository}: is {state}, not {wanted}; {remedy}, or change the '
      'repository on the hub.'
    )


@contextlib.contextmanager
def _errors(name: str) -> Iterator[None]:
  """Turns errors of `huggingface_hub` into one line about `name`."""
  from huggingface_hub import errors

  try:
    yield
  except errors.GatedRepoError:
    raise HubError(
      f'{name}: is gated; ask for access on the hub, and set HF_TOKEN.'
    ) from None
  except errors.RepositoryNotFoundError:
    raise HubError(
      f'{name}: no such repository on the hub, or a private one; correct the '
      'name, or set HF_TOKEN.'
    ) from None
  except errors.RevisionNotFoundError:
    raise HubError(
      f'{name}: the repository has no such revision; name a branch, a tag or a '
      'commit.'
    ) from None
  except errors.LocalEntryNotFoundError:
    raise HubError(
      f'{name}: the hub cannot be reached, and the cache lacks these files; '
      'connect, or copy the cache of a machine that has them and set '
      'HF_HUB_CACHE (HF_HUB_OFFLINE=1 skips the network).'
    ) from None
  # The last two are those of its downloader of large files.
  except (
    errors.HTTPError,
    OSError,
    errors.XetDownloadError,
    RuntimeError,
  ) as error:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise HubError(f'{name}: {reason.rstrip(".")}.') from error
