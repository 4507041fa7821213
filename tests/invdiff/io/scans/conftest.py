"""A file of each format in turn."""

import pytest
from scan_files import IMAGES, SCANS


@pytest.fixture(params=SCANS)
def scan_file(request, tmp_path):
    """A file of 3 coils (ISMRMRD: 2) on an (8, 6) grid, complex standard normal."""
    return SCANS[request.param](tmp_path)


@pytest.fixture(params=IMAGES)
def image_file(request, tmp_path):
    return IMAGES[request.param](tmp_path)
