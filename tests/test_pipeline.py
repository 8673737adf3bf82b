"La cadena: se mata en cada punto, y siempre sigue; nunca queda un campeón a medias."
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from futbol_mlops.bundle import load_bundle
from futbol_mlops.config import Settings
from futbol_mlops.pipeline import (
    STAGES,
    Context,
    PipelineError,
    PipelineParams,
    gate_stage,
    is_done,
    last_run,
    run_pipeline,
)
from futbol_mlops.registry import list_versions, promote, rollback

FEW = PipelineParams(candidates=("base_rate", "goal_rates"))
CHILD = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    from futbol_mlops import pipeline, registry
    from futbol_mlops.config import Settings

    module, name, when = sys.argv[2].split(":")
    target = {"pipeline": pipeline, "registry": registry}[module]
    whole = getattr(target, name)

    def dying(*args, **kwargs):
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        whole(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    if name.endswith("_stage"):
        stages = tuple(pipeline.Stage(s.name, dying if s.work is whole else s.work, s.needs, s.makes, s.params, s.code) for s in pipeline.STAGES)
        pipeline.STAGES = stages
    else:
        setattr(target, name, dying)
        if module == "registry" and hasattr(pipeline, name):
            setattr(pipeline, name, dying)
    pipeline.run_pipeline(pipeline.Context(Settings(home=Path(sys.argv[1])), pipeline.PipelineParams(candidates=("base_rate", "goal_rates"))))
""")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    "Una cadena que acabó."
    settings = Settings(home=tmp_path_factory.mktemp("pipeline"))
    return settings, run_pipeline(Context(settings, FEW))


def killed(home, where: str) -> None:
    done = subprocess.run([sys.executable, "-c", CHILD, home, where], capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


def whole(settings: Settings) -> bool:
    "Si lo que hay se puede usar: un campeón con su paquete entero, o ninguna de las dos cosas."
    champions = [v for v in list_versions(settings) if "champion" in v.aliases]
    return len(champions) == 1 and load_bundle(settings.bundle_path).version == champions[0].semver


POINTS = [f"pipeline:{stage.name}_stage:{when}" for stage in STAGES for when in ("before", "after")] + [
    f"{module}:{name}:{when}" for module, name in (("pipeline", "log_candidates"), ("pipeline", "log_run"), ("registry", "register"), ("registry", "move_champion"), ("registry", "export_champion"))
    for when in ("before", "after")]


@pytest.mark.parametrize("where", POINTS)
def test_killed_anywhere_it_ends_as_if_nothing(where, finished, tmp_path):
    "Se mata en un punto la primera ejecución, y la siguiente acaba el trabajo."
    settings = Settings(home=tmp_path / "home")
    source = finished[0].home / "pipeline"
    order = [stage.name for stage in STAGES]
    if not where.startswith("pipeline:ingest"):  # lo anterior ya se hizo: se copia, para no repetir la evaluación en cada caso
        stage = where.split(":")[1].removesuffix("_stage")
        before = order[: order.index(stage) if stage in order else order.index("register")]
        made = [name for s in STAGES if s.name in before for name in (*s.makes, f".{s.name}.done")]
        (settings.home / "pipeline").mkdir(parents=True)
        for name in made + (["cost.json"] if "train" in before else []):
            shutil.copy2(source / name, settings.home / "pipeline" / name)
    killed(settings.home, where)
    if (settings.bundle_path / "manifest.json").exists():
        load_bundle(settings.bundle_path)  # si está, está entero
    said = run_pipeline(Context(settings, FEW))
    assert whole(settings)
    assert [v.semver for v in list_versions(settings)] == ["1.0.0"], "una sola versión, registrada una sola vez"
    assert json.loads((settings.home / "pipeline" / "metrics.json").read_text()) == json.loads((source / "metrics.json").read_text())
    assert list(said)[-1:] == ["register"] or where.endswith("register_stage:after")
    assert run_pipeline(Context(settings, FEW)) == {}
    assert not list((settings.home / "pipeline").glob(".*.tmp"))
    import mlflow

    runs = mlflow.search_runs(search_all_experiments=True)
    assert set(runs["status"]) == {"FINISHED"} and (runs["tags.mlflow.runName"] == "goal_rates").sum() == 1


def test_an_old_champion_survives_a_killed_challenger(finished, tmp_path):
    "Con campeón puesto, matar el registro del aspirante lo deja todo como estaba."
    settings = Settings(home=tmp_path / "home")
    run_pipeline(Context(settings, PipelineParams(candidates=("base_rate",))))
    assert [v.candidate for v in list_versions(settings)] == ["base_rate"]
    killed(settings.home, "registry:move_champion:before")
    assert whole(settings) and load_bundle(settings.bundle_path).manifest["candidate"] == "base_rate"
    run_pipeline(Context(settings, FEW))
    assert whole(settings) and load_bundle(settings.bundle_path).manifest["candidate"] == "goal_rates"


def test_only_what_depends_on_a_change_is_repeated(finished, tmp_path):
    shutil.copytree(finished[0].home, tmp_path / "home")
    settings = Settings(home=tmp_path / "home")
    events = [(line["stage"], line["event"]) for line in last_run(settings)]
    assert [stage for stage, event in events if event == "done"] == [stage.name for stage in STAGES]
    (settings.home / "pipeline" / "features.parquet").unlink()
    assert list(run_pipeline(Context(settings, FEW))) == ["features"], "salen las mismas variables: lo demás no se repite"
    with open(settings.home / "pipeline" / "features.parquet", "ab") as damaged:
        damaged.write(b"x")
    assert [stage.name for stage in STAGES if not is_done(stage, Context(settings, FEW))] == ["features", "train", "register"]


def test_a_rolled_back_recipe_does_not_come_back_alone(tmp_path):
    settings = Settings(home=tmp_path)
    run_pipeline(Context(settings, PipelineParams(candidates=("base_rate",))))
    run_pipeline(Context(settings, FEW))
    assert rollback(settings, "disparates el sábado") == 1
    said = run_pipeline(Context(settings, FEW))
    assert said["gate"]["candidate"] == "base_rate" and said["gate"]["nothing_new"], "la receta de la que se volvió atrás no compite"
    assert [v.candidate for v in list_versions(settings) if "champion" in v.aliases] == ["base_rate"]
    promote(settings, 2, "revisado")
    assert run_pipeline(Context(settings, FEW))["gate"]["nothing_new"]


def test_a_rolled_back_recipe_does_not_come_back_with_the_next_matches(tmp_path, monkeypatch):
    "El caso de cada martes: la misma receta con datos nuevos, después de una vuelta atrás."
    from futbol_mlops import pipeline

    settings, whole_table = Settings(home=tmp_path), pipeline.gather
    params = PipelineParams(candidates=("base_rate",))
    monkeypatch.setattr(pipeline, "gather", lambda settings: (whole_table(settings)[0].iloc[:-10], {}))
    run_pipeline(Context(settings, params))
    monkeypatch.undo()
    (settings.home / "pipeline" / ".ingest.done").unlink()
    assert run_pipeline(Context(settings, params))["gate"]["reasons"] == ["la misma receta con datos nuevos"]
    assert [v.semver for v in list_versions(settings) if "champion" in v.aliases] == ["1.0.1"]
    rollback(settings, "disparates")
    said = run_pipeline(Context(settings, params))["gate"]
    assert not said["promote"] and "se ha vuelto atrás" in said["reasons"][0]
    assert [v.semver for v in list_versions(settings) if "champion" in v.aliases] == ["1.0.0"]


def test_the_champion_learns_new_matches_though_no_challenger_beats_it(tmp_path, monkeypatch):
    "El aspirante no convence; el campeón se reentrena con lo que se ha jugado."
    from futbol_mlops import pipeline

    settings, whole_table = Settings(home=tmp_path), pipeline.gather
    monkeypatch.setattr(pipeline, "gather", lambda settings: (whole_table(settings)[0].iloc[:-10], {}))
    run_pipeline(Context(settings, FEW))
    monkeypatch.undo()
    promote(settings, 1)
    (settings.home / "pipeline" / ".ingest.done").unlink()
    wider = PipelineParams(candidates=("base_rate", "goal_rates", "dixon_coles"))
    gate = run_pipeline(Context(settings, wider))["gate"]
    assert gate["candidate"] == "goal_rates" and gate["promote"] and "dixon_coles no asciende" in gate["reasons"][0]
    assert [v.semver for v in list_versions(settings) if "champion" in v.aliases] == ["1.0.1"]


def test_register_does_not_obey_an_old_gate(tmp_path):
    "Después de una vuelta atrás, repetir solo el registro no la deshace; y si el título es de otra, tampoco."
    settings = Settings(home=tmp_path)
    run_pipeline(Context(settings, PipelineParams(candidates=("base_rate",))))
    run_pipeline(Context(settings, FEW))
    assert rollback(settings, "disparates") == 1
    with pytest.raises(PipelineError, match="después se volvió atrás desde esa receta"):
        run_pipeline(Context(settings, FEW), only="register")
    assert [v.number for v in list_versions(settings) if "champion" in v.aliases] == [1]
    promote(settings, 2, "revisado")
    gate = settings.home / "pipeline" / "gate.json"
    gate.write_text(json.dumps(json.loads(gate.read_text()) | {"candidate": "base_rate", "recipe": "otra"}))
    with pytest.raises(PipelineError, match="alguien la ha cambiado"):
        run_pipeline(Context(settings, FEW), only="register")
    assert [v.number for v in list_versions(settings) if "champion" in v.aliases] == [2]


def test_a_downloaded_league_with_one_season_does_not_stop_the_line(finished, tmp_path):
    "Una liga nueva, sin pasado: ni la evaluación por ligas ni la exportación del campeón se rompen."
    from futbol_mlops.data import load_matches
    from futbol_mlops.registry import export_champion

    settings = Settings(home=tmp_path)
    run_pipeline(Context(settings, PipelineParams(candidates=("base_rate", "dixon_coles"))))
    matches = load_matches(settings.matches_path)
    newcomers = matches.query("league == 'SP1' and season == '2023-24'").assign(league="D1")
    together = pd.concat([matches, newcomers]).sort_values(["date", "league", "home_team"], ignore_index=True)
    export_champion(settings, together)
    bundle = load_bundle(settings.bundle_path)
    assert bundle.leagues == ["D1", "E0", "SP1"]
    from futbol_mlops.features import build_features
    from futbol_mlops.training import Recipe, league_rows

    assert {row["league"] for row in league_rows(together, build_features(together)[0], Recipe("dixon_coles"))} == {"E0", "SP1"}


def test_the_journal_of_a_dead_process_is_readable(finished, tmp_path):
    shutil.copytree(finished[0].home / "pipeline" / "runs", tmp_path / "pipeline" / "runs")
    newest = sorted((tmp_path / "pipeline" / "runs").glob("*.jsonl"))[-1]
    before = last_run(Settings(home=tmp_path))
    with open(newest, "a", encoding="utf-8") as out:
        out.write(json.dumps({"stage": "train", "event": "fail", "error": "raro\u2028"}, ensure_ascii=False) + '\n{"stage": "ga')
    assert [line["event"] for line in last_run(Settings(home=tmp_path))] == [*(line["event"] for line in before), "fail"]


def test_a_leak_stops_the_line(finished, tmp_path):
    "Predicciones que conocen el resultado no llegan al registro."
    shutil.copytree(finished[0].home / "pipeline", tmp_path / "pipeline")
    settings = Settings(home=tmp_path)
    forecasts = pd.read_parquet(tmp_path / "pipeline" / "forecasts.parquet")
    matches = pd.read_parquet(tmp_path / "pipeline" / "matches.parquet")
    from futbol_mlops.models import outcome_codes

    y = outcome_codes(matches.loc[forecasts.loc["goal_rates"].index])
    leaky = forecasts.loc["goal_rates", ["home_win", "draw", "away_win"]].to_numpy() * 0.4 + np.eye(3)[y] * 0.6
    forecasts.loc[pd.IndexSlice["goal_rates", :], ["home_win", "draw", "away_win"]] = leaky
    forecasts.to_parquet(tmp_path / "pipeline" / "forecasts.parquet")
    with pytest.raises(PipelineError, match="demasiado bueno para ser verdad"):
        gate_stage(Context(settings, FEW))


def test_a_version_is_reproduced_from_the_command_line(finished):
    env = os.environ | {"FUTBOL_HOME": str(finished[0].home)}
    done = subprocess.run([sys.executable, "-m", "futbol_mlops.cli", "train", "--reproduce", "1", "--json"], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {"rps", "select_rps", "log_loss", "ece"} <= {row["metric"] for row in rows} and all(row["same"] for row in rows)


def test_two_at_once(finished):
    settings = finished[0]
    code = "import sys, time; from filelock import FileLock\nwith FileLock(sys.argv[1]):\n    print('ya', flush=True); time.sleep(30)"
    other = subprocess.Popen([sys.executable, "-c", code, settings.home / "pipeline" / ".lock"], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "ya\n"
        with pytest.raises(PipelineError, match="Ya hay otra ejecución"):
            run_pipeline(Context(settings, FEW))
    finally:
        other.kill()
        other.wait()
    assert run_pipeline(Context(settings, FEW)) == {}, "el candado de un muerto no cierra nada"


def dvc(folder, *args):
    env = os.environ | {"PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1"}
    return subprocess.run([sys.executable, "-m", "dvc", *args], cwd=folder, env=env, capture_output=True, text=True, timeout=600)


@pytest.fixture
def clone(tmp_path_factory):
    "Un clon limpio de lo que hay ahora, con su propio Git, en el que `dvc repro` ya ha corrido."
    from test_repository import copy_tree

    folder = copy_tree(tmp_path_factory.mktemp("clone"))
    shutil.rmtree(folder / ".futbol", ignore_errors=True)
    git = ["git", "-c", "user.name=prueba", "-c", "user.email=prueba@example.com"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "todo"]):
        subprocess.run([*git, *command], cwd=folder, check=True, capture_output=True)
    done = dvc(folder, "repro")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return folder


def lock(folder) -> dict:
    import yaml

    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", ())}


def test_dvc(clone, tmp_path):
    "Un clon sin nada da las huellas del `dvc.lock` que está en Git; un ajuste rehace solo lo suyo; lo que salió viaja por un remoto."
    committed, made = lock(ROOT), lock(clone)
    exact = [path for path in committed if path.rpartition("/")[2] not in ("features.parquet", "forecasts.parquet")]  # los últimos bits dependen del procesador
    assert {path: made[path] for path in exact} == {path: committed[path] for path in exact}, "ejecuta «dvc repro» y añade dvc.lock"
    folder = clone
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("bound: 0.003", "bound: 0.004"))
    done = dvc(folder, "repro")
    assert done.returncode == 0, done.stderr[-3000:]
    ran = [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]
    assert ran[:1] == ["gate"] and set(ran) <= {"gate", "register"}
    remote, other = tmp_path / "remoto", tmp_path / "otro"
    assert dvc(folder, "remote", "add", "-f", "-d", "local", str(remote)).returncode == 0
    pushed = dvc(folder, "push")
    assert pushed.returncode == 0, pushed.stderr
    subprocess.run(["git", "clone", "-q", str(folder), str(other)], check=True, capture_output=True)
    shutil.copy2(folder / ".dvc" / "config", other / ".dvc" / "config")
    shutil.copy2(folder / "dvc.lock", other / "dvc.lock")
    shutil.copy2(folder / "params.yaml", other / "params.yaml")
    pulled = dvc(other, "pull")
    assert pulled.returncode == 0, pulled.stderr
    assert (other / ".futbol/pipeline/metrics.json").read_bytes() == (folder / ".futbol/pipeline/metrics.json").read_bytes()
    assert "up to date" in dvc(other, "status").stdout


def test_the_two_graphs_agree():
    "dvc.yaml dice lo mismo que `STAGES`: etapas, lo que leen, lo que escriben y su código."
    import yaml

    described = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert list(described) == [stage.name for stage in STAGES]
    folder = ".futbol/pipeline/"
    for stage in STAGES:
        told = described[stage.name]
        made = {next(iter(out)) if isinstance(out, dict) else out for key in ("outs", "metrics", "plots") for out in told.get(key, ())}
        assert made == {folder + name for name in stage.makes}
        assert {dep for dep in told["deps"] if dep.startswith(folder)} == {folder + name for name in stage.needs}
        assert {f"futbol_mlops/{module}.py" for module in (*stage.code, "pipeline")} <= set(told["deps"])
