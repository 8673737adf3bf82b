"La línea de órdenes como la usa una persona: otro proceso, sus salidas y su código."
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

CLI = Path(sys.executable).parent / "futbol-mlops"


def run(*arguments, home=None, **env):
    environment = os.environ | {"COLUMNS": "120", "NO_COLOR": "1"} | env
    if home:
        environment["FUTBOL_HOME"] = str(home)
    return subprocess.run([CLI, *arguments], env=environment, capture_output=True, text=True, timeout=240)


def test_no_arguments_shows_help_as_wrong_use():
    done = run()
    assert done.returncode == 2 and "Órdenes" in done.stdout + done.stderr


@pytest.mark.parametrize("arguments, expected", [
    (["nada"], "No existe la orden"),
    (["train", "--jason"], "No existe la opción --jason"),
    (["predict", "Arsenal"], "Falta el argumento"),
    (["registry", "promote", "dos"], "no es un número entero"),
    (["train", "--search", "3", "--reproduce", "1"], "no van juntas"),
    (["data", "download", "--league", "XX"], "Liga desconocida"),
    (["data", "download", "--season", "2025"], "2025"),
])
def test_wrong_use_exits_2_in_spanish(arguments, expected, tmp_path):
    done = run(*arguments, home=tmp_path)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments, expected", [
    (["predict", "Arsenal", "Chelsea"], "Créalo con «futbol-mlops train»"),
    (["registry", "rollback"], "No hay un campeón anterior"),
    (["registry", "promote", "3"], "No hay versión 3"),
    (["data", "teams", "--league", "D1"], "data download --league D1"),
    (["serve", "--host", "0.0.0.0"], "Créalo con «futbol-mlops train»"),
])
def test_failed_work_exits_1_and_says_what_to_do(arguments, expected, tmp_path):
    done = run(*arguments, home=tmp_path)
    assert done.returncode == 1, done.stderr
    assert expected in done.stderr and "Traceback" not in done.stderr


def test_bad_setting_is_named(tmp_path):
    done = run("data", "status", home=tmp_path, FUTBOL_PORT="ochenta")
    assert done.returncode == 1 and "FUTBOL_PORT='ochenta'" in done.stderr


def test_predict_as_json(home):
    done = run("predict", "Arsenal", "Chelsea", "--kickoff", "2026-05-30", "--json", home=home)
    p = json.loads(done.stdout)
    assert done.returncode == 0 and abs(p["home_win"] + p["draw"] + p["away_win"] - 1) < 1e-9
    assert p["features_as_of"] == "2026-05-24" and p["warnings"] == ["stale"]


def test_unknown_team_suggests_and_points_to_the_list(home):
    done = run("predict", "Man Citi", "Chelsea", "--kickoff", "2026-05-30", home=home)
    assert done.returncode == 1
    assert "¿Quisiste decir «Man City»" in done.stderr and "futbol-mlops data teams --league E0" in done.stderr


def test_predict_table_shows_the_three_signs(home):
    done = run("predict", "Real Madrid", "Barcelona", "--league", "SP1", "--kickoff", "2024-06-01", home=home)
    assert done.returncode == 0, done.stderr
    assert "Real Madrid – Barcelona" in done.stdout and done.stdout.count("%") == 3


def test_data_status_as_json(tmp_path):
    rows = json.loads(run("data", "status", "--json", home=tmp_path).stdout)
    assert sum(row["matches"] for row in rows) == 7600


def test_registry_lists_champion_and_challenger(trained_home):
    rows = json.loads(run("registry", "list", "--json", home=trained_home).stdout)
    assert {"champion", "challenger"} <= {row["aliases"] for row in rows}
    assert all(row["data_version"] for row in rows)


def test_evaluate_prints_every_candidate(tmp_path):
    rows = json.loads(run("evaluate", "--json", home=tmp_path).stdout)
    assert [row["model"] for row in rows] == ["base_rate", "elo_logit", "form_logit", "strength_logit", "goal_rates", "dixon_coles", "boosting", "ensemble"]


def test_evaluate_another_league_says_what_is_missing(home):
    done = run("evaluate", "--league", "SP1", home=home)
    assert done.returncode == 1 and "De SP1 no hay ninguna temporada con la que elegir" in done.stderr
    done = run("evaluate", "--league", "SP9", home=home)
    assert done.returncode == 2 and "Liga desconocida: «SP9»" in done.stderr


def test_registry_tells_who_decided_and_writes_the_card(trained_home):
    events = json.loads(run("registry", "history", "--json", home=trained_home).stdout)
    assert events[0]["action"] == "promote" and events[0]["actor"] and "elección" in events[0]["reason"]
    card = run("registry", "card", home=trained_home).stdout
    for section in ("# futbol-1x2 1.", "## Para qué no", "## Datos", "## Medidas", "intervalo del 95 %", "## Igualdad entre ligas", "LaLiga", "## Energía", "## Historia"):
        assert section in card
    assert run("registry", "card", "99", home=trained_home).returncode == 1


@pytest.mark.parametrize("arguments, expected", [
    (["pipeline", "--only", "nada"], "No hay ninguna etapa «nada»"),
    (["pipeline", "--only", "gate"], "La etapa gate necesita"),
    (["pipeline", "--params", "no_existe.yaml"], "No se pueden leer los ajustes"),
    (["train", "--reproduce", "9"], "No hay versión 9"),
    (["data", "diff", "abc"], "No hay ninguna versión que empiece por «abc»"),
    (["evaluate", "--dask", "tcp://127.0.0.1:1"], "Ningún planificador de Dask contesta"),
])
def test_what_cannot_be_done_is_said(arguments, expected, tmp_path):
    done = run(*arguments, home=tmp_path)
    assert done.returncode == 1 and expected in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_doctor_reports_each_part(home):
    rows = json.loads(run("doctor", "--json", home=home).stdout)
    found = {row["check"]: row["status"] for row in rows}
    assert found["Python"] == "bien" and found["modelo"] == "bien" and "contenedores" in found


def test_a_state_folder_that_cannot_be_is_said(tmp_path):
    (tmp_path / "fichero").write_text("")
    done = run("pipeline", home=tmp_path / "fichero" / "estado")
    assert done.returncode == 1 and "No se puede usar" in done.stderr and "Traceback" not in done.stderr


def test_a_damaged_registry_is_said(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"esto no es una base de datos" * 100)
    done = run("registry", "list", home=tmp_path)
    assert done.returncode == 1 and "no se entiende" in done.stderr and "Traceback" not in done.stderr


def test_serve_starts_the_workers_it_is_told_and_monitor_asks_it(home):
    "Con dos procesos y claves: `monitor` cuenta cómo acierta el modelo, y sin clave dice qué falta."
    import psutil

    from futbol_mlops.demo import post_json
    from futbol_mlops.deployment import fetch, free_port

    assert "todo" in run("keys", "create", "panel", "--scope", "todo", home=home).stderr
    token = run("keys", "create", "panel", "--scope", "predict", "--scope", "feedback", home=home).stdout.strip()
    port, headers = free_port(), {"Authorization": f"Bearer {token}"}
    url = f"http://127.0.0.1:{port}"
    down = run("monitor", home=home, FUTBOL_API_URL=url)
    assert down.returncode == 1 and "futbol-mlops serve" in down.stderr and "Traceback" not in down.stderr
    server = subprocess.Popen([CLI, "serve", "--port", str(port), "--workers", "2"], env=os.environ | {"FUTBOL_HOME": str(home)}, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        for _ in range(300):
            if fetch(f"{url}/readyz")[0] == 200:
                break
            time.sleep(0.1)
        assert len(psutil.Process(server.pid).children()) == 3  # dos que atienden y el ayudante
        closed = run("monitor", home=home, FUTBOL_API_URL=url)
        assert closed.returncode == 1 and "FUTBOL_API_KEY" in closed.stderr
        empty = run("monitor", home=home, FUTBOL_API_URL=url, FUTBOL_API_KEY=token)
        assert empty.returncode == 0 and "Aún no hay" in empty.stdout
        match = {"league": "E0", "home_team": "West Ham", "away_team": "Leeds", "kickoff": "2026-05-24"}
        post_json(f"{url}/v1/predictions", match, headers)
        post_json(f"{url}/v1/results", {**match, "home_goals": 3, "away_goals": 0}, headers)
        for _ in range(50):  # el ayudante pasa la bitácora al registro en un instante
            rows = json.loads(run("monitor", "--json", home=home, FUTBOL_API_URL=url, FUTBOL_API_KEY=token).stdout)
            if rows:
                break
        assert [(row["model_version"], row["matches"]) for row in rows] == [("1.0.0", 1)]
        table = run("monitor", "--window", "5", home=home, FUTBOL_API_URL=url, FUTBOL_API_KEY=token).stdout
        assert "RPS" in table and "aciertos" in table
    finally:
        server.terminate()
        assert server.wait(20) == 0
