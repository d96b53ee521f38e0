"""The layout of a folder per subject, and the names of modalities."""

import os
import zipfile

import numpy as np
import pytest
from dicom_files import write_series
from layout_files import lay_out

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices.datasets import (
  folder_cases,
  join_problems,
  list_folder,
  parse_modality,
)
from synermedgen_jax.slices.input_files import DatasetError
from synermedgen_jax.slices.volumes import Volume

CT, MR, PET = Modality.CT, Modality.MR, Modality.PET


def folder(root):
  return folder_cases(root, dataset='study', region=Region.BRAIN)


def listed(root):
  return list_folder(root, dataset='study', region=Region.BRAIN)


def test_folder_of_subjects_is_read(tmp_path):
  lay_out(
    tmp_path,
    'b/ct.nii.gz',
    'b/mr.mha',
    'a/CT.nrrd',
    'a/mr.nii',
    'a/mask.nii.gz',
    'a/ct_mask.mha',
    'a/Lesion.nii.gz',
    'a/tumour_seg.nii.gz',
    'a/notes.txt',
    'a/.ct.nii.gz.partial.nii.gz',
    '.hidden/x.nii',
    'LICENCE.txt',
  )
  a, b = folder(tmp_path)
  assert (a.id, b.id) == ('study.a', 'study.b')
  assert a.files == {CT: tmp_path / 'a/CT.nrrd', MR: tmp_path / 'a/mr.nii'}
  assert a.mask == tmp_path / 'a/mask.nii.gz'
  assert (a.lesion, b.lesion) == (tmp_path / 'a/Lesion.nii.gz', None)
  assert b.files == {CT: tmp_path / 'b/ct.nii.gz', MR: tmp_path / 'b/mr.mha'}
  assert (a.region, a.split) == (Region.BRAIN, '')


def test_what_programs_leave_behind_is_passed_over(tmp_path):
  lay_out(
    tmp_path,
    'p1/ct.nii.gz',
    'p1/mr.nii.gz',
    'p1/._ct.nii.gz',
    '__MACOSX/p1/._ct.nii.gz',
    '@eaDir/p1/ct.nii.gz',
    'store/settings.json',
    'store/cases/study.p1.json',
    'store/volumes/study.p1/ct/zarr.json',
    'started/settings.json',
    'report/index.html',
    'empty/.DS_Store',
  )
  (tmp_path / 'empty/below').mkdir()
  assert [case.subject for case in folder(tmp_path)] == ['p1']


def test_a_folder_in_the_place_of_a_file_holds_the_volume(tmp_path):
  lay_out(
    tmp_path,
    'p1/ct.nii.gz/any_name.nii.gz',
    'p1/ct.nii.gz/._any_name.nii.gz',
    'p1/mr/scan.mha',
  )
  (case,) = folder(tmp_path)
  assert case.files == {
    CT: tmp_path / 'p1/ct.nii.gz/any_name.nii.gz',
    MR: tmp_path / 'p1/mr/scan.mha',
  }


def test_a_modality_may_be_a_folder_or_a_zip_of_dicom(tmp_path):
  volume = Volume(np.zeros((4, 4, 2), np.float32), np.eye(4))
  write_series(tmp_path / 'p1/CT', volume, 'CT')
  with zipfile.ZipFile(tmp_path / 'p1/mr.zip', 'w') as packed:
    packed.write(tmp_path / 'p1/CT/0.dcm', 'study/0.dcm')
  (case,) = folder(tmp_path)
  assert case.files == {CT: tmp_path / 'p1/CT', MR: tmp_path / 'p1/mr.zip'}
  (tmp_path / 'p1/CT').rename(tmp_path / 'p1/CT_thorax')
  with pytest.raises(DatasetError, match=r'CT_thorax: Unknown .* if it is ct'):
    folder(tmp_path)


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    ([], 'holds no subject folders with volumes. It holds no file'),
    (['ct.nii'], 'holds no subject folders .* First files: ct.nii'),
    (['a/ct.nii', 'b/readme.txt'], 'b: holds no volume'),
    (['a/ct.nii', 'b/mask.nii', 'b/a_seg.nii'], 'b: holds no volume'),
    (['a/dwi.nii'], r"a/dwi.nii: Unknown modality 'dwi': .* bssfp, lge\.$"),
    (['a/CT_1.nii'], 'a/CT_1.nii: Unknown modality .*; rename it if it is ct'),
    (['a/ct.mha', 'a/ct.nii.gz'], 'a/ct.nii.gz: ct.mha has the same mod'),
    (['a/ct.nii', 'b/x.hdr', 'b/x.img'], '2 Analyze or NIfTI pair files'),
    (['a/ct.nii', 'b/x.mgz'], r'1 FreeSurfer file \(convert'),
    (['a/ct.nii', 'b/1.dcm'], '1 DICOM file .*<subject>/<modality>/'),
    (['a/ct.nii/x.nii', 'a/ct.nii/y.nii'], 'a/ct.nii: is a folder that holds'),
    (['a/ct/x.txt'], 'a/ct: holds neither one volume nor DICOM'),
  ],
)
def test_folder_that_cannot_be_read_is_named(tmp_path, names, message):
  lay_out(tmp_path, *names)
  with pytest.raises(DatasetError, match=message):
    folder(tmp_path)


def test_every_fault_is_reported_and_the_other_subjects_are_listed(tmp_path):
  lay_out(
    tmp_path,
    *(f'p{i}/{m}.nii.gz' for i in range(4) for m in ('ct', 'mr')),
    'p1/dwi.nii.gz',
    'p1/adc.nii.gz',
    'p3/ct.mha',
  )
  listing = listed(tmp_path)
  assert [case.subject for case in listing.cases] == ['p0', 'p2']
  assert [(f.case, f.problem.split(': ')[0]) for f in listing.faults] == [
    ('study.p1', str(tmp_path / 'p1/adc.nii.gz')),
    ('study.p1', str(tmp_path / 'p1/dwi.nii.gz')),
    ('study.p3', str(tmp_path / 'p3/ct.nii.gz')),
  ]
  with pytest.raises(DatasetError) as error:
    listing.all_cases()
  lines = str(error.value).splitlines()
  assert lines[0] == '3 problems; --skip_bad skips their subjects:'
  assert len(lines) == 4


def test_many_problems_are_counted():
  lines = join_problems([f'f{i}: bad.' for i in range(50)]).splitlines()
  assert lines[1] == '  1. f0: bad.'
  assert lines[-1] == '  and 30 more.'


def test_places_that_are_no_readable_folder_are_named(tmp_path, monkeypatch):
  with pytest.raises(DatasetError, match='none: no such folder'):
    folder(tmp_path / 'none')
  (tmp_path / 'file').touch()
  with pytest.raises(DatasetError, match='file: is a file, not a folder'):
    folder(tmp_path / 'file')
  (tmp_path / 'link').symlink_to(tmp_path / 'gone')
  with pytest.raises(DatasetError, match='link: is a broken link'):
    folder(tmp_path / 'link')
  lay_out(tmp_path, 'study/p1/ct.nii', 'study/p2/ct.nii')
  scandir, listdir = os.scandir, os.listdir

  def refused(function):
    def call(path):
      if str(path).endswith('p2'):
        raise PermissionError(13, 'Permission denied', str(path))
      return function(path)

    return call

  monkeypatch.setattr(os, 'scandir', refused(scandir))
  monkeypatch.setattr(os, 'listdir', refused(listdir))
  listing = listed(tmp_path / 'study')
  assert [case.subject for case in listing.cases] == ['p1']
  (fault,) = listing.faults
  assert fault.problem.endswith('p2: cannot be read (Permission denied).')


@pytest.mark.parametrize(
  ('name', 'modality'),
  [
    ('CT', CT),
    ('T1w', Modality.T1),
    ('t1-Gd', Modality.T1CE),
    ('T1CE', Modality.T1CE),
    ('T2-FLAIR', Modality.FLAIR),
    ('MRI', MR),
    (' pet ', PET),
  ],
)
def test_common_names_of_modalities_are_known(name, modality):
  assert parse_modality(name) is modality
