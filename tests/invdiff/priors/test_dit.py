import pytest
import torch

from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.dit import DiT, rotated, rotations


def random_dit(**settings):
    """A tiny transformer with none of its layers at zero."""
    torch.manual_seed(0)
    network = DiT(**({"patch": 2, "width": 32, "depth": 2, "heads": 2} | settings))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return network.eval().requires_grad_(False)


def test_starts_at_zero_and_keeps_the_shape():
    network = DiT(channels=2, patch=4, width=32, depth=1, heads=2)
    out = network(torch.randn(2, 2, 16, 24), torch.tensor([0.0, -3.0]))
    assert out.shape == (2, 2, 16, 24)
    assert (out == 0).all()


def test_attention_depends_on_distances_alone():
    """Turned by their places, queries and keys have the products of places moved by the same steps."""
    q, k = torch.randn(20, 16, dtype=torch.float64), torch.randn(20, 16, dtype=torch.float64)
    large = rotations(9, 12, 16, torch.device("cpu")).double().unflatten(0, (9, 12))
    here, there = (large[i : i + 4, j : j + 5].flatten(0, 1) for i, j in ((0, 0), (3, 6)))
    products = [rotated(q, a) @ rotated(k, a).mT for a in (here, there)]
    torch.testing.assert_close(*products, rtol=1e-5, atol=1e-5)
    assert (products[0] - q @ k.mT).abs().max() > 0.1


def test_every_token_sees_every_other_and_where_it_is():
    network, label = random_dit(), torch.tensor([-1.0])
    x = torch.randn(1, 3, 8, 8)
    other = x.clone()
    other[..., -1, -1] += 1
    assert (network(x, label) - network(other, label))[..., :2, :2].abs().max() > 1e-4
    swapped = torch.cat([x[..., 4:6], x[..., 2:4], x[..., :2], x[..., 6:]], -1)         # two columns of tokens change places
    assert (network(swapped, label)[..., 6:] - network(x, label)[..., 6:]).abs().max() > 1e-3


def test_each_item_sees_its_own_label():
    network = random_dit()
    x, labels = torch.randn(2, 3, 8, 8), torch.tensor([-4.0, 1.0])
    together = network(x, labels)
    for i in range(2):
        torch.testing.assert_close(together[i : i + 1], network(x[i : i + 1], labels[i : i + 1]), rtol=1e-4, atol=1e-5)
    assert (network(x, labels.flip(0)) - together).abs().max() > 1e-3


def test_it_learns_what_a_linear_denoiser_cannot():
    """Images are flat, black or white: after 300 steps the error at sigma 1.5 is below the best linear denoiser's."""
    torch.manual_seed(0)
    denoiser = EDMDenoiser(DiT(channels=1, patch=4, width=32, depth=2, heads=2), 1, sigma_data=0.5)
    optimiser = torch.optim.AdamW(denoiser.parameters(), lr=3e-3)

    def batch(count):
        return torch.randint(2, (count, 1, 1, 1)).float().expand(-1, 1, 8, 8), torch.randn(count, 1, 8, 8)

    for _ in range(300):
        optimiser.zero_grad()
        x0, noise = batch(32)
        (denoiser(x0 + 1.5 * noise, 1.5) - x0).square().mean().backward()
        optimiser.step()
    with torch.no_grad():
        x0, noise = batch(2000)
        error = float((denoiser(x0 + 1.5 * noise, 1.5) - x0).square().mean())
    linear = 0.25 * (1.5**2 / 64) / (0.25 + 1.5**2 / 64)        # variance of the mean of 64 pixels, and the prior's 1/4
    assert error < 0.7 * linear


def test_heads_divide_the_width():
    with pytest.raises(ValueError, match="width: expected a multiple of 12, four for each head, got 32"):
        DiT(width=32, heads=3)
