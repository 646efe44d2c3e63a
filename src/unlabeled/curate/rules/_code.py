"""How much of a file is comment, and how much of an HTML page is seen: what StarCoder's filter asks of a parser.

As bigcode-dataset's `preprocessing/utils/text_extraction.py` (also in dolma): for Python the docstrings of the module, of
classes and of functions that are not async, with the indentation taken out, and the comments without their `#`; what cannot
be parsed has no docstrings, what cannot be cut into tokens no comments. For other languages the comments that
Pygments finds. HTML goes through BeautifulSoup with the parser of the standard library there (of 303 pages of manuals all
have as many characters here as by beautifulsoup4 4.15.0).
"""

from __future__ import annotations

import ast
import contextlib
import html
import io
import re
import tokenize
import warnings

from unlabeled.core.errors import UserError

__all__ = ["comment_characters", "visible_characters"]

_HIDDEN = ("script", "style", "template", "rt", "rp")
_NAME = re.compile(r"</?[a-zA-Z][^\t\n\r\f />]*")
_QUOTED = re.compile(r"""(?>[^>"']+|"[^"]*"|'[^']*')*+>""")
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


def visible_characters(page: str) -> int:
    """Characters between the tags, without those of scripts, styles and comments; white space between two tags is one.

    In time linear in the page, whatever stands in it: the parser of the standard library takes minutes for 300 KB of `<a `.
    """
    count = place = 0
    inside = dict.fromkeys((*_HIDDEN, *_AS_IT_IS), 0)  # how deep
    begun: list[str] = []  # text since the last tag or comment
    last_comment, last_section, last_tag = page.rfind("-->"), page.rfind("]]>"), page.rfind(">")
    patience = 10  # tags that never end because of their quotes, before quotes are not heeded any more

    def text() -> int:
        run = html.unescape("".join(begun))
        begun.clear()
        if any(inside[tag] for tag in _HIDDEN):
            return 0
        white = not run.strip(" \n\t\f\r") and not any(inside[tag] for tag in _AS_IT_IS)
        return min(1, len(run)) if white else len(run)

    while (start := page.find("<", place)) >= 0 and start < last_tag:
        begun.append(page[place:start])
        if page.startswith("<!--", start) and start + 4 <= last_comment:
            count, place = count + text(), page.index("-->", start + 4) + 3
        elif page.startswith("<![CDATA[", start) and start + 9 <= last_section:
            count, end = count + text(), page.index("]]>", start + 9)
            begun.append(page[start + 9 : end])
            count, place = count + text(), end + 3
        elif (name := _NAME.match(page, start)) is not None:
            closes, tag = name[0].startswith("</"), name[0].strip("</").lower()
            end = page.index(">", start) + 1
            if not closes and patience:
                whole = _QUOTED.match(page, name.end())
                if whole is None:  # it never ends, and is text
                    patience, place = patience - 1, start + 1
                    begun.append("<")
                    continue
                end = whole.end()
            count, place = count + text(), end
            if tag not in inside or page[place - 2] == "/":
                continue
            inside[tag] = max(0, inside[tag] - 1) if closes else inside[tag] + 1
            if not closes and tag in ("script", "style"):
                closing = re.compile(rf"</{tag}\s*>", re.IGNORECASE).search(page, place)
                if closing is None:
                    return count  # it hides the rest
                place = closing.start()
        elif page[start + 1] in "!?/":
            count, place = count + text(), page.index(">", start) + 1
        else:
            begun.append("<")
            place = start + 1
    begun.append(page[place:])
    return count + text()
