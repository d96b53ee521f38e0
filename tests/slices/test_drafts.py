"""Drafts of tables: what names say, and what stays open."""

import csv

import numpy as np
import pytest
from dicom_files import write_series
from layout_files import lay_out

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices.drafts import write_draft
from synermedgen_jax.slices.input_files import DatasetError
from synermedgen_jax.slices.tables import csv_cases
from synermedgen_jax.slices.volumes import Volume


def draft(root, table, region=None):
  write_draft(root, table, region)
  with table.open(encoding='utf-8-sig') as file:
    return [tuple(row.values()) for row in csv.DictReader(file)]


def test_names_that_are_clear_fill_the_table(tmp_path):
  root = lay_out(
    tmp_path / 'in',
    'p1/CT_1.nii.gz',
    'p1/anat/p1_T1w.nii.gz',
    'p1/tumour_mask.nii.gz',
    'HGG/p2/nii/flair.nii',
    'p3_mr.nii',
    'p4/MR/scan.nii',
    'p5/scan_a.nii',
    'p6/ct_a.nii',
    'p6/ct_b.nii',
    'unclear.nii',
    '__MACOSX/p1/ct.nii',
  )
  rows = draft(root, tmp_path / 'in/t.csv', Region.BRAIN)
  assert rows == [
    ('p2', 'flair', 'brain', 'HGG/p2/nii/flair.nii', ''),
    ('p1', 'ct', 'brain', 'p1/CT_1.nii.gz', ''),
    ('p1', 't1', 'brain', 'p1/anat/p1_T1w.nii.gz', ''),
    ('p3', 'mr', 'brain', 'p3_mr.nii', ''),
    ('p4', 'mr', 'brain', 'p4/MR/scan.nii', ''),
    ('p5', '', 'brain', 'p5/scan_a.nii', ''),
    ('p6', '', 'brain', 'p6/ct_a.nii', ''),
    ('p6', '', 'brain', 'p6/ct_b.nii', ''),
    ('', '', 'brain', 'unclear.nii', ''),
  ]


def test_series_of_a_study_are_lines(tmp_path):
  volume = Volume(np.zeros((4, 4, 2), np.float32), np.eye(4))
  write_series(tmp_path / 'in/p1/CT', volume, 'CT')
  study = tmp_path / 'in/p2'
  write_series(study, volume, 'CT', names='a{}.dcm', SeriesNumber='3')
  uid = {'SeriesInstanceUID': '1.9'}
  write_series(study, volume, 'MR', names='b{}.dcm', SeriesNumber='7', **uid)
  assert draft(tmp_path / 'in', tmp_path / 'out/t.csv') == [
    ('p1', 'ct', '', str(tmp_path / 'in/p1/CT'), ''),
    ('p2', 'ct', '', str(study), '3'),
    ('p2', '', '', str(study), '7'),
  ]


def test_a_completed_draft_is_a_table_and_an_open_one_is_not(tmp_path):
  root = lay_out(tmp_path / 'in', 'Jürgen/ct.nii', 'Jürgen/b.nii')
  table = tmp_path / 'in/t.csv'
  draft(root, table, Region.BRAIN)
  with pytest.raises(DatasetError, match=r't\.csv:2: modality is empty'):
    csv_cases(table, dataset='x', region=None)
  text = table.read_text('utf-8-sig').replace('Jürgen,,', 'Jürgen,mr,')
  table.write_text(text, 'utf-8')
  (case,) = csv_cases(table, dataset='x', region=None)
  assert set(case.files) == {Modality.CT, Modality.MR}


def test_an_existing_file_is_kept_and_nothing_is_no_draft(tmp_path):
  root = lay_out(tmp_path / 'in', 'p/ct.nii')
  (tmp_path / 't.csv').write_text('mine')
  with pytest.raises(DatasetError, match=r't\.csv: exists; choose another'):
    write_draft(root, tmp_path / 't.csv', None)
  assert (tmp_path / 't.csv').read_text() == 'mine'
  lay_out(tmp_path / 'other', 'x.hdr')
  with pytest.raises(DatasetError, match=r'other: holds no volume.*Analyze'):
    write_draft(tmp_path / 'other', tmp_path / 'u.csv', None)
  assert not (tmp_path / 'u.csv').exists()
  with pytest.raises(DatasetError, match=r'u\.csv: cannot be written'):
    write_draft(root, tmp_path / 't.csv/u.csv', None)
