"""From the scanner's axes to the affine of the images."""

import numpy as np

SPACING_ALONE = "the file does not tell the orientation: the affine holds the spacing only"      # a note

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_from_lps(column: np.ndarray, row: np.ndarray, step: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """(4, 4), voxel (column, row, slice) to RAS+ millimetres, from DICOM's LPS: what one column, row and slice further is, and
    the place of voxel (0, 0, 0), each (3,) in millimetres."""
    affine = np.eye(4)
    affine[:3] = np.stack([column, row, step, origin], axis=1)
    return _LPS_TO_RAS @ affine


def affine_of_spacings(row: float, column: float, step: float, size: tuple[int, int]) -> np.ndarray:
    """(4, 4), of images (H, W) that lie nobody knows where: millimetres between rows, columns and slices alone, as if axial."""
    origin = -np.array([column * (size[1] // 2), row * (size[0] // 2), 0.0])
    return affine_from_lps(np.array([column, 0, 0]), np.array([0, row, 0]), np.array([0, 0, step]), origin)


def is_frame(*directions: np.ndarray) -> bool:
    """Whether the vectors (3,) are of length 1 and at right angles, to 1 %."""
    matrix = np.stack(directions).astype(np.float64)
    return bool(np.abs(matrix @ matrix.T - np.eye(len(matrix))).max() < 0.01)
