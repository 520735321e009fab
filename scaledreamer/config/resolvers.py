"""Values in the option files that only the file system knows."""

from datetime import datetime
from pathlib import Path

from omegaconf import OmegaConf


def register_resolvers() -> None:
    """Make ``${run_folder:ROOT,NAME,RESUME}`` available; idempotent."""
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True, use_cache=True)


def run_folder(root: str, name: str, resume: str | None) -> str:
    """The folder of a run: that of the run it resumes, else a new one ``ROOT/NAME/TIME``.

    ``resume=auto`` means the newest run of that name that has a checkpoint, or a new run where there is none;
    ``resume=FOLDER`` means that run; a checkpoint file starts a new run from it unless it lies in a run's folder.
    """
    if resume == "auto":
        folders = sorted(p.parents[1] for p in Path(root, name).glob("*/checkpoints/*.ckpt"))
        if folders:
            return str(folders[-1])
    elif resume:
        path = Path(resume)
        folder = path.parents[1] if path.suffix == ".ckpt" and len(path.parents) > 1 else path
        if (folder / "config.yaml").exists():
            return str(folder)
    return str(Path(root, name, datetime.now().strftime("%Y-%m-%d_%H-%M-%S")))
