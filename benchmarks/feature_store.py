"""Cuánto cuesta el almacén de variables, al lado de otras formas de hacer lo mismo.

Dos medidas, cada una con sus rivales en la misma ejecución. La unión: 50.000 partidos con 200.000 estados de equipo, por DuckDB (la del
curso), `pandas.merge_asof` y un bucle de Python, este con una parte y extrapolado. La consulta: los dos equipos de un partido antes de su
día, de SQLite y de Redis (los del curso), de la memoria, y de lo que se haría sin almacén: SQLite abriendo el fichero cada vez, o DuckDB
leyendo Parquet. Todas deben dar la misma respuesta, y se comprueba. Se alternan, y se da la mediana.

    python benchmarks/feature_store.py            medio minuto
    python benchmarks/feature_store.py --quick    unos 15 s
    python benchmarks/feature_store.py --json     para otro programa
"""

import argparse
import contextlib
import datetime as dt
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FIXTURES, STATES = 50_000, 200_000
JOIN_TARGET = 0.5  # segundos
LOOKUP_TARGET = 0.1  # milisegundos, p50


def make_league(fixtures: int, states: int):
    "Estados de 1.000 equipos, uno cada tres o cuatro días desde 2000, y partidos entre ellos en días al azar."
    from futbol_mlops.features import History, TeamState, season_of

    rng, history, start = random.Random(7), History(), dt.date(2000, 8, 1)
    teams = [f"Equipo {i:04}" for i in range(1000)]
    for team in teams:
        day, played = start, []
        for _ in range(states // len(teams)):
            day += dt.timedelta(days=rng.randint(3, 4))
            fields = {"elo": rng.gauss(1500, 100)}
            played.append(_fill(TeamState, day, season_of(day), fields, rng))
        history.states.setdefault("E0", {})[team] = played
    days = states // len(teams) * 3
    asked = [("E0", *rng.sample(teams, 2), start + dt.timedelta(days=rng.randint(1, days))) for _ in range(fixtures)]
    return history, asked


def _fill(kind, day, season, fields, rng):
    "Un estado de mentira, con cada campo del tipo que dice su declaración."
    from futbol_mlops.feature_store import TEAM_STATE

    made = {"double": lambda: rng.gauss(0, 1), "int64": lambda: rng.randint(0, 40), "date32": lambda: day, "string": lambda: "x",
            "list<int64>": lambda: tuple(rng.randint(0, 3) for _ in range(5)), "list<double>": lambda: tuple(rng.random() for _ in range(5)), "json": lambda: ()}
    values = {f.name: made[f.dtype]() for f in TEAM_STATE.features} | {"date": day, "season": season} | fields
    return kind(**values)


@contextlib.contextmanager
def redis_server(folder: Path):
    "Un redis-server de esta máquina, sin disco; da su dirección."
    from futbol_mlops.feature_store import RedisOnlineStore, StoreError

    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    url = f"redis://127.0.0.1:{port}/0"
    with subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)], stdout=subprocess.DEVNULL) as server:
        try:
            for _ in range(200):
                with contextlib.suppress(StoreError):
                    RedisOnlineStore(url).close()
                    break
                time.sleep(0.05)
            yield url
        finally:
            server.terminate()


def merge_asof_join(fixtures, states):
    "La misma unión con pandas: ordenar y unir, una vez por lado."
    import pandas as pd

    left = fixtures.assign(row=range(len(fixtures)), kickoff=pd.to_datetime(fixtures["date"])).sort_values("kickoff")
    right = states.assign(known=pd.to_datetime(states["date"])).sort_values("known")
    out = [fixtures]
    for side in ("home", "away"):
        found = pd.merge_asof(left[["league", f"{side}_team", "kickoff", "row"]], right.rename(columns={"team": f"{side}_team"}),
                              left_on="kickoff", right_on="known", by=["league", f"{side}_team"], allow_exact_matches=False)
        columns = [c for c in states if c not in ("league", "team")]
        out.append(found.sort_values("row").set_index("row")[columns].add_prefix(f"{side}__"))
    return pd.concat(out, axis=1)


def loop_join(fixtures, states):
    "La misma unión a mano: por partido y lado, recorrer los estados del equipo."
    by_team: dict = {}
    for league, team, day, elo in zip(states["league"], states["team"], states["date"], states["elo"], strict=True):
        by_team.setdefault((league, team), []).append((day, elo))
    rows = []
    for f in fixtures.itertuples():
        pair = []
        for team in (f.home_team, f.away_team):
            last = float("nan")
            for day, elo in by_team[f.league, team]:
                if day < f.date:
                    last = elo
            pair.append(last)
        rows.append(pair)
    return rows


def alternate(cases: dict, rounds: int) -> dict:
    "Segundos de cada caso, en rondas alternas: la mediana."
    spent = {name: [] for name in cases}
    for _ in range(rounds):
        for name, work in cases.items():
            start = time.perf_counter()
            work()
            spent[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in spent.items()}


def measure_join(history, asked, rounds: int) -> list[dict]:
    "La unión, con sus rivales."
    import numpy as np
    import pandas as pd

    from futbol_mlops.feature_store import offline_features, point_in_time_join, states_table

    table = states_table(history)
    plain = table.to_pandas()
    fixtures = pd.DataFrame(asked, columns=["league", "home_team", "away_team", "date"])
    part = fixtures.head(len(fixtures) // 50)
    ours, theirs, hand = point_in_time_join(fixtures, table), merge_asof_join(fixtures, plain), loop_join(part, plain)
    for side, i in (("home__elo", 0), ("away__elo", 1)):
        np.testing.assert_array_equal(ours[side].to_numpy(), theirs[side].to_numpy())
        np.testing.assert_array_equal(ours[side].to_numpy()[: len(part)], np.array(hand)[:, i])
    assert list(ours) == list(theirs)
    loop = "bucle de Python"
    cases = {"futbol_mlops (DuckDB ASOF)": lambda: point_in_time_join(fixtures, table), "pandas.merge_asof": lambda: merge_asof_join(fixtures, plain), loop: lambda: loop_join(part, plain),
             "futbol_mlops, con las variables de cada partido": lambda: offline_features(fixtures, table)}
    seconds = alternate(cases, rounds)
    seconds[loop] *= len(fixtures) / len(part)
    return [{"measure": "join", "name": name, "seconds": round(value, 4)} for name, value in seconds.items()]


def one_by_one(ask, questions) -> tuple[float, float]:
    "p50 y p99 de una consulta, en milisegundos."
    spent = []
    for question in questions:
        start = time.perf_counter()
        ask(*question)
        spent.append(1000 * (time.perf_counter() - start))
    cuts = statistics.quantiles(spent, n=100)
    return cuts[49], cuts[98]


def measure_lookup(history, asked, rounds: int, home: Path, url: str | None) -> list[dict]:
    "La consulta de los dos equipos de un partido, con sus rivales."
    import duckdb

    from futbol_mlops.feature_store import (
        RedisOnlineStore,
        SqliteOnlineStore,
        encoded_rows,
        offline_bytes,
        rows_version,
    )

    rows = encoded_rows(history)
    version = rows_version(rows)
    parquet = home / "teams.parquet"
    parquet.write_bytes(offline_bytes(history, version))
    with SqliteOnlineStore(home / "online.db", create=True) as store:
        store.sync(rows, version)
    sqlite, query = SqliteOnlineStore(home / "online.db"), "SELECT elo FROM read_parquet(?) WHERE league = ? AND team = ? AND date < ? ORDER BY date DESC LIMIT 1"

    def opening(*question):
        with SqliteOnlineStore(home / "online.db") as fresh:
            return fresh.features(*question)

    db = duckdb.connect()

    def from_parquet(league, home_team, away_team, day):
        return [db.execute(query, [str(parquet), league, team, day]).fetchone() for team in (home_team, away_team)]

    # nombre → (función, cuántas preguntas: las lentas, menos)
    cases = {"memoria (History)": (history.features, 1.0), "futbol_mlops (SQLite)": (sqlite.features, 1.0), "SQLite, abriendo cada vez": (opening, 0.2), "DuckDB sobre Parquet": (from_parquet, 0.02)}
    with contextlib.ExitStack() as stack:
        if url:
            redis = stack.enter_context(RedisOnlineStore(url))
            redis.sync(rows, version)
            cases["futbol_mlops (Redis)"] = (redis.features, 1.0)
        for question in asked[:200]:
            expected = history.features(*question)
            assert all(ask(*question) == expected for name, (ask, _) in cases.items() if name != "DuckDB sobre Parquet"), question
        spent = {name: [] for name in cases}
        for _ in range(rounds):
            for name, (ask, share) in cases.items():
                spent[name].append(one_by_one(ask, asked[: max(20, int(2000 * share))]))
    return [{"measure": "lookup", "name": name, "p50_ms": round(statistics.median(p[0] for p in pairs), 4), "p99_ms": round(statistics.median(p[1] for p in pairs), 4)} for name, pairs in spent.items()]


def measure_materialize(history, home: Path, url: str | None) -> list[dict]:
    "Llenar un almacén vacío, repetir sin cambios y añadir una jornada, en segundos."
    from futbol_mlops.feature_store import RedisOnlineStore, SqliteOnlineStore, encoded_rows

    rows = encoded_rows(history)
    keys = sorted(rows, key=lambda key: key[2])
    before = {key: rows[key] for key in keys[:-20]}
    out = []
    for name, store in (("SQLite", SqliteOnlineStore(home / "fill.db", create=True)), *([("Redis", RedisOnlineStore(url))] if url else [])):
        with store:
            store.sync({}, "vacío")
            times = []
            for content in (before, before, rows):
                start = time.perf_counter()
                store.sync(content, "medida")
                times.append(round(time.perf_counter() - start, 3))
        out.append({"measure": "sync", "name": name, "fill_s": times[0], "again_s": times[1], "matchday_s": times[2]})
    return out


def run(rounds: int) -> list[dict]:
    "Todas las medidas."
    history, asked = make_league(FIXTURES, STATES)
    with tempfile.TemporaryDirectory() as tmp, contextlib.ExitStack() as stack:
        url = stack.enter_context(redis_server(Path(tmp))) if shutil.which("redis-server") else None
        return measure_join(history, asked, rounds) + measure_lookup(history, asked, rounds, Path(tmp), url) + measure_materialize(history, Path(tmp), url)


def table(rows: list[dict]) -> str:
    "Las medidas, para leerlas."
    lines = [f"{f'unión de {FIXTURES} partidos con {STATES} estados':<52}{'segundos':>10}"]
    lines += [f"{r['name']:<52}{r['seconds']:>10.3f}" for r in rows if r["measure"] == "join"]
    lines += ["", f"{'consulta de los dos equipos de un partido':<52}{'p50 ms':>10}{'p99 ms':>10}"]
    lines += [f"{r['name']:<52}{r['p50_ms']:>10.4f}{r['p99_ms']:>10.4f}" for r in sorted((r for r in rows if r["measure"] == "lookup"), key=lambda r: r["p50_ms"])]
    lines += ["", f"{f'poner al día {STATES} estados (segundos)':<42}{'llenar':>10}{'repetir':>10}{'jornada':>10}"]
    lines += [f"{r['name']:<42}{r['fill_s']:>10.2f}{r['again_s']:>10.2f}{r['matchday_s']:>10.2f}" for r in rows if r["measure"] == "sync"]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Mide el almacén de variables junto a otras formas de hacer lo mismo.")
    parser.add_argument("--quick", action="store_true", help="menos de 45 segundos")
    parser.add_argument("--json", action="store_true", help="escribe JSON")
    args = parser.parse_args()
    rounds = 3 if args.quick else 7
    rows = run(rounds)
    by_name = {(r["measure"], r["name"]): r for r in rows}
    join, lookup = by_name["join", "futbol_mlops (DuckDB ASOF)"]["seconds"], by_name["lookup", "futbol_mlops (SQLite)"]["p50_ms"]
    met = join <= JOIN_TARGET and lookup <= LOOKUP_TARGET
    if args.json:
        print(json.dumps({"fixtures": FIXTURES, "states": STATES, "cpus": os.cpu_count(), "rounds": rounds, "join_target_s": JOIN_TARGET,
                          "lookup_target_ms": LOOKUP_TARGET, "met": met, "rows": rows}, ensure_ascii=False, indent=2))
    else:
        print(table(rows))
        print(f"\nMediana de {rounds} rondas alternas, {os.cpu_count()} CPU. El bucle se mide con la quincuagésima parte y se extrapola.")
        if not any(r["name"].endswith("(Redis)") for r in rows):
            print("Sin Redis: falta redis-server. En Debian: sudo apt-get install redis-server")
        print(f"Objetivo de {JOIN_TARGET} s la unión y {LOOKUP_TARGET} ms la consulta en SQLite: {'cumplido' if met else 'NO cumplido'}.")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
