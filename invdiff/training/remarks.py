"""What is to be said of the images of a run."""

from invdiff.datasets.darkness import said_if_dark
from invdiff.training.batches import PatchSource
from invdiff.training.complex_patches import ComplexPatches
from invdiff.training.patches import Patches
from invdiff.training.whole import WholeImages


def remark(source: PatchSource) -> str:
    """That the images are nearly black, if they are; "" else, and of latents, whose images are not kept."""
    if isinstance(source, ComplexPatches):
        return said_if_dark(source.pools[0])
    return said_if_dark(source.images) if isinstance(source, Patches | WholeImages) else ""
