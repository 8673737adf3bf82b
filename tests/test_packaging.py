"El paquete se construye, se instala en un entorno vacío y dice lo mismo en settings.ini y en pyproject.toml."
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def facts():
    parser = ConfigParser(delimiters=["="])
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


@pytest.fixture(scope="module")
def static():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_settings_and_pyproject_agree(facts, static):
    project = static["project"]
    assert project["name"] == facts["lib_name"]
    assert project["description"] == facts["description"]
    assert project["requires-python"] == f">={facts['min_python']},<{facts['max_python']}"


def test_no_field_is_stated_twice(static):
    "setuptools prefiere en silencio pyproject.toml: lo que pone setup.py debe estar en `dynamic`."
    project = static["project"]
    assert not set(project["dynamic"]) & set(project)
    assert set(project) == {"name", "description", "requires-python", "license-files", "dynamic"}


def test_version_is_the_same_everywhere(facts):
    from futbol_mlops import __version__

    assert __version__ == facts["version"]


def test_constraints_pin_every_requirement(facts):
    from packaging.requirements import Requirement

    pins: dict[str, list] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        pin = Requirement(line)
        pins.setdefault(pin.name.lower(), []).append(pin)
    for key in facts:
        if key == "requirements" or key.endswith("_requirements"):
            for requirement in map(Requirement, facts[key].split()):
                found = pins.get(requirement.name.lower())
                assert found, f"{requirement.name} no está en constraints.txt; ejecuta «make lock»"
                assert all(requirement.specifier.contains(str(pin.specifier).lstrip("=")) for pin in found), f"{requirement} y constraints.txt no encajan"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    "Rueda y sdist, construidos de una copia limpia de lo que Git conoce."
    work, out = tmp_path_factory.mktemp("src"), tmp_path_factory.mktemp("dist")
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    names = [n for n in files.decode().split("\0") if n and (ROOT / n).is_file()]
    for name in names:
        target = work / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    done = subprocess.run([sys.executable, "-m", "build", "--installer", "uv", "--outdir", str(out), str(work)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


def test_wheel_holds_code_and_matches_and_nothing_else(built):
    wheel = next(built.glob("*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    assert "futbol_mlops/datasets/matches.csv.gz" in names
    assert "futbol_mlops/datasets/README.md" in names
    assert any(n.endswith("licenses/LICENSE") for n in names) and any(n.endswith("licenses/NOTICE") for n in names)
    assert {n.split("/")[0] for n in names} == {"futbol_mlops", next(n.split("/")[0] for n in names if n.endswith("dist-info/METADATA"))}
    assert not [n for n in names if "solutions" in n or n.endswith(".ipynb")], "el paquete instalado no lleva soluciones"


def test_sdist_can_build_itself(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = archive.getnames()
    for needed in ("settings.ini", "setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        assert any(n.endswith(f"/{needed}") for n in names), f"falta {needed} en el sdist"


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_installs_in_an_empty_environment(built, tmp_path, kind):
    package, python = next(built.glob(kind)), tmp_path / "venv" / "bin" / "python"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(tmp_path / "venv")], check=True)
    subprocess.run([*uv, "pip", "install", "-q", "--python", str(python), "-c", str(ROOT / "constraints.txt"), str(package)], check=True, capture_output=True)
    shown = subprocess.run([python.parent / "futbol-mlops", "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "Órdenes" in shown.stdout and "demo" in shown.stdout
    failed = subprocess.run([python.parent / "futbol-mlops", "predict", "Arsenal", "Chelsea"], capture_output=True, text=True, cwd=tmp_path)
    assert failed.returncode == 1 and "futbol_mlops[demo]" in failed.stderr, failed.stderr
