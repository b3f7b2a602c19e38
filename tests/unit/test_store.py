"""The coordinator's database: tickets, records that are committed once, terms, and what a restart finds."""

import asyncio
import sqlite3
import threading

import pytest
import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError, InternalError
from worlds.swarm import Swarm

import examples
from atoll.coordinator import store as store_module
from atoll.coordinator.database import sqlite_url
from atoll.coordinator.effects import Doubted
from atoll.coordinator.store import Deposed, Store
from atoll.errors import UserError
from atoll.swarm.records import Assembled, Attempt, CommitRecord, Plan, Share, Slice, Term

TERM = Term(1, "nonce")


@pytest.fixture
def store(tmp_path):
    store = Store(sqlite_url(tmp_path))
    store.claim(b"run")
    store.begin_term()
    yield store
    store.close()


@pytest.fixture
def second(store):
    """Another process on the same database."""
    second = Store(store.url)
    yield second
    second.close()


def commit(step: int, *leases: tuple[str, tuple[tuple[int, int], ...]]) -> CommitRecord:
    return examples.commit_record(
        term=TERM,
        step=step,
        parent=b"p",
        update=b"u",
        next_root=b"n",
        participants=(Share(island="a", payload=b"", tokens=8, weight=1.0),),
        leases=leases,
    )


def plan(step: int, island: str, starts: tuple[int, ...] = (0,)) -> Plan:
    return examples.plan(
        term=TERM,
        step=step,
        parent=b"p",
        island=island,
        lease=((8 * step, 8),),
        stage_starts=starts,
        first_inner_step=4 * step,
    )


def attempt(step: int, number: int) -> Attempt:
    return examples.attempt(term=TERM, step=step, number=number, parent=b"p", slices=(Slice("a", 0, 1),))


# --------------------------------------------------------------------------------------- tickets and islands
def test_a_ticket_is_exchanged_for_a_certificate(store) -> None:
    kept = store.redeem(store.new_ticket(1, 1.0), "a", "Ada", b"certificate", place="London")
    assert kept == b"certificate"
    assert store.enrolled() == {"a": ("Ada", "", "London", "")}


def test_an_unknown_ticket_is_refused(store) -> None:
    with pytest.raises(UserError, match="does not know this ticket"):
        store.redeem("guess", "a", "", b"")


def test_an_expired_ticket_is_refused(store) -> None:
    with pytest.raises(UserError, match="expired"):
        store.redeem(store.new_ticket(1, -0.001), "a", "", b"")


def test_a_used_up_ticket_is_refused(store) -> None:
    secret = store.new_ticket(2, 1.0)
    store.redeem(secret, "a", "", b"")
    store.redeem(secret, "b", "", b"")
    with pytest.raises(UserError, match=r"used up \(2 of 2\)"):
        store.redeem(secret, "c", "", b"")


def test_redeeming_again_with_the_same_key_gives_the_first_certificate_and_uses_nothing(store) -> None:
    secret = store.new_ticket(2, 1.0)
    store.redeem(secret, "a", "Ada", b"first")
    for _ in range(3):
        assert store.redeem(secret, "a", "Ada", b"again") == b"first"
    store.redeem(secret, "b", "", b"")


def test_an_island_that_has_enrolled_needs_no_valid_ticket_to_come_back(store) -> None:
    store.redeem(store.new_ticket(1, 1.0), "a", "Ada", b"first")
    assert store.redeem("forgotten", "a", "Ada", b"again") == b"first"


def test_an_evicted_island_is_refused_with_the_reason(store) -> None:
    secret = store.new_ticket(9, 1.0)
    store.redeem(secret, "a", "", b"")
    assert store.eviction_reason("a") == ""
    store.evict("a", "poisoned us")
    assert store.eviction_reason("a") == "poisoned us"
    with pytest.raises(UserError, match="evicted from this run: poisoned us"):
        store.redeem(secret, "a", "", b"")


def test_an_evicted_machine_does_not_come_back_by_the_same_ticket_under_a_new_id(store) -> None:
    secret, other = store.new_ticket(9, 1.0), store.new_ticket(9, 1.0)
    for island in ("a", "b"):
        store.redeem(secret, island, "", b"kept")
    assert store.evict("a", "") == 1, "b came by the same ticket"
    with pytest.raises(UserError, match=r"this ticket is void.*`atoll invite`"):
        store.redeem(secret, "a again", "", b"")
    assert store.redeem(secret, "b", "", b"") == b"kept", "who has come by it stays"
    store.redeem(other, "c", "", b"")


def test_an_eviction_can_be_taken_back_and_so_is_its_tickets(store) -> None:
    secret = store.new_ticket(9, 1.0)
    for island in ("a", "b"):
        store.redeem(secret, island, "", b"")
    for island in ("a", "b"):
        store.evict(island, "")
    store.readmit("a")
    assert {island for island, kept in store.enrolled().items() if kept.evicted} == {"b"}
    store.redeem(secret, "a", "", b"")
    with pytest.raises(UserError, match="void"):
        store.redeem(secret, "c", "", b"")
    store.readmit("b")
    store.redeem(secret, "c", "", b"")
    with pytest.raises(UserError, match="no such island"):
        store.readmit("nobody")


def test_an_eviction_needs_no_reason(store) -> None:
    store.redeem(store.new_ticket(1, 1.0), "a", "", b"")
    store.evict("a", "")
    assert store.eviction_reason("a")


def test_an_island_that_is_not_in_the_run_cannot_be_evicted(store) -> None:
    with pytest.raises(UserError, match="no such island"):
        store.evict("nobody", "")


def test_a_secret_is_kept_only_as_its_hash(store, tmp_path) -> None:
    secret = store.new_ticket(1, 1.0)
    assert not any(secret.encode() in path.read_bytes() for path in tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------- records
def test_a_step_is_committed_once(store) -> None:
    store.append([commit(0)])
    with pytest.raises(IntegrityError):
        store.append([commit(0)])
    assert store.commits() == [commit(0)]


def test_records_of_one_append_are_durable_together_or_not_at_all(store) -> None:
    store.append([commit(0)])
    with pytest.raises(IntegrityError):
        store.append([plan(1, "a"), commit(0)])
    assert store.open_step(1)[0] == []


def test_a_commit_whose_leases_overlap_is_refused(store) -> None:
    with pytest.raises(ValueError, match="in two leases"):
        store.append([commit(0, ("a", ((0, 8),)), ("b", ((7, 8),)))])
    assert store.commits() == []


def test_a_commit_of_samples_that_an_earlier_one_spent_is_refused(store) -> None:
    store.append([commit(0, ("a", ((0, 8),)))])
    with pytest.raises(ValueError, match="in two leases"):
        store.append([commit(1, ("a", ((4, 8),)))])


def test_what_was_spent_before_a_restart_stays_spent(store, second) -> None:
    store.append([commit(0, ("a", ((0, 8),)))])
    second.begin_term()
    with pytest.raises(ValueError, match="in two leases"):
        second.append([commit(1, ("a", ((7, 8),)))])
    second.append([commit(1, ("a", ((8, 8),)))])  # the refused commit has left nothing behind


def test_a_restart_finds_commits_plans_attempts_and_stage_starts(store, second) -> None:
    store.append(
        [plan(0, "a"), plan(0, "b"), attempt(0, 1), Assembled(term=TERM, step=0, number=1, digests=(b"d",))]
    )
    store.append([commit(0)])
    store.append([plan(1, "a"), plan(1, "b", (0, 16)), attempt(1, 1), attempt(1, 2)])
    assert second.commits() == [commit(0)]
    assert second.open_step(1) == ([plan(1, "a"), plan(1, "b", (0, 16))], 2, (0, 16), False, ())


def test_commits_are_read_in_order_from_a_given_step(store) -> None:
    for step in range(12):
        store.append([commit(step)])
    assert [record.step for record in store.commits(3, limit=4)] == [3, 4, 5, 6]
    assert store.commits(12) == []


def test_the_next_leader_knows_that_the_database_may_be_a_backup(store, second) -> None:
    store.append([Doubted(True)])
    second.begin_term()
    assert second.open_step(0).doubted
    second.append([Doubted(False)])
    assert not second.open_step(0).doubted


def test_of_a_step_without_records_nothing_is_known(store) -> None:
    assert store.open_step(0) == ([], 0, (), False, ())


# ------------------------------------------------------------------------------------------------------ terms
def test_terms_count_up_and_their_nonces_differ(store, second) -> None:
    terms = [store.term, second.begin_term(), store.begin_term()]
    assert [term.counter for term in terms] == [1, 2, 3]
    assert len({term.nonce for term in terms}) == 3


def test_a_coordinator_whose_term_is_over_can_write_nothing_more(store, second) -> None:
    second.begin_term()
    with pytest.raises(Deposed, match="term 2"):
        store.append([commit(0)])
    assert store.commits() == []
    second.append([commit(0)])


def test_no_term_can_begin_between_the_check_and_the_insert(store, second) -> None:
    """The second leader tries to begin its term between the two statements: it must wait, or depose us."""
    begun = threading.Event()

    def take_over() -> None:
        second.begin_term()
        begun.set()

    other = threading.Thread(target=take_over)

    def between(connection, cursor, statement, *_) -> None:
        if statement.startswith("INSERT INTO commit_record") and not other.ident:
            other.start()
            begun.wait(0.2)

    sql.event.listen(store._engine, "before_cursor_execute", between)
    lost = False
    try:
        store.append([commit(0)])
        lost = begun.is_set()  # then the commit was made in a term that was over
    except Deposed:
        pass
    other.join(5)
    assert not lost


def test_a_term_can_be_taken_above_a_given_one(store) -> None:
    assert store.begin_term(above=7).counter == 8
    assert store.begin_term(above=3).counter == 9


# -------------------------------------------------------------------------------------------------- databases
def test_the_database_of_another_run_is_refused(store, second) -> None:
    with pytest.raises(UserError, match="another run"):
        second.claim(b"other")


def test_the_same_run_finds_its_database(store, second) -> None:
    assert second.claim(b"run") == store.claim(b"run")
    assert second.info() == b"run"


def test_a_new_database_holds_no_run(tmp_path) -> None:
    store = Store(sqlite_url(tmp_path / "new"))
    assert store.info() is None
    store.close()


def test_a_database_that_cannot_be_written_is_one_sentence_with_what_to_look_at() -> None:
    with pytest.raises(UserError, match=r"\A[^\n]*: unable to open database file; is the disk full[^\n]*\Z"):
        Store("sqlite:////proc/nowhere/run.sqlite")


def test_a_file_that_is_no_database_is_refused(tmp_path) -> None:
    (tmp_path / "run.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match=r"\A[^\n]*database cannot be used: file is not a database\Z"):
        Store(sqlite_url(tmp_path))


@pytest.mark.parametrize("url", ["no url", "nosuchsql://host/db", "mysql://host/db"])
def test_what_is_no_url_of_a_database_is_refused(url: str) -> None:
    with pytest.raises(UserError):
        Store(url)


def test_a_database_of_an_older_atoll_is_refused_with_the_columns_it_lacks(store, tmp_path) -> None:
    store.close()
    with sqlite3.connect(tmp_path / "run.sqlite") as database:
        database.execute("ALTER TABLE run DROP COLUMN renewed")
    database.close()
    with pytest.raises(UserError, match=r"older atoll \(it lacks run.renewed\)"):
        Store(store.url)


def test_sqlite_writes_commits_to_disk_before_they_return(store) -> None:
    with store._engine.connect() as db:
        assert db.execute(sql.text("PRAGMA journal_mode")).scalar() == "wal"
        assert db.execute(sql.text("PRAGMA synchronous")).scalar() == 2  # FULL


def test_a_coordinator_whose_database_fails_stops(tmp_path) -> None:
    """It must not go on in memory from a commit that no restart would find."""

    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=50)
        await swarm.start_coordinator()
        try:
            swarm.start("a", step_seconds=0.01)
            await swarm.until_step(1)
            with sqlite3.connect(tmp_path / "db" / "run.sqlite") as database:
                database.execute("DROP TABLE commit_record")
            database.close()
            await swarm.until(lambda: swarm.head >= 2 or swarm._clock.done(), "a failed commit", 5)
            await asyncio.sleep(0.3)
            assert swarm._clock.done() or swarm.coordinator.deposed.done()
        finally:
            swarm._clock.cancel()
            swarm.network.sever("coordinator")
            await swarm.kill("a")
            swarm.store.close()
            swarm._log.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_leader_whose_transaction_is_broken_off_is_deposed(store, monkeypatch) -> None:
    """PostgreSQL does that to a leader that slept in the middle of a transaction."""

    def break_off(*_: object) -> None:
        text = "terminating connection due to idle-in-transaction timeout\nand more"
        raise InternalError("INSERT", {}, Exception(text))

    monkeypatch.setattr(store_module, "_insert", break_off)
    text = r"the database broke off \(terminating connection due to idle.* timeout\)$"
    with pytest.raises(Deposed, match=text):
        store.append([Doubted(True)])
