"""What a certificate's files may be, without a connection."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmlaunch.errors import UsageError
from llmlaunch.gateway.http1.tls import Certificate

CERTIFICATES = Path(__file__).parents[3] / "integration" / "gateway" / "certificates"
CERT, KEY = CERTIFICATES / "first.pem", CERTIFICATES / "first-key.pem"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_named(tmp_path: Path, encoding: str) -> None:
    """Older versions of OpenSSL do not find what stands behind one, and do not say why; newer ones skip that of UTF-8."""
    for number, changed in enumerate((CERT, KEY)):
        file = tmp_path / f"{number}.pem"
        file.write_text(changed.read_text(), encoding=encoding)
        files = (file, KEY) if changed is CERT else (CERT, file)
        told = ""
        try:
            Certificate(*files)
        except UsageError as error:
            told = error.message
        assert f"{file.name} begins with a byte order mark" in told or (not told and encoding == "utf-8-sig")


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for file in (pipe, tmp_path):
        with pytest.raises(UsageError, match="not a file"):
            Certificate(CERT, file)


def test_a_pipe_of_the_shell_is_read_once() -> None:
    told, tell = os.pipe()
    os.write(tell, KEY.read_bytes())
    os.close(tell)
    assert Certificate(CERT, Path(f"/dev/fd/{told}")).context.cert_store_stats() is not None
    os.close(told)
