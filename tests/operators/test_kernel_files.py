"""Kernels from files of every kind, and files that hold none."""

import io
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

import operators
from operators import load_kernel

SHARED = Path(__file__).parents[2] / "../shared/data/kernels.npz"


def weights(*shape):
    return np.random.default_rng(0).integers(0, 200, shape)


def saved(tmp_path, name, array):
    """The array in a file of the format that `name` ends with."""
    path = tmp_path / name
    if name.endswith("73.mat"):
        with h5py.File(path, "w", userblock_size=512) as file:
            file["psf"] = array.T  # as MATLAB stores it
            file["label"] = np.array([[80], [115]], np.uint16)[:, :, None]
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
    elif name.endswith(".mat"):
        savemat(path, {"psf": array, "comment": "a text", "stack": np.zeros((2, 2, 2))})
    elif name.endswith(".npz"):
        np.savez(path, psf=array)
    elif name.endswith(".npy"):
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("k.npy", np.float32),
        ("k.npy", np.int64),
        ("k.npz", np.float64),
        ("k.mat", np.float64),
        ("k.mat", np.uint8),
        ("k73.mat", np.float64),
        ("k.png", np.uint8),
        ("k.png", np.uint16),
        ("k.tif", np.float32),
        ("k.TIFF", np.uint8),
    ],
)
def test_a_kernel_comes_back_from_its_file(tmp_path, name, dtype):
    array = weights(5, 8).astype(dtype)
    array[0] = 0  # borders of zeros stay
    kernel = load_kernel(saved(tmp_path, name, array))
    assert kernel.dtype == torch.float64
    np.testing.assert_allclose(kernel, array / array.sum(dtype=np.float64), rtol=1e-12)
    assert torch.equal(kernel, load_kernel(str(tmp_path / name)))


def test_negative_lobes_are_kept(tmp_path):
    array = np.array([[-1.0, 4.0, -1.0]])
    np.testing.assert_allclose(load_kernel(saved(tmp_path, "k.npy", array)), array / 2)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "CMYK", "1"])
def test_colours_are_averaged_and_transparency_is_ignored(tmp_path, mode):
    grey = (weights(6, 6) > 90).astype(np.uint8) * 255
    path = tmp_path / ("k.tif" if mode == "CMYK" else "k.png")
    image = Image.fromarray(grey).convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(weights(6, 6).astype(np.uint8)))
    image.save(path)
    np.testing.assert_allclose(load_kernel(path), grey / grey.sum(), atol=1e-12)
    colours = weights(4, 5, 3).astype(np.uint8)
    np.testing.assert_allclose(load_kernel(saved(tmp_path, "c.png", colours)), colours.sum(2) / colours.sum(), atol=1e-12)


@pytest.mark.parametrize("name", ["k.npz", "k.mat"])
def test_an_array_of_many_is_named(tmp_path, name):
    arrays = {"first": weights(3, 3) + 1.0, "second": weights(4, 2) + 1.0}
    path = tmp_path / name
    np.savez(path, **arrays) if name.endswith("npz") else savemat(path, arrays)
    expected = arrays["second"] / arrays["second"].sum()
    np.testing.assert_allclose(load_kernel(path, "second"), expected)
    np.testing.assert_allclose(load_kernel(f"{path}:second"), expected)
    with pytest.raises(ValueError, match=r"^key: expected .* got None; its arrays: first, second$"):
        load_kernel(path)
    with pytest.raises(ValueError, match=r"^key: expected .* got 'third'; its arrays: first, second$"):
        load_kernel(path, "third")
    with pytest.raises(ValueError, match=r"got 'third'; its arrays"):
        load_kernel(f"{path}:third")


def test_the_kernels_of_levin_are_read():
    if not SHARED.exists():
        pytest.skip("the shared kernels.npz is not there")
    kernel = load_kernel(SHARED, "levin_1")
    assert kernel.shape == (19, 19)
    assert kernel.sum().item() == pytest.approx(1, abs=1e-14)
    assert torch.equal(load_kernel(f"{SHARED}:levin_1"), kernel)
    with pytest.raises(ValueError, match="levin_8"):
        load_kernel(SHARED)
    operators.Blur((3, 64, 64), kernel)


def test_python_objects_are_refused_and_never_run(tmp_path):
    marker = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return Path.touch, (marker,)

    np.save(tmp_path / "k.npy", np.array([[Hostile()]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "k.npz", k=np.array([[Hostile()]], dtype=object), fine=np.ones((2, 2)))
    for path, key in [("k.npy", None), ("k.npz", "k")]:
        with pytest.raises(ValueError, match=r"^kernel: expected an image, .npy, .npz or .mat file, got "):
            load_kernel(tmp_path / path, key)
    assert not marker.exists()
    assert load_kernel(tmp_path / "k.npz", "fine").shape == (2, 2)  # the other is not even looked at


@pytest.mark.parametrize("name", ["k.npy", "k.npz", "k.mat", "k73.mat", "k.png", "k.tif"])
@pytest.mark.parametrize("keep", [0, 3, 0.3, 0.9])
def test_a_truncated_file_is_refused(tmp_path, name, keep):
    whole = saved(tmp_path, name, weights(40, 40).astype(np.uint8)).read_bytes()
    (tmp_path / name).write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(ValueError, match=r"^(kernel|key): expected "):
        load_kernel(tmp_path / name)


@pytest.mark.parametrize("name", ["k.npy", "k.npz", "k.mat", "k.png", "k.tif", "k.txt"])
@pytest.mark.parametrize("content", [b"no image", b"\x80\x04K\x01.", b"PK\x03\x04" + bytes(40), b"\x93NUMPY\xff" * 9])
def test_a_mislabelled_file_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"^kernel: expected an image, .npy, .npz or .mat file, got "):
        load_kernel(tmp_path / name)


def test_a_header_that_promises_too_much_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**9)})
    (tmp_path / "k.npy").write_bytes(buffer.getvalue())
    with zipfile.ZipFile(tmp_path / "k.npz", "w") as archive:
        archive.writestr("k.npy", buffer.getvalue())
    for name in ("k.npy", "k.npz"):
        with pytest.raises(ValueError, match=r"^kernel: expected an image, .npy, .npz or .mat file, got "):
            load_kernel(tmp_path / name)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 3)), r"kernel: expected a positive sum, got 0 in "),
        (-np.ones((3, 3)), r"kernel: expected a positive sum, got -9 in "),
        (np.ones(3), r"kernel: expected \(kh, kw\), got \(3,\) in "),
        (np.ones((3, 3, 3)), r"kernel: expected \(kh, kw\), got \(3, 3, 3\) in "),
        (np.ones((0, 3)), r"kernel: expected \(kh, kw\), got \(0, 3\) in "),
        (np.array([[1.0, np.nan]]), r"kernel: expected finite real numbers, got others in .*float64"),
        (np.ones((2, 2)) * 1j, r"kernel: expected finite real numbers, got others in .*complex128"),
        (np.array([["a"]]), r"kernel: expected finite real numbers, got others in "),
    ],
)
def test_arrays_that_are_no_kernel_are_refused(tmp_path, array, message):
    with pytest.raises(ValueError, match=message):
        load_kernel(saved(tmp_path, "k.npy", array))


def test_files_that_are_none_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "no.npy", f"{tmp_path}/no.npz:key"):
        with pytest.raises(ValueError, match=r"^kernel: expected a file, got '.*', which is none$"):
            load_kernel(path)
    with pytest.raises(ValueError, match=r"^key: expected none, as .* is a single array, got 'k'$"):
        load_kernel(saved(tmp_path, "k.npy", np.ones((2, 2))), "k")
    savemat(tmp_path / "k.mat", {"text": "psf"})
    with pytest.raises(ValueError, match=r"^key: .* its arrays: none$"):
        load_kernel(tmp_path / "k.mat")
    pages = [Image.fromarray(weights(3, 3).astype(np.uint8))] * 2
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="several pages"):
        load_kernel(tmp_path / "pages.tif")
