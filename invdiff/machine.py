"""What a run happens on: the device, and what a record says of machine and versions."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

import invdiff
from invdiff.errors import InputError


def find_device(name: str) -> torch.device:
    """The device of a name; "auto" is CUDA or Apple's GPU where there is one. Raises InputError where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()      # read back, which of "meta" nothing can be
    except (RuntimeError, AssertionError, ImportError) as error:
        raise InputError(f"device: {name!r} is not available on this machine; cpu is, and auto picks the best") from error
    return torch.device(name)


def hardware(device: torch.device) -> str:
    """A GPU's name, or how many threads compute on which kind of processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads, {platform.machine()}"


def out_of_memory(error: BaseException) -> bool:
    """Did torch run out of memory, on a GPU or a CPU? The latter is a RuntimeError like others."""
    said = str(error)
    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or (
        "DefaultCPUAllocator" in said or "MPS backend out of memory" in said)


def versions() -> dict[str, str]:
    """Of Python, and of the packages that numbers depend on most."""
    return {"python": platform.python_version(), "invdiff": invdiff.__version__} | {
        name: _version(name) for name in ("torch", "deepinv")}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:        # a checkout on the path
        return "not installed"
