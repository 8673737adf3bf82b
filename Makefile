# Cada objetivo son unas pocas órdenes sencillas; el README las lista para un sistema sin make.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test lab grade site notebooks export lock clean check-python

# El primer Python de 3.11 a 3.13 que responda. Para elegir otro: make demo PYTHON=python3.12
OK := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do $$p -c '$(OK)' >/dev/null 2>&1 && echo $$p && break; done)
ANY_PYTHON = $(or $(PYTHON),python3)
BIN := .venv/bin
FACTS := settings.ini constraints.txt setup.py pyproject.toml
WORKERS ?= 2

help:  ## esta lista
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: .venv/.demo  ## instala lo justo, entrena, y abre la API y el panel
	@$(BIN)/futbol-mlops demo $(ARGS)

test: .venv/.all  ## ejecuta cuadernos, soluciones y pytest
	$(BIN)/nbdev_test --n-workers $(WORKERS)
	$(BIN)/nbdev_test solutions --n-workers $(WORKERS)
	$(BIN)/pytest -n $(WORKERS)

lab: .venv/.all  ## abre los cuadernos en JupyterLab
	@$(BIN)/futbol-mlops lab

grade: .venv/.all  ## califica tus cuadernos de exercises/
	@$(BIN)/futbol-mlops grade $(ARGS) || true

site: .venv/.all  ## construye la web en _site/; con ARGS="--serve 8080" también la enseña
	@$(BIN)/python -m futbol_mlops.site $(ARGS)

notebooks: .venv/.all  ## ejecuta los cuadernos en su sitio y los deja limpios
	$(BIN)/jupyter execute --inplace nbs/*.ipynb nbs/tools/*.ipynb
	$(BIN)/nbdev_clean

export: .venv/.all  ## cuadernos → futbol_mlops/*.py y README.md
	$(BIN)/nbdev_export
	$(BIN)/python -m futbol_mlops.readme

lock: .venv/.all  ## vuelve a fijar constraints.txt con las versiones más nuevas que encajan
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --extra all --no-header --no-annotate setup.py --output-file constraints.txt

clean:  ## borra el entorno, el estado de la demostración y la web
	rm -rf .venv .futbol _site

check-python:
	@$(ANY_PYTHON) --version >/dev/null 2>&1 || { echo "No encuentro Python. Instala uno de 3.11 a 3.13 (https://www.python.org/downloads/)." >&2; exit 1; }

.venv/.demo: $(FACTS) | check-python
	@$(ANY_PYTHON) -m futbol_mlops.preflight --disk 3
	@$(MAKE) --no-print-directory install EXTRA=demo

.venv/.all: $(FACTS) | check-python
	@$(ANY_PYTHON) -m futbol_mlops.preflight --disk 5
	@$(MAKE) --no-print-directory install EXTRA=all
	@touch .venv/.demo

.PHONY: install
install:
	@echo "Instalando en .venv (extra «$(EXTRA)»)…"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt -e '.[$(EXTRA)]'
	@touch .venv/.$(EXTRA)
