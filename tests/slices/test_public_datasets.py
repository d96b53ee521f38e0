"""Miniatures of public datasets, as they are unpacked, with their traps."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from layout_files import lay_out
from volume_files import affine_of, write_nifti

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices.datasets import DatasetError
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.public_datasets import find_cases, list_public

CTMR = ('ct', 'mr')
CT, PET, MR, CBCT = Modality.CT, Modality.PET, Modality.MR, Modality.CBCT


def files_of(case, root):
  return {m: str(p.relative_to(root)) for m, p in case.files.items()}


def test_synthrad2023(tmp_path):
  root = lay_out(
    tmp_path,
    'Task1/brain/1BA000/mr.nii.gz',  # ids start at 000 and have gaps
    'Task1/brain/1BA000/ct.nii.gz',
    'Task1/brain/1BA000/mask.nii.gz',
    'Task1/brain/overview/1BA000_train.png',
    'Task1/pelvis/1PC097/ct.nii.gz',
    'Task1/pelvis/1PC097/mr.nii.gz',
    'Task2/pelvis/2PA001/cbct.nii.gz',
    'Task2/pelvis/2PA001/ct.nii.gz',
    'Task2/brain/2BB003/cbct.nii.gz',  # of the validation set: no CT
    'Task2/brain/2BB003/mask.nii.gz',
  )
  brain, pelvis, cone = find_cases('synthrad2023', root)
  assert (brain.id, brain.region) == ('synthrad2023.1BA000', Region.BRAIN)
  assert files_of(brain, root) == {
    MR: 'Task1/brain/1BA000/mr.nii.gz',
    CT: 'Task1/brain/1BA000/ct.nii.gz',
  }
  assert (pelvis.subject, pelvis.region) == ('1PC097', Region.PELVIS)
  assert (cone.subject, set(cone.files)) == ('2PA001', {CBCT, CT})


def test_one_task_or_region_alone_may_be_the_root(tmp_path):
  lay_out(tmp_path, 'Task1/brain/1BA000/mr.nii.gz', 'Task1/brain/1BA000/ct.nii')
  for root in ('', 'Task1', 'Task1/brain', 'Task1/brain/1BA000'):
    if root.endswith('1BA000'):
      with pytest.raises(DatasetError, match='holds no pair of synthrad2023'):
        find_cases('synthrad2023', tmp_path / root)
    else:
      (case,) = find_cases('synthrad2023', tmp_path / root)
      assert case.subject == '1BA000'


def test_synthrad2025(tmp_path):
  root = lay_out(
    tmp_path,
    'Task1/AB/1ABA005/ct.mha',
    'Task1/AB/1ABA005/mr.mha',
    'Task1/AB/1ABA005/ct_deformed.mha',  # not the CT as it was measured
    'Task1/HN/1HNC000/ct.mha',
    'Task1/HN/1HNC000/mr.mha',
    'Task1/HN/overview/1HNC000.mha',
    'Task2/TH/2THE099/cbct.mha',
    'Task2/TH/2THE099/ct.mha',
    'Task2/TH/2THE100/cbct.mha',  # without CT
  )
  cases = find_cases('synthrad2025', root)
  assert [(c.subject, c.region) for c in cases] == [
    ('1ABA005', Region.ABDOMEN),
    ('1HNC000', Region.HEAD_NECK),
    ('2THE099', Region.THORAX),
  ]
  assert cases[0].files[CT].name == 'ct.mha'


def test_brats_of_every_year_and_one_patients_time_points(tmp_path):
  names = {
    'BraTS20_Training_001': ('_t1.nii', '_t1ce.nii', '_t2.nii', '_flair.nii'),
    'BraTS2021_00002': tuple(
      f'_{x}.nii.gz' for x in ('t1', 't1ce', 't2', 'flair')
    ),
    'BraTS-GLI-00005-000': tuple(
      f'-{x}.nii.gz' for x in ('t1n', 't1c', 't2w', 't2f')
    ),
    'BraTS-GLI-00005-001': tuple(
      f'-{x}.nii.gz' for x in ('t1n', 't1c', 't2w', 't2f')
    ),
    'BraTS-MET-00086-000': ('-t1n.nii.gz', '-t1c.nii.gz'),
  }
  root = lay_out(
    tmp_path,
    *(f'{case}/{case}{end}' for case, ends in names.items() for end in ends),
    'BraTS2021_00002/BraTS2021_00002_seg.nii.gz',
  )
  cases = {case.subject: case for case in find_cases('brats', root)}
  assert cases.keys() == names.keys()
  four = {Modality.T1, Modality.T1CE, Modality.T2, Modality.FLAIR}
  for case in list(cases.values()):
    assert case.region is Region.BRAIN
    assert set(case.files) <= four
  assert set(cases['BraTS20_Training_001'].files) == four
  assert {name: case.lesion for name, case in cases.items() if case.lesion} == {
    'BraTS2021_00002': root / 'BraTS2021_00002/BraTS2021_00002_seg.nii.gz'
  }
  assert cases['BraTS2021_00002'].lesion_labels == (1, 2, 3, 4)
  result = files_of(cases['BraTS-GLI-00005-001'], root)
  assert result[Modality.T1CE].endswith('BraTS-GLI-00005-001-t1c.nii.gz')
  assert result[Modality.FLAIR].endswith('BraTS-GLI-00005-001-t2f.nii.gz')
  assert [cases[f'BraTS-GLI-00005-00{i}'].patient for i in (0, 1)] == [
    'BraTS-GLI-00005'
  ] * 2


def test_brats_2018_and_2019(tmp_path):
  cases = {
    'HGG/Brats18_2013_2_1': 'Brats18_2013_2',
    'LGG/Brats18_TCIA09_141_1': 'Brats18_TCIA09_141',
    'HGG/BraTS19_CBICA_AAB_1': 'BraTS19_CBICA_AAB',
    'HGG/BraTS19_CBICA_AAB_2': 'BraTS19_CBICA_AAB',
  }
  lay_out(
    tmp_path,
    *(
      f'{case}/{case.split("/")[1]}_{contrast}.nii{gz}'
      for case in cases
      for contrast, gz in (('t1', '.gz'), ('t1ce', ''), ('seg', '.gz'))
    ),
  )
  result = {case.subject: case for case in find_cases('brats', tmp_path)}
  assert {c.subject: c.patient for c in result.values()} == {
    case.split('/')[1]: patient for case, patient in cases.items()
  }
  for case in result.values():
    assert set(case.files) == {Modality.T1, Modality.T1CE}


def test_folders_named_like_volumes_hold_them_as_kaggle_unpacks(tmp_path):
  case = 'BraTS20_Training_001'
  lay_out(
    tmp_path,
    *(f'{case}/{case}_{c}.nii/{case}_{c}.nii' for c in ('t1', 't2')),
    f'{case}/{case}_flair.nii/W39_1998.nii',
    f'__MACOSX/{case}/{case}_t1.nii',
    f'{case}/._{case}_t1.nii',
  )
  (result,) = find_cases('brats', tmp_path)
  assert set(result.files) == {Modality.T1, Modality.T2, Modality.FLAIR}
  assert result.files[Modality.FLAIR].name == 'W39_1998.nii'


def test_every_fault_of_a_public_dataset_is_listed(tmp_path):
  lay_out(
    tmp_path,
    *(f'{t}/1BA00{i}/{m}.nii.gz' for t in 'ab' for i in (0, 1) for m in CTMR),
    'a/1BA002/mr.nii.gz',
    'a/1BA002/ct.nii.gz',
    'a/1BA003/mr.nii.gz',
    'a/1BA003/mr.nii',
  )
  listing = list_public('synthrad2023', tmp_path)
  assert [case.subject for case in listing.cases] == ['1BA002']
  assert [fault.case for fault in listing.faults] == [
    'synthrad2023.1BA003',
    'synthrad2023.1BA000',
    'synthrad2023.1BA001',
  ]


def test_nothing_to_read_is_said_with_what_there_is(tmp_path):
  lay_out(tmp_path, 'a.hdr', 'a.img', 'x/1.dcm', 'store/settings.json')
  with pytest.raises(DatasetError) as error:
    find_cases('brats', tmp_path)
  text = str(error.value)
  assert 'First files: a.hdr, a.img' in text
  assert '2 Analyze or NIfTI pair files' in text
  assert '1 DICOM file' in text


def volume(path, low, high):
  data = np.linspace(low, high, 4 * 4 * 3).reshape(4, 4, 3)
  # Every slice has the whole range.
  return write_nifti(path, data.astype(np.float32), affine_of())


def test_autopet_as_studies(tmp_path):
  study = 'PETCT_0117d7f11f/09-23-2001-NA-PET-CT Ganzkoerper'
  root = lay_out(
    tmp_path,
    *(f'{study}/{n}.nii.gz' for n in ('CT', 'CTres', 'PET', 'SEG', 'SUV')),
  )
  (case,) = find_cases('autopet', root)
  assert case.patient == 'PETCT_0117d7f11f'
  assert {m: p.name for m, p in case.files.items()} == {
    CT: 'CTres.nii.gz',
    PET: 'SUV.nii.gz',
  }


@pytest.mark.parametrize(('ct', 'pet'), [('0000', '0001'), ('0001', '0000')])
@pytest.mark.parametrize('described', [False, True])
def test_autopets_channels_are_told_apart(tmp_path, ct, pet, described):
  stem = tmp_path / 'imagesTr' / 'fdg_0b57b247b6_05-02-2002'
  volume(stem.with_name(f'{stem.name}_{ct}.nii.gz'), -1024, 900)
  volume(stem.with_name(f'{stem.name}_{pet}.nii.gz'), 0, 12)
  lay_out(tmp_path, 'imagesTr/psma_1_2_0000.nii.gz')  # another tracer
  if described:
    names = {str(int(ct)): 'CT', str(int(pet)): 'PET'}
    text = json.dumps({'channel_names': names})
    (tmp_path / 'dataset.json').write_text(text)
  (case,) = find_cases('autopet', tmp_path)
  assert case.files[CT].name.endswith(f'_{ct}.nii.gz')
  assert case.files[PET].name.endswith(f'_{pet}.nii.gz')
  assert case.patient == '0b57b247b6'


@pytest.mark.parametrize(
  ('ranges', 'description', 'message'),
  [
    ([(0, 9), (0, 12)], None, 'neither of the two channels'),
    ([(-1000, 9), (-1000, 12)], None, 'both of the two channels'),
    ([(-1000, 9), (0, 12)], {'0': 'PET', '1': 'CT'}, r'dataset\.json names'),
    ([(-1000, 9)], None, 'the other channel of fdg_a_b is missing'),
  ],
)
def test_channels_are_never_guessed(tmp_path, ranges, description, message):
  for i, (low, high) in enumerate(ranges):
    volume(tmp_path / f'imagesTr/fdg_a_b_000{i}.nii.gz', low, high)
  if description:
    text = json.dumps({'channel_names': description})
    (tmp_path / 'dataset.json').write_text(text)
  with pytest.raises(DatasetError, match=message):
    find_cases('autopet', tmp_path)


def test_a_description_that_cannot_be_read_is_named(tmp_path):
  for i, low in enumerate((-1000, 0)):
    volume(tmp_path / f'imagesTr/fdg_a_b_000{i}.nii.gz', low, 9)
  (tmp_path / 'dataset.json').write_text('{"channel_names": ')
  with pytest.raises(DatasetError, match=r'dataset\.json: is not JSON'):
    find_cases('autopet', tmp_path)


def test_a_channel_that_cannot_be_read_is_named(tmp_path):
  path = volume(tmp_path / 'imagesTr/fdg_a_b_0000.nii.gz', -1000, 9)
  volume(tmp_path / 'imagesTr/fdg_a_b_0001.nii.gz', 0, 9)
  path.write_bytes(path.read_bytes()[:60])
  with pytest.raises(DatasetError, match=r'fdg_a_b_0000\.nii\.gz: cannot'):
    find_cases('autopet', tmp_path)


def test_myops_of_both_editions(tmp_path):
  root = lay_out(
    tmp_path,
    'train25/myops_training_101_C0.nii.gz',
    'train25/myops_training_101_DE.nii.gz',
    'train25/myops_training_101_T2.nii.gz',
    'train25_myops_gd/myops_training_101_gd.nii.gz',
    'CenterB/Case2001/Case2001_LGE.nii.gz',
    'CenterB/Case2001/Case2001_C0.nii.gz',
    'CenterC/Case3001/Case3001_LGE.nii.gz',  # alone: no pair
  )
  newer, older = find_cases('myops', root)
  assert (newer.subject, older.subject) == ('Case2001', 'myops_training_101')
  assert set(newer.files) == {Modality.LGE, Modality.BSSFP}
  assert set(older.files) == {Modality.LGE, Modality.BSSFP, Modality.T2}
  assert older.region is Region.HEART


@pytest.mark.parametrize(
  'names',
  [
    ('CT_image.nii.gz', 'MR_T1_image.nii.gz', 'PET_image.nii.gz'),
    ('ct.nii.gz', 'mr.nii.gz', 'pet.nii.gz'),  # in tests/data
  ],
)
def test_a_sarcoma_patient_is_two_cases_of_one_person(tmp_path, names):
  ct, mr, pet = names
  root = lay_out(
    tmp_path,
    *(f'STS_001/{name}' for name in names),
    'STS_001/CT_mask.nii.gz',  # of the tumour
    'STS_001/MR_T1_mask.nii.gz',
    f'STS_003/{ct}',
    f'STS_003/{pet}',
    f'STS_004/{mr}',  # alone: no pair
  )
  mr_ct, pet_ct, other = find_cases('ibsi_sts', root)
  assert [c.id for c in (mr_ct, pet_ct, other)] == [
    'ibsi_sts.STS_001_mr',
    'ibsi_sts.STS_001_pet',
    'ibsi_sts.STS_003_pet',
  ]
  assert files_of(mr_ct, root) == {
    CT: f'STS_001/{ct}',
    MR: f'STS_001/{mr}',
  }
  assert files_of(pet_ct, root) == {
    CT: f'STS_001/{ct}',
    PET: f'STS_001/{pet}',
  }
  assert (mr_ct.region, pet_ct.region) == (Region.PELVIS, Region.WHOLE_BODY)
  assert mr_ct.patient == pet_ct.patient != other.patient
  assert mr_ct.mask is pet_ct.mask is None
  # The tumour on the grid of the case, beside images that have their name.
  masks = [c.lesion and c.lesion.name for c in (mr_ct, pet_ct, other)]
  published = ct == 'CT_image.nii.gz'
  assert masks == (
    ['MR_T1_mask.nii.gz', 'CT_mask.nii.gz', None] if published else [None] * 3
  )
  # The first of them that a case has defines its grid.
  assert mr_ct.reference == pet_ct.reference == (MR, CT)


@pytest.mark.parametrize(
  'name',
  ['synthrad2023', 'synthrad2025', 'brats', 'autopet', 'myops', 'ibsi_sts'],
)
def test_a_folder_of_something_else_is_refused(tmp_path, name):
  lay_out(tmp_path, 'a/ct.nii.gz', 'a/mr.nii.gz')
  with pytest.raises(DatasetError, match=f'holds no pair of {name}'):
    find_cases(name, tmp_path)
  with pytest.raises(DatasetError, match='no such folder'):
    find_cases(name, tmp_path / 'nowhere')


def test_two_copies_of_a_case_are_refused(tmp_path):
  root = lay_out(
    tmp_path,
    *(
      f'{folder}/1BA000/{name}.nii.gz'
      for folder in ('Task1/brain', 'copy')
      for name in ('mr', 'ct')
    ),
  )
  with pytest.raises(DatasetError, match=r'case synthrad2023\.1BA000 is in'):
    find_cases('synthrad2023', root)


def test_a_volume_twice_in_a_case_is_refused(tmp_path):
  root = lay_out(
    tmp_path, '1BA000/mr.nii.gz', '1BA000/ct.nii.gz', '1BA000/ct.nii'
  )
  with pytest.raises(DatasetError, match=r'ct\.nii(\.gz)? is the same'):
    find_cases('synthrad2023', root)


def test_a_mask_twice_in_a_case_is_refused(tmp_path):
  names = ('mr.nii.gz', 'ct.nii.gz', 'mask.nii.gz', 'mask.nii')
  root = lay_out(tmp_path, *(f'1BA000/{name}' for name in names))
  with pytest.raises(DatasetError, match=r'mask\.nii(\.gz)? is the same'):
    find_cases('synthrad2023', root)


def test_a_lesion_mask_twice_in_a_case_is_refused(tmp_path):
  ends = ('t1.nii', 't2.nii', 'seg.nii', 'seg.nii.gz')
  root = lay_out(tmp_path, *(f'x/BraTS2021_00002_{end}' for end in ends))
  with pytest.raises(DatasetError, match=r'seg\.nii(\.gz)? is the same'):
    find_cases('brats', root)


def test_a_link_out_of_the_root_is_refused(tmp_path):
  root = lay_out(tmp_path / 'set', '1BA000/mr.nii.gz')
  outside = lay_out(tmp_path / 'else', 'ct.nii.gz') / 'ct.nii.gz'
  (root / '1BA000/ct.nii.gz').symlink_to(outside)
  with pytest.raises(DatasetError, match='a link that leads out'):
    find_cases('synthrad2023', root)


def test_half_written_files_are_no_volumes(tmp_path):
  root = lay_out(
    tmp_path,
    '1BA000/mr.nii.gz',
    '1BA000/ct.nii.gz',
    '1BA000/.ct.nii.gz.12.partial.nii.gz',
    '.trash/1BA000/mr.nii.gz',
    '.trash/1BA000/ct.nii.gz',
  )
  (case,) = find_cases('synthrad2023', root)
  assert case.files[CT] == root / '1BA000/ct.nii.gz'


def test_a_metaimage_in_itks_axes_goes_in_where_it_lies(tmp_path):
  """SynthRAD2025's files: axes to left, posterior, head, as ITK writes."""
  from synermedgen_jax.slices.ingest import Settings, ingest

  rng = np.random.default_rng(0)
  body = np.zeros((6, 20, 20), np.int16)
  body[:, 4:16, 4:16] = rng.integers(200, 900, (6, 12, 12))
  ct = np.where(body > 0, 40, -1200).astype(np.int16)  # air below -1024 too
  for name, data in (('mr', body), ('ct', ct)):
    image = sitk.GetImageFromArray(data)
    image.SetSpacing((2.0, 2.0, 3.0))
    image.SetOrigin((-19.0, -19.0, 100.0))
    path = tmp_path / f'Task1/TH/1THA001/{name}.mha'
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
  (case,) = find_cases('synthrad2025', tmp_path)
  result = ingest(case, Settings(SliceSpec((20, 20))))
  np.testing.assert_allclose(result.volumes[CT][2, 10, 10], 0.04, atol=1e-4)
  assert result.volumes[CT][2, 0, 0] == -1
  assert result.case.usable == range(6)
  # The first pixel: RAS is minus ITK's x and y.
  affine = np.asarray(result.case.affine)
  np.testing.assert_allclose(affine[:3, 3], (19, 19, 100), atol=1e-3)
