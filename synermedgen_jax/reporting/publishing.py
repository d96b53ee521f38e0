"""Weights folders with their card: written from a run, uploaded to the hub."""

from __future__ import annotations

from pathlib import Path

from synermedgen_jax.checkpoint import weights_folder
from synermedgen_jax.core import files
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.inference.shipping import ship
from synermedgen_jax.interop import hub
from synermedgen_jax.reporting.model_card import write_card


class PublishError(UserError):
  """A folder that is not uploaded; one line that names folder or file."""


def export(
  workdir: Path, output: Path, *, license: str = '', repository: str = ''
) -> None:
  """Writes the model of a run and its card into a new weights folder.

  Args:
    workdir: workdir of `main` or `import_bagel`.
    output: the new folder; it appears when it is complete.
    license: see `model_card.write_card`.
    repository: OWNER/NAME on the hub, which the commands of the card name in
      place of the folder; '' = none.

  Raises:
    UserError: `output` exists, or as of `shipping.ship` and
      `model_card.write_card`.
  """
  with files.new_folder(output) as folder:
    ship(workdir, folder)
    write_card(
      folder,
      workdir,
      name=repository.rpartition('/')[2] or output.name,
      address=f'{hub.SCHEME}{repository}' if repository else output.name,
      license=license,
    )


def upload(folder: Path, repository: str, *, public: bool = False) -> str:
  """Uploads a weights folder to the Hugging Face hub, in one commit.

  Args:
    folder: a weights folder, whose card states the license of the weights.
    repository: OWNER/NAME, created if it is missing.
    public: whether the repository is public; otherwise it is private.

  Returns:
    The address with the new commit.

  Raises:
    PublishError: the folder has no weights, no card, other files, or a card
      without a license.
    CheckpointError: a file differs from its checksum.
    HubError: as of `hub.upload`.
  """
  if not weights_folder.holds_weights(folder):
    raise PublishError(
      f'{folder}: has no {weights_folder.TENSORS}; name a weights folder.'
    )
  others = sorted(
    name
    for path in folder.rglob('*')
    if not path.is_dir()
    and (name := path.relative_to(folder).as_posix())
    not in weights_folder.FILES
  )
  if others:
    more = f' and {len(others) - 1} more' if len(others) > 1 else ''
    raise PublishError(
      f'{folder}: has {others[0]}, which is no file of a weights folder; '
      f'remove it{more}.'
    )
  _require_license(folder / weights_folder.CARD)
  weights_folder.check_files(folder)
  return hub.upload(folder, repository, weights_folder.FILES, public=public)


def _require_license(card: Path) -> None:
  """Refuses a card that is missing or states no license."""
  from huggingface_hub import metadata_load

  if not card.is_file():
    raise PublishError(
      f'{card}: no such card; ship_weights writes it with --workdir.'
    )
  try:
    header = metadata_load(card) or {}
  except Exception as error:  # whatever its reader of YAML raises
    reason = ' '.join(str(error).split())
    raise PublishError(f'{card}: its header is not YAML ({reason}).') from None
  if not header.get('license'):
    raise PublishError(
      f'{card}: states no license of the weights; write the folder with '
      '--license, or add `license: IDENTIFIER` to the header.'
    )
