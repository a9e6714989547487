"""A grpcio server as grpcio's own examples have it: a pool of threads, one call on each."""

import concurrent.futures
import json

import grpc

WORKERS = 10


def serve(service, methods, **told):
    """Answers until the process is ended. The first line out has the port, and what else the parent has to know."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=WORKERS))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(json.dumps({"port": port, "workers": WORKERS, "grpcio": grpc.__version__, **told}), flush=True)
    server.wait_for_termination()
