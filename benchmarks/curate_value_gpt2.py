"""GPT-2 with a tokenizer from elsewhere, so that models trained on different data read text in the same pieces."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from unlabeled.core.batch import Spec
from unlabeled.data.source import Source
from unlabeled.data.text import load_tokenizer
from unlabeled.methods import gpt2

__all__ = ["GivenTokenizer"]


@dataclass(frozen=True, kw_only=True)
class Config(gpt2.Config):
    tokenizer_folder: str = ""
    """Where a tokenizer was saved."""


class GivenTokenizer(gpt2.GPT2):
    """A causal language model over the ids of a tokenizer that was trained before."""

    Config = Config
    variants: ClassVar[Any] = gpt2.GPT2.variants
    paper = gpt2.GPT2.paper

    @classmethod
    def measure(cls, config: Config, source: Source) -> Spec:
        tokenizer: Any = load_tokenizer(config.tokenizer_folder)
        return replace(source.spec(), vocabulary=tokenizer.size, tokenizer=tokenizer)
