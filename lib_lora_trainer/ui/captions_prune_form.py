"""Trigger pruning as the page offers it: what each folder is about, the proposals with a switch each, how triggers relate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, get_args

import gradio as gr

from lib_lora_trainer.app.prune_jobs import Proposed
from lib_lora_trainer.base.errors import ConfigError, Problem
from lib_lora_trainer.captions.prune_values import (
    KINDS,
    RIGIDITIES,
    FolderPlan,
    Kind,
    Rigidity,
    TagProposal,
    Trained,
    Trigger,
)
from lib_lora_trainer.captions.tags import split
from lib_lora_trainer.captions.venn import Venn
from lib_lora_trainer.ui import findings
from lib_lora_trainer.ui.components import button, fold, plain

NOTHING = "leave"
"""Chosen for a folder that is not pruned."""
_KIND_NAMES = {
    "character": "Character", "outfit": "Outfit", "pose": "Pose or situation", "object": "Object", "style": "Style",
    "background": "Background",
}  # fmt: skip
_RIGIDITY_NAMES = {
    "triggerless": "No trigger", "fluid": "Fluid: keep every tag", "static": "Static: all its tags go",
    "semi-static": "Semi-static: chosen tags go", "multi-trigger": "Several triggers",
}  # fmt: skip
_VERDICTS = {"swallow": "goes into", "remove": "is removed", "keep": "stays"}
_RELATIONS = {
    "same": "same pictures", "almost": "almost the same pictures", "within": "within the other", "around": "around the other",
    "overlapping": "overlapping", "apart": "apart",
}  # fmt: skip


@dataclass(frozen=True)
class PruneForm:
    """The components. wishes, switches: JSON that the page's script writes; proposed: what is proposed, a Proposed."""

    folders: Any
    scores: Any
    propose: Any
    venn: Any
    insert: Any
    proposals: Any
    preview: Any
    wishes: Any
    switches: Any
    proposed: Any = field(default_factory=lambda: gr.State(None))

    @property
    def starting(self) -> tuple[Any, ...]:
        """The buttons that start work."""
        return (self.propose, self.venn, self.insert, self.preview)

    @property
    def answered(self) -> set[Any]:
        """What proposals update."""
        return {self.proposals, self.preview, self.proposed}


def layout() -> PruneForm:
    """Make the components."""
    with fold("Triggers and pruning", "captions_prune"):
        gr.HTML(
            "<p>What a trigger shall stand for must leave the captions. Say what each folder is about; the proposals come "
            "with their reasons and a switch each.</p>"
        )
        folders = gr.HTML(elem_id="lora_trainer_prune_folders")
        scores = gr.Checkbox(
            label="Use the taggers' scores", value=True, elem_id="lora_trainer_prune_scores",
            info="Rare tags with low scores are taken for false detections.",
        )  # fmt: skip
        with gr.Row(elem_classes="lora-trainer-actions"):
            propose = button("Propose", "prune_propose", variant="primary")
            venn = button("Check the triggers", "prune_check")
            insert = button("Put triggers first", "prune_insert")
        proposals = gr.HTML(elem_id="lora_trainer_prune_proposals")
        preview = button("Preview", "prune_preview", variant="primary", visible=False)
        with gr.Row(elem_classes="lora-trainer-hidden"):
            wishes = plain(gr.Textbox("{}", show_label=False, elem_id="lora_trainer_prune_wishes"))
            switches = plain(gr.Textbox("{}", show_label=False, elem_id="lora_trainer_prune_switches"))
    return PruneForm(folders, plain(scores), propose, venn, insert, proposals, preview, wishes, switches)


def folders_html(folders: Mapping[str, int], triggers: Sequence[str]) -> str:
    """Return a row for each folder with its pictures: what it is about, how rigid, its triggers and what is chosen."""
    if not folders:
        return "<p>Scan the folder in the Dataset step first.</p>"
    return "".join(_folder(name, count, triggers) for name, count in folders.items())


def _folder(name: str, count: int, triggers: Sequence[str]) -> str:
    kinds = _options({NOTHING: "Leave as it is", **_KIND_NAMES}, "character" if triggers else NOTHING)
    rigidities = _options(_RIGIDITY_NAMES, "static" if len(triggers) < 2 else "multi-trigger")
    words = escape(", ".join(triggers))
    return (
        f'<fieldset class="lora-trainer-prune-folder" data-prune-folder="{escape(name)}">'
        f"<legend><b>{escape(name)}</b> <small>{count} pictures</small></legend>"
        f'<label><span>About</span><select data-prune="kind">{kinds}</select></label>'
        f'<label><span>Rigidity</span><select data-prune="rigidity">{rigidities}</select></label>'
        f'<label><span>Triggers</span><input type="text" data-prune="triggers" value="{words}" spellcheck="false"></label>'
        '<label><span>Also goes</span><input type="text" data-prune="more" spellcheck="false" '
        'placeholder="tags or groups"></label>'
        '<label><span>Always stays</span><input type="text" data-prune="kept" spellcheck="false" '
        'placeholder="tags or groups"></label></fieldset>'
    )


def _options(names: Mapping[str, str], chosen: str) -> str:
    return "".join(
        f'<option value="{value}"{" selected" if value == chosen else ""}>{escape(text)}</option>'
        for value, text in names.items()
    )


def trained(wishes: str) -> dict[str, Trained]:
    """Return what each folder is about, those left as they are absent. Raises ConfigError for nonsense or none."""
    found = {}
    for folder, wish in _mapping(wishes).items():
        kind, rigidity = (str(wish.get(name) or "") for name in ("kind", "rigidity"))
        if kind == NOTHING:
            continue
        if kind not in KINDS or rigidity not in RIGIDITIES:
            raise ConfigError(f"{folder}: {kind!r} or {rigidity!r} is no choice. Choose in the lists.")
        words = () if rigidity == "triggerless" else split(str(wish.get("triggers") or ""))
        more = split(str(wish.get("more") or ""))
        triggers = tuple(Trigger(word, _kind(kind), more) for word in words)
        found[folder] = Trained(triggers, _rigidity(rigidity), split(str(wish.get("kept") or "")))
    if not found:
        raise ConfigError("folders: none is to be pruned. Say above what a folder is about.")
    return found


def switches(text: str) -> dict[str, dict[str, bool]]:
    """Return the switches that were touched: folder to tag to whether it goes. Raises ConfigError for nonsense."""
    return {folder: {tag: bool(on) for tag, on in tags.items()} for folder, tags in _mapping(text).items()}


def _mapping(text: str) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError("folders: what the page sent is no JSON. Reload the page.") from error
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise ConfigError("folders: what the page sent is no list of folders. Reload the page.")
    return content


def _kind(text: str) -> Kind:
    found: Kind = next(kind for kind in get_args(Kind) if kind == text)
    return found


def _rigidity(text: str) -> Rigidity:
    found: Rigidity = next(rigidity for rigidity in get_args(Rigidity) if rigidity == text)
    return found


def proposals_html(made: Proposed, pictures: Mapping[str, str]) -> str:
    """Return what is proposed for each folder, with a switch for each tag. pictures: example to its address."""
    plans = "".join(_plan(plan, pictures) for plan in made.plans)
    settings = ", ".join(
        f"{name.rpartition('.')[2].replace('_', ' ')} {value}" for name, value in _settings(made).items()
    )
    after = f"<p>Settings that go with it: {escape(settings)}.</p>"
    return findings.listed(made.problems) + plans + after + venn_html(made.venn)


def _settings(made: Proposed) -> dict[str, Any]:
    values = dict(made.values.settings())
    if not made.values.written:
        values.pop("data.caption.separator", None)
    return values


def settings(made: Proposed) -> Mapping[str, Any]:
    """Return the settings that fit the captions, the separator only where the captions have it."""
    return _settings(made)


def _plan(plan: FolderPlan, pictures: Mapping[str, str]) -> str:
    on = sum(proposal.on for proposal in plan.proposals)
    rows = "".join(_proposal(proposal, pictures) for proposal in plan.proposals)
    return (
        f'<section class="lora-trainer-proposals" data-prune-plan="{escape(plan.folder)}"><h4>{escape(plan.folder)} '
        f"<small>{on} of {len(plan.proposals)} tags go</small></h4><ul>{rows}</ul></section>"
    )


def _proposal(proposal: TagProposal, pictures: Mapping[str, str]) -> str:
    address = pictures.get(proposal.example, "")
    image = f'<img src="{address}" alt="" loading="lazy">' if address else ""
    into = f" {proposal.trigger}" if proposal.verdict == "swallow" else ""
    checked = " checked" if proposal.on else ""
    group = f" · {escape(proposal.group)}" if proposal.group else ""
    return (
        f'<li data-verdict="{proposal.verdict}"><label><input type="checkbox" data-prune-tag="{escape(proposal.tag)}"'
        f"{checked}>{image}<span><b>{escape(proposal.tag)}</b> "
        f"<small>{_VERDICTS[proposal.verdict]}{escape(into)}{group}</small>"
        f"<small>{escape(proposal.reason)}</small></span></label></li>"
    )


def words_html(advice: Sequence[Problem], outfits: Mapping[str, str]) -> str:
    """Return what speaks against words as triggers, and what outfits could be called. outfits: folder to a name or ""."""
    names = "".join(
        f"<p>{escape(folder)}: the outfit could be called <code>{escape(name)}</code></p>"
        for folder, name in outfits.items()
        if name
    )
    return findings.listed(tuple(dict.fromkeys(advice))) + names


def venn_html(venn: Venn) -> str:
    """Return how triggers relate: a matrix of common pictures, what cannot be told apart, where pruned tags land."""
    if not venn.triggers:
        return ""
    rows = [[name, *(str(number) for number in line)] for name, line in zip(venn.triggers, venn.matrix, strict=True)]
    matrix = f'<div class="lora-trainer-matrix">{findings.table(("Common pictures", *venn.triggers), rows)}</div>'
    pairs = [[pair.first, _RELATIONS[pair.relation], pair.second, str(pair.common)] for pair in venn.pairs]
    related = findings.table(("Trigger", "Relation", "Trigger", "Common pictures"), pairs) if pairs else ""
    landed = [
        [each.tag, ", ".join(each.triggers) or "no trigger", f"{each.images} of {each.of}", str(each.named)]
        for each in venn.landings
    ]
    head = ("Pruned tag", "Becomes a part of", "Pictures", "Still named in")
    lands = findings.table(head, landed) if landed else ""
    folded = f"<details><summary>Where pruned tags land: {len(landed)}</summary>{lands}</details>" if landed else ""
    return f"<h4>Triggers</h4>{findings.listed(venn.findings)}{matrix}{related}{folded}"
