"""What the likelihood asks of any sampler: gradients of the data misfit, and draws of x0 from N(m, C) given y.

Linear operators answer in closed form or by conjugate gradients, differentiable ones through autograd.
"""

from collections.abc import Callable

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from invdiff.diffusion.randomness import Draw
from invdiff.errors import InputError
from invdiff.posterior.covariance import StationaryCovariance, condition, dots
from invdiff.priors.spectrum import ErrorSpectrum
from invdiff.problem import Problem

NONLINEAR = "dps, daps, split_gibbs, red_diff, annealed_langevin"       # the samplers for operators that are not linear
ACCURACY = 1e-3, 50         # of solves for draws: the tolerance, and the most iterations


def is_linear(problem: Problem) -> bool:
    return isinstance(problem.physics, LinearPhysics)


def misfit(problem: Problem, x: Tensor) -> tuple[Tensor, Tensor]:
    """r = y - A(x), and J^T r for the Jacobian J of A at x (B, C, H, W)."""
    if is_linear(problem):
        r = problem.y - problem.A(x)
        return r, problem.A_adjoint(r)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        predicted = _differentiable(problem, problem.A(x))
        r = (problem.y - predicted).detach()
        (pulled,) = torch.autograd.grad(predicted, x, r)
    problem.calls.operator += len(x)
    return r, pulled


def _differentiable(problem: Problem, predicted: Tensor) -> Tensor:
    if not predicted.requires_grad:
        raise InputError(f"{type(problem.physics).__name__} gives no gradient of A(x) by x; expected a differentiable "
                         "operator")
    return predicted


def squared_norm(problem: Problem, x: Tensor, iterations: int = 15) -> Tensor:
    """The largest eigenvalue of J^T J at x for each item, (B, 1, ...), by power iterations; for a linear A, |A|^2.

    From below, and within a few per cent as a rule. Starts from a fixed vector, so that it is the same for every batch.
    """
    v = torch.randn(x.shape[1:], dtype=torch.float32, generator=torch.Generator().manual_seed(0)).to(x).expand_as(x)
    product = _gauss_newton(problem, x)
    size = dots(v, v).sqrt()
    for _ in range(iterations):
        v = product(v / size.clamp_min(1e-30))
        size = dots(v, v).sqrt()
    return size


class Linearised:
    """A(z + v) = value + J v of a differentiable operator, about z (B, ...)."""

    def __init__(self, problem: Problem, z: Tensor):
        self.problem = problem
        with torch.enable_grad():
            self.z = z.detach().requires_grad_()
            self.value = _differentiable(problem, problem.A(self.z))
            self.weights = torch.zeros_like(self.value, requires_grad=True)
            (self.pulled,) = torch.autograd.grad(self.value, self.z, self.weights, create_graph=True)

    def push(self, v: Tensor) -> Tensor:
        """J v: the derivative of the linear w -> J^T w."""
        self.problem.calls.operator += len(v)
        return torch.autograd.grad(self.pulled, self.weights, v, retain_graph=True)[0]

    def pull(self, w: Tensor) -> Tensor:
        """J^T w."""
        self.problem.calls.operator += len(w)
        return torch.autograd.grad(self.value, self.z, w, retain_graph=True)[0]


def _gauss_newton(problem: Problem, x: Tensor) -> Callable[[Tensor], Tensor]:
    """v -> J^T J v at x."""
    if is_linear(problem):
        return problem.A_adjoint_A
    at = Linearised(problem, x)
    return lambda v: at.pull(at.push(v))


def length(v: Tensor) -> Tensor:
    """Of each item, (B, 1, 1, 1), as images take it, whatever the shape of v (B, ...)."""
    return v.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)


def stationary_noise(spectrum: ErrorSpectrum, sigma: float, draw: Tensor) -> Tensor:
    """C^1/2 draw, for the covariance C of the spectrum at this level and white noise `draw` (B, C, H, W)."""
    size = (draw.shape[-2], draw.shape[-1])
    return StationaryCovariance(spectrum.at(sigma, size, draw.device), size).root(draw)


def mean_power(spectrum: ErrorSpectrum, sigma: float, like: Tensor) -> Tensor:
    """The variance a pixel of the prior's error at this level has, (1, 1, 1, 1) or (B, 1, 1, 1) for images like `like`."""
    height, width = like.shape[-2:]
    power = spectrum.at(sigma, (height, width), like.device)
    # rfft2 keeps one of each pair of conjugate frequencies; columns 0 and, for even widths, W / 2 have no partner
    weight = power.new_full((width // 2 + 1,), 2.0)
    weight[0] = 1.0
    if width % 2 == 0:
        weight[-1] = 1.0
    mean = (power * weight).sum((-2, -1)) / (height * width)
    return mean.mean(-1).reshape(-1, 1, 1, 1)


class GivenData:
    """Draws from N(z; mean, C) p(y | z), a chain each. C is stationary with spectrum `power` (K, H, W // 2 + 1) or (B, K, ...).

    Linear operators: perturb, then solve (Papandreou & Yuille 2010), exact up to the tolerance of the solver.
    Others: `langevin_steps` of preconditioned Langevin dynamics, exact in their limit.
    """

    def __init__(self, problem: Problem, langevin_steps: int):
        self._problem, self._steps = problem, langevin_steps
        self._noise_level = problem.sigma_y * problem.observed().to(problem.y)      # what was not measured has no noise

    def __call__(self, mean: Tensor, power: Tensor, noise: Draw) -> Tensor:
        covariance = StationaryCovariance(power, self._problem.size)
        if not is_linear(self._problem):
            return self._langevin(mean, covariance, noise)
        z = mean + covariance.root(noise(mean.shape[1:]))
        perturbed = self._problem.of(self._problem.y + self._noise_level * noise(self._problem.y.shape[1:]))
        return z + condition(perturbed, covariance, z, tolerance=ACCURACY[0], iterations=ACCURACY[1])[0]

    def _langevin(self, mean: Tensor, covariance: StationaryCovariance, noise: Draw) -> Tensor:
        """z <- z - h C grad U + sqrt(2 h) C^1/2 (n + n') / 2, U = |y - A(z)|^2 / (2 sigma_y^2) + (z - m)^T C^-1 (z - m) / 2.

        The noise of a step is the mean of two draws, of which the next step has the second: that makes the limit exact for
        a quadratic U whatever h is (Leimkuhler & Matthews 2013). h is half of the inverse of the largest curvature at m, or of
        what the gradient's change over the last step tells of it: where an operator steepens, chains would run away.
        """
        problem, variance = self._problem, self._problem.noise_variance
        largest = 1 + covariance.power.amax((-3, -2, -1), keepdim=True) * squared_norm(problem, mean) / variance
        z, draw = mean, noise(mean.shape[1:])
        before: tuple[Tensor, Tensor] | None = None
        for _ in range(self._steps):
            _, pull = misfit(problem, z)
            slope = z - mean - covariance(pull) / variance
            h = 0.5 / largest
            if before is not None:
                moved = length(z - before[0]).clamp_min(torch.finfo(z.dtype).tiny)
                h = 0.5 / largest.maximum(length(slope - before[1]) / moved)
            before, after = (z, slope), noise(mean.shape[1:])
            z = z - h * slope + (h / 2).sqrt() * covariance.root(draw + after)
            draw = after
        return z
