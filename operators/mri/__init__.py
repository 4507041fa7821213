"""Magnetic resonance imaging: operators, sampling masks and coil tools."""

from operators.mri import sampling, trajectories
from operators.mri.cartesian import MRI
from operators.mri.homodyne import PhaseConstrained, low_resolution_phase
from operators.mri.multicoil import MultiCoilMRI, combine_sets
from operators.mri.noncartesian import NonCartesianMRI

__all__ = [
    "MRI",
    "MultiCoilMRI",
    "NonCartesianMRI",
    "PhaseConstrained",
    "combine_sets",
    "low_resolution_phase",
    "sampling",
    "trajectories",
]
