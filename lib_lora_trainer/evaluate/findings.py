"""What a trial of all epochs and weights says about the training: its length, what went wrong, and what to change next.

The findings are the troubleshooting lists of the guides (G3: overbaked, underbaked, outfits alike, no effect), each from
what was measured: it is told when it is large enough to see and not explained by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lib_lora_trainer.base.errors import Severity
from lib_lora_trainer.evaluate import pick
from lib_lora_trainer.evaluate.pick import ENOUGH, Cell, Choice, Gain, Trial, gain, has_learned, rate

Length = Literal["no-effect", "too-short", "right", "too-long"]
Kind = Literal[
    "no-effect", "underbaked", "overbaked", "loses-control", "bleed", "outfits-bleed", "copying", "defects",
    "trait-missing", "too-strong", "too-weak", "few-images",
]  # fmt: skip

SEEN = 0.1
"""A loss or a gain of so much is seen; a smaller one is not spoken of."""
STRONG = 0.25
"""A loss or a gain of so much is damage, also where there is no other epoch to show that it could be less."""
STILL = 1.0
"""Mean difference from the base model's images, grey levels of 255, below which an adapter does nothing."""
MISSED = 0.3
"""Of what the dataset's pictures have of it: a trait that comes less often than that was not learned."""

UNSURE = 0.55
"""Width of the recall's interval from which on more images are asked for: less than seven at a recall of a half."""


@dataclass(frozen=True)
class Finding:
    """One thing that the trial shows. text: what, with its figures; fix: what to change next, "" where nothing has to."""

    kind: Kind
    severity: Severity
    text: str
    fix: str = ""


@dataclass(frozen=True)
class Verdict:
    """What to use, why, and what to change next. choice: None where nothing has an effect.

    epochs: how many to train next time, None where the length is right or says nothing.
    """

    length: Length
    choice: Choice | None
    why: tuple[str, ...]
    findings: tuple[Finding, ...]
    epochs: int | None = None


@dataclass(frozen=True)
class _Harm:
    """What an adapter does beside its purpose, each as a gain over the base model; control: what is lost of it."""

    control: Gain
    bleed: Gain
    mixed: Gain
    defects: Gain
    copies: Gain

    def of(self, size: float) -> list[str]:
        """Return what of it is at least of a size, and not by chance."""
        return [name for name, each in vars(self).items() if each.more and each.mean >= size]


def judge(trial: Trial) -> Verdict:
    """Return the verdict on a trial. Raises ValueError for one without cells."""
    choice = pick.choose(trial)
    length = length_of(trial, choice)
    if length == "no-effect":
        return Verdict(length, None, ("No file changes the images at any weight.",), (_nothing(trial),))
    said = tuple(_why(trial, choice)), tuple(_findings(trial, choice, length))
    return Verdict(length, choice, *said, _epochs(trial, choice, length))


def _epochs(trial: Trial, choice: Choice, length: Length) -> int | None:
    """Return how many epochs to train next time; None where a longer or shorter training is not what is missing."""
    last = pick.at_weight(trial)[-1]
    if length == "too-short" and last.epoch:
        return math.ceil(last.epoch * _times(trial, choice))
    if length == "too-long" and choice.cell.step < last.step and choice.cell.epoch:
        return choice.cell.epoch
    return None


def _times(trial: Trial, choice: Choice) -> float:
    """Return how many times as long a training that was too short should be."""
    if not gain(choice.cell.recall, trial.base.recall).more:
        return 2.0
    return min(4.0, max(1.5, ENOUGH * trial.ceiling / max(rate(choice.cell.recall).mean, 0.01)))


def length_of(trial: Trial, choice: Choice) -> Length:
    """Return whether the training was too short, right or too long.

    Too long: at the usual weight the last file does damage, and an earlier epoch or another weight is better; of a
    single file, which no epoch can be compared with, the damage has to be large. Damage that all epochs do alike has
    other causes, which the findings tell. Too short: the best there is has not learned enough.
    """
    if max(cell.change for cell in trial.cells) < STILL:
        return "no-effect"
    last = pick.at_weight(trial)[-1]
    harm = _harm(trial, last)
    mine = next(each for cell, each in zip(trial.cells, choice.qualities, strict=True) if cell is last)
    single = len({cell.label for cell in trial.cells}) == 1
    worse = _overdone(trial, last, harm.of(SEEN)) and not mine.tied
    if worse or (single and _overdone(trial, last, harm.of(STRONG))):
        return "too-long"
    return "right" if has_learned(trial, choice.cell) else "too-short"


def _overdone(trial: Trial, cell: Cell, harms: Sequence[str]) -> bool:
    """Tell whether harms come of too much training: traits that come unasked do so only where they have been learned."""
    return bool(set(harms) if has_learned(trial, cell) else set(harms) - {"bleed"})


def _harm(trial: Trial, cell: Cell) -> _Harm:
    base = trial.base
    return _Harm(
        control=gain(base.control, cell.control),
        bleed=gain(cell.bleed, base.bleed),
        mixed=gain(cell.mixed, base.mixed),
        defects=gain(cell.defects, base.defects),
        copies=gain(cell.copies, base.copies),
    )


def _why(trial: Trial, choice: Choice) -> Iterator[str]:
    cell = choice.cell
    recall, harm = rate(cell.recall), _harm(trial, cell)
    yield (
        f"{cell.label} at weight {cell.weight:g}: the trigger alone brings {recall.mean:.0%} of its traits "
        f"({recall.low:.0%} to {recall.high:.0%}; the dataset's own pictures show {trial.ceiling:.0%}, the base model "
        f"{rate(trial.base.recall).mean:.0%})."
    )
    parts = []
    if cell.control:
        parts.append(
            f"{rate(cell.control).mean:.0%} of the prompted tags are obeyed (base model {rate(trial.base.control).mean:.0%})"
        )
    if cell.bleed:
        parts.append(f"{max(0.0, harm.bleed.mean):.0%} of the traits come without the trigger")
    if cell.mixed:
        parts.append(f"{max(0.0, harm.mixed.mean):.0%} of other triggers' traits come with it")
    parts.append(f"{rate(cell.defects).mean:.0%} of the images are damaged, {rate(cell.copies).mean:.0%} copies")
    yield f"{'; '.join(parts)}."
    tied = [each for each, found in zip(trial.cells, choice.qualities, strict=True) if found.tied and each is not cell]
    later = [each for each in tied if each.step > cell.step]
    if later:
        yield f"{len(later)} later cells are not better by more than chance explains: the earlier epoch is taken."
    weights = [each.weight for each in trial.cells if each.label == cell.label]
    if len(weights) > 1:
        ends = (" or less" * (choice.lowest == min(weights)), " or more" * (choice.highest == max(weights)))
        yield f"Usable weights: {choice.lowest:g}{ends[0]} to {choice.highest:g}{ends[1]}."


def _nothing(trial: Trial) -> Finding:
    most = max(cell.change for cell in trial.cells)
    return Finding(
        "no-effect", "error",
        f"The images are those of the base model: they differ by {most:.1f} of 255 grey levels at most.",
        "Look whether the run found pictures and captions, whether its learning rate is above 0, and whether all "
        "of the optimizer's states are in full precision; then train again.",
    )  # fmt: skip


def _findings(trial: Trial, choice: Choice, length: Length) -> Iterator[Finding]:
    last = pick.at_weight(trial)[-1]
    if length == "too-short":
        yield _underbaked(trial, choice)
    if length == "too-long":
        yield _overbaked(trial, choice, last)
    yield from _about_harm(trial, choice.cell)
    missing = [
        f"{tag} ({share:.0%})"
        for tag, share in choice.cell.traits.items()
        if share < MISSED * trial.ceiling and length != "too-short"
    ]
    if missing:
        yield Finding(
            "trait-missing", "warning", f"These traits rarely come with the trigger: {', '.join(missing)}.",
            "Add pictures that show them, or leave them in the captions so that they can be prompted.",
        )  # fmt: skip
    yield from _about_weight(trial, choice)
    recall = rate(choice.cell.recall)
    if recall.high - recall.low > UNSURE:
        text = f"With {recall.images} images the recall is only known to lie between {recall.low:.0%} and {recall.high:.0%}."
        yield Finding("few-images", "note", text, "Pick again with more images; those that are made are kept.")


def _underbaked(trial: Trial, choice: Choice) -> Finding:
    learned = rate(choice.cell.recall).mean
    if not gain(choice.cell.recall, trial.base.recall).more:
        text = (
            f"Underbaked: the trigger brings {learned:.0%} of its traits, no more than the base model does by chance."
        )
        fix = (
            "Look whether the captions have the trigger. Then train longer, or with a higher learning rate; twice as many "
            "epochs are a fair next try."
        )
        return Finding("underbaked", "error", text, fix)
    text = f"Underbaked: the trigger brings {learned:.0%} of its traits; {ENOUGH * trial.ceiling:.0%} are enough."
    times = _times(trial, choice)
    fix = f"Train about {times:.1f} times as many epochs, or raise the learning rate or alpha; the run can be continued."
    return Finding("underbaked", "warning", text, fix)


def _overbaked(trial: Trial, choice: Choice, last: Cell) -> Finding:
    harm = _harm(trial, last)
    said = {
        "control": f"obeys {harm.control.mean:.0%} less of the prompt",
        "bleed": f"brings {harm.bleed.mean:.0%} of the traits without the trigger",
        "mixed": f"mixes {harm.mixed.mean:.0%} of other triggers' traits in",
        "defects": f"damages {harm.defects.mean:.0%} of the images",
        "copies": f"repeats pictures of the dataset in {harm.copies.mean:.0%} of the images",
    }
    signs = ", ".join(said[name] for name in harm.of(SEEN))
    text = f"Overbaked: {last.label} at weight {last.weight:g} {signs}."
    cell = choice.cell
    if cell is last:
        return Finding(
            "overbaked", "warning", text, "Save more epochs, train fewer, and lower the learning rate or alpha."
        )
    use = f"Use {cell.label} at weight {cell.weight:g}."
    shorter = f"Next time {cell.epoch} epochs are enough" if cell.step < last.step else "Next time train fewer epochs"
    return Finding("overbaked", "warning", text, f"{use} {shorter}, or lower the learning rate or alpha.")


_REMEDIES: dict[str, tuple[Kind, str, str]] = {
    "control": (
        "loses-control", "{:.0%} fewer of the prompted tags are obeyed than by the base model",
        "Keep what should be changeable in the captions, add pictures that vary it, train the text encoder less, or lower "
        "the rank.",
    ),
    "bleed": (
        "bleed", "{:.0%} of the traits come without the trigger",
        "Add regularization images made from the captions, choose a trigger that the base model does not know, or train "
        "the text encoder less.",
    ),
    "mixed": (
        "outfits-bleed", "{:.0%} of other triggers' own traits come when one trigger is prompted: outfits bleed into each "
        "other",
        "Give each outfit a trigger whose words it shares with no other, balance their repeats, prune each outfit's parts "
        "only in its own folder, and add a misc folder in which such parts stand unpruned.",
    ),
    "defects": (
        "defects", "{:.0%} more of the images are damaged than the base model's",
        "Lower the weight or the learning rate, add scale_weight_norms or min-SNR, and look at the pictures for artefacts.",
    ),
    "copies": (
        "copying", "{:.0%} of the images repeat a picture of the dataset",
        "Add more different pictures, remove near-duplicates, flip them where they may be, and train fewer epochs or at a "
        "lower rank.",
    ),
}  # fmt: skip


def _about_harm(trial: Trial, cell: Cell) -> Iterator[Finding]:
    harm = _harm(trial, cell)
    for name in harm.of(SEEN):
        kind, text, fix = _REMEDIES[name]
        size: float = getattr(harm, name).mean
        yield Finding(kind, "warning", f"Still, with the recommended one {text.format(size)}.", fix)


def _about_weight(trial: Trial, choice: Choice) -> Iterator[Finding]:
    cell = choice.cell
    weights = {each.weight for each in trial.cells if each.label == cell.label}
    reaches = choice.lowest <= 1 <= choice.highest
    if reaches or not (min(weights) <= 1 <= max(weights)):
        return
    best = choice.highest if choice.highest < 1 else choice.lowest
    kind: Kind = "too-strong" if best < 1 else "too-weak"
    what = "too strong" if best < 1 else "too weak"
    text = f"At weight 1 it is {what}; it works from {choice.lowest:g} to {choice.highest:g}."
    yield Finding(kind, "note", text, f"Bake it, so that {cell.weight:g} becomes 1: bake --rebase {cell.weight:g}.")
