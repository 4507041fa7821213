"""What no sampling mask can be: one sentence each."""

import math

import pytest
import torch

from operators.mri import sampling

LINES = ("random_lines", "equispaced_lines", "equispaced_fraction_lines", "magic_lines")
REFUSED = [
    *((name, ((2, 32), 0.5), {}, r"^acceleration: expected .* got 0\.5$") for name in [*LINES, "gaussian_lines"]),
    *((name, ((2, 32), 4, 1.5), {}, r"^center_fraction: expected a number in \[0, 1\]") for name in LINES),
    *((name, ((2, 32), 4, 0.08, -1), {}, r"^seed: expected an integer >= 0, got -1$") for name in LINES),
    *((name, ((2, 32, 1),), {}, r"^shape: expected two integers \(H, W\)") for name in [*LINES, "caipi", "poisson_disc"]),
    ("random_lines", ((2, 0),), {}, r"^shape: expected \(H, W\) of at least 1"),
    ("random_lines", ((2, 32), 4, 0.08, 2**32), {}, r"^seed: expected an integer below 2\^32"),
    ("random_lines", ((2, 32), 4, 0.08, ()), {}, r"^seed: expected an integer below 2\^32"),
    ("random_lines", ((2, 32), 8, 0.2), {}, r"^center_fraction: expected at most 4 of 32 columns.* got 0\.2, .* 6 columns$"),
    ("equispaced_fraction_lines", ((2, 32), 8, 0.2), {}, "^center_fraction: expected at most 4 of 32 columns"),
    ("gaussian_lines", ((2, 32), 8, 0.2), {}, r"^acceleration: expected at most 5\.333, with 6 of 32 .* got 8$"),
    ("gaussian_lines", ((2, 32), 100, 0.0), {}, r"^acceleration: expected at most 32\b.* got 100$"),
    ("gaussian_lines", ((2, 32), math.inf), {}, "^acceleration: expected a number in"),
    ("gaussian_lines", ((2, 32),), {"spread": 0}, r"^spread: expected a number in \(0, inf\)"),
    ("equispaced_lines", ((2, 32), 4.5), {}, r"^acceleration: expected an integer >= 1, got 4\.5$"),
    ("equispaced_lines", ((2, 32),), {"offset": -1}, "^offset: expected an integer >= 0"),
    ("magic_lines", ((2, 3), 40, 0.0), {"offset": 9}, "^center_fraction: expected at least one column of 3"),
    ("gaussian_points", ((32, 32), 4, 33), {}, r"^calib: expected a block no larger than \(H, W\) = \(32, 32\), got 33$"),
    ("gaussian_points", ((32, 32), 4, 20), {}, r"^acceleration: expected at most 2\.56, with 400 of 1024"),
    ("poisson_disc", ((32, 32), 4, 20), {}, r"^acceleration: expected at most 2\.56, with 400 of 1024"),
    ("poisson_disc", ((32, 32), 4, (4, 4, 4)), {}, "^calib: expected a block no larger than"),
    ("poisson_disc", ((32, 32), 4, -1), {}, "^calib: expected an integer >= 0"),
    ("poisson_disc", ((32, 32), 1.2, 4), {}, r"^acceleration: expected at least 1\.2\d+ without the corners.* got 1\.2$"),
    ("poisson_disc", ((32, 32), 4, 4), {"decay": -1}, "^decay: expected a number in"),
    ("poisson_disc", ((32, 32), 4, 4), {"seed": 0.5}, "^seed: expected an integer"),
    ("radial_lines", ((32, 32),), {}, "^acceleration, spokes: expected one of the two, got None and None$"),
    ("radial_lines", ((32, 32), 4), {"spokes": 3}, "^acceleration, spokes: expected one of the two, got 4 and 3$"),
    ("radial_lines", ((32, 32),), {"spokes": 0}, "^spokes: expected an integer >= 1"),
    ("radial_lines", ((32, 32), 1.1), {}, "^acceleration: expected at least 1.2"),
    ("radial_lines", ((32, 32), 100), {}, r"^acceleration: expected at most 3\d.*, that of one spoke, got 100$"),
    ("partial_fourier", ((32, 32), 0.5), {}, "^fraction: expected more than 16 of 32 lines"),
    ("partial_fourier", ((32, 32), 1.1), {}, r"^fraction: expected a number in \[0, 1\], got 1\.1$"),
    ("partial_fourier", ((32, 32), 0.7, 2), {}, "^axis: expected 0 or 1"),
    ("caipi", ((32, 32), 4), {}, r"^acceleration: expected two integers \(ry, rz\) of at least 1, got 4$"),
    ("caipi", ((32, 32), (0, 2)), {}, r"^acceleration: expected two integers \(ry, rz\)"),
    ("caipi", ((32, 32), (2, 2), 2), {}, "^shift: expected 0 to rz - 1 = 1, got 2$"),
    ("dynamic", (sampling.random_lines, 0), {}, "^frames: expected an integer >= 1"),
    ("achieved_acceleration", (torch.zeros(2, 3),), {}, r"^mask: expected at least one measured point, got none in \(2, 3\)$"),
    ("report", (torch.zeros(2, 3),), {}, "^mask: expected at least one measured point"),
]


@pytest.mark.parametrize(("name", "arguments", "keywords", "message"), REFUSED)
def test_what_cannot_be_is_refused(name, arguments, keywords, message):
    with pytest.raises(ValueError, match=message):
        getattr(sampling, name)(*arguments, **keywords)
