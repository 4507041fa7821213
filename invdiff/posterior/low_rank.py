"""A stationary covariance corrected along a few directions, and solves with A C A^T + sigma_y^2 I for it."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.diffusion.randomness import Draw
from invdiff.posterior.covariance import StationaryCovariance, dots, solve
from invdiff.posterior.image_space import Whitened, solve_whitened
from invdiff.problem import Problem

Accuracy = tuple[float, int]      # of conjugate gradients: the tolerance, and the most iterations
ROUNDING = 1e-3         # relative, of a product with a float32 Jacobian


class LowRankCovariance:
    """C = C0 + L M^-1 L^T, with C0 stationary, columns L and a small symmetric M.

    `update` is the BFGS formula for a direction v and the exact C v: C stays positive definite, and the directions are made
    conjugate, so that C v stays exact for all of them. Rissanen et al. 2025 (Free Hunch, Sec. 3.3) update likewise, from
    what the sampler's path tells of the Jacobian.

    Attributes:
        base: C0.
        columns: L, each (B, C, H, W).
        middle: M, (B, J, J) in float64 on the CPU.
    """

    def __init__(self, base: StationaryCovariance, count: int):
        self.base, self.columns = base, list[Tensor]()
        self.middle = torch.zeros(count, 0, 0, dtype=torch.float64)
        self._updates: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def __call__(self, x: Tensor) -> Tensor:
        """C x for x (B, C, H, W)."""
        if not self.columns:
            return self.base(x)
        return self.base(x) + combine(self.columns, torch.linalg.solve(self.middle, inner(self.columns, x)))

    def update(self, v: Tensor, exact: Callable[[Tensor], Tensor]) -> bool:
        """Make C exact along v, with `exact` the product v -> C v; was there anything to learn, for any item?

        Nothing changes where v is spanned already, nor where C0 has no variance as large as C v tells of: for a covariance
        whose largest is l, |C v|^2 <= l v^T C v. At noise levels above an image's range sigma^2 dD/dx of a network can be a
        hundred times that, and a sampler would run away with it.
        """
        length, largest = dots(v, v), self.base.power.amax((-3, -2, -1), keepdim=True)
        for _, u, past, _ in self._updates:
            v = v - dots(u, v) * past
        u, b = exact(v), self(v)
        curvature, modelled = dots(v, u), dots(v, b)
        believed = (curvature > 0) & (dots(u, u) < (1 + ROUNDING) * largest * curvature)
        new = (dots(v, v) > 1e-8 * length) & believed & (modelled > 0)
        if not new.any():
            return False
        now, before = (torch.where(new, c, 1).rsqrt() * new for c in (curvature, modelled))
        self.columns += [before * b, now * u]
        self._updates.append((self.columns[-2], self.columns[-1], now * v, before * v))
        signs = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(len(self._updates))
        self.middle = torch.diag(signs).expand(len(v), -1, -1)
        return True

    def sample(self, shape: Sequence[int], draw: Draw) -> Tensor:
        """Draws from N(0, C), (B, *shape), update by update."""
        x = self.base.root(draw(shape))
        for b, u, _, v in self._updates:
            x = x - dots(v, x) * b + draw((1, 1, 1)) * u
        return x

    def observed(self, precision: float) -> "LowRankCovariance":
        """(C^-1 + precision I)^-1: what is left when x itself is seen through white noise."""
        power = self.base.power
        left = LowRankCovariance(StationaryCovariance(power / (1 + precision * power), self.base.size), len(self.middle))
        left.columns = [self.base.inverse(column, 1 / precision) / precision for column in self.columns]
        left.middle = self.middle + precision * gram(self.columns, left.columns)
        return left

    def at(self, index: Tensor) -> "LowRankCovariance":
        """Those of the particles at `index`."""
        chosen = LowRankCovariance(self.base, len(index))
        chosen.columns = [column[index] for column in self.columns]
        chosen.middle = self.middle[index.cpu()]
        chosen._updates = [tuple(part[index] for part in parts) for parts in self._updates]       # type: ignore[misc]
        return chosen


class Conditioning:
    """Solves with A C A^T + sigma_y^2 I by Woodbury's identity; the covariance may be updated in between.

    accuracy: of solves with C0 for residuals; columns: for the covariance's columns, if it is another than usual.
    """

    columns_looser: ClassVar[float] = 1.0       # the tolerance for columns, in units of that for residuals

    def __init__(self, problem: Problem, covariance: LowRankCovariance, accuracy: Accuracy, columns: Accuracy | None = None):
        self.problem, self.covariance, self._accuracy = problem, covariance, accuracy
        self._columns = columns or (self.columns_looser * accuracy[0], accuracy[1])
        self._seen: list[Tensor] = []           # A L
        self._solved: list[Tensor] = []         # (A C0 A^T + sigma_y^2 I)^-1 A L

    def residual(self, x0: Tensor) -> Tensor:
        """r = y - A x0."""
        return self.problem.y - self.problem.A(x0)

    def image(self, weights: Tensor) -> Tensor:
        """A^T w, (B, C, H, W)."""
        return self.problem.A_adjoint(weights)

    def base(self, r: Tensor, start: Tensor | None = None, accuracy: Accuracy | None = None) -> Tensor:
        """(A C0 A^T + sigma_y^2 I)^-1 r for r (B, ...); conjugate gradients, where they are needed, begin at `start`."""
        tolerance, iterations = accuracy or self._accuracy
        return solve(self.problem, self.covariance.base, r, start, tolerance=tolerance, iterations=iterations)

    def correct(self, base: Tensor) -> Tensor:
        """(A C A^T + sigma_y^2 I)^-1 r from `base`, the solution with C0."""
        if not self.covariance.columns:
            return base
        capacity = self._capacity()
        return base - combine(self._solved, torch.linalg.solve(capacity, inner(self._seen, base)))

    def learn(self, base: Tensor, exact: Callable[[Tensor], Tensor], rank: int) -> Tensor:
        """The solution from `base`, that with C0, with C made exact along A^T w for each solution w in turn, up to `rank`."""
        weights = base
        for _ in range(rank):
            if not self.covariance.update(self.image(weights), exact):
                break                           # the same direction would come again
            weights = self.correct(base)
        return weights

    def at(self, index: Tensor, covariance: LowRankCovariance) -> "Conditioning":
        """That of the particles at `index`, whose covariance is given."""
        chosen = type(self)(self.problem, covariance, self._accuracy, self._columns)
        chosen._seen, chosen._solved = ([part[index] for part in parts] for parts in (self._seen, self._solved))
        return chosen

    def log_determinant_ratio(self) -> Tensor:
        """log det(A C A^T + sigma_y^2 I) - log det(A C0 A^T + sigma_y^2 I), (B,) in float64 on the CPU."""
        return torch.linalg.slogdet(self._capacity())[1] - torch.linalg.slogdet(self.covariance.middle)[1]

    def _capacity(self) -> Tensor:
        for column in self.covariance.columns[len(self._seen):]:
            seen, pulled = self._reach(column)
            self._seen.append(seen)
            self._solved.append(self.base(pulled, accuracy=self._columns))
        return self.covariance.middle + gram(self._seen, self._solved)

    def _reach(self, column: Tensor) -> tuple[Tensor, Tensor]:
        """A column as solutions see it, and as what is solved for."""
        seen = self.problem.A(column)
        return seen, seen


class ImageConditioning(Conditioning):
    """The same in image space, for measurements larger than the image: with A^T r in r's place and A^T w in w's."""

    columns_looser = 5.0    # begun at zero, a solve that ends early leaves less of the column, and samples as good

    def residual(self, x0: Tensor) -> Tensor:
        return self.problem.pulled - self.problem.A_adjoint_A(x0)

    def image(self, weights: Tensor) -> Tensor:
        return weights

    def base(self, r: Tensor, start: Tensor | None = None, accuracy: Accuracy | None = None) -> Tensor:
        """A^T (A C0 A^T + sigma_y^2 I)^-1 r for A^T r, (B, C, H, W)."""
        system = Whitened(self.problem, self.covariance.base.power, self.problem.noise_variance)
        begun = None if start is None else system.pull(start)
        return system.weights(solve_whitened(system, r, begun, *(accuracy or self._accuracy)))

    def _reach(self, column: Tensor) -> tuple[Tensor, Tensor]:
        return column, self.problem.A_adjoint_A(column)


def inner(columns: Sequence[Tensor], x: Tensor) -> Tensor:
    """Inner products of each item with J columns, (B, J) in float64 on the CPU."""
    return torch.stack([(column * x).flatten(1).sum(1) for column in columns], 1).double().cpu()


def gram(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Inner products of columns, (B, J, J), made symmetric; in float64 on the CPU."""
    if not left:
        return torch.zeros((), dtype=torch.float64)
    product = torch.stack([inner(left, column) for column in right], 2)
    return (product + product.mT) / 2


def combine(columns: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Sum of J columns (B, ...) with weights (B, J)."""
    weights = weights.to(columns[0])
    shape = (-1, *[1] * (columns[0].ndim - 1))
    return sum((weights[:, j].reshape(shape) * column for j, column in enumerate(columns)), torch.zeros_like(columns[0]))
