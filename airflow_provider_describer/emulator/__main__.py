"""`python -m airflow_provider_describer.emulator`: read the command line and serve until stopped."""

from __future__ import annotations

import argparse
import ipaddress
import os
import secrets
import sys
from collections.abc import Sequence
from importlib.util import find_spec

# The package that brings each module.
NEEDED = {
    "starlette": "starlette",
    "uvicorn": "uvicorn",
    "httptools": "httptools",
    "python_multipart": "python-multipart",
    "PIL": "pillow",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; exit with a message if that is not possible, or quietly if nobody reads it."""
    try:
        try:
            _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer would fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_describer.emulator",
        description="The vendors on one local port, with a billing ledger and fault injection.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=port_number, default=8901, help="0: use a free port and print it")
    parser.add_argument("--image-describer-key", metavar="K", help="the accepted key (default: a random one)")
    parser.add_argument("--segmind-key", metavar="K", help="the accepted key (default: a random one)")
    parser.add_argument("--openai-compatible-key", metavar="K", help="the accepted key (default: a random one)")
    parser.add_argument("--stop-with-parent", action="store_true", help="stop when stdin is closed")
    parser.add_argument("--allow-remote", action="store_true", help="allow a host that other machines can reach")
    options = parser.parse_args(arguments)
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise SystemExit(f"the emulator needs {', '.join(missing)}: pip install 'airflow-provider-describer[emulator]'")
    if not options.allow_remote and not is_loopback(options.host):
        raise SystemExit(
            f"{options.host!r} can be reached from other machines. The emulator fetches any URL it is given, and its "
            "controls have no password: use 127.0.0.1, or allow this with --allow-remote"
        )

    from airflow_provider_describer.emulator.server import serve

    keys = {
        "image_describer": options.image_describer_key or secrets.token_hex(16),
        "segmind": options.segmind_key or f"SG_{secrets.token_hex(8)}",
        "openai_compatible": options.openai_compatible_key or f"sk-{secrets.token_hex(16)}",
    }
    serve(options.host, options.port, keys, stop_with_parent=options.stop_with_parent)


def port_number(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`; the only name that counts is localhost."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    main()
