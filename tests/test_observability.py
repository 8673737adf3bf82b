"Métricas, diario y trazas: lo que cuentan, lo que escriben, a dónde llega y cómo fallan."
import contextlib
import errno
import io
import json
import logging
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest
import structlog
from conftest import missing
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import JSON, SERVE, Server
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from futbol_mlops import observability
from futbol_mlops.bundle import write_bundle
from futbol_mlops.data import load_matches
from futbol_mlops.features import build_features
from futbol_mlops.observability import AccessLog, Metrics, Tracing, configure_logging, trace_id_of
from futbol_mlops.security import create_key
from futbol_mlops.serving import Predictor, Service, create_api

FIXTURE = {"league": "SP1", "home_team": "Betis", "away_team": "Sevilla", "kickoff": "2024-09-21"}


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


def test_reloads_keep_each_version_apart():
    metrics = Metrics(process=False)
    for version, requests in (("1.0.0", 3), ("1.1.0", 2)):
        metrics.serving("futbol-1x2", version)
        for _ in range(requests):
            metrics.answered("/v1/predictions", "POST", 200, 0.003)
            metrics.answered("/v1/teams", "GET", 200, 0.003)
    found = samples(metrics)
    assert {dict(key[1:]).get("model_version"): n for key, n in found.items() if key[0] == "futbol_http_requests_total"} == {"1.0.0": 3, "1.1.0": 2, None: 5}
    assert {dict(key[1:]).get("model_version"): n for key, n in found.items() if key[0] == "futbol_http_request_duration_seconds_count"} == {"1.0.0": 3, "1.1.0": 2, None: 5}


def test_refusals_are_counted_by_reason():
    metrics = Metrics(process=False)
    for status in (200, 401, 401, 403, 429, 429, 429, 422, 503):
        metrics.answered("/v1/predictions", "POST", status, 0.001)
    assert {dict(key[1:])["reason"]: n for key, n in samples(metrics).items() if key[0] == "futbol_rejected_total"} == {"unauthenticated": 2, "forbidden": 1, "rate_limited": 3}


def test_what_is_computed_when_asked():
    import datetime as dt

    metrics, lag = Metrics(), [(100, 1.5)]
    metrics.serving("futbol-1x2", "1.0.0", {"SP1": dt.datetime.now(dt.UTC).date() - dt.timedelta(days=9)})
    metrics.watch_log(lambda: lag[0])
    metrics.model_performance([{"model_version": "1.0.0", "n": 10, "rps": 0.2, "log_loss": None, "accuracy": 0.5, "since": dt.date(2024, 9, 1)}])
    found = samples(metrics)
    assert found[("futbol_data_age_days", ("league", "SP1"))] == 9
    assert (found[("futbol_log_waiting_bytes",)], found[("futbol_log_oldest_seconds",)]) == (100, 1.5)
    assert found[("futbol_model_rps", ("model_version", "1.0.0"))] == 0.2 and found[("futbol_model_judged_predictions", ("model_version", "1.0.0"))] == 10
    assert not any(name == "futbol_model_log_loss" for name, *_ in found)
    assert any(name == "futbol_build_info" for name, *_ in found)
    if sys.platform == "linux":
        assert found[("process_resident_memory_bytes", ("role", "worker"), ("seat", "0"))] > 1_000_000
    lag[0] = (0, 0.0)
    assert samples(metrics)[("futbol_log_waiting_bytes",)] == 0


def test_both_formats_are_valid():
    metrics = Metrics()
    metrics.serving("futbol-1x2", "1.0.0")
    metrics.answered("/v1/predictions", "POST", 200, 0.003)
    metrics.predicted([{"model_version": "1.0.0", "outcome": "home_win", "home_win": 0.5, "features_as_of": None, "kickoff": "2024-09-21"}])
    body, content_type = metrics.render("application/openmetrics-text; version=1.0.0")
    families = {f.name: f for f in openmetrics_families(body.decode())}
    assert families["futbol_http_requests"].type == "counter" and families["futbol_home_win_probability"].type == "histogram"


@pytest.mark.parametrize("seconds, le", [(0.001, "0.001"), (0.0010001, "0.0025"), (0.1, "0.1"), (2.5, "2.5"), (60, "+Inf"), (0, "0.001")])
def test_a_boundary_belongs_to_its_bucket(seconds, le):
    metrics = Metrics(process=False)
    metrics.answered("/v1/teams", "GET", 200, seconds)
    counts = [(dict(key[1:])["le"], n) for key, n in samples(metrics).items() if key[0] == "futbol_http_request_duration_seconds_bucket"]
    assert next(bound for bound, n in counts if n == 1) == le and counts[-1] == ("+Inf", 1)


def test_a_full_file_costs_new_series_and_nothing_else(bundle, log, monkeypatch, caplog):
    monkeypatch.setattr(observability, "CAPACITY", 8192)
    metrics = Metrics(process=False)
    client = TestClient(create_api(bundle, log, metrics))
    assert client.get("/healthz").status_code == 200
    for i in range(200):
        metrics.answered(f"/route/{i}", "GET", 200, 0.001)
    assert [client.get("/healthz").status_code for _ in range(4)] == [200] * 4
    found = samples(metrics)
    assert found[("futbol_http_requests_total", ("method", "GET"), ("route", "/healthz"), ("status", "200"))] == 5
    assert len([r for r in caplog.records if "No caben más series" in r.message]) == 2  # una por fichero, no una por serie


# --- métricas de varios procesos ------------------------------------------------------------------------------------

FORK = multiprocessing.get_context("fork") if "fork" in multiprocessing.get_all_start_methods() else None
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
forks = pytest.mark.skipif(FORK is None, reason="sin fork no hay varios procesos")


class Child:
    "Un proceso nacido de este que cuenta lo que se le pide."

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.pipe, theirs = FORK.Pipe()
        self.process = FORK.Process(target=self.run, args=(theirs,), daemon=True)
        self.process.start()

    def run(self, pipe) -> None:
        while True:
            command, args = pipe.recv()
            if command == "count":
                for _ in range(args[0]):
                    self.metrics.answered("/v1/predictions", "POST", 200, 0.003)
                    self.metrics.predicted([{"model_version": "1", "outcome": "draw", "home_win": 0.35, "features_as_of": "2024-09-14", "kickoff": "2024-09-21"}])
                pipe.send(None)
            elif command == "hammer":
                pipe.send(None)
                while True:
                    self.metrics.answered("/v1/predictions", "POST", 200, 0.003)
            elif command == "seen":
                pipe.send(samples(self.metrics))
            else:
                getattr(self.metrics, command)(*args)
                pipe.send(None)

    def do(self, command: str, *args):
        self.pipe.send((command, args))
        assert self.pipe.poll(60), "el proceso no contesta"
        return self.pipe.recv()

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()


REQUESTS = ("futbol_http_requests_total", ("method", "POST"), ("route", "/v1/predictions"), ("status", "200"))
COUNTED = {"futbol_http_request_duration_seconds_count": 1, "futbol_predictions_total": 1, "futbol_home_win_probability_count": 1, "futbol_feature_age_days_count": 1,
           "futbol_home_win_probability_sum": 0.35, "futbol_feature_age_days_sum": 7}


@pytest.fixture
def children(tmp_path):
    "Hijos de un proceso que ya tenía las métricas hechas."
    metrics, born = Metrics(tmp_path / "metrics", process=False), []

    def fork() -> Child:
        born.append(Child(metrics))
        return born[-1]

    yield fork
    for child in born:
        if child.process.is_alive():
            child.kill()


@forks
def test_counters_and_histograms_add_up_whoever_answers(children):
    family = [children() for _ in range(3)]
    for child, n in zip(family, (5, 70, 900), strict=True):
        child.do("count", n)
    for child in family:
        seen = child.do("seen")
        assert seen[REQUESTS] == 975
        for name, each in COUNTED.items():
            assert next(v for key, v in seen.items() if key[0] == name) == pytest.approx(975 * each), name
        assert seen[("futbol_processes", ("role", "worker"))] == 3


@forks
def test_killed_and_replaced_workers_leave_counters_monotonic(children, tmp_path):
    witness, total = children(), 0
    witness.do("open")
    for n in (10, 20, 30, 40, 50):
        worker = children()
        worker.do("count", n)
        total += n
        worker.kill()
        seen = witness.do("seen")
        assert seen[REQUESTS] == total and seen[("futbol_processes", ("role", "worker"))] == 1
    assert len(list((tmp_path / "metrics").glob("*.db"))) == 4, "cada relevo ocupa el puesto del muerto: dos puestos, dos ficheros cada uno"


@forks
def test_what_a_dead_worker_said_of_itself_vanishes(children):
    old, new, third = children(), children(), children()
    for child, version in ((old, "1.0.0"), (new, "1.1.0"), (third, "1.1.0")):
        child.do("serving", "futbol-1x2", version)
        child.do("open")

    def versions(seen: dict) -> dict:
        return {dict(key[1:])["version"]: n for key, n in seen.items() if key[0] == "futbol_model_info"}

    assert versions(new.do("seen")) == {"1.0.0": 1, "1.1.0": 2}
    old.kill()
    assert versions(new.do("seen")) == {"1.1.0": 2}


@forks
def test_a_parent_that_already_counted_is_not_counted_twice(tmp_path):
    metrics = Metrics(tmp_path, process=False)
    metrics.answered("/v1/predictions", "POST", 200, 0.003)
    child = Child(metrics)
    child.do("count", 7)
    metrics.answered("/v1/predictions", "POST", 200, 0.003)
    assert child.do("seen")[REQUESTS] == samples(metrics)[REQUESTS] == 9
    assert samples(metrics)[("futbol_processes", ("role", "worker"))] == 2, "cada uno en su puesto: contar a la vez en el mismo perdería sumas"
    child.kill()
    assert samples(metrics)[("futbol_processes", ("role", "worker"))] == 1


@forks
def test_reading_while_counting_never_goes_back(children):
    reader, writers = children(), [children() for _ in range(2)]
    for writer in writers:
        writer.do("hammer")
    last = 0
    for i in range(60):
        seen = reader.do("seen")
        now = seen.get(REQUESTS, 0)
        assert now >= last
        counts = [n for key, n in seen.items() if key[0] == "futbol_http_request_duration_seconds_bucket"]
        assert counts == sorted(counts)
        last = now
        if i % 10 == 9:  # uno muere a medias y otro nace
            writers.pop(0).kill()
            writers.append(children())
            writers[-1].do("hammer")
    assert last > 1000


@forks
def test_the_helper_is_seen_but_is_not_a_worker(children):
    worker, helper = children(), children()
    worker.do("open")
    helper.do("open", "drain")
    helper.do("model_performance", [{"model_version": "1", "n": 3, "rps": 0.21, "log_loss": 1.0, "accuracy": 0.4}])
    seen = worker.do("seen")
    assert (seen[("futbol_processes", ("role", "worker"))], seen[("futbol_processes", ("role", "drain"))]) == (1, 1)
    assert seen[("futbol_model_rps", ("model_version", "1"))] == 0.21
    helper.kill()
    seen = worker.do("seen")
    assert seen[("futbol_model_rps", ("model_version", "1"))] == 0.21, "el acierto no es del proceso que lo calculó"
    assert ("futbol_processes", ("role", "drain")) not in seen


def python(code: str, *args, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, timeout=120, **kwargs)


@forks
def test_two_scrapes_at_once_do_not_take_each_other_for_a_living_process(tmp_path):
    seat = observability.Seat(tmp_path, "worker")
    seat.release()
    looking = observability.locked(tmp_path / "0.lock", shared=True)  # otra lectura de /metrics, en este mismo instante
    assert observability.taken_seats(tmp_path) == []
    os.close(looking)
    seat = observability.Seat(tmp_path, "worker")
    assert [s["seat"] for s in observability.taken_seats(tmp_path)] == [0] and seat.number == 0


@forks
def test_a_child_that_ends_does_not_take_the_folder_of_its_parent():
    code = """
import os, sys
from futbol_mlops.observability import Metrics
metrics = Metrics(process=False)
metrics.answered("/a", "GET", 200, 0.1)
if os.fork() == 0:
    metrics.answered("/a", "GET", 200, 0.1)
    sys.exit(0)
os.wait()
print(metrics.folder.exists(), [x for x in metrics.render()[0].decode().splitlines() if x.startswith("futbol_http_requests_total")][0].split()[1], metrics.folder)
"""
    done = python(code)
    alive, total, folder = done.stdout.split()
    assert (alive, total) == ("True", "2.0"), done.stderr
    assert not Path(folder).exists(), "quien la creó la borra al acabar"


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="sin reserva de disco")
def test_without_room_on_disk_it_says_so_at_the_start():
    "Y no más tarde, con un SIGBUS a mitad de una petición."
    code = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from futbol_mlops.observability import Metrics
metrics = Metrics()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    metrics.open()
except OSError as e:
    print(e.errno)
"""
    assert int(python(code).stdout) in (errno.EFBIG, errno.ENOSPC)


# --- diario ---------------------------------------------------------------------------------------------------------

LINE = {"request_id": "r", "client": "local", "method": "POST", "path": "/v1/predictions", "route": "/v1/predictions", "status": 200, "ms": 0.4, "trace_id": None}


def written(stream: io.StringIO, diary: AccessLog) -> list[dict]:
    diary.flush()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_libraries_write_json_too(logger):
    _, stream = logger
    logging.getLogger("uvicorn.error").info("arrancado en %s", 8000)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"]) == ("arrancado en 8000", "info") and line["time"].endswith("Z")


def test_a_line_is_that_of_structlog(logger):
    slow, stream = logger
    slow.info("request", **LINE)
    cheap = io.StringIO()
    diary = AccessLog(cheap)
    diary.request(**LINE)
    expected, [found] = json.loads(stream.getvalue()), written(cheap, diary)
    assert list(found) == list(expected)
    assert {**found, "time": ""} == {**expected, "time": ""}
    assert len(found["time"]) == len(expected["time"]) and found["time"] >= expected["time"]


@settings(max_examples=300, deadline=None)
@given(path=st.text(st.characters(), max_size=60), client=st.none() | st.text(max_size=20))
def test_any_text_is_one_line_and_comes_back(path, client):
    stream = io.StringIO()
    diary = AccessLog(stream)
    diary.request(**{**LINE, "path": path, "client": client})
    [line] = written(stream, diary)
    assert (line["path"], line["client"], line["status"]) == (path, client, 200)


def test_a_long_path_is_cut():
    stream = io.StringIO()
    diary = AccessLog(stream)
    diary.request(**{**LINE, "path": "/é" * 30_000})
    [line] = written(stream, diary)
    assert line["path"] == ("/é" * 125) + "…" and line["status"] == 200 and len(stream.getvalue()) <= 4096


def test_an_error_is_one_line_with_its_traceback(bundle, log):
    stream = io.StringIO()
    diary = AccessLog(stream)
    client = TestClient(create_api(bundle, log, Metrics(process=False), access=diary))
    broken = Predictor(bundle)
    broken.predict = lambda *_, **__: 1 / 0
    client.app.state.service = Service(broken, log, Metrics(process=False))
    response = client.post("/v1/predictions", json=FIXTURE)
    [line] = written(stream, diary)
    assert (line["event"], line["level"], line["status"]) == ("request_failed", "error", 500)
    assert "ZeroDivisionError" in line["exception"] and line["request_id"] == response.headers["x-request-id"]
    assert "ZeroDivisionError" not in response.text


def test_nobody_can_forge_a_line(bundle, log):
    stream = io.StringIO()
    diary = AccessLog(stream)
    client = TestClient(create_api(bundle, log, Metrics(process=False), access=diary))
    client.get('/nada%0A{"event": "request", "status": 200}%E2%80%A8{}', headers={"x-request-id": 'a","status":200,"b":"'})
    [line] = written(stream, diary)
    assert line["status"] == 404 and "\u2028" in line["path"]


def test_a_broken_pipe_costs_no_answer(bundle, log):
    reader, writer = os.pipe()
    os.close(reader)
    diary = AccessLog(os.fdopen(writer, "w"))
    client = TestClient(create_api(bundle, log, Metrics(process=False), access=diary))
    assert [client.post("/v1/predictions", json=FIXTURE).status_code for _ in range(3)] == [200] * 3
    diary.flush()
    assert log.count() == 3 and diary.dropped == 3


def test_a_pipe_nobody_reads_costs_no_answer_and_is_told_later():
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w")
    diary = AccessLog(stream, every=0.01, limit=500)

    def serve() -> None:
        for _ in range(5000):
            diary.request(**LINE)

    requests = threading.Thread(target=serve, daemon=True)
    requests.start()
    requests.join(60)
    assert not requests.is_alive(), "anotar se quedó esperando a la tubería"
    found: list[dict] = []

    def read() -> None:
        with os.fdopen(reader) as lines:
            found.extend(json.loads(line) for line in lines)

    late = threading.Thread(target=read, daemon=True)
    late.start()
    diary.flush(patience=60)
    diary.request(**LINE)
    while diary.lines or diary.dropped:
        diary.flush(patience=60)
    stream.close()
    late.join(60)
    lost = sum(line.get("lines", 0) for line in found)
    assert lost > 0 and sum(line["event"] == "request" for line in found) + lost == 5001


MANY_WRITERS = """
import os, sys
from futbol_mlops.observability import AccessLog
diary = AccessLog(every=0.01)
for child in range(4):
    if os.fork() == 0:
        for i in range(3000):
            diary.request(request_id=f"{child}-{i}", path="/x" * (i % 200), status=200)
        diary.flush(patience=60)
        os._exit(0)
for _ in range(4):
    os.wait()
"""


@forks
def test_several_processes_share_a_pipe_without_mixing_lines():
    writer = subprocess.Popen([sys.executable, "-c", MANY_WRITERS], stdout=subprocess.PIPE)
    found = set()
    for i, line in enumerate(writer.stdout):
        found.add(json.loads(line)["request_id"])
        if i % 400 == 0:
            time.sleep(0.02)  # un lector lento: la tubería se llena y las escrituras esperan
    assert writer.wait(60) == 0
    assert found == {f"{child}-{i}" for child in range(4) for i in range(3000)}


@forks
def test_pending_lines_are_the_parents_alone():
    code = """
import os, sys
from futbol_mlops.observability import AccessLog
diary = AccessLog(every=60)
diary.request(request_id="padre")
if os.fork() == 0:
    diary.request(request_id="hijo")
    sys.exit(0)
os.wait()
"""
    assert sorted(json.loads(line)["request_id"] for line in python(code).stdout.splitlines()) == ["hijo", "padre"]


def test_what_a_kill_loses_is_the_wait_and_never_an_error():
    code = """
import sys, time
from futbol_mlops.observability import AccessLog
diary = AccessLog(every=3600)
diary.request(request_id="antes")
diary.error("request_failed", exc_info=ValueError("roto"), request_id="error")
sys.stdin.readline()
diary.request(request_id="perdida")
print("listo", file=sys.stderr, flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    text = b""
    while text.count(b"\n") < 2 and select.select([process.stdout], [], [], 30)[0]:
        text += os.read(process.stdout.fileno(), 65536)
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["request_id"] for line in lines] == ["antes", "error"] and "ValueError: roto" in lines[1]["exception"]
    process.stdin.write(b"\n")
    process.stdin.flush()
    process.stderr.readline()
    process.kill()
    assert process.communicate()[0] == b""


def test_a_write_cut_short_does_not_spoil_the_next_line(tmp_path):
    code = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from futbol_mlops.observability import AccessLog
diary = AccessLog(open(sys.argv[1], "a"), every=60)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for i in range(20):
    diary.request(request_id=str(i))
diary.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
diary.request(request_id="después")
diary.flush()
"""
    done = python(code, tmp_path / "diary.log")
    lines = (tmp_path / "diary.log").read_text().splitlines()
    broken = [line for line in lines if not line.endswith("}")]
    good = [json.loads(line) for line in lines if line.endswith("}")]
    assert len(broken) == 1 and good[-1]["request_id"] == "después" and good[-2] | {"time": ""} == {"lines": 20, "event": "lines_dropped", "level": "warning", "time": ""}, done.stderr


# --- una salida que nadie lee ------------------------------------------------------------------------------------------

STUCK = """
import logging, os, sys, time
from futbol_mlops.observability import configure_logging, flush_logs
logger, began = configure_logging(), time.monotonic()
for i in range(20_000):
    logger.info("goal", minute=i)
    logging.getLogger("uvicorn.error").warning("tarjeta %s", i)
for i in range(20):
    logger.error("penalty")
    logging.getLogger("uvicorn.error").error("penalti")
print("sigo", file=sys.stderr, flush=True)
if sys.argv[1] == "fork" and os.fork() == 0:  # el hijo hereda el atasco, no lo pendiente
    for i in range(5000):
        logger.info("child")
    logger.error("child_last")
    print("el hijo también", file=sys.stderr, flush=True)
    os._exit(0)
if sys.argv[1] == "fork":
    os.wait()
"""


@forks
@pytest.mark.parametrize("how", ["alone", "fork"])
def test_logging_to_a_pipe_nobody_reads_stops_nobody_not_even_at_exit(how):
    process = subprocess.Popen([sys.executable, "-c", STUCK, how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.wait(60) == 0, "apuntar, o acabar, se quedó esperando a la tubería"
    finally:
        process.kill()
    text, told = process.communicate()
    assert told.split("\n")[:-1] == ["sigo"] + ["el hijo también"] * (how == "fork")
    assert {json.loads(line)["event"] for line in text.splitlines()[:100]} <= {"goal", *(f"tarjeta {i}" for i in range(20_000))}


def test_lines_lost_are_told_when_somebody_reads_again():
    reader, end = os.pipe()
    writer = observability.LineWriter(os.fdopen(end, "w"), limit=50)
    for _ in range(20_000):
        writer.say(b'{"event": "goal"}\n')
    found: list[dict] = []
    late = threading.Thread(target=lambda: found.extend(json.loads(line) for line in os.fdopen(reader)), daemon=True)
    late.start()
    said = 20_000
    while writer.lines or writer.dropped:
        writer.say(b'{"event": "last"}\n', patience=30)
        said += 1
    writer.stream.close()
    late.join(30)
    lost = sum(line.get("lines", 0) for line in found)
    assert lost == writer.refused > 0 and sum(line["event"] != "lines_dropped" for line in found) + lost == said


@forks
@pytest.mark.parametrize("end", ["os._exit(1)", "sys.exit(1)", "raise ValueError('roto')", "os.kill(os.getpid(), 9)"])
def test_an_error_is_read_whatever_comes_after(end):
    "De cada proceso, el suyo: el padre ya tiene un hilo cuando nace el hijo."
    code = f"""
import os, sys
from futbol_mlops.observability import configure_logging
logger = configure_logging()
logger.info("serving")
if os.fork() == 0:
    logger.error("worker_failed", exc_info=ValueError("roto"))
    {end}
os.wait()
"""
    lines = [json.loads(line) for line in python(code).stdout.splitlines()]
    assert sorted(line["event"] for line in lines) == ["serving", "worker_failed"]
    assert "ValueError: roto" in next(line for line in lines if line["event"] == "worker_failed")["exception"]


def test_what_is_logged_on_the_way_out_is_read_too():
    code = """
import atexit
from futbol_mlops.observability import configure_logging
logger = configure_logging()
atexit.register(lambda: logger.info("bye"))
"""
    assert [json.loads(line)["event"] for line in python(code).stdout.splitlines()] == ["bye"]


class Silent(Server):
    "Un servidor cuya salida se llena nada más arrancar y que nadie lee."

    def __init__(self, home: Path, bundle: Path):
        self.home, self.lines = home, []
        self.env = {**os.environ, "FUTBOL_HOME": str(home), "FUTBOL_BUNDLE": str(bundle), "FUTBOL_HOST": "127.0.0.1", "FUTBOL_WORKERS": "2"}
        self.process = subprocess.Popen([sys.executable, "-c", SERVE], env=self.env, stdout=subprocess.PIPE, text=True, start_new_session=True)
        while '"serving"' not in (line := self.process.stdout.readline()):
            assert line, "no arrancó"
        self.port = json.loads(line)["port"]
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True)
        again = os.open(f"/proc/self/fd/{self.process.stdout.fileno()}", os.O_WRONLY | os.O_NONBLOCK)  # el otro lado de la misma tubería
        with contextlib.suppress(BlockingIOError):
            while os.write(again, b"x" * 4095 + b"\n"):
                pass
        os.close(again)
        self.wait_ready()

    def kill_all(self):
        if not self.reader.ident:
            self.reader.start()
        super().kill_all()


def eventually(what, why: str, timeout: float = 60):
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(psutil.Error):
            if found := what():
                return found
        assert time.monotonic() < deadline, why
        time.sleep(0.05)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="la tubería se llena por /proc")
@pytest.mark.xdist_group("processes")
def test_a_server_whose_output_nobody_reads_answers_replaces_its_dead_and_stops(tmp_path):
    "El fichero de claves, roto, que es un error del diario en plena petición; y los dos trabajadores, muertos."
    history = build_features(load_matches())[1]
    bundle = write_bundle(tmp_path / "bundle", {"kind": "base_rate", "probabilities": [0.45, 0.25, 0.3]}, history, {"version": "1.0.0", "data": {}, "metrics": {}})
    keys = tmp_path / "state" / "keys.json"
    keys.parent.mkdir()
    headers = {**JSON, "authorization": f"Bearer {create_key(keys, 'la revista', ['predict'])[1]}"}
    good = keys.read_text()
    with Silent(tmp_path / "state", bundle) as server:
        old = set(server.workers())
        assert len(old) == 2
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        now = eventually(lambda: len(found := set(server.workers()) - old) == 2 and found, "no los repone")
        server.wait_ready()
        for text in ("{roto", good, "{más roto", good):
            keys.write_text(text)
            time.sleep(1.2)  # las claves se miran cada segundo
            assert [server.post(headers=headers)[0] for _ in range(20)] == [200] * 20
        assert set(server.workers()) == now, "alguno se atascó y lo repusieron"
        server.reader.start()  # alguien vuelve a leer
        eventually(lambda: [line for line in server.lines if '"worker_died"' in line][1:], "lo que esperaba no salió")
        assert server.stop() == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="la tubería se llena por /proc")
@pytest.mark.xdist_group("processes")
def test_a_server_whose_output_nobody_reads_stops_when_told(tmp_path):
    history = build_features(load_matches())[1]
    bundle = write_bundle(tmp_path / "bundle", {"kind": "base_rate", "probabilities": [0.45, 0.25, 0.3]}, history, {"version": "1.0.0", "data": {}, "metrics": {}})
    with Silent(tmp_path / "state", bundle) as server:
        assert server.post()[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


# --- trazas ---------------------------------------------------------------------------------------------------------

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STEPS = ["authenticate", "validate", "features", "model", "log", "respond"]


def steps_from(begin: int) -> list[tuple[str, int, int]]:
    return [(name, begin + i * 1000, begin + i * 1000 + 900) for i, name in enumerate(STEPS)]


class Receiver:
    "Un receptor de OTLP que guarda lo que le llega."

    def __init__(self) -> None:
        spans = self.spans = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

                sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                spans.extend(s for r in sent.resource_spans for scope in r.scope_spans for s in scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver():
    found = Receiver()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.mark.parametrize("value, expected", [
    (PARENT, "4bf92f3577b34da6a3ce929d0e0e4736"),
    (PARENT[:-2] + b"00", "4bf92f3577b34da6a3ce929d0e0e4736"),
    (b"01" + PARENT[2:] + b"-extra", "4bf92f3577b34da6a3ce929d0e0e4736"),  # una versión futura puede traer más
    (PARENT + b"-extra", None), (PARENT.upper(), None), (b"ff" + PARENT[2:], None), (b"", None), (b"\xff" * 55, None), (PARENT + b"\n", None),
    (b"00-" + b"0" * 32 + PARENT[35:], None), (PARENT[:36] + b"0" * 16 + PARENT[52:], None)])
def test_traceparent_follows_the_standard(value, expected):
    assert trace_id_of([(b"host", b"x"), (b"traceparent", value)]) == expected


def test_importing_is_light():
    "FastAPI trae la API de OpenTelemetry; lo que pesa (SDK, exportador, protobuf) solo llega si se traza."
    done = python("import sys, futbol_mlops.observability; print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'opentelemetry.exporter', 'google.protobuf', 'requests'))])")
    assert done.stdout.strip() == "[]"


def test_the_steps_of_a_real_request_arrive(bundle, log, receiver):
    tracing, stream = Tracing(receiver.url, "1.0.0"), io.StringIO()
    diary = AccessLog(stream)
    client = TestClient(create_api(bundle, log, Metrics(process=False), access=diary, tracing=tracing))
    assert client.post("/v1/predictions", json=FIXTURE, headers={"traceparent": PARENT.decode()}).status_code == 200
    tracing.shutdown()
    [line] = written(stream, diary)
    roots = [s for s in receiver.spans if s.name == "POST /v1/predictions"]
    children = [s for s in receiver.spans if s not in roots]
    assert len(roots) == 1 and roots[0].parent_span_id.hex() == "00f067aa0ba902b7"
    assert {"features", "model", "log"} <= {s.name for s in children} and {s.parent_span_id for s in children} == {roots[0].span_id}
    assert {s.trace_id.hex() for s in receiver.spans} == {line["trace_id"]} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    for s in children:
        assert roots[0].start_time_unix_nano <= s.start_time_unix_nano <= s.end_time_unix_nano <= roots[0].end_time_unix_nano


@pytest.mark.parametrize("sample, flags, traced", [(1.0, b"01", True), (1.0, b"00", False), (0.0, b"01", False), (1.0, None, True), (0.0, None, False)])
def test_who_calls_may_refuse_a_trace_but_not_demand_one(receiver, sample, flags, traced):
    tracing = Tracing(receiver.url, "1.0.0", sample=sample)
    handle = tracing.start([(b"traceparent", PARENT[:-2] + flags)] if flags else [])
    assert len(handle.trace_id) == 32 and (flags is None or handle.trace_id == trace_id_of([(b"traceparent", PARENT)]))
    tracing.finish(handle, "/v1/teams", "GET", 200, time.time_ns())
    tracing.shutdown()
    assert len(receiver.spans) == traced


@forks
def test_each_process_sends_its_own(receiver):
    tracing = Tracing(receiver.url, "1.0.0")

    def trace(route: str) -> None:
        tracing.finish(tracing.start([]), route, "GET", 200, time.time_ns())

    trace("/padre")
    for i in range(2):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                trace(f"/hijo/{i}")
                tracing.shutdown(10)
            os._exit(0)
        os.waitpid(child, 0)
    tracing.shutdown(10)
    assert sorted(s.name for s in receiver.spans) == ["GET /hijo/0", "GET /hijo/1", "GET /padre"]


@pytest.mark.parametrize("answers", [False, True], ids=["nadie escucha", "acepta y calla"])
def test_a_dead_receiver_costs_no_request(bundle, log, answers, caplog):
    "Ni una respuesta, ni memoria sin límite, ni una parada que no acaba."
    with socket.create_server(("127.0.0.1", 0)) as dead:
        url = f"http://127.0.0.1:{dead.getsockname()[1]}"
        if not answers:
            dead.close()
        tracing = Tracing(url, "1.0.0", queue=1000)
        client = TestClient(create_api(bundle, log, Metrics(process=False), tracing=tracing))
        assert [client.post("/v1/predictions", json=FIXTURE).status_code for _ in range(300)] == [200] * 300
        assert tracing.queued - tracing.outbox.gone < 1000 + 20, "con la cola llena no se hacen más tramos"
        stopping = threading.Thread(target=tracing.shutdown, args=(0.5,), daemon=True)
        stopping.start()
        stopping.join(30)
        assert not stopping.is_alive()
    assert log.count() == 300
    assert len(caplog.records) < 30, "los avisos de un receptor caído no crecen con las peticiones"


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory):
    "El servidor de MLflow de verdad, con SQLite."
    try:
        import mlflow.server.otel_api  # noqa: F401
    except ImportError:
        missing("MLflow no recibe trazas", "instala mlflow 3.6 o posterior")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with open(folder / "server.log", "w") as output:
        process = subprocess.Popen([sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--default-artifact-root", str(folder / "artifacts"),
                                    "--host", "127.0.0.1", "--port", str(port), "--workers", "1"], env=env, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_for(port, process, folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(port: int, process: subprocess.Popen, output: Path) -> None:
    import httpx

    for _ in range(360):
        assert process.poll() is None, output.read_text()[-2000:]
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200:
                return
        time.sleep(0.25)
    pytest.fail(f"El servidor de MLflow no arranca: {output.read_text()[-2000:]}")


def test_mlflow_receives_one_span_per_step(mlflow_server):
    "De ida por OTLP y de vuelta con el cliente de MLflow."
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_server)
    experiment = client.create_experiment("trazas")
    tracing, begin = Tracing(mlflow_server, "1.0.0", headers={"x-mlflow-experiment-id": experiment}), time.time_ns()
    handle = tracing.start([], begin)
    tracing.finish(handle, "/v1/predictions", "POST", 200, begin + 10_000, steps_from(begin), {"model.version": "1.0.0"})
    failed = tracing.start([(b"traceparent", PARENT)], begin)
    tracing.finish(failed, "/v1/predictions", "POST", 500, begin + 10_000)
    tracing.shutdown(30)
    spans = {s.name: s for s in client.get_trace(f"tr-{handle.trace_id}").data.spans}
    root = spans.pop("POST /v1/predictions")
    assert root.parent_id is None and (root.start_time_ns, root.end_time_ns) == (begin, begin + 10_000)
    assert (root.get_attribute("http.route"), root.get_attribute("http.response.status_code"), root.get_attribute("model.version")) == ("/v1/predictions", 200, "1.0.0")
    assert {name: (s.start_time_ns, s.end_time_ns) for name, s in spans.items()} == {name: (b, e) for name, b, e in steps_from(begin)}
    assert {s.parent_id for s in spans.values()} == {root.span_id}
    [continued] = client.get_trace("tr-4bf92f3577b34da6a3ce929d0e0e4736").data.spans
    assert continued.parent_id == "00f067aa0ba902b7" and continued.status.status_code.value == "ERROR"
