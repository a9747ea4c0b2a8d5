"""Token chunks: how a caption longer than CLIP's 75 tokens is cut, the same for every host."""

from __future__ import annotations

from collections.abc import Sequence

CHUNK_TOKENS = 75
COMMA_REACH = 20  # the WebUI's default of "Prompt word wrap length limit" (comma_padding_backtrack)


def split(ids: Sequence[int], comma: int, reach: int = COMMA_REACH) -> list[list[int]]:
    """Return a caption's tokens in lists of at most 75, at least one list.

    ids: the tokens without start and end; comma: the id of ",". Where a chunk ends in the middle of a phrase, the words
    after the last comma among its last `reach` tokens move to the next chunk, as the WebUI cuts prompts
    (modules/sd_hijack_clip.py `tokenize_line`, 1.10.1); `reach` 0 never moves any.
    """
    finished: list[list[int]] = []
    current: list[int] = []
    for token in ids:
        if len(current) == CHUNK_TOKENS:
            kept = CHUNK_TOKENS if token == comma else _phrase_end(current, comma, reach)
            finished.append(current[:kept])
            current = current[kept:]
        current.append(token)
    return [*finished, current]


def chunk_tokens(ids: Sequence[int], comma: int, chunks: int, reach: int = COMMA_REACH) -> list[list[int]]:
    """Return exactly `chunks` lists as `split` makes them: empty ones are added, what does not fit is left out."""
    return (split(ids, comma, reach) + [[] for _ in range(chunks)])[:chunks]


def framed(chunk: Sequence[int], start: int, end: int, padding: int) -> list[int]:
    """Return the 77 ids that the encoder reads: start, the chunk, end, padding."""
    return [start, *chunk, end, *[padding] * (CHUNK_TOKENS - len(chunk))]


def _phrase_end(full: Sequence[int], comma: int, reach: int) -> int:
    for index in range(CHUNK_TOKENS - 1, CHUNK_TOKENS - 1 - reach, -1):
        if full[index] == comma:
            return index + 1
    return CHUNK_TOKENS
