"""Forward operators for computational imaging, y = A(x) + n, as deepinv physics.

    import operators
    from deepinv.physics import GaussianNoise

    physics = operators.GaussianBlur(img_size=(3, 256, 256), sigma=2.0, noise_model=GaussianNoise(0.02))
    y = physics(x)                   # x: (B, 3, 256, 256) in [0, 1]; A x plus noise
    x_hat = physics.A_dagger(y)

An operator knows `img_size` and `measurement_size`, both (C, H, W), and moves with `.to(device)` and `.to(dtype)`.
Calling it never changes it: it takes the keywords that deepinv passes around, such as `mask`, and ignores them.
"""

from operators.blur import Blur, GaussianBlur, MotionBlur
from operators.denoising import Denoising
from operators.inpainting import Inpainting, box_mask, random_mask
from operators.iterative import IterativePhysics, Solution, conjugate_gradients, least_squares
from operators.separable import Separable
from operators.superresolution import SuperResolution

__all__ = [
    "Blur",
    "Denoising",
    "GaussianBlur",
    "Inpainting",
    "IterativePhysics",
    "MotionBlur",
    "Separable",
    "Solution",
    "SuperResolution",
    "box_mask",
    "conjugate_gradients",
    "least_squares",
    "random_mask",
]
