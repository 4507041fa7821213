"""The app's own modules, as `streamlit run apps/app.py` finds them; with those tests alone that have streamlit."""

import sys
from importlib.util import find_spec
from pathlib import Path

APPS = Path(__file__).parents[2] / "apps"
sys.path.insert(0, str(APPS))

collect_ignore_glob = [] if find_spec("streamlit") else ["test_*.py"]
