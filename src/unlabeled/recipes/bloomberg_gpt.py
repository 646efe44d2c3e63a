"""BloombergGPT: half finance, half general text, 708 billion tokens, of which 569 billion were trained on.

Wu et al. 2023, arXiv 2303.17564. Shares of tokens in percent: from the headings of the paper's sections 2.1 and 2.2 and
from a reprint of its table 1, which agree; they add up to 51.27 and 48.73. (The heading of section 2.1 itself says
54.2 % of finance, which fits none of its parts: a slip of digits.) 569 billion: from summaries of the paper. The Pile
is taken without further weights and each data set is deduplicated by itself (from memory). A share is of tokens of their own
vocabulary, 4.4 to 5.6 characters each by source in table 1; as shares of bytes they err by as much.
"""

from unlabeled.curate.mix import Mix

__all__ = ["MIX", "TOKENS"]

# name: (billion tokens, % of the corpus)
TOKENS = {
    "Web": (298, 42.01),
    "News": (38, 5.31),
    "Filings": (14, 2.04),
    "Press": (9, 1.21),
    "Bloomberg": (5, 0.70),
    "The Pile": (184, 25.9),
    "C4": (138, 19.48),
    "Wikipedia": (24, 3.35),
}

MIX = Mix(weights={name: share for name, (_, share) in TOKENS.items()})
