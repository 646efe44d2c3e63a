"""replit-code-v1-3b: 20 languages of The Stack (deduplicated, v1.2), 175 billion tokens three times over.

Model card in replit/ReplitLM, `replit-code-v1-3b/README.md`: the languages in this order by tokens, 175 billion tokens
over 3 epochs, 525 billion in all, 195 for each of 2.7 billion parameters. How many tokens each language has, and how the
subset was chosen, is not published: so every language is repeated alike, and its share is that of the corpus given.
"""

from unlabeled.curate.mix import Mix

__all__ = ["LANGUAGES", "MIX"]

LANGUAGES = (
    *("Markdown", "Java", "JavaScript", "Python", "TypeScript", "PHP", "SQL", "JSX", "reStructuredText", "Rust"),
    *("C", "CSS", "Go", "C++", "HTML", "Vue", "Ruby", "Jupyter Notebook", "R", "Shell"),
)

MIX = Mix(epochs=dict.fromkeys(LANGUAGES, 3.0))
