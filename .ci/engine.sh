#!/usr/bin/env bash
# Un motor de contenedores de verdad, también donde no hay ninguno ni se llega a un registro de imágenes.
#
#   .ci/engine.sh up                usa el motor que ya responde o levanta uno; deja lista la imagen base
#   eval "$(.ci/engine.sh env)"     variables con las que docker o podman lo encuentran (DOCKER_HOST…)
#   .ci/engine.sh down              para lo que levantó `up`, y nada más
#
# FUTBOL_ENGINE=docker|podman     elige motor; sin ella, docker y, si no puede ser, podman
# FUTBOL_ENGINE_HOME=carpeta      dónde vive lo que se levanta (/var/tmp/futbol-engine); conserva las imágenes
# CI=true o FUTBOL_INSTALL=1      permite a root instalar los paquetes de Debian que falten
#
# Salida: 0 hay motor, 1 no se pudo, 2 mal uso. Los mensajes van a stderr.
set -euo pipefail

BASE=python:3.11-slim
HERE=$(cd "$(dirname "$0")" && pwd)
HOME_DIR=${FUTBOL_ENGINE_HOME:-/var/tmp/futbol-engine}
ENV_FILE=$HOME_DIR/env
DOCKER_DIR=$HOME_DIR/docker

say() { echo "engine.sh: $*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }

install() { # install PAQUETE… : solo root, y solo si se permitió
  [ "$(id -u)" = 0 ] && has apt-get || return 1
  [ "${CI:-}" = true ] || [ "${FUTBOL_INSTALL:-}" = 1 ] || return 1
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
  say "instalando $*"
  "${apt[@]}" install -y --no-install-recommends "$@" >"$HOME_DIR/apt.log" 2>&1 && return
  # sin índices, o caducados
  "${apt[@]}" update >>"$HOME_DIR/apt.log" 2>&1 &&
    "${apt[@]}" install -y --no-install-recommends "$@" >>"$HOME_DIR/apt.log" 2>&1 && return
  say "no se pudo instalar $*: $(tail -1 "$HOME_DIR/apt.log")"
  return 1
}

# --- Los motores: cada función deja en ENV_FILE con qué se llega al suyo -------------------------------------------

running_docker() {
  has docker && timeout 20 docker info >/dev/null 2>&1 || return 1
  printf 'export FUTBOL_ENGINE=docker%s\n' "${DOCKER_HOST:+ DOCKER_HOST=$DOCKER_HOST}" >"$ENV_FILE"
}

own_docker() { # dockerd a mano: sirve sin systemd y dentro de una máquina virtual de CI
  [ "$(id -u)" = 0 ] || return 1
  has dockerd || install docker.io || return 1
  local socket=unix://$DOCKER_DIR/docker.sock pid
  mkdir -p "$DOCKER_DIR"
  if ! DOCKER_HOST=$socket docker version >/dev/null 2>&1; then
    remember_network
    # Sin iptables no se toca el cortafuegos de la máquina: los puertos los publica docker-proxy y
    # las imágenes se construyen con la red de la máquina (--network host).
    setsid nohup dockerd --host "$socket" --data-root "$DOCKER_DIR/data" --exec-root "$DOCKER_DIR/exec" \
      --pidfile "$DOCKER_DIR/dockerd.pid" --iptables=false --ip6tables=false \
      </dev/null >"$DOCKER_DIR/dockerd.log" 2>&1 &
    pid=$!
    for _ in $(seq 120); do
      DOCKER_HOST=$socket docker version >/dev/null 2>&1 && break
      kill -0 "$pid" 2>/dev/null || break
      sleep .25
    done
    DOCKER_HOST=$socket docker version >/dev/null 2>&1 || {
      say "dockerd no arrancó: $(tail -1 "$DOCKER_DIR/dockerd.log")"
      kill "$pid" 2>/dev/null || true
      return 1
    }
  fi
  echo "export FUTBOL_ENGINE=docker DOCKER_HOST=$socket" >"$ENV_FILE"
}

own_podman() { # sin demonio que levantar; runc porque crun no admite las cgroups mixtas de algunas máquinas
  has podman && has runc || install podman runc conmon netavark aardvark-dns catatonit uidmap || has podman || return 1
  if [ "$(id -u)" = 0 ]; then
    local files
    files=$(ulimit -Hn)
    [ "$files" != unlimited ] || files=65536
    printf '%s\n' '[containers]' "default_ulimits = [\"nofile=$files:$files\", \"nproc=4096:4096\"]" \
      '[engine]' 'runtime = "runc"' 'cgroup_manager = "cgroupfs"' 'events_logger = "file"' >"$HOME_DIR/containers.conf"
    printf '%s\n' '[storage]' 'driver = "overlay"' "graphroot = \"$HOME_DIR/podman/data\"" \
      "runroot = \"$HOME_DIR/podman/run\"" >"$HOME_DIR/storage.conf"
    echo "export FUTBOL_ENGINE=podman CONTAINERS_CONF=$HOME_DIR/containers.conf CONTAINERS_STORAGE_CONF=$HOME_DIR/storage.conf"
  else
    echo "export FUTBOL_ENGINE=podman"
  fi >"$ENV_FILE"
  # shellcheck disable=SC1090
  (. "$ENV_FILE" && podman info >/dev/null 2>&1) || { say "podman está instalado pero no funciona: podman info"; return 1; }
}

remember_network() { # lo que dockerd cambia en la máquina, para dejarlo como estaba
  { [ -e /sys/class/net/docker0 ] && echo bridge=1 || echo bridge=0
    echo "forward=$(cat /proc/sys/net/ipv4/ip_forward)"; } >"$DOCKER_DIR/network"
}

restore_network() {
  local bridge=1 forward=1
  [ ! -s "$DOCKER_DIR/network" ] || . "$DOCKER_DIR/network"
  [ "$bridge" = 1 ] || ip link delete docker0 2>/dev/null || true
  [ "$forward" = 1 ] || echo 0 >/proc/sys/net/ipv4/ip_forward
}

# --- La imagen base: la oficial si hay registro; si no, una equivalente hecha con paquetes de Debian ---------------

ensure_base() {
  local name=$BASE tar=$HOME_DIR/base.tar
  [ "$FUTBOL_ENGINE" = docker ] || name=docker.io/library/$BASE
  "$FUTBOL_ENGINE" image inspect "$name" >/dev/null 2>&1 && return
  timeout 180 "$FUTBOL_ENGINE" pull -q "$name" >/dev/null 2>&1 && return
  [ -s "$tar" ] || {
    has mmdebstrap || install mmdebstrap debian-archive-keyring || { say "falta mmdebstrap para hacer la imagen base"; return 1; }
    say "no se llega al registro: se hace $BASE con paquetes de Debian"
    "$HERE/make-base.sh" "$tar" >"$HOME_DIR/base.log" 2>&1 || { say "no se pudo hacer la base: $(tail -1 "$HOME_DIR/base.log")"; return 1; }
  }
  "$FUTBOL_ENGINE" import --change 'CMD ["python3"]' --change 'ENV LANG=C.UTF-8' \
    --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'LABEL futbol_mlops.base=debian' "$tar" "$name" >/dev/null
}

up() {
  mkdir -p "$HOME_DIR"
  exec 9>"$HOME_DIR/lock" # dos `up` a la vez no levantan dos motores
  flock 9
  case ${FUTBOL_ENGINE:-} in
    docker) running_docker || own_docker 9>&- ;;
    podman) own_podman ;;
    '') running_docker || own_docker 9>&- || own_podman ;;
    *) say "FUTBOL_ENGINE=$FUTBOL_ENGINE no vale: docker o podman"; exit 2 ;;
  esac || {
    rm -f "$ENV_FILE"
    say "no hay motor de contenedores: docker no responde y no se pudo levantar docker ni podman." \
      "Instala docker.io o podman, o, siendo root en Debian, repite con FUTBOL_INSTALL=1."
    exit 1
  }
  . "$ENV_FILE"
  ensure_base
  say "listo: $("$FUTBOL_ENGINE" --version)"
}

down() {
  [ -s "$ENV_FILE" ] || return 0
  . "$ENV_FILE"
  if [ "$FUTBOL_ENGINE" = podman ]; then
    podman ps -q --filter label=futbol_mlops | xargs -r podman rm -f -t 5 >/dev/null
  elif [ "${DOCKER_HOST:-}" = "unix://$DOCKER_DIR/docker.sock" ] && [ -s "$DOCKER_DIR/dockerd.pid" ]; then
    local pid
    pid=$(cat "$DOCKER_DIR/dockerd.pid")
    docker ps -q | xargs -r docker stop -t 5 >/dev/null || true
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 80); do kill -0 "$pid" 2>/dev/null || break; sleep .25; done
    umount "$DOCKER_DIR"/exec/netns/* 2>/dev/null || true
    restore_network
  fi
  rm -f "$ENV_FILE"
}

# Otro usuario podría haber creado la carpeta antes, con un `env` suyo que acabaríamos ejecutando.
[ ! -e "$HOME_DIR" ] || [ -O "$HOME_DIR" ] || {
  say "$HOME_DIR es de otro usuario. Elige otra carpeta con FUTBOL_ENGINE_HOME."
  exit 1
}

case ${1:-} in
  up) up ;;
  env) [ ! -s "$ENV_FILE" ] || cat "$ENV_FILE" ;;
  down) down ;;
  *) sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
