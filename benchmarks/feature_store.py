"""Cuánto cuesta el almacén de variables, al lado de otras formas de hacer lo mismo.

Cada medida, con sus rivales en la misma ejecución. La unión: 50.000 partidos con 200.000 estados de equipo (y 100.000 de parejas), por
DuckDB (la del curso), `pandas.merge_asof` y un bucle que filtra la tabla, este con unos pocos y extrapolado. La consulta: los dos equipos de un partido antes de su
día, de SQLite y de Redis (los del curso), de la memoria, y de lo que se haría sin almacén: SQLite abriendo el fichero cada vez, o DuckDB
leyendo Parquet. Todas deben dar la misma respuesta, y se comprueba. Se alternan, y se da la mediana.

    python benchmarks/feature_store.py            un minuto
    python benchmarks/feature_store.py --quick    menos de 45 s
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
    "Cincuenta ligas de veinte equipos con marcadores al azar, hasta juntar los estados pedidos, y partidos por los que preguntar."
    from futbol_mlops.features import History

    rng, history = random.Random(7), History()
    leagues = {f"L{i:02}": [f"Equipo {i:02}-{j:02}" for j in range(20)] for i in range(50)}
    day, days = dt.date(2010, 8, 1), []
    for _ in range(states // 1000):
        day += dt.timedelta(days=rng.randint(3, 8))
        days.append(day)
        for league, teams in leagues.items():
            rng.shuffle(teams)
            for home, away in zip(teams[::2], teams[1::2], strict=True):
                history.add(league, home, away, day, rng.randint(0, 3), rng.randint(0, 3))
    asked = []
    for _ in range(fixtures):
        league = rng.choice(list(leagues))
        asked.append((league, *rng.sample(leagues[league], 2), rng.choice(days)))
    return history, asked


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


def merge_asof_join(fixtures, tables):
    "La misma unión con pandas: ordenar y unir, una vez por lado y otra por pareja."
    import pandas as pd

    pairs = [min(p) + "|" + max(p) for p in zip(fixtures["home_team"], fixtures["away_team"], strict=True)]
    left = fixtures.assign(row=range(len(fixtures)), kickoff=pd.to_datetime(fixtures["date"]), pair=pairs).sort_values("kickoff")
    ordered = {name: table.assign(known=pd.to_datetime(table["date"])).sort_values("known") for name, table in tables.items()}
    out = [fixtures]
    for side, name, key, mine in (("home", "team_state", "team", "home_team"), ("away", "team_state", "team", "away_team"), ("pair", "head_to_head", "pair", "pair")):
        found = pd.merge_asof(left[["league", mine, "kickoff", "row"]], ordered[name].rename(columns={key: mine}),
                              left_on="kickoff", right_on="known", by=["league", mine], allow_exact_matches=False)
        columns = [c for c in tables[name] if c not in ("league", key)]
        out.append(found.sort_values("row").set_index("row")[columns].add_prefix(f"{side}__"))
    return pd.concat(out, axis=1)


def loop_join(fixtures, states):
    "Lo que se escribe sin pensar: por partido y lado, filtrar la tabla de estados y quedarse con el último. Sin las parejas."
    rows = []
    for f in fixtures.itertuples():
        past = [states[(states["team"] == team) & (states["league"] == f.league) & (states["date"] < f.date)] for team in (f.home_team, f.away_team)]
        rows.append([found["elo"].iloc[-1] if len(found) else float("nan") for found in past])
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


def measure_join(history, tables, asked, rounds: int) -> list[dict]:
    "La unión, con sus rivales."
    import numpy as np
    import pandas as pd

    from futbol_mlops.feature_store import offline_features, point_in_time_join

    plain = {name: table.to_pandas() for name, table in tables.items()}
    fixtures = pd.DataFrame(asked, columns=["league", "home_team", "away_team", "date"])
    part, some = fixtures.head(20), fixtures.head(len(fixtures) // 5)
    ours, theirs, hand = point_in_time_join(fixtures, tables), merge_asof_join(fixtures, plain), loop_join(part, plain["team_state"])
    assert ours["pair__date"].fillna(dt.date.min).tolist() == theirs["pair__date"].fillna(dt.date.min).tolist()
    for side, i in (("home__elo", 0), ("away__elo", 1)):
        np.testing.assert_array_equal(ours[side].to_numpy(), theirs[side].to_numpy())
        np.testing.assert_array_equal(ours[side].to_numpy()[: len(part)], np.array(hand)[:, i])
    assert list(ours) == list(theirs)
    loop = "bucle de filtros (extrapolado)"
    cases = {"futbol_mlops (DuckDB ASOF)": lambda: point_in_time_join(fixtures, tables), "pandas.merge_asof": lambda: merge_asof_join(fixtures, plain),
             "pandas.merge_asof, desde Arrow": lambda: merge_asof_join(fixtures, {name: table.to_pandas() for name, table in tables.items()}),
             loop: lambda: loop_join(part, plain["team_state"]), f"offline_features, {len(some)} partidos": lambda: offline_features(some, tables),
             f"History ya en memoria, {len(some)} partidos": lambda: [history.features(*question) for question in asked[: len(some)]]}
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


def measure_lookup(history, tables, rows, asked, rounds: int, home: Path, url: str | None) -> list[dict]:
    "La consulta de los dos equipos de un partido, con sus rivales."
    import duckdb
    import pyarrow.parquet as pq

    from futbol_mlops.feature_store import RedisOnlineStore, SqliteOnlineStore, rows_version

    version = rows_version(rows)
    parquet = home / "teams.parquet"
    pq.write_table(tables["team_state"], parquet)
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


def measure_materialize(rows, home: Path, url: str | None) -> list[dict]:
    "Llenar un almacén vacío, repetir sin cambios y añadir una jornada, en segundos."
    from futbol_mlops.feature_store import RedisOnlineStore, SqliteOnlineStore

    keys = sorted(rows, key=lambda key: key[3])
    before = {key: rows[key] for key in keys[:-30]}
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
    from futbol_mlops.feature_store import encoded_rows, states_tables

    history, asked = make_league(FIXTURES, STATES)
    tables, rows = states_tables(history), encoded_rows(history)
    with tempfile.TemporaryDirectory() as tmp, contextlib.ExitStack() as stack:
        url = stack.enter_context(redis_server(Path(tmp))) if shutil.which("redis-server") else None
        return measure_join(history, tables, asked, rounds) + measure_lookup(history, tables, rows, asked, rounds, Path(tmp), url) + measure_materialize(rows, Path(tmp), url)


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
        print(f"\nMediana de {rounds} rondas alternas, {os.cpu_count()} CPU. El bucle se mide con 20 partidos y se extrapola.")
        if not any(r["name"].endswith("(Redis)") for r in rows):
            print("Sin Redis: falta redis-server. En Debian: sudo apt-get install redis-server")
        print(f"Objetivo de {JOIN_TARGET} s la unión y {LOOKUP_TARGET} ms la consulta en SQLite: {'cumplido' if met else 'NO cumplido'}.")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
