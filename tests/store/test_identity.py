"""What makes two descriptions the same must never change silently: every key that changes is paid for again."""

from __future__ import annotations

import itertools
from dataclasses import replace

from airflow_provider_describer.models import Spec
from airflow_provider_describer.store.identity import identity_keys

SPEC = Spec("image_describer", "image-describer", "What is it? Ä", "en", "")
SHA = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def content_key(spec, sha256):
    return identity_keys(spec, "", sha256, None)[0]


def version_key(spec, uri, version):
    return identity_keys(spec, uri, None, version)[0]


def test_the_keys_are_pinned():
    """If this fails, every stored description becomes unknown and would be bought again. Do not mend the test."""
    assert content_key(SPEC, SHA) == "3127881275f7bd6c00c1bafc132b858b"
    assert version_key(SPEC, "s3://bucket/a.jpg", '"etag"') == "147bb53a7fc338121161bbe78d0a8abb"
    assert content_key(replace(SPEC, prompt=None, lang=None), SHA) == "25a0638b01298e519cc4c6dd269b90d0"


def test_everything_that_is_asked_or_shown_is_part_of_it():
    specs = [
        SPEC,
        replace(SPEC, vendor="segmind"),
        replace(SPEC, model="other"),
        replace(SPEC, prompt="What is it?"),
        replace(SPEC, prompt=None),
        replace(SPEC, prompt=""),
        replace(SPEC, lang="de"),
        replace(SPEC, lang=None),
        replace(SPEC, preprocessing="scaled"),
    ]
    keys = {content_key(spec, sha) for spec, sha in itertools.product(specs, (SHA, "0" * 64))}
    keys |= {version_key(*parts) for parts in itertools.product(specs, ("a", "b"), ("1", "2"))}
    assert len(keys) == len(specs) * (2 + 4)


def test_parts_do_not_run_into_each_other():
    assert version_key(SPEC, "ab", "c") != version_key(SPEC, "a", "bc")
    assert content_key(Spec("a", "bc"), SHA) != content_key(Spec("ab", "c"), SHA)
    assert content_key(SPEC, SHA) != version_key(SPEC, "", SHA)


def test_keys_by_what_is_known():
    assert identity_keys(SPEC, "u", None, None) == ()
    assert identity_keys(SPEC, "u", SHA, None) == (content_key(SPEC, SHA),)
    assert identity_keys(SPEC, "u", None, "v") == (version_key(SPEC, "u", "v"),)
    assert identity_keys(SPEC, "u", SHA, "v") == (content_key(SPEC, SHA), version_key(SPEC, "u", "v"))


def test_a_name_that_is_no_utf8_has_a_key():
    assert len(version_key(SPEC, "/photos/\udcff.jpg", "1")) == 32
