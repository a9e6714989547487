"""A TCP proxy in front of a cloud that can be told to misbehave."""

import asyncio
import time

BLOCK = 1 << 16
# What a slow peer gives, bytes a second each way of each connection.
SLOW = 20_000


class Proxy:
    """Carries bytes to `port` of this machine, until it is cut, held, slowed or made to lie."""

    def __init__(self, port):
        self.port, self.listen, self.server = port, None, None
        self.open = set()
        self.refused_until = self.held_until = self.slow_until = 0.0
        self.corrupt = 0
        self.corrupted = 0

    async def start(self, listen):
        self.listen = listen
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", listen)

    def cut(self, seconds):
        """Ends all connections, and lets none in for a while."""
        self.refused_until = time.monotonic() + seconds
        for writer in list(self.open):
            writer.transport.abort()

    def hold(self, seconds):
        """Nothing passes for a while, and nothing is said of it."""
        self.held_until = time.monotonic() + seconds

    def slow(self, seconds):
        self.slow_until = time.monotonic() + seconds

    def lie(self, blocks):
        """Changes a bit in each of the next blocks."""
        self.corrupt = blocks

    async def accept(self, reader, writer):
        if time.monotonic() < self.refused_until:
            writer.transport.abort()
            return
        try:
            up, down = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            writer.transport.abort()
            return
        self.open |= {writer, down}
        try:
            await asyncio.gather(self.carry(reader, down), self.carry(up, writer))
        except asyncio.CancelledError:
            # The soak is over.
            pass
        finally:
            self.open -= {writer, down}
            for end in (writer, down):
                end.transport.abort()

    async def carry(self, reader, writer):
        try:
            while block := await reader.read(BLOCK):
                while (wait := self.held_until - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                if time.monotonic() < self.slow_until:
                    await asyncio.sleep(len(block) / SLOW)
                if self.corrupt > 0:
                    self.corrupt -= 1
                    self.corrupted += 1
                    middle = len(block) // 2
                    block = block[:middle] + bytes([block[middle] ^ 0x10]) + block[middle + 1:]
                writer.write(block)
                await writer.drain()
        except OSError:
            pass
        writer.transport.abort()
