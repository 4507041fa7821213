"""Forward operators for computational imaging, y = A(x) + n, as deepinv physics.

    import operators
    from deepinv.physics import GaussianNoise

    physics = operators.GaussianBlur(img_size=(3, 256, 256), sigma=2.0, noise_model=GaussianNoise(0.02))
    y = physics(x)                   # x: (B, 3, 256, 256) in [0, 1]; A x plus noise
    x_hat = physics.A_dagger(y)

An operator knows `img_size` and `measurement_size`, both (C, H, W), and moves with `.to(device)` and `.to(dtype)`.
Calling it never changes it: it takes the keywords that deepinv passes around, such as `mask`, and ignores them.
"""

from operators.blur import Blur, DefocusBlur, GaussianBlur, MotionBlur, UniformBlur
from operators.boundaries import PaddedBlur, SeparableBlur, blur
from operators.colorization import Colorization
from operators.compressed_sensing import CompressedSensing, DCTSensing
from operators.denoising import Denoising
from operators.gaussian_sensing import GaussianSensing
from operators.inpainting import Inpainting, box_mask, half_mask, image_mask, random_mask, row_mask
from operators.iterative import IterativePhysics, Solution, conjugate_gradients, least_squares
from operators.kernels import disc_kernel, gaussian_kernel, load_kernel, motion_kernel, uniform_kernel
from operators.mri import MRI, MultiCoilMRI, NonCartesianMRI
from operators.reflect import ReflectBlur
from operators.separable import Separable
from operators.superresolution import BicubicSuperResolution, GaussianSuperResolution, SuperResolution

__all__ = [
    "BicubicSuperResolution",
    "Blur",
    "Colorization",
    "CompressedSensing",
    "DCTSensing",
    "DefocusBlur",
    "Denoising",
    "GaussianBlur",
    "GaussianSensing",
    "GaussianSuperResolution",
    "Inpainting",
    "IterativePhysics",
    "MRI",
    "MotionBlur",
    "MultiCoilMRI",
    "NonCartesianMRI",
    "PaddedBlur",
    "ReflectBlur",
    "Separable",
    "SeparableBlur",
    "Solution",
    "SuperResolution",
    "UniformBlur",
    "blur",
    "box_mask",
    "conjugate_gradients",
    "disc_kernel",
    "gaussian_kernel",
    "half_mask",
    "image_mask",
    "least_squares",
    "load_kernel",
    "motion_kernel",
    "random_mask",
    "row_mask",
    "uniform_kernel",
]
