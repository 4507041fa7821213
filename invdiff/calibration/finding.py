"""Which record speaks of a run, and what it says."""

import hashlib
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deepinv.models import Denoiser

from invdiff.calibration.record import SEEDS, Calibration, in_pairs, read_calibration
from invdiff.calibration.varying import Law
from invdiff.config import RunConfig
from invdiff.errors import InputError
from invdiff.evaluation.intervals import uncalibrated
from invdiff.evaluation.novelty import Reference
from invdiff.paths import cache_folder
from invdiff.resolving import BESIDE, calibration_beside, tasks


def find_calibration(config: RunConfig, prior: Denoiser, sigma_y: float | None = None) -> Calibration | None:
    """The calibration of a run, if there is one that was measured with its prior, operator and sampler: of several the one with
    the fewest differences, then the fewest settings that varied, then the nearest noise level and number of samples, the user's
    own before the bundled one.

    Raises InputError for a file that the config names and that is missing, damaged or another run's. Others that are damaged
    are passed over with a warning, and so is another run's whose name is that of one beside a config, which is found unasked.
    """
    fit: list[Calibration] = []
    for path in _candidates(config):
        try:
            found = read_calibration(path)
        except InputError as error:
            if config.calibration is not None:
                raise
            warnings.warn(f"{error}; it is not used", stacklevel=2)
            continue
        why = found.refusal(config, prior)
        if why is None:
            fit.append(found)
        elif config.calibration is not None:
            if path.name.endswith(BESIDE):
                warnings.warn(f"{path}: was measured with another {why}; it is not used", stacklevel=2)
                continue
            raise InputError(f"{path}: was measured with another {why}; leave calibration out, or measure it with invdiff "
                             "calibrate")

    def distance(found: Calibration) -> tuple[int, int, float, float]:
        noise = abs(math.log(found.sigma_y / sigma_y)) if sigma_y and found.sigma_y else 0.0
        samples = min(abs(math.log(count / config.samples)) for count in found.factors)
        return len(found.differences(config, sigma_y)), len(found.varied), noise, samples

    return min(fit, key=distance, default=None)


def interval_of(calibration: Calibration | None, config: RunConfig, samples: int, sigma_y: float | None = None,
                assumed: str = "") -> dict[str, Any]:
    """The interval's entry in a report, with a calibration or without; `assumed` as in `Calibration.interval`."""
    if calibration is None:
        return uncalibrated(samples, in_pairs(config), assumed)
    return calibration.interval(config, samples, sigma_y, assumed)


def reference_of(calibration: Calibration | None, settings: Mapping[str, Any] | None = None) -> Reference | None:
    """What restorations look like to the prior when all is in order, where that was measured; and where a run of such settings
    takes not fewer steps, of which they look strange whatever the image."""
    if calibration is None or not calibration.novelty or calibration.in_fewer_steps(settings or {}):
        return None
    return Reference.from_dict(calibration.novelty)


def _candidates(config: RunConfig) -> Iterator[Path]:
    if config.calibration is not None:
        yield Path(config.calibration)
        return
    known = tasks()
    if config.task in known:
        yield from sorted(place(config).parent.glob("*.json"))
        yield from (path for path in (calibration_beside(known[config.task]),) if path.is_file())


def place(config: RunConfig, law: Law | None = None) -> Path:
    """Where the user's own calibration of a bundled task is kept, below the cache folder: one for each prior, operator, noise
    level, sampler, number of samples, and what varied."""
    what = config.model_dump(mode="json", include={"prior", "operator", "sigma_y", "sampler", "samples", "antithetic"})
    what["operator"] = {key: value for key, value in what["operator"].items() if key not in SEEDS}
    what |= {"varied": {key: which.model_dump() for key, which in law.items()}} if law else {}
    name = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    return cache_folder() / "calibrations" / config.task / f"{name}.json"
