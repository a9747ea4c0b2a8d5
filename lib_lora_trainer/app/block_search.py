"""The search for the smallest set of blocks, its questions answered by making and looking at images."""

from __future__ import annotations

from collections.abc import Generator

from lib_lora_trainer.app.block_bench import Bench, Counted
from lib_lora_trainer.app.block_sets import FileBlocks
from lib_lora_trainer.base.events import Event, Note
from lib_lora_trainer.evaluate import blocks, blocks_search
from lib_lora_trainer.evaluate.blocks import Analysis
from lib_lora_trainer.evaluate.blocks_options import Shots
from lib_lora_trainer.evaluate.blocks_report import Chosen, Tried
from lib_lora_trainer.evaluate.blocks_search import Question, Smallest
from lib_lora_trainer.evaluate.pick_subject import Looking

Recall = tuple[float, ...]
NOTHING = (
    "No smallest set: the adapter shows no more of the traits than the base model does, so there is nothing to keep. Choose "
    "another epoch or a larger weight, or look whether the prompts have the trigger."
)


def searched(
    bench: Bench, inside: FileBlocks, shots: Shots, analysis: Analysis, looking: Looking, keep: float
) -> Generator[Event, None, Chosen | None]:
    """Return the smallest set of blocks that was found to keep a share of what the adapter adds to the recall.

    Every set that is tried is measured; the images of one that was measured before are taken as they are kept. None, with
    a warning, where the adapter adds nothing. Raises Stopped on the user's wish.
    """
    if analysis.gained.mean <= 0:
        yield Note("warning", NOTHING)
        return None
    every, none = frozenset(inside.names), frozenset[str]()
    known = {Question(every, False): analysis.full.recall, Question(none, False): analysis.base.recall}
    tried: list[Tried] = []
    asking = blocks_search.smallest([row.block for row in blocks.rows(analysis)], keep)
    answer: float | None = None
    while True:
        try:
            question = next(asking) if answer is None else asking.send(answer)
        except StopIteration as end:
            return _chosen(end.value, keep, tuple(tried), inside, analysis)
        asked = shots.fresh if question.fresh else shots.recall
        for each in (Question(every, question.fresh), Question(none, question.fresh), question):
            if each not in known:
                name = f"set {len(tried) + 1}: {len(each.blocks)} of {len(inside.names)} blocks"
                seen = yield from bench.measured(each.blocks, asked, Counted(name, len(asked)))
                known[each] = blocks.recall(asked, seen, looking)
        recall = known[question]
        answer = blocks.kept(recall, known[Question(every, question.fresh)], known[Question(none, question.fresh)])
        tried.append(Tried(_ordered(question.blocks, inside), question.fresh, answer, recall))


def _chosen(found: Smallest, keep: float, tried: tuple[Tried, ...], inside: FileBlocks, analysis: Analysis) -> Chosen:
    most = _mean(analysis.full.recall)
    set_of = _ordered(frozenset(found.blocks), inside)
    own = next((each.recall for each in tried if each.blocks == set_of and not each.fresh), analysis.full.recall)
    return Chosen(
        keep=keep,
        blocks=found.blocks,
        share=found.share,
        fresh=found.fresh,
        without=found.without,
        tried=tried,
        preset=inside.preset(found.blocks),
        training=inside.training(found.blocks),
        before=most,
        after=_mean(own),
    )


def _ordered(chosen: frozenset[str], inside: FileBlocks) -> tuple[str, ...]:
    return tuple(block for block in inside.names if block in chosen)


def _mean(values: Recall) -> float:
    return sum(values) / len(values)
