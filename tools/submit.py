"""Submit a script, or a YAML file, to a SLURM cluster through submitit: ``pip install -e '.[submitit]'``.

    python tools/submit.py --nodes 2 --gpus 8 --hours 24 script/training/stdd/train_k400.sh OUTPUT_DIR runs/a

A job that is preempted or runs out of time is queued again with the same line. The run is told to end, finishes its
step and saves, and continues from there. script/launch/slurm.sh does the same without submitit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# submitit tells a job of its end by a signal to all its processes. The shells and torchrun, which know nothing of it,
# must not die of it; the processes of the run take it as a request to save and end.
_SHELL = 'trap "" USR1 USR2; exec bash script/launch/multi_node.sh "$@"'
_GRACE_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class ScriptJob:
    """What one machine of the job does. Pickled by submitit."""

    command: tuple[str, ...]
    """A script or a YAML file, relative to the root of the checkout, and its arguments."""
    num_gpus: int
    """GPUs per machine."""
    root: Path = ROOT

    def __call__(self) -> None:
        """Run the command to its end.

        Raises:
            subprocess.CalledProcessError: if it fails.
        """
        from submitit import JobEnvironment

        job = JobEnvironment()
        meeting = {
            "NNODES": job.num_nodes,
            "NODE_RANK": job.node,
            "NUM_GPUS": self.num_gpus,
            "MASTER_ADDR": job.hostnames[0],
            "MASTER_PORT": os.environ.get("MASTER_PORT", 20000 + int(job.raw_job_id) % 20000),
        }
        environment = os.environ | {name: str(value) for name, value in meeting.items()}
        command = ["bash", "-c", _SHELL, "multi_node", *self.command]
        with subprocess.Popen(command, cwd=self.root, env=environment) as process:
            try:
                status = process.wait()
            finally:
                # submitit leaves by an exception when it queues the job again.
                if process.poll() is None:
                    _stop(process)
        if status:
            raise subprocess.CalledProcessError(status, command)

    def checkpoint(self) -> Any:  # noqa: ANN401 - a type of submitit
        """What submitit queues when the job is preempted: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1, help="machines (default 1)")
    parser.add_argument("--gpus", type=int, default=8, help="GPUs per machine; 0 for the CPU (default 8)")
    parser.add_argument("--cpus", type=int, default=64, help="CPU cores per machine (default 64)")
    parser.add_argument("--hours", type=float, default=24.0, help="time limit of one start (default 24)")
    parser.add_argument("--timeouts", type=int, default=20, help="starts after running out of time (default 20)")
    parser.add_argument("--partition", help="SLURM partition")
    parser.add_argument("--account", help="SLURM account")
    parser.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of sbatch, such as qos=long; repeatable",
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/submitit"), help="logs (default runs/submitit)")
    parser.add_argument("--cluster", choices=("slurm", "local"), help="default: slurm where sbatch exists")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="script or YAML file, then its arguments")
    args = parser.parse_args(argv)
    if args.command[:1] == ["--"]:
        args.command = args.command[1:]
    if not args.command or not (ROOT / args.command[0]).is_file():
        found = repr(args.command[0]) if args.command else "nothing"
        parser.error(f"command: expected a script or a YAML file of this checkout, found {found}")
    wrong = next((pair for pair in args.sbatch if "=" not in pair), None)
    if wrong is not None:
        parser.error(f"--sbatch: expected KEY=VALUE, found {wrong!r}")
    return args


def submit(args: argparse.Namespace) -> str:
    """Submit the job.

    Returns:
        Its number.
    """
    from submitit import AutoExecutor

    executor = AutoExecutor(folder=args.folder, cluster=args.cluster, slurm_max_num_timeout=args.timeouts)
    executor.update_parameters(
        name=Path(args.command[0]).stem,
        nodes=args.nodes,
        tasks_per_node=1,
        gpus_per_node=args.gpus,
        cpus_per_task=args.cpus,
        timeout_min=max(1, round(60 * args.hours)),
        slurm_additional_parameters=dict(pair.split("=", 1) for pair in args.sbatch),
        **{f"slurm_{name}": vars(args)[name] for name in ("partition", "account") if vars(args)[name]},
    )
    job = executor.submit(ScriptJob(command=tuple(args.command), num_gpus=args.gpus))
    print(f"job {job.job_id}, log {job.paths.stdout}")
    return str(job.job_id)


def main(argv: Sequence[str] | None = None) -> int:
    """Submit what the command line says.

    Returns:
        Exit status.
    """
    args = parse_args(argv)
    try:
        submit(args)
    except ModuleNotFoundError as error:
        sys.stderr.write(f"error: {error.name}: not installed; pip install -e '.[submitit]'\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
