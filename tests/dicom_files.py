"""DICOM series written with pydicom, for tests."""

import warnings

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from synermedgen_jax.slices.volumes import Volume

SOP = {
  'CT': '1.2.840.10008.5.1.4.1.1.2',
  'MR': '1.2.840.10008.5.1.4.1.1.4',
  'PT': '1.2.840.10008.5.1.4.1.1.128',
}
PATIENT = 'Mustermann^Erika'
# A PET whose SUV is 2 * 70000 / 350e6 = 0.0004 per Bq/ml: one half-life of
# F-18 (6586.2 s) lies between injection and scan.
PET = {
  'Units': 'BQML',
  'DecayCorrection': 'START',
  'CorrectedImage': ['DECY', 'ATTN'],
  'PatientWeight': '70',
  'SeriesDate': '20240105',
  'SeriesTime': '120000.2',
  'AcquisitionDate': '20240105',
  'AcquisitionTime': '120500',
}
INJECTION = {
  'RadiopharmaceuticalStartTime': '101014',
  'RadionuclideTotalDose': '350000000',
  'RadionuclideHalfLife': '6586.2',
}
SUV_PER_BQML = 0.0004


def write_series(
  folder,
  volume: Volume,
  modality: str,
  *,
  injection=None,
  names='{}.dcm',
  **more,
):
  """Writes one file per slice along z; returns the data sets in this order.

  Args:
    folder: where to write; created.
    volume: voxels in the modality's unit, and their affine.
    modality: CT, MR or PT.
    injection: fields of the radiopharmaceutical that replace INJECTION's.
    names: file name with the index of the slice as {}.
    more: fields of every slice; a function takes the index; None removes.
  """
  folder.mkdir(parents=True, exist_ok=True)
  # LPS, by hand: x and y of the affine change sign.
  affine = np.diag([-1.0, -1, 1, 1]) @ volume.affine
  spacing = np.linalg.norm(affine[:3, :3], axis=0)
  axes = affine[:3, :3] / spacing
  shared = {
    'SOPClassUID': SOP[modality],
    'Modality': modality,
    'StudyInstanceUID': '1.2.3',
    'SeriesInstanceUID': f'1.2.3.{sum(map(ord, str(folder)))}',
    'FrameOfReferenceUID': '1.2.3.4',
    'PatientName': PATIENT,
    'PatientID': 'SECRET-1',
    'SeriesNumber': '3',
    'SeriesDescription': f'{modality} axial',
    'ImageType': ['ORIGINAL', 'PRIMARY', 'AXIAL'],
    'ImageOrientationPatient': [*axes[:, 0], *axes[:, 1]],
    'PixelSpacing': [spacing[1], spacing[0]],
    'SamplesPerPixel': 1,
    'PhotometricInterpretation': 'MONOCHROME2',
    **(PET if modality == 'PT' else {}),
  }
  written = []
  for index in range(volume.data.shape[2]):
    fields = {
      **shared,
      'ImagePositionPatient': list(affine[:3] @ (0, 0, index, 1)),
      'InstanceNumber': index + 1,
      **_pixels(volume.data[:, :, index], modality),
    }
    if modality == 'PT':
      item = Dataset()
      _set(item, INJECTION | (injection or {}), index)
      fields['RadiopharmaceuticalInformationSequence'] = [item]
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPInstanceUID = generate_uid()
    _set(dataset, fields | more, index)
    save(dataset, folder / names.format(index))
    written.append(dataset)
  return written


def save(dataset, path):
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # numbers of more than 16 characters
    dataset.save_as(path, enforce_file_format=True)


def edit(path, **fields):
  """Replaces fields of a file; None removes one."""
  dataset = pydicom.dcmread(path)
  _set(dataset, fields, 0)
  save(dataset, path)


def _set(dataset, fields, index):
  for keyword, value in fields.items():
    value = value(index) if callable(value) else value
    if isinstance(value, list) and value and isinstance(value[0], float):
      value = [f'{v:.9g}' for v in value]
    if value is not None:
      setattr(dataset, keyword, value)
    elif keyword in dataset:
      delattr(dataset, keyword)


def _pixels(values, modality):
  """Pixels as scanners store them: CT + 1024, PET with a slope per slice."""
  slope, intercept = 1.0, 0.0
  if modality == 'CT':
    intercept = -1024.0
  elif modality == 'PT':
    values = values / SUV_PER_BQML
    slope = float(f'{max(values.max(), 1) / 32767:.10g}')
  stored = np.round((values - intercept) / slope).astype(np.int16)
  scaling = {
    'RescaleSlope': f'{slope:.10g}',
    'RescaleIntercept': f'{intercept}',
  }
  return {
    'Rows': stored.shape[1],
    'Columns': stored.shape[0],
    'BitsAllocated': 16,
    'BitsStored': 16,
    'HighBit': 15,
    'PixelRepresentation': 1,
    'PixelData': stored.T.tobytes(),
    **({} if modality == 'MR' else scaling),
  }
