import httpx

from tests.servers.model_server import running

ASKED = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def test_the_model_server_can_be_told_from_another_process_what_goes_wrong() -> None:
    with running() as server, httpx.Client(base_url=server.url.removesuffix("/v1")) as client:
        client.post("/faults", json={"kind": "status", "status": 503, "count": 2}).raise_for_status()
        statuses = [client.post("/v1/chat/completions", json=ASKED).status_code for _ in range(3)]
        assert statuses == [503, 503, 200]
        assert client.get("/stats").json() == {"requests": 3, "bodies": [ASKED] * 3}
        client.post("/reset").raise_for_status()
        assert client.get("/stats").json() == {"requests": 0, "bodies": []}


def test_the_model_server_says_which_field_of_a_fault_it_does_not_know() -> None:
    with running() as server, httpx.Client(base_url=server.url.removesuffix("/v1")) as client:
        answer = client.post("/faults", json={"kind": "status", "statsu": 503})
        assert answer.status_code == 400
        assert "statsu" in answer.text
