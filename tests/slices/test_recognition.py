"""Layouts recognised by the names of files."""

import json

import pytest

from synermedgen_jax.slices.recognition import recognise

NAMES = {
  'flat': ('s1_mr.nii.gz', 's1_ct.nii.gz', 's1_seg.nii.gz', 'notes.txt'),
  'folder': ('s1/mr.nii.gz', 's1/ct.mha', 's2/t1w.nii'),
  'nnunet': (
    'imagesTr/s1_0000.nii.gz',
    'imagesTr/s1_0001.nii.gz',
    'labelsTr/s1_seg.nii.gz',
  ),
  'bids': (
    'sub-01/anat/sub-01_T1w.nii.gz',
    'sub-01/ses-1/pet/sub-01_ses-1_pet.nii.gz',
  ),
}


def write(root, names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()
  return root


@pytest.mark.parametrize('layout', NAMES)
def test_a_layout_is_recognised_by_names(tmp_path, layout):
  root = write(tmp_path / 'data', NAMES[layout])
  seen = recognise(root)
  assert (seen.layout, seen.root) == (layout, root)
  assert seen.example in NAMES[layout]


def test_the_folder_of_the_images_leads_to_its_dataset(tmp_path):
  root = write(tmp_path / 'data', NAMES['nnunet'])
  (root / 'dataset.json').write_text(json.dumps({}))
  seen = recognise(root / 'imagesTr')
  assert (seen.layout, seen.root) == ('nnunet', root)


@pytest.mark.parametrize(
  'names',
  [
    ('s1/scan_a.nii.gz', 's2/scan_a.nii.gz'),
    ('s1_mr.nii.gz', 's1/ct.nii.gz'),  # half of each
    ('sub-01/func/sub-01_bold.nii.gz',),
    (),
  ],
)
def test_other_names_have_no_layout(tmp_path, names):
  root = write(tmp_path, names)
  assert recognise(root) is None


def test_a_table_is_recognised(tmp_path):
  write(tmp_path, ['table.csv', 'mr.nii.gz'])
  assert recognise(tmp_path / 'table.csv').layout == 'csv'
  assert recognise(tmp_path / 'mr.nii.gz') is None
