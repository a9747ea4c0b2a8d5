"""The Japanese translation: every text of the page has one, and every translation belongs to a text."""

import ast
import html
import json
import re

import pytest

gr = pytest.importorskip("gradio")

from lib_lora_trainer.ui import fields  # noqa: E402
from ui_page import ROOT, Tab, page, pictures_folder  # noqa: E402, F401

SAME = ("DoRA", "d0", "Channels last")
"""Words that Japanese readers know as they are."""


def texts(page: Tab) -> set[str]:
    """Return every text a person reads on the page as it is built, as far as it is no example of an entry."""
    found: set[str] = set()
    for component in page.blocks.blocks.values():
        found |= {getattr(component, name, None) or "" for name in ("label", "info")}
        placeholder = getattr(component, "placeholder", None) or ""
        found |= set() if re.match(r"/|\w+\.\w+: ", placeholder) else {placeholder}
        kind = type(component).__name__
        if kind == "Button":
            found.add(component.value)
        if kind == "HTML" and component.value and "data-index" not in component.value:
            found |= {html.unescape(text).strip() for text in re.findall(r">([^<>]+)<", component.value)}
    return {text for text in found if text and text not in SAME}


def words() -> dict[str, str]:
    content: dict[str, str] = json.loads((ROOT / "localizations" / "ja_JP.json").read_text(encoding="utf-8"))
    return content


def test_every_text_of_the_page_is_translated(page: Tab) -> None:
    assert sorted(texts(page) - set(words())) == []


def test_translations_are_of_texts_that_exist(page: Tab) -> None:
    # As Python reads them: a long text stands on several lines.
    trees = [ast.parse(path.read_bytes()) for path in (ROOT / "lib_lora_trainer").rglob("*.py")]
    source = "\n".join(
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    shown = texts(page)
    assert [word for word in words() if word not in shown and word not in source] == []
    assert all(words().values())


def test_numbers_survive_the_translation() -> None:
    """A range or a default in a help text must not change on its way."""
    translated = words()
    for field in (*fields.all_fields(), *fields.source_fields()):
        if field.help in translated:
            numbers = re.findall(r"\d+(?:\.\d+)?", field.help.replace("×", " "))
            missing = [number for number in numbers if number not in translated[field.help]]
            assert not missing, (field.path, missing)
