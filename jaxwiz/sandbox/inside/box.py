"""The one folder that programs may write to: how full it is, and emptying it after each of them."""

import contextlib
import os

from jaxwiz.sandbox.inside.namespaces import BOX_BYTES, BOX_FILES


def is_overfull(box: str) -> bool:
    """Says whether a folder on disk holds more than a box with a memory file system could, or is too deep to tell."""
    files = size = 0
    try:
        for folder, folders, names in os.walk(box):
            files += len(folders) + len(names)
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    size += os.lstat(os.path.join(folder, name)).st_blocks * 512
            if files > BOX_FILES or size > BOX_BYTES:
                return True
    except (OSError, RecursionError):
        return True
    return False


def clear(box: str) -> bool:
    """Empties the box, without following links, and says whether that went well."""
    if not os.listdir(box):
        return True
    import shutil
    import subprocess

    for entry in os.scandir(box):
        try:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        except (OSError, RecursionError):
            pass
    if os.listdir(box):
        with contextlib.suppress(OSError):  # locked or very deep folders; without these tools the server is replaced
            subprocess.run(["chmod", "-R", "u+rwx", box], stderr=subprocess.DEVNULL)
            subprocess.run(["find", box, "-mindepth", "1", "-delete"], stderr=subprocess.DEVNULL)
    return not os.listdir(box)
