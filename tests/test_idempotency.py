"Repetir una petición con su `Idempotency-Key` da la misma predicción y una sola fila: entre procesos, tras un kill -9, con otro modelo, sin base de datos."
import json
import threading
import time
import uuid

import pytest
from fastapi.testclient import TestClient
from processes import FIXTURE, JSON, Server

from futbol_mlops.app import create_app
from futbol_mlops.bundle import load_bundle, write_bundle
from futbol_mlops.config import Settings
from futbol_mlops.data import load_matches
from futbol_mlops.features import build_features
from futbol_mlops.journal import Drain, Journal, JournaledLog, PredictionLog, open_log
from futbol_mlops.observability import Metrics
from futbol_mlops.security import create_key
from futbol_mlops.serving import MAX_FIXTURES, PROBLEM_TYPES, RETRY_HOURS, create_api, new_id

pytestmark = pytest.mark.xdist_group("processes")

OTHER = {**FIXTURE, "away_team": "Chelsea"}
BATCH = [FIXTURE, OTHER, {**FIXTURE, "kickoff": "2026-08-29"}]


@pytest.fixture(scope="module")
def history():
    return build_features(load_matches())[1]


@pytest.fixture
def bundle(history, tmp_path):
    return new_bundle(history, tmp_path / "bundle", "1.0.0", [0.45, 0.25, 0.3])


def new_bundle(history, folder, version, probabilities):
    return write_bundle(folder, {"kind": "base_rate", "probabilities": probabilities}, history, {"version": version, "data": {}, "metrics": {}})


@pytest.fixture
def journaled(tmp_path):
    "El registro de un servidor: bitácora y base de datos."
    log = JournaledLog(Journal(tmp_path / "journal"), PredictionLog(tmp_path / "predictions.db"))
    yield log
    log.close()


def drain(log, folder):
    "Pasa la bitácora a la base de datos."
    draining = Drain(folder / "journal", PredictionLog(folder / "predictions.db"))
    while draining.step():
        pass
    draining.close()


@pytest.fixture(params=[True, False], ids=["carril", "FastAPI"])
def client(request, bundle, journaled):
    return TestClient(create_api(load_bundle(bundle), journaled, Metrics(process=False), lanes=request.param), raise_server_exceptions=False)


def ask(client, body=FIXTURE, key=None, path="/v1/predictions"):
    return client.post(path, json={"fixtures": body} if isinstance(body, list) else body, headers={} if key is None else {"Idempotency-Key": key})


def refused(response, says):
    assert (response.status_code, response.json()["type"]) == (422, PROBLEM_TYPES + "idempotency-key"), response.text
    assert says in response.json()["detail"]


def at(seconds):
    "Una clave creada hace esos segundos."
    text = f"{time.time_ns() // 1_000_000 - round(1000 * seconds):012x}"
    return f"{text[:8]}-{text[8:]}{new_id()[13:]}"


# --- lo que se promete ------------------------------------------------------------------------------------------------

def test_a_retry_gets_the_same_answer_and_makes_one_row(client, journaled, tmp_path):
    key = new_id()
    first = ask(client, key=key).json()
    assert ask(client, key=key).json() == first, "desde la bitácora"
    drain(journaled, tmp_path)
    assert ask(client, key=key).json() == first, "desde la base de datos"
    drain(journaled, tmp_path)
    assert journaled.log.count() == 1 and journaled.get(first["prediction_id"])["home_win"] == first["home_win"]
    assert uuid.UUID(first["prediction_id"]).version == 7 and first["prediction_id"][:13] == key[:13]


def test_without_a_key_nothing_changes(client):
    assert ask(client).json()["prediction_id"] != ask(client).json()["prediction_id"]


def test_the_key_may_be_quoted_or_in_capitals(client):
    key = new_id()
    assert len({ask(client, key=k).json()["prediction_id"] for k in (key, key.upper(), f'"{key}"')}) == 1


def test_the_same_names_written_another_way_are_the_same_request(client):
    key = new_id()
    assert ask(client, {**FIXTURE, "home_team": "arsenal"}, key).json() == ask(client, FIXTURE, key).json()


@pytest.mark.parametrize("change", [{"away_team": "Chelsea"}, {"kickoff": "2026-05-23"}, {"league": "SP1", "home_team": "Betis", "away_team": "Sevilla", "kickoff": "2016-05-02"}])
def test_a_key_is_for_one_request(client, journaled, change, tmp_path):
    key = new_id()
    first = ask(client, key=key).json()
    refused(ask(client, {**FIXTURE, **change}, key), "crea otra clave")
    drain(journaled, tmp_path)
    refused(ask(client, {**FIXTURE, **change}, key), "crea otra clave")
    assert ask(client, key=key).json() == first and journaled.log.count() == 1


def test_a_batch_is_repeated_whole(client, journaled, tmp_path):
    key, path = new_id(), "/v1/predictions/batch"
    first = ask(client, BATCH, key, path).json()
    ids = [p["prediction_id"] for p in first["predictions"]]
    assert ids == sorted(set(ids)) and len(ids) == 3
    for _ in range(2):
        assert ask(client, BATCH, key, path).json() == first
        for wrong in (BATCH[:2], [*BATCH, FIXTURE], BATCH[::-1], BATCH[:1], [FIXTURE, OTHER, OTHER]):
            refused(ask(client, wrong, key, path), "petición distinta")
        drain(journaled, tmp_path)
    assert journaled.log.count() == 3


def test_a_thousand_fixtures_are_repeated_too(client, journaled):
    key, many = new_id(), [FIXTURE] * MAX_FIXTURES
    first = ask(client, many, key, "/v1/predictions/batch").json()
    assert len({p["prediction_id"] for p in first["predictions"]}) == MAX_FIXTURES
    assert ask(client, many, key, "/v1/predictions/batch").json() == first


@pytest.mark.parametrize("key", ["", "pedido-7", "01979f7e-5f00-4a3b-9c1d-2f1e0b7c8d9a", "01979f7e5f007a3b9c1d2f1e0b7c8d9a", "x" * 5000, "01979f7e-5f00-7a3b-9c1d-2f1e0b7c8d9ñ".encode("latin-1")])
def test_a_key_that_is_not_a_key_is_refused(client, journaled, key):
    refused(ask(client, key=key), "debe ser un UUID versión 7")


def test_a_key_lasts_a_day(client):
    assert ask(client, key=at(3600 * RETRY_HOURS - 60)).status_code == 200 and ask(client, key=at(-60)).status_code == 200
    for seconds in (3600 * RETRY_HOURS + 60, -3600, time.time()):
        refused(ask(client, key=at(seconds)), "vale 24 horas")


def test_a_refused_request_leaves_the_key_free(client):
    key = new_id()
    assert ask(client, {**FIXTURE, "home_team": "Nadie"}, key).json()["type"] == PROBLEM_TYPES + "unpredictable-fixture"
    assert ask(client, key=key).status_code == 200


def test_keyed_and_plain_answers_keep_their_order(client):
    ids = [ask(client, key=new_id() if i % 2 else None).json()["prediction_id"] for i in range(6) if not time.sleep(0.002)]
    assert [p["prediction_id"] for p in client.get("/v1/predictions?limit=6").json()["predictions"]] == ids[::-1]


def test_retries_are_counted_once(client):
    key = new_id()
    for _ in range(3):
        ask(client, key=key)
    counted = [line for line in client.get("/metrics").text.splitlines() if line.startswith("futbol_predictions_total{")]
    assert sum(float(line.rsplit(" ", 1)[1]) for line in counted) == 1


def test_another_client_may_use_the_same_key(bundle, tmp_path):
    settings, key = Settings(home=tmp_path, bundle=bundle), new_id()
    tokens = [create_key(settings.keys_path, name, ["predict"])[1] for name in ("uno", "dos")]
    with TestClient(create_app(settings)) as client:
        answers = [client.post("/v1/predictions", json=body, headers={"Authorization": f"Bearer {token}", "Idempotency-Key": key}) for token, body in zip(tokens, (FIXTURE, OTHER), strict=True)]
    assert [a.status_code for a in answers] == [200, 200]
    assert answers[0].json()["prediction_id"] != answers[1].json()["prediction_id"]


# --- procesos de verdad -----------------------------------------------------------------------------------------------

def keyed(server, key, body=FIXTURE, path="/v1/predictions"):
    return server.post(body=body, path=path, headers={**JSON, "Idempotency-Key": key})


def rows(server, key):
    log = open_log(f"sqlite:///{(server.home / 'predictions.db').resolve()}")
    try:
        return log.query("SELECT prediction_id FROM predictions WHERE prediction_id LIKE ?", (key[:13] + "%",))
    finally:
        log.close()


def settled(server, key, count):
    "Espera a que la bitácora pase a la base de datos."
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and len(rows(server, key)) < count:
        time.sleep(0.05)
    time.sleep(0.5)
    return len(rows(server, key))


def test_many_retries_at_once_on_two_processes_make_one_row(bundle, tmp_path):
    with Server(tmp_path / "state", bundle, workers=2) as server:
        key, answers = new_id(), []
        threads = [threading.Thread(target=lambda: answers.append(keyed(server, key))) for _ in range(16)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(answers) == 16 and {status for status, _ in answers} == {200}
        assert len({json.dumps(answer, sort_keys=True) for _, answer in answers}) == 1
        assert settled(server, key, 1) == 1


def test_a_retry_after_kill_9_finds_what_was_answered(bundle, history, tmp_path):
    "Y aunque entretanto se sirva otro modelo: lo contestado, contestado está."
    key, many = at(10), new_id()
    with Server(tmp_path / "state", bundle, workers=2) as server:
        first, batch = keyed(server, key), keyed(server, many, {"fixtures": BATCH}, "/v1/predictions/batch")
        server.kill_all()
    new_bundle(history, bundle, "2.0.0", [0.2, 0.3, 0.5])
    with Server(tmp_path / "state", bundle, workers=2) as server:
        assert server.post()[1]["model_version"] == "2.0.0"
        for _ in range(6):
            assert keyed(server, key) == first and first[1]["model_version"] == "1.0.0"
            assert keyed(server, many, {"fixtures": BATCH}, "/v1/predictions/batch") == batch
        assert (settled(server, key, 1), settled(server, many, 3)) == (1, 3)


def test_without_database_a_retry_is_answered_and_makes_one_row(bundle, tmp_path, postgres):
    url = postgres.new_database()
    with TestClient(create_app(Settings(home=tmp_path, bundle=bundle, log_url=url))) as client:
        key = new_id()
        first = ask(client, key=key).json()
        store = open_log(url)
        deadline = time.monotonic() + 20
        while store.count() < 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        postgres.stop()
        try:
            again = [ask(client, key=key) for _ in range(2)]
        finally:
            assert postgres.start()
        assert [(a.status_code, a.json()) for a in again] == [(200, first)] * 2
        last = ask(client).json()["prediction_id"]
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if store.get(last):
                    break
            except OSError:
                pass
            time.sleep(0.1)
        assert store.count() == 2, "la repetida no añade nada"
        store.close()
