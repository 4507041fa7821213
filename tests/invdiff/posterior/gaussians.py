"""Gaussian priors of no symmetry and operators of every kind, on images of a few values."""

import torch

import operators
from invdiff.priors.analytic import GaussianPrior

SPREAD = 0.2          # standard deviation of these priors, in image units


def rough_prior(size=(1, 4, 6), seed=0):
    """Not stationary: a random covariance with eigenvalues over two decades."""
    generator = torch.Generator().manual_seed(seed)
    n = size[0] * size[1] * size[2]
    vectors = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    values = torch.logspace(-2, 0, n, dtype=torch.float64)
    cov = vectors * (SPREAD**2 * values / values.mean()) @ vectors.T
    return GaussianPrior(torch.rand(size, generator=generator), cov.float())


def _maps(height, width):
    grid = torch.linspace(-1, 1, width).expand(height, width)
    return torch.stack([torch.exp(-((grid - c) ** 2)) * torch.exp(1j * c * grid) for c in (-0.5, 0.7)])


LINES = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0]).expand(4, 6)          # k-space lines that were measured

LINEAR = {          # name: (image size, operator)
    "random": ((1, 4, 6), lambda size: operators.GaussianSensing(size, rate=0.3)),
    "blur": ((1, 4, 6), lambda size: operators.Blur(size, torch.tensor([[0.0, 0.25, 0.1], [0.05, 0.4, 0.0], [0.2, 0.0, 0.0]]))),
    "mask": ((1, 4, 6), lambda size: operators.Inpainting(size, operators.random_mask(size, 0.5))),
    "mri": ((2, 4, 6), lambda size: operators.MRI(size, LINES)),
    "multi-coil mri": ((2, 4, 6), lambda size: operators.MultiCoilMRI(mask=LINES, coil_maps=_maps(4, 6)[None])),
}


def linear(name):
    """The operator of a name, and the size of its images."""
    size, make = LINEAR[name]
    return make(size), size


def log_evidence(prior, problem):
    """log p(y) of a Gaussian prior by dense algebra, over the values of y that the operator reaches."""
    n = prior.mean.numel()
    seen = problem.observed()[0].flatten()
    a = problem.physics.A(torch.eye(n).reshape(n, *prior.mean.shape)).flatten(1).double().T[seen]
    gram = a @ prior.cov.double() @ a.T + problem.sigma_y**2 * torch.eye(len(a), dtype=torch.float64)
    marginal = torch.distributions.MultivariateNormal(a @ prior.mean.double().flatten(), gram)
    return float(marginal.log_prob(problem.y[0].flatten()[seen].double()))
