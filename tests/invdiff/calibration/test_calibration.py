"""Calibrated intervals cover what they say on fresh images, and are used by the runs that they were measured for alone."""

import json

import h5py
import numpy as np
import pytest
import torch
from gaussian_runs import SIZE, config_of

from invdiff.calibration.finding import place
from invdiff.calibration.known import Known, known_images
from invdiff.calibration.measuring import calibrate, check_unlike, detected
from invdiff.calibration.record import write_calibration
from invdiff.errors import InputError
from invdiff.job import run
from invdiff.resolving import run_config
from operators.mri import phantom

IMAGES = 48



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


def test_a_population_that_draws_no_pairs_is_calibrated_all_the_same(gaussian):
    config = config_of("antithetic=true", "sampler={name: twisted_smc, steps: 4}")
    record = calibrate(config, Known(gaussian.crops[:4], None, "four"))
    assert record.interval(config, 6, 0.05)["calibrated"] is True


def test_another_set_of_images_of_the_same_name_does_not_go_on(gaussian, tmp_path):
    def stop(done, of):
        if done == 2:
            raise KeyboardInterrupt

    config = config_of("sampler.steps=2")
    with pytest.raises(KeyboardInterrupt):
        calibrate(config, Known(gaussian.crops[:4], None, "four"), checkpoint=tmp_path / "partial", on_image=stop)
    with pytest.raises(InputError, match="the images differs"):
        calibrate(config, Known(gaussian.crops[4:8], None, "four"), checkpoint=tmp_path / "partial")


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
