"""Med-PaLM 2: what PaLM 2 was instruction-tuned on for medicine, five sets of questions.

Singhal et al. 2023, arXiv 2305.09617. Examples of MedQA and MedMCQA (10,178 and 182,822): the sizes of their training
splits, which other papers state alike. The counts of the three sets of long answers and all five shares are from
memory of the paper's table of the mixture and were not read again; the shares add up to 100. They are of examples as they
were drawn, not of bytes. How often that repeats the 64 long answers depends on the length of training, which is not
published: HealthSearchQA is repeated 106 times as often as MedQA (17.6 / 45 over 37.5 / 10,178).
"""

from unlabeled.curate.mix import Mix

__all__ = ["EXAMPLES", "MIX"]

# name: (examples, % of what is drawn)
EXAMPLES = {
    "MedQA": (10_178, 37.5),
    "MedMCQA": (182_822, 37.5),
    "LiveQA": (10, 3.9),
    "MedicationQA": (9, 3.5),
    "HealthSearchQA": (45, 17.6),
}

MIX = Mix(weights={name: share for name, (_, share) in EXAMPLES.items()})
