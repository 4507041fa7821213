"""Which pixels are missing: painted over the picture, white and black in a file, or transparent in the picture itself."""

from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from invdiff.errors import InputError
from invdiff_app import text
from invdiff_app.choosing import MAX_PIXELS, MEGABYTES, Picture, plain_name
from invdiff_app.session import keep_file, remembered

OF_A_RESULT = ("restored.png", "measurement.png", "std.png", "prior.png", "comparison.png")     # beside which it is downloaded


def choose_mask(picture: Picture) -> None:
    """The widgets for where a picture's mask is from."""
    offered = [source for source in text.MASKS if source != "transparent" or picture.transparent]
    picture.mask = st.radio(text.MASK, offered, format_func=text.MASKS.__getitem__, key="mask_from", bind="query-params")
    if picture.mask == "file":
        upload = st.file_uploader(text.MASK_FILE, key="mask_file", max_upload_size=MEGABYTES, help=text.PRIVATE)
        picture.mask_file = upload and (upload.name, upload.getvalue())


def put_mask(picture: Picture, operator: dict[str, Any]) -> bool:
    """The picture's mask, put into the operator's parameters and among the files that come with a download; False, and said
    what to do, while there is none. Raises InputError."""
    found = {"drawn": _drawn, "file": _given, "transparent": _opaque}[picture.mask](picture)
    if found is None:
        st.info(text.MASK_FIRST if picture.mask == "file" else text.DRAW_FIRST)
        return False
    path, name = found
    operator["mask"] = str(path)
    taken = [other for place, other in picture.names.items() if place != str(path)]
    if picture.mask == "file":
        taken += OF_A_RESULT
    while name in taken:
        name = f"my-{name}"
    picture.names[str(path)], picture.given[name] = name, path
    return True


def _drawn(picture: Picture) -> tuple[Path, str] | None:
    """With the brush. What is drawn is the visit's, at any size, for the brush is not on the page while a job runs."""
    from invdiff.io.images import load_image, sample_image
    from invdiff_app.components import draw_mask
    from invdiff_app.pictures import png, shown, without

    image = sample_image() if picture.path is None else load_image(picture.path)
    strokes = draw_mask(shown(image), st.session_state.get("_strokes", []), "drawn")
    st.session_state["_strokes"] = strokes
    if not strokes:
        return None
    size = tuple(image.shape[-2:])
    path = keep_file("mask.png", remembered("_mask", (strokes, size), lambda: png(without(strokes, size))))
    return path, "drawn-mask.png"


def _given(picture: Picture) -> tuple[Path, str] | None:
    """A file of the user's, of the picture's size. Raises InputError."""
    if picture.mask_file is None:
        return None
    name, content = picture.mask_file
    path = keep_file(name, content)
    size = remembered("_mask_size", str(path), lambda: _size(path))
    if size != tuple(picture.size):
        raise InputError(text.MASK_SIZE.format(size[1], size[0], picture.size[1], picture.size[0]))
    return path, plain_name(name)


def _size(path: Path) -> tuple[int, ...]:
    from invdiff.io.images import load_image

    return tuple(load_image(path, max_pixels=MAX_PIXELS, as_grey=False).shape[-2:])


def _opaque(picture: Picture) -> tuple[Path, str] | None:
    """White where the picture is wholly opaque: a pixel that is partly transparent is mixed with what it is laid over."""
    from PIL import Image, ImageOps

    from invdiff_app.pictures import png

    def made() -> bytes:
        with Image.open(picture.path) as file:
            alpha = np.asarray(ImageOps.exif_transpose(file).convert("RGBA"))[..., 3]
        return png(np.where(alpha == 255, 255, 0).astype(np.uint8))

    return keep_file("mask.png", remembered("_opaque", str(picture.path), made)), "opaque-mask.png"
