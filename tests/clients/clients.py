"""Uses PyPI durable-streams as an application does, and prints what it sees, a JSON value a line.

    clients.py follow MODE < URLS    follows each URL (one a line) to the end of its stream, by "sse" or "long-poll"
    clients.py round-trip URL        creates streams below URL, appends, and reads back

Version 0.1.0 of the client is older than the closure of streams, and it does not reconnect: both are the application's.
"""

import asyncio
import json
import ssl
import sys
from collections.abc import Callable

import httpx
from durable_streams import DurableStream, astream, stream

CLOSED = "stream-closed"
# Making one takes longer than all that is done here with a client, and nothing here is encrypted.
TLS = ssl.create_default_context()


class Ended(Exception):
    """The stream is closed, and everything has been read."""


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def end_at_closure(response: httpx.Response) -> None:
    # With a body, the last messages are in it; the next request gets the end alone.
    if response.status_code == 204 and response.headers.get(CLOSED) == "true":
        raise Ended


async def read_on(
    url: str, offset: str, live: str | bool, client: httpx.AsyncClient, see: Callable[[int], None]
) -> str:
    """Reads until the response ends or breaks. Returns where to go on."""
    try:
        async with astream(url, offset=offset, live=live, client=client) as response:
            async for event in response.iter_events(mode="json"):
                for item in event.data:
                    see(item["n"])
                offset = event.next_offset
            if live is False and response.headers.get(CLOSED) == "true":
                raise Ended
    except httpx.TransportError:
        pass
    return offset


async def follow(reader: int, url: str, live: str) -> None:
    offset = "-1"
    async with httpx.AsyncClient(verify=TLS, event_hooks={"response": [end_at_closure]}) as client:
        try:
            while True:
                offset = await read_on(url, offset, live, client, lambda n: say(reader=reader, n=n))
                # Over Server-Sent Events the client does not tell a closed stream from a rotation. A read does.
                offset = await read_on(url, offset, False, client, lambda n: say(reader=reader, n=n))
        except Ended:
            say(reader=reader, ended=True)
        except Exception as error:  # the tests are told, whatever it is
            say(reader=reader, error=repr(error))


async def follow_all(live: str) -> None:
    urls = sys.stdin.read().split()
    await asyncio.gather(*(follow(reader, url, live) for reader, url in enumerate(urls)))


def round_trip(url: str) -> None:
    with DurableStream.create(f"{url}-json", content_type="application/json") as handle:
        for item in [{"n": 0}, [1, 2], "three", None, 4.5]:
            handle.append(item)
        appended = handle.append({"last": True})
        say(head=handle.head().offset == appended.next_offset)
    with stream(f"{url}-json", live=False) as response:
        say(json=response.read_json())
    with DurableStream.create(f"{url}-text", content_type="text/plain") as handle:
        for text in ["one\n", " two \u00e9\n", "three"]:
            handle.append(text)
    with stream(f"{url}-text", live=False) as response:
        say(text=response.read_text())
    with DurableStream.create(f"{url}-bytes", content_type="application/octet-stream", body=b"\x00\xff") as handle:
        handle.append(bytes(range(256)))
    with stream(f"{url}-bytes", live=False) as response:
        say(bytes=response.read_bytes().hex())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["follow", ("sse" | "long-poll") as live]:
            asyncio.run(follow_all(live))
        case ["round-trip", url]:
            round_trip(url)
        case _:
            sys.exit(__doc__)
