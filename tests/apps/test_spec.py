"""What is on the page, the command line and the YAML are the same config."""

import shlex

import pytest
import yaml
from invdiff_app import operators_shown, spec, text
from typer.testing import CliRunner

from invdiff.cli import restore
from invdiff.cli.main import program
from invdiff.config import SAMPLERS, RunConfig
from invdiff.resolving import run_config, tasks

GIVEN = [
    ("deblur", {}),
    ("deblur", {"operator": {"name": "gaussian_blur", "sigma": 3.1, "boundary": "reflect"}, "sigma_y": 0.1, "samples": 2}),
    ("deblur", {"operator": {"name": "uniform_blur", "size": 5}, "truth": "my photo.png", "seed": 3}),
    ("deblur", {"operator": {"name": "defocus_blur", "radius": "auto"}, "input": "x.png", "sigma_y": "auto"}),
    ("deblur", {"input": "it's.png", "sigma_y": "auto", "sampler.name": "diffpir", "sampler.steps": 40}),
    ("sr", {"operator": {"name": "super_resolution", "factor": 4}, "sampler.steps": 7}),
    ("inpaint", {"operator": {"name": "mask_inpainting", "mask": "mask.png"}, "input": "x.png", "sigma_y": 0.02}),
]


class Resolved(Exception):
    pass


@pytest.mark.parametrize(("task", "given"), GIVEN)
def test_the_command_line_says_what_the_page_says(task, given, monkeypatch, tmp_path):
    def stop(config, partial):
        raise Resolved(config)

    monkeypatch.setattr(restore, "run_with_progress", stop)
    monkeypatch.chdir(tmp_path)
    config = spec.resolve(task, given)
    for name in config.files:               # one that is missing is refused
        (tmp_path / name).touch()
    done = CliRunner().invoke(program, shlex.split(spec.command_line(config))[1:])
    assert isinstance(done.exception, Resolved), done.output
    assert done.exception.args[0] == config


@pytest.mark.parametrize(("task", "given"), GIVEN)
def test_the_yaml_says_what_the_page_says(task, given, tmp_path):
    config = spec.resolve(task, given)
    (tmp_path / "config.yaml").write_text(spec.as_yaml(config))
    assert run_config(path=tmp_path / "config.yaml") == config
    assert RunConfig(**yaml.safe_load(spec.as_yaml(config))) == config


def test_the_default_command_is_the_shortest():
    assert spec.command_line(spec.resolve("deblur", {})) == "invdiff restore --task deblur"


def test_files_get_the_names_their_users_know():
    config = spec.resolve("inpaint", {"truth": "/tmp/1.png", "operator": {"name": "mask_inpainting", "mask": "/tmp/2.png"}})
    named = spec.named(config, {"/tmp/1.png": "me.png", "/tmp/2.png": "mask.png"})
    assert (named.truth, named.operator["mask"]) == ("me.png", "mask.png")
    assert "/tmp" not in spec.command_line(named) + spec.as_yaml(named)


def test_settings_are_equal_where_files_have_equal_contents():
    """A visit's copies are named by their contents, and lie in a folder of its own."""
    one, same, other = (spec.settings(spec.resolve("deblur", {"truth": path}), {path: "me.png"})
                        for path in ("/tmp/visit-1/ab.png", "/tmp/visit-2/ab.png", "/tmp/visit-1/cd.png"))
    assert one == same != other


def test_each_command_may_have_a_folder_of_its_own():
    assert spec.command_line(spec.resolve("deblur", {}), "out/a") == "invdiff restore --task deblur --output out/a"


@pytest.mark.parametrize(("error", "said"), [
    ("operator: sigma: expected at most 1.4 pixels", "Width of the blur, pixels: expected at most 1.4 pixels"),
    ("operator.sigma: expected a number", "Width of the blur, pixels: expected a number"),
    ("operator: kernel: expected at most (16, 16)", "The blur: expected at most (16, 16)"),
    ("operator.acceleration=12 leaves 5 of 64 lines, and operator.center=8 by default keeps 8 in the middle",
     "Acceleration 12 leaves 5 of 64 lines, and the mask always keeps 8 in the middle"),
    ("DDRM needs an operator with an SVD, and PaddedBlur has none; these would work: moment_matching, pigdm",
     "DDRM needs an operator with an SVD, and this one has none; these would work: Moment matching, ΠGDM"),
    ("/tmp/me.h5: give it, as in --set sigma_y=0.01", "me.h5: give it, as in --set sigma\\_y=0.01 on the command line"),
    ("/tmp/invdiff-job-x/me.png: is empty", "me.png: is empty"),
    ("/tmp/v/0123456789abcdef01234567.png: is empty", "The file: is empty"),
])
def test_an_error_has_the_page_s_names_and_the_user_s(error, said):
    assert text.sentence(error) == said


@pytest.mark.parametrize(("gradients", "said"), [
    (0.0, "11 network calls a sample, 1.6 s on cpu"),
    (11.0, "11 network calls and 11 gradients of the network a sample, 1.6 s on cpu"),
])
def test_a_run_s_gradients_are_said_here_and_on_the_command_line(gradients, said):
    report = {"network_calls": 11.0, "network_gradients": gradients, "seconds": 1.6, "device": "cpu"}
    assert text.cost(report) == f"{said}."
    assert restore._costs(report) == [said]


def at_first(kind):
    if isinstance(kind, operators_shown.Choice):
        return kind.options[0]
    return int(kind.share * 256) if isinstance(kind, operators_shown.Pixels) else kind.value


def test_everything_on_offer_has_a_name_and_is_known():
    assert set(operators_shown.TASKS) == set(text.TASKS) <= set(tasks())
    assert set(text.SAMPLERS) <= set(SAMPLERS)
    for task, names in operators_shown.TASKS.items():
        for name in names:
            assert name in text.OPERATORS
            shown = {key: at_first(kind) for key, kind in operators_shown.PARAMETERS[name].items()}
            assert set(shown) <= set(text.PARAMETERS)
            needed = {"mask": "m.png"} if name == "mask_inpainting" else {}
            spec.resolve(task, {"operator": {"name": name, **shown, **needed}})
        defaults = operators_shown.PARAMETERS[names[0]]
        bundled = run_config(task).operator
        assert all(getattr(kind, "value", bundled[key]) == bundled[key] for key, kind in defaults.items())


def test_a_restoration_in_words():
    report = {"samples": 4, "consistency": {"words": "It explains."}, "provenance": {"words": "Half."},
              "interval": {"level": 0.9, "factor": 2.0, "half_width": 0.05, "source": "measured"}}
    assert text.trust(report) == ["It explains.", "Half.", "The 90% interval at a pixel is 2.00 times the spread, pooled over "
                                  "neighbouring pixels, to each side, here 0.050 on average (measured)."]
    assert text.trust({**report, "samples": 1, "interval": {"factor": 0.0}}) == ["It explains.", "Half.", text.SINGLE]
    found = {**report, "samples": 1, "noise_level": {"words": "It is 0.0048."}, "boundary": {"words": "It wraps around."}}
    assert text.trust(found)[:2] == ["It wraps around.", "It is 0.0048."]
    assert text.warning(report) is None
    assert text.warning({"novelty": {"unusual": True, "words": "Strange."}}) == "Strange."
