"""Forward operators for computational imaging, y = A(x) + n, as deepinv physics.

    import operators
    from deepinv.physics import GaussianNoise

    physics = operators.GaussianBlur(img_size=(3, 256, 256), sigma=2.0, noise_model=GaussianNoise(0.02))
    y = physics(x)                   # x: (B, 3, 256, 256) in [0, 1]; A x plus noise
    x_hat = physics.A_dagger(y)

An operator knows `img_size` and `measurement_size`, both (C, H, W), and moves with `.to(device)` and `.to(dtype)`.
Calling it never changes it. `physics(x, mask=m)`, or another tensor of its constructor, is for that call alone, and keywords
that it does not know are ignored; `update(mask=m)` does change it.
"""

from operators.blur import Blur, DefocusBlur, GaussianBlur, MotionBlur, UniformBlur
from operators.boundaries import PaddedBlur, SeparableBlur, blur
from operators.colorization import Colorization
from operators.compressed_sensing import CompressedSensing, DCTSensing
from operators.denoising import Denoising
from operators.gaussian_sensing import GaussianSensing
from operators.inpainting import Inpainting, box_mask, half_mask, image_mask, random_mask, row_mask
from operators.iterative import IterativePhysics, Solution, conjugate_gradients, least_squares
from operators.jpeg import JPEG
from operators.jpeg_noise import estimate_jpeg_sigma
from operators.kernel_files import load_kernel
from operators.kernels import disc_kernel, gaussian_kernel, motion_kernel, uniform_kernel
from operators.mri import MRI, MultiCoilMRI, NonCartesianMRI
from operators.noise import (
    GaussianNoise,
    PoissonGaussianNoise,
    PoissonNoise,
    estimate_kspace_sigma,
    estimate_sigma,
    noise_whiteness,
)
from operators.nonlinear import HighDynamicRange, NonlinearBlur, Quantization
from operators.phase_retrieval import CodedPhaseRetrieval, PhaseRetrieval
from operators.reflect import ReflectBlur
from operators.separable import Separable
from operators.stacked import Stacked, StackedNonlinear, stack
from operators.superresolution import BicubicSuperResolution, GaussianSuperResolution, SuperResolution

__all__ = [
    "JPEG",
    "MRI",
    "BicubicSuperResolution",
    "Blur",
    "CodedPhaseRetrieval",
    "Colorization",
    "CompressedSensing",
    "DCTSensing",
    "DefocusBlur",
    "Denoising",
    "GaussianBlur",
    "GaussianNoise",
    "GaussianSensing",
    "GaussianSuperResolution",
    "HighDynamicRange",
    "Inpainting",
    "IterativePhysics",
    "MotionBlur",
    "MultiCoilMRI",
    "NonCartesianMRI",
    "NonlinearBlur",
    "PaddedBlur",
    "PhaseRetrieval",
    "PoissonGaussianNoise",
    "PoissonNoise",
    "Quantization",
    "ReflectBlur",
    "Separable",
    "SeparableBlur",
    "Solution",
    "Stacked",
    "StackedNonlinear",
    "SuperResolution",
    "UniformBlur",
    "blur",
    "box_mask",
    "conjugate_gradients",
    "disc_kernel",
    "estimate_jpeg_sigma",
    "estimate_kspace_sigma",
    "estimate_sigma",
    "gaussian_kernel",
    "half_mask",
    "image_mask",
    "least_squares",
    "load_kernel",
    "motion_kernel",
    "noise_whiteness",
    "random_mask",
    "row_mask",
    "stack",
    "uniform_kernel",
]
