"""Pictures for people: restorations side by side, maps of uncertainty, and sheets of samples."""

import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from invdiff.io.files import replacing, writing
from invdiff.io.images import to_uint8

_MIN_SIDE = 200    # pixels; smaller panels leave no room for their labels
_MAX_SIDE = 1200    # pixels; five of larger ones make a figure that few viewers open
_GAP = 2            # pixels between the samples of a sheet
_PANORAMA = 2.5     # times as wide as tall
_INK, _PAPER = (30, 30, 30), (255, 255, 255)
# Magma (S. van der Walt and N. Smith, CC0), perceptually uniform, at every 15th of its 256 levels.
_MAGMA = np.frombuffer(bytes.fromhex(
    "000004 090720 1a1042 311165 4a1079 621980 792282 912b81 aa337d"
    "c23b75 d9466b ec5860 f7725c fc8e64 feaa74 fec68a fde2a3 fcfdbf"
), np.uint8).reshape(-1, 3) / 255


def comparison(panels: Mapping[str, torch.Tensor], captions: Mapping[str, str] | None = None) -> Image.Image:
    """Panels side by side, each with its name above and its caption, e.g. "PSNR 24.1 dB", below.

    A panel is (C, H, W) or (1, C, H, W) with C = 1, 3, or 2 for a complex image, shown as magnitude; white is 1.
    Smaller panels are enlarged to the size of the largest, and all where that is under 200 pixels, without smoothing. Those
    of more than 1200 pixels are shrunk to that, and panoramas are put one below the other.
    Raises ValueError for other shapes, for NaN, and for a caption without a panel.
    """
    captions = captions or {}
    if not panels or captions.keys() - panels.keys():
        raise ValueError(f"panels: expected one for each of the captions {list(captions)}, got {list(panels)}")
    images = _same_size([_image(panel) for panel in panels.values()], _MAX_SIDE)
    font = _font(max(15, max(image.height for image in images) // 16))
    gap = round(font.size)
    columns = []
    for image, name in zip(images, panels, strict=True):
        title, caption = (_wrap(text, font, image.width) for text in (name, captions.get(name, "")))
        columns.append((image, title, caption))
    width, height = (max(side) for side in zip(*(image.size for image in images), strict=True))
    if width <= _PANORAMA * height:
        return _row(columns, font, gap)
    return _stack([_row([column], font, gap) for column in columns])


def _stack(rows: list[Image.Image]) -> Image.Image:
    canvas = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), _PAPER)
    top = 0
    for row in rows:
        canvas.paste(row, ((canvas.width - row.width) // 2, top))
        top += row.height
    return canvas


def _row(columns: list[tuple[Image.Image, str, str]], font: ImageFont.FreeTypeFont, gap: int) -> Image.Image:
    widths = [max(image.width, _extent(title, font)[0], _extent(caption, font)[0]) for image, title, caption in columns]
    above = max(_extent(title, font)[1] for _, title, _ in columns) + gap // 2
    below = max(_extent(caption, font)[1] for _, _, caption in columns)
    height = max(image.height for image, _, _ in columns)
    bottom = gap + above + height
    size = (sum(widths) + gap * (len(columns) + 1), bottom + (gap // 2 + below if below else 0) + gap)
    canvas = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(canvas)
    left = gap
    for (image, title, caption), width in zip(columns, widths, strict=True):
        middle = left + width / 2
        canvas.paste(image, (left + (width - image.width) // 2, gap + above + (height - image.height) // 2))
        top = gap + above - gap // 2 - _extent(title, font)[1]
        draw.multiline_text((middle, top), title, _INK, font, anchor="ma", align="center")
        draw.multiline_text((middle, bottom + gap // 2), caption, _INK, font, anchor="ma", align="center")
        left += width + gap
    return canvas


def colorize(std: torch.Tensor) -> tuple[torch.Tensor, float]:
    """A map of standard deviations (C, H, W) or (1, C, H, W), averaged over channels, in the colours of magma.

    Returns an RGB tensor (3, H, W) in [0, 1] and the value of its brightest colour, the map's maximum; black is 0.
    Raises ValueError for other shapes and for NaN, infinite or negative values.
    """
    std = std[0] if std.ndim == 4 and len(std) == 1 else std
    if std.ndim != 3 or std.numel() == 0:
        raise ValueError(f"std: expected (C, H, W) or (1, C, H, W), got {tuple(std.shape)}")
    values = std.detach().double().mean(0).cpu().numpy()
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError("std: expected finite values of 0 and more")
    top = float(values.max())
    levels = np.linspace(0, 1, len(_MAGMA))
    rgb = [np.interp(values / (top or 1.0), levels, _MAGMA[:, channel]) for channel in range(3)]
    return torch.from_numpy(np.stack(rgb)).float(), top


def heatmap(std: torch.Tensor) -> Image.Image:
    """`colorize` as a picture, with a colour scale from 0 to the maximum below. Raises ValueError as it does."""
    rgb, top = colorize(std)
    (image,) = _same_size([_image(rgb)])
    font = _font(max(15, image.height // 16))
    label = f"{top:.3g}"
    width = max(image.width, _extent(f"0  {label}", font)[0] + 4)
    gap, line = round(font.size / 2), _extent(label, font)[1]
    bar = _image(colorize(torch.linspace(0, 1, width).expand(1, 1, -1))[0]).resize((width, round(1.5 * gap)))
    below = image.height + gap + bar.height + gap // 2
    canvas = Image.new("RGB", (width, below + line), _PAPER)
    canvas.paste(image, ((width - image.width) // 2, 0))
    canvas.paste(bar, (0, image.height + gap))
    draw = ImageDraw.Draw(canvas)
    draw.text((2, below), "0", _INK, font, anchor="la")
    draw.text((width - 2, below), label, _INK, font, anchor="ra")
    return canvas


def _image(x: torch.Tensor) -> Image.Image:
    if x.ndim >= 3 and x.shape[-3] == 2:    # complex: magnitude
        x = torch.linalg.vector_norm(x.float(), dim=-3, keepdim=True)
    return Image.fromarray(to_uint8(x)).convert("RGB")


def _same_size(images: list[Image.Image], most: float = math.inf) -> list[Image.Image]:
    """Each enlarged to fit the box that holds them all, and the box enlarged, by an integer, to _MIN_SIDE, or shrunk to `most`
    pixels."""
    width, height = max(image.width for image in images), max(image.height for image in images)
    factor = min(math.ceil(_MIN_SIDE / max(width, height)), most / max(width, height))
    resized = []
    for image in images:
        scale = factor * min(width / image.width, height / image.height)
        size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
        resized.append(image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS))
    return resized


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans where matplotlib is installed, for its Greek letters; Pillow's own font has ASCII only."""
    spec = find_spec("matplotlib")    # found, not imported: that takes a second
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
        if file.is_file():
            return ImageFont.truetype(str(file), size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)    # as in every wheel of Pillow
    return font


def _extent(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Width and height in pixels; 0 x 0 for no text."""
    if not text:
        return 0, 0
    draw = ImageDraw.Draw(Image.new("L", (1, 1)))
    _, _, right, _ = draw.multiline_textbbox((0, 0), text, font)
    lines = text.count("\n") + 1
    return math.ceil(right), math.ceil(lines * sum(font.getmetrics()) + (lines - 1) * 4)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Breaks between words; a word wider than `width` stays whole, and its column gets wider."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def sheet(samples: torch.Tensor) -> Image.Image:
    """(N, C, H, W) as one picture, N images in about as many rows as columns; of complex ones the magnitude. White is 1."""
    if samples.shape[1] == 2:
        samples = torch.linalg.vector_norm(samples, dim=1, keepdim=True)
    values = (samples.float().nan_to_num(0).clamp(0, 1) * 255).round().byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    count, height, width = values.shape[:3]
    columns = math.ceil(count**0.5)
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), 255, np.uint8)
    for i, image in enumerate(values):
        top, left = (_GAP + k * (n + _GAP) for k, n in zip(divmod(i, columns), (height, width), strict=True))
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas)


def save_sheet(path: Path, picture: Image.Image) -> None:
    """A PNG, written whole or not at all. Raises InputError where it cannot be."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            picture.save(temporary, "PNG")
