"""What is checked of an example that cannot run here, and what a snippet is made into so that it can."""

import ast
import json
import re
import subprocess
import tomllib
from collections import Counter

import document_tables as tables
from document_nodes import ROOT, Failed

# Folders of the repository that commands name.
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "target"))}
LINKS = r"(5g-[a-z-]+[a-z]|lte|wifi|mine/train\.toml)"


def exists(line):
    """That what a command names is in the tree: programs, packages, scripts and their options, files."""
    for part in re.split(r"&&|\n", line):
        words = [
            word
            for word in re.sub(r"\s#.*", "", part).replace("'", "").split()
            if not re.match(r"(for|do|done|[A-Z_]+=.*)$", word)
        ]
        if not words:
            continue
        for word in words:
            path = word.removeprefix("./").split("[")[0].split("=")[-1]
            written = words[max(0, words.index(word) - 1)] in ("--output", "--results", "--measured")
            if path.split("/")[0] in FOLDERS and "/" in path and not written and not (ROOT / path).exists():
                raise Failed(f"{line}: {path} is not in the repository")
        program = ROOT / words[0]
        if "/" in words[0] and not words[0].startswith(".venv"):
            script(line, program, words[1:])
        elif words[0] == "cargo":
            cargo(line, words)
        elif words[0] == "docker" or "docker" in words[:2]:
            docker(line, words)
        elif words[0] == "helm":
            names = [word.split("=")[0] for before, word in zip(words, words[1:]) if before == "--set"]
            yaml_names("".join(f"{name.split('.')[-1]}:\n" for name in names))
    return "there"


def script(line, program, words):
    if not program.stat().st_mode & 0o100:
        raise Failed(f"{line}: {program} is not executable")
    beside = [*program.parent.glob(program.name.replace("-", "_") + "*/*.py"), program]
    sources = "".join(path.read_text(encoding="utf-8") for path in beside)
    for word in words:
        if word.startswith("--") and word.split("=")[0] not in sources:
            raise Failed(f"{line}: {program.name} has no {word}")


def cargo(line, words):
    manifests = [tomllib.loads(path.read_text()) for path in ROOT.glob("*/Cargo.toml")]
    packages = {manifest["package"]["name"] for manifest in manifests if "package" in manifest}
    for option, word in zip(words, words[1:]):
        if option in ("-p", "--package") and word not in packages:
            raise Failed(f"{line}: no package {word}")
        examples = [*ROOT.glob(f"*/examples/{word}.rs"), *ROOT.glob(f"*/examples/{word}/main.rs")]
        if option == "--example" and not examples:
            raise Failed(f"{line}: no example {word}")


def docker(line, words):
    compose, dockerfile = (ROOT / name for name in ("docker-compose.yml", "Dockerfile"))
    for option, word in zip(words, words[1:]):
        if option == "--target" and not re.search(rf"(?mi)^FROM .* AS {word}$", dockerfile.read_text()):
            raise Failed(f"{line}: the Dockerfile has no target {word}")
        if option == "--profile" and word not in re.findall(r"profiles: \[(.*)\]", compose.read_text()):
            raise Failed(f"{line}: docker-compose.yml has no profile {word}")


def yaml_names(text):
    """Names of a snippet are those of the chart's values, or of kustomize's file beside the manifests."""
    known = (ROOT / "deploy/helm/cleave/values.yaml").read_text() + "resources: images: name: newName:"
    text = re.sub(r"^config: \|\n(?:  .*\n?)+", "config:\n", text, flags=re.M)
    for name in re.findall(r"(?:^|[{,\s])(\w+):(?=\s)", text):
        if not re.search(rf"\b{name}:", known):
            raise Failed(f"{name} is not in deploy/helm/cleave/values.yaml")
    return "names are there"


# Python


def program(text):
    """A snippet as a program of its own: with what it takes for granted, at a prompt, or in a coroutine."""
    prelude = "".join(f"{line}\n" for pattern, line in tables.PRELUDE if re.search(pattern, text))
    if text.startswith(">>> "):
        typed = [line[4:] for line in text.splitlines() if line.startswith(">>> ")]
        return f"for typed in {typed!r}:\n    exec(compile(typed, 'typed', 'single'), globals())\n"
    if re.search(r"^async |^await ", text, re.M):
        inside = "".join(f"    {line}\n" for line in text.splitlines())
        return f"import asyncio\n{prelude}async def main():\n{inside}asyncio.run(main())\n"
    return prelude + text


def missing_packages(pythons, code):
    """The first Python that has all that a program imports; for none, what the last of them lacks."""
    missing = []
    for python in pythons:
        missing = missing_in(python, code)
        if not missing:
            return python, []
    return None, missing


def missing_in(python, code):
    typed = re.search(r"^for typed in (\[.*\]):$", code, re.M)
    tree = ast.parse("\n".join(ast.literal_eval(typed[1])) if typed else code)
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names = {name.split(".")[0] for name in names}
    test = "import importlib.util, sys; print(*(n for n in sys.argv[1:] if not importlib.util.find_spec(n)))"
    done = subprocess.run([python, "-c", test, *sorted(names)], capture_output=True, text=True, check=True)
    return done.stdout.split()


# Configuration


def sections(name, root):
    """For a line of a page, the section of the configuration that its heading names, as a list."""
    heads = [
        (number, match[1].split("."))
        for number, line in enumerate((root / name).read_text(encoding="utf-8").splitlines(), 1)
        if (match := re.match(r"^## \[([\w.]+)\]", line))
    ]
    return lambda line: next((parts for number, parts in reversed(heads) if number < line), [])


def merged(under, over):
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    return under | {name: merged(under.get(name), value) for name, value in over.items()}


def toml(values, prefix=""):
    """Each value on a line, under its whole name. TOML writes numbers, texts and lists as JSON does."""
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines.append(toml(value, f"{prefix}{name}."))
        else:
            lines.append(f"{prefix}{name} = {json.dumps(value)}\n")
    return "".join(lines)


# What is printed


def words_of(line):
    """What is left of a line when figures, times, links and machines are told to be equal."""
    line = re.sub(r"\x1b\[[0-9;]*m|^\d{4}-\S+Z\s+", "", line)
    line = re.sub(r"\s+#\s.*$", "", line)
    line = re.sub(r"edge (.*) × .*, cloud .*$", "edge E, cloud C", line)
    line = re.sub(r"\b[KMG]i?B\b", "B", re.sub(LINKS, "LINK", line))
    line = re.sub(r"\b(seed|run|first|before)-\d+\b", "WEIGHTS", line)
    line = re.sub(r"\b[0-9a-f]{16,}\b", "HASH", line)
    return Counter(re.findall(r"[^\W\d_]+", line))


class Printed:
    def __init__(self, texts):
        self.lines = {
            frozenset(words.items()): words for text in texts for line in text.splitlines() if (words := words_of(line))
        }

    def has(self, line):
        """Whether a line has nearly the words of one that was printed; a part such as the time left may be missing."""
        words = words_of(line)
        if not words:
            return True
        least, share = 0.8 * words.total(), 0.0 if line.endswith("...") else 0.7
        return any((words & printed).total() >= max(least, share * printed.total()) for printed in self.lines.values())
