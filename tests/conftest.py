"""What all tests share: with several processes at work, each computes on its share of the cores."""

import os

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):      # before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))
