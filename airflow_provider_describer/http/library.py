"""The HTTP library: httpx and httpcore, or their successors httpx2 and httpcore2, whose interface is the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpcore
    import httpx
else:
    try:
        import httpcore
        import httpx
    except ImportError:
        import httpcore2 as httpcore
        import httpx2 as httpx

__all__ = ["httpcore", "httpx"]
