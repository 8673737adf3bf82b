"""El panel de verdad, con la API de verdad, en un Chromium de verdad.

Para rehacer la captura del README: FUTBOL_SCREENSHOT=nbs/images/panel.png .venv/bin/pytest tests/test_dashboard.py -k fixture
"""

import os
import re
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import missing

from futbol_mlops.config import Settings
from futbol_mlops.dashboard import ask, dashboard_command, open_api
from futbol_mlops.demo import DashboardProcess, wait_dashboard
from futbol_mlops.deployment import ServerProcess, free_port, wait_healthy

# Al arrancar un contenedor cambia la red de la máquina y Chromium corta lo que esté pidiendo: las dos pruebas, en el mismo proceso.
pytestmark = pytest.mark.xdist_group("network")

PATIENCE = 20_000  # milisegundos; una máquina ocupada tarda


class Stack:
    "La API y el panel, en marcha; la API se puede parar y volver a arrancar en el mismo puerto."

    def __init__(self, home: Path, state: Path) -> None:
        self.bundle, self.state, self.port = home / "bundle", state, free_port()
        self.api = self.dashboard = None
        try:
            self.start_api()
            self.dashboard = DashboardProcess(Settings(home=home, host="127.0.0.1", dashboard_port=free_port()), self.api)
            wait_dashboard(self.dashboard)
        except BaseException:
            self.stop()
            raise

    def start_api(self) -> None:
        self.api = ServerProcess(self.bundle, self.state, self.port)
        wait_healthy(self.api)

    def ask(self, path: str, **params) -> dict:
        return ask(open_api(self.api.url), "GET", path, params=params)

    def stop(self) -> None:
        for server in (self.dashboard, self.api):
            if server is not None:
                server.stop()


@pytest.fixture(scope="module")
def stack(trained_home, tmp_path_factory):
    stack = Stack(trained_home, tmp_path_factory.mktemp("state"))
    yield stack
    stack.stop()


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        missing("No hay Chromium, y el panel se prueba en un navegador", "apt-get install chromium")
    with ExitStack() as cleanup:
        playwright = cleanup.enter_context(api.sync_playwright())
        sandbox = [] if hasattr(os, "getuid") and os.getuid() else ["--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=chromium, args=[*sandbox, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"])
        cleanup.callback(browser.close)
        yield browser


@pytest.fixture
def page(browser, stack):
    "Una pestaña nueva; al acabar, comprueba que no pidió nada fuera de esta máquina y que nada falló en la página."
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="es-ES", timezone_id="UTC", color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    asked = []
    context.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    try:
        page.goto(stack.dashboard.url)
        yield page
        assert page.locator("[data-testid=stException]").count() == 0
    finally:
        context.close()
    outside = [url for url in asked if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).hostname != "127.0.0.1"]
    assert len(asked) > 5 and outside == []


def choose(page, label: str, text: str) -> None:
    "Elige una opción de un selector, como quien escribe y pulsa Intro."
    box = page.get_by_role("combobox", name=label)
    box.click()
    box.fill(text)
    page.get_by_role("option", name=text).first.click()


def cells(page, name: str) -> list[list[str]]:
    "Las celdas de una tabla de la página."
    table = page.locator(f"#T_{name}")
    table.wait_for()
    return [row.locator("td").all_inner_texts() for row in table.locator("tbody tr").all()]


def go(page, title: str) -> None:
    "Pulsa una entrada del menú."
    page.get_by_role("link", name=title, exact=True).click()


def test_fixture(page, stack):
    "Se elige un partido, se ven tres probabilidades que suman 100 y queda anotado. El 6 de febrero de 2016, el Leicester ganó 1-3 en casa del City."
    choose(page, "Local", "Man City")
    choose(page, "Visitante", "Leicester")
    page.get_by_role("spinbutton").first.focus()
    page.keyboard.type("06022016")
    page.keyboard.press("Escape")  # el calendario se abre al escribir
    page.get_by_role("button", name="Pronosticar").click()
    page.locator("#T_probabilities td", has_text="Leicester").wait_for()
    rows = cells(page, "probabilities")
    assert [row[:2] for row in rows] == [["1", "Man City"], ["X", "Empate"], ["2", "Leicester"]]
    assert sum(int(row[2].removesuffix(" %")) for row in rows) == 100
    assert page.get_by_text("6 de febrero de 2016. Con lo que se sabía hasta el 2 de febrero de 2016. Acabó 1-3.").is_visible()
    assert page.get_by_label(re.compile(r"gana Man City, \d+ %; empate, \d+ %; gana Leicester, \d+ %")).count() == 1
    expect = pytest.importorskip("playwright.sync_api").expect
    expect(page.locator("[data-testid=stPlotlyChart] .bartext")).to_have_text([row[2] for row in rows], timeout=PATIENCE)
    assert len(cells(page, "features")) == 16
    assert page.evaluate("document.documentElement.lang") == "es"
    if target := os.environ.get("FUTBOL_SCREENSHOT"):
        page.mouse.move(0, 0)
        page.locator("[data-testid=stStatusWidget]").wait_for(state="detached")
        page.screenshot(path=target, clip={"x": 0, "y": 0, "width": 1280, "height": 750})
        assert Path(target).stat().st_size < 300_000

    logged = stack.ask("/v1/predictions", limit=1)["predictions"][0]
    assert (logged["home_team"], logged["away_team"], logged["kickoff"]) == ("Man City", "Leicester", "2016-02-06")
    go(page, "Últimas predicciones")
    newest = cells(page, "predictions")[0]
    assert newest[2:4] == ["Man City – Leicester", "2016-02-06"] and newest[4:7] == [row[2] for row in rows]


def test_impossible_fixture(page):
    "Lo que la API no admite se cuenta con sus palabras, y se puede corregir."
    choose(page, "Visitante", "West Ham")
    page.get_by_role("button", name="Pronosticar").click()
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "Un equipo no juega contra sí mismo: los dos son «West Ham»" in alert.inner_text()
    choose(page, "Visitante", "Chelsea")
    page.get_by_role("button", name="Pronosticar").click()
    page.locator("#T_probabilities td", has_text="Chelsea").wait_for()
    assert alert.count() == 0


def test_quiniela(page, stack):
    "La última jornada tiene diez partidos, ya jugados; mirarla dos veces la anota una."
    go(page, "Quiniela")
    rows = cells(page, "quiniela")
    assert len(rows) == 10
    for _, home, draw, away, sign, score, happened, hit in rows:
        shares = [int(x.removesuffix(" %")) for x in (home, draw, away)]
        goals = [int(g) for g in score.split("-")]
        assert sum(shares) == 100 and max(shares) == shares["1X2".index(sign)]
        assert happened == ("1" if goals[0] > goals[1] else "X" if goals[0] == goals[1] else "2")
        assert (hit == "✓ sí") == (sign == happened)
    before = len(stack.ask("/v1/predictions", limit=100)["predictions"])
    page.reload()
    assert cells(page, "quiniela") == rows
    assert len(stack.ask("/v1/predictions", limit=100)["predictions"]) == before
    choose(page, "Liga", "LaLiga")
    page.locator("#T_quiniela caption", has_text="LaLiga").wait_for()
    assert len(cells(page, "quiniela")) == 10


def test_teams_and_model(page):
    "Las curvas de Elo, la ficha con su RPS, el backtest y el registro."
    go(page, "Equipos")
    rows = cells(page, "elo")
    assert len(rows) == 14 and rows[0][0] == "2025-26" and 1500 < int(rows[0][1]) < 2000
    page.locator("[data-testid=stPlotlyChart] .scatterlayer path.js-line").nth(3).wait_for(state="attached")

    go(page, "Modelo")
    card = dict(cells(page, "card"))
    assert card["Modelo"] == "futbol-1x2 1.0.0" and card["Candidato"] == "ensemble" and card["Medido en"].startswith("Premier League")
    rps = page.locator("[data-testid=stMetric]", has_text="RPS").locator("[data-testid=stMetricValue]").inner_text()
    assert 0.18 < float(rps.replace(",", ".")) < 0.21
    backtest = cells(page, "backtest")
    assert len(backtest) == 9 and all(row[2] < row[3] for row in backtest)  # mejor que la tasa base, todas
    assert {row[3] for row in cells(page, "versions")} == {"champion", "challenger"}


def test_api_down(page, stack):
    "Sin API, una frase y una orden; cuando vuelve, basta con reintentar."
    page.locator("#T_probabilities").wait_for()
    stack.api.stop()
    try:
        go(page, "Quiniela")
        alert = page.get_by_role("alert")
        alert.wait_for()
        assert f"La API no responde en {stack.api.url}" in alert.inner_text()
        assert "futbol-mlops serve" in page.locator("[data-testid=stCode]").inner_text()
        assert page.locator("table").count() == 0
    finally:
        stack.start_api()
    page.get_by_role("button", name="Reintentar").click()
    assert len(cells(page, "quiniela")) == 10
    assert page.get_by_role("alert").count() == 0


def test_command():
    "Sin telemetría, sin abrir nada y en la dirección de los ajustes."
    command = dashboard_command(Settings(host="127.0.0.1", dashboard_port=8765))
    assert command[:4] == [sys.executable, "-m", "streamlit", "run"] and Path(command[4]).is_file()
    assert {"--server.port=8765", "--server.address=127.0.0.1", "--server.headless=true", "--browser.gatherUsageStats=false"} < set(command)
