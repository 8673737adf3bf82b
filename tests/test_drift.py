"""La deriva: 2020-21 salta, una temporada tranquila no, y lo que no se puede medir se dice."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from futbol_mlops.data import load_matches
from futbol_mlops.drift import (
    CHECKS,
    LATE_COLUMNS,
    LIVE_COLUMNS,
    MIN_ROWS,
    Check,
    DriftError,
    drift_report,
    external_resources,
    find_results,
    monitoring_frame,
    residual_by_season,
    residual_z,
    season_split,
    served_frame,
    with_results,
)
from futbol_mlops.evaluation import walk_forward
from futbol_mlops.features import FORM_FEATURES, build_features
from futbol_mlops.models import OUTCOMES, make_logit

SEASONS = [f"{year}-{(year + 1) % 100:02}" for year in range(2013, 2026)]


@pytest.fixture(scope="module")
def matches():
    return load_matches()


@pytest.fixture(scope="module")
def frame(matches):
    X, _ = build_features(matches)
    return monitoring_frame(matches, X, walk_forward(matches, X, make_logit, SEASONS))


@pytest.fixture(scope="module")
def crowdless(frame):
    return drift_report(*season_split(frame, "2020-21"))


@pytest.fixture(scope="module")
def quiet(frame):
    return drift_report(*season_split(frame, "2018-19"))


def test_2020_21_is_flagged_by_the_residual(frame, crowdless):
    "El residuo de la victoria local es el que ve la temporada sin público."
    row = crowdless.table.set_index("column").loc["home_residual"]
    assert row["drifted"] and -4.2 < row["value"] < -3.2
    assert row["value"] == pytest.approx(residual_z(frame[frame["season"] == "2020-21"]))
    assert (crowdless.current_rows, crowdless.reference_rows) == (380, 1900)


def test_quiet_season_is_silent(quiet):
    assert quiet.drifted == ()


def test_features_alone_do_not_tell_2020_21_from_a_quiet_season(frame, crowdless, quiet):
    "Ni con el umbral del curso ni con el 0,05 de costumbre salta ninguna variable, en ninguna de las dos."
    for result in (crowdless, quiet):
        features = result.table[result.table["column"].isin(FORM_FEATURES)]
        assert len(features) == len(FORM_FEATURES)
        assert not features["drifted"].any()
        assert (features["value"] > 0.05).all()
    wasserstein = {c: Check("wasserstein", 0.1) for c in FORM_FEATURES}
    flagged = [len(drift_report(*season_split(frame, s), checks=wasserstein).drifted) for s in ("2020-21", "2018-19")]
    assert flagged[0] <= flagged[1]


def test_nine_seasons_only_one_beyond_three(frame):
    by_season = residual_by_season(frame[frame["season"] >= "2017-18"])
    assert len(by_season) == 9
    assert list(by_season.index[by_season["z"].abs() >= 3]) == ["2020-21"]
    assert by_season.loc["2024-25", "z"] < -1.96, "2024-25 también baja, y se cuenta"
    assert 9 * by_season.loc["2024-25", "p_value"] > 0.05 > 9 * by_season.loc["2020-21", "p_value"]


def test_every_column_has_its_own_method_and_threshold(crowdless):
    for row in crowdless.table.itertuples():
        assert (row.method, row.threshold) == CHECKS[row.column]
    configs = {m["config"]["column"]: m["config"] for m in crowdless.snapshot.dict()["metrics"]}
    assert {c: (configs[c]["method"], configs[c]["threshold"]) for c in CHECKS if CHECKS[c].method != "z"} == {
        c: tuple(check) for c, check in CHECKS.items() if check.method != "z"}


@pytest.mark.parametrize("sign", [1, -1])
def test_both_tails_of_the_residual(frame, sign):
    "Salta tanto si el local gana de menos como si gana de más."
    current, reference = season_split(frame, "2018-19")
    limit = 3 * np.sqrt((current["home_win"] * (1 - current["home_win"])).sum()) / len(current)
    for shift, drifted in ((0.98, ()), (1.02, ("home_residual",))):
        moved = current.assign(home_residual=sign * shift * limit)
        result = drift_report(moved, reference, columns=["home_residual"])
        assert result.drifted == drifted
        assert result.table["value"].item() == pytest.approx(sign * shift * 3)


def test_live_columns_need_no_results(frame):
    current, reference = season_split(frame, "2020-21")
    live = current[list(LIVE_COLUMNS)]
    assert list(drift_report(live, reference, columns=LIVE_COLUMNS).table["column"]) == list(LIVE_COLUMNS)
    with pytest.raises(DriftError, match="faltan columnas: result, home_residual, rps.*columns=LIVE_COLUMNS"):
        drift_report(live, reference)


def bad(frame, column, value):
    "Una copia con un valor estropeado en la cuarta fila."
    out = frame.astype({column: object})
    out.loc[out.index[3], column] = value
    return out


def test_errors_say_what_to_do(frame):
    current, reference = season_split(frame, "2020-21")
    cases = [
        (current.drop(columns=["elo_diff"]), reference, "datos actuales les faltan columnas: elo_diff"),
        (current, reference.drop(columns=["rps"]), "de referencia les faltan columnas: rps"),
        (current.drop(columns="home_win"), reference, "home_win"),
        (current.head(0), reference, f"tienen cero filas y hacen falta al menos {MIN_ROWS}"),
        (current.head(MIN_ROWS - 1), reference, f"tienen {MIN_ROWS - 1} filas y hacen falta al menos {MIN_ROWS}"),
        (current.head(60), reference.head(49), "de referencia tienen 49 filas"),
        (bad(current, "away_points", np.nan), reference, f"away_points tiene 1 valores.*fila {current.index[3]}"),
        (bad(current, "elo_diff", np.inf), reference, "elo_diff tiene 1 valores"),
        (bad(current, "elo_diff", "tres"), reference, "'tres'.*un número finito"),
        (bad(current, "result", "H"), reference, "'H'.*home_win, draw, away_win"),
        (bad(current, "result", None), reference, "result tiene 1 valores"),
        (current, bad(reference, "rps", np.nan), "de referencia, rps tiene 1 valores"),
        (reference, current, "El orden es drift_report"),
        (current.assign(home_win=1.0), reference, "no se puede tipificar"),
    ]
    for now, before, message in cases:
        with pytest.raises(DriftError, match=message):
            drift_report(now, before)
    with pytest.raises(DriftError, match="No hay método para goles. Las que hay: elo_diff"):
        drift_report(current, reference, columns=["goles"])
    with pytest.raises(DriftError, match="ninguna columna"):
        drift_report(current, reference, columns=[])


def test_constant_column_is_an_error_not_a_silence(frame):
    "Un contraste que no puede calcularse no es «sin deriva»."
    current, reference = season_split(frame, "2020-21")
    with np.errstate(all="ignore"), pytest.raises(DriftError, match="no pudo calcular rps"), pytest.warns(RuntimeWarning):
        drift_report(current.assign(rps=0.2), reference.assign(rps=0.2), columns=["rps"])


def test_html_is_self_contained_and_atomic(crowdless, tmp_path):
    path = crowdless.write_html(tmp_path / "informes" / "2020-21.html")
    page = path.read_text()
    assert external_resources(page) == []
    assert "<html" in page and all(column in page for column in CHECKS)
    assert crowdless.write_html(str(path)) == path
    assert [f.name for f in path.parent.iterdir()] == ["2020-21.html"], "no quedan borradores"


@pytest.mark.parametrize("html, found", [
    ('<script src="https://cdn.example/x.js"></script>', ["https://cdn.example/x.js"]),
    ('<link rel="stylesheet" href="//cdn.example/x.css">', ["//cdn.example/x.css"]),
    ('<img src="http://cdn.example/x.png"><iframe src=https://a.example></iframe>', ["http://cdn.example/x.png", "https://a.example"]),
    ("<style>@font-face{src:url('https://tipos.example/a.woff')}</style>", ["https://tipos.example/a.woff"]),
    ('<a href="https://ejemplo.es">un enlace no carga nada</a><img src="data:image/png;base64,AA">', []),
    ('<script>const x = "<script src=https://cdn.example/x.js>"</script>', []),
])
def test_external_resources(html, found):
    assert external_resources(html) == found


def test_html_with_external_resources_is_refused(crowdless, tmp_path):
    class Leaky:
        def get_html_str(self, as_iframe):
            return '<script src="https://cdn.example/x.js"></script>'

    leaky = type(crowdless)(crowdless.table, 1, 1, Leaky())
    with pytest.raises(DriftError, match="carga recursos de fuera"):
        leaky.write_html(tmp_path / "informe.html")
    assert list(tmp_path.iterdir()) == []


def test_html_opens_without_network(crowdless, tmp_path):
    "La prueba de verdad: un navegador lo abre y no pide nada a nadie."
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("no hay chromium en esta máquina")
    path, asked = crowdless.write_html(tmp_path / "informe.html"), []
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.get_by_text("home_residual").first.wait_for(timeout=15_000)
        page.wait_for_load_state("networkidle")
        browser.close()
    assert [url for url in asked if url.startswith(("http:", "https:", "ws:", "wss:"))] == []


def log_line(created_at, league, home, away, kickoff, p=(0.5, 0.3, 0.2), features=(10.0, 1.2, 1.0, 0.2, *[0.0] * 12)):
    return {"prediction_id": created_at, "created_at": created_at, "league": league, "home_team": home, "away_team": away, "kickoff": kickoff,
            "features": list(features), **dict(zip(OUTCOMES, p, strict=True)), "outcome": "home_win", "model_version": "1.0.0"}


def test_prediction_log_rows(matches):
    "Un partido preguntado dos veces cuenta una, con la última respuesta; un aplazado encuentra su resultado."
    m = matches[matches["league"] == "E0"].iloc[-1]
    fixture = (m["league"], m["home_team"], m["away_team"])
    day = f"{m['date']:%Y-%m-%d}"
    rows = [log_line("2026-05-20T11:00:00Z", *fixture, day, p=(0.6, 0.2, 0.2)),
            log_line("2026-05-20T10:00:00Z", *fixture, "2026-03-01T15:00:00Z"),
            log_line("2026-05-20T09:00:00Z", "E0", "Arsenal", "Everton", "2031-01-01")]
    served = served_frame(iter(rows))
    assert len(served) == 2 and list(served.columns)[4:] == list(LIVE_COLUMNS)
    assert served.loc[served["home_team"] == m["home_team"], "home_win"].tolist() == [0.6]
    results = find_results(served, matches)
    assert results[served["home_team"] == m["home_team"]].tolist() == [m["outcome"]]
    done = with_results(served, results)
    assert len(done) == 1 and set(LATE_COLUMNS) <= set(done.columns)
    assert done["home_residual"].item() == pytest.approx((m["outcome"] == "home_win") - 0.6)
    assert served_frame([]).empty and list(served_frame([]).columns) == list(served.columns)
    with pytest.raises(DriftError, match="trae 2 variables y se esperaban 16"):
        served_frame([log_line("x", *fixture, day, features=(1, 2))])


def test_results_that_are_not_results():
    said = pd.DataFrame([[0.5, 0.3, 0.2]], columns=list(OUTCOMES))
    with pytest.raises(ValueError, match="Resultados desconocidos: H"):
        with_results(said, pd.Series(["H"]))
    with pytest.raises(DriftError, match="Ninguna de las 1 filas"):
        with_results(said, pd.Series([None], dtype=object))


def test_import_is_light_and_missing_evidently_is_said():
    "El módulo no importa Evidently; sin Evidently, el error dice cómo instalarlo."
    code = """
import sys, json
import futbol_mlops.drift as drift
light = not any(name.split(".")[0] == "evidently" for name in sys.modules)
sys.modules["evidently"] = None
try:
    drift.run_evidently(None, None, {})
except drift.DriftError as e:
    print(json.dumps([light, str(e)]))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    light, message = json.loads(out)
    assert light and "futbol-mlops[monitor]" in message
