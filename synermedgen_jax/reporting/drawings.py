"""Figures as SVG within a page, in the colours of its theme.

Text stays text in the page's font, and images keep their own pixels, so a
drawing is sharp at any size and needs no second version for a dark page.
"""

from __future__ import annotations

import base64
import html
import io
import re

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from synermedgen_jax.reporting.pictures import (
  BLUE,
  GREEN,
  GREY,
  GRID,
  ORANGE,
  RED,
  SKY,
)

# Colour of a figure -> token of page.css.
_TOKENS = {
  '#000000': 'ink',
  '#ffffff': 'paper',
  GREY: 'soft',
  GRID: 'line',
  BLUE: 'blue',
  ORANGE: 'orange',
  SKY: 'sky',
  GREEN: 'good',
  RED: 'bad',
}
_TOKENS = {color.lower(): token for color, token in _TOKENS.items()}
_POINTS = 4 / 3  # CSS pixels


def to_svg(figure: Figure, words: str) -> Markup:
  """Returns a figure as an SVG element with a transparent background.

  Args:
    figure: the figure; its black, and the colours of `pictures`, follow the
      theme of the page.
    words: description for readers who do not see it.
  """
  file = io.StringIO()
  # The salt makes equal figures equal files.
  style = {'svg.fonttype': 'none', 'svg.hashsalt': words, 'savefig.dpi': 120}
  with mpl.rc_context(style):
    figure.savefig(
      file,
      format='svg',
      transparent=True,
      bbox_inches='tight',
      pad_inches=0.04,
      metadata=dict.fromkeys(('Creator', 'Date', 'Format', 'Type')),
    )
  svg = file.getvalue()
  svg = svg[svg.index('<svg') :]
  svg = re.sub(r' xmlns(:\w+)?="[^"]*"', '', svg, count=2)
  # Its style sheet would be that of the whole page.
  svg = re.sub(r'<defs>\s*<style.*?</style>\s*</defs>', '', svg, flags=re.S)
  svg = re.sub(r'(?<=: )#[0-9a-f]{6}(?=[;"])', _token, svg)
  svg = re.sub(r"'DejaVu Sans'(, [^;\"]*)?", 'inherit', svg)
  svg = re.sub(r'(?<=data:image/png;base64,)[^"]+', _smaller, svg)
  width = float(re.search(r'<svg[^>]* width="([\d.]+)pt"', svg)[1])
  about = f'aria-label="{html.escape(words)}" role="img"'
  size = f'style="--natural: {width * _POINTS:.0f}px"'
  return Markup(svg.replace('<svg', f'<svg {about} {size}', 1).strip())


def _token(match: re.Match) -> str:
  color = match[0]
  return f'var(--{_TOKENS[color]})' if color in _TOKENS else color


def _smaller(match: re.Match) -> str:
  """The same picture with one byte per pixel, if it has few opaque colours."""
  picture = np.asarray(
    Image.open(io.BytesIO(base64.b64decode(match[0]))).convert('RGBA')
  )
  colors, pixels = np.unique(
    picture.reshape(-1, 4), axis=0, return_inverse=True
  )
  if len(colors) > 256 or (colors[:, 3] < 255).any():
    return match[0]
  small = Image.fromarray(pixels.reshape(picture.shape[:2]).astype(np.uint8))
  small.putpalette(colors[:, :3].tobytes())
  file = io.BytesIO()
  small.save(file, 'PNG', optimize=True)
  return base64.b64encode(file.getvalue()).decode()
