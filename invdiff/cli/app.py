"""`invdiff app`: the app, in a browser."""

from importlib.util import find_spec
from typing import Annotated

import typer

from invdiff.errors import InputError
from invdiff.paths import bundled


def app(port: Annotated[int, typer.Option(help="Port to listen on.")] = 8501,
        host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "localhost",
        browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True) -> None:
    """Serve the app: restore images and scans, compare samplers, and see diffusion explained, in a browser."""
    if find_spec("streamlit") is None:
        raise InputError("app: needs streamlit, which is not installed; python -m pip install 'invdiff[app]'")
    if not 1 <= port <= 65535:
        raise InputError(f"--port: expected a number from 1 to 65535, got {port}")
    from streamlit.web import cli

    import invdiff.job  # noqa: F401    # before the server is up, so that the first page need not wait for it

    options = {"server.port": port, "server.address": host, "server.headless": str(not browser).lower(),
               "server.maxUploadSize": 300, "server.fileWatcherType": "none", "browser.gatherUsageStats": "false",
               "client.showErrorDetails": "none", "client.toolbarMode": "minimal",
               # a page that is asked anew while the last answer is on its way may drop what the server then refers to
               # ("Cached ForwardMsg MISS"): every message is sent whole
               "global.minCachedMessageSize": 2**40}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    cli.main(["run", str(bundled("apps", "app.py")), *arguments], standalone_mode=False)
