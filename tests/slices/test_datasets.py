"""Layouts on disk: folders and tables."""

import pytest

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices.datasets import (
  DatasetError,
  csv_cases,
  folder_cases,
)

CT, MR, PET = Modality.CT, Modality.MR, Modality.PET


def lay_out(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()


def folder(root):
  return folder_cases(root, dataset='study', region=Region.BRAIN)


def table(tmp_path, text, *, region=Region.BRAIN, encoding='utf-8'):
  path = tmp_path / 'table.csv'
  path.write_text(text, encoding=encoding)
  return csv_cases(path, dataset='study', region=region)


def test_folder_of_subjects_is_read(tmp_path):
  lay_out(
    tmp_path,
    'b/ct.nii.gz',
    'b/mr.mha',
    'a/CT.nrrd',
    'a/mr.nii',
    'a/mask.nii.gz',
    'a/ct_mask.mha',
    'a/notes.txt',
    'a/.ct.nii.gz.partial.nii.gz',
    '.hidden/x.nii',
    'LICENCE.txt',
  )
  a, b = folder(tmp_path)
  assert (a.id, b.id) == ('study.a', 'study.b')
  assert a.files == {CT: tmp_path / 'a/CT.nrrd', MR: tmp_path / 'a/mr.nii'}
  assert b.files == {CT: tmp_path / 'b/ct.nii.gz', MR: tmp_path / 'b/mr.mha'}
  assert (a.region, a.split) == (Region.BRAIN, '')


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    ([], 'holds no subject folders'),
    (['ct.nii'], 'holds no subject folders'),
    (['a/ct.nii', 'b/readme.txt'], 'b: holds no volume'),
    (['a/T1w.nii'], "a/T1w.nii: Unknown modality 'T1w': expected one of ct"),
    (['a/ct.mha', 'a/ct.nii.gz'], 'a/ct.nii.gz: ct.mha has the same mod'),
  ],
)
def test_folder_that_cannot_be_read_is_named(tmp_path, names, message):
  lay_out(tmp_path, *names)
  with pytest.raises(DatasetError, match=message):
    folder(tmp_path)


def test_missing_folder_is_named(tmp_path):
  with pytest.raises(DatasetError, match='none: no such folder'):
    folder(tmp_path / 'none')


def test_table_is_read_relative_to_itself(tmp_path):
  cases = table(
    tmp_path,
    'subject,modality,path,region,dataset,split\n'
    'p1,ct,p1/ct.mha,pelvis,centre_a,train\n'
    'p1,MR,/else/mr.mha,pelvis,centre_a,train\n'
    'p1,ct,x.nii,,,\n'
    'p1,pet,y.nii,,,\n',
    region=Region.WHOLE_BODY,
  )
  first, second = cases
  assert first.id == 'centre_a.p1'
  assert (first.region, first.split) == (Region.PELVIS, 'train')
  assert first.files[CT] == tmp_path / 'p1/ct.mha'
  assert str(first.files[MR]) == '/else/mr.mha'
  assert second.id == 'study.p1'
  assert (second.region, second.split) == (Region.WHOLE_BODY, '')
  assert second.files == {CT: tmp_path / 'x.nii', PET: tmp_path / 'y.nii'}


def test_table_saved_by_a_spreadsheet_is_read(tmp_path):
  text = 'subject,modality,path\r\np,ct,ct.nii\r\np,mr,mr.nii\r\n'
  (case,) = table(tmp_path, text, encoding='utf-8-sig')
  assert set(case.files) == {CT, MR}


HEAD = 'subject,modality,path,region,split\n'
GOOD = 'p,ct,ct.nii,brain,train\n'


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', r'table\.csv: has no column modality, path, subject'),
    ('subject,path\n', r'table\.csv: has no column modality'),
    (HEAD, r'table\.csv: lists no volume'),
    (
      HEAD + GOOD + 'p,xray,x.nii,brain,train\n',
      r"csv:3: Unknown modality 'xr",
    ),
    (HEAD + '\n\n' + 'p,xray,x.nii,brain,\n', r'csv:4: Unknown modality'),
    (HEAD + 'p,ct,x.nii,knee,train\n', r"csv:2: Unknown region 'knee'"),
    (HEAD + 'p,ct,x.nii,brain,dev\n', r"csv:2: unknown split 'dev'"),
    (HEAD + 'p,ct,x.nii\n', r'csv:2: no region; add the column or pass'),
    (HEAD + 'p,ct,,brain,train\n', r'csv:2: subject or path is missing'),
    (HEAD + 'p\n', r'csv:2: '),
    (HEAD + '../p,ct,x.nii,brain,\n', r'csv:2: .* may not contain /'),
    (HEAD + GOOD + GOOD, r"csv:3: an earlier line lists ct of subject 'p'"),
    (
      HEAD + GOOD + 'p,mr,mr.nii,brain,test\n',
      r"csv:3: an earlier line .* split 'train'",
    ),
    (HEAD + GOOD + 'p,mr,mr.nii,pelvis,train\n', r'csv:3: .* region brain'),
  ],
)
def test_table_that_cannot_be_read_names_its_line(tmp_path, text, message):
  with pytest.raises(DatasetError, match=message):
    table(tmp_path, text, region=None)


def test_missing_table_is_named(tmp_path):
  with pytest.raises(DatasetError, match=r'none\.csv: no such file'):
    csv_cases(tmp_path / 'none.csv', dataset='study', region=None)
