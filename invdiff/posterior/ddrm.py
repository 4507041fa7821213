"""Denoising diffusion restoration: a scalar rule for each component in the basis of the operator's SVD."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from deepinv.models import Denoiser
from pydantic import Field
from torch import Tensor

from invdiff.diffusion.integrators import Step
from invdiff.diffusion.randomness import Streams
from invdiff.posterior.covariance import spectrum_for
from invdiff.posterior.likelihood import mean_power, stationary_noise
from invdiff.posterior.sampler import Sampler, for_chains
from invdiff.posterior.svd import Components, components
from invdiff.problem import Problem


class DDRM(Sampler):
    """DDRM (Kawar et al. 2022, Eqs. 7 and 8), for operators with an SVD. One network call a step.

    eta and eta_b are theirs: the share of fresh noise, and the trust in a component's measurement. draw=False with
    eta=0.85 is the published rule, of which draw=True mends two things.

    Reversing the forward process that they define takes a draw of x0 given x, for which they put its mean; at every step
    the variance of x0 given x is lost, and what was not measured spreads too little. It is drawn here, as noise of the
    prior's error spectrum around the mean. And while a component's own noise, spread = sigma_y / s, is above the level, they
    add the measurement's deviation from the mean as if it were the state's noise, the same at every step: the denoiser takes
    a part of it for image each time, and images deblurred in 100 steps are worse than in 30. Here such a component is
    drawn given its measurement, with the mean error v(sigma) for the variance of x0 given x.

    Biased by design: below the level, a component's measurement is used as it is, without the prior's word on it.
    """

    uses_spectrum: ClassVar[bool] = True
    about: ClassVar[str] = "a scalar rule for each singular value, one network call a step"
    integrates: ClassVar[bool] = False
    eta: float = Field(1.0, ge=0, le=1)
    eta_b: float = Field(1.0, ge=0, le=1)
    draw: bool = True

    def steps(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        problem = for_chains(problem, seeds)
        basis = components(problem, "DDRM", "moment_matching, pigdm, diffpir, dps")
        noise = Streams(seeds, problem.y.device)
        shape = problem.image_shape
        spectrum = spectrum_for(prior, problem) if self.draw else None
        sigmas = self.schedule(self.num_steps, self.sigma_min, self.sigma_max).tolist()
        with torch.no_grad():
            seen = basis.spread <= sigmas[0]
            deviation = (sigmas[0] ** 2 - torch.where(seen, basis.spread, 0.0).square()).sqrt()
            x = basis.image(torch.where(seen, basis.target, 0.0) + deviation * noise.normal(shape))
            for sigma, after in pairwise(sigmas):
                x0 = prior(x, sigma)
                if spectrum is None or after == 0:
                    clean = basis.of(x0)
                else:
                    clean = basis.of(x0 + stationary_noise(spectrum, sigma, noise.normal(shape)))
                    clean = _given_data(basis, clean, mean_power(spectrum, sigma, x), after, noise.normal(shape))
                x = basis.image(self._update(basis, clean, basis.of(x), sigma, after, noise.normal(shape)))
                yield Step(after, x, x0 if after > 0 else x)

    def _update(self, basis: Components, clean: Tensor, state: Tensor, sigma: float, after: float, draw: Tensor) -> Tensor:
        """The components of the state at level `after`, from those of x0 and of the state at sigma; `draw` is white."""
        spread, keep = basis.spread, after * (1 - self.eta**2) ** 0.5
        fresh = self.eta * after * draw
        unknown = clean + keep / sigma * (state - clean) + fresh
        noisy = unknown if self.draw else clean + keep * (basis.target - clean) / spread.clamp_min(1e-30) + fresh
        deviation = (after**2 - (self.eta_b * spread.clamp_max(after)).square()).clamp_min(0).sqrt()
        good = clean + self.eta_b * (basis.target - clean) + deviation * draw
        return torch.where(spread <= after, good, torch.where(spread.isinf(), unknown, noisy))


def _given_data(basis: Components, drawn: Tensor, variance: Tensor, after: float, draw: Tensor) -> Tensor:
    """Draws of x0's components around a mean, made draws given y where a component's noise is above the level `after`."""
    noisy = (basis.spread > after) & basis.spread.isfinite()
    spread = torch.where(noisy, basis.spread, 0.0)
    gain = variance / (variance + spread.square())
    return torch.where(noisy, drawn + gain * (basis.target + spread * draw - drawn), drawn)
