"El calificador contra entregas de verdad: honradas, tramposas y rotas."
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, missing
from submissions import CHEATS, HONEST, solved

from futbol_mlops.exercises import (
    DirectiveError,
    build,
    example_sheet,
    leaks,
    notebook_text,
    package_files,
    read_cells,
    read_sheet,
    solution_files,
    write_kit,
)
from futbol_mlops.grading import Grader, GradingError, VerdictCache, container_stadium, grade_notebook, review
from futbol_mlops.isolation import Limits
from futbol_mlops.referee import Stadium

SOLUTIONS = ROOT / "solutions"
STAGES = [path.stem for path in solution_files(SOLUTIONS)]
BIN = Path(sys.executable).parent


def cli(*arguments, cwd=None, **env):
    environment = {k: v for k, v in os.environ.items() if k not in ("IN_TEST", "FUTBOL_SOLUTIONS")} | {"COLUMNS": "200", "NO_COLOR": "1"} | env
    return subprocess.run([BIN / "futbol-mlops", *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def sheet():
    return read_sheet(SOLUTIONS / "04_features.ipynb")


@pytest.fixture(scope="module")
def grader(sheet):
    with Grader([sheet], hidden=True) as grader:
        yield grader


def write(path: Path, notebook: dict | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(notebook if isinstance(notebook, bytes) else json.dumps(notebook, ensure_ascii=False).encode())
    return path


# ---- los ejercicios del curso ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_every_solution_passes_and_every_blank_and_wrong_answer_fails(stage):
    assert review(SOLUTIONS, only=[stage]) == []


def test_the_course_has_enough_exercises_and_some_to_mend():
    sheets = [read_sheet(path) for path in solution_files(SOLUTIONS)]
    assert all(len(s.exercises) >= 4 for s in sheets), {s.name: len(s.exercises) for s in sheets}
    assert sum(e.given for s in sheets for e in s.exercises) >= 2
    numbers = [e.number for s in sheets for e in s.exercises]
    assert len(numbers) == len(set(numbers))


def nbdev_test(folder: Path) -> tuple[set[str], str]:
    "Los cuadernos de una carpeta que la forma sencilla da por malos."
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\n[tool.nbdev]\nexec_profile = false\ntst_flags = "notest wrong"\n')
    done = subprocess.run([BIN / "nbdev_test", str(folder), "--n_workers", "2"], cwd=folder, capture_output=True, text=True)
    failed = done.stderr.partition("Tests Failed On The Following Notebooks")[2]
    return {p.stem for p in folder.glob("*.ipynb") if p.name in failed}, done.stdout + done.stderr


def test_the_plain_form_passes_exactly_when_the_visible_tests_do(tmp_path, sheet):
    blank, solved = tmp_path / "blank", tmp_path / "solved"
    build(SOLUTIONS, blank)
    solved.mkdir()
    for path in solution_files(SOLUTIONS):
        write(solved / path.name, solved(read_sheet(path)))
    exercise = sheet.exercises[0]
    with Grader([sheet], hidden=False) as visible:
        from futbol_mlops.grading import make_job

        verdicts = {i: all(c["passed"] for c in visible.judge(make_job(sheet, exercise, wrong, False))["checks"]) for i, wrong in enumerate(exercise.wrong)}
    assert set(verdicts.values()) == {True, False}, "hace falta una equivocada que solo cacen las ocultas y otra que caiga en las visibles"
    for i, wrong in enumerate(exercise.wrong):
        notebook = solved(sheet)
        for cell in notebook["cells"]:
            if f"exercise: {exercise.number} " in "".join(cell["source"]):
                cell["source"] = wrong
        write(solved / f"{sheet.name}_{i}.ipynb", notebook)
    assert nbdev_test(blank)[0] == set(STAGES)
    failed, output = nbdev_test(solved)
    assert failed == {f"{sheet.name}_{i}" for i, passed in verdicts.items() if not passed}, output


# ---- trampas y descuidos ---------------------------------------------------------------------------------------


def earned(grader, submission, folder: Path) -> float:
    for name, content in submission.files.items():
        write(folder / name, content)
    return grade_notebook(write(folder / (submission.name or "04_features.ipynb"), submission.content()), grader).earned


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_scores_nothing(name, grader, sheet, tmp_path):
    assert earned(grader, CHEATS[name](sheet), tmp_path) == 0


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_mistake_costs_nothing(name, grader, sheet, tmp_path):
    assert earned(grader, HONEST[name](sheet), tmp_path) == sheet.points


DISASTERS = {
    "un bucle sin fin": "while True: pass",
    "una espera eterna": "import time; time.sleep(1e6)",
    "cerrar el proceso": "import os; os._exit(0)",
    "reventarlo": "import ctypes; ctypes.string_at(0)",
    "una bomba de procesos": "import os\n    while True: os.fork()",
    "una bomba de hilos": "import threading, time\n    while True: threading.Thread(target=time.sleep, args=(99,)).start()",
    "50 GB": "x = bytearray(50 * 2**30)",
    "memoria poco a poco": "x = []\n    while True: x.append(bytes(2**24))",
    "llenar un fichero": "f = open('x', 'wb')\n    while True: f.write(bytes(2**20))",
    "una salida sin fin": "while True: print('gol' * 1000)",
    "recursión sin fondo": "f = lambda: f()\n    f()",
    "una respuesta gigante": "return 'x' * 2**27",
    "matar a todos": "import os, signal\n    os.kill(-1, signal.SIGKILL)",
    "matar al vivero": "import os, signal\n    os.kill(os.getppid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("disaster", DISASTERS)
def test_a_disaster_costs_that_exercise_alone(disaster, tmp_path):
    second = ["#| exercise: 4.2 Otro\n#| points: 1\ndef goals_for(scores):\n    #| solution: Suma.\n    return sum(scores)\n    #| end",
              "#| test: 4.2\ncheck_equal(goals_for([1, 2]), 3, 'Uno y dos son tres goles')", "#| hidden: 4.2\ncheck_equal(goals_for([]), 0, 'Sin partidos no hay goles')",
              "#| wrong: 4.2\ndef goals_for(scores): return len(scores)", "#| hint: 4.2 Suma.\n#| explain: 4.2 Nada."]
    sheet = read_sheet(example_sheet(tmp_path, *second))
    cells = read_cells(write(tmp_path / "entrega.ipynb", solved(sheet)))
    bad = [type(c)(c.kind, f"#| exercise: 4.1 Tres puntos\ndef points(goals, conceded):\n    {DISASTERS[disaster]}", c.id) if "4.1" in c.source and "exercise" in c.source else c for c in cells]
    with Grader([sheet], hidden=True, stadium=Stadium([], Limits(seconds=2))) as grader:
        started = time.monotonic()
        results = grader.grade(sheet, bad)
        assert [r.earned for r in results] == [0, 1], results
        assert results[0].failures()[0], "dice qué ha pasado"
        assert time.monotonic() - started < 30
        assert [r.earned for r in grader.grade(sheet, cells)] == [2, 1], "el calificador sigue en pie"


def test_an_answer_leaves_no_process_and_no_file_behind(sheet, tmp_path):
    def children() -> list[str]:
        return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout.splitlines()

    with Grader([sheet], hidden=True, stadium=Stadium([], Limits(seconds=1))) as grader:
        notebook = CHEATS[next(iter(CHEATS))](sheet).notebook
        grade_notebook(write(tmp_path / "x.ipynb", notebook), grader)
        folder, process = Path(grader.stadium.folder.name), grader.stadium.process
        assert list(folder.iterdir()) == []
    assert not folder.exists() and process.poll() is not None


def test_a_test_cannot_be_read_from_the_players_memory(sheet, tmp_path):
    "El jugador hereda la memoria del vivero: en ella no hay ni una prueba oculta, aunque se haya calificado antes con ella."
    secret = "Perder 0-3 no vale nada"
    small = read_sheet(example_sheet(tmp_path))
    spy = ("#| exercise: 4.1 Tres puntos\ndef points(goals, conceded):\n    import gc, re\n    needle = 'Perder 0-' + '3 no vale'\n    found = []\n"
           "    for line in open('/proc/self/maps'):\n        where, mode = line.split()[:2]\n        if 'r' not in mode or 'v' in line[-9:]: continue\n"
           "        a, b = (int(x, 16) for x in where.split('-'))\n        try:\n            with open('/proc/self/mem', 'rb') as m:\n                m.seek(a); found += re.findall(b'Perder 0-3 no v[a]le', m.read(b - a))\n"
           "        except (OSError, ValueError, OverflowError): pass\n    raise RuntimeError(f'encontradas {len(found)}')")
    assert secret in small.exercises[0].hidden[0]
    with Grader([small], hidden=True) as grader:
        for _ in range(2):
            [result] = grader.grade(small, read_cells(write(tmp_path / "espia.ipynb", {"cells": [{"cell_type": "code", "source": spy}]})))
            assert result.earned == 0 and ("encontradas 0" in result.failures()[0] or "PermissionError" in result.failures()[0]), result.failures()


# ---- lo que usa quien estudia -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    "Una carpeta con soluciones y ejercicios en blanco de una hoja."
    folder = tmp_path_factory.mktemp("course")
    (folder / "solutions").mkdir()
    shutil.copy(SOLUTIONS / "04_features.ipynb", folder / "solutions")
    build(folder / "solutions", folder / "exercises")
    return folder


def test_grade_says_what_fails_and_hints_advance(course, tmp_path):
    done = [cli("grade", "exercises", "--hint", cwd=course, FUTBOL_HOME=str(tmp_path)) for _ in range(2)]
    assert done[0].returncode == 1 and "Pista 1 de 3" in done[0].stdout and "Pista 2 de 3" in done[1].stdout
    assert "comprobaciones que verás al entregar" in done[0].stdout and "0 de" in done[0].stdout


def test_grade_passes_with_the_explanation(course, sheet, tmp_path):
    write(course / "exercises" / "mi copia (2).ipynb", solved(sheet))
    done = cli("grade", "exercises/mi copia (2).ipynb", "--json", cwd=course, FUTBOL_HOME=str(tmp_path))
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["earned"] == told["points"] == sheet.points and told["unseen"] > 0
    shown = cli("grade", "exercises/mi copia (2).ipynb", "--exercise", "4.3", cwd=course, FUTBOL_HOME=str(tmp_path))
    assert sheet.exercises[2].explanation in shown.stdout and "2 de 2" in shown.stdout
    (course / "exercises" / "mi copia (2).ipynb").unlink()


@pytest.mark.parametrize("arguments, code, expected", [
    (["grade", "nada.ipynb"], 1, "No existe nada.ipynb"),
    (["grade", "exercises/04_features.ipynb", "--exercise", "4.9"], 1, "no tiene un ejercicio 4.9"),
    (["grade", "solutions", "--watch", "exercises"], 2, "un solo cuaderno"),
    (["grade", "--submissions", "nada"], 1, "no es una carpeta ni un zip"),
    (["grade", "--submissions", "exercises", "--hint"], 2, "no va con"),
    (["grade", "exercises", "--solutions", "exercises/nada"], 1, "No hay cuadernos de soluciones"),
    (["exercises", "check", "--solutions", "nada"], 1, "No hay cuadernos de soluciones"),
    (["exercises", "kit"], 1, "la que tiene setup.py"),
])
def test_wrong_use_is_explained(course, arguments, code, expected, tmp_path):
    done = cli(*arguments, cwd=course, FUTBOL_HOME=str(tmp_path))
    assert done.returncode == code and expected in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_broken_notebook_is_named(course, tmp_path):
    write(tmp_path / "roto.ipynb", b"{")
    done = cli("grade", tmp_path / "roto.ipynb", "--solutions", course / "solutions", FUTBOL_HOME=str(tmp_path))
    assert done.returncode == 1 and "roto.ipynb no se puede leer" in done.stderr


def test_progress(course, tmp_path):
    done = cli("progress", "--json", cwd=course, FUTBOL_HOME=str(tmp_path))
    [row] = json.loads(done.stdout)
    assert row["stage"] == "04_features" and row["points"].startswith("0 de ")


def test_watch_regrades_on_save(course, sheet, tmp_path):
    path = write(tmp_path / "04_features.ipynb", (course / "exercises" / "04_features.ipynb").read_bytes())
    command = [BIN / "futbol-mlops", "grade", path, "--watch", "--json", "--solutions", course / "solutions"]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"FUTBOL_HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"})
    try:
        assert json.loads(watching.stdout.readline())["earned"] == 0
        write(path, solved(sheet))
        assert json.loads(watching.stdout.readline())["earned"] == sheet.points
    finally:
        watching.terminate()
        watching.wait(timeout=20)


def test_grade_this_shows_a_table_in_a_real_kernel(course, sheet, tmp_path):
    import nbformat
    from nbclient import NotebookClient

    (tmp_path / "exercises").mkdir()
    shutil.copytree(course / "solutions", tmp_path / "solutions")
    path = write(tmp_path / "exercises" / "04_features.ipynb", solved(sheet))
    notebook = nbformat.read(path, as_version=4)
    environment = {k: v for k, v in os.environ.items() if k != "IN_TEST"} | {"JPY_SESSION_NAME": str(path)}
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(path.parent)}})
    client.execute(env=environment)
    html = notebook.cells[-1].outputs[-1]["data"]["text/html"]
    assert "4.3 ✓" in html and f"{sheet.points} de {sheet.points} puntos" in html


# ---- lo que usa quien enseña -------------------------------------------------------------------------------------


def test_the_kit_grades_what_is_visible_and_holds_no_secret(sheet, tmp_path):
    (tmp_path / "private").mkdir()
    shutil.copy(SOLUTIONS / "04_features.ipynb", tmp_path / "private")
    kit = write_kit(tmp_path / "private", tmp_path / "kit.zip", {})
    with zipfile.ZipFile(kit) as archive:
        for name in archive.namelist():
            assert leaks(sheet, archive.read(name).decode()) == [], name
        archive.extractall(tmp_path)
    folder = tmp_path / "kit"
    write(folder / "exercises" / "04_features.ipynb", solved(sheet))
    done = cli("grade", "--json", cwd=folder, FUTBOL_HOME=str(tmp_path))
    told = json.loads(done.stdout)
    assert told["earned"] == sheet.points and told["unseen"] == sum(e.hidden_checks for e in sheet.exercises)
    assert not any(c["hidden"] for e in told["exercises"] for c in e["checks"])


def test_a_secret_on_its_way_out_stops_the_kit(tmp_path):
    example_sheet(tmp_path)
    with pytest.raises(DirectiveError, match="no debe salir"):
        write_kit(tmp_path, tmp_path / "kit.zip", {"notas.txt": b'check_equal(points(0, 3), 0, "Perder 0-3 no vale nada")'})
    assert not (tmp_path / "kit.zip").exists()


def test_the_kit_carries_the_package():
    files = package_files(ROOT)
    assert "constraints.txt" in files and any(name.endswith(".whl") for name in files)


def test_a_class_from_a_moodle_zip(sheet, tmp_path):
    wrong = solved(sheet)
    for cell in wrong["cells"]:
        if "exercise: 4.3" in "".join(cell["source"]):
            cell["source"] = "#| exercise: 4.3 El descanso también juega\n" + sheet.exercises[2].wrong[0]
    with zipfile.ZipFile(tmp_path / "entregas.zip", "w") as archive:
        archive.writestr("Real Sociedad_11_assignsubmission_file/04_features.ipynb", json.dumps(solved(sheet)))
        archive.writestr("Real Unión_12_assignsubmission_file/04_features (1).ipynb", json.dumps(wrong))
        archive.writestr("Eibar_13_assignsubmission_file/otra cosa.ipynb", "{")
        archive.writestr("Alavés_14_assignsubmission_file/trampa.ipynb", json.dumps(CHEATS[next(iter(CHEATS))](sheet).notebook))
    (tmp_path / "moodle.csv").write_bytes("Identificador;Nombre completo;Calificación;Calificación máxima\r\nParticipante 11;Real Sociedad;;10,00\r\nParticipante 12;Real Unión;;10,00\r\n".encode("latin-1"))
    done = cli("grade", "--submissions", tmp_path / "entregas.zip", "--out", tmp_path / "grades", "--roster", tmp_path / "moodle.csv", "--solutions", SOLUTIONS)
    assert done.returncode == 0, done.stderr
    filled = (tmp_path / "grades" / "moodle.csv").read_bytes().decode("latin-1")
    assert filled.startswith("Identificador;Nombre completo;Calificación;Calificación máxima\r\nParticipante 11;Real Sociedad;10,00;10,00\r\nParticipante 12;Real Unión;")
    results = json.loads((tmp_path / "grades" / "results.json").read_text())
    points = {s["student"]["name"]: s["earned"] for s in results["students"]}
    assert points["Real Sociedad"] == sheet.points and 0 < points["Real Unión"] < sheet.points and points["Eibar"] == points["Alavés"] == 0
    assert "<svg" in (tmp_path / "grades" / "summary.html").read_text()
    hidden_lines = {line for e in sheet.exercises for s in e.hidden for line in s.split("\n") if len(line) > 20}
    for page in (tmp_path / "grades" / "students").iterdir():
        assert not [line for line in hidden_lines if line in page.read_text()], page.name


def test_a_mended_test_regrades_that_exercise_only(tmp_path, monkeypatch):
    from futbol_mlops.gradebook import grade_class

    path = example_sheet(tmp_path)
    sheet = read_sheet(path)
    write(tmp_path / "entregas" / "Betis" / "x.ipynb", solved(sheet))
    write(tmp_path / "entregas" / "Girona" / "x.ipynb", solved(sheet))
    calls = []
    judge = Stadium.judge
    monkeypatch.setattr(Stadium, "judge", lambda self, job: calls.append(job) or judge(self, job))
    counts = []
    for _ in range(2):
        grade_class(tmp_path / "entregas", tmp_path / "grades", [sheet])
        counts.append(len(calls))
    sheet.exercises[0].hidden[0] += "\ncheck_equal(points(5, 0), 3, 'La manita también vale tres puntos')"
    grade_class(tmp_path / "entregas", tmp_path / "grades", [sheet])
    assert counts[0] == counts[1] and len(calls) > counts[1]


def test_private_hidden_tests_count(tmp_path, sheet):
    example_sheet(tmp_path / "private" if (tmp_path / "private").mkdir() is None else tmp_path)
    private = read_sheet(tmp_path / "private" / "04_features.ipynb")
    write(tmp_path / "entregas" / "Betis" / "x.ipynb", solved(private))
    done = cli("grade", "--submissions", tmp_path / "entregas", "--out", tmp_path / "grades", "--json", FUTBOL_SOLUTIONS=str(tmp_path / "private"))
    assert json.loads(done.stdout)["students"][0]["earned"] == 2, done.stderr


def test_broken_tests_are_the_instructors_fault(tmp_path):
    sheet = read_sheet(example_sheet(tmp_path))
    sheet.context.append("import no_existe")
    with Grader([sheet]) as grader, pytest.raises(GradingError, match="no_existe"):
        grader.grade(sheet, read_cells(write(tmp_path / "x.ipynb", solved(sheet))))


def test_a_slow_machine_is_not_remembered(tmp_path):
    sheet = read_sheet(example_sheet(tmp_path))
    cache = VerdictCache(tmp_path / "verdicts.json")
    cells = read_cells(write(tmp_path / "x.ipynb", {"cells": [{"cell_type": "code", "source": "def points(goals, conceded):\n    while True: pass"}]}))
    with Grader([sheet], cache=cache, stadium=Stadium([], Limits(seconds=1))) as grader:
        grader.grade(sheet, cells)
    assert cache.used == {}


@pytest.mark.xdist_group("network")
def test_in_containers_the_verdict_is_the_same(tmp_path):
    sheet = read_sheet(example_sheet(tmp_path))
    try:
        stadium = container_stadium([sheet])
    except GradingError as e:
        missing(str(e), "un motor de contenedores, docker o podman")
    probe = ("import os, socket\ndef points(goals, conceded):\n    if goals == 2:\n        try: socket.create_connection(('127.0.0.1', 1), 1)\n        except OSError: pass\n"
             f"        if os.path.exists({str(ROOT / 'solutions')!r}) or os.path.exists('/root/.ssh'): return -1\n        try: open('/usr/x', 'w'); return -2\n        except OSError: pass\n"
             "    if goals < 0: raise ValueError\n    return 3 if goals > conceded else int(goals == conceded)")
    with Grader([sheet], hidden=True, stadium=stadium) as grader:
        for source, expected in ((probe, 2), ("def points(goals, conceded):\n    import os; os._exit(0)", 0)):
            [result] = grader.grade(sheet, read_cells(write(tmp_path / "x.ipynb", {"cells": [{"cell_type": "code", "source": source}]})))
            assert result.earned == expected, result.failures()


def test_exercises_are_written_as_nbdev_clean_leaves_them(tmp_path):
    build(SOLUTIONS, tmp_path / "exercises")
    before = {p.name: p.read_bytes() for p in (tmp_path / "exercises").glob("*.ipynb")}
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n[tool.nbdev]\nnbs_path = "exercises"\n')
    subprocess.run([BIN / "nbdev_clean", "--fname", str(tmp_path / "exercises")], cwd=tmp_path, check=True, capture_output=True)
    assert {p.name: p.read_bytes() for p in (tmp_path / "exercises").glob("*.ipynb")} == before
    assert notebook_text([]).endswith("\n")
