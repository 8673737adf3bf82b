"""Qué trampas pilla el calificador del curso, qué despistes perdona y cuánto tarda, al lado de otter-grader y nbgrader.

Los tres califican los mismos ejercicios (04_features) con las mismas entregas, que están en tests/submissions.py. Una trampa está pillada si saca
0 puntos y el calificador sigue en pie; un despiste, perdonado si saca todos los puntos. otter-grader y nbgrader se instalan la primera vez, cada uno
en su entorno, dentro de .futbol/bench.

    python benchmarks/grading.py                   unos 25 minutos con dos núcleos
    python benchmarks/grading.py --peers nada      solo el del curso, unos 4 minutos
    python benchmarks/grading.py --quick           una muestra, sin los otros dos, en menos de 45 s
    python benchmarks/grading.py --only VS         las entregas cuyo nombre lo contenga
    python benchmarks/grading.py --json            para otro programa
"""

import argparse
import ast
import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from submissions import (  # noqa: E402
    CHEATS,
    HONEST,
    OWN_CHEATS,
    Maker,
    Submission,
    broken,
    handed_out,
    partly_solved,
    set_text,
    solved,
    text_of,
)

from futbol_mlops.exercises import Exercise, Sheet, check_calls, read_sheet  # noqa: E402

SHEET = "04_features"
CACHE = ROOT / ".futbol" / "bench"
PACKAGE = ("futbol_mlops", "setup.py", "settings.ini", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "MANIFEST.in")
OWN_LIMIT, PEER_LIMIT = 30, 150  # segundos por entrega; pasados, el calificador se da por atascado
TARGETS = {"first": 5.0, "watch": 2.0, "class": 120.0, "check": 300.0}
IN_CLASS = ("celdas de prueba borradas", "comprobaciones redefinidas", "os._exit(0) al cargar", "un objeto igual a todo", "lanza SystemExit")
# Muestra de --quick: una de cada clase de trampa y de despiste.
SAMPLE = ("skip_exec en la cabecera", "celdas de prueba borradas", "comprobaciones redefinidas", "funciones del calificador parcheadas", "un objeto igual a todo",
          "lanza SystemExit", "una función vacía", "os._exit(0) al cargar", "mata al proceso padre", "copia las soluciones del disco", "lee lo esperado en los marcos de quien llama",
          "ficheros de resultados falsos", "propio: dice que no tocó los argumentos", "un error con medio carácter",
          "sin despistes", "una celda copiada", "celdas desordenadas", "nbformat 3", "finales de línea de Windows", "metadatos de Colab",
          "cabeceras de ejercicio borradas", "un print al final con una variable de la prueba", "resuelto en una celda nueva, debajo del hueco")


class Unavailable(RuntimeError):
    "Un calificador no se puede medir aquí; el mensaje dice por qué."


def spread(exercise: Exercise) -> tuple[float, float]:
    "Los puntos de un ejercicio entre sus pruebas visibles y las ocultas, según cuántas comprobaciones hay en cada una."
    visible = sum(len(check_calls(ast.parse(s))) for s in exercise.tests)
    share = round(exercise.points * visible / (visible + exercise.hidden_checks), 4)
    return share, round(exercise.points - share, 4)


def put(submission: Submission, folder: Path, name: str) -> Path:
    "Escribe una entrega en una carpeta: el cuaderno y lo que va a su lado."
    folder.mkdir(parents=True, exist_ok=True)
    for relative, content in submission.files.items():
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    path = folder / (submission.name or name)
    path.write_bytes(submission.content())
    return path


def run(command: list[str], cwd: Path, env: dict[str, str] | None = None, limit: float = PEER_LIMIT) -> tuple[int | None, str]:
    "(código de salida, lo que escribió); código `None` si hubo que pararlo."
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, cwd=cwd, env=os.environ | (env or {}), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        out.seek(0)
        return code, out.read().decode("utf-8", "replace")


# El del curso ----------------------------------------------------------------------------------------------------------------------------------


def grade_here(path: Path, grader) -> dict:
    "Califica un cuaderno y escribe todo lo que se enseñaría de él."
    from futbol_mlops.grading import grade_notebook, report_html, report_lines

    report = grade_notebook(path, grader)
    grader.cache.save()
    for shown in ("\n".join(text for _, text in report_lines(report)), report_html(report), json.dumps(report.to_dict(), ensure_ascii=False)):
        shown.encode()
    return {"score": report.earned, "points": report.points}


def worker(paths: list[str]) -> None:
    "Un calificador abierto que lee rutas y contesta notas; con rutas en la orden, califica esas y acaba."
    from futbol_mlops.grading import Grader, VerdictCache

    with tempfile.TemporaryDirectory() as cache, Grader([read_sheet(ROOT / "solutions" / f"{SHEET}.ipynb")], hidden=True, cache=VerdictCache(Path(cache) / "v.json")) as grader:
        for line in paths or sys.stdin:
            path = Path(line.strip())
            os.chdir(path.parent)
            try:
                answer = grade_here(path, grader)
            except Exception as e:
                answer = {"error": f"{type(e).__name__}: {e}"[:200]}
            print(json.dumps(answer), flush=True)


class Own:
    "El calificador del curso: un proceso abierto, como el de una clase entera."

    name, own = "futbol-mlops", True

    def __init__(self, sheet: Sheet, home: Path):
        self.sheet, self.base, self.process = sheet, None, None
        self.version = __import__("futbol_mlops").__version__
        self.notes = ["Con pruebas ocultas; cada respuesta, en procesos encerrados aparte."]

    def _open(self) -> None:
        self.process = subprocess.Popen([sys.executable, __file__, "--worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.errors: list[str] = []
        threading.Thread(target=lambda p=self.process, e=self.errors: e.extend(p.stderr), daemon=True).start()

    def grade(self, submission: Submission, folder: Path) -> tuple[float | None, str]:
        "(nota, por qué no la hay)."
        path = put(submission, folder, f"{SHEET}.ipynb")
        if not self.process or self.process.poll() is not None:
            self._open()
        timer = threading.Timer(OWN_LIMIT, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(f"{path}\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        late = not timer.is_alive()
        timer.cancel()
        if not line:
            self.process.wait()
            return None, f"se atasca más de {OWN_LIMIT} s" if late else f"el calificador se cae: {''.join(self.errors)[-200:]}"
        answer = json.loads(line)
        if "error" in answer:  # un fallo no debe llevarse por delante a las siguientes
            self.process.kill()
            self.process.wait()
        return answer.get("score"), answer.get("error", "")

    def grade_all(self, submissions: list[tuple[str, Submission]], folder: Path) -> list[tuple[float | None, str]]:
        "Varias, en orden."
        return [self.grade(submission, folder / str(i)) for i, (_, submission) in enumerate(submissions)]

    def close(self) -> None:
        if self.process:
            self.process.stdin.close()
            self.process.wait()

    def first(self, submission: Submission, folder: Path) -> float:
        "Segundos de un cuaderno con todo por arrancar."
        path = put(submission, folder, f"{SHEET}.ipynb")
        start = time.perf_counter()
        subprocess.run([sys.executable, __file__, "--worker", str(path)], check=True, capture_output=True)
        return time.perf_counter() - start

    def watch(self, folder: Path) -> float:
        "Segundos desde que se guarda hasta que se ve la nota, con el calificador mirando. Mediana de tres cambios."
        from futbol_mlops.grading import Grader, watch

        submission = Submission(partly_solved(self.sheet))
        path, seen, times = put(submission, folder, f"{SHEET}.ipynb"), threading.Semaphore(0), []
        with Grader([self.sheet], hidden=True) as grader:
            thread = threading.Thread(target=watch, args=(path, grader, lambda report: seen.release(), 4))
            thread.start()
            for i in range(4):
                start = time.perf_counter()
                if i:
                    cells = [c for c in submission.notebook["cells"] if "#| exercise" in text_of(c)]
                    set_text(cells[i], f"{text_of(cells[i])}\nvuelta = {i}")
                    put(submission, folder, f"{SHEET}.ipynb")
                if not seen.acquire(timeout=60):
                    raise Unavailable("watch no contesta en un minuto")
                times.append(time.perf_counter() - start)
            thread.join()
        return statistics.median(times[1:])

    def whole_class(self, submissions: list[tuple[str, Submission]], folder: Path) -> tuple[float, int]:
        "(segundos, entregas con nota) de una clase."
        try:
            from futbol_mlops.gradebook import grade_class
        except ImportError:
            self.notes.append("La clase se califica con Grader: futbol_mlops.gradebook aún no existe.")
            start = time.perf_counter()
            scores = self.grade_all(submissions, folder)
            return time.perf_counter() - start, sum(score is not None for score, _ in scores)
        for name, submission in submissions:
            put(Submission(submission.notebook, submission.files), folder / name, f"{SHEET}.ipynb")
        start = time.perf_counter()
        book = grade_class(folder, folder.parent / "notas", [self.sheet])
        return time.perf_counter() - start, sum(bool(entry.reports) for entry in book.entries)


# Los otros dos ---------------------------------------------------------------------------------------------------------------------------------


def environment(name: str, requirement: str) -> Path:
    "El Python de un entorno con un calificador y el paquete del curso; se crea la primera vez. Lanza `Unavailable`."
    folder = CACHE / name
    python = folder / ".venv" / "bin" / "python"
    if (folder / "listo").exists():
        return python
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if not uv:
        raise Unavailable("falta uv (pip install uv)")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as copy:  # se instala una copia: así no sabe dónde están las soluciones
        for part in PACKAGE:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, Path(copy) / part, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, copy)
        for command in ([uv, "venv", "-q", "--python", sys.executable, str(folder / ".venv")], [uv, "pip", "install", "-q", "--python", str(python), requirement, copy, "ipykernel", "pandas>=3.0,<3.1", "pyarrow"]):
            code, output = run(command, folder, limit=600)
            if code != 0:
                raise Unavailable(f"no se pudo instalar {requirement}: {output.strip()[-300:]}")
    (folder / "listo").touch()
    return python


def fresh(folder: Path, python: Path) -> dict[str, str]:
    "Variables de entorno de un calificador, con todo lo personal dentro de una carpeta."
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    return {"HOME": str(folder), "TMPDIR": str(folder / "tmp"), "IPYTHONDIR": str(folder / "ipython"), "JUPYTER_PLATFORM_DIRS": "1", "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}", "PYTHONUTF8": "1",
            "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def installed(python: Path, package: str) -> str:
    "La versión instalada de un paquete."
    return subprocess.run([python, "-c", f"from importlib.metadata import version; print(version('{package}'))"], capture_output=True, text=True, check=True).stdout.strip()


class Peer:
    "Lo que comparten los otros dos: cada entrega se califica en su carpeta y con su límite."

    own = False

    def grade_all(self, submissions: list[tuple[str, Submission]], folder: Path) -> list[tuple[float | None, str]]:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return list(pool.map(lambda pair: self.grade(pair[1][1], folder / str(pair[0])), enumerate(submissions)))

    def close(self) -> None:
        pass

    def first(self, submission: Submission, folder: Path) -> float:
        start = time.perf_counter()
        score, why = self.grade(submission, folder)
        if score is None:
            raise Unavailable(f"no califica la solución: {why}")
        return time.perf_counter() - start


def raw(text: str) -> dict:
    "Una celda sin tipo, como las que marcan un cuaderno para otter assign."
    return {"cell_type": "raw", "metadata": {}, "source": text.splitlines(keepends=True)}


def code(text: str, **metadata: object) -> dict:
    "Una celda de código."
    return {"cell_type": "code", "execution_count": None, "metadata": metadata, "outputs": [], "source": text.splitlines(keepends=True)}


def notebook(cells: list[dict]) -> dict:
    "Un cuaderno con esas celdas."
    spec = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": [cell | {"id": f"celda-{i}"} for i, cell in enumerate(cells)], "metadata": spec, "nbformat": 4, "nbformat_minor": 5}


def number_of(text: str, mark: str) -> str:
    "El número detrás de «#| marca:»."
    found = re.match(rf"#\| {mark}: (\S+)", text)
    return found[1] if found else ""


def setup_of(exercise: Exercise) -> str:
    "Lo que las pruebas visibles preparan y las ocultas usan."
    body = [node for s in exercise.tests for node in ast.parse(s).body if not isinstance(node, ast.Expr)]
    return "\n".join(ast.unparse(node) for node in body)


class Otter(Peer):
    "otter-grader: un cuaderno para otter assign y, por entrega, otter run."

    name = "otter-grader"

    def __init__(self, sheet: Sheet, home: Path):
        self.sheet, self.python = sheet, environment("otter", "otter-grader>=7,<8")
        self.version = installed(self.python, "otter-grader")
        self.notes = ["Hoja hecha con «otter assign» y calificada con «otter run»: es lo que corre dentro de su contenedor. No se usa «otter grade», que necesita Docker: con él, "
                      "lo que una entrega haga a otros procesos o lea del disco se queda en su contenedor, y --timeout para los bucles; las pruebas ocultas también están dentro.",
                      "Sus pruebas son doctest, un caso por celda; las ocultas repiten lo que preparan las visibles. Sin «grade_from_log»: se vuelve a ejecutar el cuaderno."]
        self.base = self._assign(home / "assign")

    def _bin(self, *args: object) -> list[str]:
        return [str(self.python.parent / "otter"), *map(str, args)]

    def _assign(self, folder: Path) -> dict:
        "Genera el zip que califica y devuelve el cuaderno que se reparte."
        folder.mkdir(parents=True)
        cells, exercises = [raw("# ASSIGNMENT CONFIG\nname: 04_features\nexport_cell: false\ncheck_all_cell: false\nrun_tests: false")], {e.number: e for e in self.sheet.exercises}
        for cell in self.sheet.cells[:-1]:
            text = cell["source"]
            if number := number_of(text, "exercise"):
                e = exercises[number]
                cells += [raw(f"# BEGIN QUESTION\nname: q{number.replace('.', '_')}\npoints: [{', '.join(map(str, spread(e)))}]"), raw("# BEGIN SOLUTION"), code(e.solution), raw("# END SOLUTION"),
                          raw("# BEGIN TESTS"), code("\n".join(e.tests)), code("# HIDDEN\n" + "\n".join([setup_of(e), *e.hidden])), raw("# END TESTS"), raw("# END QUESTION")]
            elif number_of(text, "test"):
                pass
            elif cell["kind"] == "markdown":
                cells.append({"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)})
            else:
                cells.append(code(text))
        (folder / f"{SHEET}.ipynb").write_text(json.dumps(notebook(cells)), encoding="utf-8")
        code_, output = run(self._bin("assign", f"{SHEET}.ipynb", "dist"), folder, fresh(folder / "home", self.python))
        self.zip = next(iter((folder / "dist").glob("autograder/*.zip")), None)
        if code_ != 0 or not self.zip:
            raise Unavailable(f"otter assign falla: {output.strip()[-300:]}")
        base = json.loads((folder / "dist" / "student" / f"{SHEET}.ipynb").read_text(encoding="utf-8"))
        for cell in base["cells"]:
            text = text_of(cell)
            if number := number_of(text, "exercise"):
                set_text(cell, exercises[number].start)
            elif found := re.search(r'grader\.check\("q(\d+)_(\d+)"\)', text):
                set_text(cell, f"#| test: {found[1]}.{found[2]}\n{text}")
        return base

    def grade(self, submission: Submission, folder: Path) -> tuple[float | None, str]:
        path = put(submission, folder / "entrega", f"{SHEET}.ipynb")
        if submission.files:
            path = folder / "entrega.zip"
            with zipfile.ZipFile(path, "w") as archive:
                for file in sorted((folder / "entrega").rglob("*")):
                    archive.write(file, file.relative_to(folder / "entrega"))
        out = folder / "salida"
        out.mkdir()
        code_, output = run(self._bin("run", "-a", self.zip, "-o", out, "--no-logo", path), folder, fresh(folder / "home", self.python))
        if code_ is None:
            return None, f"no termina en {PEER_LIMIT} s"
        try:
            tests = json.loads((out / "results.json").read_text(encoding="utf-8"))["tests"]
            return round(sum(float(t["score"]) for t in tests if "score" in t), 2), ""
        except (OSError, ValueError, KeyError, TypeError):
            return None, f"otter run acaba con {code_}: {output.strip()[-160:]}"

    def whole_class(self, submissions: list[tuple[str, Submission]], folder: Path) -> tuple[float, int]:
        start = time.perf_counter()
        scores = self.grade_all(submissions, folder)
        return time.perf_counter() - start, sum(score is not None for score, _ in scores)


NBGRADER_CONFIG = """c = get_config()
c.CourseDirectory.root = {root!r}
c.CourseDirectory.course_id = "futbol"
c.OverwriteCells.add_missing_cells = True
c.Exchange.root = {root!r} + "/exchange"
"""


class NbGrader(Peer):
    "nbgrader: una tarea con sus pruebas y, por entrega, nbgrader autograde."

    name = "nbgrader"

    def __init__(self, sheet: Sheet, home: Path):
        self.sheet, self.python = sheet, environment("nbgrader", "nbgrader==0.9.6")
        self.version = installed(self.python, "nbgrader")
        self.notes = ["Celdas de prueba bloqueadas, importaciones de solo lectura, ocultas con ### BEGIN HIDDEN TESTS y OverwriteCells.add_missing_cells=True: lo editado y lo borrado "
                      "vuelve de su base de datos. 30 s por celda, su valor por defecto. No tiene contenedor propio: su manual remite a quien lo instale.",
                      "Cada celda de pruebas vale todo o nada. Exige que el cuaderno se llame como el suyo."]
        self.base = self._generate(home / "course")

    def _bin(self, *args: object) -> list[str]:
        return [str(self.python.parent / "nbgrader"), *map(str, args)]

    def _cells(self) -> list[dict]:
        "Las celdas de la tarea, con sus metadatos."
        def marked(text: str, name: str, **extra: object) -> dict:
            flags = {"grade": False, "locked": False, "solution": False, "task": False, "schema_version": 3, "grade_id": name, "cell_type": "code"} | extra
            return code(text, nbgrader=flags)

        def name_of(kind: str, number: str) -> str:
            return f"{kind}-{number.replace('.', '_')}"

        exercises, cells = {e.number: e for e in self.sheet.exercises}, []
        for position, cell in enumerate(self.sheet.cells[:-1]):
            text = cell["source"]
            if number := number_of(text, "exercise"):
                head, body = exercises[number].solution.split("\n", 2)[:2], exercises[number].solution.split("\n", 2)[2]
                cells.append(marked("\n".join([*head, "### BEGIN SOLUTION", body, "### END SOLUTION"]), name_of("respuesta", number), solution=True))
            elif number := number_of(text, "test"):
                e = exercises[number]
                if name_of("visibles", number) in {c["metadata"].get("nbgrader", {}).get("grade_id") for c in cells}:
                    continue
                cells.append(marked("\n".join([f"#| test: {number}", *e.tests]), name_of("visibles", number), grade=True, locked=True, points=spread(e)[0]))
                cells.append(marked("\n".join([f"#| test: {number} (ocultas)", "### BEGIN HIDDEN TESTS", *e.hidden, "### END HIDDEN TESTS"]), name_of("ocultas", number), grade=True, locked=True, points=spread(e)[1]))
            elif cell["kind"] == "markdown":
                cells.append({"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)})
            else:
                cells.append(marked(text, f"contexto-{position}", locked=True))
        return cells

    def _generate(self, course: Path) -> dict:
        "Crea la tarea y devuelve el cuaderno que se reparte."
        self.course = course
        source = self.course / "source" / SHEET
        source.mkdir(parents=True)
        (source / f"{SHEET}.ipynb").write_text(json.dumps(notebook(self._cells())), encoding="utf-8")
        (self.course / "nbgrader_config.py").write_text(NBGRADER_CONFIG.format(root=str(self.course)))
        code_, output = run(self._bin("generate_assignment", SHEET, "--create", "--force"), self.course, fresh(self.course / "home", self.python))
        released = self.course / "release" / SHEET / f"{SHEET}.ipynb"
        if code_ != 0 or not released.exists():
            raise Unavailable(f"nbgrader generate_assignment falla: {output.strip()[-300:]}")
        base, exercises = json.loads(released.read_text(encoding="utf-8")), {e.number: e for e in self.sheet.exercises}
        for cell in base["cells"]:
            if number := number_of(text_of(cell), "exercise"):
                set_text(cell, exercises[number].start)
        return base

    def _autograde(self, submissions: list[tuple[str, Submission]], folder: Path) -> tuple[dict[str, float], str]:
        "Las notas de unas entregas en un curso recién copiado."
        shutil.copytree(self.course, folder, ignore=shutil.ignore_patterns("home", self.python))
        (folder / "nbgrader_config.py").write_text(NBGRADER_CONFIG.format(root=str(folder)))
        for student, submission in submissions:
            put(submission, folder / "submitted" / student / SHEET, f"{SHEET}.ipynb")
        code_, output = run(self._bin("autograde", SHEET, "--create"), folder, fresh(folder / "home", self.python), PEER_LIMIT * len(submissions))
        graded = {p.parts[-3] for p in (folder / "autograded").glob(f"*/{SHEET}/*.ipynb")}
        query = ("select submitted_assignment.student_id, sum(coalesce(grade.manual_score, grade.auto_score)) from grade join submitted_notebook on grade.notebook_id = submitted_notebook.id "
                 "join submitted_assignment on submitted_notebook.assignment_id = submitted_assignment.id group by 1")
        with contextlib.closing(sqlite3.connect(folder / "gradebook.db")) as db:
            scores = {student: score for student, score in db.execute(query) if student in graded and score is not None}
        return scores, "no termina" if code_ is None else " ".join(output.split())[-160:]

    def grade(self, submission: Submission, folder: Path) -> tuple[float | None, str]:
        scores, output = self._autograde([("alumno", submission)], folder)
        return (round(scores["alumno"], 2), "") if "alumno" in scores else (None, output)

    def whole_class(self, submissions: list[tuple[str, Submission]], folder: Path) -> tuple[float, int]:
        start = time.perf_counter()
        scores, _ = self._autograde(submissions, folder)
        return time.perf_counter() - start, len(scores)


# Las medidas -----------------------------------------------------------------------------------------------------------------------------------


def verdict(score: float | None, wanted: float) -> str:
    "Cómo acaba una entrega: «bien», «mal» o «sin nota»."
    return "sin nota" if score is None else "bien" if abs(score - wanted) < 0.01 else "mal"


def examine(tool, makers: dict[str, Maker], wanted: float, folder: Path) -> dict[str, dict]:
    "Lo que hace un calificador con unas entregas."
    chosen = {name: maker for name, maker in makers.items() if tool.own or name not in OWN_CHEATS}
    results = tool.grade_all([(name, maker(tool.sheet, tool.base)) for name, maker in chosen.items()], folder)
    return {name: {"score": score, "why": why, "verdict": verdict(score, wanted)} for name, (score, why) in zip(chosen, results, strict=True)}


def class_of(tool, size: int) -> list[tuple[str, Submission]]:
    "Una clase: por cada seis, dos perfectas, dos a medias, una rota y una tramposa."
    kinds = [*[lambda s, b: Submission(solved(s, b))] * 2, *[lambda s, b: Submission(partly_solved(s, b))] * 2, lambda s, b: Submission(broken(s, b)), None]
    made = []
    for i in range(size):
        maker = kinds[i % 6] or CHEATS[IN_CLASS[i // 6 % len(IN_CLASS)]]
        submission = maker(tool.sheet, tool.base)
        for cell in submission.notebook["cells"]:  # cada quien escribe a su manera: nada se puede recordar de otra entrega
            if "#| exercise" in text_of(cell):
                set_text(cell, f"{text_of(cell)}\nalumno = {i}")
        made.append((f"alumno{i:02}", submission))
    return made


def measure(tool, cheats: dict[str, Maker], honest: dict[str, Maker], size: int, folder: Path, say) -> dict:
    "Todo lo que se mide de un calificador."
    blank, points = Submission(handed_out(tool.sheet, tool.base)), tool.sheet.points
    (zero, why), (full, why_full) = tool.grade_all([("", blank), ("", Submission(solved(tool.sheet, tool.base)))], folder / "control")
    if zero != 0 or full is None or abs(full - points) > 0.01:
        raise Unavailable(f"no distingue el cuaderno en blanco ({zero}) del resuelto ({full} de {points}): {why or why_full}")
    found = {"name": tool.name, "version": tool.version}
    say(f"{tool.name}: primera nota")
    found["first"] = round(statistics.median(tool.first(Submission(solved(tool.sheet, tool.base)), folder / f"first{i}") for i in range(3)), 2)
    found["watch"] = round(tool.watch(folder / "watch"), 2) if tool.own else None
    if size:
        say(f"{tool.name}: {size} entregas")
        seconds, scored = tool.whole_class(class_of(tool, size), folder / "class")
        found |= {"class": round(seconds, 1), "class_size": size, "class_scored": scored}
    say(f"{tool.name}: {len(cheats)} trampas")
    found["cheats"] = examine(tool, cheats, 0, folder / "cheats")
    say(f"{tool.name}: {len(honest)} despistes")
    found["honest"] = examine(tool, honest, points, folder / "honest")
    (after, why), = tool.grade_all([("", Submission(solved(tool.sheet, tool.base)))], folder / "after")
    found["survived"] = after is not None and abs(after - points) < 0.01
    return found | {"notes": tool.notes}


def course_check() -> dict:
    "Cuánto tarda la revisión de todos los ejercicios del curso."
    script = ("import json, sys, time; from pathlib import Path; from futbol_mlops.grading import review; start, seen = time.perf_counter(), []\n"
              "problems = review(Path('solutions'), Path('exercises'), progress=seen.append)\nprint(json.dumps([time.perf_counter() - start, len(seen), len(problems)]))")
    code_, output = run([sys.executable, "-c", script], ROOT, limit=900)
    try:
        seconds, sheets, problems = json.loads(output.strip().splitlines()[-1])
        return {"seconds": round(seconds, 1), "sheets": sheets, "problems": problems}
    except (ValueError, IndexError):
        return {"seconds": None, "error": f"acaba con {code_}: {output.strip()[-200:]}"}


def count(results: dict[str, dict]) -> dict[str, int]:
    "Cuántas entregas acaban de cada manera."
    return {key: sum(r["verdict"] == key for r in results.values()) for key in ("bien", "mal", "sin nota")}


def show(report: dict) -> None:
    "Los resultados, en tablas."
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(Console().width, 110))
    table = Table("calificador", *[(c) for c in ("trampas pilladas", "sin nota", "cuelan", "despistes perdonados", "primera nota", "al guardar", "una clase")], title="Calificadores")
    for r in report["graders"]:
        cheats, honest = count(r["cheats"]), count(r["honest"])
        table.add_row(f"{r['name']} {r['version']}", f"{cheats['bien']} de {len(r['cheats'])}", str(cheats["sin nota"]), str(cheats["mal"]), f"{honest['bien']} de {len(r['honest'])}",
                      f"{r['first']:.1f} s", f"{r['watch']:.1f} s" if r["watch"] else "—", f"{r['class']:.0f} s ({r['class_scored']} de {r['class_size']})" if "class" in r else "—")
    console.print(table)
    names = [r["name"] for r in report["graders"]]
    marks = {"bien": "✓", "mal": "✗", "sin nota": "sin nota"}
    for key, title in (("cheats", "Trampas que alguno no pilla (puntos que sacan)"), ("honest", "Despistes que alguno no perdona (puntos que sacan)")):
        table = Table("entrega", *names, title=title)
        for name in dict.fromkeys(n for r in report["graders"] for n in r[key]):
            row = [r[key].get(name) for r in report["graders"]]
            if any(cell and cell["verdict"] != "bien" for cell in row):
                table.add_row(name, *["—" if not c else f"{marks[c['verdict']]} {c['score']:g}" if c["verdict"] == "mal" else marks[c["verdict"]] for c in row])
        if table.row_count:
            console.print(table)
    for r in report["graders"]:
        for note in r["notes"]:
            console.print(f"· {r['name']}: {note}", highlight=False)
        if not r["survived"]:
            console.print(f"· {r['name']}: después de todo esto ya no califica bien la solución.", highlight=False)
    for name, why in report["skipped"].items():
        console.print(f"· {name}: no se mide. {why}", highlight=False)
    if report["check"]:
        c = report["check"]
        console.print(f"· Revisar los ejercicios del curso ({c.get('sheets', 0)} hojas): {c['seconds']} s, {c.get('problems', 0)} problemas. {c.get('error', '')}", highlight=False)
    console.print(f"· {report['cpus']} CPU. Objetivos: primera nota ≤ 5 s, al guardar ≤ 2 s, 30 entregas ≤ 2 min, revisar el curso ≤ 5 min, ninguna trampa y ningún despiste: "
                  f"{'cumplidos' if report['met'] else 'NO cumplidos'}.", highlight=False)


def met(own: dict, check: dict | None) -> bool:
    "Si el del curso cumple los objetivos."
    good = count(own["cheats"])["bien"] == len(own["cheats"]) and count(own["honest"])["bien"] == len(own["honest"]) and own["survived"]
    fast = own["first"] <= TARGETS["first"] and own["watch"] <= TARGETS["watch"] and own.get("class", 0) <= TARGETS["class"] * own.get("class_size", 30) / 30
    return good and fast and (not check or (check["seconds"] or 999) <= TARGETS["check"])


def main() -> int:
    parser = argparse.ArgumentParser(description="Compara el calificador del curso con otter-grader y nbgrader.")
    parser.add_argument("--quick", action="store_true", help="una muestra y solo el del curso: menos de 45 segundos")
    parser.add_argument("--json", action="store_true", help="escribe JSON")
    parser.add_argument("--peers", default="otter,nbgrader", help="con cuáles comparar: otter, nbgrader, los dos con una coma, o nada")
    parser.add_argument("--only", default="", help="solo las entregas cuyo nombre contenga este texto, sin medir la clase")
    parser.add_argument("--worker", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        worker(args.worker)
        return 0
    sheet = read_sheet(ROOT / "solutions" / f"{SHEET}.ipynb")
    def chosen(name: str) -> bool:
        return args.only in name and (not args.quick or name in SAMPLE)

    cheats, honest = ({n: m for n, m in makers.items() if chosen(n)} for makers in (CHEATS, HONEST))
    kinds = {"otter": Otter, "nbgrader": NbGrader}
    wanted = [] if args.quick else [p for p in args.peers.split(",") if p in kinds]
    skipped = {kinds[p].name: "Con --quick solo se mide el del curso." if args.quick else "No se ha pedido en --peers." for p in kinds if p not in wanted}
    say = (lambda text: None) if args.json else lambda text: print(f"… {text}", file=sys.stderr, flush=True)
    graders = []
    for kind in (Own, *(kinds[p] for p in wanted)):
        with tempfile.TemporaryDirectory(prefix="futbol-bench-", ignore_cleanup_errors=True) as folder:
            try:
                tool = kind(sheet, Path(folder))
                with contextlib.closing(tool):
                    graders.append(measure(tool, cheats, honest, 0 if args.only else 6 if args.quick else 30, Path(folder), say))
            except Unavailable as e:
                if kind is Own:
                    print(e, file=sys.stderr)
                    return 2
                skipped[kind.name] = str(e)
    check = None if args.quick or args.only else course_check()
    report = {"sheet": SHEET, "cpus": os.cpu_count(), "graders": graders, "skipped": skipped, "check": check, "targets": TARGETS, "met": met(graders[0], check)}
    if args.json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        show(report)
    return 0 if report["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
