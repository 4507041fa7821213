"""What a draw of the exact posterior leaves of its measurement is noise; what others leave is not."""

import pytest
import torch
from scipy.stats import kstest

import operators
from invdiff.errors import InputError
from invdiff.evaluation.consistency import Consistency, consistency
from invdiff.priors.analytic import GaussianPrior
from invdiff.problem import Problem
from invdiff.simulation import simulate

SIZE = (1, 12, 12)
SIGMA = 0.05


def prior(size=SIZE, scale=4.0):
    """Smooth images: a spectrum that falls with frequency."""
    height, width = size[1:]
    f = torch.fft.fftfreq(height)[:, None].square() + torch.fft.rfftfreq(width).square()
    return GaussianPrior.stationary(torch.full(size, 0.5), 0.5 / (1 + (scale**2 * 4 * f)).square())


def draws(mean, cov, count, seed):
    """(count, *mean's shape) from N(mean, cov)."""
    values, vectors = torch.linalg.eigh(cov)
    noise = torch.randn(count, len(cov), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (mean + (noise * values.clamp_min(0).sqrt() @ vectors.T).reshape(count, *mean.shape)).float()


def truths(count, seed=0):
    it = prior()
    return draws(it.mean.double(), it.cov.double(), count, seed)


def exact(problem, samples, seed=1):
    mean, cov = prior().posterior(problem)
    return torch.stack([draws(m, cov, samples, seed + i) for i, m in enumerate(mean)])


def mask(keep=0.6):
    return operators.Inpainting(SIZE, operators.random_mask(SIZE, keep))


def blur(width=0.8):
    return operators.GaussianBlur(SIZE, sigma=width)


@pytest.mark.parametrize("physics", [mask(), blur()])
def test_exact_samples_leave_what_noise_leaves(physics):
    problem = simulate(physics, truths(150), SIGMA)
    samples = exact(problem, 1)
    each = [consistency(problem.rows(torch.tensor([i])), samples[i:i + 1]) for i in range(150)]
    assert kstest([one.p_value for one in each], "uniform").pvalue > 0.01
    assert sum(one.verdict == "explained" for one in each) >= 145
    whole = consistency(problem, samples)
    assert whole.level == pytest.approx(1, abs=4 / (2 * whole.values) ** 0.5)
    assert abs(whole.whiteness) < 4 * whole.whiteness_error
    assert whole.chi2 == pytest.approx(whole.level**2 * whole.values)
    assert whole.words() == (f"The restoration explains the measurement: the residual is {whole.level:.2f} of what noise alone "
                             "would leave.")


def test_only_what_was_measured_counts():
    problem = simulate(mask(), truths(4), SIGMA)
    got = consistency(problem, exact(problem, 3))
    assert got.values == 4 * int(mask().mask.sum())
    assert got.level == pytest.approx(1, abs=0.12)
    assert 0 <= got.p_value <= 1


def test_the_p_value_of_several_samples_is_twice_the_mean_of_theirs():
    """So it is valid also for samples that all tell the same (Vovk & Wang 2020)."""
    problem = simulate(blur(), truths(6), SIGMA)
    for x in exact(problem, 4).unbind(1):
        one = consistency(problem, x).p_value
        assert consistency(problem, torch.stack([x] * 3, 1)).p_value == pytest.approx(min(1.0, 2 * one))


def test_few_values_may_miss_by_three_standard_errors_of_the_level():
    """Which is that of the root mean square of 50 normal values, measured."""
    error = float(torch.randn(20_000, 50, generator=torch.Generator().manual_seed(0)).square().mean(1).sqrt().std())
    for errors, verdicts in ((2.8, ("explained", "explained")), (3.2, ("unexplained", "overfitted"))):
        got = [Consistency(1 + sign * errors * error, SIGMA, 50, None, None, None, None).verdict for sign in (1, -1)]
        assert tuple(got) == verdicts


def test_more_noise_than_was_said_is_told():
    true = simulate(blur(), truths(8), 2 * SIGMA)
    problem = Problem(true.physics, true.y, SIGMA)
    got = consistency(problem, exact(problem, 2))
    assert got.verdict == "unexplained"
    assert "does not explain the measurement" in got.words()
    assert got.p_value < 1e-3
    white = Consistency(1.4, 0.02, 10_000, 19_600.0, 0.0, 0.01, 0.01)
    assert "may be larger than 0.02, or the operator" in white.words()


def test_less_noise_than_was_said_is_told():
    true = simulate(blur(), truths(8), SIGMA / 2)
    problem = Problem(true.physics, true.y, SIGMA)
    got = consistency(problem, exact(problem, 2))
    assert got.level < 0.85
    assert got.verdict == "overfitted"
    assert "fits the noise" in got.words()
    assert "smaller than 0.05" in got.words()


@pytest.mark.parametrize("factor", [1.5, 2.0])
def test_a_noise_level_that_is_too_small_is_told_from_another_operator(factor):
    """Noise that passes for image leaves neighbours of opposite sign behind."""
    true = simulate(blur(), truths(8), SIGMA * factor)
    problem = Problem(true.physics, true.y, SIGMA)
    got = consistency(problem, exact(problem, 2))
    assert got.verdict == "unexplained"
    assert got.whiteness < -0.1
    assert "; the noise level may be larger than 0.05, or the operator another one." in got.words()


@pytest.mark.parametrize(("level", "verdict"), [(1.0, "structured"), (1.9, "unexplained")])
def test_the_sign_of_the_structure_names_the_likelier_cause(level, verdict):
    sharp, smooth = (Consistency(level, 0.01, 10_000, 1e4 * level**2, 0.0, sign * 0.13, 0.01) for sign in (-1, 1))
    assert (sharp.verdict, smooth.verdict) == (verdict, verdict)
    assert "by -0.13)" in sharp.words()
    assert "the noise level may be larger than 0.01, or the operator" in sharp.words()
    assert "noise level" not in smooth.words()


def test_another_operator_leaves_structure():
    true = simulate(operators.Blur(SIZE, torch.tensor([[0.0, 0.0, 0.0, 0.5, 0.5]])), truths(8), SIGMA)
    problem = Problem(operators.Denoising(SIZE), true.y, SIGMA)
    x = truths(8)
    got = consistency(problem, x)
    assert got.verdict == "unexplained"
    assert got.is_structured
    assert "has structure" in got.words()


def test_a_restoration_that_is_too_smooth_leaves_structure():
    problem = simulate(operators.Denoising(SIZE), truths(8), SIGMA)
    smooth = operators.GaussianBlur(SIZE, sigma=1.0).A(exact(problem, 1)[:, 0])
    got = consistency(problem, smooth)
    assert got.verdict == "unexplained"
    assert got.is_structured
    assert "too smooth" in got.words()


def test_structure_of_the_right_size_is_told():
    """A residual of the noise's size that is the same in pairs of rows."""
    rows = torch.randn(1, 1, 32, 64, generator=torch.Generator().manual_seed(0)).repeat_interleave(2, 2)
    got = consistency(Problem(operators.Denoising((1, 64, 64)), rows * SIGMA, SIGMA), torch.zeros(1, 1, 64, 64))
    assert got.whiteness == pytest.approx(0.5, abs=0.05)
    assert got.verdict == "structured"
    assert "neighbours correlate by 0.5" in got.words()


def test_white_noise_has_the_error_of_whiteness_that_it_says():
    noise = torch.randn(200, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * SIGMA
    physics, zero = operators.Inpainting((1, 16, 16), operators.random_mask((1, 16, 16), 0.7)), torch.zeros(1, 1, 16, 16)
    got = [consistency(Problem(physics, n[None] * physics.mask, SIGMA), zero) for n in noise]
    scores = torch.tensor([one.whiteness / one.whiteness_error for one in got])
    assert scores.mean().abs() < 0.3
    assert scores.square().mean().sqrt() == pytest.approx(1.27, abs=0.2)      # the larger of two standard normal values


def test_flat_measurements_have_no_neighbours():
    problem = simulate(operators.GaussianSensing(SIZE, rate=0.5), truths(2), SIGMA)
    got = consistency(problem, exact(problem, 1))
    assert got.whiteness is None
    assert got.verdict == "explained"


def test_a_scan_has_neighbours_in_k_space():
    lines = torch.arange(12).expand(12, 12) % 2 == 0
    physics = operators.MRI((2, 12, 12), lines)
    problem = simulate(physics, torch.rand(3, 2, 12, 12, generator=torch.Generator().manual_seed(0)), SIGMA)
    got = consistency(problem, problem.physics.A_adjoint(problem.y))
    assert got.values == 3 * 2 * 12 * 6
    assert got.level < 1e-4         # the zero-filled image has all of the noise
    assert got.verdict == "overfitted"
    assert got.whiteness_error == pytest.approx((3 * 2 * 11 * 6) ** -0.5)     # neighbours along the lines alone


def test_noiseless_measurements():
    x = truths(2)
    problem = simulate(mask(), x, 0.0)
    fits, fails = consistency(problem, x), consistency(problem, 0.9 * x)
    assert fits.level == 0
    assert fails.level == pytest.approx(0.1, rel=1e-4)
    assert (fits.verdict, fails.verdict, fits.p_value, fits.whiteness) == ("explained", "unexplained", None, None)
    assert "explains the measurement" in fits.words()
    assert "leaves 10 % of a measurement said to be noiseless" in fails.words()


def test_operators_that_are_not_linear_are_weighed_too():
    x = truths(2)
    problem = simulate(operators.HighDynamicRange(SIZE), x, SIGMA)
    assert consistency(problem, x).verdict == "explained"


def test_refusals():
    problem = simulate(mask(), truths(2), SIGMA)
    with pytest.raises(InputError, match="of 2 measurements, got"):
        consistency(problem, truths(3))
    with pytest.raises(InputError, match="expected restorations"):
        consistency(problem, torch.zeros(2, 0, *SIZE))


@pytest.mark.parametrize("finest", [None, 0.3, 0.8])
def test_noise_that_has_lost_its_finest_detail_is_not_called_smaller(finest):
    """A residual of half the size is what JPEG leaves of noise, and its neighbours are alike."""
    lost = finest == 0.3
    small, alike, far = (Consistency(level, 0.02, 10_000, 1e4 * level**2, 0.0, 0.4, 0.01, finest) for level in (0.5, 1.0, 1.7))
    assert [one.verdict for one in (small, alike, far)] == ["overfitted", "structured", "unexplained"]
    assert ("may be smaller" in small.words()) != lost
    assert ("as is to be expected: JPEG or enlarging" in small.words()) == ("make worms" in small.words()) == lost
    for one in (alike, far):
        assert ("as noise has after JPEG or enlarging: the noise level may be larger than 0.02" in one.words()) == lost
    assert "does not explain" in far.words()
    assert "does not explain" not in alike.words()
    assert "explains the measurement" in Consistency(1.0, 0.02, 10_000, 1e4, 0.5, 0.0, 0.01, finest).words()
