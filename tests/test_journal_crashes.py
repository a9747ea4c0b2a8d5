"""A tool that is killed at any moment leaves every file old or new, and whoever comes next settles the rest."""

from __future__ import annotations

import shutil
import sys

import pytest

from dying_files import DIED, DyingFiles, in_child, tree
from journal_cases import changes, dataset, renames, run, undo, without_times
from lib_lora_trainer.dataset.journal import FOLDER, Journal, history

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


@pytest.fixture
def root(tmp_path, quick):
    return dataset(tmp_path)


def killed_at_every_change(root, work, torn):
    """Yield the number of each change at which a process ended, with the folder as it was left; then restore it."""
    spare = root.with_name("spare")
    shutil.copytree(root, spare, symlinks=True)
    number = 0
    while True:
        number += 1
        status = in_child(lambda n=number: work(DyingFiles(n, torn)))
        assert status in (0, DIED)
        if status == 0:
            assert number > 1
            return
        yield number
        shutil.rmtree(root)
        shutil.copytree(spare, root, symlinks=True)


def old_or_new(now, old, new):
    """Every file that is only replaced is there, old or new; every other one is in one of its places."""
    contents = [about[0] for about in now.values() if isinstance(about, tuple)]
    for name in ("10_a/kept.txt", "10_a/replaced.txt", "10_a/readonly.txt"):
        assert now[name][0] in (old[name][0], new[name][0])
    for content in (b"old 10_a/moved.txt", b"old b/c/alone.txt"):
        assert contents.count(content) == 1
    assert contents.count(b"old 10_a/gone.txt") <= 1 and contents.count(b"new") <= 1


@pytest.mark.parametrize("torn", [False, True])
def test_a_process_killed_at_any_change_leaves_old_or_new_and_the_next_one_settles_it(root, torn):
    old = tree(root)
    run(root, changes(root))
    new = tree(root)
    undo(root)
    shutil.rmtree(root / FOLDER)
    ends = set()
    for _ in killed_at_every_change(root, lambda files: run(root, changes(root), files), torn):
        old_or_new(tree(root), old, new)
        with Journal(root) as journal:
            said = journal.notes
        settled = without_times(tree(root))
        assert settled in (without_times(old), without_times(new))
        assert (settled == without_times(new)) == bool(history(root))
        assert not said or "was interrupted and is finished now" in said[0]
        ends.add(bool(said))
        if history(root):
            undo(root)
        assert tree(root) == old
    assert ends == {False, True}


def test_an_undo_killed_at_any_change_is_finished(root):
    old = tree(root)
    run(root, changes(root))
    new = tree(root)

    def take_back(files):
        with Journal(root, files) as journal:
            journal.undo()

    for _ in killed_at_every_change(root, take_back, torn=False):
        old_or_new(tree(root), old, new)
        with Journal(root):
            assert tree(root) in (old, new)
        assert history(root)[0].state == ("undone" if tree(root) == old else "applied")


@pytest.mark.parametrize("at", [9, 14, 17])
def test_a_recovery_killed_at_any_change_is_finished_by_the_next(root, at):
    old = tree(root)
    assert in_child(lambda: run(root, changes(root), DyingFiles(at))) == DIED

    def recover(files):
        with Journal(root, files):
            pass

    for _ in killed_at_every_change(root, recover, torn=False):
        with Journal(root):
            assert (root / "alone.txt").exists()
        undo(root)
        assert tree(root) == old


def test_renames_inside_each_other_survive_a_kill_at_any_change(root):
    old = tree(root)
    for _ in killed_at_every_change(root, lambda files: run(root, renames(root), files), torn=False):
        with Journal(root):
            pass
        if history(root):
            assert (root / "3_b" / "5_c" / "alone.txt").exists()
            undo(root)
        assert tree(root) == old


def test_a_cut_off_entry_whose_file_was_changed_is_taken_back_and_says_so(root):
    with Journal(root):
        pass
    for _ in killed_at_every_change(root, lambda files: run(root, changes(root), files), torn=False):
        if (root / "10_a" / "replaced.txt").read_text(encoding="utf-8") == "other":
            break
    (root / "10_a" / "gone.txt").write_text("changed in between", encoding="utf-8")
    with Journal(root) as journal:
        assert "taken back" in journal.notes[0] and "gone.txt: was changed meanwhile" in journal.notes[0]
    assert (root / "10_a" / "replaced.txt").read_text(encoding="utf-8") == "old 10_a/replaced.txt"
    assert (root / "10_a" / "gone.txt").read_text(encoding="utf-8") == "changed in between"
    assert not (root / "new").exists() and history(root)[0].state == "rolled back"


def test_emptying_the_holding_survives_a_kill_at_any_change(root):
    run(root, changes(root))
    after = tree(root)

    def empty(files):
        with Journal(root, files) as journal:
            journal.empty_holding()

    for _ in killed_at_every_change(root, empty, torn=False):
        with Journal(root) as journal:
            state = history(root)[0].state
            assert bool(journal.held()) == (state == "applied")
            assert (list((root / FOLDER / "holding").iterdir()) == []) == (state == "closed")
        assert tree(root) == after


def test_an_original_that_was_not_kept_whole_is_kept_again(root):
    old = tree(root)
    for _ in killed_at_every_change(root, lambda files: run(root, changes(root), files), torn=False):
        held = root / FOLDER / "holding" / "000001" / "old" / "00001.txt"
        if held.exists():  # a second name of the file, which is not replaced yet
            break
    held.unlink()
    held.write_text("damaged", encoding="utf-8")
    held.with_name(f"{held.name}.part").write_text("half", encoding="utf-8")
    with Journal(root):
        assert (root / "10_a" / "replaced.txt").read_text(encoding="utf-8") == "other"
    undo(root)
    assert tree(root) == old
