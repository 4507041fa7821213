"""Makes the scans of this folder: `python data/samples/make.py`. They hold nobody's data.

phantom.h5 is the analytic head of `operators.mri.phantom`: k-space of ellipses by continuous Fourier transforms, so that no
reconstruction shares a grid with it. head.h5 is a head that never was: the prior `brain` drew it, given no more than the
phantom's 20 x 20 lowest frequencies; its k-space is a transform of its pixels, and what is measured on it flatters that prior.
Both have eight coils, a smooth phase and noise, and are fully sampled. K-space is rounded to half the noise, which saves space.
"""

from pathlib import Path

import h5py
import numpy as np
import torch

import invdiff
import operators
from invdiff.io.files import replacing
from invdiff.posterior import MomentMatching
from operators.mri import phantom, sampling

SIZE, COILS, NOISE = (256, 256), 8, 0.004       # noise per real channel; images peak near 1
HERE = Path(__file__).parent


def head() -> torch.Tensor:
    """(1, 2, H, W)."""
    physics = operators.MRI((2, *SIZE), sampling.center_block(SIZE, 20))
    problem = invdiff.simulate(physics, 0.8 * phantom.image(SIZE), 0.05, seed=0)
    sampler = MomentMatching(steps=60, covariance="spectral")
    return invdiff.restore(problem, invdiff.load_prior("brain"), sampler, samples=1, seed=3).samples[:, 0]


def write(name: str, kspace: torch.Tensor, source: str, licence: str) -> None:
    """kspace (1, N, H, W) complex64, as fastMRI lays it out."""
    step = NOISE / 2
    rounded = torch.view_as_complex((torch.view_as_real(kspace) / step).round() * step)
    with replacing(HERE / name) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("kspace", data=rounded.numpy().astype(np.complex64), compression="gzip", compression_opts=9,
                            shuffle=True)
        file.attrs.update(source=source, licence=licence, notice="synthetic: no person was scanned")


def main() -> None:
    write("phantom.h5", phantom.kspace(SIZE, COILS, sigma=NOISE, seed=0), "analytic phantom of operators.mri.phantom",
          "BSD-3-Clause")
    images = operators.mri.to_complex(head()) * phantom.maps(SIZE, COILS, phase=False)
    noise = torch.view_as_complex(torch.randn(*images.shape, 2, generator=torch.Generator().manual_seed(1)))
    write("head.h5", operators.mri.fft(images, (-2, -1)) + NOISE * noise,
          "synthetic head, drawn by the diffusion prior `brain`; its anatomy is invented", "research only, non-commercial")


if __name__ == "__main__":
    main()
