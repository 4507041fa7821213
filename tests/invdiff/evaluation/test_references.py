"""Sets of images to be scored, and to score them against."""

import gzip
import json
import struct
import zipfile

import h5py
import numpy as np
import pytest
import torch
from numpy.lib.format import write_array_header_1_0
from tiny_classifier import images, tiny

from invdiff.errors import InputError
from invdiff.evaluation.generative.features import ClassifierFeatures, feature_network, to_bytes
from invdiff.evaluation.generative.references import Images, reference, reference_images, sample_images
from invdiff.io.images import save_image


def write_idx(path, array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes()))


@pytest.fixture
def folder(tmp_path):
    """idx files of 40 training and 20 test images, with their classes."""
    rng, folder = np.random.default_rng(0), tmp_path / "idx"
    folder.mkdir()
    for name, count in (("train", 40), ("t10k", 20)):
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 12, 12), dtype=np.uint8))
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", (np.arange(count) % 3).astype(np.uint8))
    return folder


class TestImageSets:
    def test_a_folder_of_idx_files_is_known(self, folder, file):
        real, apart = reference_images(folder, None, None)
        assert (len(real), len(apart)) == (40, 20)
        assert real.classes.tolist() == [i % 3 for i in range(40)]
        assert next(iter(real.batches(7))).shape == (7, 3, 12, 12)
        found, names = reference(feature_network(str(file)), folder)
        assert (found.statistics.count, len(found.kept_apart)) == (40, 20)
        assert names == {"reference": "train-images-idx3-ubyte.gz", "kept_apart": "t10k-images-idx3-ubyte.gz"}

    def test_the_other_way_round(self, folder):
        test, train = "t10k-images-idx3-ubyte.gz", "train-images-idx3-ubyte.gz"
        real, apart = reference_images(folder, test, train)
        assert (len(real), len(apart)) == (20, 40)
        for named in (test, str(folder / test), f"../{folder.name}/{test}"):
            assert reference_images(folder, named, None)[1] is None

    def test_folders_of_images_by_name_and_by_path(self, tmp_path):
        for name, count in (("a", 3), ("b", 2), ("c", 4)):
            (tmp_path / "set" / name).mkdir(parents=True)
            for i, image in enumerate(images(count)):
                save_image(tmp_path / "set" / name / f"{i}.png", image)
        data = tmp_path / "set"
        for key, floor in (("a", "b"), (str(data / "a"), str(data / "b"))):
            real, apart = reference_images(data, key, floor)
            assert (len(real), real.source, len(apart), apart.source) == (3, "a", 2, "b")
        assert len(reference_images(data / "a", None, str(data / "c"))[1]) == 4
        real, apart = reference_images(data, None, None)
        assert (len(real), apart) == (9, None)
        for key, floor, words in ((None, "absent", "--floor: no idx file or folder of images called absent in .*set"),
                                  ("absent", None, "--key: no idx file or folder"), (None, "b", "--floor: b is not kept apart"),
                                  ("b", str(data), "is not kept apart"), ("b", "b", "is not kept apart")):
            with pytest.raises(InputError, match=words):
                reference_images(data, key, floor)

    def test_idx_files_elsewhere_keep_their_classes(self, folder):
        other = folder.parent / "other"
        other.mkdir()
        for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
            (folder / name).rename(other / name)
        apart = reference_images(folder, None, str(other / "t10k-images-idx3-ubyte.gz"))[1]
        assert apart.classes.tolist() == [i % 3 for i in range(20)]

    def test_classes_that_the_network_does_not_know(self, folder, file):
        write_idx(folder / "train-labels-idx1-ubyte.gz", np.full(40, 3, np.uint8))
        with pytest.raises(InputError, match="expected classes below 3"):
            reference(feature_network(str(file)), folder)

    def test_pngs_and_arrays_are_the_same_images(self, tmp_path):
        x = to_bytes(images(4, channels=3))
        for i, image in enumerate(x):
            save_image(tmp_path / f"{i}.png", image / 255)
        np.save(tmp_path / "first.npy", x.numpy())
        np.save(tmp_path / "last.npy", x.permute(0, 2, 3, 1).numpy())
        np.savez(tmp_path / "floats.npz", images=(x / 255).numpy(), classes=np.arange(4))
        for source in (tmp_path, tmp_path / "first.npy", tmp_path / "last.npy", tmp_path / "floats.npz"):
            assert torch.equal(torch.cat(list(sample_images(source).batches(3))), x), source
        assert sample_images(tmp_path / "floats.npz").classes.tolist() == [0, 1, 2, 3]
        np.save(tmp_path / "grey.npy", x[:, 0].numpy())
        assert next(sample_images(tmp_path / "grey.npy").batches()).shape == (4, 1, 12, 12)

    def test_a_folder_that_invdiff_sample_wrote(self, tmp_path):
        x = images(5)
        save_image(tmp_path / "samples.png", x[0])
        np.savez(tmp_path / "samples.npz", images=x.numpy())
        assert len(sample_images(tmp_path)) == 5

    def test_samples_of_few_steps_that_stray_are_cut_at_black_and_white(self, tmp_path):
        x = images(5)
        np.savez(tmp_path / "samples.npz", images=(20 * (x - 0.5)).clamp(-1.5, 3).numpy())
        batch = next(sample_images(tmp_path).batches(5))
        assert (int(batch.min()), int(batch.max())) == (0, 255)

    def test_classes_of_samples_count_only_under_the_names_in_their_report(self, tmp_path):
        np.savez(tmp_path / "samples.npz", images=images(2).numpy(), classes=np.arange(2))
        for report, names in ({"classes": ["dark", "bright"]}, ["dark", "bright"]), ({}, ["shirt", "bag", "boot"]):
            (tmp_path / "report.json").write_text(json.dumps(report))
            assert sample_images(tmp_path, names).classes.tolist() == [0, 1]
        (tmp_path / "report.json").write_text(json.dumps({"classes": ["dark", "bright"]}))
        for path in (tmp_path, tmp_path / "samples.npz"):
            assert sample_images(path, ["shirt", "bag", "boot"]).classes is None
        (tmp_path / "report.json").write_text("[")
        with pytest.raises(InputError, match=r"report\.json: expected the report"):
            sample_images(tmp_path, ["shirt"])

    def test_what_is_no_set_of_images_is_refused(self, tmp_path):
        np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
        np.save(tmp_path / "flat.npy", np.zeros((4, 9)))
        np.save(tmp_path / "integers.npy", np.zeros((4, 9, 9), int))
        np.save(tmp_path / "scale.npy", np.full((4, 9, 9), 255.0))
        np.save(tmp_path / "nan.npy", np.full((4, 9, 9), np.nan))
        np.savez(tmp_path / "names.npz", x=np.zeros((4, 9, 9)))
        np.savez(tmp_path / "classes.npz", images=np.zeros((4, 9, 9)), classes=np.zeros(3, int))
        (tmp_path / "text.npz").write_text(json.dumps({}))
        (tmp_path / "cut.npz").write_bytes((tmp_path / "classes.npz").read_bytes()[:60])
        for name, words in {"pickle.npy": "numbers", "flat.npy": "expected", "integers.npy": "uint8 or floats",
                            "names.npz": "called images", "scale.npy": "in \\[0, 1\\]", "nan.npy": "finite",
                            "classes.npz": "4 whole numbers",
                            "text.npz": "of numbers", "cut.npz": "of numbers", "absent.npy": "no such file"}.items():
            with pytest.raises(InputError, match=words):
                sample_images(tmp_path / name)

    def test_what_restore_wrote_is_called_that(self, tmp_path):
        with h5py.File(tmp_path / "result.h5", "w") as file:
            file["samples"] = np.zeros((1, 2, 3, 8, 8), np.float32)
        with pytest.raises(InputError, match=r"result\.h5: is an HDF5 file; expected a folder of images"):
            sample_images(tmp_path / "result.h5")
        with pytest.raises(InputError, match="is what invdiff restore wrote, and no set of images"):
            sample_images(tmp_path)

    def test_a_bomb_is_not_unpacked(self, tmp_path, monkeypatch):
        np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros((100, 50, 50)))
        monkeypatch.setattr("invdiff.evaluation.generative.references.MAX_BYTES", 1_000_000)
        (tmp_path / "bomb.npy").write_bytes((tmp_path / "bomb.npz").read_bytes())       # read as what it is, not as called
        for name in ("bomb.npz", "bomb.npy"):
            with pytest.raises(InputError, match=rf"^\S*{name}: unpacks to more than"):
                sample_images(tmp_path / name)

    def test_an_array_of_more_than_memory_is_refused(self, tmp_path):
        with (tmp_path / "vast.npy").open("wb") as file:
            write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**7, 10**4, 10**4)})
        with zipfile.ZipFile(tmp_path / "vast.npz", "w") as archive:
            archive.write(tmp_path / "vast.npy", "images.npy")
        for name in ("vast.npy", "vast.npz"):
            with pytest.raises(InputError, match="Unable to allocate"):
                sample_images(tmp_path / name)

    def test_images_of_several_sizes_are_refused(self, tmp_path):
        save_image(tmp_path / "a.png", images(1)[0])
        save_image(tmp_path / "b.png", torch.rand(1, 8, 8))
        for read in (sample_images, lambda path: reference_images(path, None, None)):
            with pytest.raises(InputError, match="several sizes"):
                read(tmp_path)

    def test_classes_go_along_only_where_they_mean_something(self, file):
        network = ClassifierFeatures(tiny(), "untold")
        batch = Images(to_bytes(images(4)), torch.zeros(4, dtype=torch.long), "x")
        assert batch.seen_by(network).classes is None
        assert batch.seen_by(feature_network(str(file))).classes.tolist() == [0, 0, 0, 0]
