"""Directories as machines have them: odd names, what may not be written, other clocks, where to export to."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from atoll.coordinator.database import sqlite_path, sqlite_url
from atoll.coordinator.store import UNREADABLE, Store
from atoll.errors import UserError
from atoll.publish.export import export
from atoll.run.directory import RunDir
from atoll.run.host import kept_ticket, wait_for_ticket
from atoll.run.processes import Child


@pytest.mark.parametrize("name", ["what?", "a%20b", "{fd}", "50%", "#1", "file:x", "größe"])
def test_a_database_lies_in_its_own_directory_whatever_that_is_called(tmp_path, name) -> None:
    directory = tmp_path / name
    store = Store(sqlite_url(directory))
    database_id = store.claim(b"run")
    store.close()
    assert sqlite_path(directory).is_file()
    kept = Store.kept(sqlite_path(directory))
    assert kept.info() == b"run" and database_id
    kept.close()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def cannot_make_files(monkeypatch) -> None:
    """A disk that is read-only, as SQLite meets it: nothing can be opened without `immutable`."""
    connect = sqlite3.connect

    class Refused(sqlite3.Connection):
        def execute(self, *_: object) -> sqlite3.Cursor:
            raise sqlite3.OperationalError("unable to open database file")

    def opened(where: str, **options: Any) -> sqlite3.Connection:
        return connect(where, **options, **({} if "immutable=1" in where else {"factory": Refused}))

    monkeypatch.setattr(sqlite3, "connect", opened)


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_database_on_a_read_only_disk_is_read_where_all_of_it_is_in_the_file(
    tmp_path, monkeypatch, is_whole
) -> None:
    store = Store(sqlite_url(tmp_path))
    store.claim(b"run")
    store.close()
    if not is_whole:  # what a kill leaves: commits that have not reached the file yet
        sqlite_path(tmp_path).with_name("run.sqlite-wal").write_bytes(b"commits")
    cannot_make_files(monkeypatch)
    kept = Store.kept(sqlite_path(tmp_path))
    if is_whole:
        assert kept.info() == b"run"
    else:
        with pytest.raises(UNREADABLE):
            kept.info()
    kept.close()


def test_a_childs_arguments_reach_it_as_they_are(tmp_path) -> None:
    (tmp_path / "echo.py").write_text("import sys; print(sys.argv[1])")
    child = Child(["echo", "{fd}"], log=tmp_path / "log", environment={"PYTHONPATH": str(tmp_path)})
    assert child.process.wait(30) == 0
    child.stop()
    assert (tmp_path / "log").read_text() == "{fd}\n"


def test_a_ticket_is_new_by_its_text_and_not_by_a_file_servers_clock(tmp_path) -> None:
    path = tmp_path / "ticket"
    path.write_text("old")
    before = kept_ticket(path)
    code = f"""
import os, time
open({str(path)!r}, "w").write("new")
os.utime({str(path)!r}, (1, 1))
time.sleep(60)
"""
    (tmp_path / "writer.py").write_text(code)
    child = Child(["writer"], log=tmp_path / "log", environment={"PYTHONPATH": str(tmp_path)})
    assert wait_for_ticket(path, child, before) == "new"
    child.kill()


def test_kernels_compile_where_neither_package_nor_home_may_be_written(tmp_path) -> None:
    """As in a container: the package's directory is read-only, and the home does not exist."""
    code = """
import os, sys, numpy as np
from numba.core import caching
for locator in (caching.InTreeCacheLocator, caching.UserWideCacheLocator):
    locator.from_function = classmethod(lambda cls, function, path: None)
from atoll.agent import diloco
print(len(diloco.self_test()))
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "HOME": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"compiled code is kept in {tmp_path}/atoll-numba-" in done.stderr


def test_a_place_that_cannot_be_replaced_is_refused_as_a_target_of_an_export(tmp_path, monkeypatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")
    for out in (Path(), tmp_path / "link"):
        with pytest.raises(UserError, match="cannot be replaced by a whole checkpoint; name a new directory"):
            export(RunDir(tmp_path / "run"), out)
