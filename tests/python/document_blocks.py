"""The blocks of code in Markdown documents: where each begins, what it says it is, and the commands in it."""

import re
from dataclasses import dataclass, field

FENCE = re.compile(r"^ *(```+)(.*)$")
# What begins a line of an indented block that is to be typed, not read.
COMMANDS = "edge-node cloud-node docker kubectl helm cargo git pip python python3 curl sed export for".split()
TYPED = re.compile(rf"^(\$ |[A-Z][A-Z0-9_]*=\S+ |({'|'.join(COMMANDS)}) |(\.?/?[\w.-]+/)+[\w.-]+( |$))")
DRAWN = re.compile("[─│▶◀└┘┌┐]")


@dataclass
class Block:
    document: str
    line: int
    language: str | None  # of a fence; None: indented
    lines: list[str] = field(default_factory=list)

    @property
    def text(self):
        return "\n".join(self.lines)

    @property
    def where(self):
        return f"{self.document}:{self.line}"

    def kind(self):
        """What is done with it; None if that cannot be seen."""
        if self.language is None:
            # An error that a node prints begins with its name, and a colon.
            return "shell" if TYPED.match(self.lines[0]) else "output"
        if self.language == "text":
            return "examples" if "Examples:" in self.lines else "text"
        if not self.language:
            return "drawing" if DRAWN.search(self.text) else None
        return self.language if self.language in ("python", "toml", "yaml") else {"sh": "shell"}.get(self.language)


def blocks(document, text):
    """Fenced and indented blocks, in their order."""
    found, fence, blank = [], None, True
    for number, line in enumerate(text.splitlines(), 1):
        mark = FENCE.match(line)
        if fence is not None:
            if mark and mark[1] == fence and not mark[2].strip():
                fence = None
            else:
                found[-1].lines.append(line)
            blank = True
        elif mark:
            fence = mark[1]
            found.append(Block(document, number, mark[2].strip()))
        elif line.startswith("    ") and blank:
            found.append(Block(document, number, None, [line[4:]]))
            blank = None
        elif line.startswith("    ") and blank is None:
            found[-1].lines.append(line[4:])
        elif not line.strip() and blank is None:
            # An indented block goes on behind a blank line if what follows is indented.
            found[-1].lines.append("")
        else:
            blank = not line.strip()
    for block in found:
        while block.lines and not block.lines[-1].strip():
            block.lines.pop()
    return found


def commands(block):
    """What is typed, a command each: lines that go on, and loops, are one; comments stay."""
    lines, depth = [], 0
    for line in shell_lines(block):
        if lines and (lines[-1].endswith("\\") or depth):
            joined = lines[-1].removesuffix("\\") + (" " if lines[-1].endswith("\\") else "\n") + line.strip()
            lines[-1] = joined
        else:
            lines.append(line.strip())
        depth += len(re.findall(r"^\s*for ", line)) - len(re.findall(r"^\s*done\b", line))
    return [line for line in lines if line and not line.startswith("#")]


def shell_lines(block):
    if block.kind() == "examples":
        return example_lines(block)
    if block.lines[0].startswith("$ "):
        return [line[2:] for line in block.lines if line.startswith("$ ")]
    return block.lines


def example_lines(block):
    """Of a page of --help: what is behind the command is told by two blanks."""
    for line in block.lines[block.lines.index("Examples:") + 1 :]:
        if not line.startswith("  "):
            return
        yield re.split(r"\s{2,}", line.strip())[0]
