"""Lets a test meet files that it may not write, whoever runs it: to root, modes mean nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOBODY = 65534


@contextmanager
def unwritable(path: Path, mode: int, folder: Path) -> Iterator[None]:
    """Give `path` the mode for the length of the block, in which its user is not root; `folder` becomes that user's.

    Keep the block short: what it imports, that user must be able to read.
    """
    is_root = os.geteuid() == 0
    if is_root:
        for one in (folder, *folder.iterdir()):
            os.chown(one, _NOBODY, _NOBODY)
    before = path.stat().st_mode
    path.chmod(mode)
    if is_root:
        os.setegid(_NOBODY)
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
            os.setegid(0)
        path.chmod(before)
