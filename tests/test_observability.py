"Métricas y diario: lo que cuentan, lo que escriben y cómo fallan."
import io
import json
import logging

import pytest
import structlog
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from futbol_mlops.bundle import Bundle
from futbol_mlops.features import History
from futbol_mlops.observability import Metrics, configure_logging
from futbol_mlops.serving import Predictor, Service, create_api

FIXTURE = {"league": "SP1", "home_team": "Betis", "away_team": "Sevilla", "kickoff": "2024-09-21"}


@pytest.fixture(scope="module")
def bundle():
    import datetime as dt

    history = History()
    history.add("SP1", "Betis", "Sevilla", dt.date(2024, 9, 1), 2, 0)
    history.add("SP1", "Sevilla", "Getafe", dt.date(2024, 9, 14), 1, 1)
    return Bundle({"name": "futbol-1x2", "version": "0.1.0"}, {"kind": "base_rate", "probabilities": [0.45, 0.25, 0.3]}, history)


@pytest.fixture
def logger():
    "El diario escribe en memoria y, al acabar, `logging` queda como estaba."
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    yield configure_logging(stream), stream
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def samples(metrics: Metrics) -> dict:
    return {(s.name, *sorted(s.labels.items())): s.value for f in text_string_to_metric_families(metrics.render()[0].decode()) for s in f.samples}


# --- métricas -------------------------------------------------------------------------------------------------------

def test_two_servers_in_a_process_do_not_mix():
    one, other = Metrics(process=False), Metrics(process=False)
    one.answered("/v1/predictions", "POST", 200, 0.003)
    assert samples(one)[("futbol_http_requests_total", ("method", "POST"), ("route", "/v1/predictions"), ("status", "200"))] == 1
    assert not any(name == "futbol_http_requests_total" for name, *_ in samples(other))


def test_strange_paths_and_methods_do_not_multiply_series(bundle, log):
    metrics = Metrics(process=False)
    client = TestClient(create_api(bundle, log, metrics))
    for i in range(30):
        client.get(f"/nada/{i}")
        client.get(f"/v1/predictions/{i}")
        client.request(f"METODO{i}", "/v1/model")
    series = {key for key in samples(metrics) if key[0] == "futbol_http_requests_total"}
    assert len(series) == 3
    assert {dict(key[1:])["route"] for key in series} == {"unmatched", "/v1/predictions/{prediction_id}", "/v1/model"}


def test_predictions_and_the_age_of_their_data_are_counted(bundle, log):
    metrics = Metrics(process=False)
    client = TestClient(create_api(bundle, log, metrics))
    client.post("/v1/predictions/batch", json={"fixtures": [FIXTURE, {**FIXTURE, "kickoff": "2024-09-01"}]})
    found = samples(metrics)
    assert found[("futbol_predictions_total", ("model_version", "0.1.0"), ("outcome", "home_win"))] == 2
    assert (found[("futbol_feature_age_days_count",)], found[("futbol_feature_age_days_sum",)]) == (1, 7)  # el día 1 aún no se sabía nada


def test_only_the_model_in_use_is_shown():
    metrics = Metrics(process=False)
    metrics.serving("futbol-1x2", "1.0.0")
    metrics.serving("futbol-1x2", "1.1.0")
    assert [key for key in samples(metrics) if key[0] == "futbol_model_info"] == [("futbol_model_info", ("name", "futbol-1x2"), ("version", "1.1.0"))]


def test_prometheus_can_ask_for_either_format(bundle, log):
    client = TestClient(create_api(bundle, log, Metrics()))
    assert client.get("/metrics").headers["content-type"].startswith("text/plain")
    answer = client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text") and answer.text.endswith("# EOF\n")


# --- diario ---------------------------------------------------------------------------------------------------------

def test_libraries_write_json_too(logger):
    _, stream = logger
    logging.getLogger("uvicorn.error").info("arrancado en %s", 8000)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"]) == ("arrancado en 8000", "info") and line["time"].endswith("Z")


def test_an_error_is_one_line_with_its_traceback(bundle, log, logger):
    diary, stream = logger
    client = TestClient(create_api(bundle, log, Metrics(process=False), logger=diary))
    broken = Predictor(bundle)
    broken.predict = lambda *_, **__: 1 / 0
    client.app.state.service = Service(broken, log, Metrics(process=False))
    response = client.post("/v1/predictions", json=FIXTURE)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["status"]) == ("request_failed", "error", 500)
    assert "ZeroDivisionError" in line["exception"] and line["request_id"] == response.headers["x-request-id"]
    assert "ZeroDivisionError" not in response.text


def test_nobody_can_forge_a_line(bundle, log, logger):
    diary, stream = logger
    client = TestClient(create_api(bundle, log, Metrics(process=False), logger=diary))
    client.get('/nada%0A{"event": "request", "status": 200}', headers={"x-request-id": 'a","status":200,"b":"'})
    assert len(stream.getvalue().splitlines()) == 1
    assert json.loads(stream.getvalue())["status"] == 404


def test_a_broken_diary_costs_no_answer(bundle, log):
    class Broken:
        def info(self, *_, **__):
            raise BrokenPipeError

    client = TestClient(create_api(bundle, log, Metrics(process=False), logger=Broken()))
    assert client.post("/v1/predictions", json=FIXTURE).status_code == 200
    assert log.count() == 1
