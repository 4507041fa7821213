"""Arrays in HDF5: bit for bit there and back, and hostile files."""


import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from invdiff.errors import InputError
from invdiff.io.results import load_arrays, save_arrays


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=5), st.integers(0, 2**32 - 1))
def test_arrays_round_trip_bit_for_bit(tmp_path_factory, shape, seed):
    path = tmp_path_factory.mktemp("arrays") / "x.h5"
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    save_arrays(path, samples=x, measurement=x.double(), mean=torch.full((2,), torch.nan))
    got = load_arrays(path)
    assert sorted(got) == ["mean", "measurement", "samples"]
    assert got["samples"].dtype == got["measurement"].dtype == torch.float32
    assert torch.equal(got["samples"], x)
    assert torch.equal(got["measurement"], x)
    assert got["mean"].isnan().all()


def test_arrays_say_what_their_axes_are(tmp_path):
    save_arrays(tmp_path / "x.h5", samples=torch.zeros(1, 2, 3, 4, 5))
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["samples"].attrs["axes"] == "measurement, sample, channel, row, column"
        assert file["samples"].attrs["units"] == "1"


def test_a_complex_array_is_refused_and_the_old_file_kept(tmp_path):
    save_arrays(tmp_path / "x.h5", mean=torch.ones(2))
    with pytest.raises(ValueError, match="two channels"):
        save_arrays(tmp_path / "x.h5", mean=torch.ones(2, dtype=torch.complex64))
    assert load_arrays(tmp_path / "x.h5")["mean"].tolist() == [1, 1]


def bad_arrays(path, **options):
    with pytest.raises(InputError) as caught:
        load_arrays(path, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_missing_truncated_and_mislabelled_arrays(tmp_path):
    path = tmp_path / "x.h5"
    assert "no such file" in bad_arrays(path)
    assert "no such file" in bad_arrays(tmp_path)
    save_arrays(path, samples=torch.randn(1, 4, 3, 32, 32))
    whole = path.read_bytes()
    for part in (0, 0.1, 0.5, 0.95):
        path.write_bytes(whole[: int(part * len(whole))])
        assert "no readable HDF5" in bad_arrays(path)
    path.write_text("hello")
    assert "no readable HDF5" in bad_arrays(path)
    with h5py.File(path, "w") as file:
        file["kspace"] = np.zeros((2, 2), np.complex64)
    assert "no result of invdiff" in bad_arrays(path)


def external_link(file, secret):
    file["mean"] = h5py.ExternalLink(str(secret), "/secret")


def soft_link(file, secret):
    file["mean"] = h5py.SoftLink("/nowhere")


def external_storage(file, secret):
    file.create_dataset("mean", (4,), "f4", external=[(str(secret), 0, 16)])


def virtual(file, secret):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "secret", (4,))
    file.create_virtual_dataset("mean", layout)


def objects(file, secret):
    file.create_dataset("mean", (2,), h5py.string_dtype())


def references(file, secret):
    file.create_dataset("mean", (2,), h5py.ref_dtype)


def group(file, secret):
    file.create_group("mean/inner")


def doubles(file, secret):
    file["mean"] = np.zeros(2)


def no_shape(file, secret):
    file["mean"] = h5py.Empty("f4")


def number_as_format(file, secret):
    file.attrs["format"] = [1, 2]


@pytest.mark.parametrize("attack", [external_link, soft_link, external_storage, virtual, objects, references, group,
                                    doubles, no_shape, number_as_format])
def test_hostile_arrays(tmp_path, attack):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["secret"] = np.ones(4, np.float32)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["format"] = "invdiff result"
        attack(file, tmp_path / "secret.h5")
    bad_arrays(tmp_path / "x.h5")


def test_arrays_that_unpack_to_too_much(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "invdiff result"
        file.create_dataset("samples", (2**20, 2**20), "f4", chunks=(1024, 1024), compression="gzip")    # sparse
    assert path.stat().st_size < 10_000
    assert "max_bytes" in bad_arrays(path)
    save_arrays(path, mean=torch.zeros(10), std=torch.zeros(10))
    assert len(load_arrays(path, max_bytes=80)) == 2
    assert "80 bytes" in bad_arrays(path, max_bytes=79)
