"Paridad entre scikit-learn, el paquete y el servidor, y el listón de los modelos."
import numpy as np
import pytest

from futbol_mlops.bundle import load_bundle
from futbol_mlops.config import Settings
from futbol_mlops.data import load_matches
from futbol_mlops.evaluation import score_table, walk_forward
from futbol_mlops.features import build_features
from futbol_mlops.models import MODELS


@pytest.fixture(scope="module")
def matches():
    return load_matches()


@pytest.fixture(scope="module")
def X(matches):
    return build_features(matches)[0]


def test_bundle_equals_scikit_learn_on_1000_matches(trained_home, X):
    from futbol_mlops.registry import load_model

    model, _ = load_model(Settings(home=trained_home))
    bundle = load_bundle(trained_home / "bundle")
    served = np.array([bundle.predict(row) for row in X.to_numpy()[-1000:]])
    assert np.abs(served - model.predict_proba(X[-1000:])).max() <= 1e-9


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
