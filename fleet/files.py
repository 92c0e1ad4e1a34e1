"""Files that appear whole under their names, or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a write fails with where the disk, a quota or the largest size of a file is reached."""

UNFINISHED = ".unfinished"
"""How the hidden name ends under which a file stands until it is whole; who dies in between leaves it behind."""


@contextmanager
def whole_file(path: Path, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """A file to write, readable by its owner alone, that takes the place of `path` when the block ends well.

    Nothing of it stays when the block raises. With `durable` it is on the disk at the end, name and all, and so is
    the name of a folder that was made for it. Raises OSError.
    """
    with tempfile.NamedTemporaryFile(prefix=".", suffix=UNFINISHED, dir=path.parent, delete=False) as file:
        unfinished = Path(file.name)
        try:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    if durable:
        _sync_folder(path.parent)
        _sync_folder(path.parent.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
