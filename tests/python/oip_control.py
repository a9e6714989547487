"""tritonclient over both transports against the protocol's extensions: oip_control.py GRPC HTTP MODEL TOKEN.

Configuration, statistics, repository, trace and log settings. The edge has the admin token TOKEN and a collector.
"""

import sys

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException

REQUESTS, BATCH = 3, 2


def check(what, holds, seen=""):
    if not holds:
        sys.exit(f"FAILED {what}: {seen}")
    print(f"ok {what}")


def refused(what, call, *words):
    try:
        call()
    except InferenceServerException as error:
        check(f"{what} is refused", any(word in str(error) for word in words), error)
    else:
        sys.exit(f"FAILED {what} was not refused")


def infer(module, client, model):
    metadata = client.get_model_metadata(model, **as_json(module))
    (entry,) = metadata["inputs"]
    shape = [BATCH, *(int(d) for d in entry["shape"][1:])]
    sent = module.InferInput(entry["name"], shape, "FP32")
    sent.set_data_from_numpy(np.zeros(shape, np.float32))
    return client.infer(model, [sent])


def as_json(module):
    return {"as_json": True} if module is over_grpc else {}


def configuration(name, module, client, model):
    config = client.get_model_config(model, **as_json(module))
    config = config.get("config", config)
    check(f"{name}: configuration", config["name"] == model and config["max_batch_size"] >= BATCH, config)
    metadata = client.get_model_metadata(model, **as_json(module))
    dims = [int(d) for d in config["input"][0]["dims"]]
    check(f"{name}: its dims are the metadata's", dims == [int(d) for d in metadata["inputs"][0]["shape"][1:]], dims)
    check(f"{name}: its type", config["input"][0]["data_type"] == "TYPE_FP32", config)


def statistics(name, module, client, model):
    def now():
        (found,) = client.get_inference_statistics(model, **as_json(module))["model_stats"]
        return found

    before = now()
    for _ in range(REQUESTS):
        infer(module, client, model)
    after = now()
    grown = lambda key: int(after[key]) - int(before.get(key, 0))
    check(f"{name}: requests", grown("execution_count") == REQUESTS, after)
    check(f"{name}: samples", grown("inference_count") == REQUESTS * BATCH, after)
    stats = after["inference_stats"]
    took = lambda part: int(stats[part].get("ns", 0))
    parts = sum(took(part) for part in ("queue", "compute_input", "compute_infer", "compute_output"))
    check(f"{name}: the parts add up", abs(parts - took("success")) < 10 * REQUESTS, stats)
    check(f"{name}: the last one", int(after["last_inference"]) > 1_700_000_000_000, after)
    everything = client.get_inference_statistics(**as_json(module))["model_stats"]
    check(f"{name}: of all models", [m["name"] for m in everything] == [model], everything)


def repository(name, module, client, model, token):
    headers = {"authorization": f"Bearer {token}"}

    def state():
        index = client.get_model_repository_index(**as_json(module))
        (entry,) = index["models"] if module is over_grpc else index
        return entry["state"]

    check(f"{name}: in the repository", state() == "READY", state())
    refused(f"{name}: to unload without the token", lambda: client.unload_model(model), "admin token")
    client.unload_model(model, headers=headers)
    check(f"{name}: unloaded", state() == "UNAVAILABLE" and not client.is_model_ready(model), state())
    check(f"{name}: the server is not ready", not client.is_server_ready())
    check(f"{name}: and is alive", client.is_server_live())
    refused(f"{name}: a request", lambda: infer(module, client, model), "unloaded")
    refused(f"{name}: to load with another configuration",
            lambda: client.load_model(model, headers=headers, config='{"max_batch_size": 1}'), "cannot be given with a load")
    refused(f"{name}: to load another model", lambda: client.load_model("other", headers=headers), "other")
    client.load_model(model, headers=headers)
    check(f"{name}: loaded", state() == "READY" and client.is_model_ready(model), state())
    infer(module, client, model)


def traces(name, module, client, token):
    headers = {"authorization": f"Bearer {token}"}

    def settings(changes=None, **more):
        if changes is None:
            found = client.get_trace_settings(**as_json(module))
        else:
            found = client.update_trace_settings(settings=changes, **more, **as_json(module))
        found = found.get("settings", found)
        value = lambda v: v["value"] if isinstance(v, dict) else v if isinstance(v, list) else [v]
        return {key: value(v) for key, v in found.items()}

    check(f"{name}: traced", settings()["trace_level"] == ["TIMESTAMPS"], settings())
    refused(f"{name}: to trace less without the token", lambda: settings({"trace_level": ["OFF"]}), "admin token")
    found = settings({"trace_rate": "4"}, headers=headers)
    check(f"{name}: one in four", found["trace_rate"] == ["4"], found)
    found = settings({"trace_level": ["OFF"]}, headers=headers)
    check(f"{name}: none", found["trace_level"] == ["OFF"] and settings() == found, found)
    refused(f"{name}: a file", lambda: settings({"trace_file": "/tmp/trace"}, headers=headers), "cannot be changed here")
    found = settings({"trace_level": ["TIMESTAMPS"], "trace_rate": None}, headers=headers)
    check(f"{name}: as configured", (found["trace_level"], found["trace_rate"]) == (["TIMESTAMPS"], ["1"]), found)


def logs(name, module, client, token):
    headers = {"authorization": f"Bearer {token}"}

    def settings(changes=None, **more):
        if changes is None:
            found = client.get_log_settings(**as_json(module))
        else:
            found = client.update_log_settings(settings=changes, **more, **as_json(module))
        found = found.get("settings", found)
        value = lambda v: next(iter(v.values())) if isinstance(v, dict) else v
        return {key: value(v) for key, v in found.items()}

    check(f"{name}: infos are logged", settings()["log_info"] is True, settings())
    refused(f"{name}: to log more without the token", lambda: settings({"log_verbose_level": 1}), "admin token")
    found = settings({"log_verbose_level": 1}, headers=headers)
    check(f"{name}: more is logged", int(found["log_verbose_level"]) == 1, found)
    found = settings({"log_verbose_level": 0, "log_info": False}, headers=headers)
    check(f"{name}: less is logged", found["log_info"] is False and found["log_warning"] is True, found)
    refused(f"{name}: another file", lambda: settings({"log_file": "/tmp/log"}, headers=headers), "cannot be changed")
    settings({"log_info": True}, headers=headers)


def main():
    grpc, http, model, token = sys.argv[1:]
    for name, module, address in (("gRPC", over_grpc, grpc), ("HTTP", over_http, http)):
        client = module.InferenceServerClient(address)
        extensions = client.get_server_metadata(**as_json(module))["extensions"]
        wanted = {"model_configuration", "model_repository", "statistics", "trace", "logging"}
        check(f"{name}: extensions", wanted <= set(extensions), extensions)
        configuration(name, module, client, model)
        statistics(name, module, client, model)
        repository(name, module, client, model, token)
        traces(name, module, client, token)
        logs(name, module, client, token)


main()
