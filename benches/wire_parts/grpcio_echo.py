"""grpcio's side of benches/wire: `serve`, or `measure` with the flags and the line that the example wire has.

Bytes go in and bytes come out, without protobuf, which a client with tensors would need on top: that flatters grpcio.
"""

import argparse
import concurrent.futures
import json
import sys
import time

import grpc

SERVICE, METHOD = "wire.Bare", "Echo"
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def serve():
    echo = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=2), options=UNLIMITED)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {METHOD: echo})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


def measure(options):
    sent = (bytes(range(251)) * (options.bytes // 251 + 1))[: options.bytes]
    times = []
    with grpc.insecure_channel(f"127.0.0.1:{options.port}", options=UNLIMITED) as channel:
        call = channel.unary_unary(f"/{SERVICE}/{METHOD}")
        for number in range(options.warm_up + options.count):
            begin = time.perf_counter_ns()
            answer = call(sent)
            took = time.perf_counter_ns() - begin
            if len(answer) != len(sent) or (number == 0 and answer != sent):
                sys.exit(f"{len(answer)} bytes came back, and not what was sent")
            answer = None  # Freed between the times, as the others' are.
            if number >= options.warm_up:
                times.append(took / 1e3)
    print(json.dumps({"us": times, "request_bytes": len(sent)}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve")
    measurement = commands.add_parser("measure")
    for flag in ("--port", "--bytes", "--count"):
        measurement.add_argument(flag, type=int, required=True)
    measurement.add_argument("--warm-up", type=int, default=0)
    options = parser.parse_args()
    if options.command == "serve":
        serve()
    else:
        measure(options)


if __name__ == "__main__":
    main()
