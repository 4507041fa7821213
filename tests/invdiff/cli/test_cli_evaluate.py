"""`invdiff evaluate`, and the page of quality against network calls."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchmetrics")

from invdiff.errors import InputError  # noqa: E402
from invdiff.evaluation.generative.classifier import Classifier, save_classifier  # noqa: E402
from invdiff.evaluation.generative.evaluate import Reference  # noqa: E402
from invdiff.evaluation.generative.features import Looked, feature_network  # noqa: E402
from invdiff.experiments import quality  # noqa: E402

TINY = {"classes": 3, "channels": 1, "widths": [8], "depths": [1], "grid": 2, "num_features": 6, "embedding": 16}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny classifier, and idx files of 60 and 40 random images of 8 x 8."""
    folder, rng = tmp_path_factory.mktemp("evaluate"), np.random.default_rng(0)
    torch.manual_seed(0)
    save_classifier(folder / "eyes.safetensors", Classifier(**TINY), {"architecture": TINY, "classes": ["a", "b", "c"]})
    (folder / "idx").mkdir()
    for name, count in (("train", 60), ("t10k", 40)):
        for part, array in (("images-idx3", rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)),
                            ("labels-idx1", (np.arange(count) % 3).astype(np.uint8))):
            head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / "idx" / f"{name}-{part}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return folder


@pytest.fixture(scope="module")
def usual(place):
    return ["--data", place / "idx", "--features", place / "eyes.safetensors", "--device", "cpu"]


def shrink(x, sigma):
    """E[x0 | x] of white grey images of standard deviation 0.3 around 0.5."""
    assert x.shape[1] == 1
    return 0.5 + (x - 0.5) * (0.09 / (0.09 + sigma**2))


class TestCommand:
    def test_images_that_were_drawn_before(self, invdiff, place, usual, tmp_path):
        """The test images as samples: all scores are the floor's."""
        from invdiff.io.idx import read_idx

        names = [f"t10k-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1")]
        images, classes = (read_idx(place / "idx" / name) for name in names)
        np.savez(tmp_path / "drawn.npz", images=images, classes=classes)
        code, out, err = invdiff("evaluate", "--samples", tmp_path / "drawn.npz", *usual, "-o", tmp_path / "scores.json")
        assert (code, err) == (0, "")
        assert "Fréchet distance" in out
        record = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
        scores, floor = record["scores"], record["floor"]
        assert set(scores) == {"fid", "kid", "inception_score", "precision", "recall", "density", "coverage",
                               "class_accuracy"}
        for name in set(scores) - {"precision", "recall", "density", "coverage"}:       # of a random part of the reference
            assert scores[name] == pytest.approx(floor[name], rel=1e-4, abs=1e-6)
        assert (record["made"]["count"], record["made"]["real"]) == (40, 60)
        assert str(tmp_path) not in json.dumps(record)
        assert str(place) not in json.dumps(record)
        assert record["made"]["command"].startswith("invdiff evaluate --samples drawn.npz --data idx")

    def test_several_sets_are_scored_as_one(self, invdiff, usual, tmp_path):
        images, classes = np.random.default_rng(1).integers(0, 256, (40, 8, 8), dtype=np.uint8), np.arange(40) % 3
        sets = {"all.npz": slice(None), "one.npz": slice(0, 15), "two.npz": slice(15, None)}
        for name, part in sets.items():
            np.savez(tmp_path / name, images=images[part], classes=classes[part])
        scores = []
        for names in (["all.npz"], ["one.npz", "two.npz"]):
            given = [word for name in names for word in ("--samples", tmp_path / name)]
            assert invdiff("evaluate", *given, *usual, "-o", tmp_path / "scores.json")[0] == 0
            record = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
            scores.append(record["scores"])
            assert record["made"]["samples"] == ", ".join(names)
        assert scores[1] == pytest.approx(scores[0], rel=1e-5)
        np.save(tmp_path / "wide.npy", images[:, :4])
        code, _, err = invdiff("evaluate", "--samples", tmp_path / "all.npz", "--samples", tmp_path / "wide.npy", *usual)
        assert (code, "expected images of one size, got 8x8, 4x8" in err) == (2, True)

    def test_images_that_a_prior_draws(self, invdiff, usual, tiny_prior, tmp_path):
        code, _, err = invdiff("evaluate", "--prior", tiny_prior(1, 0.5), "-n", 12, "--solver", "ddim", "--steps", 3, "--set",
                               "size=[8,8]", *usual, "--metrics", "fid,pr", "-o", tmp_path / "scores.json")
        assert (code, err) == (0, "")
        record = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
        assert set(record["scores"]) == {"fid", "precision", "recall"}
        assert record["made"]["sampling"]["steps"] == 3
        assert record["made"]["sampling"]["network_calls"] == 3
        assert "seconds" not in record["made"]["sampling"]

    def test_real_images_elsewhere_go_by_their_name(self, invdiff, place, usual, tmp_path):
        np.save(tmp_path / "drawn.npy", np.random.default_rng(1).integers(0, 256, (20, 8, 8), dtype=np.uint8))
        key, floor = (place / "idx" / f"{name}-images-idx3-ubyte.gz" for name in ("t10k", "train"))
        code, _, err = invdiff("evaluate", "--samples", tmp_path / "drawn.npy", *usual, "--key", key, "--floor", floor,
                               "--metrics", "fid", "-o", tmp_path / "scores.json")
        assert (code, err) == (0, "")
        made = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["made"]
        assert (made["reference"], made["kept_apart"]) == (key.name, floor.name)
        assert str(place) not in json.dumps(made)

    def test_likelihood_by_a_function_that_takes_any_channels(self, invdiff, place, monkeypatch):
        monkeypatch.syspath_prepend(Path(__file__).parent)
        code, out, err = invdiff("evaluate", "--prior", "python:test_cli_evaluate:shrink", "--data", place / "idx",
                                 "--likelihood", 2, "--device", "cpu")
        assert (code, err) == (0, "")
        assert "2 images, t10k-images-idx3-ubyte.gz" in out

    def test_accuracy_that_cannot_be_told_is_said_to_be_left_out(self, invdiff, usual, tmp_path):
        np.save(tmp_path / "drawn.npy", np.random.default_rng(1).integers(0, 256, (20, 8, 8), dtype=np.uint8))
        code, out, err = invdiff("evaluate", "--samples", tmp_path / "drawn.npy", *usual, "--metrics", "fid,accuracy")
        assert (code, err, out.splitlines()[0]) == (0, "", "accuracy is left out: the images have no classes that eyes knows")
        code, out, err = invdiff("evaluate", "--samples", tmp_path / "drawn.npy", *usual, "--metrics", "accuracy")
        assert (code, out) == (2, "")
        assert "accuracy cannot be told, as the images have no classes that eyes knows" in err

    def test_mistakes_are_told_before_anything_is_drawn(self, invdiff, usual, tmp_path):
        for arguments, words in (
            ([], "give either --prior"),
            (["--prior", "natural", "--samples", tmp_path], "give either --prior"),
            (["--samples", tmp_path, "--steps", 3], "leave out --steps"),
            (["--samples", tmp_path, "-n", 3], "leave out --count"),
            (["--prior", "natural", "--metrics", "fod"], "expected some of fid"),
            (["--prior", "natural", "-o", tmp_path / "absent" / "x.json"], "in an existing folder"),
            (["--prior", "natural", "-o", tmp_path / "x.csv"], "ends in .json"),
            (["--prior", "natural", "--batch-size", 0], "--batch-size: expected at least 1"),
            (["--prior", "natural", "-n", 9], "--count: expected at least 10, got 9"),
            (["--prior", "fashion", "--key", "absent"], "--key: no idx file or folder of images called absent"),
            (["--prior", "fashion", "--floor", "absent"], "--floor: no idx file or folder of images called absent"),
            (["--prior", "fashion"], "fashion draws images of 28 x 28, and the real ones are 8 x 8"),
            (["--prior", "natural"], "natural draws images of 64 x 64"),
            (["--prior", "fashion-consistency", "--likelihood", 2], "fashion-consistency is none"),
            (["--prior", "fashion?class=bag&guidance=2", "--likelihood", 2], "guidance leaves no density"),
            (["--prior", "brain", "--likelihood", 2], "is of complex images"),
            (["--prior", "fashion-latent", "--likelihood", 2], "is of latents"),
            (["--prior", "brain", "--set", "size=[8,8]"], "brain draws complex images"),
            (["--prior", "fashion", "--likelihood", 2, "--steps", 0], "nothing is drawn or scored; leave out --steps"),
            (["--prior", "fashion", "--likelihood", 2, "--guidance", 0], "leave out --guidance"),
            (["--prior", "fashion", "--likelihood", 2, "--batch-size", 5], "leave out --batch-size"),
            (["--prior", "fashion", "--likelihood", 2, "--features", "nobody"], "leave out --features"),
            (["--prior", "fashion", "--likelihood", 2, "--metrics", "fid"], "leave out --metrics"),
            (["--samples", tmp_path, "--likelihood", 2], "is a prior's; give --prior"),
            (["--prior", "natural", "--features", "nobody"], "none is called 'nobody'"),
            (["--samples", tmp_path / "absent.npz"], "no such file"),
        ):
            eyes = [] if {"--features", "--likelihood"} & set(map(str, arguments)) else usual[2:4]
            code, _, err = invdiff("evaluate", *usual[:2], *arguments, *eyes, *usual[4:])
            assert code == 2
            assert words in err
            assert err.count("\n") == 1


@pytest.fixture
def table(place, tiny_prior, tmp_path):
    """Makes the page of rows of a tiny prior."""
    network, prior = feature_network(str(place / "eyes.safetensors")), str(tiny_prior(1, 0.5))
    features = torch.rand(60, 6, generator=torch.Generator().manual_seed(0))
    seen = [Looked(features[i::2], torch.zeros(30, 3)) for i in (0, 1)]

    def make(*texts, count=12, on_row=None):
        given = {"prior": prior, "count": count, "size": [8, 8], "device": "cpu"}
        return quality.quality_table(quality.parse_rows(texts, given), Reference.of(*seen), network, tmp_path / "page.md",
                                     {"prior": "tiny", "guidance": 1.0, "precision": "fp32"}, on_row=on_row)
    return make


class TestQuality:
    def test_rows_have_their_calls_and_the_files_are_there(self, table, tmp_path):
        record = table("ddim:2,4", "heun:3")
        assert list(record["rows"]) == ["ddim, 2", "ddim, 4", "heun, 3"]
        assert [row["calls"] for row in record["rows"].values()] == [2, 4, 5]       # Heun's last step is Euler's
        assert all(row["scores"]["fid"] > 0 and row["seconds"] > 0 for row in record["rows"].values())
        assert json.loads((tmp_path / "page.json").read_text(encoding="utf-8")) == record
        page = (tmp_path / "page.md").read_text(encoding="utf-8")
        assert "| heun | 3 | 5 |" in page
        assert "| floor |" in page
        assert "(page.svg)" in page
        assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (tmp_path / "page.svg").read_bytes()

    def test_a_solver_that_chooses_its_steps_has_no_number_of_them(self, table, tmp_path):
        (row,) = table("rk45:5")["rows"].values()
        assert (row["steps"], row["seconds_a_step"]) == (None, None)
        assert row["calls"] > 5
        assert f"| rk45 | adaptive | {row['calls']:.4g} |  |" in (tmp_path / "page.md").read_text(encoding="utf-8")

    def test_it_goes_on_where_it_stopped(self, table):
        def stop(name, row):
            if name == "ddim, 2":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            table("ddim:2,3", on_row=stop)
        drawn = []
        first = table("ddim:2,3", on_row=lambda name, row: drawn.append(name))
        assert drawn == ["ddim, 3"]
        assert table("ddim:2,3") == first           # the seconds, too

    def test_other_rows_are_not_mixed_in(self, table, tmp_path):
        table("ddim:2")
        with pytest.raises(InputError, match="another count, 12 and not 15"):
            table("ddim:2", count=15)
        (tmp_path / "page.json").write_text("[]")
        with pytest.raises(InputError, match="is no record"):
            table("ddim:2")

    def test_the_fewest_calls_that_reach_a_quality(self):
        from invdiff.experiments.quality_tables import quality_markdown

        fid = {("ddim", 10): 9.0, ("ddim", 50): 2.5, ("ddim", 100): 1.2, ("heun", 19): 4.0}
        rows = {f"{solver}, {calls}": {"solver": solver, "steps": calls, "calls": calls, "seconds": 1.0, "seconds_a_step": 0.1,
                                       "scores": {"fid": value}} for (solver, calls), value in fid.items()}
        record = {"made": {"count": 10, "features": "f", "real": 10}, "floor": {"fid": 1.0}, "rows": rows}
        page = quality_markdown(record, "p.svg")
        assert "| ddim | 50 | 50 | 100 | 100 |" in page        # 5, 3, 2 and 1.5 times the floor
        assert "| heun | 19 | – | – | – |" in page

    def test_rows_that_are_none(self):
        for text in ("ddim", "ddim:", "ddim:a", ":3", "ddim:0"):
            with pytest.raises(InputError, match="expected SOLVER:STEPS"):
                quality.parse_rows([text], {"prior": "natural"})
