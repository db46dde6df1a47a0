"""The rented GPU: the script against a stand-in for gcloud, its commands against Google's own word,
and the set-up of a machine for real."""

import contextlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

import googleapiclient
import psutil
import pytest
from conftest import ROOT
from limits import as_nobody, needs_root, public  # noqa: F401

from tools.helpers import free_port

SCRIPT, BOOT = ROOT / "gcp" / "vm.py", ROOT / "gcp" / "first_boot.sh"
GUIDE = ROOT / "setup_gcp.md"
PARTS = ("create", "connect", "status", "stop", "delete")
# Plays Google: knows machines and disks, keeps them in a file, and notes every command.
STAND_IN = """#!{python}
import json, re, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word
here, args = Path(__file__).parent, sys.argv[1:]
line, world = " ".join(args), json.loads((here / "world.json").read_text())
machines, disks = world["machines"], world["disks"]
with open(here / "calls.jsonl", "a") as calls:
    calls.write(json.dumps(args) + "\\n")
for pattern, trouble in world["troubles"].items():
    if re.search(pattern, line):
        sys.exit(trouble)
if re.match("compute instances create", line):
    zone = line.split("--zone=")[1].split()[0]
    machines.append({{"name": args[3], "zone": "x/" + zone, "status": "RUNNING"}})
    disks.append({{"name": args[3], "zone": "x/" + zone, "sizeGb": "100", "users": ["it"]}})
elif re.match("compute instances delete", line):
    machines[:] = [m for m in machines if m["name"] != args[3]]
    disks[:] = [d for d in disks if d["name"] != args[3]]
elif re.match("compute instances (stop|start)", line):
    machines[0]["status"] = "TERMINATED" if args[2] == "stop" else "RUNNING"
elif re.match("compute disks delete", line):
    disks[:] = [d for d in disks if d["name"] != args[3]]
elif re.match("compute instances list", line):
    name = re.search("--filter=name=(\\\\S+)", line)
    print(json.dumps([m for m in machines if not name or m["name"] == name[1]]))
elif re.match("compute disks list", line):
    print(json.dumps(disks))
elif re.match("compute images list", line):
    print("NAME PROJECT FAMILY STATUS", *("x p " + name for name in world["families"]), sep="\\n")
elif "config get project" in line:
    print("my-project")
elif "first_boot.sh" in line:
    print("0123abcd")
(here / "next.json").write_text(json.dumps(world))
(here / "next.json").replace(here / "world.json")
if world["slow"] and re.search(world["slow"], line):
    time.sleep(60)
"""
MACHINE = {"name": "fastai-demo", "zone": "x/us-central1-a", "status": "RUNNING"}
STOPPED, STOPPING = {**MACHINE, "status": "TERMINATED"}, {**MACHINE, "status": "STOPPING"}
DISK = {"name": "old-disk", "zone": "x/us-east1-b", "sizeGb": "50"}


@pytest.fixture(scope="module")
def vm():
    """gcp/vm.py as a module, which waits for no one."""
    spec = importlib.util.spec_from_file_location("vm", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.SSH_WAIT = module.PAUSE = 0
    return module


class Cloud:
    """The stand-in for gcloud, first on PATH, and what it was told."""

    def __init__(self, folder, family):
        self.file, self.log = folder / "world.json", folder / "calls.jsonl"
        (folder / "gcloud").write_text(STAND_IN.format(python=sys.executable))
        (folder / "gcloud").chmod(0o755)
        self.file.write_text("{}")
        self.set(machines=[], disks=[], troubles={}, families=[family], slow="")

    def set(self, **changes):
        self.file.write_text(json.dumps({**json.loads(self.file.read_text()), **changes}))

    def __getattr__(self, name):  # machines, disks
        return json.loads(self.file.read_text())[name]

    @property
    def calls(self):
        """The commands, as one types them."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [shlex.join(["gcloud", *json.loads(line)]) for line in lines]

    def called(self, what):
        return any(what in call for call in self.calls)


@pytest.fixture
def cloud(tmp_path, vm, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(vm, "NEEDED", "gcp")  # to pack all of it takes seconds
    yield Cloud(tmp_path, vm.FAMILY)
    assert not (ROOT / vm.ARCHIVE).exists()


@pytest.fixture
def do(vm, monkeypatch, capfd):
    """Run the script with answers to its questions; returns (message at the end, all it printed).

    The message is what it ends with if something is wrong, else None. A question without an answer
    is the end of the input.
    """

    def run(*args, answers=()):
        left = list(answers)

        def answer(question):
            print(question)
            if not left:
                raise EOFError
            return left.pop(0)

        monkeypatch.setattr("builtins.input", answer)
        message = None
        try:
            vm.main(list(args))
        except SystemExit as error:
            message = str(error.code)
        return message, "".join(capfd.readouterr())

    return run


def dry_run(*args):
    """What the script says that it would do, line by line."""
    command = [sys.executable, SCRIPT, *args, "--dry-run"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


# --- what it does


@pytest.mark.parametrize("part", PARTS)
def test_a_dry_run_prints_the_commands_that_are_run_and_runs_none(part, cloud, do):
    message, dry = do(part, "--dry-run")
    assert message is None and cloud.calls == []
    cloud.set(machines=[] if part == "create" else [MACHINE])
    assert do(part, answers=["yes"])[0] is None
    assert [line for line in dry.splitlines() if not line.startswith("python3")] == cloud.calls


@pytest.mark.parametrize("answers", [["no"], ["", "y", "no"], []], ids=str)
def test_create_asks_before_it_spends(answers, cloud, do, vm):
    message, said = do("create", answers=answers)
    assert message == "Nothing was rented." and not cloud.called("instances create")
    assert all(word in said for word in ("g2-standard-4", "4 hours", "100 GB", vm.PRICES))


def test_create_takes_what_one_asks_for(cloud, do):
    args = "--gpu t4 --zone us-east1-c --standard --hours 2 --name mine".split()
    assert do("create", *args, answers=["yes"])[0] is None
    assert [machine["name"] for machine in cloud.machines] == ["mine"]
    create = next(call for call in cloud.calls if "instances create" in call).split()
    asked = "--zone=us-east1-c --accelerator=type=nvidia-tesla-t4,count=1 --max-run-duration=2h"
    assert {*asked.split(), "--provisioning-model=STANDARD"} <= set(create)


@pytest.mark.parametrize(
    "others, newest",
    [
        (["pytorch-2-9-cu129-ubuntu-2404-nvidia-570"], "common-cu129-ubuntu-2404-nvidia-580"),
        (["pytorch-2-9-cu129-ubuntu-2204-nvidia-580"], "common-cu129-ubuntu-2404-nvidia-580"),
        (["common-cu129-ubuntu-2404-nvidia-590"], "pytorch-2-9-cu129-ubuntu-2404-nvidia-580"),
        (["pytorch-2-9-cu1-ubuntu-2404-nvidia-580"], "pytorch-2-10-cu1-ubuntu-2404-nvidia-580"),
        (["pytorch-2-10-cu1-ubuntu-2404-nvidia-580"], "pytorch-2-9-cu1-ubuntu-2404-nvidia-590"),
    ],
)
def test_create_takes_the_newest_image_that_will_do(others, newest, cloud, do):
    """Driver 580 or more for our torch, Ubuntu 24.04 for its Python; then PyTorch's own."""
    cloud.set(families=[*others, newest, *others])
    assert do("create", answers=["yes"])[0] is None
    assert cloud.called(f"--image-family={newest} ")


def test_connect_starts_a_stopped_machine_and_opens_the_tunnel(cloud, do):
    cloud.set(machines=[STOPPED])
    message, said = do("connect", answers=["yes"])
    assert message is None and cloud.machines == [MACHINE]
    assert cloud.calls[-1].endswith(" -- -N -L 8080:localhost:8080")
    assert "http://localhost:8080/lab/tree/demo.ipynb?token=0123abcd" in said


def test_where_ssh_is_blocked_all_goes_through_googles_gate(cloud, do):
    for part in ("create", "connect"):
        assert do(part, "--iap", answers=["yes"])[0] is None
    for call in cloud.calls:
        by_ssh = " ssh " in call or " scp " in call
        assert ("--tunnel-through-iap" in call.split(" -- ")[0].split()) == by_ssh


def test_status_says_what_costs_money(cloud, do):
    said = do("status")[1]
    assert "my-project" in said and "No machine and no disk" in said
    cloud.set(machines=[STOPPED], disks=[DISK])
    said = do("status")[1]
    assert "old-disk, us-east1-b, 50 GB: LEFT OVER" in said
    assert "COSTS MONEY" not in said and "1 disks still cost money" in said
    cloud.set(machines=[MACHINE, {**MACHINE, "name": "other"}])
    assert "COSTS MONEY: running fastai-demo, other" in do("status")[1]


def test_stop_ends_with_what_still_costs(cloud, do):
    cloud.set(machines=[MACHINE], disks=[{**DISK, "users": ["it"]}])
    message, said = do("stop")
    assert message is None and cloud.machines == [STOPPED]
    assert "1 disks still cost money" in said


def test_delete_asks_for_the_machine_and_for_each_disk_left_over(cloud, do):
    used = {**DISK, "name": "used", "users": ["it"]}
    wide = {"name": "wide", "region": "x/us-east1", "sizeGb": "9"}
    cloud.set(machines=[MACHINE], disks=[DISK, used, wide])
    message, said = do("delete", answers=["y", "yes", "yes", "yes"])
    assert message is None and cloud.machines == [] and cloud.disks == [used]
    assert cloud.called("disks delete old-disk --zone=us-east1-b --quiet")
    assert cloud.called("disks delete wide --region=us-east1 --quiet")
    assert "1 disks still cost money" in said


# --- what goes wrong

LIST, CREATE = "instances list", "instances create"
# The command, what Google has, what fails there with which words, and what the person is told.
TROUBLES = [
    ("create", [], {LIST: "You do not currently have an active account selected"}, "auth login"),
    ("create", [], {LIST: "Reauthentication failed. cannot prompt"}, "gcloud auth login"),
    ("create", [], {LIST: "required property [project] is not currently set"}, "set project ID"),
    ("create", [], {LIST: "Compute Engine API has not been used in project 1"}, "services enable"),
    ("create", [], {LIST: "This API method requires billing to be enabled"}, "/billing"),
    ("create", [], {CREATE: "Quota 'GPUS_ALL_REGIONS' exceeded. Limit: 0.0"}, "(all regions)"),
    ("create", [], {CREATE: "Quota 'NVIDIA_L4_GPUS' exceeded. Limit: 0.0"}, "/quotas"),
    ("create", [], {CREATE: "ZONE_RESOURCE_POOL_EXHAUSTED" + 400 * " detail"}, "--zone"),
    ("create", [], {CREATE: "does not have enough resources available"}, "--zone"),
    ("create", [], {CREATE: "Required 'compute.instances.create' permission"}, "config list"),
    ("create", [], {CREATE: "something else altogether"}, "something else altogether"),
    ("create", [MACHINE], {}, "already, in us-central1-a"),
    ("create --zone us-east1-c", [MACHINE], {}, "already, in us-central1-a"),  # would cost twice
    ("connect", [], {}, "`create`"),
    ("connect", [STOPPING], {}, "again in a minute"),
    ("connect", [MACHINE, {**MACHINE, "zone": "x/us-east1-c"}], {}, "add --zone"),
    ("connect", [STOPPED], {"instances start": "out of order"}, "may be running"),
    ("connect", [STOPPED], {"--command=true": "out of order"}, "may be running"),
    ("connect", [STOPPED], {"first_boot.sh": "out of order"}, "may be running"),
    ("connect", [MACHINE], {"-N -L": "Connection closed"}, "The tunnel broke off"),
    ("connect --port 0", [MACHINE], {}, "0 is not a port"),
    ("connect --port eight", [MACHINE], {}, "eight is not a port"),
]


@pytest.mark.parametrize(("command", "machines", "troubles", "way"), TROUBLES)
def test_who_meets_trouble_is_told_the_way_out(command, machines, troubles, way, cloud, do):
    cloud.set(machines=machines, troubles=troubles)
    message, said = do(*command.split(), answers=["yes"])
    assert message and way in f"{message}\n{said}"
    assert all(trouble[-20:] in f"{message}\n{said}" for trouble in troubles.values())
    assert len(cloud.machines) == len(machines)


@pytest.mark.parametrize("part, machine", [("connect", STOPPED), ("delete", MACHINE)])
def test_who_says_no_changes_nothing(part, machine, cloud, do):
    cloud.set(machines=[machine])
    assert do(part, answers=["no"])[0] and cloud.machines == [machine]


def test_a_port_that_is_taken(cloud, do):
    cloud.set(machines=[MACHINE])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message, _ = do("connect", "--port", str(port))
    assert str(port) in message and f"--port {port + 1}" in message and cloud.calls == []


STAGES = ["instances create", "--command=true", "scp", "first_boot.sh"]


@pytest.mark.parametrize("stage", STAGES[1:])
@pytest.mark.parametrize("answers", [["yes", "yes"], ["yes", "no"], ["yes"]], ids=str)
def test_a_machine_that_fails_on_the_way_is_offered_for_deletion(stage, answers, cloud, do):
    cloud.set(troubles={stage: "ssh: no route"})
    message, said = do("create", answers=answers)
    assert "Delete it?" in said
    gone = answers[1:] == ["yes"]
    assert cloud.machines == ([] if gone else [MACHINE])
    assert ("No machine" if gone else "still exists and costs money") in message


def test_if_google_can_not_be_asked_what_is_left_it_says_so(cloud, do, vm, monkeypatch):
    def find(opts, everywhere=False):
        if not everywhere:  # as it looks for what is left
            raise vm.Problem("No network.")

    monkeypatch.setattr(vm, "find", find)
    cloud.set(troubles={"instances create": "no network"})
    message, said = do("create", answers=["yes"])
    assert "No network." in said and f"{vm.CONSOLE}/compute/instances" in message


def test_nothing_is_rented_if_the_project_can_not_be_packed(cloud, do, vm, monkeypatch):
    monkeypatch.setattr(vm, "NEEDED", "gcp no-such-folder")
    message, _ = do("create", answers=["yes"])
    assert "no-such-folder" in message and not cloud.called("instances create")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent to a group of processes, as on Unix")
@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_offers_to_delete_the_machine(stage, cloud, vm):
    cloud.set(slow=stage)
    process = subprocess.Popen(
        [sys.executable, "-c", f"import vm; vm.NEEDED = {vm.NEEDED!r}; vm.main(['create'])"],
        cwd=SCRIPT.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # As at a terminal, also where these tests run behind something that ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    process.stdin.write("yes\nyes\n")
    process.stdin.flush()
    wait_until(lambda: cloud.called(stage) and cloud.machines)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in said
    assert "Delete it?" in said and cloud.machines == []


def wait_until(condition):
    """Wait until something holds, for a minute at most."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_without_gcloud_it_says_what_to_install(do, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no gcloud on this computer: install it" in do("status")[0]


# --- the guide and the script, against Google's own word


def boxes():
    """For each grey box of the guide, its first line and the words of all its lines."""
    found = re.findall(r"(?ms)^```bash\n((.*?)\n.*?)^```", GUIDE.read_text(encoding="utf-8"))
    words = [[shlex.split(line, comments=True) for line in box.splitlines()] for box, _ in found]
    return list(zip((first for _, first in found), words, strict=True))


def gcloud_commands():
    """All gcloud commands of the guide and of the script, as lists of words."""
    found = [words for _, box in boxes() for words in box]
    lines = re.findall(r"`(gcloud [^`]+)`", GUIDE.read_text(encoding="utf-8"))
    lines += [line for part in PARTS for line in dry_run(part)]
    lines += dry_run("create", "--gpu=t4", "--standard", "--hours=2", "--iap")
    lines += dry_run("connect", "--iap")
    lines += ["gcloud compute instances start x --zone=us-central1-a"]
    lines += ["gcloud compute disks delete x --region=us-central1 --quiet"]
    found += [shlex.split(line) for line in lines]
    return [words for words in found if words[:1] == ["gcloud"]]


@pytest.mark.slow
def test_gcloud_itself_accepts_every_command(tmp_path):
    if not shutil.which("gcloud"):
        pytest.skip("there is no gcloud on this machine to check its commands with")
    lines = ["gcloud compute instances create x --provisioning-model=NONE"]
    for words in gcloud_commands():
        # Its checker takes what follows `--`, which is for ssh, for its own, and undoes quotes.
        words = words[: words.index("--")] if "--" in words else words
        lines.append(" ".join(re.sub("^--command=.*", "--command=x", word) for word in words))
    file = tmp_path / "lines.json"
    file.write_text(json.dumps([{"command_string": line} for line in lines]))
    done = subprocess.run(
        ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={file}"],
        capture_output=True,
        text=True,
        env={**os.environ, "CLOUDSDK_CONFIG": str(tmp_path / "config")},
    )
    found = {one["command_string"]: one["error_message"] for one in json.loads(done.stdout)}
    assert "NONE" in found.pop(lines[0])
    assert found == dict.fromkeys(lines[1:])


def test_values_and_fields_are_those_of_googles_interface():
    folder = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
    schemas = json.loads((folder / "compute.v1.json").read_text(encoding="utf-8"))["schemas"]
    fields = {name: schemas[name]["properties"] for name in ("Scheduling", "Instance", "Disk")}
    asked = {
        "--provisioning-model": "provisioningModel",
        "--instance-termination-action": "instanceTerminationAction",
        "--maintenance-policy": "onHostMaintenance",
    }
    flags = [word.split("=", 1) for words in gcloud_commands() for word in words if "=" in word]
    for flag, field in asked.items():
        values = {value for name, value in flags if name == flag}
        assert values and values <= set(fields["Scheduling"][field]["enum"]), flag
    # What the script reads in Google's answers, and the tests give it.
    assert set(MACHINE) <= set(fields["Instance"]) and {*DISK, "region", "users"} <= set(
        fields["Disk"]
    )
    states = {machine["status"] for machine in (MACHINE, STOPPED, STOPPING)}
    assert states <= set(fields["Instance"]["status"]["enum"])


def test_by_hand_it_is_what_the_script_does():
    by_hand = {first: box[1:] for first, box in boxes() if first.startswith("# python3 gcp/vm.py ")}
    assert {first.split()[-1] for first in by_hand} == set(PARTS) - {"status"}
    for first, commands in by_hand.items():
        assert commands == [shlex.split(line) for line in dry_run(first.split()[-1])], first


def test_what_the_guide_gives_to_type_is_understood(vm):
    for words in [words for _, box in boxes() for words in box]:
        if words[:2] == ["python3", "gcp/vm.py"]:
            vm.options(words[2:])  # ends the test if it can't be read


# --- the set-up of the machine


def test_shellcheck_finds_nothing():
    program = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([program, BOOT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_what_is_sent_is_enough(vm, tmp_path):
    for name in vm.NEEDED.split():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    code = """
import tutorial, tools.lab, tools.run_notebook, tools.setup_env
from pathlib import Path
tutorial.check_folder(Path("imgs"))
tutorial.resnet34()
"""
    env = {**os.environ, "BODY": "bundled", "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True)
    for target in ("setup", "lab", "run"):
        subprocess.run(["make", "-n", target], cwd=tmp_path, check=True)


def status(port, token=None):
    """The HTTP status that who shows this token, or none, gets; None without a server."""
    headers = {"Authorization": f"token {token}"} if token else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/status", headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=30).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


# Plays systemd: it starts what our service says; it knows of our service, which the boot has just
# started; it knows of the image's own Jupyter and ends it; or there is none.
SYSTEMD = """
[ "$1 $2" != "--user is-active" ] && [ "$1" = --user ] || exit 3
unit=$HOME/.config/systemd/user/doraemon-or-walle.service
if [ "$2" = restart ]; then
    line=$(sed -n 's/^ExecStart=//p' "$unit")
    eval "$(sed -n 's/^Environment=/export /p' "$unit")"
    eval "setsid $line >>$HOME/jupyterlab.log 2>&1 </dev/null &"
    echo $! >"$HOME/.doraemon-or-walle.pid"
fi
"""
OURS_IS_STARTING = '[ "$*" = "--user is-active --quiet doraemon-or-walle" ]'
IMAGES_OWN = """
case $* in
"is-active --quiet jupyter") exit 0 ;;
"disable --now jupyter")
    kill "$(cat "$HOME/image.pid")"
    while (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; do sleep 0.1; done
    ;;
*) exit 1 ;;
esac
"""


@pytest.fixture
def machine(public):  # noqa: F811
    """Make a machine with the project, where `make setup` has nothing to do, and with a systemctl.

    Gives a function that sets the machine up as a person does.
    """

    def make(systemctl):
        project, programs = public / "doraemon-or-walle", public / "bin"
        for folder in (project / "gcp", project / ".venv" / "bin", programs):
            folder.mkdir(parents=True)
        shutil.copy(BOOT, project / "gcp")
        (project / "Makefile").write_text("setup:\n\t@true\n")
        files = {
            project / ".venv" / "bin" / "python": f'exec {sys.executable} "$@"',
            programs / "systemctl": f'echo "$*" >>"$HOME/systemctl.log"\n{systemctl}',
            programs / "loginctl": 'echo "$*" >>"$HOME/systemctl.log"',
            programs / "sudo": 'shift\nexec "$@"',
        }
        for file, text in files.items():
            file.write_text(f"#!/bin/bash\n{text}\n")
            file.chmod(0o755)
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        port = free_port()
        env = {"HOME": str(public), "TMPDIR": str(public), "PATH": path, "PORT": str(port)}
        command = [*as_nobody(), "bash", project / "gcp" / "first_boot.sh"]
        how = {"env": {**os.environ, **env}, "text": True}
        pipes = {name: subprocess.PIPE for name in ("stdout", "stderr")}
        boot = partial(subprocess.run, command, **how, **pipes, stdin=subprocess.DEVNULL)
        return boot, port

    yield make
    server = public / ".doraemon-or-walle.pid"
    if server.exists():
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(server.read_text()))
            process.kill()
            psutil.wait_procs([process], timeout=30)


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize("systemd", [SYSTEMD, "exit 1"], ids=["systemd", "none"])
def test_a_machine_is_set_up(systemd, machine, public):  # noqa: F811
    boot, port = machine(systemd)
    done = boot()
    token = done.stdout.strip()
    assert done.returncode == 0 and re.fullmatch("[0-9a-f]{48}", token), done.stderr
    assert "No GPU answers here" in done.stderr
    assert (status(port, token), status(port), status(port, "0" * 48)) == (200, 403, 403)
    with pytest.raises(OSError):  # to this machine alone
        socket.create_connection(("127.0.0.2", port), timeout=5)
    assert (public / ".doraemon-or-walle.token").stat().st_mode & 0o077 == 0
    server = psutil.Process(int((public / ".doraemon-or-walle.pid").read_text()))
    assert token not in " ".join(server.cmdline())
    assert boot().stdout.strip() == token and server.is_running()
    if systemd == SYSTEMD:
        told = (public / "systemctl.log").read_text()
        assert "--user enable --quiet doraemon-or-walle" in told  # comes back at each boot
        assert "enable-linger" in told  # also with nobody signed in
        if shutil.which("systemd-analyze"):
            unit = public / ".config/systemd/user/doraemon-or-walle.service"
            subprocess.run(["systemd-analyze", "verify", "--man=no", unit], check=True)


@pytest.mark.slow
@needs_root
def test_a_server_that_the_boot_has_just_started_is_waited_for(machine, public):  # noqa: F811
    boot, port = machine(OURS_IS_STARTING)
    token = public / ".doraemon-or-walle.token"
    token.write_text("0" * 48)
    token.chmod(0o644)
    late = shlex.join(map(str, [*boot.args[0], "serve"]))
    with subprocess.Popen(f"sleep 2; exec {late}", shell=True, env=boot.keywords["env"]) as server:
        done = boot()
        server.kill()
    assert (done.returncode, done.stdout) == (0, "0" * 48), done.stderr
    assert "restart" not in (public / "systemctl.log").read_text()


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize("known", [IMAGES_OWN, "exit 1"], ids=["a service", "a stranger"])
def test_a_jupyter_without_token_is_not_taken_for_ours(known, machine, public):  # noqa: F811
    boot, port = machine(known)
    (public / "www" / "api").mkdir(parents=True)
    (public / "www" / "api" / "status").touch()
    program = [*as_nobody(), sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    program += ["--directory", public / "www"]
    with subprocess.Popen(program, stderr=subprocess.DEVNULL) as image:
        wait_until(lambda: status(port) == 200)
        (public / "image.pid").write_text(str(image.pid))
        done = boot()
        if known == IMAGES_OWN:
            assert (status(port, done.stdout), status(port)) == (200, 403), done.stderr
        else:
            assert (done.returncode, done.stdout) == (1, "") and str(port) in done.stderr
            assert image.poll() is None and status(port) == 200  # somebody else's is left alone
        image.kill()
