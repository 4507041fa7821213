"""From what is on the page to a config, and to the command line and the YAML that say the same."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from invdiff.config import RunConfig
from invdiff.resolving import run_config

OPTIONS = {"input": "--input", "truth": "--truth", "samples": "--samples", "prior": "--prior", "seed": "--seed"}


def resolve(task: str, given: Mapping[str, Any]) -> RunConfig:
    """The config of a task with values by dotted key, as `invdiff restore --set KEY=VALUE` makes it. Raises InputError."""
    return run_config(task, assignments=[f"{key}={json.dumps(value)}" for key, value in given.items()])


def named(config: RunConfig, names: Mapping[str, str]) -> RunConfig:
    """The config with each path in `names` replaced by the name it is to have: what a user's own copy is called."""
    operator = {key: names.get(value, value) if isinstance(value, str) else value for key, value in config.operator.items()}
    files = {key: names[value] for key in ("input", "truth") if (value := getattr(config, key)) in names}
    return config.model_copy(update={"operator": operator, **files})


def settings(config: RunConfig, names: Mapping[str, str]) -> dict[str, Any]:
    """The config as plain values, equal for equal settings and contents of files, by which the visit's copies are named."""
    return named(config, {path: Path(path).name for path in names}).model_dump()


def command_line(config: RunConfig, output: str | None = None) -> str:
    """The shortest `invdiff restore` that makes this config, into a folder of its own where one is given."""
    plain = resolve(config.task, {"input": config.input, "sigma_y": config.sigma_y} if config.input else {}).model_dump()
    ours = config.model_dump()
    parts = ["invdiff", "restore", "--task", config.task]
    for key, option in OPTIONS.items():
        if ours[key] != plain[key] or (key == "input" and ours[key]):
            parts += [option, str(ours[key])]
    parts += [part for name in ours["baselines"] for part in ("--baseline", name)]
    parts += _sampler(ours["sampler"], plain["sampler"])
    if ours["sigma_y"] != plain["sigma_y"] or ours["input"]:
        parts += ["--set", f"sigma_y={ours['sigma_y']}"]
    if ours["operator"]["name"] != plain["operator"]["name"]:
        parts += ["--set", f"operator={json.dumps(ours['operator'])}"]
    else:
        parts += _changes("operator", ours["operator"], plain["operator"])
    for key in ("slices", "write"):
        if ours[key] != plain[key]:
            parts += ["--set", f"{key}={json.dumps(ours[key])}"]
    return shlex.join(parts + (["--output", output] if output else []))


def _sampler(ours: Mapping[str, Any], plain: Mapping[str, Any]) -> list[str]:
    parts: list[str] = []
    if ours["name"] != plain["name"]:
        parts += ["--sampler", ours["name"]]
    if ours.get("steps") != plain.get("steps") or parts:
        parts += ["--steps", str(ours["steps"])] if "steps" in ours else []
    if ours["name"] == plain["name"]:
        parts += _changes("sampler", {name: value for name, value in ours.items() if name != "steps"}, plain)
    return parts


def _changes(key: str, ours: Mapping[str, Any], plain: Mapping[str, Any]) -> list[str]:
    changed = [name for name, value in ours.items() if value != plain.get(name)]
    return [part for name in changed for part in ("--set", f"{key}.{name}={_plain(ours[name])}")]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def as_yaml(config: RunConfig) -> str:
    return yaml.safe_dump(json.loads(config.model_dump_json()), sort_keys=False, allow_unicode=True)


def inside(config: RunConfig, folder: Path, names: Mapping[str, str]) -> RunConfig:
    """The config with the files of `names` (path: name) where a job has its copies."""
    return named(config, {path: str(folder / name) for path, name in names.items()})
