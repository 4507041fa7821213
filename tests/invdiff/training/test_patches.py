
import numpy as np
import pytest
import torch
from photo_files import encoded, picture
from PIL import Image

from invdiff.datasets.pixels import to_grey, to_rgb
from invdiff.errors import InputError
from invdiff.priors import load_prior
from invdiff.sampling import image_size
from invdiff.training.patches import Patches
from invdiff.training.run import load_data, train
from invdiff.training.settings import TrainSettings
from invdiff.training.whole import WholeImages


def test_a_batch_is_a_function_of_its_generator():
    patches = Patches([picture(30, 40), picture(25, 25, 1)], 16, (1.0, 0.7), grey=0.5)
    (a, grey_a), (same, grey_same), (other, _) = (patches.batch(8, 12, np.random.default_rng([3, s])) for s in (7, 7, 8))
    assert a.shape == (8, 3, 12, 12)
    assert a.dtype == torch.float32
    assert torch.equal(a, same)
    assert torch.equal(grey_a, grey_same)
    assert not torch.equal(a, other)
    assert a.min() >= 0
    assert a.max() <= 1


def test_grey_patches_have_equal_channels_and_the_others_do_not():
    """A share of 0.3 of 1000: 4 standard errors are 0.058."""
    x, grey = Patches([picture(30, 40)], 8, grey=0.3).batch(1000, 8, np.random.default_rng(0))
    flat = (x[:, 0] == x[:, 1]).flatten(1).all(1) & (x[:, 0] == x[:, 2]).flatten(1).all(1)
    assert torch.equal(flat, grey)
    assert abs(float(grey.float().mean()) - 0.3) < 0.058
    assert not Patches([picture(30, 40)], 8).batch(50, 8, np.random.default_rng(0))[1].any()


def shown(patches, size):
    x, _ = patches.batch(400, size, np.random.default_rng(0))
    return {(p.permute(1, 2, 0) * 255).round().byte().numpy().tobytes() for p in x}


def test_patches_are_the_image_turned_or_flipped():
    image = np.arange(15 * 16, dtype=np.uint8).reshape(15, 16, 1).repeat(3, 2)
    cuts = [image[:, :15], image[:, 1:]]
    eight = {np.rot90(m, k).tobytes() for cut in cuts for k in range(4) for m in (cut, cut[:, ::-1])}
    assert shown(Patches([image], 15), 15) == eight


def test_patches_are_left_as_they_are_without_flips():
    image = np.arange(15 * 16, dtype=np.uint8).reshape(15, 16, 1).repeat(3, 2)
    assert shown(Patches([image], 15, flips=False), 15) == {image[:, :15].tobytes(), image[:, 1:].tobytes()}


def test_whole_images_keep_their_way_up():
    image = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    assert shown(Patches([image], 16), 16) == {image.tobytes(), image[:, ::-1].tobytes()}


def test_images_count_by_their_area_and_small_ones_are_left_out():
    """10 x 40 against 20 x 40 pixels: one patch in three from the first, 2000 patches, 4 standard errors."""
    black, white, small = (np.full((h, 40, 3), v, np.uint8) for h, v in ((10, 0), (20, 255), (9, 128)))
    x, _ = Patches([black, white, small], 10).batch(2000, 4, np.random.default_rng(0))
    values = x.flatten(1).mean(1)
    assert set(values.tolist()) == {0.0, 1.0}
    assert abs(float((values == 0).float().mean()) - 1 / 3) < 4 * (2 / 9 / 2000) ** 0.5
    with pytest.raises(InputError, match=r"data\.patch: no training image is at least 64 pixels high and wide"):
        Patches([black, white], 64)


def test_held_back_images_hold_a_patch_and_options_of_other_data_are_refused(tmp_path):
    """Of five images the last three are held back, and one of those is too small to say anything of patches."""
    for i, side in enumerate((20, 20, 20, 20, 6)):
        (tmp_path / f"{i}.png").write_bytes(encoded(picture(side, side, i)))

    def settings(holdout, **more):
        data = {"path": str(tmp_path), "patch": (16,), "holdout": holdout, **more}
        network = {"widths": (8, 12), "depths": (1, 1), "embedding": 16}
        return TrainSettings(name="toy", data=data, network=network, optimiser={"steps": 1, "batch": 1})

    assert [tuple(image.shape) for image in load_data(settings(3))[1]] == [(3, 20, 20)] * 2
    with pytest.raises(InputError, match="none of the last 1 images, which are kept back, is at least 16 pixels"):
        load_data(settings(1))
    for name, value in (("contrast", 0.5), ("magnitudes", "x.h5")):
        with pytest.raises(InputError, match=f"data.{name}: is for complex images"):
            load_data(settings(3, **{name: value}))


# one channel

def test_a_patch_of_one_channel_is_the_brightness_of_the_one_in_colour():
    colour, _ = Patches([picture(30, 40)], 8).batch(20, 8, np.random.default_rng(0))
    grey, flags = Patches([picture(30, 40)], 8, channels=1).batch(20, 8, np.random.default_rng(0))
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    torch.testing.assert_close(grey, (luma * colour).sum(1, keepdim=True))
    assert not flags.any()
    torch.testing.assert_close(to_grey(picture(30, 40)), (luma * to_rgb(picture(30, 40))).sum(0, keepdim=True))


@pytest.mark.parametrize(("size", "kind"), [((40, 52), Patches), ((16, 16), WholeImages)])
def test_a_network_of_one_channel_takes_patches_of_photos_and_small_images_whole(tmp_path, size, kind):
    for k in range(3):
        Image.fromarray(picture(*size, k)).save(tmp_path / f"{k}.png")
    settings = TrainSettings(name="grey", data={"path": str(tmp_path), "patch": [16], "holdout": 1},
                             network={"channels": 1, "widths": (8, 12)}, optimiser={"steps": 2})
    source, held, test = load_data(settings)
    assert isinstance(source, kind)
    assert source.batch(2, 16, np.random.default_rng(0))[0].shape == (2, 1, 16, 16)
    assert ([image.shape for image in held], test) == ([(1, *size)], [])
    def changed(**data):
        return settings.model_copy(update={"data": settings.data.model_copy(update=data)})

    with pytest.raises(InputError, match=r"data.grey: is for patches in colour"):
        load_data(changed(grey=0.1))
    if kind is WholeImages:
        with pytest.raises(InputError, match=r"data.scales: is for patches, and these images are taken whole; leave it out"):
            load_data(changed(scales=(1.0, 0.5)))


def test_a_prior_of_patches_of_any_sizes_is_trained_and_draws_the_largest(tmp_path):
    """Whichever size comes first, and though the network's stride of 4 divides none of them."""
    for k in range(2):
        Image.fromarray(picture(40, 52, k)).save(tmp_path / f"{k}.png")
    settings = TrainSettings(name="grey", precision="fp32", data={"path": str(tmp_path), "patch": [15, 33], "holdout": 1},
                             network={"channels": 1, "widths": (4, 4), "depths": (1, 1), "embedding": 16},
                             optimiser={"steps": 2, "batch": 2}, monitor={"sheet": 0})
    sizes = []
    prior = load_prior(train(settings, tmp_path / "out", on_step=lambda progress, _: sizes.append(len(progress.losses))))
    assert sizes == [2, 1]
    assert prior.network.stride == 4
    assert image_size(prior) == (33, 33)
