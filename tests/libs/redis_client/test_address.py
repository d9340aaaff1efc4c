"""Redis addresses: what works, and what is refused in one line that never holds a password."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.redis_client.address import checked_address
from libs.redis_client.client import RedisClient


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache", "redis://cache/0"),
        ("redis://cache:7001/", "redis://cache:7001/0"),
        ("redis://cache/15", "redis://cache/15"),
        ("redis://cache?db=3", "redis://cache/3"),
        ("redis://cache/3?db=3", "redis://cache/3"),
        ("redis://[::1]:6379/1", "redis://[::1]:6379/1"),
        ("redis://user:p%40s%2Fs%23@cache/1", "redis://user:p%40s%2Fs%23@cache/1"),
        ("redis://:secret@cache", "redis://:secret@cache/0"),
        ("rediss://cache?ssl_cert_reqs=required", "rediss://cache/0?ssl_cert_reqs=required"),
        ("rediss://cache?ssl_cert_reqs=none", "rediss://cache/0?ssl_cert_reqs=none&ssl_check_hostname=false"),
        ("redis://cache?client_name=paper", "redis://cache/0?client_name=paper"),
        ("redis://cache?socket_timeout=5&protocol=3&decode_responses=false&retry_on_timeout=True", "redis://cache/0"),
    ],
)
def test_what_works(url: str, address: str) -> None:
    assert checked_address(url) == address
    RedisClient(address)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://cache?ssl_cert_reqs=none", "'ssl_cert_reqs' needs rediss://"),
        ("rediss://cache?ssl_cert_reqs=maybe", "'ssl_cert_reqs' must be none or optional or required"),
        ("rediss://cache?ssl_cert_reqs=", "'ssl_cert_reqs' must be"),
        ("rediss://cache?ssl_ca_certs=/no/such/file", "'ssl_ca_certs' must be a file"),
        ("rediss://cache?ssl_check_hostname=perhaps", "must be true or false"),
        ("redis://cache?socket_timeout=abc", "'socket_timeout' must be a number"),
        ("redis://cache?socket_timeout=-1", "must be a number"),
        ("redis://cache?socket_timeout=nan", "must be a number"),
        ("redis://cache?decode_responses=true", "'decode_responses' must be false"),
        ("redis://cache?protocol=4", "'protocol' must be 2 or 3"),
        ("redis://cache?max_connections=many", "must be a number"),
        ("redis://cache?colour=red", "unknown option 'colour'"),
        ("redis://cache?SOCKET_TIMEOUT=1", "unknown option with another name"),
        ("redis://cache?password=hunter2", "unknown option 'password'"),
        ("redis://cache?db=1&db=2", "more than once"),
        ("redis://cache?protocol=2&protocol=2", "more than once"),
        ("redis://cache?db=", "'db' must be a database number"),
        ("redis://cache?db=-1", "'db' must be a database number"),
        ("redis://cache/2?db=3", "two databases"),
        ("redis://cache/abc", "database number"),
        ("redis://cache/-1", "database number"),
        ("redis://cache/0/1", "database number"),
        ("redis://cache/²", "database number"),
        ("redis://cache/1.5", "database number"),
        ("redis://cache:0", "port"),
        ("redis://cache:70000", "port"),
        ("redis://cache:abc", "port"),
        ("redis://cache:", "port"),
        ("redis://:hunter/2@cache", "name a host"),
        ("redis://user?hunter2@cache", "unknown option with another name"),
        ("redis://:hunter#2@cache", "name a host"),
        ("redis://cache#hunter2", "#"),
        ("redis://", "name a host"),
        ("redis://:6379", "name a host"),
        ("redis://@", "name a host"),
        ("redis://%2Frun%2Fredis", "name a host"),
        ("redis://[::1", "cannot be read"),
        ("unix:///run/redis.sock", "redis:// or rediss://"),
        ("http://cache", "redis:// or rediss://"),
        ("cache:6379", "redis:// or rediss://"),
        ("redis://ca che", "space"),
        ("redis://cache\n", "space"),
    ],
)
def test_what_is_refused(url: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below
        checked_address(url)
    said = str(caught.value)
    assert words in said
    assert "\n" not in said
    assert "hunter" not in said


def test_files_of_certificates_must_be_there(tmp_path: Path) -> None:
    file = tmp_path / "ca file.pem"
    with pytest.raises(ValueError, match="ssl_ca_certs"):
        checked_address(f"rediss://cache?ssl_ca_certs={tmp_path}")
    file.write_text("")
    address = checked_address(f"rediss://cache?ssl_ca_certs={file}".replace(" ", "%20"))
    RedisClient(address)
    assert "ca%20file.pem" in address


@given(
    st.text(max_size=30), st.sampled_from(["redis://cache?", "rediss://cache/", "redis://", "redis://:x@cache:", ""])
)
def test_any_text_works_or_is_refused_in_one_line(text: str, start: str) -> None:
    said = ""
    try:
        address = checked_address(start + text)
    except ValueError as error:
        said = str(error)
    else:
        RedisClient(address)
        assert checked_address(address) == address
    assert "\n" not in said
