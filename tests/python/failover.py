"""Asks an edge all the time while its clouds die, hang and come back: failover.py HOST:PORT MODEL CONTAINER CONTAINER.

Every answer has to be the same, none may fail, and the slowest may take as long as edge.deadline_ms. Containers are
killed, started, paused by the Docker engine.
"""

import http.client
import json
import subprocess
import sys
import threading
import time

DEADLINE_S = 5.0
SETTLE_S = 5


def ask(connection, model):
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [i / 64 for i in range(64)]}
    begin = time.monotonic()
    connection.request("POST", f"/v2/models/{model}/infer", json.dumps({"inputs": [tensor]}))
    reply = connection.getresponse()
    body = json.loads(reply.read())
    took = time.monotonic() - begin
    if reply.status != 200:
        raise RuntimeError(f"{reply.status}: {body}")
    return took, body["outputs"][0]["data"], body["parameters"]["split_point"]


class Client(threading.Thread):
    def __init__(self, address, model):
        super().__init__()
        self.address, self.model = address, model
        self.times, self.answers, self.splits, self.failed, self.stop = [], set(), set(), [], False

    def run(self):
        connection = http.client.HTTPConnection(self.address, timeout=30)
        while not self.stop:
            try:
                took, answer, split = ask(connection, self.model)
                self.times.append(took)
                self.answers.add(tuple(answer))
                self.splits.add(split)
            except Exception as error:
                self.failed.append(repr(error))
                connection.close()


def docker(*words):
    subprocess.run(["docker", *words], check=True, stdout=subprocess.DEVNULL)


def main():
    address, model, first, second = sys.argv[1:]
    client = Client(address, model)
    client.start()
    try:
        for words in [("kill", first), ("start", first), ("pause", second), ("unpause", second)]:
            time.sleep(SETTLE_S)
            before = len(client.times)
            docker(*words)
            print(f"{words[0]} {words[1][:12]} after {before} answers")
        time.sleep(SETTLE_S)
    finally:
        client.stop = True
        client.join()
        # Whatever went wrong, nothing stays paused.
        subprocess.run(["docker", "unpause", second], capture_output=True)
    times = sorted(client.times)
    p99 = times[int(0.99 * len(times))]
    print(
        f"{len(times)} answers, {len(client.answers)} different, split points {client.splits}, {len(client.failed)} failed; "
        f"p50 {times[len(times) // 2] * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, slowest {times[-1] * 1e3:.0f} ms"
    )
    for text in client.failed[:5]:
        print(text)
    sys.exit(0 if not client.failed and len(client.answers) == 1 and times[-1] <= DEADLINE_S else 1)


main()
