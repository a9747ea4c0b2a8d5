"""CLIP's tokenizer, and captions cut into chunks of 75 tokens as the WebUI cuts prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from lib_lora_trainer.hosts import tokenizer_files

START, END = 49406, 49407
CHUNK = 75
_BACKTRACK = 20
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


def split_chunks(tokens: Sequence[int], comma_token: int) -> list[list[int]]:
    """Return tokens in chunks of at most 75, at least one.

    As the WebUI's prompt handling with its default of 20 (sd_hijack_clip.py `tokenize_line`, 1.10.1): when a chunk is
    full and a comma is among its last 20 tokens, what follows that comma moves into the next chunk.
    """
    chunks: list[list[int]] = [[]]
    last_comma: int | None = None
    for token in tokens:
        current = chunks[-1]
        if len(current) == CHUNK:
            moved: list[int] = []
            if token != comma_token and last_comma is not None and CHUNK - last_comma <= _BACKTRACK:
                moved = current[last_comma + 1 :]
                del current[last_comma + 1 :]
            chunks.append(moved)
            last_comma = None
        if token == comma_token:
            # A comma that opens a chunk is not remembered, as in the WebUI.
            last_comma = len(chunks[-1]) or None
        chunks[-1].append(token)
    return chunks


def rows(tokens: Sequence[int], chunks: int, padding: int) -> list[list[int]]:
    """Return `chunks` rows of 77 token numbers: start, up to 75 tokens, end, then `padding`.

    padding: END for OpenAI's encoders, 0 for open_clip's. Tokens beyond the last chunk are dropped.
    """
    parts = [*split_chunks(tokens, comma()), *([[]] * chunks)][:chunks]
    return [[START, *part, END, *([padding] * (CHUNK - len(part)))] for part in parts]
