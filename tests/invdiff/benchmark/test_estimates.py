"""Estimates that are kept beside the tables."""

import re
import sys
from pathlib import Path

import pytest

from invdiff.benchmark.estimates import file_names
from invdiff.benchmark.run import run
from invdiff.benchmark.settings import benchmark_config
from invdiff.cli.main import program
from invdiff.errors import InputError
from invdiff.evaluation.metrics import psnr
from invdiff.io.results import load_arrays

SMALL = ["methods=[{name: tv, iterations: 2}, {name: 'python:own_parts:scaled', label: 'mine: <b>'}]", "metrics=[psnr]"]
FILES = [f"{task}/{method}/{image}.h5" for task in ("-i-half--i-", "deblur")
         for method in ("mine- -b-/python-own_parts-prior", "tv/none") for image in (1, 2)]


@pytest.fixture
def go(config, tmp_path):
    """Runs a small benchmark into `out`; gives its rows, and how many of them were run."""
    def go(keep, *assignments, **options):
        seen = []
        record = run(benchmark_config("mine.yaml", [*SMALL, *assignments]), tmp_path / "out", keep=keep,
                     on_cell=lambda *cell: seen.append(cell), **options)
        return record.sorted(), len(seen)
    return go


def kept(folder):
    place = folder / "out" / "estimates"
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_metric_of_one_s_own_is_computed_from_what_is_kept(go, tmp_path, workers):
    rows, count = go(True, workers=workers)
    assert (kept(tmp_path), count) == (FILES, 8)
    for row in rows:
        task, method = row["task"].replace("<i>half</i>", "-i-half--i-"), row["method"].replace(": <b>", "- -b-")
        prior = row["prior"].replace(":", "-")
        found = load_arrays(tmp_path / "out" / "estimates" / task / method / prior / f"{row['image']}.h5")
        assert float(psnr(found["mean"], found["truth"])) == pytest.approx(row["psnr"], rel=1e-5)
        assert found["samples"].shape == (1, row["samples"], 3, 32, 32)
        assert float(psnr(found["samples"][:, 0], found["truth"])) == pytest.approx(row["psnr_sample"], rel=1e-5)
        assert found["measurement"].shape == (1, 3, 32, 32)
    assert go(True)[1] == 0


def test_none_is_kept_unasked_and_rows_without_are_run_anew_where_they_are_to_be(go, tmp_path):
    assert go(False)[1] == 8
    assert kept(tmp_path) == []
    assert go(True)[1] == 8
    assert go(False)[1] == 0
    assert kept(tmp_path) == FILES
    (tmp_path / "out" / "estimates" / FILES[0]).unlink()
    assert go(True)[1] == 1


def test_one_of_a_row_that_was_run_anew_is_not_kept_beside_it(go, tmp_path, monkeypatch):
    go(True)
    (tmp_path / "own_parts.py").write_text((tmp_path / "own_parts.py").read_text() + "# changed")
    monkeypatch.delitem(sys.modules, "own_parts")
    assert go(False)[1] == 4
    assert kept(tmp_path) == [name for name in FILES if "tv" in name]


def test_names_of_files_are_each_another():
    names = ["a/b", "a:b", "A.b", "", "..", "x" * 300, "x" * 301, "tv, weight 0.3"]
    found = file_names(names)
    assert found[:5] == ["a-b", "a-b-2", "A.b", "-", "--2"]
    assert found[-1] == "tv, weight 0.3"
    assert len({name.casefold() for name in found}) == len(names)
    assert max(map(len, found)) < 110
    assert file_names([*names, "a?b"])[:8] == found         # what is added at an end leaves the others


def test_the_command_keeps_them_and_the_page_reads_them(config, tmp_path, capsys):
    few = [part for one in (SMALL[0], "metrics=[psnr]", "count=1") for part in ("--set", one)]
    program(["benchmark", "mine.yaml", *few, "-o", "mine", "--keep"], standalone_mode=False)
    assert " --keep\n" in (tmp_path / "mine" / "report.md").read_text(encoding="utf-8")
    capsys.readouterr()
    page = Path(__file__).parents[3].joinpath("docs", "benchmark.md").read_text(encoding="utf-8")
    code = page.partition("## A metric of your own")[2].partition("```python\n")[2].partition("```")[0]
    exec(compile(code, "benchmark.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [re.findall(r"'([^']*)'", line) for line in lines] == [name.split("/") for name in FILES if name.endswith("1.h5")]
    with pytest.raises(InputError, match="--keep: the benchmark exact restores no images"):
        program(["benchmark", "exact", "--keep"], standalone_mode=False)
