"La demostración entera: arranca de verdad, se para de verdad y, si no puede, lo dice y no deja nada."
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

CLI = Path(sys.executable).parent / "futbol-mlops"


def free_ports(count: int = 2) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def start(home: Path, port: int, dashboard_port: int, *flags: str) -> subprocess.Popen:
    return subprocess.Popen([CLI, "demo", "--port", str(port), "--dashboard-port", str(dashboard_port), *flags],
                            env=os.environ | {"FUTBOL_HOME": str(home), "COLUMNS": "100", "NO_COLOR": "1"},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


@pytest.fixture
def demo(home):
    "Una demostración en marcha, su salida hasta ese momento y sus hijos."
    ports = free_ports()
    process, lines = start(home, *ports), []
    try:
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        assert process.poll() is None, "".join(lines)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        yield process, ports, "".join(lines), children
    finally:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            child.kill()
        process.kill()
        process.wait()


def all_gone(children, ports, seconds: float = 15) -> bool:
    gone, alive = psutil.wait_procs(children, timeout=seconds)
    return not alive and not any(answers(p) for p in ports)


def test_demo_serves_and_ctrl_c_stops_everything(demo):
    process, (port, dashboard_port), said, children = demo
    assert "Última jornada" in said and said.count("–") >= 10, said
    assert f"127.0.0.1:{port}/docs" in said and f"127.0.0.1:{dashboard_port}" in said
    assert urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).status == 200
    assert urllib.request.urlopen(f"http://127.0.0.1:{dashboard_port}/", timeout=5).status == 200
    os.killpg(process.pid, signal.SIGINT)  # como hace la terminal: a todo el grupo
    assert process.wait(20) == 130
    assert all_gone(children, (port, dashboard_port)), "quedan procesos en marcha"


def test_closing_the_terminal_stops_everything(demo):
    process, ports, _, children = demo
    process.send_signal(signal.SIGHUP)
    assert process.wait(20) == 130
    assert all_gone(children, ports)


def test_a_dead_api_ends_the_demo_with_its_last_words(demo):
    process, ports, _, children = demo
    api = next(c for c in children if "futbol_mlops.app" in " ".join(c.cmdline()))
    api.kill()
    output = process.stdout.read()
    assert process.wait(20) == 1 and "Se ha parado" in output
    assert all_gone(children, ports)


def test_once_does_it_all_and_leaves(home):
    ports = free_ports()
    process = start(home, *ports, "--once")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "En marcha tras" in output
    time.sleep(0.2)
    assert not any(answers(p) for p in ports)


def test_with_keys_the_demo_makes_its_own_and_takes_it_back(home):
    from futbol_mlops.security import create_key, read_keys

    create_key(home / "keys.json", "la revista", ["predict"])
    process = start(home, *free_ports(), "--once")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "Última jornada" in output, output
    assert [bool(key.revoked_at) for key in read_keys(home / "keys.json")] == [False, True]


def test_busy_ports_are_all_named_and_nothing_starts(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = [s.getsockname()[1] for s in (one, two)]
        process = start(tmp_path / "state", *ports, "--once")
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert all(f"puerto {p} está ocupado" in output for p in ports) and f"pid {os.getpid()}" in output
    assert not (tmp_path / "state").exists(), "no se debe escribir nada antes de comprobarlo todo"


def test_no_disk_is_said_before_anything_starts(tmp_path, monkeypatch):
    from futbol_mlops import preflight
    from futbol_mlops.config import Settings
    from futbol_mlops.demo import DemoError, run_demo

    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 1e6})())
    port, dashboard_port = free_ports()
    with pytest.raises(DemoError, match="Libera espacio"):
        run_demo(Settings(home=tmp_path / "state", port=port, dashboard_port=dashboard_port), once=True)
    assert not (tmp_path / "state").exists()


def test_make_refuses_an_old_python(tmp_path):
    "Un Python viejo, o ninguno: una frase y nada instalado."
    from conftest import ROOT

    root = tmp_path / "repo"
    (root / "futbol_mlops").mkdir(parents=True)
    for name in ("Makefile", "settings.ini", "constraints.txt", "setup.py", "pyproject.toml", "futbol_mlops/__init__.py"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    (root / "futbol_mlops" / "preflight.py").write_text((ROOT / "futbol_mlops" / "preflight.py").read_text().replace("sys.version_info[:3]", "(3, 9, 2)"))
    old = subprocess.run(["make", "demo", f"PYTHON={sys.executable}"], cwd=root, capture_output=True, text=True)
    assert old.returncode != 0 and "Este Python es el 3.9.2" in old.stderr
    none = subprocess.run(["make", "demo", "PYTHON=no-hay-python"], cwd=root, capture_output=True, text=True)
    assert none.returncode != 0 and "No encuentro Python" in none.stderr
    assert not (root / ".venv").exists()
