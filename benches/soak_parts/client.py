"""A client of each edge, which compares every answer with the unsplit model's."""

import asyncio
import json
import random
import sys
import time

# Longer than any request may take: who waits for so long has been forgotten.
PATIENCE_S = 30
INPUTS = 64


def images():
    """Requests, each with one image `[1, 1, 8, 8]` of noise."""
    draw = random.Random(7)
    bodies = []
    for _ in range(INPUTS):
        data = [round(draw.random(), 6) for _ in range(64)]
        tensor = {"name": "input", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": data}
        bodies.append(json.dumps({"inputs": [tensor]}).encode())
    return bodies


async def ready(host, port, log):
    """Waits until the edge there serves; `log` is what it says if it does not."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET /v2/health/ready HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            if answer.startswith(b"HTTP/1.1 200"):
                return
        except OSError:
            pass
        await asyncio.sleep(0.1)
    sys.exit(f"the edge at {host}:{port} does not serve: {log()}")


class Client:
    """HTTP/1.1 over one connection, made again when it broke."""

    def __init__(self, host, port):
        self.host, self.port = host, port
        self.reader = self.writer = None

    async def ask(self, body):
        """The answer's logits and the stages that ran on the edge; ConnectionError or ValueError if there is none."""
        status, answer = await asyncio.wait_for(self.exchange(body), PATIENCE_S)
        if status != 200:
            raise ValueError(f"{status}: {answer.decode(errors='replace')[:200]}")
        answer = json.loads(answer)
        return answer["outputs"][0]["data"], answer["parameters"]["split_point"]

    async def exchange(self, body):
        try:
            if self.writer is None:
                self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
            head = (
                "POST /v2/models/digits/infer HTTP/1.1\r\nHost: edge\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            self.writer.write(head.encode() + body)
            status, headers = await self.head()
            return status, await self.reader.readexactly(int(headers["content-length"]))
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise ConnectionError(repr(error)) from error

    async def head(self):
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return int(first.split(" ")[1]), headers

    def close(self):
        if self.writer is not None:
            self.writer.transport.abort()
        self.reader = self.writer = None


class Tally:
    """What became of all requests."""

    def __init__(self, expected, whole):
        # The unsplit model's answers, and the split point at which an edge has all of it.
        self.expected, self.whole = expected, whole
        self.times, self.by_split = [], {}
        self.wrong, self.failed = [], []

    def asked(self):
        return len(self.times) + len(self.failed)

    async def keep_asking(self, name, client, bodies, every_s, end):
        """One request after the other until `end`, one every so many seconds if the edge keeps up."""
        draw = random.Random(name)
        await asyncio.sleep(draw.random() * every_s)
        while time.monotonic() < end:
            begin = time.monotonic()
            which = draw.randrange(len(bodies))
            try:
                answer, split = await client.ask(bodies[which])
                self.times.append(time.monotonic() - begin)
                self.by_split[split] = self.by_split.get(split, 0) + 1
                if answer != self.expected[which]:
                    self.wrong.append(f"{name}: image {which}, split point {split}: {answer[:3]}…")
            except (ConnectionError, ValueError, TimeoutError) as error:
                client.close()
                self.failed.append(f"{name} after {time.monotonic() - begin:.2f} s: {error}")
            await asyncio.sleep(max(0.0, every_s - (time.monotonic() - begin)))
