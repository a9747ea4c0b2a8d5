"""CLIP's tokenizer, and the rows of token numbers that its encoders read, with the weights of each token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from lib_lora_trainer.hosts import emphasized, tokenizer_files
from lib_lora_trainer.hosts.chunks import Piece, chunk_weighted, framed, framed_weights, split_weighted

START, END = 49406, 49407
_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

Tokenize = Callable[[str], list[int]]


@lru_cache(maxsize=1)
def load_tokenizer() -> Tokenize:
    """Return the function from text to CLIP's token numbers, without start and end.

    The byte-pair encoding of OpenAI's CLIP (clip/simple_tokenizer.py) without repairing broken encodings; text such as
    `<|endoftext|>` is read as plain characters. Raises UserError when the merge list is not installed.
    """
    from tokenizers import (  # type: ignore[import-untyped]
        Regex,
        Tokenizer,
        models,
        normalizers,
        pre_tokenizers,
    )

    merges = tokenizer_files.read_merges()
    tokenizer = Tokenizer(
        models.BPE(
            vocab=tokenizer_files.make_vocabulary(merges),
            merges=merges,
            end_of_word_suffix="</w>",
            continuing_subword_prefix="",
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


@lru_cache(maxsize=1)
def comma() -> int:
    """Return the number of the token for a comma."""
    (token,) = load_tokenizer()(",")
    return token


def pieces(text: str, emphasis: bool) -> Sequence[Piece | None]:
    """Return a text's tokens with their weights; without emphasis it is one piece of plain text."""
    tokenize = load_tokenizer()
    return emphasized.pieces(text, tokenize) if emphasis else [(tokenize(text), 1.0)]


def count_chunks(text: str, emphasis: bool) -> int:
    """Return how many 75-token chunks a text takes; at least 1."""
    return len(split_weighted(pieces(text, emphasis), comma()))


def rows(text: str, emphasis: bool, chunks: int, padding: int) -> list[tuple[list[int], list[float]]]:
    """Return exactly `chunks` rows of 77 tokens and their weights: start, chunk, end, padding. Longer texts are cut."""
    cut = chunk_weighted(pieces(text, emphasis), comma(), chunks)
    return [(framed(ids, START, END, padding), framed_weights(weights)) for ids, weights in cut]
