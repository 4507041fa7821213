"""Every prediction of z = a u + s n is an invertible map of (u, n) once z is known."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from invdiff.diffusion.integrators import DDIM
from invdiff.diffusion.learned import LearnedRate
from invdiff.diffusion.parametrisations import X0, Eps, ProcessDenoiser, Score, V, Velocity, convert
from invdiff.diffusion.rates import CosineRate, SigmoidRate
from invdiff.diffusion.sdes import EDM, VE, VP, Flow, SubVP
from invdiff.priors import Guided
from invdiff.priors.conditional import class_number
from invdiff.sampling import sample

KINDS = [Eps(), X0(), V(), Score(), Velocity()]
PAIRS = [pytest.param(a, b, id=f"{type(a).__name__}-{type(b).__name__}") for a, b in product(KINDS, KINDS)]
PROCESSES = [VP(), VP(rate=CosineRate()), VP(rate=SigmoidRate()), SubVP(), VE(), EDM(), Flow(), Flow(unit=1, centre=0),
             VP(rate=LearnedRate(0.002, 40.0).requires_grad_(False))]
numbers = st.floats(-5, 5)
positive = st.floats(0.05, 5)


@pytest.mark.parametrize(("source", "target"), PAIRS)
@settings(max_examples=25, deadline=None)
@given(u=numbers, n=numbers, a=positive, s=positive)
def test_conversions_are_exact_and_undone_by_their_inverse(source, target, u, n, a, s):
    u, n = torch.tensor([u], dtype=torch.float64), torch.tensor([n], dtype=torch.float64)
    z = a * u + s * n
    said = source.target(u, n, a, s)
    torch.testing.assert_close(source.image(said, z, a, s), u, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(source.noise(said, z, a, s), n, rtol=1e-9, atol=1e-9)
    there = convert(said, source, target, z, a, s)
    torch.testing.assert_close(there, target.target(u, n, a, s), rtol=1e-9, atol=1e-7)
    torch.testing.assert_close(convert(there, target, source, z, a, s), said, rtol=1e-9, atol=1e-7)


def test_targets_are_those_of_the_papers():
    u, n, a, s = torch.tensor([0.3]), torch.tensor([-1.2]), 0.6, 0.8
    expected = {"Eps": -1.2, "X0": 0.3, "V": 0.6 * -1.2 - 0.8 * 0.3, "Score": 1.2 / 0.8, "Velocity": -1.5}
    assert {type(k).__name__: float(k.target(u, n, a, s)) for k in KINDS} == pytest.approx(expected)


def test_what_stays_finite_without_image_or_noise():
    """v and velocity at both ends: a = 0 is pure noise, s = 0 is the image."""
    u, n = torch.tensor([0.3]), torch.tensor([-1.2])
    for kind in (V(), Velocity()):
        for a, s in ((0.0, 1.0), (1.0, 0.0)):
            z, said = a * u + s * n, kind.target(u, n, a, s)
            torch.testing.assert_close(kind.image(said, z, a, s), u)
            torch.testing.assert_close(kind.noise(said, z, a, s), n)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: type(k).__name__)
def test_a_network_of_any_kind_in_any_process_is_the_same_denoiser(kind, process):
    """x0 ~ N(m, v I) in our frame: each network says E[target | z] exactly, and D = m + v (x - m) / (v + sigma^2)."""
    mean, variance = 0.4, 0.09
    seen = []

    def network(z, t, classes=None):
        seen.append((t.shape, t.dtype, classes))
        t = t.double().reshape(-1, 1, 1, 1)
        a, s = process.a(t), process.s(t)
        m, v = (mean - process.centre) / process.unit, variance / process.unit**2
        u = m + a * v * (z - a * m) / (a**2 * v + s**2)
        return kind.target(u, (z - a * u) / s, a, s).to(z.dtype)

    denoiser = ProcessDenoiser(network, kind, process)
    sigma = torch.tensor([0.02, 0.3, 4.0])
    level = sigma.double().reshape(-1, 1, 1, 1)
    x = mean + torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * (0.3 + level)
    exact = mean + variance * (x - mean) / (variance + level**2)
    torch.testing.assert_close(denoiser(x, sigma), exact, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(denoiser(x[1:2], 0.3, classes=7), exact[1:2], rtol=1e-6, atol=1e-6)
    assert seen == [((3,), torch.float64, None), ((1,), torch.float64, 7)]
    single = denoiser(x.float(), sigma)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, exact.float(), rtol=1e-3, atol=1e-3)


def test_a_network_that_knows_classes_is_guided_and_drawn_from():
    """Its velocity is exact for one image of each class, and for their mean where it is told -1, or nothing."""
    process = Flow()
    values = torch.tensor([0.2, 0.8, 0.5])

    def network(z, t, classes=None):
        classes = torch.full((len(z),), -1) if classes is None else classes
        u = ((values[classes] - process.centre) / process.unit).to(z).reshape(-1, 1, 1, 1)
        a, s = (part(t.double()).reshape(-1, 1, 1, 1) for part in (process.a, process.s))
        return ((z - a * u) / s - u).to(z.dtype)

    denoiser, x = ProcessDenoiser(network, Velocity(), process, classes=2), torch.rand(2, 1, 4, 4)
    for told, value in (({}, 0.5), ({"classes": torch.tensor([-1, -1])}, 0.5), ({"classes": torch.tensor([1, 1])}, 0.8)):
        torch.testing.assert_close(denoiser(x, 1.0, **told), torch.full_like(x, value))
    torch.testing.assert_close(Guided(denoiser, 0, 2.0)(x, 1.0), torch.full_like(x, 0.5 + 2 * (0.2 - 0.5)))
    drawn = sample(denoiser, 3, DDIM(), steps=3, classes=[0, 1, -1], size=(4, 4), channels=1, device="cpu")
    torch.testing.assert_close(drawn.images.mean((1, 2, 3)), values, atol=1e-3, rtol=0)
    assert class_number(denoiser, "1", "mine") == 1


def test_parametrisations_have_no_parameters():
    with pytest.raises(ValidationError):
        V(unit=2)
