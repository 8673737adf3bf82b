"El contrato de la API: lo publicado sigue en pie, está bien escrito, y cada petición, buena o mala, recibe la respuesta que toca."
import copy
import json
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from published import METHODS, PUBLISHED, breaks, current, published, small_state, verdict

from futbol_mlops.app import create_app
from futbol_mlops.bundle import load_bundle
from futbol_mlops.config import Settings
from futbol_mlops.journal import PredictionLog
from futbol_mlops.observability import Metrics
from futbol_mlops.security import create_key
from futbol_mlops.serving import HORIZON, MAX_BODY, MAX_FIXTURES, PROBLEM_JSON, PROBLEM_TYPES, create_api

FIXTURE = {"league": "E0", "home_team": "Arsenal", "away_team": "Tottenham", "kickoff": "2026-05-24"}
RESULT = {**FIXTURE, "home_goals": 2, "away_goals": 1}
BODY = json.dumps(FIXTURE).encode()
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    "Una carpeta de estado y una clave que lo puede todo."
    home = tmp_path_factory.mktemp("contract")
    return home, small_state(home)


@pytest.fixture(scope="module")
def today(state):
    "El OpenAPI de hoy."
    return current(state[0])


@pytest.fixture(scope="module")
def client(state):
    "Quien llama a la aplicación entera, con su clave."
    home, token = state
    with TestClient(create_app(Settings(home=home)), headers={"Authorization": f"Bearer {token}"}, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def both_ways(state, tmp_path_factory):
    "La misma API por el carril rápido y por FastAPI."
    bundle, folder = load_bundle(Settings(home=state[0]).bundle_path), tmp_path_factory.mktemp("logs")
    return [TestClient(create_api(bundle, PredictionLog(folder / f"{lanes}.db"), Metrics(process=False), lanes=lanes), raise_server_exceptions=False) for lanes in (True, False)]


def operations(schema):
    return [(path, method, operation) for path, methods in schema["paths"].items() for method, operation in methods.items() if method in METHODS]


# --- Lo publicado no se rompe -----------------------------------------------------------------------------------------

def test_the_published_contract_still_holds(today):
    problem = verdict(published(), today)
    assert problem is None, problem


def schema_of(document, name):
    return document["components"]["schemas"][name]


def prediction(document, method="post"):
    return document["paths"]["/v1/predictions"][method]


BREAKING = {
    "ruta": (lambda d: d["paths"].pop("/v1/model"), "/v1/model: la ruta ha desaparecido"),
    "método": (lambda d: d["paths"]["/v1/predictions"].pop("get"), "GET /v1/predictions: el método ha desaparecido"),
    "código": (lambda d: prediction(d)["responses"].pop("415"), "POST /v1/predictions · respuestas: el código 415 ha desaparecido"),
    "nombre": (lambda d: prediction(d).update(operationId="predecir"), "POST /v1/predictions · nombre: era «predict» y ahora es «predecir»"),
    "permiso": (lambda d: prediction(d).update({"x-scope": "admin"}), "POST /v1/predictions · permiso: era «predict» y ahora es «admin»"),
    "seguridad nueva": (lambda d: d["paths"]["/healthz"]["get"].update(security=[{"bearer": []}]), "GET /healthz · seguridad: ahora pide ['bearer']"),
    "campo de la respuesta": (lambda d: schema_of(d, "Prediction")["properties"].pop("outcome"), "respuesta 200.outcome: el campo ha desaparecido"),
    "campo de la respuesta renombrado": (lambda d: schema_of(d, "Prediction")["properties"].update(result=schema_of(d, "Prediction")["properties"].pop("outcome")), "respuesta 200.outcome: el campo ha desaparecido"),
    "campo que ya no viene siempre": (lambda d: schema_of(d, "Prediction")["required"].remove("outcome"), "respuesta 200.outcome: ya no viene siempre"),
    "campo que ahora puede ser nulo": (lambda d: schema_of(d, "Prediction")["properties"].update(league={"anyOf": [{"type": "string"}, {"type": "null"}]}), "respuesta 200.league: era string y ahora es null o string"),
    "tipo en la respuesta": (lambda d: schema_of(d, "Prediction")["properties"]["home_win"].update(type="string"), "respuesta 200.home_win: era number y ahora es string"),
    "límite en la respuesta": (lambda d: schema_of(d, "Prediction")["properties"]["home_win"].update(maximum=100), "respuesta 200.home_win: ya no se promete maximum 1"),
    "valor de una lista": (lambda d: schema_of(d, "Prediction")["properties"]["outcome"]["enum"].remove("draw"), "respuesta 200.outcome: ya no está el valor ['draw']"),
    "lista que deja de ser cerrada": (lambda d: schema_of(d, "Prediction")["properties"]["outcome"].pop("enum"), "respuesta 200.outcome: era uno de"),
    "lista de dentro": (lambda d: schema_of(d, "Prediction")["properties"]["warnings"]["items"].update(type="integer"), "respuesta 200.warnings[]: era string y ahora es integer"),
    "lo de dentro de un lote": (lambda d: schema_of(d, "Predictions")["properties"]["predictions"]["items"].update({"$ref": "#/components/schemas/Team"}), "respuesta 200.predictions[].outcome: el campo ha desaparecido"),
    "formato": (lambda d: schema_of(d, "LeagueInfo")["properties"]["until"].pop("format"), "respuesta 200.leagues[].until: ya no se promete format «date»"),
    "los errores": (lambda d: schema_of(d, "Problem")["properties"].pop("request_id"), ".request_id: el campo ha desaparecido"),
    "tipo de contenido": (lambda d: prediction(d)["responses"]["422"].update(content={"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}), "respuesta 422: el tipo application/problem+json ha desaparecido"),
    "campo obligatorio nuevo": (lambda d: (schema_of(d, "Fixture")["properties"].update(season={"type": "string"}), schema_of(d, "Fixture")["required"].append("season")), "petición.season: es nuevo y obligatorio"),
    "campo opcional que se exige": (lambda d: schema_of(d, "Result").setdefault("required", []).append("odds"), "petición.odds: ahora es obligatorio"),
    "campo de la petición": (lambda d: (schema_of(d, "Result")["properties"].pop("odds")), "petición.odds: el campo ha desaparecido"),
    "tipo en la petición": (lambda d: schema_of(d, "Fixture")["properties"]["kickoff"].update(type="integer"), "petición.kickoff: era string y ahora es integer"),
    "petición más estrecha": (lambda d: schema_of(d, "Fixture")["properties"]["home_team"].update(maxLength=20), "petición.home_team: ahora se exige maxLength 20 (antes 80, ahora 20)"),
    "lista cerrada en la petición": (lambda d: schema_of(d, "Fixture")["properties"]["league"].update(enum=["E0"]), "petición.league: ahora solo admite ['E0']"),
    "lote más corto": (lambda d: schema_of(d, "Batch")["properties"]["fixtures"].update(maxItems=100), "petición.fixtures: ahora se exige maxItems 100"),
    "patrón": (lambda d: schema_of(d, "Fixture")["properties"]["kickoff"].update(pattern="^x$"), "petición.kickoff: ahora se exige pattern «^x$»"),
    "cuerpo nuevo": (lambda d: d["paths"]["/v1/admin/reload"]["post"].update(requestBody={"required": True, "content": {}}), "POST /v1/admin/reload · petición: ahora exige un cuerpo"),
    "cuerpo que sobra": (lambda d: prediction(d).pop("requestBody"), "POST /v1/predictions · petición: ya no admite cuerpo"),
    "parámetro": (lambda d: prediction(d, "get")["parameters"].clear(), "parámetro limit (query): ha desaparecido"),
    "parámetro obligatorio nuevo": (lambda d: prediction(d, "get")["parameters"].append({"name": "since", "in": "query", "required": True, "schema": {"type": "string"}}), "parámetro since (query): es nuevo y obligatorio"),
    "parámetro que se exige": (lambda d: prediction(d, "get")["parameters"][0].update(required=True), "parámetro limit (query): ahora es obligatorio"),
    "parámetro más estrecho": (lambda d: prediction(d, "get")["parameters"][0]["schema"].update(maximum=50), "parámetro limit (query): ahora se exige maximum 50"),
}


@pytest.mark.parametrize("change", BREAKING)
def test_what_breaks_callers_is_seen(change):
    mend, expected = BREAKING[change]
    broken = copy.deepcopy(published())
    mend(broken)
    found = breaks(published(), broken)
    assert any(expected in line for line in found), found
    assert all(line in verdict(published(), broken) for line in found) and "--publish --break-callers" in verdict(published(), broken)


ADDING = {
    "ruta": lambda d: d["paths"].update({"/v1/new": d["paths"]["/healthz"]}),
    "método": lambda d: d["paths"]["/v1/model"].update(head=d["paths"]["/v1/model"]["get"]),
    "campo en la respuesta": lambda d: (schema_of(d, "Prediction")["properties"].update(margin={"type": "number"}), schema_of(d, "Prediction")["required"].append("margin")),
    "aviso": lambda d: schema_of(d, "Prediction")["properties"]["warnings"]["items"]["enum"].append("derby"),
    "código": lambda d: prediction(d)["responses"].update({"451": prediction(d)["responses"]["422"]}),
    "campo opcional": lambda d: schema_of(d, "Fixture")["properties"].update(season={"type": "string"}),
    "parámetro opcional": lambda d: prediction(d, "get")["parameters"].append({"name": "since", "in": "query", "schema": {"type": "string"}}),
    "petición más ancha": lambda d: schema_of(d, "Fixture")["properties"]["home_team"].update(maxLength=200),
    "otro tipo en la petición": lambda d: schema_of(d, "Fixture")["properties"].update(kickoff={"anyOf": [schema_of(d, "Fixture")["properties"]["kickoff"], {"type": "integer"}]}),
    "respuesta más estrecha": lambda d: schema_of(d, "Prediction")["properties"]["league"].update(maxLength=12),
}


@pytest.mark.parametrize("change", ADDING)
def test_adding_breaks_nobody_but_has_to_be_published(change):
    wider = copy.deepcopy(published())
    ADDING[change](wider)
    assert breaks(published(), wider) == []
    assert verdict(published(), wider).endswith("python tests/published.py --publish")


def test_better_words_need_no_publishing():
    reworded = copy.deepcopy(published())
    prediction(reworded).update(summary="Otra frase", description="Otra")
    schema_of(reworded, "Fixture")["properties"]["league"]["description"] = "Otra"
    assert verdict(published(), reworded) is None


def test_publishing_what_breaks_has_to_be_asked_for(tmp_path):
    "Sobre una copia, con un contrato publicado que hoy no se cumple."
    promised = copy.deepcopy(published())
    promised["paths"]["/v1/goals"] = promised["paths"]["/healthz"]
    for name in ("published.py", "openapi_v1.json"):
        (tmp_path / name).write_text((ROOT / "tests" / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "openapi_v1.json").write_text(json.dumps(promised), encoding="utf-8")
    run = lambda *options: subprocess.run([sys.executable, tmp_path / "published.py", *options], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60)
    refused = run("--publish")
    assert refused.returncode == 1 and "/v1/goals: la ruta ha desaparecido" in refused.stderr
    assert "/v1/goals" in (tmp_path / "openapi_v1.json").read_text(encoding="utf-8")
    assert run("--publish", "--break-callers").returncode == 0
    assert "/v1/goals" not in (tmp_path / "openapi_v1.json").read_text(encoding="utf-8")


# --- Está bien escrito ------------------------------------------------------------------------------------------------

def test_every_operation_explains_itself(today):
    tags, names = {t["name"] for t in today["tags"]}, []
    for path, method, operation in operations(today):
        where = f"{method} {path}"
        assert operation["summary"] and operation["description"] and set(operation["tags"]) <= tags, where
        names.append(operation["operationId"])
        for parameter in operation.get("parameters", []):
            assert parameter.get("description") or parameter["in"] == "path", (where, parameter["name"])
        for code, response in operation["responses"].items():
            assert response["description"] and response["description"] != "Successful Response", (where, code)
            if code >= "400":
                assert list(response["content"]) == [PROBLEM_JSON], (where, code)
                assert response["content"][PROBLEM_JSON]["schema"] == {"$ref": "#/components/schemas/Problem"}, (where, code)
    assert len(set(names)) == len(names)


def schemas_in(node):
    if isinstance(node, dict):
        if {"type", "properties", "anyOf", "$ref"} & set(node) and not isinstance(node.get("type"), dict):
            yield node
        for value in node.values():
            yield from schemas_in(value)
    elif isinstance(node, list):
        for value in node:
            yield from schemas_in(value)


def test_limits_are_written_in_json_schema(today):
    "pydantic deja pasar `ge` o `max_length` tal cual si no sabe traducirlos, y nadie los entendería."
    for schema in schemas_in(today["components"]["schemas"]):
        assert not {"ge", "gt", "le", "lt", "min_length", "max_length", "multiple_of"} & set(schema), schema
    goals = schema_of(today, "Result")["properties"]["home_goals"]
    assert (goals["minimum"], goals["maximum"]) == (0, 20)


def test_every_body_has_an_example_that_works(today, client):
    seen = 0
    for path, method, operation in operations(today):
        if "requestBody" in operation:
            reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            for example in schema_of(today, reference.rsplit("/", 1)[1])["examples"]:
                response = client.request(method, path, json=example)
                assert response.status_code == 200, (path, response.text)
                seen += 1
    assert seen >= 4


def test_every_operation_says_who_may_call_it(today, state):
    settings = Settings(home=state[0])
    tokens = {scope: create_key(settings.keys_path, f"solo {scope}", [scope])[1] for scope in ("predict", "metrics")}
    stranger = TestClient(create_app(settings))
    assert today["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for path, method, operation in operations(today):
        address = re.sub(r"\{\w+\}", "x", path)
        response = stranger.request(method, address)
        if path in ("/healthz", "/readyz"):
            assert "security" not in operation and response.status_code == 200, path
            continue
        assert operation["security"] == [{"bearer": []}] and {"401", "403", "429"} <= set(operation["responses"]), path
        problem(response, 401, "unauthorized")
        assert response.headers["www-authenticate"].startswith("Bearer")
        token = next(token for scope, token in tokens.items() if scope != operation["x-scope"])
        problem(stranger.request(method, address, headers={"Authorization": f"Bearer {token}"}), 403, "forbidden")


def test_every_answer_carries_the_headers_it_promises(today):
    for path, method, operation in operations(today):
        for code, response in operation["responses"].items():
            promised = set(response["headers"])
            assert {"X-Request-ID"} | ({"Retry-After"} if code in ("429", "503") else set()) | ({"WWW-Authenticate"} if code in ("401", "403") else set()) == promised, (method, path, code)


# --- Los casos, uno a uno ---------------------------------------------------------------------------------------------

def problem(response, status, kind):
    "Comprueba que es un problem+json completo, en español y con su petición, y lo devuelve."
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM_JSON), response.text
    body = response.json()
    assert (body["type"], body["status"]) == (PROBLEM_TYPES + kind, status)
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["detail"].endswith((".", "?")) or " o " in body["detail"], body["detail"]
    assert not re.search(r"\b(the|should|must|invalid|error|expected|field|value)\b", body["detail"], re.IGNORECASE), body["detail"]
    return body


def test_a_past_fixture_is_answered_with_what_was_known(client):
    answer = client.post("/v1/predictions", json={**FIXTURE, "kickoff": "2016-05-02"})
    assert answer.status_code == 200 and answer.json()["features_as_of"] < "2016-05-02" and answer.json()["warnings"] == []
    stored = client.get(f"/v1/predictions/{answer.json()['prediction_id']}").json()
    assert {k: stored[k] for k in answer.json()} == answer.json()


def test_a_fixture_after_the_data_says_so(client):
    until = next(league["until"] for league in client.get("/v1/model").json()["leagues"] if league["league"] == "E0")
    answer = client.post("/v1/predictions", json={**FIXTURE, "kickoff": "2026-08-29"}).json()
    assert answer["warnings"] == ["stale"] and answer["features_as_of"] <= until < "2026-08-29"


def test_a_fixture_beyond_the_horizon_is_refused(client):
    accepted = next(league["accepted_until"] for league in client.get("/v1/model").json()["leagues"] if league["league"] == "E0")
    assert client.post("/v1/predictions", json={**FIXTURE, "kickoff": accepted}).status_code == 200
    body = problem(client.post("/v1/predictions", json={**FIXTURE, "kickoff": "2030-01-01"}), 422, "unpredictable-fixture")
    assert body["errors"][0]["pointer"] == "#/kickoff" and str(HORIZON.days) in body["detail"] and accepted in body["detail"]


def change(**fields):
    return json.dumps({**FIXTURE, **fields}).encode()


def extra(text):
    return BODY[:-1] + text.encode() + b"}"


HUGE, MANY = b" " * (MAX_BODY + 1), json.dumps({"fixtures": [FIXTURE] * (MAX_FIXTURES + 1)}).encode()
BAD = {  # cuerpo, cabeceras, código, clase de problema, y algo que la explicación dice
    "equipo desconocido": (change(home_team="Arsenel"), JSON, 422, "unpredictable-fixture", "¿Quisiste decir «Arsenal»"),
    "liga desconocida": (change(league="XX"), JSON, 422, "unpredictable-fixture", "Las que hay: E0, SP1"),
    "mismo equipo": (change(away_team="arsenal"), JSON, 422, "unpredictable-fixture", "no juega contra sí mismo"),
    "antes de los datos": (change(kickoff="1999-01-01"), JSON, 422, "unpredictable-fixture", "antes no se sabe nada"),
    "fecha que no existe": (change(kickoff="2026-02-30"), JSON, 422, "validation", "kickoff: debe ser una fecha como"),
    "fecha en otro formato": (change(kickoff="24/05/2026"), JSON, 422, "validation", "kickoff: debe ser una fecha como"),
    "falta un campo": (b'{"league": "E0"}', JSON, 422, "validation", "home_team: falta y es obligatorio"),
    "nombre vacío": (change(home_team="  "), JSON, 422, "validation", "no puede estar vacío"),
    "nombre enorme": (change(home_team="x" * 81), JSON, 422, "validation", "como mucho 80 caracteres"),
    "campo desconocido": (extra(', "homeTeam": "Arsenal"'), JSON, 422, "validation", "homeTeam: sobra"),
    "nulo": (b"null", JSON, 422, "validation", "debe ser un objeto JSON"),
    "lista": (b"[]", JSON, 422, "validation", "debe ser un objeto JSON"),
    "sin cuerpo": (b"", JSON, 422, "validation", "el cuerpo: falta y es obligatorio"),
    "NaN": (BODY.replace(b'"E0"', b"NaN"), JSON, 422, "validation", "league: debe ser un texto"),
    "infinito": (BODY.replace(b'"E0"', b"-Infinity"), JSON, 422, "validation", "league: debe ser un texto"),
    "número enorme": (BODY.replace(b'"E0"', b"1e999"), JSON, 422, "validation", "league: debe ser un texto"),
    "no es JSON": (b'{"league": E0}', JSON, 400, "invalid-json", "falla en línea 1, carácter 12"),
    "a medias": (BODY[:-1], JSON, 400, "invalid-json", "no es JSON en UTF-8"),
    "basura detrás": (BODY + b"x", JSON, 400, "invalid-json", "no es JSON en UTF-8"),
    "dos JSON": (BODY + BODY, JSON, 400, "invalid-json", "no es JSON en UTF-8"),
    "marca de orden de bytes": (b"\xef\xbb\xbf" + BODY, JSON, 400, "invalid-json", "no es JSON en UTF-8"),
    "UTF-16": (BODY.decode().encode("utf-16"), JSON, 400, "invalid-json", "no es JSON en UTF-8"),
    "UTF-16 sin marca": (BODY.decode().encode("utf-16-le"), JSON, 400, "invalid-json", "no es JSON en UTF-8"),
    "UTF-32": (BODY.decode().encode("utf-32"), JSON, 400, "invalid-json", "no es JSON en UTF-8"),
    "Latin-1": (json.dumps({**FIXTURE, "home_team": "Atlético"}, ensure_ascii=False).encode("latin-1"), JSON, 400, "invalid-json", "no es JSON en UTF-8"),
    "medio carácter": (BODY.replace(b"Arsenal", b"\\ud800"), JSON, 400, "invalid-json", "no es JSON en UTF-8"),
    "salto de línea en un texto": (BODY.replace(b"Arsenal", b"a\nb"), JSON, 400, "invalid-json", "no es JSON en UTF-8"),
    "comprimido": (b"\x1f\x8b\x08\x00", {**JSON, "content-encoding": "gzip"}, 400, "invalid-json", "no es JSON en UTF-8"),
    "anidado sin fin": (b"[" * 100_000, JSON, 400, "invalid-json", "no es JSON en UTF-8"),
    "anidado y cerrado": (b'{"league":' + b"[" * 5000 + b"]" * 5000 + b"}", JSON, 400, "invalid-json", "no es JSON en UTF-8"),
    "entero de cinco mil cifras": (BODY.replace(b'"E0"', b"9" * 5000), JSON, 400, "invalid-json", "no es JSON en UTF-8"),
    "campo repetido": (extra(', "league": "SP1"'), JSON, 400, "repeated-field", "«league» está más de una vez"),
    "campo repetido e igual": (extra(', "league": "E0"'), JSON, 400, "repeated-field", "«league» está más de una vez"),
    "campo repetido y disfrazado": (extra(', "l\\u0065ague": "SP1"'), JSON, 400, "repeated-field", "«league» está más de una vez"),
    "repetido y desconocido": (extra(', "x": 1, "x": 2'), JSON, 400, "repeated-field", "«x» está más de una vez"),
    "texto": (BODY, {"content-type": "text/plain"}, 415, "unsupported-media-type", "llegó «text/plain»"),
    "formulario": (b"league=E0", {"content-type": "application/x-www-form-urlencoded"}, 415, "unsupported-media-type", "application/x-www-form-urlencoded"),
    "ni JSON ni lo dice": (b"{", {"content-type": "text/plain"}, 415, "unsupported-media-type", "text/plain"),
    "sin tipo": (BODY, {}, 415, "unsupported-media-type", "Content-Type: application/json"),
    "enorme": (HUGE, JSON, 413, "too-large", "hasta 1 MB"),
    "enorme y no es JSON": (HUGE, {"content-type": "text/plain"}, 413, "too-large", "hasta 1 MB"),
}


@pytest.mark.parametrize("case", BAD)
def test_each_bad_request_has_its_own_answer(client, case):
    body, headers, status, kind, says = BAD[case]
    response = client.post("/v1/predictions", content=body, headers={**headers, "X-Request-ID": "caso-7"})
    found = problem(response, status, kind)
    assert says in found["detail"] and found["request_id"] == "caso-7" and found["instance"] == "/v1/predictions"


def test_a_huge_body_is_refused_even_if_it_does_not_say_its_size(client):
    def chunks():
        for _ in range(MAX_BODY // 10_000 + 1):
            yield b" " * 10_000

    for path in ("/v1/predictions", "/v1/predictions/batch", "/v1/results"):
        problem(client.post(path, content=chunks(), headers=JSON), 413, "too-large")


def test_a_thousand_fixtures_and_one_more(client):
    found = problem(client.post("/v1/predictions/batch", content=MANY, headers=JSON), 422, "validation")
    assert "como mucho 1000" in found["detail"]
    problem(client.post("/v1/predictions/batch", json={"fixtures": []}), 422, "validation")


@pytest.mark.parametrize("goals", ["NaN", "Infinity", "-1", "2.5", "21", '"2"', "true", "null", "1e400", "9" * 400])
def test_goals_are_goals(client, goals):
    body = json.dumps(RESULT).replace('"home_goals": 2', f'"home_goals": {goals}').encode()
    assert "debe ser un entero de 0 a 20" in problem(client.post("/v1/results", content=body, headers=JSON), 422, "validation")["detail"]


@pytest.mark.parametrize("case", [c for c in BAD if BAD[c][3] in ("invalid-json", "unsupported-media-type", "too-large", "repeated-field")])
def test_every_route_reads_json_the_same_way(client, case):
    "Lo que en una ruta no es JSON no puede serlo en otra: `json.loads` admitiría UTF-16."
    body, headers, status, kind, _ = BAD[case]
    response = client.post("/v1/results", content=body, headers=headers)
    problem(response, status, kind)


def test_allow_says_every_method(client, today):
    for path in today["paths"]:
        response = client.request("TRACE", re.sub(r"\{\w+\}", "x", path))
        problem(response, 405, "method-not-allowed")
        probed = {"HEAD"} if path in ("/healthz", "/readyz") else set()  # los balanceadores preguntan así; no se documenta
        assert response.headers["allow"] == ", ".join(sorted({m.upper() for m in today["paths"][path]} | probed)), path
    assert client.put("/v1/predictions").headers["allow"] == "GET, POST"


# --- Los dos caminos dicen lo mismo -----------------------------------------------------------------------------------

GOOD = {
    "tal cual": (BODY, JSON), "con espacios": (b" \n" + BODY + b"\t\r\n", JSON), "con codificación": (BODY, {"content-type": "application/json; charset=utf-8"}),
    "otro JSON": (BODY, {"content-type": "application/vnd.futbol+json"}), "mayúsculas": (BODY, {"content-type": "Application/JSON"}),
    "con acentos": (json.dumps({**FIXTURE, "home_team": "Ársenal"}, ensure_ascii=False).encode(), JSON), "escapado": (BODY.replace(b"Arsenal", b"\\u0041rsenal"), JSON),
    "campo escapado": (BODY.replace(b'"league"', b'"l\\u0065ague"'), JSON), "con hora": (change(kickoff="2026-05-24T16:00:00.5+02:00"), JSON),
    "comillas dentro": (change(home_team='"Arsenal"'), JSON), "de sobra": (BODY + b" " * (MAX_BODY - len(BODY)), JSON),
}


def answer(client, path, body, headers):
    response = client.post(path, content=body, headers=headers)
    found = response.json()
    return (response.status_code, response.headers["content-type"], found.get("type"), found.get("detail"), found.get("errors"), [found.get(k) for k in ("home_win", "warnings")])


@pytest.mark.parametrize("case", [*GOOD, *BAD])
def test_the_fast_lane_answers_what_fastapi_would(both_ways, case):
    body, headers = (GOOD.get(case) or BAD[case])[:2]
    fast, slow = (answer(client, "/v1/predictions", body, headers) for client in both_ways)
    assert fast == slow
    assert (fast[0] == 200) == (case in GOOD)
    if BODY[1:-1] in body:
        batch = body.replace(BODY[1:-1], b'"fixtures": [' + BODY + b"]")
        fast, slow = (answer(client, "/v1/predictions/batch", batch, headers) for client in both_ways)
        assert fast == slow


anything = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=12), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=10)
almost = st.fixed_dictionaries({}, optional={"league": st.sampled_from(["E0", "SP1", "e0"]) | anything, "home_team": st.sampled_from(["Arsenal", "Betis", " arsenal "]) | anything,
                                             "away_team": st.sampled_from(["Tottenham", "Sevilla"]) | anything, "kickoff": st.dates().map(str) | anything, "extra": anything})
texts = st.one_of(anything, almost, st.fixed_dictionaries({"fixtures": st.lists(almost, max_size=3) | anything})).map(lambda v: json.dumps(v).encode())
doubled = st.tuples(almost, almost).map(lambda both: ("{" + ", ".join(filter(None, (json.dumps(one)[1:-1] for one in both))) + "}").encode())
spoiled = st.tuples(texts, st.integers(0, 400), st.binary(max_size=3)).map(lambda t: t[0][: t[1]] + t[2] + t[0][t[1] :])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=texts | doubled | spoiled, path=st.sampled_from(["/v1/predictions", "/v1/predictions/batch"]), kind=st.sampled_from(["application/json"] * 4 + ["text/plain", ""]))
def test_whatever_arrives_both_ways_agree(both_ways, body, path, kind):
    fast, slow = (answer(client, path, body, {"content-type": kind}) for client in both_ways)
    assert fast == slow and fast[0] in (200, 400, 415, 422)


def written(pairs, escaped):
    "Un objeto JSON escrito a mano, para poder repetir un campo; `escaped`: su primera letra, como \\uXXXX."
    name = lambda key: f'"\\u{ord(key[0]):04x}{key[1:]}"' if escaped else json.dumps(key)
    return "{" + ", ".join(f"{name(key)}: {json.dumps(value)}" for key, value in pairs) + "}"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(list(FIXTURE)), again=st.none() | st.sampled_from(list(FIXTURE)), value=st.sampled_from(["E0", "", '"', "Betis"]), escaped=st.booleans(), others=st.integers(0, 3), where=st.integers(0, 3))
def test_a_repeated_field_never_slips_through(both_ways, order, again, value, escaped, others, where):
    "El atajo de contar comillas no deja pasar ninguno, esté donde esté y se escriba como se escriba."
    pairs = [(key, FIXTURE[key]) for key in order]
    if again:
        pairs.insert(0, (again, value))
    fixtures = [BODY.decode()] * others
    fixtures.insert(where, written(pairs, escaped))
    for client in both_ways:
        for path, body in (("/v1/predictions", written(pairs, escaped)), ("/v1/predictions/batch", '{"fixtures": [' + ", ".join(fixtures) + "]}")):
            response = client.post(path, content=body.encode(), headers=JSON)
            assert response.status_code == (400 if again else 200), response.text
            assert not again or response.json()["type"] == PROBLEM_TYPES + "repeated-field"


# --- Miles de peticiones inventadas -----------------------------------------------------------------------------------

def test_schemathesis_finds_nothing():
    "La versión corta de benchmarks/contract.py."
    run = subprocess.run([sys.executable, ROOT / "benchmarks" / "contract.py", "--quick", "--json"], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=240)
    assert run.returncode in (0, 1), run.stderr
    found = json.loads(run.stdout)
    assert found["failures"] == [] and run.returncode == 0, json.dumps(found["failures"], ensure_ascii=False, indent=1)[:4000]
    assert {(row["method"].lower(), row["path"]) for row in found["operations"]} == {(method, path) for path, method, _ in operations(json.loads(PUBLISHED.read_text(encoding="utf-8")))}
