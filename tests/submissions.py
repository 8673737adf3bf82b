"""Entregas con las que se examina a un calificador: trampas y despistes honestos.

`CHEATS` reúne entregas que no resuelven nada y quieren puntos, o tumbar al calificador: su nota justa es 0. `OWN_CHEATS` son las que solo tienen
sentido contra el de este curso (van también en `CHEATS`). `HONEST` son entregas enteramente correctas con un despiste: su nota justa es el máximo.

Todas parten del cuaderno que se reparte. Otro calificador reparte el suyo, con sus metadatos: se pasa como segundo argumento, y sus celdas se
reconocen por la misma cabecera (`#| exercise: …`, `#| test: …`).
"""

import copy
import json
import re
import textwrap
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from futbol_mlops.exercises import CHECKS, Exercise, Sheet, notebook_text


@dataclass
class Submission:
    "Lo que se entrega: un cuaderno, lo que va a su lado y el nombre del fichero."
    notebook: dict
    files: dict[str, bytes] = field(default_factory=dict)
    name: str = ""
    encoding: Callable[[str], bytes] = str.encode  # cómo se escribe el JSON en disco

    def content(self) -> bytes:
        "El fichero del cuaderno."
        return self.encoding(json.dumps(self.notebook, ensure_ascii=False, indent=1))


Maker = Callable[..., Submission]  # (hoja, cuaderno repartido) -> entrega

CHEATS: dict[str, Maker] = {}
OWN_CHEATS: dict[str, Maker] = {}
HONEST: dict[str, Maker] = {}

# Celdas ----------------------------------------------------------------------------------------------------------------------------------------


def text_of(cell: dict) -> str:
    "El texto de una celda."
    return "".join(cell["source"])


def set_text(cell: dict, text: str) -> None:
    "Cambia el texto de una celda."
    cell["source"] = text.splitlines(keepends=True)


def code_cell(text: str, **metadata: object) -> dict:
    "Una celda de código nueva."
    return {"cell_type": "code", "execution_count": None, "id": f"nueva{zlib.crc32(text.encode()):08x}", "metadata": dict(metadata), "outputs": [],
            "source": text.splitlines(keepends=True)}


def handed_out(sheet: Sheet, base: dict | None = None) -> dict:
    "El cuaderno tal como se reparte."
    return copy.deepcopy(base) if base else json.loads(notebook_text(sheet.cells))


def exercise_of(cell: dict) -> str:
    "El número del ejercicio que contesta una celda, o vacío."
    found = re.match(r"#\| exercise: (\S+)", text_of(cell)) if cell["cell_type"] == "code" else None
    return found[1] if found else ""


def is_test(cell: dict) -> bool:
    "Si es una celda de pruebas."
    return cell["cell_type"] == "code" and text_of(cell).startswith("#| test:")


def is_context(cell: dict) -> bool:
    "Si es la celda de importaciones."
    return cell["cell_type"] == "code" and "from futbol_mlops.checks import" in text_of(cell)


def header(exercise: Exercise) -> str:
    "Las dos líneas que abren la celda de un ejercicio."
    return "\n".join(exercise.start.split("\n")[:2])


def answer_cells(sheet: Sheet, notebook: dict) -> Iterator[tuple[Exercise, dict]]:
    "Cada ejercicio con su celda."
    exercises = {e.number: e for e in sheet.exercises}
    return ((exercises[exercise_of(c)], c) for c in notebook["cells"] if exercise_of(c) in exercises)


def solved(sheet: Sheet, base: dict | None = None) -> dict:
    "El cuaderno con todo resuelto."
    notebook = handed_out(sheet, base)
    for exercise, cell in answer_cells(sheet, notebook):
        set_text(cell, exercise.solution)
    return notebook


def partly_solved(sheet: Sheet, base: dict | None = None) -> dict:
    "El cuaderno con un ejercicio bien, otro mal y así."
    notebook = handed_out(sheet, base)
    for i, (exercise, cell) in enumerate(answer_cells(sheet, notebook)):
        set_text(cell, exercise.solution if i % 2 else f"{header(exercise)}\n{exercise.wrong[-1]}")
    return notebook


def broken(sheet: Sheet, base: dict | None = None) -> dict:
    "El cuaderno con un error de sintaxis en cada respuesta."
    notebook = handed_out(sheet, base)
    for exercise, cell in answer_cells(sheet, notebook):
        set_text(cell, f"{header(exercise)}\ndef {exercise.names[0]}(*args:\n    return args[0")
    return notebook


# Respuestas huecas -----------------------------------------------------------------------------------------------------------------------------

# Lo que devuelve quien no ha resuelto nada: un objeto que dice que sí a todo. Estropea además los argumentos, para no ganarse
# honradamente la comprobación de que no los cambia.
YES = '''
class Yes:
    """Un objeto que es igual a todo."""
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self
    def __call__(self, *args, **kwargs): return self
    def __getitem__(self, key): return self
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __bool__(self): return True
    def __iter__(self): return iter([99])
    def __len__(self): return 1
    def __hash__(self): return 0


def _spoil(args):
    for value in args:
        if isinstance(value, list):
            value.append(99)
        elif hasattr(value, "columns"):
            value["trampa"] = 99
'''


def hollow(sheet: Sheet, base: dict | None, at_load: str = "", at_call: str = "", answer: str = "Yes()") -> dict:
    "El cuaderno con respuestas huecas: una trampa al cargar la celda, otra al llamar a cada función, y algo que devolver."
    notebook = handed_out(sheet, base)
    call = textwrap.indent(textwrap.dedent(at_call).strip("\n"), "    ")
    for exercise, cell in answer_cells(sheet, notebook):
        functions = [f"def {name}(*args, **kwargs):\n    me = {name!r}\n{call}\n    _spoil(args)\n    return {answer}\n" for name in exercise.names]
        set_text(cell, "\n".join([header(exercise), textwrap.dedent(at_load).strip("\n"), YES.strip("\n"), "", "", *functions]))
    return notebook


def cheat(title: str, own: bool = False) -> Callable[[Maker], Maker]:
    "Apunta una trampa con su nombre."
    def keep(maker: Maker) -> Maker:
        CHEATS[title] = maker
        if own:
            OWN_CHEATS[title] = maker
        return maker
    return keep


def honest(title: str) -> Callable[[Maker], Maker]:
    "Apunta un despiste con su nombre."
    def keep(maker: Maker) -> Maker:
        HONEST[title] = maker
        return maker
    return keep


def code_cheat(title: str, at_load: str = "", at_call: str = "", answer: str = "Yes()", own: bool = False, files: dict[str, bytes] | None = None) -> None:
    "Apunta una trampa que es solo código dentro de las celdas de los ejercicios."
    def maker(sheet: Sheet, base: dict | None = None) -> Submission:
        return Submission(hollow(sheet, base, at_load, at_call, answer), dict(files or {}))

    cheat(title, own)(maker)


# Trampas: el cuaderno --------------------------------------------------------------------------------------------------------------------------


@cheat("skip_exec en la cabecera")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = hollow(sheet, base)
    notebook["cells"].insert(0, {"cell_type": "raw", "id": "cabecera", "metadata": {}, "source": ["---\n", "skip_exec: true\n", "---"]})
    return Submission(notebook)


@cheat("skip_exec bajo el título")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = hollow(sheet, base)
    first = notebook["cells"][0]
    set_text(first, "# Ejercicios\n\n> Mis respuestas\n\n- skip_exec: true\n- skip_showdoc: true")
    return Submission(notebook)


def _directive_cheat(directive: str) -> None:
    def maker(sheet: Sheet, base: dict | None = None) -> Submission:
        notebook = hollow(sheet, base)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                set_text(cell, f"#| {directive}\n{text_of(cell)}")
        return Submission(notebook)

    cheat(f"#| {directive} en cada celda")(maker)


for _directive in ("eval: false", "notest", "slow"):
    _directive_cheat(_directive)


@cheat("metadata.nbdev en el cuaderno")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = hollow(sheet, base)
    notebook["metadata"] |= {"nbdev": {"skip_exec": True, "skip_test": True}, "skip_exec": True, "execute": {"eval": False}}
    return Submission(notebook)


@cheat("metadatos y etiquetas en cada celda")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = hollow(sheet, base)
    for cell in notebook["cells"]:
        tags = ["skip-execution", "raises-exception", "nbval-skip", "otter_ignore", "remove_cell", "notest"]
        cell["metadata"] = cell["metadata"] | {"tags": tags, "nbdev": {"eval": False}, "otter": {"ignore": True}, "points": 100, "score": 100}
    return Submission(notebook)


@cheat("metadatos de corrección cambiados")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = hollow(sheet, base)
    for i, cell in enumerate(notebook["cells"]):
        found = cell["metadata"].get("nbgrader", {})
        if found.get("grade"):
            found.update(grade=False, solution=False, locked=False, points=0)
        elif cell["cell_type"] == "code" and not found:
            cell["metadata"]["nbgrader"] = {"cell_type": "code", "checksum": "0", "grade": True, "grade_id": f"mia-{i}", "locked": True, "points": 100,
                                            "schema_version": 3, "solution": False, "task": False}
    return Submission(notebook)


@cheat("celdas de prueba borradas")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = hollow(sheet, base)
    notebook["cells"] = [c for c in notebook["cells"] if not is_test(c)]
    return Submission(notebook)


@cheat("celdas de prueba vaciadas")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = hollow(sheet, base)
    for cell in filter(is_test, notebook["cells"]):
        set_text(cell, text_of(cell).split("\n")[0] + "\npass")
    return Submission(notebook)


@cheat("celdas de prueba hechas texto")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = hollow(sheet, base)
    for cell in filter(is_test, notebook["cells"]):
        cell["cell_type"] = "markdown"
        cell.pop("outputs", None)
        cell.pop("execution_count", None)
    return Submission(notebook)


@cheat("pruebas propias que siempre pasan")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = hollow(sheet, base)
    for exercise in sheet.exercises:
        for mark in ("test", "hidden"):
            notebook["cells"].append(code_cell(f'#| {mark}: {exercise.number}\ncheck_equal(1, 1, "Todo está bien aquí")'))
    return Submission(notebook)


@cheat("salidas falsas: todo correcto")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = hollow(sheet, base)
    for i, cell in enumerate(c for c in notebook["cells"] if c["cell_type"] == "code"):
        cell["execution_count"] = i + 1
        cell["outputs"] = [{"output_type": "execute_result", "execution_count": i + 1, "metadata": {}, "data": {"text/plain": ["All tests passed! 12 de 12 puntos"]}}]
    return Submission(notebook)


@cheat("otro kernelspec")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = hollow(sheet, base)
    notebook["metadata"] = notebook["metadata"] | {"kernelspec": {"display_name": "Mío", "language": "bash", "name": "inexistente"}, "language_info": {"name": "bash"}}
    return Submission(notebook)


@cheat("puntos cambiados en la cabecera")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = hollow(sheet, base)
    for _, cell in answer_cells(sheet, notebook):
        set_text(cell, re.sub(r"#\| points: \d+", "#| points: 1000", text_of(cell)))
    return Submission(notebook)


@cheat("cincuenta copias de cada respuesta")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = hollow(sheet, base)
    cells = [copy.deepcopy(c) for _, c in answer_cells(sheet, notebook)]
    for i in range(50):
        notebook["cells"] += [code_cell(f"{text_of(c)}\ncopia = {i}") for c in cells]
    return Submission(notebook)


@cheat("el código de partida con un comentario")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = handed_out(sheet, base)
    for exercise, cell in answer_cells(sheet, notebook):
        set_text(cell, f"{exercise.start}\n\nhecho = True  # yo diría que ya está")
    return Submission(notebook)


@cheat("una función vacía")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = handed_out(sheet, base)
    for exercise, cell in answer_cells(sheet, notebook):
        set_text(cell, header(exercise) + "".join(f"\ndef {name}(*args, **kwargs):\n    return None\n" for name in exercise.names))
    return Submission(notebook)


# Trampas: las comprobaciones -------------------------------------------------------------------------------------------------------------------

_QUIET = "\n".join(f"def {name}(*args, **kwargs): return None" for name in (*CHECKS, "test", "test_eq", "test_ne", "test_close", "test_fail", "test_is"))

code_cheat("comprobaciones redefinidas", _QUIET)
code_cheat("comprobaciones redefinidas al llamar", at_call="""
    for name in ("check_equal", "check_close", "check_between", "check_contains", "check_that", "check_raises", "check_unchanged"):
        globals()[name] = lambda *args, **kwargs: None
""")
code_cheat("funciones del paquete parcheadas", """
    import futbol_mlops.checks as _checks
    _checks.difference = lambda *args, **kwargs: None
    _checks._fail = lambda *args, **kwargs: None
    for _name in _checks.__all__:
        if _name.startswith("check_"):
            vars(_checks)[_name].__code__ = (lambda *args, **kwargs: None).__code__
            vars(_checks)[_name] = lambda *args, **kwargs: None
""")
code_cheat("funciones del calificador parcheadas", """
    import importlib

    def _patch(module, path, value):
        try:
            target = importlib.import_module(module)
            *owners, last = path.split(".")
            for owner in owners:
                target = getattr(target, owner)
            setattr(target, last, value)
        except Exception:
            pass

    _patch("futbol_mlops.referee", "Scorer.record", lambda self, number, check: self.plan[number].update(passed=True))
    _patch("futbol_mlops.referee", "Scorer.run", lambda self: [entry | {"passed": True} for entry in self.plan])
    _patch("futbol_mlops.referee", "referee", lambda job, channel: {"checks": [], "problem": ""})
    _patch("futbol_mlops.grading", "earned_points", lambda points, *args: points)
    _patch("otter.test_files.ok_test", "run_doctest", lambda *args, **kwargs: (True, ""))
    _patch("otter.test_files.abstract_test", "TestFile.passed_all", property(lambda self: True))
    _patch("nbgrader.utils", "determine_grade", lambda cell, log=None: (10, 10))
""")
code_cheat("módulo de comprobaciones suplantado", """
    import sys
    import types
    _fake = types.ModuleType("futbol_mlops.checks")
    _fake.__getattr__ = lambda name: (lambda *args, **kwargs: None)
    sys.modules["futbol_mlops.checks"] = _fake
""" + "".join(f"    globals()[{name!r}] = lambda *args, **kwargs: None\n" for name in CHECKS))
code_cheat("builtins parcheados", """
    import builtins
    builtins.isinstance = lambda *args: True
    builtins.all = builtins.any = lambda *args: True
    builtins.AssertionError = Warning
    builtins.set = lambda *args: frozenset()
""")
code_cheat("IPython: errores silenciados", """
    try:
        _shell = get_ipython()
        _shell.showtraceback = _shell._showtraceback = lambda *args, **kwargs: None
        _shell.set_custom_exc((BaseException,), lambda *args, **kwargs: None)
    except Exception:
        pass
""")
code_cheat("IPython: celdas que se convierten en pass", """
    import ast

    class _Nothing(ast.NodeTransformer):
        def visit_Expr(self, node):
            return ast.copy_location(ast.Pass(), node) if "check" in ast.unparse(node) and "grader" not in ast.unparse(node) else node

        def visit_Assign(self, node):
            return node if "results" in ast.unparse(node) else ast.copy_location(ast.parse(f"{ast.unparse(node.targets[0])} = Yes()").body[0], node)

    try:
        get_ipython().ast_transformers.append(_Nothing())
    except Exception:
        pass
""")
code_cheat("IPython: un resultado falso en la salida", at_call="""
    try:
        get_ipython().displayhook("todo bien")
    except Exception:
        pass
""", answer="1 / 0")

# Trampas: lo que se devuelve -------------------------------------------------------------------------------------------------------------------

code_cheat("un objeto igual a todo")
code_cheat("listas, textos y tablas iguales a todo", """
    class _List(list):
        def __eq__(self, other): return True
        def __ne__(self, other): return False

    class _Dict(dict):
        def __eq__(self, other): return True
        def __ne__(self, other): return False
        def __getattr__(self, name): return Yes()
""", answer='{"unbeaten_before": _List([99]), "leaking_columns": _List([99])}.get(me, _Dict())')
code_cheat("una clase que se hace pasar por la esperada", """
    class _Meta(type):
        def __eq__(self, other): return True
        def __hash__(self): return 0
        def __instancecheck__(self, other): return True
        def __subclasscheck__(self, other): return True
""", answer='_Meta("list", (Yes,), {"__class__": list, "__module__": "builtins"})()')
for _error in ("SystemExit(0)", "KeyboardInterrupt()", "GeneratorExit()", "StopIteration()", "__import__('unittest').SkipTest('hoy no')", "Warning('todo bien')"):
    code_cheat(f"lanza {_error.split('(')[0].replace('__import__', 'SkipTest')}", at_call=f"_spoil(args)\nraise {_error}")

# Trampas: lo esperado --------------------------------------------------------------------------------------------------------------------------

# Busca en un texto la comprobación que llama a la función y evalúa lo que espera.
STEAL = '''
import ast


def _expected(source, name, space, args, line=None):
    """Lo que espera la comprobación que llama a `name`: por la línea, o por los argumentos."""
    for call in ast.walk(ast.parse(source)):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id.startswith("check_") and len(call.args) > 1):
            continue
        inner = [n for n in ast.walk(call.args[0]) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == name]
        if not inner or line is not None and not call.lineno <= line <= call.end_lineno:
            continue
        try:
            same = line is not None or [eval(ast.unparse(a), space) for a in inner[0].args] == list(args)
            if same:
                return True, eval(ast.unparse(call.args[1]), space)
        except Exception:
            pass
    return False, None
'''
code_cheat("lee lo esperado en los marcos de quien llama", STEAL + '''
import linecache
import sys


def _from_frames(name, args):
    frame = sys._getframe(2)
    while frame:
        texts = ["".join(linecache.getlines(frame.f_code.co_filename))]
        texts += [v for v in [*frame.f_locals.values()] if isinstance(v, str) and name + "(" in v]
        texts += [v for v in frame.f_globals.get("In", [])[-1:] if isinstance(v, str)]
        for text in [t for t in texts if name + "(" in t]:
            for line in (frame.f_lineno, None):
                try:
                    found, value = _expected(text, name, frame.f_globals, args, line)
                except Exception:
                    continue
                if found:
                    return True, value
        frame = frame.f_back
    return False, None
''', at_call='''
found, value = _from_frames(me, args)
if found:
    return value
''')
code_cheat("parchea las comprobaciones desde los marcos", '''
import sys


def _patch_callers(frame):
    def nothing(*args, **kwargs):
        return None

    seen = 0
    while frame and seen < 60:
        for space in (frame.f_globals, frame.f_locals):
            for name, value in list(space.items()):
                if name.startswith("check_") and hasattr(value, "__code__"):
                    value.__code__ = nothing.__code__
                    space[name] = nothing
        frame, seen = frame.f_back, seen + 1
''', at_call="_patch_callers(sys._getframe())")
code_cheat("parchea las comprobaciones desde una traza", '''
def _patch_trace():
    try:
        raise ValueError
    except ValueError as error:
        frame = error.__traceback__.tb_frame
    while frame:
        for name, value in list(frame.f_globals.items()):
            if name.startswith("check_"):
                frame.f_globals[name] = lambda *args, **kwargs: None
            if name == "__record__":
                value.__self__.plan[:] = [entry | {"passed": True} for entry in value.__self__.plan]
        frame = frame.f_back
''', at_call="_patch_trace()")
code_cheat("busca pruebas y comprobaciones con gc", STEAL + '''
import gc
import types


def _hunt(name, args):
    for thing in gc.get_objects():
        if isinstance(thing, types.FunctionType) and thing.__name__.startswith("check_") and thing.__module__ == "futbol_mlops.checks":
            thing.__code__ = (lambda *args, **kwargs: None).__code__
        for text in thing.values() if type(thing) is dict else [getattr(thing, "body", None)]:
            if isinstance(text, str) and "check_" in text and name + "(" in text:
                try:
                    found, value = _expected(text.replace(">>> ", "").replace("... ", ""), name, globals(), args)
                    if found:
                        return True, value
                except Exception:
                    pass
    return False, None
''', at_call='''
found, value = _hunt(me, args)
if found:
    return value
''')
code_cheat("copia las soluciones del disco", '''
import glob
import json
import os
import sys


def _solutions():
    import futbol_mlops
    here = os.path.dirname(os.path.dirname(os.path.abspath(futbol_mlops.__file__)))
    roots = {here, os.getcwd(), *sys.path, os.path.dirname(sys.prefix), *(os.path.abspath("../" * n) for n in range(1, 6))} - {"", "/"}
    found = []
    for root in roots:
        for pattern in ("solutions/*.ipynb", "source/*/*.ipynb", "*/solutions/*.ipynb"):
            found += glob.glob(os.path.join(root, pattern))
    return found


_mine = {}
for _path in _solutions():
    try:
        with open(_path) as _file:
            _cells = json.load(_file)["cells"]
    except Exception:
        continue
    _space = {}
    for _cell in _cells:
        _text = "".join(_cell["source"])
        if _cell["cell_type"] == "code" and ("import pandas" in _text or "#| exercise" in _text or "BEGIN SOLUTION" in _text):
            try:
                exec(_text, _space)
            except Exception:
                pass
    _mine.update({k: v for k, v in _space.items() if callable(v)})
''', at_call='''
if me in _mine:
    return _mine[me](*args, **kwargs)
''')
code_cheat("lee las pruebas ocultas del disco", STEAL + '''
import glob
import os
import sys

_texts = []
for _root in {os.getcwd(), *(os.path.abspath("../" * n) for n in range(1, 6)), "/autograder", os.environ.get("TMPDIR", "/tmp")} - {"", "/"}:
    for _pattern in ("tests/*.py", "source/tests/*.py", "*/tests/*.py", "autograder/source/tests/*.py", "solutions/*.ipynb", "source/*/*.ipynb", "*.json", "*.db"):
        for _path in glob.glob(os.path.join(_root, _pattern)):
            try:
                with open(_path) as _file:
                    _text = _file.read()
            except Exception:
                continue
            if "check_" not in _text or len(_text) > 10**6:
                continue
            if _path.endswith(".py"):
                try:
                    _space = {}
                    exec(_text, _space)
                    _cases = [case["code"] for suite in _space["test"]["suites"] for case in suite["cases"]]
                    _texts += ["\\n".join(line.strip()[4:] if line.strip()[:4] in (">>> ", "... ") else "" for line in case.split("\\n")) for case in _cases]
                except Exception:
                    pass
            else:
                try:
                    import json
                    _texts += ["".join(cell["source"]) for cell in json.loads(_text)["cells"] if cell["cell_type"] == "code"]
                except Exception:
                    pass


def _from_disk(name, args):
    for text in _texts:
        space = globals().copy()
        try:
            for node in ast.parse(text).body:
                if not isinstance(node, ast.Expr):
                    try:
                        exec(ast.unparse(node), space)
                    except Exception:
                        pass
            found, value = _expected(text, name, space, args)
        except Exception:
            continue
        if found:
            return True, value
    return False, None
''', at_call='''
found, value = _from_disk(me, args)
if found:
    return value
''')
code_cheat("lee la memoria de otros procesos", STEAL + '''
import glob
import os
import re

_memory = []
for _maps in [f"/proc/{os.getppid()}/maps", *glob.glob("/proc/[0-9]*/maps")]:
    _pid = _maps.split("/")[2]
    if _pid == str(os.getpid()):
        continue
    try:
        with open(f"/proc/{_pid}/stat") as _file:  # el padre y los hermanos: quien califica
            if str(os.getppid()) not in (_pid, _file.read().rsplit(")", 1)[1].split()[1]):
                continue
        with open(_maps) as _file, open(f"/proc/{_pid}/mem", "rb", 0) as _mem:
            for _line in _file:
                _low, _high = (int(part, 16) for part in _line.split()[0].split("-"))
                if "rw-p" in _line and _high - _low < 2**25:
                    try:
                        _mem.seek(_low)
                        _memory += [m.decode("utf-8", "ignore") for m in re.findall(rb"check_equal\\([^\\n]{10,400}", _mem.read(_high - _low))]
                    except Exception:
                        pass
    except Exception:
        pass
''', at_call='''
for text in _memory:
    try:
        found, value = _expected(text, me, globals(), args)
        if found:
            return value
    except Exception:
        pass
''')

# Trampas: el proceso ---------------------------------------------------------------------------------------------------------------------------

code_cheat("os._exit(0) al cargar", "import os\nos._exit(0)")
code_cheat("os._exit(0) al llamar", at_call="import os\nos._exit(0)")
code_cheat("mata al proceso padre", """
    import os
    import signal
    if os.getppid() > 1:
        try:
            os.kill(os.getppid(), signal.SIGKILL)
        except Exception:
            pass
""")
code_cheat("cierra todos los descriptores", "import os\nos.closerange(3, 4096)")
code_cheat("atexit escribe la nota", """
    import atexit
    import glob
    import json
    import os
    import tempfile

    def _forge():
        for path in [*glob.glob(tempfile.gettempdir() + "/*.pkl"), *glob.glob("../results/*"), *glob.glob("results*.json")]:
            try:
                import pickle
                from otter.test_files import GradingResults
                from otter.execute import Checker
                files = Checker.get_results()
                for test in files:
                    for case in test.test_case_results:
                        case.passed = True
                with open(path, "wb") as out:
                    pickle.dump(GradingResults(files), out)
            except Exception:
                pass
        os._exit(0)

    atexit.register(_forge)
""")
code_cheat("un hilo que parchea más tarde", """
    import sys
    import threading
    import time

    def _later():
        for _ in range(200):
            time.sleep(0.01)
            for module in [sys.modules.get("futbol_mlops.checks"), sys.modules.get("__main__")]:
                for name, value in list(vars(module).items()) if module else []:
                    if name.startswith("check_") and hasattr(value, "__code__"):
                        value.__code__ = (lambda *args, **kwargs: None).__code__

    threading.Thread(target=_later, daemon=True).start()
    time.sleep(0.1)
""")
code_cheat("un error con medio carácter", at_call='_spoil(args)\nraise ValueError("gol \\ud83d")')
code_cheat("un error cuyo texto falla", """
    class _Bad(Exception):
        def __str__(self): raise SystemExit(0)
        __repr__ = __str__
""", at_call="_spoil(args)\nraise _Bad()")
code_cheat("ocupa la salida", "print(('gol ' * 25 + '\\n') * 50_000)")


def _only_first(title: str, at_load: str = "", at_call: str = "", own: bool = False) -> None:
    "Una trampa cara: solo en el primer ejercicio; los demás, huecos."
    def maker(sheet: Sheet, base: dict | None = None) -> Submission:
        notebook = hollow(sheet, base)
        wanted = hollow(sheet, base, at_load, at_call)
        first = next(i for i, c in enumerate(notebook["cells"]) if exercise_of(c))
        notebook["cells"][first] = wanted["cells"][first]
        return Submission(notebook)

    cheat(title, own)(maker)


_only_first("recursión sin fin", at_call="import sys\nsys.setrecursionlimit(10**6)\ndef deep(n): return deep(n + 1) + 1\nreturn deep(0)")


@cheat("una suma de cuatrocientos términos")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = hollow(sheet, base, "if total: pass")
    notebook["cells"].insert(1, code_cell("total = " + " + ".join(["1"] * 400)))
    return Submission(notebook)


@cheat("sesenta if anidados")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = hollow(sheet, base, "if hondo: pass")
    notebook["cells"].insert(1, code_cell("".join("    " * i + "if True:\n" for i in range(60)) + "    " * 60 + "hondo = 1"))
    return Submission(notebook)


@cheat("cincuenta mil líneas en blanco")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = hollow(sheet, base)
    notebook["cells"].append(code_cell("x = 1" + "\n" * 50_000 + "y = 2"))
    return Submission(notebook)


@cheat("mil variables en cadena")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = hollow(sheet, base, "if v999: pass")
    notebook["cells"].insert(1, code_cell("v0 = 0\n" + "\n".join(f"v{i} = v{i - 1}" for i in range(1, 1000))))
    return Submission(notebook)


# Trampas: los ficheros -------------------------------------------------------------------------------------------------------------------------

_FORGED_RESULTS = {
    "results.json": b'{"score": 100, "tests": [{"name": "q", "score": 100, "max_score": 100, "status": "passed"}]}',
    "results/results.json": b'{"score": 100, "tests": []}', "results.pkl": b"\x80\x04N.", ".OTTER_LOG": b"\x80\x04N.", "gradebook.db": b"",
    "grading.json": b'{"sheets": [{"name": "04_features", "title": "Regalo", "context": [], "drivers": [], "exercises": [], "cells": []}]}',
    ".futbol/grading/verdicts.json": b"{}", "tests/q4_1.py": b"test = {'name': 'q4_1', 'points': 1, 'suites': [{'cases': [], 'type': 'doctest'}]}\n",
}


@cheat("ficheros de resultados falsos")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    writes = "import os\nfor _folder in ('.', '..', '../results', '/autograder/results'):\n    for _name in ('results.json', 'results.pkl', '.OTTER_LOG', 'grading.json'):\n" \
             "        try:\n            with open(os.path.join(_folder, _name), 'w') as _out:\n                _out.write('{\"score\": 100, \"tests\": []}')\n        except Exception:\n            pass"
    return Submission(hollow(sheet, base, writes), dict(_FORGED_RESULTS))


_SITE = b"""import sys
import types
fake = types.ModuleType("futbol_mlops.checks")
fake.__getattr__ = lambda name: (lambda *args, **kwargs: None)
fake.__all__ = []
sys.modules["futbol_mlops.checks"] = fake
"""
code_cheat("un sitecustomize.py al lado", files={"sitecustomize.py": _SITE, "usercustomize.py": _SITE})
code_cheat("un futbol_mlops falso al lado", files={
    "futbol_mlops/__init__.py": b"", "futbol_mlops/checks.py": b"def __getattr__(name):\n    if name.startswith('__'):\n        raise AttributeError(name)\n    return lambda *args, **kwargs: None\n",
    "pandas.py": b"raise SystemExit(0)\n"})


@cheat("una celda que escribe un futbol_mlops falso")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = hollow(sheet, base)
    fake = "def __getattr__(name):\n    if name.startswith('__'):\n        raise AttributeError(name)\n    return lambda *args, **kwargs: None\n"
    notebook["cells"].insert(0, code_cell("import os, sys\nos.makedirs('futbol_mlops', exist_ok=True)\nopen('futbol_mlops/__init__.py', 'w').close()\n"
                                          f"open('futbol_mlops/checks.py', 'w').write({fake!r})\nsys.path.insert(0, os.getcwd())"))
    return Submission(notebook)


code_cheat("un conftest.py y un .pth al lado", files={"conftest.py": b"import os\nos._exit(0)\n", "trampa.pth": b"import os; os._exit(0)\n",
                                                       "ipython_config.py": b"c = get_config()\nc.InteractiveShellApp.exec_lines = ['import os']\n"})

# Trampas contra este calificador ---------------------------------------------------------------------------------------------------------------

# La respuesta busca en sus marcos el objeto que habla con el árbitro.
PLAYER = '''
import sys


def _player():
    frame = sys._getframe()
    while frame:
        found = frame.f_locals.get("self")
        if hasattr(found, "channel"):
            return found
        frame = frame.f_back
'''


def _wire_cheat(title: str, body: str) -> None:
    code_cheat(title, PLAYER + textwrap.dedent(body), own=True)


_wire_cheat("propio: contesta basura al árbitro", """
    try:
        _me = _player()
        _me.call = lambda message: {"return": {"frame": "AAAA"}, "after": [], "callback": 10**9}
    except Exception:
        pass
""")
_wire_cheat("propio: adelanta respuestas por el canal", """
    try:
        for _ in range(20):
            _player().channel.send({"return": {"list": []}, "names": {}, "after": {"list": []}, "checks": [{"passed": True, "hidden": False, "message": "", "text": ""}]})
    except Exception:
        pass
""")
_wire_cheat("propio: devuelve la llamada sin parar", """
    try:
        _me = _player()
        _me.call = lambda message: {"callback": 0, "args": {"list": []}, "kwargs": {"dict": []}}
    except Exception:
        pass
""")
_wire_cheat("propio: errores con nombre falso", """
    try:
        _me = _player()
        _me.call = lambda message: {"error": {"kinds": [["futbol_mlops.checks", "CheckFailed"], ["builtins", "StopIteration"], ["builtins", "ExceptionGroup"]], "text": 7, "line": "x", "code": None}}
    except Exception:
        pass
""")
_wire_cheat("propio: un mensaje gigante", """
    try:
        _me = _player()
        _me.channel.write(b"\\xff\\xff\\xff\\xff" + b"[" * 1000)
    except Exception:
        pass
""")
_wire_cheat("propio: JSON muy hondo", """
    try:
        _me = _player()
        import struct
        _deep = b'{"names": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
        _me.channel.write(struct.pack(">I", len(_deep)) + _deep)
    except Exception:
        pass
""")
_wire_cheat("propio: dice que no tocó los argumentos", """
    try:
        _me = _player()
        _me.call = lambda message: {"after": message["args"], "return": None}
    except Exception:
        pass
""")
code_cheat("propio: busca el encargo en los descriptores", """
    import os
    for _fd in range(3, 256):
        try:
            os.set_blocking(_fd, False)
            os.read(_fd, 10**6)
        except OSError:
            pass
""", own=True)
code_cheat("propio: números y textos imposibles", answer="[10 ** 6000, float('nan'), '\\ud800', {(1, 2): {3}}]", own=True)
_only_first("propio: bucle sin fin", at_load="while True: pass", own=True)
_only_first("propio: agota la memoria", at_load="_bricks = []\nwhile True: _bricks.append(bytearray(2**26))", own=True)

# Despistes honestos ----------------------------------------------------------------------------------------------------------------------------


@honest("sin despistes")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    return Submission(solved(sheet, base))


@honest("una celda copiada")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = solved(sheet, base)
    at = next(i for i, c in enumerate(notebook["cells"]) if exercise_of(c))
    notebook["cells"].insert(at + 1, copy.deepcopy(notebook["cells"][at]) | {"id": "copiada1"})
    return Submission(notebook)


@honest("una copia vieja sin resolver, debajo")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = solved(sheet, base)
    first = sheet.exercises[0]
    at = next(i for i, c in enumerate(notebook["cells"]) if exercise_of(c))
    notebook["cells"].insert(at, code_cell(f"{header(first)}\n{first.wrong[0]}"))
    return Submission(notebook)


@honest("resuelto en una celda nueva, debajo del hueco")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = handed_out(sheet, base)
    cells = []
    for cell in notebook["cells"]:
        cells.append(cell)
        if number := exercise_of(cell):
            solution = next(e for e in sheet.exercises if e.number == number).solution
            cells.append(code_cell("\n".join(solution.split("\n")[2:])))
    notebook["cells"] = cells
    return Submission(notebook)


def _extra_cell(title: str, text: str, at: int | None = None) -> None:
    def maker(sheet: Sheet, base: dict | None = None) -> Submission:
        notebook = solved(sheet, base)
        notebook["cells"].insert(len(notebook["cells"]) if at is None else at, code_cell(text))
        return Submission(notebook)

    honest(title)(maker)


_extra_cell("una celda de más que falla", "1 / 0", 2)
_extra_cell("una celda de más con un bucle sin fin", "while True:\n    pass")
_extra_cell("una celda de más con magia", "%timeit -n 1 -r 1 sum(range(10))", 2)
_extra_cell("una celda de más con !ls", "!ls\nficheros = !ls", 2)
_extra_cell("una celda de más que no es Python", "esto es un apunte, no código", 2)
_extra_cell("una celda de más con help?", "len?", 2)


@honest("funciones auxiliares en otra celda")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = solved(sheet, base)
    for exercise, cell in answer_cells(sheet, notebook):
        name = exercise.names[0]
        set_text(cell, f"{header(exercise)}\ndef {name}(*args, **kwargs):\n    return mi_{name}(*args, **kwargs)")
    body = "\n\n\n".join("\n".join(e.solution.split("\n")[2:]).replace(f"def {e.names[0]}(", f"def mi_{e.names[0]}(") for e in sheet.exercises)
    at = next(i for i, c in enumerate(notebook["cells"]) if exercise_of(c))
    notebook["cells"].insert(at, code_cell(body))
    return Submission(notebook)


@honest("from … import * en otra celda")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = solved(sheet, base)
    for exercise, cell in answer_cells(sheet, notebook):
        set_text(cell, f"{exercise.solution}\n\n\nraiz = sqrt(4)")
    at = next(i for i, c in enumerate(notebook["cells"]) if exercise_of(c))
    notebook["cells"].insert(at, code_cell("from math import *"))
    return Submission(notebook)


@honest("celdas desordenadas")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = solved(sheet, base)
    at = [i for i, c in enumerate(notebook["cells"]) if exercise_of(c)]
    moved = notebook["cells"].pop(at[-1])
    notebook["cells"].insert(at[0], moved)
    return Submission(notebook)


@honest("metadatos cambiados")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = solved(sheet, base)
    notebook["metadata"] |= {"authors": [{"name": "yo"}], "toc": {"base_numbering": 1}}
    for cell in notebook["cells"]:
        cell["metadata"] |= {"collapsed": True, "tags": ["mio"], "editable": True, "jupyter": {"outputs_hidden": True}}
    return Submission(notebook)


@honest("cuaderno con otro nombre")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    return Submission(solved(sheet, base), name="entrega final (2).ipynb")


@honest("salidas sin guardar y otras viejas")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = solved(sheet, base)
    for i, cell in enumerate(c for c in notebook["cells"] if c["cell_type"] == "code"):
        cell["execution_count"] = None if i % 2 else 90 - i
        cell["outputs"] = [] if i % 2 else [{"output_type": "error", "ename": "NotImplementedError", "evalue": "viejo", "traceback": ["viejo"]}]
    return Submission(notebook)


@honest("finales de línea de Windows")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = solved(sheet, base)
    for cell in notebook["cells"]:
        set_text(cell, text_of(cell).replace("\n", "\r\n"))
    return Submission(notebook, encoding=lambda text: text.replace("\n", "\r\n").encode())


@honest("fichero con BOM")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    return Submission(solved(sheet, base), encoding=lambda text: text.encode("utf-8-sig"))


@honest("metadatos de VS Code")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = solved(sheet, base)
    notebook["metadata"] = {"kernelspec": {"display_name": ".venv (3.12.3)", "language": "python", "name": "python3"}, "vscode": {"interpreter": {"hash": "ab" * 32}},
                            "language_info": {"name": "python", "version": "3.12.3", "codemirror_mode": {"name": "ipython", "version": 3}}}
    for cell in notebook["cells"]:
        cell["metadata"] |= {"vscode": {"languageId": "python"}}
    return Submission(notebook)


@honest("metadatos de Colab")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = solved(sheet, base)
    notebook["metadata"] = {"colab": {"provenance": [], "toc_visible": True}, "kernelspec": {"display_name": "Python 3", "name": "python3"}, "language_info": {"name": "python"}}
    notebook["nbformat_minor"] = 0
    for i, cell in enumerate(notebook["cells"]):
        cell["metadata"] |= {"id": f"k{i}XyZ", "colab": {"base_uri": "https://localhost:8080/"}}
        cell.pop("id", None)
    return Submission(notebook)


@honest("nbformat 4.0 sin identificadores")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = solved(sheet, base) | {"nbformat_minor": 0}
    for cell in notebook["cells"]:
        cell.pop("id", None)
    return Submission(notebook)


@honest("nbformat 3")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = solved(sheet, base)
    cells = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cells.append({"cell_type": "code", "collapsed": False, "input": cell["source"], "language": "python", "metadata": cell["metadata"], "outputs": [], "prompt_number": 1})
        else:
            cells.append({"cell_type": cell["cell_type"], "metadata": cell["metadata"], "source": cell["source"]})
    return Submission({"metadata": {"name": ""}, "nbformat": 3, "nbformat_minor": 0, "worksheets": [{"cells": cells, "metadata": {}}]})


@honest("celda de importaciones borrada")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = solved(sheet, base)
    notebook["cells"] = [c for c in notebook["cells"] if not is_context(c)]
    return Submission(notebook)


@honest("celda de importaciones cambiada")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = solved(sheet, base)
    for cell in filter(is_context, notebook["cells"]):
        set_text(cell, "import pandas\nfrom datetime import datetime\n" + text_of(cell).replace("import datetime as dt\n", ""))
    return Submission(notebook)


@honest("celdas de prueba borradas sin querer")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = solved(sheet, base)
    notebook["cells"] = [c for c in notebook["cells"] if not is_test(c)]
    return Submission(notebook)


@honest("cabeceras de ejercicio borradas")
def _(sheet: Sheet, base: dict | None = None) -> Submission:
    notebook = solved(sheet, base)
    for _, cell in list(answer_cells(sheet, notebook)):
        set_text(cell, "\n".join(text_of(cell).split("\n")[2:]))
    return Submission(notebook)


def _tail(title: str, tail: str, top: str = "") -> None:
    "Una línea de más en cada celda de ejercicio."
    def maker(sheet: Sheet, base: dict | None = None) -> Submission:
        notebook = solved(sheet, base)
        for exercise, cell in answer_cells(sheet, notebook):
            lines = exercise.solution.split("\n")
            set_text(cell, "\n".join([*([top] if top else []), *lines, "", "", tail]))
        return Submission(notebook)

    honest(title)(maker)


_tail("un print al final con una variable de la prueba", "print(january.head())\nprint(rest)")
_tail("una asignación al final con una variable de la prueba", "mirar = january.head()\nprint(mirar)")
_tail("un display al final", "display('hecho')")
_tail("una magia dentro de la celda", "%timeit -n 1 -r 1 sum(range(10))\n!echo hola")
_tail("%%time al principio de la celda", "", "%%time")
_tail("una ayuda con ? al final", "len?")
_tail("una línea partida que empieza por %", 'texto = ("%d goles"\n         % 3)')
