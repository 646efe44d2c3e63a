"""How much of a file is comment, and how much of an HTML page is seen: what StarCoder's filter asks of a parser.

As bigcode-dataset's `preprocessing/utils/text_extraction.py` (also in dolma): for Python the docstrings of the module, of
classes and of functions that are not async, with the indentation taken out, and the comments without their `#`; what cannot
be parsed has no docstrings, what cannot be cut into tokens no comments. For other languages the comments that
Pygments finds. HTML there goes through BeautifulSoup, here through the parser of the standard library under it (tried: of 303
pages of manuals all have as many characters as by beautifulsoup4 4.15.0).
"""

from __future__ import annotations

import ast
import contextlib
import io
import tokenize
import warnings
from html.parser import HTMLParser

from unlabeled.core.errors import UserError

__all__ = ["comment_characters", "visible_characters"]

_HIDDEN = ("script", "style", "template", "rt", "rp")
_AS_IT_IS = ("pre", "textarea")  # elsewhere text of white space alone counts as one character


def comment_characters(text: str, language: str) -> int:
    """Characters of the comments of a file in "python", or in a language by Pygments' name.

    Raises:
        UserError: where a language other than Python needs Pygments, which is not there.
    """
    return len(_python(text)) if language == "python" else _pygments(text, language)


def _python(text: str) -> str:
    """Docstrings and comments, as many characters as the reference makes of them (in another order)."""
    docstrings: list[str] = []
    comments = ""
    # Bad code raises what it likes: SyntaxError, ValueError, RecursionError, MemoryError; TokenError, IndentationError.
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nodes = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef))
        docstrings = [docstring for node in nodes if (docstring := ast.get_docstring(node))]
    with contextlib.suppress(Exception):
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        comments = "".join(token.string for token in tokens if token.type == tokenize.COMMENT).replace("#", "")
    return ("\n".join(docstrings) + "\n" + comments).strip()


def _pygments(text: str, language: str) -> int:
    try:
        from pygments import lex
        from pygments.lexers import get_lexer_by_name
        from pygments.token import Comment
    except ImportError as error:
        raise UserError(
            "The share of comments in Java and JavaScript needs Pygments: `pip install pygments`."
        ) from error
    return sum(
        len(v) for kind, v in lex(text, get_lexer_by_name(language)) if kind in (Comment.Multiline, Comment.Single)
    )


class _Visible(HTMLParser):
    """Counts what BeautifulSoup's `get_text` returns with this parser."""

    count = 0

    def __init__(self) -> None:
        super().__init__()
        self.run: list[str] = []  # text since the last tag or comment
        self.inside = dict.fromkeys((*_HIDDEN, *_AS_IT_IS), 0)  # how deep

    def flush(self) -> None:
        text, self.run = "".join(self.run), []
        if not any(self.inside[tag] for tag in _HIDDEN):
            white = not text.strip(" \n\t\f\r") and not any(self.inside[tag] for tag in _AS_IT_IS)
            self.count += min(1, len(text)) if white else len(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.flush()
        if tag in self.inside:
            self.inside[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        self.flush()
        if self.inside.get(tag):
            self.inside[tag] -= 1

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.flush()  # <script/> hides nothing after it

    def handle_data(self, data: str) -> None:
        self.run.append(data)

    def handle_comment(self, data: str) -> None:
        self.flush()

    def handle_decl(self, decl: str) -> None:
        self.flush()

    def handle_pi(self, data: str) -> None:
        self.flush()

    def unknown_decl(self, data: str) -> None:
        self.flush()
        if data.upper().startswith("CDATA["):
            self.handle_data(data[6:])
            self.flush()

    def close(self) -> None:
        super().close()
        self.flush()


def visible_characters(html: str) -> int:
    """Characters between the tags, without those of scripts, styles and comments; white space between two tags is one."""
    parser = _Visible()
    with contextlib.suppress(AssertionError):  # the parser gives up on some broken declarations
        parser.feed(html)
        parser.close()
    return parser.count
