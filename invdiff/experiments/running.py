"""How an experiment ends on the command line."""

from collections.abc import Callable

from rich.console import Console
from rich.markdown import Markdown

from invdiff.errors import InputError


def show(make: Callable[[], str]) -> int:
    """Print the Markdown page that `make` gives, and return 0; where the input is at fault, say so on stderr and return 2."""
    try:
        page = make()
    except InputError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        return 2
    Console().print(Markdown(page))
    return 0
