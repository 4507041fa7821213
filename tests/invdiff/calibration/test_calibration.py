"""Calibrated intervals cover what they say on fresh images, and are used by the runs that they were measured for alone."""

import json

import h5py
import numpy as np
import pytest
import torch

import invdiff.calibration.measuring
from invdiff.benchmark.exact import draw_gaussian, gaussian_prior
from invdiff.calibration.finding import find_calibration, interval_of, place, reference_of
from invdiff.calibration.known import Known, known_images
from invdiff.calibration.measuring import calibrate, check_unlike, detected
from invdiff.calibration.record import read_calibration, write_calibration
from invdiff.calibration.varying import Range
from invdiff.errors import InputError
from invdiff.evaluation.intervals import paired_factor
from invdiff.job import run
from invdiff.resolving import run_config
from operators.mri import phantom

SIZE = (1, 12, 12)
IMAGES = 48


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INVDIFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def gaussian(monkeypatch):
    """A prior that is known, under the name natural, and images of its own law."""
    prior = gaussian_prior("stationary", SIZE)
    monkeypatch.setattr(invdiff.calibration.measuring, "load_prior", lambda name: prior)
    images = draw_gaussian(prior.mean, prior.cov, IMAGES, torch.Generator().manual_seed(0)).float().reshape(-1, *SIZE)
    return Known(list(images), None, "draws of the prior")


def config_of(*assignments):
    return run_config("deblur", None, ["sampler.steps=20", "samples=6", "antithetic=false", "sigma_y=0.05",
                                      "operator.sigma=0.8", *assignments])


def test_intervals_of_an_exact_sampler_need_the_factor_of_gaussian_errors(gaussian):
    seen = []
    record = calibrate(config_of(), gaussian, on_image=lambda done, of: seen.append((done, of)))
    assert seen == [(i, IMAGES) for i in range(IMAGES + 1)]
    assert record.count == record.check["images"] == IMAGES // 2
    assert record.check["covered"] == pytest.approx(0.9, abs=4 * record.check["standard_error"] + 1e-3)
    curve = np.array(record.check["uncalibrated"])
    assert np.abs(curve - record.check["levels"]).max() < 0.06                # 24 images of 144 pixels, which go together
    assert np.abs(np.array(record.check["tarp"]) - record.check["levels"]).max() < 0.25                 # of 24 images
    assert record.check["alarms"] <= 0.25                                     # 24 images of 5 %
    sure = calibrate(config_of(), gaussian, delta=0.1)
    assert sure.factor > record.factor
    assert sure.check["covered"] > record.check["covered"]


def test_an_interrupted_calibration_goes_on_to_the_same_record(gaussian, tmp_path):
    class Killed(Exception):
        pass

    def kill(done, of):
        if done == 3:
            raise Killed

    config, few = config_of("sampler.steps=2"), Known(gaussian.crops[:6], None, "six")
    with pytest.raises(Killed):
        calibrate(config, few, checkpoint=tmp_path / "partial", on_image=kill)
    seen = []
    again = calibrate(config, few, checkpoint=tmp_path / "partial", on_image=lambda done, of: seen.append(done))
    assert seen == [3, 4, 5, 6]
    assert again == calibrate(config, few)
    assert again.novelty is None                                              # three images tell nothing of what is usual
    with pytest.raises(InputError, match="another run"):
        calibrate(config_of("sampler.steps=3"), few, checkpoint=tmp_path / "partial")


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


def test_a_population_that_draws_no_pairs_is_calibrated_all_the_same(gaussian):
    config = config_of("antithetic=true", "sampler={name: twisted_smc, steps: 4}")
    record = calibrate(config, Known(gaussian.crops[:4], None, "four"))
    assert record.interval(config, 6, 0.05)["calibrated"] is True


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


def test_another_set_of_images_of_the_same_name_does_not_go_on(gaussian, tmp_path):
    def stop(done, of):
        if done == 2:
            raise KeyboardInterrupt

    config = config_of("sampler.steps=2")
    with pytest.raises(KeyboardInterrupt):
        calibrate(config, Known(gaussian.crops[:4], None, "four"), checkpoint=tmp_path / "partial", on_image=stop)
    with pytest.raises(InputError, match="the images differs"):
        calibrate(config, Known(gaussian.crops[4:8], None, "four"), checkpoint=tmp_path / "partial")


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


def test_bad_requests_get_a_sentence(gaussian):
    with pytest.raises(InputError, match="at least 2 samples"):
        calibrate(config_of("samples=1"), gaussian)
    with pytest.raises(InputError, match="level and a delta"):
        calibrate(config_of(), gaussian, level=1.0)


def test_too_few_images_are_refused_before_any_is_restored(gaussian):
    few, seen = Known(gaussian.crops[:4], None, "four"), []
    with pytest.raises(InputError, match=r"at least 22 images for a guarantee of 0\.9, got 2, every other of 4"):
        calibrate(config_of("sampler.steps=2"), few, delta=0.1, on_image=lambda done, of: seen.append(done))
    assert seen == []
    with pytest.raises(InputError, match=r"--unlike: expected at least 38 images, .* got 4"):
        check_unlike(few)
    check_unlike(gaussian)


def test_crops_have_the_channels_of_the_prior(tmp_path, tiny_prior):
    pixels = np.random.default_rng(0).integers(0, 255, (2, 20, 20, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "photos.h5", "w") as file:
        file["test_jpeg"] = pixels
    for channels in (1, 3):
        config = config_of(f"prior={tiny_prior(channels, 0.5)}", "sampler.steps=2", "samples=2")
        images = known_images(config, tmp_path / "photos.h5", None, 2, 16)
        assert [crop.shape for crop in images.crops] == [(channels, 16, 16)] * 2
        assert calibrate(config, images).count == 1


def test_scans_are_calibrated_on_the_head(tmp_path, tiny_prior):
    truth = phantom.image((32, 32))[0].numpy()
    with h5py.File(tmp_path / "slices.h5", "w") as file:
        slices = np.stack([truth, truth[:, ::-1], 0 * truth, truth[:, :, ::-1], truth])
        file["test"] = np.round(slices * 511).astype(np.int16)
        file.attrs["scale"] = 1 / 511
    weights = tiny_prior(channels=2, centre=0.0)
    config = run_config("mri", None, ["operator.acceleration=2", "operator.coils=4", "sigma_y=0.01", "samples=3",
                                      "sampler.steps=2", f"prior={weights}"])
    images = known_images(config, tmp_path / "slices.h5", None, 5, 0)
    assert len(images) == 4                                                   # one is empty
    record = calibrate(config, images)
    assert record.check["images"] == 2
    assert 0.5 < record.check["covered"] < 1
    write_calibration(place(config), record)
    found = run(config).report["interval"]                                    # of the bundled phantom
    assert found["factor"] == record.factor
    assert json.loads(json.dumps(found)) == found


def test_images_of_another_kind_are_found_and_counted(gaussian):
    config = config_of("sampler.steps=10")
    record = calibrate(config, gaussian)
    white = [0.5 + 0.8 * torch.randn(SIZE, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    assert detected(record, config_of("sampler.steps=10", "sigma_y=0.01"), Known(white, None, "white noise")) > 0.8
    like = detected(record, config, Known(gaussian.crops[1::2][:6], None, "fresh"))
    assert like <= 0.34
    with pytest.raises(InputError, match="too few images"):
        detected(record.model_copy(update={"novelty": None}), config, gaussian)


def test_pictures_stand_in_for_slices(tmp_path):
    import io

    from PIL import Image

    with h5py.File(tmp_path / "pictures.h5", "w") as file:
        data = file.create_dataset("test", (3,), dtype=h5py.vlen_dtype(np.uint8))
        for i, size in enumerate(((40, 33), (36, 50), (48, 48))):
            buffer = io.BytesIO()
            Image.new("L", size, 100 + i).save(buffer, "PNG")
            data[i] = np.frombuffer(buffer.getvalue(), np.uint8)
    images = known_images(run_config("mri", None, ["sigma_y=0.01"]), tmp_path / "pictures.h5", "test", 2, 0)
    assert (len(images), images.slices.size) == (2, (33, 33))
    assert images.slices.read(1).unique() == pytest.approx(102 / 255)


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
