"""Configs: every default filled in, every typing error told in one sentence."""

import pytest
import yaml

from invdiff.cli.options import resolve
from invdiff.config import SAMPLERS, build_sampler, describe
from invdiff.diffusion.integrators import DDIM
from invdiff.diffusion.schedules import Cosine
from invdiff.errors import InputError
from invdiff.paths import bundled
from invdiff.posterior import DiffPIR, MomentMatching
from invdiff.resolving import run_config, tasks
from invdiff.training.stages import train_stages
from invdiff.validation import read_yaml


def refused(*assignments, task="deblur", path=None):
    """The sentence with which a config is refused."""
    with pytest.raises(InputError) as caught:
        run_config(None if path else task, path, assignments)
    return str(caught.value)


@pytest.mark.parametrize(("assignment", "said"), [
    ("operator.sigmaa=2", ["operator gaussian_blur", "'sigmaa'", "did you mean 'sigma'"]),
    ("operator.name=gausian_blur", ["operator", "'gausian_blur'", "did you mean 'gaussian_blur'"]),
    ("sampler.stepps=9", ["sampler", "'stepps'", "did you mean 'steps'"]),
    ("sampler.name=moment_maching", ["sampler", "did you mean 'moment_matching'"]),
    ("sampler.integrator=huen", ["sampler.integrator", "did you mean 'heun'"]),
    ("sampler.integrator.etaa=0.5", ["sampler.integrator", "'etaa'"]),
    ("sampler.schedule=karas", ["sampler.schedule", "did you mean 'karras'"]),
    ("sampels=3", ["'sampels'", "did you mean 'samples'"]),
    ("xyz=3", ["'xyz'", "known:", "sigma_y"]),
])
def test_an_unknown_name_gets_the_nearest_right_one(assignment, said):
    message = refused(*(["sampler.integrator.name=ddim"] if "etaa" in assignment else []), assignment)
    assert all(part in message for part in said), message
    assert "\n" not in message


def test_an_unknown_task_gets_the_nearest_right_one():
    assert "did you mean 'deblur'" in refused(task="deblurr")
    assert f"known: {', '.join(tasks())}" in refused(task="zzz")


@pytest.mark.parametrize(("assignment", "quantity"), [
    ("samples=0", "samples"), ("samples=2.5", "samples"), ("samples=many", "samples"), ("seed=-1", "seed"),
    ("sigma_y=-0.1", "sigma_y"), ("sigma_y=.nan", "sigma_y"), ("sigma_y=.inf", "sigma_y"), ("precision=fp16", "precision"),
    ("batch_size=0", "batch_size"), ("sampler.steps=0", "steps"), ("sampler.sigma_max=-1", "sigma_max"),
    ("sampler.cg_iterations=0", "cg_iterations"), ("operator.sigma=wide", "sigma"), ("sigma_y=often", "sigma_y"),
    ("operator=3", "operator"),
])
def test_a_value_out_of_range_is_named_with_what_was_given(assignment, quantity):
    message = refused(assignment)
    assert quantity in message
    assert "got " in message
    assert "\n" not in message


def test_assignments_are_yaml_and_reach_nested_keys():
    config = run_config("deblur", None, ["operator.sigma=2.5", "sigma_y=1e-2", "sampler.schedule={name: karras, rho: 5}",
                                         "sampler.integrator={name: ddim, eta: 0.5}", "seed=7", "batch_size=null",
                                         "truth=a b.png"])
    assert config.operator == {"name": "gaussian_blur", "sigma": 2.5, "angle": 0.0, "boundary": "circular"}
    assert (config.seed, config.batch_size, config.truth) == (7, None, "a b.png")
    assert config.sigma_y == pytest.approx(0.01)
    sampler = build_sampler(config.sampler)
    assert sampler.schedule.rho == 5
    assert sampler.integrator == DDIM(eta=0.5)


@pytest.mark.parametrize("assignment", ["seed", "=3", " =3"])
def test_an_assignment_needs_a_key_and_a_value(assignment):
    assert "expected KEY=VALUE" in refused(assignment)


def test_an_assignment_into_a_value_or_of_broken_yaml_is_refused():
    assert "seed is a value" in refused("seed.x=1")
    assert "not a YAML value" in refused("operator.sigma=[1")


def test_every_default_is_filled_in():
    config = run_config("inpaint")
    assert config.operator == {"name": "random_inpainting", "keep": 0.5, "seed": 0}
    assert set(config.sampler) == {"name", *(f.alias or n for n, f in MomentMatching.model_fields.items())}
    assert set(config.sampler["schedule"]) == {"name", "rho"}


def test_another_sampler_takes_its_own_defaults():
    assert build_sampler(run_config("deblur", None, ["sampler.name=diffpir"]).sampler) == DiffPIR()
    steps = run_config("deblur", None, ["sampler.steps=7", "sampler.name=diffpir"])
    assert build_sampler(steps.sampler) == DiffPIR(steps=7)
    assert run_config("deblur", None, ["sampler.steps=7", "sampler=diffpir"]) == steps


@pytest.mark.parametrize("task", tasks())
def test_a_task_s_own_sampler_and_operator_keep_its_settings(task):
    own = run_config(task)
    assert resolve(task, None, None, {"sampler.name": own.sampler["name"]}) == own
    assert run_config(task, None, [f"sampler={own.sampler['name']}", f"operator={own.operator['name']}"]) == own
    assert run_config(task, None, [f"operator.name={own.operator['name']}"]) == own


def test_another_operator_takes_what_it_knows_of_the_task_s():
    """`keep` of the task inpaint is no box's, and `factor` of sr is that of the bicubic one, too."""
    assert run_config("inpaint", None, ["operator.name=box_inpainting"]).operator["name"] == "box_inpainting"
    assert run_config("inpaint", None, ["operator.name=row_inpainting"]).operator["keep"] == 0.5
    assert run_config("inpaint", None, ["operator=row_inpainting"]).operator["keep"] == 0.5
    assert run_config("inpaint", None, ["operator.keep=0.3", "operator.name=row_inpainting"]).operator["keep"] == 0.3
    assert run_config("sr", None, ["operator.name=bicubic_super_resolution"]).operator["factor"] == 2
    with pytest.raises(InputError, match="unknown key 'keep'"):
        run_config("inpaint", None, ["operator.name=box_inpainting", "operator.keep=0.3"])
    with pytest.raises(InputError, match="did you mean 'box_inpainting'"):
        run_config("inpaint", None, ["operator.name=box_inpaintin"])


@pytest.mark.parametrize("name", SAMPLERS)
def test_describe_and_build_are_inverses(name):
    integrator = {"integrator": DDIM(eta=0.25)} if SAMPLERS[name].integrates else {}
    for sampler in (SAMPLERS[name](), SAMPLERS[name](steps=7, sigma_max=3.0, schedule=Cosine(), **integrator)):
        spec = describe(sampler)
        assert build_sampler(spec) == sampler
        assert build_sampler(yaml.safe_load(yaml.safe_dump(spec))) == sampler


@pytest.mark.parametrize("task", tasks())
def test_a_resolved_config_resolves_to_itself(task, tmp_path):
    config = run_config(task, None, ["seed=3"])
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump()), encoding="utf-8")
    assert run_config(None, path) == config


def test_a_task_s_noise_level_is_no_measurement_s():
    assert "sigma_y" in refused("input=y.png")
    assert run_config("deblur", None, ["input=y.png", "sigma_y=0"]).sigma_y == 0


def test_a_config_with_an_input_needs_sigma_y(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("{task: mine, operator: denoising, input: y.png}", encoding="utf-8")
    assert "sigma_y" in refused(path=path)
    assert run_config(None, path, ["sigma_y=0.1"]).operator == {"name": "denoising"}


def test_input_and_truth_never_mix():
    assert "not both" in refused("input=y.png", "truth=x.png", "sigma_y=0.1")


def test_a_task_or_a_config_is_given_and_not_both(tmp_path):
    for task, path in ((None, None), ("deblur", tmp_path / "c.yaml")):
        with pytest.raises(InputError, match="one of the two"):
            run_config(task, path)


@pytest.mark.parametrize(("text", "said"), [("[1, 2]", "mapping"), ("a: [", "not valid YAML"), ("task: x", "operator"),
                                             ("{task: x, operator: {sigma: 2}, sigma_y: 0}", "operator"),
                                             ("operatr: {name: denoising}", "'operatr'; did you mean 'operator'?")])
def test_a_broken_config_file_is_refused_by_its_name(text, said, tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="utf-8")
    assert said in refused(path=path)


@pytest.mark.parametrize(("text", "said"), [
    ("off: 3", "line 1: key 'off' is no text to YAML"),
    ("3: 4", "key '3' is no text"),
    ("task: t\nnull: 1", "line 2: key 'null' is no text"),
    ("sampler: {integrator: {1: 2}}", "key '1' is no text"),
    ("task: t\noperator: {name: denoising, name: colorization}", "line 2: key 'name' is there twice"),
    ("task: t\nseed: 1\nseed: 2", "line 3: key 'seed' is there twice"),
])
def test_keys_are_text_and_there_once(text, said, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    message = refused(path=tmp_path / "mine.yaml")
    assert message.startswith(f"{tmp_path / 'mine.yaml'}: ")
    assert said in message


def test_merged_yaml_may_say_a_key_anew(tmp_path):
    (tmp_path / "mine.yaml").write_text("a: &a {x: 1, y: 1}\nb: {<<: *a, x: 2}")
    assert read_yaml(tmp_path / "mine.yaml")["b"] == {"x": 2, "y": 1}


@pytest.mark.parametrize(("mine", "assignments", "said"), [
    ({"sampels": 2}, [], "unknown key 'sampels'"),
    ({"operator": {"name": "gaussian_blur", "sigmaa": 3}}, ["sampler.steps=3"], "operator gaussian_blur: unknown key 'sigmaa'"),
    ({"operator": {"sigma": 3}}, [], "operator: name is missing"),
    ({"sampler": {"steps": 3}}, ["seed=1"], "sampler: name is missing"),
    ({"sampler": {"name": "dps", "stepps": 3}}, ["sampler.steps=3"], "sampler: unknown key 'stepps'"),
])
def test_a_mistake_in_a_file_names_it(mine, assignments, said, tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"task": "t", "operator": "denoising", "sigma_y": 0.1} | mine))
    assert refused(*assignments, path=tmp_path / "mine.yaml").startswith(f"{tmp_path / 'mine.yaml'}: {said}")


@pytest.mark.parametrize(("assignment", "said"), [
    ("samples=0", "samples: "), ("size=64", "size: expected a list, such as [1, 2], got 64"),
    ("sampels=2", "unknown key 'sampels'"), ("operator={sigma: 2}", "operator: name is missing"),
    ("operator.name=null", "operator: name is missing"), ("sampler.steps=0", "sampler: steps: "),
])
def test_a_mistake_on_the_command_line_names_no_file(assignment, said, tmp_path):
    assert refused(assignment).startswith(said)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"task": "t", "operator": "denoising", "sigma_y": 0.1}))
    assert refused(assignment, path=tmp_path / "mine.yaml").startswith(said)


@pytest.mark.parametrize(("task", "key"), [
    ("mri", "operator.acceleration"), ("mri", "operator.grid"), ("sr", "operator.factor"), ("deblur", "sampler.steps"),
])
def test_a_parameter_without_its_part_is_told_the_part(task, key):
    bare = key.partition(".")[2]
    assert refused(f"{bare}=4", task=task) == f"unknown key {bare!r}; did you mean {key!r}?"


@pytest.mark.parametrize(("assignment", "said"), [
    ("sigma_y=true", "sigma_y: expected a number, got true"), ("samples=on", "samples: expected a number, got true"),
    ("batch_size=off", "batch_size: expected a number, got false"),
    ("operator.sigma=no", "operator gaussian_blur: sigma: expected a number, got false"),
    ("operator.sigma=[2, yes]", "operator gaussian_blur: sigma.1: expected a number, got true"),
    ("sampler.integrator={name: ddim, eta: true}", "sampler.integrator: eta: expected a number, got true"),
])
def test_true_is_no_number(assignment, said):
    assert refused(assignment) == said
    assert run_config("deblur", None, ["antithetic=true"]).antithetic is True


@pytest.mark.parametrize(("task", "assignment", "said"), [
    ("deblur", "task=../../evil", "task: expected a label without / and \\, got '../../evil'"),
    ("deblur", "task=..", "task: expected a label"), ("deblur", "task=''", "task: expected a label"),
    ("deblur", "truth=''", "truth: expected the name of a file, got ''"),
    ("deblur", "slices=[5]", "slices: expected one more value, as in [1, 2], got [5]"),
    ("deblur", "other_priors=faces", "other_priors: expected a list, such as [faces], got 'faces'"),
    ("mri", "write=png", "write: expected a list, such as [png], got 'png'"),
    ("denoise", "operator.sigma=1", "operator denoising: unknown key 'sigma'; it takes none"),
    ("deblur", "sampler.integrator={name: heun, eta: 1}", "sampler.integrator: unknown key 'eta'; it takes none"),
])
def test_a_refusal_says_what_would_be_right(task, assignment, said):
    assert refused(assignment, task=task).startswith(said)


def test_a_label_is_said_to_be_one(tmp_path):
    (tmp_path / "mine.yaml").write_text("operator: denoising")
    assert "task is missing; it is a label of your choice, which names the results" in refused(path=tmp_path / "mine.yaml")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_config_that_is_not_utf_8_is_told_so(encoding, tmp_path):
    (tmp_path / "mine.yaml").write_bytes("task: \u00e4".encode(encoding))
    assert refused(path=tmp_path / "mine.yaml").endswith("is no text in UTF-8; save it as UTF-8")


def test_a_control_character_is_told_by_its_place(tmp_path):
    (tmp_path / "mine.yaml").write_text("task: a\x01b", encoding="utf-8")
    assert "not valid YAML (unacceptable character #x0001" in refused(path=tmp_path / "mine.yaml")
    assert "position 7" in refused(path=tmp_path / "mine.yaml")


def test_home_is_where_a_shell_finds_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    config = run_config("inpaint", None, ["truth=~/x.png", "operator={name: mask_inpainting, mask: ~/m.png}"])
    assert config.files == ["/home/me/x.png", "/home/me/m.png"]


def test_what_is_wrong_with_a_whole_sampler_is_said_without_a_key():
    assert refused("sampler.name=daps", "sampler.start_sigma=0.3").startswith("sampler: DAPS cannot begin")


def test_an_estimate_alone_has_no_effect():
    said = refused("start=estimate.png")
    assert said.startswith("start: has no effect from the highest level; say from which to begin")
    assert run_config("deblur", None, ["start=estimate.png", "sampler.start_sigma=0.5"]).start.endswith("estimate.png")


def test_a_missing_config_file_is_refused():
    assert "nowhere.yaml" in refused(path="nowhere.yaml")


def test_training_settings_name_the_nearest_right_key():
    path = bundled("configs", "train", "natural.yaml")
    assert train_stages(path, ["optimiser.steps=5"])[0].optimiser.steps == 5
    for assignment, said in (("optimiser.stepz=5", "did you mean 'steps'"), ("nois.low=1", "did you mean 'noise'"),
                             ("noise.low=-1", "noise.low")):
        with pytest.raises(InputError, match=said):
            train_stages(path, [assignment])
