"""Tables of volumes, as people and spreadsheets write them."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_files import lay_out

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices.input_files import DatasetError
from synermedgen_jax.slices.tables import csv_cases, list_table, read_rows
from synermedgen_jax.slices.volumes import Volume

CT, MR, PET = Modality.CT, Modality.MR, Modality.PET
HEAD = 'subject,modality,path,region,split\n'
GOOD = 'p,ct,ct.nii,brain,train\n'


@pytest.fixture
def read(tmp_path):
  lay_out(tmp_path, 'ct.nii', 'mr.nii', 'p1/ct.mha', 'p1/mr.mha', 'x,y.nii')

  def run(content, *, region=Region.BRAIN, encoding='utf-8'):
    path = tmp_path / 'table.csv'
    if isinstance(content, str):
      content = content.encode(encoding)
    path.write_bytes(content)
    return csv_cases(path, dataset='study', region=region)

  return run


def test_table_is_read_relative_to_itself(read, tmp_path):
  lay_out(tmp_path, 'else/mr.mha')
  first, second = read(
    'subject,modality,path,region,dataset,split,patient\n'
    'p1,ct,p1/ct.mha,pelvis,centre_a,train,\n'
    f'p1,MR,{tmp_path}/else/mr.mha,pelvis,centre_a,train,\n'
    'p1,ct,ct.nii,,,,person\n'
    'p1,pet,mr.nii,,,,person\n',
    region=Region.WHOLE_BODY,
  )
  assert first.id == 'centre_a.p1'
  assert (first.region, first.split) == (Region.PELVIS, 'train')
  assert first.files == {
    CT: tmp_path / 'p1/ct.mha',
    MR: tmp_path / 'else/mr.mha',
  }
  assert second.id == 'study.p1'
  assert (second.region, second.split) == (Region.WHOLE_BODY, '')
  assert second.files == {CT: tmp_path / 'ct.nii', PET: tmp_path / 'mr.nii'}
  assert second.patient == 'person'


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('separator', [',', ';', '\t'])
@pytest.mark.parametrize(
  'encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'cp1252']
)
def test_every_separator_encoding_and_end_of_line(
  read, encoding, separator, end
):
  lines = ['Subject,MODALITY , path', 'Jürgen,CT,ct.nii', 'Jürgen,mr,mr.nii']
  text = end.join(lines).replace(',', separator) + end
  (case,) = read(text, encoding=encoding)
  assert case.subject == 'Jürgen'
  assert set(case.files) == {CT, MR}


def test_lines_of_a_spreadsheet_that_hold_nothing_are_passed_over(read):
  (case,) = read(
    '\n;;;\nsubject;modality;path;\n'
    '\n p ; ct ; ct.nii ;\n;;;\n\np;mr;mr.nii;\n;;'
  )
  assert (case.subject, set(case.files)) == ('p', {CT, MR})


def test_a_separator_may_be_stated(read):
  (case,) = read('sep=;\nsubject;modality;path\np,1;ct;x,y.nii\n')
  assert case.subject == 'p,1'


def test_values_with_separators_are_quoted(read):
  (case,) = read('subject,modality,path\n"p, 1", "ct","x,y.nii"\n')
  assert (case.subject, case.files[CT].name) == ('p, 1', 'x,y.nii')


def test_home_and_backslashes_in_paths(read, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  (case,) = read('subject,modality,path\np,ct,~/p1/ct.mha\np,mr,p1\\mr.mha\n')
  assert case.files == {
    CT: tmp_path / 'p1/ct.mha',
    MR: tmp_path / 'p1/mr.mha',
  }


def test_a_region_may_have_capitals_and_a_space(read):
  (case,) = read(HEAD + 'p,ct,ct.nii,Whole Body,Train\n')
  assert (case.region, case.split) == (Region.WHOLE_BODY, 'train')


def test_a_series_selects_within_a_dicom_folder(read, tmp_path):
  volume = Volume(np.zeros((4, 4, 2), np.float32), np.eye(4))
  write_series(tmp_path / 'study', volume, 'CT')
  (case,) = read('subject,modality,path,series\np,ct,study,3\np,mr,mr.nii,\n')
  assert case.files[CT] == tmp_path / 'study'
  assert case.series == {CT: '3'}


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', r'table\.csv:1: has no column subject, modality, path'),
    ('subject,path\n', r'csv:1: has no column modality; its columns are subj'),
    ('a b c\n', 'its columns are a b c .*commas, semicolons or tabs'),
    ('subject,modality,path,Path\n', 'csv:1: repeats the column path'),
    ('subject,modalty,path\n', "unknown column 'modalty'; rename it to 'moda"),
    (HEAD.replace('split', 'splt'), "unknown column 'splt'; .* 'split'"),
    (HEAD, r'table\.csv: lists no volume'),
    (
      HEAD + GOOD + 'p,xray,ct.nii,brain,\n',
      "csv:3: Unknown modality 'xr",
    ),
    (HEAD + '\n\n' + 'p,xray,ct.nii,brain,\n', r'csv:4: Unknown modality'),
    (HEAD + 'p,ct,ct.nii,knee,train\n', r"csv:2: Unknown region 'knee'"),
    (HEAD + 'p,ct,ct.nii,brain,dev\n', r"csv:2: unknown split 'dev'"),
    (HEAD + 'p,ct,ct.nii\n', r'csv:2: no region; add the column or pass'),
    (HEAD + 'p,ct,,brain,train\n', r'csv:2: path is empty; complete'),
    (HEAD + 'p\n', r'csv:2: modality and path are empty'),
    (HEAD + 'p,ct,x,y.nii,brain,train\n', 'csv:2: has more values than'),
    (HEAD + GOOD + GOOD, r"csv:3: an earlier line lists ct of subject 'p'"),
    (
      HEAD + GOOD + 'p,mr,mr.nii,brain,test\n',
      r"csv:3: .* split 'test'.* '",
    ),
    (HEAD + GOOD + 'p,mr,mr.nii,pelvis,train\n', "csv:3: .* region 'pelvis'"),
    (HEAD + 'p,ct,gone.nii,brain,\n', r'csv:2: .*/gone\.nii: no such file'),
    (HEAD + 'p,ct,p1,brain,\n', 'csv:2: .*/p1: is a folder without DICOM'),
    (
      HEAD + 'p,ct,D:\\p\\ct.nii,brain,\n',
      r'csv:2: .* a Windows drive',
    ),
    (
      HEAD + 'p,"ct,ct.nii,brain,\n' + GOOD,
      'csv:2: a quote .* not closed',
    ),
  ],
)
def test_table_that_cannot_be_read_names_its_line(read, text, message):
  with pytest.raises(DatasetError, match=message):
    read(text, region=None)


def test_a_lesion_mask_is_that_of_every_line_of_a_subject(read, tmp_path):
  lay_out(tmp_path, 'seg/lesion.nii')
  head = 'subject,modality,path,lesion\n'
  lines = 'p,ct,ct.nii,seg/lesion.nii\np,mr,mr.nii,seg/lesion.nii\n'
  marked, unmarked = read(f'{head}{lines}q,ct,ct.nii,\n')
  assert marked.lesion == tmp_path / 'seg/lesion.nii'
  assert unmarked.lesion is None
  with pytest.raises(DatasetError, match=r"csv:3: .* the lesion '', an earl"):
    read(f'{head}p,ct,ct.nii,seg/lesion.nii\np,mr,mr.nii,\n')
  with pytest.raises(DatasetError, match=r'csv:2: .*none\.nii: no such file'):
    read(f'{head}p,ct,ct.nii,none.nii\n')


def test_columns_that_are_no_typo_are_ignored(read):
  (case,) = read('subject,modality,path,age,scanner\np,ct,ct.nii,61,Siemens\n')
  assert case.subject == 'p'


def test_every_faulty_line_is_reported_and_its_subject_left_out(read, tmp_path):
  text = 'subject,modality,path\n' + ''.join(
    f'p{i},{m},{m if i % 2 else "gone"}.nii\n'
    for i in range(4)
    for m in ('ct', 'mr')
  )
  with pytest.raises(DatasetError, match=r'^4 problems'):
    read(text)
  listing = list_table(
    tmp_path / 'table.csv', dataset='study', region=Region.BRAIN
  )
  assert [case.subject for case in listing.cases] == ['p1', 'p3']
  lines = [fault.problem.split(': ')[0] for fault in listing.faults]
  table = tmp_path / 'table.csv'
  assert lines == [f'{table}:{n}' for n in (2, 3, 6, 7)]


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    (b'PK\x03\x04rest', 'is an Excel or LibreOffice workbook; save it as CSV'),
    (b'\xd0\xcf\x11\xe0rest', 'is an Excel workbook'),
    (b'subject,modality,path\n\0\0\0\0', 'is not a text file'),
  ],
)
def test_files_that_are_no_text_are_named(read, data, message):
  with pytest.raises(DatasetError, match=message):
    read(data)


def test_places_without_a_table_are_named(tmp_path):
  for path, message in (
    (tmp_path / 'none.csv', r'none\.csv: no such file'),
    (tmp_path, 'is a folder; --dataset=csv reads a table'),
  ):
    with pytest.raises(DatasetError, match=message):
      csv_cases(path, dataset='study', region=None)


# Any text but line breaks, NUL and the quotes and spaces that reading strips.
_VALUES = st.text(
  st.characters(exclude_categories=['Cc', 'Cs', 'Z', 'Cf']),
  min_size=1,
  max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(
  rows=st.lists(st.tuples(_VALUES, _VALUES, _VALUES), min_size=1, max_size=5),
  separator=st.sampled_from(',;\t'),
  encoding=st.sampled_from(['utf-8', 'utf-8-sig', 'utf-16']),
  end=st.sampled_from(['\n', '\r\n', '\r', '\n\n']),
)
def test_what_was_written_is_read(rows, separator, encoding, end):
  quoted = [
    separator.join('"' + v.replace('"', '""') + '"' for v in row)
    for row in rows
  ]
  head = separator.join(['Subject', ' modality', 'PATH'])
  with tempfile.TemporaryDirectory() as folder:
    table = Path(folder, 'table.csv')
    table.write_bytes(end.join([head, *quoted, '']).encode(encoding))
    result = [
      (row['subject'], row['modality'], row['path'])
      for _, row in read_rows(table)
    ]
  assert result == rows


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_are_a_table_or_one_error(data, with_head):
  with tempfile.TemporaryDirectory() as folder:
    table = Path(folder, 'table.csv')
    table.write_bytes(b'subject,modality,path\n' * with_head + data)
    try:
      listing = list_table(table, dataset='study', region=Region.BRAIN)
      message = listing.faults[0].problem
    except DatasetError as error:
      message = str(error)
    assert message.startswith(f'{folder}{os.sep}table.csv:')
