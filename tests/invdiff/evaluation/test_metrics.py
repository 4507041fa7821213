import math
import urllib.error
import urllib.request

import piq
import pytest
import torch
import torchvision
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from invdiff.errors import InputError
from invdiff.evaluation.denoising import denoising_psnr, denoising_table
from invdiff.evaluation.metrics import METRICS, dists, haarpsi, lpips, nmse, psnr, ssim
from invdiff.io.images import sample_image


def images(channels, seed=0, size=(24, 31)):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand((3, channels, *size), generator=generator)
    return truth + 0.2 * torch.randn(truth.shape, generator=generator), truth


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_is_that_of_the_clipped_image(channels):
    x, truth = images(channels)
    got = psnr(x, truth)
    for i in range(3):
        expected = peak_signal_noise_ratio(truth[i].numpy(), x[i].clamp(0, 1).numpy(), data_range=1)
        assert got[i].item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(got, -10 * (x.clamp(0, 1) - truth).square().mean((1, 2, 3)).log10())


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_agrees_with_scikit_image_and_torchmetrics(channels):
    x, truth = images(channels)
    got = ssim(x, truth)
    clipped = x.clamp(0, 1)
    _, theirs = structural_similarity_index_measure(clipped, truth, sigma=1.5, data_range=1.0, reduction="none",
                                                    return_full_image=True)     # it counts reflected borders, we do not
    for i in range(3):
        channelwise = [structural_similarity(truth[i, c].numpy(), clipped[i, c].numpy(), data_range=1, win_size=11, sigma=1.5,
                                             gaussian_weights=True, use_sample_covariance=False) for c in range(channels)]
        assert got[i].item() == pytest.approx(sum(channelwise) / channels, abs=1e-5)
    torch.testing.assert_close(got, theirs[..., 5:-5, 5:-5].mean((1, 2, 3)), atol=1e-5, rtol=0)


def test_a_perfect_image():
    _, truth = images(3)
    assert psnr(truth, truth).isinf().all()
    torch.testing.assert_close(ssim(truth, truth), torch.ones(3))


def test_images_at_and_below_the_window():
    assert ssim(*images(1, size=(11, 11))).shape == (3,)
    assert psnr(*images(1, size=(1, 1))).shape == (3,)
    with pytest.raises(ValueError, match=r"at least 11 x 11 pixels.*got 10 x 40"):
        ssim(*images(1, size=(10, 40)))


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (3, 16, 16)])
def test_other_shapes_are_refused(metric, shape):
    with pytest.raises(ValueError, match="truth's shape"):
        metric(torch.zeros(shape), torch.zeros(1, 1, 16, 16))


def test_the_table_of_a_denoiser_that_does_nothing_is_the_noise_level():
    grey = [torch.full((3, 90, 70), 0.5), torch.full((3, 64, 80), 0.5)]
    table = denoising_table(lambda x, sigma: x, grey)
    assert list(table) == ["15", "25", "50"]
    for level, value in table.items():      # 0.5 is 2.5 sigma from the range at 50/255: clipping hides next to nothing
        assert value == pytest.approx(-20 * torch.tensor(int(level) / 255).log10().item(), abs=0.15)


def test_an_image_has_its_noise_whatever_is_beside_it():
    images = [torch.rand(3, 20, 30), torch.rand(3, 33, 17)]
    seen = []
    denoising_table(lambda x, sigma: seen.append((x[0], sigma)) or x, images, sigmas=(0.1, 0.2))
    alone = []
    denoising_table(lambda x, sigma: alone.append(x[0]) or x, images[:1], sigmas=(0.1,))
    torch.testing.assert_close(seen[0][0], alone[0])
    torch.testing.assert_close((seen[0][0] - images[0]) * 2, seen[2][0] - images[0])


@pytest.mark.parametrize(("channels", "clip", "error"), [(1, True, 0.0), (3, True, 0.0), (3, False, 4.0), (2, True, 4.0)])
def test_estimates_of_what_has_a_range_are_clipped_to_it(channels, clip, error):
    found = denoising_psnr(lambda x, sigma: torch.full_like(x, 3.0), [torch.ones(channels, 8, 8)] * 2, 0.1, clip)
    assert found == (pytest.approx(-10 * math.log10(error)) if error else math.inf)


@pytest.mark.parametrize("images", [[], [torch.zeros(1, 3, 8, 8)]])
def test_a_table_of_nothing_is_refused(images):
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        denoising_table(lambda x, sigma: x, images)


@pytest.mark.parametrize("channels", [1, 3])
def test_nmse_is_fastmri_s_of_the_clipped_image(channels):
    x, truth = images(channels)
    expected = (x.clamp(0, 1) - truth).square().sum((1, 2, 3)) / truth.square().sum((1, 2, 3))
    torch.testing.assert_close(nmse(x, truth), expected)
    assert float(nmse(truth, truth).max()) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_haarpsi_is_piq_s_of_each_clipped_image(channels):
    x, truth = images(channels)
    got = haarpsi(x, truth)
    torch.testing.assert_close(got, piq.haarpsi(x.clamp(0, 1), truth, reduction="none"))
    assert ((got > 0) & (got < 1)).all()
    torch.testing.assert_close(haarpsi(truth, truth), torch.ones(3))
    assert (haarpsi(truth + 0.01, truth) > got).all()


def test_haarpsi_falls_as_noise_grows():
    photo = sample_image("chelsea", 64)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(photo.shape, generator=generator)
    scores = [float(haarpsi(photo + level * noise, photo)[0]) for level in (0.02, 0.1, 0.3)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.9
    assert scores[2] < 0.6


@pytest.mark.parametrize(("metric", "side"), [(haarpsi, 16), (lpips, 32), (dists, 32)])
def test_images_that_are_too_small_for_a_perceptual_metric(metric, side):
    with pytest.raises(ValueError, match=f"at least {side} x {side} pixels"):
        metric(*images(1, size=(side - 1, 40)))
    with pytest.raises(ValueError, match="1 or 3 channels"):
        metric(*images(2, size=(40, 40)))


@pytest.mark.parametrize(("metric", "file"), [(lpips, "alexnet-owt-7be5be79.pth"), (dists, "vgg16-397923af.pth")])
def test_weights_that_cannot_be_had_are_named(metric, file, monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(InputError, match=rf"{tmp_path}.*{file}, and https.*no route to host.*put that file there") as error:
        metric(*images(3, size=(32, 32)))
    assert "\n" not in str(error.value)
    where = tmp_path / "hub" / "checkpoints" / file
    assert list(where.parent.iterdir()) == []           # nothing half-written
    where.write_bytes(b"not the weights")
    with pytest.raises(InputError, match="is damaged, or other weights"):
        metric(*images(3, size=(32, 32)))


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("invdiff.evaluation.metrics.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'haarpsi: needs piq: pip install "invdiff\[evaluate\]"'):
        haarpsi(*images(3))


def test_the_table_says_which_way_is_better():
    """Each metric prefers the image with less noise, by what the table says of it."""
    x, truth = images(3)
    nearer = truth + 0.1 * (x - truth)
    for name in ("psnr", "ssim", "nmse", "haarpsi"):
        metric = METRICS[name]
        gain = (metric.function(nearer, truth) - metric.function(x, truth)).min()
        loss = (metric.function(nearer, truth) - metric.function(x, truth)).max()
        assert gain > 0 if metric.better == "higher" else loss < 0
    assert METRICS["lpips"].better == METRICS["dists"].better == "lower"


@pytest.mark.slow
@pytest.mark.parametrize(("metric", "network", "file"), [(lpips, "alexnet", "alexnet-owt-7be5be79.pth"),
                                                         (dists, "vgg16", "vgg16-397923af.pth")])
def test_network_distances_with_weights_of_no_training(metric, network, file, monkeypatch, tmp_path):
    """0 for equal images and larger for others, one number for each; random weights stand for the trained ones."""
    torch.manual_seed(0)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("invdiff.evaluation.metrics._checksum", lambda path: path.stem.rsplit("-", 1)[1])
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(getattr(torchvision.models, network)().state_dict(), folder / file)
    for channels in (1, 3):
        x, truth = images(channels, size=(40, 48))
        got = metric(x, truth)
        assert got.shape == (3,)
        assert (got > 0).all()
        torch.testing.assert_close(metric(truth, truth), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(metric(x[1:2], truth[1:2]), got[1:2])
