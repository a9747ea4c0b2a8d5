"""The journal: whatever happens while a tool works, every file is old or new, and undo gives back the very folder."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import unicodedata
from pathlib import Path

import pytest

from dying_files import DIED, DyingFiles, in_child, tree
from journal_cases import changes, dataset, redo, renames, run, text, undo, without_times
from lib_lora_trainer.base.errors import DataError, RunConflict
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.dataset.journal import FOLDER, Journal, history
from lib_lora_trainer.dataset.scan import scan
from lib_lora_trainer.dataset.tools.disk import Files
from lib_lora_trainer.dataset.tools.operations import move, remove, replace, write

LONG = "é" * 125 + "x.png"  # 255 bytes
NAMES = ("かよこ (ブルアカ).png", "😀 two  spaces.png", LONG, "-rf.png", "a'b\"c$.png")
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


@pytest.fixture
def root(tmp_path, quick):
    return dataset(tmp_path)


def test_an_entry_is_done_undone_and_redone_byte_for_byte(root):
    before = tree(root)
    entry = run(root, changes(root))
    assert (entry.state, entry.files) == ("applied", 6)
    after = tree(root)
    assert without_times(after) == without_times(
        {
            "10_a": "folder",
            "10_a/kept.txt": before["10_a/kept.txt"],
            "10_a/replaced.txt": (b"other", before["10_a/replaced.txt"][1]),
            "10_a/readonly.txt": (b"other readonly", stat.S_IFREG | 0o444),
            "new": "folder",
            "new/deep": "folder",
            "new/deep/written.txt": (b"new", before["10_a/kept.txt"][1]),
            "new/moved.txt": before["10_a/moved.txt"],
            "alone.txt": before["b/c/alone.txt"],
        }
    )
    for _ in range(2):
        assert undo(root).state == "undone"
        assert tree(root) == before
        assert redo(root).state == "applied"
        assert tree(root) == after


def test_new_contents_and_the_entry_are_on_the_disk_before_anything_changes(tmp_path, monkeypatch):
    root, synced = dataset(tmp_path), []

    def sync(handle):
        synced.append((os.fstat(handle).st_size, (root / "10_a" / "replaced.txt").read_text(encoding="utf-8")))

    monkeypatch.setattr(os, "fsync", sync)
    run(root, (write(root / "x.txt", text("12345")), replace(root / "10_a" / "replaced.txt", text("1234567"))))
    assert sorted(size for size, _ in synced[:2]) == [5, 7] and len(synced) == 4  # and the entry as begun, and as done
    assert [content == "1234567" for _, content in synced] == [False, False, False, True]


def test_renamed_folders_come_back_with_what_was_put_into_them_meanwhile(root):
    before = tree(root)
    run(root, renames(root))
    assert (root / "3_b" / "5_c" / "alone.txt").read_text(encoding="utf-8") == "old b/c/alone.txt"
    assert not (root / "b").exists()
    undo(root)
    assert tree(root) == before
    redo(root)
    (root / "3_b" / "5_c" / "later.txt").write_text("later", encoding="utf-8")
    undo(root)
    assert (root / "b" / "c" / "later.txt").read_text(encoding="utf-8") == "later"


@pytest.mark.parametrize("name", NAMES)
def test_every_name_survives(tmp_path, name):
    root = tmp_path / "データ セット"
    (root / "1_x").mkdir(parents=True)
    (root / "1_x" / name).write_bytes(b"old")
    other = f"{unicodedata.normalize('NFC', name)[:40]}-2.png"
    before = tree(root)
    run(root, (replace(root / "1_x" / name, text("new")),))
    run(root, (move(root / "1_x" / name, root / "2_y" / name), write(root / "1_x" / other, text("more"))))
    run(root, (remove(root / "2_y" / name),))
    assert tree(root).keys() == {"1_x", "2_y", f"1_x/{other}"}
    for _ in range(3):
        undo(root)
    assert tree(root) == before


@posix
def test_links_are_kept_as_links_and_what_they_lead_to_is_not_touched(tmp_path):
    root, outside = tmp_path / "set", tmp_path / "outside.txt"
    root.mkdir()
    outside.write_text("outside", encoding="utf-8")
    (root / "link.txt").symlink_to("../outside.txt")
    (root / "moved.txt").symlink_to("../outside.txt")
    (root / "hard.txt").hardlink_to(outside)
    before = tree(root)
    run(
        root,
        (
            replace(root / "link.txt", text("new")),
            replace(root / "hard.txt", text("new")),
            move(root / "moved.txt", root / "m.txt"),
        ),
    )
    assert outside.read_text(encoding="utf-8") == "outside" and not (root / "link.txt").is_symlink()
    undo(root)
    assert tree(root) == before


def test_undo_refuses_what_was_changed_meanwhile_names_it_and_touches_nothing(root):
    run(root, changes(root))
    (root / "10_a" / "replaced.txt").write_text("the user's own", encoding="utf-8")
    before = tree(root)
    files = DyingFiles(last=0)
    with pytest.raises(DataError, match=r"replaced\.txt: was changed meanwhile"), Journal(root, files) as journal:
        journal.undo()
    assert files.count == 0 and tree(root) == before and history(root)[0].state == "applied"
    (root / "10_a" / "replaced.txt").write_text("other", encoding="utf-8")
    (root / "10_a" / "gone.txt").write_text("in the way", encoding="utf-8")
    with pytest.raises(DataError, match=r"gone\.txt: exists already"):
        undo(root)
    (root / "10_a" / "gone.txt").unlink()
    (root / "new" / "moved.txt").unlink()
    with pytest.raises(DataError, match=r"moved\.txt: does not exist any more"):
        undo(root)


def test_a_folder_made_by_a_tool_stays_if_something_was_put_into_it(root):
    run(root, changes(root))
    (root / "new" / "mine.txt").write_text("mine", encoding="utf-8")
    undo(root)
    assert (root / "new" / "mine.txt").exists() and not (root / "new" / "deep").exists()
    redo(root)
    assert (root / "new" / "deep" / "written.txt").exists()


def test_entries_are_undone_in_their_order_and_a_new_one_ends_redoing(root):
    for number in range(3):
        run(root, (write(root / f"{number}.txt", text(str(number))),))
    assert [undo(root).number, undo(root).number] == [3, 2]
    assert redo(root).number == 2
    undo(root)
    run(root, (write(root / "other.txt", text("o")),))
    with pytest.raises(DataError, match="nothing to redo"):
        redo(root)
    assert [undo(root).number, undo(root).number] == [4, 1]
    with pytest.raises(DataError, match="nothing to undo"):
        undo(root)
    assert [entry.state for entry in history(root)] == ["undone"] * 4
    assert [redo(root).number, redo(root).number] == [1, 4]  # 2 and 3 were given up for 4
    with pytest.raises(DataError, match="nothing to redo"):
        redo(root)


def test_two_tools_at_once_are_refused(root):
    with Journal(root), pytest.raises(RunConflict, match="another tool is changing this dataset"), Journal(root):
        pass
    with Journal(root):
        pass


@posix
def test_the_lock_ends_with_its_process(root):
    def hold():
        Journal(root).__enter__()
        os._exit(DIED)

    assert in_child(hold) == DIED
    with Journal(root) as journal:
        assert journal.notes == ()


@posix
def test_a_tool_in_another_process_is_refused(root):
    def work():
        with pytest.raises(RunConflict):
            Journal(root).__enter__()

    with Journal(root):
        assert in_child(work) == 0


class Refusing(Files):
    """Refuses one kind of change from the n-th time on, as often as told."""

    def __init__(self, name, first, times=10**6):
        self.calls, self.name, self.first, self.times = 0, name, first, times
        super().__init__()

    def __getattribute__(self, attribute):
        if attribute.startswith("_") or attribute != object.__getattribute__(self, "name"):
            return object.__getattribute__(self, attribute)
        self.calls += 1
        if self.first <= self.calls < self.first + self.times:

            def refuse(*paths):
                raise PermissionError(errno.EACCES, "Permission denied", str(paths[-1]))

            return refuse
        return object.__getattribute__(self, attribute)


@pytest.mark.parametrize(
    ("name", "times"), [("rename", 4), ("replace", 2), ("make_folder", 2), ("drop_folder", 2), ("fill", 3)]
)
def test_a_change_that_the_system_refuses_takes_everything_back(root, name, times):
    with Journal(root):
        pass
    before = tree(root)
    for time in range(1, times + 1):
        with pytest.raises(DataError, match="Permission denied"):
            run(root, changes(root), Refusing(name, time, times=1))
        assert tree(root) == before
    assert run(root, changes(root)).state == "applied"


def test_files_that_cannot_be_put_back_are_named_and_kept(root):
    files = Refusing("rename", 3)
    with pytest.raises(DataError, match="These could not be put back"):
        run(root, changes(root), files)
    assert history(root)[-1].state == "rolled back" and history(root)[-1].left
    with Journal(root) as journal:
        kept = {held.path.name: held.file.read_bytes() for held in journal.held()}
    assert kept["gone.txt"] == b"old 10_a/gone.txt"


def test_where_a_second_name_is_impossible_the_original_is_copied(root):
    before = tree(root)
    run(root, changes(root), Refusing("link", 1))
    assert (root / "10_a" / "replaced.txt").read_text(encoding="utf-8") == "other"
    undo(root)
    assert tree(root) == before


def test_a_read_only_file_is_replaced_where_the_system_wants_it_writable_first(root, monkeypatch):
    """As on Windows; the mode of the original is as before after an undo."""
    before, really = tree(root), Path.replace

    def strict(self, target):
        if Path(target).exists() and not Path(target).stat().st_mode & stat.S_IWRITE:
            raise PermissionError(errno.EACCES, "Permission denied", str(target))
        return really(self, target)

    monkeypatch.setattr(Path, "replace", strict)
    run(root, (replace(root / "10_a" / "readonly.txt", text("other")),))
    assert stat.S_IMODE((root / "10_a" / "readonly.txt").stat().st_mode) == 0o444
    undo(root)
    assert tree(root) == before


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        (lambda root: (write(root / "10_a" / "kept.txt", text("x")),), "exists already"),
        (lambda root: (move(root / "10_a" / "kept.txt", root / "10_a" / "gone.txt"),), "exists already"),
        (lambda root: (remove(root / "none.txt"),), "does not exist any more"),
        (lambda root: (remove(root / "10_a"),), "is a folder"),
        (
            lambda root: (remove(root / "10_a" / "gone.txt"), move(root / "10_a" / "gone.txt", root / "x")),
            "two changes are planned",
        ),
        (lambda root: (write(root / "x.txt", Path.mkdir),), "x.txt"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_changes(root, operations, message):
    before = tree(root)
    with pytest.raises(DataError, match=message):
        run(root, operations(root))
    assert tree(root) == before and history(root) == ()
    assert list((root / FOLDER / "holding").iterdir()) == []


def test_what_changes_nothing_is_no_entry(root):
    before = tree(root)
    assert run(root, (replace(root / "10_a" / "kept.txt", text("old 10_a/kept.txt")),)) is None
    assert run(root, ()) is None
    assert tree(root) == before and history(root) == ()


def test_a_recording_that_is_closed_early_changes_nothing(root):
    before = tree(root)
    with Journal(root) as journal:
        recording = journal.record("tool", "", changes(root))
        for _ in range(3):
            next(recording)
        recording.close()
    assert tree(root) == before and list((root / FOLDER / "holding").iterdir()) == []


def test_the_holding_lists_originals_and_is_emptied_only_when_asked(root):
    run(root, changes(root))
    with Journal(root) as journal:
        held = {item.path.relative_to(root).as_posix(): item.file.read_bytes() for item in journal.held()}
        assert held == {
            "10_a/replaced.txt": b"old 10_a/replaced.txt",
            "10_a/readonly.txt": b"old readonly",
            "10_a/gone.txt": b"old 10_a/gone.txt",
        }
        assert journal.empty_holding() == sum(map(len, held.values()))
        assert journal.held() == ()
        with pytest.raises(DataError, match="nothing to undo"):
            journal.undo()
    after = tree(root)
    assert run(root, (write(root / "later.txt", text("later")),)).number == 2
    undo(root)
    assert tree(root) == after


def test_an_entry_that_cannot_be_read_is_named_and_its_originals_survive(root):
    run(root, (remove(root / "10_a" / "gone.txt"),))
    file = root / FOLDER / "journal" / "000001.json"
    whole = file.read_text(encoding="utf-8")
    for broken in (whole[:50], whole.replace('"version": 1', '"version": 9'), json.dumps([1])):
        file.write_text(broken, encoding="utf-8")
        with pytest.raises(DataError, match=r"000001\.json: this entry of the journal cannot be read"):
            undo(root)
    file.unlink()
    with Journal(root):
        pass
    assert (root / FOLDER / "holding" / "000001" / "old" / "00000.txt").read_text(
        encoding="utf-8"
    ) == "old 10_a/gone.txt"
    assert run(root, (write(root / "x.txt", text("x")),)).number == 2


def test_a_scan_and_a_second_tool_pass_the_journal_over(root):
    run(root, (write(root / "10_a" / "p.png", text("no picture")), remove(root / "10_a" / "gone.txt")))
    (root / FOLDER / "holding" / "000001" / "old" / "x.png").write_bytes(b"no picture either")
    found = scan(DataConfig(sources=(SourceConfig(str(root)),)), ())
    assert found.skipped == (root / "10_a" / "p.png",)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match="is no folder"), Journal(tmp_path / "none"):
        pass
