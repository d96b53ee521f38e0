"""Examples as typed spans, before pixels are read and texts are tokenised.

An `Example` is an ordered list of spans. A span is a text, an image for the
ViT, or an image for the VAE, and names the slice or the picture that it shows;
pixels are read when the example is tokenised.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, Protocol

import grain.python as grain
import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.modalities import Modality, Route

Kind = Literal['text', 'vit_image', 'vae_image']
Mode = Literal['causal', 'full', 'noise']
# A seed -> an endless dataset of one task's examples.
ExampleSource = Callable[[int], grain.MapDataset]


@dataclasses.dataclass(frozen=True)
class SliceRef:
  """The name of one slice: a case of the store, a modality, a plane."""

  case: str
  modality: Modality
  index: int


class Picture(Protocol):
  """An image that is no slice of a store, and reads itself."""

  def read(self) -> Float[np.ndarray, 'h w *channels']:
    """An image in [-1, 1], grey or of three channels."""


ImageRef = SliceRef | Picture


@dataclasses.dataclass(frozen=True)
class Span:
  """One typed piece of an example; make it with the functions below.

  Attributes:
    kind: 'text', 'vit_image' or 'vae_image'.
    text: the words of a text span.
    image: the slice or picture that an image span shows.
    has_loss: the model learns to produce this span: an answer's tokens, or a
      noised image's velocity.
    offset: distance of a VAE image's slice from the middle of its slab, in
      slices; None = no slab. Noised images of a slab, next to each other, are
      noised together and see each other.
    is_label: the text names the span before it, as the letter of a panel or of
      an option does. Reports show it with that span; the model reads text.
  """

  kind: Kind
  text: str = ''
  image: ImageRef | None = None
  has_loss: bool = False
  offset: int | None = None
  is_label: bool = False

  def __post_init__(self):
    if self.kind not in ('text', 'vit_image', 'vae_image'):
      raise ValueError(f'Unknown kind of span {self.kind!r}.')
    is_text = self.kind == 'text'
    if is_text != bool(self.text) or is_text == (self.image is not None):
      raise ValueError(
        'A text span holds words and no image, an image span an image and no '
        f'words: got {self}.'
      )
    if self.kind == 'vit_image' and self.has_loss:
      raise ValueError(f'The model never produces ViT images: got {self}.')
    if self.is_label and (not is_text or self.has_loss):
      raise ValueError(f'A label is a text without loss: got {self}.')

  @property
  def mode(self) -> Mode:
    """Attention within the span; a noise span is hidden from all others."""
    if self.kind == 'text':
      return 'causal'
    return 'noise' if self.has_loss else 'full'


def text(words: str, has_loss: bool = False) -> Span:
  """A text span; with `has_loss`, an answer."""
  return Span('text', text=words, has_loss=has_loss)


def label(words: str) -> Span:
  """A text span that names the span before it."""
  return Span('text', text=words, is_label=True)


def vit_image(image: ImageRef) -> Span:
  """A slice as semantic tokens."""
  return Span('vit_image', image=image)


def vae_image(image: ImageRef, has_loss: bool = False) -> Span:
  """A slice as latent tokens; with `has_loss`, the noised target."""
  return Span('vae_image', image=image, has_loss=has_loss)


@dataclasses.dataclass(frozen=True)
class Example:
  """One question, with the answer or the image to synthesise.

  Attributes:
    task: the name of its row in `tasks.registry`.
    spans: in the order in which the model reads them.
    answer: the text of the last text span with loss; '' without one.
    route: the route of the pair, if there is one.
  """

  task: str
  spans: tuple[Span, ...]
  answer: str = ''
  route: Route | None = None

  def __post_init__(self):
    if not self.spans:
      raise ValueError(f'An example of task {self.task!r} needs a span.')
    answers = [s.text for s in self.spans if s.kind == 'text' and s.has_loss]
    expected = answers[-1] if answers else ''
    if self.answer != expected:
      raise ValueError(
        f'Task {self.task!r}: the answer {self.answer!r} is not the last text '
        f'span with loss, {expected!r}.'
      )

  @property
  def prompt(self) -> Example:
    """The example without its answer, the model's input at inference.

    A noised target stays: sampling fills it, starting from noise.
    """
    spans = tuple(
      s for s in self.spans if not (s.kind == 'text' and s.has_loss)
    )
    return dataclasses.replace(self, spans=spans, answer='')
