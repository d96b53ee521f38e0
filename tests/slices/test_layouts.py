"""Layouts of nnU-Net and BIDS, and a flat folder."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layout_files import lay_out

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices.input_files import DatasetError
from synermedgen_jax.slices.layouts import LAYOUTS, split_name

CT, MR, PET = Modality.CT, Modality.MR, Modality.PET
T1, T1CE, T2 = Modality.T1, Modality.T1CE, Modality.T2


def listed(layout, root, region=Region.BRAIN):
  return LAYOUTS[layout](root, dataset='study', region=region)


def files(listing, root):
  return {
    case.subject: {m: str(p.relative_to(root)) for m, p in case.files.items()}
    for case in listing.cases
  }


def problems(listing):
  return '\n'.join(fault.problem for fault in listing.faults)


def describe(root, **content):
  (root / 'dataset.json').write_text(json.dumps(content))


def test_nnunet(tmp_path):
  describe(tmp_path, channel_names={'0': 'CT', '1': 'PET'})
  lay_out(
    tmp_path,
    'imagesTr/case_1_0000.nii.gz',
    'imagesTr/case_1_0001.nii.gz',
    'imagesTr/._case_1_0001.nii.gz',
    'imagesTs/case_2_0000.nrrd',
    'imagesTs/case_2_0001.nrrd',
    'labelsTr/case_1.nii.gz',
  )
  listing = listed('nnunet', tmp_path, Region.WHOLE_BODY)
  assert not listing.faults
  assert files(listing, tmp_path) == {
    'case_1': {
      CT: 'imagesTr/case_1_0000.nii.gz',
      PET: 'imagesTr/case_1_0001.nii.gz',
    },
    'case_2': {
      CT: 'imagesTs/case_2_0000.nrrd',
      PET: 'imagesTs/case_2_0001.nrrd',
    },
  }


def test_nnunet_with_the_names_of_the_decathlon(tmp_path):
  names = ('FLAIR', 'T1w', 't1gd', 'T2w')
  describe(tmp_path, modality={str(i): n for i, n in enumerate(names)})
  lay_out(tmp_path, *(f'imagesTr/B_{i:04}.nii.gz' for i in range(4)))
  (case,) = listed('nnunet', tmp_path).cases
  assert [*case.files] == [Modality.FLAIR, T1, T1CE, T2]


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    (
      ['c_0002.nii'],
      r'c_0002\.nii: .*json has no channel 2, only 0, 1',
    ),
    (['ct.nii'], r'ct\.nii: expected <case>_<channel of four digits>'),
    (['c_0000.nii', 'c_0000.mha'], 'is ct of c too; remove one'),
  ],
)
def test_images_of_nnunet_that_do_not_fit_are_named(tmp_path, names, message):
  describe(tmp_path, channel_names={'0': 'CT', '1': 'MR'})
  lay_out(tmp_path, *(f'imagesTr/{name}' for name in [*names, 'ok_0000.nii']))
  listing = listed('nnunet', tmp_path)
  assert [case.subject for case in listing.cases] == ['ok']
  with pytest.raises(DatasetError, match=message):
    listing.all_cases()


def test_an_unknown_channel_of_nnunet_is_one_fault(tmp_path):
  describe(tmp_path, channel_names={'0': 'T2', '1': 'ADC'})
  lay_out(tmp_path, 'imagesTr/a_0000.nii', 'imagesTr/a_0001.nii')
  listing = listed('nnunet', tmp_path)
  assert files(listing, tmp_path) == {'a': {T2: 'imagesTr/a_0000.nii'}}
  assert "channel 1 is 'ADC', which is no known modality" in problems(listing)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('{', 'is not JSON'),
    ('[]', 'has no "channel_names"'),
    ('{"channel_names": {"CT": 0}}', 'has no "channel_names"'),
    ('{"channel_names": {"0": "CT", "1": "ct"}}', '2 channels are ct'),
    ('{"channel_names": {"0": "CT"}}', 'holds no volume of the layout nnunet'),
  ],
)
def test_descriptions_of_nnunet_that_cannot_be_used(tmp_path, text, message):
  (tmp_path / 'dataset.json').write_text(text)
  with pytest.raises(DatasetError, match=message):
    listed('nnunet', tmp_path)


def test_nnunet_without_a_description_is_named(tmp_path):
  with pytest.raises(DatasetError, match=r'json: no such file; --root'):
    listed('nnunet', tmp_path)


def test_bids(tmp_path):
  lay_out(
    tmp_path,
    'sub-01/anat/sub-01_T1w.nii.gz',
    'sub-01/anat/sub-01_ce-gadolinium_T1w.nii.gz',
    'sub-01/anat/sub-01_T2w.nii.gz',
    'sub-01/anat/sub-01_FLAIR.nii.gz',
    'sub-01/anat/.sub-01_T1w.nii.gz',
    'sub-01/func/sub-01_task-rest_bold.nii.gz',
    'sub-02/ses-a/anat/sub-02_ses-a_acq-mprage_T1w.nii.gz',
    'sub-02/ses-a/pet/sub-02_ses-a_trc-FDG_pet.nii.gz',
    'sub-02/ses-b/anat/sub-02_ses-b_T2w.nii',
    'derivatives/fmriprep/sub-01/anat/sub-01_desc-brain_T1w.nii.gz',
    'sourcedata/sub-01/anat/sub-01_T1w.nii.gz',
    'participants.tsv',
  )
  listing = listed('bids', tmp_path)
  assert not listing.faults
  one, a, b = listing.cases
  assert set(one.files) == {T1, T1CE, T2, Modality.FLAIR}
  assert one.files[T1CE].name == 'sub-01_ce-gadolinium_T1w.nii.gz'
  assert (a.subject, set(a.files)) == ('sub-02_ses-a', {T1, PET})
  assert (b.subject, set(b.files)) == ('sub-02_ses-b', {T2})
  assert one.patient == 'sub-01'
  assert a.patient == b.patient == 'sub-02'


def test_images_of_bids_that_are_not_clear_are_named(tmp_path):
  lay_out(
    tmp_path,
    'sub-1/anat/sub-1_run-1_T1w.nii',
    'sub-1/anat/sub-1_run-2_T1w.nii',
    'sub-2/anat/sub-2_ce-feraheme_T1w.nii',
    'sub-3/anat/sub-3_T1w.nii',
  )
  listing = listed('bids', tmp_path)
  assert [case.subject for case in listing.cases] == ['sub-3']
  assert 'run-1_T1w.nii is t1 of sub-1 too' in problems(listing)
  assert 'the contrast agent ce-feraheme is unknown' in problems(listing)


def test_flat(tmp_path):
  lay_out(
    tmp_path,
    'p_1_ct.nii.gz',
    'p_1-MR.nii.gz',
    'p_1_mask.nii.gz',
    'p_1-lesion.nii.gz',
    'p_1_ct_seg.nii.gz',
    'p2-t2-flair.mha',
    'p2_t1.mha',
    '._p2_t1.mha',
    'notes.txt',
    'sub/p3_ct.nii',
  )
  listing = listed('flat', tmp_path)
  assert not listing.faults
  assert files(listing, tmp_path) == {
    'p2': {Modality.FLAIR: 'p2-t2-flair.mha', T1: 'p2_t1.mha'},
    'p_1': {CT: 'p_1_ct.nii.gz', MR: 'p_1-MR.nii.gz'},
  }
  p2, p_1 = listing.cases
  assert p_1.mask == tmp_path / 'p_1_mask.nii.gz'
  assert (p_1.lesion, p2.lesion) == (tmp_path / 'p_1-lesion.nii.gz', None)


def test_names_in_a_flat_folder_that_are_not_clear_are_named(tmp_path):
  lay_out(tmp_path, 'a_ct.nii', 'b_dwi.nii', 'b_ct.nii', 'ct.nii', 'a-CT.mha')
  listing = listed('flat', tmp_path)
  assert not listing.cases
  assert "b_dwi.nii: Unknown modality 'dwi'" in problems(listing)
  assert 'ct.nii: has no subject' in problems(listing)
  assert 'a_ct.nii' in problems(listing)


SUBJECTS = st.text(min_size=1, max_size=12).filter(
  lambda s: not s.endswith(('_', '-'))
)


@given(SUBJECTS, st.sampled_from([*Modality]), st.sampled_from('_-'))
def test_a_flat_name_is_taken_apart_as_it_was_put_together(
  subject, modality, separator
):
  stem = f'{subject}{separator}{modality}'
  result = split_name(stem)
  # A subject that ends in the beginning of a longer name, such as x_t2_flair.
  assert result[1] is not None
  assert stem.startswith(result[0])
  if not any(p in subject.lower() for p in ('t1', 't2', 'ct', '-', '_')):
    assert result == (subject, modality)


@pytest.mark.parametrize('layout', ['flat', 'bids', 'folder'])
def test_an_unknown_layout_shows_the_first_files(tmp_path, layout):
  lay_out(tmp_path, 'deep/er/scan1.foo', 'deep/er/x.hdr', 'deep/er/x.img')
  with pytest.raises(DatasetError) as error:
    listed(layout, tmp_path).all_cases()
  text = str(error.value)
  assert 'deep/er/scan1.foo' in text or 'er/scan1.foo' in text
  assert 'Not read: 2 Analyze or NIfTI pair files' in text
  assert '--draft=TABLE.csv' in text
