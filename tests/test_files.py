"""Files are replaced whole, and directories are locked.

Files are replaced through links, too, and directories are locked on every file system.
"""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import TOP

from errors import UserError
from storage.files import ABANDONED, check_room, remove, replacing
from storage.locks import LOCK, reserved


def write(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


@pytest.fixture
def link(tmp_path) -> Path:
    """A link to a file in another directory."""
    for name in ("near", "far"):
        (tmp_path / name).mkdir()
    (tmp_path / "near" / "file").symlink_to(Path("..") / "far" / "kept")
    return tmp_path / "near" / "file"


@pytest.mark.parametrize("there", [True, False], ids=["a file", "nothing"])
def test_a_link_stays_and_what_it_leads_to_is_replaced(link, there):
    far = link.parents[1] / "far"
    if there:
        (far / "kept").write_bytes(b"old")
    write(link, b"new")
    assert link.is_symlink()
    assert (far / "kept").read_bytes() == b"new"
    assert [*link.parent.iterdir(), *far.iterdir()] == [link, far / "kept"]


def test_a_failed_write_through_a_link_leaves_the_old_file_and_nothing_else(link):
    far = link.parents[1] / "far"
    (far / "kept").write_bytes(b"old")

    def fail() -> None:
        with replacing(link) as file:
            file.write(b"new")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="No space left"):
        fail()
    assert (far / "kept").read_bytes() == b"old"
    assert [*link.parent.iterdir(), *far.iterdir()] == [link, far / "kept"]


def test_a_link_into_a_directory_that_is_not_there_is_named_with_its_target(link):
    (link.parents[1] / "far").rmdir()
    with pytest.raises(UserError, match=rf"{link}, which leads to .*far/kept: No such file"):
        write(link, b"new")


def test_room_is_looked_for_where_a_link_leads_to(link, monkeypatch):
    free = {link.parent: 0, link.parents[1] / "far": 100}
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free[Path(path)]))
    check_room(link, 100)
    for path in (link, link.with_name("other")):
        with pytest.raises(UserError, match="MB left"):
            check_room(path, 101)


def test_removing_a_link_removes_what_it_leads_to(link):
    (link.parents[1] / "far" / "kept").write_bytes(b"old")
    for _ in range(2):  # the second time there is nothing to remove
        remove(link)
        assert link.is_symlink()
        assert not link.exists()


@pytest.mark.parametrize("name", ["a  b", "a\nb", "\udcff"])
def test_a_name_may_hold_whatever_the_system_takes(tmp_path, name):
    write(tmp_path / name, b"new")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_a_new_file_has_the_permissions_of_the_old_one_or_those_of_any_file(tmp_path, mode):
    (tmp_path / "usual").touch()
    write(tmp_path / "file", b"old")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "usual").stat().st_mode
    (tmp_path / "file").chmod(mode)
    write(tmp_path / "file", b"new")
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_two_that_write_the_same_file_at_a_time_do_not_disturb_each_other(tmp_path):
    with replacing(tmp_path / "file") as first:
        first.write(b"fir")
        write(tmp_path / "file", b"second")
        assert (tmp_path / "file").read_bytes() == b"second"
        first.write(b"st")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_process_left_is_deleted_an_hour_later_and_nothing_else(tmp_path):
    names = [".file.0123abcd.tmp", ".file.tmp", ".file.4567cdef.tmp", ".other.0123abcd.tmp", ".file.txt"]
    for name in names:
        (tmp_path / name).touch()
        if name != ".file.4567cdef.tmp":  # which may be in use
            os.utime(tmp_path / name, (time.time() - 2 * ABANDONED,) * 2)
    write(tmp_path / "file", b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names[2:], "file"])


HOLD = """
import errno, fcntl, os, pathlib, sys

how, directory = sys.argv[1:]

def flock(*_):
    raise OSError(getattr(errno, how), os.strerror(getattr(errno, how)))

if how != "flock":
    fcntl.flock = flock

from storage.locks import reserved
from errors import UserError

try:
    with reserved(pathlib.Path(directory)):
        print("reserved", flush=True)
        sys.stdin.read()
except UserError as error:
    print(error)
"""


class Holder:
    """A process that reserves a directory until it is told to end, and may have no flock."""

    def __init__(self, directory: Path, how: str) -> None:
        command = [sys.executable, "-c", HOLD, how, str(directory)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, cwd=TOP, **pipes)
        self.said = self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.mark.parametrize("how", ["flock", "ENOSYS", "ENOLCK"])
def test_a_directory_is_kept_for_one_process_also_where_there_is_no_flock(tmp_path, how):
    first = Holder(tmp_path, how)
    assert first.said == "reserved"
    refused = Holder(tmp_path, how)
    assert "another training" in refused.said
    assert str(tmp_path / LOCK) in refused.said  # which one may have to delete
    refused.end()
    first.end()
    second = Holder(tmp_path, how)
    assert second.said == "reserved"
    second.kill()
    third = Holder(tmp_path, how)
    if third.said != "reserved":  # not every version of filelock sees that the process is dead
        assert how != "flock"
        third.end()
        (tmp_path / LOCK).unlink()
        third = Holder(tmp_path, how)
    assert third.said == "reserved"
    third.end()


@pytest.mark.parametrize("how", ["flock", "ENOSYS"])
def test_a_directory_that_was_made_for_nothing_is_gone_and_one_that_was_there_stays(tmp_path, how):
    for directory in (tmp_path / "new" / "run", tmp_path / "new"):
        Holder(directory, how).end()
        assert not (tmp_path / "new" / "run").exists()
        assert (tmp_path / "new").exists()


def test_a_directory_may_be_a_link_also_one_that_leads_to_nothing_yet(tmp_path):
    (tmp_path / "link").symlink_to("target")
    with reserved(tmp_path / "link"):
        write(tmp_path / "link" / "file", b"new")
    assert (tmp_path / "target" / "file").read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink()
