"""An encoder as a scikit-learn transformer, to drop into a pipeline.

from sklearn.pipeline import make_pipeline
from sklearn.linear_model import LogisticRegression
from unlabeled.sklearn import Encoder

classifier = make_pipeline(Encoder(budget="60s"), LogisticRegression(max_iter=1000)).fit(images, labels)
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data  # pyrefly: ignore
except ImportError:
    raise ImportError('This needs scikit-learn; install it with: pip install "unlabeled[sklearn]"') from None

if TYPE_CHECKING:
    from unlabeled.model import Model

__all__ = ["Encoder"]

_SMALLEST_SIDE = 8  # pixels; below this the strides of a residual network leave nothing


class Encoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Learn features from images without labels; turn images into features.

    X is (n, height, width) grey, (n, height, width, 3) colour, or (n, features): each row is then laid, row by row,
    into the smallest square image that holds it, the rest zero, so that flattened square images come out as they
    were. Values are brought to 0..255: from 0..255 where `fit` saw uint8, else from the smallest and largest value of
    all X in `fit` (scale columns of different units beforehand). Labels `y` are ignored.

    Parameters:
        system: a method that embeds images, by name or path.
        variant: one of its published variants; None is the paper's base setting.
        budget: "60s", "10m", "2000steps"; only steps and examples give the same weights every time.
        seed: of weights, order and augmentation.
        settings: further fields of the method's Config, such as {"batch": 128}.

    Attributes: `model_` (the trained `unlabeled.Model`), `n_features_in_`, `image_shape_` (without n).
    """

    def __init__(
        self,
        system: str = "simclr",
        variant: str | None = "small",
        budget: str = "60s",
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.system = system
        self.variant = variant
        self.budget = budget
        self.seed = seed
        self.settings = settings

    def fit(self, X: Any, y: Any = None) -> Encoder:
        """Train on all of X, in a temporary folder that is removed afterwards."""
        X = validate_data(self, X, ensure_min_samples=2, allow_nd=True)
        bytes_given = X.dtype == np.uint8
        self._lowest, self._highest = (0.0, 255.0) if bytes_given else (float(X.min()), float(X.max()))
        images = self._images(X)
        self.image_shape_ = images.shape[1:]
        self.model_: Model = self._trained(images)
        self._n_features_out = self.model_.embed(images[:1]).shape[1]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """(n, width) float32 features."""
        check_is_fitted(self)
        return self.model_.embed(self._images(validate_data(self, X, reset=False, allow_nd=True)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # pyrefly: ignore
        tags.transformer_tags.preserves_dtype = []  # features are float32, whatever came in
        return tags

    def _trained(self, images: np.ndarray) -> Model:
        from unlabeled.data.sources.memory import ImagesInMemory
        from unlabeled.engine.launch import train
        from unlabeled.engine.loop import Settings
        from unlabeled.model import Model, load

        source = ImagesInMemory(images)
        source.official = {"train": np.arange(len(images)), "test": np.arange(0)}  # the caller has split already
        with tempfile.TemporaryDirectory() as folder:
            run = train(
                self.system,
                source,
                variant=self.variant,
                overrides=self.settings,
                settings=Settings(budget=self.budget, seed=self.seed),
                out=Path(folder) / "run",
            )
            return Model(self.system, load(run.path).method)

    def _images(self, X: np.ndarray) -> np.ndarray:
        """(n, height, width, channels) uint8."""
        scaled = (X.astype(np.float64) - self._lowest) / ((self._highest - self._lowest) or 1.0)
        X = (np.clip(scaled, 0, 1) * 255).round().astype(np.uint8)
        if X.ndim == 2:
            side = max(_SMALLEST_SIDE, math.isqrt(X.shape[1] - 1) + 1)
            square = np.zeros((len(X), side * side), dtype=np.uint8)
            square[:, : X.shape[1]] = X
            X = square.reshape(len(X), side, side)
        return X if X.ndim == 4 else X[..., None]
