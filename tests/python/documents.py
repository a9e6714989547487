"""Runs the examples of all documents: documents.py FOLDER [DOCUMENT]...

FOLDER has cloud-node and edge-node, which listen on their default ports: call it in a network of its own, as
.ci/examples does. Every block of code of every Markdown file is run, checked, or named with a reason in
document_tables.py; one that is none of that fails. What a document shows as output has to be what some command prints
here, but for the figures; that is compared only when all documents run. Prints a line for each block; exit code 1 if
one failed. Snippets run in this Python, or where it lacks a package in that of CLEAVE_TEST_PYTHON or .venv (which
scripts/test makes); where both do, they are skipped.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import document_checks as checks
import document_files
import document_tables as tables
from document_blocks import blocks, commands
from document_nodes import ROOT, Failed, Sandbox

OWN = re.compile(r"\b(edge-node|cloud-node|curl|sed|export)\b")
ELSEWHERE = re.compile(
    r"^(docker|kubectl|helm|cargo|git|pip|python3?|\.venv|scripts|benches|for \w+ in cloud edge)\b|^[A-Z_]+=\S+ docker "
)


class Skipped(Exception):
    pass


def documents(names):
    """README, the book in its order, then all others that are under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    summary = (ROOT / "docs/SUMMARY.md").read_text(encoding="utf-8")
    book = [f"docs/{name}" for name in re.findall(r"\]\(([^)]+\.md)\)", summary)]
    ordered = ["README.md", *book, *(name for name in sorted(listed) if name not in book and name != "README.md")]
    return [name for name in ordered if (not names or name in names) and (ROOT / name).is_file()]


def find_pythons():
    """With the Python client, which .ci/examples installs, and with the packages of the tests."""
    tests = os.environ.get("CLEAVE_TEST_PYTHON", str(ROOT / ".venv/bin/python"))
    return [sys.executable, *([tests] if Path(tests).exists() else [])]


class Run:
    """All documents, one after the other. What they showed as output is compared when all has been printed."""

    def __init__(self, folder, programs):
        self.folder, self.programs, self.pythons = folder, programs, find_pythons()
        self.printed, self.outputs, self.failures, self.counts = [], [], [], {}
        self.done, self.excepted = set(), set()

    def prepare(self):
        """What every document finds: the files that it names, a run called before."""
        self.fresh, self.template = self.folder / "fresh", self.folder / "trained"
        with Sandbox(self.fresh, self.programs):
            pass
        with Sandbox(self.template, self.programs, self.fresh) as sandbox:
            sandbox.command("edge-node train --run before")

    def document(self, name):
        self.sandbox = None
        found = blocks(name, (ROOT / name).read_text(encoding="utf-8"))
        self.heading = checks.sections(name, ROOT)
        for block in found:
            self.block(block)
        for line, expected in tables.SHOWN.get(name, []):
            self.shown(name, line, expected)
        if self.sandbox is not None:
            try:
                self.sandbox.__exit__()
            except Failed as failed:
                self.fail(name, "nodes", failed)
            self.printed += self.sandbox.printed
            shutil.rmtree(self.sandbox.folder)

    def place(self, document):
        if self.sandbox is None:
            template = self.fresh if document in tables.FRESH else self.template
            self.sandbox = Sandbox(self.folder / "document", self.programs, template)
        return self.sandbox

    def shown(self, name, line, expected):
        """What a document has the output of and not the command."""
        try:
            self.place(name).command(line, expected)
        except Failed as failed:
            self.fail(name, "shown", failed)

    def block(self, block):
        exception = next((e for e in tables.EXCEPTIONS if e[0] == block.document and e[1] in block.text), None)
        self.excepted.add(exception)
        kind = "exception" if exception else block.kind()
        begin = time.monotonic()
        try:
            if kind is None:
                raise Failed("of no kind that is known: give the fence a language, or name it in document_tables.py")
            what = exception[2] if exception else getattr(self, f"do_{kind}")(block)
        except Skipped as skipped:
            self.counts["SKIPPED"] = self.counts.get("SKIPPED", 0) + 1
            print(f"{block.where}: {kind}: !!! SKIPPED: {skipped}", flush=True)
            return
        except (Failed, OSError, SyntaxError, tomllib.TOMLDecodeError) as failed:
            self.fail(block.where, kind, failed)
            return
        if what is not None:
            self.say(block.where, kind, what, begin)

    def say(self, where, kind, what, begin=None):
        self.counts[kind] = self.counts.get(kind, 0) + 1
        took = f", {time.monotonic() - begin:.1f} s" if begin and time.monotonic() - begin > 0.1 else ""
        print(f"{where}: {kind}: ok{': ' + what if what else ''}{took}", flush=True)

    def fail(self, where, kind, failed):
        self.failures.append(where)
        print(f"{where}: {kind}: FAILED\n{failed}", flush=True)

    # What is typed

    def do_shell(self, block):
        if len(block.lines) > len(list(commands(block))) and block.lines[0].startswith("$ "):
            self.outputs.append((block, [line for line in block.lines if not line.startswith("$ ")]))
        lines = [strip(line) for line in commands(block)]
        if any(line.startswith("export ") and "PATH=" not in line for line in lines):
            lines = ["\n".join(lines)]
        return ", ".join(self.command(line, block) for line in lines)

    def do_examples(self, block):
        said = []
        for line in commands(block):
            if line in self.done:
                said.append("as before")
                continue
            said.append(self.command(line, block))
            if self.sandbox:
                self.sandbox.forget()
        return ", ".join(said)

    def command(self, line, block):
        self.done.add(line)
        if ELSEWHERE.search(line):
            return checks.exists(line)
        if not OWN.search(line):
            raise Failed(f"{line}: a command that is not known: run it, or check that it is there")
        if "target/release:$PATH" in line:
            return "the folder is another here"
        for pattern, replacement in tables.REPLACED:
            line = re.sub(pattern, replacement, line)
        if why := next((why for pattern, why in tables.PARSED if re.search(pattern, line)), None):
            self.place(block.document).run(["bash", "-c", f"{line} --help"], line)
            return f"parsed ({why})"
        sandbox = self.place(block.document)
        for name, pattern, before in tables.BEFORE:
            if name in ("", block.document) and re.search(pattern, line):
                sandbox.prepare(before)
        sandbox.command(line)
        return "ran"

    # What is written

    def do_python(self, block):
        text = block.text
        for pattern, replacement in tables.SNIPPET_REPLACED:
            text = re.sub(pattern, replacement, text)
        code = checks.program(text)
        python, missing = checks.missing_packages(self.pythons, code)
        if missing:
            raise Skipped(f"{self.pythons[-1]} has no {', '.join(missing)}")
        sandbox = self.place(block.document)
        sandbox.ensure(next((stage for pattern, stage in tables.STAGES if re.search(pattern, text)), None))
        for name, folder in tables.MAKES:
            if name == block.document and folder in text:
                shutil.rmtree(sandbox.folder / folder)
        sandbox.run([python, "-c", code], text)
        return "ran"

    def do_toml(self, block):
        name = self.file_name(block)
        if name:
            self.write(block, name)
            if "[trace]" in block.text:
                return f"{name}, which the next commands read"
            self.inspect(block, tomllib.loads(block.text), name)
            return name
        values = tomllib.loads(block.text)
        for part in reversed(self.heading(block.line)):
            values = {part: values}
        for name, text, more in tables.SNIPPET_WITH:
            if name == block.document and text in block.text:
                values = checks.merged(values, more)
        self.inspect(
            block, checks.merged(tomllib.loads((ROOT / "config/cleave.toml").read_text()), values), "snippet.toml"
        )
        return "over the default"

    def inspect(self, block, values, name):
        """inspect refuses what either node would."""
        sandbox = self.place(block.document)
        path = sandbox.folder / name
        if name == "snippet.toml":
            path.write_text(checks.toml(values))
        sandbox.run(
            ["edge-node", "inspect", "--config", name], f"edge-node inspect --config {name}, with\n{block.text}"
        )

    def do_yaml(self, block):
        config = re.search(r"^config: \|\n((?:  .*\n?)+)", block.text, re.M)
        if config:
            values = tomllib.loads(re.sub(r"^  ", "", config[1], flags=re.M))
            default = tomllib.loads((ROOT / "config/cleave.toml").read_text())
            self.inspect(block, checks.merged(default, values), "snippet.toml")
        return checks.yaml_names(block.text)

    # What is read

    def do_text(self, block):
        name = self.file_name(block)
        if name:
            self.write(block, name)
            return name
        return ""

    def do_drawing(self, block):
        return ""

    def do_output(self, block):
        self.outputs.append((block, block.lines))
        return None

    def file_name(self, block):
        files = tables.FILES.get(block.document, {})
        return next((name for text, name in files.items() if text in block.text), None)

    def write(self, block, name):
        path = self.place(block.document).folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = block.lines
        text = (
            document_files.flowers(lines) if "flowers.csv" in name else "\n".join(x for x in lines if x != "...") + "\n"
        )
        path.write_text(text)

    def compare(self):
        """Each line that a document shows is a line that something printed, but for its figures."""
        printed = checks.Printed(self.printed)
        for block, lines in self.outputs:
            strange = [line for line in lines if not printed.has(line)]
            if strange:
                self.fail(block.where, "output", Failed("no command printed:\n" + "\n".join(strange)))
            else:
                self.say(block.where, "output", "as printed")
        for name, text, _ in set(tables.EXCEPTIONS) - self.excepted:
            self.fail(name, "exception", f"no block has {text!r}; take it out of document_tables.py")


def strip(line):
    """Without the comment at its end."""
    return "\n".join(re.sub(r"\s+#\s.*$", "", part) for part in line.splitlines())


def main():
    programs = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="cleave-examples-") as folder:
        run = Run(Path(folder), programs)
        run.prepare()
        names = documents(sys.argv[2:])
        for name in names:
            run.document(name)
        # What one document shows, another may have printed.
        if not sys.argv[2:]:
            run.compare()
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(run.counts.items()))
    print(f"{len(names)} documents, {sum(run.counts.values())} blocks in order: {counts}; {len(run.failures)} failed")
    sys.exit(1 if run.failures else 0)


main()
