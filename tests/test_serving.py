"La API: contrato, errores, procesos de verdad y basura de entrada."
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from futbol_mlops.app import create_app
from futbol_mlops.bundle import load_bundle, write_bundle
from futbol_mlops.config import Settings
from futbol_mlops.data import load_matches
from futbol_mlops.features import build_features
from futbol_mlops.models import OUTCOMES as MODEL_OUTCOMES
from futbol_mlops.models import make_logit, model_numbers, outcome_codes
from futbol_mlops.observability import Metrics
from futbol_mlops.serving import HORIZON, MAX_BODY, MAX_FIXTURES, OUTCOMES, PROBLEM_JSON, REQUEST_ID, create_api

FIXTURE = {"league": "E0", "home_team": "Arsenal", "away_team": "Tottenham", "kickoff": "2026-05-24"}
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    "Una carpeta de estado con un paquete de verdad, y los partidos y variables con los que se hizo."
    matches = load_matches()
    X, history = build_features(matches)
    home = tmp_path_factory.mktemp("home")
    model = model_numbers(make_logit().fit(X, outcome_codes(matches)))
    write_bundle(home / "bundle", model, history, {"version": "1.2.3", "data": {"matches": len(matches)}, "metrics": {"rps": 0.2}})
    return home, matches, X


@pytest.fixture(scope="module")
def bundle(served):
    return load_bundle(served[0] / "bundle")


@pytest.fixture
def client(bundle, log):
    return TestClient(create_api(bundle, log, Metrics(process=False)))


def problem(response, status: int) -> dict:
    "Comprueba que es un problem+json completo y lo devuelve."
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM_JSON), response.text
    body = response.json()
    assert {"type", "title", "status", "detail", "instance", "request_id"} <= body.keys()
    assert body["status"] == status and body["request_id"] == response.headers["x-request-id"]
    return body


def test_outcomes_are_those_of_the_models():
    assert OUTCOMES == MODEL_OUTCOMES


def test_a_past_fixture_is_answered_with_the_training_row(client, served, bundle, log):
    _, matches, X = served
    sample = matches.sample(200, random_state=1)
    fixtures = [{"league": m.league, "home_team": m.home_team, "away_team": m.away_team, "kickoff": str(m.date.date())} for m in sample.itertuples()]
    answers = client.post("/v1/predictions/batch", json={"fixtures": fixtures}).json()["predictions"]
    for answer, (i, m) in zip(answers, sample.iterrows(), strict=True):
        stored = client.get(f"/v1/predictions/{answer['prediction_id']}").json()
        assert stored["features"] == pytest.approx(list(X.loc[i]), abs=1e-12)
        if i % 20 == 0:  # de uno en uno, hasta la última cifra
            one = client.post("/v1/predictions", json={"league": m["league"], "home_team": m["home_team"], "away_team": m["away_team"], "kickoff": str(m["date"].date())}).json()
            assert tuple(client.get(f"/v1/predictions/{one['prediction_id']}").json()["features"]) == tuple(X.loc[i])
        assert [answer[o] for o in OUTCOMES] == pytest.approx(bundle.predict_match(m["league"], m["home_team"], m["away_team"], m["date"].date()), abs=1e-12)
        assert answer["features_as_of"] is None or answer["features_as_of"] < str(m["date"].date())
        assert "stale" not in answer["warnings"]
        assert {k: stored[k] for k in answer} == answer
    assert log.count() == 200 + sum(i % 20 == 0 for i in sample.index)


@pytest.mark.parametrize(("league", "kickoff", "status", "warnings"), [
    ("E0", "2012-08-17", 422, None),  # la víspera del primer partido
    ("E0", "2012-08-18", 200, ["no_recent_matches"]),
    ("E0", "2016-05-02", 200, []),
    ("E0", "2026-05-24", 200, []),  # el último día de los datos
    ("E0", "2026-05-25", 200, ["stale"]),
    ("E0", "2027-05-24", 200, ["stale"]),
    ("E0", "2027-05-25", 422, None),
    ("SP1", "2020-06-11", 200, ["no_recent_matches"]),
    ("SP1", "2026-05-24", 422, None),
])
def test_what_is_known_at_each_date(client, league, kickoff, status, warnings):
    teams = {"E0": ("Arsenal", "Tottenham"), "SP1": ("Betis", "Sevilla")}[league]
    response = client.post("/v1/predictions", json={"league": league, "home_team": teams[0], "away_team": teams[1], "kickoff": kickoff})
    if status == 200:
        assert (response.status_code, response.json()["warnings"]) == (200, warnings)
    else:
        assert problem(response, 422)["errors"][0]["pointer"] == "#/kickoff"


def test_a_team_out_of_the_league_for_years_is_warned(client):
    answer = client.post("/v1/predictions", json={**FIXTURE, "away_team": "Wigan"}).json()
    assert answer["warnings"] == ["no_recent_matches"]


def test_the_horizon_is_announced(client, bundle):
    leagues = {row["league"]: row for row in client.get("/v1/model").json()["leagues"]}
    assert leagues["E0"]["accepted_until"] == str(bundle.until_by_league["E0"] + HORIZON)


@pytest.mark.parametrize("name", ["arsenal", " ARSENAL ", "Ársenal", "Arsenal FC"])
def test_names_are_found_however_they_are_written(client, name):
    assert client.post("/v1/predictions", json={**FIXTURE, "home_team": name}).json()["home_team"] == "Arsenal"


def test_aliases_are_found(client):
    answer = client.post("/v1/predictions", json={"league": "SP1", "home_team": "Athletic Club", "away_team": "Atlético de Madrid", "kickoff": "2024-05-01"}).json()
    assert (answer["home_team"], answer["away_team"]) == ("Ath Bilbao", "Ath Madrid")


def test_an_unknown_team_gets_the_nearest_names(client):
    body = problem(client.post("/v1/predictions", json={**FIXTURE, "home_team": "Manchester"}), 422)
    assert {"Man City", "Man United"} <= set(body["errors"][0]["suggestions"])
    assert "«Manchester»" in body["detail"] and "/v1/teams?league=E0" in body["detail"]


@pytest.mark.parametrize(("change", "pointer"), [
    ({"league": "ZZ"}, "#/league"), ({"home_team": "Tottenham Hotspur"}, "#/away_team"), ({"home_team": ""}, "#/home_team"), ({"home_team": "x" * 81}, "#/home_team"),
    ({"home_team": 7}, "#/home_team"), ({"home_team": None}, "#/home_team"), ({"kickoff": "20260524"}, "#/kickoff"), ({"kickoff": "2026-02-30"}, "#/kickoff"),
    ({"kickoff": 1779580800}, "#/kickoff"), ({"kickoff": "2026-05-24T25:00:00"}, "#/kickoff"), ({"kickoff": "hoy"}, "#/kickoff"), ({"a/b~c": 1}, "#/a~1b~0c"),
])
def test_each_wrong_field_is_named(client, log, change, pointer):
    body = problem(client.post("/v1/predictions", json={**FIXTURE, **change}), 422)
    assert [e["pointer"] for e in body["errors"]] == [pointer]
    assert log.count() == 0


@pytest.mark.parametrize("kickoff", ["2026-05-24T16:00", "2026-05-24T16:00:00", "2026-05-24T16:00:00Z", "2026-05-24T16:00:00.5+02:00"])
def test_kickoff_with_time(client, kickoff):
    answer = client.post("/v1/predictions", json={**FIXTURE, "kickoff": kickoff}).json()
    assert answer["kickoff"] == kickoff
    assert answer["home_win"] == client.post("/v1/predictions", json=FIXTURE).json()["home_win"]


def test_every_wrong_request_has_its_code(client):
    post = lambda content, headers=JSON, path="/v1/predictions": client.post(path, content=content, headers=headers)
    problem(post(b"{"), 400)
    problem(post(b"\xff\xfe\xfa"), 400)
    problem(post(b"[" * 200_000), 400)
    problem(post(b"{}", {"content-type": "text/plain"}), 415)
    problem(post(b"{}", {}), 415)
    problem(post(b""), 422)
    problem(post(b"[]"), 422)
    problem(post(b'{"league": NaN}'), 422)
    problem(post(b'{"\\ud800": 1}'), 400)
    problem(post(json.dumps({**FIXTURE, "home_team": "\ud800"}).encode()), 400)
    problem(post(b" " * (MAX_BODY + 1)), 413)
    problem(client.get("/v1/nada"), 404)
    problem(client.get("/v1/predictions/desconocida"), 404)
    problem(client.get("/v1/predictions?limit=0"), 422)
    problem(client.get("/v1/predictions?limit=1001"), 422)
    problem(client.get("/v1/teams?league=ZZ"), 422)
    problem(client.get("/v1/teams/man-city/history"), 422)
    problem(client.get(f"/v1/teams/{'a' * 60_000}/history?league=E0"), 422)
    problem(post(b"{}", {**JSON, "content-length": "9" * 5000}), 413)
    assert "man-city" in problem(client.get("/v1/teams/manchester/history?league=E0"), 404)["detail"]
    assert client.put("/v1/model").headers["allow"] == "GET"
    problem(client.put("/v1/model"), 405)


def test_a_body_without_announced_size_is_limited_too(client):
    def chunks():
        for _ in range(200):
            yield b" " * 10_000

    problem(client.post("/v1/predictions", content=chunks(), headers=JSON), 413)


def test_a_batch_is_all_or_nothing(client, log):
    bad = [FIXTURE, {**FIXTURE, "home_team": "Nadie"}, FIXTURE, {**FIXTURE, "kickoff": "2040-01-01", "league": "E0"}]
    body = problem(client.post("/v1/predictions/batch", json={"fixtures": bad}), 422)
    assert [(e["index"], e["pointer"]) for e in body["errors"]] == [(1, "#/fixtures/1/home_team"), (3, "#/fixtures/3/kickoff")]
    assert "1, 3" in body["detail"] and log.count() == 0
    body = problem(client.post("/v1/predictions/batch", json={"fixtures": [FIXTURE, {**FIXTURE, "kickoff": 3}]}), 422)
    assert body["errors"][0]["index"] == 1
    for fixtures in ([], [FIXTURE] * (MAX_FIXTURES + 1)):
        problem(client.post("/v1/predictions/batch", json={"fixtures": fixtures}), 422)
    assert log.count() == 0


def test_a_thousand_fixtures_good_and_bad(client, log):
    answers = client.post("/v1/predictions/batch", json={"fixtures": [FIXTURE] * MAX_FIXTURES}).json()["predictions"]
    assert len({a["prediction_id"] for a in answers}) == MAX_FIXTURES == log.count()
    start = time.perf_counter()
    body = problem(client.post("/v1/predictions/batch", json={"fixtures": [{**FIXTURE, "home_team": f"{i} " + "rara " * 15} for i in range(MAX_FIXTURES)]}), 422)
    assert len(body["errors"]) == MAX_FIXTURES
    assert time.perf_counter() - start < 2, "buscar nombres parecidos no debe servir para parar el servidor"


def test_recent_predictions_come_newest_first(client):
    ids = [client.post("/v1/predictions", json=FIXTURE).json()["prediction_id"] for _ in range(5)]
    assert [p["prediction_id"] for p in client.get("/v1/predictions?limit=3").json()["predictions"]] == ids[:1:-1]


def test_teams_and_their_history(client, bundle):
    everyone = client.get("/v1/teams").json()["teams"]
    assert len(everyone) == sum(len(bundle.teams(code)) for code in bundle.leagues)
    forest = next(t for t in client.get("/v1/teams?league=E0").json()["teams"] if t["name"] == "Nott'm Forest")
    history = client.get(f"/v1/teams/{forest['id']}/history?league=E0").json()
    assert history["name"] == "Nott'm Forest" and history["matches"][-1] == {
        "date": forest["until"], "elo": forest["elo"], "points": bundle.history.states["E0"]["Nott'm Forest"][-1].points[-1],
        "goal_difference": bundle.history.states["E0"]["Nott'm Forest"][-1].goals[-1]}


@pytest.mark.parametrize(("sent", "kept"), [("pedido-7", True), ("a" * 64, True), ("a" * 65, False), ("con espacio", False), ("", False), ('"}', False)])
def test_request_id_is_echoed_only_if_harmless(client, sent, kept):
    response = client.get("/healthz", headers={"X-Request-ID": sent})
    assert (response.headers["x-request-id"] == sent) is kept
    assert REQUEST_ID.fullmatch(response.headers["x-request-id"].encode())


class Broken:
    "Un registro que falla como se le diga."

    def __init__(self, error):
        self.error = error

    def __getattr__(self, name):
        def fail(*_):
            raise self.error

        return fail


def test_without_log_there_is_no_prediction(bundle):
    metrics = Metrics(process=False)
    client = TestClient(create_api(bundle, Broken(OSError("disco lleno")), metrics))
    for response in (client.post("/v1/predictions", json=FIXTURE), client.get("/v1/predictions"), client.get("/v1/predictions/x"), client.get("/readyz")):
        assert problem(response, 503) and response.headers["retry-after"] == "5"
    assert client.get("/healthz").status_code == 200
    assert b"futbol_log_errors_total 1.0" in metrics.render()[0]
    assert b"futbol_predictions_total{" not in metrics.render()[0]


def test_an_unforeseen_error_hides_its_details(bundle):
    secret = "contraseña=1234"
    metrics = Metrics(process=False)
    client = TestClient(create_api(bundle, Broken(RuntimeError(secret)), metrics))
    response = client.post("/v1/predictions", json=FIXTURE)
    problem(response, 500)
    assert secret not in response.text and "RuntimeError" not in response.text
    assert b'status="500"' in metrics.render()[0]


def test_the_contract_tells_the_truth(client):
    schema = client.get("/openapi.json").json()
    assert "HTTPValidationError" not in schema["components"]["schemas"]
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            assert operation["tags"] and operation["summary"] and operation["description"], (path, method)
            for code, response in operation["responses"].items():
                assert response["description"] != "Successful Response"
                assert code < "400" or list(response["content"]) == [PROBLEM_JSON], (path, code)
    example = schema["components"]["schemas"]["Fixture"]["examples"][0]
    assert client.post("/v1/predictions", json=example).status_code == 200


def test_docs_load_nothing_from_outside(client):
    page = client.get("/docs")
    assert page.status_code == 200 and "https://" not in page.text
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert f"docs/assets/{name}" in page.text
        assert client.get(f"/docs/assets/{name}").status_code == 200


json_values = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4), max_leaves=12)
fields = {"league": st.sampled_from(["E0", "SP1"]) | json_values, "home_team": st.sampled_from(["Arsenal", "Betis"]) | json_values,
          "away_team": st.sampled_from(["Tottenham", "Sevilla"]) | json_values, "kickoff": st.dates().map(str) | st.datetimes().map(lambda d: d.isoformat()) | json_values}
fixtures = st.fixed_dictionaries({}, optional=fields)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=fixtures | json_values | st.fixed_dictionaries({"fixtures": st.lists(fixtures, max_size=3)}), path=st.sampled_from(["/v1/predictions", "/v1/predictions/batch"]))
def test_no_json_breaks_it(client, body, path):
    response = client.post(path, content=json.dumps(body).encode(), headers=JSON)
    assert response.status_code in (200, 422)
    if response.status_code != 200:
        problem(response, response.status_code)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200), content_type=st.sampled_from(["application/json", "application/x+json", "text/plain", ""]),
       method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"]), path=st.sampled_from(["/v1/predictions", "/v1/predictions/batch", "/v1/teams", "/v1/model", "/readyz", "/nada"]),
       request_id=st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=80), query=st.text(max_size=20))
def test_no_bytes_break_it(client, body, content_type, method, path, request_id, query):
    response = client.request(method, path, content=body, params={"league": query, "limit": query}, headers={"content-type": content_type, "x-request-id": request_id.encode("latin-1")})
    assert response.status_code < 500
    if response.status_code >= 400:
        problem(response, response.status_code)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=80))
def test_no_name_breaks_it(client, name):
    assert client.post("/v1/predictions", json={**FIXTURE, "home_team": name}).status_code in (200, 422)


# --- procesos de verdad ---------------------------------------------------------------------------------------------

FORBIDDEN = ("mlflow", "sklearn", "evidently", "pandas", "matplotlib", "scipy")
LIGHT = f"""
import asyncio, json, sys, time
from futbol_mlops.app import create_app
from futbol_mlops.bundle import load_bundle
from futbol_mlops.config import Settings

settings = Settings()
times = []
for _ in range(3):
    start = time.process_time()
    load_bundle(settings.bundle_path)
    times.append(time.process_time() - start)
app, body, sent = create_app(settings), {json.dumps(FIXTURE)!r}.encode(), []

async def receive():
    return {{"type": "http.request", "body": body, "more_body": False}}

async def send(message):
    sent.append(message)

scope = {{"type": "http", "asgi": {{"version": "3.0"}}, "http_version": "1.1", "method": "POST", "path": "/v1/predictions", "raw_path": b"/v1/predictions",
          "query_string": b"", "root_path": "", "scheme": "http", "headers": [(b"content-type", b"application/json")], "client": None, "server": None}}
asyncio.run(app(scope, receive, send))
print(json.dumps({{"status": sent[0]["status"], "seconds": min(times), "modules": [m for m in {FORBIDDEN!r} if m in sys.modules]}}))
"""


def test_the_server_is_light(served, tmp_path):
    env = {**os.environ, "FUTBOL_HOME": str(tmp_path), "FUTBOL_BUNDLE": str(served[0] / "bundle")}
    result = json.loads(subprocess.run([sys.executable, "-c", LIGHT], env=env, capture_output=True, text=True, check=True).stdout)
    assert (result["status"], result["modules"]) == (200, [])
    assert result["seconds"] <= 1


def start(tmp_path, **env) -> tuple[int, str]:
    "Arranca el servidor cuando no puede arrancar."
    run = subprocess.run([sys.executable, "-m", "futbol_mlops.app"], env={**os.environ, "FUTBOL_HOME": str(tmp_path / "state"), **env}, capture_output=True, text=True, timeout=30)
    assert run.stdout == ""
    return run.returncode, run.stderr


def test_it_says_in_one_line_why_it_cannot_start(served, tmp_path):
    code, message = start(tmp_path)
    assert code == 1 and message.count("\n") == 1 and "futbol-mlops train" in message
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in (served[0] / "bundle").iterdir():
        (broken / path.name).write_bytes(path.read_bytes() + b" ")
    code, message = start(tmp_path, FUTBOL_BUNDLE=str(broken))
    assert code == 1 and message.count("\n") == 1 and "SHA-256" in message
    (tmp_path / "file").write_text("")
    code, message = start(tmp_path, FUTBOL_BUNDLE=str(served[0] / "bundle"), FUTBOL_HOME=str(tmp_path / "file" / "state"))
    assert code == 1 and message.count("\n") == 1 and "registro de predicciones" in message
    code, message = start(tmp_path, FUTBOL_PORT="ochenta")
    assert code == 1 and message.count("\n") == 1 and "FUTBOL_PORT" in message


def test_it_says_who_has_the_port(served, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, message = start(tmp_path, FUTBOL_BUNDLE=str(served[0] / "bundle"), FUTBOL_PORT=str(port))
    assert code == 1 and message.count("\n") == 1
    assert f"El puerto {port} está ocupado" in message
    if sys.platform == "linux":
        assert f"pid {os.getpid()}" in message


def test_the_application_can_be_opened_and_closed_in_process(served, tmp_path):
    app = create_app(Settings(home=tmp_path, bundle=served[0] / "bundle"))
    with TestClient(app) as client:
        assert client.get("/readyz").json() == {"status": "ok", "model_version": "1.2.3"}
        assert client.post("/v1/predictions", json=FIXTURE).status_code == 200
    assert not (tmp_path / "predictions.db-wal").exists(), "al cerrar, todo queda en el fichero principal"


def test_concurrent_requests_in_one_loop(bundle, log):
    httpx = pytest.importorskip("httpx")
    app = create_api(bundle, log, Metrics(process=False))

    async def many():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await asyncio.gather(*(client.post("/v1/predictions", json=FIXTURE) for _ in range(100)))

    ids = {r.json()["prediction_id"] for r in asyncio.run(many())}
    assert len(ids) == 100 == log.count()


def test_the_benchmark_says_how_to_get_wrk(tmp_path):
    script = Path(__file__).resolve().parents[1] / "benchmarks" / "serving.py"
    run = subprocess.run([sys.executable, str(script), "--quick"], env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True, timeout=30)
    assert run.returncode == 2 and "apt-get install wrk" in run.stderr
