"""How the factor that intervals need changes with the settings that vary: a few steps leave the samples closer together than
many, and they need a larger one.

The logarithm of an image's own factor is taken to be linear in the places of its settings, each from -1 to 1. The images are
few and their factors differ for many other reasons, so the regression is ridge's: a slope is believed to be about BELIEVED.
Divided by what this says of their image, the ratios of all are then calibrated together (locally weighted conformal prediction,
Lei et al. 2018), each by a fit to the other images, for none is to judge its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from invdiff.calibration.varying import Law

BELIEVED = 0.2      # standard deviation of a slope: from one end of a range to the other, a factor changes by some 1.5 times
LEAST = 8           # images, of fewer of which there is no trend
Trend = dict[str, list[float]]


def fitted(law: Law, settings: Sequence[Mapping[str, Any]], needed: np.ndarray) -> tuple[Trend, np.ndarray]:
    """The slopes of each setting of a law; and for each image by what the other images' slopes multiply the factor, (n,).

    settings: of each image. needed: each one's own factor, (n,), above zero.
    """
    if len(needed) < LEAST:
        return {}, np.ones(len(needed))
    places = np.array([np.concatenate([law[key].place(setting[key]) for key in law]) for setting in settings])
    without = [np.delete(np.arange(len(needed)), i) for i in range(len(needed))]
    relative = [np.exp(place @ _ridge(places[rest], needed[rest])) for place, rest in zip(places, without, strict=True)]
    slopes = iter(_ridge(places, needed).tolist())
    return {key: [next(slopes) for _ in what.place(None)] for key, what in law.items()}, np.array(relative)


def relative_factor(trend: Trend, law: Law, settings: Mapping[str, Any]) -> float:
    """By what the settings of a run multiply the factor; those that are not known do not."""
    logs = [np.dot(slopes, law[key].place(settings[key])) for key, slopes in trend.items() if key in settings]
    return float(np.exp(sum(logs)))


def _ridge(places: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """The slopes (F,) of the logarithm of factors (n,) in places (n, F), both around their means."""
    target, centred = np.log(needed.clip(1e-6)), places - places.mean(0)
    strength = target.var() / BELIEVED**2 + 1e-9                # the mean of slopes given factors with that variance
    return np.linalg.solve(centred.T @ centred + strength * np.eye(places.shape[1]), centred.T @ (target - target.mean()))
