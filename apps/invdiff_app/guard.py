"""No traceback on the page: what goes wrong is logged, and one sentence shown."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from invdiff.errors import InputError
from invdiff_app import text

log = logging.getLogger(__name__)


@contextmanager
def guarded() -> Iterator[None]:
    """Around a page, and around each fragment, which Streamlit runs by itself. Streamlit's own signals pass."""
    try:
        yield
    except InputError as error:
        st.error(text.sentence(error))
    except Exception as error:
        st.error(went_wrong(error, "page"))


def went_wrong(error: Exception, where: str) -> str:
    """The sentence for what is no fault of the input; all but a lack of memory is logged."""
    from invdiff.machine import out_of_memory

    if out_of_memory(error):
        return text.NO_MEMORY
    log.error(where, exc_info=error)
    return text.WENT_WRONG
