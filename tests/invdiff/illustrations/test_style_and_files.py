"""Densities are shown upright, in even steps of colour, and a figure is the same file twice, whole or not at all."""

import numpy as np
import pytest
import torch

from invdiff.illustrations.gallery import FIGURES
from invdiff.illustrations.plane import density
from invdiff.illustrations.saving import save
from invdiff.illustrations.style import BLUE, DENSITY, VERMILION

SMALL = {"sigmas": (0.2, 0.05), "arrows": 5}


def test_a_density_is_shown_upright():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    density(axes, lambda x: -(x.reshape(-1, 2) - torch.tensor([0.15, 0.85])).square().sum(1), (0.0, 1.0, 0.0, 1.0), count=10)
    shown = axes.images[0]
    row, column = np.unravel_index(np.argmax(shown.get_array()), (10, 10))
    assert (row, column) == (8, 1)
    assert shown.origin == "lower"


def test_the_density_s_colours_are_even_steps_from_white():
    from skimage.color import rgb2lab

    lab = rgb2lab(DENSITY(np.linspace(0, 1, 12))[None, :, :3])[0]
    assert lab[0, 0] == pytest.approx(100, abs=0.5)
    steps = -np.diff(lab[:, 0])
    assert steps.min() > 0.7 * steps.max() > 0
    assert BLUE != VERMILION


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_figure_is_the_same_file_twice_and_whole(tmp_path, monkeypatch, kind):
    paths = [save(FIGURES["score_field"](**SMALL), tmp_path / folder, "s", (kind,))[0] for folder in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    if kind == "svg":
        text = paths[0].read_text()
        assert "<dc:date>" not in text
        assert "</svg>" in text
    else:
        from PIL import Image

        assert Image.open(paths[0]).size[0] == 1400

    class Stopped(Exception):
        pass

    def half(figure, path, **options):
        path.write_bytes(b"half")
        raise Stopped

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half)
    before = paths[0].read_bytes()
    with pytest.raises(Stopped):
        save(FIGURES["score_field"](**SMALL), tmp_path / "a", "s", (kind,))
    assert paths[0].read_bytes() == before
    assert [path.name for path in (tmp_path / "a").iterdir()] == [f"s.{kind}"]
