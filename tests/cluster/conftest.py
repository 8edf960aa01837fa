"""A real Slurm on the loopback device, with a folder, key and ports of its own; started and stopped without systemd."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo")
CONF = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MaxArraySize={max_array}
KillWait=10
MinJobAge=300
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=100000 State=UNKNOWN
PartitionName=main Nodes=node1 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=urgent Nodes=node1 MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
"""


@dataclass(frozen=True)
class Slurm:
    """A running Slurm."""

    folder: Path
    environment: dict[str, str]

    def call(self, *words: str, given: str = "") -> str:
        """Run one of its commands, which must succeed, and return what it prints."""
        done = subprocess.run(words, input=given, capture_output=True, text=True, check=False, env=self.environment)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def states(self) -> dict[str, str]:
        """Return the state of every job and task that Slurm remembers, by id."""
        rows = self.call("squeue", "--noheader", "--array", "--states=all", "--format=%i %T").split("\n")
        return dict(row.split() for row in rows if row)

    def until(self, done: Callable[[dict[str, str]], bool], *, seconds: float = 240) -> dict[str, str]:
        """Wait until the states satisfy a condition, and return them."""
        end = time.monotonic() + seconds
        while not done(states := self.states()):
            assert time.monotonic() < end, f"{states}\n{self.log_tail()}"
            time.sleep(0.1)
        return states

    def until_all_end(self, *, seconds: float = 240) -> dict[str, str]:
        """Wait until no job is left in the queue, and return the states."""
        return self.until(lambda states: not set(states.values()) & {*LIVING}, seconds=seconds)

    def log_tail(self) -> str:
        """Return the last lines of its log, for a failed test."""
        return "\n".join((self.folder / "slurmctld.log").read_text().split("\n")[-20:])


LIVING = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED", "SUSPENDED", "STOPPED", "SIGNALING")


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A Slurm of one node with four processors that takes arrays of at most four tasks."""
    path = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"
    missing = [name for name in COMMANDS if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(
            f"Slurm is not installed here: no {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge)"
        )
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    ports = _free_ports(2)
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o700 if name == "munge" else 0o755)
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    conf = CONF.format(
        folder=folder, ports=ports, user=getpass.getuser(), host=socket.gethostname().split(".")[0], max_array=4
    )
    (folder / "slurm.conf").write_text(conf)
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
    munged = [
        "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge/socket",
        f"--pid-file={folder}/munge/pid", f"--log-file={folder}/munge/log", f"--seed-file={folder}/munge/seed",
    ]  # fmt: skip
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for words in (munged, ["slurmctld", "-D"], ["slurmd", "-D", "-N", "node1"]):
            with (folder / f"{words[0]}.out").open("wb") as out:
                daemons.append(subprocess.Popen(words, env=environment, stdout=out, stderr=out, start_new_session=True))
            if words is munged:
                _wait(folder / "munge" / "socket", daemons[0])
        running = Slurm(folder, environment)
        _until_idle(running, daemons)
        yield running
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(daemon.pid, signal.SIGKILL)
                daemon.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()


def _wait(path: Path, daemon: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 10
    while not path.exists():
        assert daemon.poll() is None, "munged ended"
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.05)


def _until_idle(running: Slurm, daemons: list[subprocess.Popen[bytes]]) -> None:
    """Wait until the node is there; where this machine does not let Slurm run, the tests say so."""
    end = time.monotonic() + 30
    while True:
        done = subprocess.run(
            ["sinfo", "-h", "-p", "main", "-o", "%T"],
            capture_output=True,
            text=True,
            check=False,
            env=running.environment,
        )
        if done.stdout.strip() == "idle":
            return
        if time.monotonic() > end or any(daemon.poll() is not None for daemon in daemons):
            logs = [path.read_text(errors="replace")[-500:] for path in running.folder.glob("*.out")]
            pytest.skip(f"Slurm does not run on this machine: {' '.join(logs)}")
        time.sleep(0.1)
