"""What `yidi up` runs before and after its processes serve, importable at no cost.

With `--detach` the functions are only named here and run in the supervisor's own process.
"""

from __future__ import annotations

from pathlib import Path

from infra.local.supervisor import Progress
from infra.runtime.config import Settings


def prepare(settings: Settings) -> None:
    """Migrate the site's database and load its samples."""
    from infra.cli import seeding

    seeding.prepare(settings)


def prepare_whole(settings: Settings) -> None:
    """The same with catalogues of the size of real ones."""
    from infra.cli import seeding

    seeding.prepare(settings, whole_lists=True)


def finish_start(home: Path, on_progress: Progress) -> None:
    """Register the sample people, then prove with quotes that the network settles."""
    from infra.cli import samples

    samples.finish_start(home, on_progress)
