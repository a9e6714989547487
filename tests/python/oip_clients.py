"""Stock clients against a running edge: oip_clients.py GRPC_ADDRESS HTTP_ADDRESS MODEL

tritonclient over gRPC and over HTTP, typed contents, every kind of mistake, and server reflection.
Prints a line for each check, and exits with 1 at the first that fails.
"""

import sys

import grpc
import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

TIMES = ["head_ms", "encode_ms", "uplink_ms", "tail_ms", "downlink_ms", "decode_ms"]
GRPC_ADDRESS, HTTP_ADDRESS, MODEL = sys.argv[1:4]


def check(what, ok, found=""):
    if not ok:
        sys.exit(f"FAILED {what}: {found}")
    print(f"ok {what}")


def digits(batch):
    rng = np.random.default_rng(batch)
    return rng.random((batch, 1, 8, 8), dtype=np.float32)


def one_input(module, meta, values, binary=None, shape=None, dtype="FP32"):
    tensor = module.InferInput(meta["input"], shape or list(values.shape), dtype)
    if binary is None:
        tensor.set_data_from_numpy(values)
    else:
        tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def metadata(client):
    meta = client.get_model_metadata(MODEL, as_json=True)
    tensor_in, tensor_out = meta["inputs"][0], meta["outputs"][0]
    shapes = [[int(d) for d in t["shape"]] for t in (tensor_in, tensor_out)]
    check("gRPC metadata", shapes == [[-1, 1, 8, 8], [-1, 10]], meta)
    check("gRPC dtypes", tensor_in["datatype"] == tensor_out["datatype"] == "FP32", meta)
    return {"input": tensor_in["name"], "output": tensor_out["name"]}


def health(client, way):
    check(f"{way} live", client.is_server_live())
    check(f"{way} ready", client.is_server_ready())
    check(f"{way} model ready", client.is_model_ready(MODEL))


def parameters_of(response):
    """Response parameters of a gRPC answer as plain values."""
    kinds = response.parameters.items()
    return {name: getattr(p, p.WhichOneof("parameter_choice")) for name, p in kinds}


def check_parameters(way, parameters):
    missing = [name for name in ["split_point", *TIMES] if name not in parameters]
    check(f"{way} parameters", not missing, missing)
    check(f"{way} times", all(0 <= parameters[name] < 60_000 for name in TIMES), parameters)


def infer_everywhere(rpc, http, stub, meta):
    for batch in (1, 5):
        values = digits(batch)
        result = rpc.infer(MODEL, [one_input(triton_grpc, meta, values)], request_id="a")
        reference = result.as_numpy(meta["output"])
        check(f"gRPC infer, batch {batch}", reference.shape == (batch, 10), reference.shape)
        check("gRPC request id", result.get_response().id == "a")
        check_parameters("gRPC", parameters_of(result.get_response()))
        for binary in (True, False):
            outputs = [triton_http.InferRequestedOutput(meta["output"], binary_data=binary)]
            inputs = [one_input(triton_http, meta, values, binary)]
            result = http.infer(MODEL, inputs, outputs=outputs)
            found = result.as_numpy(meta["output"])
            same = np.array_equal(found, reference) if binary else np.allclose(found, reference, 0, 1e-6)
            check(f"HTTP infer, batch {batch}, binary {binary}", same, found)
            check_parameters("HTTP", result.get_response()["parameters"])
        typed = service_pb2.ModelInferRequest(model_name=MODEL)
        tensor = typed.inputs.add(name=meta["input"], datatype="FP32", shape=list(values.shape))
        tensor.contents.fp32_contents.extend(values.ravel().tolist())
        answer = stub.ModelInfer(typed)
        raw = b"".join(answer.raw_output_contents)
        listed = [v for o in answer.outputs for v in o.contents.fp32_contents]
        found = np.frombuffer(raw, np.float32) if raw else np.array(listed, np.float32)
        check(f"typed contents, batch {batch}", np.array_equal(found, reference.ravel()), found)


def refused(way, what, code, call):
    try:
        call()
    except InferenceServerException as e:
        status = str(e.status())
        check(f"{way} refuses {what}", code in status, f"{status}: {e.message()}")
    except grpc.RpcError as e:
        check(f"{way} refuses {what}", code in str(e.code()), e.details())
    else:
        check(f"{way} refuses {what}", False, "it was answered")


def mistakes(rpc, http, stub, meta):
    good, wide = digits(1), np.zeros((1, 1, 9, 8), np.float32)
    nan = np.full((1, 1, 8, 8), np.nan, np.float32)
    whole = np.zeros((1, 1, 8, 8), np.int64)

    def by_grpc(values, model=MODEL, dtype="FP32"):
        return lambda: rpc.infer(model, [one_input(triton_grpc, meta, values, dtype=dtype)])

    def by_http(values, model=MODEL, dtype="FP32"):
        return lambda: http.infer(model, [one_input(triton_http, meta, values, True, dtype=dtype)])

    for what, code, status, arguments in [
        ("a wrong shape", "INVALID_ARGUMENT", "400", {"values": wide}),
        ("a wrong dtype", "INVALID_ARGUMENT", "400", {"values": whole, "dtype": "INT64"}),
        ("an unknown model", "NOT_FOUND", "404", {"values": good, "model": "cats"}),
        ("NaN", "INVALID_ARGUMENT", "400", {"values": nan}),
    ]:
        refused("gRPC", what, code, by_grpc(**arguments))
        refused("HTTP", what, status, by_http(**arguments))
        check("gRPC still answers", by_grpc(good)().as_numpy(meta["output"]).shape == (1, 10))
        check("HTTP still answers", by_http(good)().as_numpy(meta["output"]).shape == (1, 10))

    cut = service_pb2.ModelInferRequest(model_name=MODEL)
    cut.inputs.add(name=meta["input"], datatype="FP32", shape=[1, 1, 8, 8])
    cut.raw_input_contents.append(good.tobytes()[:100])
    refused("gRPC", "truncated contents", "INVALID_ARGUMENT", lambda: stub.ModelInfer(cut))
    check("gRPC still answers", by_grpc(good)().as_numpy(meta["output"]).shape == (1, 10))


def reflection(channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = next(iter(stub.ServerReflectionInfo(iter([request]))))
    names = {service.name for service in answer.list_services_response.service}
    for name in ("inference.GRPCInferenceService", "grpc.health.v1.Health"):
        check(f"reflection lists {name}", name in names, names)
    symbol = reflection_pb2.ServerReflectionRequest(
        file_containing_symbol="inference.GRPCInferenceService"
    )
    answer = next(iter(stub.ServerReflectionInfo(iter([symbol]))))
    check("reflection has the descriptor", answer.file_descriptor_response.file_descriptor_proto)


def main():
    rpc = triton_grpc.InferenceServerClient(GRPC_ADDRESS)
    http = triton_http.InferenceServerClient(HTTP_ADDRESS)
    channel = grpc.insecure_channel(GRPC_ADDRESS)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    health(rpc, "gRPC")
    health(http, "HTTP")
    check("HTTP: another model is not ready", not http.is_model_ready("cats"))
    refused("gRPC", "readiness of another model", "NOT_FOUND", lambda: rpc.is_model_ready("cats"))
    check("gRPC server metadata", rpc.get_server_metadata().name == "cleave")
    check("HTTP server metadata", http.get_server_metadata()["name"] == "cleave")
    meta = metadata(rpc)
    http_meta = http.get_model_metadata(MODEL)
    check("HTTP metadata", http_meta["inputs"][0]["shape"] == [-1, 1, 8, 8], http_meta)
    infer_everywhere(rpc, http, stub, meta)
    mistakes(rpc, http, stub, meta)
    reflection(channel)
    print("all checks passed")


main()
