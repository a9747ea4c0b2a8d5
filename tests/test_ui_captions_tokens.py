"""The counter beside a caption: CLIP's tokens and the WebUI's chunks, equal to the hosts' own."""

import random

import pytest

pytest.importorskip("tokenizers")

from lib_lora_trainer.hosts import chunks
from lib_lora_trainer.hosts.standalone.words import comma, load_tokenizer
from lib_lora_trainer.ui import captions_tokens

WORDS = [
    "1girl", "long", "hair", "blonde_hair", "it's", "don't", "looking", "at", "viewer", "(kayoko)", ":d", "^_^", "16", "2020s",
    "école", "日本語", "frilled-vest", "you're", "<lora>", "½", "²", "e\u0301cole", "sword", "_", "...", "\u3000",
]  # fmt: skip


def test_as_many_tokens_and_chunks_as_the_hosts_count():
    draw, tokenize = random.Random(1), load_tokenizer()
    for _ in range(300):
        tags = [" ".join(draw.choices(WORDS, k=draw.randint(1, 6))) for _ in range(draw.randint(0, 60))]
        text = ", ".join(tags)
        ids, counted = tokenize(text), captions_tokens.count(text)
        cut = chunks.split(ids, comma())
        assert (counted.tokens, counted.chunks) == (len(ids), len(cut)), text


def test_a_chunk_ends_behind_the_last_tag_that_fits():
    tags = ["red hair"] * 30  # two tokens and a comma each: the 26th begins in the first chunk and ends in the second
    counted = captions_tokens.count(", ".join(tags))
    assert (counted.tokens, counted.ends) == (89, (24,))
    longer = captions_tokens.count(", ".join(["a"] * 37 + ["b b b", *["c"] * 5]))
    assert longer.ends == (36,), "a tag that does not fit moves whole into the next chunk"
    assert captions_tokens.count("hair " * 80).ends == (0,), "without a comma near, in the middle of the tag"
    assert captions_tokens.count("").tokens == 0
