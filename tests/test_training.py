"Entrenar, buscar, repartir y repetir: lo mismo cada vez, aunque se mate lo que sea."
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from futbol_mlops.config import Settings
from futbol_mlops.data import DataError
from futbol_mlops.evaluation import REPORT_SEASONS
from futbol_mlops.training import (
    ClusterError,
    Recipe,
    TrainingError,
    dask_map,
    evaluate,
    open_study,
    reproduce,
    search,
    train,
)
from futbol_mlops.versioning import versions_folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return Settings(home=tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def trained(settings, matches):
    return train(settings, matches, [Recipe("base_rate"), Recipe("goal_rates")])


def test_every_run_says_with_what_it_was_made(settings, trained):
    import mlflow

    for t in trained:
        run = mlflow.get_run(t.run_id)
        assert run.data.tags["data.version"] and run.data.tags["code"] and run.data.tags["recipe"] == t.recipe
        assert {"model", "goal_rate", "k_factor", "python", "numpy", "scikit-learn"} <= set(run.data.params)
        assert run.data.tags["mlflow.parentRunId"]
    assert list(versions_folder(settings).glob("*.parquet"))


def test_training_is_repeated_to_six_decimals_in_another_process(settings, trained):
    code = "import sys; from futbol_mlops.config import Settings; from futbol_mlops.training import reproduce; t = reproduce(Settings(home=sys.argv[1]), sys.argv[2]); print(t['same'].all(), len(t))"
    done = subprocess.run([sys.executable, "-c", code, settings.home, trained[0].run_id], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.split()[0] == "True" and int(done.stdout.split()[1]) >= 10


def test_reproduce_needs_its_data(settings, trained, matches, tmp_path):
    folder = versions_folder(settings)
    folder.rename(tmp_path / "lejos")
    try:
        with pytest.raises(DataError, match="No hay ninguna versión"):
            reproduce(settings, trained[0].run_id)
    finally:
        (tmp_path / "lejos").rename(folder)


def test_search_never_sees_the_reported_seasons(matches, tmp_path, monkeypatch):
    "Con los resultados que informan cambiados, la búsqueda encuentra exactamente lo mismo."
    changed = matches.copy()
    late = changed["season"].isin(REPORT_SEASONS)
    changed.loc[late, ["home_goals", "away_goals", "outcome"]] = [0, 5, "away_win"]
    first, second = (search(Settings(home=tmp_path / str(i)), table, trials=3) for i, table in enumerate((matches, changed)))
    assert first == second


def test_search_killed_and_resumed_finds_the_same(matches, tmp_path):
    code = "import sys; from futbol_mlops.config import Settings; from futbol_mlops.data import load_matches; from futbol_mlops.training import search; search(Settings(home=sys.argv[1]), load_matches(), trials=6)"
    child = subprocess.Popen([sys.executable, "-c", code, tmp_path / "killed"], stderr=subprocess.DEVNULL)
    killed, deadline = Settings(home=tmp_path / "killed"), time.monotonic() + 120
    while time.monotonic() < deadline and child.poll() is None:
        if (killed.home / "optuna.db").exists():
            import sqlite3

            with sqlite3.connect(killed.home / "optuna.db") as db:
                try:
                    if db.execute("select count(*) from trials where state in ('COMPLETE', 'PRUNED')").fetchone()[0] >= 2:
                        break
                except sqlite3.OperationalError:
                    pass
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    done = len([t for t in open_study(killed, matches).trials if t.state.name in ("COMPLETE", "PRUNED")])
    assert done >= 2
    assert search(killed, matches, trials=6) == search(Settings(home=tmp_path / "whole"), matches, trials=6)
    assert not [t for t in open_study(killed, matches).trials if t.state.name == "RUNNING"]


WORKER = textwrap.dedent("""
    import asyncio, sys
    from distributed import Worker
    async def main():
        async with Worker(sys.argv[1], nthreads=1, dashboard=False) as worker:
            await worker.finished()
    asyncio.run(main())
""")


@pytest.mark.xdist_group("dask")
def test_a_worker_dies_and_the_evaluation_ends_the_same(matches, X):
    "Un planificador y dos trabajadores en procesos de verdad; a uno se le mata a la mitad."
    from distributed import Client, LocalCluster

    expected = evaluate(Recipe("dixon_coles"), matches, X)
    with LocalCluster(n_workers=0, dashboard_address=None, silence_logs=50) as cluster:
        env = os.environ | {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical"}
        workers = [subprocess.Popen([sys.executable, "-c", WORKER, cluster.scheduler_address], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
        try:
            with Client(cluster.scheduler_address, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=60)

                def kill_when_busy():
                    "Espera a que los dos tengan bloques y mata a uno."
                    while len([w for w, keys in client.processing().items() if keys]) < 2:
                        time.sleep(0.02)
                    time.sleep(0.5)
                    workers[0].send_signal(signal.SIGKILL)

                killer = threading.Thread(target=kill_when_busy, daemon=True)
                killer.start()
                with dask_map(cluster.scheduler_address) as run:
                    found = evaluate(Recipe("dixon_coles"), matches, X, run)
                killer.join(timeout=1)
                assert not killer.is_alive() and workers[0].wait(timeout=10) == -signal.SIGKILL, "el trabajador no murió a la mitad"
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    assert np.allclose(list(found.metrics.values()), list(expected.metrics.values()), atol=5e-7)
    assert np.allclose(found.forecast.drop(columns="season"), expected.forecast.drop(columns="season"), atol=5e-7)


def test_nobody_answers_at_the_address():
    with pytest.raises(ClusterError, match="Ningún planificador de Dask contesta en tcp://127.0.0.1:1"), dask_map("tcp://127.0.0.1:1"):
        pass


def test_another_league_is_evaluated_with_the_seasons_there_are(matches, X):
    "LaLiga solo trae 2023-24 de las que cuentan: no hay con qué elegir, y se dice."
    with pytest.raises(TrainingError, match="De SP1 no hay ninguna temporada con la que elegir"):
        evaluate(Recipe("goal_rates"), matches, X, league="SP1")
    shifted = matches.assign(season=matches["season"].where(matches["league"] != "SP1", matches["season"].replace({"2016-17": "2018-19"})))
    found = evaluate(Recipe("goal_rates"), shifted, X, league="SP1")
    assert {row["season"] for row in found.backtest} == {"2018-19", "2023-24"}
    assert 0 < found.metrics["over_market"] < 0.02
