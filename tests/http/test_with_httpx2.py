"""All tests of this folder once more, with httpx2 and httpcore2 where httpx and httpcore are not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_describer.http.library import httpx

WITHOUT_HTTPX = """
import sys
sys.modules["httpx"] = sys.modules["httpcore"] = None
import pytest
code = pytest.main(sys.argv[1:])
from airflow_provider_describer.http.library import httpcore, httpx
assert (httpcore.__name__, httpx.__name__) == ("httpcore2", "httpx2")
sys.exit(code)
"""


@pytest.mark.skipif(httpx.__name__ == "httpx2", reason="these are the tests with httpx2")
def test_the_client_behaves_alike_with_httpx2(tmp_path: Path) -> None:
    pytest.importorskip("httpx2")
    options = ["-q", "--no-header", f"--basetemp={tmp_path / 'inner'}"]
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", WITHOUT_HTTPX, here, *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-2000:]
