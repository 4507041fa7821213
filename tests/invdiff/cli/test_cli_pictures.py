"""`invdiff restore` of a folder of pictures."""

import csv
import json
import os
from pathlib import Path

import pytest
import torch
from cli_runs import FILES, QUICK, assert_refused, names

import invdiff.job
from invdiff.cli.pictures import COLUMNS, names_of
from invdiff.io.images import sample_image, save_image
from invdiff.io.results import load_arrays

DENOISE = ("--task", "denoise", "--input", "photos/", "--set", "sigma_y=0.1", *QUICK)
SIZES = {"a.png": (24, 40), "b.PNG": (33, 21), "c.png": (20, 20)}


@pytest.fixture
def photos(work):
    folder = work / "photos"
    (folder / "album").mkdir(parents=True)
    for name, (height, width) in SIZES.items():
        save_image(folder / name, sample_image(size=64)[..., :height, :width])
    save_image(folder / "album" / "d.png", sample_image(size=32))
    save_image(folder / ".hidden.png", sample_image(size=32))
    return folder


def rows_of(folder):
    with (folder / "summary.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def counted(monkeypatch, name):
    """How often a function of `invdiff.job` was called, and with what."""
    calls, function = [], getattr(invdiff.job, name)

    def count(*arguments, **keywords):
        calls.append(arguments)
        return function(*arguments, **keywords)

    monkeypatch.setattr(f"invdiff.job.{name}", count)
    return calls


@pytest.mark.parametrize("option", [("--truth",), ("--set", "sigma_y=0.1", "--input")])
def test_each_picture_of_a_folder_is_restored_as_it_is_alone_by_a_prior_that_is_loaded_once(option, photos, work, restore,
                                                                                            monkeypatch):
    with monkeypatch.context() as patch:
        loaded = counted(patch, "load_prior")
        code, out, err = restore("--task", "denoise", *option, "photos", "--steps", "2", "--samples", "2")
    assert (code, err, len(loaded)) == (0, "", 1)
    assert names(work / "out") == {"a", "b", "c", "summary.csv"}
    head, table, *lines, end = out.splitlines()
    assert head.startswith("denoise: 3 pictures of photos, 2 samples by moment_matching of each")
    assert end == "3 restored; results in out, a row for each in out/summary.csv"
    rows = rows_of(work / "out")
    for number, (line, row, name) in enumerate(zip(lines, rows, SIZES, strict=True), 1):
        folder = work / "out" / Path(name).stem
        assert names(folder) == FILES
        assert restore("--task", "denoise", *option, f"photos/{name}", "--steps", "2", "--samples", "2", output="alone")[0] == 0
        for file in FILES - {"report.json"}:
            assert (folder / file).read_bytes() == (work / "alone" / file).read_bytes(), file
        report = json.loads((folder / "report.json").read_text())
        assert (row["picture"], row["folder"], row["status"]) == (f"photos/{name}", f"out/{folder.name}", "restored")
        assert float(row["half_width"]) == report["interval"]["half_width"]
        said = [f"{number}/3", name, report["consistency"]["verdict"], f"±{report['interval']['half_width']:.3f}",
                f"{report['seconds']:.1f}"]
        if "--truth" in option:
            said.insert(2, f"{report['metrics']['restored']['psnr']:.2f}")
            assert float(row["psnr"]) == report["metrics"]["restored"]["psnr"]
        assert line.split()[: len(said)] == said
    assert ("PSNR" in table) == ("--truth" in option)


def test_a_picture_at_fault_costs_a_sentence_and_the_others_are_restored(photos, work, restore):
    (photos / "b.PNG").write_bytes((photos / "b.PNG").read_bytes()[:300])
    save_image(photos / "c.png", sample_image(size=64)[..., :3, :3])
    for name in ("IMG_1.HEIC", "notes.txt"):
        (photos / name).touch()
    code, out, err = restore("--task", "sr", "--truth", "photos", "--set", "operator.factor=4", *QUICK)
    left, damaged, small = err.splitlines()
    assert code == 2
    assert left.startswith("photos: 2 other files are left out (IMG_1.HEIC, notes.txt); PNG")
    assert damaged.startswith("error: photos/b.PNG: cannot be decoded")
    assert small.startswith("error: photos/c.png: is smaller than one block of 4 x 4 pixels")
    assert out.splitlines()[-1].startswith("1 restored, 2 failed; ")
    assert names(work / "out") == {"a", "summary.csv"}
    rows = rows_of(work / "out")
    assert [row["status"] for row in rows] == ["restored", "failed", "failed"]
    assert f"error: {rows[1]['note']}" == damaged


def test_what_the_message_does_not_name_is_named(photos, restore):
    code, _, err = restore("--task", "motion-deblur", "--truth", "photos", *QUICK)             # a kernel of 21 x 21
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: photos/c.png: operator: ")


def test_a_picture_that_does_not_fit_into_memory_does_not_end_the_run(photos, restore, monkeypatch):
    run = invdiff.job.run

    def narrow(config, *arguments, **keywords):
        if config.input.endswith("b.PNG"):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return run(config, *arguments, **keywords)

    monkeypatch.setattr("invdiff.job.run", narrow)
    code, out, err = restore(*DENOISE)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: photos/b.PNG: memory: ")
    assert "2 restored, 1 failed" in out


def test_started_again_it_keeps_what_is_there_and_says_so(photos, work, restore, monkeypatch):
    assert restore(*DENOISE)[0] == 0
    first = rows_of(work / "out")
    with monkeypatch.context() as patch:
        run, loaded = counted(patch, "run"), counted(patch, "load_prior")
        code, out, err = restore(*DENOISE)
    assert (code, err, run, loaded) == (0, "", [], [])
    assert [line.split()[-1] for line in out.splitlines()[2:5]] == ["kept"] * 3
    assert out.splitlines()[-1].startswith("3 kept; ")
    assert rows_of(work / "out") == [row | {"status": "kept"} for row in first]
    code, out, err = restore(*DENOISE, "--set", "seed=1")               # another run
    assert (code, err) == (0, "")
    assert "3 restored; " in out


@pytest.mark.parametrize("change", ["newer", "incomplete", "damaged", "edited"])
def test_a_result_that_is_not_this_picture_s_whole_result_is_made_again(change, photos, work, restore):
    assert restore(*DENOISE)[0] == 0
    folder = work / "out" / "b"
    whole = (folder / "result.h5").read_bytes()
    if change == "newer":
        later = (folder / "report.json").stat().st_mtime + 10
        os.utime(photos / "b.PNG", (later, later))
    elif change == "incomplete":
        (folder / "result.h5").unlink()
    elif change == "damaged":
        (folder / "report.json").write_text("{")
    else:
        (folder / "config.yaml").write_text((folder / "config.yaml").read_text().replace("seed: 0", "seed: 1"))
    code, out, _ = restore(*DENOISE)
    assert code == 0
    assert out.splitlines()[-1].startswith("1 restored, 2 kept; ")
    assert (folder / "result.h5").read_bytes() == whole


def test_ctrl_c_keeps_the_finished_pictures_and_the_same_command_goes_on(photos, work, restore, monkeypatch):
    run = invdiff.job.run

    def interrupted(config, *arguments, **keywords):
        outcome = run(config, *arguments, **keywords)
        if config.input.endswith("b.PNG"):
            raise KeyboardInterrupt
        return outcome

    with monkeypatch.context() as patch:
        patch.setattr("invdiff.job.run", interrupted)
        code, _, err = restore(*DENOISE)
    assert code == 130
    assert "b.partial: the samples finished so far; the same command goes on from there" in err
    assert "out: 1 of 3 pictures are there; the same command goes on from there" in err
    assert names(work / "out") == {"a", "b.partial", "summary.csv"}
    assert [row["picture"] for row in rows_of(work / "out")] == ["photos/a.png"]
    code, out, err = restore(*DENOISE)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("2 restored, 1 kept; ")
    assert names(work / "out") == {"a", "b", "c", "summary.csv"}


def test_what_is_wrong_with_all_is_said_once(photos, work, restore, invdiff):
    assert_refused(restore("--task", "denoise", "--input", "photos", *QUICK), work, "sigma_y")
    for more, says in ((("--device", "nonsense"), "'nonsense'"), (("--prior", "naturl"), "'naturl'")):
        code, _, err = invdiff("restore", *DENOISE, *more, "--output", "out")
        assert (code, err.count("\n")) == (2, 1)
        assert says in err


def test_a_full_disk_ends_the_run(photos, work, restore, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("invdiff.job.save_image", full)
    code, _, err = restore(*DENOISE)
    assert code == 2
    assert err.splitlines()[-1].startswith("error: out/a: cannot be written (No space left on device)")
    assert names(work / "out") == {"a.partial"}


def test_a_folder_without_pictures_and_an_output_of_others_are_refused(photos, work, restore, invdiff, prior):
    (work / "empty").mkdir()
    (work / "empty" / "notes.txt").touch()
    assert_refused(restore("--task", "denoise", "--truth", "empty", *QUICK), work, "empty: is a folder without pictures")
    assert restore("--task", "denoise", "--truth", "truth.png", *QUICK, output="one")[0] == 0
    assert_refused(restore(*DENOISE, output="one"), work, "one: holds an earlier result, of one picture")
    (work / "mine").mkdir()
    (work / "mine" / "summary.csv").write_text("month,money\n")
    assert_refused(restore(*DENOISE, output="mine"), work, "mine/summary.csv: is no earlier table")
    assert invdiff("restore", *DENOISE, "--prior", prior)[0] == 0
    assert names(work / "restored") == {"denoise-photos"}               # by default


def test_noise_and_boundary_are_found_for_each_picture_and_its_config_repeats_its_run(photos, work, restore, invdiff):
    generator = torch.Generator().manual_seed(0)
    for level, name in ((0.02, "a.png"), (0.1, "c.png")):
        noise = level * torch.randn(1, 3, 48, 48, generator=generator)
        save_image(photos / name, 0.3 + 0.4 * sample_image(size=48) + noise)
    (photos / "b.PNG").unlink()
    (work / "mine.yaml").write_text("{task: mine, operator: {name: gaussian_blur, sigma: 1.0}, sigma_y: auto, input: photos}")
    code, out, err = restore("--config", "mine.yaml", *QUICK)
    assert (code, err) == (0, "")
    a, c = (json.loads((work / "out" / name / "report.json").read_text()) for name in "ac")
    assert a["sigma_y"] < 0.06 < c["sigma_y"]
    assert {a["boundary"]["found"], c["boundary"]["found"]} <= {"valid", "circular"}
    assert [float(row["sigma_y"]) for row in rows_of(work / "out")] == [a["sigma_y"], c["sigma_y"]]
    assert "PSNR" not in out
    assert a["config"]["input"] == "photos/a.png"
    assert invdiff("restore", "--config", "out/a/config.yaml", "--output", "again")[0] == 0
    samples = [load_arrays(work / folder / "result.h5")["samples"] for folder in ("out/a", "again")]
    assert torch.equal(*samples)


def test_files_of_one_stem_have_folders_of_their_own():
    cases = {("a.jpg", "a.png", "b.png"): ["a.jpg", "a.png", "b"], ("A.jpg", "a.png"): ["A.jpg", "a.png"],
             ("a.png", "a.png.jpg"): ["a", "a.png.jpg"], ("x.png",): ["x"],
             ("x.partial.png", "x.png"): ["x.partial.png", "x"], ("summary.csv.png",): ["summary.csv.png"]}
    for files, expected in cases.items():
        assert names_of([Path("photos") / name for name in files]) == expected


def test_a_table_has_the_columns_that_are_promised(photos, work, restore):
    assert restore(*DENOISE)[0] == 0
    assert (work / "out" / "summary.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
