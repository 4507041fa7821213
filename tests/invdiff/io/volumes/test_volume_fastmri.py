"""HDF5 volumes as fastMRI's evaluation reads them."""

import h5py
import numpy as np
import pytest

from invdiff.io.scans import open_images
from invdiff.io.scans.scan import Header
from invdiff.io.volumes.fastmri import write_fastmri

VOLUME = np.random.default_rng(0).random((3, 7, 5)).astype(np.float32)


def test_round_trip(tmp_path):
    affine = np.diag([-0.7, -0.7, 5, 1])
    write_fastmri(tmp_path / "v.h5", iter(VOLUME), VOLUME.shape, Header(affine, {"EchoTime": 95.0, "SequenceName": "TSE"}))
    with h5py.File(tmp_path / "v.h5") as file:
        assert list(file) == ["reconstruction"]
        assert file["reconstruction"].dtype == np.float32
        np.testing.assert_array_equal(file["reconstruction"], VOLUME)
        np.testing.assert_array_equal(file.attrs["affine"], affine)
        assert (file.attrs["EchoTime"], file.attrs["SequenceName"]) == (95.0, "TSE")
        assert "not for diagnostic use" in file.attrs["note"]


@pytest.mark.parametrize("oriented", [True, False])
def test_its_images_can_be_simulated_from_where_they_lie(oriented, tmp_path):
    affine = np.diag([-0.7, -0.7, 5, 1])
    write_fastmri(tmp_path / "v.h5", iter(VOLUME), VOLUME.shape, Header(affine, oriented=oriented))
    images = open_images(tmp_path / "v.h5")
    np.testing.assert_array_equal(images.header.affine, affine)
    assert images.header.oriented is oriented
    np.testing.assert_array_equal(images.read(1), VOLUME[1])


def test_an_unknown_affine_is_not_invented(tmp_path):
    write_fastmri(tmp_path / "v.h5", iter(VOLUME), VOLUME.shape)
    with h5py.File(tmp_path / "v.h5") as file:
        assert "affine" not in file.attrs
