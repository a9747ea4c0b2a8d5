"""What the editor asks while somebody types: frequency, completion and tokens."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lib_lora_trainer.captions import frequency
from lib_lora_trainer.captions.text import key, parse
from lib_lora_trainer.captions.tokens_count import TokenCounter
from lib_lora_trainer.captions.vocabulary import Vocabulary
from lib_lora_trainer.hosts import chunks
from lib_lora_trainer.hosts.standalone import words

ROOT = Path("/data")
CAPTIONS = {
    ROOT / "a/1.txt": parse("smile, long_hair, smile"),
    ROOT / "a/2.txt": parse("Long Hair, hat"),
    ROOT / "b/3.txt": parse("long_hair, smile"),
    ROOT / "4.txt": parse("A girl stands in the rain."),
    ROOT / "5.txt": parse(""),
}


def test_the_table_counts_captions_overall_and_by_folder():
    rows = frequency.table(CAPTIONS, ROOT)
    assert [(row.key, row.tag, row.captions, dict(row.by_folder)) for row in rows] == [
        ("long hair", "long_hair", 3, {"a": 2, "b": 1}),
        ("smile", "smile", 2, {"a": 1, "b": 1}),
        ("hat", "hat", 1, {"a": 1}),
    ]


def test_what_occurs_together():
    assert frequency.together(CAPTIONS.values(), "Smile") == (("long hair", 2),)
    assert frequency.together(CAPTIONS.values(), "long_hair") == (("smile", 2), ("hat", 1))
    assert frequency.together(CAPTIONS.values(), "absent") == ()


def test_the_summary():
    found = frequency.summary(CAPTIONS.values())
    assert (found.captions, found.empty, found.prose) == (5, 1, 1)
    assert (found.most, found.distinct, found.once) == (3, 3, 1)
    assert abs(found.tags - 7 / 3) < 1e-12
    assert frequency.summary(()).tags == 0.0


def offered(vocabulary, typed, limit=20):
    """Return the tags that are offered."""
    return [completion.tag for completion in vocabulary.complete(typed, limit)]


def test_completion_ranks_beginnings_then_words_then_the_rest():
    tagger = ["hair ornament", "long hair", "very long hair", "chair", "hair", "along"]
    vocabulary = Vocabulary({"wide hair bow": 3, "hair_tie": 2, "Long_Hair": 5}, tagger)
    assert offered(vocabulary, "hair") == [
        "hair", "hair_tie", "hair ornament", "Long_Hair", "wide hair bow", "very long hair", "chair"
    ]  # fmt: skip
    assert offered(vocabulary, "LONG_h") == ["Long_Hair", "very long hair"]
    assert offered(vocabulary, "hair", 2) == ["hair", "hair_tie"]
    assert offered(vocabulary, "", 2) == ["Long_Hair", "wide hair bow"]
    assert offered(vocabulary, "hair", 0) == offered(vocabulary, "zzz") == []
    assert vocabulary.complete("long")[0].count == 5


@given(st.lists(st.text("ab_ ", min_size=1, max_size=5), max_size=12), st.text("ab_ ", max_size=3))
def test_completion_offers_exactly_what_contains_the_text(tags, typed):
    found = [completion.tag for completion in Vocabulary(dict.fromkeys(tags, 1)).complete(typed, 100)]
    expected = {key(tag) for tag in tags if key(tag) and key(typed) in key(tag)}
    assert {key(tag) for tag in found} == expected
    assert len(found) == len(expected)


def counter():
    """Return a counter with CLIP's own tokenizer and the WebUI's cut."""
    return TokenCounter(words.load_tokenizer(), partial(chunks.split, comma=words.comma()))


def test_counting_word_by_word_is_what_the_tokenizer_says():
    counted, tokenize = counter(), words.load_tokenizer()
    for text in ("1girl, long_hair, kayoko (blue archive)", "  a,b,,c  d's ^_^ 白い髪, naïve", "", ",", "x" * 200):
        assert counted.count(text) == counted.measure(text).tokens == len(tokenize(text)), text


def test_chunks_begin_where_the_host_cuts():
    text = ", ".join(f"cat{'' if n % 3 else ' dog'}" for n in range(100))
    found = counter().measure(text)
    parts = [text[a:b] for a, b in zip((0, *found.chunks), (*found.chunks, len(text)), strict=True)]
    cut = chunks.split(words.load_tokenizer()(text), words.comma())
    assert len(found.chunks) == len(cut) - 1 >= 2
    assert [words.load_tokenizer()(part) for part in parts] == cut


def test_a_short_caption_has_one_chunk():
    assert counter().measure("a cat").chunks == counter().measure("").chunks == ()
