"""Slices drawn with fewer coils than they were measured with.

Sampling applies A^T A thousands of times, and each coil takes as long as the others. Of the virtual coils that an SVD makes
(Huang et al. 2008) the last ones hold next to nothing. They are left out of what samples are drawn with, and of nothing else:
noise, coil maps and noise levels come from all. What is left is no approximation, but the measurement without its last coils.
"""

import torch

import operators
from invdiff.problem import Problem
from operators import mri

LOST = 0.005        # of the energy of k-space, at most: twice as much costs 0.1 dB at 8x


def in_fewer_coils(problem: Problem) -> Problem:
    """The measurement (1, 2, N, ...) of one image in the fewest virtual coils that lose no more than LOST of its energy."""
    physics, kspace = problem.physics, torch.complex(problem.y[:, 0], problem.y[:, 1])
    samples = kspace[0].flatten(1)
    kept = torch.linalg.eigvalsh(samples @ samples.mH).flip(0).clamp_min(0).cumsum(0)
    count = int((kept < (1 - LOST) * kept[-1]).sum()) + 1
    if count >= len(samples):
        return problem
    made = mri.compress_svd(kspace, count)
    maps = mri.mix_coils(torch.view_as_complex(physics.coil_maps)[0], made.matrix[0])[None]
    if isinstance(physics, operators.NonCartesianMRI):
        fewer = operators.NonCartesianMRI(physics.trajectory, physics.img_size, maps)
    else:
        fewer = operators.MultiCoilMRI(physics.mask, maps, weights=physics.weights if physics.weights.ndim else None)
    return Problem(fewer, torch.stack([made.kspace.real, made.kspace.imag], 1), problem.sigma_y)
