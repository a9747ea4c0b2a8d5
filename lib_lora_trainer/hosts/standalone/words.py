"""CLIP's tokenizer, and the rows of token numbers that its encoders read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from lib_lora_trainer.hosts import tokenizer_files
from lib_lora_trainer.hosts.chunks import chunk_tokens, framed

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


def rows(tokens: Sequence[int], chunks: int, padding: int) -> list[list[int]]:
    """Return exactly `chunks` rows of 77 token numbers: start, chunk, end, padding. Longer texts are cut."""
    return [framed(chunk, START, END, padding) for chunk in chunk_tokens(tokens, comma(), chunks)]
