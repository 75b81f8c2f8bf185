"""How objects reach a vendor: by addresses that are signed for the vendor and never shown, or as bytes."""

from __future__ import annotations

import hashlib
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_describer.errors import BadInput, BucketError, UnreadableImage
from airflow_provider_describer.images.checks import HEAD
from airflow_provider_describer.images.prepare import SHORTEST_S, SIGNED_FOR_S, PreparedImage, Transport
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.storage.address import parse_uri
from airflow_provider_describer.storage.bucket import Signed, Signer
from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.store.index import read_history

if TYPE_CHECKING:
    from tests.conftest import Shop
    from tests.images.conftest import Objects


def at(host: str) -> Signer:
    """Signs addresses of this host."""
    return lambda key, seconds: Signed(f"https://{host}/{key}?X-Amz-Signature=hush", time.time() + seconds)


def test_auto_takes_the_shorter_way(objects: Objects) -> None:
    public, private = at("shop.s3.amazonaws.com"), at("minio.internal")
    signed = Transport("url", "Segmind fetches them by addresses that are signed for it")
    assert objects.transport("auto", "segmind", signer=private) == signed
    assert objects.transport("auto", "segmind", signer=public, host=None) == signed
    sent = Transport("upload", "it is how Segmind takes bytes")
    assert objects.transport("auto", "segmind", signer=private, host=None) == sent
    unsigned = Transport("upload", "they have no address")
    assert objects.transport("auto", "segmind", host=None) == unsigned
    scaled = Transport("upload", "they are scaled down first")
    assert objects.transport("auto", "segmind", signer=public, scaled=True) == scaled
    sent = Transport("file", "it is how Image Describer takes bytes")
    assert objects.transport("auto", "image_describer", signer=public) == sent


@pytest.mark.parametrize("vendor", ["segmind", "image_describer"])
def test_an_address_that_is_asked_for_and_cannot_be_is_bad_input(objects: Objects, vendor: str) -> None:
    assert objects.transport("url", vendor, signer=at("minio.internal")) == Transport("url", "the connection says so")
    unsigned = objects.transport("url", vendor)
    scaled = objects.transport("url", vendor, signer=at("x.example"), scaled=True)
    for found in (unsigned, scaled):
        assert type(found) is BadInput
        assert "Connection 'shop': image_transport is 'url', but " in str(found) and "Choose auto" in str(found)
    assert "(the storage connection's credentials cannot sign one)" in str(unsigned)
    assert "max_pixels asks for another image than the one at its address" in str(scaled)


def test_who_can_fetch_from_a_bucket_is_found_out_once(objects: Objects) -> None:
    asked: list[str] = []

    def sign(key: str, seconds: float) -> Signed:
        asked.append(key)
        return at("minio.internal")(key, seconds)

    async def visibilities(reader: Reader) -> list[object]:
        return [reader.visibility(parse_uri(objects.uri(key))) for key in ("a//b.jpg", "a.jpg", "b.jpg")]

    assert objects.with_reader(visibilities, sign) == ["private"] * 3
    assert len(asked) == 1


def failing(kind: str) -> Signer:
    def sign(key: str, seconds: float) -> Signed:
        raise BucketError(f"no signature for {key}", kind=kind)

    return sign


@pytest.mark.parametrize("way", ["url", "auto"])
def test_a_signature_that_is_not_given_now_says_nothing_about_the_connection(objects: Objects, way: str) -> None:
    found = objects.transport(way, "segmind", signer=failing("unreachable"))
    assert isinstance(found, UnreadableImage) and found.kind == "unreachable"


def test_a_signature_that_is_denied_is_none(objects: Objects) -> None:
    assert type(objects.transport("url", "segmind", signer=failing("denied"))) is BadInput
    found = objects.transport("auto", "segmind", signer=failing("denied"))
    assert isinstance(found, Transport) and found.way == "upload"


# --- presigned addresses ---


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""


def test_the_address_of_an_object_is_signed_when_its_turn_comes(
    objects: Objects, signer: Signer, draw: Callable[..., bytes]
) -> None:
    content = draw(1) + bytes(100_000)
    objects.put("a b#c.jpg", content)
    seconds: list[float] = []

    def sign(key: str, lives: float) -> Signed:
        seconds.append(lives)
        return signer(key, lives)

    found = objects.prepared("a b#c.jpg", "url", signer=sign)
    assert isinstance(found, PreparedImage) and found.picture.sign is not None
    assert (found.sha256, found.size, found.version) == (None, len(content), objects.version("a b#c.jpg"))
    assert (found.picture.content, found.picture.url, found.upload) == (None, None, False)
    assert [asked.headers.get("Range") for asked in objects.server.received(path="a b#c")] == [f"bytes=0-{HEAD - 1}"]
    assert SIGNED_FOR_S not in seconds
    assert get(found.picture.sign()) == (200, content)
    assert seconds[-1] == SIGNED_FOR_S


def files_of(folder: Path) -> str:
    """All that the store holds; texts in its table are packed."""
    files = "".join(path.read_text(errors="replace") for path in sorted(folder.rglob("*")) if path.is_file())
    return f"{files} {list(read_history(open_folder(folder)))}"


@pytest.mark.parametrize("way", ["segmind v1 auto", "segmind v2 auto", "image_describer v1 url"])
def test_the_vendor_fetches_a_signed_address_which_is_shown_nowhere_else(
    shop: Shop,
    objects: Objects,
    signer: Signer,
    draw: Callable[..., bytes],
    caplog: pytest.LogCaptureFixture,
    way: str,
) -> None:
    shop.vendor, version, wanted = way.split()
    shop.fields.update(image_transport=wanted, **({"api_version": version} if shop.vendor == "segmind" else {}))
    shop.faults()
    objects.put("a.jpg", draw(1))
    with caplog.at_level(logging.DEBUG):
        result = shop.describe([objects.uri("a.jpg")], open_bucket=objects.opener(signer))
    [row] = result.of("described")
    assert (row["uri"], row["version"]) == (objects.uri("a.jpg"), objects.version("a.jpg"))
    [entry] = result.ledger["entries"]
    assert (entry["image_sha256"], entry["image_via"], entry["billed"]) == (
        hashlib.sha256(draw(1)).hexdigest(),
        "url",
        True,
    )
    signed = [
        asked.query for asked in objects.server.received("GET") if any("Signature" in name for name in asked.query)
    ]
    hidden = {value for query in signed for name, value in query.items() if "Signature" in name}
    assert len(signed) == len(hidden) == 1
    seen = f"{result} {caplog.text} {files_of(shop.store)}"
    assert "a.jpg" in files_of(shop.store)
    assert "Signature=" not in seen and not [one for one in hidden if one in seen]
    title, why = ("Segmind", "signed for it") if shop.vendor == "segmind" else ("Image Describer", "connection says so")
    assert any(f"1 image goes to {title} as url: " in line and why in line for line in result.lines)


def test_what_was_fetched_by_a_signed_address_is_known_again(
    shop: Shop, objects: Objects, signer: Signer, draw: Callable[..., bytes]
) -> None:
    shop.vendor = "segmind"
    objects.put("a.jpg", draw(1))
    for _ in range(2):
        result = shop.describe([objects.uri("a.jpg")], open_bucket=objects.opener(signer))
    assert result.counts["reused"] == 1 and result.ledger["billed"] == 1


def test_no_repr_shows_a_signed_address(objects: Objects, signer: Signer, draw: Callable[..., bytes]) -> None:
    objects.put("a.jpg", draw(1))
    found = objects.prepared("a.jpg", "url", signer=signer)
    assert isinstance(found, PreparedImage) and found.picture.sign is not None
    url = found.picture.sign()
    assert "Signature=" in url
    for value in (found, found.picture, signer("a.jpg", 60)):
        assert "Signature" not in repr(value) and url not in repr(value)


@pytest.mark.parametrize("left", [60, SHORTEST_S - 1, 0, -5])
def test_credentials_that_end_before_the_vendor_fetches_pay_for_nothing(
    shop: Shop, objects: Objects, signer: Signer, draw: Callable[..., bytes], left: float
) -> None:
    shop.vendor = "segmind"
    objects.put("a.jpg", draw(1))

    def soon_over(key: str, seconds: float) -> Signed:
        return Signed(signer(key, seconds).url, time.time() + min(seconds, left))

    result = shop.describe([objects.uri("a.jpg")], open_bucket=objects.opener(soon_over))
    [row] = result.of("pending")
    assert row["error"]["kind"] == "credentials_end" and row["billed"] == "no"
    assert f"{objects.cloud.uri}/a.jpg: an address signed now would live for " in row["error"]["message"]
    assert "longer-lived credentials" in row["error"]["message"]
    assert result.ledger["requests"] == 0
    assert "Signature" not in f"{result}{files_of(shop.store)}"
    # And a later run, with credentials that last, is not in doubt about this one.
    result = shop.describe([objects.uri("a.jpg")], open_bucket=objects.opener(signer), on_unknown="fail")
    assert result.counts["described"] == 1 and result.ledger["billed"] == 1


def test_credentials_that_last_long_enough(objects: Objects, signer: Signer, draw: Callable[..., bytes]) -> None:
    objects.put("a.jpg", draw(1))

    def just(key: str, seconds: float) -> Signed:
        return Signed(signer(key, seconds).url, time.time() + SHORTEST_S + 5)

    found = objects.prepared("a.jpg", "url", signer=just)
    assert isinstance(found, PreparedImage) and found.picture.sign is not None
    assert get(found.picture.sign()) == (200, draw(1))


@pytest.mark.parametrize("kind", ["denied", "unreachable", "unsupported"])
def test_a_signature_that_fails_at_the_calls_turn_pays_for_nothing(
    shop: Shop, objects: Objects, draw: Callable[..., bytes], kind: str
) -> None:
    shop.vendor = "segmind"
    objects.put("a.jpg", draw(1))
    at_first = [at("127.0.0.1")]

    def sign(key: str, seconds: float) -> Signed:
        return (at_first.pop() if at_first else failing(kind))(key, seconds)

    result = shop.describe([objects.uri("a.jpg")], open_bucket=objects.opener(sign))
    [row] = result.of("pending")
    assert (row["error"]["kind"], row["billed"]) == (kind, "no")
    assert result.ledger["requests"] == 0


@pytest.mark.parametrize("way", ["url", "file"])
@pytest.mark.parametrize("broken", ["tampered", "of another object", "expired"])
def test_a_signed_address_that_is_no_good_is_not_paid_for(
    shop: Shop, objects: Objects, signer: Signer, draw: Callable[..., bytes], broken: str, way: str
) -> None:
    shop.fields["image_transport"] = way
    objects.put("a.jpg", draw(1))
    objects.put("b.jpg", draw(2))
    good = signer("a.jpg", 600).url
    assert get(good)[0] == 200
    signature = next(one for one in good.partition("?")[2].split("&") if "Signature=" in one).partition("=")[2]
    url = {
        "tampered": good.replace(signature, signature[:-4] + ("0000" if signature[-4:] != "0000" else "1111")),
        "of another object": good.replace("/a.jpg", "/b.jpg"),
        "expired": good.replace("Expires=600", "Expires=1")
        if objects.cloud.scheme == "s3"
        else signer("a.jpg", -5).url,
    }[broken]
    result = shop.describe([url])
    [row] = result.of("rejected")
    assert row["error"]["kind"] == "denied" and "may have expired" in row["error"]["message"]
    assert row["uri"] == f"{url.partition('?')[0]}?…"
    assert result.ledger["requests"] == 0
    assert "Signature" not in f"{result}{files_of(shop.store)}"
    assert shop.describe([good]).counts["described"] == 1


def test_an_address_that_cannot_be_signed_ends_the_run_before_anything_is_read(
    shop: Shop, objects: Objects, draw: Callable[..., bytes]
) -> None:
    shop.vendor, shop.fields["image_transport"] = "segmind", "url"
    objects.put("a.jpg", draw(1))
    with pytest.raises(BadInput, match=r"Connection 'shop': image_transport is 'url', but .* cannot sign one"):
        shop.describe([objects.uri("a.jpg")], open_bucket=objects.opener())
    assert objects.server.requests == [] and shop.emulator.ledger()["requests"] == 0
