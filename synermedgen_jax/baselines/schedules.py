"""The processes that BBDM, SynDiff and SelfRDB reverse.

Each leads from an image x0 over steps t to noise or to the source y:
x_t = a_t x0 + b_t y + d_t e, with standard normal e. A step back draws from the
Gaussian posterior p(x_n | x_t, x0, y) at an estimate of x0.

Tables are float64; images are float32 at least. A step is one integer for all
images, or one per image. Noise is an argument, of the shape of the images.
"""

from __future__ import annotations

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Step = int | Int[Array, '...']
Images = Float[Array, 'b h w c']


@dataclasses.dataclass(frozen=True, eq=False)
class Posterior:
  """Draws of x_n given x_t, x0 and y; one entry per step back t -> n.

  Attributes:
    x0, y, x_t: coefficients of the mean.
    variance: of the noise.
  """

  x0: Float[np.ndarray, ' s']
  y: Float[np.ndarray, ' s']
  x_t: Float[np.ndarray, ' s']
  variance: Float[np.ndarray, ' s']

  def draw(
    self, entry: Step, x_t: Images, x0: Images, y: Images, noise: Images
  ) -> Images:
    """x_n at entry `entry` of the tables."""
    return (
      _at(self.x0, entry) * x0
      + _at(self.y, entry) * y
      + _at(self.x_t, entry) * x_t
      + _at(np.sqrt(self.variance), entry) * noise
    )


@dataclasses.dataclass(frozen=True)
class BrownianBridge:
  """BBDM's bridge between two images (Li et al., CVPR 2023, arXiv 2205.07680).

  Constants: xuekt98/BBDM, configs/Template-LBBDM-f4.yaml and
  model/BrownianBridge/BrownianBridgeModel.py. Sampling starts from y itself.

  Attributes:
    steps: of the process.
    sampling_steps: of them that sampling visits.
  """

  steps: int = 1000
  sampling_steps: int = 200

  @functools.cached_property
  def m(self) -> Float[np.ndarray, ' t']:
    """The share of y in each step."""
    return np.linspace(0.001, 0.999, self.steps)

  @functools.cached_property
  def variance(self) -> Float[np.ndarray, ' t']:
    """Variance of the noise of each step, 0.5 at most."""
    return 2 * (self.m - self.m**2)

  @functools.cached_property
  def visited(self) -> Int[np.ndarray, ' s']:
    """The steps that sampling visits: 999, 993, 988, ... 10, 5, 1, 0."""
    even = self.sampling_steps - 2
    spread = (self.steps - 1) * np.arange(even, 0, -1) // even
    return np.append(spread, [1, 0])

  @functools.cached_property
  def posterior(self) -> Posterior:
    """From each step of `visited` to the next, and from the last one to x0."""
    m = np.append(self.m, 0.0)
    variance = np.append(self.variance, 0.0)
    clean = self.steps  # the index of x0 in these tables
    return _posterior(
      1 - m, m, variance, self.visited, np.append(self.visited[1:], clean)
    )

  def noised(self, t: Step, x0: Images, y: Images, noise: Images) -> Images:
    """x_t."""
    m = _at(self.m, t)
    return (1 - m) * x0 + m * y + self._deviation(t) * noise

  def target(self, t: Step, x0: Images, y: Images, noise: Images) -> Images:
    """What the network predicts from x_t: x_t - x0."""
    return _at(self.m, t) * (y - x0) + self._deviation(t) * noise

  def clean(self, x_t: Images, predicted: Images) -> Images:
    """The estimate of x0 from the network's prediction."""
    return x_t - predicted

  def step_back(
    self, number: Step, x_t: Images, x0: Images, y: Images, noise: Images
  ) -> Images:
    """Draws x at the next step that sampling visits; at last, returns x0.

    Args:
      number: from 0 to `sampling_steps` - 1: t is `visited[number]`.
      x_t: the image of step t.
      x0: its estimate.
      y: the source.
      noise: standard normal.
    """
    return self.posterior.draw(number, x_t, x0, y, noise)

  def _deviation(self, t):
    return _at(np.sqrt(self.variance), t)


@dataclasses.dataclass(frozen=True)
class VPSchedule:
  """SynDiff's few steps to noise, which preserve the variance.

  Xiao et al., ICLR 2022 (DDGAN, arXiv 2112.07804), of Song et al., ICLR 2021
  (Score-SDE, arXiv 2011.13456): d log(alpha_bar) / dt = -beta(t), where beta
  grows linearly in time from 0 to 1. A network is told t and given x_{t+1}.

  Attributes:
    steps: from noise to an image.
    beta_min, beta_max: beta at times 0 and 1.
    epsilon: the first time.
  """

  steps: int = 4
  beta_min: float = 0.1
  beta_max: float = 20.0
  epsilon: float = 1e-3

  @functools.cached_property
  def alpha_bar(self) -> Float[np.ndarray, ' t']:
    """Signal power of the diffusion at `steps` + 1 times."""
    time = np.linspace(self.epsilon, 1, self.steps + 1)
    slope = self.beta_max - self.beta_min
    return np.exp(-self.beta_min * time - slope * time**2 / 2)

  @functools.cached_property
  def betas(self) -> Float[np.ndarray, ' t']:
    """Variance that each of x_0 to x_steps adds; x_0 has hardly any noise."""
    ratios = self.alpha_bar[1:] / self.alpha_bar[:-1]
    return np.append(1e-8, 1 - ratios)

  @functools.cached_property
  def signal(self) -> Float[np.ndarray, ' t']:
    """Coefficients of the clean image."""
    return np.sqrt(np.cumprod(1 - self.betas))

  @functools.cached_property
  def noise(self) -> Float[np.ndarray, ' t']:
    """Standard deviations of the noise."""
    return np.sqrt(1 - self.signal**2)

  @functools.cached_property
  def posterior(self) -> Posterior:
    """From x_{t+1} to x_t, for t from 0; x_0 is the clean image here."""
    signal = self.signal / self.signal[0]
    earlier = np.arange(self.steps)
    return _posterior(
      signal, np.zeros_like(signal), 1 - signal**2, earlier + 1, earlier
    )

  def noised(self, t: Step, x0: Images, noise: Images) -> Images:
    """x_t, for t from 0 to `steps`."""
    return _at(self.signal, t) * x0 + _at(self.noise, t) * noise

  def noised_pair(
    self, t: Step, x0: Images, noise: Images, next_noise: Images
  ) -> tuple[Images, Images]:
    """x_t, and x_{t+1} drawn from it, for t below `steps`."""
    x_t = self.noised(t, x0, noise)
    kept, added = (
      _at(np.sqrt(table[1:]), t) for table in (1 - self.betas, self.betas)
    )
    return x_t, kept * x_t + added * next_noise

  def step_back(
    self, t: Step, x_next: Images, x0: Images, noise: Images
  ) -> Images:
    """Draws x_t from the posterior; for t = 0, returns x0.

    Args:
      t: below `steps`.
      x_next: x_{t+1}.
      x0: the clean image or its estimate.
      noise: standard normal.
    """
    return self.posterior.draw(t, x_next, x0, jnp.zeros_like(x0), noise)


@dataclasses.dataclass(frozen=True)
class NoisyBridge:
  """SelfRDB's bridge from an image to its source and noise.

  Arslan et al., 2024 (arXiv 2405.06789); constants: icon-lab/SelfRDB,
  config.yaml (gamma 1) and diffusion.py. The posterior takes the noise of x_t
  to have the standard deviation `deviation`. In training it is `std`, smaller
  by the factor 1 + betas / sum(betas). So sampling shows the network up to 1.14
  times the noise that it was trained with. `step_back` follows the published
  program.

  Attributes:
    steps: from the source to the image.
    beta_start: beta of the first step.
    beta_end: of the last one, were betas not mirrored at half the steps.
  """

  steps: int = 10
  beta_start: float = 0.1
  beta_end: float = 0.3

  @functools.cached_property
  def betas(self) -> Float[np.ndarray, ' t']:
    """Variances that the steps add, from t = 0; symmetric."""
    count = self.steps + 1
    ends = np.sqrt([self.beta_start, self.beta_end])
    rising = np.append(0.0, np.linspace(*ends, count) ** 2)
    half = rising[: count // 2]
    middle = rising[count // 2 : count - count // 2]
    return np.concatenate([half, middle, half[::-1]])

  @functools.cached_property
  def deviation(self) -> Float[np.ndarray, ' t']:
    """s: the deviation of the noise that steps 0 to t add."""
    return np.sqrt(np.cumsum(self.betas))

  @functools.cached_property
  def backward_deviation(self) -> Float[np.ndarray, ' t']:
    """s': the deviation of the noise that steps t to `steps` add."""
    return self.deviation[::-1]

  @functools.cached_property
  def mu_x0(self) -> Float[np.ndarray, ' t']:
    """The share of x0 in each step."""
    return self.backward_deviation**2 / self._power

  @functools.cached_property
  def mu_y(self) -> Float[np.ndarray, ' t']:
    """The share of y in each step."""
    return self.deviation**2 / self._power

  @functools.cached_property
  def std(self) -> Float[np.ndarray, ' t']:
    """Standard deviation of the noise of x_t in training."""
    return self.betas.sum() * self.deviation / self._power

  @functools.cached_property
  def posterior(self) -> Posterior:
    """From x_t to x_{t-1}, for t from 1."""
    later = np.arange(1, self.steps + 1)
    return _posterior(
      self.mu_x0, self.mu_y, self.deviation**2, later, later - 1
    )

  def noised(self, t: Step, x0: Images, y: Images, noise: Images) -> Images:
    """x_t; at t = `steps`, y and noise, from which sampling starts."""
    return (
      _at(self.mu_x0, t) * x0 + _at(self.mu_y, t) * y + _at(self.std, t) * noise
    )

  def step_back(
    self, t: Step, x_t: Images, x0: Images, y: Images, noise: Images
  ) -> Images:
    """Draws x_{t-1} from the posterior; for t = 1, returns x0.

    Args:
      t: from 1 to `steps`.
      x_t: the image of step t.
      x0: its estimate.
      y: the source.
      noise: standard normal.
    """
    return self.posterior.draw(t - 1, x_t, x0, y, noise)

  @property
  def _power(self):
    return self.deviation**2 + self.backward_deviation**2


def _posterior(x0, y, variance, start, stop) -> Posterior:
  """The posterior of a Markov chain with Gaussian steps.

  Args:
    x0, y, variance: of x_t: coefficients of x0 and y, variance of the noise.
    start, stop: t and n of each step back, indices of these tables.
  """
  # A step forward keeps this factor of x_n and adds noise of this variance.
  kept = x0[start] / x0[stop]
  added = variance[start] - kept**2 * variance[stop]
  weight = kept * variance[stop] / variance[start]
  return Posterior(
    x0=x0[stop] - weight * x0[start],
    y=y[stop] - weight * y[start],
    x_t=weight,
    variance=added * variance[stop] / variance[start],
  )


def _at(table, t):
  """Entries of a table as float32 factors of images."""
  return jnp.asarray(table, jnp.float32)[jnp.asarray(t), None, None, None]
