"El registro de predicciones: lo que guarda, y lo que no pierde cuando algo falla."
import sqlite3
import threading

import pytest
from fastapi.testclient import TestClient

from futbol_mlops.bundle import Bundle
from futbol_mlops.features import History
from futbol_mlops.journal import COLUMNS, LogError, PredictionLog
from futbol_mlops.observability import Metrics
from futbol_mlops.serving import create_api, new_id

FIXTURE = {"league": "SP1", "home_team": "Betis", "away_team": "Sevilla", "kickoff": "2024-09-21"}


@pytest.fixture(scope="module")
def bundle():
    import datetime as dt

    history = History()
    history.add("SP1", "Betis", "Sevilla", dt.date(2024, 9, 1), 2, 0)
    history.add("SP1", "Sevilla", "Getafe", dt.date(2024, 9, 14), 1, 1)
    return Bundle({"name": "futbol-1x2", "version": "0.1.0"}, {"kind": "base_rate", "probabilities": [0.45, 0.25, 0.3]}, history)


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
