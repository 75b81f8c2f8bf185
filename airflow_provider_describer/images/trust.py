"""Limits what a listing from outside may lead to: public hosts, and files below the folder that it is for.

Without this, an image such as ``http://169.254.169.254/…`` would make a worker read its own credentials, and
``../../etc/passwd`` its files. Nothing here resolves a name: the address is checked when it is connected to
(`guard_of`).
"""

from __future__ import annotations

import os
import socket
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from airflow_provider_describer.errors import RejectedImage
from airflow_provider_describer.storage.address import is_local, local_path, mask_query

IPAddress = IPv4Address | IPv6Address
Zone = Literal["public", "private", "forbidden"]
"""Forbidden is link-local, a cloud's metadata service, or reserved: no image is there, whatever a connection allows."""

_FORBIDDEN = tuple(
    ip_network(network)
    for network in (
        "100.100.100.200/32",  # metadata services outside the link-local networks
        "168.63.129.16/32",
        "192.0.0.192/32",
        "fd00:ec2::/32",
        "fd20:ce::/32",
        "fd00:42::42/128",
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/32",  # tunnels to the IPv4 address inside: Teredo, 6to4 and local NAT64
        "2002::/16",
        "64:ff9b:1::/48",
    )
)
# `is_global` alone will not do: what it says of these differs from one Python to the next.
_PRIVATE = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20")))
_ALLOCATED_IPV6 = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")

_METADATA_NAMES = frozenset(
    {
        "metadata",
        "metadata.goog",
        "metadata.google.internal",
        "metadata.tencentyun.com",
        "metadata.azure.internal",
        "instance-data",
        "instance-data.ec2.internal",
    }
)
_PRIVATE_SUFFIXES = (".localhost", ".localdomain", ".local", ".internal", ".intranet", ".lan", ".home.arpa")


def _address_zone(address: IPAddress) -> Zone:
    special = address.is_link_local or address.is_multicast or address.is_unspecified
    if special or any(address in network for network in _FORBIDDEN):
        return "forbidden"
    allocated = address.version == 4 or address in _ALLOCATED_IPV6
    return "public" if address.is_global and allocated and not any(address in one for one in _PRIVATE) else "private"


def _parse_address(ip: str) -> IPAddress | None:
    """Return the address that packets end at, which for an IPv6 address may be the IPv4 address inside it."""
    try:
        address = ip_address(ip.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        # ::127.0.0.1 is the oldest way to write one; ::1 and :: are not.
        if address in _NAT64 or 1 < int(address) < 1 << 32:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def guard_of(allow_private_hosts: bool) -> Callable[[str], bool]:
    """Return the check of an address that is about to be connected to: whether images may be read from it.

    Forbidden addresses are refused in any case, and so is a text that is not an address.
    """
    zones = ("public", "private") if allow_private_hosts else ("public",)

    def allowed(ip: str) -> bool:
        address = _parse_address(ip)
        return address is not None and _address_zone(address) in zones

    return allowed


def _normalized(host: str) -> str:
    """Return the host as a client may come to read it: without full-width digits, percents and a last dot."""
    return unicodedata.normalize("NFKC", unquote(host)).replace("。", ".").lower().rstrip(".")


def _literal_address(host: str) -> IPAddress | None:
    """Return the address that a normalized host spells in any way that a resolver takes, or None for a name."""
    if address := _parse_address(host):
        return address
    try:
        # Decimal, hexadecimal, octal and short forms: 2130706433, 0x7f.1, 0177.0.0.1.
        return IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def host_zone(host: str) -> Zone:
    """Return where an address or a name could lead; resolves no name."""
    host = _normalized(host)
    if address := _literal_address(host):
        return _address_zone(address)
    if host in _METADATA_NAMES:
        return "forbidden"
    return "public" if "." in host and not host.endswith(_PRIVATE_SUFFIXES) else "private"


def is_private_host(url: str) -> bool:
    """Whether the url names a host that only this network can reach; resolves no name."""
    return host_zone(urlsplit(url).hostname or "") != "public"


@dataclass(frozen=True, slots=True)
class Trust:
    """How far the listing of images is trusted.

    :param base: the folder that its local files must be in (a path or ``file://``); None to allow any. With a base
        that is not a local folder, such as ``s3://bucket/``, no local file is allowed.
    :param allow_private_hosts: whether its addresses may lead into this network.
    """

    base: str | None = None
    allow_private_hosts: bool = False

    def check_web(self, url: str, name: str | None = None) -> None:
        """Check an address before it is requested; call it again for each redirect.

        :param name: the image in messages, where ``url`` is what it redirects to.
        :raises RejectedImage: ``forbidden_address``, naming the image and the host.
        """
        name, host = name or mask_query(url), _host(url)
        if host is None:
            problem = f"{mask_query(url)!r} is not a plain http(s) address."
        elif (zone := host_zone(host)) == "forbidden":
            problem = (
                f"{_spelled_out(host)} is link-local, a cloud's metadata service or reserved; images are never read "
                "from there, whatever the connection allows."
            )
        elif zone == "private" and not self.allow_private_hosts:
            problem = (
                f"{_spelled_out(host)} is in a private network, from which no images are read. If yours are there, "
                "set allow_private_hosts in the connection's extra."
            )
        else:
            return
        raise RejectedImage(f"{name}: {problem}", kind="forbidden_address")

    def check_local(self, uri: str, path: str | os.PathLike[str]) -> Path:
        """Return the path to open, with its symbolic links followed where there is a base.

        :param uri: the image as messages name it.
        :raises RejectedImage: ``outside_base``, naming the image and the folder.
        """
        if self.base is None:
            return Path(path)
        # Someone who can swap folders between here and the opening needs no listing to read files.
        found = Path(os.path.realpath(path))
        base = local_path(self.base) if is_local(self.base) else None
        if base is None or not found.is_relative_to(os.path.realpath(base)):
            raise RejectedImage(
                f"{uri}: is outside {mask_query(self.base)}, where all images of this listing must be (symbolic "
                "links are followed first).",
                kind="outside_base",
            )
        return found


def _spelled_out(host: str) -> str:
    """Return the host, and in brackets the address that it means where it is spelled in another way."""
    address = _literal_address(_normalized(host))
    return host if address is None or str(address) == host else f"{host} ({address})"


def _host(url: str) -> str | None:
    """Return the host of an http(s) address, or None where programs could disagree about which host that is."""
    if any(c <= " " or c in "\\\x7f" for c in url):
        return None
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return None
    valid = parts.scheme in ("http", "https") and parts.netloc.count("@") <= 1
    return host if valid else None
