"""One thread per test process: tests run side by side on few cores, and idle OpenMP threads spin."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
