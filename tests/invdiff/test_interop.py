"""deepinv both ways: its samplers through restore(), ours wherever it takes a Reconstructor."""

import json

import deepinv
import numpy as np
import pytest
import torch
from deepinv.models import Reconstructor
from test_restore import SIZE, prior, problem

import operators
from invdiff.errors import InputError
from invdiff.interop import AsReconstructor, DeepinvSampler
from invdiff.posterior import DDRM, MomentMatching, TwistedSMC
from invdiff.problem import Problem
from invdiff.restoration import restore
from invdiff.simulation import simulate

THEIRS = {
    "DDRM": lambda denoiser, sigma_y: deepinv.sampling.DDRM(denoiser, sigmas=np.linspace(1, 0, 20)),
    "DiffPIR": lambda denoiser, sigma_y: deepinv.sampling.DiffPIR(denoiser, deepinv.optim.data_fidelity.L2(), sigma=sigma_y,
                                                                 max_iter=20),
    "DPS": lambda denoiser, sigma_y: deepinv.sampling.DPS(denoiser, num_steps=21),
}
CALLS = {"DDRM": (20, 0), "DiffPIR": (20, 0), "DPS": (20, 20)}
OPERATORS = {
    "inpainting": lambda: operators.Inpainting(SIZE, operators.random_mask(SIZE, 0.5)),
    "super-resolution": lambda: operators.SuperResolution(SIZE, 2),
    "blur": lambda: operators.GaussianBlur(SIZE, sigma=0.5),
    "denoising": lambda: operators.Denoising(SIZE),
    "deepinv's inpainting": lambda: deepinv.physics.Inpainting(img_size=SIZE, mask=operators.random_mask(SIZE, 0.5).float()),
}


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("name", THEIRS)
def test_deepinv_s_samplers_run_repeat_and_are_counted(name, operator):
    posed = simulate(OPERATORS[operator](), 0.5 + 0.2 * torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(0)), 0.05)
    noise_model, y, state = posed.physics.noise_model, posed.y.clone(), torch.get_rng_state()
    sampler = DeepinvSampler(build=THEIRS[name])
    result = restore(posed, prior(), sampler, samples=3, batch_size=4)
    assert result.samples.shape == (2, 3, *SIZE)
    assert result.samples.dtype == torch.float32
    assert len({float(x.sum()) for x in result.samples.flatten(0, 1)}) == 6
    torch.manual_seed(7)
    assert torch.equal(restore(posed, prior(), sampler, samples=2).samples, result.samples[:, :2])
    report = result.report
    assert (report["network_calls"], report["network_gradients"]) == CALLS[name]
    assert report["operator_calls"] >= 19
    assert report["info"][0] == {"reconstructor": name}
    json.dumps(report)
    assert posed.physics.noise_model is noise_model
    assert torch.equal(posed.y, y)
    torch.set_rng_state(state)


def test_a_deepinv_sampler_is_told_the_noise_level_and_the_units():
    """Their DDRM at a low noise level returns what was measured; that takes the right sigma_y, and images in [0, 1]."""
    posed = problem(0.001)
    sample = restore(posed, prior(), DeepinvSampler(build=THEIRS["DDRM"])).samples[:, 0]
    seen = posed.observed()
    assert (sample - posed.y)[seen].abs().max() < 0.1
    strong = Problem(posed.physics, posed.y, 10.0)
    assert (restore(strong, prior(), DeepinvSampler(build=THEIRS["DDRM"])).samples[:, 0] - posed.y)[seen].abs().max() > 0.2


def test_any_reconstructor_is_a_sampler():
    class Noisy(Reconstructor):
        def forward(self, y, physics, **kwargs):
            return physics.A_adjoint(y) + torch.rand(1) * np.random.rand()      # noqa: NPY002

    posed, state = problem(), np.random.get_state()[1].copy()                 # noqa: NPY002
    sampler = DeepinvSampler(build=lambda denoiser, sigma_y: Noisy())
    first, second = (restore(posed, prior(), sampler, samples=2, seed=3) for _ in range(2))
    assert torch.equal(first.samples, second.samples)
    assert (first.report["network_calls"], first.report["operator_calls"]) == (0, 1)
    assert (np.random.get_state()[1] == state).all()                            # noqa: NPY002


def test_masks_of_their_own_are_refused():
    physics = operators.Inpainting(SIZE, torch.stack([operators.random_mask(SIZE, keep) for keep in (0.25, 0.75)]))
    posed = simulate(physics, torch.full((2, *SIZE), 0.5), 0.1)
    with pytest.raises(InputError, match="DeepinvSampler takes one measurement at a time"):
        restore(posed, prior(), DeepinvSampler(build=THEIRS["DDRM"]))


def test_a_deepinv_sampler_goes_on_from_no_checkpoint(tmp_path):
    """Two of the same name may be two methods."""
    with pytest.raises(InputError, match="checkpoint: the parameters of DeepinvSampler do not tell it from every other"):
        restore(problem(), prior(), DeepinvSampler(build=THEIRS["DDRM"]), checkpoint=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_output_that_is_no_image_is_refused():
    """Such as mean and variance of deepinv's Langevin samplers, or images that are too many."""
    langevin = DeepinvSampler(build=lambda denoiser, sigma_y: deepinv.sampling.ULA(
        prior=deepinv.optim.ScorePrior(denoiser), data_fidelity=deepinv.optim.L2(sigma=sigma_y), max_iter=5))
    with pytest.raises(InputError, match=r"expected a sample \(1, 1, 8, 8\) of ULA, got a tuple; .*DDRM, DiffPIR and DPS"):
        restore(problem(), prior(), langevin)

    class Twice(Reconstructor):
        def forward(self, y, physics, **kwargs):
            return torch.cat([y, y])

    with pytest.raises(InputError, match=r"of Twice, got \(2, 1, 8, 8\)"):
        restore(problem(), prior(), DeepinvSampler(build=lambda denoiser, sigma_y: Twice()))


# ours in deepinv

def test_our_samplers_are_reconstructors():
    posed = problem(count=2)
    posed.physics.noise_model = deepinv.physics.GaussianNoise(0.05)
    model = AsReconstructor(prior(), MomentMatching(steps=5), samples=3, seed=4)
    assert isinstance(model, Reconstructor)
    expected = restore(Problem(posed.physics, posed.y, posed.physics.noise_model.sigma.item()), prior(),
                       MomentMatching(steps=5), samples=3, seed=4).mean
    assert torch.equal(model(posed.y, posed.physics), expected)
    other = AsReconstructor(prior(), DDRM(steps=5), sigma_y=0.2, samples=2)(posed.y, posed.physics)
    assert torch.equal(other, restore(Problem(posed.physics, posed.y, 0.2), prior(), DDRM(steps=5), samples=2).mean)


def test_without_a_seed_of_their_own_they_draw_another_sample_for_each_chain():
    """The chain's, whose own seed is torch's; a given one is the same in all of them."""
    def drawn(**seed):
        sampler = DeepinvSampler(build=lambda denoiser, sigma_y: AsReconstructor(denoiser, MomentMatching(steps=2),
                                                                                 sigma_y=sigma_y, **seed))
        return restore(problem(), prior(), sampler, samples=3).samples

    free = drawn(seed=None)
    assert len({float(x.sum()) for x in free[0]}) == 3
    assert torch.equal(drawn(seed=None), free)
    assert len({float(x.sum()) for x in drawn()[0]}) == 1


def test_deepinv_s_own_test_runs_them_better_than_the_measurement():
    physics = operators.Inpainting(SIZE, operators.random_mask(SIZE, 0.5), noise_model=deepinv.physics.GaussianNoise(0.05))
    x = 0.5 + 0.2 * torch.randn(4, *SIZE, generator=torch.Generator().manual_seed(0))
    data = torch.utils.data.DataLoader([(image, physics(image[None])[0]) for image in x], batch_size=2)
    model = AsReconstructor(prior(), MomentMatching(steps=5), samples=2)
    scores = deepinv.test(model, data, physics, metrics=[deepinv.metric.PSNR()], device="cpu", verbose=False,
                          show_progress_bar=False)
    assert scores["PSNR"] > scores["PSNR no learning"]


def test_a_stack_of_deepinv_s_is_restored_by_the_noise_of_each():
    mask, noise = operators.random_mask(SIZE, 0.5), deepinv.physics.GaussianNoise
    parts = [operators.Inpainting(SIZE, mask, noise_model=noise(0.05)), operators.Denoising(SIZE, noise_model=noise(0.3))]
    physics = deepinv.physics.stack(*parts)
    y = physics(0.5 + 0.2 * torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(0)))
    got = AsReconstructor(prior(), MomentMatching(steps=5), samples=2)(y, physics)
    levels = [part.noise_model.sigma.item() for part in parts]
    assert torch.equal(got, restore(Problem(physics, y, levels), prior(), MomentMatching(steps=5), samples=2).mean)


@pytest.mark.parametrize(("noise", "said"), [(None, "has none"),
                                             (deepinv.physics.PoissonGaussianNoise(0.1, 0.01), "has PoissonGaussianNoise"),
                                             (deepinv.physics.GaussianNoise(torch.tensor([0.1, 0.2, 0.1])), "has 3")])
def test_a_reconstructor_needs_a_noise_level(noise, said):
    posed = problem(count=2)
    physics = operators.Inpainting(SIZE, operators.random_mask(SIZE, 0.5), noise_model=noise)
    with pytest.raises(InputError, match=f"sigma_y: expected one noise level.*Inpainting {said}"):
        AsReconstructor(prior(), MomentMatching(steps=2))(posed.y, physics)


@pytest.mark.parametrize("sampler", [MomentMatching(steps=4), TwistedSMC(steps=4), DeepinvSampler(build=THEIRS["DiffPIR"])],
                         ids=["guidance", "population", "theirs"])
def test_measurements_with_noise_levels_of_their_own_are_restored_each_by_its_own(sampler):
    """With the streams that they have among others of one level."""
    posed, levels = problem(count=3), torch.tensor([0.05, 0.2, 0.05])
    physics = operators.Inpainting(SIZE, posed.physics.mask[0, 0], noise_model=deepinv.physics.GaussianNoise(levels))
    got = AsReconstructor(prior(), sampler, samples=2, seed=5)(posed.y, physics)
    each = [restore(Problem(posed.physics, posed.y, level), prior(), sampler, samples=2, seed=5).mean for level in levels]
    torch.testing.assert_close(got, torch.stack([each[j][j] for j in range(3)]), rtol=0, atol=1e-5)
    assert (each[0][1] - each[1][1]).abs().max() > 1e-3
    alike = AsReconstructor(prior(), sampler, samples=2, seed=5, sigma_y=0.05)(posed.y, physics)
    torch.testing.assert_close(got[[0, 2]], alike[[0, 2]], rtol=0, atol=1e-5)


def test_masks_and_noise_levels_for_each_measurement_take_batches_of_one():
    masks = torch.stack([operators.random_mask(SIZE, keep) for keep in (0.25, 0.75)])
    noise = deepinv.physics.GaussianNoise(torch.tensor([0.1, 0.2]))
    physics = operators.Inpainting(SIZE, masks, noise_model=noise)
    with pytest.raises(InputError, match=r"sigma_y: Inpainting has parameters of its own for each of 2 .* batches of one"):
        AsReconstructor(prior(), MomentMatching(steps=2))(torch.zeros(2, *SIZE), physics)


def test_a_deepinv_sampler_that_wants_an_svd_is_told_apart():
    """An error of its own is its own."""
    posed = simulate(deepinv.physics.Blur(torch.ones(1, 1, 3, 3) / 9, padding="circular"), torch.rand(1, *SIZE), 0.1)
    with pytest.raises(InputError, match=r"DDRM asks Blur for mask, and it has none; .* DDRM needs an operator with an SVD"):
        restore(posed, prior(), DeepinvSampler(build=THEIRS["DDRM"]))

    class Broken(Reconstructor):
        def forward(self, y, physics, **kwargs):
            return y.colour

    with pytest.raises(AttributeError, match="colour"):
        restore(posed, prior(), DeepinvSampler(build=lambda denoiser, sigma_y: Broken()))
