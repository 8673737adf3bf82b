"El almacén de variables: las mismas cifras por las dos puertas, nada del futuro, nada a medias. Redis es de verdad."
import contextlib
import datetime as dt
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from conftest import missing

from futbol_mlops import feature_store
from futbol_mlops.bundle import write_bundle
from futbol_mlops.config import Settings
from futbol_mlops.data import load_matches
from futbol_mlops.feature_store import (
    HEAD_TO_HEAD,
    MATCH,
    STORED,
    TEAM_STATE,
    FeatureDefinition,
    RedisOnlineStore,
    SqliteOnlineStore,
    StoreError,
    active_teams,
    check_views,
    decode_state,
    each_state,
    encode_state,
    encoded_rows,
    last_played,
    list_features,
    materialize,
    offline_features,
    offline_version,
    open_online_store,
    playing_days,
    point_in_time_join,
    read_offline,
    rows_version,
    stale_teams,
    states_tables,
)
from futbol_mlops.features import FEATURES, MEETINGS, TeamState, UnknownTeam, build_features

CLI = Path(sys.executable).parent / "futbol-mlops"
DERBY = ("SP1", "Betis", "Sevilla")


def start_redis(folder: Path) -> tuple[subprocess.Popen, str]:
    "Un redis-server en un puerto libre de esta máquina, sin disco; devuelve el proceso y su dirección."
    import redis

    for _ in range(5):  # otro puede quedarse el puerto entre que se elige y se usa
        with socket.create_server(("127.0.0.1", 0)) as s:
            port = s.getsockname()[1]
        server = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while server.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(redis.ConnectionError), redis.Redis(port=port) as client:
                client.ping()
                return server, f"redis://127.0.0.1:{port}/0"
            time.sleep(0.02)
        server.kill()
        server.wait()
    raise RuntimeError("redis-server no arranca")


@pytest.fixture
def redis_server(tmp_path):
    if not shutil.which("redis-server"):
        missing("Falta redis-server", "en Debian o Ubuntu, sudo apt-get install redis-server; en macOS, brew install redis")
    server, url = start_redis(tmp_path)
    yield server, url
    server.terminate()
    server.wait(10)


@pytest.fixture(params=["sqlite", "redis"])
def settings(request, tmp_path) -> Settings:
    "Una carpeta vacía y su almacén en línea: primero SQLite, después Redis."
    url = request.getfixturevalue("redis_server")[1] if request.param == "redis" else None
    return Settings(home=tmp_path / "home", online_url=url)


@pytest.fixture(scope="module")
def matches():
    return load_matches()


@pytest.fixture(scope="module")
def history(matches):
    return build_features(matches)[1]


@pytest.fixture(scope="module")
def small(matches):
    "Dos temporadas de LaLiga: las pruebas que escriben muchas veces no necesitan más."
    return matches[(matches["league"] == "SP1") & (matches["season"] < "2014")].reset_index(drop=True)


def contents(settings: Settings) -> dict:
    with open_online_store(settings) as store:
        return store.rows()


# --- declaraciones


def test_every_feature_is_declared():
    check_views()
    assert [f.name for f in TEAM_STATE.features] == list(TeamState._fields)
    assert [f.name for f in MATCH.features] == list(FEATURES)
    for row in list_features():
        assert row["description"] and row["owner"].startswith("equipo de ") and (row["max_age"] is None or row["max_age"] > 0), row


@pytest.mark.parametrize("features, said", [
    (TEAM_STATE.features[1:], f"{TEAM_STATE.features[0].name} (declarado no"),
    ((*TEAM_STATE.features, FeatureDefinition("injuries", "int64", "lesionados")), "injuries (declarado int64, en el código no)"),
    ((FeatureDefinition("date", "double", "día"), *TEAM_STATE.features[1:]), "date (declarado double, en el código date32)"),
    (TEAM_STATE.features[::-1], "cambia el orden"),
])
def test_a_wrong_declaration_is_named(features, said):
    with pytest.raises(StoreError) as e:
        check_views([replace(TEAM_STATE, features=tuple(features))])
    assert said in str(e.value)


def test_nothing_is_materialized_with_an_undeclared_feature(settings, small, monkeypatch):
    monkeypatch.setattr(feature_store.check_views, "__defaults__", ([replace(TEAM_STATE, features=TEAM_STATE.features[:-1]), HEAD_TO_HEAD, MATCH],))
    with pytest.raises(StoreError, match=rf"{TEAM_STATE.features[-1].name} \(declarado no"):
        materialize(settings, small)
    assert not settings.home.exists()


def test_a_state_survives_the_trip_to_text(history):
    for view, _, _, state in each_state(history):
        back = decode_state(view, encode_state(state))
        assert back == state and [type(v) for v in back] == [type(v) for v in state]
        assert view != HEAD_TO_HEAD.name or len(state.margins) <= MEETINGS


def test_parquet_gives_back_the_very_states(history):
    "Cada grupo, leído de su tabla, es lo que era; también lo que no es plano."
    tables = states_tables(history)
    for view in STORED:
        rows = tables[view.name].column("date").combine_chunks()
        found = feature_store._states_at(view, tables[view.name], pa.array(range(len(rows)), pa.int64()))
        assert found == [state for name, _, _, state in each_state(history) if name == view.name]


# --- la unión


def test_join_keeps_every_row_and_looks_strictly_back(matches, history):
    shuffled = matches.sample(frac=1, random_state=3)
    joined = point_in_time_join(shuffled, states_tables(history))
    assert list(joined.index) == list(shuffled.index)
    met = joined.dropna(subset=["pair__date"])
    assert len(met) > 6000 and (met["pair__date"] < met["date"].dt.date).all()
    pd.testing.assert_frame_equal(joined[shuffled.columns], shuffled)
    for side in ("home", "away"):
        seen = joined.dropna(subset=[f"{side}__date"])
        assert len(seen) > 7400 and (seen[f"{side}__date"] < seen["date"].dt.date).all()
        for m in seen.iloc[::701].itertuples():
            states = history.states[m.league][getattr(m, f"{side}_team")]
            assert max(s.date for s in states if s.date < m.date.date()) == getattr(m, f"{side}__date")


@pytest.mark.parametrize("ask", ["day", "datetime", "evening", "zone", "text"])
def test_a_match_of_the_same_day_is_not_known(small, ask):
    _, history = build_features(small)
    m = small.iloc[-1]
    day = m["date"]
    asked = {"day": day.date(), "datetime": day, "evening": day + pd.Timedelta(hours=21), "zone": (day + pd.Timedelta(hours=23)).tz_localize("Europe/Madrid"), "text": str(day.date())}[ask]
    fixture = pd.DataFrame([{"league": m["league"], "home_team": m["home_team"], "away_team": m["away_team"], "kickoff": asked}])
    table = states_tables(history)
    assert point_in_time_join(fixture, table, "kickoff")["home__date"].iloc[0] < day.date()
    assert tuple(offline_features(fixture, table, "kickoff").iloc[0]) == history.features(m["league"], m["home_team"], m["away_team"], day.date())
    tomorrow = fixture.assign(kickoff=day + pd.Timedelta(days=1))
    assert point_in_time_join(tomorrow, table, "kickoff")["home__date"].iloc[0] == day.date()


@pytest.mark.parametrize("change, said", [
    (lambda f: f.drop(columns="away_team"), "faltan las columnas away_team"),
    (lambda f: f.assign(date=f["date"].where(f.index != 2)), "sin date"),
    (lambda f: f.assign(home_team=f["home_team"].where(f.index != 2)), "sin home_team"),
    (lambda f: f.assign(date="el sábado"), "«el sábado»"),
    (lambda f: f.assign(date="07/05/2016"), "«07/05/2016»"),
    (lambda f: f.assign(date=True), "no se entiende como fechas"),
])
def test_bad_fixtures_are_explained(small, history, change, said):
    with pytest.raises(StoreError) as e:
        point_in_time_join(change(small.head(5)), states_tables(history))
    assert said in str(e.value)


def test_no_fixtures_is_not_an_error(small, history):
    assert list(offline_features(small.head(0), states_tables(history)).columns) == list(FEATURES)


def test_an_unknown_team_has_no_features(small, history):
    with pytest.raises(UnknownTeam, match="«Alcorcón»"):
        offline_features(small.head(3).assign(away_team="Alcorcón"), states_tables(history))


# --- las dos puertas, la misma respuesta


def questions(matches) -> list[tuple]:
    "Partidos jugados, por jugar, del primer día de todos, de antes de todo y de quien vuelve tras años fuera."
    asked = [(m.league, m.home_team, m.away_team, m.date.date()) for m in matches.iloc[::151].itertuples()]
    asked += [(m.league, m.home_team, m.away_team, m.date.date()) for m in (*matches.head(12).itertuples(), *matches.tail(12).itertuples())]
    asked += [("E0", "Arsenal", "Chelsea", day) for day in (dt.date(1999, 1, 1), dt.date(2026, 8, 22), dt.date(2030, 2, 1), dt.date(2020, 8, 4), dt.date(2020, 8, 5))]
    return [*asked, ("E0", "Brentford", "Leeds", dt.date(2014, 3, 1)), ("SP1", "Zaragoza", "Real Madrid", dt.date(2026, 9, 1))]


def test_online_offline_and_memory_agree_exactly(settings, matches, history):
    materialize(settings, matches)
    asked = questions(matches)
    offline = offline_features(pd.DataFrame(asked, columns=["league", "home_team", "away_team", "date"]), read_offline(settings))
    with open_online_store(settings) as store:
        for question, values in zip(asked, offline.itertuples(index=False), strict=True):
            expected = history.features(*question)
            assert store.features(*question) == expected, question
            assert tuple(values) == expected, question


def test_every_shipped_match_is_joined_as_it_was_built(matches, history):
    X, _ = build_features(matches)
    pd.testing.assert_frame_equal(offline_features(matches, states_tables(history)), X, check_exact=True)


def test_past_is_answered_with_what_was_known_then(settings, matches):
    "Lo que se sabía un día no cambia por lo que se jugó después."
    cut = pd.Timestamp("2016-05-07")
    materialize(settings, matches[matches["date"] < cut])
    with open_online_store(settings) as store:
        then = store.features("E0", "Leicester", "Everton", cut.date())
    materialize(settings, matches)
    with open_online_store(settings) as store:
        assert store.features("E0", "Leicester", "Everton", cut.date()) == then
        assert store.features("E0", "Leicester", "Everton", cut.date() + dt.timedelta(days=1)) != then


def test_online_refuses_what_it_does_not_know(settings, small):
    materialize(settings, small)
    with open_online_store(settings) as store:
        with pytest.raises(UnknownTeam, match="«Alcorcón»"):
            store.features("SP1", "Betis", "Alcorcón", dt.date(2014, 1, 1))
        with pytest.raises(UnknownTeam, match="«Arsenal»"):
            store.features("E0", "Arsenal", "Chelsea", dt.date(2014, 1, 1))


def test_kickoff_with_an_hour_is_its_day(settings, small):
    materialize(settings, small)
    with open_online_store(settings) as store:
        assert store.features(*DERBY, dt.datetime(2013, 11, 24, 21)) == store.features(*DERBY, dt.date(2013, 11, 24))


def test_the_bundle_written_from_the_store_is_the_same(settings, matches, tmp_path):
    matches = matches.sort_values(["league", "home_team", "date"]).sort_values("date", kind="stable")  # el orden dentro de un día no importa
    materialize(settings, matches)
    history = feature_store.History(states={league: dict(sorted(teams.items())) for league, teams in sorted(build_features(matches)[1].states.items())})
    with open_online_store(settings) as store:
        stored = write_bundle(tmp_path / "a", {"kind": "base_rate", "probabilities": [0.4, 0.3, 0.3]}, store.history(), {"version": "1.0.0"})
    built = write_bundle(tmp_path / "b", {"kind": "base_rate", "probabilities": [0.4, 0.3, 0.3]}, history, {"version": "1.0.0"})
    assert (stored / "history.json").read_bytes() == (built / "history.json").read_bytes()


# --- materialize


def test_materialize_twice_changes_nothing(settings, small):
    first = materialize(settings, small)
    files = [settings.features_path / "current", *(settings.features_path / first.version / f"{view.name}.parquet" for view in STORED)]
    before, stamps = contents(settings), [f.stat().st_mtime_ns for f in files]
    assert (first.rows, first.added, first.changed, first.removed) == (len(before), len(before), 0, 0)
    again = materialize(settings, small)
    assert again == first._replace(added=0) and contents(settings) == before
    assert [f.stat().st_mtime_ns for f in files] == stamps, "no se reescribe lo que no cambia"


def test_only_new_rows_are_written(settings, small):
    materialize(settings, small.iloc[:-10])
    grown = materialize(settings, small)
    assert (grown.added, grown.changed, grown.removed) == (30, 0, 0), "dos equipos y su pareja por partido"
    fresh = encoded_rows(build_features(small)[1])
    assert contents(settings) == fresh and grown.version == rows_version(fresh) == offline_version(settings)


def test_a_correction_rebuilds_what_comes_after(settings, small):
    materialize(settings, small)
    before = contents(settings)
    fixed = small.copy()
    row = small.index[small["season"] == "2013-14"][0]
    fixed.loc[row, ["home_goals", "away_goals"]] = 9, 0
    done = materialize(settings, fixed)
    after, day = contents(settings), str(small.loc[row, "date"].date())
    assert after == encoded_rows(build_features(fixed)[1])
    moved = {key for key in before if before[key] != after[key]}
    assert done.changed == len(moved) > 100 and done.added == done.removed == 0
    assert min(key[3] for key in moved) == day, "lo anterior a la corrección no se toca"
    teams = {small.loc[row, "home_team"], small.loc[row, "away_team"]}
    assert {key[2] for key in moved if key[3] == day and key[0] == "team_state"} >= teams and {key[2] for key in moved if key[0] == "head_to_head"} == {"|".join(sorted(teams))}


def test_a_match_that_was_never_played_goes_away(settings, small):
    materialize(settings, small)
    done = materialize(settings, small.iloc[:-1])
    assert done.removed == 3 and contents(settings) == encoded_rows(build_features(small.iloc[:-1])[1])


def test_a_league_that_goes_away_is_unknown_again(settings, matches, small):
    materialize(settings, pd.concat([small, matches[matches["league"] == "E0"].head(20)], ignore_index=True))
    materialize(settings, small)
    with open_online_store(settings) as store, pytest.raises(UnknownTeam):
        store.features("E0", "Arsenal", "Chelsea", dt.date(2014, 1, 1))


def test_no_matches_empties_nothing(settings, small):
    materialize(settings, small)
    before = contents(settings)
    with pytest.raises(StoreError, match="ningún partido"):
        materialize(settings, small.head(0))
    assert contents(settings) == before


def test_matches_out_of_order_leave_both_stores_alone(settings, small):
    materialize(settings, small.iloc[:-50])
    before, version = contents(settings), offline_version(settings)
    with pytest.raises(ValueError, match="Ordena los partidos por fecha"):
        materialize(settings, small.iloc[::-1])
    assert contents(settings) == before and offline_version(settings) == version


def test_a_damaged_row_is_mended(settings, small):
    "Se compara con lo que hay, no con lo que se cree que hay."
    materialize(settings, small)
    with open_online_store(settings) as store:
        rows = store.rows()
        key = max(rows)
        store.sync({k: v for k, v in rows.items() if k != key}, "rota")
    done = materialize(settings, small)
    assert done.added == 1 and contents(settings) == rows


def test_reader_sees_the_old_store_or_the_new_one(settings, small):
    "Mientras un proceso alterna dos contenidos, otro pregunta sin parar: cada respuesta es de uno de los dos, y con sus dos equipos."
    fixed = small.assign(home_goals=small["home_goals"] + 1)
    kickoff = small["date"].max().date() + dt.timedelta(days=1)
    allowed = {build_features(table)[1].features(*DERBY, kickoff) for table in (small, fixed)}
    assert len(allowed) == 2
    materialize(settings, small)
    stop, seen, problems = threading.Event(), set(), []

    def ask():
        try:
            with open_online_store(settings) as store:
                while not stop.is_set():
                    seen.add(store.features(*DERBY, kickoff))
        except Exception as e:  # lo cuenta la prueba, no el hilo
            problems.append(e)

    readers = [threading.Thread(target=ask) for _ in range(3)]
    for reader in readers:
        reader.start()
    for i in range(6):
        materialize(settings, fixed if i % 2 == 0 else small)
    stop.set()
    for reader in readers:
        reader.join()
    assert not problems and seen == allowed


def test_one_store_serves_many_threads(settings, small):
    materialize(settings, small)
    kickoff = dt.date(2014, 1, 10)
    expected, answers = build_features(small)[1].features(*DERBY, kickoff), []
    with open_online_store(settings) as store:
        threads = [threading.Thread(target=lambda: answers.extend(store.features(*DERBY, kickoff) for _ in range(50))) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert len(answers) == 400 and set(answers) == {expected}


ALTERNATE = """
import sys
from futbol_mlops.config import Settings
from futbol_mlops.data import load_matches
from futbol_mlops.feature_store import materialize
matches = load_matches()
small = matches[(matches["league"] == "SP1") & (matches["season"] < "2014")].reset_index(drop=True)
fixed = small.assign(home_goals=small["home_goals"] + 1)
settings = Settings(home=sys.argv[1], online_url=sys.argv[2] or None)
while True:
    for table in (fixed, small):
        materialize(settings, table)
        print("x", flush=True)
"""


def test_killed_at_any_moment_the_store_is_whole(settings, small):
    "kill -9 en instantes distintos de un proceso que no para de escribir: siempre queda uno de los dos contenidos, y se puede seguir."
    fixed = small.assign(home_goals=small["home_goals"] + 1)
    whole = {version: rows for table in (small, fixed) for rows in [encoded_rows(build_features(table)[1])] for version in [rows_version(rows)]}
    materialize(settings, small)
    for i in range(4):
        with subprocess.Popen([sys.executable, "-c", ALTERNATE, str(settings.home), settings.online_url or ""], stdout=subprocess.PIPE) as writer:
            writer.stdout.readline()
            time.sleep(0.013 + 0.031 * i)
            writer.kill()
        assert writer.returncode == -signal.SIGKILL
        with open_online_store(settings) as store:
            assert store.rows() == whole[store.version()]
        tables = read_offline(settings)
        assert (len(tables["team_state"]), len(tables["head_to_head"])) == (2 * len(small), len(small)) and offline_version(settings) in whole
    assert materialize(settings, small).version in whole
    assert contents(settings) == encoded_rows(build_features(small)[1])


HALF = """
import os, signal, sys
from futbol_mlops.config import Settings
from futbol_mlops.data import load_matches
from futbol_mlops.feature_store import SqliteOnlineStore, materialize
def write(self, db, changes, version):
    for i, (key, text) in enumerate(changes.put.items()):
        db.execute("INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?)", (*key, text))
        if i > len(changes.put) / 2:
            os.kill(os.getpid(), signal.SIGKILL)
SqliteOnlineStore._write = write
materialize(Settings(home=sys.argv[1]), load_matches())
"""


def test_killed_with_half_the_rows_written(small, tmp_path):
    settings = Settings(home=tmp_path)
    materialize(settings, small)
    before, version = contents(settings), offline_version(settings)
    killed = subprocess.run([sys.executable, "-c", HALF, str(tmp_path)], env=os.environ | {"FUTBOL_ONLINE_URL": f"sqlite:///{tmp_path}/features/online.db"})
    assert killed.returncode == -signal.SIGKILL
    assert contents(settings) == before and offline_version(settings) == version


# --- lo que puede ir mal


def test_default_store_is_a_file_in_home(tmp_path):
    assert Settings(home=tmp_path).online_store_url == f"sqlite:///{tmp_path}/features/online.db"
    assert Settings(home=tmp_path, online_url="redis://cache:6379/1").online_store_url == "redis://cache:6379/1"


@pytest.mark.parametrize("url", ["mysql://futbol:secreto@host/db", "sqlite:///", "sqlite:online.db", "redis", "/srv/online.db", "redis://futbol:secreto@host:puerto/0"])
def test_a_bad_address_is_explained_without_its_password(tmp_path, url):
    with pytest.raises(StoreError) as e:
        open_online_store(Settings(home=tmp_path, online_url=url))
    assert "FUTBOL_ONLINE_URL" in str(e.value) and "se esperaba" in str(e.value).lower() and "secreto" not in str(e.value)


@pytest.mark.parametrize("name", ["con espacios y ñ", "100%", "a?b#c"])
def test_odd_folder_names(tmp_path, small, name):
    settings = Settings(home=tmp_path / name)
    done = materialize(settings, small.head(20))
    assert done.rows == 60 and len(contents(settings)) == 60 and (tmp_path / name / "features" / "online.db").exists()


def test_nothing_to_read_yet(tmp_path):
    settings = Settings(home=tmp_path / "no")
    with pytest.raises(StoreError, match="features materialize"):
        open_online_store(settings)
    with pytest.raises(StoreError, match="features materialize"):
        read_offline(settings)
    assert not settings.home.exists(), "preguntar no crea nada"


def test_an_empty_redis_says_so(redis_server, tmp_path):
    with open_online_store(Settings(home=tmp_path, online_url=redis_server[1])) as store, pytest.raises(StoreError, match="está vacío"):
        store.features(*DERBY, dt.date(2014, 1, 1))


def test_a_file_that_is_not_a_store(small, tmp_path):
    settings = Settings(home=tmp_path)
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "online.db").write_bytes(b"esto no es SQLite, pero ocupa lo suyo " * 50)
    with pytest.raises(StoreError, match="bórralo"):
        materialize(settings, small)
    assert not settings.features_path.exists()
    (tmp_path / "features" / "online.db").unlink()
    assert materialize(settings, small).rows == len(contents(settings))


def test_a_damaged_offline_store_is_explained_and_mended(small, tmp_path):
    settings = Settings(home=tmp_path)
    done = materialize(settings, small)
    file = settings.features_path / done.version / "team_state.parquet"
    good = file.read_bytes()
    for damage in (lambda: file.write_bytes(good[:-100]), lambda: file.write_bytes(b""), file.unlink):
        damage()
        with pytest.raises(StoreError, match="repitiendo «futbol-mlops features materialize»"):
            read_offline(settings)
        assert materialize(settings, small) == done._replace(added=0)
        assert len(read_offline(settings)["team_state"]) == 2 * len(small)


def test_only_the_last_two_versions_stay(small, tmp_path):
    settings = Settings(home=tmp_path)
    versions = [materialize(settings, small.iloc[:n]).version for n in (50, 60, 70, 80)]
    assert sorted(p.name for p in settings.features_path.iterdir()) == sorted([*versions[-2:], "current"])
    assert offline_version(settings) == versions[-1]


def test_a_store_of_another_version_is_not_read(settings, small, monkeypatch):
    materialize(settings, small)
    monkeypatch.setattr(feature_store, "SCHEMA", feature_store.SCHEMA.replace("team_state.elo double", "team_state.glicko double"))
    said = "lo escribió otra versión del programa. Le falta: team_state.glicko double. Le sobra: team_state.elo double"
    with open_online_store(settings) as store, pytest.raises(StoreError, match=said):
        store.features(*DERBY, dt.date(2014, 1, 1))
    with pytest.raises(StoreError, match=said):
        read_offline(settings)
    assert materialize(settings, small).added == 0  # las filas son las mismas: solo cambia lo que dicen ser
    with open_online_store(settings) as store:
        store.features(*DERBY, dt.date(2014, 1, 1))


def test_a_locked_sqlite_gives_up_and_says_so(small, tmp_path):
    settings = Settings(home=tmp_path)
    materialize(settings, small.head(50))
    path = tmp_path / "features" / "online.db"
    with SqliteOnlineStore(path) as holder:
        busy = holder._connect("rw")
        busy.execute("BEGIN IMMEDIATE")
        store = SqliteOnlineStore(path, timeout=0.1)
        with pytest.raises(StoreError, match="Otro proceso está escribiendo"):
            store.sync({}, "nada")
        assert len(store.rows()) == 150, "leer no espera a quien escribe"
        store.close()


def test_redis_down_touches_nothing(redis_server, small, tmp_path):
    server, url = redis_server
    settings = Settings(home=tmp_path / "home", online_url=url)
    materialize(settings, small.iloc[:-10])
    before, version = sorted(settings.home.rglob("*")), offline_version(settings)
    store = open_online_store(settings)
    server.terminate()
    server.wait(10)
    with pytest.raises(StoreError, match="Comprueba que Redis está en marcha"):
        store.features(*DERBY, dt.date(2014, 1, 1))
    with pytest.raises(StoreError, match="Comprueba que Redis está en marcha"):
        materialize(settings, small)
    assert sorted(settings.home.rglob("*")) == before and offline_version(settings) == version


def test_a_redis_that_forgot_everything_is_filled_again(redis_server, small, tmp_path):
    settings = Settings(home=tmp_path, online_url=redis_server[1])
    first = materialize(settings, small)
    with open_online_store(settings) as store:
        store.client.flushall()
    assert materialize(settings, small) == first


def test_a_redis_that_evicts_is_found_out(redis_server, small, tmp_path):
    "Un equipo desalojado no se sirve como recién ascendido."
    settings = Settings(home=tmp_path, online_url=redis_server[1])
    materialize(settings, small)
    with open_online_store(settings) as store:
        for view, entity in (("team_state", "Betis"), ("head_to_head", "Betis|Sevilla")):
            store.client.delete(feature_store.redis_key(view, "SP1", entity))
            with pytest.raises(StoreError, match=f"ha perdido los estados de {re.escape(entity)}"):
                store.features(*DERBY, dt.date(2014, 4, 1))
            materialize(settings, small)
    assert contents(settings) == encoded_rows(build_features(small)[1])


def test_two_writers_on_redis_do_not_mix(redis_server, small, tmp_path):
    "Otro proceso escribe entre que se compara y se confirma: se abandona, y queda lo del otro."
    settings = Settings(home=tmp_path, online_url=redis_server[1])
    materialize(settings, small)
    rows = encoded_rows(build_features(small.iloc[:-1])[1])

    class Slow(RedisOnlineStore):
        def _write(self, pipe, changes, rows, version):
            other = RedisOnlineStore(self.url)
            other.sync(encoded_rows(build_features(small.iloc[:-2])[1]), "otra")
            other.close()
            super()._write(pipe, changes, rows, version)

    with Slow(settings.online_url) as store, pytest.raises(StoreError, match="no se ha tocado nada"):
        store.sync(rows, "mía")
    assert contents(settings) == encoded_rows(build_features(small.iloc[:-2])[1])


# --- frescura


def test_the_clock_stops_in_summer():
    assert playing_days(dt.date(2024, 5, 19), dt.date(2024, 8, 17)) == 2
    assert playing_days(dt.date(2024, 6, 1), dt.date(2024, 7, 1)) == 0
    assert playing_days(dt.date(2024, 5, 10), dt.date(2025, 8, 20)) == 5 + 273 + 5
    assert playing_days(dt.date(2024, 1, 1), dt.date(2024, 1, 31)) == 30


def test_stale_teams_are_named_and_relegated_ones_are_not(history):
    clock = {key: day for key, day in last_played(history).items() if key[0] == "E0"}
    assert len(active_teams(clock)) == 20 and ("E0", "Leicester") not in active_teams(clock)
    assert stale_teams(clock, dt.date(2026, 8, 30)) == []
    late = clock | {("E0", "Arsenal"): dt.date(2026, 3, 1)}
    assert [(row["team"], row["age"]) for row in stale_teams(late, dt.date(2026, 5, 20))] == [("Arsenal", 75)]
    assert len(stale_teams(clock, dt.date(2026, 9, 30))) == 20
    assert stale_teams(clock, dt.date(2026, 9, 30), max_age=60) == []


# --- línea de órdenes


def run(*arguments, home, **env):
    return subprocess.run([CLI, *arguments], env=os.environ | {"COLUMNS": "160", "NO_COLOR": "1", "FUTBOL_HOME": str(home)} | env, capture_output=True, text=True, timeout=120)


def test_commands(tmp_path, history):
    assert run("features", "show", "E0", "Arsenal", home=tmp_path).returncode == 1
    done = run("features", "materialize", "--json", home=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)[0]["added"] == 15200 + 7600, done.stderr
    shown = json.loads(run("features", "show", "E0", "Leicester City", "--at", "2016-05-07", "--json", home=tmp_path).stdout)
    assert shown["date"] == "2016-05-01" and shown["elo"] == history.state_before("E0", "Leicester", dt.date(2016, 5, 7)).elo
    assert "aún no había jugado" in run("features", "show", "E0", "Leicester", "--at", "2001-01-01", home=tmp_path).stdout
    unknown = run("features", "show", "E0", "Alcorcón", home=tmp_path)
    assert unknown.returncode == 1 and "futbol-mlops data teams --league E0" in unknown.stderr and "Traceback" not in unknown.stderr
    wrong = run("features", "show", "E0", "Arsenal", "--at", "ayer", home=tmp_path)
    assert wrong.returncode == 2 and "AAAA-MM-DD" in wrong.stderr
    assert {f["feature"] for f in json.loads(run("features", "list", "--json", home=tmp_path).stdout)} == {f.name for view in (*STORED, MATCH) for f in view.features}


def test_status_tells_what_is_late(tmp_path, matches):
    settings = Settings(home=tmp_path)
    materialize(settings, matches[matches["league"] == "E0"])
    fine = run("features", "status", "--at", "2026-06-01", home=tmp_path)
    assert fine.returncode == 0, fine.stdout + fine.stderr
    late = run("features", "status", "--at", "2026-10-01", home=tmp_path)
    assert late.returncode == 1 and "los 20 de la liga" in late.stdout
    with open_online_store(settings) as store:
        store.sync(encoded_rows(build_features(matches)[1]), "otra")
    differ = run("features", "status", "--at", "2026-06-01", "--json", home=tmp_path)
    assert differ.returncode == 1 and "no guardan lo mismo" in differ.stderr and json.loads(differ.stdout)["online"] == "otra"


def test_cli_uses_redis_when_told(redis_server, tmp_path):
    url = redis_server[1]
    assert run("features", "materialize", home=tmp_path, FUTBOL_ONLINE_URL=url).returncode == 0
    assert not (tmp_path / "features" / "online.db").exists()
    shown = run("features", "show", "SP1", "Athletic", "--at", "2014-01-01", "--json", home=tmp_path, FUTBOL_ONLINE_URL=url)
    assert json.loads(shown.stdout)["team"] == "Ath Bilbao"
    bad = run("features", "materialize", home=tmp_path, FUTBOL_ONLINE_URL="redis://127.0.0.1:1/0")
    assert bad.returncode == 1 and "Comprueba que Redis está en marcha" in bad.stderr and "Traceback" not in bad.stderr
