"""Cuántas predicciones por segundo da el servidor, al lado de una ruta FastAPI vacía.

Un proceso por servidor, en la misma máquina que el generador de carga (wrk). Las medidas se alternan y se da la mediana: en una máquina
ocupada bajan todas a la vez, y lo que se compara es la proporción. El p99 incluye abrir las 64 conexiones de golpe al empezar cada tanda,
que en las cortas pesa más: uvloop acepta una por vuelta.

    python benchmarks/serving.py            unos 2 minutos
    python benchmarks/serving.py --quick    menos de 45 s
    python benchmarks/serving.py --json     para otro programa
"""

import argparse
import contextlib
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONNECTIONS = 64
TARGET = 1500  # predicciones por segundo con un proceso

LUA = """
local bodies, i = %s, 0
request = function()
  i = i + 1
  return wrk.format("%s", "%s", {["Content-Type"] = "application/json"}, bodies[i %% #bodies + 1])
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %%d, "seconds": %%f, "errors": %%d, "p50": %%f, "p99": %%f}\\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


def bare_app():
    "La vara de medir: lo menos que puede hacer FastAPI con un GET, y con un POST validado."
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Fixture(BaseModel):
        league: str
        home_team: str
        away_team: str
        kickoff: str

    class Answer(BaseModel):
        home_win: float
        draw: float
        away_win: float

    app = FastAPI()

    @app.get("/")
    async def get() -> dict:
        return {"ok": True}

    @app.post("/", response_model=Answer)
    async def post(fixture: Fixture) -> dict:
        return {"home_win": 0.5, "draw": 0.25, "away_win": 0.25}

    return app


def make_bundle(folder: Path) -> list[dict]:
    "Ajusta el logit con los partidos que vienen con el código, escribe un paquete de servicio y devuelve partidos que pedir."
    from futbol_mlops.bundle import write_bundle
    from futbol_mlops.data import data_version, load_matches
    from futbol_mlops.features import build_features
    from futbol_mlops.models import make_logit, model_numbers, outcome_codes

    matches = load_matches()
    X, history = build_features(matches)
    model = model_numbers(make_logit().fit(X, outcome_codes(matches)))
    write_bundle(folder, model, history, {"version": "1.0.0", "data": {"version": data_version(matches), "matches": len(matches)}, "metrics": {}})
    sample = matches.sample(500, random_state=7)
    return [{"league": m.league, "home_team": m.home_team, "away_team": m.away_team, "kickoff": str(m.date.date())}
            for m in sample.itertuples()]


def free_port() -> int:
    "Un puerto libre ahora mismo."
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


@contextlib.contextmanager
def server(command: list[str], port: int, path: str, env: dict, log: Path):
    "Arranca un servidor, espera a que conteste y lo para al salir."
    with log.open("w") as out, subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            for _ in range(200):
                if process.poll() is not None:
                    raise SystemExit(f"El servidor no arrancó:\n{log.read_text()}")
                with contextlib.suppress(OSError):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
                    connection.request("GET", path)
                    if connection.getresponse().status == 200:
                        break
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(15)


def measure(script: Path, port: int, seconds: int) -> dict:
    "Una tanda de wrk."
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = json.loads(next(line for line in output.splitlines() if line.startswith("RESULT "))[7:])
    return {**result, "rps": result["requests"] / result["seconds"]}


def run(rounds: int, seconds: int) -> list[dict]:
    "Todas las medidas: la mediana de cada caso."
    with tempfile.TemporaryDirectory() as tmp:
        home = Path(tmp)
        fixtures = make_bundle(home / "bundle")
        bodies = "{" + ", ".join(f"[[{json.dumps(f, ensure_ascii=False)}]]" for f in fixtures) + "}"
        bare_port, app_port = free_port(), free_port()
        cases = {"GET vacío": (bare_port, "GET", "/"), "POST vacío": (bare_port, "POST", "/"),
                 "POST /v1/predictions": (app_port, "POST", "/v1/predictions")}
        scripts = {name: home / f"{i}.lua" for i, name in enumerate(cases)}
        for name, (_, method, path) in cases.items():
            scripts[name].write_text(LUA % (bodies if method == "POST" else '{""}', method, path))
        env = os.environ | {"FUTBOL_HOME": str(home), "FUTBOL_BUNDLE": str(home / "bundle"), "FUTBOL_PORT": str(app_port), "FUTBOL_HOST": "127.0.0.1"}
        bare = [sys.executable, __file__, "--bare", str(bare_port)]
        app = [sys.executable, "-m", "futbol_mlops.app"]
        with server(bare, bare_port, "/", env, home / "bare.log"), server(app, app_port, "/readyz", env, home / "app.log"):
            for name, (port, *_) in cases.items():
                measure(scripts[name], port, 1)
            runs = {name: [] for name in cases}
            for _ in range(rounds):
                for name, (port, *_) in cases.items():
                    runs[name].append(measure(scripts[name], port, seconds))
    rows = []
    for name, results in runs.items():
        middle = {key: statistics.median(r[key] for r in results) for key in ("rps", "p50", "p99")}
        rows.append({"name": name, **{k: round(v, 1) for k, v in middle.items()}, "errors": sum(r["errors"] for r in results)})
    for row in rows:
        row["of_get"], row["of_post"] = round(row["rps"] / rows[0]["rps"], 2), round(row["rps"] / rows[1]["rps"], 2)
    return rows


def table(rows: list[dict]) -> str:
    "Las medidas, para leerlas."
    lines = [f"{'caso':<22}{'peticiones/s':>13}{'p50 ms':>9}{'p99 ms':>9}{'errores':>9}{'/ GET':>8}{'/ POST':>8}"]
    for r in rows:
        lines.append(f"{r['name']:<22}{r['rps']:>13.0f}{r['p50']:>9.1f}{r['p99']:>9.1f}{r['errors']:>9}{r['of_get']:>8.0%}{r['of_post']:>8.0%}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Mide el servidor con wrk, junto a una ruta FastAPI vacía.")
    parser.add_argument("--quick", action="store_true", help="menos de 45 segundos")
    parser.add_argument("--json", action="store_true", help="escribe JSON")
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bare:
        import uvicorn

        uvicorn.run(bare_app(), port=args.bare, log_level="warning", access_log=False)
        return 0
    if shutil.which("wrk") is None:
        print("Falta wrk, el generador de carga. En Debian o Ubuntu: sudo apt-get install wrk. En macOS: brew install wrk.", file=sys.stderr)
        return 2
    rounds, seconds = (3, 3) if args.quick else (5, 6)
    rows = run(rounds, seconds)
    met = rows[-1]["rps"] >= TARGET and rows[-1]["errors"] == 0
    if args.json:
        report = {"connections": CONNECTIONS, "workers": 1, "cpus": os.cpu_count(), "rounds": rounds, "seconds": seconds,
                  "target": TARGET, "met": met, "rows": rows}
        print(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        print(table(rows))
        print(f"\n{CONNECTIONS} conexiones, un proceso por servidor, {os.cpu_count()} CPU compartidas con wrk; mediana de {rounds} tandas de {seconds} s.")
        print(f"Objetivo de {TARGET} predicciones por segundo sin errores: {'cumplido' if met else 'NO cumplido'}.")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
