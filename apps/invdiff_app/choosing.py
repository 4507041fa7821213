"""The left side of a page on photos: image and degradation. What is chosen becomes a config."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from invdiff.errors import InputError
from invdiff_app import operators_shown, text
from invdiff_app.guard import guarded
from invdiff_app.session import keep_file, remembered

SIZES = (128, 192, 256)
LARGEST = 512               # pixels of a side that is restored here
MAX_PIXELS = 40_000_000     # of an upload, before it is scaled down
MEGABYTES = 30
VOLUMES = (".nii", ".gz", ".h5", ".hdf5")      # a slice of which is restored; .gz is that of .nii.gz


@dataclass
class Picture:
    """What is to be restored. path: None for the command line's own photo. size: (H, W). names: what the paths are called for
    the user. given: the files that come with a download, by name. awaited: there is no file, or a bad one. transparent: a part
    of the measurement is. mask: where that is from, a key of `text.MASKS`, with the name and content of its file."""

    kind: str = "truth"
    path: Path | None = None
    size: tuple[int, int] = (256, 256)
    names: dict[str, str] = field(default_factory=dict)
    given: dict[str, Path] = field(default_factory=dict)
    note: str = ""
    awaited: bool = False
    transparent: bool = False
    mask: str = "drawn"
    mask_file: tuple[str, bytes] | None = None


def choose_picture() -> Picture:
    """The image's widgets. A picture that is awaited has the size of the last one, so that no setting changes meanwhile."""
    st.subheader(text.IMAGE)
    source = st.radio(text.SOURCE, list(text.SOURCES), format_func=text.SOURCES.__getitem__, key="source", horizontal=True,
                      bind="query-params")
    if source == "bundled":
        photo = st.selectbox(text.PHOTO, list(text.PHOTOS), format_func=text.PHOTOS.__getitem__, key="photo",
                             bind="query-params")
        size = st.select_slider(text.SIZE, SIZES, 256, key="size", bind="query-params")
        return bundled(photo, size)
    upload = st.file_uploader(text.UPLOAD, key="file", max_upload_size=MEGABYTES, help=text.PRIVATE)
    kind = st.radio(text.KIND, list(text.KINDS), format_func=text.KINDS.__getitem__, key="kind", bind="query-params")
    picture = Picture(kind, size=st.session_state.get("_size", Picture.size), awaited=True)
    if upload is None:
        st.caption(text.UPLOAD_FIRST)
    else:
        with guarded():
            picture = uploaded(upload.name, upload.getvalue(), kind)
    st.session_state["_size"] = picture.size
    return picture


def bundled(photo: str, size: int) -> Picture:
    from invdiff.io.images import sample_image
    from invdiff_app.pictures import png, shown

    if (photo, size) == ("astronaut", 256):
        return Picture()
    name = f"{photo}-{size}.png"
    path = keep_file(name, png(shown(sample_image(photo, size))))
    return Picture("truth", path, (size, size), {str(path): name}, {name: path})


@dataclass(frozen=True)
class Fitted:
    """An upload as it is restored: its name, its size (H, W), its content where that is not the file's own, a note, and whether
    a part of it is transparent."""

    name: str
    size: tuple[int, int]
    content: bytes | None
    note: str
    transparent: bool = False


def uploaded(name: str, content: bytes, kind: str) -> Picture:
    """A file of the user's, decoded only when it, its kind or its slice have changed. Raises InputError."""
    path, called = keep_file(name, content), plain_name(name)
    about = (str(path), called, kind)
    if path.suffix in VOLUMES:
        volume = _opened(path)
        number = _choose_slice(volume.slices)
        fitted = remembered("_upload", (*about, number), lambda: _slice(volume, number, called, kind))
    else:
        fitted = remembered("_upload", about, lambda: _image(path, called, kind))
    if fitted.content is None:
        seen_through = fitted.transparent and kind == "input"
        return Picture(kind, path, fitted.size, {str(path): called}, note=fitted.note, transparent=seen_through)
    path = keep_file("fitted.npy", fitted.content)
    return Picture(kind, path, fitted.size, {str(path): fitted.name}, {fitted.name: path}, fitted.note)


def read_picture(path: Path) -> Any:
    """An image (1, C, H, W), or a volume of images, by the file's name. Raises InputError."""
    from invdiff.io.images import load_image
    from invdiff.io.scans import open_images

    return open_images(path) if path.suffix in VOLUMES else load_image(path, max_pixels=MAX_PIXELS)


def _opened(path: Path) -> Any:
    """`read_picture`, whose refusal says what this page takes."""
    from invdiff.io.scans import open_scan

    try:
        return read_picture(path)
    except InputError as error:
        raise reworded(error, path, open_scan, text.IS_KSPACE, text.UPLOAD) from error


def reworded(error: InputError, path: Path, other: Callable[[Path], Any], elsewhere: str, formats: str) -> InputError:
    """A reader's refusal with what this page takes, or, where the `other` page's reader takes the file, with a word on that."""
    reason, _, advice = str(error).partition("; ")
    try:
        other(path)
    except InputError:
        return InputError(f"{reason}; give {formats}") if advice.startswith("expected") else error
    return InputError(f"{reason}; {elsewhere}")


def _choose_slice(count: int) -> int:
    return st.slider(text.SLICE, 0, count - 1, count // 2, key="volume_slice", bind="query-params") if count > 1 else 0


def _image(path: Path, called: str, kind: str) -> Fitted:
    """A picture as it is restored. Raises InputError."""
    fitted = _fitted(_opened(path), called, kind)
    if not _transparent(path):
        return fitted
    return replace(fitted, note=" ".join([text.TRANSPARENT, fitted.note]), transparent=True)


def _transparent(path: Path) -> bool:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            return file.has_transparency_data
    except UnidentifiedImageError:          # an array
        return False


def _slice(volume: Any, number: int, called: str, kind: str) -> Fitted:
    """A slice of a NIfTI volume or of fastMRI's images, its brightest value white, and its lowest black where that is below 0.
    Raises InputError."""
    image = volume.read(number)
    image = image.abs() if image.is_complex() else image
    low, high = min(float(image.min()), 0.0), float(image.max())
    if not high > low:
        raise InputError(text.EMPTY_SLICE.format(number))
    image, called = (image - low) / (high - low), f"{called.partition('.')[0]}-slice{number}.npy"
    fitted = _fitted(image[None, None], called, kind, made=True)
    return replace(fitted, note=" ".join([text.SHIFTED.format(low, high), fitted.note])) if low < 0 else fitted


def _fitted(image: Any, called: str, kind: str, made: bool = False) -> Fitted:
    """An image (1, C, H, W), a clean one that is too large scaled down. made: it is not in a file as it is."""
    import torch

    height, width = image.shape[-2:]
    if kind == "input" or max(height, width) <= LARGEST:
        return Fitted(called, (height, width), _npy(image[0].numpy()) if made else None, "")
    scale = LARGEST / max(height, width)
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    smaller = torch.nn.functional.interpolate(image, size, mode="bicubic", antialias=True).clamp(0, 1)
    return Fitted(f"{Path(called).stem}-{size[1]}x{size[0]}.npy", size, _npy(smaller[0].numpy()),
                  text.SCALED.format(width, height, size[1], size[0]))


def plain_name(name: str) -> str:
    """The name of an upload without folders, and without what no file is called."""
    plain = "".join(c for c in name.replace("\\", "/").rpartition("/")[2] if c.isprintable())[-80:]
    return plain if plain.strip(".") else "upload"


def _npy(array: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def choose_operator(picture: Picture) -> tuple[str, dict[str, Any]]:
    """Task, and values by dotted key of the config: operator and noise."""
    st.subheader(text.TASK)
    task = st.selectbox(text.TASK, list(text.TASKS), format_func=text.TASKS.__getitem__, key="task", bind="query-params",
                        label_visibility="collapsed")
    offered = operators_shown.TASKS[task]
    name = offered[0] if len(offered) == 1 else st.selectbox(text.OPERATOR, offered, format_func=text.OPERATORS.__getitem__,
                                                              key=f"{task}_kind", bind="query-params")
    if name == "mask_inpainting":
        from invdiff_app.masking import choose_mask

        choose_mask(picture)
    measured = picture.kind == "input"
    given: dict[str, Any] = {"operator": {"name": name, **operators_shown.parameters(name, picture.size, measured)}}
    auto = measured and task != "inpaint" and st.checkbox(text.NOISE_AUTO, key="auto", bind="query-params")
    default = 0.1 if task == "denoise" else 0.02
    given["sigma_y"] = "auto" if auto else st.slider(text.NOISE, 0.0, 0.5, default, 0.01, key=f"{task}_noise",
                                                     bind="query-params")
    if picture.path is not None:
        given[picture.kind] = str(picture.path)
    return task, given


def require_size(shape: Sequence[int]) -> None:
    """Raises InputError for an image to restore that is too large for this app."""
    if max(shape[-2:]) > LARGEST:
        raise InputError(text.TOO_LARGE.format(shape[-1], shape[-2], LARGEST, LARGEST))
