import pytest
import torch
from torch import nn

from invdiff.priors import pieces
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.pieces import in_pieces
from invdiff.priors.unet import UNet


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "LARGEST", 72 * 80)


def random_unet(depths):
    """A tiny U-Net of weights above zero, so that whatever is connected shows."""
    torch.manual_seed(0)
    network = UNet(1, [4 + i for i in range(len(depths))], depths, embedding=16)
    for parameter in network.parameters():
        nn.init.uniform_(parameter, 0.05, 0.2)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("depths", [(1,), (1, 1), (3, 1, 2), (2, 2, 2, 1)])
def test_a_unet_says_how_far_it_sees(depths):
    """A block as large as the stride depends on `reach` pixels around it, and on no more."""
    network = random_unet(depths)
    begin = -(-network.reach // network.stride) * network.stride + network.stride
    x = torch.rand(1, 1, network.stride, 2 * begin + network.stride, requires_grad=True)
    out = network(x, torch.zeros(1))[..., begin : begin + network.stride]
    seen = torch.autograd.grad(out.sum(), x)[0].abs().sum((0, 1, 2)).nonzero().flatten()
    assert begin - int(seen.min()) == network.reach == int(seen.max()) - (begin + network.stride - 1)


def outcome(denoiser, x, v):
    """D, J^T v and the gradient by x of v^T J v."""
    x = x.clone().requires_grad_()
    x0 = denoiser(x, 0.3)
    (pulled,) = torch.autograd.grad(x0, x, v, create_graph=True)
    (bent,) = torch.autograd.grad((pulled * v).sum(), x)
    return x0.detach(), pulled.detach(), bent


def test_piece_by_piece_is_as_in_one(request):
    """For any size, and for its derivatives; to see too little around a piece shows."""
    denoiser = EDMDenoiser(random_unet((1, 1)), channels=1)
    x, v = torch.randn(2, 2, 1, 101, 150)
    whole = outcome(denoiser, x, v)
    request.getfixturevalue("small_pieces")
    for got, expected in zip(outcome(denoiser, x, v), whole, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    denoiser.network.reach = 8
    assert (outcome(denoiser, x, v)[0] - whole[0]).abs().max() > 1e-3 * whole[0].abs().max()


@pytest.mark.parametrize("size", [(72, 80), (400, 16), (200, 320), (1000, 72)])
@pytest.mark.usefixtures("small_pieces")
def test_no_piece_is_larger_than_allowed_and_all_are_kept_once(size):
    shapes = []

    class Seen(nn.Module):
        reach, stride = 22, 4

        def forward(self, x):
            shapes.append(x.shape[-2:])
            return 2 * x

    x = torch.randn(1, 1, *size)
    assert torch.equal(in_pieces(Seen(), x), 2 * x)
    assert all(height * width <= 72 * 80 and height % 4 == width % 4 == 0 for height, width in shapes)
    assert (len(shapes) == 1) == (size == (72, 80))


@pytest.mark.usefixtures("small_pieces")
def test_what_sees_everything_sees_the_whole_image():
    assert UNet(widths=(8, 32), depths=(1, 1), embedding=16, attention=True).reach is None
    shapes = []

    class Whole(nn.Module):
        def forward(self, x):
            shapes.append(x.shape[-2:])
            return x

    in_pieces(Whole(), torch.randn(1, 1, 100, 100))
    assert shapes == [(100, 100)]
