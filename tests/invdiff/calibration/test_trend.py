"""Factors that change with settings: what is learned of images whose factors are known, and what it does for coverage."""

import math

import numpy as np
import pytest

from invdiff.calibration.trend import BELIEVED, LEAST, fitted, relative_factor
from invdiff.calibration.varying import Choice, Range
from invdiff.evaluation.intervals import conformal_factor, coverage

LAW = {"sigma_y": Range(low=0.01, high=1.0), "operator.boundary": Choice(values=["circular", "valid"]),
       "sampler.steps": Choice(values=[10, 20, 40])}
SLOPES = {"sigma_y": [0.25], "operator.boundary": [0.1, -0.1], "sampler.steps": [-0.15]}


def images(count, seed=0, noise=0.1):
    """Settings of images, and the factor that each needs."""
    rng = np.random.default_rng(seed)
    settings = [{key: what.draw(rng) for key, what in LAW.items()} for _ in range(count)]
    needed = [2 * relative_factor(SLOPES, LAW, setting) * math.exp(noise * rng.normal()) for setting in settings]
    return settings, np.array(needed)


def test_places_are_even_in_the_logarithm_and_end_at_the_ends():
    settings = {"sigma_y": 0.1, "operator.boundary": "valid", "sampler.steps": 20}
    places = [LAW[key].place(value) for key, value in settings.items()]
    assert places == [pytest.approx([0.0]), [-0.5, 0.5], pytest.approx([0.0])]
    assert [LAW["sigma_y"].place(value) for value in (0.001, 0.01, 1, 7, "auto", None)] == [[-1], [-1], [1], [1], [0], [0]]
    assert [LAW["sampler.steps"].place(value) for value in (5, 10, 40, "many")] == [[-1], [-1], [1], [0]]
    assert LAW["operator.boundary"].place("zero") == [0, 0]
    assert Range(low=-1, high=3).place(0) == [-0.5]


def test_the_slopes_are_found_but_for_what_few_images_leave_open():
    settings, needed = images(400)
    trend, _ = fitted(LAW, settings, needed)
    found = np.concatenate(list(trend.values()))
    known = np.concatenate(list(SLOPES.values()))
    assert list(trend) == list(LAW)
    assert np.abs(found - known).max() < 4 * 0.1 / 400**0.5 / 0.5 + 0.02        # noise / sqrt(n) / spread of places; the ridge
    assert relative_factor(trend, LAW, {}) == 1
    known_alone = relative_factor(trend, LAW, {"sigma_y": 1.0, "operator.keep": 0.5})
    assert known_alone == pytest.approx(math.exp(trend["sigma_y"][0]))


def test_images_that_differ_for_other_reasons_teach_less():
    """The mean of slopes that are believed to be BELIEVED and were seen with noise."""
    settings, needed = images(12, noise=0.0)
    one, law = [{"sigma_y": setting["sigma_y"]} for setting in settings], {"sigma_y": LAW["sigma_y"]}
    places = np.array([LAW["sigma_y"].place(setting["sigma_y"])[0] for setting in one])
    target = np.log(needed)
    gain = 1 / (1 + target.var() / BELIEVED**2 / (12 * places.var()))
    trend, _ = fitted(law, one, needed)
    assert trend["sigma_y"][0] == pytest.approx(gain * np.polyfit(places, target, 1)[0], rel=1e-6)


def test_no_image_judges_its_own():
    settings, needed = images(20)
    _, relative = fitted(LAW, settings, needed)
    other = needed.copy()
    other[3] *= 5
    _, changed = fitted(LAW, settings, other)
    assert changed[3] == pytest.approx(relative[3], rel=1e-12)
    assert np.abs(np.delete(changed / relative, 3) - 1).max() > 1e-3


def test_of_too_few_images_there_is_no_trend():
    settings, needed = images(LEAST - 1)
    trend, relative = fitted(LAW, settings, needed)
    assert (trend, relative.tolist()) == ({}, [1.0] * (LEAST - 1))


def test_every_part_of_a_range_is_covered_as_promised():
    """Errors of images that need wider intervals where there is more noise: by one factor the quiet half is covered too much,
    and the other too little; 60 images leave a slope within 0.03, which moves coverage by 0.01."""
    rng = np.random.default_rng(1)
    law = {"sigma_y": LAW["sigma_y"]}

    def ratios(settings):
        return [np.abs(rng.normal(size=2000)) * relative_factor({"sigma_y": [0.4]}, law, setting) for setting in settings]

    drawn = [{"sigma_y": law["sigma_y"].draw(rng)} for _ in range(60)]
    seen = ratios(drawn)
    trend, relative = fitted(law, drawn, np.array([np.quantile(r, 0.9) for r in seen]))
    factor = conformal_factor([r / times for r, times in zip(seen, relative, strict=True)])
    plain = conformal_factor(seen)
    for sigma_y in (0.01, 0.1, 1.0):
        fresh = ratios([{"sigma_y": sigma_y}] * 20)
        mine = factor * relative_factor(trend, law, {"sigma_y": sigma_y})
        assert np.mean(coverage(fresh, mine)) == pytest.approx(0.9, abs=0.02)
        assert sigma_y == 0.1 or abs(np.mean(coverage(fresh, plain)) - 0.9) > 0.03
