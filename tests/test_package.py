"""The package as a whole: what importing it costs, which way its imports go, and what travels in the wheel."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from invdiff.config import SAMPLERS, build_operator, build_sampler
from invdiff.paths import bundled
from invdiff.resolving import run_config, tasks
from invdiff.training.stages import train_stages

ROOT = Path(__file__).parents[1]

# a part may import the parts of the rows above its own, and nothing of its own row but itself
LEVELS = [
    {"operators"},
    {"errors", "paths", "differences", "physics"},
    {"problem", "diffusion", "io", "validation", "machine", "own_code"},
    {"priors", "forward", "datasets", "mri.settings", "result", "simulation"},
    {"posterior", "figures"},
    {"evaluation", "baselines", "checks", "chunks", "own_samplers"},
    {"training", "noise_level"},
    {"config", "restoration"},
    {"resolving"},
    {"sampling", "calibration", "trust"},
    {"sample_config", "illustrations"},
    {"mri"},
    {"posing", "interop", "assessing"},
    {"blind"},
    {"job"},
    {"calibration.known"},
    {"calibration.cases"},
    {"calibration.measuring"},
    {"experiments", "benchmark"},
    {"cli", "cli.options"},
    {"cli.named_files", "cli.saved_run"},
    {"cli.pictures"},
    {"cli.app", "cli.benchmark", "cli.calibrate", "cli.figures", "cli.priors", "cli.restore", "cli.sample", "cli.simulate",
     "cli.tasks", "cli.train"},
    {"cli.evaluate"},
    {"cli.main"},
    {"__main__"},
]
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}


@pytest.mark.parametrize("code", [
    "import invdiff, invdiff.cli.main; dir(invdiff)",
    "import invdiff.cli.main; sys.argv = ['invdiff', '--help']; invdiff.cli.main.main()",
    "import invdiff.cli.main; sys.argv = ['invdiff', 'restore', '--help']; invdiff.cli.main.main()",
])
def test_import_and_help_load_no_torch(code, tmp_path):
    script = (f"import sys\ntry:\n    {code}\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
              "heavy = {'torch', 'deepinv', 'numpy', 'skimage'} & set(sys.modules)\nsys.exit(str(heavy) if heavy else 0)")
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_modules_are_attributes_that_load_on_first_use(tmp_path):
    script = ("import sys, invdiff\nassert 'torch' not in sys.modules\nassert invdiff.interop.AsReconstructor\n"
              "assert not hasattr(invdiff, 'nothing_of_this_name')\nassert not hasattr(invdiff, '_bundled_things')")
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def sources():
    files = [*(ROOT / "invdiff").rglob("*.py"), *(ROOT / "operators").rglob("*.py")]
    return [path for path in files if path != ROOT / "invdiff" / "__init__.py" and "_bundled" not in path.parts]


def part_of(module):
    """'invdiff.io.images' -> 'io', 'operators.blur' -> 'operators'; None for others' modules."""
    package, *rest = module.split(".")
    if package == "operators":
        return package
    if package != "invdiff" or not rest:
        return None
    return next((part for part in LEVEL if part == ".".join(rest[:2])), rest[0])


def imported_parts(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            modules = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from filter(None, map(part_of, modules))


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downwards_only(path):
    relative = path.relative_to(ROOT).with_suffix("")
    part = part_of(".".join(relative.parts))
    assert part in LEVEL, f"{part} has no place in LEVELS"
    wrong = {other for other in imported_parts(path) if other != part and LEVEL[other] >= LEVEL[part]}
    assert not wrong, f"{relative} must not import {sorted(wrong)}"


def test_no_two_files_of_tests_have_one_name():
    """pytest imports them by it, as there are no packages of tests."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))


def test_every_bundled_task_builds_and_has_its_file_s_name():
    assert {"deblur", "denoise", "inpaint", "motion-deblur", "sr"} <= set(tasks())
    for name in tasks():
        config = run_config(name)
        assert config.task == name
        if not config.is_scan:
            assert build_operator(config.operator, (3, 64, 64)).img_size == (3, 64, 64)
        assert build_sampler(config.sampler).num_steps == config.sampler["steps"]


def test_every_bundled_training_config_is_valid():
    paths = sorted(bundled("configs", "train").glob("*.yaml"))
    assert paths
    assert [{stage.name for stage in train_stages(path)} for path in paths] == [{path.stem} for path in paths]


def test_every_sampler_says_what_it_does():
    assert all(kind.about and kind.__doc__ for kind in SAMPLERS.values())


def test_the_wheel_carries_what_the_code_looks_for():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["invdiff", "operators"]
    assert wheel["force-include"] == {name: f"invdiff/_bundled/{name}" for name in ("configs", "data", "apps")}
    assert all((ROOT / name).is_dir() for name in wheel["force-include"])
    assert project["project"]["license-files"] == ["LICENSE"]
    assert (ROOT / "LICENSE").is_file()


def test_versions_agree():
    tomllib = pytest.importorskip("tomllib")
    import invdiff

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == invdiff.__version__
    assert f"version: {invdiff.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
