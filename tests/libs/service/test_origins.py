import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.service.origins import parse_origins


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        (" , ", ()),
        ("https://dashboard.example", ("https://dashboard.example",)),
        ("https://a.example, http://localhost:3000 ,", ("https://a.example", "http://localhost:3000")),
        ("HTTPS://Dashboard.Example", ("https://dashboard.example",)),
        ("https://a.example:443,http://a.example:80", ("https://a.example", "http://a.example")),
        ("https://a.example:80", ("https://a.example:80",)),
        ("https://a.example,https://A.example", ("https://a.example",)),
        ("http://[::1]:8080", ("http://[::1]:8080",)),
        ("http://127.0.0.1:05173", ("http://127.0.0.1:5173",)),
        ("moz-extension://0b3c,tauri://localhost", ("moz-extension://0b3c", "tauri://localhost")),
        ("https://xn--bcher-kva.example", ("https://xn--bcher-kva.example",)),
    ],
)
def test_origins_are_as_browsers_send_them(text: str, origins: tuple[str, ...]) -> None:
    assert parse_origins(text) == origins
    assert parse_origins(",".join(origins)) == origins


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("*", "name the origins of your own pages"),
        ("https://a.example,*", "name the origins of your own pages"),
        ("null", "serve your page over http"),
        ("NULL", "serve your page over http"),
        ("https://a.example/", "leave out the path: https://a.example"),
        ("https://a.example/app/index.html", "leave out the path: https://a.example"),
        ("https://a.example?x=1", "write it as https://host"),
        ("https://me:secret@a.example", "write it as https://host"),
        ("https://*.example", "write it as https://host"),
        ("a.example", "write it as https://host"),
        ("localhost:3000", "write it as https://host"),
        ("https://", "write it as https://host"),
        ("file://", "write it as https://host"),
        ("https://a.example:0", "no valid port; use 1 to 65535"),
        ("https://a.example:65536", "no valid port; use 1 to 65535"),
        ("https://a.example:port", "write it as https://host"),
        ("https://a.example https://b.example", "write it as https://host"),
        ("https://bücher.example", "xn--"),
        ("https://a.example\r\nX: y", "write it as https://host"),
    ],
)
def test_what_is_not_an_origin_is_refused_with_the_remedy(text: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as caught:
        parse_origins(text)
    assert remedy in str(caught.value)


@given(st.text(max_size=60) | st.text("htps:/.a1*,[]", max_size=40))
def test_any_text_is_origins_or_refused(text: str) -> None:
    try:
        origins = parse_origins(text)
    except ValueError:
        return
    assert all("://" in origin and origin.isascii() and "," not in origin for origin in origins)
    assert parse_origins(",".join(origins)) == origins
