"""A record serves the runs that it was measured for, and says what it knows of them."""


import pytest
from gaussian_runs import SIZE, config_of

import invdiff.calibration.measuring
from invdiff.benchmark.exact import gaussian_prior
from invdiff.calibration.finding import find_calibration, interval_of, place, reference_of
from invdiff.calibration.known import Known
from invdiff.calibration.measuring import calibrate
from invdiff.calibration.record import read_calibration, write_calibration
from invdiff.calibration.varying import Range, settings_of
from invdiff.errors import InputError
from invdiff.evaluation.intervals import paired_factor


def test_a_record_serves_the_runs_it_was_measured_for(gaussian, tmp_path):
    config = config_of("sampler.steps=2")
    prior = invdiff.calibration.measuring.load_prior("natural")
    assert find_calibration(config, prior) is None                            # the bundled one is another prior's
    assert interval_of(None, config, 6)["calibrated"] is False
    record = calibrate(config, Known(gaussian.crops[:4], None, "four"))
    write_calibration(place(config), record)
    assert find_calibration(config, prior) == record
    entry = record.interval(config, 6, 0.05)
    assert entry["calibrated"] is True
    assert entry["factor"] == record.factor
    assert entry["source"].endswith(f"; on 2 kept apart it covered {record.check['covered']:.0%}")
    fewer = record.interval(config, 3, 0.05)
    assert (fewer["factor"] > record.fewer[4], fewer["calibrated"]) == (True, False)
    assert ", with samples=6: here it may cover more or less" in fewer["source"]
    assert record.interval(config, 1)["factor"] == 0
    other = config_of("operator.sigma=3.0")
    entry = record.interval(other, 6, 0.02)
    assert entry["calibrated"] is False
    assert "operator.sigma=0.8, sigma_y=0.05, sampler.steps=2: here it may cover more or less" in entry["source"]
    paired = record.interval(config.model_copy(update={"antithetic": True}), 6, 0.05)
    assert "with antithetic=False: here it may cover more or less" in paired["source"]
    assert find_calibration(other, gaussian_prior("white", SIZE)) is None
    named = config.model_copy(update={"calibration": str(place(config)), "sampler": {"name": "pigdm"}})
    with pytest.raises(InputError, match="sampler, moment_matching and not pigdm"):
        find_calibration(named, prior)


def test_what_lies_beside_a_config_is_passed_over_where_it_is_another_run_s(gaussian, tmp_path):
    config = config_of("sampler.steps=2")
    record = calibrate(config, Known(gaussian.crops[:4], None, "four"))
    write_calibration(tmp_path / "mine.calibration.json", record)
    beside = config.model_copy(update={"calibration": str(tmp_path / "mine.calibration.json")})
    prior = invdiff.calibration.measuring.load_prior("natural")
    assert find_calibration(beside, prior) == record
    sampled = beside.model_copy(update={"sampler": {"name": "pigdm"}})
    for changed, otherwise, said in ((beside, gaussian_prior("white", SIZE), "prior, called"),
                                     (sampled, prior, "sampler, moment_matching")):
        with pytest.warns(UserWarning, match=f"measured with another {said}.*; it is not used"):
            assert find_calibration(changed, otherwise) is None


def test_other_error_spectra_make_another_run_of_the_same_weights(gaussian):
    config = config_of("sampler.steps=2")
    record = calibrate(config, Known(gaussian.crops[:4], None, "four"))
    prior = invdiff.calibration.measuring.load_prior("natural")
    assert record.refusal(config, prior) is None
    other = invdiff.priors.calibrate(prior, gaussian.crops[:2])
    assert record.refusal(config, other) == "error spectrum of the prior"
    assert record.model_copy(update={"errors": None}).refusal(config, other) is None


def test_fewer_samples_have_factors_of_their_own(gaussian):
    """Student's t for a pair is 4.5 and covers all: the spread is pooled over pixels, and has more degrees of freedom."""
    config = config_of("antithetic=true")
    record = calibrate(config, gaussian)
    assert set(record.fewer) == {2, 4}
    for count, factor in record.fewer.items():
        entry = record.interval(config, count, 0.05)
        assert (entry["factor"], entry["calibrated"]) == (factor, True)
        assert record.check["fewer"][str(count)] == pytest.approx(0.9, abs=4 * record.check["standard_error"] + 1 / 25)
    assert record.fewer[2] < 2 < paired_factor(2)
    assert record.interval(config, 3, 0.05)["factor"] > record.fewer[4] * (2 / 3) ** 0.5     # odd: of a larger spread


def test_a_record_whose_own_check_belies_it_promises_nothing(gaussian):
    config = config_of("sampler.steps=2")
    record = calibrate(config, Known(gaussian.crops[:4], None, "four"))
    for covered, error, holds in ((0.2, 0.01, False), (0.53, 0.01, False), (0.55, None, 0), (0.53, 0.02, True), (0.9, 0, 1)):
        check = {"images": 2, "covered": covered, "standard_error": error}
        entry = record.model_copy(update={"check": check}).interval(config, 6, 0.05)
        assert entry["calibrated"] == holds                 # 90 %, less 1 / 3 for two images and three standard errors
        assert ("not to be relied on" in entry["source"]) == (not holds)


def test_of_several_records_the_nearest_serves(gaussian):
    """Those of two variants of a task are kept beside each other, whatever the order in which they are measured."""
    few, prior = Known(gaussian.crops[:4], None, "four"), invdiff.calibration.measuring.load_prior("natural")
    configs = [config_of("sampler.steps=2"), config_of("sampler.steps=2", "operator.sigma=1.0"), config_of("sampler.steps=3")]
    for config in configs:
        write_calibration(place(config), calibrate(config, few))
    for config in configs:
        found = find_calibration(config, prior)
        assert not found.differences(config, 0.05)
    nearest = find_calibration(config_of("sampler.steps=2", "operator.sigma=1.0", "antithetic=true"), prior)
    assert nearest.operator["sigma"] == 1.0
    assert place(config_of("seed=3")) == place(config_of("seed=4")) != place(config_of("samples=4"))


def test_the_nearest_noise_and_number_of_samples_serve(gaussian):
    few, prior = Known(gaussian.crops[:4], None, "four"), invdiff.calibration.measuring.load_prior("natural")
    configs = [config_of("sampler.steps=2", f"samples={count}", f"sigma_y={noise}")
               for count in (2, 6) for noise in (0.02, 0.3)]
    for config in configs:
        write_calibration(place(config), calibrate(config, few))
    for config in configs:
        found = find_calibration(config, prior, 0.97 * config.sigma_y)                # as an estimate may be
        assert (found.samples, found.sigma_y) == (config.samples, config.sigma_y)


def test_a_record_that_was_found_damaged_is_passed_over(gaussian):
    config, prior = config_of("sampler.steps=2"), invdiff.calibration.measuring.load_prior("natural")
    write_calibration(place(config), calibrate(config, Known(gaussian.crops[:4], None, "four")))
    (place(config).parent / "broken.json").write_text("{")
    with pytest.warns(UserWarning, match=r"broken\.json: expected what invdiff calibrate writes .*; it is not used"):
        assert find_calibration(config, prior) is not None
    with pytest.raises(InputError, match="broken"):
        find_calibration(config.model_copy(update={"calibration": str(place(config).parent / "broken.json")}), prior)


def test_guidance_makes_another_prior_of_the_same_weights(gaussian):
    """A record of one strength says so where it is used for another, or for none."""
    config = config_of("sampler.steps=2")
    guided = config.model_copy(update={"prior": "natural?class=bag&guidance=2"})
    record = calibrate(guided, Known(gaussian.crops[:4], None, "four"))
    path = config.model_copy(update={"prior": "runs/a.safetensors?spectrum=runs/b.json"})
    assert calibrate(path, Known(gaussian.crops[:4], None, "four")).prior == "a.safetensors?spectrum=runs/b.json"
    assert record.interval(guided, 6, 0.05)["calibrated"] is True
    for other in (config, config.model_copy(update={"prior": "natural?class=bag&guidance=6"})):
        entry = record.interval(other, 6, 0.05)
        assert entry["calibrated"] is False
        assert "with prior=natural?class=bag&guidance=2: here it may" in entry["source"]


@pytest.mark.parametrize(("change", "said"), [
    (lambda text: text[:-30], "expected what invdiff calibrate writes"),
    (lambda text: "[]", "expected what invdiff calibrate writes"),
    (lambda text: text.replace('"factor"', '"fctor"'), "unknown key 'fctor'; did you mean 'factor'"),
    (lambda text: text.replace("invdiff-calibration-2", "another-format"), "format"),
    (lambda text: text.replace("invdiff-calibration-2", "invdiff-calibration-1"), "another version of invdiff"),
    (lambda text: text.replace('"samples": 6', '"samples": 0'), "samples"),
])
def test_a_damaged_record_is_refused(gaussian, change, said, tmp_path):
    path = tmp_path / "record.json"
    write_calibration(path, calibrate(config_of("sampler.steps=2"), Known(gaussian.crops[:4], None, "four")))
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=said):
        read_calibration(path)


def test_fewer_steps_than_were_tried_are_said_to_be(gaussian):
    config = config_of("sampler.steps=3")
    varied = {"sampler.steps": Range(low=3, high=8, whole=True)}
    record = calibrate(config, Known(gaussian.crops[:4], None, "four"), law=varied)
    for steps, said in ((2, ": here, in fewer steps than were tried, it may cover less, and the image have speckles"),
                        (9, ": here it may cover more or less")):
        entry = record.interval(config.model_copy(update={"sampler": config.sampler | {"steps": steps}}), 6, 0.05)
        assert said in entry["source"]
        assert entry["calibrated"] is False
    assert ": here" not in record.interval(config, 6, 0.05)["source"]


def test_what_is_assumed_of_a_measurement_goes_with_the_promise(gaussian):
    config = config_of("sampler.steps=2")
    record = calibrate(config, Known(gaussian.crops[:4], None, "four"))
    assert record.interval(config, 6, 0.05, "the noise is")["source"].startswith(
        "covers 90% on average if the noise is as assumed; measured on 2 images")
    assert interval_of(record, config, 6, 0.05, "the noise is") == record.interval(config, 6, 0.05, "the noise is")
    assert "as assumed" not in record.interval(config, 6, 0.05)["source"]


def test_the_channels_of_what_is_usual_are_kept(gaussian):
    record = calibrate(config_of("sampler.steps=2"), Known(gaussian.crops[:40], None, "forty"))
    assert reference_of(record).channels == SIZE[0]


def test_what_is_usual_says_nothing_of_runs_in_fewer_steps_than_were_tried(gaussian):
    """Whose restorations look strange, whatever the image."""
    config = config_of("sampler.steps=3")
    varied = {"sampler.steps": Range(low=3, high=8, whole=True)}
    record = calibrate(config, Known(gaussian.crops[:40], None, "forty"), law=varied)
    for steps, speaks in ((2, False), (3, True), (9, True)):
        run = config.model_copy(update={"sampler": config.sampler | {"steps": steps}})
        assert (reference_of(record, settings_of(run)) is not None) == speaks
    assert reference_of(record) is not None
