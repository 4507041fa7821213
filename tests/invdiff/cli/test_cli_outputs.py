"""Where results go, and what they replace."""

import yaml
from cli_runs import FILES, QUICK, names

from invdiff.io.images import sample_image, save_image


def test_results_go_to_a_folder_of_the_task_and_of_the_file_by_default(work, invdiff, prior):
    quick = ("restore", "--task", "denoise", "--prior", prior, *QUICK)
    (work / "more").mkdir()
    save_image("more/b.c.png", sample_image(size=32))
    for arguments in (("--truth", "truth.png"), ("--input", "more/b.c.png", "--set", "sigma_y=0.1"), ()):
        assert invdiff(*quick, *arguments)[::2] == (0, "")
    assert names(work / "restored") == {"denoise", "denoise-truth", "denoise-b.c"}      # none has replaced another
    for name in names(work / "restored"):
        assert names(work / "restored" / name) == FILES - {"std.png"}                   # which a single sample has not


def test_a_result_of_another_picture_is_not_replaced_without_a_word(work, restore):
    save_image("b.png", sample_image(size=32))
    assert restore("--task", "denoise", "--truth", "truth.png", *QUICK)[::2] == (0, "")
    assert restore("--task", "sr", "--truth", work / "truth.png", *QUICK)[::2] == (0, "")       # the same one
    for arguments, other in ((("--input", "b.png", "--set", "sigma_y=0.1"), str(work / "truth.png")), ((), "b.png")):
        code, _, err = restore("--task", "denoise", *arguments, *QUICK)
        assert (code, err) == (0, f"out: holds the result of {other}, which this one replaces; --output names another folder\n")
    (work / "out" / "config.yaml").write_text("[damaged")
    assert restore("--task", "denoise", "--truth", "truth.png", *QUICK)[::2] == (0, "")


def test_an_earlier_result_is_replaced_whole(work, restore):
    assert restore("--task", "sr", "--truth", "truth.png", *QUICK)[0] == 0
    assert restore("--task", "deblur", "--truth", "truth.png", *QUICK)[0] == 0
    assert yaml.safe_load((work / "out" / "config.yaml").read_text())["task"] == "deblur"
    assert names(work) == {"truth.png", "out"}


def test_an_output_at_home_is_not_in_a_folder_called_tilde(work, invdiff, monkeypatch):
    monkeypatch.setenv("HOME", str(work))
    (work / "mine.yaml").write_text("{task: t, operator: {name: mask_inpainting, mask: ~/truth.png}, sigma_y: 0.1, "
                                    "truth: ~/truth.png}")
    assert invdiff("simulate", "--config=~/mine.yaml", "--output=~/y.npy")[0] == 0
    assert invdiff("simulate", "--task", "denoise", "--truth=~/truth.png", "--output=~/z.npy")[0] == 0
    assert names(work) == {"truth.png", "mine.yaml", "y.npy", "z.npy"}
