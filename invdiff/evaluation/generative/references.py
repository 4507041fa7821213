"""Images to be scored, and those to score them against, in batches of 8-bit pixels."""

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from invdiff.datasets.images import Cache, ImageSet, named_in, open_images
from invdiff.datasets.labels import read_labels
from invdiff.datasets.pixels import stored_for
from invdiff.diffusion.decoders import histogram_of
from invdiff.errors import InputError
from invdiff.evaluation.generative.evaluate import Reference
from invdiff.evaluation.generative.features import FeatureNetwork, Looked, look, to_bytes
from invdiff.evaluation.likelihood import evaluate_likelihood
from invdiff.priors import Guided
from invdiff.priors.facts import channels_of

MAX_BYTES = 8 * 1024**3
TRAIN, TEST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"), ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_BATCH = 250


@dataclass(frozen=True)
class Images:
    """Images of one size, by number, and their classes (N,), where they are known. `source` says where they are from."""

    images: ImageSet | Tensor
    classes: Tensor | None
    source: str

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int = _BATCH) -> Iterator[Tensor]:
        """uint8 (B, C, H, W), C = 1 or 3."""
        for first in range(0, len(self), size):
            part = self.images[first : first + size]
            if isinstance(part, Tensor):
                yield to_bytes(part)
            else:
                yield to_bytes(torch.from_numpy(np.stack(list(part)))).permute(0, 3, 1, 2)

    def seen_by(self, network: FeatureNetwork, batch_size: int | None = None) -> Looked:
        """What a network sees of them. Their classes go along where the network was trained to tell classes."""
        classes = self.classes if network.classes else None
        if classes is not None and len(classes) and int(classes.max()) >= len(network.classes):
            raise InputError(f"{self.source}: expected classes below {len(network.classes)}, as {network.name} knows no more, "
                             f"got {int(classes.max())}")
        return look(network, self.batches(batch_size or _BATCH), classes)


def reference(network: FeatureNetwork, data: str | Path, key: str | None = None, kept_apart: str | None = None,
              batch_size: int | None = None) -> tuple[Reference, dict[str, str]]:
    """What a network sees of `reference_images`, and the names of the two sets. Raises InputError."""
    real, apart = reference_images(data, key, kept_apart)
    others = apart.seen_by(network, batch_size) if apart else None
    found = Reference.of(real.seen_by(network, batch_size), others)
    return found, {"reference": real.source, **({"kept_apart": apart.source} if apart else {})}


def reference_images(data: str | Path, key: str | None, kept_apart: str | None) -> tuple[Images, Images | None]:
    """The reference, and the images kept apart from it for the floor, if there are.

    Args:
        data: a folder of images, or of idx files, or an HDF5 file.
        key: the dataset, the idx file or the folder (in `data`, or a path) of the reference; if nothing else is said, the
            training images, or all of a folder.
        kept_apart: likewise, for the floor: the test images of a folder of idx files, else none.

    Raises:
        InputError: not there, of another kind, images of several sizes, or a floor that is of the reference's
            own folder or dataset. Copies of its images elsewhere are not noticed.
    """
    data = Path(data)
    usual = [_found(data, names) for names in (TRAIN, TEST)]
    implied = usual[0][0] if usual[0] else "" if data.is_dir() else "train_jpeg"
    first = named_in(data, key, "--key") if key else (data, implied)
    second = named_in(data, kept_apart, "--floor") if kept_apart else (data, usual[1][0]) if usual[1] else None
    if second is None:
        return _open(*first), None
    one, other = (place.resolve() / name for place, name in (first, second))
    apart = not (one.is_relative_to(other) or other.is_relative_to(one))
    if kept_apart and not apart:
        raise InputError(f"--floor: {kept_apart} is not kept apart from the reference, {one.name}; name other images, or "
                         "the reference's by --key")
    return _open(*first), _open(*second) if apart else None


def _found(folder: Path, names: Sequence[str]) -> tuple[str, str] | None:
    """The idx files of images and of labels in a folder, as they are called there; no labels are ""."""
    there = [next((name + end for end in (".gz", "") if (folder / (name + end)).is_file()), "") for name in names]
    return (there[0], there[1]) if there[0] else None


def _open(data: Path, key: str) -> Images:
    images = open_images(data, key, Cache(0))
    if len(set(images.shapes)) > 1:
        raise InputError(f"{data}: images of several sizes; scores compare images of one, so resize or crop them")
    labels = next((pair[1] for names in (TRAIN, TEST) if (pair := _found(data, names)) and pair[0] == key), "")
    classes = torch.from_numpy(read_labels(data, labels, len(images), 2**31)) if labels else None
    return Images(images, classes, key or data.resolve().name)


def drawn_images(images: Tensor, classes: Tensor | None, prior: Any, network: FeatureNetwork, name: str) -> Images:
    """Images that a prior drew, with their classes if the prior and the network have the same ones."""
    same = getattr(prior, "card", {}).get("classes") == network.classes
    return Images(images, classes if same else None, name)


def likelihood_of(prior: Any, data: str | Path, key: str | None, kept_apart: str | None, count: int, seed: int,
                  device: torch.device, on_batch: Callable[[Any], object] | None = None) -> dict[str, Any]:
    """`evaluate_likelihood` of the first `count` images kept apart; the decoder knows how often the reference has each level.

    A prior that does not say its channels sees grey images as grey. `on_batch` gets a `Done`. Raises InputError: no images kept
    apart, or fewer than `count`, or a prior that has no density of images: of complex ones, of latents, or guided.
    """
    channels = channels_of(prior)
    kind = ("is of latents" if getattr(prior, "latent", False) else "is of complex images" if channels == 2 else
            "is guided, and guidance leaves no density" if isinstance(prior, Guided) and prior.scale != 1 else None)
    if kind:
        raise InputError(f"--likelihood: is that of 8-bit images by a prior of them, and this one {kind}")
    real, apart = reference_images(data, key, kept_apart)
    if apart is None:
        raise InputError(f"--likelihood: no images are kept apart from {real.source}; name them, --floor")
    if not 0 < count <= len(apart):
        raise InputError(f"--likelihood: expected 1 to {len(apart)} images kept apart from {real.source}, got {count}; --floor "
                         "names others")
    chosen = torch.cat(list(apart.batches()))[:count]
    channels = channels or (1 if bool((chosen == chosen[:, :1]).all()) else 3)
    images = _as_seen(channels, chosen)
    histogram = torch.stack([histogram_of(_as_seen(channels, batch)) for batch in real.batches()]).sum(0)

    def report(done: int, total: int) -> None:
        if on_batch:
            on_batch(Done(done, total))

    found = evaluate_likelihood(prior, images.to(device), histogram=histogram, seed=seed, on_batch=report)
    return {**found, "source": apart.source}


def _as_seen(channels: int, pixels: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) as a prior of 1 or 3 channels sees them, in [0, 1] at 8-bit levels."""
    seen = stored_for(channels, pixels.permute(0, 2, 3, 1).numpy())
    return torch.from_numpy(seen).permute(0, 3, 1, 2) / 255


@dataclass(frozen=True)
class Done:
    """How far a computation is."""

    done: int
    total: int


def sample_images(path: str | Path, known: Sequence[str] | None = None) -> Images:
    """Images that were drawn: a folder that `invdiff sample` wrote, another folder of images, a .npy file of them, or a .npz
    file with `images` and, perhaps, `classes`. Arrays are (N, H, W), (N, C, H, W) or (N, H, W, C), uint8 or floats in [0, 1].

    known: names of the classes that count. Where the report beside samples.npz names others, the classes are left out.

    Raises InputError for anything else; nothing is unpickled.
    """
    path = Path(path)
    name = path.name
    if path.is_dir() and (path / "samples.npz").is_file():
        path = path / "samples.npz"
    if (path / "result.h5").is_file():
        raise InputError(f"{path}: is what invdiff restore wrote, and no set of images of one kind; give a folder of such, or "
                         "a .npz or .npy file (invdiff benchmark scores restorations)")
    if path.is_dir():
        images = open_images(path, "", Cache(0))
        if len(set(images.shapes)) > 1:
            raise InputError(f"{path}: images of several sizes; scores compare images of one, so resize or crop them")
        return Images(images, None, name)
    arrays = _arrays(path)
    if "images" not in arrays:
        raise InputError(f"{path}: expected an array called images, got {', '.join(arrays) or 'none'}; rename it, or "
                         "give a .npy file")
    pixels, classes = _channels_first(path, arrays["images"]), arrays.get("classes")
    if classes is not None and (classes.shape != (len(pixels),) or classes.dtype.kind not in "iu"):
        raise InputError(f"{path}: classes: expected {len(pixels)} whole numbers, got {classes.dtype} {classes.shape}")
    if classes is None or (known and _names_beside(path) not in (None, list(known))):
        return Images(pixels, None, name)
    return Images(pixels, torch.from_numpy(classes.astype(np.int64)), name)


def _names_beside(path: Path) -> list[str] | None:
    """The names of the classes in the report that `invdiff sample` wrote beside samples.npz; None where there are none."""
    report = path.parent / "report.json"
    if path.name != "samples.npz" or not report.is_file():
        return None
    try:
        return json.loads(report.read_text(encoding="utf-8")).get("classes")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{report}: expected the report that invdiff sample writes beside samples.npz; put it back, or take "
                         "this one away") from error


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if path.is_file() and h5py.is_hdf5(path):
        raise InputError(f"{path}: is an HDF5 file; expected a folder of images, or a .npz or .npy file of them")
    try:
        if zipfile.is_zipfile(path):        # whatever its name, as for numpy
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                    raise InputError(f"{path}: unpacks to more than {MAX_BYTES:,} bytes; give fewer images")
        found: Any = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {"images": found}
        with found:
            return {name: found[name] if name in ("images", "classes") else np.empty(0) for name in found.files}
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; give a folder of images, or a .npz or .npy file") from error
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: expected a folder of images, or a .npz or .npy file of numbers ({error})") from error


def _channels_first(path: Path, array: np.ndarray) -> Tensor:
    shape = array.shape
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or not (array.dtype == np.uint8 or array.dtype.kind == "f"):
        raise InputError(f"{path}: images: expected (N, H, W), (N, C, H, W) or (N, H, W, C), C = 1 or 3, uint8 or floats, "
                         f"got {array.dtype} {shape}")
    # those of few steps stray
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and np.abs(array).sum() <= 2 * array.size):
        raise InputError(f"{path}: images: expected finite floats, most in [0, 1], got {array.min():g} to {array.max():g}")
    return torch.from_numpy(np.ascontiguousarray(array if array.dtype == np.uint8 else array.astype(np.float32)))
