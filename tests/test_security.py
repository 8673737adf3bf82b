"La seguridad contra ataques de verdad: procesos, conexiones, Redis y ficheros que no son de mentira."
import asyncio
import base64
import contextlib
import hashlib
import hmac
import http.client
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jwt
import psutil
import pytest
from conftest import ROOT, missing
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from futbol_mlops import security
from futbol_mlops.bundle import BundleError, load_bundle, sha256_of, signing_key, write_bundle
from futbol_mlops.config import Settings
from futbol_mlops.journal import PredictionLog
from futbol_mlops.observability import AccessLog, Metrics, configure_logging
from futbol_mlops.security import (
    AUDIENCE,
    Guard,
    KeyRing,
    RedisRates,
    SecurityError,
    SharedCounters,
    checked_rate,
    create_key,
    current_signing_key,
    hide_secrets,
    open_gate,
    read_keys,
    read_signing_keys,
    read_token,
    revoke_key,
    rotate_signing_key,
    sign_token,
    signing_path,
)
from futbol_mlops.serving import SCOPES, ApiProblem, Client, OpenGate, create_api

FIXTURE = {"league": "E0", "home_team": "Arsenal", "away_team": "Tottenham", "kickoff": "2026-05-24"}
BASE = {"kind": "base_rate", "probabilities": [0.45, 0.25, 0.3]}
POSIX = pytest.mark.skipif(os.name == "nt", reason="fork y permisos de fichero: Linux y macOS")


@pytest.fixture(scope="module")
def history(matches):
    from futbol_mlops.features import build_features

    return build_features(matches[-760:])[1]


@pytest.fixture(scope="module")
def served(tmp_path_factory, history) -> Path:
    return write_bundle(tmp_path_factory.mktemp("served") / "bundle", BASE, history, {"version": "1.0.0"})


@pytest.fixture
def keys(tmp_path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def ticket_key(keys):
    "Una clave de firmar, y el llavero que la conoce."
    key = current_signing_key(signing_path(keys))
    return key, KeyRing(keys, every=0)


def bearer(token: str) -> dict:
    return {"Authorization": f"Bearer {token}"}


def raw(token: bytes | str) -> list:
    return [(b"host", b"api"), (b"authorization", b"Bearer " + (token if isinstance(token, bytes) else token.encode()))]


def guard_of(keys: Path, rate="2000/second", shared=None) -> Guard:
    return Guard(KeyRing(keys, every=0), rate, shared)


def status_of(guard: Guard, headers: list, scope="predict") -> tuple[int, str]:
    try:
        guard.identify(headers, scope)
        return 200, ""
    except ApiProblem as e:
        return e.status_code, e.detail


async def admitted(guard: Guard, client: Client, times: int, cost: int = 1) -> int:
    "Cuántas de esas veces se le dejó pasar."
    passed = 0
    for _ in range(times):
        with contextlib.suppress(ApiProblem):
            await guard.charge(client, cost)
            passed += 1
    return passed


# --- Claves


def test_the_file_of_keys_does_not_open_the_door(keys):
    key, token = create_key(keys, "la revista", ["predict"])
    text = keys.read_text()
    assert re.fullmatch(r"fut_[0-9a-f]{8}_[\w-]{43}", token) and token.split("_", 2)[2] not in text
    assert key.sha256 == hashlib.sha256(token.encode()).hexdigest() and key.sha256 in text
    guard = guard_of(keys)
    assert status_of(guard, raw(token))[0] == 200
    for stolen in (key.sha256, f"fut_{key.id}_{key.sha256}", text.replace("\n", "")):
        assert status_of(guard, raw(stolen))[0] == 401


@POSIX
def test_a_file_open_to_others_is_not_used(keys):
    create_key(keys, "la revista", ["predict"])
    rotate_signing_key(signing_path(keys))
    for path in (keys, signing_path(keys)):
        assert path.stat().st_mode & 0o777 == 0o600
        for mode in (0o604, 0o602, 0o644, 0o660, 0o620):
            path.chmod(mode)
            with pytest.raises(SecurityError, match="chmod 600"):
                KeyRing(keys)
        for mode in (0o440, 0o640, 0o600):  # que lea un grupo, como en los secretos de Kubernetes, sí
            path.chmod(mode)
            KeyRing(keys)


def test_keys_created_at_once_are_all_kept(keys):
    code = "import sys, pathlib; from futbol_mlops.security import create_key; [create_key(pathlib.Path(sys.argv[1]), f'{sys.argv[2]}-{i}', ['predict']) for i in range(10)]"
    processes = [subprocess.Popen([sys.executable, "-c", code, str(keys), str(n)]) for n in range(3)]
    seen = 0
    while any(p.poll() is None for p in processes):
        found = len(read_keys(keys))  # leerlo a la vez nunca falla, y nunca hay menos que antes
        assert found >= seen
        seen = found
        time.sleep(0.01)
    assert [p.returncode for p in processes] == [0, 0, 0]
    assert len({k.id for k in read_keys(keys)}) == len({k.name for k in read_keys(keys)}) == 30
    assert sorted(p.name for p in keys.parent.iterdir()) == [".keys.json.lock", "keys.json"]


def test_a_wrong_key_says_nothing(keys):
    "Que no exista, que el secreto no sea o que esté retirada: la respuesta es la misma."
    key, token = create_key(keys, "la revista", ["predict"])
    gone, gone_token = create_key(keys, "antigua", ["predict"])
    revoke_key(keys, gone.id)
    guard = guard_of(keys)
    wrong = [token[:-1] + ("A" if token[-1] != "A" else "B"), token.replace(key.id, "ffffffff"), gone_token, token + "A", token[:-1], f"fut_{key.id}_", "fut_", "fut_" + "x" * 4000]
    assert len({status_of(guard, raw(t)) for t in wrong}) == 1 and status_of(guard, raw(wrong[0]))[0] == 401


def test_the_comparison_takes_constant_time(keys, monkeypatch):
    "También la de una clave que no existe pasa por compare_digest, contra una huella del mismo largo."
    key, token = create_key(keys, "la revista", ["predict"])
    guard, compared = guard_of(keys), []
    real = hmac.compare_digest
    monkeypatch.setattr(security.hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or real(a, b))
    for t in (token, token[:-1] + "!", token.replace(key.id, "ffffffff")):
        status_of(guard, raw(t))
    assert compared == [(64, 64)] * 3


@pytest.mark.parametrize("headers", [
    [], [(b"authorization", b"")], [(b"authorization", b"Bearer")], [(b"authorization", b"Bearer ")], [(b"authorization", b"Basic YTpi")],
    [(b"x-api-key", b"fut_")], raw(b"\xff\xfe"), raw(b"a.b.c"), raw(b"." * 4000), raw(b"eyJ" + b"A" * 5000), raw("x") * 2,
], ids=str)
def test_without_a_good_credential_it_is_401_and_says_how(keys, headers):
    create_key(keys, "la revista", ["predict"])
    with pytest.raises(ApiProblem) as e:
        guard_of(keys).identify(headers, "predict")
    assert e.value.status_code == 401 and e.value.headers["WWW-Authenticate"].startswith("Bearer realm=")


def test_two_credentials_are_none(keys):
    "Un proxy podría mirar la primera y el servidor la segunda."
    _, token = create_key(keys, "la revista", ["predict"])
    assert status_of(guard_of(keys), raw(token) + raw(token))[0] == 401
    assert status_of(guard_of(keys), [(b"authorization", b"bEaReR " + token.encode())])[0] == 200


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.one_of(st.binary(max_size=200), st.from_regex(rb"Bearer (fut_[0-9a-f]{8}_[\w-]{0,50}|eyJ[\w-]{0,60}\.[\w-]{0,60}\.[\w-]{0,60})", fullmatch=True)))
def test_no_header_breaks_the_guard(tmp_path, value):
    keys = tmp_path / "keys.json"
    if not keys.exists():
        create_key(keys, "la revista", ["predict"])
        rotate_signing_key(signing_path(keys))
    assert status_of(guard_of(keys), [(b"authorization", value)])[0] == 401


@pytest.mark.parametrize("has", SCOPES)
@pytest.mark.parametrize("kind", ["key", "token"])
def test_each_scope_opens_only_its_own(keys, kind, has):
    if kind == "key":
        token = create_key(keys, "la revista", [has])[1]
    else:
        token = sign_token(current_signing_key(signing_path(keys)), [has])
    guard = guard_of(keys)
    for wanted in SCOPES:
        status, detail = status_of(guard, raw(token), wanted)
        assert status == (200 if wanted == has else 403)
        assert wanted == has or f"«{wanted}»" in detail


@pytest.mark.parametrize("wrong", [{"scopes": []}, {"scopes": ["todo"]}, {"rate": "muchas"}, {"rate": "0/second"}, {"name": ""}, {"name": "a\nb"}, {"name": "x" * 81}], ids=str)
def test_a_key_that_makes_no_sense_is_not_created(keys, wrong):
    with pytest.raises(SecurityError):
        create_key(keys, **({"name": "la revista", "scopes": ["predict"]} | wrong))
    assert not keys.exists()


def test_a_broken_file_keeps_what_was_known_and_a_missing_one_closes(keys):
    class Notes(list):
        def error(self, event, **details):
            self.append((event, details["detail"]))

    _, token = create_key(keys, "la revista", ["predict"])
    notes = Notes()
    ring = KeyRing(keys, notes, every=0)
    good = keys.read_text()
    for broken in ("{", "[]", '{"keys": [1]}', '{"keys": [{"id": "a"}]}', good.replace('"predict"', '"todo"')):
        keys.write_text(broken)
        assert ring.client(token.encode()).scopes == {"predict"}
    assert len(notes) == 5 and {event for event, _ in notes} == {"keys_not_read"}
    keys.unlink()
    with pytest.raises(SecurityError):
        ring.client(token.encode())
    with pytest.raises(SecurityError, match="no se entiende"):
        keys.write_text("{")
        keys.chmod(0o600)
        KeyRing(keys)


BY_HAND = {
    "id que es un número": lambda row: row | {"id": 5}, "id que no es hexadecimal": lambda row: row | {"id": "la-mia"}, "id que es una lista": lambda row: row | {"id": []},
    "nombre que es un número": lambda row: row | {"name": 5}, "nombre con salto": lambda row: row | {"name": "a\n{}"}, "nombre imposible": lambda row: row | {"name": "\ud800"},
    "huella nula": lambda row: row | {"sha256": None}, "huella corta": lambda row: row | {"sha256": "ab"}, "huella con eñe": lambda row: row | {"sha256": "ñ" * 64},
    "permisos en un texto": lambda row: row | {"scopes": "predict"}, "permisos con un número": lambda row: row | {"scopes": ["predict", 5]}, "permisos con una lista": lambda row: row | {"scopes": [["predict"]]},
    "permisos en un diccionario": lambda row: row | {"scopes": {"predict": True}}, "permisos nulos": lambda row: row | {"scopes": None}, "un permiso que no existe": lambda row: row | {"scopes": ["todo"]},
    "límite que es un número": lambda row: row | {"rate": 500}, "límite que no se entiende": lambda row: row | {"rate": "muchas"}, "límite en una lista": lambda row: row | {"rate": ["5/second"]},
    "fecha que no lo es": lambda row: row | {"created_at": "ayer"}, "retirada con un sí": lambda row: row | {"revoked_at": True}, "el 30 de febrero": lambda row: row | {"revoked_at": "2026-02-30T00:00:00+00:00"},
    "un campo de más": lambda row: row | {"admin": True}, "un campo de menos": lambda row: {k: v for k, v in row.items() if k != "rate"},
    "un texto en vez de una clave": lambda row: "predict", "una lista en vez de una clave": lambda row: [row], "nada": lambda row: None,
}


@pytest.mark.parametrize("how", BY_HAND)
def test_a_file_edited_by_hand_is_explained_and_never_a_fault(keys, how):
    "Al arrancar, una línea; en marcha, se anota y sigue lo de antes; nunca una traza ni un 500."
    key, token = create_key(keys, "la revista", ["predict"])
    diary = Diary()
    guard = Guard(KeyRing(keys, diary, every=0), "2000/second")
    found = json.loads(keys.read_text())
    keys.write_text(json.dumps(found | {"keys": [BY_HAND[how](found["keys"][0])]}))
    with pytest.raises(SecurityError) as e:
        open_gate(Settings(home=keys.parent))
    assert type(e.value) is SecurityError and str(e.value).startswith("keys.json, clave número 1: ") and "\n" not in str(e.value) and len(str(e.value)) < 300
    client = guard.identify(raw(token), "predict")
    assert client == Client(key.id, frozenset({"predict"})) and asyncio.run(admitted(guard, client, 1)) == 1
    assert [(event, details["detail"]) for event, details in diary] == [("keys_not_read", str(e.value))]


@pytest.mark.parametrize("change", [{"kid": 5}, {"secret": 5}, {"secret": "zz"}, {"secret": "abc"}, {"created_at": 5}, {"retired_at": "2026-08-14"}, {"retired_at": 0}, {"retired_at": "9999-12-31T23:59:59+00:00"}, {"otro": 1}], ids=str)
def test_a_signing_file_edited_by_hand_is_explained_too(keys, change):
    path = signing_path(keys)
    key = current_signing_key(path)
    diary = Diary()
    ring, token = KeyRing(keys, diary, every=0), sign_token(key, ["predict"])
    found = json.loads(path.read_text())
    path.write_text(json.dumps({"keys": [found["keys"][0] | change]}))
    with pytest.raises(SecurityError, match=r"keys\.signing\.json, clave número 1: ") as e:
        KeyRing(keys)
    assert key.secret not in str(e.value)
    assert ring.client(token.encode()) and [event for event, _ in diary] == ["keys_not_read"]


@pytest.mark.parametrize("text", ['{"keys": "predict"}', '{"keys": {"id": "a"}}', '{"keys": null}', "5", "null", "[" * 100_000, '{"keys": [' + "9" * 5000 + "]}", "\ufeff{}", ""], ids=lambda t: t[:12])
def test_a_file_that_is_something_else_is_explained(keys, text):
    keys.write_text(text)
    keys.chmod(0o600)
    with pytest.raises(SecurityError, match="keys.json"):
        KeyRing(keys)


def test_two_keys_with_one_id_are_none(keys):
    "Con la retirada y la viva bajo el mismo nombre no se sabría cuál manda."
    create_key(keys, "la revista", ["predict"])
    (row,) = json.loads(keys.read_text())["keys"]
    keys.write_text(json.dumps({"keys": [row, row | {"revoked_at": row["created_at"]}]}))
    with pytest.raises(SecurityError, match="mismo identificador"):
        read_keys(keys)


def test_the_server_and_the_commands_say_it_in_one_line(served, tmp_path):
    create_key(tmp_path / "keys.json", "la revista", ["predict"])
    found = json.loads((tmp_path / "keys.json").read_text())
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [found["keys"][0] | {"id": 5}]}))
    for arguments in (["keys", "list"], ["keys", "create", "otra", "--scope", "predict"], ["serve", "--port", str(free_port())]):
        done = subprocess.run([sys.executable, "-m", "futbol_mlops.cli", *arguments], env=os.environ | {"FUTBOL_HOME": str(tmp_path), "FUTBOL_BUNDLE": str(served), "COLUMNS": "400", "NO_COLOR": "1"}, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1 and "«id» es 5" in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


# --- Tokens


def b64(data) -> str:
    return base64.urlsafe_b64encode(json.dumps(data).encode() if isinstance(data, dict) else data).rstrip(b"=").decode()


def claims(**changes) -> dict:
    now = int(time.time())
    made = {"aud": AUDIENCE, "sub": "revista", "iat": now, "exp": now + 600, "scope": "predict"} | changes
    return {name: value for name, value in made.items() if value is not None}


NOW = time.time()
FORGERIES = {
    "sin firma": lambda key: jwt.encode(claims(), None, "none", headers={"kid": key.kid}),
    "sin firma, en mayúsculas": lambda key: f"{b64({'alg': 'NoNe', 'kid': key.kid})}.{b64(claims())}.",
    "firma borrada": lambda key: good(key).rpartition(".")[0] + ".",
    "otro algoritmo, misma clave": lambda key: jwt.encode(claims(), bytes.fromhex(key.secret) * 2, "HS512", headers={"kid": key.kid}),
    "HS384 con la clave buena": lambda key: jwt.encode(claims(), bytes.fromhex(key.secret) + bytes(16), "HS384", headers={"kid": key.kid}),
    "dice RS256": lambda key: f"{b64({'alg': 'RS256', 'kid': key.kid})}.{good(key).split('.', 1)[1]}",
    "firmada con otra clave": lambda key: jwt.encode(claims(), os.urandom(32), "HS256", headers={"kid": key.kid}),
    "firmada con el identificador": lambda key: jwt.encode(claims(), key.kid.encode().ljust(32, b"\0"), "HS256", headers={"kid": key.kid}),
    "kid desconocido": lambda key: jwt.encode(claims(), bytes.fromhex(key.secret), "HS256", headers={"kid": "ffffffff"}),
    "sin kid": lambda key: jwt.encode(claims(), bytes.fromhex(key.secret), "HS256"),
    "kid que es una ruta": lambda key: jwt.encode(claims(), b"\0" * 32, "HS256", headers={"kid": "../../dev/null"}),
    "caducada": lambda key: good(key, iat=int(NOW) - 700, exp=int(NOW) - 100),
    "del futuro": lambda key: good(key, iat=int(NOW) + 864_000, exp=int(NOW) + 864_300),
    "sin caducidad": lambda key: good(key, exp=None),
    "sin emisión": lambda key: good(key, iat=None),
    "sin dueño": lambda key: good(key, sub=None),
    "vive demasiado": lambda key: good(key, exp=int(NOW) + 10 * 86400),
    "otro servicio": lambda key: good(key, aud="otro"),
    "sin servicio": lambda key: good(key, aud=None),
    "permiso desconocido": lambda key: good(key, scope="predict todo"),
    "sin permisos": lambda key: good(key, scope=""),
    "permisos que no son texto": lambda key: good(key, scope=["predict"]),
    "dueño con salto de línea": lambda key: good(key, sub="a\n{}"),
    "límite que no lo es": lambda key: good(key, rate="muchas"),
    "límite que no es texto": lambda key: good(key, rate=5),
    "caducidad infinita": lambda key: signed(key, '{"aud":"futbol-mlops","sub":"a","iat":1,"exp":Infinity,"scope":"predict"}'),
    "no es un objeto": lambda key: signed(key, "[1]"),
    "anidada sin fin": lambda key: signed(key, "[" * 100_000),
    "otro permiso, firma vieja": lambda key: ".".join([good(key).split(".")[0], b64(claims(scope="admin")), good(key).split(".")[2]]),
}


def good(key, **changes) -> str:
    return jwt.encode(claims(**changes), bytes.fromhex(key.secret), "HS256", headers={"kid": key.kid})


def signed(key, body: str) -> str:
    "Un token bien firmado con un contenido cualquiera."
    part = f"{b64({'alg': 'HS256', 'kid': key.kid})}.{b64(body.encode())}"
    return f"{part}.{b64(hmac.digest(bytes.fromhex(key.secret), part.encode(), 'sha256'))}"


def test_a_good_token_opens(ticket_key):
    key, ring = ticket_key
    assert ring.client(good(key).encode()) == Client("jwt-revista", frozenset({"predict"}))
    assert read_token(sign_token(key, ["predict", "feedback"], 1, "revista", "5/minute").encode(), ring.signing)[0] == Client("jwt-revista", frozenset({"predict", "feedback"}), "5/minute")


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize("how", FORGERIES)
def test_forged_tokens_are_refused(ticket_key, how):
    key, ring = ticket_key
    assert ring.client(good(key).encode())
    with pytest.raises(SecurityError) as e:
        ring.client(FORGERIES[how](key).encode())
    assert key.secret not in str(e.value)


def test_a_remembered_token_expires_all_the_same(ticket_key, monkeypatch):
    key, ring = ticket_key
    token, clock = good(key).encode(), [time.time()]
    assert ring.client(token) is ring.client(token)  # la segunda vez, de memoria
    monkeypatch.setattr(security.time, "time", lambda: clock[0])
    clock[0] += 700
    monkeypatch.setattr("jwt.api_jwt.datetime", type("Clock", (), {"now": staticmethod(lambda tz: __import__("datetime").datetime.fromtimestamp(clock[0], tz))}))
    with pytest.raises(SecurityError, match="caducado"):
        ring.client(token)


def test_remembered_tokens_do_not_fill_the_memory(ticket_key):
    key, ring = ticket_key
    for i in range(ring.REMEMBERED + 10):
        assert ring.client(good(key, sub=f"r{i}").encode()).id == f"jwt-r{i}"
    assert len(ring.checked) <= ring.REMEMBERED


def test_a_token_cannot_pass_for_a_key(keys):
    "Los identificadores no chocan: quien firma un token no puede gastar el límite de una clave ni firmar como ella."
    key, _ = create_key(keys, "la revista", ["predict"])
    token = sign_token(current_signing_key(signing_path(keys)), ["predict"], subject=key.id)
    assert KeyRing(keys).client(token.encode()).id == f"jwt-{key.id}"


def test_rotation_keeps_the_former_until_its_tokens_expire(keys, monkeypatch):
    path = signing_path(keys)
    first = current_signing_key(path)
    ring, old = KeyRing(keys, every=0), sign_token(first, ["predict"], minutes=1440)
    second = rotate_signing_key(path)
    assert current_signing_key(path) == second and ring.client(old.encode())
    assert ring.client(sign_token(second, ["predict"]).encode())

    later = time.time() + 86400 + 60
    monkeypatch.setattr(security.time, "time", lambda: later)
    with pytest.raises(SecurityError):  # aunque alguien robara la antigua y firmara hoy con ella
        ring.client(jwt.encode(claims(iat=int(later), exp=int(later) + 60), bytes.fromhex(first.secret), "HS256", headers={"kid": first.kid}).encode())
    third = rotate_signing_key(path)
    assert [k.kid for k in read_signing_keys(path)] == [second.kid, third.kid]  # y del fichero desaparece


def test_a_leaked_signing_key_is_dropped_at_once(keys):
    path = signing_path(keys)
    ring, token = KeyRing(keys, every=0), sign_token(current_signing_key(path), ["predict"])
    rotate_signing_key(path, drop=True)
    with pytest.raises(SecurityError):
        ring.client(token.encode())


# --- Límites


@POSIX
def test_forked_processes_share_one_limit(keys):
    "Cuatro procesos nacidos de uno piden a la vez: entre todos pasa el límite, y no cuatro veces."
    key, token = create_key(keys, "la revista", ["predict"], rate="300/hour")
    guard = guard_of(keys)
    client = guard.identify(raw(token), "predict")
    reader, writer = os.pipe()
    children = []
    for _ in range(4):
        if (child := os.fork()) == 0:
            code = 1
            try:
                os.write(writer, asyncio.run(admitted(guard, client, 200)).to_bytes(2, "big"))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    got = os.read(reader, 8)
    counts = [int.from_bytes(got[i : i + 2], "big") for i in range(0, 8, 2)]
    assert sum(counts) == 300, counts
    assert asyncio.run(admitted(guard, client, 5)) == 0


@POSIX
def test_a_process_killed_with_the_lock_does_not_stop_the_rest():
    counters, item = SharedCounters(), checked_rate("5/hour")
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        with counters._turn():
            os.write(writer, b"!")
            time.sleep(60)
        os._exit(0)
    os.read(reader, 1)
    done = threading.Event()
    threading.Thread(target=lambda: (counters.acquire_sliding_window_entry("a", item.amount, item.get_expiry()), done.set()), daemon=True).start()
    assert not done.wait(0.3)  # mientras vive, se le espera
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert done.wait(20)


def test_clients_do_not_share_a_slot():
    "Tres mil clientes con la misma memoria: cada uno tiene justo lo suyo."
    counters = SharedCounters()
    hit = lambda name: counters.acquire_sliding_window_entry(name, 2, 3600)
    names = [f"cliente-{i}" for i in range(3000)]
    assert [sum(hit(name) for name in names) for _ in range(3)] == [3000, 3000, 0]


def test_the_window_slides(monkeypatch):
    counters, clock = SharedCounters(), [1000.0]
    monkeypatch.setattr(security.time, "monotonic", lambda: clock[0])
    hit = lambda times: sum(counters.acquire_sliding_window_entry("a", 10, 10) for _ in range(times))
    clock[0] = 1009.9
    assert hit(20) == 10
    clock[0] = 1010.1  # ventana nueva: la anterior pesa todavía el 99 %
    assert hit(20) == 1
    clock[0] = 1015.0  # ahora la mitad
    assert hit(20) == 4
    clock[0] = 1040.0  # mucho después, entera
    assert hit(20) == 10


def test_it_does_what_limits_does_in_memory():
    "La misma estrategia sobre la memoria de limits y sobre la nuestra: lo mismo, petición a petición."
    from limits.storage import MemoryStorage
    from limits.strategies import SlidingWindowCounterRateLimiter

    item = checked_rate("40/hour")
    ours, theirs = SlidingWindowCounterRateLimiter(SharedCounters()), SlidingWindowCounterRateLimiter(MemoryStorage())
    for i in range(60):
        cost = i % 3 + 1
        assert ours.hit(item, "a", cost=cost) == theirs.hit(item, "a", cost=cost)
        assert ours.get_window_stats(item, "a").remaining == theirs.get_window_stats(item, "a").remaining
    ours.clear(item, "a")
    assert ours.hit(item, "a") and ours.storage.check()


class Rows(list):
    "Un registro en memoria."

    append_many = list.extend

    def check(self):
        pass


def test_a_batch_costs_what_it_predicts(keys, served):
    few, few_token = create_key(keys, "la grada", ["predict"], rate="5/hour")
    _, fresh_token = create_key(keys, "otra grada", ["predict"], rate="5/hour")
    many, many_token = create_key(keys, "la revista", ["predict"])
    rows = Rows()
    client = TestClient(create_api(load_bundle(served), rows, Metrics(process=False), guard_of(keys)))
    ask = lambda n, token: client.post("/v1/predictions/batch", json={"fixtures": [FIXTURE] * n}, headers=bearer(token))
    assert ask(4, few_token).status_code == 200
    refused = ask(3, few_token)
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1 and refused.json()["type"].endswith("rate-limited")
    assert "en lotes de 5 o menos" in ask(7, fresh_token).json()["detail"]  # ni esperando cabría: se dice
    assert ask(100, many_token).status_code == 200  # el límite de una no es el de otra
    assert [row["client"] for row in rows] == [few.id] * 4 + [many.id] * 100


def start_redis(folder: Path, port: int) -> subprocess.Popen:
    import redis

    server = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.ConnectionError), redis.Redis(port=port) as client:
            client.ping()
            return server
        time.sleep(0.05)
    server.kill()
    raise RuntimeError("redis-server no arranca")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


@pytest.fixture
def redis_server(tmp_path):
    if not shutil.which("redis-server"):
        missing("Falta redis-server", "en Debian o Ubuntu, sudo apt-get install redis-server; en macOS, brew install redis")
    port = free_port()
    server = start_redis(tmp_path, port)
    yield server, port, tmp_path
    server.send_signal(signal.SIGCONT)
    server.kill()
    server.wait(10)


def test_two_servers_share_one_limit_through_redis(keys, redis_server):
    key, token = create_key(keys, "la revista", ["predict"], rate="60/hour")

    async def both():
        guards = [guard_of(keys, shared=RedisRates(f"redis://127.0.0.1:{redis_server[1]}/0", patience=10)) for _ in range(2)]
        client = guards[0].identify(raw(token), "predict")
        passed = await asyncio.gather(*(admitted(guard, client, 50) for guard in guards))
        assert [g.shared.skipped for g in guards] == [0, 0]
        return passed

    passed = asyncio.run(both())
    assert sum(passed) == 60 and min(passed) > 0


class Diary(list):
    def _note(self, event, **details):
        self.append((event, details))

    info = warning = error = _note


def test_without_redis_the_local_limit_holds(keys, redis_server):
    server, port, folder = redis_server
    key, token = create_key(keys, "la revista", ["predict"], rate="30/hour")
    diary = Diary()

    async def story():
        guard = guard_of(keys, shared=RedisRates(f"redis://127.0.0.1:{port}/0", diary, patience=1.0, rest=0.2))
        client = guard.identify(raw(token), "predict")
        assert await admitted(guard, client, 5) == 5 and guard.shared.skipped == 0
        server.kill()
        server.wait(10)
        assert await admitted(guard, client, 100) == 25  # el local sigue: ni todos ni nadie
        assert guard.shared.skipped == 25 and [event for event, _ in diary] == ["rate_store_down"]
        back = start_redis(folder, port)
        try:
            other, other_token = create_key(keys, "otra", ["predict"])
            late, deadline = guard.identify(raw(other_token), "predict"), time.monotonic() + 20
            while diary[-1][0] != "rate_store_back" and time.monotonic() < deadline:
                await guard.charge(late, 1)
                await asyncio.sleep(0.05)
        finally:
            back.kill()
            back.wait(10)
        assert diary[-1] == ("rate_store_back", {"skipped": guard.shared.skipped})

    asyncio.run(story())


@POSIX
def test_a_redis_that_hangs_does_not_hang_the_server(keys, redis_server):
    "Parado, no caído: cada petición esperaría. Se espera una vez, el bucle sigue vivo y después se le deja en paz."
    server, port, _ = redis_server
    _, token = create_key(keys, "la revista", ["predict"])

    async def story():
        shared = RedisRates(f"redis://127.0.0.1:{port}/0", patience=0.25, rest=60)
        guard = guard_of(keys, shared=shared)
        client = guard.identify(raw(token), "predict")
        await guard.charge(client, 1)
        server.send_signal(signal.SIGSTOP)
        ticks = 0

        async def heart():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        beating = asyncio.create_task(heart())
        assert await admitted(guard, client, 200) == 200
        beating.cancel()
        assert shared.skipped == 200 and ticks >= 3

    asyncio.run(asyncio.wait_for(story(), 30))  # 200 esperas de un cuarto de segundo serían 50 s


# --- Abrir o no abrir


@pytest.mark.parametrize(("host", "opens"), [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("192.168.1.20", False), ("", False), ("futbol.example", False)])
def test_without_keys_only_loopback_opens(tmp_path, host, opens, capsys):
    settings = Settings(home=tmp_path, host=host)
    if opens:
        assert isinstance(open_gate(settings), OpenGate) and "Sin claves" in capsys.readouterr().err
    else:
        with pytest.raises(SecurityError, match="futbol-mlops keys create"):
            open_gate(settings)


@pytest.mark.parametrize("left", ["revoked", "empty", "signing"])
def test_a_file_without_live_keys_never_opens(tmp_path, left):
    settings = Settings(home=tmp_path)
    key, token = create_key(settings.keys_path, "la revista", ["predict"])
    if left == "revoked":
        revoke_key(settings.keys_path, key.id)
    elif left == "empty":
        settings.keys_path.write_text('{"keys": []}')
    else:
        settings.keys_path.unlink()
        rotate_signing_key(signing_path(settings.keys_path))
    assert status_of(open_gate(settings), raw(token))[0] == 401


def test_a_limit_that_makes_no_sense_stops_the_start(tmp_path):
    with pytest.raises(SecurityError, match="muchas"):
        open_gate(Settings(home=tmp_path, rate_limit="muchas"))


# --- Un servidor de verdad

SERVE = """
import json, os, socket, sys
import uvicorn
from futbol_mlops.bundle import load_bundle
from futbol_mlops.config import get_settings
from futbol_mlops.journal import PredictionLog
from futbol_mlops.observability import AccessLog, Metrics, configure_logging
from futbol_mlops.security import PatientHttp, headers_for, open_gate
from futbol_mlops.serving import create_api

class Hurried(PatientHttp):
    patience = float(os.environ["PATIENCE"])

settings, logger = get_settings(), configure_logging()
api = create_api(load_bundle(settings.bundle_path), PredictionLog(settings.log_path), Metrics(), open_gate(settings, logger), AccessLog())

@api.get("/big")
async def big():
    from fastapi import Response
    return Response(b"x" * 30_000_000)

async def app(scope, receive, send):
    async def with_headers(message):
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *headers_for(scope["path"])]
        await send(message)
    await api(scope, receive, with_headers)

listener = socket.create_server(("127.0.0.1", 0))
os.write(1, json.dumps({"port": listener.getsockname()[1]}).encode() + b"\\n")  # de una vez: a la vez escribe el diario
uvicorn.Server(uvicorn.Config(app, http=Hurried, ws="none", log_config=None, access_log=False, server_header=False, lifespan="off")).run(sockets=[listener])
"""


class Server:
    def __init__(self, home: Path, bundle: Path, patience: float = 10):
        env = os.environ | {"FUTBOL_HOME": str(home), "FUTBOL_BUNDLE": str(bundle), "FUTBOL_HOST": "127.0.0.1", "PATIENCE": str(patience)}
        self.process = subprocess.Popen([sys.executable, "-c", SERVE], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line)
            if '"port"' in line:
                self.port = json.loads(line)["port"]
                break
        else:
            raise RuntimeError("".join(self.lines))
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True)
        self.reader.start()

    def ask(self, token="", method="POST", path="/v1/predictions", body=FIXTURE):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"} | (bearer(token) if token else {}))
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def socket(self, **options):
        return socket.create_connection(("127.0.0.1", self.port), timeout=30, **options)

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self.reader.join(5)
        return "".join(self.lines)


@pytest.fixture
def start(served, tmp_path):
    started = []

    def _start(patience=10):
        started.append(Server(tmp_path, served, patience))
        return started[-1]

    yield _start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(10)


def cli(home: Path, *arguments):
    return subprocess.run([sys.executable, "-m", "futbol_mlops.cli", *arguments], env=os.environ | {"FUTBOL_HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1"}, capture_output=True, text=True, timeout=120)


def until(question, answer, seconds=20):
    "Pregunta hasta que llega la respuesta; la última, si no llega."
    deadline = time.monotonic() + seconds
    while (got := question()) != answer and time.monotonic() < deadline:
        time.sleep(0.05)
    return got


def test_a_revoked_key_stops_opening_without_restart(start, tmp_path):
    "Las órdenes y un servidor en marcha: lo creado abre, lo retirado deja de abrir, y el proceso es el mismo."
    first = cli(tmp_path, "keys", "create", "la revista", "--scope", "predict", "--json")
    key = json.loads(first.stdout)
    server = start()
    assert server.ask(key["key"])[0] == 200
    assert cli(tmp_path, "keys", "revoke", key["id"]).returncode == 0
    assert until(lambda: server.ask(key["key"])[0], 401) == 401
    second = cli(tmp_path, "keys", "create", "otra", "--scope", "predict").stdout.strip()
    assert until(lambda: server.ask(second)[0], 200) == 200
    ticket = cli(tmp_path, "keys", "token", "--scope", "predict", "--minutes", "5", "--name", "jornada").stdout.strip()
    assert until(lambda: server.ask(ticket)[0], 200) == 200
    assert cli(tmp_path, "keys", "rotate").returncode == 0
    time.sleep(1.2)
    assert server.ask(ticket)[0] == 200
    assert cli(tmp_path, "keys", "rotate", "--drop").returncode == 0
    assert until(lambda: server.ask(ticket)[0], 401) == 401
    assert server.process.poll() is None
    text = server.stop()
    assert not any(secret in text for secret in (key["key"], second, ticket))


def test_the_commands_show_a_key_once(tmp_path):
    made = cli(tmp_path, "keys", "create", "la revista", "--scope", "predict", "--scope", "feedback", "--rate", "500/second")
    assert made.returncode == 0 and re.fullmatch(r"fut_[0-9a-f]{8}_[\w-]{43}\n", made.stdout) and "no se vuelve a enseñar" in made.stderr
    listed = cli(tmp_path, "keys", "list", "--json")
    (row,) = json.loads(listed.stdout)
    assert (row["name"], row["scopes"], row["rate"], row["revoked_at"]) == ("la revista", ["predict", "feedback"], "500/second", None)
    assert made.stdout.strip() not in listed.stdout + cli(tmp_path, "keys", "list").stdout and "sha256" not in row
    assert "retirada el" in cli(tmp_path, "keys", "revoke", row["id"]).stdout
    assert json.loads(cli(tmp_path, "keys", "list", "--json").stdout)[0]["revoked_at"]


@pytest.mark.parametrize(("arguments", "code", "expected"), [
    (["keys", "create", "x"], 2, "--scope"), (["keys", "create", "x", "--scope", "todo"], 2, "«todo»"),
    (["keys", "create", "x", "--scope", "predict", "--rate", "muchas"], 2, "500/second"), (["keys", "revoke", "ffffffff"], 1, "keys list"),
    (["keys", "token", "--scope", "predict", "--minutes", "100000"], 2, "1440"), (["keys", "token", "--scope", "predict", "--name", "Ñ"], 2, "minúsculas"),
])
def test_the_commands_say_what_is_wrong(tmp_path, arguments, code, expected):
    done = cli(tmp_path, *arguments)
    assert done.returncode == code and expected in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_every_answer_carries_secure_headers(start, tmp_path):
    create_key(tmp_path / "keys.json", "la revista", ["predict"])
    server = start()
    for path, status in (("/healthz", 200), ("/nada", 404), ("/docs", 200)):
        got, headers, _ = server.ask(method="GET", path=path, body=None)
        assert got == status and headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert headers["content-security-policy"].startswith("default-src 'none'") and ("script-src" in headers["content-security-policy"]) == (path == "/docs")
    status, headers, body = server.ask()
    assert status == 401 and headers["cache-control"] == "no-store" and headers["www-authenticate"].startswith("Bearer") and json.loads(body)["status"] == 401


def test_the_docs_work_under_their_policy(start):
    "Un navegador de verdad dibuja /docs con su política puesta y no se queja de ella."
    api = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        missing("No hay Chromium, y /docs se prueba en un navegador", "apt-get install chromium")
    server, complaints = start(), []
    with api.sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=sandbox)
        page = browser.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(f"http://127.0.0.1:{server.port}/docs")
        page.get_by_text("Predice un partido").first.wait_for(timeout=30_000)
        browser.close()
    assert not complaints


# --- Clientes lentos


def closed_after(s: socket.socket, pieces=(), pause=0.0) -> bytes:
    "Manda los trozos mientras se pueda y devuelve lo que oyó hasta que le cerraron; si no le cierran, falla por tiempo."
    heard = b""
    s.settimeout(pause or 30)
    deadline = time.monotonic() + 30
    pieces = iter(pieces)
    while time.monotonic() < deadline:
        try:
            if piece := next(pieces, b""):
                s.sendall(piece)
        except OSError:
            return heard
        try:
            if not (got := s.recv(65536)):
                return heard
            heard += got
        except TimeoutError:
            continue
        except OSError:
            return heard
    raise AssertionError("no le cerraron la conexión")


HEAD = b"POST /v1/predictions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
SLOW = {
    "calla": ([], b""),
    "una letra cada tanto en las cabeceras": ([bytes([c]) for c in HEAD * 20], b"408"),
    "cabeceras que no acaban": ([b"GET / HTTP/1.1\r\n", *[b"x-a: b\r\n"] * 1000], b"408"),
    "el cuerpo a pedazos": ([HEAD + b"content-length: 500\r\n\r\n", *[b" "] * 400], b"408"),
    "un cuerpo por trozos que no acaba": ([HEAD + b"transfer-encoding: chunked\r\n\r\n", *[b"1\r\n \r\n"] * 400], b"408"),
    "saltos de línea": ([b"\r\n"] * 1000, b"408"),
    "saltos de línea después de una petición": ([b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n", *[b"\r\n"] * 1000], b"200"),
    "una entera y media": ([b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nGET /he"], b"200"),
}


@pytest.mark.parametrize("how", SLOW)
def test_slow_clients_are_cut(start, how):
    pieces, expected = SLOW[how]
    server = start(patience=0.7)
    with server.socket() as s:
        assert expected in closed_after(s, pieces, pause=0.05)
    assert server.ask()[0] == 200


def test_who_does_not_collect_the_answer_is_cut(start):
    server = start(patience=0.7)
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", server.port))
        s.sendall(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n")
        process = psutil.Process(server.process.pid)
        connected = lambda: sum(c.status == "ESTABLISHED" and c.laddr.port == server.port for c in process.net_connections("tcp"))
        assert until(connected, 1) == 1
        assert until(connected, 0, 30) == 0
    assert len(server.ask(method="GET", path="/big", body=None)[2]) == 30_000_000  # quien lo recoge lo tiene entero


def test_many_slow_connections_leave_room_for_a_good_one(start):
    server = start(patience=1.0)
    with contextlib.ExitStack() as stack:
        slow = []
        for _ in range(150):
            slow.append(stack.enter_context(server.socket()))
            slow[-1].sendall(HEAD)
        assert server.ask()[0] == 200
        for s in slow:
            closed_after(s)  # falla si no se le cierra


def test_a_patient_connection_is_untouched(start):
    "Una conexión normal, callada entre peticiones más que la paciencia, y otra que empieza tarde pero acaba a tiempo."
    server = start(patience=1.0)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    for _ in range(3):
        connection.request("POST", "/v1/predictions", json.dumps(FIXTURE), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200 and response.read()
        mine = connection.sock.getsockname()
        time.sleep(1.5)
    assert connection.sock.getsockname() == mine
    connection.close()


def test_pipelined_requests_are_all_answered(start):
    server = start(patience=5)
    with server.socket() as s:
        s.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n" * 20)
        heard = b""
        while heard.count(b"200 OK") < 20:
            heard += s.recv(65536)


def test_endless_headers_are_cut(start):
    server = start(patience=20)
    with server.socket() as s:
        heard = closed_after(s, [b"GET / HTTP/1.1\r\nx: ", *[b"a" * 10_000] * 100], pause=0.02)
    assert b"431" in heard
    assert server.ask()[0] == 200


CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


def flood(server, head: bytes, piece: bytes, seconds: float = 4) -> tuple[bool, int]:
    "Manda head y después piece sin fin, recogiendo lo que conteste: si le cerraron, y cuánto creció la memoria del servidor."
    process = psutil.Process(server.process.pid)
    before = peak = process.memory_info().rss
    with server.socket() as s:
        threading.Thread(target=lambda: [None for _ in iter(lambda: _received(s), b"")], daemon=True).start()
        try:
            s.sendall(head)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                s.sendall(piece)
                peak = max(peak, process.memory_info().rss)
        except OSError:
            return True, max(peak, process.memory_info().rss) - before
    return False, peak - before


def _received(s: socket.socket) -> bytes:
    try:
        return s.recv(65536)
    except OSError:
        return b""


AFTER = {
    "cabeceras después del cuerpo": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"x-a: b\r\n" * 2000),
    "una que no acaba": (CHUNKED + b"2\r\n{}\r\n0\r\nx: ", b"b" * 16_000),
    "un tamaño de trozo con notas que no acaban": (CHUNKED + b"2;a=", b"b" * 16_000),
}


@pytest.mark.parametrize("how", AFTER)
def test_what_comes_after_the_body_does_not_fill_the_memory(start, how):
    server = start(patience=60)  # que no sea la paciencia quien corta
    server.ask()
    closed, grown = flood(server, *AFTER[how])
    assert closed and grown < 20e6, f"cerrada: {closed}; creció {grown / 1e6:.0f} MB"
    assert server.ask()[0] == 200


def test_requests_that_do_not_wait_do_not_fill_the_memory(start):
    server = start(patience=60)
    server.ask()
    closed, grown = flood(server, b"", b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n" * 1000)
    assert closed and grown < 20e6, f"cerrada: {closed}; creció {grown / 1e6:.0f} MB"
    assert server.ask()[0] == 200


def test_a_header_after_the_body_is_no_header(start, tmp_path):
    "Una clave buena detrás del cuerpo no abre, y una petición en regla a trozos, con una cabecera detrás, se contesta."
    _, token = create_key(tmp_path / "keys.json", "la revista", ["predict"])
    body = json.dumps(FIXTURE).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % c for c in body)  # de uno en uno: lo que rodea al cuerpo pesa más que él
    server = start()
    for before, after, expected in ((token, "x-sum: 1", b"200"), ("", f"authorization: Bearer {token}", b"401")):
        with server.socket() as s:
            s.sendall(HEAD + (b"authorization: Bearer " + before.encode() + b"\r\n" if before else b"") + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + after.encode() + b"\r\n\r\n")
            assert s.recv(65536).split()[1] == expected


# --- El paquete


SECRET = b"una clave larga que solo sabe la casa, de prueba"


def test_with_a_key_only_a_signed_bundle_is_loaded(tmp_path, history):
    folder = write_bundle(tmp_path / "bundle", BASE, history, {"version": "1.0.0"}, SECRET)
    assert load_bundle(folder, SECRET).version == load_bundle(folder).version == "1.0.0"
    with pytest.raises(BundleError, match="no es de esta clave"):
        load_bundle(folder, SECRET + b"!")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "model.json").write_text(json.dumps(BASE | {"probabilities": [1, 0, 0]}))
    manifest["files"]["model.json"] = sha256_of(folder / "model.json")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert load_bundle(folder).predict(()) == (1, 0, 0)  # sin exigir firma, el saboteador listo pasa
    with pytest.raises(BundleError, match="no es de esta clave"):
        load_bundle(folder, SECRET)
    for sig in (b"", b"0" * 64, "ñ".encode()):
        (folder / "manifest.sig").write_bytes(sig)
        with pytest.raises(BundleError, match="no es de esta clave"):
            load_bundle(folder, SECRET)
    (folder / "manifest.sig").unlink()
    with pytest.raises(BundleError, match="no está firmado"):
        load_bundle(folder, SECRET)


@pytest.mark.parametrize("names", [["../../etc/passwd"], ["/etc/passwd"], ["model.pkl"], [""], ["..\\otro"]], ids=str)
def test_a_manifest_cannot_point_outside(tmp_path, history, names):
    folder = write_bundle(tmp_path / "bundle", BASE, history, {"version": "1.0.0"})
    manifest = json.loads((folder / "manifest.json").read_text())
    for files in (manifest["files"] | dict.fromkeys(names, "0" * 64), dict.fromkeys(names, "0" * 64)):
        (folder / "manifest.json").write_text(json.dumps(manifest | {"files": files}))
        with pytest.raises(BundleError, match="ficheros que un paquete no lleva"):
            load_bundle(folder)


@pytest.mark.parametrize(("name", "text"), [
    ("manifest.json", "[" * 100_000), ("manifest.json", "[]"), ("manifest.json", "null"), ("manifest.json", b"\xff\xfe{"), ("manifest.json", '{"format": NaN}'),
    ("model.json", "[" * 100_000), ("model.json", "null"), ("model.json", '{"kind": "logit"}'), ("model.json", '{"kind": "base_rate", "probabilities": [1, 0, 0], "temperature": 0}'),
    ("history.json", "[]"), ("history.json", '{"params": {}, "states": []}'), ("history.json", '{"params": {"x": 1}, "states": {"E0": {"A": [["ayer"]]}}}'),
], ids=lambda v: str(v)[:24])
def test_whatever_a_bundle_holds_the_answer_is_an_explanation(tmp_path, history, name, text):
    "Firmado o no, un contenido absurdo es un BundleError y no una traza."
    folder = write_bundle(tmp_path / "bundle", BASE, history, {"version": "1.0.0"})
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    if name != "manifest.json":
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][name] = sha256_of(folder / name)
        (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError):
        load_bundle(folder)


def test_the_champion_is_exported_signed(trained_home, tmp_path, matches):
    from futbol_mlops.registry import export_champion

    settings = Settings(home=trained_home, bundle=tmp_path / "bundle", bundle_key=SECRET.decode())
    folder = export_champion(settings, matches)
    assert load_bundle(folder, signing_key(settings)).version
    assert not (trained_home / "bundle" / "manifest.sig").exists()  # sin clave, sin firma


def test_a_short_signing_secret_is_refused():
    with pytest.raises(BundleError, match="32 o más"):
        signing_key(Settings(bundle_key="corta"))
    assert signing_key(Settings(bundle_key="x" * 32)) == b"x" * 32 and signing_key(Settings()) is None
    assert "x" * 32 not in repr(Settings(bundle_key="x" * 32))


# --- Secretos


def test_no_secret_is_written_anywhere(keys, served, tmp_path, caplog, monkeypatch):
    "Claves, tokens y contraseñas en cabeceras, consulta, ruta y cuerpo; respuestas buenas, 4xx y 500. Ni el diario ni las métricas los repiten, ni la respuesta los de la cabecera."
    key, token = create_key(keys, "la revista", ["predict"])
    ticket = sign_token(current_signing_key(signing_path(keys)), ["predict"])
    secret, hunter = token.split("_", 2)[2], "hunter2-secreta"

    class Broken(PredictionLog):
        def append_many(self, rows):
            raise ZeroDivisionError("postgresql://futbol:hunter2-secreta@db/futbol")

    written, metrics, answers = io.StringIO(), Metrics(process=False), []

    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # al acabar, lo de antes
    configure_logging(written)
    diary = AccessLog(written)
    log = PredictionLog(tmp_path / "log.db")
    for store in (log, Broken(tmp_path / "broken.db")):
        client = TestClient(create_api(load_bundle(served), store, metrics, guard_of(keys), diary))
        for credential in (token, ticket, token[:-2], f"{ticket}x"):
            headers = bearer(credential) | {"Cookie": f"session={hunter}", "X-Api-Key": credential, "X-Request-ID": "pedido"}
            answers += [client.post("/v1/predictions", json=FIXTURE, headers=headers),
                        client.post("/v1/predictions", json=FIXTURE | {"home_team": "Nadie"}, headers=headers),
                        client.post("/v1/predictions", content=b"{", headers=headers | {"Content-Type": "application/json"}),
                        client.get("/nada", headers=headers)]
            client.post(f"/v1/predictions?key={credential}&password={hunter}", json=FIXTURE | {"home_team": credential[:79], "password": hunter}, headers=headers)
            client.get(f"/v1/predictions/{credential}", headers=headers)
            client.get(f"/v1/{credential}/nada")
    log.close()
    diary.flush()
    assert {r.status_code for r in answers} >= {200, 400, 401, 404, 422, 500}
    everything = written.getvalue() + metrics.render()[0].decode() + "".join(r.text + str(r.headers) for r in answers)
    assert "pedido" in everything and "ZeroDivisionError" in everything and "/v1/predictions/fut_" in everything
    for hidden in (secret, secret[:-2], ticket, ticket.split(".")[1], ticket.split(".")[2], hunter, key.sha256):
        assert hidden not in everything


@pytest.mark.parametrize(("variable", "url"), [
    ("LOG_URL", "mysql://futbol:hunter2@db/futbol"), ("LOG_URL", "futbol:hunter2@db/futbol"),
    ("LOG_URL", "postgresql://futbol:hunter2@127.0.0.1:puerto/futbol?x=hunter2"), ("RATE_URL", "memcached://:hunter2@cuentas"), ("DATA_URL", "ftp://futbol:hunter2@datos"),
    ("OTLP_ENDPOINT", "futbol:hunter2@trazas"), ("BUNDLE_KEY", "hunter2"),
])
def test_a_setting_that_is_refused_tells_no_secret(served, tmp_path, variable, url):
    "El servidor de verdad no arranca, y su mensaje no trae la contraseña."
    environment = os.environ | {"FUTBOL_HOME": str(tmp_path), "FUTBOL_BUNDLE": str(served), "FUTBOL_PORT": str(free_port()), f"FUTBOL_{variable}": url}
    process = subprocess.Popen([sys.executable, "-m", "futbol_mlops.cli", "serve"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode in (1, 2) and said.strip() and "Traceback" not in said, said
    assert "hunter2" not in said, said


def test_a_database_that_is_down_tells_no_secret(served, tmp_path):
    "Con la dirección en regla y nadie detrás, el servidor atiende y se queja en el diario: sin la contraseña."
    port = free_port()
    environment = os.environ | {"FUTBOL_HOME": str(tmp_path), "FUTBOL_BUNDLE": str(served), "FUTBOL_PORT": str(port), "FUTBOL_LOG_URL": f"postgresql://futbol:hunter2@127.0.0.1:{free_port()}/futbol"}
    diary = tmp_path / "diary.txt"
    with open(diary, "w") as out:
        process = subprocess.Popen([sys.executable, "-m", "futbol_mlops.cli", "serve"], env=environment, stdout=out, stderr=subprocess.STDOUT)

    def asked():
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("POST", "/v1/predictions", json.dumps(FIXTURE), {"Content-Type": "application/json"})
            return connection.getresponse().status

    try:
        assert until(asked, 200, 60) == 200
        assert until(lambda: "refused" in diary.read_text(), True, 30), diary.read_text()
    finally:
        process.terminate()
        process.wait(30)
    assert "hunter2" not in diary.read_text()


@settings(max_examples=200, deadline=None)
@given(before=st.text(alphabet=st.characters(exclude_characters="_"), max_size=20), after=st.text(alphabet=' "\',;&/)}\n', max_size=5))
def test_a_key_is_hidden_wherever_it_is(before, after):
    token = security.new_token("0a1b2c3d")
    assert hide_secrets(before + token + after) == before + "fut_0a1b2c3d_…" + after


@pytest.mark.parametrize("text", ["eyJ" * 20_000, "eyJaaaaaaaa." * 5_000, "fut_0a1b2c3d_" * 5_000, "://a:" * 12_000, "://" + "a:" * 30_000, "://:" + "a" * 60_000], ids=lambda t: t[:12])
def test_hiding_is_linear(text):
    "Una línea escrita para que la búsqueda sea cuadrática tardaría muchos segundos."
    started = time.process_time()
    hide_secrets(text)
    assert time.process_time() - started < 3


# --- La tabla


def threat_table() -> list[tuple[str, str]]:
    "Las pruebas que nombra la tabla de amenazas de la lección."
    cells = json.loads((ROOT / "nbs" / "12_security.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)


def test_every_threat_names_a_test_that_exists():
    named = threat_table()
    assert len(named) >= 20
    for file, name in named:
        path = ROOT / "tests" / file
        assert path.exists() and re.search(rf"^def {name}\(", path.read_text(encoding="utf-8"), re.M), f"la tabla de amenazas nombra {file}::{name}, que no existe"
