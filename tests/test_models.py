"Paridad entre scikit-learn, el paquete y el servidor, el oráculo de Dixon-Coles y el listón de los modelos."
import datetime as dt
import json
import time

import numpy as np
import pandas as pd
import pytest

from futbol_mlops.bundle import load_bundle, scorer
from futbol_mlops.config import Settings
from futbol_mlops.evaluation import score_table, walk_forward
from futbol_mlops.features import FEATURES
from futbol_mlops.goals import fixture_probabilities, goal_rates, outcome_probabilities, scoreline
from futbol_mlops.models import (
    MODELS,
    Average,
    Calibrated,
    DixonColes,
    fit_strengths,
    make_boosting,
    make_logit,
    model_numbers,
    newcomers,
    outcome_codes,
    time_weights,
)


def test_bundle_equals_scikit_learn_on_1000_matches(trained_home, matches, X):
    "Los mismos equipos y variables, en un partido por jugar: las fuerzas del paquete van a siete decimales."
    from futbol_mlops.registry import load_model

    model, _ = load_model(Settings(home=trained_home))
    bundle = load_bundle(trained_home / "bundle")
    fixtures = matches.join(X).tail(1000).assign(date=pd.Timestamp("2026-06-01"))
    keys = fixtures[["league", "home_team", "away_team"]].itertuples(index=False, name=None)
    served = np.array([bundle.predict(row, (*key, dt.date(2026, 6, 1))) for row, key in zip(X.to_numpy()[-1000:], keys, strict=True)])
    assert np.abs(served - model.predict_proba(fixtures)).max() <= 1e-6


def test_bundle_answers_a_past_match_with_what_was_known(trained_home, matches, X):
    bundle = load_bundle(trained_home / "bundle")
    for i in matches.index[::97]:
        m = matches.loc[i]
        assert bundle.history.features(m["league"], m["home_team"], m["away_team"], m["date"].date()) == tuple(X.loc[i])


def test_logit_beats_the_base_rate_by_the_agreed_margin(matches, X):
    seasons = [f"{y}-{(y + 1) % 100:02}" for y in range(2017, 2026)]
    table = score_table(matches, {name: walk_forward(matches, X, MODELS[name], seasons) for name in ("base_rate", "form_logit")})
    gain = table.loc["base_rate", "rps"] - table.loc["form_logit", "rps"]
    assert gain >= 0.032, f"la ventaja de RPS es {gain:.4f}; se pide .032"


def test_features_are_finite_and_the_home_side_matters(X):
    assert np.isfinite(X.to_numpy()).all()
    assert X["elo_diff"].between(-700, 700).all()
    assert X[["home_points", "away_points"]].stack().between(0, 3).all()


# --- Dixon-Coles ---


def oracle(league, xi):
    "penaltyblog con los mismos pesos, y sin su gradiente analítico: en la 1.13 no es el de su verosimilitud y se para antes de la cima."
    from penaltyblog.models import DixonColesGoalModel

    columns = (league[c].to_numpy() for c in ("home_goals", "away_goals", "home_team", "away_team"))
    model = DixonColesGoalModel(*columns, time_weights(league["date"], xi))
    model.fit(use_gradient=False, minimizer_options={"maxiter": 2000, "ftol": 1e-9})
    return model


@pytest.mark.parametrize(("league", "since", "until", "xi"), [("E0", "2023-24", "2025-26", 0.002), ("E0", "2024-25", "2025-26", 0.0), ("SP1", "2015-16", "2016-17", 0.005)])
def test_dixon_coles_agrees_with_penaltyblog(matches, league, since, until, xi):
    part = matches[(matches["league"] == league) & matches["season"].between(since, until)]
    theirs, ours = oracle(part, xi), fit_strengths(part, xi, ridge=0.0, promoted=(0.0, 0.0))
    teams = list(ours["attack"])
    gaps = [np.abs(np.array(theirs.predict(h, a).home_draw_away) - fixture_probabilities(ours, h, a)).max() for h in teams for a in teams if h != a]
    assert max(gaps) < 1e-3, f"se separan {max(gaps):.5f}"
    assert ours["rho"] == pytest.approx(theirs.params["rho"], abs=1e-3)
    assert sum(ours["attack"].values()) == pytest.approx(0, abs=1e-9) and sum(ours["defence"].values()) == pytest.approx(0, abs=1e-9)


def test_a_refit_takes_milliseconds(matches):
    england = matches[matches["league"] == "E0"]
    seconds = []
    for _ in range(15):
        start = time.perf_counter()
        fit_strengths(england, 0.002, 4.0, (-0.3, -0.15))
        seconds.append(time.perf_counter() - start)
    assert min(seconds) <= 0.010, f"el mejor de 15 ajustes tardó {min(seconds):.4f} s"


def test_fit_is_at_the_top_whatever_the_ridge_and_however_few_the_matches(matches):
    "También el primer día de una liga, y en una que vuelve tras siete años, donde casi todo el peso está en diez partidos."
    spain = matches[matches["league"] == "SP1"]
    for size in (1, 10, 60, 1901, 1910, 1920, 1930, len(spain)):
        for ridge in (0.5, 4.0, 20.0):
            strengths = fit_strengths(spain.iloc[:size], 0.002, ridge, (-0.3, -0.15))
            assert all(0 < rate < 8 for rate in goal_rates(strengths, "Real Madrid", "Barcelona")), (size, ridge)


def test_old_matches_fade(matches):
    england = matches[matches["league"] == "E0"]
    reversed_past = england.copy()
    old = reversed_past["season"] < "2015-16"
    reversed_past.loc[old, ["home_goals", "away_goals"]] = reversed_past.loc[old, ["away_goals", "home_goals"]].to_numpy()
    moved = {xi: abs(fit_strengths(england, xi, 4.0, (-0.3, -0.15))["home"] - fit_strengths(reversed_past, xi, 4.0, (-0.3, -0.15))["home"]) for xi in (0.0, 0.004)}
    assert moved[0.0] > 0.05 and moved[0.004] < 1e-3


def test_newcomers_by_the_calendar(matches):
    england = matches[matches["league"] == "E0"]
    before_august = england[england["date"] < "2017-08-01"]  # el Newcastle volvió ese verano; el Brighton no había estado
    assert "Newcastle" in newcomers(before_august) and "Arsenal" not in newcomers(before_august)
    september = england[england["date"] < "2017-09-15"]
    assert {"Newcastle", "Brighton", "Huddersfield"} <= newcomers(september) and "Burnley" not in newcomers(september)


def test_unseen_team_gets_what_a_promoted_one_gets(matches, X):
    model = DixonColes().fit(matches.join(X))
    strengths = model.strengths_["E0"]
    unseen = model.predict_proba(pd.DataFrame({"league": ["E0"], "home_team": ["Arsenal"], "away_team": ["Coventry"]}))[0]
    assert unseen == pytest.approx(fixture_probabilities(strengths | {"attack": strengths["attack"] | {"Coventry": strengths["promoted"][0]}, "defence": strengths["defence"] | {"Coventry": strengths["promoted"][1]}}, "Arsenal", "Coventry"))
    typical = np.mean([strengths["attack"][team] for team in newcomers(matches[matches["league"] == "E0"])])
    assert strengths["promoted"][0] == pytest.approx(typical, abs=0.15)


def test_predicting_reads_only_league_and_teams(matches, X):
    model = DixonColes().fit(matches.join(X))
    fixtures = matches[["league", "home_team", "away_team"]].tail(50)
    lying = matches.tail(50).assign(home_goals=9, away_goals=0, outcome="home_win", odds_home=1.01)
    assert (model.predict_proba(fixtures) == model.predict_proba(lying)).all()


def test_scorelines_and_outcomes_agree_and_are_probabilities():
    for rates in ((0.05, 0.05), (1.4, 1.1), (6.0, 0.3), (9.0, 9.0)):
        for rho in (-0.2, 0.0, 0.1):
            table = np.array(scoreline(*rates, rho))
            assert table.min() >= 0 and table.sum() == pytest.approx(1)
            expected = np.tril(table, -1).sum(), np.trace(table), np.triu(table, 1).sum()
            assert outcome_probabilities(*rates, rho) == pytest.approx(expected, abs=1e-12)


def test_wrong_tables_are_explained(matches, X):
    with pytest.raises(ValueError, match="faltan columnas: league"):
        DixonColes().fit(X)
    with pytest.raises(ValueError, match="2 partidos sin"):
        DixonColes().fit(matches.assign(home_goals=matches["home_goals"].astype(float).where(matches.index > 1)))
    with pytest.raises(ValueError, match="no ha visto partidos de D1"):
        DixonColes().fit(matches).predict_proba(pd.DataFrame({"league": ["D1"], "home_team": ["Dortmund"], "away_team": ["Mainz"]}))


# --- los números de un modelo bastan para servirlo ---


def served(numbers, features, league, home_team, away_team):
    "Lo que hará un servidor que solo tiene el JSON: nada de scikit-learn."
    kind = numbers["kind"]
    if kind == "base_rate":
        p = numbers["probabilities"]
    elif kind == "logit":
        z = [(features[n] - m) / s for n, m, s in zip(numbers["features"], numbers["mean"], numbers["scale"], strict=True)]
        points = np.array([b + np.dot(row, z) for b, row in zip(numbers["intercept"], numbers["coef"], strict=True)])
        p = np.exp(points - points.max()) / np.exp(points - points.max()).sum()
    elif kind == "dixon_coles":
        p = fixture_probabilities(numbers["strengths"][league], home_team, away_team)
    elif numbers["kind"] == "goal_rates":
        p = scorer(numbers)([features[name] for name in FEATURES], None)
    else:
        p = sum(w * served(member, features, league, home_team, away_team) for w, member in zip(numbers["weights"], numbers["members"], strict=True))
    powers = np.asarray(p, dtype=float) ** (1 / numbers.get("temperature", 1.0))
    return powers / powers.sum()


@pytest.mark.parametrize("make", [MODELS["base_rate"], MODELS["form_logit"], MODELS["dixon_coles"], MODELS["ensemble"], lambda: Calibrated(MODELS["ensemble"](), 1.1),
                                  lambda: Average([("a", Calibrated(make_logit(), 1.3)), ("b", DixonColes())]), lambda: Calibrated(Calibrated(make_logit(), 1.2), 0.9)],
                         ids=["base_rate", "logit", "dixon_coles", "ensemble", "templado", "media de templados", "templado dos veces"])
def test_numbers_serve_every_kind(matches, X, make):
    table = matches.join(X)
    model = make().fit(table[:-300], outcome_codes(matches)[:-300])
    numbers = json.loads(json.dumps(model_numbers(model)))
    rows = table[-300:]
    by_hand = np.array([served(numbers, row, row["league"], row["home_team"], row["away_team"]) for row in rows.to_dict("records")])
    assert np.abs(by_hand - model.predict_proba(rows)).max() <= 1e-9


def test_boosting_is_not_served(matches, X):
    model = make_boosting(trees=2).fit(matches.join(X), outcome_codes(matches))
    for unserved in (model, Average([("boosting", model)]).fit(matches.join(X), outcome_codes(matches))):
        with pytest.raises(TypeError, match="No sé servir un modelo HistGradientBoostingClassifier"):
            model_numbers(unserved)


def test_reruns_are_identical(matches, X):
    table, y = matches.join(X), outcome_codes(matches)
    for name, make in MODELS.items():
        first, second = (make().fit(table, y).predict_proba(table[-200:]) for _ in range(2))
        assert (first == second).all(), name


def test_average_of_one_is_itself_and_bad_weights_are_explained(matches, X):
    table, y = matches.join(X), outcome_codes(matches)
    alone = Average([("goals", DixonColes()), ("logit", make_logit())], weights=[2, 0]).fit(table, y)
    assert np.allclose(alone.predict_proba(table[-50:]), DixonColes().fit(table).predict_proba(table[-50:]))
    for weights in ([1], [1, -1], [0, 0], []):
        with pytest.raises(ValueError, match="Hacen falta 2 pesos"):
            Average([("goals", DixonColes()), ("logit", make_logit())], weights=weights).fit(table, y)
    with pytest.raises(ValueError, match="temperatura debe ser positiva"):
        Calibrated(make_logit(), 0).fit(table, y)
