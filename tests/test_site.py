"La web del curso: se construye entera una vez y se mira como la vería quien la visita."
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import ROOT, missing

from futbol_mlops.site import SiteError, build_site, exercise_of, main, outside_loads, site_server

# Como las demás pruebas de navegador, en un solo proceso; así el sitio también se construye una vez.
pytestmark = [pytest.mark.xdist_group("network"), pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")]

LESSONS = sorted(p.stem for p in (ROOT / "nbs").glob("[0-9]*.ipynb"))
TOOLS = sorted(p.stem for p in (ROOT / "nbs" / "tools").glob("*.ipynb"))
MODULES = sorted(p.stem for p in (ROOT / "futbol_mlops").glob("[!_]*.py"))
PATIENCE = 20_000  # milisegundos; una máquina ocupada tarda


@pytest.fixture(scope="session")
def site(tmp_path_factory, worker_id) -> Path:
    "El sitio entero; si varios procesos de pytest-xdist lo piden, lo hace uno."
    shared = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    with open(shared / "site.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "site").exists():
            done = subprocess.run([sys.executable, "-m", "futbol_mlops.site", "--out", str(shared / "site")], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            assert done.stdout == f"Sitio construido: {shared / 'site' / 'index.html'}\n"
    return shared / "site"


def page(site: Path, name: str) -> str:
    return (site / f"{name}.html").read_text(encoding="utf-8")


def test_every_notebook_has_a_page_in_the_menu(site):
    home = page(site, "index")
    for name in [*LESSONS, *(f"tools/{t}" for t in TOOLS)]:
        assert f'href="{name}.html"' in home, f"{name} no está en el menú"
        assert (site / f"{name}.html").is_file()
    assert '<html lang="es"' in home and "Herramientas" in home and "Toggle" not in home


def test_code_and_outputs_are_shown_and_hidden_cells_are_not(site):
    lesson = page(site, "04_features")
    assert "expected_score" in lesson and "cell_output" in lesson and "<img" in lesson
    for name in LESSONS:
        assert "#| " not in re.sub(r"<[^>]+>", "", page(site, name)), f"{name} enseña una directiva"
    assert "La respuesta de ejemplo de más abajo" not in page(site, "index")
    assert "<math" in page(site, "07_evaluation")


def test_the_menu_follows_the_front_page(site):
    "No el alfabeto: la bitácora se lee antes que los resultados."
    order = re.findall(r'class="reference internal" href="(\d\w+)\.html"', page(site, "index"))
    wanted = ["11_serving", "11_workers", "12_security", "13_journal", "13_observability", "13_feedback", "14_drift"]
    assert [name for name in dict.fromkeys(order) if name in wanted] == wanted
    stages = [int(name[:2]) for name in dict.fromkeys(order)]
    assert stages == sorted(stages)


def test_exercises_are_real_notebooks(site):
    found = 0
    for name in LESSONS:
        exercise = exercise_of(ROOT, name)
        anchors = re.findall(r'href="([^"]*_downloads/[^"]+\.ipynb)"[^>]*>(.*?)</a>', page(site, name))
        links = {link: text for link, html in anchors if (text := re.sub("<[^>]+>", "", html)).startswith("Descargar")}
        assert set(links.values()) == {"Descargar el cuaderno", *(["Descargar los ejercicios"] if exercise else [])}
        for link, text in links.items():
            wanted = ROOT / (exercise if "ejercicios" in text else f"nbs/{name}.ipynb")
            assert json.loads((site / link).read_text(encoding="utf-8"))["cells"]
            assert (site / link).read_bytes() == wanted.read_bytes()
        found += bool(exercise)
    assert found


@pytest.mark.parametrize("name", MODULES)
def test_reference_lists_what_a_module_exports(site, name):
    source = (ROOT / "futbol_mlops" / f"{name}.py").read_text(encoding="utf-8")
    public = re.findall(r"'(\w+)'", re.search(r"__all__ = \[(.*?)\]", source, re.DOTALL)[1])
    shown = page(site, f"api/{name}")
    for item in public:
        assert f'id="futbol_mlops.{name}.{item}"' in shown, f"falta {item}"


def test_reference_explains_parameters(site):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page(site, "api/features")))
    assert "rating_home float Elo del local antes del partido" in text
    assert "devuelve float puntuación esperada del local, entre 0 y 1" in text


def test_nothing_comes_from_outside(site, tmp_path):
    assert outside_loads(site) == []
    (tmp_path / "a.html").write_text("<a href='https://nbdev.fast.ai'>x</a><img alt='>' src='//cdn.example/x.png'><style>@import 'https://cdn.example/y'</style>")
    assert outside_loads(tmp_path) == ["a.html: https://cdn.example/y", "a.html: //cdn.example/x.png"]


def test_internal_links_and_anchors_exist(site):
    ids = {p: set(re.findall(r'\bid="([^"]+)"', p.read_text(encoding="utf-8"))) for p in site.rglob("*.html") if "_static" not in p.parts}
    broken = []
    for path in ids:
        for link in set(re.findall(r'<(?:a|img|link|script)\b[^>]*\s(?:href|src)="([^"]+)"', path.read_text(encoding="utf-8"))):
            parts = urlsplit(link.replace("&amp;", "&"))
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file() or parts.fragment and target in ids and unquote(parts.fragment) not in ids[target]:
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


def toy(root: Path, text: str, output: str = "") -> Path:
    "Un repositorio mínimo con una lección."
    outputs = [{"output_type": "display_data", "metadata": {}, "data": {"text/html": output}}] if output else []
    for name, words in (("index", "# Juguete"), ("01_goals", f"# Goles\n\n{text}")):
        cells = [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": words},
                 {"cell_type": "code", "id": "b", "metadata": {}, "execution_count": None, "source": "goals()", "outputs": outputs}]
        (root / "nbs").mkdir(parents=True, exist_ok=True)
        (root / "nbs" / f"{name}.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    (root / "settings.ini").write_text("[DEFAULT]\nlib_name = toy\nversion = 1\ndescription = x\n")
    return root


def test_a_warning_stops_the_build_and_keeps_the_old_site(tmp_path, monkeypatch, capsys):
    root = toy(tmp_path / "toy", "Hay [otra](02_odds.ipynb).")
    monkeypatch.chdir(root)
    (root / "_site").mkdir()
    for name in (".buildinfo", "index.html"):
        (root / "_site" / name).write_text("el de antes")
    assert main([]) == 1
    said = capsys.readouterr().err
    assert "Sphinx avisa de 1 problema, y con avisos no se publica" in said and "01_goals.ipynb" in said and "02_odds.ipynb" in said
    assert str(tmp_path) not in said and "Traceback" not in said
    assert (root / "_site" / "index.html").read_text() == "el de antes"


def test_an_output_that_loads_from_outside_stops_the_build(tmp_path):
    root = toy(tmp_path / "toy", "Una gráfica.", '<script src="https://cdn.example/plotly.js"></script>')
    with pytest.raises(SiteError, match=r"01_goals\.html: https://cdn\.example/plotly\.js"):
        build_site(tmp_path / "out", root)
    assert not (tmp_path / "out").exists()


def test_wrong_places_and_uses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1 and "Ejecuta la orden desde la raíz del repositorio" in capsys.readouterr().err
    assert main(["--serve", "muchos"]) == 2 and "Uso:" in capsys.readouterr().err
    toy(tmp_path, "Nada.")
    (tmp_path / "tesis").mkdir()
    (tmp_path / "tesis" / "tesis.txt").touch()
    assert main(["--out", "tesis"]) == 1 and "no se borra" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "sphinx" else object())
    assert main([]) == 1 and "Falta sphinx. «make site»" in capsys.readouterr().err


def test_module_is_light():
    code = "import sys, futbol_mlops.site; print([m for m in ('sphinx', 'myst_nb', 'nbdev', 'docutils', 'pandas', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_workflow_is_valid():
    workflow = ROOT / ".github" / "workflows" / "site.yml"
    done = subprocess.run([sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(workflow)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    text = workflow.read_text(encoding="utf-8")
    assert "run: make site" in text and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in re.findall(r"uses: (\S+)", text))


def test_in_a_browser(site):
    "Tres páginas y una búsqueda, en claro y en oscuro, sin pedir nada fuera de esta máquina."
    api = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        missing("No hay Chromium, y el sitio se prueba en un navegador", "apt-get install chromium")
    asked, errors = [], []
    with site_server(site) as server, api.sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        sandbox = [] if hasattr(os, "getuid") and os.getuid() else ["--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=chromium, args=[*sandbox, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"])
        context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="es-ES", color_scheme="light")
        tab = context.new_page()
        tab.set_default_timeout(PATIENCE)
        context.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)

        tab.goto(base)
        assert tab.locator("h1").first.inner_text().startswith("futbol_mlops")
        tab.get_by_role("link", name="07 · Evaluación").click()
        assert tab.locator("h1").first.inner_text().startswith("Evaluación")
        assert tab.locator("math").first.bounding_box()["height"] > 10

        assert tab.evaluate("document.documentElement.dataset.theme") == "light"
        tab.get_by_role("button", name="Tema").click()
        tab.get_by_role("button", name="Oscuro").click()
        tab.wait_for_function("document.documentElement.dataset.theme == 'dark'")

        tab.goto(f"{base}/api/features.html")
        assert tab.locator("[id='futbol_mlops.features.build_features']").is_visible()

        tab.keyboard.press("Control+k")
        tab.keyboard.type("RPS")
        tab.keyboard.press("Enter")
        tab.locator("#search-results li a", has_text="Evaluación").first.click()
        tab.wait_for_url("**/07_evaluation.html*")
        assert tab.locator("h1").first.inner_text().startswith("Evaluación")
        browser.close()
        server.shutdown()
    assert errors == []
    assert len(asked) > 10 and [url for url in asked if urlsplit(url).hostname != "127.0.0.1" and urlsplit(url).scheme != "data"] == []
