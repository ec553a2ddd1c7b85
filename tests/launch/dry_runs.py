"""What DRY_RUN=1 prints for every script, kept in tests/launch/golden/ for the eye and for the tests.

python -m tests.launch.dry_runs      writes the files anew; look at what changed
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden"
QUICKSTART = "configs/launch/quickstart.yaml"
V5P, TWO_SLICES, H100 = (f"configs/launch/wizardcoder-34b-{name}.yaml" for name in ("v5p-128", "2xv5e-256", "h100"))
DRY_RUNS: dict[str, tuple[str, ...]] = {
    "tpu-vm": ("launch/tpu_vm_up.sh", V5P),
    "tpu-vm-slices": ("launch/tpu_vm_up.sh", TWO_SLICES, "spot=false"),
    "gke-tpu": ("launch/gke/submit.sh", V5P, "spot=false", "bucket=''"),
    "gke-slices": ("launch/gke/submit.sh", TWO_SLICES),
    "gke-slice-lost": ("launch/gke/submit.sh", TWO_SLICES, "accelerator.slices=1"),
    "gke-gpu": ("launch/gke/submit.sh", H100),
    "xpk": ("launch/gke/xpk.sh", TWO_SLICES),
    "skypilot-tpu": ("launch/skypilot.sh", V5P),
    "skypilot-gpu": ("launch/skypilot.sh", H100, "spot=true", "accelerator.nodes=2", "accelerator.fewest_nodes=0"),
    "slurm": ("launch/slurm.sbatch", H100),
}


def dry_run(name: str) -> str:
    """Returns what a script prints, with the checkout's path replaced."""
    environ = {**os.environ, "DRY_RUN": "1", "JAXWIZ": str(Path(sys.executable).with_name("jaxwiz"))}
    environ.pop("SLURM_JOB_ID", None)
    done = subprocess.run(DRY_RUNS[name], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.replace(str(ROOT), "CHECKOUT")


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in DRY_RUNS:
        (GOLDEN / f"{name}.txt").write_text(dry_run(name))
