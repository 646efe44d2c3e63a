"""`import unlabeled` loads nothing heavy, and its names lead to what they say."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "numpy",
    "scipy",
    "matplotlib",
    "pyarrow",
    "transformers",
    "sklearn",
    "tyro",
    "rich",
    "PIL",
    "tokenizers",
)


def modules_after(code: str) -> set[str]:
    """Top-level packages that are loaded once the code has run in a fresh interpreter."""
    script = f"{code}\nimport sys; print(' '.join({{m.partition('.')[0] for m in sys.modules}}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_import_loads_nothing_heavy() -> None:
    assert not modules_after("import unlabeled; unlabeled.methods()").intersection(HEAVY)


def test_names_are_found_and_others_are_not() -> None:
    import unlabeled
    from unlabeled.core.catalogue import methods

    assert unlabeled.methods() == methods()
    assert unlabeled.load.__module__ == "unlabeled.model"
    assert unlabeled.__version__.count(".") >= 2
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        unlabeled.fitt  # noqa: B018


def test_fit_and_methods_stay_callable_once_their_modules_are_imported() -> None:
    modules_after(
        "import unlabeled, unlabeled.fit, unlabeled.methods\n"
        "assert callable(unlabeled.fit) and callable(unlabeled.methods) and callable(unlabeled.fit.choose)\n"
        "assert 'simclr' in unlabeled.methods()\n"
        "try: unlabeled.fit('nowhere', budget='1s')\n"
        "except Exception as e: assert 'budget' in str(e) or 'leaves no time' in str(e), e\n"
        "else: raise SystemExit(1)\n"
    )


def test_torchvision_is_not_installed() -> None:
    # Beside this torch it is broken, and then breaks transformers and torchmetrics; nothing of ours may bring it in.
    import importlib.util

    assert importlib.util.find_spec("torchvision") is None
