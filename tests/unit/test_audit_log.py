"""The audit log: that it is on disk, that it is whole, and that whatever is done to it is found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import inturn.audit.log
from inturn.audit import acting_as, current_actor
from inturn.audit.log import AuditLog
from inturn.audit.reading import Anchor, Verified, read_audit_log, verify_audit_log
from inturn.errors import ConfigurationError
from inturn.session.state import utcnow

KEY = "a key of sixteen characters or more"


@pytest.fixture(params=[None, KEY], ids=["plain", "sealed"])
def key(request: pytest.FixtureRequest) -> str | None:
    value: str | None = request.param
    return value


@pytest.fixture
def log(tmp_path: Path, key: str | None) -> Iterator[AuditLog]:
    log = AuditLog(tmp_path / "audit", key=key)
    yield log
    log.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inturn.audit.log, "MOST_BYTES", 1000)


def write(log: AuditLog, count: int = 5) -> None:
    for number in range(count):
        log.append("read", session_ids=[f"s{number}"], user_id="ann")


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def only(found: Verified) -> tuple[int, str]:
    """The line and the reason of the one broken place."""
    (broken,) = found.broken
    return broken.line, broken.why


def test_what_was_written_is_whole(log: AuditLog, directory: Path, key: str | None) -> None:
    write(log)

    found = verify_audit_log(directory, key=key)

    assert (found.broken, found.torn, found.records) == ([], [], 6)


def test_a_record_is_on_disk_when_append_returns(log: AuditLog, directory: Path) -> None:
    log.append("read", session_ids=["s1"])

    assert [record["sessions"] for record in read_audit_log(directory)] == [["s1"]]


def test_nobody_else_may_read_it(log: AuditLog, directory: Path) -> None:
    write(log)

    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in files(directory)} == {0o600}


class TestTampering:
    """The lines are those of the file: the first one says which file it is, then come five records."""

    @pytest.fixture
    def path(self, log: AuditLog, directory: Path) -> Path:
        write(log)
        (path,) = files(directory)
        return path

    def test_a_changed_record_is_found(self, path: Path, key: str | None) -> None:
        path.write_bytes(path.read_bytes().replace(b'"s2"', b'"s9"'))

        assert only(verify_audit_log(path.parent, key=key)) == (
            4,
            "the record was changed, or was written with another key",
        )

    @pytest.mark.parametrize("number", range(5))
    def test_a_removed_record_is_found(self, path: Path, key: str | None, number: int) -> None:
        lines = lines_of(path)
        path.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))

        assert only(verify_audit_log(path.parent, key=key))[0] == number + 1

    def test_records_that_changed_places_are_found(self, path: Path, key: str | None) -> None:
        lines = lines_of(path)
        lines[2], lines[3] = lines[3], lines[2]
        path.write_bytes(b"".join(lines))

        assert only(verify_audit_log(path.parent, key=key))[0] == 3

    def test_a_record_that_was_put_in_again_is_found(self, path: Path, key: str | None) -> None:
        lines = lines_of(path)
        path.write_bytes(b"".join([*lines, lines[2]]))

        assert only(verify_audit_log(path.parent, key=key))[0] == 7

    @pytest.mark.parametrize("nonsense", [b"\n", b"{}\n", b"[]\n", b"\xff\n", b'{"hash":"0"}\n'])
    def test_nonsense_is_found(self, path: Path, key: str | None, nonsense: bytes) -> None:
        lines = lines_of(path)
        path.write_bytes(b"".join([*lines[:3], nonsense, *lines[3:]]))

        assert only(verify_audit_log(path.parent, key=key)) == (4, "this is no record")

    def test_a_file_under_another_name_is_found(self, path: Path, key: str | None) -> None:
        path.rename(path.with_name("another.0001.jsonl"))

        assert only(verify_audit_log(path.parent, key=key))[1] == "this record is of another file"

    def test_a_cut_end_is_found_by_an_anchor(self, path: Path, key: str | None) -> None:
        anchors = verify_audit_log(path.parent, key=key).heads
        path.write_bytes(b"".join(lines_of(path)[:-1]))

        assert verify_audit_log(path.parent, key=key).broken == []
        assert only(verify_audit_log(path.parent, key=key, anchors=anchors)) == (
            0,
            "it ends with record 5, and record 6 is anchored",
        )

    def test_a_file_that_is_gone_is_found_by_an_anchor(self, path: Path, key: str | None) -> None:
        anchors = verify_audit_log(path.parent, key=key).heads
        path.unlink()

        assert only(verify_audit_log(path.parent, key=key, anchors=anchors)) == (
            0,
            "it is anchored, and gone",
        )

    def test_a_chain_that_was_made_anew_is_found_by_an_anchor(self, path: Path) -> None:
        found = verify_audit_log(path.parent, key=KEY if b'"sealed":true' in path.read_bytes() else None)
        (chain,) = found.heads
        others = {chain: Anchor(found.heads[chain].records, "f" * 64)}

        again = verify_audit_log(
            path.parent, key=KEY if b'"sealed":true' in path.read_bytes() else None, anchors=others
        )
        assert only(again) == (6, "the record is another one than was anchored")

    def test_a_log_that_grew_on_fits_its_anchor(self, log: AuditLog, path: Path, key: str | None) -> None:
        anchors = verify_audit_log(path.parent, key=key).heads
        write(log)

        assert verify_audit_log(path.parent, key=key, anchors=anchors).broken == []


def test_without_the_key_no_record_can_be_forged(tmp_path: Path) -> None:
    sealed, forged = AuditLog(tmp_path / "sealed", key=KEY), AuditLog(tmp_path / "forged", key="a" * 16)
    for log in (sealed, forged):
        write(log)
        log.close()
    (path,), (other,) = files(tmp_path / "sealed"), files(tmp_path / "forged")
    path.write_bytes(other.read_bytes().replace(other.name.encode(), path.name.encode()))

    assert only(verify_audit_log(tmp_path / "sealed", key=KEY))[0] == 1


def test_a_log_without_seals_is_no_answer_where_there_is_a_key(tmp_path: Path) -> None:
    plain, sealed = AuditLog(tmp_path / "plain"), AuditLog(tmp_path / "sealed", key=KEY)
    for log in (plain, sealed):
        write(log)
        log.close()

    assert "not sealed" in only(verify_audit_log(tmp_path / "plain", key=KEY))[1]
    assert "set INTURN_AUDIT_KEY" in only(verify_audit_log(tmp_path / "sealed"))[1]


@pytest.mark.usefixtures("small_files")
class TestManyFiles:
    def test_a_large_file_is_followed_by_another(
        self, log: AuditLog, directory: Path, key: str | None
    ) -> None:
        write(log, 20)

        assert len(files(directory)) > 2
        assert len(verify_audit_log(directory, key=key).heads) == 1
        assert [record["sessions"] for record in read_audit_log(directory)] == [
            [f"s{number}"] for number in range(20)
        ]

    @pytest.mark.parametrize("which", [0, 1])
    def test_one_that_is_gone_is_found(
        self, log: AuditLog, directory: Path, key: str | None, which: int
    ) -> None:
        write(log, 20)
        files(directory)[which].unlink()

        line, why = only(verify_audit_log(directory, key=key))
        assert (line, why) == (0, "it is gone, and later files of its chain are there")

    def test_a_cut_end_of_one_before_the_last_is_found(
        self, log: AuditLog, directory: Path, key: str | None
    ) -> None:
        write(log, 20)
        path = files(directory)[0]
        path.write_bytes(b"".join(lines_of(path)[:-1]))

        assert only(verify_audit_log(directory, key=key))[0] == 1

    def test_threads_write_one_chain(self, log: AuditLog, directory: Path, key: str | None) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: write(log, 25), range(8)))

        found = verify_audit_log(directory, key=key)
        assert (found.broken, len(found.heads)) == ([], 1)
        assert len(list(read_audit_log(directory))) == 200


class TestCrashes:
    def test_a_record_that_was_cut_short_is_told_apart(
        self, log: AuditLog, directory: Path, key: str | None
    ) -> None:
        write(log)
        log.close()
        (path,) = files(directory)
        path.write_bytes(path.read_bytes()[:-10])

        found = verify_audit_log(directory, key=key)

        assert (found.broken, found.torn, found.records) == ([], [path.name], 5)

    def test_a_full_disk_refuses_and_the_chain_goes_on_after_it(self, tmp_path: Path) -> None:
        program = f"""
import resource, signal
from inturn.audit.log import AuditLog
from inturn.errors import AuditUnavailableError
log = AuditLog({str(tmp_path / "audit")!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
refused = 0
for number in range(12):
    try:
        log.append("read", session_ids=[f"s{{number}}"])
    except AuditUnavailableError:
        refused += 1
print(refused)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

        refused = int(done.stdout)
        found = verify_audit_log(tmp_path / "audit")
        assert refused > 0
        assert (found.broken, len(found.heads)) == ([], 1)
        assert len(found.torn) == refused
        assert len(list(read_audit_log(tmp_path / "audit"))) == 12 - refused

    def test_killed_processes_leave_a_log_that_is_whole(self, tmp_path: Path) -> None:
        program = f"""
from inturn.audit.log import AuditLog
log = AuditLog({str(tmp_path / "audit")!r})
number = 0
while True:
    log.append("read", session_ids=[f"s{{number}}"])
    print(number, flush=True)
    number += 1
"""
        writers = [
            subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        last = []
        for writer in writers:
            assert writer.stdout is not None
            for line in writer.stdout:
                if int(line) >= 20:
                    break
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            assert writer.stdout is not None
            said = [line for line in writer.stdout if line.endswith("\n")]
            writer.stdout.close()
            last.append(int(said[-1]) if said else 20)

        found = verify_audit_log(tmp_path / "audit")
        assert (found.broken, len(found.heads)) == ([], 2)
        # What a process was told to be recorded is recorded; of one more it may not have been told.
        assert len(list(read_audit_log(tmp_path / "audit"))) - sum(each + 1 for each in last) in (0, 1, 2)

    def test_a_forked_child_writes_a_chain_of_its_own(
        self, log: AuditLog, directory: Path, key: str | None
    ) -> None:
        write(log)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                write(log)
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        write(log)

        found = verify_audit_log(directory, key=key)
        assert found.broken == []
        assert sorted(head.records for head in found.heads.values()) == [6, 11]


class TestReading:
    @pytest.fixture
    def key(self) -> None:
        return None

    def test_records_are_found_by_session_and_by_user(self, log: AuditLog, directory: Path) -> None:
        log.append("read", session_ids=["s1", "s2"], user_id="ann")
        log.append("change", session_ids=["s2"], user_id="bob")
        with acting_as("user:ann"):
            log.append("read", session_ids=["s3"])

        def sessions(**which: Any) -> list[list[str]]:
            return [record["sessions"] for record in read_audit_log(directory, **which)]

        assert sessions(session_id="s2") == [["s1", "s2"], ["s2"]]
        assert sessions(user_id="ann") == [["s1", "s2"], ["s3"]]
        assert sessions(session_id="s2", user_id="bob") == [["s2"]]
        assert sessions(since=utcnow() + timedelta(hours=1)) == []
        assert len(sessions(since=utcnow() - timedelta(hours=1))) == 3

    def test_records_of_many_processes_come_in_the_order_of_their_times(self, directory: Path) -> None:
        logs = [AuditLog(directory) for _ in range(3)]
        for number in range(9):
            logs[number % 3].append("read", session_ids=[f"s{number}"])

        assert [record["sessions"] for record in read_audit_log(directory)] == [
            [f"s{number}"] for number in range(9)
        ]
        for log in logs:
            log.close()

    def test_a_log_that_is_not_there_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="INTURN_AUDIT_LOG"):
            verify_audit_log(tmp_path / "nowhere")

    @pytest.mark.parametrize("text", ['a"b\nc', "\u2028\x1b[31m", "\ud800", "x" * 10_000])
    def test_no_text_ends_a_line_or_begins_one(self, log: AuditLog, directory: Path, text: str) -> None:
        with acting_as(text):
            log.append("read", session_ids=[text], user_id=text, turn_id=text)

        (path,) = files(directory)
        assert len(lines_of(path)) == 2
        assert path.read_bytes().isascii()
        assert verify_audit_log(directory).broken == []
        (record,) = read_audit_log(directory)
        assert (record["actor"], record["sessions"]) == (text, [text])


class TestTheActor:
    def test_it_is_the_process_unless_somebody_is_named(self) -> None:
        before = current_actor()
        with acting_as("user:ann"):
            assert current_actor() == "user:ann"
            with acting_as("key:backend"):
                assert current_actor() == "key:backend"
            assert current_actor() == "user:ann"
        assert current_actor() == before

    def test_another_thread_has_its_own(self) -> None:
        seen: list[str] = []
        with acting_as("user:ann"):
            thread = threading.Thread(target=lambda: seen.append(current_actor()))
            thread.start()
            thread.join()

        assert seen != ["user:ann"]


def test_json_of_a_record_is_what_a_line_holds(log: AuditLog, directory: Path) -> None:
    log.append("change", session_ids=["s1"], version=3)

    (path,) = files(directory)
    line = json.loads(lines_of(path)[1])
    assert {name: line[name] for name in ("action", "n", "sessions", "version")} == {
        "action": "change",
        "n": 2,
        "sessions": ["s1"],
        "version": 3,
    }
