"""Which acquisitions of an ISMRMRD file are k-space of which slice, and where on the grid they belong: headers alone tell."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import ismrmrd
import numpy as np

from invdiff.errors import InputError
from invdiff.io.scans.checks import choose_frame
from invdiff.io.scans.mrd_header import Encoding, MRDHeader, Space

_IGNORED = (
    ismrmrd.ACQ_IS_NAVIGATION_DATA,
    ismrmrd.ACQ_IS_PHASECORR_DATA,
    ismrmrd.ACQ_IS_HPFEEDBACK_DATA,
    ismrmrd.ACQ_IS_DUMMYSCAN_DATA,
    ismrmrd.ACQ_IS_RTFEEDBACK_DATA,
    ismrmrd.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA,
    ismrmrd.ACQ_IS_PHASE_STABILIZATION_REFERENCE,
    ismrmrd.ACQ_IS_PHASE_STABILIZATION,
)
_FRAME = ("contrast", "phase", "repetition", "set")


@dataclass(frozen=True)
class Choice:
    """Numbers of acquisitions, in the order of the file: imaging by slice, calibration by slice, and noise. reference: how the
    calibration was encoded, over the same field of view."""

    encoding: Encoding
    reference: Encoding
    contrast: int
    imaging: Sequence[np.ndarray]
    calibration: Sequence[np.ndarray]
    noise: np.ndarray
    notes: list[str] = field(default_factory=list)


def flagged(heads: np.ndarray, *flags: int) -> np.ndarray:
    """bool (n,): whether any of the flags, counted from 1, is set."""
    bits = np.uint64(sum(1 << (flag - 1) for flag in flags))
    return (heads["flags"].astype(np.uint64) & bits) != 0


def choose(path: str, header: MRDHeader, heads: np.ndarray, frame: int) -> Choice:
    """Sorts the acquisitions (n,) and picks a frame, one combination of encoding space, contrast, phase, repetition and set.

    Slices come in the order of their positions where these differ, else of their numbers. Raises InputError.
    """
    noise, frames = flagged(heads, ismrmrd.ACQ_IS_NOISE_MEASUREMENT), _frames(heads)
    ignored = flagged(heads, *_IGNORED) & ~noise
    both = flagged(heads, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING) & ~noise & ~ignored
    apart = flagged(heads, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION) & ~noise & ~ignored & ~both
    along = _along(heads, frames, ~noise & ~ignored & ~apart, apart, both)
    apart &= ~along
    imaging = np.flatnonzero(~noise & ~ignored & ~apart)
    if not len(imaging):
        raise InputError(f"{path}: none of its {len(heads)} acquisitions is an imaging one; expected k-space of an image")
    notes = [f"{ignored.sum()} navigator, phase-correction and feedback lines left out"] if ignored.any() else []
    present = np.unique(frames[imaging], axis=0)
    choose_frame(path, frame, len(present))
    chosen = present[frame]
    if len(present) > 1:
        what = ", ".join(f"{name} {value}" for name, value in zip(("encoding", *_FRAME), chosen, strict=True))
        notes.append(f"frame {frame} of {len(present)} ({what}); the others are left out")
    imaging = imaging[(frames[imaging] == chosen).all(axis=1)]
    if along[imaging].any():
        notes.append(f"{along[imaging].sum()} calibration lines, measured along with the image, are k-space of it as well")
    if chosen[0] >= len(header.encodings):
        raise InputError(f"{path}: its acquisitions refer to encoding space {chosen[0]}, and its XML header has only "
                         f"{len(header.encodings)}; export it again")
    if flagged(heads[imaging], ismrmrd.ACQ_IS_REVERSE).any():
        raise InputError(f"{path}: some lines are read in reverse (EPI); correct and regrid it first, phase correction is not "
                         "done here")
    encoding = header.encodings[chosen[0]]
    # of a series, the first frame alone may have calibration lines, which one that has them all can do without
    shared, steps = both | along, _steps(heads)
    own = both[imaging].any() or np.isin(steps[shared], steps[imaging]).all()
    lines = apart if apart.any() or own else shared
    reference, calibration, more = _calibration(header, encoding, np.flatnonzero(lines), frames, chosen)
    slices, sorting = _slices(heads, imaging)
    return Choice(
        encoding, reference, int(chosen[1]),
        [imaging[heads["idx"]["slice"][imaging] == number] for number in slices],
        [calibration[heads["idx"]["slice"][calibration] == number] for number in slices],
        np.flatnonzero(noise), [*notes, *more, *sorting],
    )


def _frames(heads: np.ndarray) -> np.ndarray:
    """int (n, 5)"""
    return np.stack([heads["encoding_space_ref"], *(heads["idx"][name] for name in _FRAME)], axis=1).astype(int)


def _steps(heads: np.ndarray) -> np.ndarray:
    """int (n,): a number for each slice and phase encoding there is."""
    return _numbered(*(heads["idx"][name] for name in ("slice", "kspace_encode_step_1", "kspace_encode_step_2")))


def _numbered(*columns: np.ndarray) -> np.ndarray:
    """int (n,): the same number where all the columns (n,) are the same."""
    return np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def _along(heads: np.ndarray, frames: np.ndarray, imaging: np.ndarray, apart: np.ndarray, both: np.ndarray) -> np.ndarray:
    """bool (n,): which of the lines `apart`, for calibration alone, were measured along with the image and are k-space of it as
    well: those of a frame with lines for `both`, unless they repeat lines of its image, as a scan of its own does."""
    frame = _numbered(*frames.T)
    steps = _numbered(frame, _steps(heads))
    again = apart & np.isin(steps, steps[imaging])
    return apart & np.isin(frame, frame[both]) & ~np.isin(frame, frame[again])


def _calibration(header: MRDHeader, encoding: Encoding, lines: np.ndarray, frames: np.ndarray,
                 chosen: np.ndarray) -> tuple[Encoding, np.ndarray, list[str]]:
    """The lines of a calibration for this frame, over the field of view of the image, and their encoding; else those of the
    first frame there is."""
    misfits = {number: _misfit(header, encoding, number) for number in np.unique(frames[lines, 0]).tolist()}
    notes = [f"{int((frames[lines, 0] == number).sum())} calibration lines left out: {misfit}"
             for number, misfit in misfits.items() if misfit]
    kept = np.array([line for line in lines if not misfits[frames[line, 0]]], dtype=int)
    if not len(kept):
        return encoding, kept, notes
    of_frame = (frames[kept, 1:] == chosen[1:]).all(axis=1)
    kept = kept[of_frame] if of_frame.any() else kept
    first = np.unique(frames[kept], axis=0)[0]
    return header.encodings[first[0]], kept[(frames[kept] == first).all(axis=1)], notes


def _misfit(header: MRDHeader, encoding: Encoding, reference: int) -> str:
    """Why calibration lines of that encoding space tell nothing of the image; "" where the fields of view agree."""
    if reference >= len(header.encodings):
        return f"the XML header lacks their encoding space, {reference}"
    ours, theirs = encoding.encoded, header.encodings[reference].encoded
    told, flat = min(*ours.fov, *theirs.fov) > 0, [space.matrix[2] == 1 for space in (ours, theirs)]
    if theirs == ours or (told and flat[0] == flat[1] and np.allclose(theirs.fov, ours.fov, rtol=0.01)):
        return ""
    return f"they cover {_said(theirs)}, and the image {_said(ours)}"


def _said(space: Space) -> str:
    return f"{' x '.join(f'{side:g}' for side in space.fov)} mm with {' x '.join(map(str, space.matrix))} samples"


def _slices(heads: np.ndarray, imaging: np.ndarray) -> tuple[list[int], list[str]]:
    """Numbers of slices in the order they are read."""
    numbers, first = np.unique(heads["idx"]["slice"][imaging], return_index=True)
    head = heads[imaging[first]]
    depth = (head["position"].astype(float) * head["slice_dir"][0].astype(float)).sum(axis=1)
    if not np.isfinite(depth).all() or len(np.unique(depth.round(3))) < len(numbers):
        return numbers.tolist(), []
    order = np.argsort(depth)
    sorting = [] if (np.diff(order) > 0).all() else ["slices are in the order of their positions, not of their numbers"]
    return numbers[order].tolist(), sorting


@dataclass(frozen=True)
class Places:
    """Where each of L acquisitions goes: its samples first to last, to rows from start on, in column (phase 1, phase 2)."""

    first: np.ndarray
    last: np.ndarray
    start: np.ndarray
    columns: np.ndarray     # (L, 2)

    def full(self, rows: int) -> bool:
        """Whether every line covers all rows."""
        return bool((self.start == 0).all() and (self.last - self.first == rows).all())

    def outside(self, matrix: Sequence[int]) -> np.ndarray:
        """bool (L,): which of them do not fit the encoded matrix, or are empty."""
        first, last, start, columns = self.first, self.last, self.start, self.columns
        return (first >= last) | (start < 0) | (start + last - first > matrix[0]) \
            | (columns < 0).any(axis=1) | (columns >= matrix[1:]).any(axis=1)


def without_misfits(choice: Choice, heads: np.ndarray) -> Choice:
    """The choice without its calibration where that does not fit its encoding, or, of a volume, lacks a part of the readout."""
    lines, matrix = np.concatenate(choice.calibration), choice.reference.encoded.matrix
    places = _places(choice.reference, heads[lines])
    if places.outside(matrix).any():
        why = f"they do not fit their encoded matrix {list(matrix)}, with centre {list(choice.reference.centre)}"
    elif matrix[2] > 1 and not places.full(matrix[0]):
        why = "their readout is sampled partially, in a 3D encoding"
    else:
        return choice
    return replace(choice, calibration=[lines[:0]] * len(choice.calibration),
                   notes=[*choice.notes, f"{len(lines)} calibration lines left out: {why}"])


def place(path: str, encoding: Encoding, heads: np.ndarray) -> Places:
    """The places of lines, all of which fit: else InputError."""
    places, matrix = _places(encoding, heads), encoding.encoded.matrix
    outside = places.outside(matrix)
    if outside.any():
        bad = int(np.flatnonzero(outside)[0])
        head = heads[bad]
        steps = [int(head["idx"][name]) for name in ("kspace_encode_step_1", "kspace_encode_step_2")]
        raise InputError(
            f"{path}: a line of samples {places.first[bad]} to {places.last[bad]} with centre {head['center_sample']} at step "
            f"{steps} does not fit the encoded matrix {list(matrix)}, with centre {list(encoding.centre)}; correct the header")
    return places


def _places(encoding: Encoding, heads: np.ndarray) -> Places:
    """By the centre sample and the centre of the encoding limits, so that the centre of k-space is at n // 2 of the encoded
    matrix. A centre sample of 0 that would not fit is one that was never set: the middle of the line then."""
    matrix = np.array(encoding.encoded.matrix)
    samples, first = heads["number_of_samples"].astype(int), heads["discard_pre"].astype(int)
    last, centre = samples - heads["discard_post"].astype(int), heads["center_sample"].astype(int)
    unset = (centre == 0) & (matrix[0] // 2 + last > matrix[0])
    start = matrix[0] // 2 + first - np.where(unset, samples // 2, centre)
    steps = np.stack([heads["idx"]["kspace_encode_step_1"], heads["idx"]["kspace_encode_step_2"]], axis=1).astype(int)
    columns = matrix[1:] // 2 + steps - np.array(encoding.centre)
    return Places(first, last, start, columns)


def middle(covered: np.ndarray) -> slice:
    """The widest run of True around the centre n // 2 whose own centre, at w // 2, is that one; empty if it is not covered."""
    centre = len(covered) // 2
    gaps = np.flatnonzero(~covered)
    low = int(gaps[gaps < centre].max(initial=-1)) + 1
    high = int(gaps[gaps >= centre].min(initial=len(covered)))     # one past the last
    if high <= centre:
        return slice(centre, centre)
    left, right = centre - low, high - centre
    width = max(2 * min(left, right), 2 * min(left, right - 1) + 1)
    return slice(centre - width // 2, centre - width // 2 + width)
