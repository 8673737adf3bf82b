"El registro de predicciones: lo que guarda, y lo que no pierde cuando algo falla. PostgreSQL es de verdad; los procesos y sus muertes, también."
import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from futbol_mlops import journal as journal_module
from futbol_mlops.journal import (
    COLUMNS,
    OFFSETS,
    Backlog,
    Drain,
    Journal,
    JournaledLog,
    LogError,
    PredictionLog,
    RowError,
    as_values,
    backlog,
    open_log,
    read_offsets,
    segments,
    take,
)
from futbol_mlops.observability import Metrics
from futbol_mlops.serving import create_api, new_id

FIXTURE = {"league": "SP1", "home_team": "Betis", "away_team": "Sevilla", "kickoff": "2024-09-21"}


def row(**changes) -> dict:
    return {"prediction_id": new_id(), "created_at": "2026-08-28T20:00:00.000+00:00", "league": "SP1", "home_team": "Betis", "away_team": "Sevilla", "kickoff": "2024-09-21",
            "features_as_of": "2024-09-14", "features": [0.1, 1.5, 1.0, 2.0, -0.4], "home_win": 0.45, "draw": 0.25, "away_win": 0.3, "outcome": "home_win",
            "model_name": "futbol-1x2", "model_version": "0.1.0", "warnings": ["stale"], "request_id": "r", "client": "local", **changes}


# --- SQLite -------------------------------------------------------------------------------------------------------

def test_what_is_written_is_read(log):
    one = row()
    log.append(one)
    assert log.get(one["prediction_id"]) == one == log.recent(1)[0]
    assert set(one) == set(COLUMNS) and log.get("otra") is None


def test_many_are_all_or_none(log):
    one = row()
    log.append(one)
    with pytest.raises(LogError, match="UNIQUE"):
        log.append_many([row(), row(), one])
    assert log.count() == 1
    log.append(row())  # sigue sirviendo
    log.append_many([])
    assert log.count() == 2


def test_it_survives_a_restart(tmp_path):
    path, one = tmp_path / "deep" / "predictions.db", row()
    first = PredictionLog(path)
    first.append(one)
    first.close()
    second = PredictionLog(path)
    assert second.get(one["prediction_id"]) == one
    second.close()


def test_two_writers_share_the_file(tmp_path):
    logs = [PredictionLog(tmp_path / "p.db", timeout=10) for _ in range(2)]
    threads = [threading.Thread(target=lambda log=log: [log.append(row()) for _ in range(100)]) for log in logs for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert logs[0].count() == 400
    for log in logs:
        log.close()


def fill_disk(log: PredictionLog) -> None:
    "SQLite con el disco lleno: no puede pedir una página más."
    pages = log.db.execute("PRAGMA page_count").fetchone()[0]
    log.db.execute(f"PRAGMA max_page_count={pages}")


def test_a_full_disk_refuses_and_recovers(bundle, log):
    client = TestClient(create_api(bundle, log, Metrics(process=False)))
    fill_disk(log)
    statuses = [client.post("/v1/predictions", json=FIXTURE).status_code for _ in range(60)]
    answered = statuses.count(200)
    assert statuses == [200] * answered + [503] * (60 - answered) and answered < 60
    assert log.count() == answered, "lo contestado está; lo rechazado, no"
    log.db.execute("PRAGMA max_page_count=1000000")
    assert client.post("/v1/predictions", json=FIXTURE).status_code == 200


def test_a_locked_database_is_not_ready(bundle, log, tmp_path):
    client = TestClient(create_api(bundle, log, Metrics(process=False)))
    other = sqlite3.connect(tmp_path / "predictions.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert [client.get("/readyz").status_code, client.post("/v1/predictions", json=FIXTURE).status_code, client.get("/healthz").status_code] == [503, 503, 200]
    other.execute("ROLLBACK")
    other.close()
    assert client.get("/readyz").status_code == 200
    assert log.count() == 0


def test_a_deleted_file_is_not_ready(bundle, log, tmp_path):
    client = TestClient(create_api(bundle, log, Metrics(process=False)))
    assert client.get("/readyz").status_code == 200
    (tmp_path / "predictions.db").unlink()
    assert client.get("/readyz").status_code == 503


def test_an_unusable_path_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match="registro de predicciones"):
        PredictionLog(tmp_path / "file" / "p.db")
    (tmp_path / "garbage.db").write_bytes(b"esto no es una base de datos" * 100)
    with pytest.raises(LogError, match="not a database"):
        PredictionLog(tmp_path / "garbage.db")
    with pytest.raises(LogError):
        PredictionLog(tmp_path)


def test_a_closed_log_fails_as_a_log(log):
    log.close()
    for use in (lambda: log.append(row()), log.count, log.check, lambda: log.append_many([row(), row()])):
        with pytest.raises(LogError):
            use()


def test_a_database_of_the_former_version_gains_the_client(tmp_path):
    former = sqlite3.connect(tmp_path / "old.db")
    names = [c for c in COLUMNS if c != "client"]
    former.execute(f"CREATE TABLE predictions ({', '.join(names)}, PRIMARY KEY (prediction_id)) WITHOUT ROWID")
    old = row()
    former.execute(f"INSERT INTO predictions ({', '.join(names)}) VALUES ({', '.join('?' for _ in names)})", [v for c, v in zip(COLUMNS, as_values(old), strict=True) if c != "client"])
    former.commit()
    former.close()
    for _ in range(2):
        log = PredictionLog(tmp_path / "old.db")
        assert log.get(old["prediction_id"]) == {**old, "client": None}
        log.close()
    log = PredictionLog(tmp_path / "old.db")
    new = row(client="quiniela")
    log.append(new)
    assert [r["client"] for r in log.recent()] == ["quiniela", None] and log.recent(client="quiniela") == [new]
    log.close()


def test_many_processes_open_a_new_file_at_once(tmp_path):
    def work(barrier, path):
        barrier.wait()
        log = PredictionLog(path, timeout=10)
        log.append(row())
        log.close()

    fork = multiprocessing.get_context("fork")
    for attempt in range(5):
        path, barrier = tmp_path / f"new-{attempt}.db", fork.Barrier(6)
        workers = [fork.Process(target=work, args=(barrier, path)) for _ in range(6)]
        for w in workers:
            w.start()
        for w in workers:
            w.join(60)
        assert [w.exitcode for w in workers] == [0] * 6
        log = PredictionLog(path)
        assert log.count() == 6
        log.close()


# --- lo que hace igual con SQLite y con PostgreSQL ------------------------------------------------------------------

@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    return f"sqlite:///{tmp_path / 'store.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres").new_database()


@pytest.fixture
def store(url):
    log = open_log(url)
    yield log
    log.close()


def test_a_store_keeps_what_it_is_given(store):
    rows = [row(client=f"c{i % 2}", warnings=["stale", "ñ «»"], features=[0.1 + 0.2, 1e-300, 1 / 3]) for i in range(10)]
    store.append_many(rows)
    assert all(store.get(r["prediction_id"]) == r for r in rows), "hasta el último bit de cada número"
    assert store.recent(3) == rows[:-4:-1] and store.recent(50, "c1") == rows[1::2][::-1] and store.recent(50, "") == []
    assert store.count() == 10 and store.get("otra") is None
    store.check()


def test_adding_twice_changes_nothing(store):
    rows = [row() for _ in range(5)]
    assert store.add_many([as_values(r) for r in rows[:3]]) == 3
    assert store.add_many([as_values({**r, "outcome": "draw"}) for r in rows]) == 2
    assert [store.get(r["prediction_id"])["outcome"] for r in rows] == ["home_win"] * 3 + ["draw"] * 2
    assert store.add_many([]) == 0
    with pytest.raises(LogError):
        store.append_many([row(), rows[0]])
    assert store.count() == 5, "todas o ninguna"


@pytest.mark.parametrize("bad", [{"league": None}, {"home_team": "con \ud800 suelto"}])
def test_a_row_that_cannot_be_is_told_from_a_database_that_is_down(store, bad):
    with pytest.raises(RowError):
        store.add_many([as_values(row()), as_values(row(**bad))])
    assert store.count() == 0
    store.append(row())  # sigue sirviendo
    with pytest.raises(LogError) as e:
        store.query("SELECT nada FROM predictions")
    assert not isinstance(e.value, RowError)
    assert store.count() == 1


def test_other_modules_keep_tables_of_their_own(store):
    ddl = "CREATE TABLE IF NOT EXISTS labels (id TEXT PRIMARY KEY, goals INTEGER); CREATE INDEX IF NOT EXISTS labels_goals ON labels (goals)"
    store.create(ddl)
    store.create(ddl)
    assert store.write("INSERT INTO labels (id, goals) VALUES (?, ?)", [("a", 1), ("b", 2)]) == 2
    assert store.write("UPDATE labels SET goals = goals + ? WHERE id <> ?", [(1, "a"), (1, "z")]) == 3
    with pytest.raises(RowError):
        store.write("INSERT INTO labels (id, goals) VALUES (?, ?)", [("c", 3), ("a", 1)])
    assert store.query("SELECT id, goals FROM labels WHERE id LIKE '%' AND goals > ? ORDER BY id", (1,)) == [("a", 2), ("b", 4)]


def test_a_child_opens_its_own_connection(store):
    store.append(row())

    def work():
        store.append(row())
        os._exit(0 if store.count() == 2 else 1)

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(30)
    assert child.exitcode == 0
    store.append(row())  # la del padre sigue entera
    assert store.count() == 3


def test_a_child_that_never_used_it_does_not_close_its_parents(store):
    store.append(row())
    session = None if isinstance(store, PredictionLog) else store.query("SELECT pg_backend_pid()")

    def work():
        store.close()
        os._exit(0 if store.db.execute("SELECT count(*) FROM predictions").fetchone() == (1,) else 1)  # la heredada sigue abierta: no es suya

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(30)
    if isinstance(store, PredictionLog):  # con PostgreSQL no se puede mirar así: los dos extremos compartirían el canal
        assert child.exitcode == 0
    store.append(row())
    assert store.count() == 2
    assert session is None or store.query("SELECT pg_backend_pid()") == session, "la cerró el hijo, y hubo que abrir otra"


def test_the_fixture_index_is_used(store):
    plan = "EXPLAIN QUERY PLAN " if isinstance(store, PredictionLog) else "SET enable_seqscan = off; EXPLAIN "
    sql = "SELECT prediction_id FROM predictions WHERE league = 'E0' AND home_team = 'A' AND away_team = 'B' AND kickoff = '2024-09-21'"
    if not isinstance(store, PredictionLog):
        store.count()
        store.db.execute("SET enable_seqscan = off")
        plan = "EXPLAIN "
    assert "predictions_fixture" in str(store.query(plan + sql))


@pytest.mark.parametrize("url", ["mysql://futbol:secreto@host/db", "sqlite:///", "sqlite:store.db", "store.db", "postgresql://futbol:secreto@host:puerto/db?nada=1"])
def test_a_url_that_is_not_one_says_so_without_its_password(url):
    with pytest.raises(LogError, match="FUTBOL_LOG_URL") as e:
        open_log(url).check()
    assert "secreto" not in str(e.value)


# --- PostgreSQL -----------------------------------------------------------------------------------------------------

def test_it_reconnects_after_a_restart(postgres):
    log = open_log(postgres.new_database())
    log.append(row())
    for how in (signal.SIGINT, signal.SIGQUIT):
        postgres.stop(how)
        assert postgres.start()
        assert log.count() == 1, "la conexión vieja se cambia sin que se note"
    postgres.stop()
    try:
        for use in (log.count, log.check, lambda: log.append(row())):
            started = time.monotonic()
            with pytest.raises(LogError, match="PostgreSQL"):
                use()
            assert time.monotonic() - started < 30
    finally:
        assert postgres.start()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            log.check()
            break
        except LogError:
            time.sleep(0.1)
    assert log.count() == 1
    log.close()


def test_a_server_that_falls_silent_does_not_hang_anyone(postgres):
    from futbol_mlops.journal import PostgresLog

    log = PostgresLog(postgres.new_database(), timeout=1.0)
    log.append(row())
    postgres.freeze()
    try:
        refused = []

        def ask():
            try:
                log.count()
            except LogError as e:
                refused.append(e)

        asked = threading.Thread(target=ask, daemon=True)
        asked.start()
        asked.join(60)
        assert refused and not asked.is_alive(), "sigue esperando"
    finally:
        postgres.thaw()
    asked.join()
    time.sleep(1.1)  # el rato en que ni lo intenta
    assert log.count() == 1
    log.close()


# --- la bitácora ----------------------------------------------------------------------------------------------------

@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "journal"


def drain_all(folder: Path, log, **settings) -> int:
    "Lo pasa todo, como un proceso nuevo."
    drain, moved = Drain(folder, log, **settings), 0
    while (n := drain.step()) or drain.behind:
        moved += n
    drain.close()
    return moved


def test_what_is_appended_arrives_bit_by_bit(folder, store):
    rows = [row(features=[0.1 + 0.2, 1e-300, -0.0, 1 / 3], warnings=["«ñ»", "a\nb\r\u2028"], request_id='["x",') for _ in range(7)]
    journal = Journal(folder)
    journal.append_many(rows[:1])
    journal.append_many(rows[1:])
    journal.append_many([])
    assert drain_all(folder, store) == 7
    assert [store.get(r["prediction_id"]) for r in rows] == rows
    journal.close()


def test_segments_turn_over_and_go_away(folder, log):
    journal = Journal(folder, segment_bytes=2000)
    rows = [row() for _ in range(50)]
    for r in rows:
        journal.append_many([r])
    assert len(segments(folder)) > 5
    drain_all(folder, log, chunk=700)
    assert segments(folder) == ([journal.path] if journal.fd is not None else [])
    assert log.recent(50) == rows[::-1]
    journal.append_many([row()])
    journal.close()
    drain_all(folder, log)
    assert (segments(folder), log.count(), read_offsets(folder)) == ([], 51, {})


def test_a_line_longer_than_the_chunk_goes_whole(folder, log):
    journal = Journal(folder)
    journal.append_many([row() for _ in range(300)])
    journal.append_many([row()])
    assert drain_all(folder, log, chunk=1000) == 301
    journal.close()


def test_a_child_writes_to_its_own_segment(folder, log):
    journal = Journal(folder)
    journal.append_many([row()])

    def work():
        for _ in range(20):
            journal.append_many([row()])
        os._exit(0)

    children = [multiprocessing.get_context("fork").Process(target=work) for _ in range(2)]
    for c in children:
        c.start()
    journal.append_many([row()])
    for c in children:
        c.join(30)
    assert len(segments(folder)) == 3
    drain_all(folder, log)
    assert log.count() == 42 and segments(folder) == [journal.path]
    journal.close()


def test_threads_share_a_journal(folder, log):
    journal = Journal(folder, segment_bytes=3000)
    threads = [threading.Thread(target=lambda: [journal.append_many([row()]) for _ in range(100)]) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    journal.close()
    drain_all(folder, log)
    assert log.count() == 400


def test_only_one_drain_at_a_time(folder, log):
    journal = Journal(folder)
    journal.append_many([row()])
    first, second = Drain(folder, log), Drain(folder, log)
    assert first.step() == 1
    journal.append_many([row()])
    with pytest.raises(LogError, match="Otro proceso"):
        second.step()
    first.close()
    assert second.step() == 1
    second.close()
    journal.close()


def test_lost_or_spoilt_offsets_double_nothing(folder, log):
    journal = Journal(folder)
    journal.append_many([row() for _ in range(10)])
    drain_all(folder, log)
    for spoilt in ("", "{", "[]", "7", '{"a": {}}', json.dumps({journal.path.name: 0})):
        (folder / OFFSETS).write_text(spoilt)
        drain_all(folder, log)
    assert log.count() == 10 and not list(folder.glob("*.bad"))
    journal.close()


@pytest.mark.parametrize("garbage", [b"hola", b"\xff\xfe\x00", b"[[1, 2, 3]]", b'{"a": 1}', b"[null]", b"7", b'["prediction_id"]', b'[["' + b"x" * 5000])
def test_a_line_nobody_wrote_is_set_aside(folder, log, garbage):
    journal = Journal(folder)
    before, after = row(), row()
    journal.append_many([before])
    os.write(journal.fd, garbage + b"\n")
    journal.append_many([after])
    assert drain_all(folder, log) == 2
    assert log.recent() == [after, before]
    [bad] = folder.glob("*.bad")
    assert bad.read_bytes() == garbage + b"\n" and bad.name == f"{journal.path.name}.bad"
    journal.close()
    drain_all(folder, log)
    assert list(folder.glob("*.bad")) == [bad] and segments(folder) == []


def test_a_row_the_database_refuses_does_not_stop_the_others(folder, store):
    journal, rows = Journal(folder), [row() for _ in range(9)]
    rows[4]["kickoff"] = None
    journal.append_many(rows)
    drain_all(folder, store)
    assert store.count() == 8
    [bad] = folder.glob("*.bad")
    assert [r[0] for r in json.loads(bad.read_text())] == [rows[4]["prediction_id"]]
    journal.close()


def test_a_null_byte_reaches_sqlite_and_is_set_aside_by_postgres(folder, store):
    journal = Journal(folder)
    journal.append_many([row(), row(request_id="a\0b"), row()])
    drain_all(folder, store)
    assert store.count() + sum(len(json.loads(line)) for bad in folder.glob("*.bad") for line in bad.read_text().splitlines()) == 3
    assert store.count() >= 2
    journal.close()


def test_a_segment_of_another_version_is_understood(folder, log):
    folder.mkdir()
    old, new = row(), row()
    older, newer = COLUMNS[:-1], (*COLUMNS[::-1], "odds")
    (folder / "00000000000000000001-1-0.journal").write_text(json.dumps(older) + "\n" + json.dumps([[old[c] for c in older]]) + "\n")
    (folder / "00000000000000000002-1-0.journal").write_text(json.dumps(newer) + "\n" + json.dumps([[{**new, "odds": 2.5}[c] for c in newer]]) + "\n")
    assert drain_all(folder, log, chunk=400) == 2
    assert log.get(old["prediction_id"]) == {**old, "client": None} and log.get(new["prediction_id"]) == new
    assert segments(folder) == []


def test_a_torn_line_waits_for_a_living_writer_and_goes_with_a_dead_one(folder, log):
    journal = Journal(folder)
    journal.append_many([row()])
    os.write(journal.fd, b'[["a medias')
    drain_all(folder, log)
    assert segments(folder) == [journal.path], "su dueño vive: puede estar escribiéndola"
    os.close(journal.fd)
    journal.fd = None
    drain_all(folder, log)
    assert (segments(folder), log.count(), list(folder.glob("*.bad"))) == ([], 1, [])


def between(monkeypatch, wait: bool, what) -> None:
    "Hace algo, una vez, justo antes de que quien escribe (`wait`) o quien vacía coja el cerrojo de un tramo."
    real, todo = journal_module.take, [what]

    def wrapped(fd, wait_):
        if wait_ == wait and todo and os.readlink(f"/proc/self/fd/{fd}").endswith(".journal"):
            todo.pop()()
        return real(fd, wait_)

    monkeypatch.setattr(journal_module, "take", lambda fd, wait: wrapped(fd, wait))


def test_a_segment_being_born_is_not_taken_for_dead(folder, log, monkeypatch):
    "El que vacía lo ve vacío y suelto, y lo borra: quien escribe se da cuenta y empieza otro."
    if not Path("/proc/self/fd").exists():
        pytest.skip("hace falta /proc, que solo hay en Linux")
    journal, drain = Journal(folder), Drain(folder, log)
    folder.mkdir()
    between(monkeypatch, True, drain.step)
    one = row()
    journal.append_many([one])
    assert [p for p in folder.glob("*.journal")] == [journal.path]
    drain.step()
    assert log.recent() == [one]
    drain.close()
    journal.close()


def test_a_last_line_before_dying_is_not_thrown_away(folder, log, monkeypatch):
    "Quien escribe anota y muere entre que el que vacía mira y coge el cerrojo."
    if not Path("/proc/self/fd").exists():
        pytest.skip("hace falta /proc, que solo hay en Linux")
    journal, last = Journal(folder), row()
    journal.append_many([row()])
    drain = Drain(folder, log)
    drain.step()
    between(monkeypatch, False, lambda: (journal.append_many([last]), journal.close()))
    drain.step()
    drain.step()
    assert log.get(last["prediction_id"]) == last
    drain.step()
    assert segments(folder) == []
    drain.close()


def test_segments_come_and_go_while_another_drains(folder, log):
    stop, failures = threading.Event(), []

    def drain_forever():
        drain = Drain(folder, log)
        while not stop.is_set():
            try:
                drain.step()
            except Exception as e:
                failures.append(e)
                return
        drain.close()

    thread = threading.Thread(target=drain_forever)
    thread.start()
    for _ in range(300):
        journal = Journal(folder)
        journal.append_many([row()])
        journal.close()
    stop.set()
    thread.join()
    drain_all(folder, log)
    assert not failures and log.count() == 300 and segments(folder) == []


def test_fsync_policies_write_the_same(folder, log):
    for policy in ("never", "interval", "always"):
        journal = Journal(folder, fsync=policy)
        journal.append_many([row()])
        journal.close()
    drain_all(folder, log)
    assert log.count() == 3


def test_interval_syncs_living_segments_each_second(folder, log, monkeypatch):
    synced = []
    real = os.fdatasync
    monkeypatch.setattr(journal_module.os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_ino) or real(fd))
    journal, stop = Journal(folder), threading.Event()
    journal.append_many([row()])
    thread = threading.Thread(target=Drain(folder, log, fsync="interval").run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 30
    while not synced and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    thread.join()
    assert os.fstat(journal.fd).st_ino in synced
    journal.close()


# --- el disco -------------------------------------------------------------------------------------------------------

def test_a_size_limit_in_the_middle_of_a_batch_leaves_nothing_of_it(folder, log, tmp_path):
    code = """
import json, resource, sys
from futbol_mlops.journal import Journal, LogError
journal, rows = Journal(sys.argv[1]), json.loads(sys.stdin.read())
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
for i in range(0, len(rows), 5):
    try:
        journal.append_many(rows[i:i + 5])
        print(i, flush=True)
    except LogError as e:
        pass
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
journal.append_many(rows[:1] and [{**rows[0], "prediction_id": "despues"}])
print("despues", flush=True)
"""
    rows = [row() for _ in range(100)]
    done = subprocess.run([sys.executable, "-c", code, folder], input=json.dumps(rows), capture_output=True, text=True, check=True)
    accepted = [int(i) for i in done.stdout.split()[:-1]]
    assert 0 < len(accepted) < 20
    drain_all(folder, log)
    assert {r["prediction_id"] for r in log.recent(1000)} == {r["prediction_id"] for i in accepted for r in rows[i:i + 5]} | {"despues"}
    assert not list(folder.glob("*.bad"))


@pytest.fixture
def small_disk(tmp_path):
    "Un disco de un megabyte."
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("solo root puede montar un disco pequeño; el límite de tamaño ya prueba la escritura a medias")
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("este sistema no deja montar un disco pequeño")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_refuses_tells_and_recovers(small_disk, bundle, log):
    journal = Journal(small_disk / "journal", min_free=64 << 10)
    both = JournaledLog(journal, log)
    client = TestClient(create_api(bundle, both, Metrics(process=False)))
    assert client.get("/readyz").status_code == 200
    batch = {"fixtures": [FIXTURE] * 150}
    answered, refused = [], 0
    while refused < 5:
        response = client.post("/v1/predictions/batch", json=batch)
        if response.status_code == 200:
            answered += [p["prediction_id"] for p in response.json()["predictions"]]
        else:
            assert response.status_code == 503
            refused += 1
    assert answered and client.get("/readyz").status_code == 503 and client.get("/healthz").status_code == 200
    assert client.get(f"/v1/predictions/{answered[-1]}").status_code == 200, "se puede leer, aunque no se pueda escribir"
    drain_all(small_disk / "journal", log)
    assert {r["prediction_id"] for r in log.recent(10_000)} == set(answered), "lo contestado está; lo rechazado, no"
    journal.close()  # con el tramo pasado y suelto, vaciar hace sitio
    drain_all(small_disk / "journal", log)
    assert client.get("/readyz").status_code == 200 and client.post("/v1/predictions", json=FIXTURE).status_code == 200
    journal.close()


def test_a_drain_with_no_room_for_its_own_notes_still_makes_room(small_disk, log):
    journal = Journal(small_disk, segment_bytes=100_000)
    ids = []
    with pytest.raises(LogError, match="bitácora"):
        while True:
            r = row()
            journal.append_many([r])
            ids.append(r["prediction_id"])
    with open(small_disk / "filler", "wb", buffering=0) as filler, pytest.raises(OSError):
        while True:
            filler.write(b"x")
    drain_all(small_disk, log)
    assert log.count() == len(ids) and len(segments(small_disk)) <= 1
    journal.close()


def test_space_is_asked_for_before_it_runs_out(folder):
    journal = Journal(folder, min_free=1 << 60)
    with pytest.raises(LogError, match="MB libres"):
        journal.check()
    journal.append_many([row()])  # aún se puede: `check` avisa antes
    journal.close()


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "journal")
    for use in (journal.check, lambda: journal.append_many([row()])):
        with pytest.raises(LogError, match="bitácora"):
            use()


def test_a_deleted_folder_costs_no_row(folder, log):
    journal = Journal(folder)
    rows = [row() for _ in range(3)]
    journal.append_many(rows[:2])
    shutil.rmtree(folder)
    journal.append_many(rows[2:])
    drain_all(folder, log)
    assert log.recent() == rows[::-1]
    shutil.rmtree(folder)
    journal.check()
    drain_all(folder, log)
    assert log.count() == 3
    journal.close()


def test_a_store_deleted_under_the_drain_stops_it_once(folder, log, tmp_path):
    journal, drain = Journal(folder), Drain(folder, log)
    journal.append_many([row()])
    drain.step()
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"predictions.db{end}").unlink(missing_ok=True)
    last = row()
    journal.append_many([last])
    with pytest.raises(LogError, match="ha desaparecido"):
        drain.step()
    assert drain.step() == 1, "sigue en un fichero nuevo"
    reader = PredictionLog(tmp_path / "predictions.db")
    assert reader.recent() == [last]
    reader.close()
    drain.close()
    journal.close()


# --- leer -----------------------------------------------------------------------------------------------------------

def test_a_row_is_found_wherever_it_is(folder, store):
    mine, other = Journal(folder, segment_bytes=1500), Journal(folder)
    both = JournaledLog(mine, store)
    rows = []
    for i in range(30):
        rows.append(row(client=f"c{i % 3}"))
        (mine if i % 2 else other).append_many(rows[-1:])
        if i % 7 == 0:
            drain_all(folder, store, chunk=900)
        assert both.get(rows[-1]["prediction_id"]) == rows[-1]
    assert all(both.get(r["prediction_id"]) == r for r in rows)
    assert both.recent(30) == rows[::-1] and both.recent(4) == rows[:-5:-1] and both.recent(5, "c1") == rows[1::3][::-1][:5]
    for trick in ("stale", "SP1", "", '"', "r", "prediction_id", "[", rows[0]["prediction_id"][:-1]):
        assert both.get(trick) is None
    both.close()
    other.close()


def test_nobody_misses_a_row_that_is_on_its_way(folder, log, tmp_path):
    "Cuatro lectores preguntan por cada fila recién anotada mientras otro proceso las pasa y borra tramos."
    journal, missed, stop = Journal(folder, segment_bytes=4000), [], threading.Event()
    drain = threading.Thread(target=Drain(folder, log, chunk=2000).run, args=(stop, 0.001))
    drain.start()
    latest = [None]

    def read():
        own = PredictionLog(tmp_path / "predictions.db", timeout=10)
        both = JournaledLog(journal, own)
        while not stop.is_set():
            wanted = latest[0]
            if wanted and both.get(wanted) is None:
                missed.append(wanted)
            if wanted and both.recent(1)[0]["prediction_id"] < wanted:
                missed.append(f"recent {wanted}")
        own.close()

    readers = [threading.Thread(target=read) for _ in range(4)]
    for t in readers:
        t.start()
    for _ in range(400):
        r = row()
        journal.append_many([r])
        latest[0] = r["prediction_id"]
        time.sleep(0.001)
    stop.set()
    for t in [*readers, drain]:
        t.join()
    assert missed == []
    journal.close()
    drain_all(folder, log)
    assert log.count() == 400


def test_too_much_to_read_is_not_a_404(folder, log, monkeypatch):
    monkeypatch.setattr(journal_module, "MAX_TAIL", 1000)
    journal = Journal(folder)
    both = JournaledLog(journal, log)
    rows = [row() for _ in range(10)]
    for r in rows:
        journal.append_many([r])
    with pytest.raises(LogError, match="sin pasar"):
        both.get("nadie")
    drain_all(folder, log)
    assert both.get("nadie") is None and both.get(rows[0]["prediction_id"]) == rows[0]
    both.close()


def test_long_reads_are_few_at_a_time(folder, log, monkeypatch):
    "Con la base de datos parada, muchos preguntan: los que no caben lo saben al momento, y los permisos vuelven aunque la lectura falle o acabe pronto."
    monkeypatch.setattr(journal_module, "SMALL_TAIL", 1000)
    journal = Journal(folder)
    both, rows = JournaledLog(journal, log), [row() for _ in range(20)]
    journal.append_many(rows)
    for _ in range(5):
        assert both.get(rows[0]["prediction_id"]) == rows[0] and len(both.recent(5)) == 5
        with monkeypatch.context() as m, pytest.raises(LogError):
            m.setattr(journal_module, "whole_lines", lambda *_: (_ for _ in ()).throw(OSError("no se puede leer")))
            both.get("nadie")
    real, entered, go, answers = journal_module.columns_of, threading.Semaphore(0), threading.Event(), []

    def slow(path):
        entered.release()
        go.wait(30)
        return real(path)

    monkeypatch.setattr(journal_module, "columns_of", slow)
    readers = [threading.Thread(target=lambda: answers.append(both.get(rows[1]["prediction_id"]))) for _ in range(journal_module.LONG_READS)]
    for reader in readers:
        reader.start()
    assert all(entered.acquire(timeout=30) for _ in readers)
    for ask in (lambda: both.get(rows[1]["prediction_id"]), lambda: both.recent(3)):
        with pytest.raises(LogError, match="Repite"):
            ask()
    go.set()
    for reader in readers:
        reader.join(30)
    assert answers == [rows[1]] * len(readers) and both.get(rows[2]["prediction_id"]) == rows[2]
    both.close()


def test_the_backlog_is_what_is_left(folder, log):
    assert backlog(folder) == Backlog(0, 0.0)
    journal = Journal(folder)
    journal.check()
    assert backlog(folder).bytes > 0 and backlog(folder).seconds == 0
    journal.append_many([row(created_at="2020-01-01T00:00:00.000+00:00")])
    os.write(journal.fd, b"basura\n")
    journal.append_many([row(created_at="no es una fecha")])
    assert backlog(folder).seconds > 3e7 and backlog(folder).bytes == journal.path.stat().st_size
    drain_all(folder, log)
    assert backlog(folder) == Backlog(0, 0.0)
    journal.close()


# --- muertes y apagones ---------------------------------------------------------------------------------------------

WRITER = """
import json, os, random, sys, time
from futbol_mlops.journal import Journal
journal, one = Journal(sys.argv[1], segment_bytes=20_000), json.loads(sys.argv[2])
while True:
    rows = [{**one, "prediction_id": f"{time.time_ns()}-{os.getpid()}-{i}"} for i in range(random.choice((1, 1, 1, 40)))]
    journal.append_many(rows)
    os.write(1, "".join(r["prediction_id"] + "\\n" for r in rows).encode())
"""
DRAIN = """
import sys, threading
from futbol_mlops.journal import Drain, open_log
Drain(sys.argv[1], open_log(sys.argv[2]), chunk=5000).run(threading.Event(), pause=0.001)
"""


def start(code: str, *arguments, out) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=out, stderr=subprocess.PIPE)


def kill(process: subprocess.Popen) -> None:
    process.kill()
    assert process.wait(30) == -signal.SIGKILL, process.stderr.read().decode()
    process.stderr.close()


def grown(path: Path, beyond: int) -> None:
    "Espera a que un fichero crezca: así se mata a quien ya está trabajando."
    deadline = time.monotonic() + 60
    while path.stat().st_size <= beyond and time.monotonic() < deadline:
        time.sleep(0.005)
    assert path.stat().st_size > beyond


def answered(path: Path) -> set[str]:
    "Los identificadores que salieron enteros."
    return {line for line in path.read_text().split("\n")[:-1]}


def test_every_id_that_got_out_is_stored_though_writers_and_drain_are_killed(folder, url, tmp_path):
    "Dos procesos anotan y otro pasa; los tres mueren a destiempo, siete veces."
    chance, out = random.Random(7), tmp_path / "ids"
    out.touch()
    with open(out, "ab") as ids:
        drain = start(DRAIN, folder, url, out=None)
        for round_ in range(7):
            before = out.stat().st_size
            writers = [start(WRITER, folder, json.dumps(row()), out=ids) for _ in range(2)]
            grown(out, before)
            time.sleep(chance.uniform(0, 0.3))
            if round_ % 2:
                kill(drain)
            for w in writers:
                kill(w)
                time.sleep(chance.uniform(0, 0.05))
            if round_ % 2:
                drain = start(DRAIN, folder, url, out=None)
        kill(drain)
    store = open_log(url)
    drain_all(folder, store)
    stored = [i for (i,) in store.query("SELECT prediction_id FROM predictions")]
    expected = answered(out)
    assert len(expected) > 100 and expected <= set(stored), f"faltan {len(expected - set(stored))} de {len(expected)}"
    assert len(stored) == len(set(stored)) and segments(folder) == [] and not list(folder.glob("*.bad"))
    store.close()


def test_a_database_that_is_down_costs_no_row(folder, postgres):
    log = open_log(postgres.new_database())
    journal, stop, said = Journal(folder, segment_bytes=20_000), threading.Event(), []

    class Diary:
        def __getattr__(self, level):
            return lambda event, **facts: said.append((level, event))

    drain = threading.Thread(target=Drain(folder, log, logger=Diary()).run, args=(stop,))
    drain.start()
    ids = set()

    def append(seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            rows = [row() for _ in range(3)]
            journal.append_many(rows)
            ids.update(r["prediction_id"] for r in rows)
            time.sleep(0.002)

    both = JournaledLog(journal, open_log(log.url))
    append(0.5)
    postgres.stop()
    try:
        append(4)
        both.check()
        with pytest.raises(LogError):
            both.get("nadie")
        assert backlog(folder).seconds > 1
    finally:
        assert postgres.start()
    append(0.5)
    deadline = time.monotonic() + 60
    while backlog(folder).bytes and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    drain.join()
    stored = [i for (i,) in log.query("SELECT prediction_id FROM predictions")]
    assert len(ids) > 300 and sorted(stored) == sorted(ids), "ni falta ninguna ni hay dos iguales"
    assert ("warning", "drain_waiting") in said and ("info", "drain_recovered") in said
    both.close()
    log.close()


class Buggy(PredictionLog):
    "Falla como nadie espera mientras se lo manden."
    broken = True

    def add_many(self, values):
        if self.broken:
            raise ZeroDivisionError("nadie lo previó")
        return super().add_many(values)


def test_a_drain_goes_on_after_what_nobody_foresaw(folder, tmp_path):
    said, stop, journal, log = [], threading.Event(), Journal(folder), Buggy(tmp_path / "buggy.db")

    class Diary:
        def __getattr__(self, level):
            return lambda event, **facts: said.append((level, event, facts.get("exc_info")))

    rows = [row() for _ in range(20)]
    for r in rows:
        journal.append_many([r])
    drain = threading.Thread(target=Drain(folder, log, fsync="interval", logger=Diary()).run, args=(stop, 0.01, 0.05))
    drain.start()
    deadline = time.monotonic() + 30
    while not said and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    assert drain.is_alive() and log.count() == 0 and backlog(folder).bytes > 0
    assert [(level, event) for level, event, _ in said] == [("error", "drain_waiting")], "una vez, no en cada intento"
    assert isinstance(said[0][2], ZeroDivisionError) and said[0][2].__traceback__
    log.broken = False
    while log.count() < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    drain.join(30)
    assert log.count() == 20 and said[-1][:2] == ("info", "drain_recovered")
    journal.close()
    log.close()


def test_a_drain_told_to_stop_while_it_fails_says_what_it_leaves(folder, tmp_path):
    said, stop, journal, log = [], threading.Event(), Journal(folder), Buggy(tmp_path / "buggy.db")

    class Diary:
        def __getattr__(self, level):
            return lambda event, **facts: said.append((level, event, facts))

    journal.append_many([row()])
    stop.set()
    drain = Drain(folder, log, logger=Diary())
    drain.run(stop, patience=0.2)
    [(level, event, facts)] = said
    assert (level, event) == ("error", "drain_left") and facts["bytes"] > 0 and "ZeroDivisionError" in facts["error"]
    log.broken = False
    assert drain_all(folder, log) == 1, "sigue en su tramo, y la carpeta está suelta"
    journal.close()
    log.close()


def test_a_segment_nobody_can_move_does_not_stop_the_others(folder, log, monkeypatch):
    first, second = Journal(folder), Journal(folder)
    first.append_many([row()])
    second.append_many([row(), row()])
    real = journal_module.columns_of
    monkeypatch.setattr(journal_module, "columns_of", lambda path: 1 / 0 if path == first.path else real(path))
    drain = Drain(folder, log)
    with pytest.raises(ZeroDivisionError):
        drain.step()
    assert log.count() == 2
    monkeypatch.undo()
    assert drain.step() == 1 and log.count() == 3
    for thing in (drain, first, second):
        thing.close()


def test_a_drain_told_to_stop_leaves_nothing_behind(folder, log):
    journal, stop = Journal(folder), threading.Event()
    journal.append_many([row() for _ in range(50)])
    stop.set()
    Drain(folder, log, chunk=1000).run(stop)
    assert log.count() == 50
    Drain(folder, log).step()  # y suelta la carpeta
    journal.close()


def test_it_waits_for_a_folder_that_is_not_there_yet(folder, log):
    drain = Drain(folder, log)
    assert drain.step() == 0 and not folder.exists()
    journal = Journal(folder)
    journal.append_many([row()])
    assert drain.step() == 1
    drain.close()
    journal.close()


def test_a_lock_goes_with_its_process(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", "import sys\nfrom futbol_mlops.journal import take\nf = open(sys.argv[1], 'w')\ntake(f.fileno(), True)\nprint('ya', flush=True)\nsys.stdin.read()", tmp_path / "lock"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"ya\n"
    with open(tmp_path / "lock") as file:
        assert not take(file.fileno(), wait=False)
        holder.kill()
        holder.communicate()
        assert take(file.fileno(), wait=False)
