"El repositorio se sostiene: lo generado está al día, nadie importa hacia arriba y todo lo público está documentado."
import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

BIN = Path(sys.executable).parent
NOTEBOOKS = sorted((ROOT / "nbs").glob("**/*.ipynb"))
MODULES = sorted(p for p in (ROOT / "futbol_mlops").glob("*.py") if not p.name.startswith("_"))
# De abajo arriba: un módulo solo importa de los anteriores.
LAYERS = ("config", "figures", "preflight", "readme", "site", "data", "validation", "versioning", "features", "feature_store", "goals", "models", "evaluation", "training", "bundle", "registry", "pipeline",
          "serving", "security", "journal", "feedback", "observability", "workers", "drift", "deployment", "app", "dashboard", "demo",
          "checks", "exercises", "wire", "isolation", "referee", "grading", "gradebook", "cli")
# Lo que el servidor puede importar sin las bibliotecas de entrenar.
SERVER = ("config", "features", "goals", "bundle", "serving", "security", "journal", "feedback", "observability", "workers", "app")


def copy_tree(to: Path) -> Path:
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    return to


def cells(path: Path):
    return [(i, c["cell_type"], "".join(c["source"]), c) for i, c in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"])]


def test_export_is_in_step(tmp_path):
    work = copy_tree(tmp_path)
    for module in (work / "futbol_mlops").glob("*.py"):
        if module.name != "__init__.py":
            module.unlink()
    (work / "futbol_mlops" / "_modidx.py").write_text("d = {'settings': {}, 'syms': {}}\n")
    subprocess.run([BIN / "nbdev_export"], cwd=work, check=True, capture_output=True)
    for module in MODULES:
        assert (work / "futbol_mlops" / module.name).exists(), f"{module.name} no sale de ningún cuaderno"
        assert (work / "futbol_mlops" / module.name).read_text() == module.read_text(), f"{module.name} no es lo que exporta su cuaderno; ejecuta «make export»"
    assert sorted(p.name for p in (work / "futbol_mlops").glob("[!_]*.py")) == [m.name for m in MODULES]


def test_readme_is_in_step():
    done = subprocess.run([sys.executable, "-m", "futbol_mlops.readme", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or done.stdout


def test_ruff_is_clean():
    done = subprocess.run([BIN / "ruff", "check", "--no-cache", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_notebooks_are_clean(tmp_path):
    work = copy_tree(tmp_path)
    subprocess.run([BIN / "nbdev_clean"], cwd=work, check=True, capture_output=True)
    for path in NOTEBOOKS:
        assert (work / path.relative_to(ROOT)).read_bytes() == path.read_bytes(), f"{path.name} lleva metadatos de sobra; ejecuta «nbdev_clean»"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_reads_well(path):
    "Está ejecutado entero, sin avisos ni rutas de una máquina, y con la forma del curso."
    found = cells(path)
    assert re.match(r"# \S.*\n\n> \S", found[0][2]), "la primera celda es un título y una frase"
    for i, kind, source, cell in found:
        if kind != "code":
            continue
        outputs = cell["outputs"]
        text = json.dumps(outputs, ensure_ascii=False)
        assert not [o for o in outputs if o["output_type"] == "error"], f"celda {i}: acaba en error"
        assert not [o for o in outputs if o.get("name") == "stderr"], f"celda {i}: escribe en la salida de errores"
        assert not re.search(r"(/home/|/root/|/tmp/|/var/tmp/|/Users/|[A-Z]:\\\\Users)", text + source.replace("/tmp:", "")), f"celda {i}: ruta de una máquina"
        assert len(text) < 200_000, f"celda {i}: la salida pesa {len(text) // 1000} KB"
        for output in outputs:
            svg = "".join(output.get("data", {}).get("image/svg+xml", ""))
            assert len(svg) <= 60_000 and (not svg or "aria-label" in svg), f"celda {i}: figura de {len(svg)} bytes o sin texto alternativo"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_links_lead_somewhere(path):
    for i, kind, source, _ in cells(path):
        if kind == "markdown":
            for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", source):
                assert (path.parent / target).exists(), f"celda {i}: {target} no existe"


def imports(path: Path) -> set[str]:
    tree, found = ast.parse(path.read_text(encoding="utf-8")), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if node.level == 1 and node.module:
                found.add(node.module.split(".")[0])
            elif node.level == 1 or node.module == "futbol_mlops":
                found |= {a.name for a in node.names if (ROOT / "futbol_mlops" / f"{a.name}.py").exists()}
            elif (node.module or "").startswith("futbol_mlops."):
                found.add(node.module.split(".")[1])
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_modules_import_only_from_earlier_stages(path):
    assert path.stem in LAYERS, f"{path.stem} no está en la lista de capas"
    below = set(LAYERS[: LAYERS.index(path.stem) + 1])
    assert imports(path) <= below, f"{path.stem} importa {sorted(imports(path) - below)}, que están por encima"


@pytest.mark.parametrize("name", SERVER)
def test_server_modules_are_light(name):
    heavy = "('mlflow', 'sklearn', 'pandas', 'evidently', 'matplotlib', 'streamlit')"
    code = f"import sys, futbol_mlops.{name}; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_public_api_is_documented(path):
    "Cada función pública: qué hace, el tipo de cada argumento y de lo que devuelve, y un comentario (docment) junto a cada uno."
    source = path.read_text(encoding="utf-8")
    lines, problems = source.splitlines(), []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if isinstance(node, ast.ClassDef):
            if not ast.get_docstring(node):
                problems.append(f"{node.name} no dice qué es")
            continue
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            command = bool(node.decorator_list)  # órdenes y rutas documentan sus argumentos con Annotated
            if not ast.get_docstring(node):
                problems.append(f"{node.name} no dice qué hace")
            for arg in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
                if not command and "#" not in lines[(arg.end_lineno or arg.lineno) - 1]:
                    problems.append(f"{node.name}({arg.arg}) no está explicado")
    assert not problems, "; ".join(problems)


def test_no_secrets_or_machine_paths_in_tracked_text():
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, files):
        path = ROOT / name
        if path.suffix in {".gz", ".png"} or not path.is_file() or name == "tests/test_repository.py" or name.startswith("exercises/"):
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|ghp_[A-Za-z0-9]{30})", text), f"{name}: parece un secreto"
        assert str(ROOT) + "/" not in text, f"{name}: ruta de esta máquina"


def test_solutions_carry_no_outputs():
    "Y los ejercicios tampoco, que salen de ellas; en un clon, exercises/ es de quien estudia y no se mira."
    for path in (ROOT / "solutions").glob("*.ipynb"):
        assert not any(c["outputs"] for _, kind, _, c in cells(path) if kind == "code"), f"{path}: lleva salidas"


def test_import_is_quick():
    "Una cuenta de módulos, no de segundos: importar el paquete no arrastra nada de fuera."
    code = "import sys; before = set(sys.modules); import futbol_mlops; print(len(set(sys.modules) - before))"
    assert int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) <= 2


def test_help_imports_nothing_heavy():
    code = "import sys\nfrom futbol_mlops.cli import main\nmain(['--help'])\nprint([m for m in ('pandas', 'numpy', 'mlflow', 'fastapi', 'sklearn', 'httpx') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"TERM": "dumb"})
    assert shown.stdout.strip().splitlines()[-1] == "[]"
