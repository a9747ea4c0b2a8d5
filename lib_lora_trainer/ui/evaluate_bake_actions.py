"""What happens on: previewing and baking a file, choosing and keeping presets, trying the new file in txt2img."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_lora_trainer.app import baking, runs
from lib_lora_trainer.app.baking import Plan, Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, TrainerError
from lib_lora_trainer.base.events import Saved
from lib_lora_trainer.base.families import Family
from lib_lora_trainer.base.files import check_name
from lib_lora_trainer.ui import evaluate_bake_show, evaluate_txt2img
from lib_lora_trainer.ui.evaluate_work import Evaluator, Made, Maker
from lib_lora_trainer.ui.page import QUIET, WORKING, Page, Updates
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, project_of
from lib_lora_trainer.workshop import elements, presets, prompt

if TYPE_CHECKING:
    from lib_lora_trainer.ui.evaluate_bake import BakePanel

TO_TXT2IMG = "(text) => { loraTrainer.toTxt2img(text); }"
_TAG = re.compile(r"<lora:([^>]+)>")
_WORD = re.compile(r"[A-Za-z]\w{0,15}")
_LBW = re.compile(r"\b(lbwe?|te|unet|x)=")


def wire(evaluator: Evaluator, page: Page, panel: BakePanel) -> None:
    """Connect the panel's events."""
    tab, wish = page.evaluate, [page.session, page.evaluate.run, *panel.entered]
    results = {panel.drafted, panel.test, panel.made}

    def planned(made: Plan) -> Updates:
        return {panel.drafted: evaluate_bake_show.plan_html(made), panel.test: gr.update(visible=False), panel.made: ""}

    def baked(made: Plan) -> Updates:
        path = str(made.request.output)
        return {
            panel.drafted: evaluate_bake_show.plan_html(made, written=True),
            panel.test: gr.update(visible=evaluator.place.txt2img),
            panel.made: path,
        }

    preview = evaluator.starter(_planning(evaluator), "Preview", (), planned, model=False)
    panel.preview.click(preview, wish, evaluator.outputs | results, **WORKING)
    bake = evaluator.starter(_baking(evaluator), "Bake", (), baked, model=False)
    panel.begin.click(bake, wish, evaluator.outputs | results, **WORKING)

    def name(file: str | None, own: str, blocks: str, now: str) -> Updates:
        """Propose a name for the new file, unless one was entered that is no proposal."""
        stem = Path((own or "").strip()).stem or file
        if not stem or (now and not now.endswith("-baked")):
            return {panel.name: gr.update()}
        word = (blocks or "").strip() if _WORD.fullmatch((blocks or "").strip()) else ""
        return {panel.name: f"{stem}-{word}-baked" if word else f"{stem}-baked"}

    for event in (panel.file.change, panel.own.blur, panel.blocks.change):
        event(name, [panel.file, panel.own, panel.blocks, panel.name], {panel.name}, **QUIET)
    _wire_presets(evaluator, page, panel)

    def test(session: Session, run: str | None, made: str) -> Updates:
        path = Path(made or "")
        if not made or not path.is_file():
            raise ConfigError("file: nothing was baked yet. Press Bake first.")
        evaluator.place.host.announce(str(path))
        triggers: Sequence[str] = ()
        if run:
            triggers = runs.configuration(project_of(evaluator.place.projects, session), run).triggers
        return {tab.to_txt2img: evaluate_txt2img.prompt_json(path.stem, 1.0, triggers)}

    outputs = {tab.to_txt2img, tab.said, tab.beside}
    tested = panel.test.click(evaluator.sending(test), [page.session, tab.run, panel.made], outputs, **QUIET)
    tested.then(None, [tab.to_txt2img], None, _js=TO_TXT2IMG, api_name=False)


def _wire_presets(evaluator: Evaluator, page: Page, panel: BakePanel) -> None:
    told = {page.evaluate.said, page.evaluate.beside}

    def look(path: str) -> Updates:
        evaluator.place.gate()
        return {panel.preset: gr.update(choices=names(evaluator.place, path))}

    def keep(path: str, name: str, blocks: str) -> Updates:
        evaluator.place.gate()
        file = _entered(path) or evaluator.place.own_presets
        vector = presets.choose(blocks or "", _family(evaluator.place), presets.read_all(_files(evaluator.place, path)))
        presets.save(file, presets.with_preset(presets.read(file), (name or "").strip(), vector))
        text = evaluate_bake_show.kept_html((name or "").strip(), file)
        return {panel.preset: gr.update(choices=names(evaluator.place, path)), page.evaluate.said: text}

    panel.preset.input(lambda chosen: chosen or "", [panel.preset], panel.blocks, **QUIET)
    panel.presets.blur(evaluator.guarded(look), [panel.presets], {panel.preset, *told}, **QUIET)
    panel.keep.click(
        evaluator.guarded(keep), [panel.presets, panel.keep_name, panel.blocks], {panel.preset, *told}, **QUIET
    )


def names(place: Place, path: str) -> list[str]:
    """Return the presets for the loaded model. path: of a file with the user's own, "" for the usual ones."""
    return list(presets.read_all(_files(place, path)).names(_family(place)))


def _files(place: Place, path: str | None) -> tuple[Path, ...]:
    """Return the files of presets: the one that was entered, or the usual ones."""
    entered = _entered(path)
    return (entered,) if entered else place.presets


def _entered(path: str | None) -> Path | None:
    text = (path or "").strip()
    return Path(text).expanduser() if text else None


def _family(place: Place) -> Family:
    try:
        return place.host.info().family
    except TrainerError:  # nothing is loaded: presets of SD 1 are shown until then
        return "sd1"


def _planning(evaluator: Evaluator) -> Maker:
    """Return the work that reads the file and says what baking would do."""

    def make(session: Session, entered: Sequence[Any], _: Control) -> Iterator[Any]:
        yield Made(baking.plan(_request(evaluator, session, entered)))

    return make


def _baking(evaluator: Evaluator) -> Maker:
    """Return the work that writes the new file and tells the host of it."""

    def make(session: Session, entered: Sequence[Any], _: Control) -> Iterator[Any]:
        settled = baking.plan(_request(evaluator, session, entered))
        if settled.draft.needs_base:
            evaluator.refuse_when_training()
        for event in baking.run(settled, evaluator.place.host):
            if isinstance(event, Saved):
                evaluator.place.host.announce(event.path)
            else:
                yield event
        yield Made(settled)

    return make


def _request(evaluator: Evaluator, session: Session, entered: Sequence[Any]) -> Request:
    run, file, own, blocks, kinds, unet, text, rebase, seed, x, path, name = entered
    place, source = evaluator.place, _source(evaluator, session, run, (file, own))
    stem = (name or "").strip().removesuffix(".safetensors")
    check_name(stem, "name of the new file")
    own_file = _entered(path)
    given = read_prompt(blocks or "", kinds or "", (_number(unet, "UNet"), _number(text, "Text encoder")))
    return Request(
        file=source,
        output=Path(place.host.adapter_folder()) / f"{stem}.safetensors",
        blocks=given[0],
        elements=given[1],
        unet=given[2],
        text=given[3],
        rebase=_number(rebase, "Rebase"),
        presets=(presets.named(own_file),) if own_file else place.presets,
        element_presets=place.host.preset_files(elements.FILE),
        seed=int(_number(seed, "Seed of R and U")),
        x=given[4] if given[4] is not None else _number(x, "X"),
    )


def _source(evaluator: Evaluator, session: Session, run: str | None, entered: tuple[str | None, str | None]) -> Path:
    file, own = entered
    given = (own or "").strip()
    if given:
        source = Path(given).expanduser()
        if not source.is_file():
            raise ConfigError(f"file: there is no {source}. Give the path of an adapter, or choose one of the run.")
        return source
    known = {Path(path).stem: Path(path) for path in evaluator.files(session, run)}
    if file not in known:
        raise ConfigError(f"file: {file!r} is none of this run's. Choose one in the list, or give the path of another.")
    return known[file]


def read_prompt(
    blocks: str, elements: str, weights: tuple[float, float]
) -> tuple[str, str, float, float, float | None]:
    """Return blocks, elements, the weights of UNet and text encoders, and X, as far as it is said.

    blocks: as entered; a tag `<lora:name:0.8:lbw=MIDD>` or parts of one, `lbw=MIDD:lbwe=…`, say the others as well.
    Raises ConfigError as `workshop.prompt.read`.
    """
    text = blocks.strip()
    whole = _TAG.fullmatch(text)
    if whole is None and not _LBW.match(text):
        return blocks, elements, *weights, None
    items = whole[1].split(":") if whole else ["file", *text.split(":")]
    # Elemental weights have colons of their own, IN05-OUT05:attn:0: what follows lbwe= up to the next name= is theirs.
    tag = prompt.read(_joined(items))
    if tag is None:
        raise ConfigError(f"block weights: {text!r} has no lbw=. Write <lora:name:1:lbw=MIDD>, or only MIDD.")
    said_weights = whole is not None or "te=" in text or "unet=" in text
    unet, te = (tag.unet, tag.text) if said_weights else weights
    return tag.blocks, tag.elements or elements, unet, te, tag.x if "x=" in text else None


def _joined(items: Sequence[str]) -> list[str]:
    found: list[str] = []
    for item in items:
        if found and found[-1].startswith("lbwe=") and "=" not in item:
            found[-1] += f":{item}"
        else:
            found.append(item)
    return found


def _number(value: Any, label: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{label}: {value!r} is no number. Enter one such as 0.8.") from error
    if not math.isfinite(number):
        raise ConfigError(f"{label}: {number} is no number to multiply with. Enter one such as 0.8.")
    return number
