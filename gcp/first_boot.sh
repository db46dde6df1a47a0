#!/usr/bin/env bash
# On the rented machine, as its ordinary user: sets the tutorial up in its own folder and has
# JupyterLab answer on 127.0.0.1:8080, for who knows the token. Prints the token, and all else to
# the error output and to ~/first_boot.log. Can be run again at any time; changes nothing then.
#
#   bash doraemon-or-walle/gcp/first_boot.sh          what gcp/vm.py calls
#   bash doraemon-or-walle/gcp/first_boot.sh serve    what the service calls: JupyterLab itself
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
port=${PORT:-8080}
token=$HOME/.doraemon-or-walle.token # a file that only this user can read
log=$HOME/first_boot.log
pid=$HOME/.doraemon-or-walle.pid # of a server that systemd does not look after
unit=$HOME/.config/systemd/user/doraemon-or-walle.service

say() { echo "$*" | tee -a "$log" >&2; }
# shellcheck disable=SC2024 # the log is the user's own, so the user writes it
as_root() { sudo -n "$@" >>"$log" 2>&1; }
fail() {
    say "$*"
    exit 1
}

# JupyterLab, with the token from a file: others can't see it in the list of processes.
serve() {
    cd "$project"
    unset JUPYTER_TOKEN
    export JUPYTER_TOKEN_FILE=$token JUPYTER_PREFER_ENV_PATH=1
    export JUPYTER_CONFIG_PATH=$project/tools/jupyter
    exec .venv/bin/python -m jupyterlab --no-browser --ServerApp.ip=127.0.0.1 \
        --ServerApp.port="$port" --ServerApp.port_retries=0 --ServerApp.root_dir="$project" \
        --LabApp.default_url=/lab/tree/demo.ipynb
}

# The HTTP status that the server gives to who shows this token file, or none; 0: no answer.
answer() {
    "$project/.venv/bin/python" - "$port" "$@" <<'PYTHON'
import sys
import urllib.error
import urllib.request

port, *files = sys.argv[1:]
headers = {"Authorization": f"token {open(files[0]).read().strip()}"} if files else {}
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
request = urllib.request.Request(f"http://127.0.0.1:{port}/api/status", headers=headers)
try:
    print(direct.open(request, timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError:
    print(0)
PYTHON
}

# Whether the server that answers is ours: an image's own Jupyter may let in whoever comes.
ours_answers() { [ "$(answer "$token")" = 200 ] && [ "$(answer)" = 403 ]; }

port_is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

# Ubuntu's Python may lack the venv module. That is put in by apt; the image's Python stays as it is.
install_what_make_needs() {
    if command -v make >/dev/null && { python3 -c 'import venv, ensurepip' ||
        python3 -c 'import venv, pip'; } 2>/dev/null; then
        return
    fi
    say "Installing make and python3-venv."
    for _ in $(seq 30); do # the system's own updates may hold the lists at the first boot
        if as_root apt-get update; then break; fi
        sleep 10
    done
    if ! as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -o DPkg::Lock::Timeout=600 install -y make python3-venv; then
        fail "make or python3-venv is missing and can't be installed; $log says why."
    fi
}

# Says which driver the GPU has; without one the notebook still runs, on the CPU.
look_at_gpu() {
    local gpu=
    for _ in $(seq 30); do # at the first boot the driver may still be on its way
        gpu=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null) && break
        grep -qs 0x10de /sys/bus/pci/devices/*/vendor || break # no NVIDIA card
        say "The driver is not ready yet; waiting."
        sleep 10
    done
    local driver=${gpu##*, }
    if [[ ! $driver =~ ^[0-9]+ ]]; then
        say "No GPU answers here: the notebook will run on the CPU."
    elif ((BASH_REMATCH[0] < 580)); then
        say "GPU: $gpu. The driver is older than 580: the notebook will run on the CPU."
    else
        say "GPU: $gpu."
    fi
}

# Where the boot has just started our server, waits until it answers.
wait_for_ours() {
    for _ in $(seq 60); do
        if ! systemctl --user is-active --quiet doraemon-or-walle 2>/dev/null; then return; fi
        if ours_answers; then return; fi
        sleep 1
    done
}

# Has the server started now, and again after each boot where systemd looks after users.
start() {
    if port_is_taken && systemctl is-active --quiet jupyter 2>/dev/null; then
        say "Stopping the image's own Jupyter, which holds port $port."
        as_root systemctl disable --now jupyter || true
    fi
    if port_is_taken; then
        fail "Port $port of the machine is taken by another program; \`ss -ltnp\` shows which."
    fi
    if systemctl --user show-environment >/dev/null 2>&1; then
        mkdir -p "$(dirname "$unit")"
        cat >"$unit" <<UNIT
[Unit]
Description=JupyterLab for the tutorial, on 127.0.0.1 only

[Service]
Environment=PORT=$port
ExecStart=/bin/bash "$project/gcp/first_boot.sh" serve
StandardOutput=append:$HOME/jupyterlab.log
StandardError=append:$HOME/jupyterlab.log
Restart=on-failure

[Install]
WantedBy=default.target
UNIT
        systemctl --user daemon-reload
        systemctl --user enable --quiet doraemon-or-walle
        systemctl --user restart doraemon-or-walle
        # else user services end when the user leaves, and do not start at boot
        loginctl enable-linger "$USER" 2>>"$log" || as_root loginctl enable-linger "$USER" ||
            say "JupyterLab will end when you leave; the next connect starts it again."
    else
        say "No systemd for users here: after a restart the next connect starts JupyterLab."
        PORT=$port setsid nohup bash "$project/gcp/first_boot.sh" serve \
            >>"$HOME/jupyterlab.log" 2>&1 </dev/null &
        echo $! >"$pid"
    fi
}

if [ "${1:-}" = serve ]; then serve; fi

[ "$(id -u)" != 0 ] || fail "Run this as your ordinary user, not as root."
export USER=${USER:-$(id -un)} XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}
if [ ! -s "$token" ]; then
    (umask 077 && head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$token")
fi
install_what_make_needs
make -C "$project" --no-print-directory setup 2>&1 | tee -a "$log" >&2 ||
    fail "The set-up failed; the lines above say why, and $log keeps them."
look_at_gpu
wait_for_ours
if ! ours_answers; then
    start
    for _ in $(seq 120); do
        if [ "$(answer "$token")" = 200 ]; then break; fi
        sleep 1
    done
fi
if [ "$(answer)" = 200 ]; then
    systemctl --user disable --now doraemon-or-walle 2>/dev/null || kill "$(cat "$pid")" || true
    fail "JupyterLab lets in whoever comes, without the token: some setting here says so; stopped."
fi
[ "$(answer "$token")" = 200 ] || fail "JupyterLab does not answer; $HOME/jupyterlab.log says why."
say "JupyterLab answers on 127.0.0.1:$port, to this machine only and to who has the token."
cat "$token"
