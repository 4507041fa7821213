"""`invdiff figures`."""

import subprocess
import sys

import pytest

from invdiff.illustrations.captions import CAPTIONS


def test_figures_are_written_and_named(invdiff, tmp_path):
    folder = tmp_path / "new" / "figures"
    code, out, err = invdiff("figures", "score_field", "schedules", "score_field", "--output", folder, "--format", "png,svg")
    assert code == 0, err
    assert {path.name for path in folder.iterdir()} == {f"{name}.{kind}" for name in ("schedules", "score_field")
                                                        for kind in ("png", "svg")}
    assert out.count("\n") == 2
    assert str(folder / "score_field.png") in out
    assert CAPTIONS["schedules"] in out


def test_a_prior_s_images_and_a_seed(invdiff, tmp_path, tiny_prior):
    prior = tiny_prior(3, 0.5)
    for folder, seed in (("a", 0), ("b", 1)):
        code, _, err = invdiff("figures", "reverse", "--prior", prior, "--seed", seed, "--output", tmp_path / folder)
        assert code == 0, err
    assert (tmp_path / "a" / "reverse.png").read_bytes() != (tmp_path / "b" / "reverse.png").read_bytes()


@pytest.mark.parametrize(("arguments", "message"), [
    (("scores",), "none is called 'scores'; known are forward, reverse, score_field"),
    (("schedules", "--format", "pdf"), "--format: expected png or svg or both with a comma, got 'pdf'"),
    (("schedules", "--format", ","), "got ','"),
    (("schedules", "--seed", "-1"), "--seed: expected an integer of 0 or more, got -1"),
    (("forward", "--prior", "nothing"), "no prior is called 'nothing'"),
    (("reverse", "--prior", "fashion-latent"), "this prior works in a latent space"),
    (("reverse", "--prior", "fashion-consistency"), "this prior draws in few steps and is no denoiser"),
    (("schedules", "--output", "taken/figures"), "taken/figures: cannot be written"),
])
def test_what_is_at_fault_is_said_in_one_line(invdiff, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    code, _, err = invdiff("figures", *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert arguments[0] == "reverse" or not (tmp_path / "figures").exists()


def test_help_names_the_figures_without_torch(tmp_path):
    script = ("import sys, invdiff.cli.main\nsys.argv = ['invdiff', 'figures', '--help']\ntry:\n    invdiff.cli.main.main()\n"
              "except SystemExit as done:\n    assert not done.code\n"
              "heavy = {'torch', 'matplotlib', 'numpy'} & set(sys.modules)\nassert not heavy, heavy")
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not [name for name in CAPTIONS if name not in done.stdout]
