import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from renshu.board.server import Guard, is_local


async def _page(request):
    return PlainTextResponse("inside")


async def _talk(socket):
    await socket.accept()
    await socket.send_text("inside")
    await socket.close()


def client(token):
    app = Starlette(routes=[Route("/", _page), WebSocketRoute("/talk", _talk)])
    return TestClient(Guard(app, token), follow_redirects=False)


def test_without_a_token_nothing_is_asked():
    answer = client(None).get("/")
    assert (answer.status_code, answer.text) == (200, "inside")


def test_no_page_may_speak_to_another_host():
    headers = client(None).get("/").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", "?token=secre", "?token=secrett", "?token=%ff"])
def test_without_the_right_token_nothing_is_answered(query):
    answer = client("secret").get(f"/{query}")
    assert answer.status_code == 401
    assert "inside" not in answer.text
    assert "?token=" in answer.text


def test_the_token_becomes_a_cookie_that_scripts_cannot_read():
    visitor = client("secret")
    answer = visitor.get("/?token=secret")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "SameSite=strict" in answer.headers["set-cookie"]
    assert visitor.get("/").text == "inside"


def test_the_address_stays_what_it_was_but_for_the_token():
    answer = client("secret").get("/run/a%3Fb%25?run=x&token=secret&run=y")
    assert answer.headers["location"] == "/run/a%3Fb%25?run=x&run=y"
    assert client("secret").get("http://testserver//evil.example?token=secret").headers["location"] == "/evil.example"


def test_cookies_of_other_programs_do_no_harm():
    visitor = client("secret")
    own = visitor.get("/?token=secret").headers["set-cookie"].partition(";")[0]
    for others in ('a={"b":1}', "a/b=1", "a"):
        answer = client("secret").get("/", headers={"Cookie": f"{others}; {own}"})
        assert answer.text == "inside"
    assert client("secret").get("/", headers={"Cookie": own.replace("secret", "wrong")}).status_code == 401


def test_an_empty_token_is_nobodys():
    assert client("").get("/?token=").status_code == 401


def test_a_websocket_needs_the_cookie_too():
    with pytest.raises(WebSocketDisconnect), client("secret").websocket_connect("/talk"):
        pass
    visitor = client("secret")
    visitor.get("/?token=secret")
    with visitor.websocket_connect("/talk") as socket:
        assert socket.receive_text() == "inside"
    with pytest.raises(WebSocketDisconnect), client("secret").websocket_connect("/talk?token=wrong"):
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.5.5.5"])
def test_addresses_of_this_machine_alone(host):
    assert is_local(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_addresses_that_others_reach(host):
    assert not is_local(host)
