"""A benchmark from its config to its folder, in one process or in several."""

import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.benchmark.cells import DONE, Setup, cells, run_cell
from invdiff.benchmark.estimates import Cell, estimate_path
from invdiff.benchmark.identity import identity
from invdiff.benchmark.images import clean_images
from invdiff.benchmark.markdown import write_markdown
from invdiff.benchmark.record import Record, estimate_name, how_made, measurement_name, truth_name
from invdiff.benchmark.report import write_report
from invdiff.benchmark.settings import BenchmarkConfig
from invdiff.benchmark.summary import remarks
from invdiff.checks import check_operator
from invdiff.errors import InputError
from invdiff.evaluation.metrics import METRICS, enlarged
from invdiff.io.images import to_uint8
from invdiff.machine import find_device
from invdiff.posing import as_image

Finished = tuple[dict[str, Any], np.ndarray | None]
OnCell = Callable[[int, int, dict[str, Any]], object]       # done, of how many, the row


def run(config: BenchmarkConfig, folder: str | Path, *, workers: int = 1, command: str = "",
        on_cell: OnCell | None = None, keep: bool = False) -> Record:
    """Run what is missing of a benchmark, and write the report; stopped at any time, the same call goes on, and so does one
    with more images, tasks, priors, methods or pictures, behind those before.

    Args:
        config: of `benchmark_config`.
        folder: made if need be; holds results.csv, results.json, report.html, report.md and pictures/. The first two are
            written after every cell.
        workers: processes that share the cells and the cores. The results are those of one, up to rounding of sums.
        command: what to say it was made with.
        on_cell: called after every cell.
        keep: also keep the estimates, in files below estimates/; of rows that are there without one, they are run anew.

    Raises:
        InputError: images or priors that cannot be had, a folder of another benchmark, or a worker that was killed.
    """
    if workers < 1:
        raise InputError(f"workers: expected 1 and more, got {workers}")
    images = clean_images(config)
    names, notes = usable_metrics(config.metrics, config.size)
    setup = Setup(config, list(images.values()), names, Path(folder) if keep else None)
    everything = cells(config)
    record = Record(folder, identity(setup, images), [setup.row(cell) for cell in everything], names, notes)
    record.note(faults_of_operators(setup))
    _save_inputs(setup, record)
    pending = [cell for cell in everything if not _kept(setup, record, cell)]
    if pending:
        record.begin(how_made(command, config.device, workers))
    try:
        _work(setup, pending, workers, record, on_cell, len(everything))
        record.finish()
    finally:
        record.note(remarks(record.sorted()))
        write_report(record, config)
        write_markdown(record, config)
    return record


def usable_metrics(names: Sequence[str], size: int) -> tuple[list[str], list[str]]:
    """Those that can be computed here for images of this size, and a line about each of the others."""
    picture = torch.rand((1, 3, size, size), generator=torch.Generator().manual_seed(0))
    usable, notes = [], []
    for name in names:
        try:
            METRICS[name].function(picture, picture.flip(-1))
            usable.append(name)
        except (InputError, ValueError) as error:
            notes.append(f"{METRICS[name].label} is left out: {error}")
    return usable, notes


def faults_of_operators(setup: Setup) -> list[str]:
    """What is wrong with the tasks' operators, as of a linear one whose A_adjoint is not the transpose of its A, a sentence
    each. Not all methods ask: those that do not give estimates of another problem. Of one that fails, its cells say why."""
    found = []
    for task, spec in enumerate(setup.config.full_tasks):
        said, name = [], ""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                problem = setup.problem(task, 0).to(find_device(setup.config.device))
                name = type(problem.physics).__name__
                check_operator(problem, True)
            except InputError as error:
                said = [str(error)]
            except Exception:           # whatever another's operator raises
                continue
        said += [str(one.message) for one in caught if name and str(one.message).startswith(f"{name}: ")]
        found += [f"Task {spec['name']}: {sentence}." for sentence in dict.fromkeys(said)]
    return found


def _save_inputs(setup: Setup, record: Record) -> None:
    """Pictures of truths and measurements, but for those of an operator that fails: its cells say why."""
    for image in range(min(setup.config.pictures, len(setup.images))):
        record.save_picture(truth_name(image), to_uint8(setup.images[image]))
        for task in range(len(setup.config.tasks)):
            try:
                picture = enlarged(as_image(setup.problem(task, image)), setup.images[image].shape[-2:])
            except Exception:           # whatever another's operator raises
                continue
            record.save_picture(measurement_name(task, image), to_uint8(picture[0]))


def _kept(setup: Setup, record: Record, cell: Cell) -> bool:
    """Is a cell's row there, and the files that are asked for of its estimate?"""
    row = record.get(setup.row(cell))
    if row is None or row["status"] != DONE:
        return row is not None
    wanted = [record.picture(estimate_name(cell))] if cell.image < setup.config.pictures else []
    wanted += [estimate_path(setup.keep, setup.config, cell)] if setup.keep else []
    return all(path.is_file() for path in wanted)


def _work(setup: Setup, pending: Sequence[Cell], workers: int, record: Record, on_cell: OnCell | None, total: int) -> None:
    done = total - len(pending)
    for cell, (row, picture) in _results(setup, pending, workers):
        if picture is not None and cell.image < setup.config.pictures:
            record.save_picture(estimate_name(cell), picture)
        if not setup.keep or picture is None:       # an earlier one is of another row
            estimate_path(record.folder, setup.config, cell).unlink(missing_ok=True)
        record.add(row)
        done += 1
        if on_cell:
            on_cell(done, total, row)


def _results(setup: Setup, pending: Sequence[Cell], workers: int) -> Iterator[tuple[Cell, Finished]]:
    """Cells as they are finished."""
    if workers == 1 or not pending:
        for cell in pending:
            yield cell, run_cell(setup, cell)
        return
    threads = max(1, torch.get_num_threads() // workers)
    parts = (setup.config, list(setup.images), list(setup.metrics), setup.keep, threads)
    # spawn: a fork of a process whose torch has threads may hang, and CUDA does not survive one
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, parts) as pool:
        futures: dict[Future[Finished], Cell] = {pool.submit(_in_worker, cell): cell for cell in pending}
        try:
            waiting = set(futures)
            while waiting:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ready:
                    yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise InputError("workers: one was killed, perhaps for want of memory; the same command goes on, with fewer "
                             "--workers if need be") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_setup: Setup | None = None         # of a worker process


def _start_worker(config: BenchmarkConfig, images: list[Tensor], metrics: list[str], keep: Path | None, threads: int) -> None:
    global _setup
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _setup = Setup(config, images, metrics, keep)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _in_worker(cell: Cell) -> Finished:
    assert _setup is not None
    return run_cell(_setup, cell)
