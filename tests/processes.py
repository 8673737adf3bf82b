"El servidor entero como lo arranca quien lo despliega: supervisor, procesos y ayudante, en un puerto libre."
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import psutil

from futbol_mlops.journal import open_log

FIXTURE = {"league": "E0", "home_team": "Arsenal", "away_team": "Tottenham", "kickoff": "2026-05-24"}
JSON = {"content-type": "application/json"}
SERVE = "import sys; from futbol_mlops.app import serve; from futbol_mlops.config import Settings; sys.exit(serve(Settings().model_copy(update={'port': 0})))"


class Server:
    "Un servidor en marcha; su diario se lee según sale."

    def __init__(self, home: Path, bundle: Path, workers: int = 1, ready: bool = True, **env):
        self.home, self.env = home, {**os.environ, "FUTBOL_HOME": str(home), "FUTBOL_BUNDLE": str(bundle), "FUTBOL_HOST": "127.0.0.1", "FUTBOL_WORKERS": str(workers), **env}
        self.process = subprocess.Popen([sys.executable, "-c", SERVE], env=self.env, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line)
            if json.loads(line)["event"] == "serving":
                break
        self.port = json.loads(self.lines[-1])["port"]
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True)
        self.reader.start()
        if ready:
            self.wait_ready()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill_all()

    def wait_ready(self, timeout: float = 30):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get("/readyz")[0] == 200:
                    return
            time.sleep(0.05)
        raise AssertionError("el servidor no llega a estar listo:\n" + "".join(self.lines[-20:]))

    def connect(self, timeout: float = 20):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(self, method: str, path: str, body=None, headers=JSON, connection=None):
        connection = connection or self.connect()
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text and "json" in (response.getheader("content-type") or "") else text.decode()

    def get(self, path: str, **options):
        return self.request("GET", path, headers={}, **options)

    def post(self, connection=None, body=FIXTURE, headers=JSON, path="/v1/predictions"):
        return self.request("POST", path, body, headers, connection)

    def children(self) -> list[psutil.Process]:
        "Los procesos que atienden y, el último, el ayudante."
        return sorted(psutil.Process(self.process.pid).children(), key=lambda p: p.pid)

    def workers(self) -> list[int]:
        "Los procesos que tienen algún puerto a la escucha, sin el ayudante."
        return [c.pid for c in self.children() if any(n.status == "LISTEN" for n in c.net_connections())]

    def events(self, name: str) -> list[dict]:
        return [e for e in map(json.loads, list(self.lines)) if e["event"] == name]

    def stop(self, how=signal.SIGTERM, timeout: float = 20) -> int:
        "Se lo pide al supervisor."
        self.process.send_signal(how)
        code = self.process.wait(timeout)
        self.reader.join(5)
        return code

    def kill_all(self):
        "Se va la luz: nadie se despide."
        with contextlib.suppress(psutil.NoSuchProcess):
            children = self.children() if self.process.poll() is None else []
            self.process.kill()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        self.process.wait(10)
        self.reader.join(5)

    def stored(self, ids) -> set[str]:
        "De esos identificadores, los que están en el registro."
        log = open_log(self.env.get("FUTBOL_LOG_URL") or f"sqlite:///{(self.home / 'predictions.db').resolve()}")
        try:
            return {i for i in ids if log.get(i)}
        finally:
            log.close()


class Load:
    "Varios clientes que piden predicciones sin parar; apuntan los identificadores que reciben y lo que sale mal."

    def __init__(self, server: Server, clients: int = 8, tolerate_cuts: bool = False, path: str = "/v1/predictions", body=FIXTURE, headers=JSON):
        self.server, self.tolerate_cuts, self.path, self.body, self.headers = server, tolerate_cuts, path, body, headers
        self.ids, self.versions, self.bad, self.cuts, self.done = [], [], [], 0, threading.Event()
        self.threads = [threading.Thread(target=self.ask, daemon=True) for _ in range(clients)]

    def ask(self):
        connection = None
        while not self.done.is_set():
            try:
                connection = connection or self.server.connect(10)
                status, answer = self.server.post(connection, self.body, self.headers, self.path)
            except (OSError, http.client.HTTPException) as e:
                connection = None
                self.cuts += 1
                if not self.tolerate_cuts and not self.done.is_set():
                    self.bad.append(repr(e))
                time.sleep(0.02)
                continue
            if status == 200:
                self.ids.append(answer["prediction_id"])
                self.versions.append(answer["model_version"])
            else:
                self.bad.append((status, answer))

    def wait(self, answers: int, timeout: float = 30):
        "Hasta que lleguen tantas respuestas más."
        goal, deadline = len(self.ids) + answers, time.monotonic() + timeout
        while len(self.ids) < goal:
            assert time.monotonic() < deadline, f"solo {len(self.ids)} respuestas de {goal}; {self.bad[:3]}"
            time.sleep(0.01)

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        for t in self.threads:
            t.join(15)


def scrape(server: Server, headers=None) -> dict[str, float]:
    "Las métricas, como las lee Prometheus: nombre y etiquetas → valor."
    from prometheus_client.parser import text_string_to_metric_families

    text = urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{server.port}/metrics", headers=headers or {}), timeout=10).read().decode()
    return {f"{s.name}{json.dumps(s.labels, sort_keys=True)}": s.value for f in text_string_to_metric_families(text) for s in f.samples}
