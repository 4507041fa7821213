"""Magnetic resonance imaging: operators, sampling masks and coil tools."""

from operators.mri import coils, compression, phantom, sampling, sensitivities, trajectories
from operators.mri._fourier import fft, ifft, to_channels, to_complex
from operators.mri.cartesian import MRI
from operators.mri.coils import birdcage_maps, border_samples, combine, mix_coils, noise_covariance, prewhiten, rss
from operators.mri.compression import compress_geometric, compress_svd
from operators.mri.homodyne import PhaseConstrained, low_resolution_phase
from operators.mri.multicoil import MultiCoilMRI, combine_sets
from operators.mri.noncartesian import NonCartesianMRI
from operators.mri.sensitivities import espirit

__all__ = [
    "MRI",
    "MultiCoilMRI",
    "NonCartesianMRI",
    "PhaseConstrained",
    "birdcage_maps",
    "border_samples",
    "coils",
    "combine",
    "combine_sets",
    "compress_geometric",
    "compress_svd",
    "compression",
    "espirit",
    "fft",
    "ifft",
    "low_resolution_phase",
    "mix_coils",
    "noise_covariance",
    "phantom",
    "prewhiten",
    "rss",
    "sampling",
    "sensitivities",
    "to_channels",
    "to_complex",
    "trajectories",
]
