"""From the scanner's axes to the affine of the images."""

import numpy as np

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_from_lps(column: np.ndarray, row: np.ndarray, step: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """(4, 4), voxel (column, row, slice) to RAS+ millimetres, from DICOM's LPS: what one column, row and slice further is, and
    the place of voxel (0, 0, 0), each (3,) in millimetres."""
    affine = np.eye(4)
    affine[:3] = np.stack([column, row, step, origin], axis=1)
    return _LPS_TO_RAS @ affine


def is_frame(*directions: np.ndarray) -> bool:
    """Whether the vectors (3,) are of length 1 and at right angles, to 1 %."""
    matrix = np.stack(directions).astype(np.float64)
    return bool(np.abs(matrix @ matrix.T - np.eye(len(matrix))).max() < 0.01)
