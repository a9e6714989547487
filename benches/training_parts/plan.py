"""What is trained, for how long, and on what."""

import itertools
import random
import typing

BATCH = 32
# Of each process, as a node has them on two cores.
THREADS = 2
SEED = 7
LEARNING_RATE = 0.01
# Random images have as many; the model may tell more apart.
CLASSES = 10
# Data are prepared once; no checkpoint but the last; a slow step is no lost connection.
CONFIG = """seed = {seed}
split_point = {split_point}
model = "{model}"
[link]
profile = "none"
[edge]
kernel_threads = {threads}
[train]
epochs = {epochs}
batch_size = {batch}
micro_batches = 1
checkpoint_every = 1000000
step_timeout_s = 120
[train.optimizer]
kind = "sgd"
learning_rate = {learning_rate}
momentum = 0.0
[data]
"""
CLOUD = [f"cloud.threads={THREADS}", f"cloud.kernel_threads={THREADS}"]


class Plan(typing.NamedTuple):
    model: str
    split_point: int
    # Height and width of random RGB images; none: the digits that come with Cleave, 1257 for training.
    image: tuple | None
    steps_per_epoch: int
    epochs: int
    # Steps at the beginning of each turn that do not count.
    warm_up: int

    def taken(self):
        """Steps of a turn, the first ones too. Of an epoch the last one is left out: validation follows it."""
        return self.epochs * (self.steps_per_epoch - 1)

    def config(self, **data):
        lines = [f'{key} = "{value}"' for key, value in data.items()]
        text = CONFIG.format(seed=SEED, threads=THREADS, batch=BATCH, learning_rate=LEARNING_RATE, **self._asdict())
        return text + "\n".join(lines) + "\n"

    def samples(self):
        """So many that the part for training fills an epoch: tests get 20 % and validation 10 %, rounded up."""
        wanted = self.steps_per_epoch * BATCH
        return next(n for n in itertools.count(wanted) if n - -(-n // 5) - -(-n // 10) == wanted)


PLANS = {
    "lenet": Plan("lenet", 4, None, steps_per_epoch=40, epochs=8, warm_up=20),
    "resnet18": Plan("resnet18", 5, (224, 224), steps_per_epoch=8, epochs=1, warm_up=2),
}
SHORT_PLANS = {
    "lenet": PLANS["lenet"]._replace(epochs=2),
    "resnet18": PLANS["resnet18"]._replace(steps_per_epoch=4, warm_up=1),
}


def write_images(folder, plan):
    """Random images of random classes: what they show does not change how long a step takes."""
    draw = random.Random(SEED)
    height, width = plan.image
    for number in range(plan.samples()):
        # Each class once first, so that none is missing.
        chosen = number if number < CLASSES else draw.randrange(CLASSES)
        of_class = folder / f"class-{chosen}"
        of_class.mkdir(parents=True, exist_ok=True)
        header = f"P6\n{width} {height}\n255\n".encode()
        (of_class / f"{number:04}.ppm").write_bytes(header + draw.randbytes(3 * height * width))
