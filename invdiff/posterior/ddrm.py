"""Denoising diffusion restoration: a scalar rule for each component in the basis of the operator's SVD."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from deepinv.models import Denoiser
from deepinv.physics import DecomposablePhysics
from pydantic import Field
from torch import Tensor

from invdiff.diffusion.integrators import Step
from invdiff.diffusion.randomness import Streams
from invdiff.posterior.sampler import Sampler, for_chains
from invdiff.problem import Problem, require


class DDRM(Sampler):
    """DDRM (Kawar et al. 2022, Eqs. 7 and 8), for operators with an SVD. One network call a step.

    eta and eta_b are theirs. Biased by design: a component's measurement is used only while its noise, sigma_y / s, is
    below the level's sigma, and then as it is, without the prior's word on it.
    """

    about: ClassVar[str] = "a scalar rule for each singular value, one network call a step"
    eta: float = Field(0.85, ge=0, le=1)
    eta_b: float = Field(1.0, ge=0, le=1)

    def steps(self, prior: Denoiser, problem: Problem, seeds: Sequence[int]) -> Iterator[Step]:
        physics = require(problem.physics, DecomposablePhysics, "DDRM", "moment_matching, pigdm, diffpir, dps")
        problem = for_chains(problem, seeds)
        noise = Streams(seeds, problem.y.device)
        shape = problem.image_shape
        if physics.V_adjoint(problem.y.new_zeros(len(seeds), *shape)).shape[1:] != shape:
            raise ValueError(f"DDRM needs an SVD over the reals, and that of {type(physics).__name__} is complex; these "
                             "would work: moment_matching, pigdm, diffpir, dps")
        s = torch.as_tensor(physics.mask, device=problem.y.device).expand(len(seeds), *shape)
        known = s > 1e-6 * s.max()
        inverse = torch.where(known, 1 / s.clamp_min(1e-30), 0.0)
        target = inverse * physics.U_adjoint(problem.y)                 # A^+ y, in the SVD's basis
        spread = torch.where(known, problem.sigma_y * inverse, float("inf"))
        sigmas = self.schedule(self.num_steps, self.sigma_min, self.sigma_max).tolist()
        with torch.no_grad():
            start = torch.where(spread <= sigmas[0], target, 0.0)
            deviation = (sigmas[0] ** 2 - torch.where(spread <= sigmas[0], spread, 0.0).square()).sqrt()
            x = physics.V(start + deviation * noise.normal(shape))
            for sigma, after in pairwise(sigmas):
                x0 = prior(x, sigma)
                problem.calls.operator += 3 * len(x)
                clean, state = physics.V_adjoint(x0), physics.V_adjoint(x)
                x = physics.V(self._update(clean, state, target, spread, sigma, after, noise.normal(shape)))
                yield Step(after, x, x0 if after > 0 else x)

    def _update(self, clean: Tensor, state: Tensor, target: Tensor, spread: Tensor, sigma: float, after: float,
                draw: Tensor) -> Tensor:
        keep = after * (1 - self.eta**2) ** 0.5
        fresh = self.eta * after * draw
        unknown = clean + keep / sigma * (state - clean) + fresh
        noisy = clean + keep * (target - clean) / spread.clamp_min(1e-30) + fresh
        deviation = (after**2 - (self.eta_b * spread.clamp_max(after)).square()).clamp_min(0).sqrt()
        good = clean + self.eta_b * (target - clean) + deviation * draw
        return torch.where(spread <= after, good, torch.where(spread.isinf(), unknown, noisy))
