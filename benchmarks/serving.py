"""Cuántas predicciones por segundo da el servidor con todo puesto, al lado de otras maneras de servir el mismo modelo.

Todos con los mismos procesos, en la misma máquina que el generador de carga (wrk). Las tandas se alternan y se da la mediana: en una
máquina ocupada bajan todas a la vez, y lo que se compara es la proporción.

    python benchmarks/serving.py                    unos 4 minutos, con `mlflow models serve`
    python benchmarks/serving.py --quick            menos de 45 s, sin él
    python benchmarks/serving.py --soak 3           además, tres minutos seguidos: memoria y latencia, planas o no
    python benchmarks/serving.py --figure out.svg   la tabla, dibujada
    python benchmarks/serving.py --json             para otro programa
"""

import argparse
import asyncio
import contextlib
import http.client
import io
import json
import os
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONNECTIONS = 64
ROOT = Path(__file__).resolve().parents[1]
FULL, FULL_LOGIT, PLAIN = "completo (campeón)", "completo (logit)", "sin extras (logit)"
GET, POST = "GET vacío", "POST vacío"
TEXTBOOK, TREES, MLFLOW = "tutorial, logit", "tutorial, árboles", "mlflow models serve"

LUA = """
local bodies, i = %s, 0
request = function()
  i = i + 1
  return wrk.format("%s", "%s", {["Content-Type"] = "application/json", ["Authorization"] = "Bearer %s"}, bodies[i %% #bodies + 1])
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %%d, "seconds": %%f, "errors": %%d, "p50": %%f, "p99": %%f}\\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


# --- Los otros --------------------------------------------------------------------------------------------------------

def bare_app(home: Path):
    "La vara de medir: lo menos que puede hacer FastAPI con un GET, y con un POST con los mismos modelos que el servidor."
    from fastapi import FastAPI

    from futbol_mlops.serving import Fixture, Prediction

    app = FastAPI()
    answer = {"prediction_id": "x", "league": "E0", "home_team": "Arsenal", "away_team": "Chelsea", "kickoff": "2026-05-24", "home_win": 0.5, "draw": 0.25, "away_win": 0.25,
              "outcome": "home_win", "model_name": "futbol-1x2", "model_version": "1.0.0", "features_as_of": "2026-05-17", "warnings": []}

    @app.get("/")
    async def get() -> dict:
        return {"ok": True}

    @app.post("/", response_model=Prediction)
    async def post(fixture: Fixture) -> dict:
        return answer

    return app


def textbook_app(home: Path, model: str):
    "El servidor de cualquier tutorial: de la petición a un DataFrame y de ahí a scikit-learn."
    import datetime as dt

    import pandas as pd
    from fastapi import FastAPI
    from pydantic import BaseModel

    from futbol_mlops.bundle import load_bundle
    from futbol_mlops.features import FEATURES

    class Ask(BaseModel):
        league: str
        home_team: str
        away_team: str
        kickoff: dt.date

    model, history, app = pickle.loads((home / f"{model}.pkl").read_bytes()), load_bundle(home / "logit").history, FastAPI()

    @app.get("/")
    async def get() -> dict:
        return {"ok": True}

    @app.post("/v1/predictions")
    async def predict(ask: Ask) -> list[float]:
        row = history.features(ask.league, ask.home_team, ask.away_team, ask.kickoff)
        return model.predict_proba(pd.DataFrame([row], columns=FEATURES))[0].tolist()

    return app


class Nothing:
    "Un registro que no anota y un contador que no cuenta."

    def __getattr__(self, name):
        return lambda *_, **__: None


def plain_app(home: Path):
    "La API del curso sin nada alrededor."
    from futbol_mlops.bundle import load_bundle
    from futbol_mlops.serving import create_api

    return create_api(load_bundle(home / "logit"), Nothing(), Nothing())


APPS = {"bare": bare_app, "logit": lambda home: textbook_app(home, "logit"), "boosting": lambda home: textbook_app(home, "boosting"), "plain": plain_app}


def run_app(name: str, port: int, workers: int, home: Path) -> int:
    "Sirve uno de los otros con los mismos procesos y el mismo reparto que el servidor."
    import uvicorn

    from futbol_mlops.app import bind
    from futbol_mlops.workers import Supervisor

    app, listeners = APPS[name](home), bind("127.0.0.1", port, workers)

    def work(worker) -> None:
        uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run(sockets=[listeners[worker.slot]])

    return Supervisor(work, str, "", workers).serve()


# --- Preparar ---------------------------------------------------------------------------------------------------------

def prepare(home: Path, mlflow_too: bool) -> tuple[list[dict], list[dict]]:
    "Ajusta los modelos con los partidos que vienen con el código y los deja listos; devuelve partidos que pedir y sus variables."
    from futbol_mlops.bundle import write_bundle
    from futbol_mlops.data import data_version, load_matches
    from futbol_mlops.features import FEATURES, build_features
    from futbol_mlops.models import MODELS, make_boosting, make_logit, outcome_codes
    from futbol_mlops.registry import served_numbers

    matches = load_matches()
    X, history = build_features(matches)
    y, facts = outcome_codes(matches), {"version": data_version(matches), "matches": len(matches)}
    logit, boosting, champion = make_logit().fit(X, y), make_boosting().fit(X, y), MODELS["ensemble"]().fit(matches.join(X), y)
    for name, model in (("logit", logit), ("champion", champion)):
        write_bundle(home / name, served_numbers(model, matches), history, {"version": "1.0.0", "data": facts, "metrics": {}})
    for name, model in (("logit", logit), ("boosting", boosting)):
        (home / f"{name}.pkl").write_bytes(pickle.dumps(model))
    if mlflow_too:
        import logging

        import mlflow.sklearn

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        mlflow.sklearn.save_model(logit, home / "mlflow", pip_requirements=["scikit-learn"], serialization_format="cloudpickle")
    sample = matches.sample(500, random_state=7)
    fixtures = [{"league": m.league, "home_team": m.home_team, "away_team": m.away_team, "kickoff": str(m.date.date())} for m in sample.itertuples()]
    rows = [{"dataframe_split": {"columns": FEATURES, "data": [[float(v) for v in X.loc[i]]]}} for i in sample.index]
    return fixtures, rows


def lua(bodies: list[dict] | None, method: str, path: str, key: str) -> str:
    "El guion de wrk."
    texts = [json.dumps(b, ensure_ascii=False) for b in bodies] if bodies else [""]
    return LUA % ("{" + ", ".join(f"[==[{t}]==]" for t in texts) + "}", method, path, key)


def free_port() -> int:
    "Un puerto libre ahora mismo."
    import socket

    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def get(port: int, path: str, key: str = "") -> tuple[int, bytes]:
    "Un GET."
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
        response = connection.getresponse()
        return response.status, response.read()


@contextlib.contextmanager
def server(command: list[str], port: int, path: str, env: dict, log: Path):
    "Arranca un servidor, espera a que conteste y lo para al salir. Da el proceso y los segundos que tardó."
    started = time.perf_counter()
    with log.open("w") as out, subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True) as process:
        try:
            while True:
                if process.poll() is not None or time.perf_counter() - started > 90:
                    raise SystemExit(f"El servidor no arrancó:\n{log.read_text()[-2000:]}")
                with contextlib.suppress(OSError):
                    if get(port, path)[0] == 200:
                        break
                time.sleep(0.02)
            yield process, time.perf_counter() - started
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)


# --- Medir ------------------------------------------------------------------------------------------------------------

def measure(script: Path, port: int, seconds: float) -> dict:
    "Una tanda de wrk."
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{round(seconds)}s", "--timeout", "20s", "-s", str(script), f"http://127.0.0.1:{port}"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = json.loads(next(line for line in output.splitlines() if line.startswith("RESULT "))[7:])
    return {**result, "rps": result["requests"] / result["seconds"]}


def memory_of(process) -> list[int]:
    "Megabytes de cada proceso que atiende: lo suyo más su parte de lo compartido (PSS), o lo residente si el sistema no lo dice."
    import psutil

    children = psutil.Process(process.pid).children()
    return [round(getattr(info := c.memory_full_info(), "pss", info.rss) / 1e6) for c in children]


def resident_of(process) -> int:
    "Megabytes residentes del proceso más gordo."
    import psutil

    return max(round(c.memory_info().rss / 1e6) for c in psutil.Process(process.pid).children())


def batch_time(port: int, key: str, fixtures: list[dict], times: int = 15) -> float:
    "Milisegundos que el servidor dice que tarda un lote de mil, según sus métricas."
    body = json.dumps({"fixtures": [fixtures[i % len(fixtures)] for i in range(1000)]})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    found = []
    with contextlib.closing(connection):
        for _ in range(times):
            before = batch_seconds(port, key)
            connection.request("POST", "/v1/predictions/batch", body, {"Content-Type": "application/json", "Authorization": f"Bearer {key}"})
            response = connection.getresponse()
            text = response.read()
            if response.status != 200:
                raise SystemExit(f"El lote acabó en {response.status}: {text[:300]}")
            found.append(batch_seconds(port, key) - before)
    return statistics.median(found) * 1000


def batch_seconds(port: int, key: str) -> float:
    "Segundos dedicados a lotes hasta ahora."
    text = get(port, "/metrics", key)[1].decode()
    return sum(float(v) for v in re.findall(r'^futbol_http_request_duration_seconds_sum\{[^}]*predictions/batch[^}]*\} (\S+)', text, re.M))


def steps_of(home: Path, fixtures: list[dict], calls: int = 3000) -> dict[str, float]:
    "Microsegundos de cada paso de una petición al servidor completo, sin red: la mediana."
    from futbol_mlops.app import create_app
    from futbol_mlops.config import Settings

    bodies = [json.dumps(f).encode() for f in fixtures]
    found: dict[str, list[int]] = {}

    async def go() -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # avisa de que no hay claves
            app = create_app(Settings(home=home / "steps", bundle=home / "champion"))
        async with app.router.lifespan_context(app):
            for i in range(calls):
                body = bodies[i % len(bodies)]
                scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/v1/predictions", "raw_path": b"/v1/predictions", "query_string": b"",
                         "root_path": "", "scheme": "http", "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())], "state": {}}

                async def receive(body=body):
                    return {"type": "http.request", "body": body, "more_body": False}

                async def send(message) -> None:
                    pass

                begin = time.time_ns()
                await app(scope, receive, send)
                end = time.time_ns()
                named = {name: b - a for name, a, b in scope["state"]["steps"]}
                for name, value in {**named, "envelope": end - begin - sum(named.values())}.items():
                    found.setdefault(name, []).append(value)

    asyncio.run(go())
    return {name: round(statistics.median(values) / 1000, 1) for name, values in found.items()}


def soak(script: Path, port: int, process, minutes: float) -> list[dict]:
    "Minutos seguidos de carga: latencia y memoria de cada medio minuto."
    rows, step = [], min(30.0, minutes * 60 / 6)
    for i in range(round(minutes * 60 / step)):
        result = measure(script, port, step)
        rows.append({"minute": round((i + 1) * step / 60, 1), "rps": round(result["rps"]), "p50": round(result["p50"], 1), "p99": round(result["p99"], 1),
                     "errors": result["errors"], "mb": resident_of(process)})
    return rows


def run(rounds: int, seconds: int, workers: int, mlflow_too: bool, minutes: float) -> dict:
    "Todas las medidas."
    with tempfile.TemporaryDirectory() as tmp, contextlib.ExitStack() as stack:
        home = Path(tmp)
        fixtures, rows = prepare(home, mlflow_too)
        env = os.environ | {"PYTHONPATH": str(ROOT), "FUTBOL_HOST": "127.0.0.1", "FUTBOL_WORKERS": str(workers), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        ports = {name: free_port() for name in ("bare", "plain", "logit", "boosting", "full", "full_logit", "mlflow")}
        key = subprocess.run([sys.executable, "-m", "futbol_mlops.cli", "keys", "create", "carga", "--scope", "predict", "--scope", "metrics", "--rate", "10000000/second", "--json"],
                             env=env | {"FUTBOL_HOME": str(home)}, capture_output=True, text=True, check=True).stdout
        key = json.loads(key)["key"]
        others = {name: server([sys.executable, __file__, "--app", name, str(ports[name]), str(workers), str(home)], ports[name], "/" if name != "plain" else "/healthz", env, home / f"{name}.log")
                  for name in ("bare", "plain", "logit", "boosting")}
        full = {name: server([sys.executable, "-m", "futbol_mlops.app"], ports[name], "/readyz",
                             env | {"FUTBOL_HOME": str(home / name), "FUTBOL_KEYS": str(home / "keys.json"), "FUTBOL_BUNDLE": str(home / bundle), "FUTBOL_PORT": str(ports[name])}, home / f"{name}.log")
                for name, bundle in (("full", "champion"), ("full_logit", "logit"))}
        process, startup = stack.enter_context(full["full"])
        stack.enter_context(full["full_logit"])
        for other in others.values():
            stack.enter_context(other)
        if mlflow_too:
            command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(home / "mlflow"), "--env-manager", "local", "--workers", str(workers), "-p", str(ports["mlflow"]), "-h", "127.0.0.1"]
            stack.enter_context(server(command, ports["mlflow"], "/ping", env, home / "mlflow.log"))
        cases = {GET: ("bare", "GET", "/", None), POST: ("bare", "POST", "/", fixtures), FULL: ("full", "POST", "/v1/predictions", fixtures),
                 FULL_LOGIT: ("full_logit", "POST", "/v1/predictions", fixtures), PLAIN: ("plain", "POST", "/v1/predictions", fixtures),
                 TEXTBOOK: ("logit", "POST", "/v1/predictions", fixtures), TREES: ("boosting", "POST", "/v1/predictions", fixtures)}
        if mlflow_too:
            cases[MLFLOW] = ("mlflow", "POST", "/invocations", rows)
        batches = {name: round(batch_time(ports[name], key, fixtures), 1) for name in ("full", "full_logit")}  # antes de la carga: después, el ayudante aún tiene trabajo
        scripts = {name: home / f"{i}.lua" for i, name in enumerate(cases)}
        for name, (_, method, path, bodies) in cases.items():
            scripts[name].write_text(lua(bodies, method, path, key))
            measure(scripts[name], ports[cases[name][0]], 1)
        runs = {name: [] for name in cases}
        for _ in range(rounds):
            for name, (where, *_) in cases.items():
                runs[name].append(measure(scripts[name], ports[where], seconds))
        found = {"rows": summarize(runs), "startup_s": round(startup, 2), "memory_mb": max(memory_of(process)), "resident_mb": resident_of(process),
                 "batch_ms": batches["full"], "batch_logit_ms": batches["full_logit"],
                 "steps_us": steps_of(home, fixtures)}
        if minutes:
            found["soak"] = soak(scripts[FULL], ports["full"], process, minutes)
        return found


def summarize(runs: dict[str, list[dict]]) -> list[dict]:
    "La mediana de cada caso."
    rows = []
    for name, results in runs.items():
        middle = {key: round(statistics.median(r[key] for r in results), 1) for key in ("rps", "p50", "p99")}
        rows.append({"name": name, **middle, "errors": sum(r["errors"] for r in results)})
    return rows


# --- Contar -----------------------------------------------------------------------------------------------------------

def targets(found: dict) -> list[tuple[str, str, bool]]:
    "Cada objetivo, lo medido y si se cumple."
    rows = {r["name"]: r for r in found["rows"]}
    full, logit = rows[FULL], rows[FULL_LOGIT]
    checks = [("≥ 5000 predicciones/s con todo puesto", f"{full['rps']:.0f}", full["rps"] >= 5000), ("p99 < 40 ms", f"{full['p99']:.1f}", full["p99"] < 40),
              ("0 errores", str(full["errors"] + logit["errors"]), full["errors"] + logit["errors"] == 0)]
    for name, base, times in ((TEXTBOOK, logit, 5), (TREES, full, 100), (MLFLOW, logit, 15), (POST, full, 0.4)):
        if name in rows:
            ratio = base["rps"] / rows[name]["rps"]
            checks.append((f"≥ {times:g} veces «{name}»", f"{ratio:.1f}", ratio >= times))
    checks += [("lote de 1000: ≤ 20 ms en el servidor", f"{found['batch_ms']} (logit {found['batch_logit_ms']})", found["batch_ms"] <= 20),
               ("arranque ≤ 2 s", f"{found['startup_s']}", found["startup_s"] <= 2), ("memoria por proceso ≤ 150 MB", f"{found['resident_mb']} (sin lo compartido, {found['memory_mb']})", found["resident_mb"] <= 150)]
    if "soak" in found:
        first, last = found["soak"][1], found["soak"][-1]
        flat = last["mb"] <= first["mb"] * 1.1 + 5 and statistics.median(r["p99"] for r in found["soak"]) < 40 and not sum(r["errors"] for r in found["soak"])
        checks.append(("memoria y latencia planas", f"de {first['mb']} a {last['mb']} MB", flat))
    return checks


def report(found: dict) -> str:
    "Todo, para leerlo."
    top = max(r["rps"] for r in found["rows"])
    lines = [f"{'':<22}{'peticiones/s':>13}{'p50 ms':>9}{'p99 ms':>9}{'errores':>9}"]
    for r in found["rows"]:
        lines.append(f"{r['name']:<22}{r['rps']:>13.0f}{r['p50']:>9.1f}{r['p99']:>9.1f}{r['errors']:>9}  {'█' * max(1, round(30 * r['rps'] / top))}")
    total = sum(found["steps_us"].values())
    lines += ["", f"En qué se va una petición, sin la red ({total:.0f} µs):"]
    lines += [f"  {name:<14}{value:>7.1f} µs  {'█' * round(40 * value / total)}" for name, value in found["steps_us"].items()]
    if "soak" in found:
        lines += ["", f"{'minuto':>8}{'peticiones/s':>14}{'p50 ms':>9}{'p99 ms':>9}{'errores':>9}{'MB':>6}"]
        lines += [f"{r['minute']:>8}{r['rps']:>14}{r['p50']:>9}{r['p99']:>9}{r['errors']:>9}{r['mb']:>6}" for r in found["soak"]]
    lines += [""] + [f"{'✓' if met else '✗'} {what:<48}{value}" for what, value, met in targets(found)]
    return "\n".join(lines)


def draw(found: dict, path: Path) -> None:
    "La tabla, dibujada."
    from futbol_mlops.figures import OUTCOME_COLORS, new_figure

    fig, ax = new_figure()
    rows = found["rows"][::-1]
    ax.barh([r["name"] for r in rows], [r["rps"] for r in rows], color=[OUTCOME_COLORS["home_win" if r["name"].startswith("completo") else "draw"] for r in rows])
    for i, r in enumerate(rows):
        ax.text(r["rps"], i, f" {r['rps']:.0f}/s, p99 {r['p99']:.0f} ms", va="center", fontsize=8)
    ax.set(title="El mismo modelo, servido de varias maneras", xlabel="predicciones por segundo", xlim=(0, max(r["rps"] for r in rows) * 1.35))
    fig.savefig(path, bbox_inches="tight")


def main() -> int:
    parser = argparse.ArgumentParser(description="Mide el servidor con wrk, junto a otras maneras de servir el mismo modelo.")
    parser.add_argument("--quick", action="store_true", help="menos de 45 segundos, sin mlflow")
    parser.add_argument("--soak", type=float, default=0, metavar="MINUTOS", help="además, minutos seguidos de carga")
    parser.add_argument("--workers", type=int, default=2, help="procesos de cada servidor")
    parser.add_argument("--figure", type=Path, metavar="FICHERO", help="dibuja la tabla")
    parser.add_argument("--json", action="store_true", help="escribe JSON")
    parser.add_argument("--app", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.app:
        return run_app(args.app[0], int(args.app[1]), int(args.app[2]), Path(args.app[3]))
    if shutil.which("wrk") is None:
        print("Falta wrk, el generador de carga. En Debian o Ubuntu: sudo apt-get install wrk. En macOS: brew install wrk.", file=sys.stderr)
        return 2
    rounds, seconds = (2, 1) if args.quick else (5, 4)
    found = run(rounds, seconds, args.workers, not args.quick, args.soak)
    met = all(ok for *_, ok in targets(found))
    if args.json:
        context = {"connections": CONNECTIONS, "workers": args.workers, "cpus": os.cpu_count(), "rounds": rounds, "seconds": seconds}
        print(json.dumps(context | found | {"targets": [{"target": t, "value": v, "met": ok} for t, v, ok in targets(found)], "met": met}, ensure_ascii=False, indent=2))
    else:
        print(report(found))
        print(f"\n{CONNECTIONS} conexiones, {args.workers} procesos por servidor, {os.cpu_count()} CPU compartidas con wrk; mediana de {rounds} tandas de {seconds} s.")
    if args.figure:
        draw(found, args.figure)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
