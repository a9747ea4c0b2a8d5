"""How far the Reg images step is, for the marks on the steps."""

from __future__ import annotations

from lib_lora_trainer.app import reg_folder, reg_project
from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.ui import tools_work
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session
from lib_lora_trainer.ui.tools_work import Work, Works

LISTING, MAKING, REROLLING = "List captions", "Generate regularization images", "Re-roll images"
REMOVING, STEPPING = "Remove regularization images", "Undo or redo of regularization images"
_TITLES = (LISTING, MAKING, REROLLING, REMOVING, STEPPING)


def running(works: Works, session: Session) -> Work | None:
    """Return the step's work that is under way in the project."""
    work = works.running(session.project) if session.project else None
    return work if work is not None and work.title in _TITLES else None


def state_of(place: Place, session: Session, works: Works | None = None) -> str:
    """Return the step's state: "" (nothing was begun, which is fine), todo, busy, look (images nobody uses) or done.

    Looks at no more than a few names on the disk. works: the jobs under way; the process's own if absent.
    """
    if not session.project:
        return ""
    if running(works or tools_work.shared(), session) is not None:
        return "busy"
    project = Project(session.project, place.projects / session.project)  # it may be gone, which others tell
    if not reg_folder.holds_any(reg_project.folder(project)):
        return "todo" if (project.folder / reg_project.FILE).is_file() else ""
    return "done" if reg_project.is_source(project, session.config) else "look"
