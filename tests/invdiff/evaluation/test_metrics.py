import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from invdiff.evaluation.denoising import denoising_table
from invdiff.evaluation.metrics import psnr, ssim


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


@pytest.mark.parametrize("images", [[], [torch.zeros(1, 3, 8, 8)]])
def test_a_table_of_nothing_is_refused(images):
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        denoising_table(lambda x, sigma: x, images)
