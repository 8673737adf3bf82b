#!/usr/bin/env bash
# make-base.sh SALIDA.tar: lo que hay dentro de python:3.11-slim, hecho con paquetes de Debian 12, cuyo Python es 3.11.
#
# Es para `docker import` donde no se llega a un registro. Lleva los certificados y el pip.conf de esta máquina para
# que pip funcione dentro igual que fuera; por eso no se publica nunca.
set -euo pipefail
out=${1:?uso: make-base.sh SALIDA.tar}

# Los repositorios de la máquina si es Debian 12; si no, el de Debian.
sources='deb http://deb.debian.org/debian bookworm main'
if grep -q '^VERSION_CODENAME=bookworm' /etc/os-release; then
  for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    if [ -s "$file" ]; then sources=$file; break; fi
  done
fi

# En los ganchos, $1 es la raíz de la imagen.
# shellcheck disable=SC2016
hooks=(
  --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr
  # en la imagen oficial, Python está en /usr/local y pip instala sin preguntar
  --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python"; ln -s /usr/bin/python3 "$1/usr/local/bin/python3"'
  --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED'
  # pip dentro llega a donde llega fuera
  --customize-hook='for file in /etc/ssl/certs/ca-certificates.crt /etc/pip.conf; do if [ -s $file ]; then cp $file "$1$file"; fi; done'
  # nada de lo que solo sirve para instalar
  --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/var/log/* "$1"/etc/resolv.conf "$1"/etc/hostname'
  --customize-hook='find "$1/usr" -name __pycache__ -prune -exec rm -rf {} +'
)
mmdebstrap --quiet --format=tar --variant=apt "${hooks[@]}" \
  --include=usr-is-merged,python3,python3-venv,ca-certificates,media-types \
  --aptopt='Apt::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/info/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  bookworm "$out.part" "$sources"
mv "$out.part" "$out"
