"""A folder that has results already: what is taken over, what is run anew, what is refused."""

import json
import sys

import numpy as np
import pytest

from invdiff.benchmark import run as running
from invdiff.benchmark.run import run
from invdiff.benchmark.settings import benchmark_config
from invdiff.errors import InputError

SMALL = ["methods=[{name: tv, iterations: 2}, {name: 'python:own_parts:scaled', label: mine, samples: 1}]", "tasks=[deblur]",
         "metrics=[psnr]"]


@pytest.fixture
def again(config, tmp_path):
    """Runs a small config with assignments into `out`; gives what was run: task, prior, method, image."""
    def go(*assignments, command="one"):
        seen = []
        run(benchmark_config("mine.yaml", [*SMALL, *assignments]), tmp_path / "out", command=command,
            on_cell=lambda done, total, row: seen.append((row["task"], row["prior"], row["method"], row["image"])))
        return seen
    return go


def record(folder):
    return json.loads((folder / "out" / "results.json").read_text(encoding="utf-8"))


def test_what_is_added_at_an_end_leaves_the_rows_as_they_are(again, tmp_path):
    assert len(again()) == 4
    rows, prior = record(tmp_path)["rows"], "python:own_parts:prior"
    grown = [SMALL[0].replace("]", ", {name: wavelet, iterations: 2}]"), "tasks=[deblur, denoise]"]
    assert again(grown[0]) == [("deblur", "none", "wavelet", image) for image in (1, 2)]
    assert len(again(*grown)) == 6
    assert len(again(*grown, "count=3")) == 6
    assert again(*grown, "count=3", f"priors=['{prior}', natural]") == [
        (task, "natural", "mine", image) for task in ("deblur", "denoise") for image in (1, 2, 3)]
    now = record(tmp_path)
    assert [row for row in now["rows"] if row in rows] == rows
    assert len(now["rows"]) == 2 * 3 * (1 + 2 + 1)
    assert again(*grown, "count=3", f"priors=['{prior}', natural]") == []


def test_a_picture_that_is_asked_for_later_is_made(again, tmp_path):
    again()
    assert {image for *_, image in again("pictures=2")} == {2}
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 8
    assert again("pictures=1") == again("pictures=2") == []


@pytest.mark.parametrize(("assignment", "said"), [
    ("samples=5", "samples: 4, and now 5"),
    ("seed=1", "seed: 0, and now 1"),
    ("count=1", "images: without astronaut 1"),
    ("methods=[{name: tv, iterations: 2}]", "methods: without mine"),
    (SMALL[0].replace("2", "3"), "methods: tv: iterations: 2, and now 3"),
    (SMALL[0].replace("[", "[wavelet, "), "methods: wavelet is new and comes before others; put it last"),
    ("tasks=[denoise, deblur]", "tasks: denoise is new and comes before others"),
    ("tasks=[{name: deblur, operator: {sigma: 2}}]", r"tasks: deblur: operator\.sigma: 1\.6, and now 2"),
    ("metrics=[psnr, ssim]", r'metrics: \["psnr"\], and now \["psnr", "ssim"\]; scores want all images anew'),
    ("size=40", "size: 32, and now 40"),
])
def test_another_benchmark_is_refused_in_its_first_difference(again, tmp_path, assignment, said):
    again()
    before = (tmp_path / "out" / "results.csv").read_bytes()
    with pytest.raises(InputError, match=rf"another benchmark \({said}"):
        again(assignment)
    assert (tmp_path / "out" / "results.csv").read_bytes() == before


def test_the_order_and_the_pictures_are_a_benchmark_s_own(again, tmp_path):
    again()
    with pytest.raises(InputError, match="methods: mine has another place"):
        again("methods=[{name: 'python:own_parts:scaled', label: mine, samples: 1}, {name: tv, iterations: 2}]")
    text = (tmp_path / "out" / "results.json").read_text(encoding="utf-8")
    (tmp_path / "out" / "results.json").write_text(text.replace(record(tmp_path)["benchmark"]["images"]["astronaut 1"], "0"))
    with pytest.raises(InputError, match="images: astronaut 1 is another picture"):
        again()


def test_a_folder_that_holds_no_benchmark_is_refused(again, tmp_path):
    again()
    for text in ("{", '{"benchmark": {}, "rows": []}', '{"benchmark": {"methods": []}, "rows": [], "runs": []}'):
        (tmp_path / "out" / "results.json").write_text(text)
        with pytest.raises(InputError, match="no record of a benchmark by this version"):
            again()
    (tmp_path / "out" / "results.json").unlink()
    with pytest.raises(InputError, match="is not empty and holds no benchmark"):
        again()


def test_rows_of_code_that_was_edited_are_run_anew(again, tmp_path, monkeypatch):
    again("priors=[natural]")
    (tmp_path / "own_parts.py").write_text((tmp_path / "own_parts.py").read_text().replace("0.01 * torch", "0.5 * torch"))
    monkeypatch.delitem(sys.modules, "own_parts")
    old = record(tmp_path)["rows"]
    assert {method for _, _, method, _ in again("priors=[natural]")} == {"mine"}
    new = record(tmp_path)
    assert new["rows"][:2] == old[:2]
    assert all(after["psnr"] < before["psnr"] - 3 for before, after in zip(old[2:], new["rows"][2:], strict=True))
    assert new["notes"] == ["The method mine had changed since an earlier run, so its 2 rows were run anew."]
    assert again("priors=[natural]") == []


def test_so_are_those_of_a_kernel_that_is_another(again, tmp_path):
    tasks = "tasks=[deblur, {name: mine, operator: {name: kernel_blur, kernel: kernel.npy}, sigma_y: 0.02}]"
    np.save(tmp_path / "kernel.npy", np.full((3, 3), 1 / 9))
    again(tasks)
    np.save(tmp_path / "kernel.npy", np.full((5, 5), 1 / 25))
    assert {task for task, *_ in again(tasks)} == {"mine"}


def test_each_row_says_of_which_run_it_is(again, tmp_path, monkeypatch):
    """With nothing to do, an earlier run's record stays as it is; what another adds is told as its own."""
    again()
    first = record(tmp_path)
    monkeypatch.setattr("invdiff.benchmark.record.commit", lambda: "abcdef")
    assert again(command="two") == []
    assert record(tmp_path) == first
    again("count=3", command="three")
    runs, rows = record(tmp_path)["runs"], record(tmp_path)["rows"]
    assert [run["command"] for run in runs] == ["one", "three"]
    assert runs[0] == first["runs"][0]
    assert [row["run"] for row in rows] == [1, 1, 2, 1, 1, 2]
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "````text\none\nthree\n````" in page
    assert "; abcdef\n" in page
    assert "The rows are of 2 runs that differ in commit;" in page
    assert "differ in commit" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_run_that_was_stopped_goes_on_as_the_same(again, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "run_cell", stop)
        with pytest.raises(KeyboardInterrupt):
            again()
    assert record(tmp_path)["runs"][0]["finished"] is None
    assert len(again()) == 4
    (made,) = record(tmp_path)["runs"]
    assert made["finished"]


def test_an_operator_of_a_user_s_own_is_a_task_s_and_its_code_counts(again, tmp_path):
    own = ["tasks=[{name: left, operator: {name: 'python:own_parts:left', width: 20}, sigma_y: 0.05}]",
           "methods=[{name: tv, iterations: 2}]"]
    assert len(again(*own)) == 2
    assert again(*own) == []
    sys.modules["own_parts"].__file__ = str(tmp_path / "changed.py")
    (tmp_path / "changed.py").write_text("# other code")
    assert len(again(*own)) == 2


def test_a_sampler_of_a_user_s_own_is_a_method_and_its_code_counts(again, tmp_path, monkeypatch):
    """A class or a function that makes one, with pairs and calls as ours; and its fields are the config's."""
    own = ["methods=[{name: 'python:own_parts:Pulled', steps: 2, gamma: 0.5}, 'python:own_parts:quick']", "antithetic=true"]
    assert len(again(*own)) == 4
    made = record(tmp_path)
    by_method = [made["rows"][:2], made["rows"][2:]]
    assert [row["network_calls"] for row in made["rows"]] == [3] * 4
    assert [row["psnr"] for row in by_method[0]] == [row["psnr"] for row in by_method[1]]
    assert {row["distinct"] for row in made["rows"]} == {4}
    assert made["benchmark"]["methods"]["python:own_parts:quick"]["gamma"] == 0.5
    assert again(*own) == []
    with pytest.raises(InputError, match=r"methods: python:own_parts:Pulled: gamma: 0\.5, and now 0\.6"):
        again(own[0].replace("0.5", "0.6"), own[1])
    (tmp_path / "own_parts.py").write_text((tmp_path / "own_parts.py").read_text() + "# changed")
    monkeypatch.delitem(sys.modules, "own_parts")
    assert len(again(*own)) == 4
