"La evaluación no mira al futuro, da lo mismo por trozos que entera, y la puerta y la alarma deciden lo que deben."
import datetime as dt
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd
import pytest

from futbol_mlops.data import OUTCOMES
from futbol_mlops.evaluation import (
    DERBIES,
    FIXTURE_COLUMNS,
    behaviour_findings,
    calibrate_forward,
    class_report,
    confusion_table,
    football_weeks,
    leak_alarm,
    match_segments,
    matchdays,
    paired_interval,
    promotion_gate,
    rank_probability_score,
    refit_blocks,
    score_table,
    scores,
    segment_table,
    stack_forward,
    walk_forward,
)
from futbol_mlops.features import History, build_features
from futbol_mlops.models import (
    MODELS,
    BaseRate,
    Calibrated,
    DixonColes,
    make_ensemble,
    make_logit,
    outcome_codes,
    temper,
)

SEASONS = ("2021-22", "2022-23", "2023-24")
P = list(OUTCOMES)


@pytest.fixture(scope="module")
def forecasts(matches, X):
    return {name: walk_forward(matches, X, MODELS[name], SEASONS, refit="W") for name in ("base_rate", "elo_logit", "form_logit", "dixon_coles")}


@pytest.fixture(scope="module")
def segments(matches):
    return match_segments(matches)


# --- bloques ---


@pytest.mark.parametrize("refit", ["season", "W", "matchday"])
def test_blocks_cover_every_match_once_and_never_look_ahead(matches, refit):
    blocks = refit_blocks(matches, SEASONS, ("E0", "SP1"), refit)
    predicted = [i for block in blocks for i in block.test]
    wanted = matches.index[matches["season"].isin(SEASONS)]
    assert sorted(predicted) == sorted(wanted)
    assert all((matches.loc[block.test, "date"] >= block.cut).all() for block in blocks)


@pytest.mark.parametrize("make", [make_logit, DixonColes, make_ensemble], ids=["logit", "dixon_coles", "ensemble"])
@pytest.mark.parametrize("refit", ["season", "W", "matchday"])
def test_a_later_result_changes_no_earlier_forecast(matches, X, make, refit):
    day = pd.Timestamp("2023-11-04")
    changed = matches.copy()
    later = changed["date"] >= day
    changed.loc[later, ["home_goals", "away_goals"]] = changed.loc[later, ["away_goals", "home_goals"]].to_numpy()
    changed.loc[later, "outcome"] = changed.loc[later, "outcome"].map({"home_win": "away_win", "away_win": "home_win", "draw": "draw"})
    before, after = (walk_forward(m, X, make, ["2023-24"], refit=refit) for m in (matches, changed))
    known = matches.loc[before.index, "date"] < day
    pd.testing.assert_frame_equal(before[known], after[known], check_exact=True)
    if refit != "season":
        assert not np.allclose(before.loc[~known, P], after.loc[~known, P])


class Spy(BaseRate):
    "Apunta lo que le enseñan al predecir."

    seen: set = set()

    def predict_proba(self, X):
        Spy.seen |= set(X.columns)
        return super().predict_proba(X)


def test_no_result_and_no_odds_reach_predict_proba(matches, X):
    shots = matches.assign(home_shots=10, away_shots=5, closing_home=2.0)  # columnas que otra fuente podría traer
    walk_forward(shots, X, Spy, ["2023-24"], league=("E0", "SP1"), refit="W")
    assert Spy.seen == {*FIXTURE_COLUMNS, *X.columns}


def test_several_leagues_at_once_equal_each_alone(matches, X):
    both = walk_forward(matches, X, DixonColes, ["2023-24"], league=("E0", "SP1"), refit="W")
    for league in ("E0", "SP1"):
        alone = walk_forward(matches, X, DixonColes, ["2023-24"], league=league, refit="W")
        pd.testing.assert_frame_equal(alone, both.loc[alone.index], check_exact=True)


def test_blocks_in_other_processes_give_the_same(matches, X):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        spread = walk_forward(matches, X, MODELS["elo_logit"], ["2023-24"], refit="W", run=pool.map)
    pd.testing.assert_frame_equal(spread, walk_forward(matches, X, MODELS["elo_logit"], ["2023-24"], refit="W"), check_exact=True)


def test_own_league_does_not_read_the_others(matches, X):
    ours = matches["league"] == "E0"
    alone = walk_forward(matches[ours], X[ours], make_logit, ["2023-24"], refit="W")
    own = walk_forward(matches, X, make_logit, ["2023-24"], refit="W", own_league=True)
    pd.testing.assert_frame_equal(own, alone, check_exact=True)
    assert not np.allclose(own[P], walk_forward(matches, X, make_logit, ["2023-24"], refit="W")[P])


def test_an_estimator_is_cloned_and_stays_untrained(matches, X):
    model = DixonColes(ridge=8.0)
    given = walk_forward(matches, X, model, ["2023-24"])
    pd.testing.assert_frame_equal(given, walk_forward(matches, X, lambda: DixonColes(ridge=8.0), ["2023-24"]))
    assert not hasattr(model, "strengths_")


def test_wrong_use_is_explained(matches, X):
    with pytest.raises(ValueError, match="cada «month»"):
        walk_forward(matches, X, make_logit, ["2023-24"], refit="month")
    with pytest.raises(ValueError, match="No hay partidos de SP1 en 2020-21"):
        walk_forward(matches, X, make_logit, ["2020-21"], league="SP1")
    with pytest.raises(ValueError, match="empieza una temporada más tarde"):
        walk_forward(matches, X, make_logit, ["2012-13"], refit="W")
    with pytest.raises(ValueError, match="home_goals"):
        walk_forward(matches, X.assign(home_goals=1), make_logit, ["2023-24"])

    class Broken(BaseRate):
        def predict_proba(self, X):
            return np.full((len(X), 3), np.nan)

    with pytest.raises(ValueError, match="no son 3 probabilidades"):
        walk_forward(matches, X, Broken, ["2023-24"])


def test_matchdays_and_weeks(matches):
    rounds = matchdays(matches)
    for _, season in matches.groupby(["league", "season"]):
        assert rounds[season.index].min() == 1 and rounds[season.index].max() == 38
    shuffled = matches.sample(frac=1, random_state=0).sort_values("date", kind="stable")
    assert matchdays(shuffled).index.equals(shuffled.index)
    weeks = football_weeks(matches["date"])
    assert (weeks.dt.dayofweek == 1).all() and ((matches["date"] - weeks).dt.days.between(0, 6)).all()


# --- medidas ---


def test_scores_of_known_cases():
    y = np.array([0, 1, 2])
    perfect = scores(y, np.eye(3))
    assert perfect["rps"] == perfect["brier"] == 0 and perfect["accuracy"] == 1
    p = np.array([[0.5, 0.3, 0.2]] * 3)
    measured = scores(y, p)
    assert measured["rps"] == pytest.approx((0.145 + 0.145 + 0.445) / 3)
    assert measured["brier"] == pytest.approx((0.38 + 0.78 + 0.98) / 3)
    assert confusion_table(y, p).to_numpy().tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0]]
    report = class_report(y, p)
    assert report.loc["home_win", ["precision", "recall"]].tolist() == [pytest.approx(1 / 3), 1] and np.isnan(report.loc["draw", "precision"])


# --- calibración y apilado ---


@pytest.mark.parametrize("correct", [lambda m, f: calibrate_forward(m, f["form_logit"])[0], lambda m, f: stack_forward(m, {k: f[k] for k in ("form_logit", "dixon_coles")})],
                         ids=["temperatura", "apilado"])
def test_corrections_learn_only_from_earlier_seasons(matches, forecasts, correct):
    full = correct(matches, forecasts)
    part = correct(matches, {k: f[f["season"] <= "2022-23"] for k, f in forecasts.items()})
    pd.testing.assert_frame_equal(full.loc[part.index], part, check_exact=True)
    assert np.allclose(full[P].sum(axis=1), 1) and full.index.equals(forecasts["form_logit"].index)


def test_temperature_cures_a_boaster(matches, forecasts):
    boaster = forecasts["elo_logit"].copy()
    boaster[P] = temper(boaster[P].to_numpy(), 0.5)
    cured, temperatures = calibrate_forward(matches, boaster)
    assert temperatures["2021-22"] == 1 and temperatures["2023-24"] == pytest.approx(2, abs=0.4)
    last = boaster["season"] == "2023-24"
    table = score_table(matches, {"before": boaster[last], "after": cured[last]})
    assert table.loc["after", "log_loss"] < table.loc["before", "log_loss"]


# --- segmentos ---


def test_segments_are_facts(matches, segments):
    promoted = {"2023-24": {"Burnley", "Sheffield United", "Luton"}, "2019-20": {"Norwich", "Sheffield United", "Aston Villa"}}
    for season, teams in promoted.items():
        ours = matches[(matches["league"] == "E0") & (matches["season"] == season)]
        expected = ours["home_team"].isin(teams) | ours["away_team"].isin(teams)
        assert segments.loc[ours.index, "promoted"].equals(expected.rename("promoted"))
    first = matches["season"] == "2012-13"  # de la primera temporada no se sabe
    assert not segments.loc[first, "promoted"].any()
    gap = (matches["league"] == "SP1") & (matches["season"] == "2023-24")  # sin datos de la anterior, tampoco
    assert gap.any() and not segments.loc[gap, "promoted"].any()
    start = segments[segments["season_start"]].index
    assert (matchdays(matches)[start] <= 6).all()


def test_derbies_are_written_with_the_names_of_the_table(matches):
    from futbol_mlops.data import ENGLAND, SPAIN, parse_names

    known = {*parse_names(ENGLAND).values(), *parse_names(SPAIN).values()}
    assert {team for pair in DERBIES for team in pair} <= known
    assert all(len(pair) == 2 for pair in DERBIES)
    assert {frozenset(("Betis", "Sevilla")), frozenset(("Liverpool", "Everton")), frozenset(("Real Madrid", "Ath Madrid"))} <= DERBIES


def test_segment_table_agrees_with_score_table(matches, forecasts, segments):
    table = segment_table(matches, forecasts, segments)
    whole = score_table(matches, forecasts)
    assert table.loc["league E0", list(forecasts)].astype(float).to_numpy() == pytest.approx(whole["rps"].to_numpy())
    assert set(table.index) == {"promoted", "derby", "season_start", "league E0", *(f"season {s}" for s in SEASONS)}


# --- intervalo y puerta ---


def uncertain(matches, forecast, gain, seed=0, spread=0.0):
    "Predicciones que mejoran (o empeoran) a otras acercándolas un poco a lo ocurrido, partido a partido."
    y = outcome_codes(matches.loc[forecast.index])
    amount = np.clip(np.random.default_rng(seed).normal(gain, spread, len(y)), -0.9, 0.9)[:, None]
    p, target = forecast[P].to_numpy(), np.where(amount > 0, np.eye(3)[y], 1 / 3)
    return forecast.assign(**dict(zip(P, ((1 - abs(amount)) * p + abs(amount) * target).T, strict=True)))


def test_interval_widens_with_confidence_and_is_reproducible(matches, forecasts):
    a, b = forecasts["dixon_coles"], forecasts["elo_logit"]
    wide, narrow = (paired_interval(matches, a, b, confidence=c) for c in (0.99, 0.8))
    assert wide[0] == narrow[0] and wide[1] < narrow[1] < narrow[2] < wide[2]
    assert paired_interval(matches, a, b, confidence=0.99) == wide
    flipped = paired_interval(matches, b, a, confidence=0.8)
    assert flipped[0] == pytest.approx(-narrow[0])


def test_interval_takes_whole_weeks(matches, forecasts):
    "Si dentro de cada semana las diferencias se anulan, no hay nada que remuestrear."
    base = forecasts["base_rate"]
    y = outcome_codes(matches.loc[base.index])
    rps = pd.Series(rank_probability_score(y, base[P].to_numpy()), index=base.index)
    weeks = football_weeks(matches.loc[base.index, "date"])
    assert rps.groupby(weeks).size().gt(1).any()
    difference, low, high = paired_interval(matches, base, base)
    assert difference == low == high == 0


def test_gate_promotes_a_clear_gain_and_keeps_the_champion_in_a_tie(matches, forecasts, segments):
    champion = forecasts["elo_logit"]
    better = promotion_gate(matches, uncertain(matches, champion, 0.02), champion, segments=segments)
    assert better.promoted and better.interval[1] < 0 and not better.segments["worse"].any() and better.reasons[0].startswith("Mejora")
    tie = promotion_gate(matches, champion, champion, segments=segments)
    assert not tie.promoted and tie.difference == 0
    assert not promotion_gate(matches, uncertain(matches, champion, -0.02), champion, segments=segments).promoted


def test_gate_rarely_promotes_noise(matches, forecasts, segments):
    "Un aspirante igual de bueno, con ruido: con el 95 % puede colarse alguna vez, no por costumbre."
    champion = forecasts["elo_logit"]
    rng, promoted = np.random.default_rng(0), 0
    for _ in range(40):
        noise = np.exp(np.log(champion[P].to_numpy()) + rng.normal(0, 0.15, (len(champion), 3)))
        challenger = champion.assign(**dict(zip(P, (noise / noise.sum(axis=1, keepdims=True)).T, strict=True)))
        promoted += promotion_gate(matches, challenger, champion, segments=segments[["promoted", "league E0"]], draws=300).promoted
    assert promoted <= 3


@pytest.mark.parametrize("segment", ["promoted", "derby", "season_start", "season 2022-23"])
def test_gate_sees_the_segment_that_loses(matches, forecasts, segments, segment):
    champion = forecasts["base_rate"]
    good = forecasts["dixon_coles"].copy()
    hurt = good.index[segments.loc[good.index, segment]]
    good.loc[hurt, P] = np.eye(3)[2 - outcome_codes(matches.loc[hurt])] * 0.9 + 0.1 / 3  # lo contrario de lo que pasó
    decision = promotion_gate(matches, good, champion, segments=segments)
    assert decision.segments.loc[segment, "worse"] and not decision.promoted
    assert any(f"«{segment}»" in reason for reason in decision.reasons)


def test_gate_bound_and_confidence_are_obeyed(matches, forecasts, segments):
    champion = forecasts["elo_logit"]
    challenger = uncertain(matches, champion, 0.03)
    hurt = challenger.index[segments.loc[challenger.index, "derby"]]
    opposite = np.eye(3)[np.where(outcome_codes(matches.loc[hurt]) == 2, 0, 2)]
    challenger.loc[hurt, P] = 0.8 * champion.loc[hurt, P].to_numpy() + 0.2 * opposite
    loss = promotion_gate(matches, challenger, champion, segments=segments).segments.loc["derby", "difference"]
    assert loss > 0.003
    assert promotion_gate(matches, challenger, champion, bound=loss + 1e-6, segments=segments).promoted
    narrow = uncertain(matches, champion, 0.0015, spread=0.05)
    low, high = (promotion_gate(matches, narrow, champion, confidence=c, segments=segments[["league E0"]]) for c in (0.5, 0.9999))
    assert low.interval[1] - low.interval[0] < high.interval[1] - high.interval[0]


def test_gate_refuses_what_cannot_be_compared_or_misbehaves(matches, forecasts, segments):
    champion = forecasts["elo_logit"]
    better = uncertain(matches, champion, 0.02)
    with pytest.raises(ValueError, match="no son los mismos"):
        promotion_gate(matches, better.head(500), champion, segments=segments)
    assert not promotion_gate(matches, better, champion, segments=segments, findings=["un espejo roto"]).promoted
    few = champion.index[:60]
    decision = promotion_gate(matches, better.loc[few], champion.loc[few], segments=segments)
    assert not decision.promoted and any("60 partidos" in reason for reason in decision.reasons)


# --- alarma de fugas ---


def test_no_honest_model_and_not_the_market_rings_the_alarm(matches, forecasts):
    for forecast in forecasts.values():
        assert leak_alarm(matches, forecast) == [] and leak_alarm(matches, forecast, forecasts["base_rate"]) == []


class LeakyHistory(History):
    "Anota las variables después de actualizar."

    def add(self, league, home_team, away_team, date, *result):
        super().add(league, home_team, away_team, date, *result)
        return self.features(league, home_team, away_team, date + dt.timedelta(days=1))


def test_one_leaking_feature_rings_the_alarm(matches, X, forecasts):
    leaky, _ = build_features(matches, LeakyHistory())
    for column in ("elo_diff", "home_points", "away_goal_diff"):
        planted = walk_forward(matches, X.assign(**{column: leaky[column]}), make_logit, SEASONS)
        assert leak_alarm(matches, planted), column
        decision = promotion_gate(matches, planted, forecasts["elo_logit"])
        assert not decision.promoted and any("Alarma de fugas" in reason for reason in decision.reasons)


def test_alarm_without_odds_compares_with_the_champion(matches, forecasts):
    blind = matches.drop(columns=[c for c in matches if c.startswith("odds")])
    cheat = uncertain(matches, forecasts["elo_logit"], 0.05)
    assert any("Mejora al campeón" in finding for finding in leak_alarm(blind, cheat, forecasts["elo_logit"]))
    assert leak_alarm(blind, forecasts["elo_logit"], forecasts["elo_logit"]) == []
    oracle = uncertain(matches, forecasts["elo_logit"], 0.5)
    assert len(leak_alarm(blind, oracle)) == len(SEASONS)


# --- comportamiento ---


@pytest.fixture(scope="module")
def trained(matches, X):
    table, y = matches.join(X), outcome_codes(matches)
    return {name: make().fit(table, y) for name, make in MODELS.items() if name != "boosting"}


@pytest.fixture(scope="module")
def fixtures(matches, X):
    return matches.join(X)[[*FIXTURE_COLUMNS, *X.columns]].tail(380)


def test_served_models_behave(trained, fixtures):
    for name, model in trained.items():
        assert behaviour_findings(model, fixtures) == [], name


def test_behaviour_catches_what_it_should(trained, fixtures):
    class NotMirrored(DixonColes):
        def predict_proba(self, X, neutral=False):
            return super().predict_proba(X)

    class Backwards(DixonColes):
        def predict_proba(self, X, neutral=False):
            return super().predict_proba(X, neutral)[:, ::-1]

    class NotOne(BaseRate):
        def predict_proba(self, X):
            return super().predict_proba(X) * 0.99

    fitted = trained["dixon_coles"]
    for kind, text in ((NotMirrored, "campo neutral"), (Backwards, "más fuerte")):
        broken = kind()
        broken.strengths_ = fitted.strengths_
        assert any(text in finding for finding in behaviour_findings(broken, fixtures)), kind
    not_one = NotOne()
    not_one.probabilities_ = trained["base_rate"].probabilities_
    assert behaviour_findings(not_one, fixtures) == ["Las probabilidades no son tres números entre 0 y 1 que sumen 1."]
    backwards = Backwards()
    backwards.strengths_ = fitted.strengths_
    wrapped = Calibrated(DixonColes(), 1.1)
    wrapped.model_ = backwards
    assert any(finding.startswith("el modelo de dentro") for finding in behaviour_findings(wrapped, fixtures))
