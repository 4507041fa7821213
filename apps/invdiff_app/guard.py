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
    except MemoryError:
        st.error(text.NO_MEMORY)
    except Exception:
        log.exception("page")
        st.error(text.WENT_WRONG)
