"""Reading and writing the files that llmlaunch keeps: an ordinary file of this user's, of a bounded size, or none.

Whatever lies at the place of such a file may be what somebody else left there: a pipe that nobody writes to, a link to a file
that must not be touched, a folder, a device, JSON that is nested a million times. Nothing here waits for it, follows it or
believes it. What is unfit is renamed to ``NAME.bad`` with a line in the log, and the program goes on as if there were nothing.

Folders may be links, as long as their owner is right: a home is often moved to a larger disk.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

MOST_BYTES = 16 << 20
"""More than any file of ours that is read as a whole."""
_BAD_NAMES = 9
_T = TypeVar("_T")
_NONSENSE = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)
"""What decoding a file raises that holds something else than it should."""


class UnusableFileError(ValueError):
    """What is there cannot be a file of ours; the text says what it is."""


def trusted(uid: int) -> bool:
    """Whether what ``uid`` owns may be believed: this user, or root, who can do everything anyway."""
    return uid in (os.geteuid(), 0)


def kind(mode: int) -> str:
    """In words, what a path with ``st_mode`` ``mode`` is."""
    names = {
        stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFREG: "a file",
    }  # fmt: skip
    return names.get(stat.S_IFMT(mode), "something unknown")


def open_ours(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the ordinary file ``path``. Waits for nothing and follows no link.

    Raises UnusableFileError when it is something else or another user's, FileNotFoundError and other OSErrors as ``os.open`` does.
    """
    # Opening a device may do something by itself, so look first, and again at what was opened.
    if not (flags & os.O_CREAT and not os.path.lexists(path)):
        _check(os.lstat(path))
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    descriptor = os.open(path, flags, 0o600)
    try:
        _check(os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UnusableFileError(f"it is {kind(found.st_mode)}")
    if not trusted(found.st_uid):
        raise UnusableFileError(f"it belongs to user {found.st_uid}")


def read(path: Path, most: int = MOST_BYTES) -> bytes:
    """The bytes of ``path``. Raises UnusableFileError also when there are more than ``most``, and otherwise as :func:`open_ours`."""
    with os.fdopen(open_ours(path), "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise UnusableFileError(f"it has more than {most} bytes")
    return data


def load(path: Path, decode: Callable[[Any], _T], most: int = MOST_BYTES) -> _T | None:
    """What ``decode`` makes of the JSON in ``path``; None when there is nothing, or nothing that makes sense, which is set aside."""
    try:
        return decode(json.loads(read(path, most)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except _NONSENSE as error:
        why = "its JSON is nested too deeply" if isinstance(error, RecursionError) else str(error)
        set_aside(path, why)
    except OSError as error:
        _warn("ignoring %s, which cannot be read: %s", path, error.strerror)
    return None


def _warn(text: str, *values: object) -> None:
    import logging  # here, because `llmlaunch status` must not pay for it

    logging.getLogger(__name__).warning(text, *values)


def set_aside(path: Path, why: str) -> None:
    """Rename ``path`` to ``NAME.bad``, or to the next name that is free, so that its place can be used again."""
    for number in range(1, _BAD_NAMES + 1):
        place = path.with_name(f"{path.name}.bad" + ("" if number == 1 else f"-{number}"))
        if not os.path.lexists(place) or number == _BAD_NAMES:
            break
    try:
        path.rename(place)
    except FileNotFoundError:
        return
    except OSError as error:
        _warn("ignoring %s (%s); it cannot be set aside: %s", path, why, error.strerror)
        return
    _warn("set %s aside as %s: %s", path, place.name, why)


def remove(path: Path) -> None:
    """Remove ``path``; what cannot be removed, such as a folder, is set aside."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        set_aside(path, f"it cannot be removed: {error.strerror}")


def write(path: Path, text: str) -> None:
    """Replace ``path``, private to this user: readers see the old or the new text, never a part. Raises OSError."""
    import tempfile

    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o600)
            file.write(text)
        if path.is_dir() and not path.is_symlink():
            set_aside(path, "it is a folder")
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def open_kept(path: Path, flags: int) -> int:
    """A descriptor of ``path`` for as long as the file is needed (a lock, a log), made if there is none; mode 0600.

    What is not an ordinary file of this user is set aside. Raises OSError.
    """
    for _ in range(2):
        try:
            descriptor = open_ours(path, flags | os.O_CREAT)
        except UnusableFileError as error:
            set_aside(path, str(error))
            continue
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise
            set_aside(path, error.strerror or "it cannot be opened")
            continue
        with contextlib.suppress(OSError):  # of root's, in a folder of this user's
            if os.fstat(descriptor).st_mode & 0o777 != 0o600:
                os.fchmod(descriptor, 0o600)  # whatever the umask says
        return descriptor
    raise OSError(errno.EINVAL, "something that llmlaunch did not create is in the way", str(path))
