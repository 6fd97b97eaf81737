"""URLs are paths whose text is the URL, and credentials are neither accepted nor shown."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.errors import UsageError
from pokevla.files.remote.failures import diagnose
from pokevla.files.remote.urls import UrlPath, as_url, is_url, redacted

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize("text", ["s3://b/x", "gs://b/x/y", "https://h.org/x", "http://127.0.0.1:80/x"])
def test_text_of_a_url_path_is_the_url(text: str) -> None:
    path = as_url(text)
    assert str(path) == text
    assert str(path / "shards" / "a.tar") == f"{text}/shards/a.tar"
    assert str((path / "shards").parent) == text
    assert as_url(Path(text)) == path, "a path has lost a slash"
    assert path.absolute() is path
    assert path.resolve() is path
    assert pickle.loads(pickle.dumps(path)) == path  # noqa: S301 (our own bytes)
    assert isinstance(path / "x", UrlPath)
    assert not path.exists()


@given(st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True), min_size=1, max_size=5))
def test_any_names_come_back(names: list[str]) -> None:
    url = "s3://" + "/".join(names)
    assert str(as_url(Path(url))) == url
    assert is_url(url)


@pytest.mark.parametrize("text", ["/data/x", "data", "s3", "ftp://h/x", "s3:x", "./s3/x"])
def test_other_paths_are_no_urls(text: str) -> None:
    assert not is_url(text)
    assert not is_url(Path(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"https://me:{SECRET}@h.org/x", "holds credentials"),
        (f"https://h.org/x?X-Amz-Signature={SECRET}", "has a query"),
        ("s3://b/../x", r"holds `\.\.`"),
        ("http://h.org/x", "not encrypted"),
    ],
)
def test_credentials_and_odd_urls_are_refused_without_showing_them(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        as_url(text)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://u:{SECRET}@h/x failed",
        f"https://h/x?a=1&X-Amz-Signature={SECRET}&b=2",
        f"https://h/x?AWSAccessKeyId=AKIA1234567890AB12&Signature={SECRET}",
        f"https://h/x?access_token={SECRET}",
        f"aws_secret_access_key = {SECRET}",
        f"{{'Authorization': '{SECRET}'}}",
    ],
)
def test_what_looks_like_a_credential_is_removed_from_messages(text: str) -> None:
    assert SECRET not in redacted(text)
    assert "AKIA1234567890AB12" not in redacted(text)
    assert SECRET not in diagnose(OSError(text), 1.0).problem


def test_ordinary_text_stays() -> None:
    text = "s3://bucket/dataset/shards/a-00001.tar: HTTP 500, key a-0001"
    assert redacted(text) == text
