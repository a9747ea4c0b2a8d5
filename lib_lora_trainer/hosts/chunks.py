"""Token chunks: how a caption longer than CLIP's 75 tokens is cut, the same for every host."""

from __future__ import annotations

from collections.abc import Sequence

CHUNK_TOKENS = 75
COMMA_REACH = 20  # the WebUI's default of "Prompt word wrap length limit" (comma_padding_backtrack)

Piece = tuple[Sequence[int], float]
WeightedChunk = tuple[list[int], list[float]]


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


def split_weighted(pieces: Sequence[Piece | None], comma: int, reach: int = COMMA_REACH) -> list[WeightedChunk]:
    """Return (tokens, weights) of each chunk, cut where `split` cuts the same tokens; at least one chunk.

    pieces: tokens with the weight of each of them; None begins a new chunk (BREAK), also when the last one is empty.
    Source: modules/sd_hijack_clip.py `tokenize_line`, 1.10.1.
    """
    chunks: list[WeightedChunk] = []
    ids: list[int] = []
    weights: list[float] = []
    for piece in pieces:
        if piece is None:
            chunks += _cut(ids, weights, comma, reach)
            ids, weights = [], []
        else:
            ids += piece[0]
            weights += [piece[1]] * len(piece[0])
    return chunks + _cut(ids, weights, comma, reach) if ids or not chunks else chunks


def chunk_weighted(
    pieces: Sequence[Piece | None], comma: int, chunks: int, reach: int = COMMA_REACH
) -> list[WeightedChunk]:
    """Return exactly `chunks` chunks as `split_weighted` makes them: empty ones added, what does not fit left out."""
    empty: list[WeightedChunk] = [([], []) for _ in range(chunks)]
    return (split_weighted(pieces, comma, reach) + empty)[:chunks]


def framed_weights(weights: Sequence[float]) -> list[float]:
    """Return the 77 weights that belong to `framed` tokens: 1 for start, end and padding."""
    return [1.0, *weights, *[1.0] * (CHUNK_TOKENS + 1 - len(weights))]


def _cut(ids: Sequence[int], weights: Sequence[float], comma: int, reach: int) -> list[WeightedChunk]:
    remaining = iter(weights)
    return [(chunk, [next(remaining) for _ in chunk]) for chunk in split(ids, comma, reach)]


def _phrase_end(full: Sequence[int], comma: int, reach: int) -> int:
    for index in range(CHUNK_TOKENS - 1, CHUNK_TOKENS - 1 - reach, -1):
        if full[index] == comma:
            return index + 1
    return CHUNK_TOKENS
