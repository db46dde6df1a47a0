"""The rented GPU: the script against a stand-in for gcloud, its set-up of a machine for real, and
the guide against both."""

import contextlib
import importlib.util
import json
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import googleapiclient
import psutil
import pytest
from conftest import ROOT
from limits import as_nobody, needs_root, public  # noqa: F401

SCRIPT, BOOT = ROOT / "gcp" / "vm.py", ROOT / "gcp" / "first_boot.sh"
GUIDE = ROOT / "setup_gcp.md"
NEEDED = re.search(r'^NEEDED = "(.*)"$', SCRIPT.read_text(encoding="utf-8"), re.M)[1]
PARTS = ("create", "connect", "status", "stop", "delete")

# Plays Google: knows machines and disks, keeps them in a file, and notes every command.
STAND_IN = """#!{python}
import json, re, shutil, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word
here = Path(__file__).parent
world = json.loads((here / "world.json").read_text())
args = sys.argv[1:]
line = " ".join(args)
with open(here / "calls.jsonl", "a") as calls:
    calls.write(json.dumps(args) + "\\n")
for pattern, trouble in world["troubles"]:
    if re.search(pattern, line):
        sys.exit(trouble)
machines, disks = world["machines"], world["disks"]
if re.match("compute instances create", line):
    machines.append({{"name": args[3], "zone": "x/" + line.split("--zone=")[1].split()[0],
                      "status": "RUNNING"}})
    disks.append({{"name": args[3], "zone": "x/zone", "sizeGb": "100", "users": ["it"]}})
if re.match("compute instances delete", line):
    machines[:] = [m for m in machines if m["name"] != args[3]]
    disks[:] = [d for d in disks if d["name"] != args[3]]
if re.match("compute instances (stop|start)", line):
    for m in machines:
        m["status"] = "TERMINATED" if args[2] == "stop" else "RUNNING"
if re.match("compute disks delete", line):
    disks[:] = [d for d in disks if d["name"] != args[3]]
(here / "next.json").write_text(json.dumps(world))
(here / "next.json").replace(here / "world.json")
if re.match("compute instances list", line):
    name = re.search("--filter=name=(\\\\S+)", line)
    print(json.dumps([m for m in machines if not name or m["name"] == name[1]]))
elif re.match("compute disks list", line):
    print(json.dumps(disks))
elif re.match("compute images list", line):
    print("NAME PROJECT FAMILY DEPRECATED STATUS")
    for family in world["families"]:
        print(f"{{family}}-v20261101  deeplearning-platform-release  {{family}}    READY")
elif "config get project" in line:
    print("my-project")
elif "first_boot.sh" in line:
    print("0123abcd")
elif args[1] == "scp":
    shutil.copy(args[2], here / "uploaded.tar.gz")
if world["slow"] and re.search(world["slow"], line):
    time.sleep(60)
"""
MACHINE = {"name": "fastai-demo", "zone": "x/us-central1-a", "status": "RUNNING"}
LEFT_OVER = {"name": "old-disk", "zone": "x/us-east1-b", "sizeGb": "50"}


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
        self.folder = folder
        program = folder / "gcloud"
        program.write_text(STAND_IN.format(python=sys.executable))
        program.chmod(0o755)
        self.set(machines=[], disks=[], troubles=[], families=[family], slow="")

    def set(self, **changes):
        file = self.folder / "world.json"
        world = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**world, **changes}))

    @property
    def machines(self):
        return json.loads((self.folder / "world.json").read_text())["machines"]

    @property
    def calls(self):
        """The commands, as one types them."""
        file = self.folder / "calls.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [shlex.join(["gcloud", *json.loads(line)]) for line in lines]

    def called(self, what):
        return any(what in call for call in self.calls)


@pytest.fixture
def cloud(tmp_path, vm, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(vm, "NEEDED", "gcp")  # to pack all of it takes seconds
    return Cloud(tmp_path, vm.FAMILY)


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
        return message, capfd.readouterr().out

    return run


# --- what it does


@pytest.mark.parametrize("part", PARTS)
def test_a_dry_run_prints_the_commands_that_are_run_and_runs_none(part, cloud, do, tmp_path):
    message, dry = do(part, "--dry-run")
    assert message is None
    assert cloud.calls == []
    assert not (ROOT / "doraemon-or-walle.tar.gz").exists()

    cloud.set(machines=[] if part == "create" else [MACHINE])
    message, _ = do(part, answers=["yes"])
    assert message is None
    commands = [line for line in dry.splitlines() if not line.startswith("python3")]
    assert commands == cloud.calls
    assert all(command.startswith("gcloud ") for command in commands)


def test_create_asks_before_it_spends(cloud, do, vm):
    for answers in (["no"], [""], ["y"], ["y", "no"], []):
        message, said = do("create", answers=answers)
        assert message == "Nothing was rented."
    assert not cloud.called("instances create")
    told = "This costs money from now on", "g2-standard-4 with one L4", "4 hours after each start"
    assert all(words in said for words in (*told, "until you delete it", vm.FAMILY, vm.PRICES))


def test_nothing_is_rented_if_the_project_can_not_be_packed(cloud, do, vm, monkeypatch):
    monkeypatch.setattr(vm, "NEEDED", "gcp no-such-folder")
    message, _ = do("create", answers=["yes"])
    assert message.startswith("The project could not be packed; nothing was rented.")
    assert "no-such-folder" in message
    assert not cloud.called("instances create")
    assert not (ROOT / vm.ARCHIVE).exists()


def test_create_takes_what_one_asks_for(cloud, do):
    args = "create --gpu t4 --zone us-east1-c --standard --hours 2 --name mine".split()
    message, said = do(*args, answers=["yes"])
    assert message is None
    create = next(call for call in cloud.calls if "instances create" in call)
    assert "instances create mine --zone=us-east1-c --machine-type=n1-standard-4" in create
    assert "--accelerator=type=nvidia-tesla-t4,count=1" in create
    assert "--provisioning-model=STANDARD --instance-termination-action=STOP" in create
    assert "--max-run-duration=2h" in create
    assert "It is ready and costs money." in said


def test_create_sends_all_that_the_machine_needs(cloud, do, tmp_path, vm, monkeypatch):
    monkeypatch.setattr(vm, "NEEDED", NEEDED)
    assert do("create", answers=["yes"])[0] is None
    with tarfile.open(tmp_path / "uploaded.tar.gz") as archive:
        names = set(archive.getnames())
    assert set(NEEDED.split()) <= names
    assert {"gcp/first_boot.sh", "imgs/test/walle.113.jpg", "tools/setup_env.py"} <= names
    assert not (ROOT / vm.ARCHIVE).exists()


def test_create_takes_the_newest_image(vm):
    families = [
        "common-cu129-ubuntu-2404-nvidia-580",
        "pytorch-2-7-cu128-ubuntu-2204-nvidia-570",
        "pytorch-2-9-cu129-ubuntu-2204-nvidia-580",
        "pytorch-2-9-cu129-ubuntu-2404-nvidia-580",
        "pytorch-2-10-cu130-ubuntu-2404-nvidia-580",
    ]
    rows = "".join(
        f"{name}-v2026  deeplearning-platform-release  {name}  READY\n" for name in families
    )
    assert vm.newest_family(rows) == families[-1]
    assert vm.newest_family(rows.replace(families[-1], "other")) == families[-2]
    only_bare = "x-v1  deeplearning-platform-release  common-cu129-ubuntu-2404-nvidia-580  READY"
    assert vm.newest_family(only_bare) == families[0]
    older = "x-v1  deeplearning-platform-release  pytorch-2-9-cu129-ubuntu-2204-nvidia-580  READY"
    assert vm.newest_family(f"{only_bare}\n{older}") == families[0]  # 22.04's Python may be 3.10
    with pytest.raises(vm.Problem, match="no image with an NVIDIA driver 580"):
        vm.newest_family("pytorch-2-7-cu128-ubuntu-2204-nvidia-570")


def test_a_machine_of_that_name_is_not_rented_twice(cloud, do):
    cloud.set(machines=[MACHINE])
    message, _ = do("create", answers=["yes"])
    assert "There is a machine fastai-demo already, in us-central1-a" in message
    message, _ = do("create", "--zone", "us-east1-c", answers=["yes"])  # it would cost twice
    assert "There is a machine fastai-demo already, in us-central1-a" in message
    assert not cloud.called("instances create")


def test_connect_starts_a_stopped_machine_only_if_told_to(cloud, do):
    stopped = {**MACHINE, "status": "TERMINATED"}
    cloud.set(machines=[stopped])
    assert do("connect", answers=["no"])[0] == "It stays stopped; only its disk costs money."
    assert not cloud.called("instances start")
    message, said = do("connect", answers=["yes"])
    assert message is None
    kinds = [call.split("fastai-demo")[0] for call in cloud.calls[-4:]]
    ssh = "gcloud compute ssh "
    assert kinds == ["gcloud compute instances start ", ssh, ssh, ssh]
    assert cloud.calls[-1].endswith(" -- -N -L 8080:localhost:8080")
    assert "http://localhost:8080/lab/tree/demo.ipynb?token=0123abcd" in said
    assert said.strip().endswith("The tunnel is closed; the machine runs on, and costs money.")


def test_a_connect_that_fails_says_that_the_machine_may_run(cloud, do):
    stopped = {**MACHINE, "status": "TERMINATED"}
    for stage in ("instances start", "--command=true", "first_boot.sh"):
        cloud.set(machines=[stopped], troubles=[[stage, "out of order"]])
        message, _ = do("connect", answers=["yes"])
        assert "fastai-demo may be running, and then it costs money" in message
    assert "`delete` it, then `create` it anew" in message


def test_where_ssh_is_blocked_all_goes_through_googles_gate(cloud, do):
    for part in ("create", "connect"):
        assert do(part, "--iap", answers=["yes"])[0] is None
    calls = [call for call in cloud.calls if " ssh " in call or " scp " in call]
    assert len(calls) == 5
    assert all(" --tunnel-through-iap" in call.split(" -- ")[0] for call in calls)
    assert not any("instances" in call and "iap" in call for call in cloud.calls)


@pytest.mark.parametrize(
    ("machines", "message"),
    [
        ([], "There is no machine fastai-demo: `create` rents one."),
        ([{**MACHINE, "status": "STOPPING"}], "fastai-demo is just stopping: type this again"),
        (
            [MACHINE, {**MACHINE, "zone": "x/us-east1-c"}],
            "(us-central1-a, us-east1-c): add --zone.",
        ),
    ],
    ids=["none", "stopping", "two"],
)
def test_connect_without_a_machine_to_connect_to(machines, message, cloud, do):
    cloud.set(machines=machines)
    assert message in do("connect")[0]
    assert not cloud.called("ssh")


def test_a_port_that_is_taken_is_named(cloud, do):
    cloud.set(machines=[MACHINE])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message, _ = do("connect", "--port", str(port))
    assert message.startswith(f"Port {port} of this computer is taken")
    assert f"--port {port + 1}" in message
    assert cloud.calls == []


@pytest.mark.parametrize("port", ["0", "99999", "-1", "eight"])
def test_a_port_that_is_none_is_refused(vm, cloud, port, capsys):
    with pytest.raises(SystemExit) as caught:
        vm.options(["connect", f"--port={port}"])
    assert caught.value.code == 2 and cloud.calls == []
    assert f"{port} is not a port: give a number from 1 to 65535" in capsys.readouterr().err


def test_the_tunnel_breaks_off(cloud, do):
    cloud.set(machines=[MACHINE], troubles=[["-N -L", "Connection closed"]])
    assert do("connect")[0].startswith("The tunnel broke off.")


def test_status_says_what_costs_money(cloud, do):
    said = do("status")[1]
    assert "Project my-project:" in said and "No machine and no disk" in said
    cloud.set(machines=[{**MACHINE, "status": "TERMINATED"}], disks=[LEFT_OVER])
    said = do("status")[1]
    assert "machine fastai-demo, us-central1-a: TERMINATED" in said
    assert "disk old-disk, us-east1-b, 50 GB: LEFT OVER, no machine uses it" in said
    assert "Nothing runs, but 1 disks still cost money" in said
    cloud.set(machines=[MACHINE, {**MACHINE, "name": "other"}])
    said = do("status")[1]
    assert "COSTS MONEY: running fastai-demo, other, and 1 disks. After `stop` the disks" in said


def test_stop_ends_with_what_still_costs(cloud, do):
    cloud.set(machines=[MACHINE], disks=[{**LEFT_OVER, "users": ["it"]}])
    message, said = do("stop")
    assert message is None
    assert cloud.machines[0]["status"] == "TERMINATED"
    assert "Nothing runs, but 1 disks still cost money until they are deleted." in said


def test_delete_asks_for_the_machine_and_for_each_disk_left_over(cloud, do):
    cloud.set(machines=[MACHINE], disks=[LEFT_OVER, {**LEFT_OVER, "name": "used", "users": ["it"]}])
    assert do("delete", answers=["no"])[0] == "fastai-demo is kept, and costs money."
    assert cloud.machines == [MACHINE]
    message, said = do("delete", answers=["y", "yes", "yes"])
    assert "Please type the whole word, yes or no." in said
    assert message is None and cloud.machines == []
    assert cloud.called("disks delete old-disk --zone=us-east1-b --quiet")
    assert not cloud.called("disks delete used")
    assert "1 disks still cost money" in said  # the one that another machine uses
    cloud.set(disks=[{"name": "wide", "region": "x/us-east1", "sizeGb": "9"}])
    assert do("delete", answers=["yes"])[0] is None
    assert cloud.called("disks delete wide --region=us-east1 --quiet")


# --- what goes wrong

# What gcloud says, the stage at which it says it, and the way out that the person is told.
TROUBLES = [
    ("You do not currently have an active account selected.", "list", "gcloud auth login"),
    ("Reauthentication failed. cannot prompt during non-interactive", "list", "gcloud auth login"),
    ("The required property [project] is not currently set.", "list", "config set project ID"),
    ("Compute Engine API has not been used in project 1 before", "list", "gcloud services enable"),
    ("This API method requires billing to be enabled.", "list", "No billing account pays"),
    ("Quota 'GPUS_ALL_REGIONS' exceeded. Limit: 0.0 globally.", "create", "no GPU yet"),
    ("Quota 'NVIDIA_L4_GPUS' exceeded. Limit: 0.0 in region us-central1.", "create", "is used up"),
    ("code: ZONE_RESOURCE_POOL_EXHAUSTED", "create", "Google has no such machine left there"),
    ("does not have enough resources available to fulfill the request", "create", "--zone"),
    ("Required 'compute.instances.create' permission for 'x'", "create", "Your account may not"),
    ("something else altogether", "create", "That failed."),
]


@pytest.mark.parametrize(("trouble", "stage", "way"), TROUBLES, ids=[t[0][:30] for t in TROUBLES])
def test_what_gcloud_says_comes_with_the_way_out(trouble, stage, way, cloud, do):
    cloud.set(troubles=[[f"instances {stage}", f"ERROR: (gcloud.compute) {trouble}"]])
    message, said = do("create", answers=["yes"])
    text = f"{message}\n{said}"
    assert way in text and trouble in text
    assert "Traceback" not in text
    assert cloud.machines == []
    if stage == "create":
        assert message.startswith("No machine fastai-demo is there.")
    else:
        assert not cloud.called("instances create")


def test_the_way_out_is_found_in_a_long_answer_too(cloud, do):
    cloud.set(troubles=[["instances create", "ZONE_RESOURCE_POOL_EXHAUSTED" + 200 * " detail"]])
    assert "Google has no such machine left there" in do("create", answers=["yes"])[1]


@pytest.mark.parametrize("stage", ["--command=true", "scp", "first_boot.sh"])
def test_a_machine_that_fails_on_the_way_is_not_left_behind(stage, cloud, do, vm):
    cloud.set(troubles=[[stage, "ssh: no route"]])
    message, said = do("create", answers=["yes", "yes"])
    assert "The machine fastai-demo exists and costs money. Delete it?" in said
    assert cloud.machines == []
    assert message.startswith("No machine fastai-demo is there.")
    assert not (ROOT / vm.ARCHIVE).exists()

    for answers in (["yes", "no"], ["yes"]):  # the second: the input ends
        cloud.set(machines=[])
        message, _ = do("create", answers=answers)
        assert message == "fastai-demo still exists and costs money: `delete` removes it."


def test_if_google_can_not_be_asked_what_is_left_it_says_so(cloud, do, vm):
    looks = []
    find = vm.find

    def look(opts, **how):
        looks.append(1)
        if len(looks) > 1:
            raise vm.Problem("No network.")
        return find(opts, **how)

    vm.find, before = look, vm.find
    try:
        cloud.set(troubles=[["instances create", "no network"]])
        message, _ = do("create", answers=["yes"])
    finally:
        vm.find = before
    assert message.startswith("Whether a machine fastai-demo exists can't be told: see https://")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent to a group of processes, as on Unix")
@pytest.mark.parametrize("stage", ["instances create", "--command=true", "scp", "first_boot.sh"])
def test_ctrl_c_offers_to_delete_the_machine(stage, cloud, vm):
    cloud.set(slow=stage)
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "create"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    process.stdin.write("yes\nyes\n")
    process.stdin.flush()
    end = time.monotonic() + 60
    while not (cloud.called(stage) and cloud.machines):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Delete it?" in said and cloud.machines == []
    assert said.strip().endswith("To be sure, type `status` in a minute again.")
    assert "Traceback" not in said
    assert not (ROOT / vm.ARCHIVE).exists()


def test_without_gcloud_it_says_what_to_install(do, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    message, _ = do("status")
    assert message.startswith("There is no gcloud on this computer: install it (setup_gcp.md, step")


# --- Google's own word on it


def blocks():
    """The lines of each grey box of the guide."""
    text = GUIDE.read_text(encoding="utf-8")
    found = re.findall(r"(?ms)^```bash\n(.*?)^```", text)
    assert len(found) >= 10 and text.count("```") == 2 * len(found)
    return [block.splitlines() for block in found]


def dry_run(*args):
    """What the script says that it would do, line by line."""
    done = subprocess.run(
        [sys.executable, SCRIPT, *args, "--dry-run"], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def gcloud_commands():
    """All gcloud commands of the guide and of the script, as lists of words, without doubles."""
    lines = [line for block in blocks() for line in block]
    lines += re.findall(r"`(gcloud [^`]+)`", GUIDE.read_text(encoding="utf-8"))
    lines += [line for part in PARTS for line in dry_run(part)]
    lines += dry_run("create", "--gpu=t4", "--standard", "--hours=2", "--iap")
    lines += dry_run("connect", "--iap")
    lines += ["gcloud compute instances start x --zone=us-central1-a"]
    places = ("--zone=us-central1-a", "--region=us-central1")
    lines += [f"gcloud compute disks delete x {place} --quiet" for place in places]
    words = [shlex.split(line, comments=True) for line in lines]
    return [list(one) for one in dict.fromkeys(map(tuple, words)) if one[:1] == ("gcloud",)]


@pytest.mark.slow
def test_gcloud_itself_accepts_every_command(tmp_path):
    if not shutil.which("gcloud"):
        pytest.skip("there is no gcloud on this machine to check its commands with")
    wrong = "gcloud compute instances create x --provisioning-model=NONE"
    lines = [wrong]
    for words in gcloud_commands():
        # Its checker takes what follows `--`, which is for ssh, for its own, and undoes quotes.
        words = words[: words.index("--")] if "--" in words else words
        words = ["--command=x" if word.startswith("--command=") else word for word in words]
        lines.append(" ".join(words))
    assert len(lines) >= 20
    file = tmp_path / "lines.json"
    file.write_text(json.dumps([{"command_string": line} for line in lines]))
    done = subprocess.run(
        ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={file}"],
        capture_output=True,
        text=True,
        env={**os.environ, "CLOUDSDK_CONFIG": str(tmp_path / "config")},
    )
    found = {one["command_string"]: one["error_message"] for one in json.loads(done.stdout)}
    assert "Invalid choice: 'NONE'" in found.pop(wrong)
    assert found == dict.fromkeys(lines[1:])


@pytest.fixture(scope="module")
def schemas():
    """Google's published description of its compute interface."""
    folder = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
    return json.loads((folder / "compute.v1.json").read_text(encoding="utf-8"))["schemas"]


def test_values_and_fields_are_those_of_googles_interface(schemas, vm):
    scheduling = schemas["Scheduling"]["properties"]
    asked = {
        "--provisioning-model": scheduling["provisioningModel"]["enum"],
        "--instance-termination-action": scheduling["instanceTerminationAction"]["enum"],
        "--maintenance-policy": scheduling["onHostMaintenance"]["enum"],
    }
    flags = [word for command in gcloud_commands() for word in command if "=" in word]
    for flag, allowed in asked.items():
        values = {word.split("=")[1] for word in flags if word.startswith(flag + "=")}
        assert values and values <= set(allowed), flag
    assert scheduling["maxRunDuration"]["$ref"] == "Duration"
    hours = [word for word in flags if word.startswith("--max-run-duration=")]
    assert all(re.fullmatch(r"--max-run-duration=\d+h", word) for word in hours)
    # What the script reads in Google's answers.
    machine, disk = schemas["Instance"]["properties"], schemas["Disk"]["properties"]
    assert {"name", "zone", "status"} <= set(machine)
    assert {"name", "zone", "region", "sizeGb", "users"} <= set(disk)
    code = SCRIPT.read_text(encoding="utf-8")
    states = set(re.findall(r'"([A-Z_]+)"', "".join(re.findall(r"status.*?in \((.*?)\)", code))))
    assert states and states <= set(machine["status"]["enum"])


# --- the guide and the script say the same


def test_every_line_of_the_guide_is_checked_by_something(vm):
    plain = {"cd doraemon-or-walle", "mkdir results"}
    for block in blocks():
        for line in block:
            words = shlex.split(line, comments=True)
            if words[:2] == ["python3", "gcp/vm.py"]:
                vm.options(words[2:])  # ends the test if it can't be read
            elif words[:2] == ["python3", "-m"]:
                assert line in dry_run("create")
            elif words and words[0] != "gcloud":  # those the checks above know
                assert " ".join(words) in plain, line


def test_by_hand_it_is_what_the_script_does():
    by_hand = {}
    for first, *lines in blocks():
        if found := re.fullmatch(r"# python3 gcp/vm\.py (\w+)", first):
            by_hand[found[1]] = [shlex.split(line) for line in lines]
    assert set(by_hand) == {"create", "connect", "stop", "delete"}
    for part, commands in by_hand.items():
        assert commands == [shlex.split(line) for line in dry_run(part)], part


# Messages that the guide explains and that neither the script nor the set-up says or explains: they
# stand in Google's console, in ssh or in PyTorch, or can't come where the script is used.
ELSEWHERE = {
    "family/… was not found",
    "Permission denied (publickey)",
    "The NVIDIA driver on your system is too old",
    "channel 3: open failed: connect failed: Connection refused",
}


def test_the_messages_that_the_guide_explains_are_real(vm):
    text = GUIDE.read_text(encoding="utf-8")
    section = re.search(r"(?ms)^## When something goes wrong\n(.*?)^## ", text)[1]
    bullets = re.findall(r"^- (`.*)$", section, re.M)
    assert len(bullets) >= 15
    own = SCRIPT.read_text(encoding="utf-8") + BOOT.read_text(encoding="utf-8")
    own = re.sub(r"\{[^{}\n]*\}|\$port", "8080", re.sub(r'"\n\s*f?"', "", own))
    elsewhere = set()
    for bullet in bullets:
        head = re.match(r"(?:`[^`]+`(?: or )?)+", bullet)[0]
        for message in re.findall(r"`([^`]+)`", head):
            ways = [way for words, way in vm.WAYS_OUT.items() if re.search(words, message)]
            if ways:  # what the script says to do stands in the guide as well
                typed = re.findall(r"`([^`]+)`", ways[0])
                assert all(command in text for command in typed), message
            elif message not in own:
                elsewhere.add(message)
    assert elsewhere == ELSEWHERE


# --- the set-up of the machine


def test_shellcheck_finds_nothing():
    program = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([program, BOOT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


class Account:
    """An ordinary user, fresh, with a home folder of their own."""

    def __init__(self):
        self.name = f"walle{os.getpid()}"
        done = subprocess.run(
            ["useradd", "--create-home", self.name], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"no user can be added here: {done.stderr.strip()}")
        self.number = pwd.getpwnam(self.name).pw_uid
        self.home = Path(pwd.getpwnam(self.name).pw_dir)

    def processes(self):
        """Their running processes."""
        all = psutil.process_iter(["uids"])  # those that have just ended tell nothing
        return [p for p in all if p.info["uids"] and p.info["uids"].real == self.number]

    def run(self, command, **variables):
        """Run a line of bash as they would, signed in by ssh."""
        keep = ("PATH", "LANG", "PIP_", "UV_", "SSL_", "http_proxy", "https_proxy", "no_proxy")
        env = {name: value for name, value in os.environ.items() if name.startswith(keep)}
        env.update(HOME=str(self.home), USER=self.name, TMPDIR=str(self.home), **variables)
        env.pop("UV_CACHE_DIR", None)
        return subprocess.run(
            [*as_nobody(self.number), "bash", "-c", command],
            cwd=self.home,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def kill(self):
        """End what they run, and what that starts meanwhile."""
        end = time.monotonic() + 60
        while (running := self.processes()) and time.monotonic() < end:
            for process in running:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(running, timeout=30)

    def remove(self):
        """End what they run, and delete the account with all its files."""
        self.kill()
        # It complains of a mailbox that there never was.
        subprocess.run(["userdel", "--remove", self.name], capture_output=True)
        assert not self.home.exists() and self.name not in {user.pw_name for user in pwd.getpwall()}


def status(port, token=None):
    """What JupyterLab answers to who shows this token, or none."""
    headers = {"Authorization": f"token {token}"} if token else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/status", headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=30).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


# Plays systemd for one user: keeps nothing, but starts what the service says.
SYSTEMCTL = """#!/bin/bash
echo "$*" >>"$HOME/systemctl.log"
[ "$1 $2" != "--user is-active" ] && [ "$1" = --user ] || exit 3
unit=$HOME/.config/systemd/user/doraemon-or-walle.service
if [ "$2" = restart ]; then
    line=$(sed -n 's/^ExecStart=//p' "$unit")
    eval "$(sed -n 's/^Environment=/export /p' "$unit")" 
    eval "setsid $line >>$HOME/jupyterlab.log 2>&1 </dev/null &"
fi
"""


@pytest.mark.slow
@needs_root
def test_a_machine_is_set_up_for_real(vm):
    if shutil.disk_usage("/home").free < 10e9:
        pytest.skip("less than 10 GB are free for the set-up of a second user")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    account = Account()
    try:
        pack = [sys.executable, "-m", "tarfile", "-c", account.home / vm.ARCHIVE]
        subprocess.run([*pack, *NEEDED.split()], cwd=ROOT, check=True)
        *_, last = dry_run("create")
        command = shlex.split(last)[-1].removeprefix("--command=")
        done = account.run(command, PORT=port)
        assert done.returncode == 0, done.stderr
        token = done.stdout.strip()
        assert re.fullmatch("[0-9a-f]{48}", token)
        assert "No GPU answers here: the notebook will run on the CPU." in done.stderr
        assert f"JupyterLab answers on 127.0.0.1:{port}" in done.stderr
        assert (status(port, token), status(port), status(port, "0" * 48)) == (200, 403, 403)
        assert listeners(account, port) == {"127.0.0.1"}
        secret = account.home / ".doraemon-or-walle.token"
        assert secret.stat().st_mode & 0o077 == 0
        assert not any(token in " ".join(p.cmdline()) for p in account.processes())

        again = "bash doraemon-or-walle/gcp/first_boot.sh"
        servers = {p.pid for p in account.processes()}
        assert account.run(again, PORT=port).stdout.strip() == token
        assert {p.pid for p in account.processes()} == servers

        account.kill()
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", int(port)))
            other.listen()
            done = account.run(again, PORT=port)
        assert done.returncode == 1
        assert f"Port {port} of the machine is taken by another program" in done.stderr

        assert account.run(again, PORT=port).stdout.strip() == token
        assert status(port, token) == 200
        account.kill()

        programs = account.home / "bin"
        programs.mkdir()
        for name in ("systemctl", "loginctl"):
            (programs / name).write_text(SYSTEMCTL)
            (programs / name).chmod(0o755)
        done = account.run(f'PATH="$HOME/bin:$PATH" {again}', PORT=port)
        assert done.stdout.strip() == token, done.stderr
        assert status(port, token) == 200
        told = (account.home / "systemctl.log").read_text()
        assert "--user enable --quiet doraemon-or-walle" in told  # comes back at each boot
        assert f"enable-linger {account.name}" in told  # also with nobody signed in
        unit = account.home / ".config/systemd/user/doraemon-or-walle.service"
        if shutil.which("systemd-analyze"):
            checked = subprocess.run(
                ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True
            )
            assert (checked.returncode, checked.stderr) == (0, "")
    finally:
        account.remove()
    assert account.processes() == []
    assert not list(Path(tempfile.gettempdir()).glob(f"*{account.name}*"))


def listeners(account, port):
    """The addresses at which somebody listens on a port."""
    found = [c for p in account.processes() for c in p.net_connections("tcp")]
    return {
        c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN and c.laddr.port == int(port)
    }


# An image's own Jupyter, which lets in whoever comes and takes a second to end, and what systemd
# knows of it: `disable --now` returns once the service has ended.
OPEN_SERVER = """
import http.server, signal, sys, time
def end_slowly(*_):
    time.sleep(1)
    sys.exit()
signal.signal(signal.SIGTERM, end_slowly)
class Open(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Open).serve_forever()
"""
ONE_SERVICE = """#!/bin/bash
case $* in
"is-active --quiet jupyter") test -s "$HOME/image.pid" ;;
"disable --now jupyter")
    kill "$(cat "$HOME/image.pid")"
    while (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; do sleep 0.1; done
    ;;
*) exit 1 ;;
esac
"""


# What systemd knows of our own service, which the boot started a moment ago.
OURS_IS_STARTING = """#!/bin/bash
echo "$*" >>"$HOME/systemctl.log"
[ "$*" = "--user is-active --quiet doraemon-or-walle" ]
"""


@pytest.fixture
def machine(public):  # noqa: F811
    """A machine with the project, where `make setup` has nothing to do and our Python is used.

    A function that makes it: (text of its systemctl) to (the set-up's command, what it runs in).
    """

    def make(systemctl):
        project, programs = public / "doraemon-or-walle", public / "bin"
        for folder in (project / "gcp", project / ".venv" / "bin", programs):
            folder.mkdir(parents=True)
        shutil.copy(BOOT, project / "gcp")
        (project / "Makefile").write_text("setup:\n\t@true\n")
        files = {
            project / ".venv" / "bin" / "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
            programs / "systemctl": systemctl,
            programs / "sudo": '#!/bin/bash\nshift\nexec "$@"\n',
        }
        for file, text in files.items():
            file.write_text(text)
            file.chmod(0o755)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = str(s.getsockname()[1])
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        env = {"HOME": str(public), "TMPDIR": str(public), "PATH": path, "PORT": port}
        return [*as_nobody(), "bash", project / "gcp" / "first_boot.sh"], {**os.environ, **env}

    yield make
    server = public / ".doraemon-or-walle.pid"
    if server.exists():
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(server.read_text()))
            process.kill()
            psutil.wait_procs([process], timeout=30)


@pytest.mark.slow
@needs_root
def test_a_server_that_the_boot_has_just_started_is_waited_for(machine, public):  # noqa: F811
    boot, env = machine(OURS_IS_STARTING)
    token = public / ".doraemon-or-walle.token"
    token.write_text("0" * 48)
    token.chmod(0o644)
    late = shlex.join(map(str, [*boot, "serve"]))
    server = subprocess.Popen(["bash", "-c", f"sleep 2; exec {late}"], env=env)
    try:
        done = subprocess.run(boot, env=env, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "0" * 48), done.stderr
        assert "restart" not in (public / "systemctl.log").read_text()
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize("known", [True, False], ids=["a service", "a stranger"])
def test_a_jupyter_without_token_is_not_taken_for_ours(known, machine, public):  # noqa: F811
    boot, env = machine(ONE_SERVICE)
    port = env["PORT"]
    (public / "open.py").write_text(OPEN_SERVER)
    image = subprocess.Popen(
        [*as_nobody(), sys.executable, public / "open.py", port], stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 60
        while status(port) != 200:
            assert image.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        if known:
            (public / "image.pid").write_text(str(image.pid))
        done = subprocess.run(
            boot,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if known:
            assert done.returncode == 0, done.stderr
            assert "Stopping the image's own Jupyter" in done.stderr
            assert image.wait(60) is not None
            assert (status(port, done.stdout), status(port)) == (200, 403)
        else:
            assert (done.returncode, done.stdout) == (1, "")
            assert f"Port {port} of the machine is taken by another program" in done.stderr
            assert status(port) == 200  # nothing of somebody else's was ended
    finally:
        image.kill()
        image.wait()
