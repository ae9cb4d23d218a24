"""What the image holds, built here by the steps of the Dockerfile."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.image import STEPS, copied, listing
from tests.nodes import ROOT, clean_environment


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`opt`, the environment; `app`, the working folder, which nobody may write to; a list of its files."""
    directory = tmp_path_factory.mktemp("image")
    build, opt, app = (directory / name for name in ("build", "opt", "app"))
    for source in copied():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, build / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (build / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, build / source)
    # A directory that has nothing else, but uv and its cache, where all packages are already.
    shutil.copytree(ROOT / "scripts", build / "scripts")
    (build / ".cache").symlink_to(ROOT / ".cache")
    env = {**clean_environment(), "PYTHON": sys.executable, "ENVIRONMENT": "opt"}
    texts = [step.text for step in STEPS]
    [extras] = [text for text in texts if text.startswith("EXTRAS=")]
    [sync] = [text for text in texts if text.startswith("uv sync") and "--no-install-project" not in text]
    command = ["sh", "-c", f"{extras}; sh scripts/{sync} --offline"]
    done = subprocess.run(command, cwd=build, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (build / "opt").rename(opt)
    app.mkdir()
    shutil.copytree(build / "examples", app / "examples")
    shutil.copy(build / "deploy" / "flowerconfig.py", app)
    shutil.rmtree(build)
    (directory / "files").write_text(listing(app))
    for path in [app, *app.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return directory
