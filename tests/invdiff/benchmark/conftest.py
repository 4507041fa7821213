"""A benchmark of a prior and methods of a user's own."""

import sys

import pytest

from invdiff.benchmark.settings import benchmark_config

# a prior, and methods of a user's own, as a module in the current folder
MODULE = '''
import torch
from deepinv.models import Denoiser, Reconstructor
from deepinv.physics import Inpainting
from invdiff.posterior import Sampler

def left(img_size, width: int = 16):
    mask = torch.zeros(tuple(img_size))
    mask[..., :width] = 1
    return Inpainting(tuple(img_size), mask)

class Stationary(Denoiser):
    """E[x0 | x] of Gaussian images whose power falls with frequency."""
    def __init__(self):
        super().__init__()
        fy, fx = torch.fft.fftfreq(32)[:, None], torch.fft.rfftfreq(32)[None]
        power = 1 / (fy.square() + fx.square() + 0.01)
        self.register_buffer("power", 0.06 * power / power.mean())
    def forward(self, x, sigma, **kwargs):
        gain = self.power / (self.power + torch.as_tensor(sigma).reshape(-1, 1, 1, 1) ** 2)
        return 0.5 + torch.fft.irfft2(gain * torch.fft.rfft2(x - 0.5), s=x.shape[-2:])

def prior():
    return Stationary()

class Scaled(Reconstructor):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor
    def forward(self, y, physics, **kwargs):
        return self.factor * physics.A_adjoint(y) + 0.01 * torch.randn(physics.img_size)[None]

def scaled(denoiser, sigma_y, factor=1.0):
    return Scaled(factor)

class Pulled(Sampler):
    gamma: float = 1.0
    def posterior_denoiser(self, prior, problem):
        def denoise(x, sigma):
            x0 = prior(x, sigma)
            return x0 + self.gamma * problem.A_adjoint(problem.y - problem.A(x0))
        return denoise

def quick():
    return Pulled(steps=2, gamma=0.5)

def broken(denoiser, sigma_y):
    raise RuntimeError("<script>alert(1)</script> & http://example.org")
'''
CONFIG = """
count: 2
size: 32
tasks: [deblur, {name: "<i>half</i>", operator: {name: random_inpainting, keep: 0.5}, sigma_y: 0.05}]
priors: ["python:own_parts:prior"]
methods:
  - {name: moment_matching, steps: 2}
  - {name: deepinv_ddrm, steps: 2, samples: 1}
  - {name: "python:own_parts:scaled", factor: 0.9}
  - {name: "python:own_parts:broken", label: "broken <b>"}
  - {name: tv, iterations: 5}
samples: 4
metrics: [psnr, haarpsi]
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    (tmp_path / "own_parts.py").write_text(MODULE)
    (tmp_path / "mine.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    return benchmark_config("mine.yaml")
