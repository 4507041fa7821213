"""One process or many: Hugging Face Accelerate, which starts from the environment that torchrun or Slurm sets."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from invdiff.errors import InputError


class Processes:
    """The processes of a run, this one among them.

    Attributes:
        device: the one of this process.
        rank, count: which process this is, of how many.
        main: whether it is the one that writes files.
        accelerator: the `accelerate.Accelerator`.
    """

    def __init__(self, device: str | torch.device):
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise InputError('training needs accelerate: pip install "invdiff[train]"') from error
        wanted = torch.device(device)
        many = int(os.environ.get("WORLD_SIZE", "1")) > 1
        # alone, the device is the caller's choice, and may differ from one run of this process to the next
        self.accelerator: Any = Accelerator(cpu=many and wanted.type == "cpu", mixed_precision="no", device_placement=False)
        self.device = self.accelerator.device if many else wanted
        self.rank: int = self.accelerator.process_index if many else 0
        self.count: int = self.accelerator.num_processes if many else 1
        self.main = self.rank == 0
        kind = self.accelerator.distributed_type.value
        if kind in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
            raise InputError(f"accelerate is configured for {kind}; these networks fit on a GPU, so choose plain data "
                             "parallelism, such as accelerate launch --multi_gpu")
        if many and self.count == 1:
            raise InputError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but this process does not know its number among them; "
                             "start with torchrun or accelerate launch")

    def total(self, values: Tensor) -> Tensor:
        """The sum of `values` over all processes, in each of them."""
        return self.accelerator.reduce(values, "sum") if self.count > 1 else values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            self.accelerator.wait_for_everyone()


@contextmanager
def asking(ask: Callable[[], object]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM calls `ask` and does no more; the second raises KeyboardInterrupt. In a thread that gets no
    signals, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)

    def heard(number: int, frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.default_int_handler)
        ask()

    before = [signal.signal(number, heard) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def leave() -> None:
    """End what `Processes` began: the last thing a process does of a run."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
