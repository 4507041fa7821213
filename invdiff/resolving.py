"""What a task by name, or a config by path, becomes with a command line's additions: a RunConfig, every default filled in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from invdiff.baselines.mri import BASELINES
from invdiff.config import (
    FOUND,
    SCANS,
    RunConfig,
    build_sampler,
    describe,
    known_operators,
    known_samplers,
    operator_parameters,
    unknown_width,
)
from invdiff.errors import InputError
from invdiff.own_code import PYTHON
from invdiff.paths import bundled
from invdiff.validation import keys_of, model_of, nearest, override, read_yaml, said_of, validate

DEFAULT_SAMPLER = "moment_matching"
SAMPLE_ACCELERATION = 4.0
BESIDE = ".calibration.json"      # ends the name of what belongs to the config beside it


def tasks() -> dict[str, Path]:
    """The bundled tasks, by name."""
    return {path.stem: path for path in sorted(bundled("configs").glob("*.yaml"))}


def calibration_beside(config: str | Path) -> Path:
    """Where the calibration of a config in a file is kept: deblur.yaml has deblur.calibration.json."""
    return Path(config).with_name(f"{Path(config).stem}{BESIDE}")


def run_config(task: str | None = None, path: str | Path | None = None, assignments: Sequence[str] = ()) -> RunConfig:
    """A task by name or a config by path, with `--set` assignments, every default filled in. Raises InputError.

    A bundled task's sigma_y is the noise to simulate. It is nobody's measurement: with an `input` it must be given.
    """
    if (task is None) == (path is None):
        raise InputError(f"expected a task or a config, one of the two; tasks: {', '.join(tasks())}")
    assignments = [_by_name(assignment) for assignment in assignments]
    own: dict[str, Any] = {}
    if path is None:
        if task not in tasks():
            raise InputError(f"task: unknown task {task!r}; {nearest(str(task), tasks())}")
        path = tasks()[str(task)]
        noise_given = any(a.partition("=")[0].strip() == "sigma_y" for a in assignments)
    else:
        noise_given = True
        own = {"calibration": str(beside.resolve())} if (beside := calibration_beside(path)).is_file() else {}
    given = {"sampler": DEFAULT_SAMPLER} | own | read_yaml(path)
    given = {k: {"name": v} if k in ("operator", "sampler") and isinstance(v, str) else v for k, v in given.items()}
    kept = given | _for_another("operator", given, assignments) | _for_another("sampler", given, assignments)
    config = said_of(path, given, override(kept, assignments), _filled)
    if config.is_scan:
        _check_scan(config)
    else:
        _check_image(config, str(path), noise_given)
    return config


def _filled(data: Mapping[str, Any]) -> RunConfig:
    """The RunConfig of what a file and a command line say, its parts with every parameter."""
    _check_prefixes(data)
    config = validate(RunConfig, data, "")
    if not config.task.strip() or config.task in (".", "..") or set("/\\") & set(config.task):     # a folder is named after it
        raise InputError(f"task: expected a label without / and \\, got {config.task!r}")
    if config.input is not None and config.truth is not None:
        raise InputError("input and truth: give a measurement (--input) or a clean image (--truth), not both")
    operator = operator_parameters(config.operator)
    if operator["name"] in SCANS and config.input is None and config.truth is None and operator["acceleration"] is None:
        operator["acceleration"] = SAMPLE_ACCELERATION                  # the bundled scan is fully sampled
    unsaid = "boundary" not in config.operator and operator.get("boundary") == "circular"
    if unsaid or operator.get("boundary") == FOUND:
        operator["boundary"] = FOUND if config.input else "circular"    # a simulation's own
    sampler = describe(build_sampler(config.sampler), config.sampler["name"])
    return config.model_copy(update={"operator": operator, "sampler": sampler})


def _check_prefixes(data: Mapping[str, Any]) -> None:
    """Raise for a parameter of the operator or of the sampler that is given without its prefix."""
    for part in ("operator", "sampler"):
        spec = data.get(part)
        known = _keys(part, spec.get("name")) if isinstance(spec, Mapping) else []
        if bare := next((key for key in data if key in known and key not in RunConfig.model_fields), None):
            raise InputError(f"unknown key {bare!r}; did you mean '{part}.{bare}'?")


def _keys(part: str, name: object) -> list[str]:
    """What the operator or the sampler of a name takes; nothing of an unknown one, as others tell of that."""
    table: Mapping[str, Any] = known_operators(name) if part == "operator" else known_samplers(name)
    make = table.get(str(name))
    return keys_of(model_of(make)) if make else []


def _by_name(assignment: str) -> str:
    """`sampler.name=dps` of `sampler=dps`."""
    key, _, value = (text.strip() for text in assignment.partition("="))
    named = key in ("operator", "sampler") and (value.isidentifier() or value.startswith(PYTHON))
    return f"{key}.name={value}" if named else assignment


def _for_another(part: str, given: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """{part: what is left of its spec in `given`} if `--set PART.name=` changes the name: an operator's parameters that the new
    one has, too; a sampler's are its own. Else nothing."""
    name = next((value.strip().strip("'\"") for key, _, value in (a.partition("=") for a in reversed(assignments))
                 if key.strip() == f"{part}.name"), None)
    spec = given.get(part)
    if not name or not isinstance(spec, Mapping) or name == spec.get("name"):
        return {}
    known = _keys(part, name) if part == "operator" else []
    return {part: {key: value for key, value in spec.items() if key in known}}


def _check_scan(config: RunConfig) -> None:
    for name in ("size", "start", "other_priors"):
        if getattr(config, name):
            raise InputError(f"{name}: belongs to images; leave it out for a scan")
    if config.truth is not None and config.sigma_y in (None, "auto"):
        raise InputError("sigma_y: the noise of a simulated scan is to be given, for example --set sigma_y=0.01 (the image's "
                         "peak is 1; 0 is noiseless)")
    for name in config.baselines:
        if name not in BASELINES:
            raise InputError(f"baselines: unknown name {name!r}; {nearest(name, BASELINES)}")


def _check_image(config: RunConfig, path: str, noise_given: bool) -> None:
    for name in ("slices", "baselines", "write", "keep_identity"):
        if getattr(config, name) != RunConfig.model_fields[name].default:
            raise InputError(f"{name}: belongs to scans, the task mri; leave it out")
    if config.input is not None and not (noise_given and config.sigma_y is not None):
        raise InputError(f"sigma_y: the noise level of {config.input} is not known; give it, for example "
                         "--set sigma_y=0.02 (white is 1; 0 is noiseless), or have it estimated: --set sigma_y=auto")
    if config.start is not None and config.sampler.get("start_sigma") is None:
        raise InputError("start: has no effect from the highest level; say from which to begin, --set sampler.start_sigma=0.5")
    if config.size is not None and config.input is None:
        raise InputError("size: belongs to a measurement from a file; give --input, or leave it out")
    if config.sigma_y == "auto" and config.input is None:
        raise InputError("sigma_y: auto estimates the noise of an --input; to simulate, give a number")
    if (key := unknown_width(config.operator)) and config.input is None:
        raise InputError(f"operator.{key}: auto estimates the blur of an --input; to simulate, give a number")
    if config.sigma_y is None:
        raise InputError(f"{path}: sigma_y is missing; give the noise's standard deviation (white is 1; 0 is noiseless)")
