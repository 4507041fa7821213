import pytest
import torch

from invdiff.priors.tokens import rotated, rotations
from invdiff.priors.unet import Attention, UNet


def random_unet(**settings):
    """A tiny U-Net with none of its layers at zero."""
    torch.manual_seed(0)
    network = UNet(**({"widths": (8, 12), "depths": (1, 1), "embedding": 16} | settings))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return network.eval().requires_grad_(False)


def test_starts_at_zero_and_keeps_the_shape():
    network = UNet(channels=2, widths=(8, 8, 8), depths=(1, 1, 1), embedding=16)
    assert network.stride == 8
    out = network(torch.randn(2, 2, 16, 24), torch.tensor([0.0, -3.0]))
    assert out.shape == (2, 2, 16, 24)
    assert (out == 0).all()


def test_a_shift_by_the_stride_passes_through_away_from_the_border():
    network, label = random_unet(), torch.tensor([-1.0])
    x = torch.randn(1, 3, 96, 96)
    shift = network.stride
    shifted, moved = network(x.roll((shift, 2 * shift), (2, 3)), label), network(x, label).roll((shift, 2 * shift), (2, 3))
    inside = (..., slice(36, -36), slice(36, -36))
    assert moved[inside].std() > 0.05
    torch.testing.assert_close(shifted[inside], moved[inside], rtol=1e-4, atol=1e-5)


def test_no_layer_looks_at_the_whole_image():
    """What is far away changes nothing: what was learned on patches holds on photographs."""
    network, label = random_unet(), torch.tensor([-1.0])
    x = torch.randn(1, 3, 64, 64)
    other = x.clone()
    other[..., 40:, :] += 5
    torch.testing.assert_close(network(x, label)[..., :8, :], network(other, label)[..., :8, :], rtol=1e-5, atol=1e-6)


def test_with_attention_all_places_see_each_other_and_it_starts_as_the_identity():
    network, label = random_unet(widths=(8, 32), attention=True), torch.tensor([-1.0])
    x = torch.randn(1, 3, 64, 64)
    other = x.clone()
    other[..., 40:, :] += 5
    assert (network(x, label)[..., :8, :] - network(other, label)[..., :8, :]).abs().max() > 1e-3
    plain = random_unet(widths=(8, 32))
    fresh = UNet(widths=(8, 32), depths=(1, 1), embedding=16, attention=True)
    fresh.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(fresh(x, label), plain(x, label))
    with pytest.raises(ValueError, match="attention: expected a last width that is a multiple of 32, got 12"):
        UNet(widths=(8, 12), depths=(1, 1), attention=True)


def test_attention_is_that_of_the_formula():
    torch.manual_seed(0)
    layer, x = Attention(32), torch.randn(2, 32, 2, 3)
    torch.nn.init.normal_(layer.out.weight)
    h = torch.nn.functional.layer_norm(x.flatten(2).mT, (32,))
    q, k, v = layer.mix(h).chunk(3, -1)
    angles = rotations(2, 3, 32, x.device)
    q, k = (rotated(torch.nn.functional.layer_norm(part, (32,)), angles) for part in (q, k))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v) @ layer.out.weight.mT
    torch.testing.assert_close(layer(x), x + expected.mT.reshape(x.shape))


def test_each_item_sees_its_own_label():
    network = random_unet()
    x, labels = torch.randn(2, 3, 8, 8), torch.tensor([-4.0, 1.0])
    together = network(x, labels)
    for i in range(2):
        torch.testing.assert_close(together[i : i + 1], network(x[i : i + 1], labels[i : i + 1]), rtol=1e-4, atol=1e-5)
    assert (network(x, labels.flip(0)) - together).abs().max() > 1e-3


def test_depths_go_with_widths():
    with pytest.raises(ValueError, match="depths: expected 2 numbers, one for each width, got 3"):
        UNet(widths=(8, 8), depths=(1, 1, 1))
