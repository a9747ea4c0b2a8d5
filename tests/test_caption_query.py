"""Filters of captions: golden filters with the pictures they fit, errors with their columns, and what holds for all."""

from __future__ import annotations

import json
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_lora_trainer.captions.query import QueryError, Record, compiled
from lib_lora_trainer.captions.text import Marks, parse

GOLDEN = json.loads((Path(__file__).parent / "golden/captions/queries.json").read_text(encoding="utf-8"))


def words(text):
    """Return how many words a text has, in place of tokens."""
    return len(text.split())


def record(path, caption, scores=None, has_file=True, tokens=words):
    """Return a record with scores that are known."""
    return Record(PurePath(path), parse(caption), lambda: scores, has_file, tokens)


RECORDS = [record(path, **about) for path, about in GOLDEN["records"].items()]


@pytest.mark.parametrize(("query", "expected"), GOLDEN["queries"].items())
def test_golden(query, expected):
    fits = compiled(query)
    assert [each.path.name for each in RECORDS if fits(each)] == expected


@pytest.mark.parametrize(("query", "expected"), GOLDEN["errors"].items())
def test_errors_point_to_the_column(query, expected):
    column, message, wanted = expected
    with pytest.raises(QueryError) as caught:
        compiled(query)
    assert caught.value.column == column
    assert message in caught.value.message
    assert wanted in caught.value.expected
    assert str(caught.value).startswith(f"Column {column}: ")


def test_nobody_counts_tokens():
    with pytest.raises(QueryError, match="Column 3: nobody can count tokens"):
        compiled("a tokens>3")(record("a.png", "a", tokens=None))


def test_nobody_asks_for_scores_without_need():
    def fail():
        raise AssertionError("asked for scores")

    assert compiled("a OR score:b>0")(Record(PurePath("a.png"), parse("a"), fail))
    assert not compiled("score:b>0")(Record(PurePath("a.png"), parse("a"), None))


def test_nesting_has_an_end():
    assert compiled("NOT " * 98 + "a")(RECORDS[2]) is False
    for query in ("(" * 5000, "NOT " * 5000 + "a", "-" * 5000 + "a"):
        with pytest.raises(QueryError, match="too many terms within each other"):
            compiled(query)


def outcome(query):
    """Return what a filter says about the records, or its error."""
    try:
        fits = compiled(query)
    except QueryError as error:
        return error
    return {fits(each) for each in RECORDS}


@given(st.text('ab()"/\\-:>5 *?ANDORT') | st.text())
def test_a_filter_works_or_says_where_it_does_not(query):
    found = outcome(query)
    if isinstance(found, QueryError):
        assert 1 <= found.column <= len(query) + 1
        assert found.message
        assert found.expected
    else:
        assert found <= {True, False}


TERMS = st.sampled_from(["smile", "long_hair", "count>4", "name:img", "kind:prose", "has:scores", "*hair*"])


@given(TERMS, TERMS, TERMS)
def test_the_words_mean_what_they_do_in_logic(one, two, three):
    def same(left, right):
        return [compiled(left)(each) for each in RECORDS] == [compiled(right)(each) for each in RECORDS]

    assert same(f"NOT ({one} OR {two})", f"NOT {one} AND NOT {two}")
    assert same(f"{one} ({two} OR {three})", f"{one} AND {two} OR {one} AND {three}")
    assert same(f"{one} {two}", f"{one} AND {two}")
    assert same(f"-{one}", f"NOT {one}")
    assert same(f"{one} OR {two} {three}", f"{one} OR ({two} AND {three})")


TAGS = st.text(st.characters(codec="utf-8", exclude_characters='",\\\n'), min_size=1).filter(lambda text: text.strip())


@given(TAGS)
def test_any_tag_is_found_in_quotes(tag):
    caption = parse(tag, Marks(separator=""))
    for each in caption.tags:
        assert compiled(f'tag:"{each}"')(Record(PurePath("a.png"), caption))
