"Lo que comparten las pruebas."
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def missing(what: str, how: str) -> None:
    "Falta una pieza real: en CI es un fallo; en otra máquina, un salto que dice cómo conseguirla."
    reason = f"{what}. Para tenerlo: {how}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def matches():
    "Los partidos que vienen con el paquete."
    from futbol_mlops.data import load_matches

    return load_matches()


@pytest.fixture(scope="session")
def X(matches):
    "Sus variables."
    from futbol_mlops.features import build_features

    return build_features(matches)[0]


@pytest.fixture(scope="session")
def trained_home(tmp_path_factory, worker_id) -> Path:
    "Una carpeta de estado con el campeón entrenado; se hace una vez y la comparten los procesos de pytest-xdist."
    import fcntl

    shared = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    home = shared / "trained"
    with open(shared / "trained.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "bundle").exists():
            shutil.rmtree(home, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "futbol_mlops.cli", "train", "--json"], env=os.environ | {"FUTBOL_HOME": str(home)},
                           check=True, capture_output=True, timeout=300)
    return home


@pytest.fixture
def home(trained_home: Path, tmp_path: Path) -> Path:
    "Una copia propia de la carpeta entrenada, para lo que la cambia. MLflow guarda rutas absolutas: aquí solo el paquete y los datos."
    for name in ("bundle", "data"):
        shutil.copytree(trained_home / name, tmp_path / "state" / name)
    return tmp_path / "state"


@pytest.fixture(scope="module")
def bundle():
    "Un paquete con dos partidos y la tasa base: lo justo para que la API conteste."
    import datetime as dt

    from futbol_mlops.bundle import Bundle
    from futbol_mlops.features import History

    history = History()
    history.add("SP1", "Betis", "Sevilla", dt.date(2024, 9, 1), 2, 0)
    history.add("SP1", "Sevilla", "Getafe", dt.date(2024, 9, 14), 1, 1)
    return Bundle({"name": "futbol-1x2", "version": "0.1.0"}, {"kind": "base_rate", "probabilities": [0.45, 0.25, 0.3]}, history)


@pytest.fixture
def log(tmp_path: Path):
    "Un registro de predicciones vacío."
    from futbol_mlops.journal import PredictionLog

    log = PredictionLog(tmp_path / "predictions.db")
    yield log
    log.close()


class Postgres:
    "Un PostgreSQL de verdad en un puerto libre de esta máquina, con su carpeta. PostgreSQL no admite root: entonces lo lleva la cuenta `postgres`."

    def __init__(self, programs: Path) -> None:
        self.programs, self.folder, self.server = programs, Path(tempfile.mkdtemp(prefix="futbol-postgres-")), None
        self.account = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if self.account:
            shutil.chown(self.folder, "postgres", "postgres")
        self._run("initdb", "--pgdata", self.folder / "data", "--username", "futbol", "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
        self.port, self.names = None, 0
        for _ in range(5):  # otro puede quedarse el puerto entre que se elige y se usa
            with socket.create_server(("127.0.0.1", 0)) as s:
                self.port = s.getsockname()[1]
            if self.start():
                return
        raise RuntimeError((self.folder / "server.log").read_text()[-2000:])

    def _run(self, program: str, *arguments) -> None:
        subprocess.run([self.programs / program, *map(str, arguments)], check=True, capture_output=True, cwd="/", timeout=60, **self.account)

    def start(self) -> bool:
        "Lo arranca y espera a que conteste."
        import psycopg

        command = [self.programs / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}", "-c", "shared_buffers=16MB"]
        with open(self.folder / "server.log", "a") as out:
            self.server = subprocess.Popen([str(c) for c in command], cwd="/", stdout=out, stderr=out, start_new_session=True, **self.account)
        deadline = time.monotonic() + 30
        while self.server.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url("postgres"), connect_timeout=2):
                return True
            time.sleep(0.05)
        return False

    def stop(self, how: int = signal.SIGQUIT) -> None:
        "Lo para: SIGQUIT, como si se fuera la luz; SIGINT, cortando las conexiones por las buenas."
        if self.server is not None and self.server.poll() is None:
            self.server.send_signal(how)
            self.server.wait(30)

    def freeze(self) -> None:
        "Deja de contestar sin cerrar nada."
        os.killpg(self.server.pid, signal.SIGSTOP)
        for pid in self._children():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self._children():
            os.kill(pid, signal.SIGCONT)
        os.killpg(self.server.pid, signal.SIGCONT)

    def _children(self) -> list[int]:
        import psutil

        return [p.pid for p in psutil.Process(self.server.pid).children(recursive=True)]

    def url(self, database: str) -> str:
        return f"postgresql://futbol@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        "Una base de datos vacía; devuelve su dirección."
        import psycopg

        self.names += 1
        name = f"prueba_{self.names}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as db:
            db.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres():
    "El PostgreSQL de la sesión, que se puede parar y volver a arrancar."
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[4])) or [Path(p) for p in [shutil.which("postgres")] if p]
    if not found:
        missing("Falta PostgreSQL", "en Debian o Ubuntu, sudo apt-get install postgresql; en macOS, brew install postgresql@16")
    server = Postgres(found[-1].parent)
    yield server
    server.close()
