"""¿Cumple el servidor lo que su OpenAPI promete? Miles de peticiones inventadas por schemathesis, buenas y malas, contra la API con todo puesto.

De cada ruta prueba sus ejemplos, los bordes de cada campo y lo que se le ocurra a Hypothesis; a cada una le quita la clave y le cambia el
método. Ninguna respuesta puede ser 5xx, ni llevar un código, un tipo, una cabecera o un cuerpo que el contrato no diga; y una petición que
el contrato da por buena solo puede rechazarse por lo que un esquema no sabe decir: qué equipos y qué fechas hay.

    python benchmarks/contract.py                 más de 10 000 casos, unos tres minutos
    python benchmarks/contract.py --cases 3000    otra cantidad (los ejemplos y los bordes se prueban siempre)
    python benchmarks/contract.py --quick         menos de 45 s
    python benchmarks/contract.py --http          contra `futbol-mlops serve` con dos procesos, y no contra la aplicación en este
    python benchmarks/contract.py --seed 7        la misma tirada otra vez
    python benchmarks/contract.py --json          para otro programa
"""

import argparse
import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

FULL, QUICK = 10_000, 1400
OFTEN = 0.95  # cuántas veces se usa un valor de verdad en lugar de uno inventado
HOME, AWAY = ("Arsenal", "Chelsea", "everton", "Liverpool", "Man City"), ("Manchester United", "Tottenham", "newcastle", "West Ham", "Fulham")
KICKOFFS = ("2016-05-02", "2019-12-26T15:00:00Z", "2024-01-13", "2025-08-16T20:00+01:00", "2026-05-24")
REAL = {"league": ("E0",), "home_team": HOME, "away_team": AWAY, "team": HOME, "kickoff": KICKOFFS, "known_on": ("2024-06-30", "2026-05-25"), "home_win": (1.9, 2.1), "draw": (3.3, 3.5), "away_win": (3.6, 4)}
IN_BODY = {"league": "", "home_team": "", "away_team": "", "kickoff": "", "home_win": "odds.", "draw": "odds.", "away_win": "odds."}
BEYOND_SCHEMAS = ("kickoff", "known_on", "odds")  # un 30 de febrero y unas cuotas imposibles cumplen su esquema
REASONS = ("unpredictable-fixture", "invalid-result", "unknown-league", "unknown-team", "league-needed", "idempotency-key")


# --- Qué se prueba ----------------------------------------------------------------------------------------------------

def recent_keys(count: int) -> list[str]:
    "Claves de repetición recién creadas: de otra época, el servidor no las admite."
    start = f"{time.time_ns() // 1_000_000:012x}"
    return [f"{start[:8]}-{start[8:]}-7{secrets.token_hex(2)[1:]}-8{secrets.token_hex(2)[1:]}-{secrets.token_hex(6)}" for _ in range(count)]


def configuration(token: str, each: int, seed: int):
    "Lo que schemathesis prueba y comprueba. A menudo con equipos y fechas de verdad: si no, casi todo acabaría en 422."
    from schemathesis.config import SchemathesisConfig

    values = {**REAL, "keys": recent_keys(2000)}
    places = {f"body.{inside}{under}{name}": name for name, under in IN_BODY.items() for inside in ("", "fixtures[*].", "results[*].")}
    places |= {"query.league": "league", "query.team": "team", "path.team": "team", "query.known_on": "known_on", "header.Idempotency-Key": "keys"}
    return SchemathesisConfig.from_dict({
        "seed": seed,
        "headers": {"Authorization": f"Bearer {token}"},
        "dictionaries": {name: {"values": list(found)} for name, found in values.items()},
        "parameters": {place: {"dictionary": name, "probability": OFTEN} for place, name in places.items()},
        "generation": {"max-examples": each, "database": "none"},
        "continue-on-failure": True,
        "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "404", "422"]}},  # el 422 lo mira `refused_for_a_reason`
        "phases": {"examples": {"enabled": True}, "coverage": {"enabled": True}, "fuzzing": {"enabled": True}, "stateful": {"enabled": False}},
    })


def add_checks() -> None:
    "Lo que este contrato promete y un OpenAPI no sabe decir."
    import schemathesis

    @schemathesis.check
    def errors_are_problems(ctx, response, case) -> None:
        "Un error es un problem+json completo, de la petición que lo causó."
        if response.status_code < 400:
            return
        kind, sent = response.headers["content-type"][0], response.headers["x-request-id"][0]
        assert kind == "application/problem+json", f"Un error como {kind}"
        body = json.loads(response.content)
        assert (body["status"], body["request_id"]) == (response.status_code, sent), f"El cuerpo habla de otra respuesta: {body}"
        assert body["title"] and body["detail"] and body["type"].startswith("urn:futbol-mlops:problem:"), f"Faltan explicaciones: {body}"

    @schemathesis.check
    def refused_for_a_reason(ctx, response, case) -> None:
        "Lo que cumple el esquema solo se rechaza por lo que un esquema no sabe decir."
        if response.status_code != 422 or case.meta is None or not case.meta.generation.mode.is_positive:
            return
        body = json.loads(response.content)
        kind = body["type"].rpartition(":")[2]
        fields = {part for e in body.get("errors", ()) for part in e["pointer"].split("/")}
        assert kind in REASONS or (kind == "validation" and fields & set(BEYOND_SCHEMAS)), f"El esquema lo admite y el servidor no: {body['detail']}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


@contextlib.contextmanager
def real_server(home: Path):
    "`futbol-mlops serve` con dos procesos; da su dirección."
    port = free_port()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "FUTBOL_HOME": str(home), "FUTBOL_PORT": str(port), "FUTBOL_WORKERS": "2"}
    with open(home / "server.log", "wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "futbol_mlops.app"], env=env, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                yield f"http://127.0.0.1:{port}"
                return
            time.sleep(0.1)
        raise SystemExit("El servidor no arranca:\n" + (home / "server.log").read_text()[-2000:])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextlib.contextmanager
def served(http: bool, each: int, seed: int):
    "El esquema de la API con todo puesto: claves, límites, bitácora, base de datos, métricas y resultados."
    import schemathesis
    from published import small_state

    from futbol_mlops.app import create_app
    from futbol_mlops.config import Settings

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        config = configuration(small_state(home), each, seed)
        if http:
            with real_server(home) as url:
                yield schemathesis.openapi.from_url(f"{url}/openapi.json", config=config)
        else:
            from schemathesis.python import asgi

            try:
                yield schemathesis.openapi.from_asgi("/openapi.json", create_app(Settings(home=home)), config=config)
            finally:
                asgi.shutdown_lifespans()


# --- La tirada --------------------------------------------------------------------------------------------------------

class Tally:
    "Lo que ha pasado, ruta a ruta."

    def __init__(self) -> None:
        self.rows, self.failures, self.checks, self.phases, self.errors = {}, {}, Counter(), Counter(), []

    def scenario(self, event) -> None:
        "Apunta los casos de una ruta en una fase."
        recorder = event.recorder
        row = self.rows.setdefault(recorder.label, {"cases": 0, "statuses": Counter(), "failures": 0, "good": Counter()})
        for case_id, interaction in recorder.interactions.items():
            status = interaction.response.status_code if interaction.response is not None else 0
            row["cases"] += 1
            row["statuses"][status] += 1
            self.phases[event.phase.value] += 1
            case = recorder.cases[case_id].value if case_id in recorder.cases else None
            if case is not None and case.meta is not None and case.meta.generation.mode.is_positive and event.phase.value == "fuzzing":
                row["good"][status // 100] += 1
        for case_id, checks in recorder.checks.items():
            for check in checks:
                self.checks[check.name] += 1
                if check.failure_info is not None:
                    self.failed(recorder, case_id, check)

    def failed(self, recorder, case_id: str, check) -> None:
        "Un fallo por ruta y clase: los demás son el mismo."
        self.rows[recorder.label]["failures"] += 1
        failure, interaction = check.failure_info.failure, recorder.interactions.get(case_id)
        answer = interaction.response.content[:300].decode("utf-8", "replace") if interaction and interaction.response else ""
        self.failures.setdefault((recorder.label, check.name, failure.title), {
            "operation": recorder.label, "check": check.name, "title": failure.title, "message": failure.message[:600], "curl": check.failure_info.code_sample[:600], "answer": answer})

    def gaps(self, schema) -> list[dict]:
        "Rutas que no se han probado, que nunca han contestado bien, o que no han pedido la clave."
        found = []
        for path, methods in schema.raw_schema["paths"].items():
            for method, operation in methods.items():
                label = f"{method.upper()} {path}"
                statuses = self.rows.get(label, {"statuses": Counter()})["statuses"]
                for ok, what in ((any(200 <= s < 300 for s in statuses), "no ha contestado bien ni una vez"), (401 in statuses or not operation.get("security"), "no se ha visto que pida la clave")):
                    if not ok:
                        found.append({"operation": label, "check": "gaps", "title": what, "message": str(dict(statuses)), "curl": "", "answer": ""})
        return found


def run(schema) -> Tally:
    "Todos los casos."
    from schemathesis import engine
    from schemathesis.engine import events

    tally = Tally()
    for event in engine.from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            tally.scenario(event)
        elif isinstance(event, events.NonFatalError | events.FatalError):
            tally.errors.append(str(getattr(event, "value", None) or getattr(event, "exception", event)))
    return tally


def each_for(cases: int, schema_operations: int = 10, fixed: int = 650) -> int:
    "Casos inventados por ruta con algo que inventar, para llegar a un total; los ejemplos y los bordes son unos `fixed`."
    return max(10, (cases - fixed) // schema_operations + 1)


def measured(tally: Tally, schema, seconds: float, seed: int) -> dict:
    "El resultado, para leerlo y para otro programa."
    failures = [*tally.failures.values(), *tally.gaps(schema), *({"operation": "", "check": "engine", "title": "schemathesis no pudo", "message": e[:600], "curl": "", "answer": ""} for e in tally.errors)]
    operations = []
    for label, row in sorted(tally.rows.items(), key=lambda item: item[0].split(" ")[::-1]):
        method, path = label.split(" ", 1)
        statuses = dict(sorted(row["statuses"].items()))
        good = sum(row["good"].values())
        operations.append({"method": method, "path": path, "cases": row["cases"], "statuses": {str(s): n for s, n in statuses.items()}, "failures": row["failures"],
                           "share_2xx": sum(n for s, n in statuses.items() if 200 <= s < 300) / max(row["cases"], 1), "valid_2xx": row["good"][2] / good if good else None})
    return {"cases": sum(row["cases"] for row in operations), "seconds": round(seconds, 1), "seed": seed, "phases": dict(tally.phases), "checks": dict(tally.checks), "operations": operations, "failures": failures}


def report(found: dict) -> str:
    "La tabla."
    lines = [f"{'':<38}{'casos':>7}{'2xx':>7}{'válidos':>9}  códigos", ""]
    for row in found["operations"]:
        valid = f"{row['valid_2xx']:.0%}" if row["valid_2xx"] is not None else "–"
        statuses = "  ".join(f"{s}×{n}" for s, n in row["statuses"].items())
        lines.append(f"{row['method'] + ' ' + row['path']:<38}{row['cases']:>7}{row['share_2xx']:>7.0%}{valid:>9}  {statuses}" + (f"  ✗ {row['failures']}" if row["failures"] else ""))
    lines += ["", f"{found['cases']} casos y {sum(found['checks'].values())} comprobaciones en {found['seconds']} s ({', '.join(f'{k} {v}' for k, v in found['phases'].items())}); semilla {found['seed']}.",
              "«válidos»: de las peticiones inventadas que cumplen el esquema, cuántas acabaron en 2xx; las demás piden un equipo o un día que no hay."]
    for failure in found["failures"]:
        lines += ["", f"✗ {failure['operation']} · {failure['check']}: {failure['title']}", *(f"    {text}" for text in (failure["message"], failure["curl"], failure["answer"]) if text)]
    lines += ["", f"{len(found['failures'])} fallos distintos." if found["failures"] else "Ningún fallo."]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Prueba la API con miles de peticiones inventadas a partir de su OpenAPI.")
    parser.add_argument("--quick", action="store_true", help="menos de 45 segundos")
    parser.add_argument("--cases", type=int, help=f"casos, más o menos; por defecto, {FULL}")
    parser.add_argument("--http", action="store_true", help="contra un servidor de verdad con dos procesos")
    parser.add_argument("--seed", type=int, help="para repetir una tirada; por defecto, al azar")
    parser.add_argument("--json", action="store_true", help="escribe JSON")
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
    cases = args.cases or (QUICK if args.quick else FULL)
    add_checks()
    with served(args.http, each_for(cases), seed) as schema:
        start = time.monotonic()
        found = measured(run(schema), schema, time.monotonic() - start, seed)
    print(json.dumps(found, ensure_ascii=False, indent=2) if args.json else report(found))
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
