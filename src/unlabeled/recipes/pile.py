"""The Pile: 22 components, 825.18 GiB of text taken 1 to 3 times, 1254.20 GiB.

Gao, Biderman, Black et al. 2020, arXiv 2101.00027, table 1, compared number by number with two reprints of it; the
component's names are those of the paper. The repository EleutherAI/the-pile has tables of other, earlier versions (22
components with Literotica and without Pile-CC, weights set by group of sources), not these.

Epochs are the paper's. Its column of weights is raw size times epochs over 1254.20 GiB; from the rounded raw sizes
two of the 22 come out one lower in the last digit (PubMed Central 14.39, Youtube Subtitles 0.59), from the printed
effective sizes none does. Several components were withdrawn (Books3, OpenSubtitles): this is a table, not data.
"""

from unlabeled.curate.mix import Mix

__all__ = ["COMPONENTS", "MIX"]

# name: (raw GiB, weight %, epochs, effective GiB, mean KiB of a document)
COMPONENTS = {
    "Pile-CC": (227.12, 18.11, 1.0, 227.12, 4.33),
    "PubMed Central": (90.27, 14.40, 2.0, 180.55, 30.55),
    "Books3": (100.96, 12.07, 1.5, 151.44, 538.36),
    "OpenWebText2": (62.77, 10.01, 2.0, 125.54, 3.85),
    "ArXiv": (56.21, 8.96, 2.0, 112.42, 46.61),
    "Github": (95.16, 7.59, 1.0, 95.16, 5.25),
    "FreeLaw": (51.15, 6.12, 1.5, 76.73, 15.06),
    "StackExchange": (32.20, 5.13, 2.0, 64.39, 2.16),
    "USPTO Backgrounds": (22.90, 3.65, 2.0, 45.81, 4.08),
    "PubMed Abstracts": (19.26, 3.07, 2.0, 38.53, 1.30),
    "Gutenberg (PG-19)": (10.88, 2.17, 2.5, 27.19, 398.73),
    "OpenSubtitles": (12.98, 1.55, 1.5, 19.47, 30.48),
    "Wikipedia (en)": (6.38, 1.53, 3.0, 19.13, 1.11),
    "DM Mathematics": (7.75, 1.24, 2.0, 15.49, 8.00),
    "Ubuntu IRC": (5.52, 0.88, 2.0, 11.03, 545.48),
    "BookCorpus2": (6.30, 0.75, 1.5, 9.45, 369.87),
    "EuroParl": (4.59, 0.73, 2.0, 9.17, 68.87),
    "HackerNews": (3.90, 0.62, 2.0, 7.80, 4.92),
    "Youtube Subtitles": (3.73, 0.60, 2.0, 7.47, 22.55),
    "PhilPapers": (2.38, 0.38, 2.0, 4.76, 73.37),
    "NIH ExPorter": (1.89, 0.30, 2.0, 3.79, 2.11),
    "Enron Emails": (0.88, 0.14, 2.0, 1.76, 1.78),
}

MIX = Mix(epochs={name: epochs for name, (_, _, epochs, _, _) in COMPONENTS.items()})
