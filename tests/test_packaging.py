"""What is built is what is imported: the integrations folder is in the wheel and in the sdist."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {"graceful/asgi.py", "graceful/integrations/uvicorn.py", "graceful/py.typed"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder)], cwd=ROOT, check=True)
    return folder


def test_the_wheel_has_the_integrations(built: Path) -> None:
    """`graceful.integrations` is real files in the wheel, not a link to nowhere."""
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert names >= MODULES
    assert not any(name.startswith(("integrations/", "tests/")) for name in names)


def test_the_sdist_has_the_folder_as_the_checkout_has_it(built: Path) -> None:
    """The sdist carries `integrations/` and what builds the wheel from it."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.split("/", 1)[-1] for name in sdist.getnames()}
    assert {"integrations/uvicorn.py", "pyproject.toml", "graceful/asgi.py"} <= names


def test_an_installed_wheel_can_be_imported(built: Path, tmp_path: Path) -> None:
    """With only the three runtime dependencies, the middleware is there and extras say so."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    wheel = next(built.glob("*.whl"))
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    code = "import graceful.asgi, graceful.integrations; print(graceful.__version__)"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip()
    asked = subprocess.run(
        [tmp_path / "venv" / "bin" / "graceful", "rehearse", "--", "true"],
        capture_output=True,
        text=True,
    )
    assert asked.returncode == 2
    assert "pip install 'graceful-drain[rehearsal]'" in asked.stderr
    wants = "import graceful.integrations.starlette"
    told = subprocess.run([python, "-c", wants], capture_output=True, text=True)
    assert told.stderr.splitlines()[-1].endswith("pip install 'graceful-drain[starlette]'")
