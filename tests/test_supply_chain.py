"Lo que se trae de fuera y lo que se escribe dentro: pip-audit sobre las versiones fijadas y bandit sobre el paquete."
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

BIN = Path(sys.executable).parent


def explained() -> dict[str, str]:
    "Lo que bandit señala y alguien miró: «módulo:prueba» o «*:prueba» → por qué está bien."
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["futbol_mlops"]["bandit"]


def findings(folder: Path) -> list[dict]:
    done = subprocess.run([BIN / "bandit", "-q", "-r", folder, "-f", "json"], capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert not report["errors"]
    return report["results"]


def test_bandit_finds_nothing_unexplained():
    reasons, used, new = explained(), set(), []
    for f in findings(ROOT / "futbol_mlops"):
        keys = {f"{Path(f['filename']).stem}:{f['test_id']}", f"*:{f['test_id']}"} & set(reasons)
        used |= keys
        if not keys:
            new.append(f"{Path(f['filename']).name}:{f['line_number']} {f['test_id']} {f['issue_text']}")
    assert not new, "Arréglalo, o explica en pyproject.toml, [tool.futbol_mlops.bandit], por qué está bien:\n" + "\n".join(new)
    assert not set(reasons) - used, f"Explicaciones que ya no hacen falta: {sorted(set(reasons) - used)}"
    assert all(len(reason) > 20 for reason in reasons.values())


def test_bandit_would_find_a_hole(tmp_path):
    (tmp_path / "hole.py").write_text("import subprocess, pickle\ndef f(x):\n    subprocess.run(x, shell=True)\n    return pickle.loads(x)\n")
    found = {f["test_id"] for f in findings(tmp_path)}
    assert {"B602", "B301"} <= found and not {"*:B602", "*:B301"} & set(explained())


def audit(requirements: Path) -> dict:
    command = [BIN / "pip-audit", "--disable-pip", "--no-deps", "--progress-spinner", "off", "--timeout", "10", "-f", "json", "-r", requirements]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        return {"dependencies": [{"name": "?", "skip_reason": (done.stderr.strip().splitlines() or ["sin respuesta"])[-1]}]}


def test_no_dependency_has_a_known_vulnerability(tmp_path):
    """La base de datos de fallos está en Internet. Sin ella se salta y se dice, también en CI: es lo único que ahí no falla por faltar.

    Antes de preguntar por todas se pregunta por una con fallos conocidos: si no sale, la base no se alcanza y un «ninguno» no valdría nada."""
    probe = tmp_path / "probe.txt"
    probe.write_text("jinja2==2.4.1\n")
    (known,) = audit(probe)["dependencies"]
    if not known.get("vulns"):
        pytest.skip(f"pip-audit no alcanza su base de datos de fallos ({known.get('skip_reason', 'no conoce los de Jinja2 2.4.1')}). Hace falta llegar a pypi.org")
    dependencies = audit(ROOT / "constraints.txt")["dependencies"]
    unseen = [d["name"] for d in dependencies if "skip_reason" in d]
    bad = [f"{d['name']} {d['version']}: {', '.join(v['id'] for v in d['vulns'])} (arreglado en {v['fix_versions']})" for d in dependencies for v in d.get("vulns", [])[:1]]
    assert not bad, "\n".join(bad)
    assert not unseen, f"sin auditar: {unseen}"
