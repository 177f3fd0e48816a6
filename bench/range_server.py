"""Answers range queries with two million made-up samples: `range_server.py PORT`."""

import sys
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from frames import SERIES, samples


def answer(start: int, points: int) -> bytes:
    found = []
    for number in range(SERIES):
        values = samples(number)[:points].tolist()
        pairs = ",".join(f'[{start + 60 * at},"{value!r}"]' for at, value in enumerate(values))
        found.append(f'{{"metric":{{"instance":"n{number}"}},"values":[{pairs}]}}')
    data = f'{{"resultType":"matrix","result":[{",".join(found)}]}}'
    return f'{{"status":"success","data":{data}}}'.encode()


def main(port: int) -> None:
    kept: dict[tuple[int, int], bytes] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        if scope["type"] == "http" and scope["path"].endswith("/query_range"):
            message = await receive()
            form = parse_qs(scope["query_string"].decode() or message["body"].decode())
            start, end = (round(float(form[key][0])) for key in ("start", "end"))
            key = (start, (end - start) // 60 + 1)
            body = kept.setdefault(key, kept.get(key) or answer(*key))
        length = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": body})

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", lifespan="off")


if __name__ == "__main__":
    main(int(sys.argv[1]))
