"""What the documents' examples need that stands in no document; all exceptions are here, each with its reason."""

# Placeholders, and what would take long or leave the sandbox: pattern, replacement; applied to each command in turn.
REPLACED = [
    (r"\b(RUN|ID)\b", "before"),
    (r"\bHOST\b", "localhost"),
    (r"\bSHELL\b", "bash"),
    (r"\bFOLDER\b", "manual"),
    (
        r"(security\.ca=certs/([\w-]+))/ca\.pem \.\.\.",
        r"\1/ca.pem --set security.certificate=certs/\2/node.pem --set security.key=certs/\2/node-key.pem",
    ),
    (r"=\.\.\.", "=none"),
    (r"(train\.epochs=)\d+", r"\g<1>1"),
    (r"(--fine-tune )\d+", r"\g<1>1"),
    (r"(--epochs )\d+", r"\g<1>1"),
    (r"^edge-node ((exits|bottleneck) train|audit)\b(?!.*--epochs)([^#]*)", r"edge-node \1\3 --epochs 1 "),
    (r"^edge-node audit\b(?!.*--samples)([^#]*)", r"edge-node audit\1 --samples 64 "),
    (r"^edge-node tune\b(?!.*--trials)([^#]*)", r"edge-node tune\1 --trials 2 "),
    (r"(--trials )\d+", r"\g<1>2"),
    (r"(--measure )\d+", r"\g<1>2"),
    (r"^edge-node (profile|plan)\b(?!.*--graph)([^#>]*)", r"edge-node \1\2 --rounds 1 "),
    (r"(topology\.edges=)\d+", r"\g<1>4"),
    (r"(--seconds )\d+", r"\g<1>5"),
    # Of a run of one epoch.
    (r"(--step )\d+", r"\g<1>20"),
    (r"run:a:500", "run:lora:23"),
    (r"(edge-node demo.*--link )lte", r"\1wifi"),
    # Absolute paths, of folders that are made in the sandbox.
    (r"(?<= )/(etc|usr)/", r"root/\1/"),
    (r"&& man (\S+)", r"&& test -s root/usr/local/share/man/man1/\1.1"),
    (r"\| jq \.", "| python3 -m json.tool"),
    # A model of the same family that takes no half gigabyte.
    (r"--model gpt2 --set weights\.file=gpt2", "--config gpt2.toml"),
    (r"^(edge-node adapter (ex|im)port)", r"\1 --config gpt2.toml"),
    (r"^(edge-node infer cat\.jpg)(?!.*model_name)", r"\1 --set edge.model_name=resnet18"),
    (r"(--prompt-ids )[\d,]+(?=\s)(?! .*--config)", r"\g<1>1,150 --config gpt2.toml"),
    (r"(--prompt-ids )[\d,]+", r"\g<1>1,150"),
    (
        r"^(edge-node train --run a --edge 3)",
        r"\1 --no-deploy --set train.topology.kind=splitfed-v1 "
        r"--set train.topology.edges=16 --set train.topology.deadline_s=1",
    ),
]

# Which nodes a command or a snippet asks, where the document starts none or others: pattern, a stage of document_nodes.
STAGES = [
    (r"^edge-node infer (--text|review\.txt|ids\.csv|--input )", "bert"),
    (
        r"^edge-node (infer cat\.jpg|profile --model resnet18)|-node serve --model resnet18|model=\"resnet18\"",
        "resnet18",
    ),
    (r"--config gpt2\.toml|openai", "gpt2"),
    (r"set edge\.model_name=short", "short"),
    (r"infer houses\.csv", "linear"),
    (r"AsyncClient\(.*\"small\"", "small"),
    (r"--config mine/flowers", "flowers"),
    (r"--config mine/pictures", "pictures"),
]

# Run before a command, in a document: what the text around it takes for granted.
BEFORE = [
    ("docs/howto/codec.md", r"bottleneck train --run first", "edge-node train --run first"),
    ("docs/exits.md", r"bottleneck train --run R", "edge-node train --run R"),
    ("", r"^edge-node adapter export", "edge-node train --config gpt2.toml --run lora --set train.lora.rank=8"),
    ("docs/reference/cli.md", r"^edge-node exits report$", "edge-node exits train --after pool1,pool2 --epochs 1"),
    ("docs/training.md", r"--run a --edge 3", "cloud-node serve --set train.topology.deadline_s=1"),
]

# What is shown as output and typed nowhere in the document: the command that prints it, its exit status.
SHOWN = {
    "docs/howto/infer.md": [
        ("edge-node infer houses.csv", 0),
        ("edge-node infer x.npy --set edge.grpc_listen=127.0.0.1:9001", 1),
        ("edge-node infer refused/samples.csv", 1),
        ("edge-node infer refused/x.npy", 1),
        ("edge-node infer refused/fortran.npy", 1),
        ("edge-node infer ./review.txt", 1),
    ],
    "docs/howto/link-trace.md": [
        ("edge-node link --profile mine/bad.toml --simulate 1 --plot bad.svg", 1),
        ("edge-node plan --link mine/nowhere.toml", 2),
    ],
    "docs/howto/weights.md": [("edge-node infer picture.npy --set edge.model_name=short", 1)],
}

# Commands that are only parsed: pattern, reason.
PARSED = [
    (r"https?://(cloud|edge|10\.0\.0\.7):", "a node on another machine"),
    (r"(edge|cloud)-node health --set", "a node at another port"),
]

# Python: what a snippet takes for granted, by a pattern of it.
PRELUDE = [
    (r"torchvision\.models(?s:.)*safetensors\.torch", "import safetensors.torch, torchvision"),
    (r"\bcleave\.", "import cleave"),
]
# And what is put into its place: nothing is downloaded.
SNIPPET_REPLACED = [
    (r'weights="DEFAULT"', "weights=None"),
    (r'"x\.npy"', '"picture.npy"'),
]

# What a snippet has to make itself: document, a folder that is taken away before it.
MAKES = [("docs/howto/weights.md", "models/resnet18")]

# What a snippet of TOML needs beside itself: document, a text in it, section and values.
SNIPPET_WITH = [("docs/reference/config.md", "last_split", {"train": {"topology": {"kind": "u-shaped"}}})]

# The files that blocks of a document are the content of, in their order; those that are shortened are filled up.
FILES = {
    "docs/howto/data.md": {
        "sepal,": "mine/flowers.csv",
        'family = "mlp"': "mine/flowers.toml",
        'family = "lenet"': "mine/pictures.toml",
    },
    "docs/howto/link-trace.md": {"time_s,": "mine/train.csv", "[trace]": "mine/train.toml"},
}

# Documents that begin where nothing has been trained; others find the run "before".
FRESH = {"docs/tutorial.md", "docs/first-hour.md"}

# Blocks that are neither run nor compared: document, a text in the block, reason.
EXCEPTIONS = [
    ("CONTRIBUTING.md", "proto/cleave/v1/", "a list of folders"),
    ("docs/privacy.md", "x · min(1", "a formula"),
    ("docs/privacy.md", "ε = E ·", "a formula"),
    ("docs/privacy.md", "dCor² =", "a formula"),
    ("docs/scaling.md", "ρ = N λ S", "a formula"),
    ("docs/scaling.md", "W = C(k", "a formula"),
    ("docs/howto/infer.md", "281 tabby", "an answer of weights that are not here; the document says so"),
]
