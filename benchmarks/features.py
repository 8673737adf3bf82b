"""Cuánto cuestan las variables cuando los partidos se multiplican, al lado de otras maneras de calcularlas.

Ligas inventadas con la forma de las de verdad: veinte equipos, treinta y ocho jornadas, tres que suben y tres que bajan, una de cada diez
veces con disparos. Cada medida es la mediana de varias, alternadas.

    python benchmarks/features.py            unos 2 minutos
    python benchmarks/features.py --quick    menos de 45 s
    python benchmarks/features.py --json     para otro programa
"""

import argparse
import datetime as dt
import json
import statistics
import sys
import time

import numpy as np
import pandas as pd

from futbol_mlops.features import FEATURES, FORM_MATCHES, build_features

SIZES = (7_600, 76_000, 230_000)
SHAPES = {7_600: (2, 10), 76_000: (10, 20), 230_000: (22, 28)}  # ligas y temporadas
TARGET_SECONDS, TARGET_RATIO = 15, 11


def rounds(teams: int) -> list[list[tuple[int, int]]]:
    "Todos contra todos a doble vuelta, por el método del círculo."
    order, found = list(range(teams)), []
    for number in range(teams - 1):
        pairs = [(order[i], order[-1 - i]) for i in range(teams // 2)]
        found.append([pair if (number + i) % 2 else pair[::-1] for i, pair in enumerate(pairs)])
        order = [order[0], order[-1], *order[1:-1]]
    return found + [[pair[::-1] for pair in day] for day in found]


def synthetic(matches: int, seed: int = 0) -> pd.DataFrame:
    "Partidos inventados con la forma de los de football-data.co.uk, en orden de fecha."
    leagues, seasons = SHAPES[matches]
    rng, calendar, parts = np.random.default_rng(seed), rounds(20), []
    for league in range(leagues):
        strength = rng.normal(0, 0.25, 26)
        for season in range(seasons):
            playing = rng.permutation(26)[:20] if season else np.arange(20)
            home, away = (playing[[pair[side] for day in calendar for pair in day]] for side in (0, 1))
            day = np.repeat(np.arange(38) * 7 + 3 * (np.arange(38) % 2), 10)
            parts.append(pd.DataFrame({
                "league": f"L{league:02}", "season": f"{1994 + season}-{(1995 + season) % 100:02}",
                "date": pd.Timestamp(dt.date(1994 + season, 8, 14)) + pd.to_timedelta(day, unit="D"),
                "home_team": [f"L{league:02} equipo {t}" for t in home], "away_team": [f"L{league:02} equipo {t}" for t in away],
                "home_goals": rng.poisson(np.exp(0.4 + strength[home] - strength[away])), "away_goals": rng.poisson(np.exp(0.15 + strength[away] - strength[home])),
                **{f"{side}_{name}": rng.poisson(mean, 380) if league % 10 == 0 else None
                   for side in ("home", "away") for name, mean in (("shots", 12), ("shots_on_target", 4), ("corners", 5), ("yellows", 2), ("reds", 0.1))}}))
    return pd.concat(parts).sort_values(["date", "league", "home_team"], ignore_index=True).head(matches)


def with_penaltyblog(matches: pd.DataFrame) -> None:
    "Solo Elo y pi-ratings, con penaltyblog: dos de nuestras variables."
    from penaltyblog.ratings import Elo, PiRatingSystem

    elo, pi = Elo(), PiRatingSystem()
    for home, away, date, hg, ag in zip(matches["home_team"], matches["away_team"], matches["date"], matches["home_goals"], matches["away_goals"], strict=True):
        elo.get_team_rating(home), elo.get_team_rating(away), pi.expected_goal_difference(home, away)
        elo.update_ratings(home, away, 0 if hg > ag else 1 if hg == ag else 2)
        pi.update_ratings(home, away, int(hg - ag), date)


def with_pandas(matches: pd.DataFrame) -> None:
    "Solo la forma y el descanso, con groupby y rolling: cuatro de nuestras variables, sin puntuaciones."
    margin = matches["home_goals"] - matches["away_goals"]
    sides = [matches[["league", "date", team]].set_axis(["league", "date", "team"], axis=1).assign(margin=sign * margin, points=np.select([sign * margin > 0, margin == 0], [3, 1], 0))
             for team, sign in (("home_team", 1), ("away_team", -1))]
    played = pd.concat(sides).sort_values(["team", "date"])
    groups = played.groupby(["league", "team"], sort=False)
    for column in ("points", "margin"):
        groups[column].transform(lambda values: values.shift().rolling(FORM_MATCHES, min_periods=1).mean())
    groups["date"].diff()


def with_queries(matches: pd.DataFrame) -> None:
    "La forma preguntando a la tabla por los partidos anteriores de cada equipo, como sale la primera vez: cuesta el cuadrado."
    for row in matches.itertuples():
        earlier = matches[(matches["date"] < row.date) & ((matches["home_team"] == row.home_team) | (matches["away_team"] == row.home_team))]
        earlier.tail(FORM_MATCHES)["home_goals"].sum()


PEERS = {
    f"build_features ({len(FEATURES)} variables)": (build_features, SIZES),
    "penaltyblog (Elo y pi)": (with_penaltyblog, SIZES),
    "pandas (forma y descanso)": (with_pandas, SIZES),
    "una consulta por partido (forma)": (with_queries, SIZES[:1]),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="una medida de cada")
    parser.add_argument("--json", action="store_true", help="escribe JSON")
    args = parser.parse_args()
    tables = {size: synthetic(size) for size in SIZES}
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(1 if args.quick else 3):
        for name, (work, sizes) in PEERS.items():
            for size in sizes:
                start = time.perf_counter()
                work(tables[size])
                times.setdefault((name, size), []).append(time.perf_counter() - start)
    rows = [{"what": name, **{size: statistics.median(times[name, size]) if size in sizes else None for size in SIZES}} for name, (_, sizes) in PEERS.items()]
    ours = rows[0]
    ratio = ours[76_000] / ours[7_600]
    if args.json:
        print(json.dumps({"rows": rows, "ratio": ratio}, ensure_ascii=False))
    else:
        print(f"{'segundos':<34}" + "".join(f"{size:>12,}".replace(",", ".") for size in SIZES))
        for row in rows:
            print(f"{row['what']:<34}" + "".join(f"{'–' if row[size] is None else format(row[size], '.2f'):>12}" for size in SIZES))
        print(f"Diez veces más partidos cuestan {ratio:.1f} veces más (se pide {TARGET_RATIO} como mucho); los 230.000, {ours[230_000]:.1f} s (se pide {TARGET_SECONDS}).")
    return 0 if ours[230_000] <= TARGET_SECONDS and ratio <= TARGET_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
