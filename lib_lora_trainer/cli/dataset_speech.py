"""How the commands about datasets speak: events, proposals and reports, in words or as JSON, and the exit status."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.base.events import Finished, Note, Phase, to_json
from lib_lora_trainer.cli import speech
from lib_lora_trainer.cli.speech import DONE, MISTAKES, STOPPED

if TYPE_CHECKING:
    import argparse

    from lib_lora_trainer.app.dataset_tools import Draft

VERBS = {"write": "write", "replace": "replace", "move": "move", "remove": "to the holding", "drop": "drop if empty"}


def apply(made: Draft, control: Any, options: argparse.Namespace) -> int:
    """Say what a draft would do, do it unless that is all that was asked for, and return the exit status."""
    from lib_lora_trainer.app import dataset_tools
    from lib_lora_trainer.dataset.tools.operations import described, shown

    for proposal in made.proposals:
        if options.json:
            speech.say(json.dumps({"event": "proposal", **described(proposal, made.root)}, ensure_ascii=False))
            continue
        for operation in proposal.operations:
            to = f" → {shown(operation.to, made.root)}" if operation.to else ""
            speech.say(f"{VERBS[operation.kind]} {shown(operation.path, made.root)}{to}")
    if not options.json:
        tell_problems(made.problems)
    faulty = any(problem.severity == "error" for problem in made.problems)
    if options.dry_run:
        follow([Note("note", f"{made.text}. Nothing was changed.")], options)
        return MISTAKES if faulty else DONE
    status = follow(dataset_tools.apply(made, control), options)
    return MISTAKES if faulty and status == DONE else status


def heard(events: Iterable[Any], options: argparse.Namespace) -> Any:
    """Tell events, and return the value that comes last; None when the user stopped it."""
    for event in events:
        if isinstance(event, (Note, Phase)):
            speech.say(to_json(event)) if options.json else speech.tell(event)
        elif isinstance(event, Finished):
            follow([event], options)
            return None
        else:
            return event
    return None


def follow(events: Iterable[Any], options: argparse.Namespace) -> int:
    """Tell the events of something that is done, and return the exit status."""
    status = DONE
    for event in events:
        if options.json:
            speech.say(to_json(event))
        elif isinstance(event, Finished):
            speech.say(f"{event.reason}: {event.step} changes, {event.seconds:.1f} s")
        else:
            speech.tell(event)
        if isinstance(event, Finished) and event.reason != "done":
            status = STOPPED
    return status


def tell_problems(problems: Iterable[Problem]) -> None:
    """Say each problem in a line."""
    for problem in problems:
        speech.say(f"{problem.severity}: {problem}")


def ended(content: dict[str, Any], lines: Iterable[str], problems: Iterable[Problem], options: Any) -> int:
    """Tell a report, as one JSON object or in words, and return the exit status."""
    found = list(problems)
    if options.json:
        content = {**content, "problems": [asdict(problem) for problem in found]}
        speech.say(json.dumps(content, ensure_ascii=False, default=str))
    else:
        for line in lines:
            speech.say(line)
        tell_problems(found)
    return MISTAKES if any(problem.severity == "error" for problem in found) else DONE
