"Varios procesos de verdad: muertes, recargas, paradas y qué queda guardado."
import contextlib
import http.client
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest
from processes import FIXTURE, JSON, SERVE, Load, Server, scrape

from futbol_mlops.bundle import write_bundle
from futbol_mlops.data import load_matches
from futbol_mlops.features import build_features

pytestmark = pytest.mark.xdist_group("processes")


@pytest.fixture(scope="module")
def history():
    return build_features(load_matches())[1]


@pytest.fixture
def bundle(history, tmp_path):
    return write_bundle(tmp_path / "bundle", {"kind": "base_rate", "probabilities": [0.45, 0.25, 0.3]}, history, {"version": "1.0.0", "data": {}, "metrics": {}})


def new_bundle(history, folder, version, **more):
    write_bundle(folder, {"kind": "base_rate", "probabilities": [0.5, 0.25, 0.25]} | more, history, {"version": version, "data": {}, "metrics": {}})


def gone(pids, timeout=15) -> bool:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in pids):
            return True
        time.sleep(0.05)
    return False


# --- nada contestado se pierde ----------------------------------------------------------------------------------------

def test_no_answered_prediction_is_lost_to_kill_9_under_load(bundle, tmp_path):
    "Seis veces, en un momento cualquiera: a un proceso, al ayudante, al supervisor o a todos a la vez."
    home, ids, rng = tmp_path / "state", set(), random.Random(5)
    for victim in ("everyone", "worker", "drain", "everyone", "supervisor", "worker and drain"):
        with Server(home, bundle, workers=2) as server, Load(server, 6, tolerate_cuts=True) as load:
            load.wait(100)
            time.sleep(rng.uniform(0, 0.3))
            workers = server.workers()
            helpers = [c.pid for c in server.children() if c.pid not in workers]
            if victim == "everyone":
                server.kill_all()
            elif victim == "supervisor":
                server.process.kill()
                assert gone([*workers, *helpers]), "sin supervisor, los demás se van solos"
            else:
                for pid in (workers[:1] if "worker" in victim else []) + (helpers if "drain" in victim else []):
                    os.kill(pid, signal.SIGKILL)
                load.wait(100)  # lo reponen y se sigue
                load.done.set()
                server.kill_all()
            assert not load.bad
        ids.update(load.ids)
    with Server(home, bundle) as server:  # al arrancar se repasa lo que quedó
        assert server.stop() == 0
        assert len(ids) >= 600 and server.stored(ids) == ids


@pytest.mark.parametrize("workers", [1, 2])
def test_a_graceful_stop_finishes_what_it_started(bundle, tmp_path, workers):
    with Server(tmp_path / "state", bundle, workers) as server, Load(server, 8, tolerate_cuts=True) as load:
        load.wait(300)
        assert server.stop() == 0
    assert not load.bad and server.stored(load.ids) == set(load.ids)
    assert not list((tmp_path / "state" / "journal").glob("*.journal")), "parar bien deja la bitácora vacía"


def test_a_request_in_flight_is_answered_when_it_is_told_to_stop(bundle, tmp_path):
    body = json.dumps(FIXTURE).encode()
    with Server(tmp_path / "state", bundle) as server, socket.create_connection(("127.0.0.1", server.port)) as half:
        half.sendall(b"POST /v1/predictions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body[:20])
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", server.port), timeout=1)
        half.sendall(body[20:])
        answer = half.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200") and b"connection: close" in answer.lower()
        assert server.process.wait(15) == 0
        found = re.search(rb'"prediction_id":"([^"]+)"', answer)[1].decode()
        assert server.stored([found])


def test_ctrl_c_is_a_normal_end(bundle, tmp_path):
    "En una terminal, Ctrl-C les llega a todos a la vez."
    with Server(tmp_path / "state", bundle, workers=2) as server, Load(server, 4, tolerate_cuts=True) as load:
        load.wait(100)
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(15) == 0
    assert not load.bad and server.stored(load.ids) == set(load.ids)
    assert not list((tmp_path / "state" / "journal").glob("*.journal"))


def test_postgres_down_costs_neither_requests_nor_rows(bundle, tmp_path, postgres):
    url = postgres.new_database()
    with Server(tmp_path / "state", bundle, workers=2, FUTBOL_LOG_URL=url) as server:
        with Load(server, 4) as load:
            load.wait(100)
            postgres.stop()
            down = time.monotonic()
            load.wait(100)
            assert server.get("/readyz")[0] == 200, "sin base de datos se sigue prediciendo"
            assert server.get("/v1/predictions?limit=5")[0] == 503
            assert server.post(path="/v1/results", body={**FIXTURE, "home_goals": 2, "away_goals": 1})[0] == 503
            time.sleep(max(0, 10 - (time.monotonic() - down)))
            load.wait(100)
            waiting = scrape(server)["futbol_log_waiting_bytes{}"]
            assert waiting > 0
            postgres.start()
            load.wait(100)
        assert not load.bad
        assert server.stop() == 0
    assert server.stored(load.ids) == set(load.ids)
    from futbol_mlops.journal import open_log

    log = open_log(url)
    assert log.query("SELECT count(*), count(DISTINCT prediction_id) FROM predictions") == [(len(load.ids), len(load.ids))]
    log.close()


def test_a_full_disk_refuses_and_then_recovers(bundle, tmp_path):
    "El núcleo deja de admitir bytes (RLIMIT_FSIZE): es el mismo rechazo que un disco lleno, y también a media escritura."
    home = tmp_path / "state"
    with Server(home, bundle) as server:
        ids = [server.post()[1]["prediction_id"] for _ in range(20)]
        [worker] = server.workers()
        biggest = max(p.stat().st_size for p in (home / "journal").glob("*.journal"))
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (biggest + 1500, resource.RLIM_INFINITY))
        statuses = [server.post() for _ in range(40)]
        ids += [answer["prediction_id"] for status, answer in statuses if status == 200]
        assert [s for s, _ in statuses].count(503) > 20 and {s for s, _ in statuses} == {200, 503}
        biggest = max(p.stat().st_size for p in (home / "journal").glob("*.journal"))
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (biggest, resource.RLIM_INFINITY))
        assert server.get("/readyz")[0] == 503 and server.get("/healthz")[0] == 200
        assert scrape(server)["futbol_log_errors_total{}"] >= 20
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        server.wait_ready()
        ids.append(server.post()[1]["prediction_id"])
        assert server.stop() == 0
        assert server.stored(ids) == set(ids)


# --- muertes ----------------------------------------------------------------------------------------------------------

def test_a_dead_worker_is_replaced_and_the_count_goes_on(bundle, tmp_path):
    with Server(tmp_path / "state", bundle, workers=2) as server:
        for _ in range(40):
            assert server.post()[0] == 200
        name = 'futbol_predictions_total{"model_version": "1.0.0", "outcome": "home_win"}'
        assert scrape(server)[name] == 40
        before = server.workers()
        os.kill(before[0], signal.SIGKILL)
        deadline = time.monotonic() + 15
        while before[0] in server.workers() or len(server.workers()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for _ in range(20):
            assert server.post()[0] == 200
        found = scrape(server)
        assert (found[name], found['futbol_processes{"role": "worker"}'], found['futbol_processes{"role": "drain"}']) == (60, 2, 1)
        [death] = server.events("worker_died")
        assert (death["pid"], death["code"]) == (before[0], -signal.SIGKILL)


def test_a_stuck_worker_is_replaced(bundle, tmp_path):
    with Server(tmp_path / "state", bundle, workers=2) as server:
        stuck = server.workers()[0]
        os.kill(stuck, signal.SIGSTOP)
        deadline = time.monotonic() + 40
        while stuck in server.workers() or len(server.workers()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert server.events("worker_stuck")[0]["pid"] == stuck
        assert all(server.post()[0] == 200 for _ in range(20))


def test_it_gives_up_if_the_workers_cannot_live(bundle, tmp_path):
    broken = SERVE.replace("sys.exit(", "import futbol_mlops.app as a; a.Fleet.work = lambda *_: 1 / 0; sys.exit(")
    env = {**os.environ, "FUTBOL_HOME": str(tmp_path / "state"), "FUTBOL_BUNDLE": str(bundle)}
    run = subprocess.run([sys.executable, "-c", broken], env=env, capture_output=True, text=True, timeout=40)
    events = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 1 and events[-1]["event"] == "giving_up"
    assert "ZeroDivisionError" in next(e for e in events if e["event"] == "worker_failed")["exception"]


# --- recargas ---------------------------------------------------------------------------------------------------------

def test_a_reload_under_load_drops_nothing_and_changes_everyone(bundle, history, tmp_path):
    with Server(tmp_path / "state", bundle, workers=2) as server:
        with Load(server, 8) as load:
            for i in range(1, 4):
                load.wait(150)
                new_bundle(history, bundle, f"1.{i}.0")
                status, answer = server.post(path="/v1/admin/reload", body=None, headers={})
                assert (status, answer) == (200, {"model_version": f"1.{i}.0", "previous": f"1.{i - 1}.0", "workers": 2})
                asked = len(load.versions)
                assert {server.get("/v1/model")[1]["version"] for _ in range(20)} == {f"1.{i}.0"}, "al volver, ya la sirven todos"
                load.wait(100)
                assert set(load.versions[asked + 16:]) == {f"1.{i}.0"}
        assert not load.bad and sorted(set(load.versions)) == ["1.0.0", "1.1.0", "1.2.0", "1.3.0"]
        os.kill(max(server.workers()), signal.SIGKILL)
        server.wait_ready()
        assert {server.get("/v1/model")[1]["version"] for _ in range(20)} == {"1.3.0"}, "quien nace después nace con el nuevo"


@pytest.mark.parametrize("damage", ["garbage", "missing", "old format", "unreadable", "no version", "no name", "two probabilities"])
def test_a_bad_bundle_changes_nobody(bundle, history, tmp_path, damage):
    with Server(tmp_path / "state", bundle, workers=2) as server:
        if damage == "unreadable":
            (bundle / "model.json").unlink()
            (bundle / "model.json").mkdir()
        elif damage in ("no version", "no name"):
            manifest = json.loads((bundle / "manifest.json").read_text())
            manifest.pop(damage.split()[1])
            (bundle / "manifest.json").write_text(json.dumps(manifest))
        elif damage == "two probabilities":
            new_bundle(history, bundle, "1.1.0", probabilities=[0.5, 0.5])
        elif damage == "garbage":
            (bundle / "model.json").write_text("{}")
        elif damage == "missing":
            shutil.rmtree(bundle)
        else:
            manifest = json.loads((bundle / "manifest.json").read_text())
            (bundle / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
        status, answer = server.post(path="/v1/admin/reload", body=None, headers={})
        assert (status, answer["type"].split(":")[-1]) == (409, "bundle-refused") and "Se sigue sirviendo el modelo anterior" in answer["detail"]
        assert {server.get("/v1/model")[1]["version"] for _ in range(20)} == {"1.0.0"}
        assert server.post()[0] == 200
        new_bundle(history, bundle, "1.1.0")
        assert server.post(path="/v1/admin/reload", body=None, headers={})[0] == 200


def test_sighup_reloads_everyone(bundle, history, tmp_path):
    with Server(tmp_path / "state", bundle, workers=2) as server:
        new_bundle(history, bundle, "2.0.0")
        server.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 15
        while {server.get("/v1/model")[1]["version"] for _ in range(20)} != {"2.0.0"}:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_stop_that_arrives_during_a_reload_is_not_lost(bundle, history, tmp_path):
    with Server(tmp_path / "state", bundle, workers=2) as server:
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.05)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(15) == 0


def test_a_bundle_that_changes_again_during_the_reload_leaves_one_version(bundle, history, tmp_path):
    "Quien la pide puede recibir una u otra; lo que no puede es quedar cada proceso con la suya."
    with Server(tmp_path / "state", bundle, workers=2) as server:
        for i in range(1, 6):
            new_bundle(history, bundle, f"1.{i}.0")
            server.process.send_signal(signal.SIGHUP)
            time.sleep(0.05 * i)
            new_bundle(history, bundle, f"2.{i}.0")
            time.sleep(1.5)
            server.wait_ready()
            assert len({server.get("/v1/model")[1]["version"] for _ in range(30)}) == 1
        assert server.post(path="/v1/admin/reload", body=None, headers={})[1]["model_version"] == "2.5.0"


def test_the_lame_duck_says_it_is_leaving_and_goes_on(bundle, tmp_path):
    with Server(tmp_path / "state", bundle, workers=2, FUTBOL_LAME_DUCK="3") as server:
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        status, answer = server.get("/readyz")
        assert (status, answer["type"].split(":")[-1]) == (503, "leaving")
        assert server.post()[0] == 200 and server.get("/healthz")[0] == 200
        assert server.process.wait(15) == 0


def test_a_stop_before_it_serves_is_a_normal_end(bundle, tmp_path):
    "Como primer proceso de un contenedor, quien no atiende SIGTERM se queda hasta que lo matan."
    slow = SERVE.replace("sys.exit(", "import time, futbol_mlops.app as a; load = a.load_bundle; a.load_bundle = lambda *x: (print('ya', flush=True), time.sleep(20), load(*x))[2]; sys.exit(")
    env = {**os.environ, "FUTBOL_HOME": str(tmp_path / "state"), "FUTBOL_BUNDLE": str(bundle)}
    with subprocess.Popen([sys.executable, "-c", slow], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ya\n"
        process.terminate()
        assert process.wait(10) == 0


def test_balancers_may_ask_with_head(bundle, tmp_path):
    with Server(tmp_path / "state", bundle) as server:
        assert [server.request("HEAD", path, headers={})[0] for path in ("/healthz", "/readyz")] == [200, 200]


def test_two_reloads_at_once_both_get_an_answer(bundle, history, tmp_path):
    with Server(tmp_path / "state", bundle, workers=2) as server:
        new_bundle(history, bundle, "1.1.0")
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(server.post(path="/v1/admin/reload", body=None, headers={}))) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(30)
        assert [(status, a["model_version"], a["workers"]) for status, a in answers] == [(200, "1.1.0", 2)] * 4


# --- lo demás -----------------------------------------------------------------------------------------------------------

def test_one_json_line_per_request(bundle, tmp_path):
    with Server(tmp_path / "state", bundle) as server:
        connection = server.connect()
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        for i in range(3):
            assert server.post(connection, headers={**JSON, "X-Request-ID": f"prueba-{i}", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"})[0] == 200
        assert server.post(connection, {"league": "E0"}, {**JSON, "X-Request-ID": "prueba-mal"})[0] == 422
        connection.close()
        assert server.stop() == 0
    found = {x["request_id"]: (x["status"], x["trace_id"], x["client"]) for x in server.events("request") if x["request_id"].startswith("prueba")}
    assert found == {**{f"prueba-{i}": (200, trace, "local") for i in range(3)}, "prueba-mal": (422, None, "local")}


def test_a_huge_body_is_refused_over_the_wire_and_the_server_goes_on(bundle, tmp_path):
    with Server(tmp_path / "state", bundle) as server:
        connection = server.connect()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", "/v1/predictions", b" " * 2_000_000, JSON)
        response = connection.getresponse()
        assert (response.status, json.load(response)["status"]) == (413, 413)
        assert server.post()[0] == 200


def test_what_was_just_answered_can_be_read_from_any_worker(bundle, tmp_path):
    with Server(tmp_path / "state", bundle, workers=2) as server:
        for _ in range(30):
            _, answer = server.post()
            status, stored = server.get(f"/v1/predictions/{answer['prediction_id']}")
            assert (status, {k: stored[k] for k in answer}) == (200, answer)
            assert server.get("/v1/predictions?limit=1")[1]["predictions"][0]["prediction_id"] == answer["prediction_id"]


def test_keys_scopes_and_limits_hold_over_the_wire(bundle, tmp_path):
    home = tmp_path / "state"

    def key(*scopes, rate=None):
        command = [sys.executable, "-m", "futbol_mlops.cli", "keys", "create", "prueba", "--json", *(x for s in scopes for x in ("--scope", s)), *(("--rate", rate) if rate else ())]
        made = json.loads(subprocess.run(command, env=os.environ | {"FUTBOL_HOME": str(home)}, capture_output=True, text=True, check=True).stdout)
        return made["id"], {**JSON, "Authorization": f"Bearer {made['key']}"}

    (_, one), (other_id, other), (_, admin), (_, slow) = key("predict"), key("predict"), key("admin", "metrics", "predict"), key("predict", rate="5/minute")
    with Server(home, bundle, workers=2) as server:
        assert server.post()[0] == 401
        assert server.post(headers={**JSON, "Authorization": "Bearer fut_00000000_nada"})[0] == 401
        status, answer = server.post(headers=one)
        assert status == 200
        assert server.post(path="/v1/admin/reload", body=None, headers=one)[0] == 403
        assert server.request("GET", "/metrics", headers=one)[0] == 403
        assert server.request("GET", f"/v1/predictions/{answer['prediction_id']}", headers=other)[0] == 404, "cada uno ve lo suyo"
        assert server.request("GET", f"/v1/predictions/{answer['prediction_id']}", headers=admin)[0] == 200
        assert server.request("GET", "/v1/predictions", headers=other)[1]["predictions"] == []
        assert server.get("/healthz")[0] == server.get("/readyz")[0] == 200
        statuses = [server.post(headers=slow)[0] for _ in range(20)]
        assert statuses.count(200) == 5 and statuses.count(429) == 15, "el límite es de todos los procesos juntos"
        subprocess.run([sys.executable, "-m", "futbol_mlops.cli", "keys", "revoke", other_id], env=os.environ | {"FUTBOL_HOME": str(home)}, capture_output=True, check=True)
        deadline = time.monotonic() + 10
        while server.post(headers=other)[0] != 401:
            assert time.monotonic() < deadline, "una clave retirada deja de valer sin reiniciar"
            time.sleep(0.1)
        found = scrape(server, {"Authorization": admin["Authorization"]})
        assert found['futbol_rejected_total{"reason": "rate_limited"}'] == 15


def test_a_server_reachable_from_outside_needs_keys(bundle, tmp_path):
    env = {**os.environ, "FUTBOL_HOME": str(tmp_path / "state"), "FUTBOL_BUNDLE": str(bundle), "FUTBOL_HOST": "0.0.0.0", "FUTBOL_PORT": "1"}
    run = subprocess.run([sys.executable, "-c", SERVE], env=env, capture_output=True, text=True, timeout=30)
    assert run.returncode == 1 and "keys create" in run.stderr


def test_results_come_back_and_are_judged(bundle, tmp_path):
    with Server(tmp_path / "state", bundle, workers=2) as server:
        for _ in range(3):
            assert server.post()[0] == 200
        result = {**FIXTURE, "home_goals": 3, "away_goals": 1, "odds": {"home_win": 1.6, "draw": 4.2, "away_win": 5.5}}
        assert server.post(path="/v1/results", body=result)[1]["status"] == "recorded"
        assert server.post(path="/v1/results", body=result)[1]["status"] == "unchanged"
        deadline = time.monotonic() + 10
        while not (versions := server.get("/v1/performance")[1]["versions"]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert (versions[0]["model_version"], versions[0]["matches"], versions[0]["accuracy"]) == ("1.0.0", 1, 1.0)


def test_memory_and_latency_stay_flat(bundle, tmp_path):
    "Un remojo corto; el largo está en benchmarks/serving.py."
    with Server(tmp_path / "state", bundle) as server:
        [worker] = server.workers()
        with Load(server, 8) as load:
            load.wait(3000, 60)
            before = psutil.Process(worker).memory_info().rss
            load.wait(6000, 90)
        assert psutil.Process(worker).memory_info().rss < before * 1.05 + 3e6
        assert not load.bad


def test_the_port_is_refused_once_it_has_stopped(bundle, tmp_path):
    with Server(tmp_path / "state", bundle, workers=2) as server:
        assert server.stop() == 0
        with pytest.raises((OSError, http.client.HTTPException)):
            server.get("/healthz")
        assert not [p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("FUTBOL_HOME") == str(tmp_path / "state")]
