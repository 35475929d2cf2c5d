"""Write the Python stubs of every contract to `protos/gen`.

`python protos/generate.py [TARGET]`: TARGET is the folder to write to, `protos/gen` by default.
A test generates into a temporary folder and compares.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
THIRD_PARTY = PROTOS.parent / "third_party"


def generate(target: Path) -> None:
    """Replace everything in `target` by freshly generated stubs; keep it when protoc fails."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        _run_protoc(fresh)
        for path in fresh.rglob("*_pb2_grpc.py"):
            if "class " not in path.read_text(encoding="utf-8"):  # no service in it
                path.unlink()
                path.with_suffix(".pyi").unlink(missing_ok=True)
        for nested in [path for path in fresh.rglob("*") if path.is_dir()]:
            (nested / "__init__.py").touch()
        for package in fresh.iterdir():
            (package / "py.typed").touch()
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(fresh, target)


def _run_protoc(target: Path) -> None:
    ours = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("yidi/**/*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"-I{PROTOS}",
            f"-I{THIRD_PARTY}",
            f"-I{files('grpc_tools').joinpath('_proto')}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet,only_async:{target}",
            *ours,
            # google.rpc comes with googleapis-common-protos; buf.validate has no package.
            "buf/validate/validate.proto",
        ]
    )
    if status != 0:
        raise SystemExit(f"protoc failed with status {status}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTOS / "gen")
