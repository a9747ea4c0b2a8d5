r"""Filters of captions: what a person types to find pictures.

smile                      has the tag; spaces and underscores, capitals and small letters are one
"long hair"   long_hair    a tag of two words
*_hair   ?girl             * is anything, ? one character; \* and \? are themselves
/^holding /                a regular expression, found in any tag as it is written
tag:re:zero                the same as a word by itself, for tags that look like something else
caption:umbrella           the text has the words; also with wildcards and regular expressions
name:img_1  folder:hats    part of the file's name, or of its folder; with wildcards all of it
count>5  tokens>75  chars<20        how many tags, tokens, letters
score:smile>=0.8           the tagger's score of a tag
kind:prose                 tags, prose (sentences), mixed, or empty
has:caption  has:scores    there is a caption file, or a tagger has seen the picture
NOT a   -a   a b   a AND b   a OR b   (a OR b) c
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from lib_lora_trainer.captions import query_parse
from lib_lora_trainer.captions.edits_find import in_words
from lib_lora_trainer.captions.query_parse import All, Node, Not, Pattern, QueryError, Some, Term
from lib_lora_trainer.captions.reduced import wildcard
from lib_lora_trainer.captions.text import Caption, key

__all__ = ["Matches", "QueryError", "Record", "compiled"]

Matches = Callable[["Record"], bool]
_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le, "=": operator.eq, "!=": operator.ne,
}  # fmt: skip
_ESCAPED = re.compile(r"\\([*?\\()])")


@dataclass(frozen=True)
class Record:
    """One picture as filters see it.

    path: of the picture, from the dataset's folder on; look: returns its scores by what tags are compared by, None when
    no tagger has seen it; has_file: whether there is a caption file; tokens: counts those of a text. Both functions are
    asked only by filters that need them, and None where nobody knows.
    """

    path: PurePath
    caption: Caption
    look: Callable[[], Mapping[str, float] | None] | None = field(default=None, compare=False)
    has_file: bool = True
    tokens: Callable[[str], int] | None = field(default=None, compare=False)

    @property
    def scores(self) -> Mapping[str, float] | None:
        """What taggers said."""
        return self.look() if self.look is not None else None


def compiled(query: str) -> Matches:
    """Return what tells whether a record fits a filter. Raises QueryError, which names the column.

    Asking about tokens raises QueryError where nobody can count them.
    """
    return _node(query_parse.parse(query), query)


def _node(node: Node, query: str) -> Matches:
    if isinstance(node, Term):
        return _term(node, query)
    if isinstance(node, Not):
        inner = _node(node.inner, query)
        return lambda record: not inner(record)
    parts = [_node(part, query) for part in node.parts]
    if isinstance(node, Some):
        return lambda record: any(part(record) for part in parts)
    assert isinstance(node, All)
    return lambda record: all(part(record) for part in parts)


def _term(term: Term, query: str) -> Matches:
    if term.pattern is None or term.field == "score":
        return _comparison(term, query)
    pattern = term.pattern
    if term.field == "tag":
        return _tag(pattern)
    if term.field == "caption":
        return _caption(pattern)
    if term.field == "name":
        look = _whole_or_part(pattern)
        return lambda record: look(record.path.name) or look(record.path.stem)
    if term.field == "folder":
        look = _whole_or_part(pattern)
        return lambda record: look(record.path.parent.as_posix())
    if term.field == "kind":
        return lambda record: record.caption.kind == pattern.text
    if pattern.text == "caption":
        return lambda record: record.has_file
    return lambda record: record.scores is not None


def _comparison(term: Term, query: str) -> Matches:
    compare, number = _SIGNS[term.sign], term.number
    if term.field == "count":
        return lambda record: compare(len(record.caption.tags), number)
    if term.field == "chars":
        return lambda record: compare(len(record.caption.text), number)
    if term.field == "tokens":

        def counted(record: Record) -> bool:
            if record.tokens is None:
                raise QueryError(query, term.column, "nobody can count tokens here.", "another term")
            return compare(record.tokens(record.caption.text), number)

        return counted
    assert term.pattern is not None
    fits = _fits(term.pattern)

    def scored(record: Record) -> bool:
        scores = record.scores
        if scores is None:
            return False
        found = [score for tag, score in scores.items() if fits(tag)]
        # What a tagger does not name has a score below the least it keeps.
        return any(compare(score, number) for score in found or [0.0])

    return scored


def _fits(pattern: Pattern) -> Callable[[str], bool]:
    """Return what tells whether a whole tag is meant."""
    if pattern.kind == "regex":
        expression = re.compile(pattern.text)
        return lambda tag: expression.search(tag) is not None
    if pattern.kind == "wild":
        shape = wildcard(pattern.text.replace("_", " "))
        return lambda tag: shape.fullmatch(key(tag)) is not None
    wanted = key(_plain(pattern))
    return lambda tag: key(tag) == wanted


def _tag(pattern: Pattern) -> Matches:
    if pattern.kind == "plain":
        wanted = key(_plain(pattern))
        return lambda record: wanted in record.caption.keys
    fits = _fits(pattern)
    return lambda record: any(fits(tag) for tag in record.caption.tags)


def _caption(pattern: Pattern) -> Matches:
    if pattern.kind == "regex":
        expression = re.compile(pattern.text)
    elif pattern.kind == "wild":
        expression = in_words(pattern.text, wild=True)
    else:
        expression = in_words(_plain(pattern))
    return lambda record: expression.search(record.caption.text) is not None


def _whole_or_part(pattern: Pattern) -> Callable[[str], bool]:
    """Return what tells whether a name is meant, capital and small letters being one."""
    if pattern.kind == "regex":
        expression = re.compile(pattern.text)
        return lambda name: expression.search(name) is not None
    if pattern.kind == "wild":
        shape = wildcard(pattern.text)
        return lambda name: shape.fullmatch(key(name)) is not None
    wanted = _plain(pattern).casefold()
    return lambda name: wanted in name.casefold()


def _plain(pattern: Pattern) -> str:
    return _ESCAPED.sub(r"\1", pattern.text)
