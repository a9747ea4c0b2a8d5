"""Problems, notes and figures as HTML; everything that comes from outside is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lib_lora_trainer.base.errors import Problem, ProblemsFound
from lib_lora_trainer.ui import bind, fields
from lib_lora_trainer.ui.fields import Field
from lib_lora_trainer.ui.relevance import css_text

_SIGNS = {"error": "✕", "warning": "!", "note": "i"}
_ORDER = {"error": 0, "warning": 1, "note": 2}
_SHOWN = 60


def listed(problems: Sequence[Problem]) -> str:
    """Return problems as a list, errors first; very long lists end with the number of the rest."""
    if not problems:
        return ""
    ordered = sorted(problems, key=lambda problem: _ORDER[problem.severity])
    items = "".join(_item(problem) for problem in ordered[:_SHOWN])
    rest = f"<li>… and {len(ordered) - _SHOWN} more</li>" if len(ordered) > _SHOWN else ""
    return f'<ul class="lora-trainer-problems">{items}{rest}</ul>'


def of_error(error: Exception) -> tuple[Problem, ...]:
    """Return the problems an exception stands for."""
    if isinstance(error, ProblemsFound):
        return error.problems
    return (Problem("error", "", str(error)),)


def notice(messages: Sequence[str], kind: str = "note") -> str:
    """Return messages as a box; "" for none. kind: note, warning or error."""
    if not messages:
        return ""
    lines = "".join(f"<p>{escape(message)}</p>" for message in messages)
    return f'<div class="lora-trainer-notice lora-trainer-{kind}" role="status">{lines}</div>'


def beside_fields(problems: Sequence[Problem]) -> str:
    """Return a style sheet that puts each problem under the field it names, as text and as a coloured border.

    A style needs no script and survives every redrawing of the form. The text is written in escapes only. A marked
    field is shown even where the fold around it or its lack of meaning would hide it; `data-marked` tells the page's
    script which folds to open.
    """
    rules, marked = "", []
    for problem in problems:
        where = bind.selector_of(problem.where)
        if where and problem.severity != "note":
            text = f"{problem.message} {problem.fix}".strip()
            rules += (
                f"{where}{{outline:1px solid var(--error-border-color);outline-offset:2px}}"
                f"#lora_trainer_root #lora_trainer_steps {where}{{display:block!important}}"
                f'{where}::after{{content:"{css_text(text)}"!important;display:block;padding:.25em .2em;'
                f"font-size:var(--text-sm);color:var(--error-text-color)!important}}"
            )
            rules += _in_list(problem.where)
            field = fields.field_of(problem.where)
            marked += [fields.element(field.path)] if field else []
    names = f'<span id="lora_trainer_marked" data-marked="{" ".join(dict.fromkeys(marked))}"></span>'
    return f"<style>{rules}</style>{names}" if rules else ""


def beside_options(options: Sequence[Field], problems: Sequence[Problem]) -> str:
    """Return a style sheet that puts each problem under the option it names; the text is written in escapes only."""
    rules = ""
    for field in options:
        own = field.path.rpartition(".")[2]
        texts = [
            f"{problem.message} {problem.fix}".strip()
            for problem in problems
            if problem.where.partition("[")[0] == own and problem.severity == "error"
        ]
        if texts:
            where = f"#{fields.element(field.path)}"
            rules += (
                f"{where}{{outline:1px solid var(--error-border-color);outline-offset:2px}}"
                f'{where}::after{{content:"{css_text(" ".join(texts))}"!important;display:block;padding:.25em .2em;'
                "font-size:var(--text-sm);color:var(--error-text-color)!important}"
            )
    return f"<style>{rules}</style>" if rules else ""


def figures(pairs: Sequence[tuple[str, str]]) -> str:
    """Return (value, what it is) pairs as a row of large numbers."""
    cells = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in pairs)
    return f'<div class="lora-trainer-figures">{cells}</div>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of plain texts; a row's first cell is its head."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        f"<tr><th>{escape(row[0])}</th>{''.join(f'<td>{escape(text)}</td>' for text in row[1:])}</tr>" for row in rows
    )
    return f'<table class="lora-trainer-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def empty(title: str, text: str) -> str:
    """Return what an empty step shows: what to do first."""
    return f'<div class="lora-trainer-empty"><b>{escape(title)}</b><p>{escape(text)}</p></div>'


def _in_list(where: str) -> str:
    """Return the rule that marks a folder in the list of folders."""
    folder = fields.folder_of(where)
    if folder is None:
        return ""
    entry = f"#lora_trainer_source_chosen label:nth-of-type({folder + 1})"
    return f"{entry}{{outline:1px solid var(--error-border-color);outline-offset:2px}}"


def _item(problem: Problem) -> str:
    where = fields.label_of(problem.where) if bind.selector_of(problem.where) else problem.where
    place = f"<b>{escape(where)}</b> " if where else ""
    fix = f' <span class="lora-trainer-fix">{escape(problem.fix)}</span>' if problem.fix else ""
    sign = f'<i aria-label="{problem.severity}">{_SIGNS[problem.severity]}</i>'
    return f'<li class="lora-trainer-{problem.severity}">{sign}<div>{place}{escape(problem.message)}{fix}</div></li>'
