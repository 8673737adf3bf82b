"""Cuánto tarda y qué da la evaluación hacia delante de todos los modelos, reentrenando cada semana.

Premier League de los datos que vienen con el código, 2017-18 a 2025-26. Los ajustes de los modelos se eligieron con las temporadas hasta 2020-21
(nbs/07_evaluation.ipynb); «sin ajustar» es la media a partes iguales de un logit con Elo, pi-ratings y forma y de un Dixon-Coles con los valores del libro, y sirve de referencia:
de cada modelo se da el intervalo pareado frente a ella. El ruido de una temporada es de ±,005.

    python benchmarks/backtest.py            menos de 5 minutos
    python benchmarks/backtest.py --quick    menos de 45 s: sin la potenciación del gradiente
    python benchmarks/backtest.py --json     para otro programa
"""

import argparse
import json
import os
import sys
import time

TARGETS = {"rps": 0.1990, "over_market": 0.0045, "ece": 0.02, "fast_seconds": 30, "all_seconds": 300}
MARKET_SEASON = "2023-24"


def untuned_mean():
    "La media de un logit y un Dixon-Coles sin ajustar nada."
    from futbol_mlops.features import FORM_FEATURES
    from futbol_mlops.models import Average, DixonColes, make_logit

    return Average([("logit", make_logit((*FORM_FEATURES, "pi_diff"))), ("goals", DixonColes(xi=0.0018, ridge=0.01, promoted=(0.0, 0.0)))])


def run(quick: bool) -> dict:
    "Evalúa los modelos y mide cada uno."
    import pandas as pd

    from futbol_mlops.data import OUTCOMES, load_matches
    from futbol_mlops.evaluation import (
        REPORT_SEASONS,
        SELECTION_SEASONS,
        calibration_table,
        expected_calibration_error,
        market_probabilities,
        paired_interval,
        scores,
        walk_forward,
    )
    from futbol_mlops.features import build_features
    from futbol_mlops.models import MODELS, outcome_codes

    matches = load_matches()
    X, _ = build_features(matches)
    y = pd.Series(outcome_codes(matches), index=matches.index)
    candidates = {name: make for name, make in MODELS.items() if not (quick and name == "boosting")} | {"sin ajustar": untuned_mean}
    forecasts, seconds = {}, {}
    for name, make in candidates.items():
        start = time.perf_counter()
        forecasts[name] = walk_forward(matches, X, make, (*SELECTION_SEASONS, *REPORT_SEASONS), refit="W")
        seconds[name] = time.perf_counter() - start

    def measured(forecast):
        truth, p = y[forecast.index].to_numpy(), forecast[list(OUTCOMES)].to_numpy()
        return {**scores(truth, p), "ece": expected_calibration_error(calibration_table(truth, p))}

    market = market_probabilities(matches[(matches["league"] == "E0") & (matches["season"] == MARKET_SEASON)])
    market_rps, rows = measured(market)["rps"], []
    for name, forecast in forecasts.items():
        difference, low, high = paired_interval(matches, forecast, forecasts["sin ajustar"])
        by_season = {season: measured(part)["rps"] for season, part in forecast.groupby("season")}
        reported = measured(forecast[forecast["season"].isin(REPORT_SEASONS)])["rps"]
        rows.append({"name": name, "seconds": seconds[name], "matches": len(forecast), **measured(forecast), "report_rps": reported, "over_market": by_season[MARKET_SEASON] - market_rps,
                     "vs_untuned": [difference, low, high], "by_season": by_season})
    return {"refit": "W", "matches": len(market), "market_rps": market_rps, "rows": rows}


def table(report: dict) -> str:
    "Las medidas, para leerlas."
    lines = [f"{'modelo':<13}{'segundos':>9}{'RPS':>8}{'informe':>9}{'log':>8}{'Brier':>8}{'aciertos':>10}{'calibr.':>9}{'mercado':>9}   frente a sin ajustar"]
    for r in report["rows"]:
        difference, low, high = r["vs_untuned"]
        lines.append(f"{r['name']:<13}{r['seconds']:>9.1f}{r['rps']:>8.4f}{r['report_rps']:>9.4f}{r['log_loss']:>8.4f}{r['brier']:>8.4f}{r['accuracy']:>10.1%}{r['ece']:>9.4f}{r['over_market']:>+9.4f}"
                     f"   {difference:+.4f} [{low:+.4f}, {high:+.4f}]")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Evaluación semanal de nueve temporadas de todos los modelos.")
    parser.add_argument("--quick", action="store_true", help="menos de 45 segundos, sin la potenciación del gradiente")
    parser.add_argument("--json", action="store_true", help="escribe JSON")
    args = parser.parse_args()
    report = run(args.quick)
    rows = {r["name"]: r for r in report["rows"]}
    fast, total = sum(rows[name]["seconds"] for name in ("form_logit", "dixon_coles")), sum(r["seconds"] for r in report["rows"])
    best = rows["ensemble"]
    in_time = fast <= TARGETS["fast_seconds"] and total <= TARGETS["all_seconds"]
    met = {"rps": best["rps"] <= TARGETS["rps"], "over_market": best["over_market"] <= TARGETS["over_market"], "ece": best["ece"] <= TARGETS["ece"], "time": in_time}
    if args.json:
        print(json.dumps(report | {"cpus": os.cpu_count(), "fast_seconds": fast, "all_seconds": total, "targets": TARGETS, "met": met}, ensure_ascii=False, indent=2))
    else:
        print(table(report))
        print(f"\nNueve temporadas de la Premier League, reentrenando cada semana; {os.cpu_count()} CPU. «informe»: RPS de 2021-22 en adelante, con las que no se eligió nada.")
        print(f"«mercado»: RPS de {MARKET_SEASON} menos el del mercado, {report['market_rps']:.4f}. Logit y Dixon-Coles: {fast:.1f} s (objetivo, {TARGETS['fast_seconds']}); todos: {total:.1f} s (objetivo, {TARGETS['all_seconds']}).")
        say = {True: "sí", False: "no, y el ruido de una temporada es de ±0,005"}
        print(f"El conjunto llega a RPS {TARGETS['rps']}: {say[bool(met['rps'])]}. A {TARGETS['over_market']} del mercado: {say[bool(met['over_market'])]}. Calibración ≤ {TARGETS['ece']}: {'sí' if met['ece'] else 'no'}.")
    return 0 if in_time and met["ece"] else 1


if __name__ == "__main__":
    sys.exit(main())
