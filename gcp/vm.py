"""Rent one machine with a GPU from Google Cloud, use it, and leave nothing behind.

    python3 gcp/vm.py create     rent it and set it up (asks first)
    python3 gcp/vm.py connect    open JupyterLab on it, through an SSH tunnel
    python3 gcp/vm.py status     what runs, and what costs money
    python3 gcp/vm.py stop       stop it; its disk stays, and costs money
    python3 gcp/vm.py delete     delete it and its disk (asks first)

Each takes --dry-run, which prints the commands and runs none. setup_gcp.md tells the whole story.
Needs gcloud and Python's standard library, from Python 3.8 on.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tools.helpers import ROOT, port_trouble, read_port, shown  # noqa: E402

PROJECT = "doraemon-or-walle"  # the folder's name on the machine
ARCHIVE = PROJECT + ".tar.gz"
# What a run needs. gcp comes last: a machine that has it has all the rest.
NEEDED = "Makefile demo.ipynb demo.zh-CN.ipynb imgs requirements.txt tools tutorial weights gcp"
FIRST_BOOT = f"bash {PROJECT}/gcp/first_boot.sh"
GPUS = {  # G2 machines come with their L4
    "l4": ["--machine-type=g2-standard-4"],
    "t4": ["--machine-type=n1-standard-4", "--accelerator=type=nvidia-tesla-t4,count=1"],
}
ZONE = "us-central1-a"
IMAGES = "deeplearning-platform-release"
FAMILY = "pytorch-2-9-cu129-ubuntu-2404-nvidia-580"  # for dry runs; `create` asks for the newest
DRIVER = 580  # the oldest that our torch, built for CUDA 13, works with
SSH_WAIT, PAUSE = 300, 10  # seconds that a new machine has to answer; and between two tries
CONSOLE = "https://console.cloud.google.com"
PRICES = "https://cloud.google.com/products/calculator"
# What gcloud says, and the way out. setup_gcp.md tells more of each.
WAYS_OUT = {
    "active account selected|[Rr]eauth|invalid_grant": "You are not signed in: type"
    " `gcloud auth login`, then this again.",
    r"property \[project\]": "No project is chosen: type `gcloud config set project ID` with your"
    " project's ID, then this again.",
    "SERVICE_DISABLED|has not been used|not enabled on": "Compute Engine is not switched on: type"
    " `gcloud services enable compute.googleapis.com`, then this again.",
    "[Bb]illing|BILLING": "No billing account pays for this project: link one at"
    f" {CONSOLE}/billing, then type this again.",
    "GPUS.ALL.REGIONS": "Google lets this project have no GPU yet: ask for 1 of the quota"
    f" `GPUs (all regions)` at {CONSOLE}/iam-admin/quotas (in a free trial upgrade first).",
    "Quota|QUOTA": "A quota of this project is used up: ask for more of the one named below at"
    f" {CONSOLE}/iam-admin/quotas, or try another --zone or --gpu.",
    "RESOURCE_POOL_EXHAUSTED|not have enough resources": "Google has no such machine left there"
    " just now: wait an hour, or `create` one with another --zone (below it may name some that have"
    " any), --gpu t4, or --standard. A stopped machine can't move: `delete` it first.",
    "PERMISSION_DENIED|Required '.*' permission": "Your account may not do that in this project:"
    " `gcloud config list` shows account and project.",
}


class Problem(Exception):
    """Something the person must put right; the message says what and how."""


def run(opts, *command, read=True, silent=True):
    """Show a command and, unless this is a dry run, run it.

    Parameters
    ----------
    read : bool
        Whether to return what it prints, instead of letting the person see it.
    silent : bool
        Whether to hold back its errors too, and to explain them. Such a command can ask nothing.

    Returns
    -------
    str
        What it prints, if `read`; "" in a dry run.

    Raises
    ------
    Problem
        If there is no such command here, or if it fails.
    """
    print(f"{'' if opts.dry_run else '$ '}{shown(command)}", flush=True)
    if opts.dry_run:
        return ""
    program = sys.executable if command[0] == "python3" else shutil.which(command[0])
    if not program:  # Windows finds gcloud.cmd only by its full path
        raise Problem(
            "There is no gcloud on this computer: install it (setup_gcp.md, step 4), open a new"
            " terminal, and type this again."
        )
    done = subprocess.run(
        [program, *command[1:]],
        cwd=ROOT,
        stdin=subprocess.DEVNULL if silent else None,
        stdout=subprocess.PIPE if read else None,
        stderr=subprocess.PIPE if silent else None,
    )
    if done.returncode:
        said = (done.stderr or b"").decode(errors="replace").strip()
        ways = [way for words, way in WAYS_OUT.items() if re.search(words, said)]
        raise Problem(f"{ways[0] if ways else 'That failed.'}\n\n{said[-3000:]}".strip())
    return (done.stdout or b"").decode(errors="replace")


def compute(opts, *words, **how):
    """`run` for `gcloud compute ...`."""
    return run(opts, "gcloud", "compute", *words, **how)


def listing(opts, kind, *words):
    """What `gcloud compute KIND list` knows, as a list of dicts; empty in a dry run."""
    return json.loads(compute(opts, kind, "list", *words, "--format=json") or "[]")


def zone_of(thing):
    """The zone, or region, of a machine or disk."""
    return (thing.get("zone") or thing.get("region", "?")).rsplit("/", 1)[-1]


def find(opts, everywhere=False):
    """The machine of this name, or None; looked for in all zones unless one is asked for."""
    found = listing(opts, "instances", f"--filter=name={opts.name}")
    found = [machine for machine in found if everywhere or opts.zone in (None, zone_of(machine))]
    if len(found) > 1:
        zones = ", ".join(map(zone_of, found))
        raise Problem(f"Several machines are named {opts.name} ({zones}): add --zone.")
    return found[0] if found else None


def there(opts, machine):
    """Name and zone, as most commands want them."""
    return opts.name, f"--zone={zone_of(machine) if machine else opts.zone or ZONE}"


def by_ssh(opts, machine):
    """The same for ssh and scp, through Google's own gate if the person asks for it."""
    return *there(opts, machine), *(["--tunnel-through-iap"] if opts.iap else [])


def ask(opts, question):
    """Whether the person types yes; asked until it is yes or no. A dry run asks nothing."""
    if opts.dry_run:
        return True
    while True:
        try:
            answer = input(f"{question} Type yes or no: ").strip().lower()
        except (EOFError, KeyboardInterrupt):
            print()
            return False
        if answer in ("yes", "no"):
            return answer == "yes"
        print("Please type the whole word, yes or no.")


def newest_family(text):
    """The image family to use, out of what `gcloud compute images list` prints.

    Ubuntu 24.04's before others, for its Python 3.12 (the tutorial needs 3.11 to 3.13); PyTorch's
    before bare CUDA's; then the newest driver and version.
    """
    pattern = r"(?<!\S)((pytorch|common)-(?:(\d+)-(\d+)-)?cu\d+-ubuntu-(\d+)-nvidia-(\d+))(?!\S)"
    found = [
        (ubuntu == "2404", kind == "pytorch", int(driver), int(major or 0), int(minor or 0), family)
        for family, kind, major, minor, ubuntu, driver in re.findall(pattern, text)
        if int(driver) >= DRIVER
    ]
    if not found:
        raise Problem(
            f"Google lists no image with an NVIDIA driver {DRIVER} or newer: setup_gcp.md tells"
            " what to do under `family/... was not found`, and plan B does without."
        )
    return max(found)[-1]


def first_ssh(opts, machine):
    """Wait until the machine can be reached. The first time gcloud makes a key, and asks."""
    until = time.monotonic() + SSH_WAIT
    while True:
        try:
            command = ["ssh", *by_ssh(opts, machine), "--command=true"]
            return compute(opts, *command, read=False, silent=False)
        except Problem:
            if time.monotonic() > until:
                raise Problem(
                    "The machine can't be reached by SSH. Perhaps your network blocks it: add --iap"
                    " to go through Google's own gate."
                ) from None
            print("It does not answer yet; trying again.", flush=True)
            time.sleep(PAUSE)


def pack(opts):
    """Pack what the machine needs into one file."""
    try:
        run(opts, "python3", "-m", "tarfile", "-c", ARCHIVE, *NEEDED.split())
    except Problem as error:
        raise Problem(f"The project could not be packed; nothing was rented. {error}") from None


def upload(opts, machine):
    """Copy the packed project to the machine."""
    name, *where = by_ssh(opts, machine)
    try:
        compute(opts, "scp", ARCHIVE, f"{name}:{ARCHIVE}", *where, read=False, silent=False)
    except Problem:
        raise Problem("The project could not be copied to the machine.") from None


def first_boot(opts, machine, before=""):
    """Set the machine up and start JupyterLab, while the person looks on; returns its token."""
    try:
        command = ["ssh", *by_ssh(opts, machine), f"--command={before}{FIRST_BOOT}"]
        return compute(opts, *command, silent=False).strip()
    except Problem:
        raise Problem(
            "JupyterLab could not be started on the machine; the lines above say why. If they say"
            " `No such file or directory`, its set-up was never finished: `delete` it, then"
            " `create` it anew."
        ) from None


def create(opts):
    """Rent a machine and set it up; leave none behind half made without saying so."""
    if machine := find(opts, everywhere=True):  # a second one elsewhere would cost money as well
        raise Problem(
            f"There is a machine {opts.name} already, in {zone_of(machine)}: use `connect`, or"
            " `delete` it first."
        )
    images = [f"--project={IMAGES}", "--filter=family~nvidia", "--no-standard-images"]
    images = compute(opts, "images", "list", *images)
    family = FAMILY if opts.dry_run else newest_family(images)
    zone, model = opts.zone or ZONE, "STANDARD" if opts.standard else "SPOT"
    flags = [
        f"--zone={zone}",
        *GPUS[opts.gpu],
        f"--image-family={family}",
        f"--image-project={IMAGES}",
        "--maintenance-policy=TERMINATE",
        "--boot-disk-type=pd-balanced",
        "--boot-disk-size=100GB",
        "--metadata=install-nvidia-driver=True",
        f"--provisioning-model={model}",
        "--instance-termination-action=STOP",
        f"--max-run-duration={opts.hours}h",
    ]
    if not opts.dry_run:
        spot = "Standard" if opts.standard else "Spot: cheaper, but Google may stop it any time"
        print(
            f"\nThis costs money from now on:\n"
            f"  machine    {GPUS[opts.gpu][0].split('=')[1]} with one {opts.gpu.upper()}, in {zone}"
            f"\n  kind       {spot}\n"
            f"  hard stop  {opts.hours} hours after each start, it stops by itself\n"
            f"  disk       100 GB, paid for until you delete it, also while it is stopped\n"
            f"  image      {family}\n"
            f"Today's price: {PRICES}\n"
        )
    if not ask(opts, "Rent it now?"):
        raise Problem("Nothing was rented.")
    try:
        pack(opts)  # before anything costs money: the disk of this computer may be full
        rent(opts, zone, flags)
    finally:
        if not opts.dry_run:
            (ROOT / ARCHIVE).unlink(missing_ok=True)
    if not opts.dry_run:
        print("\nIt is ready and costs money. Go on with:  python3 gcp/vm.py connect")


def rent(opts, zone, flags):
    """Create the machine and set it up; if that fails, see to it that none is left unnoticed."""
    machine = {"zone": zone}
    try:
        compute(opts, "instances", "create", opts.name, *flags)
        first_ssh(opts, machine)
        upload(opts, machine)
        first_boot(opts, machine, f"mkdir -p {PROJECT} && tar -xzf {ARCHIVE} -C {PROJECT} && ")
    except (Problem, OSError, KeyboardInterrupt) as error:
        leave_none_behind(opts, str(error) or "Interrupted.")


def leave_none_behind(opts, why):
    """After something went wrong: say what exists, offer to delete it, end with a status."""
    print(f"\n{why}\n", flush=True)
    left = f"Whether a machine {opts.name} exists can't be told: see {CONSOLE}/compute/instances"
    try:
        machine = find(opts)
        left = f"{opts.name} still exists and costs money: `delete` removes it."
        if machine and ask(opts, f"The machine {opts.name} exists and costs money. Delete it?"):
            compute(opts, "instances", "delete", *there(opts, machine), "--quiet")
            machine = find(opts)
        if not machine:
            left = f"No machine {opts.name} is there. To be sure, type `status` in a minute again."
    except (Problem, KeyboardInterrupt) as error:
        print(error)
    raise Problem(left)


def connect(opts):
    """Start the machine if need be, then its JupyterLab, and open the tunnel to it."""
    if not opts.dry_run and (trouble := port_trouble(opts.port, "add --port {port}")):
        raise Problem(trouble)
    machine = find(opts)
    if not (machine or opts.dry_run):
        raise Problem(f"There is no machine {opts.name}: `create` rents one.")
    if machine and machine["status"] in ("STOPPING", "SUSPENDING"):
        raise Problem(f"{opts.name} is just stopping: type this again in a minute.")
    stopped = machine and machine["status"] in ("TERMINATED", "STOPPED")
    if stopped and not ask(
        opts, f"{opts.name} is stopped. Started, it costs money again. Start it?"
    ):
        raise Problem("It stays stopped; only its disk costs money.")
    try:
        if stopped:
            compute(opts, "instances", "start", *there(opts, machine))
            first_ssh(opts, machine)
        token = first_boot(opts, machine)
    except (Problem, KeyboardInterrupt) as error:
        raise Problem(
            f"{str(error) or 'Interrupted.'}\n\n{opts.name} may be running, and then it costs"
            " money: `status` tells, `stop` stops it."
        ) from None
    if not opts.dry_run:
        page = f"http://localhost:{opts.port}/lab/tree/demo.ipynb?token={token}"
        print(
            f"\nOpen in your browser: {page}\n"
            "The token is a password: show it to nobody. Leave this window open; Ctrl-C closes the"
            " tunnel.\nThe machine runs on, and costs money, until you type"
            " `python3 gcp/vm.py stop`.\n"
        )
    tunnel = ["--", "-N", "-L", f"{opts.port}:localhost:8080"]
    try:
        compute(opts, "ssh", *by_ssh(opts, machine), *tunnel, read=False, silent=False)
    except KeyboardInterrupt:
        print()
    except Problem:
        raise Problem(
            "The tunnel broke off. Perhaps the machine was stopped (Spot, or its hours are over):"
            " `status` tells, `connect` opens it again."
        ) from None
    if not opts.dry_run:  # on Windows the tunnel is a window of its own, which ends without a word
        print("The tunnel is closed; the machine runs on, and costs money.")


def status(opts):
    """Print every machine and disk of the whole project, and whether anything costs money."""
    project = run(opts, "gcloud", "config", "get", "project").strip()
    machines, disks = listing(opts, "instances"), listing(opts, "disks")
    if opts.dry_run:
        return
    print(f"\nProject {project}:")
    running = [m for m in machines if m["status"] not in ("TERMINATED", "STOPPED")]
    for m in machines:
        print(f"  machine {m['name']}, {zone_of(m)}: {m['status']}")
    for d in disks:
        used = "in use" if d.get("users") else "LEFT OVER, no machine uses it"
        print(f"  disk {d['name']}, {zone_of(d)}, {d['sizeGb']} GB: {used}")
    if running:
        names = ", ".join(m["name"] for m in running)
        print(
            f"COSTS MONEY: running {names}, and {len(disks)} disks. After `stop` the disks still"
            " cost; `delete` ends both."
        )
    elif machines or disks:
        print(f"Nothing runs, but {len(disks)} disks still cost money until they are deleted.")
    else:
        print(
            "No machine and no disk: nothing of that kind costs money any more. What you have used"
            f"\nappears, a day or so later, at {CONSOLE}/billing"
        )


def stop(opts):
    """Stop the machine, and show what still costs money."""
    machine = find(opts)
    if machine or opts.dry_run:
        compute(opts, "instances", "stop", *there(opts, machine))
    else:
        print(f"There is no machine {opts.name}.")
    status(opts)


def delete(opts):
    """Delete the machine and, one by one, disks that no machine uses; show that nothing is left."""
    machine = find(opts)
    if machine or opts.dry_run:
        question = f"Delete {opts.name} and its disk, with all that you made on it, for good?"
        if not ask(opts, question):
            raise Problem(f"{opts.name} is kept, and costs money.")
        compute(opts, "instances", "delete", *there(opts, machine), "--quiet")
    else:
        print(f"There is no machine {opts.name}.")
    for disk in [disk for disk in listing(opts, "disks") if not disk.get("users")]:
        name, where = disk["name"], zone_of(disk)
        if ask(opts, f"Disk {name} ({disk['sizeGb']} GB, {where}) has no machine. Delete it?"):
            place = f"--{'zone' if 'zone' in disk else 'region'}={where}"
            compute(opts, "disks", "delete", name, place, "--quiet")
    status(opts)


def port(text):
    """A port out of the command line."""
    try:
        return read_port(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def options(args):
    """The command line, read."""
    each = argparse.ArgumentParser(add_help=False)
    each.add_argument("--dry-run", action="store_true", help="print the commands, run none")
    each.add_argument("--name", default="fastai-demo", help="of the machine (fastai-demo)")
    each.add_argument("--zone", help=f"where it stands ({ZONE})")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    for part in (create, connect, status, stop, delete):
        sub = parts.add_parser(part.__name__, parents=[each], description=part.__doc__)
        sub.set_defaults(do=part)
        if part in (create, connect):
            sub.add_argument("--iap", action="store_true", help="where SSH is blocked")
        if part is create:
            sub.add_argument("--gpu", choices=GPUS, default="l4")
            sub.add_argument("--standard", action="store_true", help="not Spot: dearer, surer")
            sub.add_argument("--hours", type=int, default=4, choices=range(1, 25), metavar="1-24")
        if part is connect:
            sub.add_argument("--port", type=port, default=8080, help="of this computer (8080)")
    return parser.parse_args(args)


def main(args=None):
    """Do what the command line says."""
    opts = options(args)
    try:
        opts.do(opts)
    except Problem as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. `python3 gcp/vm.py status` shows what costs money.")


if __name__ == "__main__":
    main()
