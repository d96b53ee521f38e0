"""A project outside the library, as docs/extend.md describes it.

One module with everything that a project can add. The page shows these lines.
"""

# extend: imports
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from synermedgen_jax.core.modalities import (
  Modality,
  Region,
  register_modality,
  register_route,
)
from synermedgen_jax.evaluation.metrics import register_metric
from synermedgen_jax.evaluation.synthesisers import register_synthesiser
from synermedgen_jax.slices.datasets import CaseFiles
from synermedgen_jax.slices.public_datasets import register_dataset
from synermedgen_jax.tasks.example import Example, SliceRef, text, vit_image
from synermedgen_jax.tasks.registry import Task, register_task
from synermedgen_jax.tasks.scoring import WORDS
from synermedgen_jax.training.objectives import (
  multimodal_sums,
  register_objective,
)

# extend: end

# extend: modality
US = register_modality('us', 'ultrasound')
# extend: end

# extend: route
CT_TO_US, US_TO_CT = register_route(Region.PELVIS, Modality.CT, US)
# extend: end


# extend: dataset
def find_clinic(root: Path) -> list[CaseFiles]:
  """The subjects of ROOT/<split>/<subject>/<modality>.nii.gz."""
  return [
    CaseFiles(
      'clinic',
      folder.name,
      Region.PELVIS,
      {
        Modality.parse(path.name.removesuffix('.nii.gz')): path
        for path in sorted(folder.glob('*.nii.gz'))
      },
      split=folder.parent.name,
    )
    for folder in sorted(root.glob('*/*'))
  ]


register_dataset('clinic', find_clinic)
# extend: end


# extend: task
def build_same_place(pair, pool, rng):
  """Source slice, target slice of the same or another place -> yes or no."""
  others = [i for i in pair.case.usable if i != pair.index]
  same = rng.random() < 0.5
  index = pair.index if same else int(rng.choice(others))
  answer = 'yes' if same else 'no'
  spans = (
    vit_image(SliceRef(pair.case.id, pair.route.source, pair.index)),
    vit_image(SliceRef(pair.case.id, pair.route.target, index)),
    text('Do both slices show the same place?'),
    text(answer, has_loss=True),
  )
  return Example('same_place', spans, answer, pair.route)


register_task(
  Task(
    name='same_place',
    kind='question',
    title='recognition of one place in two modalities',
    definition='whether a source and a target slice show the same place',
    build=build_same_place,
    eligible=lambda pair, pool: len(pair.case.usable) > 1,
    scoring=WORDS,
    mirror=True,
  )
)
# extend: end


# extend: metric
def rmse(images, mask):
  """Root mean squared error in the unit of the target."""
  error = images.error if mask is None else images.error[mask]
  low, high = images.unit_range
  return np.sqrt(np.mean(error**2)) * (high - low)


register_metric(
  'rmse',
  rmse,
  {
    'range': 'images clipped to the window of the target, in physical units',
    'mask': 'over the body mask of a case',
    'full_frame': 'over all voxels of a case',
    'dimension': '3-D, one error per case',
    'unit': 'that of the target; lower is better',
  },
)
# extend: end


# extend: synthesiser
class LinearFit:
  """One line from source to target values, fitted to the training subjects."""

  def __init__(self, trained, store):
    del trained  # the run that is evaluated; a baseline needs nothing of it
    self._store = store

  def synthesise(self, route, sources, *, seed=0, progress=None):
    source, target = (
      np.concatenate(
        [
          self._store.read_volume(case.id, modality).ravel()
          for case in self._store.split('train')
          if route in case.routes
        ]
      )
      for modality in (route.source, route.target)
    )
    slope, offset = np.polyfit(source, target, 1)
    (slices,) = sources  # `route.source` refuses several
    if progress:
      progress(len(slices))
    return np.clip(slope * slices + offset, -1, 1).astype(np.float32)


register_synthesiser('linear_fit', LinearFit)
# extend: end


# extend: objective
def joint_l2_sums(model, params, batch, key, config, tasks):
  """Joint training with an L2 penalty on the connector."""
  sums = multimodal_sums(model, params, batch, key, config, tasks)
  weights = jax.tree.leaves(params['connector'])
  penalty = sum(jnp.square(w.astype(jnp.float32)).sum() for w in weights)
  return sums | {'connector_l2': (penalty, jnp.ones(()))}


register_objective('joint_l2', joint_l2_sums, ('ntp', 'flow', 'connector_l2'))
# extend: end
