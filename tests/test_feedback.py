"Resultados: quién los puede mandar, qué queda anotado cuando varios lo hacen a la vez, y qué nota sale de ellos."
import asyncio
import datetime as dt
import json
import sqlite3
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from futbol_mlops.bundle import Bundle
from futbol_mlops.data import OUTCOMES
from futbol_mlops.evaluation import rank_probability_score, scores, weekly_interval
from futbol_mlops.features import History
from futbol_mlops.feedback import (
    Feedback,
    bet_profits,
    feedback_router,
    flat_stake,
    joined_results,
    log_loss_by_match,
    performance,
    rps_by_match,
    weekly_ratio_interval,
)
from futbol_mlops.journal import LogError, PostgresLog
from futbol_mlops.observability import Metrics
from futbol_mlops.serving import LOCAL, ApiProblem, create_api

RESULT = {"league": "SP1", "home_team": "Betis", "away_team": "Sevilla", "kickoff": "2024-09-21", "home_goals": 2, "away_goals": 1}
ODDS = {"home_win": 2.2, "draw": 3.3, "away_win": 3.4}
JSON = "application/json"


@pytest.fixture(scope="module")
def bundle():
    history = History()
    for day, home, away in ((1, "Betis", "Sevilla"), (7, "Sevilla", "Getafe"), (14, "Getafe", "Betis"), (14, "Valencia", "Sevilla")):
        history.add("SP1", home, away, dt.date(2024, 9, day), 2, 0)
    return Bundle({"name": "futbol-1x2", "version": "0.1.0"}, {"kind": "base_rate", "probabilities": [0.45, 0.25, 0.3]}, history)


class Doorman:
    "Deja pasar a quien tiene el permiso, y apunta cuál se pidió y cuánto se cobró."

    def __init__(self, *scopes):
        self.scopes, self.asked, self.charged = scopes, [], 0

    def identify(self, headers, scope):
        self.asked.append(scope)
        if scope not in self.scopes:
            raise ApiProblem(403, "forbidden", "Sin permiso", f"Hace falta el permiso {scope}.")
        return LOCAL

    async def charge(self, client, predictions):
        self.charged += predictions


@pytest.fixture
def feedback(log):
    return Feedback(log)


def api(bundle, feedback, gate=None):
    return TestClient(create_api(bundle, feedback.store, Metrics(process=False), gate, routers=[feedback_router(feedback)]))


@pytest.fixture
def client(bundle, feedback):
    return api(bundle, feedback)


def prediction(prediction_id, created_at="2024-09-20T10:00:00.000+00:00", **changes) -> dict:
    return {"prediction_id": prediction_id, "created_at": created_at, "league": "SP1", "home_team": "Betis", "away_team": "Sevilla", "kickoff": "2024-09-21",
            "features_as_of": "2024-09-14", "features": [0.1], "home_win": 0.45, "draw": 0.25, "away_win": 0.3, "outcome": "home_win",
            "model_name": "futbol-1x2", "model_version": "0.1.0", "warnings": [], "request_id": "r", "client": "local", **changes}


def report(**changes) -> dict:
    return {"league": "SP1", "home_team": "Betis", "away_team": "Sevilla", "day": "2024-09-21", "kickoff": "2024-09-21", "home_goals": 2, "away_goals": 1, "odds": None, **changes}


# --- lo que se admite -------------------------------------------------------------------------------------------------

WRONG = {
    "sin jugar": ({"kickoff": "2999-01-01"}, "#/kickoff", "no se ha jugado"),
    "antes de todo": ({"kickoff": "0001-01-01T00:00:00+14:00"}, "#/kickoff", "primer partido conocido"),
    "equipo": ({"home_team": "Betiss"}, "#/home_team", "«Betis»"),
    "liga": ({"league": "XX"}, "#/league", "SP1"),
    "contra sí mismo": ({"away_team": "Real Betis"}, "#/away_team", "sí mismo"),
    "goles de texto": ({"home_goals": "2"}, "#/home_goals", "de 0 a 20"),
    "goles booleanos": ({"home_goals": True}, "#/home_goals", "de 0 a 20"),
    "medio gol": ({"away_goals": 1.5}, "#/away_goals", "de 0 a 20"),
    "21 goles": ({"away_goals": 21}, "#/away_goals", "de 0 a 20"),
    "menos un gol": ({"away_goals": -1}, "#/away_goals", "de 0 a 20"),
    "goles sin fin": ({"away_goals": 10**400}, "#/away_goals", "de 0 a 20"),
    "probabilidades": ({"odds": {"home_win": 0.5, "draw": 0.3, "away_win": 0.2}}, "#/odds/home_win", "mayor que 1"),
    "cuotas increíbles": ({"odds": {"home_win": 50, "draw": 50, "away_win": 50}}, "#/odds", "suman 0.06"),
    "media cuota": ({"odds": {"home_win": 2.0, "draw": 3.0}}, "#/odds/away_win", "falta"),
    "inyección": ({"home_team": "x'); DROP TABLE results; --"}, "#/home_team", "desconocido"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(client, feedback, case):
    changes, pointer, text = WRONG[case]
    for path, body, where in (("/v1/results", {**RESULT, **changes}, pointer),
                              ("/v1/results/batch", {"results": [RESULT, {**RESULT, **changes}]}, f"#/results/1{pointer[1:]}")):
        answer = client.post(path, json=body)
        assert answer.status_code == 422, answer.text
        error = answer.json()["errors"][0]
        assert error["pointer"] == where and text in error["detail"]
    assert feedback.results() == []


def test_nan_is_not_a_goal(client):
    body = json.dumps({**RESULT, "home_goals": float("nan")})
    assert client.post("/v1/results", content=body, headers={"content-type": JSON}).status_code in (400, 422)


def test_whole_floats_are_goals(client):
    "JSON no distingue 2 de 2.0."
    assert client.post("/v1/results", json={**RESULT, "home_goals": 2.0}).json()["home_goals"] == 2


def test_1001_results_are_too_many(client):
    assert client.post("/v1/results/batch", json={"results": [RESULT] * 1001}).status_code == 422


def test_scopes_and_charges(bundle, feedback):
    gate = Doorman("predict")
    client = api(bundle, feedback, gate)
    assert [client.post("/v1/results", json=RESULT).status_code, client.post("/v1/results/batch", json={"results": [RESULT]}).status_code,
            client.get("/v1/results").status_code, client.get("/v1/performance").status_code] == [403, 403, 403, 200]
    assert gate.asked == ["feedback"] * 3 + ["predict"] and feedback.results() == []
    gate = Doorman("feedback")
    assert api(bundle, feedback, gate).post("/v1/results/batch", json={"results": [RESULT] * 7}).status_code == 200
    assert gate.charged == 7


JSONS = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
                     lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*RESULT, "odds", "results", *OUTCOMES]), inner, max_size=8), max_leaves=12)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(JSONS, st.fixed_dictionaries({k: st.just(v) | JSONS for k, v in RESULT.items()}, optional={"odds": st.just(ODDS) | JSONS})))
def test_garbage_never_breaks_it(client, body):
    for path, sent in (("/v1/results", body), ("/v1/results/batch", body), ("/v1/results/batch", {"results": [body]})):
        answer = client.post(path, json=sent)
        assert answer.status_code in (200, 400, 422), answer.text


@pytest.mark.parametrize("query", ["window=0", "window=5001", "window=x", "league=XX", "known_on=2024-02-30", "known_on=9999-12-31", "known_on=2024-1-1"])
def test_performance_refuses_nonsense(client, query):
    assert client.get(f"/v1/performance?{query}").status_code == 422


@pytest.mark.parametrize(("query", "text"), [("team=Betis", "liga"), ("league=SP1&team=Betiss", "«Betis»"), ("league=XX", "SP1"), ("limit=1001", "limit")])
def test_results_refuse_nonsense(client, query, text):
    answer = client.get(f"/v1/results?{query}")
    assert answer.status_code == 422 and text in answer.text


# --- se añade, nunca se cambia ---------------------------------------------------------------------------------------

def test_same_again_corrected_and_history(client):
    sent = [{**RESULT, "odds": ODDS}, {**RESULT, "odds": ODDS}, RESULT, {**RESULT, "home_team": "real betis", "kickoff": "2024-09-21T21:00:00+02:00"},
            {**RESULT, "home_goals": 0, "away_goals": 3}, RESULT]
    answers = [client.post("/v1/results", json=s).json() for s in sent]
    assert [(a["status"], a["revision"]) for a in answers] == [("recorded", 1), ("unchanged", 1), ("unchanged", 1), ("unchanged", 1), ("corrected", 2), ("corrected", 3)]
    assert all(a["odds"] == ODDS for a in answers), "una corrección sin cuotas conserva las que había"
    assert [a["outcome"] for a in answers[-2:]] == ["away_win", "home_win"]
    history = client.get("/v1/results", params={"league": "SP1", "team": "sevilla", "revisions": True}).json()["results"]
    assert [(h["revision"], h["home_goals"], h["away_goals"], h["client"]) for h in history] == [(3, 2, 1, "local"), (2, 0, 3, "local"), (1, 2, 1, "local")]
    assert [h["revision"] for h in client.get("/v1/results").json()["results"]] == [3]
    assert client.get("/v1/results", params={"league": "SP1", "team": "Getafe"}).json()["results"] == []


def test_other_odds_are_a_correction(client):
    client.post("/v1/results", json={**RESULT, "odds": ODDS})
    assert client.post("/v1/results", json={**RESULT, "odds": {**ODDS, "draw": 3.2}}).json()["status"] == "corrected"


def test_home_and_away_are_two_matches(client):
    swapped = {**RESULT, "home_team": "Sevilla", "away_team": "Betis"}
    assert [client.post("/v1/results", json=r).json()["status"] for r in (RESULT, swapped)] == ["recorded", "recorded"]


def test_batch_is_all_or_nothing_and_may_repeat_but_not_contradict(client, feedback):
    other = {**RESULT, "home_team": "Getafe"}
    answer = client.post("/v1/results/batch", json={"results": [other, RESULT, {**RESULT, "home_goals": 3}]})
    assert (answer.status_code, answer.json()["errors"][0]["index"], feedback.results()) == (422, 2, [])
    assert "posición 1" in answer.json()["errors"][0]["detail"]
    answer = client.post("/v1/results/batch", json={"results": [other, RESULT, RESULT]}).json()
    assert [answer[s] for s in ("recorded", "corrected", "unchanged")] == [2, 0, 1]
    assert [r["home_team"] for r in answer["results"]] == ["Getafe", "Betis", "Betis"]


def test_a_thousand_in_one_request(bundle, feedback):
    days = [(dt.date(2021, 1, 1) + dt.timedelta(days=i)).isoformat() for i in range(1000)]
    bundle = Bundle(bundle.manifest, bundle.model, bundle.history)
    bundle.since_by_league = {"SP1": dt.date(2020, 1, 1)}
    client = api(bundle, feedback)
    sent = {"results": [{**RESULT, "kickoff": day} for day in days]}
    assert client.post("/v1/results/batch", json=sent).json()["recorded"] == 1000
    assert client.post("/v1/results/batch", json=sent).json()["unchanged"] == 1000


def test_a_batch_that_cannot_be_written_leaves_nothing(feedback):
    feedback.record([report()], "r", "c")
    broken = report(home_team="Getafe", kickoff=None)  # la tabla no lo admite
    with pytest.raises(LogError):
        feedback.record([report(home_goals=5), broken], "r", "c")
    assert [(r["home_team"], r["revision"]) for r in feedback.results(revisions=True)] == [("Betis", 1)]


# --- varios a la vez ---------------------------------------------------------------------------------------------------

WORKER = """
import json, sys, time
from pathlib import Path
from futbol_mlops.feedback import Feedback
from futbol_mlops.journal import {cls}
store, goals, times, start = {cls}({path}), int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
report, feedback, said = json.loads(sys.argv[4]), Feedback(store), []
print("listo", flush=True)
while not start.exists():
    time.sleep(0.001)
for i in range(times):
    while True:
        try:
            row = feedback.record([{{**report, "home_goals": goals, "away_goals": i if goals else 0}}], "r", str(goals))[0]
            break
        except OSError:
            time.sleep(0.01)
    said.append([row["status"], row["revision"]])
store.close()
print(json.dumps(said))
"""


def race(tmp_path, goals: list[int], times: int, cls: str, path: str) -> list[list]:
    "Varios procesos anotan a la vez; lo que contestó cada uno."
    code, start = WORKER.format(cls=cls, path=path), tmp_path / "start"
    workers = [subprocess.Popen([sys.executable, "-c", code, str(g), str(times), str(start), json.dumps(report())], stdout=subprocess.PIPE, text=True) for g in goals]
    for worker in workers:
        assert worker.stdout.readline() == "listo\n"
    start.touch()
    said = [json.loads(worker.communicate(timeout=120)[0]) for worker in workers]
    assert all(worker.returncode == 0 for worker in workers)
    return said


def check_same(said, feedback):
    assert sorted(status for one in said for status, _ in one) == ["recorded"] + ["unchanged"] * (sum(map(len, said)) - 1)
    assert [r["revision"] for r in feedback.results(revisions=True)] == [1]


def check_different(said, feedback):
    new = sorted(revision for one in said for status, revision in one if status != "unchanged")
    stored = feedback.results(revisions=True, limit=1000)
    assert new == sorted(r["revision"] for r in stored) == list(range(1, len(stored) + 1)), "ni un hueco, ni una repetida, ni una perdida"
    assert len(stored) >= max(map(len, said))


def test_workers_with_the_same_result_leave_one_row(tmp_path, feedback):
    check_same(race(tmp_path, [0, 0, 0, 0], 5, "PredictionLog", f"Path({str(feedback.store.path)!r})"), feedback)


def test_workers_that_disagree_lose_no_revision(tmp_path, feedback):
    check_different(race(tmp_path, [1, 2, 3], 8, "PredictionLog", f"Path({str(feedback.store.path)!r})"), feedback)


def test_threads_of_one_worker(feedback):
    said, threads = [], []
    for i in range(8):
        threads.append(threading.Thread(target=lambda i=i: said.append(feedback.record([report(home_goals=i)], "r", str(i))[0]["revision"])))
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(said) == list(range(1, 9))


# --- cuando falla la base de datos ------------------------------------------------------------------------------------

def test_database_taken_is_503_and_then_works(client, feedback):
    assert client.post("/v1/results", json={**RESULT, "home_team": "Getafe"}).status_code == 200
    intruder = sqlite3.connect(feedback.store.path, isolation_level=None)
    intruder.execute("BEGIN EXCLUSIVE")
    answer = client.post("/v1/results", json=RESULT)
    assert (answer.status_code, answer.headers["retry-after"], answer.headers["content-type"]) == (503, "5", "application/problem+json")
    assert "no lo duplica" in answer.json()["detail"]
    intruder.execute("ROLLBACK")
    intruder.close()
    assert client.post("/v1/results", json=RESULT).json()["status"] == "recorded"


def test_closed_database_is_503_everywhere(client, feedback):
    feedback.store.close()
    assert [client.get("/v1/performance").status_code, client.get("/v1/results").status_code, client.post("/v1/results", json=RESULT).status_code] == [503] * 3


def test_a_file_that_vanishes_is_made_again(client, feedback):
    assert client.post("/v1/results", json=RESULT).status_code == 200
    for path in feedback.store.path.parent.glob("predictions.db*"):
        path.unlink()
    assert [client.post("/v1/results", json={**RESULT, "home_goals": 3}).status_code for _ in range(2)] == [503, 200]
    assert [r["revision"] for r in feedback.results(revisions=True)] == [1]


def test_a_slow_database_does_not_stop_the_server(bundle, log):
    "Mientras la base de datos piensa, otras peticiones se contestan."
    release = threading.Event()

    class Slow(Feedback):
        def results(self, *args):
            release.wait(30)
            return super().results(*args)

    app = create_api(bundle, log, Metrics(process=False), routers=[feedback_router(Slow(log))])

    async def both():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            slow = asyncio.create_task(http.get("/v1/results"))
            await asyncio.sleep(0.05)
            alive = await asyncio.wait_for(http.get("/healthz"), 20)
            assert not slow.done()
            release.set()
            return alive.status_code, (await slow).status_code

    assert asyncio.run(both()) == (200, 200)


# --- con PostgreSQL ---------------------------------------------------------------------------------------------------

@pytest.fixture
def remote(postgres):
    "Resultados en un PostgreSQL de verdad, con la base de datos vacía."
    store = PostgresLog(postgres.new_database())
    yield Feedback(store)
    store.close()


def test_postgres_says_the_same_as_sqlite(bundle, feedback, remote):
    sent = [{**RESULT, "odds": ODDS}, RESULT, {**RESULT, "home_goals": 0, "away_goals": 3}, {**RESULT, "home_team": "Getafe", "kickoff": "2024-09-28T19:00:00Z"}]
    made = [prediction("a1", home_win=1 / 3), prediction("a2", "2024-09-23T10:00:00.000+00:00"), prediction("b1", model_version="0.2.0"),
            prediction("c1", home_team="Getafe", kickoff="2024-09-28")]
    seen = []
    for one in (feedback, remote):
        one.store.append_many(made)
        client = api(bundle, one)
        answers = [client.post("/v1/results", json=s).json() for s in sent]
        stored = client.get("/v1/results", params={"league": "SP1", "revisions": True}).json()["results"]
        for row in (*answers, *stored):
            row.pop("recorded_at"), row.pop("request_id")
        by_team = client.get("/v1/results", params={"league": "SP1", "team": "Getafe"}).json()["results"]
        seen.append([answers, stored, len(by_team), client.get("/v1/performance").json(), client.get("/v1/performance?league=SP1&window=1&before_kickoff=true").json(),
                     client.get("/v1/performance?known_on=2024-09-01").json()])
    assert seen[0] == seen[1]
    assert [v["matches"] for v in seen[1][3]["versions"]] == [2, 1]


def test_postgres_workers_with_the_same_result_leave_one_row(tmp_path, remote):
    check_same(race(tmp_path, [0, 0, 0], 5, "PostgresLog", repr(remote.store.url)), remote)


def test_postgres_workers_that_disagree_lose_no_revision(tmp_path, remote):
    check_different(race(tmp_path, [1, 2, 3], 8, "PostgresLog", repr(remote.store.url)), remote)


def test_postgres_down_is_503_and_it_comes_back_by_itself(bundle, postgres, remote):
    client = api(bundle, remote)
    assert client.post("/v1/results", json=RESULT).json()["status"] == "recorded"
    postgres.stop()
    try:
        down = [client.post("/v1/results", json=RESULT), client.get("/v1/results"), client.get("/v1/performance")]
        assert [(a.status_code, a.headers.get("retry-after")) for a in down] == [(503, "5")] * 3
        assert client.get("/healthz").status_code == 200
    finally:
        postgres.start()
    for _ in range(200):
        answer = client.post("/v1/results", json=RESULT)
        if answer.status_code == 200:
            break
        time.sleep(0.1)
    assert answer.json()["status"] == "unchanged", "lo anotado sigue ahí, y repetirlo no lo duplica"


# --- qué predicción cuenta --------------------------------------------------------------------------------------------

def test_the_last_prediction_before_the_day_counts(log, feedback):
    log.append_many([prediction("a1", home_win=0.1), prediction("a2", home_win=0.2), prediction("a3", "2024-09-21T08:00:00.000+00:00", home_win=0.3),
                     prediction("b1", "2024-09-23T08:00:00.000+00:00", model_version="0.2.0"), prediction("b2", "2024-09-24T08:00:00.000+00:00", model_version="0.2.0"),
                     prediction("c1", kickoff="2024-09-20"), prediction("c2", home_team="Sevilla", away_team="Betis"), prediction("c3", league="E0")])
    feedback.record([report()], "r", "c")
    assert [(j["model_version"], j["prediction_id"], j["before"]) for j in joined_results(log)] == [("0.1.0", "a2", 1), ("0.2.0", "b2", 0)]
    assert [(v["model_version"], v["before_kickoff"], v["after_kickoff"]) for v in performance(log)] == [("0.2.0", 0, 1), ("0.1.0", 1, 0)]
    assert [v["model_version"] for v in performance(log, before_only=True)] == ["0.1.0"]


def test_the_hour_of_the_kickoff_does_not_matter(log, feedback):
    log.append_many([prediction("a1", kickoff="2024-09-21T16:15:00Z")])
    feedback.record([report(kickoff="2024-09-21T21:00:00+02:00")], "r", "c")
    assert joined_results(log)[0]["prediction_id"] == "a1"


def test_window_league_and_what_nobody_predicted(client, log, feedback):
    days = [f"2024-09-{d:02}" for d in range(1, 11)]
    log.append_many([prediction(f"p{d}", kickoff=d) for d in days[:8]])
    feedback.record([report(day=d, kickoff=d) for d in days], "r", "c")
    assert [(j["day"], j["prediction_id"]) for j in joined_results(log, window=3)] == [("2024-09-08", "p2024-09-08"), ("2024-09-09", None), ("2024-09-10", None)]
    body = client.get("/v1/performance", params={"window": 5}).json()
    assert (body["results"], body["unpredicted"], body["versions"][0]["matches"]) == (5, 2, 3)
    assert performance(log, league="E0") == []


def test_yesterdays_report_can_be_repeated(log):
    clock = {"now": dt.datetime(2024, 9, 22, 9, tzinfo=dt.UTC)}
    feedback = Feedback(log, clock=lambda: clock["now"])
    log.append_many([prediction("a1"), prediction("b1", "2024-09-25T10:00:00.000+00:00", model_version="0.2.0")])
    feedback.record([report()], "r", "c")
    sunday = performance(log, known_on="2024-09-22")
    clock["now"] += dt.timedelta(days=5)
    feedback.record([report(home_goals=0, away_goals=3)], "comité", "c")
    assert performance(log, known_on="2024-09-22") == sunday and len(sunday) == 1 and sunday[0]["corrected"] == 0
    now = performance(log)
    assert len(now) == 2 and now[1]["rps"] > sunday[0]["rps"] and now[1]["corrected"] == 1
    assert performance(log, known_on="2024-09-21") == []


# --- las medidas ------------------------------------------------------------------------------------------------------

def test_the_formulas_are_those_of_the_evaluation():
    rng = np.random.default_rng(3)
    p, y = rng.dirichlet((2, 1, 2), size=700), rng.integers(3, size=700)
    p[0] = 0, 0, 1
    y[0] = 0
    assert np.abs(rps_by_match(y, p) - rank_probability_score(y, p)).max() < 1e-12
    assert abs(log_loss_by_match(y, p).mean() - scores(y, p)["log_loss"]) < 1e-12
    for start in pd.date_range("2024-08-01", periods=7):  # en qué día de la semana se empiece da igual
        dates = pd.Series(start + pd.to_timedelta(np.sort(rng.integers(0, 300, size=700)), unit="D"))
        ours = weekly_ratio_interval(rps_by_match(y, p), np.ones(700), [str(d.date()) for d in dates])
        assert np.abs(np.array(ours) - weekly_interval(pd.Series(rps_by_match(y, p)), dates)).max() < 1e-12


def test_performance_is_that_of_the_evaluation_on_real_matches(bundle, log, matches):
    played = matches[(matches["season"] == "2023-24") & (matches["league"] == "SP1")]
    p = np.random.default_rng(5).dirichlet((4, 3, 3), size=len(played))
    y = np.array([OUTCOMES.index(o) for o in played["outcome"]])
    keys = [{"league": m.league, "home_team": m.home_team, "away_team": m.away_team, "kickoff": str(m.date.date())} for m in played.itertuples()]
    log.append_many([prediction(f"p{i:03}", **k, **dict(zip(OUTCOMES, map(float, row), strict=True))) for i, (k, row) in enumerate(zip(keys, p, strict=True))])
    feedback = Feedback(log)
    odds = played[["odds_home", "odds_draw", "odds_away"]].to_numpy()
    feedback.record([{**k, "day": k["kickoff"], "home_goals": m.home_goals, "away_goals": m.away_goals, "odds": tuple(map(float, o))}
                     for k, m, o in zip(keys, played.itertuples(), odds, strict=True)], "r", "c")
    found, expected = performance(log)[0], scores(y, p)
    assert all(abs(found[name] - expected[name]) < 1e-12 for name in ("rps", "log_loss", "accuracy")), (found, expected)
    profit = sum((o[r] - 1 if r == k else -1) for o, q, k in zip(odds, p, y, strict=True) for r in [int(np.argmax(q * o))] if (q * o).max() > 1.05)
    assert abs(found["betting"]["profit"] - profit) < 1e-9 and found["betting"]["bets"] == sum((p * odds).max(axis=1) > 1.05)


def test_flat_stake_by_hand():
    p = np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.2, 0.2, 0.6], [0.5, 0.25, 0.25]])
    odds = np.array([[2.2, 3.0, 3.0], [2.1, 3.0, 3.0], [6.0, 3.0, 1.9], [2.2, np.nan, 3.0]])
    picks = flat_stake(p, odds)  # 1,10 sí; 1,05 no llega a pasar; 1,20 gana a 1,14; sin una cuota, nada
    assert picks.tolist() == [0, -1, 0, -1]
    assert bet_profits(np.array([0, 0, 2, 0]), picks, odds).tolist() == pytest.approx([1.2, 0, -1, 0])


def test_without_odds_there_is_no_betting(client, log, feedback):
    log.append_many([prediction("a1")])
    feedback.record([report()], "r", "c")
    betting = client.get("/v1/performance").json()["versions"][0]["betting"]
    assert betting == {"edge": 0.05, "with_odds": 0, "margin": None, "bets": 0, "profit": 0.0, "return_per_unit": None, "return_interval": None}


# --- el contrato ------------------------------------------------------------------------------------------------------

def test_routes_are_documented(client):
    paths = client.get("/openapi.json").json()["paths"]
    for path, method in (("/v1/results", "post"), ("/v1/results/batch", "post"), ("/v1/results", "get"), ("/v1/performance", "get")):
        operation = paths[path][method]
        assert operation["summary"] and operation["description"] and operation["tags"] == ["resultados"]
        assert {"200", "422", "503"} <= operation["responses"].keys()
        assert list(operation["responses"]["503"]["content"]) == ["application/problem+json"]
