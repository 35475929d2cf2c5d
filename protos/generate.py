"""Write the Python stubs of every contract to `protos/gen`, or check that they are up to date.

`python protos/generate.py [TARGET]`: TARGET is the folder to write to, `protos/gen` by default.
"""

from __future__ import annotations

import shutil
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent


def generate(target: Path) -> None:
    """Replace everything in `target` by freshly generated stubs."""
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    ours = sorted(
        str(path.relative_to(ROOT / "protos")) for path in ROOT.glob("protos/yidi/**/*.proto")
    )
    # google.rpc comes with googleapis-common-protos; only buf.validate has no package of its own.
    sources = [*ours, "buf/validate/validate.proto"]
    status = protoc.main(
        [
            "protoc",
            f"-I{ROOT / 'protos'}",
            f"-I{ROOT / 'third_party'}",
            f"-I{files('grpc_tools').joinpath('_proto')}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet,only_async:{target}",
            *sources,
        ]
    )
    if status != 0:
        raise SystemExit(f"protoc failed with status {status}")
    for path in target.rglob("*_pb2_grpc.py"):
        if "class " not in path.read_text(
            encoding="utf-8"
        ):  # no service: nothing but a version check
            path.unlink()
            path.with_suffix(".pyi").unlink(missing_ok=True)
    for folder in (path for path in target.rglob("*") if path.is_dir()):
        (folder / "__init__.py").touch()
    for package in target.iterdir():
        (package / "py.typed").touch()


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "protos" / "gen")
