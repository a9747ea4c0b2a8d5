"""The exception tree, and the record of one mistake the user can fix.

TrainerError                 everything this package raises on purpose
├── UserError                something the user can fix; the text says what and how
│   ├── ConfigError          a setting: unknown key, wrong type, out of range
│   ├── DataError            a picture, a caption or a folder
│   ├── HostRefusal          the loaded model or the host cannot be trained as it is
│   └── ProblemsFound        several of the above, collected before anything starts
├── NumericalError           loss or latents became NaN or infinite
└── RunConflict              another run holds what this one needs, or a saved state does not fit
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


class TrainerError(Exception):
    """Base of every exception that this package raises on purpose."""


class UserError(TrainerError):
    """A mistake the user can fix: the text names the thing, the value, what is allowed and the next step."""


class ConfigError(UserError):
    """A setting is unknown, has the wrong type or is out of range."""


class DataError(UserError):
    """A picture, a caption or a dataset folder cannot be used."""


class HostRefusal(UserError):
    """The host, or the model it has loaded, cannot be trained as it is."""


class NumericalError(TrainerError):
    """A loss or a latent became NaN or infinite."""


class RunConflict(TrainerError):
    """Another run holds what this one needs, or a saved state belongs to another run."""


@dataclass(frozen=True)
class Problem:
    """One finding about the user's input.

    where: the setting in dotted form (`data.resolution`) or the file it is about.
    fix: the next step, in the imperative; empty only for a note.
    """

    severity: Severity
    where: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" + (f" {self.fix}" if self.fix else "")


class ProblemsFound(UserError):
    """Every mistake found before the start, together."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))
