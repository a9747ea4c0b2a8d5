"""The grammar of filters: from text to a tree of terms, with errors that point to the column."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lib_lora_trainer.base.errors import UserError

FIELDS = ("tag", "caption", "name", "folder", "score", "count", "tokens", "chars", "kind", "has")
DEEPEST = 100  # terms within each other, so that no filter overflows Python's stack
NUMBERS = ("count", "tokens", "chars")
_COMPARISON = re.compile(r">=|<=|!=|=|>|<")
_FIELD = re.compile(r"([a-z]+)(?=:|>=|<=|!=|=|>|<)")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(?![^\s)])")


class QueryError(UserError):
    """A filter that cannot be read. column: where, counted from 1; expected: what could stand there."""

    def __init__(self, query: str, column: int, message: str, expected: str) -> None:
        self.query, self.column, self.message, self.expected = query, column, message, expected
        super().__init__(f"Column {column}: {message} Expected: {expected}.")


@dataclass(frozen=True)
class Pattern:
    """A text to compare with. kind: `plain`; `wild` where * and ? are free; `regex`, written between slashes."""

    text: str
    kind: str
    column: int


@dataclass(frozen=True)
class Term:
    """One condition. sign and number: only of comparisons; field: "" for a word by itself, which is a tag."""

    field: str
    pattern: Pattern | None
    sign: str = ""
    number: float = 0.0
    column: int = 1


@dataclass(frozen=True)
class Not:
    """What must not be."""

    inner: Node


@dataclass(frozen=True)
class All:
    """What must all be; nothing always is."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Some:
    """Of which one must be."""

    parts: tuple[Node, ...]


Node = Term | Not | All | Some


def parse(query: str) -> Node:
    """Return the tree of a filter; an empty one fits everything. Raises QueryError.

    OR binds weakest, then AND, which may be left out, then NOT, or a minus; these words in capitals only.
    """
    reader = _Reader(query)
    if reader.at_end():
        return All(())
    node = reader.either()
    if not reader.at_end():
        raise QueryError(query, reader.position + 1, "this ) closes nothing.", "AND, OR, a term, or the end")
    return node


class _Reader:
    """A position in a filter, and what can be read there."""

    def __init__(self, query: str) -> None:
        self.query, self.position, self._depth = query, 0, 0

    def at_end(self) -> bool:
        """Skip spaces and tell whether nothing is left."""
        while self.position < len(self.query) and self.query[self.position].isspace():
            self.position += 1
        return self.position == len(self.query)

    def either(self) -> Node:
        """Read terms joined by OR."""
        parts = [self.every()]
        while self._word("OR"):
            parts.append(self.every())
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def every(self) -> Node:
        """Read terms joined by AND, or by nothing."""
        parts = [self.single()]
        while self._word("AND") or not (self.at_end() or self._peek(")") or self._is_word("OR")):
            parts.append(self.single())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def single(self) -> Node:
        """Read a term, a negated one, or what stands in parentheses."""
        wanted = "a term such as smile, tag:long_hair, name:*.png, count>5, score:smile>0.8, or ("
        if self.at_end():
            raise QueryError(self.query, len(self.query) + 1, "the filter ends here.", wanted)
        self._depth += 1
        if self._depth > DEEPEST:
            raise QueryError(self.query, self.position + 1, "too many terms within each other.", "fewer ( and NOT")
        node = self._single(wanted)
        self._depth -= 1
        return node

    def _single(self, wanted: str) -> Node:
        if self._word("NOT"):
            return Not(self.single())
        if self._peek("-") and self.query[self.position + 1 : self.position + 2].strip():
            self.position += 1
            return Not(self.single())
        if self._is_word("AND") or self._is_word("OR") or self._peek(")"):
            found = self.query[self.position :].split(maxsplit=1)[0]
            raise QueryError(self.query, self.position + 1, f"there is nothing before {found}.", wanted)
        if not self._peek("("):
            return self._term()
        opened = self.position + 1
        self.position += 1
        node = self.either()
        if self.at_end() or not self._peek(")"):
            raise QueryError(self.query, self.position + 1, f"the ( in column {opened} is not closed.", ")")
        self.position += 1
        return node

    def _peek(self, character: str) -> bool:
        return self.query.startswith(character, self.position)

    def _is_word(self, word: str) -> bool:
        end = self.position + len(word)
        return self._peek(word) and (end == len(self.query) or self.query[end].isspace() or self.query[end] in "()")

    def _word(self, word: str) -> bool:
        """Skip a word if it is there."""
        found = not self.at_end() and self._is_word(word)
        self.position += len(word) if found else 0
        return found

    def _term(self) -> Term:
        column = self.position + 1
        named = _FIELD.match(self.query, self.position)
        name = named[1] if named and named[1] in FIELDS else ""
        if named and not name and self._looks_like_field(named):
            raise QueryError(self.query, column, f"{named[1]!r} is no field.", f"one of {', '.join(FIELDS)}")
        if not name:
            return Term("tag", self._pattern("a tag"), column=column)
        assert named is not None
        self.position = named.end()
        if name in NUMBERS:
            return self._compared(name, None, column)
        if not self._peek(":"):
            raise QueryError(self.query, self.position + 1, f"{name} takes a text.", f"{name}:")
        self.position += 1
        if name == "score":
            return self._compared(name, self._pattern("a tag", stop="<>=!"), column)
        pattern = self._pattern({"kind": "tags, prose, mixed or empty", "has": "caption or scores"}.get(name, "a text"))
        return Term(name, self._checked(name, pattern), column=column)

    def _looks_like_field(self, named: re.Match[str]) -> bool:
        """Tell a mistaken field from a tag such as re:zero: only a comparison with a number is meant as one."""
        sign = _COMPARISON.match(self.query, named.end())
        return sign is not None and _NUMBER.match(self.query, sign.end()) is not None

    def _checked(self, name: str, pattern: Pattern) -> Pattern:
        allowed = {"kind": ("tags", "prose", "mixed", "empty"), "has": ("caption", "scores")}.get(name)
        if allowed is not None and pattern.text not in allowed:
            raise QueryError(self.query, pattern.column, f"{pattern.text!r} is unknown.", " or ".join(allowed))
        return pattern

    def _compared(self, name: str, pattern: Pattern | None, column: int) -> Term:
        sign = _COMPARISON.match(self.query, self.position)
        if sign is None:
            text = "a comparison is missing."
            raise QueryError(self.query, self.position + 1, text, "one of > >= < <= = != and a number")
        number = _NUMBER.match(self.query, sign.end())
        if number is None:
            raise QueryError(self.query, sign.end() + 1, "a number is missing.", "a number such as 5 or 0.8")
        self.position = number.end()
        return Term(name, pattern, sign[0], float(number[0]), column)

    def _pattern(self, wanted: str, stop: str = "") -> Pattern:
        """Read a word, a text in quotes, or a regular expression between slashes. stop: what ends a word besides."""
        start = self.position
        mark = self.query[start : start + 1]
        if mark in ('"', "/") and (mark == '"' or self.query.find("/", start + 1) > 0):
            return self._enclosed(mark)
        depth, position = 0, start
        while position < len(self.query) and not self.query[position].isspace():
            character = self.query[position]
            if character == "\\":
                position += 1
            elif character in stop or (character == ")" and depth == 0):
                break
            depth += {"(": 1, ")": -1}.get(character, 0)
            position += 1
        position = min(position, len(self.query))
        text = self.query[start:position]
        if not text:
            raise QueryError(self.query, start + 1, "nothing to look for.", wanted)
        self.position = position
        return Pattern(text, "wild" if re.search(r"(?<!\\)[*?]", text) else "plain", start + 1)

    def _enclosed(self, mark: str) -> Pattern:
        """Read up to the same mark; a backslash before it makes it part of the text."""
        start, position, text = self.position, self.position + 1, ""
        while position < len(self.query) and self.query[position] != mark:
            if self.query[position] == "\\" and self.query[position + 1 : position + 2] == mark:
                position += 1
            text += self.query[position]
            position += 1
        if position == len(self.query):
            column = start + 1
            raise QueryError(self.query, len(self.query) + 1, f"the {mark} in column {column} is not closed.", mark)
        self.position = position + 1
        if mark == '"':
            if not text.strip():
                raise QueryError(self.query, start + 2, "nothing to look for.", "a text between the quotes")
            return Pattern(text, "plain", start + 1)
        try:
            re.compile(text)
        except re.error as error:
            column = start + 2 + (error.pos or 0)
            raise QueryError(self.query, column, f"{error.msg}.", "a regular expression") from error
        return Pattern(text, "regex", start + 1)
