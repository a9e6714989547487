# %% [markdown]
# # Cleave from Python
#
# One network on two machines, from a notebook: start a cloud and an edge, ask, look where the time went, move the split
# point, train across the link, and find the split point that is quickest. Open this file in VS Code or Jupyter
# (jupytext), or run it:
#
#     cargo build
#     pip install ./clients/python
#     python docs/tutorial.py
#
# It needs nothing else, works in a temporary folder, and takes about half a minute.

# %%
import atexit
import os
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

import cleave

here = Path.cwd()
repository = next(folder for folder in (here, *here.parents) if (folder / "config/cleave.toml").is_file())
programs = Path(os.environ.get("CLEAVE_BIN_DIR", repository / "target/debug")).resolve()
work = Path(tempfile.mkdtemp(prefix="cleave-tutorial-"))

# %% [markdown]
# ## Two nodes
#
# Both read one file. This one says: a small CNN on handwritten digits, its first two stages on the edge, and a 5G link
# between the nodes. Whatever it leaves out has the default of `config/cleave.toml`.

# %%
CONFIG = """
split_point = 2                    # stages on the edge: conv1 pool1 | conv2 pool2 fc1 fc2 in the cloud

[model]
family = "lenet"
input = [1, 8, 8]
channels = [32, 64]
hidden = [128]
classes = 10

[link]
profile = "5g-midband"             # 20 ms round trip, 60 Mbit/s up, 400 Mbit/s down
"""


def write_config(text: str) -> None:
    """As an editor does: a whole new file under the old name."""
    (work / "edited").write_text(text)
    (work / "edited").rename(work / "cleave.toml")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


cloud_port, grpc_port, http_port = free_port(), free_port(), free_port()
settings = {
    "cloud.listen": f"127.0.0.1:{cloud_port}",
    "edge.cloud": f"http://127.0.0.1:{cloud_port}",
    "edge.grpc_listen": f"127.0.0.1:{grpc_port}",
    "edge.http_listen": f"127.0.0.1:{http_port}",
}


def command(program: str, *words: str) -> list[str]:
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return [str(programs / program), *words, "--config", str(work / "cleave.toml"), *sets]


def start(program: str) -> None:
    with (work / f"{program}.log").open("w") as log:
        node = subprocess.Popen(command(program, "serve"), cwd=work, stdout=log, stderr=log)
    atexit.register(node.kill)


write_config(CONFIG)
start("cloud-node")
start("edge-node")
edge = cleave.Client(f"http://127.0.0.1:{http_port}").wait_ready()
print(edge.server())
print(edge.model())

# %% [markdown]
# ## Ask
#
# The digits come with Cleave, in MNIST's format: 8 x 8 pixels of 0 to 16. A batch goes to the edge; the answer has the
# model's outputs, and the milliseconds of each part. The weights are random still (`seed-7`).

# %%
images = np.fromfile(repository / "data/digits/images.idx3-ubyte", np.uint8)[16:].reshape(-1, 1, 8, 8) / 16
labels = np.fromfile(repository / "data/digits/labels.idx1-ubyte", np.uint8)[8:]
answer = edge.infer(images[:4])
print(answer)
print(answer.timing)
answer

# %% [markdown]
# Most of the time is the link: behind `pool1` a digit is 2 KiB, and the way there and back takes a round trip.
#
# ## Move the split point
#
# Change the file while the edge runs, and the next requests use it. The answer is the same, bit for bit: a split model
# is the same model.


# %%
def move(split: int) -> None:
    """Changes the split point, and waits until it is in force."""
    write_config(CONFIG.replace("split_point = 2 ", f"split_point = {split} "))
    end = time.monotonic() + 30
    while edge.infer(images[:1]).timing.split_point != split:
        assert time.monotonic() < end, (work / "edge-node.log").read_text()
        time.sleep(0.05)


for split in (0, 6):
    move(split)
    moved = edge.infer(images[:4])
    print(moved.timing)
    assert np.array_equal(moved["logits"], answer["logits"])
move(2)

# %% [markdown]
# ## Train across the link
#
# Edge and cloud each learn their own stages: activations go up, the gradient at the cut comes down. What was trained
# last is deployed, and a running edge takes it up by itself.

# %%
training = subprocess.run(
    command("edge-node", "train", "--run", "tutorial", "--set", "train.epochs=5"),
    cwd=work,
    capture_output=True,
    text=True,
)
assert training.returncode == 0, training.stderr
print(training.stdout)

end = time.monotonic() + 30
while not (answer := edge.infer(images[:1000])).version.startswith("tutorial-") and time.monotonic() < end:
    time.sleep(0.1)
accuracy = float((answer["logits"].argmax(axis=1) == labels[:1000]).mean())
print(f"{answer.version}: {accuracy:.1%} of 1000 digits")
assert answer.version.startswith("tutorial-")
assert accuracy > 0.8

# %% [markdown]
# ## Where to cut
#
# The same request at every split point, 20 times each: what the edge reports, in medians. At 6 all of the model is on
# the edge, and nothing crosses the link. `edge-node plan` predicts this without asking; `split_point = "auto"` follows
# what it predicts.

# %%
latency: dict[int, dict[str, float]] = {}
for split in range(7):
    move(split)
    timings = [edge.infer(images[i : i + 1]).timing for i in range(20)]
    assert all(timing.split_point == split for timing in timings)
    latency[split] = {part: statistics.median(t.parts[part] for t in timings) for part in timings[0].parts}

parts = list(latency[0])
print("split  " + "".join(f"{part:>10}" for part in parts) + "    in all")
for split, medians in latency.items():
    row = "".join(f"{medians[part]:10.2f}" for part in parts)
    print(f"{split:5}  {row}{sum(medians.values()):10.2f}")
assert latency[6]["uplink"] == 0 < latency[0]["uplink"]

# %% [markdown]
# The same as a picture, where matplotlib is installed.

# %%
try:
    import matplotlib.pyplot as plt
except ImportError:
    print("no matplotlib: no picture")
else:
    figure, axes = plt.subplots()
    bottom = np.zeros(len(latency))
    for part in parts:
        heights = np.array([medians[part] for medians in latency.values()])
        axes.bar(list(latency), heights, bottom=bottom, label=part)
        bottom += heights
    axes.set(xlabel="split point", ylabel="ms", title="LeNet across 5g-midband")
    axes.legend()
    figure.savefig(work / "latency.png")
    print(f"the picture is {work / 'latency.png'}")

# %%
edge.close()
