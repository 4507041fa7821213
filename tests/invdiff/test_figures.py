import numpy as np
import pytest
import torch
from PIL import ImageDraw

from invdiff import figures
from invdiff.figures import colorize, comparison, heatmap


def green(height, width):
    """A panel of a colour that no text has."""
    return torch.tensor([0.0, 1.0, 0.0])[:, None, None].expand(3, height, width)


PANEL = green(256, 256)


def where(picture, colour):
    """(left, top, right, bottom) of the pixels of that colour, one past the end."""
    rows, columns = np.nonzero((np.asarray(picture) == colour).all(-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.fixture
def texts(monkeypatch):
    """(left, top, right, bottom) of every text drawn."""
    boxes = []
    draw = ImageDraw.ImageDraw.multiline_text

    def spy(self, xy, text, fill, font, **options):
        if text:
            boxes.append((text, self.multiline_textbbox(xy, text, font, **options)))
        return draw(self, xy, text, fill, font, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "multiline_text", spy)
    return boxes


def test_panels_are_shown_pixel_for_pixel():
    panels = {"a": torch.rand(3, 256, 200), "b": torch.rand(1, 1, 256, 200)}
    picture = np.asarray(comparison(panels))
    for x in panels.values():
        pixels = (x.reshape(-1, 256, 200) * 255).round().byte().expand(3, -1, -1).permute(1, 2, 0).numpy()
        rows, columns = np.nonzero((picture == pixels[0, 0]).all(-1))
        corners = zip(rows, columns, strict=True)
        assert any(np.array_equal(picture[i : i + 256, j : j + 200], pixels) for i, j in corners)


def test_a_small_panel_is_enlarged_to_the_largest_without_smoothing():
    low = torch.zeros(3, 64, 64)
    low[0] = torch.rand(64, 64) > 0.5
    picture = comparison({"low": low + torch.tensor([0.0, 1.0, 0.0])[:, None, None], "high": 1 - PANEL})
    values = np.asarray(picture)
    mask = (values[..., 1] == 255) & (values[..., 2] == 0)
    assert mask.sum() == 256 * 256
    rows, columns = np.nonzero(mask)
    shown = values[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1, 0]
    assert np.array_equal(shown, np.kron(low[0].numpy(), np.ones((4, 4))) * 255)


@pytest.mark.parametrize(("side", "shown"), [(32, 224), (199, 398), (200, 200), (300, 300)])
def test_small_pictures_are_enlarged_by_an_integer(side, shown):
    left, top, right, bottom = where(comparison({"x": green(side, side)}), (0, 255, 0))
    assert (right - left, bottom - top) == (shown, shown)


def test_a_long_flat_panel_does_not_burst_the_figure():
    picture = comparison({"flat": torch.rand(1, 1, 1000), "x": PANEL})
    assert picture.width < 2500
    assert picture.height < 1500


def test_panoramas_are_below_one_another_and_large_images_shrunk(texts):
    panels = {"a": green(100, 4000), "b": green(50, 2000)}
    picture = comparison(panels, {"a": "PSNR 24.1 dB"})
    assert picture.width < 1300
    left, _, right, _ = where(picture, (0, 255, 0))
    assert right - left == 1200
    rows = (np.asarray(picture) == (0, 255, 0)).all(-1).any(1)
    assert np.diff(rows.astype(int)).tolist().count(1) == 2          # panels with paper between them
    assert [text for text, _ in texts] == ["a", "PSNR 24.1 dB", "b"]
    large = comparison({"a": green(2000, 3000), "b": green(2000, 3000)})
    assert large.width < 2700
    assert large.height < 1000
    assert heatmap(torch.rand(1, 100, 3000)).width >= 3000           # a map is kept as it is


@pytest.mark.parametrize("side", [20, 100, 256, 700])
@pytest.mark.parametrize("default_font", [False, True])
def test_labels_never_overlap_nor_leave_the_canvas(texts, monkeypatch, side, default_font):
    if default_font:
        monkeypatch.setattr(figures, "find_spec", lambda name: None)
    x = green(side, side)
    panels = {"measurement": x, "AWordThatIsMuchLongerThanAnyPanelCouldBeWideByItself" * (side // 200 + 1): x,
              "several words that have to be wrapped onto more lines than one": x, "gjpqy": x}
    captions = {name: f"PSNR 24.1 dB, SSIM 0.812, residual 1.01 (expected 1.00) {i}" for i, name in enumerate(panels)}
    picture = comparison(panels, captions)
    shown = where(picture, (0, 255, 0))
    columns = (np.asarray(picture) == (0, 255, 0)).all(-1).any(0)
    assert np.diff(columns.astype(int)).tolist().count(1) == 4    # panels with paper between them
    assert len(texts) == 8
    for _, (left, top, right, bottom) in texts:
        assert min(left, top) >= 0
        assert right <= picture.width
        assert bottom <= picture.height
        assert bottom <= shown[1] or top >= shown[3]
    for i, (_, a) in enumerate(texts):
        for _, b in texts[:i]:
            assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


def test_a_complex_panel_is_its_magnitude():
    x = torch.stack([torch.full((256, 256), 0.3), torch.full((256, 256), -0.4)])
    assert (np.asarray(comparison({"x": x})) == 128).all(-1).sum() >= 256 * 256


def test_greek_is_drawn_and_not_boxes():
    pytest.importorskip("matplotlib")
    assert not np.array_equal(np.asarray(comparison({"σ": PANEL})), np.asarray(comparison({"Π": PANEL})))


@pytest.mark.parametrize(("panels", "captions"), [({}, None), ({"a": PANEL}, {"b": "x"}), ({"a": PANEL[0]}, None),
                                                  ({"a": PANEL * torch.nan}, None)])
def test_bad_panels(panels, captions):
    with pytest.raises(ValueError, match=r"expected|NaN"):
        comparison(panels, captions)


def test_colours_are_those_of_magma():
    matplotlib = pytest.importorskip("matplotlib")
    std = torch.linspace(0, 0.07, 256).expand(3, 1, 256)
    rgb, top = colorize(std)
    want = torch.from_numpy(matplotlib.colormaps["magma"](np.arange(256))[:, :3].T).float()
    assert (rgb[:, 0] - want).abs().max() < 3 / 255
    assert top == pytest.approx(0.07)


def test_brightness_grows_with_the_mean_over_channels():
    std = torch.rand(1, 3, 20, 30)
    rgb, top = colorize(std)
    mean = std[0].double().mean(0)
    assert top == mean.max()
    brightness = rgb.sum(0).flatten()[mean.flatten().argsort()]
    assert (brightness.diff() >= 0).all()


def test_zero_uncertainty_is_black():
    rgb, top = colorize(torch.zeros(1, 4, 5))
    assert top == 0
    assert rgb.max() < 5 / 255


@pytest.mark.parametrize("std", [torch.zeros(4, 4), torch.full((1, 2, 2), torch.nan), -torch.ones(1, 2, 2)])
def test_bad_uncertainty(std):
    with pytest.raises(ValueError, match="std: "):
        colorize(std)


@pytest.mark.parametrize("shape", [(3, 256, 256), (1, 16, 16), (1, 700, 300), (1, 300, 8)])
def test_the_scale_fits_below_the_map(shape):
    std = torch.rand(shape) * 1.2345e-7
    picture = heatmap(std)
    text = np.asarray(picture.convert("L"))[-round(picture.height / 20) :]
    assert text.min() < 100    # ink
    assert (text[:, :1] == 255).all()    # and none cut off
    assert (text[:, -1:] == 255).all()
