"Lo que comparten las pruebas."
import os
import shutil
import subprocess
import sys
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


@pytest.fixture
def log(tmp_path: Path):
    "Un registro de predicciones vacío."
    from futbol_mlops.journal import PredictionLog

    log = PredictionLog(tmp_path / "predictions.db")
    yield log
    log.close()
