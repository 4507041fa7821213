import pytest
import torch

from invdiff.evaluation.mixtures import SCALE, mixture_case, sliced_wasserstein


@pytest.mark.parametrize(("d", "m"), [(8, 1), (80, 4)])
def test_a_case_is_that_of_the_paper(d, m):
    """In the mixture's own units: means 8 (i, j, i, j, ...), unit covariance, singular values in [0.1, 1], y near A x."""
    case = mixture_case(d, m, seed=1)
    means = (case.prior.means.flatten(1) - 0.5) * SCALE
    torch.testing.assert_close(means, means.round(), rtol=0, atol=1e-4)
    assert sorted({tuple(row) for row in (means[:, :2] / 8).round().int().tolist()}) == [(i, j) for i in range(-2, 3)
                                                                                        for j in range(-2, 3)]
    torch.testing.assert_close(means[:, 2:], means[:, :-2])
    torch.testing.assert_close(case.prior.variance * SCALE**2, torch.ones(25))
    assert abs(float(case.prior.weights.sum()) - 1) < 1e-6
    values = torch.linalg.svdvals(case.problem.physics.columns)
    assert values.shape == (m,)
    assert 0.1 <= values.min() <= values.max() <= 1
    assert 0 < case.problem.sigma_y * SCALE <= values.max()
    assert torch.equal(mixture_case(d, m, seed=1).problem.y, case.problem.y)
    assert not torch.equal(mixture_case(d, m, seed=2).problem.y, case.problem.y)


def test_sliced_wasserstein_of_a_shift():
    """Projections of a shift s have the squared length |s|^2 / d on average; of a scaling, the root mean square's share."""
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    assert sliced_wasserstein(x, x[torch.randperm(500)]) < 1e-6
    shift = torch.tensor([3.0, 0.0, 0.0, 0.0, 4.0, 0.0])
    distance = sliced_wasserstein(x, x + shift, directions=4000)
    assert abs(distance - 5 / 6**0.5) < 0.05
    assert abs(sliced_wasserstein(x, 3 * x, directions=4000) - 2 * float(x.square().mean().sqrt())) < 0.05
    assert sliced_wasserstein(x, x + shift) == sliced_wasserstein(x + shift, x)
