"""`python -m unlabeled`, the form that torchrun needs: torchrun --nproc-per-node 2 -m unlabeled train ..."""

from __future__ import annotations

import sys

from unlabeled.cli.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
