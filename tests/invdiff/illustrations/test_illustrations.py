"""Each figure draws without a warning, has the panels and words it must have, and shows what the library's code computes."""

import re
import warnings

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.quiver import Quiver
from matplotlib.text import Text

from invdiff.diffusion.integrators import RK45, DPMSolver, DPMSolverPP, Heun
from invdiff.diffusion.rates import CosineRate
from invdiff.diffusion.schedules import Karras
from invdiff.diffusion.sdes import VE, VP
from invdiff.errors import InputError
from invdiff.illustrations import sde_and_ode as paths_module
from invdiff.illustrations.captions import CAPTIONS
from invdiff.illustrations.chains import noise_at, run
from invdiff.illustrations.convergence import FLOW
from invdiff.illustrations.flow_map import flow_end
from invdiff.illustrations.gallery import FIGURES, draw
from invdiff.illustrations.likelihood import LOW, flow_log_prob
from invdiff.illustrations.plane import grid
from invdiff.illustrations.samplers import COMPARED, samples_of, steps_within
from invdiff.illustrations.targets import exact_draws, line, moons, overlapping_classes, three_modes
from invdiff.io.images import to_uint8
from invdiff.priors import load_prior
from invdiff.sampling import sample

SMALL = {
    "forward": {"sigmas": (0.0, 0.3, 3.0)},
    "reverse": {"images": 1, "columns": 3, "steps": 5},
    "score_field": {"sigmas": (0.2, 0.05), "arrows": 5},
    "sde_and_ode": {"paths": 4, "steps": 60},
    "samplers": {"integrators": {name: COMPARED[name] for name in ("DDIM", "DDPM")}, "budgets": (3, 33), "count": 300},
    "convergence": {"steps": (64, 128, 256), "budgets": (5, 17), "count": 200},
    "schedules": {"learn_steps": 5, "points": 60},
    "parametrisations": {"sigmas": (0.1, 3.0)},
    "losses": {"count": 300, "points": 40, "learn_steps": 300},
    "guidance": {"scales": (0.0, 1.0, 3.0), "count": 60, "steps": 10},
    "likelihood": {"cells": 8, "count": 20, "steps": 40, "draws": 10},
    "flow_map": {"sigmas": (0.1, 0.5), "count": 40, "points_each": 30},
}
PANELS = {"forward": 12, "reverse": 6, "score_field": 2, "sde_and_ode": 6, "samplers": 4, "convergence": 2, "schedules": 3,
          "parametrisations": 12, "losses": 3, "guidance": 3, "likelihood": 3, "flow_map": 4}
WORDS = {
    "forward": ["VP", "VE", r"$\sigma = 0.3$", "$a = 0.86$, $s = 0.51$"],
    "reverse": ["state", "estimate", r"$D(x, \sigma)$"],
    "score_field": [r"$\sigma = 0.2$"],
    "sde_and_ode": ["Reverse SDE", "Probability-flow ODE", "time $t$", "state $z_t$"],
    "samplers": ["DDIM", "DDPM", "3 calls", "33 calls", "sliced Wasserstein"],
    "convergence": ["denoiser calls", "Heun, order 2", "between two sets of exact draws"],
    "schedules": ["linear", "cosine", "sigmoid", "EDM", "flow matching", "learned", "sub-VP", r"$\sigma$ (image units)"],
    "parametrisations": ["state", "noise", "image", "v", "score", "velocity", r"$\sigma = 3$"],
    "losses": ["EDM", "flow matching", "learned uncertainty", "cosine chain", "by loss"],
    "guidance": ["scale 0: any class", "scale 1: the class", "scale 3"],
    "likelihood": ["exact trace", "one random probe", "(nats)", "sum, the bound"],
    "flow_map": [r"$f(x, \sigma)$: one call", "clean estimate"],
}


@pytest.fixture(scope="module")
def drawn(tiny_prior):
    """Draws each figure once, small, as it is shown: warnings are errors."""
    made = {}

    def get(name):
        if name not in made:
            options = dict(SMALL[name])
            if name == "reverse":
                options["prior"] = load_prior(tiny_prior(1, 0.5))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                made[name] = FIGURES[name](**options)
                made[name].draw_without_rendering()
        return made[name]
    return get


def words(figure):
    return " ".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_its_panels_and_its_words_within_its_edges(drawn, name):
    figure = drawn(name)
    assert len(figure.axes) == PANELS[name]
    assert not [word for word in WORDS[name] if word not in words(figure)]
    assert figure.get_size_inches()[0] == 7
    width, height = figure.bbox.width, figure.bbox.height
    for panel in figure.axes:
        box = panel.get_tightbbox()
        assert -1 <= box.x0 < box.x1 <= width + 1
        assert -1 <= box.y0 < box.y1 <= height + 1
    # titles of neighbours, and the title of all, do not run into each other
    titles = [figure._suptitle, *(panel.title for panel in figure.axes)]
    boxes = [text.get_window_extent() for text in titles if text.get_text()]
    assert not [1 for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 6.5


def test_every_figure_has_a_caption_with_a_source():
    assert list(CAPTIONS) == list(FIGURES)
    assert all(re.search(r"\(.*\b(19|20)\d\d.*\)\.$", caption) for caption in CAPTIONS.values())


def test_draw_leaves_out_what_a_figure_does_not_take():
    assert len(draw("score_field", seed=1, prior=None).axes) == 4


def test_forward_shows_what_the_processes_make_of_the_image(drawn):
    panels = np.reshape(drawn("forward").axes, (4, 3))
    image = panels[1, 0].images[0].get_array()
    noise = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    x0 = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    z = VP().jump(2 * x0 - 1, VP().time(0.3), noise)
    shown = panels[0, 1].images[0].get_array()
    assert np.abs(to_uint8(0.5 + z / (1 + 0.3 / 0.34**0.5) / 2).astype(int) - shown).max() <= 2       # s = 0.3 / sqrt(0.34)
    x = VE().jump(x0, VE().time(0.3), noise)
    low, high = (float(n.replace("$", "").replace("−", "-")) for n in panels[1, 1].get_xlabel().split(" to "))
    assert float((x < low - 0.06).float().mean()) < 0.01 > float((x > high + 0.06).float().mean())


@pytest.mark.parametrize("channels", [1, 2])
def test_the_last_estimate_of_the_reverse_process_is_the_sample(tiny_prior, channels):
    prior = load_prior(tiny_prior(channels, 0.5))
    figure = FIGURES["reverse"](prior, images=1, columns=3, steps=5, seed=2)
    images = sample(prior, 1, DPMSolverPP(), steps=5, size=(64, 64), seed=2, device="cpu").images
    last = figure.axes[5].images[0].get_array()
    expected = images[0] if channels == 1 else images[0].norm(dim=0, keepdim=True)
    assert np.array_equal(last[..., 0], to_uint8(expected))
    whole = FIGURES["reverse"](prior, images=1, columns=9, steps=6, seed=2).axes
    half = FIGURES["reverse"](prior, images=1, columns=9, steps=6, left=0.5, seed=2).axes
    assert len(half) == len(whole) // 4 * 2 < len(whole)
    for above, below in zip(half[:len(half) // 2], whole, strict=False):         # the same way, not gone to its end
        assert above.get_title() == below.get_title()
        assert np.array_equal(above.images[0].get_array(), below.images[0].get_array())


def test_a_latent_prior_is_refused(tiny_prior):
    prior = load_prior(tiny_prior(1, 0.5))
    prior.latent = True
    with pytest.raises(InputError, match="latent space"):
        FIGURES["reverse"](prior)


def test_arrows_point_along_the_gradient_of_the_log_density(drawn):
    for panel, sigma in zip(drawn("score_field").axes, (0.2, 0.05), strict=True):
        (arrows,) = (each for each in panel.collections if isinstance(each, Quiver))
        x = grid((0, 1, 0, 1), 5).requires_grad_()
        (score,) = torch.autograd.grad(three_modes().log_prob(x, sigma).sum(), x)
        score = score.reshape(-1, 2)
        shown = torch.from_numpy(np.stack([arrows.U, arrows.V], 1))
        along = torch.nn.functional.cosine_similarity(shown, score)
        assert torch.allclose(along, torch.ones_like(along), atol=1e-6)
        r = sigma * score.norm(dim=1)
        assert torch.allclose(shown.norm(dim=1), r / (r + 0.4), atol=1e-6)


def test_paths_end_where_the_integrator_ends_and_the_flow_s_never_cross(drawn):
    _, sde, _, _, ode, _ = drawn("sde_and_ode").axes
    process, first = VP(rate=CosineRate()), float(VP(rate=CosineRate()).time(paths_module.HIGH))
    lines = [axes.lines[::2] for axes in (sde, ode)]
    assert all(len(each) == 4 for each in lines)
    starts = [[path.get_ydata()[0] for path in each] for each in lines]
    assert starts[0] == starts[1]
    z = torch.tensor(starts[1], dtype=torch.float64).reshape(-1, 1, 1, 1)
    sigmas = process.sigma(torch.linspace(first, 0, 61, dtype=torch.float64))
    ends = run(Heun(), line(), sigmas, process.to_frame(z, first)[0])[-1].x
    assert [path.get_ydata()[-1] for path in lines[1]] == pytest.approx((2 * ends - 1).flatten().tolist())
    states = np.stack([path.get_ydata() for path in lines[1]])
    assert (np.diff(states, axis=0) > 0).all()
    roughness = [np.abs(np.diff(np.stack([path.get_ydata() for path in each]), 2, axis=1)).mean() for each in lines]
    assert roughness[0] > 10 * roughness[1]


def test_samplers_keep_to_the_budget_and_more_calls_bring_them_closer(drawn):
    near = [float(panel.texts[0].get_text()) for panel in drawn("samplers").axes]
    assert near[2] < near[0]
    assert near[3] < near[1]
    assert [len(panel.collections[0].get_offsets()) for panel in drawn("samplers").axes] == [300] * 4
    assert [steps_within(Heun(), calls) for calls in (1, 2, 3, 9)] == [1, 1, 2, 5]
    for name, integrator in COMPARED.items():
        assert samples_of(integrator, moons(), 9, 10, 0, Karras()).shape == (10, 2), name
    with pytest.raises(ValueError, match="RK45 chooses its own steps"):
        steps_within(RK45(), 9)


def test_curves_of_convergence_have_the_slope_of_their_order(drawn):
    curves = {each.get_label(): each.get_xydata() for each in drawn("convergence").axes[0].lines}
    for name, (_, order) in FLOW.items():
        calls, errors = np.log(curves[f"{name}, order {order}"][-2:]).T
        assert -np.diff(errors)[0] / np.diff(calls)[0] == pytest.approx(order, abs=0.4), name


def test_schedules_are_those_of_their_processes(drawn):
    kept, snr, levels = drawn("schedules").axes
    pairs = list(zip(kept.lines[::2], kept.lines[1::2], strict=True))
    assert len(pairs) == 6
    for i, (a, s) in enumerate((a.get_ydata(), s.get_ydata()) for a, s in pairs):
        preserved = {3: a + s, 5: a**2 + s}.get(i, a**2 + s**2)     # flow matching is the fourth, sub-VP the last
        assert np.allclose(preserved, 1, atol=1e-6)
    assert len(snr.lines) == 7
    assert all((np.diff(each.get_ydata()) < 0).all() for each in snr.lines)
    for each in levels.lines:
        assert each.get_ydata()[[0, -1]] == pytest.approx([80, 0.002], rel=1e-3)


def test_targets_are_those_of_the_state_that_is_shown(drawn):
    panels = np.reshape(drawn("parametrisations").axes, (6, 2))
    of = {name: [panel.images[0].get_array() / 127.5 - 1 for panel in row]
          for name, row in zip(("noise", "image", "v", "score", "velocity"), panels[1:], strict=True)}
    reach = {name: [float(panel.get_xlabel().replace(r"$\pm ", "").replace("$", "")) for panel in row]
             for name, row in zip(of, panels[1:], strict=True)}
    said = {name: [reach[name][i] * of[name][i] for i in range(2)] for name in of}
    for i, sigma in enumerate((0.1, 3.0)):
        a, s = 0.5 / np.hypot(0.5, sigma), sigma / np.hypot(0.5, sigma)
        inside = np.abs(of["noise"][i]) < 0.9                       # what the picture does not cut off
        for name, target in {"v": a * said["noise"][i] - s * said["image"][i], "score": -said["noise"][i] / s,
                             "velocity": said["noise"][i] - said["image"][i]}.items():
            error = (said[name][i] - target)[inside & (np.abs(of[name][i]) < 0.9)]
            assert np.abs(error).max() < 0.05 * reach[name][i], name            # two digits, and 255 greys


def test_losses_weigh_as_they_should_and_learned_uncertainty_makes_levels_even(drawn):
    counts, remains, shown = drawn("losses").axes
    curves = {each.get_label(): each.get_xydata().T for each in counts.lines}
    sigma, eps = curves["eps (DDPM, NCSN)"]
    at = np.abs(np.log(sigma / 0.25)).argmin()
    assert np.allclose(eps, (sigma[at] / sigma) ** 2)
    assert np.allclose(curves["x0"][1], 1)
    assert np.allclose(curves["min-SNR"][1][sigma > 0.25], eps[sigma > 0.25])
    left = {name: each.get_ydata() for name, each in zip(curves, remains.lines, strict=True)}
    assert left["learned uncertainty"].min() > 0.9 > left["EDM"].min()
    for each in shown.lines:                                        # densities over log10 sigma
        x, y = each.get_xydata().T
        assert (y * np.diff(np.log10(x)).mean()).sum() == pytest.approx(1, abs=0.01), each.get_label()


def test_classes_are_mixtures_and_guidance_moves_them_outwards(drawn):
    prior = overlapping_classes()
    x = noise_at(0.3, 6, 2, seed=1)
    got = prior(x, 0.3, torch.tensor([0, 1, 2, -1, 0, -1]))
    for i, k in enumerate((0, 1, 2, -1, 0, -1)):
        expected = (prior.each[k] if k >= 0 else prior.all)(x[i : i + 1], 0.3)
        assert torch.allclose(got[i : i + 1], expected, atol=1e-12)
    assert torch.equal(prior(x, 0.3), prior.all(x, 0.3))
    far = []
    for panel in drawn("guidance").axes:
        sets = [each.get_offsets() for each in panel.collections if isinstance(each, PathCollection)]
        far.append(np.mean([np.linalg.norm(each - 0.5, axis=1).mean() for each in sets]))
        assert len(sets) == (1 if panel is drawn("guidance").axes[0] else 3)
    assert far[2] > far[1] + 0.05


def test_the_flow_s_likelihood_is_the_exact_one():
    prior = three_modes()
    x = exact_draws(prior, 12, 0)
    assert torch.allclose(flow_log_prob(prior, x, 80), prior.log_prob(x, LOW), atol=0.05)


def test_points_of_a_path_have_one_end():
    prior, sigmas = line(), torch.logspace(0.3, -2, 200, dtype=torch.float64)
    chain = run(DPMSolver(), prior, sigmas, noise_at(float(sigmas[0]), 5, 1, seed=0))
    ends = [flow_end(prior, chain[i].x, chain[i].sigma, tolerance=1e-7) for i in (20, 100, 170)]
    assert torch.allclose(ends[0], ends[2], atol=1e-4)
    assert torch.allclose(ends[1], ends[2], atol=1e-4)
