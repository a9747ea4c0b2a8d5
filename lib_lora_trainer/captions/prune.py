"""Trigger pruning: which tags of a folder its triggers should swallow, each with its reason, and the captions after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.captions import prune_rules as rules
from lib_lora_trainer.captions import triggers
from lib_lora_trainer.captions.lexicon import Group, group_of, key
from lib_lora_trainer.captions.prune_facts import Facts, Scores, gather
from lib_lora_trainer.captions.prune_values import (
    CaptionValues,
    FolderPlan,
    ImageTags,
    TagProposal,
    Trained,
    Trigger,
    Verdict,
)


@dataclass(frozen=True)
class _Judgement:
    verdict: Verdict
    reason: str
    trigger: str = ""
    on: bool = True


def propose(folder: str, images: Sequence[ImageTags], trained: Trained, scores: Scores | None = None) -> FolderPlan:
    """Return what is proposed about every tag of a folder.

    Static and with several triggers: what a trigger stands for goes where it is a part of it by frequency; semi-static:
    only the chosen ones of it (`Trigger.more`); fluid and triggerless: nothing goes. What is off can be switched on.
    """
    problems = _problems(folder, images, trained)
    if not images:
        return FolderPlan(folder, trained, (), problems)
    facts = gather(images, scores)
    own = {key(trigger.word) for trigger in trained.triggers}
    found = [_proposal(folder, tag, facts, trained) for tag in facts.places if tag not in own]
    order = ("swallow", "remove", "keep")
    found.sort(key=lambda each: (not each.on, order.index(each.verdict), -each.images, each.tag))
    return FolderPlan(folder, trained, tuple(found), problems)


def switched(plan: FolderPlan, switches: Mapping[str, bool]) -> FolderPlan:
    """Return a plan with the user's switches: tag, in any spelling, to whether it leaves the captions."""
    wanted = {key(tag): on for tag, on in switches.items()}
    changed = tuple(replace(each, on=wanted.get(key(each.tag), each.on)) for each in plan.proposals)
    return replace(plan, proposals=changed)


def pruned(plan: FolderPlan, images: Sequence[ImageTags], values: CaptionValues) -> tuple[ImageTags, ...]:
    """Return the captions after a plan: without what leaves, the triggers first in their order, everything else as it is.

    values: whether the triggers are set apart by the separator.
    """
    leaving = plan.leaving
    return tuple(triggers.inserted(image, plan.trained.words, leaving, separated=values.written) for image in images)


def caption_values(plans: Sequence[FolderPlan], separator: str) -> CaptionValues:
    """Return the settings for the captions of all folders: as many kept tokens as triggers (G3).

    Folders with different numbers of triggers cannot share one number; then the separator stands behind the triggers.
    separator: as the settings have it; "" becomes `|||`.
    """
    counts = {len(plan.trained.words) for plan in plans}
    # A trigger with a comma is several tags, but that is an error of its own.
    return CaptionValues(max(counts, default=0), separator or "|||", written=len(counts) > 1)


def _problems(folder: str, images: Sequence[ImageTags], trained: Trained) -> tuple[Problem, ...]:
    found: list[Problem] = []
    count = len(trained.triggers)
    if not images:
        found.append(Problem("warning", folder, "has no captions.", "Tag its pictures first."))
    if trained.rigidity == "triggerless" and count:
        text = "is trained without trigger, though one is given."
        found.append(Problem("error", folder, text, "Remove the trigger, or choose fluid."))
    if trained.rigidity == "multi-trigger" and count < 2:
        found.append(
            Problem("error", folder, f"has {count} triggers; several are needed.", "Add one, or choose static.")
        )
    if trained.rigidity not in ("triggerless", "multi-trigger") and count != 1:
        text = f"has {count} triggers; {trained.rigidity} has one."
        found.append(Problem("error", folder, text, "Give one trigger, or choose multi-trigger."))
    if trained.rigidity == "semi-static" and not any(trigger.more for trigger in trained.triggers):
        found.append(Problem("error", folder, "nothing is chosen to be pruned.", "Choose groups or tags, or fluid."))
    return (*found, *(each for trigger in trained.triggers for each in triggers.errors(trigger.word)))


def _proposal(folder: str, tag: str, facts: Facts, trained: Trained) -> TagProposal:
    group, score = group_of(tag), facts.score(tag)
    judged = _judged(tag, group, facts, trained)
    sure = f"; mean score {score:.2f}" if score is not None else ""
    return TagProposal(
        folder=folder,
        tag=facts.spelled[tag],
        group=group.name if group else "",
        verdict=judged.verdict,
        on=judged.on and judged.verdict != "keep",
        trigger=judged.trigger,
        images=facts.count(tag),
        total=facts.total,
        score=score,
        reason=f"{judged.reason} ({facts.count(tag)} of {facts.total} pictures{sure})",
        example=facts.example(tag),
    )


def _judged(tag: str, group: Group | None, facts: Facts, trained: Trained) -> _Judgement:
    chosen = _choosing(tag, group, trained)
    if chosen is not None and trained.rigidity != "fluid":
        return _Judgement("swallow", "chosen", chosen.word)
    found = _kept(tag, group, trained) or _detection(tag, group, facts, trained)
    if found is None:
        asking = next((each for each in trained.triggers if rules.swallows(each, tag, group)), None)
        if asking is None:
            always = group is not None and group.family == "garment" and facts.share(tag) >= rules.SIGNATURE
            hint = "; it is nearly always there: choose it if it belongs to what is trained" if always else ""
            return _Judgement("keep", rules.kept_because(trained.triggers, group) + hint)
        found = _swallowed(tag, group, facts, asking)
    if found.verdict == "keep":
        return found
    if trained.rigidity == "fluid":
        return replace(found, on=False, reason=f"fluid keeps all tags; else: {found.reason}")
    if trained.rigidity == "semi-static" and found.verdict == "swallow":
        return replace(found, on=False, reason=f"not chosen; {found.reason}")
    return found


def _choosing(tag: str, group: Group | None, trained: Trained) -> Trigger | None:
    if trained.rigidity == "triggerless":
        return None
    return next((each for each in trained.triggers if rules.is_named(tag, group, each.more)), None)


def _kept(tag: str, group: Group | None, trained: Trained) -> _Judgement | None:
    """Return the judgement on a tag that stays whatever is trained."""
    if trained.rigidity == "triggerless":
        return _Judgement("keep", "without a trigger all tags stay")
    if rules.is_named(tag, group, trained.kept):
        return _Judgement("keep", "stays as you chose")
    reason = rules.protection(group)
    return _Judgement("keep", reason) if reason else None


def _detection(tag: str, group: Group | None, facts: Facts, trained: Trained) -> _Judgement | None:
    """Return the judgement on a tag that says nothing about the picture, or something that is not there."""
    if group is not None and group.name == "meta":
        return _Judgement("remove", "abstract: it names nothing that can be seen")
    if group is not None and group.name == "name":
        return _named(tag, facts, trained)
    if not facts.is_rare(tag):
        return None
    score = facts.score(tag)
    if score is not None and score < rules.DOUBTFUL:
        return _Judgement("remove", "rare, and the tagger is not sure: a false detection")
    opposed = [other for other in facts.rivals(tag, group) if facts.share(other) >= rules.HALF]
    asked = any(rules.swallows(trigger, tag, group) for trigger in trained.triggers)
    if score is None and asked and opposed:
        return _Judgement("remove", f"rare, and contradicts {facts.spelled[opposed[0]]}: a false detection")
    return None


def _named(tag: str, facts: Facts, trained: Trained) -> _Judgement:
    kinds = {trigger.kind: trigger for trigger in trained.triggers}
    if any(rules.RULES[kind].names for kind in kinds):
        return _Judgement("remove", "a character's name would be asked for with it")
    if "character" in kinds and facts.share(tag) >= rules.HALF:
        return _Judgement("swallow", "names the character", kinds["character"].word)
    if "character" in kinds and facts.is_rare(tag):
        return _Judgement("remove", "a character that was misrecognized")
    return _Judgement("keep", rules.kept_because(trained.triggers, group_of(tag)))


def _swallowed(tag: str, group: Group | None, facts: Facts, trigger: Trigger) -> _Judgement:
    """Return whether a tag that its trigger asks for is a part of it by frequency and by what stands beside it."""
    what, share = rules.RULES[trigger.kind].what, facts.share(tag)
    if trigger.kind == "object":
        return _overlapping(tag, group, facts, trigger)
    if trigger.kind in ("character", "outfit") and facts.only_beside_others(tag):
        return _Judgement("keep", "only where several people are shown: it may be another's")
    if share >= rules.HALF:
        return _Judgement("swallow", what, trigger.word)
    steady = trigger.kind == "style" or (group is not None and group.family == "ornament")
    if steady:
        return _Judgement("keep", "too rare to be a part of it")
    rivals = facts.rivals(tag, group)
    if rivals:
        return _Judgement("keep", f"varies, as {facts.spelled[rivals[0]]} does: it stays promptable")
    if share >= rules.HIDDEN:
        return _Judgement("swallow", f"{what}; overlooked or hidden where it is missing", trigger.word)
    return _Judgement("keep", "too rare to be a part of it")


def _overlapping(tag: str, group: Group | None, facts: Facts, trigger: Trigger) -> _Judgement:
    """Return the judgement on an object's tag: its own kind goes, with other names for it; what lies beside it stays."""
    main = facts.most_frequent("object")
    mine = group_of(main) if main is not None else None
    if main is None or group is None or mine is None or group.name != mine.name:
        return _Judgement("keep", "another thing, beside the object")
    if tag != main and facts.places[tag].isdisjoint(facts.places[main]):
        return _Judgement("remove", f"contradicts {facts.spelled[main]}")
    return _Judgement("swallow", rules.RULES["object"].what, trigger.word)
