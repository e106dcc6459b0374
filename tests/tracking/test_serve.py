"""The server of `distmeta ui` ends with it, and the exit code tells how."""

import signal
import subprocess
import sys

import pytest

CODE = """
import sys
from distmeta.tracking import serve
server = "import time; print('up', flush=True); time.sleep(60)"
sys.exit(serve([sys.executable, "-c", server]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "kill"])
def test_a_server_ends_with_its_command(number: signal.Signals, code: int) -> None:
    with subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.stdout.read() == ""  # the server has ended too
        assert process.wait(timeout=10) == code
